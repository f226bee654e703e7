package meter

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
)

// The model knows quotas, leases and direct spends, and no counters: it derives charged, open and excess from the whole
// history each time, by what the design says they are.
type model struct {
	quotas map[place]modelQuota
	leases []*modelLease
	spends []modelSpend
	beyond []modelBeyond
	before map[modelCounter]uint64 // charged + open of every counter after the last step, for Q1
}

type place struct {
	account nhi.ID
	period  kind.Period
}

type modelQuota struct {
	limit uint64
	mode  kind.Mode
}

type modelCounter struct {
	place
	start int64
}

type modelCharge struct {
	modelCounter
	holds bool
}

type modelLease struct {
	id                           uint64
	holder, account              nhi.ID
	granted, settled, over, next uint64
	taken                        uint64 // of over, what took room
	expires                      int64
	state                        LeaseState
	list                         []modelCharge
}

// modelBeyond is what one step added to, or a correction took from, what a counter has beyond limit and grants.
type modelBeyond struct {
	modelCounter
	excess, over uint64
	back         bool
}

type modelSpend struct {
	n    uint64
	list []modelCharge
}

var parents = map[nhi.ID][]nhi.ID{
	tenantID: {tenantID}, acctOrg: {acctOrg, tenantID}, acctTeam: {acctTeam, acctOrg, tenantID}, acctOther: {acctOther, acctOrg, tenantID},
}

func (m *model) list(account nhi.ID, at int64) []modelCharge {
	var out []modelCharge
	for _, a := range parents[account] {
		for p := kind.Hour; p <= kind.Total; p++ {
			if q, ok := m.quotas[place{a, p}]; ok {
				out = append(out, modelCharge{modelCounter{place{a, p}, InstanceAt(p, 0, time.UTC, at).Start}, q.mode == kind.Block})
			}
		}
	}
	return out
}

// derive adds up history: charged, open, excess and over of one counter.
func (m *model) derive(c modelCounter) (charged, open, excess, over uint64) {
	for _, s := range m.spends {
		for _, e := range s.list {
			if e.modelCounter == c && e.holds {
				charged += s.n
			}
		}
	}
	for _, l := range m.leases {
		for _, e := range l.list {
			if e.modelCounter == c && e.holds {
				charged += l.settled
				if l.state == LeaseOpen || l.state == LeaseExpired {
					open += l.granted - l.settled
				}
			}
		}
	}
	for _, b := range m.beyond {
		switch {
		case b.modelCounter != c:
		case b.back:
			excess, over = excess-b.excess, over-b.over
		default:
			excess, over = addSat(excess, b.excess), addSat(over, b.over)
		}
	}
	return charged, open, excess, over
}

func (m *model) room(list []modelCharge) uint64 {
	room := uint64(math.MaxUint64)
	for _, c := range list {
		if c.holds {
			charged, open, excess, _ := m.derive(c.modelCounter)
			room = min(room, subSat(m.quotas[c.place].limit, addSat(charged+open, excess)))
		}
	}
	return room
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		m := &model{quotas: make(map[place]modelQuota), before: make(map[modelCounter]uint64)}
		accounts := rapid.SampledFrom([]nhi.ID{tenantID, acctOrg, acctTeam, acctOther})
		agents := rapid.SampledFrom([]nhi.ID{agentA, agentB})
		amount := rapid.Uint64Range(0, 60)
		// What somebody claims to have spent may be anything.
		claim := rapid.OneOf(amount, amount, amount, amount, rapid.Uint64Range(kind.MaxAmount-5, kind.MaxAmount))
		anyLease := func(rt *rapid.T) *modelLease {
			if len(m.leases) == 0 {
				rt.Skip("no lease")
			}
			return rapid.SampledFrom(m.leases).Draw(rt, "lease")
		}
		refusedFor := func(rt *rapid.T, d ledger.Decision, want verify.OutcomeCode) bool {
			if d.Outcome != want {
				rt.Fatalf("got outcome %v, want %v", d.Outcome, want)
			}
			return want != verify.OutcomeAccepted
		}
		spendLease := func(l *modelLease, n uint64) {
			in := uint64(0)
			if l.state == LeaseOpen || l.state == LeaseExpired {
				in = min(n, l.granted-l.settled)
			}
			over := n - in
			take := min(over, l.granted-l.taken, m.room(l.list))
			for _, c := range l.list {
				b := modelBeyond{modelCounter: c.modelCounter, excess: take, over: over - take}
				if !c.holds {
					b.excess += in
				}
				m.beyond = append(m.beyond, b)
			}
			l.settled += in
			l.over = addSat(l.over, over)
			l.taken += take
		}

		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				p := place{accounts.Draw(rt, "account"), rapid.SampledFrom([]kind.Period{kind.Hour, kind.Day, kind.Total}).Draw(rt, "period")}
				q := modelQuota{rapid.Uint64Range(0, 200).Draw(rt, "limit"), kind.Block}
				if rapid.IntRange(0, 4).Draw(rt, "mode") == 0 {
					q.mode = kind.Overage
				}
				w.quota(kind.QuotaBody{Account: p.account, Meter: "tok", Period: p.period, Limit: q.limit, Mode: q.mode})
				m.quotas[p] = q
			},
			"use": func(rt *rapid.T) {
				account, n := accounts.Draw(rt, "account"), amount.Draw(rt, "n")
				list := m.list(account, w.now+1)
				want := verify.OutcomeAccepted
				if n > m.room(list) {
					want = verify.OutcomeQuotaExhausted
				}
				d := w.use(account, n, by(agents.Draw(rt, "agent")))
				if refusedFor(rt, d, want) {
					return
				}
				m.spends = append(m.spends, modelSpend{n, list})
				for _, c := range list {
					if !c.holds {
						m.beyond = append(m.beyond, modelBeyond{modelCounter: c.modelCounter, excess: n})
					}
				}
			},
			"reserve": func(rt *rapid.T) {
				account, agent := accounts.Draw(rt, "account"), agents.Draw(rt, "agent")
				wanted := rapid.Uint64Range(1, 80).Draw(rt, "want")
				least := rapid.Uint64Range(0, wanted).Draw(rt, "min")
				ttl := rapid.SampledFrom([]time.Duration{0, time.Minute, 3 * time.Hour}).Draw(rt, "ttl")
				list := m.list(account, w.now+1)
				id := w.v.next
				d := w.reserve(account, kind.ReserveBody{Want: wanted, Min: least, TTL: int64(ttl)}, by(agent))
				room := m.room(list)
				want := verify.OutcomeAccepted
				if room < max(least, 1) {
					want = verify.OutcomeQuotaExhausted
				}
				if refusedFor(rt, d, want) {
					return
				}
				g, err := kind.DecodeGrant(d.Detail)
				if err != nil || g.Lease != id || g.Granted != min(wanted, room) {
					rt.Fatalf("got grant %+v (%v), want %d under lease %d", g, err, min(wanted, room), id)
				}
				for _, c := range list { // Q4
					if end := InstanceAt(c.period, 0, time.UTC, w.now).End; g.Expires > end {
						rt.Fatalf("lease expires at %d, after its %s ends at %d", g.Expires, c.period, end)
					}
				}
				m.leases = append(m.leases, &modelLease{id: id, holder: agent, account: account, granted: g.Granted, expires: g.Expires, state: LeaseOpen, list: list})
			},
			"settle": func(rt *rapid.T) {
				l, n := anyLease(rt), claim.Draw(rt, "n")
				from := l.next + rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(rt, "gap")
				if from > 0 && rapid.IntRange(0, 4).Draw(rt, "back") == 0 {
					from--
				}
				to := from + rapid.Uint64Range(1, 3).Draw(rt, "len")
				agent := l.holder
				if rapid.IntRange(0, 9).Draw(rt, "thief") == 0 {
					agent = agents.Draw(rt, "agent")
				}
				want := verify.OutcomeAccepted
				switch {
				case agent != l.holder:
					want = verify.OutcomeUnauthorized
				case from != l.next:
					want = verify.OutcomeConflict
				}
				if refusedFor(rt, w.settle(l.id, n, from, to, by(agent)), want) {
					return
				}
				l.next = to
				spendLease(l, n)
			},
			"close": func(rt *rapid.T) {
				l := anyLease(rt)
				spent := rapid.OneOf(rapid.Uint64Range(0, 100), claim).Draw(rt, "spent")
				state, k, who := LeaseClosed, kind.Close, by(l.holder)
				if rapid.Bool().Draw(rt, "writeoff") {
					state, k, who = LeaseWrittenOff, kind.WriteOff, byAuthority
				}
				want := verify.OutcomeAccepted
				switch {
				case l.state == LeaseClosed || l.state == LeaseWrittenOff:
					want = verify.OutcomeClosed
				case spent < min(addSat(l.settled, l.over), kind.MaxAmount):
					want = verify.OutcomeConflict
				}
				if refusedFor(rt, w.close(k, l.id, spent, who), want) {
					return
				}
				spendLease(l, subSat(spent, addSat(l.settled, l.over)))
				l.state = state
			},
			"correct": func(rt *rapid.T) {
				if len(m.beyond) == 0 {
					rt.Skip("nothing to take back")
				}
				c := rapid.SampledFrom(m.beyond).Draw(rt, "counter").modelCounter
				_, _, excess, over := m.derive(c)
				b := modelBeyond{modelCounter: c, back: true}
				b.excess = rapid.OneOf(amount, rapid.Just(excess)).Draw(rt, "excess")
				b.over = rapid.OneOf(amount, rapid.Just(over)).Draw(rt, "over")
				if b.excess == 0 && b.over == 0 {
					return
				}
				want := verify.OutcomeAccepted
				if b.excess > excess || b.over > over {
					want = verify.OutcomeConflict
				}
				d := w.correct(kind.CorrectBody{Account: c.account, Period: c.period, Start: c.start, Excess: b.excess, Over: b.over}, byAuthority)
				if refusedFor(rt, d, want) {
					return
				}
				m.beyond = append(m.beyond, b)
			},
			"wait": func(rt *rapid.T) {
				d := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, 13 * time.Hour}).Draw(rt, "d")
				w.advance(w.now + int64(d))
				for _, l := range m.leases {
					if l.state == LeaseOpen && l.expires <= w.now {
						l.state = LeaseExpired
					}
				}
			},
			"": func(rt *rapid.T) { m.check(rt, w) },
		})
	})
}

// check compares every counter, lease and sum of the meter with what history says, and holds the invariants.
func (m *model) check(rt *rapid.T, w *world) {
	for _, l := range m.leases {
		got, ok := LookupLease(w.v, l.id)
		if !ok || got.State != l.state || got.Settled != l.settled || got.Over != l.over || got.Taken != l.taken || got.Next != l.next || got.Granted != l.granted {
			rt.Fatalf("got lease %+v, want %+v", got, l)
		}
		if got.Settled > got.Granted {
			rt.Fatalf("Q2: lease %d settled %d of %d", l.id, got.Settled, got.Granted)
		}
	}
	seen := make(map[modelCounter]bool)
	for _, s := range m.spends {
		for _, c := range s.list {
			seen[c.modelCounter] = true
		}
	}
	for _, l := range m.leases {
		for _, c := range l.list {
			seen[c.modelCounter] = true
		}
	}
	for c := range seen {
		charged, open, excess, over := m.derive(c)
		k := counter{counterRef: counterRef{id: c.account, inst: Instance{Period: c.period, Start: c.start}}}
		key := k.appendKey(nil, "tok")
		if value, ok := w.v.Get(TableCounter, key); ok {
			k.read(key, value)
		}
		if got, want := [4]uint64{k.charged, k.open, k.excess, k.over}, [4]uint64{charged, open, excess, over}; got != want {
			rt.Fatalf("counter %s %s: got charged, open, excess, over %v, want %v", c.account, c.period, got, want)
		}
		// Q1 and Q5: within the limit; if it was lowered, no step makes it more.
		if held := k.charged + k.open; held > max(m.quotas[c.place].limit, m.before[c]) {
			rt.Fatalf("Q1: counter %s %s holds %d of %d, and held %d before", c.account, c.period, held, m.quotas[c.place].limit, m.before[c])
		} else {
			m.before[c] = held
		}
	}
	m.checkUsage(rt, w)
}

// checkUsage holds what queries say against the quantities of the leaves.
func (m *model) checkUsage(rt *rapid.T, w *world) {
	for account := range parents {
		for _, agent := range []nhi.ID{{}, agentA} {
			var sum, count uint64
			for _, l := range w.leaves {
				if !slices.Contains(parents[l.account], account) || !agent.IsZero() && l.agent != agent {
					continue
				}
				for _, q := range l.quantities {
					sum = addSat(sum, q.N)
					count++
				}
			}
			u, err := w.m.QueryUsage(w.v, UsageQuery{Account: account, Agent: agent, To: math.MaxInt64}, w.now)
			if err != nil {
				rt.Fatal(err)
			}
			var gotSum, gotCount uint64
			for _, r := range u.Rows {
				gotSum, gotCount = addSat(gotSum, r.Sum), gotCount+r.Count
			}
			if u.Exact != (sum != math.MaxUint64) && len(u.Rows) > 0 {
				rt.Fatalf("got exact %v for a sum of %d", u.Exact, sum)
			}
			if gotSum != sum || gotCount != count {
				rt.Fatalf("usage of %s by %s: got %d in %d events, want %d in %d", account, agent, gotSum, gotCount, sum, count)
			}
		}
	}
}
