package consensus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/client_golang/prometheus"
)

// Bounds. They are constants because every node of a cluster must agree on those that others see.
const (
	// MaxCommandSize is the longest command, in bytes: 256 KiB of payload and room for its frame.
	MaxCommandSize = 256<<10 + 16<<10
	// maxAppendEntries bounds three things in Raft: group commit, one replication request, one apply batch.
	maxAppendEntries = 256
	// maxInFlight bounds the proposals that wait for their commit.
	maxInFlight = 1024
	// maxInFlightBytes bounds the bytes of those proposals.
	maxInFlightBytes = 64 << 20
	// maxWaiters bounds the callers of WaitApplied and, separately, those of ReadIndex.
	maxWaiters = 1 << 16
	// maxConns bounds the inbound connections of the peer listener, proven or not.
	maxConns = 256
	// maxConnsPerPeer bounds the inbound connections of one proven identity.
	maxConnsPerPeer = 32
	// handshakeTimeout bounds TLS handshakes, frameTimeout the time between the first and the last byte of a frame.
	handshakeTimeout = 5 * time.Second
	frameTimeout     = 30 * time.Second
	// rpcTimeout bounds one outgoing request.
	rpcTimeout = 5 * time.Second
	// segmentSize is the size of one log file. It holds more than one full batch.
	segmentSize = 80 << 20
)

// Entry is one committed command.
type Entry struct {
	// Index and Term are its Raft log position. Indexes increase but have gaps: Raft's own entries and read ticks are
	// not handed over.
	Index, Term uint64
	// Data is the command. It is shared with the log cache and must not be modified.
	Data []byte
}

// StateMachine is the one consumer of committed commands.
type StateMachine interface {
	// Apply is called with a batch in log order, always from one goroutine; results[i] belongs to entries[i] and is
	// what Propose returns on the node that proposed it. An error, a panic or a wrong number of results stops the node
	// with [ExitStateMachine]. Apply need not be durable when it returns: what is lost in a crash is replayed. It must
	// be atomic per batch or per entry together with AppliedIndex.
	Apply(entries []Entry) (results []any, err error)
	// AppliedIndex is the index of the last entry that the state machine has applied, 0 for none. It is called once, by
	// Open, and must then be what was read back from disk: entries up to it are never handed over again.
	AppliedIndex() uint64
}

// Server is a member of the cluster.
type Server struct {
	// ID is the member's identity: the text that [Config.PeerID] returns for its certificate.
	ID string
	// Addr is the host:port other members dial.
	Addr string
	// Voter is false for a member that only receives the log.
	Voter bool
}

// Config describes one node. Its zero durations become the defaults named below.
type Config struct {
	// NodeID is this node's identity, the path text of its SPIFFE ID. Required.
	NodeID string
	// DataDir holds the log; it is created with mode 0700. One node, one directory. Required.
	DataDir string
	// BindAddr is the host:port to listen on; port 0 takes a free one, see [Node.Addr].
	BindAddr string
	// Listener, when not nil, is used instead of BindAddr and belongs to the node from then on.
	Listener net.Listener
	// AdvertiseAddr is the host:port others dial; default: the listener's address.
	AdvertiseAddr string
	// Resolve, when not nil, gives the address to dial for a member whose configured address is addr.
	Resolve func(id, addr string) string

	// ServerTLS and ClientTLS are the two sides of mutual TLS. They must verify the peer's chain; the node raises them to
	// TLS 1.3, turns resumption off and demands a client certificate. Both nil: plain TCP without identities, for tests
	// on loopback only.
	ServerTLS, ClientTLS *tls.Config
	// PeerID maps a verified TLS peer to its node identity and refuses everything that is not a node of this cluster.
	// Required with TLS.
	PeerID func(cs tls.ConnectionState) (string, error)

	// StateMachine consumes the commands. Required.
	StateMachine StateMachine
	// Logger receives the node's and the Raft library's records; nil discards them. It is written to by one goroutine
	// behind a bounded queue, its own [LogQueue] if it has one, so that a blocked sink cannot block consensus; records beyond the
	// bound are counted and dropped.
	Logger *slog.Logger
	// Registerer receives the metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer

	// Bootstrap lists the initial voters, this node among them, identically on each of them. It is refused with
	// [ErrHasState] on a node that has state; see [HasState]. An empty Addr of this node's own line means its advertised
	// address.
	Bootstrap []Server
	// Join says that this is the first start of a node which AddNonvoter has added or will add, and which has never
	// been a member under this id, or was removed since. Without it a node that has no state refuses to start with
	// [ErrNoState]; with it, one that has state refuses with [ErrHasState]. It must come from an operator's act (a join
	// token), never from looking at the disk: a lost disk would look the same.
	Join bool

	// Heartbeat (1s), Election (1s) and LeaderLease (1s) are Raft's timers: a follower that hears nothing for one to
	// two heartbeats asks for an election. Multiply all three for slow networks.
	Heartbeat, Election, LeaderLease time.Duration
	// CommitTimeout (5ms) is how late followers of an idle stream learn of the last commit.
	CommitTimeout time.Duration
	// How long a call to the log may take: beyond HandOverTimeout (2s) a leader asks another voter to lead, beyond
	// LeaderStorageTimeout (5s) a node that still leads stops with [ExitStorage], beyond StorageTimeout (10s) any node does.
	HandOverTimeout, LeaderStorageTimeout, StorageTimeout time.Duration

	// ScrubInterval (24h) is how long after one reading of the whole log, which begins when the node starts, the next one begins.
	ScrubInterval time.Duration

	// MinFreePercent (10) is the part of the data directory's file system below which a leader takes no more proposals, though
	// never less than 96 MiB and never more than 8 GiB. Negative: no such bound.
	MinFreePercent int
	// Ballast (64 MiB) is the size of a file in DataDir that is removed when the disk has no room left, so that the process can
	// close in order. Negative: none.
	Ballast int64

	// Fatal is called once, from any goroutine, when the node must stop for good; code is one of the Exit constants. It
	// should end the process. A node whose Fatal returns stays silent: it acknowledges nothing, sends nothing, and
	// only Close is useful. Required.
	Fatal func(code int, err error)

	// Network, when not nil, replaces TCP by an in-memory network, for tests.
	Network *MemNetwork

	// checkpointEvery and verifyInterval let tests of this package make checkpoints, and read ranges back, more often.
	checkpointEvery int
	verifyInterval  time.Duration
	// space lets tests of this package say how much room the disk has, segmentSize how long a file of the log is.
	space       func() (free, total uint64, err error)
	segmentSize int
	// files lets tests of this package put faults below the log: it replaces the file system of its segments.
	files types.VFS
	// wrapStore lets tests of this package put faults below the fail-stop wrapper.
	wrapStore func(storage) storage
	// wrapTransport lets tests of this package put faults into the network.
	wrapTransport func(rawTransport) rawTransport
}

func (c *Config) ensureDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Heartbeat, time.Second)
	def(&c.Election, time.Second)
	def(&c.LeaderLease, time.Second)
	def(&c.CommitTimeout, 5*time.Millisecond)
	def(&c.HandOverTimeout, 2*time.Second)
	def(&c.LeaderStorageTimeout, 5*time.Second)
	def(&c.StorageTimeout, 10*time.Second)
	def(&c.ScrubInterval, 24*time.Hour)
	def(&c.verifyInterval, verifyInterval)
	if c.MinFreePercent == 0 {
		c.MinFreePercent = 10
	}
	if c.Ballast == 0 {
		c.Ballast = 64 << 20
	}
	if c.segmentSize == 0 {
		c.segmentSize = segmentSize
	}
	if c.checkpointEvery == 0 {
		c.checkpointEvery = checkpointEntries
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// validate reports all problems at once.
func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.NodeID == "" || len(c.NodeID) > maxIDSize {
		bad("node id must have 1 to %d bytes", maxIDSize)
	}
	if c.DataDir == "" {
		bad("data directory is missing")
	}
	if c.StateMachine == nil {
		bad("state machine is missing")
	}
	if c.Fatal == nil {
		bad("fatal function is missing")
	}
	if c.MinFreePercent > 90 {
		bad("%d%% of the disk cannot be kept free", c.MinFreePercent)
	}
	if c.HandOverTimeout > c.LeaderStorageTimeout || c.LeaderStorageTimeout > c.StorageTimeout {
		bad("storage timeouts %v, %v and %v do not rise", c.HandOverTimeout, c.LeaderStorageTimeout, c.StorageTimeout)
	}
	if (c.ServerTLS == nil) != (c.ClientTLS == nil) {
		bad("server and client TLS go together")
	}
	if c.ServerTLS != nil && c.PeerID == nil {
		bad("TLS needs a function that maps peers to identities")
	}
	if c.ClientTLS != nil && c.ClientTLS.InsecureSkipVerify && c.ClientTLS.VerifyPeerCertificate == nil && c.ClientTLS.VerifyConnection == nil {
		bad("client TLS verifies nothing")
	}
	if c.ServerTLS != nil && c.ServerTLS.ClientAuth != tls.RequireAndVerifyClientCert &&
		(c.ServerTLS.ClientAuth != tls.RequireAnyClientCert || c.ServerTLS.VerifyPeerCertificate == nil && c.ServerTLS.VerifyConnection == nil) {
		bad("server TLS does not verify client certificates")
	}
	if c.Network == nil && c.Listener == nil && c.BindAddr == "" {
		bad("bind address is missing")
	}
	if len(c.Bootstrap) > 0 && c.Join {
		bad("a node cannot both bootstrap and join")
	}
	if len(c.Bootstrap) > 0 {
		self := false
		for _, s := range c.Bootstrap {
			if !s.Voter {
				bad("bootstrap server %q is not a voter", s.ID)
			}
			if s.ID == c.NodeID {
				self = true
			} else if s.Addr == "" {
				bad("bootstrap server %q has no address", s.ID)
			}
		}
		if !self {
			bad("bootstrap list lacks this node")
		}
	}
	return errors.Join(errs...)
}
