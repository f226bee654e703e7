package meter

import (
	"bytes"
	"fmt"
	"sort"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// fakeView is a map-based view of one tenant; system is slot 0.
type fakeView struct {
	rows   map[string][]byte // table ‖ key
	tenant ledger.Tenant
	next   uint64
	system *fakeView
	key    []byte // scratch
}

func newFakeView() *fakeView {
	return &fakeView{rows: make(map[string][]byte)}
}

func rowName(t ledger.Table, key []byte) string { return string(append([]byte{byte(t)}, key...)) }

func (f *fakeView) Get(t ledger.Table, key []byte) ([]byte, bool) {
	f.key = append(append(f.key[:0], byte(t)), key...)
	v, ok := f.rows[string(f.key)]
	return v, ok
}

func (f *fakeView) Scan(t ledger.Table, prefix, from []byte, reverse bool, fn func(key, value []byte) bool) {
	var keys []string
	for k := range f.rows {
		if k[0] == byte(t) && bytes.HasPrefix([]byte(k[1:]), prefix) {
			keys = append(keys, k[1:])
		}
	}
	sort.Strings(keys)
	if reverse {
		for i := len(keys) - 1; i >= 0; i-- {
			if from != nil && keys[i] > string(from) {
				continue
			}
			if !fn([]byte(keys[i]), f.rows[rowName(t, []byte(keys[i]))]) {
				return
			}
		}
		return
	}
	for _, k := range keys {
		if from != nil && k < string(from) {
			continue
		}
		if !fn([]byte(k), f.rows[rowName(t, []byte(k))]) {
			return
		}
	}
}

func (f *fakeView) System() ledger.View {
	if f.system == nil {
		return f
	}
	return f.system
}
func (f *fakeView) Tenant() ledger.Tenant { return f.tenant }
func (f *fakeView) LedgerID() nhi.Digest  { return nhi.Digest{1} }
func (f *fakeView) NextIndex() uint64     { return f.next }
func (f *fakeView) Epochs() verify.Epochs { return verify.Epochs{} }
func (f *fakeView) Active() uint32        { return 1 }

// world is a ledger reduced to what a handler sees of it.
type world struct {
	t      testing.TB
	m      *Meter
	v      *fakeView
	now    int64
	timers map[string]ledger.Timer
	leaves []leaf
	tables map[ledger.Table]bool
}

type leaf struct {
	index      uint64
	kind       string
	time       int64
	account    nhi.ID
	agent      nhi.ID
	link       nhi.LinkID
	quantities []verify.Quantity
	body       []byte
}

var (
	tenantID  = nhi.ID{0xff, 1}
	authority = nhi.ID{0xff, 2}
	agentA    = nhi.ID{0xa, 1}
	agentB    = nhi.ID{0xa, 2}
	acctOrg   = nhi.ID{0xc, 1}
	acctTeam  = nhi.ID{0xc, 2}
	acctOther = nhi.ID{0xc, 3}
)

// noon is 2026-03-10 12:00 UTC, a Tuesday.
const noon = int64(1773144000) * 1e9

// newWorld has the accounts root > org > {team, other}.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, m: New(), v: newFakeView(), now: noon, timers: make(map[string]ledger.Timer), tables: make(map[ledger.Table]bool)}
	w.v.tenant = ledger.Tenant{Slot: 1, ID: tenantID, AuthorityID: authority, Zone: "UTC"}
	w.v.next = 1
	w.v.system = newFakeView()
	for _, tb := range w.m.Tables() {
		w.tables[tb] = true
	}
	w.account(acctOrg, nhi.ID{}, "org")
	w.account(acctTeam, acctOrg, "team")
	w.account(acctOther, acctOrg, "team")
	return w
}

type opt func(*ledger.Event)

func byAuthority(ev *ledger.Event) {
	ev.Agent = authority
	ev.Signer = &registry.Identity{ID: authority, Type: registry.Authority, Status: registry.Active}
}

func by(agent nhi.ID) opt {
	return func(ev *ledger.Event) {
		ev.Agent = agent
		ev.Signer = &registry.Identity{ID: agent, Type: registry.Agent, Status: registry.Active}
	}
}

func under(c *registry.Chain) opt {
	return func(ev *ledger.Event) { ev.Chain, ev.Link = c, c.ID() }
}

func event(name string, account nhi.ID, body []byte, opts ...opt) *ledger.Event {
	ev := &ledger.Event{Event: &nhi.Event{V: 1, Kind: name, Tenant: tenantID, Account: account, Body: cbor.RawMessage(body)}}
	by(agentA)(ev)
	for _, o := range opts {
		o(ev)
	}
	return ev
}

// do decides about an event and applies what the decision says, as the ledger would.
func (w *world) do(ev *ledger.Event) ledger.Decision {
	w.t.Helper()
	w.now++
	d := w.m.Decide(w.v, ev, ledger.Stamp{Time: w.now})
	w.apply(d, leaf{kind: ev.Kind, account: ev.Account, agent: ev.Agent, link: ev.Link})
	return d
}

func (w *world) apply(d ledger.Decision, l leaf) {
	w.t.Helper()
	l.index, l.time = w.v.next, w.now
	w.v.next++
	if len(d.Detail) > ledger.MaxDetail {
		w.t.Fatalf("detail has %d bytes, want at most %d", len(d.Detail), ledger.MaxDetail)
	}
	if d.Outcome != verify.OutcomeAccepted {
		return
	}
	if d.Lease != nil && len(d.Quantities) > 0 {
		if ls, ok := LookupLease(w.v, d.Lease.ID); ok {
			l.account, l.agent, l.link = ls.Account, ls.Holder, ls.Link
		}
	}
	l.quantities = d.Quantities
	w.leaves = append(w.leaves, l)
	for _, wr := range d.Writes {
		if !w.tables[wr.Table] {
			w.t.Fatalf("write to table %#x, which is not the meter's", wr.Table)
		}
		if wr.Delete {
			delete(w.v.rows, rowName(wr.Table, wr.Key))
		} else {
			w.v.rows[rowName(wr.Table, wr.Key)] = bytes.Clone(wr.Value)
		}
	}
	for _, tm := range d.Timers {
		key := fmt.Sprintf("%020d %s %x", tm.Due, tm.Name, tm.Ref)
		if tm.Cancel {
			delete(w.timers, key)
		} else {
			w.timers[key] = tm
		}
	}
	for _, sl := range d.Leaves {
		w.leaves = append(w.leaves, leaf{index: w.v.next, kind: sl.Kind, time: w.now, account: sl.Account, agent: sl.Agent, body: sl.Body})
		w.v.next++
	}
}

// advance moves consensus time and expires what has come due.
func (w *world) advance(to int64) {
	w.t.Helper()
	w.now = max(w.now, to)
	keys := make([]string, 0, len(w.timers))
	for k := range w.timers {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		tm := w.timers[k]
		if tm.Due > w.now {
			continue
		}
		delete(w.timers, k)
		d := w.m.Expire(w.v, tm, ledger.Stamp{Time: w.now})
		n := len(w.leaves)
		w.apply(d, leaf{kind: "tick"})
		w.v.next--
		w.leaves = append(w.leaves[:n], w.leaves[n+1:]...)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) want(d ledger.Decision, code verify.OutcomeCode) ledger.Decision {
	w.t.Helper()
	if d.Outcome != code {
		hint := ""
		if r, err := kind.DecodeRefusal(d.Detail); err == nil {
			hint = r.Hint
		}
		w.t.Fatalf("got outcome %v (%s), want %v", d.Outcome, hint, code)
	}
	return d
}

func (w *world) ok(d ledger.Decision) ledger.Decision {
	w.t.Helper()
	return w.want(d, verify.OutcomeAccepted)
}

func (w *world) account(id, parent nhi.ID, typ string) {
	w.t.Helper()
	body := must[[]byte](w.t)(kind.AccountBody{ID: id, Parent: parent, Type: typ}.Encode())
	w.ok(w.do(event(kind.Account, nhi.ID{}, body, byAuthority)))
}

func (w *world) quota(q kind.QuotaBody) {
	w.t.Helper()
	w.ok(w.do(event(kind.Set, nhi.ID{}, must[[]byte](w.t)(q.Encode()), byAuthority)))
}

func (w *world) use(account nhi.ID, n uint64, opts ...opt) ledger.Decision {
	w.t.Helper()
	return w.do(event(kind.Usage, account, must[[]byte](w.t)(kind.UsageBody{Quantities: []verify.Quantity{{Meter: "tok", N: n}}}.Encode()), opts...))
}

func (w *world) reserve(account nhi.ID, r kind.ReserveBody, opts ...opt) ledger.Decision {
	w.t.Helper()
	r.Meter = "tok"
	return w.do(event(kind.Reserve, account, must[[]byte](w.t)(r.Encode()), opts...))
}

func (w *world) grant(account nhi.ID, want uint64, opts ...opt) *kind.Grant {
	w.t.Helper()
	d := w.ok(w.reserve(account, kind.ReserveBody{Want: want}, opts...))
	return must[*kind.Grant](w.t)(kind.DecodeGrant(d.Detail))
}

func (w *world) settle(lease, amount, from, to uint64, opts ...opt) ledger.Decision {
	w.t.Helper()
	return w.do(event(kind.Settle, nhi.ID{}, must[[]byte](w.t)(kind.SettleBody{Lease: lease, Amount: amount, From: from, To: to}.Encode()), opts...))
}

func (w *world) close(name string, lease, spent uint64, opts ...opt) ledger.Decision {
	w.t.Helper()
	return w.do(event(name, nhi.ID{}, must[[]byte](w.t)(kind.CloseBody{Lease: lease, Spent: spent}.Encode()), opts...))
}

// counters returns {charged, open, excess} of every counter above account for the meter tok.
func (w *world) counters(account nhi.ID) []Counter {
	w.t.Helper()
	return must[[]Counter](w.t)(w.m.QueryQuota(w.v, account, "tok", nhi.LinkID{}, w.now))
}

func (w *world) wantCounter(account nhi.ID, charged, open, excess uint64) {
	w.t.Helper()
	for _, c := range w.counters(account) {
		if c.Account == account {
			if got, want := [3]uint64{c.Charged, c.Open, c.Excess}, [3]uint64{charged, open, excess}; got != want {
				w.t.Fatalf("got charged, open, excess %v, want %v", got, want)
			}
			return
		}
	}
	w.t.Fatalf("account %s has no quota", account)
}

func (w *world) count(name string) int {
	n := 0
	for _, l := range w.leaves {
		if l.kind == name {
			n++
		}
	}
	return n
}
