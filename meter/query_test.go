package meter

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// used has two agents at two accounts over two days.
func used(t *testing.T) (w *world, day1, day2 int64) {
	w = newWorld(t)
	day1 = InstanceAt(kind.Day, 0, time.UTC, w.now).Start
	day2 = day1 + 24*int64(time.Hour)
	at := func(h time.Duration, n uint64, account nhi.ID, opts ...opt) {
		w.now = day1 + int64(h)
		w.ok(w.use(account, n, opts...))
	}
	at(10*time.Hour, 1, acctTeam)
	at(10*time.Hour+time.Minute, 2, acctTeam, by(agentB))
	at(11*time.Hour, 4, acctOther)
	at(23*time.Hour+59*time.Minute, 8, acctTeam)
	at(24*time.Hour, 16, acctTeam)
	at(25*time.Hour, 32, tenantID, by(agentB))
	return w, day1, day2
}

func TestQueryUsage(t *testing.T) {
	w, day1, day2 := used(t)
	const hour = int64(time.Hour)
	type row struct {
		from       int64 // hours after day1
		to         int64
		account    nhi.ID
		agent      nhi.ID
		sum, count uint64
	}
	for _, c := range []struct {
		name  string
		q     UsageQuery
		want  []row
		exact bool
	}{
		{"all of it", UsageQuery{From: day1, To: day2 + 24*hour}, []row{{0, 48, nhi.ID{}, nhi.ID{}, 63, 6}}, true},
		{"one account", UsageQuery{Account: acctTeam, From: day1, To: day2}, []row{{0, 24, nhi.ID{}, nhi.ID{}, 11, 3}}, true},
		{"an account with descendants", UsageQuery{Account: acctOrg, From: day1, To: day2}, []row{{0, 24, nhi.ID{}, nhi.ID{}, 15, 4}}, true},
		{"one agent", UsageQuery{Agent: agentB, From: day1, To: day2 + 2*hour}, []row{{0, 26, nhi.ID{}, nhi.ID{}, 34, 2}}, true},
		{"half-open", UsageQuery{From: day1 + 10*hour, To: day1 + 11*hour}, []row{{10, 11, nhi.ID{}, nhi.ID{}, 3, 2}}, true},
		{"widened to hours", UsageQuery{From: day1 + 10*hour + 1, To: day1 + 10*hour + 2}, []row{{10, 11, nhi.ID{}, nhi.ID{}, 3, 2}}, false},
		{"time to come", UsageQuery{From: day2, To: math.MaxInt64}, nil, true},
		{"nothing there", UsageQuery{From: day1, To: day1 + hour}, nil, true},
		{"by hour", UsageQuery{Account: acctTeam, From: day1, To: day2, Window: kind.Hour}, []row{{10, 11, nhi.ID{}, nhi.ID{}, 3, 2}, {23, 24, nhi.ID{}, nhi.ID{}, 8, 1}}, true},
		{"by day", UsageQuery{From: day1, To: day2 + 24*hour, Window: kind.Day}, []row{{0, 24, nhi.ID{}, nhi.ID{}, 15, 4}, {24, 48, nhi.ID{}, nhi.ID{}, 48, 2}}, true},
		{"part of a day", UsageQuery{From: day1 + 11*hour, To: day2 + hour, Window: kind.Day}, []row{{11, 24, nhi.ID{}, nhi.ID{}, 12, 2}, {24, 25, nhi.ID{}, nhi.ID{}, 16, 1}}, true},
		{"by account", UsageQuery{From: day1, To: day2, ByAccount: true}, []row{{0, 24, acctTeam, nhi.ID{}, 11, 3}, {0, 24, acctOther, nhi.ID{}, 4, 1}}, true},
		{"by agent", UsageQuery{Account: acctOrg, From: day1, To: day2, ByAgent: true}, []row{{0, 24, nhi.ID{}, agentA, 13, 3}, {0, 24, nhi.ID{}, agentB, 2, 1}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := must[*UsageSums](t)(w.m.QueryUsage(w.v, c.q, w.now))
			if u.Exact != c.exact {
				t.Errorf("got exact %v, want %v", u.Exact, c.exact)
			}
			if c.name == "time to come" {
				if len(u.Rows) != 1 || u.Rows[0].Sum != 48 {
					t.Fatalf("got %+v, want 48", u.Rows)
				}
				return
			}
			var got []row
			for _, r := range u.Rows {
				if r.Meter != "tok" {
					t.Errorf("got meter %q", r.Meter)
				}
				got = append(got, row{(r.From - day1) / hour, (r.To - day1) / hour, r.Account, r.Agent, r.Sum, r.Count})
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(row{})); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
	for name, q := range map[string]UsageQuery{
		"empty window": {From: 5, To: 5}, "backward": {From: 6, To: 5}, "by month": {From: 1, To: 5, Window: kind.Month}, "bad meter": {From: 1, To: 5, Meter: "A"},
	} {
		if _, err := w.m.QueryUsage(w.v, q, w.now); err == nil {
			t.Errorf("%s: got an answer", name)
		} else if _, ok := errors.AsType[*kind.InvalidError](err); !ok {
			t.Errorf("%s: got %v, want an InvalidError", name, err)
		}
	}
	if _, err := w.m.QueryUsage(w.v, UsageQuery{Account: nhi.ID{9}, To: 5}, w.now); !errors.Is(err, ErrNoAccount) {
		t.Errorf("got %v, want %v", err, ErrNoAccount)
	}
}

// A sum that does not fit says at least what it says, and the answer says that it is not exact; other sums stay as they are.
func TestQueryUsageOverflow(t *testing.T) {
	for _, step := range []time.Duration{0, time.Hour} { // in one cell, in several
		w := newWorld(t)
		for range 2 {
			w.ok(w.use(acctTeam, kind.MaxAmount))
			w.now += int64(step)
		}
		q := UsageQuery{To: math.MaxInt64}
		if u := must[*UsageSums](t)(w.m.QueryUsage(w.v, q, w.now)); !u.Exact || u.Rows[0].Sum != math.MaxUint64-1 {
			t.Errorf("got exact %v and %d, want the sum", u.Exact, u.Rows[0].Sum)
		}
		w.ok(w.use(acctTeam, 5))
		w.ok(w.use(acctTeam, 5))
		w.ok(w.use(acctOther, 5, by(agentB)))
		if u := must[*UsageSums](t)(w.m.QueryUsage(w.v, q, w.now)); u.Exact || u.Rows[0].Sum != math.MaxUint64 || u.Rows[0].Count != 5 {
			t.Errorf("got exact %v and %d of %d events, want a sum that says at least", u.Exact, u.Rows[0].Sum, u.Rows[0].Count)
		}
		q.Agent = agentB
		if u := must[*UsageSums](t)(w.m.QueryUsage(w.v, q, w.now)); !u.Exact || u.Rows[0].Sum != 5 {
			t.Errorf("got exact %v and %d for the other agent, want 5", u.Exact, u.Rows[0].Sum)
		}
	}
}

func TestChargeForAnotherDomain(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "cpu", Period: kind.Day, Limit: 100, Mode: kind.Block, Thresholds: []uint16{100}})
	charge := func(n uint64, fact bool) (*Refusal, int) {
		u := Usage{Account: acctTeam, Agent: agentA, Quantities: []verify.Quantity{{Meter: "cpu", N: n}}, Fact: fact}
		ws, leaves, r := w.m.Charge(w.v, ledger.Stamp{Time: w.now}, u)
		if r == nil {
			w.apply(ledger.Decision{Writes: ws, Quantities: u.Quantities}, leaf{kind: "sandbox.usage", account: acctTeam, agent: agentA})
		}
		return r, len(leaves)
	}
	if r, _ := charge(60, false); r != nil {
		t.Fatalf("got refusal %+v", r)
	}
	if r, _ := charge(60, false); r == nil || r.Remaining != 40 || r.Account != acctOrg {
		t.Fatalf("got %+v, want a refusal with 40 remaining", r)
	}
	if r, notices := charge(60, true); r != nil || notices != 1 { // it has happened
		t.Fatalf("got refusal %+v and %d notices, want none and one", r, notices)
	}
	c := must[[]Counter](t)(w.m.QueryQuota(w.v, acctTeam, "", nhi.LinkID{}, w.now))
	if len(c) != 1 || c[0].Charged != 100 || c[0].Excess != 20 || c[0].Meter != "cpu" {
		t.Errorf("got %+v, want 100 charged and 20 in excess", c)
	}
	for name, qs := range map[string][]verify.Quantity{
		"none": nil, "out of order": {{Meter: "b", N: 1}, {Meter: "a", N: 1}}, "twice": {{Meter: "a", N: 1}, {Meter: "a", N: 1}},
		"bad meter": {{Meter: "A", N: 1}}, "out of range": {{Meter: "a", N: math.MaxUint64}}, "too many": make([]verify.Quantity, 33),
	} {
		_, _, r := w.m.Charge(w.v, ledger.Stamp{Time: w.now}, Usage{Account: acctTeam, Agent: agentA, Quantities: qs, Fact: true})
		if r == nil || r.Outcome != verify.OutcomeInvalid {
			t.Errorf("%s: got %+v, want invalid", name, r)
		}
	}
}

// TestRepeatable: the same events give the same writes, byte by byte and in the same order, on another Meter (Q6).
func TestRepeatable(t *testing.T) {
	chain := &registry.Chain{
		Links: []*registry.Link{{Subject: agentA}}, IDs: []nhi.LinkID{{1}},
		Budgets: []registry.LinkBudget{{Link: nhi.LinkID{1}, Counter: registry.BudgetCounter(nhi.LinkID{1}), Budgets: []registry.Budget{{Meter: "tok", Limit: 500, Window: registry.Week}}}},
	}
	run := func() (out []ledger.Decision) {
		w := newWorld(t)
		w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Month, Limit: 300, Mode: kind.Block, Thresholds: []uint16{10, 50}})
		w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 300, Mode: kind.Observe})
		for i := range uint64(6) {
			out = append(out, w.use(acctTeam, 40*i, under(chain)), w.reserve(acctTeam, kind.ReserveBody{Want: 20}, under(chain)))
		}
		return out
	}
	if diff := cmp.Diff(run(), run(), cmpopts.IgnoreUnexported(ledger.Decision{})); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
}
