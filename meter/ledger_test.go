package meter_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// house is a real ledger with a meter: root > org > team, a human, and two agents under one another.
type house struct {
	*ledgertest.Fixture
	m             *meter.Meter
	org, team     nhi.ID
	human         *ledgertest.Identity
	parent, child *ledgertest.Identity
	top, below    *ledgertest.Link
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{m: meter.New(), org: ledgertest.ID("org"), team: ledgertest.ID("team")}
	h.Fixture = ledgertest.NewWith(t, ledgertest.Options{Kinds: h.m.Kinds(), Config: func(c *ledger.Config) {
		c.Tree = func(v ledger.View) registry.Tree { return meter.Tree{View: v} }
	}})
	h.admit(kind.Account, kind.AccountBody{ID: h.org, Type: "org"})
	h.admit(kind.Account, kind.AccountBody{ID: h.team, Parent: h.org, Type: "team"})
	h.human, h.parent, h.child = h.Register("human", registry.Human), h.Register("parent", registry.Agent), h.Register("child", registry.Agent)
	h.top = h.Delegate(nil, h.human, h.parent, func(l *registry.Link) {
		l.Scopes = []registry.Scope{{Actions: []string{"quota.*", "usage"}, Resource: registry.AccountResource(h.org), Caps: map[string]uint64{"tok": 50}}}
		l.Budgets = []registry.Budget{{Meter: "tok", Unit: "1", Limit: 200, Window: registry.Total}}
	})
	h.below = h.Delegate(h.top, h.parent, h.child, func(l *registry.Link) {
		l.Scopes = []registry.Scope{{Actions: []string{"quota.*", "usage"}, Resource: registry.AccountResource(h.team), Caps: map[string]uint64{}}}
		l.Budgets = []registry.Budget{{Meter: "tok", Unit: "1", Limit: 100, Window: registry.Total}}
	})
	return h
}

// admit submits an event of the authority's that must take effect.
func (h *house) admit(name string, body any) ledger.EventResult {
	h.T.Helper()
	return h.Accepted(h.Submit(h.Event(h.Authority, name, body))...)
}

func tok(n uint64) kind.UsageBody {
	return kind.UsageBody{Quantities: []verify.Quantity{{Meter: "tok", N: n}}}
}

func (h *house) use(l *ledgertest.Link, by *ledgertest.Identity, account nhi.ID, n uint64) ledger.EventResult {
	h.T.Helper()
	return h.Submit(h.Under(l, by, kind.Usage, account, tok(n)))[0]
}

func (h *house) query(q meter.UsageQuery) (sum, count uint64) {
	h.T.Helper()
	q.To = math.MaxInt64
	h.WithView(h.Tenant, func(v ledger.View) {
		u, err := h.m.QueryUsage(v, q, h.Now)
		if err != nil {
			h.T.Fatal(err)
		}
		for _, r := range u.Rows {
			sum, count = sum+r.Sum, count+r.Count
		}
	})
	return sum, count
}

func TestOnTheLedger(t *testing.T) {
	h := newHouse(t)
	h.admit(kind.Set, kind.QuotaBody{Account: h.org, Meter: "tok", Period: kind.Day, Limit: 120, Mode: kind.Block, Thresholds: []uint16{50}})

	// The cap of the chain holds for each request, its budgets for all of them together.
	h.Want(verify.OutcomeUnauthorized, h.use(h.below, h.child, h.team, 51))
	h.Accepted(h.use(h.below, h.child, h.team, 50), h.use(h.below, h.child, h.team, 40))
	res := h.Want(verify.OutcomeQuotaExhausted, h.use(h.below, h.child, h.team, 11))
	r, err := kind.DecodeRefusal(res.Detail)
	if err != nil || r.Link != h.below.ID || r.Remaining != 10 {
		t.Errorf("got refusal %+v (%v), want by the lower link with 10 remaining", r, err)
	}
	h.Want(verify.OutcomeQuotaExhausted, h.use(h.top, h.parent, h.org, 31)) // the organisation's day
	h.Accepted(h.use(h.top, h.parent, h.org, 20))
	h.Want(verify.OutcomeQuotaExhausted, h.Submit(h.Under(h.top, h.parent, kind.Reserve, h.org, kind.ReserveBody{Meter: "tok", Want: 40, Min: 11}))...)

	h.WithView(h.Tenant, func(v ledger.View) {
		cs, err := h.m.QueryQuota(v, h.team, "", h.below.ID, h.Now)
		if err != nil || len(cs) != 3 {
			t.Fatalf("got counters %+v (%v), want three", cs, err)
		}
		for i, want := range []uint64{110, 110, 90} { // the day, the upper link, the lower link
			if cs[i].Charged != want {
				t.Errorf("counter %d: got %d charged, want %d", i, cs[i].Charged, want)
			}
		}
		if _, err := h.m.QueryQuota(v, h.team, "", nhi.LinkID{1}, h.Now); !errors.Is(err, meter.ErrNoLink) {
			t.Errorf("got %v, want %v", err, meter.ErrNoLink)
		}
	})
	for _, c := range []struct {
		name       string
		q          meter.UsageQuery
		sum, count uint64
	}{
		{"everything", meter.UsageQuery{}, 110, 3},
		{"below the upper link", meter.UsageQuery{Link: h.top.ID}, 110, 3},
		{"below the lower link", meter.UsageQuery{Link: h.below.ID}, 90, 2},
		{"below no link", meter.UsageQuery{Link: nhi.LinkID{1}}, 0, 0},
		{"the team", meter.UsageQuery{Account: h.team}, 90, 2},
		{"the parent", meter.UsageQuery{Agent: h.parent.ID}, 20, 1},
	} {
		if sum, count := h.query(c.q); sum != c.sum || count != c.count {
			t.Errorf("%s: got %d in %d events, want %d in %d", c.name, sum, count, c.sum, c.count)
		}
	}
	// A star lets an agent reserve, not raise its own limit.
	h.Want(verify.OutcomeUnauthorized, h.Submit(h.Under(h.top, h.parent, kind.Set, h.org,
		kind.QuotaBody{Account: h.org, Meter: "tok", Period: kind.Day, Limit: 1000, Mode: kind.Block}))...)
	h.replay(t)
}

func TestLeaseOnTheLedger(t *testing.T) {
	h := newHouse(t)
	h.admit(kind.Set, kind.QuotaBody{Account: h.team, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Block})
	res := h.Accepted(h.Submit(h.Under(h.below, h.child, kind.Reserve, h.team, kind.ReserveBody{Meter: "tok", Want: 80, TTL: int64(time.Minute)}))...)
	g, err := kind.DecodeGrant(res.Detail)
	if err != nil || g.Granted != 50 || g.Lease != res.Index { // the cap
		t.Fatalf("got grant %+v (%v) at %d, want 50", g, err, res.Index)
	}
	settle := func(n, from uint64) ledgertest.Signed {
		b := tok(n)
		b.Lease, b.From, b.To = g.Lease, from, from+1
		return h.Under(h.below, h.child, kind.Usage, h.team, b)
	}
	h.Accepted(h.Submit(settle(10, 0), settle(5, 1))...)
	h.Want(verify.OutcomeConflict, h.Submit(settle(5, 1))...) // Q3, under another id

	h.Advance(2 * time.Minute)
	if n := h.Tick(); n != 1 {
		t.Fatalf("got %d expiries, want one", n)
	}
	lease := func() (l *meter.Lease) {
		h.WithView(h.Tenant, func(v ledger.View) { l, _ = meter.LookupLease(v, g.Lease) })
		return l
	}
	if l := lease(); l.State != meter.LeaseExpired || l.Settled != 15 {
		t.Errorf("got lease %+v, want expired with 15 settled", l)
	}
	// The authority behind the lease goes; what was spent under it is recorded all the same.
	h.admit("identity.revoke", struct {
		ID     nhi.ID `cbor:"1,keyasint"`
		Reason string `cbor:"2,keyasint"`
	}{h.child.ID, "test"})
	h.Want(verify.OutcomeRevoked, h.use(h.below, h.child, h.team, 1))
	before := h.Log.Applied()
	flagged := h.Submit(settle(7, 2))[0]
	if flagged.State != ledger.Sequenced || !flagged.Outcome.Accepted() || h.Log.Applied() == before {
		t.Errorf("got %+v, want a recorded fact", flagged)
	}
	if l := lease(); l.Settled != 22 {
		t.Errorf("got %d settled, want 22", l.Settled)
	}
	closed := h.admit(kind.WriteOff, kind.CloseBody{Lease: g.Lease, Spent: 30})
	if c, err := kind.DecodeClosed(closed.Detail); err != nil || c.Returned != 20 || c.Settled != 30 {
		t.Errorf("got %+v (%v), want 20 returned of 50", c, err)
	}
	if sum, count := h.query(meter.UsageQuery{Link: h.top.ID}); sum != 30 || count != 4 {
		t.Errorf("got usage %d in %d events, want 30 in 4", sum, count)
	}
	h.replay(t)
}

func TestZoneOnTheLedger(t *testing.T) {
	h := newHouse(t)
	rules, err := os.ReadFile(filepath.Join("testdata", "Europe_Berlin.tzif"))
	if err != nil {
		t.Fatal(err)
	}
	h.Accepted(h.Submit(h.SystemEvent(h.Admin, kind.Zone, kind.ZoneBody{Zone: "Europe/Berlin", Rules: rules}))...)
	h.Want(verify.OutcomeInvalid, h.Submit(h.SystemEvent(h.Admin, kind.Zone, struct {
		Zone  string `cbor:"1,keyasint"`
		Rules []byte `cbor:"2,keyasint"`
	}{"Europe/Berlin", []byte("no")}))...)
	h.replay(t)
}

// replay applies everything again to an empty ledger: the same state hash comes out.
func (h *house) replay(t *testing.T) {
	t.Helper()
	want := h.hash(h.Log)
	cfg := h.Config
	cfg.FS, cfg.Dir = nil, t.TempDir()
	cfg.Kinds = meter.New().Kinds()
	again := h.Open(cfg)
	if _, err := again.Apply(h.Entries); err != nil {
		t.Fatal(err)
	}
	if got := h.hash(again); got != want {
		t.Errorf("replay gives state %x, want %x", got, want)
	}
}

func (h *house) hash(l *ledger.Log) nhi.Digest {
	h.T.Helper()
	s, err := l.Read()
	if err != nil {
		h.T.Fatal(err)
	}
	defer s.Close()
	return s.StateHash()
}

// BenchmarkApplyUsage is a command of 256 batch-signed usage events on a real ledger.
func BenchmarkApplyUsage(b *testing.B) {
	h := newHouse(b)
	h.admit(kind.Set, kind.QuotaBody{Account: h.org, Meter: "tokens.output", Period: kind.Month, Limit: kind.MaxAmount, Mode: kind.Block})
	h.admit(kind.Set, kind.QuotaBody{Account: h.team, Meter: "tokens.output", Period: kind.Day, Limit: kind.MaxAmount, Mode: kind.Block})
	body := kind.UsageBody{Quantities: []verify.Quantity{{Meter: "tokens.input", N: 1873}, {Meter: "tokens.output", N: 211}}}
	for b.Loop() {
		b.StopTimer()
		events := make([]ledgertest.Signed, 256)
		for i := range events {
			events[i] = h.Under(h.below, h.child, kind.Usage, h.team, body)
		}
		env := h.SignBatch(events...)
		c := &ledger.Command{Type: ledger.CommandEvents, Time: h.Now, Tenant: h.Tenant, Envelopes: [][]byte{env}, Verdicts: h.Verdicts(h.Tenant, len(events))}
		b.StartTimer()
		h.Accepted(h.SubmitCommand(c)...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/event")
}
