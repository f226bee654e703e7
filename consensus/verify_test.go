package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// value is what a counter or gauge stands at.
func value(t testing.TB, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func often(cfg *Config) { cfg.checkpointEvery, cfg.verifyInterval = 8, time.Nanosecond }

// flip inverts one bit of text in the log of a node that is stopped.
func flip(t testing.TB, m *member, text string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(m.dir, walDir, "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(raw, []byte(text))
		if at < 0 {
			continue
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte{raw[at] ^ 4}, int64(at))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no file of the log has %q", text)
}

// One bit of a follower's log changes while it is stopped: it notices after its start, says which entries, stops and stays stopped; the
// others go on, and a new node under its id takes its place.
func TestRaft09BitFlipInLog(t *testing.T) {
	c := newCluster(t, 3, nil, often)
	l := c.leader()
	var last uint64
	for i := range 100 {
		last = c.propose(l, fmt.Sprintf("command <%04d>", i))
	}
	c.agree(last)
	var bad *member
	for _, m := range c.members {
		if m != l {
			bad = m
		}
	}
	c.stop(bad.id)
	flip(t, bad, "command <0042>")
	c.start(bad.id)
	f := c.fatal(bad)
	var e *Evidence
	if f.code != ExitStorage || !errors.Is(f.err, ErrCorrupt) || !errors.As(f.err, &e) {
		t.Fatalf("fatal: got %d %v, want %d with evidence", f.code, f.err, ExitStorage)
	}
	if e.Node != bad.id || e.End-e.First > 9 || e.Expected == e.Read || e.Found == "" {
		t.Errorf("evidence: got %+v", e)
	}
	c.stop(bad.id)
	if err := c.tryStart(bad.id); !errors.Is(err, ErrQuarantined) || !strings.Contains(err.Error(), quarantineFile) {
		t.Errorf("start again: got %v, want ErrQuarantined and the place of the evidence", err)
	}
	l = c.leader(bad.id)
	c.propose(l, "meanwhile")
	// Its disk is replaced.
	if err := l.node.Remove(t.Context(), bad.id); err != nil {
		t.Fatal(err)
	}
	delete(c.members, bad.id)
	fresh := c.prepare(bad.id, often)
	fresh.cfg.Join = true
	c.start(bad.id)
	if err := l.node.AddNonvoter(t.Context(), bad.id, c.addrOf(fresh)); err != nil {
		t.Fatal(err)
	}
	if got := c.agree(c.propose(l, "after")); len(got) != 102 {
		t.Errorf("got %d commands, want 102", len(got))
	}
}

// What would be replayed is verified before it is.
func TestBitFlipIsNotReplayed(t *testing.T) {
	c := newCluster(t, 1, nil, often)
	l := c.leader()
	for i := range 40 {
		c.propose(l, fmt.Sprintf("command <%04d>", i))
	}
	c.stop(l.id)
	flip(t, l, "command <0020>")
	l.sm.rollBack(0)
	var e *Evidence
	if err := c.tryStart(l.id); !errors.As(err, &e) || !errors.Is(err, ErrCorrupt) {
		t.Errorf("open: got %v, want evidence", err)
	}
	if got := l.sm.data(); len(got) != 0 {
		t.Errorf("applied %d commands of a log that is corrupt, want 0", len(got))
	}
	if err := c.tryStart(l.id); !errors.Is(err, ErrQuarantined) {
		t.Errorf("open again: got %v, want ErrQuarantined", err)
	}
}

// rotStore reads one entry otherwise than it was written.
type rotStore struct {
	storage
	text atomic.Pointer[string]
}

func (r *rotStore) GetLog(index uint64, l *raft.Log) error {
	err := r.storage.GetLog(index, l)
	if p := r.text.Load(); p != nil && err == nil && string(l.Data) == *p {
		l.Data[0] ^= 1
	}
	return err
}

// A disk that loses what it has just been given is noticed at the next checkpoint, on the leader too.
func TestRotIsNoticedAtTheNextCheckpoint(t *testing.T) {
	for _, where := range []string{"leader", "follower"} {
		t.Run(where, func(t *testing.T) {
			stores := make(map[string]*rotStore)
			c := newCluster(t, 3, nil, func(cfg *Config) {
				often(cfg)
				s := &rotStore{}
				stores[cfg.NodeID] = s
				cfg.wrapStore = func(inner storage) storage { s.storage = inner; return s }
			})
			l := c.leader()
			victim := l
			for _, m := range c.members {
				if where == "follower" && m != l {
					victim = m
				}
			}
			rotten := "rotten"
			stores[victim.id].text.Store(&rotten)
			for i := range 20 {
				_, _, err := l.node.Propose(t.Context(), []byte(fmt.Sprintf("c%d", i)))
				if i == 3 && err == nil {
					_, _, err = l.node.Propose(t.Context(), []byte(rotten))
				}
				if err != nil && victim != l {
					t.Fatal(err)
				}
			}
			var e *Evidence
			if f := c.fatal(victim); f.code != ExitStorage || !errors.As(f.err, &e) {
				t.Fatalf("fatal: got %d %v, want %d with evidence", f.code, f.err, ExitStorage)
			}
			c.propose(c.leader(victim.id), "after")
		})
	}
}

// alterTransport changes an entry on its way to one node.
type alterTransport struct {
	rawTransport
	to, text string
}

func (a *alterTransport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if string(id) == a.to {
		changed := *args
		changed.Entries = nil
		for _, e := range args.Entries {
			if string(e.Data) == a.text {
				other := *e
				other.Data = []byte("altered")
				e = &other
			}
			changed.Entries = append(changed.Entries, e)
		}
		args = &changed
	}
	return a.rawTransport.AppendEntries(id, addr, args, resp)
}

// What arrives otherwise than the leader wrote it is reported and is no fault of this disk: scrubs do not stop the node for it.
func TestDamageInFlightIsReported(t *testing.T) {
	c := newCluster(t, 3, nil, func(cfg *Config) {
		often(cfg)
		cfg.wrapTransport = func(inner rawTransport) rawTransport { return &alterTransport{inner, "b", "sent"} }
	})
	l := c.leader()
	if l.id == "b" {
		if err := l.node.TransferLeadership(t.Context()); err != nil {
			t.Fatal(err)
		}
		l = c.leader("b")
	}
	b := c.members["b"]
	var last uint64
	for i := range 40 {
		data := fmt.Sprintf("c%d", i)
		if i == 20 {
			data = "sent"
		}
		last = c.propose(l, data)
	}
	if err := b.node.WaitApplied(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	c.eventually("report", func() bool { return value(t, b.node.metrics.verifyFailed.WithLabelValues("flight")) == 1 })
	if err := b.node.scrub(t.Context()); err != nil {
		t.Errorf("scrub: got %v, want success", err)
	}
	for id, m := range c.members {
		if len(m.fatals) != 0 {
			t.Errorf("%s stopped: %v", id, (<-m.fatals).err)
		}
	}
}

// Checkpoints, ticks and truncated ends in every mixture: nobody raises a false alarm, all logs are the same to the byte, and
// no state machine sees a difference.
func TestCheckpointsUnderPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil, func(cfg *Config) { cfg.checkpointEvery, cfg.verifyInterval = 7, time.Nanosecond })
		defer c.stopAll()
		serial := 0
		for round := range 15 {
			l := c.leader()
			// What is lost contains checkpoints in some rounds, and none in others.
			for i := range 10 + round%5*3 + 1 {
				serial++
				if i == 10 {
					c.net.Isolate(l.id, true)
				}
				if i < 10 {
					c.propose(l, fmt.Sprintf("c%d", serial))
				} else {
					l.node.ProposeAsync(fmt.Appendf(nil, "lost %d", serial))
				}
				if i == 5 {
					if _, err := l.node.ReadIndex(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			time.Sleep(2 * time.Second)
			c.propose(c.leader(l.id), "meanwhile")
			c.net.Isolate(l.id, false)
			time.Sleep(2 * time.Second)
		}
		last := c.propose(c.leader(), "end")
		c.agree(last)
		var checkpoints, ticks int
		for i := uint64(1); i <= last; i++ {
			var want raft.Log
			for id, m := range c.members {
				var got raft.Log
				if err := m.node.wal.GetLog(i, &got); err != nil {
					t.Fatalf("entry %d of %s: %v", i, id, err)
				}
				if want.Index == 0 {
					want = got
				}
				if got.Term != want.Term || !bytes.Equal(got.Data, want.Data) || !bytes.Equal(got.Extensions, want.Extensions) {
					t.Errorf("entry %d of %s: got %+v, want %+v", i, id, got, want)
				}
			}
			if _, _, ok := checkpointOf(&want); ok {
				checkpoints++
			} else if isTick(&want) {
				ticks++
			} else if len(want.Extensions) != 0 {
				t.Errorf("entry %d: unknown extensions %x", i, want.Extensions)
			}
		}
		if checkpoints < 12 || ticks < 12 {
			t.Errorf("got %d checkpoints and %d ticks, want some of both in each round", checkpoints, ticks)
		}
		for id, m := range c.members {
			if err := m.node.scrub(t.Context()); err != nil {
				t.Errorf("scrub %s: %v", id, err)
			}
			if got := value(t, m.node.metrics.verifyFailed.WithLabelValues("flight")); got != 0 {
				t.Errorf("%s reported %v damaged ranges, want 0", id, got)
			}
			if value(t, m.node.metrics.verifiedEntries) == 0 {
				t.Errorf("%s verified nothing", id)
			}
			if len(m.fatals) != 0 {
				t.Errorf("%s stopped: %v", id, (<-m.fatals).err)
			}
		}
	})
}

func TestCheckpointsAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c checkpoints
		var got []int
		due := func(i, size int) {
			if c.due(size, 4) {
				got = append(got, i)
			}
		}
		due(0, 1) // the first
		for i := 1; i <= 8; i++ {
			due(i, 1) // every fourth
		}
		due(9, checkpointBytes)
		time.Sleep(checkpointTime)
		due(10, 1)
		if want := []int{0, 4, 8, 9, 10}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got checkpoints %v, want %v", got, want)
		}
	})
}
