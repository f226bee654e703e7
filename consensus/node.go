package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
)

// Node is one member of the cluster. All methods are safe for concurrent use.
type Node struct {
	cfg     Config
	log     *slog.Logger
	sink    *LogQueue
	ownSink bool // sink is run and flushed here
	metrics *metrics

	raft  *raft.Raft
	store *failstop
	wal   storage
	// verified stands between store and wal.
	verified    *verified
	checkpoints checkpoints
	disk        *disk
	lock        *os.File
	trans       *transport

	// started is closed when raft is set and inbound frames may be handled.
	started chan struct{}
	// dead is closed by the first fatal error, closed by Close.
	dead, closed chan struct{}
	fatalOnce    sync.Once
	fatalErr     atomic.Pointer[error]
	// closing refuses new requests; down means that the Raft library has been shut down and nothing matters any more.
	closing, down atomic.Bool
	closeOnce     sync.Once
	closeErr      error
	running       atomic.Bool
	handingOver   atomic.Bool

	// slots and bytes bound the proposals in flight.
	slots chan struct{}
	bytes atomic.Int64

	// applied is the index of the last entry that passed through the state machine's goroutine; appliedTerm is the term
	// of the last command or tick among them.
	applied, appliedTerm atomic.Uint64
	waiters              waiters
	reads                reads

	// historyMu guards history, which only the state machine's goroutine writes.
	historyMu sync.Mutex
	history   []configurationAt

	leadership leadership
}

const walDir = "raft"

// HasState reports whether dataDir holds the state of a node, in which case [Config.Bootstrap] must be empty. No node may
// be open there.
func HasState(dataDir string) (bool, error) {
	dir := filepath.Join(dataDir, walDir)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look for state: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	w, err := openWAL(dir, discardHCLog(), nil)
	if err != nil {
		return false, err
	}
	has, err := raft.HasExistingState(w, w, &startSnapshot{})
	if err != nil {
		err = fmt.Errorf("look for state: %w", err)
	}
	return has, errors.Join(err, w.Close())
}

// Open reads the node's state, listens, and starts the Raft library, whose goroutines may call the state machine
// before Open returns. The node's own tasks start with Run; reads and leadership changes wait for it. Close must be
// called in the end.
func Open(cfg Config) (_ *Node, err error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("check configuration: %w", err)
	}
	n := &Node{
		cfg:     cfg,
		started: make(chan struct{}),
		dead:    make(chan struct{}),
		closed:  make(chan struct{}),
		slots:   make(chan struct{}, maxInFlight),
	}
	if q, ok := cfg.Logger.Handler().(*LogQueue); ok {
		n.sink = q
	} else {
		n.sink, n.ownSink = NewLogQueue(cfg.Logger.Handler()), true
	}
	n.log = slog.New(n.sink)
	n.disk = newDisk(&n.cfg, n.log)
	n.metrics = newMetrics(n)
	n.reads.wake = make(chan struct{}, 1)
	n.leadership.wake = make(chan struct{}, 1)
	defer func() {
		if err != nil {
			n.teardown()
			if cfg.Listener != nil {
				cfg.Listener.Close()
			}
		}
	}()
	if err := n.openStore(); err != nil {
		return nil, err
	}
	if err := n.openTransport(); err != nil {
		return nil, err
	}
	if err := n.bootstrap(); err != nil {
		return nil, err
	}
	if err := n.start(); err != nil {
		return nil, err
	}
	if err := n.metrics.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return n, nil
}

func (n *Node) openStore() error {
	dir := filepath.Join(n.cfg.DataDir, walDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create log directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	n.lock = lock
	if err := checkQuarantine(dir); err != nil {
		return err
	}
	n.disk.look()
	files := n.cfg.files
	if files == nil {
		files = fs.New()
	}
	w, err := openSegments(dir, newHCLog(n.log, "wal"), &fullFS{files, n.disk}, n.cfg.segmentSize)
	if err != nil {
		return err
	}
	n.wal = w
	inner := n.wal
	if n.cfg.wrapStore != nil {
		inner = n.cfg.wrapStore(inner)
	}
	n.verified = newVerified(inner, n.cfg.verifyInterval, n.log, n.metrics, n.logCorrupt)
	n.store = &failstop{
		inner: n.verified, patience: patience{n.cfg.HandOverTimeout, n.cfg.LeaderStorageTimeout, n.cfg.StorageTimeout},
		late: n.storageLate, leading: n.rawLeading, fail: n.storageFailed, dead: n.dead, release: n.closed,
		observe: n.metrics.observeStore,
	}
	raw, err := n.wal.Get(keyHistory)
	if err != nil {
		return fmt.Errorf("read configuration history: %w", err)
	}
	n.history, err = decodeHistory(raw)
	return err
}

// bootstrap checks that state is there exactly when it should be, and writes the first log entry. The entry goes first and the term second: a crash between them leaves a log
// whose last term is above the stored term, which start repairs.
func (n *Node) bootstrap() error {
	has, err := raft.HasExistingState(n.wal, n.wal, &startSnapshot{})
	if err != nil {
		return fmt.Errorf("look for state: %w", err)
	}
	first := len(n.cfg.Bootstrap) > 0 || n.cfg.Join
	switch {
	case has && first:
		return fmt.Errorf("bootstrap or join: %w", ErrHasState)
	case !has && !first:
		return fmt.Errorf("start: %w", ErrNoState)
	case has || n.cfg.Join:
		return nil
	}
	var c raft.Configuration
	seen := make(map[string]bool)
	for _, s := range n.cfg.Bootstrap {
		if s.ID == n.cfg.NodeID && s.Addr == "" {
			s.Addr = n.Addr()
		}
		if seen[s.ID] || seen[s.Addr] {
			return fmt.Errorf("bootstrap: server %q at %q is listed twice", s.ID, s.Addr)
		}
		seen[s.ID], seen[s.Addr] = true, true
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr), Suffrage: raft.Voter})
	}
	err = n.wal.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)})
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// keyCurrentTerm is where the Raft library keeps its term.
var keyCurrentTerm = []byte("CurrentTerm")

// start hands everything to the Raft library.
func (n *Node) start() (err error) {
	applied := n.cfg.StateMachine.AppliedIndex()
	snapshots, err := newStartSnapshot(n.wal, n.history, applied)
	if err != nil {
		return err
	}
	if err := n.repairTerm(); err != nil {
		return err
	}
	// What is about to be replayed has not been looked at since it was written.
	last, err := n.wal.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index: %w", err)
	}
	if err := n.verified.check(applied+1, last, func(*raft.Log) error { return nil }); err != nil {
		if e, ok := errors.AsType[*Evidence](err); ok {
			err = errors.Join(err, n.quarantine(e))
		}
		return fmt.Errorf("verify log: %w", err)
	}
	cache, err := raft.NewLogCache(maxAppendEntries, n.store)
	if err != nil {
		return fmt.Errorf("create log cache: %w", err)
	}
	n.applied.Store(applied)
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(n.cfg.NodeID)
	rc.Logger = newHCLog(n.log, "raft")
	rc.HeartbeatTimeout, rc.ElectionTimeout = n.cfg.Heartbeat, n.cfg.Election
	rc.LeaderLeaseTimeout, rc.CommitTimeout = n.cfg.LeaderLease, n.cfg.CommitTimeout
	rc.MaxAppendEntries = maxAppendEntries
	rc.BatchApplyCh = true
	rc.NoSnapshotRestoreOnStart = true
	// The whole log is kept and no snapshot is ever taken.
	rc.SnapshotThreshold, rc.TrailingLogs, rc.SnapshotInterval = math.MaxUint64, math.MaxUint64, time.Hour
	rc.RestoreCommittedLogs = false
	rc.PreVoteDisabled = false
	rc.ShutdownOnRemove = true
	rc.NoLegacyTelemetry = true
	defer func() {
		// The library panics when it cannot read its log at start; its goroutines are not running then.
		if p := recover(); p != nil {
			err = fmt.Errorf("start raft: %v", p)
		}
	}()
	n.raft, err = raft.NewRaft(rc, &adapter{n: n, last: applied}, cache, n.store, snapshots, n.trans)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.raft.RegisterObserver(n.leadership.observer())
	close(n.started)
	return nil
}

// repairTerm raises the stored term to that of the last entry, which it is never below except after a crash in
// bootstrap.
func (n *Node) repairTerm() error {
	last, err := n.wal.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	var entry raft.Log
	if err := n.wal.GetLog(last, &entry); err != nil {
		return fmt.Errorf("read last entry: %w", err)
	}
	term, err := n.wal.GetUint64(keyCurrentTerm)
	if err != nil {
		return fmt.Errorf("read term: %w", err)
	}
	if term >= entry.Term {
		return nil
	}
	if last != 1 {
		return fmt.Errorf("%w: term %d is below that of entry %d, %d", ErrCorrupt, term, last, entry.Term)
	}
	return n.wal.SetUint64(keyCurrentTerm, entry.Term)
}

// remember stores a committed configuration.
func (n *Node) remember(index uint64, data []byte) {
	n.historyMu.Lock()
	h := n.history
	n.historyMu.Unlock()
	if len(h) > 0 && h[len(h)-1].index >= index {
		return
	}
	h = append(h[:len(h):len(h)], configurationAt{index, data})
	if len(h) > maxHistory {
		h = h[len(h)-maxHistory:]
	}
	// The wrapper returns no error: a failure stops the node.
	if err := n.store.Set(keyHistory, encodeHistory(h)); err != nil {
		n.fatal(ExitStorage, err)
		n.store.block()
	}
	n.historyMu.Lock()
	n.history = h
	n.historyMu.Unlock()
}

// advance publishes that everything up to index has been applied.
func (n *Node) advance(index, term uint64) {
	n.applied.Store(index)
	if term > n.appliedTerm.Load() {
		n.appliedTerm.Store(term)
		n.leadership.poke()
	}
	n.waiters.release(index)
}

// storageFailed stops the node because of its storage, and says so if the disk has no room.
func (n *Node) storageFailed(code int, err error) {
	if noSpace(err) || n.disk.exhausted.Load() {
		err = fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	n.fatal(code, err)
}

// fatal stops the node for good. The first call wins.
func (n *Node) fatal(code int, err error) {
	if n.down.Load() {
		return
	}
	n.fatalOnce.Do(func() {
		n.fatalErr.Store(&err)
		// Silence first: from here on nothing is acknowledged or sent, whatever Fatal does.
		close(n.dead)
		if n.trans != nil {
			n.trans.silence()
		}
		if noSpace(err) {
			n.disk.release()
		}
		n.cfg.Fatal(code, err)
	})
}

// failure is the fatal error, or nil.
func (n *Node) failure() error {
	if p := n.fatalErr.Load(); p != nil {
		return *p
	}
	return nil
}

// unusable says why nothing can be asked of the node, or nil.
func (n *Node) unusable() error {
	if err := n.failure(); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	if n.closing.Load() {
		return ErrClosed
	}
	return nil
}

// Addr is the address others dial.
func (n *Node) Addr() string { return string(n.trans.LocalAddr()) }

// Run does the node's own work: read ticks, leadership changes, detection of removal, log records. It returns nil
// when ctx ends, and the error given to Fatal when the node stops. It must run once, and Close does not wait for it.
func (n *Node) Run(ctx context.Context) error {
	if n.running.Swap(true) {
		return errors.New("node is running already")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	// The log sink may hang; nobody waits for it longer than a second.
	sunk := make(chan struct{})
	go func() {
		defer close(sunk)
		if n.ownSink {
			n.sink.Run(ctx)
		}
	}()
	defer atMost(time.Second, func() { <-sunk })
	// So may the disk.
	scrubbed, looked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(scrubbed)
		n.runScrub(ctx)
	}()
	go func() {
		defer close(looked)
		n.runDisk(ctx)
	}()
	defer atMost(time.Second, func() { <-scrubbed; <-looked })
	for _, task := range []func(context.Context){n.runTicks, n.runLeadership, n.watchMembership} {
		wg.Go(func() { task(ctx) })
	}
	defer wg.Wait()
	defer cancel()
	select {
	case <-ctx.Done():
		return nil
	case <-n.closed:
		return nil
	case <-n.dead:
		return n.failure()
	}
}

// Close refuses new proposals, waits a moment for those in flight, stops the Raft library and waits for it, then closes
// the network and the log. Proposals still in flight end with [ErrAmbiguous]. It does not wait for a state machine that never returns. Close may be called more than once.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		n.closing.Store(true)
		n.drain()
		n.closeErr = n.teardown()
	})
	return n.closeErr
}

// teardown undoes Open as far as it got.
func (n *Node) teardown() error {
	n.closing.Store(true)
	var errs []error
	var done raft.Future
	if n.raft != nil {
		done = n.raft.Shutdown()
	}
	n.down.Store(true)
	// Goroutines that a fatal error has blocked end now; the library is shut down, so they do no more harm.
	close(n.closed)
	if n.trans != nil {
		errs = append(errs, n.trans.Close())
	}
	if done != nil {
		errs = append(errs, done.Error())
	}
	if n.verified != nil {
		n.verified.stop()
	}
	n.waiters.releaseAll()
	n.metrics.unregister(n.cfg.Registerer)
	if n.wal != nil {
		errs = append(errs, n.wal.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	if n.ownSink {
		n.sink.Flush()
	}
	return errors.Join(errs...)
}
