package meter

import (
	"math"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

func TestReserveSettleClose(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 80, Mode: kind.Block})

	index := w.v.next
	g := w.grant(acctTeam, 50)
	if g.Lease != index || g.Granted != 50 || g.Expires != w.now+int64(kind.DefaultLeaseTTL) || g.Period.Period != kind.Day {
		t.Errorf("got grant %+v of index %d", g, index)
	}
	w.wantCounter(acctTeam, 0, 50, 0)
	w.wantCounter(acctOrg, 0, 50, 0)
	if got := w.grant(acctTeam, 50).Granted; got != 30 {
		t.Errorf("got a grant of %d, want the remaining 30", got)
	}
	r := must[*kind.Refusal](t)(kind.DecodeRefusal(w.want(w.reserve(acctOther, kind.ReserveBody{Want: 50, Min: 21}), verify.OutcomeQuotaExhausted).Detail))
	if r.Account != acctOrg || r.Remaining != 20 || r.Open != 80 {
		t.Errorf("got refusal %+v, want the organisation's with 20 remaining", r)
	}
	w.want(w.use(acctOther, 21), verify.OutcomeQuotaExhausted) // open units are not there for direct spends either

	d := w.ok(w.settle(g.Lease, 20, 0, 4))
	if d.Lease.ID != g.Lease || d.Lease.From != 0 || d.Lease.To != 4 || d.Quantities[0].N != 20 {
		t.Errorf("got lease %+v and quantities %v in the leaf", d.Lease, d.Quantities)
	}
	w.wantCounter(acctTeam, 20, 60, 0)
	body := must[[]byte](t)(kind.UsageBody{Quantities: []verify.Quantity{{Meter: "tok", N: 5}}, Lease: g.Lease, From: 4, To: 5}.Encode())
	w.ok(w.do(event(kind.Usage, acctTeam, body)))
	w.wantCounter(acctTeam, 25, 55, 0)

	// 25 are settled; the holder says it spent 30 of 50: 20 come back.
	d = w.ok(w.close(kind.Close, g.Lease, 30))
	c := must[*kind.Closed](t)(kind.DecodeClosed(d.Detail))
	if *c != (kind.Closed{Lease: g.Lease, Settled: 30, Returned: 20}) || d.Quantities[0].N != 5 {
		t.Errorf("got %+v, quantities %v", c, d.Quantities)
	}
	w.wantCounter(acctTeam, 30, 30, 0)
	w.wantCounter(acctOrg, 30, 30, 0)
	if len(w.timers) != 1 {
		t.Errorf("got %d timers, want that of the other lease", len(w.timers))
	}
	w.want(w.close(kind.Close, g.Lease, 30), verify.OutcomeClosed)

	// A statement about a closed lease is not dropped: it is excess.
	w.ok(w.settle(g.Lease, 7, 5, 6))
	w.wantCounter(acctTeam, 30, 30, 7)
	if c := w.counters(acctTeam)[0]; c.Remaining != 13 {
		t.Errorf("got %d remaining, want 13", c.Remaining)
	}
}

func TestLeaseRules(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 1000, Mode: kind.Block})
	g := w.grant(acctTeam, 100)
	use := func(b kind.UsageBody, account nhi.ID, opts ...opt) ledger.Decision {
		return w.do(event(kind.Usage, account, must[[]byte](t)(b.Encode()), opts...))
	}
	other := kind.UsageBody{Quantities: []verify.Quantity{{Meter: "other", N: 5}}, Lease: g.Lease, From: 0, To: 1}
	w.want(use(other, acctTeam), verify.OutcomeInvalid)
	other.Quantities[0].Meter = "tok"
	w.want(use(other, acctOther), verify.OutcomeInvalid)
	w.want(use(other, acctTeam, by(agentB)), verify.OutcomeUnauthorized)
	w.want(w.settle(g.Lease, 1, 0, 1, by(agentB)), verify.OutcomeUnauthorized)
	w.want(w.close(kind.Close, g.Lease, 0, by(agentB)), verify.OutcomeUnauthorized)
	w.want(w.close(kind.Close, g.Lease, 0, byAuthority), verify.OutcomeUnauthorized)
	w.want(w.close(kind.WriteOff, g.Lease, 0), verify.OutcomeUnauthorized)
	w.want(w.settle(g.Lease+1, 1, 0, 1), verify.OutcomeNotFound)
	w.want(w.close(kind.Close, g.Lease+1, 1), verify.OutcomeNotFound)
	w.want(w.close(kind.WriteOff, g.Lease+1, 1, byAuthority), verify.OutcomeNotFound)

	// Q3: contiguous ranges, each once, whatever the event's id.
	w.want(w.settle(g.Lease, 1, 1, 2), verify.OutcomeConflict) // a gap
	w.ok(w.settle(g.Lease, 10, 0, 3))
	w.want(w.settle(g.Lease, 10, 0, 3), verify.OutcomeConflict) // a replay
	w.want(w.settle(g.Lease, 10, 2, 5), verify.OutcomeConflict) // an overlap
	w.want(w.settle(g.Lease, 10, 4, 5), verify.OutcomeConflict) // a gap
	w.wantCounter(acctTeam, 10, 90, 0)

	// Q2: what is beyond the grant is excess.
	w.ok(w.settle(g.Lease, 120, 3, 4))
	w.wantCounter(acctTeam, 100, 0, 30)
	l, _ := LookupLease(w.v, g.Lease)
	if l.Settled != 100 || l.Over != 30 || l.Next != 4 {
		t.Errorf("got lease %+v", l)
	}
	w.want(w.close(kind.Close, g.Lease, 129), verify.OutcomeConflict) // less than was settled
	w.ok(w.close(kind.Close, g.Lease, 130))
	w.wantCounter(acctTeam, 100, 0, 30)

	for _, r := range []kind.ReserveBody{
		{Meter: "tok"}, {Meter: "tok", Want: 1, Min: 2}, {Meter: "tok", Want: 1, TTL: -1}, {Meter: "tok", Want: 1, TTL: int64(kind.MaxLeaseTTL) + 1},
		{Meter: "tok", Want: math.MaxUint64}, {Meter: "", Want: 1},
	} {
		if _, err := r.Encode(); err == nil {
			t.Errorf("Encode accepts %+v", r)
		}
	}
	w.want(w.do(event(kind.Reserve, acctTeam, []byte{0xa1, 1, 0x63, 't', 'o', 'k'})), verify.OutcomeInvalid)
	w.want(w.reserve(nhi.ID{}, kind.ReserveBody{Want: 1}), verify.OutcomeInvalid)
	w.want(w.reserve(nhi.ID{9}, kind.ReserveBody{Want: 1}), verify.OutcomeNotFound)
	w.ok(w.settle(g.Lease, math.MaxInt64, 4, 5))
	w.ok(w.settle(g.Lease, math.MaxInt64, 5, 6))
	w.wantCounter(acctTeam, 100, 0, 100) // as much again as was granted, no more
}

func TestExpiryReturnsNothing(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block})
	g := w.grant(acctTeam, 60)
	w.ok(w.settle(g.Lease, 10, 0, 1))
	w.advance(g.Expires - 1)
	if l, _ := LookupLease(w.v, g.Lease); l.State != LeaseOpen {
		t.Errorf("got state %s before the end, want open", l.State)
	}
	w.advance(g.Expires)
	if l, _ := LookupLease(w.v, g.Lease); l.State != LeaseExpired || w.count(kind.LeaseExpired) != 1 {
		t.Errorf("got state %s and %d leaves, want expired and one", l.State, w.count(kind.LeaseExpired))
	}
	w.wantCounter(acctTeam, 10, 50, 0)
	w.want(w.use(acctTeam, 41), verify.OutcomeQuotaExhausted)
	w.ok(w.settle(g.Lease, 5, 1, 2)) // late, but within the grant
	w.wantCounter(acctTeam, 15, 45, 0)
	w.ok(w.close(kind.Close, g.Lease, 20))
	w.wantCounter(acctTeam, 20, 0, 0)

	// Write-off: by the authority, or by whoever set every quota of the lease.
	g = w.grant(acctTeam, 10)
	w.advance(g.Expires)
	w.ok(w.close(kind.WriteOff, g.Lease, 10, byAuthority))
	w.wantCounter(acctTeam, 30, 0, 0)
	if l, _ := LookupLease(w.v, g.Lease); l.State != LeaseWrittenOff {
		t.Errorf("got state %s, want written_off", l.State)
	}
}

func TestWriteOffByTheOwnerOfTheQuotas(t *testing.T) {
	w := newWorld(t)
	named := func(account nhi.ID) opt {
		return under(&registry.Chain{
			Links: []*registry.Link{{Subject: agentB, Scopes: []registry.Scope{{Actions: []string{kind.Set}, Resource: registry.AccountResource(account)}}}},
			IDs:   []nhi.LinkID{{7}},
		})
	}
	set := func(account nhi.ID) {
		b := must[[]byte](t)(kind.QuotaBody{Account: account, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block}.Encode())
		w.ok(w.do(event(kind.Set, account, b, by(agentB), named(account))))
	}
	set(acctTeam)
	g := w.grant(acctTeam, 10)
	w.want(w.close(kind.WriteOff, g.Lease, 0, by(agentA)), verify.OutcomeUnauthorized)
	w.ok(w.close(kind.WriteOff, g.Lease, 0, by(agentB)))
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block}) // the authority's
	g = w.grant(acctTeam, 10)
	w.want(w.close(kind.WriteOff, g.Lease, 0, by(agentB)), verify.OutcomeUnauthorized)
}

func TestLeaseBelongsToThePeriodOfItsGrant(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block})
	midnight := InstanceAt(kind.Day, 0, time.UTC, w.now).End
	w.now = midnight - int64(time.Second)
	g := w.grant(acctTeam, 60)
	if g.Expires != midnight {
		t.Errorf("got expiry %d, want the end of the day %d", g.Expires, midnight)
	}
	w.advance(midnight)
	w.wantCounter(acctTeam, 0, 0, 0) // a new day, all of it free
	w.ok(w.settle(g.Lease, 60, 0, 1))
	w.wantCounter(acctTeam, 0, 0, 0)
	w.now = midnight - 1
	w.wantCounter(acctTeam, 60, 0, 0)
}

func TestLoweredLimitStopsGrants(t *testing.T) {
	w := newWorld(t)
	q := kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block}
	w.quota(q)
	g := w.grant(acctTeam, 80)
	w.ok(w.settle(g.Lease, 30, 0, 1))
	q.Limit = 40
	w.quota(q)
	w.wantCounter(acctTeam, 30, 50, 0)
	w.want(w.reserve(acctTeam, kind.ReserveBody{Want: 1}), verify.OutcomeQuotaExhausted)
	w.want(w.use(acctTeam, 1), verify.OutcomeQuotaExhausted)
	w.ok(w.settle(g.Lease, 50, 1, 2)) // what was granted is honoured
	w.wantCounter(acctTeam, 80, 0, 0)
	q.Limit = 90
	w.quota(q)
	w.ok(w.use(acctTeam, 10))
}

func TestReserveAllSeesItself(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block})
	at := ledger.Stamp{Time: w.now}
	all := func(rs ...Reservation) ([]kind.Grant, []ledger.Write, *Refusal) {
		gs, ws, _, r := w.m.ReserveAll(w.v, at, nil, agentA, rs)
		return gs, ws, r
	}
	gs, ws, r := all(Reservation{Account: acctTeam, Meter: "tok", Want: 60}, Reservation{Account: acctOther, Meter: "tok", Want: 60}, Reservation{Account: acctOther, Meter: "gpu", Want: 2})
	if r != nil || gs[0].Granted != 60 || gs[1].Granted != 40 || gs[2].Granted != 2 {
		t.Fatalf("got %+v, %v; want 60, 40 and 2", gs, r)
	}
	seen := make(map[uint64]bool)
	for i, g := range gs {
		if seen[g.Lease] || g.Lease&(1<<leaseShift-1) != w.v.next {
			t.Errorf("lease %d: got id %#x", i, g.Lease)
		}
		seen[g.Lease] = true
	}
	w.apply(ledger.Decision{Writes: ws}, leaf{kind: "claim"})
	w.wantCounter(acctOrg, 0, 100, 0)
	w.ok(w.close(kind.Close, gs[1].Lease, 15))
	w.wantCounter(acctOrg, 15, 60, 0)

	gs, ws, r = all(Reservation{Account: acctTeam, Meter: "tok", Want: 20}, Reservation{Account: acctOther, Meter: "tok", Want: 10, Min: 6})
	if r == nil || gs != nil || ws != nil || r.Outcome != verify.OutcomeQuotaExhausted || r.Remaining != 5 {
		t.Errorf("got %+v and %d writes, want one refusal for both with 5 remaining", r, len(ws))
	}
	if _, _, r = all(make([]Reservation, MaxReservations+1)...); r == nil || r.Outcome != verify.OutcomeLimit {
		t.Errorf("got %v, want a bound on reservations", r)
	}
}

func TestLinkBudgetsAreCounters(t *testing.T) {
	w := newWorld(t)
	root, leafLink := nhi.LinkID{1}, nhi.LinkID{2}
	chain := &registry.Chain{
		Links: []*registry.Link{{}, {Subject: agentA}},
		IDs:   []nhi.LinkID{root, leafLink},
		Budgets: []registry.LinkBudget{
			{Link: root, Counter: registry.BudgetCounter(root), Budgets: []registry.Budget{{Meter: "tok", Limit: 50, Window: registry.Total}, {Meter: "gpu", Limit: 1, Window: registry.Day}}},
			{Link: leafLink, Counter: registry.BudgetCounter(leafLink), Budgets: []registry.Budget{{Meter: "tok", Limit: 30, Window: registry.Day}}},
		},
	}
	w.ok(w.use(acctTeam, 30, under(chain)))
	r := must[*kind.Refusal](t)(kind.DecodeRefusal(w.want(w.use(acctTeam, 1, under(chain)), verify.OutcomeQuotaExhausted).Detail))
	if r.Link != leafLink || !r.Account.IsZero() || r.Limit != 30 || r.Period != kind.Day {
		t.Errorf("got refusal %+v, want the last link's budget", r)
	}
	w.ok(w.use(acctTeam, 1)) // for itself, the chain's budgets do not count
	w.now = InstanceAt(kind.Day, 0, time.UTC, w.now).End
	g := w.grant(acctTeam, 30, under(chain))
	if g.Granted != 20 {
		t.Errorf("got a grant of %d, want the root link's remaining 20", g.Granted)
	}
	w.want(w.reserve(acctTeam, kind.ReserveBody{Want: 1}, under(chain)), verify.OutcomeQuotaExhausted)
	w.want(w.close(kind.WriteOff, g.Lease, 0, by(agentB)), verify.OutcomeUnauthorized)
	w.ok(w.close(kind.Close, g.Lease, 5))
	w.ok(w.use(acctTeam, 15, under(chain)))

	// An account whose id is that of a budget's counter has counters of its own.
	clash := registry.BudgetCounter(leafLink)
	w.account(clash, acctTeam, "run")
	w.quota(kind.QuotaBody{Account: clash, Meter: "tok", Period: kind.Day, Limit: 1000, Mode: kind.Block})
	w.wantCounter(clash, 0, 0, 0)
}

func TestCites(t *testing.T) {
	w := newWorld(t)
	g := w.grant(acctTeam, 10)
	usage := func(lease uint64) []byte {
		b := kind.UsageBody{Quantities: []verify.Quantity{{Meter: "tok", N: 1}}, Lease: lease}
		if lease != 0 {
			b.To = 1
		}
		return must[[]byte](t)(b.Encode())
	}
	for _, c := range []struct {
		name string
		ev   *ledger.Event
		want bool
	}{
		{"usage under its lease", event(kind.Usage, acctTeam, usage(g.Lease)), true},
		{"usage under somebody's lease", event(kind.Usage, acctTeam, usage(g.Lease), by(agentB)), false},
		{"usage under no lease", event(kind.Usage, acctTeam, usage(0)), false},
		{"usage under an unknown lease", event(kind.Usage, acctTeam, usage(g.Lease+1)), false},
		{"garbage", event(kind.Usage, acctTeam, []byte{0xff}), false},
		{"close", event(kind.Close, acctTeam, must[[]byte](t)(kind.CloseBody{Lease: g.Lease}.Encode())), true},
		{"settle", event(kind.Settle, acctTeam, must[[]byte](t)(kind.SettleBody{Lease: g.Lease, To: 1}.Encode())), true},
		{"reserve", event(kind.Reserve, acctTeam, must[[]byte](t)(kind.ReserveBody{Meter: "tok", Want: 1}.Encode())), false},
	} {
		if got := citesLease(w.v, c.ev); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
