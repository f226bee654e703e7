package consensus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// rawTransport is what the Raft library needs of a transport.
type rawTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// transport stands between the Raft library and the network. Outgoing requests carry the identity they are meant for
// down to the dialer, and none leaves a node that has stopped.
type transport struct {
	rawTransport
	n *Node
	// stream is nil on an in-memory network.
	stream *stream
	// inbox is what the library reads instead of the raw transport's queue.
	inbox     chan raft.RPC
	inboxOnce sync.Once
	progress  progress
}

func (n *Node) openTransport() error {
	t := &transport{n: n, inbox: make(chan raft.RPC)}
	if n.cfg.Network != nil {
		t.rawTransport = n.cfg.Network.join(n.cfg.NodeID)
	} else {
		s, err := newStream(n)
		if err != nil {
			return err
		}
		t.stream = s
		t.rawTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s, MaxPool: 3, Timeout: rpcTimeout, Logger: newHCLog(n.log, "net"),
			// One request at a time on a connection: pipelining has wedged followers after a disk stall.
			MaxRPCsInFlight:         1,
			MsgpackUseNewTimeFormat: true,
		})
	}
	if n.cfg.wrapTransport != nil {
		t.rawTransport = n.cfg.wrapTransport(t.rawTransport)
	}
	n.trans = t
	return nil
}

// target puts the identity beside the address. The address is also the key of the library's connection pool, so a
// connection is never used for another identity.
func (t *transport) target(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	if t.n.cfg.Resolve != nil {
		addr = raft.ServerAddress(t.n.cfg.Resolve(string(id), string(addr)))
	}
	if t.stream == nil {
		return addr
	}
	return raft.ServerAddress(string(id) + "@" + string(addr))
}

// Consumer is the queue of requests from peers, corrected by receive on their way. Its goroutine ends when the node is closed.
func (t *transport) Consumer() <-chan raft.RPC {
	t.inboxOnce.Do(func() { go t.receive(t.rawTransport.Consumer()) })
	return t.inbox
}

// receive refuses snapshots, and lowers the leader's commit index in a request to the last entry that the request proves
// this node to share with the leader. The library, as a follower, takes the lower of the leader's commit index and its own last entry
// instead, whose term may be one that lost (Raft, figure 2, AppendEntries rule 5, says "index of last new entry").
func (t *transport) receive(from <-chan raft.RPC) {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-from:
		case <-t.n.closed:
			return
		}
		switch cmd := rpc.Command.(type) {
		case *raft.AppendEntriesRequest:
			if shared := cmd.PrevLogEntry + uint64(len(cmd.Entries)); cmd.LeaderCommitIndex > shared {
				// In memory the request is still the sender's.
				lowered := *cmd
				lowered.LeaderCommitIndex = shared
				rpc.Command = &lowered
			}
		case *raft.InstallSnapshotRequest:
			rpc.Respond(nil, errNoSnapshots)
			continue
		}
		select {
		case t.inbox <- rpc:
		case <-t.n.closed:
			return
		}
	}
}

// alive is nil while the node may speak.
func (t *transport) alive() error {
	if t.n.store.isDead() {
		return ErrClosed
	}
	return nil
}

func (t *transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.alive(); err != nil {
		return err
	}
	err := t.rawTransport.AppendEntries(id, t.target(id, addr), args, resp)
	if err == nil {
		t.progress.see(string(id), args, resp)
	}
	return err
}

func (t *transport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.alive(); err != nil {
		return err
	}
	return t.rawTransport.RequestVote(id, t.target(id, addr), args, resp)
}

func (t *transport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.alive(); err != nil {
		return err
	}
	return t.rawTransport.RequestPreVote(id, t.target(id, addr), args, resp)
}

func (t *transport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if err := t.alive(); err != nil {
		return err
	}
	return t.rawTransport.TimeoutNow(id, t.target(id, addr), args, resp)
}

func (t *transport) InstallSnapshot(raft.ServerID, raft.ServerAddress, *raft.InstallSnapshotRequest, *raft.InstallSnapshotResponse, io.Reader) error {
	return errNoSnapshots
}

// SetHeartbeatHandler is the last thing the library does before it starts its goroutines: until now a storage error went
// back to Open, from now on it stops the node.
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.n.store.arm()
	t.rawTransport.SetHeartbeatHandler(handle)
}

// silence cuts every connection of a node that has stopped.
func (t *transport) silence() {
	if t.stream != nil {
		t.stream.cut()
	}
}

// Close closes the listener and all connections. It may be called twice.
func (t *transport) Close() error {
	err := t.rawTransport.Close()
	if nt, ok := t.rawTransport.(*raft.NetworkTransport); ok {
		nt.CloseStreams()
	}
	return err
}

// stream is the listener and dialer below the library's transport.
type stream struct {
	n         *Node
	log       *slog.Logger
	listener  net.Listener
	advertise net.Addr
	server    *tls.Config
	client    *tls.Config

	// mu guards what follows.
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	count  int
	peers  map[string]int
	closed bool
}

// textAddr is an address that need not be an IP.
type textAddr string

func (a textAddr) Network() string { return "tcp" }
func (a textAddr) String() string  { return string(a) }

func newStream(n *Node) (*stream, error) {
	s := &stream{n: n, log: n.log, conns: make(map[net.Conn]struct{}), peers: make(map[string]int)}
	s.listener = n.cfg.Listener
	if s.listener == nil {
		l, err := net.Listen("tcp", n.cfg.BindAddr)
		if err != nil {
			return nil, fmt.Errorf("listen for peers: %w", err)
		}
		s.listener = l
	}
	s.advertise = textAddr(n.cfg.AdvertiseAddr)
	if n.cfg.AdvertiseAddr == "" {
		s.advertise = s.listener.Addr()
		if a, ok := s.advertise.(*net.TCPAddr); ok && (a.IP == nil || a.IP.IsUnspecified()) {
			s.listener.Close()
			return nil, fmt.Errorf("listen for peers: %q is not an address that others can dial: set the advertised address", a)
		}
	}
	if n.cfg.ServerTLS != nil {
		s.server, s.client = n.cfg.ServerTLS.Clone(), n.cfg.ClientTLS.Clone()
		// Identity is checked on each connection: a resumed session would skip the peer's certificate.
		s.server.MinVersion, s.server.SessionTicketsDisabled = tls.VersionTLS13, true
		s.client.MinVersion, s.client.ClientSessionCache = tls.VersionTLS13, nil
	}
	return s, nil
}

// Addr is the address others dial.
func (s *stream) Addr() net.Addr { return s.advertise }

// Close stops listening and cuts all connections.
func (s *stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cut()
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// cut closes all connections, both directions.
func (s *stream) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// track registers a connection, or reports that it must not exist.
func (s *stream) track(c net.Conn, inbound bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.n.store.isDead() || inbound && s.count >= maxConns {
		return false
	}
	s.conns[c] = struct{}{}
	if inbound {
		s.count++
	}
	return true
}

// Accept returns connections whose handshake has not begun: it happens at the first read, in the goroutine that serves the
// connection, so that a slow peer holds up nobody.
func (s *stream) Accept() (net.Conn, error) {
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			return nil, err
		}
		tune(raw)
		if !s.track(raw, true) {
			s.n.metrics.refused.Inc()
			raw.Close()
			continue
		}
		c := &inbound{Conn: raw, raw: raw, s: s}
		c.filter.requests = true
		c.filter.permit = c.permit
		return c, nil
	}
}

// Dial connects to "id@host:port" and returns only if the peer there proves to be id.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	at := strings.LastIndexByte(string(address), '@')
	if at < 0 {
		return nil, fmt.Errorf("dial %q: no identity is expected there", address)
	}
	id, addr := string(address[:at]), string(address[at+1:])
	raw, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", id, err)
	}
	tune(raw)
	if !s.track(raw, false) {
		raw.Close()
		return nil, fmt.Errorf("dial %q: %w", id, ErrClosed)
	}
	c := &outbound{Conn: raw, raw: raw, s: s}
	if s.client == nil {
		return c, nil
	}
	cfg := s.client
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("dial %q: %w", id, err)
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	t := tls.Client(raw, cfg)
	c.Conn = t
	raw.SetDeadline(time.Now().Add(min(timeout, handshakeTimeout)))
	if err := t.Handshake(); err != nil {
		c.Close()
		return nil, fmt.Errorf("dial %q: %w", id, err)
	}
	raw.SetDeadline(time.Time{})
	got, err := s.n.cfg.PeerID(t.ConnectionState())
	if err == nil && got != id {
		err = &PeerError{ID: got, Reason: fmt.Sprintf("it answers at %q, where %q was expected", addr, id)}
	}
	if err != nil {
		c.Close()
		s.n.metrics.refused.Inc()
		return nil, fmt.Errorf("dial %q: %w", id, err)
	}
	c.filter.id = id
	return c, nil
}

// outbound is a connection this node dialed. Answers are checked for shape and size.
type outbound struct {
	net.Conn
	raw    net.Conn
	s      *stream
	filter filter
	once   sync.Once
}

func (c *outbound) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		if err := c.filter.feed(p[:n]); err != nil {
			c.s.n.metrics.refused.Inc()
			c.Close()
			return 0, err
		}
	}
	return n, err
}

func (c *outbound) Close() error {
	c.once.Do(func() {
		c.s.mu.Lock()
		delete(c.s.conns, c.raw)
		c.s.mu.Unlock()
	})
	return c.raw.Close()
}

// inbound is a connection a peer dialed.
type inbound struct {
	net.Conn
	raw    net.Conn
	s      *stream
	filter filter
	ready  bool
	timed  bool
	once   sync.Once
	// id is set, under s.mu, once the peer has a place in s.peers.
	id string
}

// Read returns bytes only of a proven peer and only of well-formed frames that it may send.
func (c *inbound) Read(p []byte) (int, error) {
	if !c.ready {
		if err := c.handshake(); err != nil {
			c.refuse(err)
			return 0, io.EOF
		}
		c.ready = true
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		if err := c.filter.feed(p[:n]); err != nil {
			c.refuse(err)
			return 0, io.EOF
		}
	}
	// A frame that has begun must end; between frames a peer may be silent for as long as it likes.
	if mid := c.filter.midFrame(); mid != c.timed {
		c.timed = mid
		var deadline time.Time
		if mid {
			deadline = time.Now().Add(frameTimeout)
		}
		c.raw.SetReadDeadline(deadline)
	}
	return n, err
}

// Write is only asked of connections that have delivered a frame.
func (c *inbound) Write(p []byte) (int, error) {
	if c.s.n.store.isDead() {
		return 0, ErrClosed
	}
	c.raw.SetWriteDeadline(time.Now().Add(rpcTimeout))
	return c.Conn.Write(p)
}

func (c *inbound) refuse(err error) {
	c.s.n.metrics.refused.Inc()
	c.s.log.Warn("peer refused", "remote", c.raw.RemoteAddr().String(), "error", err.Error())
	c.Close()
}

func (c *inbound) handshake() error {
	s := c.s
	if s.server == nil {
		select {
		case <-s.n.started:
		case <-s.n.closed:
			return ErrClosed
		}
		return nil
	}
	t := tls.Server(c.raw, s.server)
	c.raw.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("shake hands: %w", err)
	}
	c.raw.SetDeadline(time.Time{})
	id, err := s.n.cfg.PeerID(t.ConnectionState())
	if err != nil {
		return fmt.Errorf("identify peer: %w", err)
	}
	if id == "" || id == s.n.cfg.NodeID {
		return &PeerError{ID: id, Reason: "identity is empty or this node's own"}
	}
	s.mu.Lock()
	full := s.peers[id] >= maxConnsPerPeer
	if !full {
		s.peers[id]++
		c.id = id
	}
	s.mu.Unlock()
	if full {
		return &PeerError{ID: id, Reason: "too many connections"}
	}
	c.Conn, c.filter.id = t, id
	select {
	case <-s.n.started:
	case <-s.n.closed:
		return ErrClosed
	}
	return nil
}

func (c *inbound) Close() error {
	c.once.Do(func() {
		s := c.s
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c.raw)
		s.count--
		if c.id != "" {
			if s.peers[c.id]--; s.peers[c.id] == 0 {
				delete(s.peers, c.id)
			}
		}
	})
	return c.raw.Close()
}

// permit decides whether the proven peer may send a request of this kind now; it is asked for every frame, so a removal
// takes effect on open connections.
//
// Members of this node's latest configuration may send anything. A node of the same cluster that this configuration
// lacks may be a removed one, which must not disturb, or the leader of a configuration this node has not received yet,
// which must be heard or this node never catches up. It may only replicate, and only if this node follows it already
// or has no leader: at once if this node has no vote, after ten election timeouts without contact if it has.
func (c *inbound) permit(kind byte) error {
	n := c.s.n
	if n.store.isDead() {
		return ErrClosed
	}
	id := c.filter.id
	if id == "" {
		return nil
	}
	if _, ok := n.server(id); ok {
		return nil
	}
	if kind != kindAppendEntries {
		return &PeerError{ID: id, Reason: "not a member"}
	}
	_, leader := n.raft.LeaderWithID()
	if string(leader) == id {
		return nil
	}
	if leader == "" {
		self, ok := n.server(n.cfg.NodeID)
		if !ok || !self.Voter || time.Since(n.raft.LastContact()) > 10*n.cfg.Election {
			return nil
		}
	}
	return &PeerError{ID: id, Reason: "not a member"}
}
