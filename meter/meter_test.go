package meter

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

func TestAccountRules(t *testing.T) {
	chain := func(scopes ...[]registry.Scope) *registry.Chain {
		c := &registry.Chain{}
		for i, s := range scopes {
			c.Links = append(c.Links, &registry.Link{Subject: agentA, Scopes: s})
			c.IDs = append(c.IDs, nhi.LinkID{byte(i + 1)})
		}
		return c
	}
	onOrg := []registry.Scope{{Actions: []string{kind.Account}, Resource: registry.AccountResource(acctOrg)}}
	star := []registry.Scope{{Actions: []string{"*"}, Resource: "*"}}
	onOther := []registry.Scope{{Actions: []string{kind.Account}, Resource: registry.AccountResource(acctOther)}, {Actions: []string{"*"}, Resource: "*"}}
	fresh := nhi.ID{0xd, 1}
	for _, c := range []struct {
		name   string
		body   kind.AccountBody
		charge nhi.ID
		opts   []opt
		want   verify.OutcomeCode
	}{
		{"authority", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, nhi.ID{}, []opt{byAuthority}, verify.OutcomeAccepted},
		{"parent zero is the root", kind.AccountBody{ID: fresh, Parent: nhi.ID{}, Type: "org"}, nhi.ID{}, []opt{byAuthority}, verify.OutcomeAccepted},
		{"exists", kind.AccountBody{ID: acctTeam, Parent: acctOrg, Type: "team"}, nhi.ID{}, []opt{byAuthority}, verify.OutcomeExists},
		{"the root exists", kind.AccountBody{ID: tenantID, Parent: acctOrg, Type: "team"}, nhi.ID{}, []opt{byAuthority}, verify.OutcomeExists},
		{"no such parent", kind.AccountBody{ID: fresh, Parent: nhi.ID{0xd, 9}, Type: "team"}, nhi.ID{}, []opt{byAuthority}, verify.OutcomeNotFound},
		{"agent for itself", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, acctTeam, nil, verify.OutcomeUnauthorized},
		{"link that names the action", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, acctTeam, []opt{under(chain(onOrg))}, verify.OutcomeAccepted},
		{"link, other account in the request", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, acctOrg, []opt{under(chain(onOrg))}, verify.OutcomeUnauthorized},
		{"a star names nothing", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, acctTeam, []opt{under(chain(star))}, verify.OutcomeUnauthorized},
		{"a star above names nothing", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, acctTeam, []opt{under(chain(star, onOrg))}, verify.OutcomeUnauthorized},
		{"named elsewhere, star here", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, acctTeam, []opt{under(chain(onOther))}, verify.OutcomeUnauthorized},
		{"named at every link", kind.AccountBody{ID: fresh, Parent: acctTeam, Type: "agent"}, acctTeam, []opt{under(chain(onOrg, onOrg))}, verify.OutcomeAccepted},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			body := must[[]byte](t)(c.body.Encode())
			d := w.want(w.do(event(kind.Account, c.charge, body, c.opts...)), c.want)
			if c.want == verify.OutcomeAccepted && d.Bump != ledger.BumpEntities {
				t.Errorf("got bump %v, want that of entities", d.Bump)
			}
		})
	}
}

func TestAccountDepth(t *testing.T) {
	w := newWorld(t)
	parent := tenantID
	for i := 1; i < MaxDepth; i++ {
		id := nhi.ID{0xd, byte(i)}
		w.account(id, parent, "run")
		parent = id
	}
	body := must[[]byte](t)(kind.AccountBody{ID: nhi.ID{0xd, 99}, Parent: parent, Type: "run"}.Encode())
	w.want(w.do(event(kind.Account, nhi.ID{}, body, byAuthority)), verify.OutcomeLimit)

	path, ok := Path(w.v, parent, nil)
	if !ok || len(path) != MaxDepth || path[0] != parent || path[MaxDepth-1] != tenantID {
		t.Errorf("got path of %d accounts, want %d", len(path), MaxDepth)
	}
	tree := Tree{w.v}
	for _, c := range []struct {
		child, ancestor nhi.ID
		want            bool
	}{
		{acctTeam, acctOrg, true}, {acctTeam, tenantID, true}, {acctTeam, acctTeam, false}, {acctOrg, acctTeam, false},
		{acctTeam, acctOther, false}, {nhi.ID{0xe}, tenantID, false}, {nhi.ID{0xe}, nhi.ID{0xe}, false}, {parent, tenantID, true},
	} {
		if got := tree.IsDescendant(c.child, c.ancestor); got != c.want {
			t.Errorf("IsDescendant(%s, %s): got %v, want %v", c.child, c.ancestor, got, c.want)
		}
	}
}

func TestQuotaRules(t *testing.T) {
	q := kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Month, Limit: 10, Mode: kind.Block}
	w := newWorld(t)
	encode := func(b kind.QuotaBody) []byte { return must[[]byte](t)(canon.Marshal(b)) }
	for _, c := range []struct {
		name   string
		change func(*kind.QuotaBody)
	}{
		{"no account", func(b *kind.QuotaBody) { b.Account = nhi.ID{} }},
		{"no meter", func(b *kind.QuotaBody) { b.Meter = "" }},
		{"meter with a capital", func(b *kind.QuotaBody) { b.Meter = "Tok" }},
		{"meter with a zero byte", func(b *kind.QuotaBody) { b.Meter = "tok\x00" }},
		{"no period", func(b *kind.QuotaBody) { b.Period = 0 }},
		{"unknown period", func(b *kind.QuotaBody) { b.Period = 6 }},
		{"no mode", func(b *kind.QuotaBody) { b.Mode = 0 }},
		{"unknown mode", func(b *kind.QuotaBody) { b.Mode = 5 }},
		{"limit out of range", func(b *kind.QuotaBody) { b.Limit = math.MaxUint64 }},
		{"anchor out of range", func(b *kind.QuotaBody) { b.Anchor = 32 }},
		{"anchor of a day", func(b *kind.QuotaBody) { b.Anchor, b.Period = 2, kind.Day }},
		{"thresholds not ascending", func(b *kind.QuotaBody) { b.Thresholds = []uint16{80, 80} }},
		{"threshold zero", func(b *kind.QuotaBody) { b.Thresholds = []uint16{0} }},
		{"threshold too high", func(b *kind.QuotaBody) { b.Thresholds = []uint16{1001} }},
		{"too many thresholds", func(b *kind.QuotaBody) { b.Thresholds = []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9} }},
		{"end date of a blocking quota", func(b *kind.QuotaBody) { b.Until = 1 }},
		{"end date before time", func(b *kind.QuotaBody) { b.Until, b.Mode = -1, kind.Observe }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := q
			c.change(&b)
			w.want(w.do(event(kind.Set, nhi.ID{}, encode(b), byAuthority)), verify.OutcomeInvalid)
			if _, err := b.Encode(); err == nil {
				t.Error("Encode accepts what Decide refuses")
			}
		})
	}
	w.want(w.do(event(kind.Set, nhi.ID{}, encode(q))), verify.OutcomeUnauthorized)
	w.want(w.do(event(kind.Set, nhi.ID{}, []byte{0xa0}, byAuthority)), verify.OutcomeInvalid)
	q.Account = nhi.ID{9}
	w.want(w.do(event(kind.Set, nhi.ID{}, encode(q), byAuthority)), verify.OutcomeNotFound)
	q.Account = acctTeam
	w.quota(q)
	q.Anchor = 1 // the same day, spelled out
	w.quota(q)
	q.Anchor = 2
	w.want(w.do(event(kind.Set, nhi.ID{}, encode(q), byAuthority)), verify.OutcomeConflict)

	w.v.tenant.Zone = "Europe/Berlin"
	q.Anchor, q.Period = 0, kind.Day
	w.want(w.do(event(kind.Set, nhi.ID{}, encode(q), byAuthority)), verify.OutcomeNotFound)
	q.Period = kind.Total
	w.quota(q)
}

func TestUsageIsChargedToEveryLevel(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: tenantID, Meter: "tok", Period: kind.Total, Limit: 1000, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Month, Limit: 100, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 60, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Hour, Limit: 50, Mode: kind.Block})

	w.ok(w.use(acctTeam, 40))
	w.ok(w.use(acctOther, 35))
	for _, c := range []struct{ account nhi.ID }{{tenantID}, {acctOrg}} {
		w.wantCounter(c.account, 75, 0, 0)
	}
	// The hour of the team has 10 left, its day 20, the organisation's month 25: the hour refuses.
	r := must[*kind.Refusal](t)(kind.DecodeRefusal(w.want(w.use(acctTeam, 26), verify.OutcomeQuotaExhausted).Detail))
	hour := InstanceAt(kind.Hour, 0, time.UTC, w.now)
	want := &kind.Refusal{Account: acctTeam, Meter: "tok", Limit: 50, Charged: 40, Remaining: 10, ResetsAt: hour.End, Period: kind.Hour, Want: 26, Hint: r.Hint}
	if diff := cmp.Diff(want, r); diff != "" || r.Hint == "" {
		t.Errorf("refusal (-want +got):\n%s", diff)
	}
	// From the other team it is the organisation that refuses.
	r = must[*kind.Refusal](t)(kind.DecodeRefusal(w.want(w.use(acctOther, 26), verify.OutcomeQuotaExhausted).Detail))
	if r.Account != acctOrg || r.Period != kind.Month || r.Remaining != 25 {
		t.Errorf("got refusal by %s %s with %d left, want by the organisation's month with 25", r.Account, r.Period, r.Remaining)
	}
	w.ok(w.use(acctOther, 25)) // exactly the rest
	w.want(w.use(acctTeam, 1), verify.OutcomeQuotaExhausted)
	w.wantCounter(tenantID, 100, 0, 0) // refusals charged nothing

	w.now = InstanceAt(kind.Month, 0, time.UTC, w.now).End
	w.ok(w.use(acctTeam, 50))
	w.wantCounter(acctOrg, 50, 0, 0)
	w.wantCounter(tenantID, 150, 0, 0) // total goes on
}

func TestUsageRefusals(t *testing.T) {
	w := newWorld(t)
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "out", Period: kind.Day, Limit: 5, Mode: kind.Block})
	use := func(b kind.UsageBody, account nhi.ID) ledger.Decision {
		return w.do(event(kind.Usage, account, must[[]byte](t)(b.Encode())))
	}
	in := func(n, m uint64) kind.UsageBody {
		return kind.UsageBody{Quantities: []verify.Quantity{{Meter: "out", N: m}, {Meter: "input", N: n}}, Dims: []kind.Dim{{Name: "model", Value: "m"}, {Name: "id", Value: "x"}}}
	}
	w.want(use(in(1, 1), nhi.ID{}), verify.OutcomeInvalid)
	w.want(use(in(1, 1), nhi.ID{9}), verify.OutcomeNotFound)
	// One meter of the event has no room: nothing of it is charged.
	w.want(use(in(7, 6), acctTeam), verify.OutcomeQuotaExhausted)
	d := w.ok(use(in(7, 5), acctTeam))
	if diff := cmp.Diff([]verify.Quantity{{Meter: "input", N: 7}, {Meter: "out", N: 5}}, d.Quantities); diff != "" {
		t.Errorf("quantities of the leaf (-want +got):\n%s", diff)
	}
	u := must[*UsageSums](t)(w.m.QueryUsage(w.v, UsageQuery{From: 0, To: math.MaxInt64}, w.now))
	if len(u.Rows) != 2 || u.Rows[0].Sum != 7 || u.Rows[1].Sum != 5 || u.Rows[0].Count != 1 {
		t.Errorf("got usage %+v, want 7 input and 5 out in one event", u.Rows)
	}
	w.want(w.do(event("quota.unheard", acctTeam, []byte{0xa0})), verify.OutcomeUnsupported)

	strict := newWorld(t)
	strict.v.tenant.Strict = true
	body := must[[]byte](t)(in(1, 1).Encode())
	for q, want := range map[verify.QualityCode]verify.OutcomeCode{
		verify.QualityGood: verify.OutcomeAccepted, verify.QualitySingle: verify.OutcomeAccepted,
		verify.QualityCarried: verify.OutcomeTimeQuality, verify.QualityStale: verify.OutcomeTimeQuality,
	} {
		d := strict.m.Decide(strict.v, event(kind.Usage, acctTeam, body), ledger.Stamp{Time: noon, Quality: verify.Quality{Code: q}})
		strict.want(d, want)
	}
}

func TestCellHoldsABoundedNumberOfMeters(t *testing.T) {
	w := newWorld(t)
	name := func(i int) string { return "m" + string(rune('a'+i/26)) + string(rune('a'+i%26)) }
	for i := range MaxCellMeters {
		w.ok(w.do(event(kind.Usage, acctTeam, must[[]byte](t)(kind.UsageBody{Quantities: []verify.Quantity{{Meter: name(i), N: 1}}}.Encode()))))
	}
	w.want(w.do(event(kind.Usage, acctTeam, must[[]byte](t)(kind.UsageBody{Quantities: []verify.Quantity{{Meter: name(MaxCellMeters), N: 1}}}.Encode()))), verify.OutcomeLimit)
	w.ok(w.do(event(kind.Usage, acctTeam, must[[]byte](t)(kind.UsageBody{Quantities: []verify.Quantity{{Meter: name(3), N: 1}}}.Encode()))))
}

func TestModes(t *testing.T) {
	w := newWorld(t)
	end := noon + int64(time.Hour)
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Total, Limit: 10, Mode: kind.Observe, Until: end})
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Total, Limit: 10, Mode: kind.Overage})
	if d := w.ok(w.use(acctTeam, 10)); d.Detail != nil {
		t.Error("got a detail for usage within an observed quota")
	}
	w.wantCounter(acctTeam, 0, 0, 10)
	w.wantCounter(acctOrg, 0, 0, 10)
	d := w.ok(w.use(acctTeam, 5))
	var detail kind.UsageDetail
	if err := canon.Unmarshal(d.Detail, &detail); err != nil || len(detail.WouldDeny) != 1 || detail.WouldDeny[0].Account != acctTeam {
		t.Errorf("got detail %+v (%v), want would_deny at the team", detail, err)
	}
	w.now = end
	w.want(w.use(acctTeam, 1), verify.OutcomeQuotaExhausted) // observation is over
	if c := w.counters(acctTeam)[0]; c.Quota.Mode != kind.Block || c.Remaining != 0 || c.Excess != 15 {
		t.Errorf("got %v with %d remaining, want block with none", c.Quota.Mode, c.Remaining)
	}
	w.ok(w.use(acctOther, 100))

	// Under overage nothing is held, and what is settled is excess.
	g := w.grant(acctOther, 1000)
	w.wantCounter(acctOrg, 0, 0, 115)
	w.ok(w.settle(g.Lease, 1500, 0, 1))
	w.wantCounter(acctOrg, 0, 0, 1615)
}

func TestThresholdsNoticeOnce(t *testing.T) {
	w := newWorld(t)
	q := kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 200, Mode: kind.Block, Thresholds: []uint16{50, 80, 100}}
	w.quota(q)
	steps := []struct {
		n    uint64
		want []uint16
	}{{99, nil}, {1, []uint16{50}}, {1, nil}, {69, []uint16{80}}, {29, nil}, {1, []uint16{100}}, {0, nil}}
	for i, s := range steps {
		d := w.ok(w.use(acctTeam, s.n))
		var got []uint16
		for _, l := range d.Leaves {
			var b kind.Threshold
			if err := canon.Unmarshal(l.Body, &b); err != nil || l.Kind != kind.ThresholdReached || b.Limit != 200 || b.Account != acctTeam {
				t.Fatalf("got leaf %s %+v (%v)", l.Kind, b, err)
			}
			got = append(got, b.Percent)
		}
		if diff := cmp.Diff(s.want, got); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
	q.Limit = 1000 // 20 %: what was noticed is not noticed again
	w.quota(q)
	if d := w.ok(w.use(acctTeam, 400)); len(d.Leaves) != 0 {
		t.Errorf("got %d notices after the limit was raised, want none", len(d.Leaves))
	}
	w.now = InstanceAt(kind.Day, 0, time.UTC, w.now).End
	if d := w.ok(w.use(acctTeam, 900)); len(d.Leaves) != 2 {
		t.Errorf("got %d notices for a jump to 90 %% in a new period, want 2", len(d.Leaves))
	}
	// Settling under a lease notices as well.
	g := w.grant(acctTeam, 100)
	if d := w.ok(w.settle(g.Lease, 100, 0, 1)); len(d.Leaves) != 1 {
		t.Errorf("got %d notices for a settlement to 100 %%, want 1", len(d.Leaves))
	}
}

func TestTooManyCounters(t *testing.T) {
	w := newWorld(t)
	parent := acctTeam
	for i := range 4 {
		id := nhi.ID{0xd, byte(i + 1)}
		w.account(id, parent, "run")
		parent = id
	}
	for p := kind.Hour; p <= kind.Total; p++ {
		for _, a := range []nhi.ID{acctOrg, acctTeam, {0xd, 1}, {0xd, 2}, {0xd, 3}} {
			if p == kind.Total && a == acctOrg {
				continue
			}
			w.quota(kind.QuotaBody{Account: a, Meter: "tok", Period: p, Limit: 100, Mode: kind.Block})
		}
	}
	w.ok(w.use(parent, 1)) // 24
	w.quota(kind.QuotaBody{Account: tenantID, Meter: "tok", Period: kind.Total, Limit: 100, Mode: kind.Block})
	w.want(w.use(parent, 1), verify.OutcomeLimit)
}

func TestZoneRulesComeFromTheSystemLog(t *testing.T) {
	w := newWorld(t)
	sys := &world{t: t, m: w.m, v: w.v.system, now: noon, timers: make(map[string]ledger.Timer), tables: w.tables}
	admin := func(ev *ledger.Event) {
		ev.Signer = &registry.Identity{ID: authority, Type: registry.Admin}
	}
	put := func(zone string, rules []byte, opts ...opt) ledger.Decision {
		return sys.do(event(kind.Zone, nhi.ID{}, must[[]byte](t)(kind.ZoneBody{Zone: zone, Rules: rules}.Encode()), opts...))
	}
	rules := must[[]byte](t)(os.ReadFile(filepath.Join("testdata", "Europe_Berlin.tzif")))
	sys.want(put("Europe/Berlin", rules), verify.OutcomeUnauthorized)
	sys.want(put("Europe/Berlin", []byte("TZif"), admin), verify.OutcomeInvalid)
	sys.want(put("../etc", rules, admin), verify.OutcomeInvalid)
	sys.want(put("", rules, admin), verify.OutcomeInvalid)
	sys.want(put("Europe/Berlin", make([]byte, kind.MaxZoneRules+1), admin), verify.OutcomeInvalid)
	sys.ok(put("Europe/Berlin", rules, admin))

	w.v.tenant.Zone = "Europe/Berlin"
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 10, Mode: kind.Block})
	want := InstanceAt(kind.Day, 0, zone(t, "Europe/Berlin"), noon)
	if got := w.counters(acctTeam)[0].Instance; got != want || got.Start != time.Date(2026, 3, 9, 23, 0, 0, 0, time.UTC).UnixNano() {
		t.Errorf("got day %v, want %v", got, want)
	}
	for range 3 { // also from the cache
		w.ok(w.use(acctTeam, 3))
	}
	w.wantCounter(acctTeam, 9, 0, 0)
}
