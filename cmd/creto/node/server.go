package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/creto-systems/creto/consensus"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/publish"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
)

// Times of a server's life.
const (
	dutyInterval  = 250 * time.Millisecond // how often the leader looks for due timers and membership changes
	drainTimeout  = 3 * time.Second        // calls under way have this long when the server stops
	handTimeout   = 2 * time.Second        // for handing over the leadership when the server stops
	exitGrace     = 5 * time.Second        // a node that must stop has this long before Options.Exit
	reloadSVID    = time.Minute            // how often SVID files are looked at
	proposeWait   = 5 * time.Second        // for a command of the leader's own duties
	healthService = ""                     // the whole server, in gRPC health
)

// Options are what a server gets from its process.
type Options struct {
	Clock      Clock                 // default SystemClock; a *TestClock can be moved where the genesis says test
	Logger     *slog.Logger          // default: what Config.Log says, to standard error
	Registerer prometheus.Registerer // default: a registry of the server's own
	Gatherer   prometheus.Gatherer   // serves /metrics; default: the registry of the server's own
	Version    string                // of the binary
	// Exit ends the process with a code. It is called when the node must stop for good and Run has not returned within
	// exitGrace, because a disk hangs. nil: nothing is called.
	Exit func(code int)
	// Listeners that are open already, used instead of the configured addresses; they belong to the server.
	Listeners Listeners
}

// Listeners are open listeners; nil ones are opened from the configuration.
type Listeners struct {
	Peer, GRPC, Read, Metrics net.Listener
}

// ExitError says that a node stopped for good: its process exits with Code (consensus.ExitStorage and its neighbours).
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return fmt.Sprintf("node has stopped: %v", e.Err) }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// Server is one node. Run serves; Close releases everything. Its other methods are safe for concurrent use.
type Server struct {
	cfg      Config
	opt      Options
	log      *slog.Logger
	clock    Clock
	identity *identity
	source   *spiffe.Source
	ca       *spiffe.CA // nil where the CA is not
	book     *book
	conns    *conns

	ledger     *ledger.Log
	views      *views
	machine    *stateMachine
	raft       *consensus.Node
	published  *publishLedger
	publisher  *publish.Publisher
	pool       *nhi.VerifyPool
	edge       *edge.Edge
	authorizer *authorizer
	domains    *domains
	metrics    *metrics
	tokens     tokenCache
	history    keyHistory

	listeners Listeners
	addresses ListenConfig // where it listens, ports filled in
	admin     net.Listener // nil if switched off
	grpc      *grpc.Server
	local     *grpc.Server // on the admin socket
	health    *health.Server
	admit     *admission
	sink      *consensus.LogQueue
	read      *http.Server
	metricsS  *http.Server

	ready    chan struct{}
	stopping chan struct{} // closed when the server begins to end
	wake     chan struct{} // capacity 1: the leader's duties are due now
	fatal    chan *ExitError
	serving  atomic.Bool // as readyz and health say it
	stopOnce sync.Once
	closed   sync.Once
	closeErr error

	memberChange sync.Mutex // one membership change at a time through this node
}

// New opens a node: it reads its directory, opens its stores, listens and joins the network. It serves nobody before Run.
// Close must be called in the end, also after an error of Run.
func New(cfg Config, opt Options) (_ *Server, err error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, opt: opt, log: opt.Logger, clock: opt.Clock, listeners: opt.Listeners,
		ready: make(chan struct{}), stopping: make(chan struct{}), wake: make(chan struct{}, 1), fatal: make(chan *ExitError, 1),
	}
	if s.clock == nil {
		s.clock = SystemClock{}
	}
	if s.log == nil {
		s.log = cfg.NewLogger(os.Stderr)
	}
	// Whoever reads the records may hang: that must hold up no answer, and not the end of a node that must stop.
	s.sink = consensus.NewLogQueue(s.log.Handler())
	s.log = slog.New(s.sink)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start node: %w", err), s.Close())
		}
	}()
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) open() error {
	var err error
	if s.identity, err = s.cfg.loadIdentity(); err != nil {
		return err
	}
	s.log = s.log.With("node", s.identity.id.String())
	// Certificates live by the machine's time, also where the ledger's clock is moved by hand.
	s.source, err = spiffe.OpenSource(time.Now, s.identity.genesis.TrustDomain, svidFiles(s.cfg.path(svidDir)))
	if err != nil {
		return err
	}
	if s.cfg.CADir != "" {
		if s.ca, err = spiffe.LoadCA(s.cfg.path(s.cfg.CADir), rand.Reader); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.cfg.path(localDir), 0o700); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	if s.book, err = openBook(s.cfg.path(bookFile), s.cfg.Peers); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	s.conns = &conns{
		source: s.source, trustDomain: s.identity.genesis.TrustDomain, own: s.GRPCAddr(), book: s.book, byID: make(map[nhi.ID]conn),
	}
	s.metrics = newMetrics(s)
	s.domains = newDomains()
	s.ledger, err = ledger.Open(ledger.Config{
		Dir: s.cfg.path(stateDir), Kinds: s.domains.kinds(), Logger: s.log, Tree: tree,
	})
	if err != nil {
		return err
	}
	if g, raw, err := s.ledger.Genesis(); err == nil && string(raw) != string(s.identity.raw) {
		return fmt.Errorf("the state store is of ledger %x (cluster %q), the directory's genesis of %x", ledger.LedgerID(raw), g.Cluster, s.identity.ledger)
	}
	s.views = &views{log: s.ledger}
	s.machine = &stateMachine{log: s.ledger, views: s.views}
	s.published = &publishLedger{log: s.ledger, machine: s.machine, cluster: s.identity.genesis.Cluster}
	if err := s.published.restore(); err != nil {
		return err
	}
	if err := s.openConsensus(); err != nil {
		return err
	}
	s.publisher, err = publish.New(publish.Config{
		Cluster: s.identity.genesis.Cluster, Node: s.identity.id, Keys: s.identity.keys, Dir: s.cfg.path(localDir + "/publish"),
		Ledger: s.published, Sealer: sealer{s.raft, s.now}, Peers: s.peers, Now: s.clock.Now, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.authorizer = newAuthorizer(s.domains.bundle, s.domains.questions())
	s.pool = nhi.NewVerifyPool(0)
	s.edge = edge.New(edge.Config{
		State: edgeState{s.ledger, s.views}, Proposer: proposer{s.raft}, Authorizer: s.authorizer, Forwarder: s, KEK: s.identity.kek,
		Random: rand.Reader, Workers: s.pool, Now: s.now, Node: s.identity.id, NodeKey: s.identity.key,
		LedgerID: func() nhi.Digest { return s.identity.ledger }, Logger: s.log,
	})
	if err := s.register(); err != nil {
		return err
	}
	return s.metrics.register()
}

// openConsensus opens the Raft node. A node without a Raft log starts only where its directory says that it never had one.
func (s *Server) openConsensus() error {
	has, err := consensus.HasState(s.cfg.DataDir)
	if err != nil {
		return err
	}
	marker := s.cfg.path(firstStartFile)
	start, merr := os.ReadFile(marker)
	if merr != nil && !errors.Is(merr, os.ErrNotExist) {
		return fmt.Errorf("read first-start marker: %w", merr)
	}
	var bootstrap []consensus.Server
	join := false
	switch {
	case has:
	case merr != nil:
		return errors.New("this node's Raft log is gone: a node that has lost it must not vote again; remove it from the cluster and let a new node join")
	case string(start) == firstBootstrap && s.identity.founder:
		for _, n := range s.identity.genesis.Nodes {
			bootstrap = append(bootstrap, consensus.Server{ID: n.ID.String(), Addr: n.Address, Voter: true})
		}
	case string(start) == firstJoin:
		join = true
	default:
		return fmt.Errorf("first-start marker %q does not fit this node", start)
	}
	peerTLS := spiffe.AllowRoles(s.identity.genesis.TrustDomain, spiffe.RoleNode)
	lis := s.listeners.Peer
	s.listeners.Peer = nil // belongs to consensus from here on
	s.raft, err = consensus.Open(consensus.Config{
		NodeID: s.identity.id.String(), DataDir: s.cfg.DataDir, Listener: lis, AdvertiseAddr: s.cfg.Advertise.Peer, Resolve: s.book.resolve,
		ServerTLS: spiffe.ServerTLS(s.source, peerTLS, true), ClientTLS: spiffe.ClientTLS(s.source, peerTLS), PeerID: peerID,
		StateMachine: s.machine, Logger: s.log, Registerer: s.metrics.registerer, Bootstrap: bootstrap, Join: join,
		Heartbeat: s.cfg.Raft.Heartbeat, Election: s.cfg.Raft.Election, LeaderLease: s.cfg.Raft.LeaderLease, Fatal: s.onFatal,
		MinFreePercent: s.cfg.Disk.MinFreePercent, Ballast: s.cfg.Disk.BallastBytes,
	})
	if err != nil {
		return err
	}
	// If we crash before this line, the marker is found beside a log and removed at the next start.
	if merr == nil {
		if err := os.Remove(marker); err != nil {
			return fmt.Errorf("remove first-start marker: %w", err)
		}
	}
	return nil
}

// onFatal is told once by consensus that this node must stop for good.
func (s *Server) onFatal(code int, err error) {
	s.log.Error("node must stop", "code", code, "err", err)
	s.fatal <- &ExitError{Code: code, Err: err}
	if s.opt.Exit != nil {
		time.AfterFunc(exitGrace, func() { s.opt.Exit(code) })
	}
}

func (s *Server) now() int64 { return s.clock.Now().UnixNano() }

// Run serves until ctx ends and then stops in order, or returns the first error of any part. The order of stopping:
//
//  1. health says not serving, streams end, listeners stop accepting; calls under way have drainTimeout;
//  2. a leader hands the leadership over, so that writes go on elsewhere at once;
//  3. the edge, the publisher and the leader's duties end;
//  4. Close closes consensus, the local store, then the state store.
func (s *Server) Run(ctx context.Context) error {
	// Records are written to the end; after it nobody waits for a sink that hangs.
	logging, stopLogging := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLogging()
	go s.sink.Run(logging)
	// Tasks outlive ctx by the time it takes to drain.
	tasks, stopTasks := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopTasks(nil)
	g, gctx := errgroup.WithContext(tasks)
	task := func(name string, f func(context.Context) error) {
		g.Go(func() error {
			err := f(gctx)
			if err == nil || errors.Is(err, context.Canceled) && gctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s: %w", name, err)
		})
	}
	task("consensus", s.raft.Run)
	task("verification", s.pool.Run)
	task("edge", s.edge.Run)
	task("publisher", s.publisher.Run)
	task("erasure", s.ledger.RunPurge)
	task("leader's duties", s.duties)
	task("certificates", s.renewal)
	task("readiness", s.readiness)
	s.serve(task)
	g.Go(func() error {
		var err error
		select {
		case <-ctx.Done():
			s.drain()
			s.handOver(gctx)
		case <-gctx.Done():
			s.stopServers()
		case e := <-s.fatal:
			err = e
			s.stopServers()
		}
		stopTasks(nil)
		return err
	})
	return g.Wait()
}

// drain stops accepting and lets calls under way finish.
func (s *Server) drain() {
	s.stop()
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		if s.local != nil {
			s.local.GracefulStop()
		}
		close(done)
	}()
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	s.stopServers()
	<-done
}

// stop says that this node is stopping.
func (s *Server) stop() {
	s.stopOnce.Do(func() {
		s.serving.Store(false)
		s.health.Shutdown()
		close(s.stopping)
	})
}

func (s *Server) stopServers() {
	s.stop()
	s.grpc.Stop()
	if s.local != nil {
		s.local.Stop()
	}
	for _, h := range []*http.Server{s.read, s.metricsS} {
		if h != nil {
			_ = h.Close() // listeners that are closed already say so
		}
	}
}

// handOver lets another node lead before this one goes.
func (s *Server) handOver(ctx context.Context) {
	if !s.raft.Leading() || len(s.raft.State().Servers) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handTimeout)
	defer cancel()
	if err := s.raft.TransferLeadership(ctx); err != nil {
		s.log.Info("leadership was not handed over", "err", err)
	}
}

// Close releases stores and listeners. Run, if it was called, has returned. It may be called more than once.
func (s *Server) Close() error {
	s.closed.Do(func() {
		var errs []error
		if s.raft != nil {
			errs = append(errs, s.raft.Close())
		}
		if s.conns != nil {
			errs = append(errs, s.conns.close())
		}
		if s.publisher != nil {
			errs = append(errs, s.publisher.Close())
		}
		if s.ledger != nil {
			if s.views != nil {
				s.views.close()
			}
			// What is not flushed is replayed from the Raft log; flushing makes the next start short.
			if err := s.ledger.Sync(); err != nil && !errors.Is(err, ledger.ErrClosed) {
				errs = append(errs, err)
			}
			errs = append(errs, s.ledger.Close())
		}
		for _, l := range []net.Listener{s.listeners.Peer, s.listeners.GRPC, s.listeners.Read, s.listeners.Metrics, s.admin} {
			if l != nil {
				if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
					errs = append(errs, err)
				}
			}
		}
		if s.metrics != nil {
			s.metrics.unregister()
		}
		if err := errors.Join(errs...); err != nil {
			s.closeErr = fmt.Errorf("close node: %w", err)
		}
		s.sink.Flush()
	})
	return s.closeErr
}

// Logger returns a logger that never blocks and writes to the one of Options, while Run runs and when Close is called.
func (s *Server) Logger() *slog.Logger { return s.log }

// Ready is closed once this node knows a leader that takes writes and has applied the genesis itself.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// ID is the node's id.
func (s *Server) ID() nhi.ID { return s.identity.id }

// LedgerID names the ledger the node belongs to.
func (s *Server) LedgerID() nhi.Digest { return s.identity.ledger }

// Leading says whether this node leads and takes writes.
func (s *Server) Leading() bool { return s.raft.Leading() }

// PeerAddr is the address of the Raft listener.
func (s *Server) PeerAddr() string { return s.raft.Addr() }

// GRPCAddr is the address at which others reach the gRPC listener.
func (s *Server) GRPCAddr() string {
	if s.cfg.Advertise.GRPC != "" {
		return s.cfg.Advertise.GRPC
	}
	return s.addresses.GRPC
}

// MetricsAddr is the address of the metrics listener, empty without one.
func (s *Server) MetricsAddr() string {
	return s.addresses.Metrics
}

// AdminSocket is the path of the admin socket, empty without one.
func (s *Server) AdminSocket() string {
	if s.admin == nil {
		return ""
	}
	return s.admin.Addr().String()
}

// ReadURL is the URL prefix of the read listener, empty without one.
func (s *Server) ReadURL() string {
	switch {
	case s.cfg.Advertise.Read != "":
		return s.cfg.Advertise.Read
	case s.addresses.Read == "":
		return ""
	case s.cfg.PlainRead:
		return "http://" + s.addresses.Read
	}
	return "https://" + s.addresses.Read
}

// peerID is the identity of a peer's certificate in consensus: the text of its node id.
func peerID(cs tlsState) (string, error) {
	p, err := spiffe.PeerPrincipal(cs)
	if err != nil {
		return "", err
	}
	if !p.System || p.Role != spiffe.RoleNode {
		return "", fmt.Errorf("%w: %s is no node", spiffe.ErrNotAuthorized, p)
	}
	return p.ID.String(), nil
}
