package consensus

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// recorder is a connection that keeps what is written and answers nothing.
type recorder struct {
	net.Conn
	bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error)      { return r.Buffer.Write(p) }
func (r *recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (r *recorder) Close() error                     { return nil }
func (r *recorder) SetDeadline(time.Time) error      { return nil }
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// dialer is a stream layer that only dials.
type dialer struct {
	dial func() (net.Conn, error)
	stop chan struct{}
}

func (d *dialer) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return d.dial() }
func (d *dialer) Accept() (net.Conn, error)                                { <-d.stop; return nil, net.ErrClosed }
func (d *dialer) Close() error                                             { close(d.stop); return nil }
func (d *dialer) Addr() net.Addr                                           { return textAddr("nowhere:1") }

func newDialer(t testing.TB, dial func() (net.Conn, error)) *raft.NetworkTransport {
	nt := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &dialer{dial, make(chan struct{})}, MaxPool: 1, Timeout: 2 * time.Second, MaxRPCsInFlight: 1,
		Logger: discardHCLog(), MsgpackUseNewTimeFormat: true})
	t.Cleanup(func() { nt.Close(); nt.CloseStreams() })
	return nt
}

func header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte("addr:1")}
}

// requests returns what the library sends for each kind of request by id.
func requests(t testing.TB, id string) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	for name, send := range map[string]func(*raft.NetworkTransport) error{
		"append": func(n *raft.NetworkTransport) error {
			return n.AppendEntries("x", "y", &raft.AppendEntriesRequest{RPCHeader: header(id), Term: 5, PrevLogEntry: 7, PrevLogTerm: 4,
				LeaderCommitIndex: 1 << 40, Entries: []*raft.Log{
					{Index: 8, Term: 5, Data: bytes.Repeat([]byte("d"), 70000), AppendedAt: time.Now()},
					{Index: 9, Term: 5, Type: raft.LogConfiguration, Data: []byte("ID"), Extensions: tickExtension},
				}}, &raft.AppendEntriesResponse{})
		},
		"heartbeat": func(n *raft.NetworkTransport) error {
			return n.AppendEntries("x", "y", &raft.AppendEntriesRequest{RPCHeader: header(id), Term: 5}, &raft.AppendEntriesResponse{})
		},
		"vote": func(n *raft.NetworkTransport) error {
			return n.RequestVote("x", "y", &raft.RequestVoteRequest{RPCHeader: header(id), Term: 5, LeadershipTransfer: true}, &raft.RequestVoteResponse{})
		},
		"prevote": func(n *raft.NetworkTransport) error {
			return n.RequestPreVote("x", "y", &raft.RequestPreVoteRequest{RPCHeader: header(id), Term: 5}, &raft.RequestPreVoteResponse{})
		},
		"timeout": func(n *raft.NetworkTransport) error {
			return n.TimeoutNow("x", "y", &raft.TimeoutNowRequest{RPCHeader: header(id)}, &raft.TimeoutNowResponse{})
		},
	} {
		rec := &recorder{}
		err := send(newDialer(t, func() (net.Conn, error) { return rec, nil }))
		if !errors.Is(err, io.EOF) || rec.Len() == 0 {
			t.Fatalf("record %s: %d bytes, %v", name, rec.Len(), err)
		}
		out[name] = bytes.Clone(rec.Bytes())
	}
	return out
}

func newFilter(id string) *filter { return &filter{requests: true, id: id} }

func TestFilterPassesTheLibrary(t *testing.T) {
	var all []byte
	for name, frame := range requests(t, "path/of/a") {
		f := newFilter("path/of/a")
		if err := f.feed(frame); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if f.midFrame() {
			t.Errorf("%s: frame did not end", name)
		}
		// Every prefix is a frame under way, every single byte a chunk.
		f = newFilter("path/of/a")
		for i := range frame {
			if err := f.feed(frame[i : i+1]); err != nil {
				t.Fatalf("%s byte %d: %v", name, i, err)
			}
			if got, want := f.midFrame(), i < len(frame)-1; got != want {
				t.Fatalf("%s byte %d: mid-frame %v, want %v", name, i, got, want)
			}
		}
		if err := newFilter("path/of/b").feed(frame); err == nil || !strings.Contains(err.Error(), "claims to come from") {
			t.Errorf("%s as another sender: got %v, want a refusal", name, err)
		}
		all = append(all, frame...)
	}
	if err := newFilter("path/of/a").feed(all); err != nil {
		t.Errorf("all in one chunk: %v", err)
	}
	for name, frame := range requests(t, "") {
		if err := newFilter("a").feed(frame); err == nil {
			t.Errorf("%s without sender: got success, want a refusal", name)
		}
	}
}

func TestFilterRefuses(t *testing.T) {
	for name, b := range map[string]string{
		"kind":               "\x09",
		"install snapshot":   "\x02\x80",
		"not a map":          "\x00\x01",
		"array as struct":    "\x00\x91\x01",
		"no sender":          "\x00\x80",
		"reserved byte":      "\x00\x81\xa1x\xc1",
		"number as name":     "\x00\x81\x01\x01",
		"long name":          "\x00\x81\xd9\x21",
		"nil sender":         "\x00\x81\xa2ID\xc0",
		"sender is a list":   "\x00\x81\xa2ID\x91\x01",
		"wrong sender":       "\x00\x81\xa2ID\xa1b",
		"second sender":      "\x00\x82\xa2ID\xa1a\xa2ID\xa1b",
		"long sender":        "\x00\x81\xa2ID\xda\x10\x00",
		"sender too deep":    "\x00\x81\xa1x\x81\xa2ID\xa1a",
		"four gigabytes":     "\x00\x81\xa1x\xc6\xff\xff\xff\xff",
		"string":             "\x00\x81\xa1x\xdb\x00\xff\xff\xff",
		"huge array":         "\x00\x81\xa1x\xdd\xff\xff\xff\xff",
		"too many entries":   "\x00\x81\xa1x\xdc\x01\x01",
		"huge map":           "\x00\xdf\xff\xff\xff\xff",
		"too many fields":    "\x00\xde\x00\x21",
		"nesting":            "\x00\x81\xa1x\x91\x91\x91\x91",
		"large extension":    "\x00\x81\xa1x\xc8\x10\x00\x01",
		"second frame wrong": "\x00\x81\xa2ID\xa1a\x07",
	} {
		f := newFilter("a")
		err := f.feed([]byte(b))
		var pe *PeerError
		if !errors.As(err, &pe) {
			t.Errorf("%s: got %v, want a PeerError", name, err)
		}
	}
	// A frame of legal parts that never ends is cut at its bound.
	f := newFilter("a")
	big := append([]byte("\x00\xde\x00\x20"), 0)[:4]
	var err error
	entry := append([]byte("\xa1x\xdc\x01\x00"), bytes.Repeat(append([]byte("\xc6\x00\x04\x40\x00"), make([]byte, MaxCommandSize)...), maxAppendEntries)...)
	for i := 0; i < 3 && err == nil; i++ {
		if i == 0 {
			err = f.feed(big)
		}
		if err == nil {
			err = f.feed(entry)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("endless frame: got %v, want a refusal", err)
	}
}

func FuzzFilter(f *testing.F) {
	for _, frame := range requests(f, "a") {
		if len(frame) < 4096 {
			f.Add(frame, uint8(3))
		}
	}
	f.Add([]byte("\x00\x82\xa2ID\xa1a\xa1x\xdc\x00\x01\xc7\x01\x05\x00"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, chunk uint8) {
		for _, requests := range []bool{true, false} {
			whole := filter{requests: requests, id: "a"}
			want := whole.feed(b)
			parts := filter{requests: requests, id: "a"}
			var got error
			for rest := b; len(rest) > 0 && got == nil; {
				n := min(len(rest), int(chunk)+1)
				got = parts.feed(rest[:n])
				rest = rest[n:]
			}
			if (got == nil) != (want == nil) {
				t.Errorf("in chunks of %d: got %v, want %v", int(chunk)+1, got, want)
			}
		}
	})
}

func FuzzHistory(f *testing.F) {
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "b"}}})
	f.Add(encodeHistory([]configurationAt{{1, conf}, {9, conf}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHistory(b)
		if err != nil {
			return
		}
		if got := encodeHistory(h); !bytes.Equal(got, b) {
			t.Errorf("got %x, want %x", got, b)
		}
	})
}

// FuzzPeerPort throws bytes at the listener of a running node.
func FuzzPeerPort(f *testing.F) {
	c := &cluster{t: f, members: make(map[string]*member)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	m := &member{id: "a", dir: f.TempDir(), sm: &memSM{}}
	m.cfg = Config{NodeID: "a", DataDir: m.dir, StateMachine: m.sm, Listener: l, Bootstrap: []Server{{ID: "a", Voter: true}}}
	c.members["a"] = m
	c.start("a")
	f.Cleanup(c.stopAll)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01})
	for _, frame := range requests(f, "b") {
		if len(frame) < 4096 {
			f.Add(frame[:len(frame)-1])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(b)
		_ = conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("connection stays open: %v", err)
		}
		if len(m.fatals) > 0 {
			t.Errorf("node stopped: %v", (<-m.fatals).err)
		}
	})
}

// Who holds a certificate of the right authority but not of a member, or claims to be another, changes nothing.
func TestRaft31PeersAreBoundToTheirIdentity(t *testing.T) {
	pki := newPKI(t)
	other := newPKI(t)
	c := newCluster(t, 3, pki, nil)
	l := c.leader()
	c.propose(l, "one")
	term := l.node.State().Term
	for _, tt := range []struct {
		name, cert, claim string
		pki               *testPKI
	}{
		{"an agent", "agent/b", "b", pki},
		{"a node that is no member", "z", "z", pki},
		{"a node that is no member and claims to be one", "z", "b", pki},
		{"a member that claims to be another", "b", "c", pki},
		{"the node itself", l.id, l.id, pki},
		{"another authority", "b", "b", other},
	} {
		// The victim is the leader, or another node where the certificate is the leader's own and should not be.
		victim := l
		if tt.cert == l.id && tt.name != "the node itself" {
			for id, m := range c.members {
				if id != "b" && id != tt.claim {
					victim = m
				}
			}
		}
		_, client := tt.pki.config(t, tt.cert)
		client.RootCAs = pki.pool
		nt := newDialer(t, func() (net.Conn, error) { return tls.Dial("tcp", victim.node.Addr(), client) })
		before := victim.node.State()
		err := nt.AppendEntries("x", "y", &raft.AppendEntriesRequest{RPCHeader: header(tt.claim), Term: term + 1000}, &raft.AppendEntriesResponse{})
		if err == nil {
			t.Errorf("%s: append entries: got an answer, want a closed connection", tt.name)
		}
		nt = newDialer(t, func() (net.Conn, error) { return tls.Dial("tcp", victim.node.Addr(), client) })
		if err := nt.RequestVote("x", "y", &raft.RequestVoteRequest{RPCHeader: header(tt.claim), Term: term + 1000, LeadershipTransfer: true}, &raft.RequestVoteResponse{}); err == nil {
			t.Errorf("%s: request vote: got an answer, want a closed connection", tt.name)
		}
		if got := victim.node.State(); got.Term != before.Term {
			t.Errorf("%s: term: got %d, want %d", tt.name, got.Term, before.Term)
		}
	}
	// The same path with the right identity works, so the refusals above are not accidents.
	var follower *member
	for id, m := range c.members {
		if id != l.id {
			follower = m
			break
		}
	}
	_, client := pki.config(t, l.id)
	nt := newDialer(t, func() (net.Conn, error) { return tls.Dial("tcp", follower.node.Addr(), client) })
	if err := nt.RequestPreVote("x", "y", &raft.RequestPreVoteRequest{RPCHeader: header(l.id), Term: 0}, &raft.RequestPreVoteResponse{}); err != nil {
		t.Errorf("a member as itself: got %v, want an answer", err)
	}
	c.propose(c.leader(), "two")
}

// The address in a request is only what its sender says. Others are told, and dial, the address that the configuration has for the
// proven identity; whoever answers there must prove it again.
func TestAddressInARequestIsNotBelieved(t *testing.T) {
	pki := newPKI(t)
	c := newCluster(t, 3, pki, nil)
	l := c.leader()
	c.propose(l, "one")
	var f *member
	for _, m := range c.members {
		if m != l {
			f = m
		}
	}
	_, client := pki.config(t, l.id)
	nt := newDialer(t, func() (net.Conn, error) { return tls.Dial("tcp", f.node.Addr(), client) })
	h := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(l.id), Addr: []byte("attacker.example:1")}
	if err := nt.AppendEntries("x", "y", &raft.AppendEntriesRequest{RPCHeader: h, Term: l.node.State().Term}, &raft.AppendEntriesResponse{}); err != nil {
		t.Fatalf("heartbeat: %v", err)
	}
	for range 100 {
		if got := f.node.State().Leader; got.ID != "" && (got.ID != l.id || got.Addr != l.node.Addr()) {
			t.Fatalf("leader: got %+v, want %s at %s", got, l.id, l.node.Addr())
		}
	}
	var nl *NotLeaderError
	if _, _, err := f.node.Propose(t.Context(), []byte("x")); errors.As(err, &nl) && nl.Leader.ID != "" && nl.Leader.Addr != l.node.Addr() {
		t.Errorf("refusal names %+v, want %s at %s", nl.Leader, l.id, l.node.Addr())
	}
	c.propose(c.leader(), "two")
}

// A node must not speak to whoever has taken over the address of a member.
func TestDialVerifiesIdentity(t *testing.T) {
	pki := newPKI(t)
	c := newCluster(t, 1, pki, nil)
	a := c.leader()
	server, _ := pki.config(t, "mallory")
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan int, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		n, _ := conn.Read(make([]byte, 1))
		got <- n
	}()
	_, err = a.node.trans.stream.Dial(raft.ServerAddress("b@"+l.Addr().String()), time.Second)
	var pe *PeerError
	if !errors.As(err, &pe) || pe.ID != "mallory" {
		t.Errorf("dial: got %v, want a PeerError about mallory", err)
	}
	if n := <-got; n != 0 {
		t.Errorf("the wrong server got %d bytes, want 0", n)
	}
	if _, err := a.node.trans.stream.Dial("127.0.0.1:1", time.Second); err == nil {
		t.Error("dial without an expected identity: got success, want an error")
	}
}

func TestListenerBoundsConnections(t *testing.T) {
	c := newCluster(t, 1, newPKI(t), nil)
	a := c.leader()
	s := a.node.trans.stream
	s.mu.Lock()
	s.count += maxConns
	s.mu.Unlock()
	conn, err := net.Dial("tcp", a.node.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("connection beyond the bound: got %d bytes, %v, want it closed", n, err)
	}
	s.mu.Lock()
	s.count -= maxConns
	s.mu.Unlock()
}

// A removed node with a valid certificate cannot disturb those who stay, on old connections either.
func TestRemovedNodeIsRefused(t *testing.T) {
	c := newCluster(t, 3, newPKI(t), nil)
	l := c.leader()
	var gone *member
	for id, m := range c.members {
		if id != l.id {
			gone = m
			break
		}
	}
	if err := l.node.Remove(t.Context(), gone.id); err != nil {
		t.Fatal(err)
	}
	term := l.node.State().Term
	// It learns, or asks for elections in vain, and stops by itself in either case or stays silent; the term stays.
	last := c.propose(l, "after")
	_, client := c.pki.config(t, gone.id)
	nt := newDialer(t, func() (net.Conn, error) { return tls.Dial("tcp", l.node.Addr(), client) })
	if err := nt.RequestVote("x", "y", &raft.RequestVoteRequest{RPCHeader: header(gone.id), Term: term + 10}, &raft.RequestVoteResponse{}); err == nil {
		t.Error("vote request of a removed node: got an answer, want a closed connection")
	}
	for id, m := range c.members {
		if id == gone.id {
			continue
		}
		if err := m.node.WaitApplied(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if got := m.node.State().Term; got != term {
			t.Errorf("term on %s: got %d, want %d", id, got, term)
		}
	}
}
