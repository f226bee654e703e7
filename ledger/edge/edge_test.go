package edge_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// notes is a handler whose events take effect and change nothing.
type notes struct{}

func (notes) Name() string           { return "note" }
func (notes) Tables() []ledger.Table { return nil }
func (notes) Decide(ledger.View, *ledger.Event, ledger.Stamp) ledger.Decision {
	return ledger.Decision{}
}
func (notes) Expire(ledger.View, ledger.Timer, ledger.Stamp) ledger.Decision {
	return ledger.Decision{}
}

const kindNote = "message.note"

func noteKind() ledger.Kind {
	return ledger.Kind{Name: kindNote, Handler: notes{}, Cedar: true, Check: func(ev *nhi.Event) error {
		if len(ev.Body) > 512 {
			return errors.New("body is too long")
		}
		return nil
	}}
}

// world is an edge in front of a ledger that one goroutine applies to, as consensus would.
type world struct {
	*ledgertest.Fixture
	edge     *edge.Edge
	leading  atomic.Bool
	commands chan command
	verdict  func(v ledger.View, ev *nhi.Event) (ledger.Verdict, error)
	before   func() // called before each command is applied
	fail     atomic.Bool
	applied  atomic.Int64 // commands
	proposed atomic.Int64 // envelopes
	now      atomic.Int64 // the node's clock
	mu       sync.Mutex   // guards the ledger's Apply
	order    []nhi.ID     // tenants of the commands that were applied; of the apply goroutine until that has ended
}

type command struct {
	data []byte
	done chan result
}

type result struct {
	value any
	err   error
}

func (w *world) Leading() bool { return w.leading.Load() }

func (w *world) Propose(data []byte) func(context.Context) (any, error) {
	c := command{data, make(chan result, 1)}
	if d, err := ledger.DecodeCommand(data); err == nil {
		w.proposed.Add(int64(len(d.Envelopes)))
	}
	select {
	case w.commands <- c:
	default:
		return func(context.Context) (any, error) { return nil, edge.ErrPushback }
	}
	return func(ctx context.Context) (any, error) {
		select {
		case r := <-c.done:
			return r.value, r.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *world) apply(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-w.commands:
			if w.before != nil {
				w.before()
			}
			if w.fail.Load() {
				c.done <- result{err: errors.New("leadership lost")}
				continue
			}
			if d, err := ledger.DecodeCommand(c.data); err == nil {
				w.order = append(w.order, d.Tenant)
			}
			w.mu.Lock()
			out, err := w.Log.Apply([]ledger.Entry{{Index: w.Log.AppliedIndex() + 1, Term: 1, Data: c.data}})
			w.mu.Unlock()
			w.applied.Add(1)
			if err != nil {
				c.done <- result{err: err}
				continue
			}
			c.done <- result{value: out[0]}
		}
	}
}

func (w *world) View(tenant nhi.ID) (ledger.View, func(), error) {
	s, err := w.Log.Read()
	if err != nil {
		return nil, nil, err
	}
	t, err := s.Tenant(tenant)
	if err != nil {
		_ = s.Close()
		return nil, nil, edge.ErrUnknownTenant
	}
	v, err := s.View(t)
	return v, func() { _ = s.Close() }, err
}

func (w *world) Kind(name string) (ledger.Kind, bool) { return w.Log.Kind(name) }

func (w *world) PublicKey(v ledger.View, key nhi.KeyID) (*nhi.PublicKey, error) {
	return w.Log.PublicKey(v, key)
}

func (w *world) Authorize(v ledger.View, ev *nhi.Event, key nhi.KeyID, at int64) (ledger.Authority, error) {
	return w.Log.Authorize(v, ev, key, at)
}

type policy struct{ w *world }

func (p policy) Authorize(v ledger.View, ev *nhi.Event, _ ledger.Authority) (ledger.Verdict, error) {
	if p.w.verdict != nil {
		return p.w.verdict(v, ev)
	}
	return ledger.Verdict{Outcome: ledger.VerdictAllow, Digest: nhi.Digest{1}}, nil
}

type forward struct{ w *world }

func (f forward) Forward(ctx context.Context, tenant nhi.ID, subs []edge.Submission) ([]edge.Result, error) {
	f.w.leading.Store(true)
	return f.w.edge.SubmitHere(ctx, tenant, subs)
}

const (
	refusalRate  = 2
	refusalBurst = 5
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Fixture: ledgertest.New(t, noteKind(), factKind()), commands: make(chan command, 1024)}
	w.leading.Store(true)
	w.now.Store(ledgertest.Start.UnixNano())
	kek, err := ledger.NewFileKEK(make([]byte, 32), ledgertest.Random("kek"))
	if err != nil {
		t.Fatal(err)
	}
	workers := nhi.NewVerifyPool(2)
	w.edge = edge.New(edge.Config{
		State: w, Proposer: w, Authorizer: policy{w}, Forwarder: forward{w}, KEK: kek, Random: ledgertest.Random("seal"),
		Workers: workers, Now: w.now.Load,
		Node: w.Node.ID, NodeKey: w.Node.Key, LedgerID: func() nhi.Digest { return w.LedgerID }, Logger: slog.New(slog.DiscardHandler),
		RefusalRate: refusalRate, RefusalBurst: refusalBurst,
	})
	return w
}

// start runs the edge and the ledger's goroutine until the test ends.
func (w *world) start() {
	w.T.Helper()
	ctx, cancel := context.WithCancel(w.T.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.apply(ctx) })
	wg.Go(func() { _ = w.edge.Run(ctx) })
	workers := w.workers()
	wg.Go(func() { _ = workers.Run(ctx) })
	w.T.Cleanup(func() { cancel(); wg.Wait() })
}

func (w *world) workers() *nhi.VerifyPool { return w.edge.Workers() }

func submission(t *testing.T, encoded []byte) edge.Submission {
	t.Helper()
	env, err := nhi.DecodeEnvelope(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return edge.Submission{Envelope: env}
}

// TestSubmit takes a lone event, a batch and a retry through the edge.
func TestSubmit(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	agent := w.Register("agent", registry.Agent)
	link := w.Delegate(nil, human, agent, nil)
	lone := w.Sign(w.Under(link, agent, kindNote, nhi.ID{}, map[uint64]uint64{1: 1}))
	batch := w.SignBatch(
		w.Under(link, agent, kindNote, nhi.ID{}, map[uint64]uint64{1: 2}),
		w.Under(link, agent, kindNote, nhi.ID{}, map[uint64]uint64{1: 3}),
	)
	w.start()
	r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{submission(t, lone), submission(t, batch)})
	if err != nil {
		t.Fatal(err)
	}
	if len(r) != 3 {
		t.Fatalf("results: got %d, want 3", len(r))
	}
	seen := map[uint64]bool{}
	for i, x := range r {
		if x.State != ledger.Sequenced || x.Outcome != verify.OutcomeAccepted || seen[x.Index] {
			t.Errorf("event %d: got %+v, want sequenced and accepted at its own index", i, x)
		}
		seen[x.Index] = true
		var s verify.SignedReceipt
		whole, err := verify.JoinReceipt(x.Receipt, x.ReceiptSignature)
		if err != nil {
			t.Fatalf("receipt %d: %v", i, err)
		}
		signed, err := verify.DecodeSignedReceipt(whole)
		if err != nil {
			t.Fatalf("receipt %d: %v", i, err)
		}
		s = *signed
		body, err := s.Verify(w.Node.Key.Public())
		if err != nil || body.Index != x.Index || body.LeafHash != x.LeafHash {
			t.Errorf("receipt %d: got %+v, %v, want index %d", i, body, err, x.Index)
		}
	}
	again, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{submission(t, lone)})
	if err != nil {
		t.Fatal(err)
	}
	if again[0].State != ledger.Duplicate || again[0].Index != r[0].Index || again[0].LeafHash != r[0].LeafHash {
		t.Errorf("retry: got %+v, want a duplicate of index %d", again[0], r[0].Index)
	}
}

// TestSubmitForwards shows that a follower passes the call on, and that a forwarded call is not forwarded again.
func TestSubmitForwards(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	env := w.Sign(w.Event(human, kindNote, map[uint64]uint64{}))
	w.start()
	w.leading.Store(false)
	if _, err := w.edge.SubmitHere(t.Context(), w.Tenant, []edge.Submission{submission(t, env)}); !errors.Is(err, edge.ErrUnavailable) {
		t.Errorf("not leading: got %v, want ErrUnavailable", err)
	}
	r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{submission(t, env)})
	if err != nil || r[0].State != ledger.Sequenced {
		t.Errorf("forwarded: got %+v, %v, want sequenced", r, err)
	}
}

// TestSubmitRefuses shows what is refused before anything is proposed.
func TestSubmitRefuses(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	stranger := ledgertest.NewIdentity(t, "stranger", registry.Human)
	good := w.Event(human, kindNote, map[uint64]uint64{})
	foreign := w.Event(human, kindNote, map[uint64]uint64{})
	foreign.Event.LedgerID[0] ^= 1
	unknown := w.Event(human, "message.unknown", map[uint64]uint64{})
	long := w.Event(human, kindNote, map[uint64][]byte{1: make([]byte, 1024)})
	other := w.Event(human, kindNote, map[uint64]uint64{})
	other.Event.Agent = nhi.ID{7}
	cases := map[string]struct {
		sub  edge.Submission
		err  error
		want ledger.EventState
	}{
		"unknown key":         {sub: submission(t, w.Sign(w.Event(stranger, kindNote, map[uint64]uint64{}))), err: edge.ErrUnauthenticated},
		"another ledger":      {sub: submission(t, w.Sign(foreign)), want: ledger.Invalid},
		"unknown kind":        {sub: submission(t, w.Sign(unknown)), want: ledger.Invalid},
		"body of its kind":    {sub: submission(t, w.Sign(long)), want: ledger.Invalid},
		"not the signer's id": {sub: submission(t, w.Sign(other)), want: ledger.Invalid},
	}
	forged := submission(t, w.Sign(good))
	forged.Envelope.Signature[100] ^= 1
	cases["wrong signature"] = struct {
		sub  edge.Submission
		err  error
		want ledger.EventState
	}{sub: forged, err: edge.ErrUnauthenticated}
	before := w.Log.AppliedIndex()
	w.start()
	for name, c := range cases {
		r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{c.sub})
		if c.err != nil {
			if !errors.Is(err, c.err) {
				t.Errorf("%s: got %v, want %v", name, err, c.err)
			}
			continue
		}
		if err != nil || len(r) != 1 || r[0].State != c.want || r[0].Reason == "" {
			t.Errorf("%s: got %+v, %v, want %s with a reason", name, r, err, c.want)
		}
	}
	if _, err := w.edge.Submit(t.Context(), nhi.ID{9}, []edge.Submission{submission(t, w.Sign(good))}); !errors.Is(err, edge.ErrUnknownTenant) {
		t.Errorf("unknown tenant: got %v, want ErrUnknownTenant", err)
	}
	if _, err := w.edge.Submit(t.Context(), w.Tenant, nil); err == nil {
		t.Error("no envelopes: got nil, want an error")
	}
	if got := w.Log.AppliedIndex(); got != before {
		t.Errorf("applied index: got %d, want %d: nothing was to be proposed", got, before)
	}
}

// TestStaleDecidedAgain shows that a verdict made under epochs that have passed is made again, and not for ever.
func TestStaleDecidedAgain(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	env := submission(t, w.Sign(w.Event(human, kindNote, map[uint64]uint64{})))
	asked := 0
	always := false
	n := 0
	w.verdict = func(ledger.View, *nhi.Event) (ledger.Verdict, error) {
		asked++
		if asked == 1 || always {
			// The epochs move between the decision and its command.
			n++
			w.mu.Lock()
			w.Register("newcomer"+string(rune('a'+n)), registry.Human)
			w.mu.Unlock()
		}
		return ledger.Verdict{Outcome: ledger.VerdictAllow, Digest: nhi.Digest{1}}, nil
	}
	w.start()
	r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{env})
	if err != nil || r[0].State != ledger.Sequenced || asked != 2 {
		t.Errorf("once stale: got %+v, %v after %d decisions, want sequenced after 2", r, err, asked)
	}
	always, asked = true, 0
	env = submission(t, w.Sign(w.Event(human, kindNote, map[uint64]uint64{})))
	if _, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{env}); !errors.Is(err, edge.ErrUnavailable) || asked != edge.MaxDecisions {
		t.Errorf("always stale: got %v after %d decisions, want ErrUnavailable after %d", err, asked, edge.MaxDecisions)
	}
}

// TestDenied shows that a denial is on the record, and a failing policy refuses.
func TestDenied(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	env := submission(t, w.Sign(w.Event(human, kindNote, map[uint64]uint64{})))
	w.verdict = func(ledger.View, *nhi.Event) (ledger.Verdict, error) {
		return ledger.Verdict{Outcome: ledger.VerdictDeny, Digest: nhi.Digest{2}, Policies: []string{"no"}}, nil
	}
	w.start()
	r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{env})
	if err != nil || r[0].State != ledger.Sequenced || r[0].Outcome != verify.OutcomeDenied {
		t.Errorf("denied: got %+v, %v, want a leaf that says denied", r, err)
	}
}

// TestAmbiguous shows that a lost leadership says so, and that the same bytes then take effect once.
func TestAmbiguous(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	env := submission(t, w.Sign(w.Event(human, kindNote, map[uint64]uint64{})))
	w.fail.Store(true)
	w.start()
	if _, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{env}); !errors.Is(err, edge.ErrUnavailable) {
		t.Errorf("lost leadership: got %v, want ErrUnavailable", err)
	}
	w.fail.Store(false)
	if r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{env}); err != nil || r[0].State != ledger.Sequenced {
		t.Errorf("again: got %+v, %v, want sequenced", r, err)
	}
}

// TestGroups shows that what arrives while the places are taken travels together.
func TestGroups(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	const n = 200
	var envs []edge.Submission
	for range n {
		envs = append(envs, submission(t, w.Sign(w.Event(human, kindNote, map[uint64]uint64{}))))
	}
	gate, verified := make(chan struct{}), make(chan struct{})
	var asked atomic.Int64
	w.verdict = func(ledger.View, *nhi.Event) (ledger.Verdict, error) {
		if asked.Add(1) == n {
			close(verified)
		}
		return ledger.Verdict{Outcome: ledger.VerdictAllow, Digest: nhi.Digest{1}}, nil
	}
	w.before = func() { <-gate }
	w.start()
	done := make(chan error, 1)
	go func() {
		r, err := w.edge.Submit(t.Context(), w.Tenant, envs)
		for _, x := range r {
			if x.State != ledger.Sequenced {
				err = errors.Join(err, errors.New(x.Reason))
			}
		}
		done <- err
	}()
	// All are verified: up to 16 commands have left and stand at the gate, the rest waits.
	<-verified
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.applied.Load(); got >= n {
		t.Errorf("commands: got %d for %d events, want fewer", got, n)
	}
}

// TestFloodDelaysOthersByOneCommand shows fairness from end to end: a tenant with one event waits for the commands that are on
// their way already, and one more, however much another tenant has waiting.
func TestFloodDelaysOthersByOneCommand(t *testing.T) {
	w := newWorld(t)
	loud := w.Register("loud", registry.Human)
	quietTenant := ledgertest.ID("quiet tenant")
	authority := w.CreateTenant(quietTenant, "quiet authority", "token")
	quiet := w.RegisterIn(quietTenant, authority, "quiet", registry.Human)
	const batches, events = 40, 256
	var flood []edge.Submission
	for range batches {
		var b []ledgertest.Signed
		for range events {
			b = append(b, w.Event(loud, kindNote, map[uint64][]byte{1: make([]byte, 200)}))
		}
		flood = append(flood, submission(t, w.SignBatch(b...)))
	}
	one := w.Event(quiet, kindNote, map[uint64]uint64{})
	one.Event.Tenant = quietTenant
	gate := make(chan struct{})
	w.before = func() { <-gate }
	w.start()
	done := make(chan error, 2)
	go func() {
		_, err := w.edge.Submit(t.Context(), w.Tenant, flood)
		done <- err
	}()
	// The places are taken and the rest waits.
	for w.edge.Waiting() == 0 || w.edge.Waiting()+int(w.proposed.Load())*events != batches*events {
		runtime.Gosched()
	}
	go func() {
		_, err := w.edge.Submit(t.Context(), quietTenant, []edge.Submission{submission(t, w.Sign(one))})
		done <- err
	}()
	for _, tenants := w.edge.Load(); tenants != 2; _, tenants = w.edge.Load() {
		runtime.Gosched()
	}
	close(gate)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	at := slices.Index(w.order, quietTenant)
	if at < 0 || at > 17 || at == len(w.order)-1 {
		t.Errorf("the quiet tenant's command is number %d of %d, want at most 17 and not the last", at, len(w.order))
	}
}

// TestErrorOfOneEnvelope shows that an envelope that fails as a whole does not take away the results of the others.
func TestErrorOfOneEnvelope(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	thief := w.Register("thief", registry.Human)
	w.Accepted(w.Submit(w.Event(w.Authority, registry.KindRevoke, &registry.StatusBody{ID: thief.ID}))...)
	stranger := ledgertest.NewIdentity(t, "stranger", registry.Human)
	note := func(who *ledgertest.Identity) ledgertest.Signed { return w.Event(who, kindNote, map[uint64]uint64{}) }
	w.start()
	for range refusalBurst {
		if _, err := w.submitOne(note(thief)); err != nil {
			t.Fatal(err)
		}
	}
	good, batch := submission(t, w.Sign(note(human))), submission(t, w.SignBatch(note(stranger), note(stranger)))
	limited := submission(t, w.Sign(note(thief)))
	r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{batch, good, limited})
	if err != nil || len(r) != 4 {
		t.Fatalf("got %d results, %v, want 4", len(r), err)
	}
	for i, want := range []ledger.EventState{ledger.Invalid, ledger.Invalid, ledger.Sequenced, ledger.Stale} {
		if r[i].State != want || (r[i].Reason == "") != (want == ledger.Sequenced) || (r[i].Receipt == nil) == (want == ledger.Sequenced) {
			t.Errorf("event %d: got %s (%q), receipt %t, want %s", i, r[i].State, r[i].Reason, r[i].Receipt != nil, want)
		}
	}
	// Of a call in which nothing has results, the error is the call's.
	if _, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{batch, limited}); !errors.Is(err, edge.ErrUnauthenticated) {
		t.Errorf("nothing but errors: got %v, want ErrUnauthenticated", err)
	}
}

// TestGuardTextIsChecked shows that a guard that is not one never reaches the log, where it would make every event under its
// link invalid.
func TestGuardTextIsChecked(t *testing.T) {
	w := newWorld(t)
	human := w.Register("human", registry.Human)
	w.start()
	for text, want := range map[string]ledger.EventState{
		`permit(principal, action, resource);`: ledger.Invalid,
		`forbid(principal, action`:             ledger.Invalid,
		``:                                     ledger.Invalid,
		"@id(\"no\")\nforbid(principal, action, resource);": ledger.Sequenced,
	} {
		r, err := w.submitOne(w.Event(human, registry.KindGuard, w.Encode(map[uint64]string{1: text})))
		if err != nil || r.State != want || (r.Reason == "") != (want == ledger.Sequenced) {
			t.Errorf("%q: got %s (%q), %v, want %s", text, r.State, r.Reason, err, want)
		}
	}
}
