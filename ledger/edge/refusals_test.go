package edge_test

import (
	"errors"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// submitOne sends one event and returns its result.
func (w *world) submitOne(s ledgertest.Signed) (edge.Result, error) {
	w.T.Helper()
	env, err := nhi.DecodeEnvelope(w.Sign(s))
	if err != nil {
		w.T.Fatal(err)
	}
	r, err := w.edge.Submit(w.T.Context(), w.Tenant, []edge.Submission{{Envelope: env}})
	if err != nil {
		return edge.Result{}, err
	}
	return r[0], nil
}

// TestRefusalsAreBounded shows that a key whose events are refused fills a log no faster than the rate, whoever refuses them,
// and that it slows down nobody else.
func TestRefusalsAreBounded(t *testing.T) {
	w := newWorld(t)
	thief := w.Register("thief", registry.Human)
	denied := w.Register("denied", registry.Human)
	honest := w.Register("honest", registry.Human)
	w.Accepted(w.Submit(w.Event(w.Authority, registry.KindRevoke, &registry.StatusBody{ID: thief.ID}))...)
	w.verdict = func(_ ledger.View, ev *nhi.Event) (ledger.Verdict, error) {
		v := ledger.Verdict{Outcome: ledger.VerdictAllow, Digest: nhi.Digest{1}}
		if ev.Agent == denied.ID {
			v.Outcome = ledger.VerdictDeny
		}
		return v, nil
	}
	w.start()
	for who, outcome := range map[*ledgertest.Identity]verify.OutcomeCode{thief: verify.OutcomeRevoked, denied: verify.OutcomeDenied} {
		send := func(want bool) {
			t.Helper()
			size := w.size()
			r, err := w.submitOne(w.Event(who, kindNote, map[uint64]uint64{}))
			if want {
				if err != nil || r.Outcome != outcome {
					t.Errorf("%s: got %s, %v, want it on the record", outcome, r.Outcome, err)
				}
				return
			}
			refusals, ok := errors.AsType[*edge.RefusalsError](err)
			if !ok || !errors.Is(err, edge.ErrPushback) || refusals.After <= 0 || refusals.After > time.Second/refusalRate {
				t.Errorf("%s beyond the rate: got %v, want a RefusalsError", outcome, err)
			}
			if got := w.size(); got != size {
				t.Errorf("%s beyond the rate: the log grew to %d, want %d", outcome, got, size)
			}
		}
		for range refusalBurst {
			send(true)
		}
		send(false)
		w.now.Add(int64(time.Second / refusalRate))
		send(true)
		send(false)
		w.now.Add(-int64(time.Hour)) // a clock that is set back
		send(false)
		w.now.Add(int64(2 * time.Hour))
		send(true)
	}
	for range 3 * refusalBurst {
		if r, err := w.submitOne(w.Event(honest, kindNote, map[uint64]uint64{})); err != nil || r.Outcome != verify.OutcomeAccepted {
			t.Fatalf("another key: got %s, %v, want accepted", r.Outcome, err)
		}
	}
}

// TestRefusalsOfABatch shows that a batch larger than the burst is not locked out, and is paid for.
func TestRefusalsOfABatch(t *testing.T) {
	w := newWorld(t)
	thief := w.Register("thief", registry.Human)
	w.Accepted(w.Submit(w.Event(w.Authority, registry.KindRevoke, &registry.StatusBody{ID: thief.ID}))...)
	w.start()
	var events []ledgertest.Signed
	for range 2 * refusalBurst {
		events = append(events, w.Event(thief, kindNote, map[uint64]uint64{}))
	}
	r, err := w.edge.Submit(t.Context(), w.Tenant, []edge.Submission{submission(t, w.SignBatch(events...))})
	if err != nil || len(r) != 2*refusalBurst || r[0].Outcome != verify.OutcomeRevoked {
		t.Fatalf("batch: got %+v, %v, want it on the record", r, err)
	}
	w.now.Add(int64(refusalBurst * time.Second / refusalRate)) // what a burst takes to come back
	if _, err := w.submitOne(w.Event(thief, kindNote, map[uint64]uint64{})); !errors.Is(err, edge.ErrPushback) {
		t.Errorf("after the batch: got %v, want ErrPushback", err)
	}
	w.now.Add(int64(time.Second))
	if r, err := w.submitOne(w.Event(thief, kindNote, map[uint64]uint64{})); err != nil {
		t.Errorf("when it is paid for: got %+v, %v", r, err)
	}
}

// TestFactsAreNotRefusals shows that what is recorded whatever its authority is not held up.
func TestFactsAreNotRefusals(t *testing.T) {
	w := newWorld(t)
	late := w.Register("late", registry.Human)
	w.Accepted(w.Submit(w.Event(w.Authority, registry.KindRevoke, &registry.StatusBody{ID: late.ID}))...)
	w.start()
	for range 3 * refusalBurst {
		r, err := w.submitOne(w.Event(late, kindFact, map[uint64]uint64{1: 1}))
		if err != nil || r.Outcome != verify.OutcomeAcceptedFlagged {
			t.Fatalf("fact that cites: got %s, %v, want accepted and flagged", r.Outcome, err)
		}
	}
	for i := range refusalBurst + 1 {
		_, err := w.submitOne(w.Event(late, kindFact, map[uint64]uint64{}))
		if full := i == refusalBurst; full != errors.Is(err, edge.ErrPushback) {
			t.Errorf("fact %d that cites nothing: got %v, want it to count as an ask", i, err)
		}
	}
}

const kindFact = "message.fact"

// factKind is a fact that cites if its body is not empty.
func factKind() ledger.Kind {
	return ledger.Kind{Name: kindFact, Class: ledger.Fact, Handler: notes{}, Cites: func(_ ledger.View, ev *ledger.Event) bool {
		var m map[uint64]uint64
		return canon.Unmarshal(ev.Body, &m) == nil && len(m) > 0
	}}
}

func (w *world) size() uint64 {
	w.T.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var n uint64
	w.WithView(w.Tenant, func(v ledger.View) { n = v.NextIndex() })
	return n
}
