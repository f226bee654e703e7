package oversight

import (
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/oversight/kind"
)

// laterChains are two chains, the second of which asks carol only after a minute, whom the first asks from the beginning.
func laterChains(w *world) []kind.Chain {
	return []kind.Chain{
		{Name: "payments", Steps: []kind.Step{{Eligible: w.ids("bob", "carol"), Approve: 1, Deny: 2, Timeout: int64(2 * time.Hour)}}},
		{Name: "wires", Hold: int64(time.Minute), Steps: []kind.Step{
			{Eligible: w.ids("dave"), Approve: 1, Deny: 1, Timeout: int64(time.Minute)},
			{Eligible: w.ids("carol"), Approve: 1, Deny: 1, Timeout: int64(10 * time.Minute)},
		}},
	}
}

func (w *world) askBoth() *kind.Opened {
	w.t.Helper()
	return w.ask(func(b *kind.RequestBody) { *b = *w.requestBody(w.action(500, "wire")) })
}

// Whoever has voted for one chain before a later step of another asks them has a seat there, without a second vote.
func TestVoteCountsForLaterStep(t *testing.T) {
	t.Run("another fills the first seat afterwards", func(t *testing.T) {
		w := newWorld(t)
		w.publish(laterChains(w)...)
		r := w.askBoth()
		w.approve(r.Request, "carol")
		w.f.Advance(2 * time.Minute)
		w.f.Tick()
		w.wantState(r.Request, kind.StatePending) // carol fills one seat, not two
		w.approve(r.Request, "bob")
		w.wantState(r.Request, kind.StateApproved)
	})
	t.Run("the quorum is there when the step begins", func(t *testing.T) {
		w := newWorld(t)
		w.publish(laterChains(w)...)
		r := w.askBoth()
		w.approve(r.Request, "carol", "bob")
		due := w.get(r.Request).Chains[1].Deadline
		w.f.Advance(5 * time.Minute)
		w.f.Tick()
		a := w.wantState(r.Request, kind.StateApproved)
		if a.Since != due || a.Opens != due+int64(time.Minute) || !a.Votes[0].Counted || !a.Votes[1].Counted {
			t.Errorf("got approved since %d, open from %d, votes %+v, want since the deadline %d, a minute later, and both counted", a.Since, a.Opens, a.Votes, due)
		}
		if n := w.count(kind.Granted); n != 1 {
			t.Errorf("got %d leaves of the grant, want 1", n)
		}
		if n := w.count(kind.Escalated); n != 1 {
			t.Errorf("got %d leaves of the escalation, want 1", n)
		}
		w.mustClaim(r.Request)
	})
	t.Run("so without a tick", func(t *testing.T) {
		w := newWorld(t)
		w.publish(laterChains(w)...)
		r := w.askBoth()
		w.approve(r.Request, "carol", "bob")
		w.f.Advance(5 * time.Minute)
		w.mustClaim(r.Request)
		w.wantState(r.Request, kind.StateClaimed)
	})
	t.Run("and lapsed when nobody looked in time", func(t *testing.T) {
		w := newWorld(t)
		w.publish(laterChains(w)...)
		r := w.askBoth()
		w.approve(r.Request, "carol", "bob")
		w.f.Advance(48 * time.Hour)
		w.want(w.claim(r.Request), verify.OutcomeExpired, kind.ReasonOver)
		w.f.Tick()
		w.wantState(r.Request, kind.StateLapsed)
		w.f.WithView(w.f.Tenant, func(v ledger.View) {
			v.Scan(TableByState, nil, nil, false, func(key, _ []byte) bool {
				if kind.State(key[0]) != kind.StateLapsed {
					t.Errorf("got an index row under %v, want one under lapsed alone", kind.State(key[0]))
				}
				return true
			})
		})
	})
	t.Run("a denial counts as well", func(t *testing.T) {
		w := newWorld(t)
		w.publish(laterChains(w)...)
		r := w.askBoth()
		w.want(w.vote(r.Request, "carol", kind.Deny), verify.OutcomeAccepted, "")
		w.wantState(r.Request, kind.StatePending)
		due := w.get(r.Request).Chains[1].Deadline
		w.f.Advance(2 * time.Minute)
		w.f.Tick()
		if a := w.wantState(r.Request, kind.StateDenied); a.Since != due {
			t.Errorf("got denied since %d, want since the deadline %d", a.Since, due)
		}
	})
}
