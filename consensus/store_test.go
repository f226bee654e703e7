package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/client_golang/prometheus"
)

// faultyFS is the log's file system; once armed, fsync fails one time and then reports success again, as Linux does.
type faultyFS struct {
	types.VFS
	armed atomic.Bool
	syncs atomic.Int64
}

func (f *faultyFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	w, err := f.VFS.Create(dir, name, size)
	return &faultyFile{w, f}, err
}

func (f *faultyFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.VFS.OpenWriter(dir, name)
	return &faultyFile{w, f}, err
}

type faultyFile struct {
	types.WritableFile
	fs *faultyFS
}

func (f *faultyFile) Sync() error {
	if f.fs.armed.Swap(false) {
		return syscall.EIO
	}
	f.fs.syncs.Add(1)
	return f.WritableFile.Sync()
}

func TestFsyncErrorStopsLeader(t *testing.T) {
	disks := make(map[string]*faultyFS)
	c := newCluster(t, 3, nil, func(cfg *Config) {
		d := &faultyFS{VFS: fs.New()}
		disks[cfg.NodeID] = d
		cfg.files = d
	})
	l := c.leader()
	c.propose(l, "before")
	disks[l.id].armed.Store(true)
	_, _, err := l.node.Propose(t.Context(), []byte("during"))
	if !errors.Is(err, ErrAmbiguous) || !errors.Is(err, syscall.EIO) {
		t.Errorf("propose: got %v, want ErrAmbiguous with EIO", err)
	}
	if f := c.fatal(l); f.code != ExitStorage || !errors.Is(f.err, syscall.EIO) {
		t.Errorf("fatal: got %d %v, want %d EIO", f.code, f.err, ExitStorage)
	}
	syncs := disks[l.id].syncs.Load()
	l2 := c.leader(l.id)
	last := c.propose(l2, "after")
	for id, m := range c.members {
		if id != l.id {
			if err := m.node.WaitApplied(t.Context(), last); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The failed node wrote nothing, acknowledged nothing, applied nothing, and asked to exit only once.
	if _, _, err := l.node.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("propose on the failed node: got %v, want ErrClosed", err)
	}
	if _, err := l.node.ReadIndex(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("read on the failed node: got %v, want ErrClosed", err)
	}
	if got := disks[l.id].syncs.Load(); got != syncs {
		t.Errorf("syncs after the failure: got %d, want 0", got-syncs)
	}
	if got := l.node.State(); got.AppliedIndex >= last || l.node.Leading() {
		t.Errorf("failed node: got applied %d, leading %v", got.AppliedIndex, l.node.Leading())
	}
	if len(l.fatals) != 0 {
		t.Errorf("fatal was called %d more times, want once", len(l.fatals))
	}
	// It comes back with what is on disk, and agrees.
	c.stop(l.id)
	c.start(l.id)
	c.agree(last)
}

// The error comes once; the next fsync on the same file would report success, for pages that are gone.
func TestRaft07FsyncErrorStopsFollower(t *testing.T) {
	disks := make(map[string]*faultyFS)
	c := newCluster(t, 3, newPKI(t), func(cfg *Config) {
		d := &faultyFS{VFS: fs.New()}
		disks[cfg.NodeID] = d
		cfg.files = d
	})
	l := c.leader()
	var follower, other *member
	for id, m := range c.members {
		switch {
		case id == l.id:
		case follower == nil:
			follower = m
		default:
			other = m
		}
	}
	last := c.propose(l, "before")
	if err := follower.node.WaitApplied(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	disks[follower.id].armed.Store(true)
	c.propose(l, "during")
	if f := c.fatal(follower); f.code != ExitStorage || !errors.Is(f.err, syscall.EIO) {
		t.Errorf("fatal: got %d %v, want %d EIO", f.code, f.err, ExitStorage)
	}
	// Without the other follower there is no quorum: the failed one must not help to make one.
	c.stop(other.id)
	if _, _, err := l.node.Propose(t.Context(), []byte("no quorum")); !errors.Is(err, ErrAmbiguous) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("propose without quorum: got %v, want ErrAmbiguous or ErrNotLeader", err)
	}
}

// stuckStore hangs in StoreLogs while gate is not nil.
type stuckStore struct {
	storage
	gate atomic.Pointer[chan struct{}]
	done atomic.Bool
}

func (s *stuckStore) StoreLogs(logs []*raft.Log) error {
	if g := s.gate.Load(); g != nil {
		<-*g
		defer s.done.Store(true)
	}
	return s.storage.StoreLogs(logs)
}

// stuckCluster is three nodes whose disks can be made to hang.
func stuckCluster(t *testing.T, pki *testPKI, edit func(*Config)) (*cluster, map[string]*stuckStore) {
	stores := make(map[string]*stuckStore)
	return newCluster(t, 3, pki, func(cfg *Config) {
		s := &stuckStore{}
		stores[cfg.NodeID] = s
		cfg.wrapStore = func(inner storage) storage { s.storage = inner; return s }
		if edit != nil {
			edit(cfg)
		}
	}), stores
}

// The leader's disk hangs: the leadership moves after 2 s, the old node exits after 5 s, and what its disk completes later counts for
// nothing.
func TestRaft06HungDiskOfLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stores := stuckCluster(t, nil, nil)
		defer c.stopAll()
		l := c.leader()
		last := c.propose(l, "before")
		term := l.node.State().Term
		gate := make(chan struct{})
		stores[l.id].gate.Store(&gate)
		start := time.Now()
		during := l.node.ProposeAsync([]byte("during"))
		l2 := c.leader(l.id)
		moved := time.Since(start)
		if moved < 2*time.Second || moved > 3*time.Second {
			t.Errorf("leadership moved after %v, want 2s to 3s", moved)
		}
		c.propose(l2, "meanwhile")
		resumed := time.Since(start)
		if resumed > 10*time.Second {
			t.Errorf("writes resumed after %v, want at most 10s", resumed)
		}
		if f := c.fatal(l); f.code != ExitStorage {
			t.Errorf("fatal: got %d %v, want %d", f.code, f.err, ExitStorage)
		}
		if took := time.Since(start); took < 5*time.Second || took > 5500*time.Millisecond {
			t.Errorf("fatal after %v, want 5s", took)
		}
		if _, _, err := during.Wait(t.Context()); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("propose: got %v, want ErrAmbiguous", err)
		}
		// One voter was asked, and one election was enough.
		if got := l2.node.State().Term; got != term+1 {
			t.Errorf("term: got %d, want %d", got, term+1)
		}
		t.Logf("leadership moved after %v, writes resumed after %v", moved, resumed)
		// The disk answers at last: too late.
		close(gate)
		synctest.Wait()
		if !stores[l.id].done.Load() {
			t.Error("the write did not end")
		}
		c.propose(c.leader(l.id), "after")
		if got := l.node.State().AppliedIndex; got > last {
			t.Errorf("failed node applied %d, want at most %d", got, last)
		}
		if len(l.fatals) != 0 {
			t.Error("fatal was called twice")
		}
	})
}

// A disk that hangs for three seconds costs the leadership, not the node.
func TestSlowDiskOfLeaderMovesLeadershipOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stores := stuckCluster(t, nil, nil)
		defer c.stopAll()
		l := c.leader()
		c.propose(l, "before")
		gate := make(chan struct{})
		stores[l.id].gate.Store(&gate)
		f := l.node.ProposeAsync([]byte("during"))
		time.Sleep(3 * time.Second)
		stores[l.id].gate.Store(nil)
		close(gate)
		if _, _, err := f.Wait(t.Context()); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("propose: got %v, want ErrAmbiguous", err)
		}
		time.Sleep(10 * time.Second)
		l2 := c.leader()
		if l2 == l {
			t.Error("the node with the slow disk leads again at once")
		}
		for _, d := range c.agree(c.propose(l2, "after")) {
			if d == "during" {
				t.Error("a command that its leader did not store in time was applied")
			}
		}
		for id, m := range c.members {
			if len(m.fatals) != 0 {
				t.Errorf("%s stopped: %v", id, (<-m.fatals).err)
			}
		}
	})
}

// A follower's hanging disk has ten seconds, and nobody else's leadership suffers.
func TestHungDiskOfFollowerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stores := stuckCluster(t, nil, nil)
		defer c.stopAll()
		l := c.leader()
		last := c.propose(l, "before")
		c.agree(last)
		var f *member
		for _, m := range c.members {
			if m != l {
				f = m
			}
		}
		gate := make(chan struct{})
		stores[f.id].gate.Store(&gate)
		start := time.Now()
		c.propose(l, "during")
		if got := c.fatal(f); got.code != ExitStorage {
			t.Errorf("fatal: got %d %v, want %d", got.code, got.err, ExitStorage)
		}
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("fatal after %v, want 10s", took)
		}
		if !l.node.Leading() {
			t.Error("the leader lost its leadership to a follower's disk")
		}
		close(gate)
	})
}

// The same over TLS, in real time, where heartbeats take a path of their own through the library.
func TestHungDiskOfLeaderOverTLS(t *testing.T) {
	c, stores := stuckCluster(t, newPKI(t), func(cfg *Config) {
		cfg.HandOverTimeout, cfg.LeaderStorageTimeout, cfg.StorageTimeout = 300*time.Millisecond, 4*time.Second, 6*time.Second
	})
	l := c.leader()
	c.propose(l, "before")
	gate := make(chan struct{})
	defer close(gate)
	stores[l.id].gate.Store(&gate)
	start := time.Now()
	during := l.node.ProposeAsync([]byte("during"))
	l2 := c.leader(l.id)
	c.propose(l2, "meanwhile")
	t.Logf("writes resumed after %v", time.Since(start))
	if f := c.fatal(l); f.code != ExitStorage {
		t.Errorf("fatal: got %d %v, want %d", f.code, f.err, ExitStorage)
	}
	if _, _, err := during.Wait(t.Context()); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("propose: got %v, want ErrAmbiguous", err)
	}
	c.propose(c.leader(l.id), "after")
}

// corruptStore returns the wrong entry, or none, for one index.
type corruptStore struct {
	storage
	index   atomic.Uint64
	missing bool
}

func (s *corruptStore) GetLog(index uint64, log *raft.Log) error {
	if index != s.index.Load() {
		return s.storage.GetLog(index, log)
	}
	if s.missing {
		return raft.ErrLogNotFound
	}
	return s.storage.GetLog(index-1, log)
}

func TestCorruptLogIsNotServed(t *testing.T) {
	for _, missing := range []bool{false, true} {
		t.Run(fmt.Sprintf("missing=%v", missing), func(t *testing.T) {
			var store *corruptStore
			c := newCluster(t, 1, nil, func(cfg *Config) {
				cfg.wrapStore = func(inner storage) storage {
					store = &corruptStore{storage: inner, missing: missing}
					return store
				}
			})
			l := c.leader()
			c.propose(l, "one")
			index := c.propose(l, "two")
			c.propose(l, "three")
			c.stop(l.id)
			l.sm.rollBack(0)
			l.cfg.wrapStore = func(inner storage) storage {
				s := &corruptStore{storage: inner, missing: missing}
				s.index.Store(index)
				return s
			}
			if err := c.tryStart(l.id); err == nil {
				t.Error("open with a corrupt entry: got success, want an error")
			}
			if got := len(l.sm.data()); got != 0 {
				t.Errorf("applied %d commands of a log that is corrupt, want 0", got)
			}
		})
	}
}

// Entries that the library would panic on, at this start and every later one, must not get into the log.
func TestMalformedEntryIsNotStored(t *testing.T) {
	for name, entry := range map[string]raft.Log{
		"type":          {Type: 77},
		"old type":      {Type: raft.LogAddPeerDeprecated},
		"configuration": {Type: raft.LogConfiguration, Data: []byte{0xc1, 0xff}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, nil, nil)
			l := c.leader()
			before := l.node.State().LastIndex
			entry.Index, entry.Term = before+1, 1
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = l.node.store.StoreLogs([]*raft.Log{&entry})
				t.Error("store returned")
			}()
			if f := c.fatal(l); f.code != ExitStorage {
				t.Errorf("fatal: got %d, want %d", f.code, ExitStorage)
			}
			if got, err := l.node.wal.LastIndex(); err != nil || got != before {
				t.Errorf("last index: got %d, %v, want %d", got, err, before)
			}
			c.stop(l.id)
			<-done
		})
	}
}

// One full batch of the longest commands, twice, goes through a log whose segments are smaller than both.
func TestLogHoldsLargestBatches(t *testing.T) {
	dir := t.TempDir()
	w, err := openWAL(dir, discardHCLog(), nil)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, MaxCommandSize)
	var index uint64
	for range 3 {
		var batch []*raft.Log
		for range maxAppendEntries {
			index++
			batch = append(batch, &raft.Log{Index: index, Term: 1, Data: data})
		}
		if err := w.StoreLogs(batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err = openWAL(dir, discardHCLog(), nil); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if last, err := w.LastIndex(); err != nil || last != index {
		t.Errorf("last index: got %d, %v, want %d", last, err, index)
	}
	for _, i := range []uint64{1, 256, 257, 700, index} {
		var l raft.Log
		if err := w.GetLog(i, &l); err != nil || l.Index != i || len(l.Data) != MaxCommandSize {
			t.Errorf("entry %d: got index %d, %d bytes, %v", i, l.Index, len(l.Data), err)
		}
	}
}

func TestBootstrapSurvivesCrashBetweenItsWrites(t *testing.T) {
	c := newCluster(t, 1, nil, nil)
	l := c.leader()
	c.stop(l.id)
	d := c.prepare("z", nil)
	dir := d.dir + "/" + walDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := openWAL(dir, discardHCLog(), nil)
	if err != nil {
		t.Fatal(err)
	}
	conf := raft.Configuration{Servers: []raft.Server{{ID: "z", Address: "z", Suffrage: raft.Voter}}}
	if err := w.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.start("z")
	c.propose(c.leader(), "works")
}

// The library's VerifyLeader accepts evidence older than the question; its leader lease is no evidence either.
func TestVerifyLeaderIsNotUsed(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{".VerifyLeader(", ".Barrier(", "RestoreCommittedLogs = true", "PreVoteDisabled = true"} {
			if strings.Contains(string(src), word) {
				t.Errorf("%s uses %s", f.Name(), word)
			}
		}
	}
}

// holdTransport processes heartbeats at once and keeps their answers.
type holdTransport struct {
	rawTransport
	hold *atomic.Bool
	held *atomic.Int32
	free chan struct{}
}

func (h *holdTransport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	hold := h.hold.Load() && len(args.Entries) == 0 && args.PrevLogEntry == 0
	err := h.rawTransport.AppendEntries(id, addr, args, resp)
	if hold && err == nil {
		h.held.Add(1)
		<-h.free
	}
	return err
}

// A leader whose followers answered before it was cut off cannot serve a linearizable read from those answers, though
// the library's VerifyLeader says it leads.
func TestRaft05ReadIgnoresOldAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Bool
		var held atomic.Int32
		free := make(chan struct{})
		c := newCluster(t, 3, nil, func(cfg *Config) {
			cfg.Heartbeat, cfg.Election, cfg.LeaderLease = 2*time.Second, 2*time.Second, 2*time.Second
			cfg.CommitTimeout = time.Minute // no other traffic
			cfg.wrapTransport = func(inner rawTransport) rawTransport { return &holdTransport{inner, &hold, &held, free} }
		})
		defer c.stopAll()
		l := c.leader()
		c.propose(l, "before")
		time.Sleep(time.Second)
		hold.Store(true)
		for held.Load() < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		hold.Store(false)
		c.net.Isolate(l.id, true)
		verified, read := make(chan error, 1), make(chan error, 1)
		go func() { verified <- l.node.raft.VerifyLeader().Error() }()
		go func() {
			_, err := l.node.ReadIndex(t.Context())
			read <- err
		}()
		time.Sleep(100 * time.Millisecond)
		close(free)
		if err := <-verified; err != nil {
			t.Logf("the library's VerifyLeader refused: %v: its hazard is gone", err)
		}
		if err := <-read; !errors.Is(err, ErrNotLeader) {
			t.Errorf("read index: got %v, want ErrNotLeader", err)
		}
		c.net.Isolate(l.id, false)
	})
}

// A standard error that nobody reads, and that is full, holds up nothing (etcd#22214): neither commits, nor linearizable reads, nor
// elections, nor the end of the node.
func TestFault23BlockedLogSink(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = w.Write(make([]byte, 64<<10))
	}
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	sink := slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
	c := newCluster(t, 3, nil, func(cfg *Config) { cfg.Logger = slog.New(sink) })
	l := c.leader()
	for range 2 * maxLogQueue {
		l.node.log.Info("noise")
	}
	var slowest time.Duration
	for i := range 50 {
		start := time.Now()
		last := c.propose(l, fmt.Sprintf("c%d", i))
		index, err := l.node.ReadIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(start))
		c.agree(max(last, index))
	}
	t.Logf("slowest commit and linearizable read with a blocked log: %v", slowest)
	if err := l.node.TransferLeadership(t.Context()); err != nil {
		t.Errorf("transfer: %v", err)
	}
	c.propose(c.leader(l.id), "after")
	if l.node.sink.Dropped() == 0 {
		t.Error("dropped records: got 0, want some")
	}
	start := time.Now()
	c.stop(l.id)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("stopping took %v, want at most 5s", took)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 1, nil, func(cfg *Config) { cfg.Registerer = reg })
	l := c.leader()
	c.propose(l, "one")
	got := make(map[string]float64)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	for name, want := range map[string]float64{
		"creto_consensus_commands_applied_total": 1, "creto_consensus_propose_seconds": 1, "creto_consensus_apply_batch_commands": 1,
		"creto_consensus_leader_changes_total": 1, "creto_consensus_leading": 1, "creto_consensus_proposals_in_flight": 0,
		"creto_consensus_term": 2,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	c.stop(l.id)
	if families, _ = reg.Gather(); len(families) != 0 {
		t.Errorf("after close: got %d metrics, want 0", len(families))
	}
}

// TestTruncatedLogSurvivesRestart: a follower that has to drop the end of its log, because another leader's entries replace it,
// is killed afterwards. raft-wal v0.4.0 marked the segment as sealed without writing its index, so that nothing in it could be
// read again and the node was lost.
func TestTruncatedLogSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	entries := func(term, from, to uint64) (out []*raft.Log) {
		for i := from; i <= to; i++ {
			out = append(out, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: []byte(strconv.FormatUint(i, 10))})
		}
		return out
	}
	for round, truncateFrom := range []uint64{8, 8, 10, 3} {
		w, err := openWAL(dir, discardHCLog(), nil)
		if err != nil {
			t.Fatalf("round %d: open: %v", round, err)
		}
		last, err := w.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(1); i <= last; i++ {
			var l raft.Log
			if err := w.GetLog(i, &l); err != nil || l.Index != i {
				t.Fatalf("round %d: read entry %d: got %d, %v", round, i, l.Index, err)
			}
		}
		term := uint64(round + 1)
		if err := w.StoreLogs(entries(term, last+1, last+12)); err != nil {
			t.Fatalf("round %d: store: %v", round, err)
		}
		if err := w.DeleteRange(truncateFrom, last+12); err != nil {
			t.Fatalf("round %d: truncate: %v", round, err)
		}
		// Killed at once in odd rounds, and only after the replacement was stored in even ones: closing syncs nothing.
		want := truncateFrom - 1
		if round%2 == 0 {
			want = truncateFrom + 3
			if err := w.StoreLogs(entries(term+1, truncateFrom, want)); err != nil {
				t.Fatalf("round %d: store: %v", round, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if w, err = openWAL(dir, discardHCLog(), nil); err != nil {
			t.Fatalf("round %d: open after truncation: %v", round, err)
		}
		if got, err := w.LastIndex(); err != nil || got != want {
			t.Fatalf("round %d: last index: got %d, %v, want %d", round, got, err, want)
		}
		for i := uint64(1); i <= want; i++ {
			var l raft.Log
			if err := w.GetLog(i, &l); err != nil || string(l.Data) != strconv.FormatUint(i, 10) {
				t.Fatalf("round %d: read entry %d: got %q, %v", round, i, l.Data, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
