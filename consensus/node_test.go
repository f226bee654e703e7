package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

// A node that has stopped on an error leaves the library's queue as it was: whoever waits for an entry in it waits for
// ever, in one goroutine of ours per entry, while its caller has long been answered.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/raft.(*deferError).Error"),
		// TestHazardRestoreCommittedLogs shows that it never ends.
		goleak.IgnoreAnyFunction("github.com/hashicorp/raft.(*Raft).restoreFromCommittedLogs"))
}

// memSM is a state machine in memory that outlives its node, as a database on disk would.
type memSM struct {
	mu      sync.Mutex
	entries []Entry
	applied uint64
	fail    atomic.Pointer[error]
	// replayed counts entries that were handed over again.
	replayed int
}

func (m *memSM) Apply(entries []Entry) ([]any, error) {
	if p := m.fail.Load(); p != nil {
		return nil, *p
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]any, len(entries))
	for i, e := range entries {
		if e.Index <= m.applied {
			m.replayed++
			continue
		}
		m.entries = append(m.entries, e)
		m.applied = e.Index
		out[i] = fmt.Sprintf("%s@%d", e.Data[:min(len(e.Data), 16)], e.Index)
	}
	return out, nil
}

func (m *memSM) AppliedIndex() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

func (m *memSM) data() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, e := range m.entries {
		out = append(out, string(e.Data))
	}
	return out
}

// rollBack forgets everything after index, as a power failure would with a store that is not synced.
func (m *memSM) rollBack(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.entries) > 0 && m.entries[len(m.entries)-1].Index > index {
		m.entries = m.entries[:len(m.entries)-1]
	}
	m.applied = 0
	if len(m.entries) > 0 {
		m.applied = m.entries[len(m.entries)-1].Index
	}
}

// member is one node of a test cluster and what survives its restarts.
type member struct {
	id, dir string
	sm      *memSM
	cfg     Config
	node    *Node
	cancel  context.CancelFunc
	ran     chan error
	fatals  chan fatalCall
}

type fatalCall struct {
	code int
	err  error
}

type cluster struct {
	t       testing.TB
	members map[string]*member
	net     *MemNetwork
	pki     *testPKI
}

func logger() *slog.Logger {
	if os.Getenv("CRETO_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// newCluster prepares n members a, b, c, … and starts them, bootstrapped with each other.
func newCluster(t testing.TB, n int, pki *testPKI, edit func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, members: make(map[string]*member), pki: pki}
	if pki == nil {
		c.net = NewMemNetwork()
	}
	var boot []Server
	for i := range n {
		m := c.prepare(string(rune('a'+i)), edit)
		boot = append(boot, Server{ID: m.id, Addr: c.addrOf(m), Voter: true})
	}
	for _, s := range boot {
		c.members[s.ID].cfg.Bootstrap = boot
		c.start(s.ID)
	}
	t.Cleanup(c.stopAll)
	return c
}

// prepare makes a member that start can start.
func (c *cluster) prepare(id string, edit func(*Config)) *member {
	c.t.Helper()
	m := &member{id: id, dir: c.t.TempDir(), sm: &memSM{}}
	m.cfg = Config{NodeID: id, DataDir: m.dir, StateMachine: m.sm, Network: c.net, Logger: logger(), Ballast: -1,
		Heartbeat: 400 * time.Millisecond, Election: 400 * time.Millisecond, LeaderLease: 400 * time.Millisecond}
	if c.net == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatal(err)
		}
		m.cfg.Listener, m.cfg.BindAddr = l, l.Addr().String()
		m.cfg.ServerTLS, m.cfg.ClientTLS = c.pki.config(c.t, id)
		m.cfg.PeerID = peerID
	}
	if edit != nil {
		edit(&m.cfg)
	}
	c.members[id] = m
	return m
}

func (c *cluster) addrOf(m *member) string {
	if c.net != nil {
		return m.id
	}
	return m.cfg.BindAddr
}

func (c *cluster) start(id string) *member {
	c.t.Helper()
	m := c.members[id]
	if err := c.tryStart(id); err != nil {
		c.t.Fatalf("open %s: %v", id, err)
	}
	return m
}

func (c *cluster) tryStart(id string) error {
	m := c.members[id]
	m.fatals = make(chan fatalCall, 16)
	fatals := m.fatals
	m.cfg.Fatal = func(code int, err error) { fatals <- fatalCall{code, err} }
	node, err := Open(m.cfg)
	m.cfg.Bootstrap, m.cfg.Listener, m.cfg.Join = nil, nil, false
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	m.node, m.cancel, m.ran = node, cancel, make(chan error, 1)
	ran := m.ran
	go func() { ran <- node.Run(ctx) }()
	return nil
}

func (c *cluster) stop(id string) {
	m := c.members[id]
	if m.node == nil {
		return
	}
	m.cancel()
	if err := <-m.ran; err != nil {
		c.t.Logf("run %s: %v", id, err)
	}
	if err := m.node.Close(); err != nil {
		c.t.Errorf("close %s: %v", id, err)
	}
	m.node = nil
}

func (c *cluster) stopAll() {
	for id := range c.members {
		c.stop(id)
	}
}

// makeWALDir makes the directory of a node's log.
func makeWALDir(t testing.TB, dataDir string) string {
	t.Helper()
	dir := filepath.Join(dataDir, walDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fatal waits for the node's only call of Fatal.
func (c *cluster) fatal(m *member) fatalCall {
	c.t.Helper()
	select {
	case f := <-m.fatals:
		return f
	case <-time.After(30 * time.Second):
		c.t.Fatalf("%s did not stop within 30s", m.id)
		return fatalCall{}
	}
}

// eventually polls, as nothing in Raft announces every change.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within 20s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// leader waits for a leader among the running members except those named.
func (c *cluster) leader(except ...string) *member {
	c.t.Helper()
	var l *member
	c.eventually("leader", func() bool {
		for id, m := range c.members {
			skip := false
			for _, e := range except {
				skip = skip || e == id
			}
			if !skip && m.node != nil && m.node.Leading() {
				l = m
				return true
			}
		}
		return false
	})
	return l
}

func (c *cluster) propose(m *member, data string) uint64 {
	c.t.Helper()
	got, index, err := m.node.Propose(c.t.Context(), []byte(data))
	if err != nil {
		c.t.Fatalf("propose %q: %v", data, err)
	}
	if want := fmt.Sprintf("%s@%d", data[:min(len(data), 16)], index); got != want {
		c.t.Fatalf("propose %q: got result %v, want %v", data, got, want)
	}
	return index
}

// agree waits until every running member has applied index and holds the same commands.
func (c *cluster) agree(index uint64) []string {
	c.t.Helper()
	var want []string
	var from string
	for id, m := range c.members {
		if m.node == nil {
			continue
		}
		if err := m.node.WaitApplied(c.t.Context(), index); err != nil {
			c.t.Fatalf("wait on %s: %v", id, err)
		}
		got := m.sm.data()
		if from != "" && fmt.Sprint(got) != fmt.Sprint(want) {
			c.t.Fatalf("commands on %s: got %d %v, want those of %s: %d %v", id, len(got), got, from, len(want), want)
		}
		want, from = got, id
	}
	return want
}

func TestThreeNodesOverTLS(t *testing.T) {
	c := newCluster(t, 3, newPKI(t), nil)
	l := c.leader()
	var last uint64
	for i := range 20 {
		last = c.propose(l, fmt.Sprintf("command %d", i))
	}
	if got := c.agree(last); len(got) != 20 {
		t.Fatalf("got %d commands, want 20", len(got))
	}
	for id, m := range c.members {
		s := m.node.State()
		if s.Leader.ID != l.id || s.Leader.Addr != l.node.Addr() || !s.Leader.Voter || len(s.Servers) != 3 {
			t.Errorf("state of %s: got %+v, want leader %s", id, s, l.id)
		}
		if m == l {
			if !s.AppliedOwnTerm || s.Role != "leader" {
				t.Errorf("state of leader: got %+v", s)
			}
			continue
		}
		_, _, err := m.node.Propose(t.Context(), []byte("x"))
		var nl *NotLeaderError
		if !errors.Is(err, ErrNotLeader) || !errors.As(err, &nl) || nl.Leader.ID != l.id {
			t.Errorf("propose on follower: got %v, want not leader, %s", err, l.id)
		}
		if _, err := m.node.ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("read index on follower: got %v, want not leader", err)
		}
	}
	// The leader dies; the others go on, and it comes back.
	c.stop(l.id)
	l2 := c.leader()
	if got := l2.sm.data(); len(got) != 20 {
		t.Fatalf("new leader has %d commands, want 20", len(got))
	}
	c.propose(l2, "after")
	c.start(l.id)
	last = c.propose(l2, "after restart")
	if got := c.agree(last); len(got) != 22 {
		t.Fatalf("got %d commands, want 22", len(got))
	}
	for id, m := range c.members {
		if m.sm.replayed != 0 {
			t.Errorf("%s: %d entries were handed over twice, want 0", id, m.sm.replayed)
		}
	}
}

func TestBounds(t *testing.T) {
	c := newCluster(t, 1, nil, nil)
	l := c.leader()
	if _, _, err := l.node.Propose(t.Context(), nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty: got %v, want ErrEmpty", err)
	}
	if _, _, err := l.node.Propose(t.Context(), make([]byte, MaxCommandSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge: got %v, want ErrTooLarge", err)
	}
	if _, _, err := l.node.Propose(t.Context(), make([]byte, MaxCommandSize)); err != nil {
		t.Errorf("largest: got %v, want success", err)
	}
	for range maxInFlight {
		l.node.slots <- struct{}{}
	}
	if _, _, err := l.node.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrPushback) {
		t.Errorf("full: got %v, want ErrPushback", err)
	}
	for range maxInFlight {
		<-l.node.slots
	}
	l.node.bytes.Store(maxInFlightBytes)
	if _, _, err := l.node.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrPushback) {
		t.Errorf("full of bytes: got %v, want ErrPushback", err)
	}
	l.node.bytes.Store(0)
	if len(l.node.slots) != 0 {
		t.Errorf("slots: got %d, want 0", len(l.node.slots))
	}
	if _, _, err := l.node.Propose(t.Context(), []byte("x")); err != nil {
		t.Errorf("after: got %v, want success", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	c := newCluster(t, 1, nil, nil)
	l := c.leader()
	c.propose(l, "one")
	if _, err := Open(l.cfg); err == nil {
		t.Error("second open of one directory: got success, want an error")
	}
	c.stop(l.id)
	if has, err := HasState(l.dir); err != nil || !has {
		t.Errorf("has state: got %v, %v, want true", has, err)
	}
	if has, err := HasState(t.TempDir()); err != nil || has {
		t.Errorf("has state of nothing: got %v, %v, want false", has, err)
	}
	l.cfg.Bootstrap = []Server{{ID: l.id, Addr: l.id, Voter: true}}
	if err := c.tryStart(l.id); !errors.Is(err, ErrHasState) {
		t.Errorf("bootstrap with state: got %v, want ErrHasState", err)
	}
	l.cfg.Join = true
	if err := c.tryStart(l.id); !errors.Is(err, ErrHasState) {
		t.Errorf("join with state: got %v, want ErrHasState", err)
	}
	// The disk is lost and replaced by an empty one.
	wiped := c.prepare("wiped", nil)
	if err := c.tryStart(wiped.id); !errors.Is(err, ErrNoState) {
		t.Errorf("start without state: got %v, want ErrNoState", err)
	}
	l.sm.applied += 100
	if err := c.tryStart(l.id); !errors.Is(err, ErrStateAhead) {
		t.Errorf("state machine ahead: got %v, want ErrStateAhead", err)
	}
	if _, err := Open(Config{}); err == nil {
		t.Error("empty configuration: got success, want an error")
	}
}

// A state machine that lost its unsynced tail gets exactly that tail again, whatever the depth.
func TestRestartReplays(t *testing.T) {
	c := newCluster(t, 1, nil, nil)
	l := c.leader()
	var index []uint64
	for i := range 50 {
		index = append(index, c.propose(l, fmt.Sprintf("c%d", i)))
		if i%7 == 0 {
			if _, err := l.node.ReadIndex(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, keep := range []uint64{index[49], index[30], index[0], 0} {
		c.stop(l.id)
		l.sm.rollBack(keep)
		c.start(l.id)
		c.leader()
		last, err := l.node.ReadIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := c.agree(last)
		if len(got) != 50 || got[49] != "c49" || got[31] != "c31" {
			t.Fatalf("after losing all beyond %d: got %d commands %v, want 50", keep, len(got), got)
		}
		if l.sm.replayed != 0 {
			t.Errorf("%d entries were handed over twice, want 0", l.sm.replayed)
		}
	}
}

func TestReplaceNode(t *testing.T) {
	c := newCluster(t, 3, newPKI(t), nil)
	l := c.leader()
	for i := range 10 {
		c.propose(l, fmt.Sprintf("c%d", i))
	}
	var gone string
	for id := range c.members {
		if id != l.id {
			gone = id
			break
		}
	}
	c.stop(gone)
	if err := l.node.Remove(t.Context(), gone); err != nil {
		t.Fatalf("remove: %v", err)
	}
	if err := l.node.Remove(t.Context(), gone); !errors.Is(err, ErrUnknownServer) {
		t.Errorf("remove again: got %v, want ErrUnknownServer", err)
	}
	d := c.prepare("d", nil)
	d.cfg.Join = true
	c.start("d")
	if err := l.node.AddNonvoter(t.Context(), "d", c.addrOf(d)); err != nil {
		t.Fatalf("add: %v", err)
	}
	if err := l.node.AddNonvoter(t.Context(), l.id, "x:1"); !errors.Is(err, ErrMember) {
		t.Errorf("add a voter: got %v, want ErrMember", err)
	}
	last := c.propose(l, "with d")
	if err := d.node.WaitApplied(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if s := d.node.State(); len(s.Servers) != 3 {
		t.Errorf("servers on d: got %v, want 3", s.Servers)
	}
	if err := l.node.Promote(t.Context(), "d"); err != nil {
		t.Fatalf("promote: %v", err)
	}
	// Quorum now needs d once the other old follower is gone.
	for id := range c.members {
		if id != l.id && id != "d" && id != gone {
			c.stop(id)
		}
	}
	last = c.propose(l, "quorum with d")
	if got := c.agree(last); len(got) != 12 {
		t.Errorf("got %d commands, want 12", len(got))
	}
	if err := l.node.TransferLeadership(t.Context()); err != nil {
		t.Fatalf("transfer: %v", err)
	}
	if l2 := c.leader(l.id); l2.id != "d" {
		t.Errorf("leader after transfer: got %s, want d", l2.id)
	}
}

// A learner must catch up although its replayed configuration does not have the current leader.
func TestLearnerAcceptsLeaderItDoesNotKnow(t *testing.T) {
	c := newCluster(t, 1, newPKI(t), nil)
	a := c.leader()
	b := c.prepare("b", nil)
	b.cfg.Join = true
	c.start("b")
	if err := a.node.AddNonvoter(t.Context(), "b", c.addrOf(b)); err != nil {
		t.Fatal(err)
	}
	last := c.propose(a, "one")
	if err := b.node.WaitApplied(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if err := a.node.Promote(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := a.node.TransferLeadership(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.leader("a")
	if err := b.node.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	c.stop("a")
	for i := range 600 { // more than one request, so that the learner is asked again after it knows a configuration
		last = c.propose(b, fmt.Sprintf("many %d", i))
	}
	d := c.prepare("d", nil)
	d.cfg.Join = true
	c.start("d")
	if err := b.node.AddNonvoter(t.Context(), "d", c.addrOf(d)); err != nil {
		t.Fatal(err)
	}
	if err := d.node.WaitApplied(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if got := len(d.sm.data()); got < 601 {
		t.Errorf("learner: got %d commands, want 601", got)
	}
}

func TestRemovedLeaderStops(t *testing.T) {
	c := newCluster(t, 3, nil, nil)
	l := c.leader()
	if err := l.node.Remove(t.Context(), l.id); err != nil && !errors.Is(err, ErrAmbiguous) {
		t.Fatalf("remove self: %v", err)
	}
	if f := c.fatal(l); f.code != ExitRemoved {
		t.Errorf("fatal: got %d %v, want %d", f.code, f.err, ExitRemoved)
	}
	c.leader(l.id)
}

func TestRemovedFollowerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil, nil)
		defer c.stopAll()
		l := c.leader()
		var gone *member
		for id, m := range c.members {
			if id != l.id {
				gone = m
			}
		}
		c.agree(c.propose(l, "one"))
		// The library tells a removed follower so only if it sends it nothing else at that moment.
		time.Sleep(time.Second)
		if err := l.node.Remove(t.Context(), gone.id); err != nil {
			t.Fatal(err)
		}
		if f := c.fatal(gone); f.code != ExitRemoved {
			t.Errorf("fatal: got %d %v, want %d", f.code, f.err, ExitRemoved)
		}
		c.propose(c.leader(gone.id), "two")
	})
}

func TestStateMachineErrorStops(t *testing.T) {
	for name, fail := range map[string]error{"error": errors.New("disk of the ledger"), "panic": nil} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, nil, nil)
			l := c.leader()
			if fail != nil {
				l.sm.fail.Store(&fail)
			} else {
				l.node.cfg.StateMachine = panicSM{} // read only by the state machine's goroutine, which idles
			}
			_, _, err := l.node.Propose(t.Context(), []byte("x"))
			if !errors.Is(err, ErrAmbiguous) {
				t.Errorf("propose: got %v, want ErrAmbiguous", err)
			}
			if f := c.fatal(l); f.code != ExitStateMachine || fail != nil && !errors.Is(f.err, fail) {
				t.Errorf("fatal: got %d %v, want %d", f.code, f.err, ExitStateMachine)
			}
			if _, _, err := l.node.Propose(t.Context(), []byte("y")); !errors.Is(err, ErrClosed) {
				t.Errorf("propose after: got %v, want ErrClosed", err)
			}
		})
	}
}

type panicSM struct{}

func (panicSM) Apply([]Entry) ([]any, error) { panic("impossible state") }
func (panicSM) AppliedIndex() uint64         { return 0 }

func TestAmbiguousAndReadsUnderPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil, nil)
		defer c.stopAll()
		l := c.leader()
		c.propose(l, "before")
		c.net.Isolate(l.id, true)
		// The old leader does not know yet; what it is asked now it cannot commit.
		read := make(chan error, 1)
		go func() {
			_, err := l.node.ReadIndex(t.Context())
			read <- err
		}()
		_, _, err := l.node.Propose(t.Context(), []byte("lost"))
		if !errors.Is(err, ErrAmbiguous) {
			t.Errorf("propose without quorum: got %v, want ErrAmbiguous", err)
		}
		if err := <-read; !errors.Is(err, ErrNotLeader) {
			t.Errorf("read without quorum: got %v, want ErrNotLeader", err)
		}
		l2 := c.leader(l.id)
		c.propose(l2, "meanwhile")
		c.net.Isolate(l.id, false)
		l3 := c.leader()
		last := c.propose(l3, "after")
		for _, d := range c.agree(last) {
			if d == "lost" {
				t.Error("a command that lost its leader was applied although it was overwritten")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l3.node.WaitApplied(ctx, last+1000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait for the future: got %v, want deadline exceeded", err)
		}
		if len(l3.node.waiters.list) != 0 {
			t.Errorf("waiters: got %d, want 0", len(l3.node.waiters.list))
		}
	})
}

// Many rounds of partition: nothing acknowledged is lost, nothing is there twice. Time is virtual.
func TestPartitionsInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil, nil)
		defer c.stopAll()
		acked := make(map[string]bool)
		serial := 0
		for round := range 15 {
			l := c.leader()
			for range 10 {
				serial++
				data := fmt.Sprintf("r%d-%d", round, serial)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				if _, _, err := l.node.Propose(ctx, []byte(data)); err == nil {
					acked[data] = true
				}
				cancel()
				if serial%10 == 5 {
					c.net.Isolate(l.id, true)
				}
			}
			time.Sleep(time.Second)
			c.net.Isolate(l.id, false)
			time.Sleep(time.Second)
		}
		last := c.propose(c.leader(), "end")
		seen := make(map[string]int)
		for _, d := range c.agree(last) {
			seen[d]++
		}
		for d := range acked {
			if seen[d] != 1 {
				t.Errorf("%s was acknowledged and is there %d times, want once", d, seen[d])
			}
		}
		if len(acked) < 60 {
			t.Errorf("acknowledged: got %d, want at least 60", len(acked))
		}
	})
}

func TestSubscribe(t *testing.T) {
	c := newCluster(t, 3, nil, nil)
	l := c.leader()
	ch, stop, err := l.node.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := l.node.TransferLeadership(t.Context()); err != nil {
		t.Fatal(err)
	}
	for got := range ch {
		if got.Leader.ID != "" && got.Leader.ID != l.id && !got.Leading {
			return
		}
	}
}

// Linearizability in its simplest form: a read that begins after a write was acknowledged sees it, on every node.
func TestReadIndexSeesAcknowledgedWrites(t *testing.T) {
	c := newCluster(t, 3, nil, nil)
	l := c.leader()
	at := func() *member { // whoever leads, or led
		for _, m := range c.members {
			if m.node.Leading() {
				return m
			}
		}
		return l
	}
	var acked, reads atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := int64(1); i <= 300; i++ {
			var b [8]byte
			binary.BigEndian.PutUint64(b[:], uint64(i))
			// A starved machine may lose its leader underway: a write without an answer makes no promise.
			if _, _, err := at().node.Propose(t.Context(), b[:]); err == nil {
				acked.Add(1)
			}
		}
	}()
	var wg sync.WaitGroup
	for _, m := range c.members {
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					want := acked.Load()
					index, err := at().node.ReadIndex(t.Context())
					if err != nil {
						continue
					}
					reads.Add(1)
					if err := m.node.WaitApplied(t.Context(), index); err != nil {
						t.Errorf("wait: %v", err)
						return
					}
					if got := int64(len(m.sm.data())); got < want {
						t.Errorf("read on %s: got %d writes, want at least %d", m.id, got, want)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	if acked.Load() == 0 || reads.Load() == 0 {
		t.Errorf("got %d writes acknowledged and %d reads, want some of both", acked.Load(), reads.Load())
	}
	if len(l.node.waiters.list) != 0 || l.node.reads.count != 0 {
		t.Errorf("left over: got %d waiters, %d reads", len(l.node.waiters.list), l.node.reads.count)
	}
}

func TestTornTail(t *testing.T) {
	c := newCluster(t, 1, nil, nil)
	l := c.leader()
	var index []uint64
	for i := range 30 {
		index = append(index, c.propose(l, fmt.Sprintf("command number %d with some length", i)))
	}
	c.stop(l.id)
	segments, err := filepath.Glob(filepath.Join(l.dir, walDir, "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	segment := segments[len(segments)-1]
	raw, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	end := len(raw)
	for end > 0 && raw[end-1] == 0 {
		end--
	}
	const window = 1024
	// restore puts the tail back as it was, except that its last cut bytes never reached the disk.
	restore := func(cut int) {
		t.Helper()
		tail := append([]byte(nil), raw[end-window:end+64<<10]...)
		clear(tail[window-cut : window])
		f, err := os.OpenFile(segment, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(tail, int64(end-window)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for cut := 1; cut < 400; cut += 57 {
		// The state machine lost more than the log: the node starts and holds a prefix.
		restore(cut)
		l.sm.rollBack(index[9])
		if err := c.tryStart(l.id); err != nil {
			t.Fatalf("cut %d: open: %v", cut, err)
		}
		last, err := c.leader().node.ReadIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := c.agree(last)
		for i, d := range got {
			if want := fmt.Sprintf("command number %d with some length", i); d != want {
				t.Fatalf("cut %d: command %d: got %q, want %q", cut, i, d, want)
			}
		}
		if len(got) < 10 || len(got) >= 30 {
			t.Fatalf("cut %d: got %d commands, want a proper prefix", cut, len(got))
		}
		c.stop(l.id)
		// The state machine holds more than the log: the node refuses.
		restore(cut)
		l.sm.applied = index[29]
		if err := c.tryStart(l.id); !errors.Is(err, ErrStateAhead) {
			t.Fatalf("cut %d with a full state machine: got %v, want ErrStateAhead", cut, err)
		}
		l.sm.applied = got0(l.sm)
	}
}

// got0 is the index of the last entry the state machine really has.
func got0(m *memSM) uint64 { return m.entries[len(m.entries)-1].Index }

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// deafTransport loses what comes in for one node, requests and answers alike, while what the node sends arrives.
type deafTransport struct {
	rawTransport
	self string
	deaf *atomic.Pointer[string]
}

var errLost = errors.New("lost on the way")

func (d *deafTransport) call(to raft.ServerID, send func() error) error {
	deaf := ""
	if p := d.deaf.Load(); p != nil {
		deaf = *p
	}
	if deaf == string(to) {
		return errLost
	}
	err := send()
	if deaf == d.self && err == nil {
		return errLost
	}
	return err
}

func (d *deafTransport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	var out raft.AppendEntriesResponse
	err := d.call(id, func() error { return d.rawTransport.AppendEntries(id, addr, args, &out) })
	if err == nil {
		*resp = out
	}
	return err
}

func (d *deafTransport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	var out raft.RequestVoteResponse
	err := d.call(id, func() error { return d.rawTransport.RequestVote(id, addr, args, &out) })
	if err == nil {
		*resp = out
	}
	return err
}

func (d *deafTransport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	var out raft.RequestPreVoteResponse
	err := d.call(id, func() error { return d.rawTransport.RequestPreVote(id, addr, args, &out) })
	if err == nil {
		*resp = out
	}
	return err
}

// The leader can send and hears nothing: it gives up, another leads within 10 s and keeps its term for as long as this lasts, and
// nothing acknowledged is lost.
func TestRaft15LeaderHearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deaf atomic.Pointer[string]
		c := newCluster(t, 3, nil, func(cfg *Config) {
			cfg.Heartbeat, cfg.Election, cfg.LeaderLease = time.Second, time.Second, time.Second
			self := cfg.NodeID
			cfg.wrapTransport = func(inner rawTransport) rawTransport { return &deafTransport{inner, self, &deaf} }
		})
		defer c.stopAll()
		l := c.leader()
		c.propose(l, "before")
		deaf.Store(&l.id)
		start := time.Now()
		lost := l.node.ProposeAsync([]byte("unheard"))
		l2 := c.leader(l.id)
		c.propose(l2, "meanwhile")
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("writes resumed after %v, want at most 10s", took)
		}
		t.Logf("writes resumed after %v", time.Since(start))
		term := l2.node.State().Term
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if l.node.Leading() || !l2.node.Leading() {
				t.Fatalf("old leader leads: %v, new leader leads: %v", l.node.Leading(), l2.node.Leading())
			}
		}
		if got := l2.node.State().Term; got != term {
			t.Errorf("term: got %d, want %d: who hears nothing must not disturb", got, term)
		}
		if _, _, err := lost.Wait(t.Context()); err == nil {
			t.Error("a command without a quorum was acknowledged")
		}
		deaf.Store(nil)
		last := c.propose(c.leader(), "after")
		seen := make(map[string]int)
		for _, d := range c.agree(last) {
			seen[d]++
		}
		for _, d := range []string{"before", "meanwhile", "after"} {
			if seen[d] != 1 {
				t.Errorf("%q was acknowledged and is there %d times, want once", d, seen[d])
			}
		}
	})
}
