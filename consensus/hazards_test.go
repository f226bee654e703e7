package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// The tests of this file reproduce four hazards of the Raft library, v1.8.0, with its own stores and transports, and run the
// same script against a node of this package. Where a hazard is gone from a later version, its half fails: the remedy may then
// be weighed again.

// plainSM is a state machine for the plain library.
type plainSM struct {
	mu      sync.Mutex
	applied []uint64
}

func (p *plainSM) Apply(l *raft.Log) any {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applied = append(p.applied, l.Index)
	return nil
}
func (p *plainSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errNoSnapshots }
func (p *plainSM) Restore(r io.ReadCloser) error       { return r.Close() }

func (p *plainSM) last() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.applied) == 0 {
		return 0
	}
	return p.applied[len(p.applied)-1]
}

// plainConfig makes no elections unless the timers are set again.
func plainConfig(id string) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.Logger = discardHCLog()
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
	return c
}

// stale is a log of three members: a configuration, commands of term 1 up to entry 5, and an end of term 2 that was never
// committed.
func stale(last uint64) []*raft.Log {
	var conf raft.Configuration
	for _, id := range []raft.ServerID{"a", "b", "z"} {
		conf.Servers = append(conf.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id), Suffrage: raft.Voter})
	}
	out := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)}}
	for i := uint64(2); i <= last; i++ {
		l := &raft.Log{Index: i, Term: 1, Data: fmt.Appendf(nil, "committed %d", i)}
		if i > 5 {
			l.Term, l.Data = 2, fmt.Appendf(nil, "stale %d", i)
		}
		out = append(out, l)
	}
	return out
}

// plainNode is the library on logs and entries.
func plainNode(t *testing.T, store interface {
	raft.LogStore
	raft.StableStore
}, entries []*raft.Log) (*raft.Raft, *plainSM, *raft.InmemTransport) {
	t.Helper()
	if first, err := store.FirstIndex(); err != nil || first == 0 {
		if err := errors.Join(err, store.StoreLogs(entries), store.SetUint64(keyCurrentTerm, 2)); err != nil {
			t.Fatal(err)
		}
	}
	_, trans := raft.NewInmemTransport("a")
	sm := &plainSM{}
	r, err := raft.NewRaft(plainConfig("a"), sm, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	return r, sm, trans
}

// ourNode is a node of this package on entries, and the transport of its peer z.
func ourNode(t *testing.T, entries []*raft.Log, edit func(*Config)) (*cluster, *member, *raft.InmemTransport) {
	t.Helper()
	c := &cluster{t: t, members: make(map[string]*member), net: NewMemNetwork()}
	a := c.prepare("a", func(cfg *Config) {
		cfg.Heartbeat, cfg.Election, cfg.LeaderLease = time.Hour, time.Hour, time.Hour
		if edit != nil {
			edit(cfg)
		}
	})
	writeLog(t, a.dir, entries, 2)
	c.start("a")
	return c, a, c.net.join("z")
}

// writeLog makes a node's log on disk.
func writeLog(t testing.TB, dataDir string, entries []*raft.Log, term uint64) {
	t.Helper()
	dir := makeWALDir(t, dataDir)
	w, err := openWAL(dir, discardHCLog(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for len(entries) > 0 {
		n := min(len(entries), maxAppendEntries)
		if err := w.StoreLogs(entries[:n]); err != nil {
			t.Fatal(err)
		}
		entries = entries[n:]
	}
	if err := errors.Join(w.SetUint64(keyCurrentTerm, term), w.Close()); err != nil {
		t.Fatal(err)
	}
}

// appendTo sends what a leader z of term 3 would.
func appendTo(trans *raft.InmemTransport, prev, prevTerm, commit uint64, entries ...*raft.Log) (raft.AppendEntriesResponse, error) {
	var resp raft.AppendEntriesResponse
	err := trans.AppendEntries("a", "a", &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("z"), Addr: []byte("z")},
		Term:      3, PrevLogEntry: prev, PrevLogTerm: prevTerm, Entries: entries, LeaderCommitIndex: commit}, &resp)
	return resp, err
}

// Hazard a: VerifyLeader is satisfied by a heartbeat's answer that was sent before the call. Our node's half, with the same
// script, is TestRaft05ReadIgnoresOldAnswers.
func TestHazardVerifyLeaderOnOldAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Bool
		var held atomic.Int32
		free := make(chan struct{})
		nodes := make(map[string]*raft.Raft)
		trans := make(map[string]*raft.InmemTransport)
		var conf raft.Configuration
		for _, id := range []string{"a", "b", "c"} {
			_, trans[id] = raft.NewInmemTransport(raft.ServerAddress(id))
			conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		}
		for a, ta := range trans {
			for b, tb := range trans {
				if a != b {
					ta.Connect(raft.ServerAddress(b), tb)
				}
			}
		}
		for id, tr := range trans {
			cfg := plainConfig(id)
			cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 2*time.Second, 2*time.Second, 2*time.Second
			cfg.CommitTimeout = time.Minute
			store, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
			if err := raft.BootstrapCluster(cfg, store, store, snaps, tr, conf); err != nil {
				t.Fatal(err)
			}
			r, err := raft.NewRaft(cfg, &plainSM{}, store, store, snaps, &holdTransport{tr, &hold, &held, free})
			if err != nil {
				t.Fatal(err)
			}
			nodes[id] = r
		}
		defer func() {
			for _, r := range nodes {
				if err := r.Shutdown().Error(); err != nil {
					t.Error(err)
				}
			}
		}()
		var leader string
		for leader == "" {
			time.Sleep(100 * time.Millisecond)
			for id, r := range nodes {
				if r.State() == raft.Leader {
					leader = id
				}
			}
		}
		time.Sleep(time.Second)
		hold.Store(true)
		for held.Load() < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		hold.Store(false)
		trans[leader].DisconnectAll()
		for id, tr := range trans {
			if id != leader {
				tr.Disconnect(raft.ServerAddress(leader))
			}
		}
		f := nodes[leader].VerifyLeader()
		time.Sleep(100 * time.Millisecond)
		close(free)
		if err := f.Error(); err != nil {
			t.Errorf("the library's VerifyLeader on answers older than the call: got %v; the hazard is gone", err)
		}
	})
}

// Hazard b: a follower of the library commits min(leader's commit, its own last entry), not min(leader's commit, last entry
// of the request), and with it an end of its log that was replaced elsewhere.
func TestHazardFollowerCommitRule(t *testing.T) {
	script := func(t *testing.T, z *raft.InmemTransport) {
		t.Helper()
		log := stale(10)
		if resp, err := appendTo(z, 3, 1, 90, log[3], log[4]); err != nil || !resp.Success {
			t.Fatalf("append: got %+v, %v, want success", resp, err)
		}
		synctest.Wait()
	}
	t.Run("library", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, sm, trans := plainNode(t, raft.NewInmemStore(), stale(10))
			defer func() { _ = r.Shutdown().Error() }()
			_, z := raft.NewInmemTransport("z")
			z.Connect("a", trans)
			script(t, z)
			if r.CommitIndex() != 10 || sm.last() != 10 {
				t.Errorf("library: committed %d, applied %d, want 10, 10; the hazard is gone", r.CommitIndex(), sm.last())
			}
		})
	})
	t.Run("ours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, a, z := ourNode(t, stale(10), nil)
			defer c.stopAll()
			script(t, z)
			if got := a.node.raft.CommitIndex(); got != 5 {
				t.Errorf("commit index: got %d, want 5", got)
			}
			if got := a.sm.data(); len(got) != 4 || got[3] != "committed 5" {
				t.Errorf("applied: got %q, want entries 2 to 5", got)
			}
			// What the leader really has replaces the end, and only that is applied.
			fresh := []*raft.Log{{Index: 6, Term: 3, Data: []byte("fresh 6")}}
			if resp, err := appendTo(z, 5, 1, 90, fresh...); err != nil || !resp.Success {
				t.Fatalf("append: got %+v, %v, want success", resp, err)
			}
			synctest.Wait()
			if got := a.sm.data(); len(got) != 5 || got[4] != "fresh 6" {
				t.Errorf("applied: got %q, want the leader's entry 6", got)
			}
		})
	})
}

// brokenDelete fails once when the end of the log is to be removed.
type brokenDelete struct {
	*raft.InmemStore
	broken atomic.Bool
}

func (b *brokenDelete) DeleteRange(min, max uint64) error {
	if b.broken.Swap(false) {
		return syscall.EIO
	}
	return b.InmemStore.DeleteRange(min, max)
}

// How a correct leader comes to send the request of hazard b: the follower's storage failed, the library told the leader no,
// and the leader went back beyond the point where the logs part.
func TestHazardFollowerCommitRuleAfterStorageError(t *testing.T) {
	script := func(z *raft.InmemTransport) (first, second error) {
		log := stale(10)
		resp, first := appendTo(z, 5, 1, 90, &raft.Log{Index: 6, Term: 3, Data: []byte("fresh 6")})
		if first == nil && resp.Success {
			first = errors.New("success")
		}
		_, second = appendTo(z, 4, 1, 90, log[4])
		return first, second
	}
	t.Run("library", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &brokenDelete{InmemStore: raft.NewInmemStore()}
			store.broken.Store(true)
			r, sm, trans := plainNode(t, store, stale(10))
			defer func() { _ = r.Shutdown().Error() }()
			_, z := raft.NewInmemTransport("z")
			z.Connect("a", trans)
			if first, second := script(z); first != nil || second != nil {
				t.Fatalf("got %v, %v, want a plain no and a yes", first, second)
			}
			synctest.Wait()
			if sm.last() != 10 {
				t.Errorf("library: applied %d, want 10; the hazard is gone", sm.last())
			}
		})
	})
	t.Run("ours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, a, z := ourNode(t, stale(10), func(cfg *Config) {
				cfg.wrapStore = func(inner storage) storage { return &failDelete{inner} }
			})
			defer c.stopAll()
			first, second := script(z)
			if first == nil || second == nil {
				t.Errorf("requests to a node whose storage failed: got %v, %v, want no answers", first, second)
			}
			if f := <-a.fatals; f.code != ExitStorage || !errors.Is(f.err, syscall.EIO) {
				t.Errorf("fatal: got %d %v, want %d EIO", f.code, f.err, ExitStorage)
			}
			if got := a.sm.data(); len(got) != 0 {
				t.Errorf("applied: got %q, want nothing", got)
			}
		})
	})
}

type failDelete struct{ storage }

func (f *failDelete) DeleteRange(uint64, uint64) error { return syscall.EIO }

// monotonicStore is the library's store, saying that it has no gaps.
type monotonicStore struct{ *raft.InmemStore }

func (monotonicStore) IsMonotonic() bool { return true }

// Hazard c: a follower with an uncommitted end beyond a snapshot installs it, reports success, and refuses every entry after it
// for ever. Our nodes keep the whole log and take no snapshot from others: the leader's entries replace the end.
func TestHazardInstallSnapshotLivelock(t *testing.T) {
	install := func(z *raft.InmemTransport) error {
		log := stale(5)
		var resp raft.InstallSnapshotResponse
		err := z.InstallSnapshot("a", "a", &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("z"), Addr: []byte("z")},
			SnapshotVersion: raft.SnapshotVersionMax, Term: 3, LastLogIndex: 10, LastLogTerm: 3,
			Configuration: log[0].Data, ConfigurationIndex: 1, Size: 4}, &resp, bytes.NewReader([]byte("data")))
		if err == nil && !resp.Success {
			err = errors.New("no success")
		}
		return err
	}
	for name, monotonic := range map[string]bool{"plain store": false, "monotonic store": true} {
		t.Run("library with "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var store interface {
					raft.LogStore
					raft.StableStore
				} = raft.NewInmemStore()
				if monotonic {
					store = monotonicStore{store.(*raft.InmemStore)}
				}
				r, _, trans := plainNode(t, store, stale(20))
				defer func() { _ = r.Shutdown().Error() }()
				_, z := raft.NewInmemTransport("z")
				z.Connect("a", trans)
				if err := install(z); err != nil {
					t.Fatalf("install: %v", err)
				}
				for range 3 {
					if resp, err := appendTo(z, 10, 3, 10, &raft.Log{Index: 11, Term: 3}); err != nil || resp.Success {
						t.Errorf("append after the snapshot: got %+v, %v, want a no; the hazard is gone", resp, err)
					}
				}
			})
		})
	}
	t.Run("ours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, a, z := ourNode(t, stale(20), nil)
			defer c.stopAll()
			if err := install(z); err == nil {
				t.Error("install: got success, want a refusal")
			}
			if resp, err := appendTo(z, 10, 3, 10, &raft.Log{Index: 11, Term: 3}); err != nil || resp.Success {
				t.Errorf("append beyond the point where the logs part: got %+v, %v, want a no", resp, err)
			}
			var fresh []*raft.Log
			for i := uint64(6); i <= 11; i++ {
				fresh = append(fresh, &raft.Log{Index: i, Term: 3, Data: fmt.Appendf(nil, "fresh %d", i)})
			}
			if resp, err := appendTo(z, 5, 1, 11, fresh...); err != nil || !resp.Success {
				t.Fatalf("append from where the logs part: got %+v, %v, want success", resp, err)
			}
			synctest.Wait()
			if got := a.sm.data(); len(got) != 10 || got[9] != "fresh 11" {
				t.Errorf("applied: got %q, want the leader's entries", got)
			}
			if len(a.fatals) != 0 {
				t.Errorf("node stopped: %v", (<-a.fatals).err)
			}
		})
	})
}

// committedStore keeps a commit index for the library's RestoreCommittedLogs.
type committedStore struct {
	*raft.InmemStore
	index uint64
}

func (c *committedStore) StageCommitIndex(uint64) error   { return nil }
func (c *committedStore) GetCommitIndex() (uint64, error) { return c.index, nil }

// Hazard d: with RestoreCommittedLogs the library hands more than 128 batches to a state machine whose goroutine it has not
// started yet, and never returns.
func TestHazardRestoreCommittedLogs(t *testing.T) {
	long := func(n int) []*raft.Log {
		entries := stale(5)
		for i := uint64(6); i <= uint64(n); i++ {
			entries = append(entries, &raft.Log{Index: i, Term: 1, Data: []byte("x")})
		}
		return entries
	}
	t.Run("library", func(t *testing.T) {
		cfg := plainConfig("a")
		cfg.RestoreCommittedLogs = true
		cfg.MaxAppendEntries = 64
		open := func(n int) chan *raft.Raft {
			store := &committedStore{raft.NewInmemStore(), uint64(n)}
			if err := errors.Join(store.StoreLogs(long(n)), store.SetUint64(keyCurrentTerm, 2)); err != nil {
				t.Fatal(err)
			}
			_, trans := raft.NewInmemTransport("a")
			out := make(chan *raft.Raft, 1)
			go func() {
				r, err := raft.NewRaft(cfg, &plainSM{}, store, store, raft.NewInmemSnapshotStore(), trans)
				if err != nil {
					t.Error(err)
				}
				out <- r
			}()
			return out
		}
		if err := (<-open(8000)).Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		hung := open(8300)
		// It hangs when its goroutine waits to hand over a batch; that goroutine stays until the process ends, see TestMain.
		deadline := time.Now().Add(20 * time.Second)
		buf := make([]byte, 1<<20)
		for {
			select {
			case r := <-hung:
				_ = r.Shutdown().Error()
				t.Fatal("the library opened; the hazard is gone")
			default:
			}
			for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				head, _, _ := strings.Cut(g, "\n")
				if strings.Contains(g, "restoreFromCommittedLogs") && (strings.Contains(head, "[select") || strings.Contains(head, "[chan send")) {
					return
				}
			}
			if time.Now().After(deadline) {
				t.Fatal("neither opened nor seen to hang")
			}
			runtime.Gosched()
		}
	})
	t.Run("ours", func(t *testing.T) {
		c := &cluster{t: t, members: make(map[string]*member), net: NewMemNetwork()}
		t.Cleanup(c.stopAll)
		a := c.prepare("a", nil)
		// More than 128 batches of the size our nodes use.
		const n = 130*maxAppendEntries + 1
		entries := long(n)
		entries[0].Data = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}})
		writeLog(t, a.dir, entries, 2)
		c.start("a")
		last := c.propose(c.leader(), "after")
		if got := c.agree(last); len(got) != n {
			t.Errorf("applied: got %d commands, want %d", len(got), n)
		}
	})
}
