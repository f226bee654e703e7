package cluster

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestSoakFaults does one random thing after the other to a cluster under load, for as long as CRETO_SOAK says, and then looks.
func TestSoakFaults(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("CRETO_SOAK"))
	if err != nil {
		t.Skip("CRETO_SOAK is no duration; make soak sets it")
	}
	h := newHarness(t, Options{Proxies: true})
	tenant := h.tenant()
	l := h.load(tenant, 6)
	h.load(h.tenant(), 2)
	for i := range h.Nodes {
		h.load(tenant, 1, i)
	}
	end := time.Now().Add(limit)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	rounds := 0
	for ; time.Now().Before(end); rounds++ {
		i := rng.IntN(len(h.Nodes))
		switch rng.IntN(6) {
		case 0:
			h.ok(h.Kill(i))
			h.resume(l)
			h.ok(h.StartNode(i))
		case 1:
			for k := range h.Nodes {
				h.ok(h.Kill(k))
			}
			for k := range h.Nodes {
				h.ok(h.StartNode(k))
			}
		case 2:
			h.Isolate(i, true)
			h.resume(l)
			h.Isolate(i, false)
		case 3:
			j := (i + 1 + rng.IntN(2)) % len(h.Nodes)
			h.Cut(i, j, true)
			h.resume(l)
			h.Cut(i, j, false)
		case 4:
			h.ok(h.Pause(i))
			h.resume(l)
			h.ok(h.Continue(i))
		case 5:
			leader, err := h.Leader(t.Context())
			h.ok(err)
			h.ok(h.Pause(leader))
			h.resume(l)
			h.ok(h.Kill(leader))
			h.ok(h.StartNode(leader))
		}
		h.ok(h.WaitReady(t.Context()))
		h.resume(l)
		if rounds%5 == 0 {
			h.show()
		}
	}
	t.Logf("%d faults", rounds)
	h.end()
	h.replay(0, 1, 2)
}
