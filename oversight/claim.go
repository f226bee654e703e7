package oversight

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// decideClaim lets the executor begin, once. The edge has judged the stored action afresh, see AuthzRequest; here the grant
// is held against the claim and the quota is reserved in the same step. A refusal leaves the grant as it was.
func (o *Oversight) decideClaim(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeClaimBody(ev.Body)
	if err != nil {
		return refuseInvalid(err)
	}
	r, ok := load(v, b.Request)
	if !ok {
		return noRequest()
	}
	switch {
	case ev.Verdict.Outcome != ledger.VerdictAllow:
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNoVerdict, Hint: "the policy has not allowed this action"})
	case ev.Agent != r.Agent || ev.Key != r.Key || ev.Link != r.Link:
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNotExecutor, Hint: "the grant belongs to the key and the chain that asked for it"})
	case b.ActionDigest != r.Digest:
		return refuse(verify.OutcomeConflict, kind.Refusal{Reason: kind.ReasonDigest, Hint: "another action was approved: ask for this one"})
	}
	r.settle(v, at.Time)
	switch r.status.State {
	case kind.StateApproved:
	case kind.StatePending:
		return refuse(verify.OutcomeNeedsApproval, kind.Refusal{Reason: kind.ReasonNotApproved, State: r.status.State, Hint: "it has not been approved yet"})
	default:
		return r.over()
	}
	if at.Time < r.status.Opens {
		return refuse(verify.OutcomeNotYetValid, kind.Refusal{
			Reason: kind.ReasonOnHold, State: r.status.State, Time: r.status.Opens, Hint: "the chain holds approved actions back for a while",
		})
	}
	if t := r.tally(v); !r.quorum(&t) {
		return refuse(verify.OutcomeRevoked, kind.Refusal{
			Reason: kind.ReasonApproverGone, State: r.status.State, Hint: "without an approver who is suspended or revoked since, the quorum is not there",
		})
	}
	if err := o.covered(v, ev, &r.requestRow, at.Time); err != nil {
		return refuse(ledger.OutcomeOf(registry.CodeOf(err)), kind.Refusal{
			Reason: kind.ReasonScope, Hint: "the delegation chain does not cover the action or what it reserves: " + err.Error(),
		})
	}
	s := &r.status
	s.Claim = v.NextIndex()
	s.StartBy = at.Time + int64(StartWindow)
	s.ReportBy = s.StartBy + int64(ReportWindow)
	if len(r.Reserve) > 0 {
		if o.cfg.Reserver == nil {
			return refuse(verify.OutcomeUnsupported, kind.Refusal{Reason: kind.ReasonNoMeter, Hint: "this ledger reserves nothing"})
		}
		want := make([]Reservation, len(r.Reserve))
		for i, w := range r.Reserve {
			want[i] = Reservation{Account: w.Account, Meter: w.Meter, Amount: w.Amount, TTL: int64(StartWindow + ReportWindow)}
		}
		leases, writes, timers, refused := o.cfg.Reserver.ReserveAll(v, at, ev.Chain, ev.Agent, want)
		if refused != nil {
			return ledger.Decision{Outcome: refused.Outcome, Detail: refused.Detail}
		}
		s.Leases = leases
		r.writes = append(r.writes, writes...)
		r.timers = append(r.timers, timers...)
	}
	s.Token = fencingToken(v, r.id, s.Claim, r.Digest)
	r.become(kind.StateClaimed, at.Time)
	r.timers = append(r.timers, ledger.Timer{Due: s.ReportBy, Name: timerReport, Ref: requestKey(r.id)})
	return r.decision(canon.MustMarshal(kind.Claimed{Token: s.Token, StartBy: s.StartBy, Leases: s.Leases, ReportBy: s.ReportBy}))
}

// fencingToken is the first 16 bytes of SHA-256("creto/fence/v1\0" ‖ ledger ‖ tenant ‖ claim ‖ request ‖ action digest), both
// indices as 8 bytes big-endian. It is no secret: it tells the one claim that counts from any other.
func fencingToken(v ledger.View, request, claim uint64, action nhi.Digest) (token kind.FencingToken) {
	ledgerID, tenant := v.LedgerID(), v.Tenant().ID
	b := append([]byte("creto/fence/v1\x00"), ledgerID[:]...)
	b = append(b, tenant[:]...)
	b = binary.BigEndian.AppendUint64(b, claim)
	b = binary.BigEndian.AppendUint64(b, request)
	sum := sha256.Sum256(append(b, action[:]...))
	copy(token[:], sum[:])
	return token
}

// citesClaim: a report that names the fencing token of its signer's own claim states a fact, and is recorded even if the
// signer's authority is gone by now.
func citesClaim(v ledger.View, ev *ledger.Event) bool {
	b, err := kind.DecodeReportBody(ev.Body)
	if err != nil || ev.Signer == nil || ev.SignerSystem {
		return false
	}
	r, ok := load(v, b.Request)
	return ok && r.claimedBy(ev, b)
}

func (r *request) claimedBy(ev *ledger.Event, b *kind.ReportBody) bool {
	return r.status.Claim != 0 && ev.Agent == r.Agent && b.Token == r.status.Token
}

// decideReport records how a claimed action ended. A report that comes after ReportBy is kept and shown, but the outcome
// stays unknown: whether it may be believed is for a person to say.
func decideReport(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeReportBody(ev.Body)
	if err != nil {
		return refuseInvalid(err)
	}
	r, ok := load(v, b.Request)
	if !ok {
		return noRequest()
	}
	if r.status.Claim == 0 {
		return refuse(verify.OutcomeConflict, kind.Refusal{Reason: kind.ReasonNotApproved, State: r.status.State, Hint: "nobody has claimed it"})
	}
	if !r.claimedBy(ev, b) {
		code, reason := verify.OutcomeConflict, kind.ReasonBadToken
		if ev.Agent != r.Agent {
			code, reason = verify.OutcomeUnauthorized, kind.ReasonNotExecutor
		}
		return refuse(code, kind.Refusal{Reason: reason, Hint: "only whoever claimed it reports, with the claim's fencing token"})
	}
	r.settle(v, at.Time)
	s := &r.status
	if s.Report != 0 {
		return refuse(verify.OutcomeClosed, kind.Refusal{Reason: kind.ReasonOver, State: s.State, Index: s.Report, Hint: "it has been reported"})
	}
	s.Report, s.Result, s.Outcome = v.NextIndex(), b.Result, b.Digest
	counted := s.State == kind.StateClaimed
	if counted {
		end := kind.StateExecuted
		if b.Result == kind.ResultFailed {
			end = kind.StateFailed
		}
		r.become(end, at.Time)
	}
	return r.decision(canon.MustMarshal(kind.Reported{Request: r.id, Counted: counted, State: s.State}))
}
