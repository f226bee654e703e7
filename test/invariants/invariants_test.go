package invariants

import (
	"strings"
	"testing"
	"time"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// world is a ledger with every domain on it, something to charge, and the promises its submissions led to.
type world struct {
	*ledgertest.Fixture
	agent   *ledgertest.Identity
	link    *ledgertest.Link
	account nhi.ID
	p       Promised
}

// faulty changes what a handler decides, as a bug in it would.
type faulty struct {
	ledger.Handler
	change func(v ledger.View, ev *ledger.Event, d *ledger.Decision)
}

func (f faulty) Decide(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	d := f.Handler.Decide(v, ev, at)
	f.change(v, ev, &d)
	return d
}

func newWorld(t *testing.T, change func(v ledger.View, ev *ledger.Event, d *ledger.Decision)) *world {
	kinds := node.Kinds()
	if change != nil {
		wrapped := make(map[string]ledger.Handler) // one handler serves several kinds
		for i := range kinds {
			h := kinds[i].Handler
			if wrapped[h.Name()] == nil {
				wrapped[h.Name()] = faulty{h, change}
			}
			kinds[i].Handler = wrapped[h.Name()]
		}
	}
	cfg := LedgerConfig("")
	w := &world{Fixture: ledgertest.NewWith(t, ledgertest.Options{Kinds: kinds, Config: func(c *ledger.Config) { c.Tree = cfg.Tree }})}
	human := w.Register("human", registry.Human)
	w.agent = w.Register("agent", registry.Agent)
	w.link = w.Delegate(nil, human, w.agent, func(l *registry.Link) {
		l.Budgets = []registry.Budget{{Meter: "tok", Window: registry.Window(kind.Total), Limit: 900}}
	})
	w.account = ledgertest.ID("account")
	w.submit(w.Event(w.Authority, kind.Account, kind.AccountBody{ID: w.account, Type: "team"}))
	w.submit(w.Event(w.Authority, kind.Set, kind.QuotaBody{Account: w.account, Meter: "tok", Period: kind.Total, Limit: 1000, Mode: kind.Block}))
	w.submit(w.Event(w.Authority, kind.Set, kind.QuotaBody{Account: w.Tenant, Meter: "tok", Period: kind.Total, Limit: 100, Mode: kind.Overage}))
	return w
}

// submit submits one event and keeps what was promised about it.
func (w *world) submit(s ledgertest.Signed) ledger.EventResult {
	w.T.Helper()
	r := w.Submit(s)[0]
	if r.State != ledger.Sequenced {
		w.T.Fatalf("%s: got %s (%v)", s.Event.Kind, r.State, r.Err)
	}
	w.p.Acks = append(w.p.Acks, Ack{
		Tenant: s.Event.Tenant, Signer: s.By.ID, ID: s.Event.ID, Index: r.Index, LeafHash: r.LeafHash, Outcome: r.Outcome,
	})
	return r
}

func (w *world) use(n, lease, from uint64) ledger.EventResult {
	w.T.Helper()
	b := kind.UsageBody{Quantities: []verify.Quantity{{Meter: "tok", N: n}}, Lease: lease}
	if lease != 0 {
		b.From, b.To = from, from+1
	}
	return w.submit(w.Under(w.link, w.agent, kind.Usage, w.account, b))
}

// busy charges, reserves, settles, closes, expires and seals.
func (w *world) busy() {
	w.T.Helper()
	w.use(100, 0, 0)
	reserve := func(n uint64) uint64 {
		r := w.submit(w.Under(w.link, w.agent, kind.Reserve, w.account, kind.ReserveBody{Meter: "tok", Want: n}))
		return w.Accepted(r).Index
	}
	a := reserve(300)
	w.Seal()
	w.checkpoint()
	w.use(50, a, 0)
	w.use(2000, 0, 0) // refused
	b := reserve(200)
	w.use(500, b, 0)                          // more than granted
	for from := uint64(1); from < 4; from++ { // and more than can be
		w.use(kind.MaxAmount, b, from)
	}
	w.Accepted(w.submit(w.Event(w.Authority, kind.Correct, kind.CorrectBody{
		Account: w.account, Meter: "tok", Period: kind.Total, Start: w.total(), Excess: 150, Over: kind.MaxAmount, Reason: "nobody has used that",
	})))
	w.submit(w.Under(w.link, w.agent, kind.Close, w.account, kind.CloseBody{Lease: a, Spent: 60}))
	reserve(30)
	w.Advance(time.Hour)
	w.Tick()
	w.Seal()
	w.checkpoint()
	w.use(1, 0, 0)
}

// total is the start of the period that never ends.
func (w *world) total() int64 { return meter.InstanceAt(kind.Total, 0, time.UTC, 0).Start }

func (w *world) checkpoint() {
	s := w.Read()
	defer s.Close()
	for slot, c := range map[uint32]Checkpoint{ledger.SpineSlot: {Spine: true}, w.Slot: {Tenant: w.Tenant}} {
		h, err := s.Head(slot)
		if err != nil {
			w.T.Fatal(err)
		}
		c.From, c.Size, c.Root = "the fixture", h.Size, h.Root
		w.p.Checkpoints = append(w.p.Checkpoints, c)
	}
}

func (w *world) check(more ...Replica) (Report, error) {
	s := w.Read()
	w.T.Cleanup(func() { s.Close() })
	return Check(append([]Replica{{"first", s}}, more...), w.p)
}

func TestASoundLedgerHolds(t *testing.T) {
	w := newWorld(t, nil)
	w.busy()
	// A replica that is behind, and one that is not.
	half := w.Open(w.config())
	whole := w.Open(w.config())
	if _, err := half.Apply(w.Entries[:len(w.Entries)-4]); err != nil {
		t.Fatal(err)
	}
	if _, err := whole.Apply(w.Entries); err != nil {
		t.Fatal(err)
	}
	r, err := w.check(w.replica("second", whole))
	if err != nil {
		t.Error(err)
	}
	if r.Leaves < 20 || r.Signatures < 15 || r.Epochs < 4 || r.Acks < 10 || r.Checkpoints < 8 || r.Counters < 3 {
		t.Errorf("looked at too little: %s", r)
	}
	p := w.p
	w.p = Promised{}
	if _, err := w.check(w.replica("behind", half)); err != nil {
		t.Errorf("a replica that is behind: %v", err)
	}
	w.p = p
	if _, err := w.check(w.replica("behind", half)); err == nil || !strings.Contains(err.Error(), "I1") {
		t.Errorf("a replica that lacks what was promised: got %v, want I1", err)
	}
}

func (w *world) config() ledger.Config {
	c := w.Config
	c.FS = nil
	c.Dir = w.T.TempDir()
	return c
}

func (w *world) replica(name string, l *ledger.Log) Replica {
	s, err := l.Read()
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { s.Close() })
	return Replica{name, s}
}

// TestEachCheckerFinds shows that a checker fails on what it is there for.
func TestEachCheckerFinds(t *testing.T) {
	// A handler that is wrong in the same way on every node, and when it is.
	counters := func(fn func(key, value []byte) []byte) func(ledger.View, *ledger.Event, *ledger.Decision) {
		return func(v ledger.View, ev *ledger.Event, d *ledger.Decision) {
			for i, w := range d.Writes {
				if w.Table == meter.TableCounter && w.Key[0] == 'a' {
					d.Writes[i].Value = fn(w.Key, w.Value)
				}
			}
		}
	}
	for _, c := range []struct {
		name, want string
		change     func(v ledger.View, ev *ledger.Event, d *ledger.Decision)
		promise    func(w *world)
	}{
		{name: "a counter that forgets what is charged", want: "I6", change: counters(func(_, v []byte) []byte {
			return append([]byte{1, 0}, v[len(v)-4:]...)
		})},
		{name: "a spend beyond the limit is accepted", want: "I6", change: func(v ledger.View, ev *ledger.Event, d *ledger.Decision) {
			if d.Outcome == verify.OutcomeQuotaExhausted {
				*d = ledger.Decision{Quantities: []verify.Quantity{{Meter: "tok", N: 2000}}}
			}
		}},
		{name: "a lease that gets more than there is", want: "I6", change: func(v ledger.View, ev *ledger.Event, d *ledger.Decision) {
			if ev.Kind == kind.Reserve && d.Outcome == verify.OutcomeAccepted {
				g, err := kind.DecodeGrant(d.Detail)
				if err == nil {
					g.Granted += 5000
					d.Detail = g.Encode()
				}
			}
		}},
		{name: "an over-claim that takes room it does not have", want: "I6", change: counters(func(_, v []byte) []byte {
			if n := len(v); v[n-2] != 0 { // over becomes excess
				v[n-3], v[n-2] = v[n-3]+v[n-2], 0
			}
			return v
		})},
		{name: "a promise of another leaf", want: "I1", promise: func(w *world) { w.p.Acks[3].LeafHash[0] ^= 1 }},
		{name: "a promise at another index", want: "I1", promise: func(w *world) { w.p.Acks[3].Index++ }},
		{name: "a promise of another outcome", want: "I1", promise: func(w *world) { w.p.Acks[3].Outcome = verify.OutcomeDenied }},
		{name: "a promise that was lost", want: "I1", promise: func(w *world) { w.p.Acks[3].ID[0] ^= 1 }},
		{name: "a checkpoint of another root", want: "I3", promise: func(w *world) { w.p.Checkpoints[0].Root[5] ^= 1 }},
		{name: "a checkpoint beyond the log", want: "I3", promise: func(w *world) { w.p.Checkpoints[0].Size += 1000 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.change)
			w.use(100, 0, 0)
			lease := w.submit(w.Under(w.link, w.agent, kind.Reserve, w.account, kind.ReserveBody{Meter: "tok", Want: 10})).Index
			w.use(2000, 0, 0)
			w.use(50, lease, 0)
			w.Seal()
			w.checkpoint()
			if c.promise != nil {
				c.promise(w)
			}
			_, err := w.check()
			if err == nil || !strings.Contains(err.Error(), c.want+" at ") {
				t.Errorf("got %v, want a violation of %s", err, c.want)
			}
		})
	}
}

// TestReplicasThatDecideDifferentlyAreFound: one replica's handler writes something of its own.
func TestReplicasThatDecideDifferentlyAreFound(t *testing.T) {
	w := newWorld(t, nil)
	w.busy()
	cfg := w.config()
	kinds := node.Kinds()
	for i := range kinds {
		kinds[i].Handler = faulty{kinds[i].Handler, func(v ledger.View, ev *ledger.Event, d *ledger.Decision) {
			if ev.Kind == kind.Usage && len(d.Quantities) == 1 {
				d.Quantities[0].N++
			}
		}}
	}
	cfg.Kinds = kinds
	l := w.Open(cfg)
	if _, err := l.Apply(w.Entries); err != nil {
		t.Fatal(err)
	}
	_, err := w.check(w.replica("second", l))
	for _, want := range []string{"I1 at ", "I3 at ", "I4 at ", "I6 at "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a violation of %s", err, want)
		}
	}
}

// TestForkIsFound: two logs that share a beginning and then went different ways.
func TestForkIsFound(t *testing.T) {
	w := newWorld(t, nil)
	w.use(100, 0, 0)
	l := w.Open(w.config())
	if _, err := l.Apply(w.Entries); err != nil {
		t.Fatal(err)
	}
	own := w.Log
	w.use(1, 0, 0)
	w.Seal()
	w.Log = l
	w.Entries = w.Entries[:len(w.Entries)-2]
	w.use(2, 0, 0)
	w.use(3, 0, 0)
	w.Seal()
	w.Log = own
	w.p = Promised{}
	_, err := w.check(w.replica("fork", l))
	if err == nil || !strings.Contains(err.Error(), "I3 at ") || !strings.Contains(err.Error(), "I4 at ") {
		t.Errorf("got %v, want violations of I3 and I4", err)
	}
}
