package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKillLeaderThenAll: kill -9 of the leader under load, its return, and kill -9 of all three at once.
func TestKillLeaderThenAll(t *testing.T) {
	h := newHarness(t, Options{})
	l := h.load(h.tenant(), 6)
	h.load(h.tenant(), 2) // another tenant, so that isolation is there to be broken
	h.more(l, 150, 30*time.Second)
	h.show()

	leader, err := h.Leader(t.Context())
	h.ok(err)
	h.ok(h.Kill(leader))
	t.Logf("writes resume %v after the leader was killed", h.resume(l))
	h.more(l, 100, 30*time.Second)
	h.ok(h.StartNode(leader))
	h.ok(h.WaitNode(t.Context(), leader))
	h.more(l, 50, 30*time.Second)

	for i := range h.Nodes {
		h.ok(h.Kill(i))
	}
	for i := range h.Nodes {
		h.ok(h.StartNode(i))
	}
	h.ok(h.WaitReady(t.Context()))
	t.Logf("writes resume %v after all were ready again", h.resume(l))
	h.more(l, 100, 30*time.Second)
	h.end()
	h.replay(leader)
}

// TestPartition: the leader cut off from both others while clients go on on both sides, then one that hears nobody and is
// heard, then one that is heard by nobody.
func TestPartition(t *testing.T) {
	h := newHarness(t, Options{Proxies: true})
	tenant := h.tenant()
	l := h.load(tenant, 4)
	leader, err := h.Leader(t.Context())
	h.ok(err)
	minority := h.load(tenant, 2, leader) // these talk to the one that will be alone, and to nobody else
	h.more(l, 60, 30*time.Second)

	h.Isolate(leader, true)
	t.Logf("writes resume %v after the leader was cut off", h.resume(l))
	alone := minority.Count()
	h.more(l, 60, 30*time.Second)
	if got := minority.Count() - alone; got > len(minority.workers) {
		t.Errorf("a leader that is cut off acknowledged %d events", got)
	}
	h.Isolate(leader, false)
	h.more(minority, 20, 30*time.Second)

	for _, deaf := range []bool{true, false} {
		leader, err := h.Leader(t.Context())
		h.ok(err)
		for i := range h.Nodes {
			if i != leader {
				if deaf {
					h.Cut(i, leader, true)
				} else {
					h.Cut(leader, i, true)
				}
			}
		}
		t.Logf("deaf %t: writes resume after %v", deaf, h.resume(l))
		h.more(l, 30, 30*time.Second)
		h.Isolate(leader, false)
		h.more(l, 30, 30*time.Second)
	}
	h.end()
}

// TestPausedLeader: a leader that stops in its tracks and comes back believing it leads. What it tells its clients then must
// be true.
func TestPausedLeader(t *testing.T) {
	h := newHarness(t, Options{})
	tenant := h.tenant()
	l := h.load(tenant, 3)
	leader, err := h.Leader(t.Context())
	h.ok(err)
	h.load(tenant, 2, leader)
	for range 3 {
		h.more(l, 40, 30*time.Second)
		if leader, err = h.Leader(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.ok(h.Pause(leader))
		h.more(l, 30, 2*resumeLimit)
		h.ok(h.Continue(leader))
	}
	h.more(l, 40, 30*time.Second)
	h.end()
}

// TestTornTail: kill -9 of all, then the last Raft log segment of one node ends in half a record, as after a power cut in the
// middle of a write, and that of another has lost its last record, as after one that took what was never synced. Both come
// back, and nothing that was acknowledged is missing anywhere.
func TestTornTail(t *testing.T) {
	h := newHarness(t, Options{})
	l := h.load(h.tenant(), 4)
	h.more(l, 150, 30*time.Second)
	h.ok(l.Stop(20 * time.Second))
	h.ok(h.Settle(t.Context())) // every node has everything: any one of them may lose its end
	for i := range h.Nodes {
		h.ok(h.Kill(i))
	}
	torn, shortened := 0, 1
	h.ok(tear(h.Nodes[torn].Dir, func(data []byte) []byte {
		return append(data, data[max(0, len(data)-700):len(data)-300]...) // looks like a record, and is not whole
	}))
	h.ok(tear(h.Nodes[shortened].Dir, func(data []byte) []byte { return data[:len(data)-5] }))
	for i := range h.Nodes {
		h.ok(h.StartNode(i))
	}
	h.ok(h.WaitReady(t.Context()))
	l.Start(context.WithoutCancel(t.Context()))
	h.more(l, 100, 30*time.Second)
	h.end()
	h.replay(torn, shortened)
}

// tear changes the written part of the newest Raft log segment of a stopped node. Segments are allocated ahead: behind the
// written part there are zeros.
func tear(dir string, change func(data []byte) []byte) error {
	segments, err := filepath.Glob(filepath.Join(dir, "raft", "*.wal"))
	if err != nil || len(segments) == 0 {
		return fmt.Errorf("no segments in %s: %w", dir, err)
	}
	path := segments[len(segments)-1]
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	data := change(append([]byte(nil), b[:end]...))
	out := append(data, make([]byte, max(0, len(b)-len(data)))...)
	if len(data) < end {
		out = out[:len(data)] // the file itself is shorter
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(out); err != nil {
		return err
	}
	return f.Close()
}
