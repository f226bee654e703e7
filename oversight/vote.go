package oversight

import (
	"slices"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// byHuman: votes are signed by a human for themselves, never under a link that somebody gave them.
func byHuman(ev *ledger.Event) bool {
	return ev.Signer != nil && !ev.SignerSystem && ev.Signer.Type == registry.Human && ev.Link.IsZero()
}

func noRequest() ledger.Decision {
	return refuse(verify.OutcomeNotFound, kind.Refusal{Reason: kind.ReasonNoRequest})
}

// decideVote takes one human's one vote. A vote that comes too late, for its step or for the request, is accepted as
// evidence, with Counted false, and changes nothing; if a chain that has passed its step's deadline asks its next step after
// all, what was cast before that step's deadline counts for it.
func decideVote(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeVoteBody(ev.Body)
	if err == nil {
		err = checkAddendum(ev.Event, b.Reason)
	}
	if err != nil {
		return refuseInvalid(err)
	}
	if !byHuman(ev) {
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNotSigner, Hint: "humans vote, with a key of their own and under no link"})
	}
	r, ok := load(v, b.Request)
	if !ok {
		return noRequest()
	}
	switch {
	case kind.HasID(r.Members, ev.Agent):
		return refuse(verify.OutcomeSelfApproval, kind.Refusal{Reason: kind.ReasonSelfApproval, Hint: "whoever stands in the requester's delegation chain cannot decide"})
	case b.ActionDigest != r.Digest || b.RequestDigest != r.Request:
		return refuse(verify.OutcomeConflict, kind.Refusal{Reason: kind.ReasonDigest, Hint: "the vote is about another action or request"})
	}
	if old, voted := r.voteOf(ev.Agent); voted {
		code := verify.OutcomeConflict
		if old.Choice == b.Choice {
			code = verify.OutcomeExists
		}
		return refuse(code, kind.Refusal{Reason: kind.ReasonAlreadyVoted, Hint: "one human has one vote", Index: old.Index})
	}
	r.settle(v, at.Time)
	pending := r.status.State == kind.StatePending
	row := voteRow{Choice: b.Choice, Index: v.NextIndex(), Time: at.Time, Reason: b.Reason, Cast: pending}
	var asked bool
	for i := range r.Chains {
		step := int(r.status.Steps[i].Step)
		if !pending {
			step = len(r.Chains[i].Steps) - 1
		}
		asked = asked || kind.HasID(r.Chains[i].Asked(step), ev.Agent)
	}
	if !asked {
		hint := "the chains of this request do not ask this human"
		if slices.Contains(r.humans(), ev.Agent) {
			hint = "this human is asked by a later step only"
		}
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNotEligible, Hint: hint})
	}
	r.setVote(ev.Agent, row)
	counted := r.counts(&vote{ev.Agent, row})
	if counted {
		r.resolve(v, at.Time)
	}
	return r.decision(canon.MustMarshal(kind.Voted{Request: r.id, Counted: counted, State: r.status.State}))
}

// resolve ends a pending request whose votes decide it, at a stamp or, where time has passed since, when they did.
func (r *request) resolve(v ledger.View, at int64) {
	t := r.tally(v)
	if chain, ok := r.denied(&t); ok {
		r.become(kind.StateDenied, at)
		r.leaf(kind.Denied, kind.Resolution{State: kind.StateDenied, Chain: r.Chains[chain].Name, Time: at})
		return
	}
	if !r.quorum(&t) {
		return
	}
	r.become(kind.StateApproved, at)
	r.status.Opens = at
	for i := range r.Chains {
		r.status.Opens = max(r.status.Opens, at+r.Chains[i].Hold)
	}
	g := kind.Grant{
		Request: r.id, ActionDigest: r.Digest, Agent: r.Agent, Key: r.Key, Link: r.Link, PolicyEpoch: r.Epoch, PolicyDigest: r.Policy,
		NotBefore: r.status.Opens, NotAfter: r.End, Uses: 1, RequestDigest: r.Request, Votes: make([]uint64, 0, len(t.approve)),
	}
	for i := range t.approve {
		if r.counts(&t.approve[i]) {
			g.Votes = append(g.Votes, t.approve[i].Index)
		}
	}
	slices.Sort(g.Votes)
	r.rawLeaf(kind.Granted, canon.MustMarshal(g))
}

// decideWithdraw takes an approval back until it is claimed. While the request is pending, the approval no longer counts and
// the human has no other vote; once it is approved, the request ends.
func decideWithdraw(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeRefBody(ev.Body)
	if err != nil {
		return refuseInvalid(err)
	}
	if !byHuman(ev) {
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNotSigner, Hint: "humans withdraw their own approvals"})
	}
	r, ok := load(v, b.Request)
	if !ok {
		return noRequest()
	}
	row, voted := r.voteOf(ev.Agent)
	if !voted || row.Choice != kind.Approve || !row.Cast || row.Withdrawn != 0 {
		return refuse(verify.OutcomeNotFound, kind.Refusal{Reason: kind.ReasonNotEligible, Hint: "this human has no approval that counts"})
	}
	r.settle(v, at.Time)
	switch r.status.State {
	case kind.StatePending:
	case kind.StateApproved:
		r.become(kind.StateWithdrawn, at.Time)
	default:
		return r.over()
	}
	row.Withdrawn = v.NextIndex()
	r.setVote(ev.Agent, row)
	// A chain that waited for the others with its deadline behind it may have lost its quorum: the next step is asked now.
	r.settle(v, at.Time)
	return r.decision(canon.MustMarshal(kind.Voted{Request: r.id, Counted: true, State: r.status.State}))
}

// decideCancel ends a request that nobody has claimed. The requester may, everybody in its chain, and the authority.
func decideCancel(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeRefBody(ev.Body)
	if err != nil {
		return refuseInvalid(err)
	}
	r, ok := load(v, b.Request)
	if !ok {
		return noRequest()
	}
	if ev.Signer == nil || ev.SignerSystem || ev.Signer.Type != registry.Authority && !kind.HasID(r.Members, ev.Agent) {
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNotSigner, Hint: "the requester, those it acts for and the authority cancel"})
	}
	r.settle(v, at.Time)
	was := r.status.State
	if was != kind.StatePending && was != kind.StateApproved {
		return r.over()
	}
	r.become(kind.StateCancelled, at.Time)
	return r.decision(canon.MustMarshal(kind.Cancelled{Request: r.id, Was: was}))
}

// over refuses what comes after the end of a request, or after its claim.
func (r *request) over() ledger.Decision {
	s := &r.status
	switch s.State {
	case kind.StateClaimed, kind.StateExecuted, kind.StateFailed, kind.StateUnknown:
		return refuse(verify.OutcomeClosed, kind.Refusal{Reason: kind.ReasonAlreadyClaimed, State: s.State, Index: s.Claim, Time: s.Since})
	case kind.StateExpired, kind.StateLapsed:
		return refuse(verify.OutcomeExpired, kind.Refusal{Reason: kind.ReasonOver, State: s.State, Time: s.Since})
	}
	return refuse(verify.OutcomeClosed, kind.Refusal{Reason: kind.ReasonOver, State: s.State, Time: s.Since})
}
