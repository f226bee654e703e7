package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/test/invariants"
)

// bin is the binary under test, built once.
var bin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "creto-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if bin, err = Binary(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// harness is a cluster under test with what it has promised.
type harness struct {
	*Cluster
	t       *testing.T
	tenants []*Tenant
	loads   []*Load
	shown   []invariants.Checkpoint
	extra   []invariants.Ack
}

// Writes must resume this soon after a leader is lost. The design asks for 3 s on an idle machine, which the benchmark
// measures; tests share two cores with other tests under the race detector.
const resumeLimit = 20 * time.Second

func newHarness(t *testing.T, opt Options) *harness {
	t.Helper()
	if opt.Proxies && runtime.GOOS != "linux" {
		t.Skip("the proxy finds a connection's process in /proc")
	}
	opt.Bin, opt.Dir, opt.Logf = bin, t.TempDir(), t.Logf
	c, err := Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &harness{Cluster: c, t: t}
}

func (h *harness) tenant() *Tenant {
	h.t.Helper()
	t, err := h.CreateTenant(h.t.Context())
	h.ok(err)
	h.tenants = append(h.tenants, t)
	return t
}

// load starts a load of a tenant on an account with a quota that it will exhaust, and one without.
func (h *harness) load(t *Tenant, workers int, nodes ...int) *Load {
	h.t.Helper()
	small, err := t.Account(h.t.Context(), "tok", 300)
	h.ok(err)
	large, err := t.Account(h.t.Context(), "tok", 1<<40)
	h.ok(err)
	l, err := t.NewLoad(h.t.Context(), workers, []nhi.ID{large, small}, nodes...)
	h.ok(err)
	l.Start(context.WithoutCancel(h.t.Context()))
	h.loads = append(h.loads, l)
	return l
}

// more waits for n more acknowledgements, which must come within limit.
func (h *harness) more(l *Load, n int, limit time.Duration) time.Duration {
	h.t.Helper()
	took, err := l.WaitMore(h.t.Context(), n, limit)
	if err != nil {
		for i := range h.Nodes {
			h.t.Logf("node %d:\n%s", i, tail(h.Nodes[i].Log))
		}
		h.t.Fatal(err)
	}
	return took
}

// resume waits until writes go on and returns how long that took. Each worker may have had one answer under way.
func (h *harness) resume(l *Load) time.Duration {
	h.t.Helper()
	return h.more(l, len(l.workers)+1, resumeLimit).Round(time.Millisecond)
}

func (h *harness) ok(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// show remembers the checkpoints that nodes show now.
func (h *harness) show() {
	h.t.Helper()
	for _, t := range h.tenants {
		// A node that has just come back shows a checkpoint once it has published one again.
		var cps []Checkpoint
		h.ok(Eventually(h.t.Context(), 20*time.Second, "checkpoints", func(ctx context.Context) (err error) {
			cps, err = h.Checkpoints(ctx, t)
			return err
		}))
		for _, c := range cps {
			h.shown = append(h.shown, invariants.Checkpoint{
				From: fmt.Sprintf("node %d", c.Node), Spine: c.Tenant.IsZero(), Tenant: c.Tenant, Size: c.Size, Root: c.Root,
			})
		}
	}
}

// end stops loads and nodes and looks at everything that is left.
func (h *harness) end() {
	h.t.Helper()
	var p invariants.Promised
	p.Acks = append(p.Acks, h.extra...)
	refused, reads := 0, 0
	for _, l := range h.loads {
		if err := l.Stop(20 * time.Second); err != nil {
			h.t.Error(err)
		}
		if err := l.Stale(); err != nil {
			h.t.Error(err)
		}
		q := l.Promises()
		p.Acks, p.Tried = append(p.Acks, q.Acks...), append(p.Tried, q.Tried...)
		refused, reads = refused+l.Refused(), reads+l.Reads()
	}
	h.ok(h.Settle(h.t.Context()))
	h.show()
	h.ok(h.Stop())
	p.Checkpoints = h.shown
	h.logs()

	var replicas []invariants.Replica
	for i, n := range h.Nodes {
		if n.Gone {
			continue
		}
		s, err := invariants.Open(fmt.Sprintf("node %d", i), n.Dir)
		h.ok(err)
		defer func() { h.ok(s.Close()) }()
		replicas = append(replicas, s.Replica)
	}
	start := time.Now()
	r, err := invariants.Check(replicas, p)
	if err != nil {
		h.t.Error(err)
	}
	h.t.Logf("checked in %v: %s; %d refusals, %d linearizable reads, %d events unanswered", time.Since(start).Round(time.Millisecond), r, refused, reads, len(p.Tried))
	if r.Acks == 0 || r.Leaves == 0 || r.Signatures == 0 || r.Epochs == 0 || r.Counters == 0 || r.Checkpoints == 0 {
		h.t.Errorf("nothing was checked: %s", r)
	}
}

// replay applies the Raft logs of some stopped nodes to empty stores.
func (h *harness) replay(nodes ...int) {
	h.t.Helper()
	for _, i := range nodes {
		r, err := invariants.CheckRaftLog(h.Nodes[i].Dir, filepath.Join(h.t.TempDir(), "state"), 7)
		if err != nil {
			h.t.Errorf("node %d: %v", i, err)
		}
		h.t.Logf("node %d replayed: %s", i, r)
	}
}

// logs looks for what no node may have said. The Raft library calls an unreachable peer an error; we do not.
func (h *harness) logs() {
	for i, n := range h.Nodes {
		b, err := os.ReadFile(n.Log)
		h.ok(err)
		for line := range bytes.Lines(b) {
			for _, bad := range []string{"panic:", "DATA RACE", "fatal error:", "level=ERROR"} {
				library := bytes.Contains(line, []byte(" part=raft ")) || bytes.Contains(line, []byte(" part=net "))
				if bytes.Contains(line, []byte(bad)) && !(library && bad == "level=ERROR") {
					h.t.Errorf("node %d says: %.600s", i, line)
				}
			}
		}
	}
}
