package sandbox

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox/kind"
)

func TestClaimRunReport(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	c := w.claimed(nil)
	if c.Node != n.ID || c.Class != kind.Process {
		t.Fatalf("got node %s in class %s, want %s in class process", c.Node, c.Class, n.ID)
	}
	i := w.wantState(c.Claim, Allocated)
	if i.Rootfs != rootfs || i.Budget() != int64(time.Second) || i.Deadline != c.Deadline {
		t.Errorf("got rootfs %x, budget %d, deadline %d", i.Rootfs, i.Budget(), i.Deadline)
	}
	w.consistent()

	rs := w.SubmitBatch(w.report(n, c.Claim, func(r *kind.Run) { r.ExitCode = 3; r.Output = nhi.Digest{7} }), w.usage(n, c.Claim))
	w.Accepted(rs...)
	i = w.wantState(c.Claim, Finished)
	if i.ExitCode != 3 || i.Output != (nhi.Digest{7}) || i.Report != rs[0].Index || i.Usage != rs[1].Index || i.Late {
		t.Errorf("got %+v", i)
	}
	want := []verify.Quantity{{Meter: kind.MeterCPU, N: 10}, {Meter: kind.MeterWall, N: 20}}
	if d := cmp.Diff(want, w.Stored(rs[1].Index).Leaf.Quantities); d != "" {
		t.Errorf("leaf's quantities: %s", d)
	}
	if d := cmp.Diff([]Charge{{c.Claim, w.account, w.agent.ID, w.link.ID, want}}, w.charged); d != "" {
		t.Errorf("charges: %s", d)
	}
	w.consistent()

	// What is in the log answers the claim, offline.
	b, err := kind.DecodeReportBody(mustEvent(t, w.Stored(rs[0].Index).Payload).Body)
	if err != nil {
		t.Fatal(err)
	}
	run, err := kind.VerifyReport(t.Context(), n.Key.Public(), b)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Answers(mustEvent(t, w.Stored(c.Claim).Payload), c.Claim, n.ID); err != nil {
		t.Error(err)
	}
	if got := w.Tick(); got != 0 {
		t.Errorf("got %d timers that came due, want none", got)
	}
	w.Advance(2 * time.Minute)
	if got := w.Tick(); got != 0 {
		t.Errorf("got %d timers after the deadline of a reported claim, want none", got)
	}
}

func mustEvent(t testing.TB, payload []byte) *nhi.Event {
	t.Helper()
	ev, err := nhi.DecodeEvent(payload)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestClaimRefusals(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	for _, tc := range []struct {
		name string
		ev   ledgertest.Signed
		want verify.OutcomeCode
	}{
		{"template nobody offers", w.claim(func(b *kind.ClaimBody) { b.Template = "other" }), verify.OutcomeNotFound},
		{"class nobody offers", w.claim(func(b *kind.ClaimBody) { b.Class = kind.VM }), verify.OutcomeNotFound},
		{"body", w.Under(w.link, w.agent, kind.Claim, w.account, map[uint64]uint64{1: 2}), verify.OutcomeInvalid},
		{"by the authority", w.Event(w.Authority, kind.Claim, w.claim(nil).Event.Body), verify.OutcomeUnauthorized},
		{"by a node", w.Event(n, kind.Claim, w.claim(nil).Event.Body), verify.OutcomeUnauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.Want(tc.want, w.Submit(tc.ev)...)
			w.consistent()
		})
	}
	if n, _ := w.leaves(kind.Allocated); n != 0 {
		t.Errorf("got %d allocations", n)
	}
}

func TestNodeRefusals(t *testing.T) {
	w := newWorld(t)
	n1, n2 := w.ready("n1", 1), w.node("n2")
	for _, tc := range []struct {
		name string
		ev   ledgertest.Signed
		want verify.OutcomeCode
	}{
		{"for another node", w.offer(n1, 1, func(b *kind.NodeBody) { b.Node = n2.ID }), verify.OutcomeUnauthorized},
		{"by a voter", w.offer(w.Node, 1, nil), verify.OutcomeUnauthorized},
		{"by the authority", w.Event(w.Authority, kind.Node, w.offer(n1, 1, nil).Event.Body), verify.OutcomeUnauthorized},
		{"body", w.Event(n1, kind.Node, map[uint64]uint64{1: 2}), verify.OutcomeInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) { w.Want(tc.want, w.Submit(tc.ev)...) })
	}
}

func TestReportRefusals(t *testing.T) {
	w := newWorld(t)
	n1, n2 := w.ready("n1", 1), w.ready("n2", 0)
	c := w.claimed(nil)
	other := w.report(n1, c.Claim, nil)
	other.Event.Account = nhi.ID{9}
	for _, tc := range []struct {
		name string
		ev   ledgertest.Signed
		want verify.OutcomeCode
	}{
		{"by another node", w.report(n2, c.Claim, nil), verify.OutcomeUnauthorized},
		{"by the agent itself", w.Under(w.link, w.agent, kind.Report, w.account, w.report(n1, c.Claim, nil).Event.Body), verify.OutcomeUnauthorized},
		{"by a voter", w.Event(w.Node, kind.Report, w.report(n1, c.Claim, nil).Event.Body), verify.OutcomeUnauthorized},
		{"no such claim", w.report(n1, c.Claim, func(r *kind.Run) { r.Claim = 10_000 }), verify.OutcomeNotFound},
		{"other account", other, verify.OutcomeConflict},
		{"other policy epoch", w.report(n1, c.Claim, func(r *kind.Run) { r.PolicyEpoch++ }), verify.OutcomeConflict},
		{"other root file system", w.report(n1, c.Claim, func(r *kind.Run) { r.Rootfs[0]++ }), verify.OutcomeConflict},
		{"body", w.Event(n1, kind.Report, map[uint64]uint64{1: 2}), verify.OutcomeInvalid},
		{"usage body", w.Event(n1, kind.Usage, map[uint64]uint64{1: 2}), verify.OutcomeInvalid},
		{"usage by another node", w.usage(n2, c.Claim), verify.OutcomeUnauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.Want(tc.want, w.Submit(tc.ev)...)
			w.wantState(c.Claim, Allocated)
			w.consistent()
		})
	}
	if len(w.charged) != 0 {
		t.Errorf("got %d charges from refused events", len(w.charged))
	}
}

// A node sends again what was not acknowledged: nothing happens twice.
func TestReportsCountOnce(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	c := w.claimed(nil)
	first := w.SignBatch(w.report(n, c.Claim, nil), w.usage(n, c.Claim))
	w.Accepted(w.SubmitSigned(w.Tenant, 2, first)...)
	for _, r := range w.SubmitSigned(w.Tenant, 2, first) {
		if r.State != ledger.Duplicate {
			t.Errorf("got %s for a report sent again, want duplicate", r.State)
		}
	}
	w.Want(verify.OutcomeClosed, w.Submit(w.report(n, c.Claim, nil))...)
	w.Want(verify.OutcomeClosed, w.Submit(w.usage(n, c.Claim))...)
	if len(w.charged) != 1 {
		t.Errorf("got %d charges, want 1", len(w.charged))
	}
	w.consistent()
}

// A node whose report is refused for good gets no run charged either.
func TestUsageCountsOnlyWithItsReport(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 4)
	c := w.claimed(nil).Claim
	w.Want(verify.OutcomeConflict, w.Submit(w.usage(n, c))...)
	// The node comes back with another root file system under the name of the one that was allocated.
	w.Accepted(w.Submit(w.offer(n, 4, func(b *kind.NodeBody) { b.Templates[0].Rootfs = nhi.Digest{0xbb} }))...)
	w.Want(verify.OutcomeConflict, w.SubmitBatch(w.report(n, c, func(r *kind.Run) { r.Rootfs = nhi.Digest{0xbb} }), w.usage(n, c))...)
	w.wantState(c, Allocated)
	w.Accepted(w.Submit(w.report(n, c, nil))...)
	w.Want(verify.OutcomeConflict, w.Submit(w.used(n, c, func(b *kind.UsageBody) { b.Sequence++ }))...)
	if len(w.charged) != 0 {
		t.Fatalf("got %d charges without the report they belong to", len(w.charged))
	}
	w.Accepted(w.Submit(w.usage(n, c))...)

	failed := w.claimed(nil).Claim
	w.Accepted(w.Submit(w.report(n, failed, func(r *kind.Run) {
		r.Status, r.Reason, r.ExitCode, r.Rootfs = kind.Failed, "template changed", kind.NoExitCode, nhi.Digest{}
	}))...)
	w.Want(verify.OutcomeConflict, w.Submit(w.usage(n, failed))...)
	if len(w.charged) != 1 {
		t.Errorf("got %d charges, want that of the run that finished", len(w.charged))
	}
	w.consistent()
}

// What a node states is taken within what its sandbox enforces.
func TestUsageIsHeldAgainstTheLimits(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	c := w.claimed(nil).Claim
	w.Accepted(w.Submit(w.report(n, c, nil))...)
	most := w.info(c)
	wall, memory := uint64(most.Budget()+kind.SlackWall), most.Memory+kind.SlackMemory
	cpu := kind.MaxProcesses * (wall + uint64(time.Second))
	for name, q := range map[string]map[string]uint64{
		"wall":         {kind.MeterCPU: 1, kind.MeterWall: wall + 1},
		"cpu":          {kind.MeterCPU: cpu + 1, kind.MeterWall: wall},
		"cpu for wall": {kind.MeterCPU: kind.MaxProcesses*uint64(time.Second) + 1, kind.MeterWall: 0},
		"memory":       {kind.MeterCPU: 1, kind.MeterMemory: memory + 1, kind.MeterWall: 1},
		"the largest":  {kind.MeterCPU: kind.MaxQuantity, kind.MeterMemory: kind.MaxQuantity, kind.MeterWall: kind.MaxQuantity},
	} {
		t.Run(name, func(t *testing.T) {
			w.Want(verify.OutcomeConflict, w.Submit(w.used(n, c, func(b *kind.UsageBody) { b.Quantities = q }))...)
		})
	}
	if len(w.charged) != 0 {
		t.Fatalf("got %d charges of what cannot be", len(w.charged))
	}
	w.Accepted(w.Submit(w.used(n, c, func(b *kind.UsageBody) {
		b.Quantities = map[string]uint64{kind.MeterCPU: cpu, kind.MeterMemory: memory, kind.MeterWall: wall}
	}))...)
}

// A claim is an ask: where a quota has no room for what it may use, it is not begun.
func TestNoClaimWithoutRoom(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	running := w.claimed(nil).Claim
	want := Charge{running, w.account, w.agent.ID, w.link.ID, []verify.Quantity{
		{Meter: kind.MeterCPU, N: uint64(time.Second)}, {Meter: kind.MeterMemory, N: 64 << 20}, {Meter: kind.MeterWall, N: uint64(time.Second)},
	}}
	if d := cmp.Diff([]Charge{want}, w.asked); d != "" {
		t.Errorf("asked: %s", d)
	}
	waiting, behind := w.waits(nil), w.waits(func(b *kind.ClaimBody) { b.TTL = int64(time.Second) })
	w.full = true
	w.Want(verify.OutcomeQuotaExhausted, w.Submit(w.claim(nil))...)
	w.consistent()

	// What was reserved stays so until the usage is counted, or it is clear that there will be none.
	w.Accepted(w.Submit(w.report(n, running, nil))...)
	w.wantLeases(running, 1)
	w.Accepted(w.Submit(w.usage(n, running))...)
	w.wantLeases(running, 0)
	w.wantState(waiting, Allocated)
	w.Advance(2 * time.Second)
	w.Tick()
	w.wantState(behind, Expired)
	w.wantLeases(behind, 0)
	w.Advance(time.Minute)
	w.Tick()
	w.wantState(waiting, Expired)
	w.wantLeases(waiting, 1) // it may have run
	w.Accepted(w.SubmitBatch(w.report(n, waiting, nil), w.usage(n, waiting))...)
	w.wantLeases(waiting, 0)
	w.consistent()

	w.full = false
	failed := w.claimed(nil).Claim
	w.Accepted(w.Submit(w.report(n, failed, func(r *kind.Run) {
		r.Status, r.Reason, r.ExitCode, r.Rootfs = kind.Failed, "did not start", kind.NoExitCode, nhi.Digest{}
	}))...)
	w.wantLeases(failed, 0)
	w.consistent()
}

func (w *world) wantLeases(claim uint64, want int) {
	w.t.Helper()
	if got := w.info(claim).Leases; len(got) != want {
		w.t.Errorf("claim %d: got leases %v, want %d", claim, got, want)
	}
}

func TestUsageThatCannotBeCountedIsNotMarkedAsCounted(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	c := w.claimed(nil)
	w.Accepted(w.Submit(w.report(n, c.Claim, nil))...)
	w.refuse = verify.OutcomeOverflow
	w.Want(verify.OutcomeOverflow, w.Submit(w.usage(n, c.Claim))...)
	w.refuse = verify.OutcomeAccepted
	w.Accepted(w.Submit(w.usage(n, c.Claim))...)
}

func TestWaitingClaimsGetNodesInOrder(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	running := w.claimed(nil).Claim
	first, second := w.waits(nil), w.waits(func(b *kind.ClaimBody) { b.Class = kind.Container })
	third := w.waits(nil)
	w.consistent()
	for _, next := range []uint64{first, second, third} {
		w.wantState(next, Waiting)
		w.Accepted(w.Submit(w.report(n, running, nil))...)
		i := w.wantState(next, Allocated)
		if i.Node != n.ID || next == second && i.Class != kind.Container {
			t.Errorf("got node %s, class %s", i.Node, i.Class)
		}
		_, body := w.leaves(kind.Allocated)
		got, err := kind.DecodeClaimed(body)
		if err != nil || got.Claim != next {
			t.Errorf("got allocation leaf %+v, %v, want claim %d", got, err, next)
		}
		running = next
		w.consistent()
	}
	if n, _ := w.leaves(kind.Allocated); n != 3 {
		t.Errorf("got %d allocation leaves, want 3", n)
	}
}

func TestARegistrationTakesWhatWaits(t *testing.T) {
	w := newWorld(t)
	w.ready("n1", 1)
	w.claimed(nil)
	var waiting []uint64
	for range 3 {
		waiting = append(waiting, w.waits(nil))
	}
	// A node that offers something else takes nothing; one with room for two takes the first two.
	w.Accepted(w.Submit(w.offer(w.node("n2"), 9, func(b *kind.NodeBody) { b.Templates[0].Name = "other" }))...)
	w.wantState(waiting[0], Waiting)
	n3 := w.ready("n3", 2)
	for i, want := range []State{Allocated, Allocated, Waiting} {
		if got := w.wantState(waiting[i], want); want == Allocated && got.Node != n3.ID {
			t.Errorf("got node %s, want %s", got.Node, n3.ID)
		}
	}
	w.consistent()
}

func TestTheFirstNodeFindsWhatWaits(t *testing.T) {
	w := newWorld(t)
	claim := w.waits(nil)
	n := w.ready("n1", 1)
	if i := w.wantState(claim, Allocated); i.Node != n.ID {
		t.Errorf("got node %s, want %s", i.Node, n.ID)
	}
	w.consistent()
}

func TestPick(t *testing.T) {
	w := newWorld(t)
	strong := w.node("strong")
	w.Accepted(w.Submit(w.offer(strong, 9, func(b *kind.NodeBody) { b.Classes = []kind.Class{kind.Container, kind.VM} }))...)
	small, big := w.ready("small", 2), w.ready("big", 3)
	for i, want := range []struct {
		least kind.Class
		node  nhi.ID
		class kind.Class
	}{
		{kind.Process, big.ID, kind.Process}, // the most room
		{kind.VM, strong.ID, kind.VM},        // the only one that is strong enough
		{kind.UserspaceKernel, strong.ID, kind.VM},
		{kind.Process, min2(small.ID, big.ID), kind.Process}, // equal room: the lowest id
	} {
		got := w.claimed(func(b *kind.ClaimBody) { b.Class = want.least })
		if got.Node != want.node || got.Class != want.class {
			t.Errorf("claim %d: got %s in %s, want %s in %s", i, got.Node, got.Class, want.node, want.class)
		}
	}
	w.consistent()
}

func min2(a, b nhi.ID) nhi.ID {
	if string(a[:]) < string(b[:]) {
		return a
	}
	return b
}

func TestDeadline(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	running := w.claimed(nil).Claim
	waiting := w.waits(func(b *kind.ClaimBody) { b.TTL = int64(time.Second) })
	longer := w.waits(func(b *kind.ClaimBody) { b.TTL = int64(10 * time.Minute) })
	w.Advance(2 * time.Second)
	w.Tick()
	w.wantState(waiting, Expired)
	w.wantState(running, Allocated)
	w.consistent()

	// The node's room goes to the next when the run's own deadline passes.
	w.Advance(time.Minute)
	w.Tick()
	w.wantState(running, Expired)
	w.wantState(longer, Allocated)
	if n, _ := w.leaves(kind.Expired); n != 2 {
		t.Errorf("got %d expiry leaves, want 2", n)
	}
	w.consistent()

	// The report of the run that expired is recorded, and takes nobody's room.
	w.Accepted(w.SubmitBatch(w.report(n, running, nil), w.usage(n, running))...)
	if i := w.wantState(running, Finished); !i.Late {
		t.Error("a late report is not marked as late")
	}
	w.wantState(longer, Allocated)
	w.consistent()
	// Nobody reports a claim that never had a node.
	w.Want(verify.OutcomeUnauthorized, w.Submit(w.report(n, waiting, nil))...)
}

func TestBudgetIsWhatIsLeftOfTheDeadline(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	first := w.claimed(nil).Claim
	claim := w.waits(func(b *kind.ClaimBody) { b.Limits.Wall, b.TTL = int64(20*time.Second), int64(30*time.Second) })
	w.Advance(25 * time.Second)
	w.Accepted(w.Submit(w.report(n, first, nil))...)
	i := w.wantState(claim, Allocated)
	if got := i.Budget(); got > int64(5*time.Second) || got <= int64(4*time.Second) {
		t.Errorf("got a budget of %s, want a little under 5 s", time.Duration(got))
	}
}

func TestLostNodes(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 2)
	c := w.claimed(nil)
	w.Advance(30 * time.Minute)
	w.Accepted(w.Submit(w.offer(n, 2, nil))...) // renewed
	w.Advance(45 * time.Minute)
	w.Tick()
	if n, _ := w.leaves(kind.NodeLost); n != 0 {
		t.Fatalf("got %d losses of a node that renewed", n)
	}
	w.Advance(30 * time.Minute)
	w.Tick()
	if n, _ := w.leaves(kind.NodeLost); n != 1 {
		t.Fatalf("got %d losses, want 1", n)
	}
	// Its template is known, so a claim waits until the node is back.
	claim := w.waits(nil)
	w.Accepted(w.Submit(w.offer(n, 2, nil))...)
	w.wantState(claim, Allocated)
	w.wantState(c.Claim, Expired)
	w.consistent()
	// A node that says goodbye takes nothing more and keeps what it has.
	w.Accepted(w.Submit(w.offer(n, 0, nil))...)
	w.Want(verify.OutcomeNotFound, w.Submit(w.claim(nil))...)
	w.wantState(claim, Allocated)
	w.Accepted(w.Submit(w.report(n, claim, nil))...)
	w.consistent()
}

func TestRevocationReachesWaitingClaims(t *testing.T) {
	for name, revoke := range map[string]func(w *world){
		"link": func(w *world) {
			w.Accepted(w.Submit(w.Event(w.human, registry.KindRevokeLink, &registry.RevokeLinkBody{Link: w.link.ID}))...)
		},
		"identity": func(w *world) {
			w.Accepted(w.Submit(w.Event(w.Authority, registry.KindSuspend, &registry.StatusBody{ID: w.agent.ID, Reason: "test"}))...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			n := w.ready("n1", 1)
			running := w.claimed(nil).Claim
			waiting := w.waits(nil)
			other := w.Register("other", registry.Service)
			ev := w.Event(other, kind.Claim, w.claim(nil).Event.Body)
			behind := w.Accepted(w.Submit(ev)...).Index
			revoke(w)
			// The run that had begun is a fact: its report is recorded.
			w.Accepted(w.Submit(w.report(n, running, nil))...)
			w.wantState(running, Finished)
			if i := w.wantState(waiting, Expired); i.Reason != kind.ReasonAuthority {
				t.Errorf("got reason %q, want %q", i.Reason, kind.ReasonAuthority)
			}
			w.wantState(behind, Allocated)
			w.consistent()
			w.Advance(time.Hour)
			w.Tick()
			if n, _ := w.leaves(kind.Expired); n != 2 {
				t.Errorf("got %d expiry leaves, want the revoked claim and the one behind it", n)
			}
		})
	}
}

func TestRemovedNodeStillReports(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	c := w.claimed(nil)
	w.Accepted(w.Submit(w.SystemEvent(w.Admin, ledger.KindNodeRemove, &ledger.NodeRemoveBody{ID: n.ID}))...)
	w.Want(verify.OutcomeAcceptedFlagged, w.Submit(w.report(n, c.Claim, nil))...)
	w.wantState(c.Claim, Finished)
	w.Want(verify.OutcomeRevoked, w.Submit(w.offer(n, 1, nil))...)
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	w.ready("n1", 1)
	claims := make([]ledgertest.Signed, MaxOpenPerAgent)
	for i := range claims {
		claims[i] = w.claim(nil)
	}
	w.Accepted(w.SubmitBatch(claims...)...)
	w.Want(verify.OutcomeLimit, w.Submit(w.claim(nil))...)
	w.consistent()
	w.Advance(2 * time.Minute)
	w.Tick()
	w.consistent()
	w.claimed(nil)

	for i := 1; i < MaxNodes; i++ {
		w.ready("node "+string(rune('0'+i)), 1)
	}
	last := w.node("one too many")
	w.Want(verify.OutcomeLimit, w.Submit(w.offer(last, 1, nil))...)
	w.Advance(2 * time.Hour)
	w.Tick()
	w.Accepted(w.Submit(w.offer(last, 1, nil))...)
	w.WithView(w.Tenant, func(v ledger.View) {
		if n := len(Nodes(v)); n != MaxNodes {
			t.Errorf("got %d nodes, want %d", n, MaxNodes)
		}
	})
	w.consistent()
}

func TestList(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 2)
	var claims []uint64
	for range 5 {
		claims = append(claims, w.claimed(nil).Claim)
	}
	w.Accepted(w.Submit(w.report(n, claims[1], nil))...)
	w.WithView(w.Tenant, func(v ledger.View) {
		var got []uint64
		for from, more := uint64(0), true; more; {
			var page []*Info
			page, from, more = List(v, 0, from, 2)
			if len(page) > 2 {
				t.Fatalf("got a page of %d, want at most 2", len(page))
			}
			for _, i := range page {
				got = append(got, i.Claim)
			}
		}
		slices.Reverse(got) // newest first
		if d := cmp.Diff(claims, got); d != "" {
			t.Error(d)
		}
		for state, want := range map[State]int{Finished: 1, Allocated: 2, Waiting: 2, Expired: 0} {
			if page, _, _ := List(v, state, 0, 0); len(page) != want {
				t.Errorf("%s: got %d, want %d", state, len(page), want)
			}
		}
		if got := len(Running(v, n.ID)); got != 2 {
			t.Errorf("got %d running, want 2", got)
		}
	})
}

// The same commands give the same state on a ledger that has seen nothing else.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 2)
	for range 4 {
		w.claimed(nil)
	}
	w.WithView(w.Tenant, func(v ledger.View) {
		if len(Running(v, n.ID)) != 2 {
			t.Fatal("want two running claims")
		}
	})
	w.Advance(time.Hour)
	w.Tick()
	cfg := w.Config
	cfg.Dir = "again"
	again := w.Open(cfg)
	if _, err := again.Apply(w.Entries); err != nil {
		t.Fatal(err)
	}
	a, b := w.Read(), mustRead(t, again)
	defer a.Close()
	defer b.Close()
	if a.StateHash() != b.StateHash() {
		t.Errorf("got state hash %x, want %x", b.StateHash(), a.StateHash())
	}
}

func mustRead(t testing.TB, l *ledger.Log) *ledger.Snapshot {
	t.Helper()
	s, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
