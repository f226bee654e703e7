package meter

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

func (w *world) counter(account nhi.ID) Counter {
	w.t.Helper()
	for _, c := range w.counters(account) {
		if c.Account == account {
			return c
		}
	}
	w.t.Fatalf("account %s has no quota", account)
	return Counter{}
}

func (w *world) wantRoom(account nhi.ID, excess, over, remaining uint64) {
	w.t.Helper()
	c := w.counter(account)
	if got, want := [3]uint64{c.Excess, c.Over, c.Remaining}, [3]uint64{excess, over, remaining}; got != want {
		w.t.Errorf("account %s: got excess, over, remaining %v, want %v", account, got, want)
	}
}

// One agent with a lease of one unit claims as much as it likes: nobody else notices.
func TestOverClaimTakesNobodysRoom(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Total, Limit: 1000, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Total, Limit: 10, Mode: kind.Block})
	honest := w.grant(acctOther, 100, by(agentB))
	g := w.grant(acctTeam, 1)
	d := w.ok(w.settle(g.Lease, 900, 0, 1))
	if o := must[*kind.OverClaim](t)(kind.DecodeOverClaim(d.Detail)); *o != (kind.OverClaim{Lease: g.Lease, Over: 899, Sum: 899}) {
		t.Errorf("got detail %+v, want 899 over", o)
	}
	// One unit as granted, one more as an ask could have had it, the rest is evidence.
	w.wantRoom(acctTeam, 1, 898, 8)
	w.wantRoom(acctOrg, 1, 898, 898)

	for seq := range uint64(3) {
		w.ok(w.settle(g.Lease, kind.MaxAmount, seq+1, seq+2))
	}
	w.wantRoom(acctTeam, 1, math.MaxUint64, 8)
	w.wantRoom(acctOrg, 1, math.MaxUint64, 898)
	w.ok(w.use(acctOther, 200, by(agentB)))
	w.ok(w.use(acctTeam, 5))

	// Another holder's facts are still counted, within its grant and beyond.
	w.ok(w.settle(honest.Lease, 50, 0, 1, by(agentB)))
	w.ok(w.settle(honest.Lease, 60, 1, 2, by(agentB)))
	w.wantRoom(acctOrg, 11, math.MaxUint64, 1000-200-5-1-100-11)
	l, _ := LookupLease(w.v, honest.Lease)
	if l.Settled != 100 || l.Over != 10 || l.Taken != 10 {
		t.Errorf("got lease %+v, want 100 settled and 10 over", l)
	}
	// The lease can be closed, whatever was claimed under it.
	w.want(w.close(kind.Close, g.Lease, 5), verify.OutcomeConflict)
	w.ok(w.close(kind.Close, g.Lease, kind.MaxAmount))
	u := must[*UsageSums](t)(w.m.QueryUsage(w.v, UsageQuery{Account: acctTeam, To: math.MaxInt64}, w.now))
	if u.Exact || u.Rows[0].Sum != math.MaxUint64 {
		t.Errorf("got exact %v and %d, want a sum that says at least", u.Exact, u.Rows[0].Sum)
	}
}

// However leases are taken and over-claimed, no level loses more to a team than an ask of the team could have had.
func TestOverClaimNeverPassesALimit(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Day, Limit: 1000, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 10, Mode: kind.Block})
	for {
		d := w.reserve(acctTeam, kind.ReserveBody{Want: 3})
		if d.Outcome != verify.OutcomeAccepted {
			w.want(d, verify.OutcomeQuotaExhausted)
			break
		}
		g := must[*kind.Grant](t)(kind.DecodeGrant(d.Detail))
		w.ok(w.settle(g.Lease, 50, 0, 1))
		w.ok(w.close(kind.Close, g.Lease, 60))
		w.ok(w.settle(g.Lease, 70, 1, 2))
	}
	w.wantRoom(acctTeam, w.counter(acctTeam).Excess, w.counter(acctTeam).Over, 0)
	if got := w.counter(acctOrg).Remaining; got != 990 {
		t.Errorf("got %d remaining for the others, want 990", got)
	}
}

// The budget of a link holds over-claims too.
func TestOverClaimUnderABudget(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Day, Limit: 1000, Mode: kind.Block})
	link := nhi.LinkID{1}
	chain := &registry.Chain{
		Links: []*registry.Link{{Subject: agentA}}, IDs: []nhi.LinkID{link},
		Budgets: []registry.LinkBudget{{Link: link, Counter: registry.BudgetCounter(link), Budgets: []registry.Budget{{Meter: "tok", Limit: 10, Window: registry.Total}}}},
	}
	g := w.grant(acctTeam, 8, under(chain))
	w.ok(w.settle(g.Lease, 100, 0, 1))
	w.wantRoom(acctOrg, 2, 90, 990)
	if l, _ := LookupLease(w.v, g.Lease); l.charges[len(l.charges)-1].budget != 10 {
		t.Errorf("got budget %d in the lease, want 10", l.charges[len(l.charges)-1].budget)
	}
	w.want(w.use(acctTeam, 1, under(chain)), verify.OutcomeQuotaExhausted)
}

func TestOverageDoesNotEndMetering(t *testing.T) {
	w := newWorld(t)
	q := kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Total, Limit: 1000, Mode: kind.Overage}
	w.quota(q)
	for _, who := range []nhi.ID{agentA, agentB, agentA} {
		w.ok(w.use(acctTeam, kind.MaxAmount, by(who)))
	}
	w.wantRoom(acctOrg, math.MaxUint64, 0, 0)
	w.ok(w.use(acctOther, 5, by(agentB)))
	// What was spent while it did not block takes room when it does, until its owner takes it back.
	q.Mode = kind.Block
	w.quota(q)
	w.want(w.use(acctOther, 5, by(agentB)), verify.OutcomeQuotaExhausted)
	w.ok(w.correct(kind.CorrectBody{Account: acctOrg, Excess: math.MaxUint64 - 700}, byAuthority))
	w.wantRoom(acctOrg, 700, 0, 300)
	w.ok(w.use(acctOther, 300, by(agentB)))
}

// No amount in another domain's facts refuses the next one.
func TestFactsOfOtherDomainsAreNeverDropped(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "cpu", Period: kind.Total, Limit: 1000, Mode: kind.Block})
	for range 4 {
		u := Usage{Account: acctTeam, Agent: agentA, Quantities: []verify.Quantity{{Meter: "cpu", N: kind.MaxAmount}}, Fact: true}
		ws, leaves, r := w.m.Charge(w.v, ledger.Stamp{Time: w.now}, u)
		if r != nil {
			t.Fatalf("got refusal %+v", r)
		}
		w.apply(ledger.Decision{Writes: ws, Leaves: leaves, Quantities: u.Quantities}, leaf{kind: "sandbox.usage", account: acctTeam, agent: agentA})
	}
	c := must[[]Counter](t)(w.m.QueryQuota(w.v, acctTeam, "cpu", nhi.LinkID{}, w.now))
	if c[0].Charged != 1000 || c[0].Excess != math.MaxUint64 || c[0].Remaining != 0 {
		t.Errorf("got %+v, want 1000 charged and as much excess as there can be", c[0])
	}
}

func (w *world) correct(b kind.CorrectBody, opts ...opt) ledger.Decision {
	w.t.Helper()
	b.Meter, b.Reason = "tok", "not ours"
	if b.Period == 0 {
		b.Period, b.Start = kind.Total, InstanceAt(kind.Total, 0, time.UTC, w.now).Start
	}
	return w.do(event(kind.Correct, b.Account, must[[]byte](w.t)(b.Encode()), opts...))
}

func TestCorrect(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Total, Limit: 100, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 50, Mode: kind.Block})
	link := nhi.LinkID{1}
	chain := &registry.Chain{
		Links: []*registry.Link{{Subject: agentA}}, IDs: []nhi.LinkID{link},
		Budgets: []registry.LinkBudget{{Link: link, Counter: registry.BudgetCounter(link), Budgets: []registry.Budget{{Meter: "tok", Limit: 90, Window: registry.Total}}}},
	}
	g := w.grant(acctTeam, 20, under(chain))
	day := InstanceAt(kind.Day, 0, time.UTC, w.now)
	w.ok(w.settle(g.Lease, 60, 0, 1)) // 20 granted, 20 as an ask could, 20 more
	w.wantRoom(acctOrg, 20, 20, 60)

	w.want(w.correct(kind.CorrectBody{Account: acctOrg, Excess: 5}), verify.OutcomeUnauthorized)
	w.want(w.correct(kind.CorrectBody{Account: acctOrg, Excess: 21}, byAuthority), verify.OutcomeConflict)
	w.want(w.correct(kind.CorrectBody{Account: acctOrg, Over: 21}, byAuthority), verify.OutcomeConflict)
	w.want(w.correct(kind.CorrectBody{Account: acctOther, Excess: 1}, byAuthority), verify.OutcomeConflict)
	d := w.ok(w.correct(kind.CorrectBody{Account: acctOrg, Excess: 15, Over: 20}, byAuthority))
	if c := must[*kind.Corrected](t)(kind.DecodeCorrected(d.Detail)); *c != (kind.Corrected{Charged: 20, Excess: 5}) {
		t.Errorf("got detail %+v, want 20 charged and 5 excess", c)
	}
	w.wantRoom(acctOrg, 5, 0, 75)
	w.wantCounter(acctOrg, 20, 0, 5)

	// The instance of a past period; and the budget of a link, by the authority only.
	w.advance(day.End)
	w.ok(w.correct(kind.CorrectBody{Account: acctTeam, Period: kind.Day, Start: day.Start, Excess: 20, Over: 20}, byAuthority))
	w.want(w.correct(kind.CorrectBody{Account: acctTeam, Period: kind.Day, Start: day.End, Excess: 1}, byAuthority), verify.OutcomeConflict)
	w.want(w.correct(kind.CorrectBody{Link: link, Excess: 1}), verify.OutcomeUnauthorized)
	w.ok(w.correct(kind.CorrectBody{Link: link, Excess: 20}, byAuthority))

	// Whoever set the quota.
	named := under(&registry.Chain{
		Links: []*registry.Link{{Subject: agentB, Scopes: []registry.Scope{{Actions: []string{kind.Set}, Resource: registry.AccountResource(acctOrg)}}}},
		IDs:   []nhi.LinkID{{7}},
	})
	b := must[[]byte](t)(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Total, Limit: 100, Mode: kind.Block}.Encode())
	w.ok(w.do(event(kind.Set, acctOrg, b, by(agentB), named)))
	w.ok(w.correct(kind.CorrectBody{Account: acctOrg, Excess: 5}, by(agentB)))
	w.wantRoom(acctOrg, 0, 0, 80)
}

func TestCorrectBodyRefusals(t *testing.T) {
	good := kind.CorrectBody{Account: acctOrg, Meter: "tok", Period: kind.Total, Excess: 1, Reason: "Größe"}
	if _, err := good.Encode(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*kind.CorrectBody){
		"no level": func(b *kind.CorrectBody) { b.Account = nhi.ID{} }, "two levels": func(b *kind.CorrectBody) { b.Link = nhi.LinkID{1} },
		"no meter": func(b *kind.CorrectBody) { b.Meter = "" }, "no period": func(b *kind.CorrectBody) { b.Period = 0 },
		"nothing": func(b *kind.CorrectBody) { b.Excess = 0 }, "no reason": func(b *kind.CorrectBody) { b.Reason = "" },
		"long reason": func(b *kind.CorrectBody) { b.Reason = strings.Repeat("x", kind.MaxReasonSize+1) },
		"escape":      func(b *kind.CorrectBody) { b.Reason = "a\x1b[2J" }, "C1": func(b *kind.CorrectBody) { b.Reason = "a\u009b2J" },
		"not UTF-8": func(b *kind.CorrectBody) { b.Reason = "\xff" },
	} {
		b := good
		change(&b)
		if _, err := b.Encode(); err == nil {
			t.Errorf("%s: Encode accepts %+v", name, b)
		}
	}
}

// However many meters an agent makes up, what has happened is counted.
func TestFactsFitIntoAFullCell(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 1000, Mode: kind.Block})
	g := w.grant(acctTeam, 100)
	usage := func(meter string) ledger.Decision {
		return w.do(event(kind.Usage, acctTeam, must[[]byte](t)(kind.UsageBody{Quantities: []verify.Quantity{{Meter: meter, N: 1}}}.Encode())))
	}
	for i := range MaxCellMeters {
		w.ok(usage(fmt.Sprintf("junk%d", i)))
	}
	w.want(usage("tok"), verify.OutcomeLimit)
	charge := func(fact bool) *Refusal {
		u := Usage{Account: acctTeam, Agent: agentA, Quantities: []verify.Quantity{{Meter: "cpu", N: 5}, {Meter: "junk3", N: 2}, {Meter: "wall", N: 7}}, Fact: fact}
		ws, _, r := w.m.Charge(w.v, ledger.Stamp{Time: w.now}, u)
		if r == nil {
			w.apply(ledger.Decision{Writes: ws, Quantities: u.Quantities}, leaf{kind: "sandbox.usage", account: acctTeam, agent: agentA})
		}
		return r
	}
	if r := charge(false); r == nil || r.Outcome != verify.OutcomeLimit {
		t.Errorf("got %+v for an ask, want a bound", r)
	}
	for range 2 {
		if r := charge(true); r != nil {
			t.Errorf("got refusal %+v for a fact", r)
		}
	}
	w.ok(w.settle(g.Lease, 50, 0, 1))
	w.ok(w.close(kind.Close, g.Lease, 70))
	w.ok(usage("tok")) // it has a row now

	u := must[*UsageSums](t)(w.m.QueryUsage(w.v, UsageQuery{Account: acctOrg, To: math.MaxInt64}, w.now))
	got := make(map[string][2]uint64)
	for _, r := range u.Rows {
		got[r.Meter] = [2]uint64{r.Sum, r.Count}
	}
	for meter, want := range map[string][2]uint64{"tok": {71, 3}, "cpu": {10, 2}, "wall": {14, 2}, "junk3": {5, 3}, "junk4": {1, 1}} {
		if got[meter] != want {
			t.Errorf("%s: got sum and count %v, want %v", meter, got[meter], want)
		}
	}
	if len(u.Rows) != MaxCellMeters+3 {
		t.Errorf("got %d rows, want %d", len(u.Rows), MaxCellMeters+3)
	}
}
