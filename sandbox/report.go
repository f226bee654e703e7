package sandbox

import (
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/sandbox/kind"
)

// cited returns the claim that a node's report is about, or the refusal.
func cited(v ledger.View, ev *ledger.Event, claim uint64) (*claimRow, *ledger.Decision) {
	refused := func(code verify.OutcomeCode, hint string) (*claimRow, *ledger.Decision) {
		d := refuse(code, hint)
		return nil, &d
	}
	id, ok := node(ev)
	if !ok {
		return refused(verify.OutcomeUnauthorized, "only sandbox nodes report")
	}
	row, ok := read[claimRow](v, TableClaim, indexKey(claim))
	switch {
	case !ok:
		return refused(verify.OutcomeNotFound, "there is no such claim")
	case row.Node != id:
		return refused(verify.OutcomeUnauthorized, "the claim was not allocated to this node")
	case row.Account != ev.Account:
		return refused(verify.OutcomeConflict, "the account is not that of the claim")
	}
	return row, nil
}

// decideReport ends a claim as its node says. A claim that has expired meanwhile is ended by the report all the same: what
// has happened is recorded.
func (s *Sandbox) decideReport(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeReportBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	row, refused := cited(v, ev, b.Claim)
	if refused != nil {
		return *refused
	}
	switch {
	case row.Report != 0:
		return refuse(verify.OutcomeClosed, "the claim has been reported")
	case b.PolicyEpoch != row.Policy:
		return refuse(verify.OutcomeConflict, "the policy epoch is not that of the claim")
	case b.Status != kind.Failed && b.Rootfs != row.Rootfs:
		return refuse(verify.OutcomeConflict, "the root file system is not the one the node offered when the claim was allocated")
	}
	c := s.change(v, at)
	row.Late = row.State == Expired
	row.Report, row.Sequence, row.ExitCode, row.Output, row.Reason = v.NextIndex(), b.Sequence, b.ExitCode, b.Output, b.Reason
	row.State = ended(b.Status)
	if row.State == Failed {
		c.release(row) // nothing was measured, so no usage will come
	}
	c.set(TableClaim, indexKey(b.Claim), row)
	if !row.Late {
		c.d.Timers = append(c.d.Timers, claimTimer(b.Claim, row.Deadline, true))
		c.open(row.Agent).less()
		c.free(b.Claim, row.Node)
	}
	return c.decision()
}

func ended(s kind.Status) State {
	switch s {
	case kind.Finished:
		return Finished
	case kind.Killed:
		return Killed
	}
	return Failed
}

// decideUsage counts what a run used, once, and only with the report that says it ran: an account must not pay for a run
// that the log does not tell of.
func (s *Sandbox) decideUsage(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeUsageBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	row, refused := cited(v, ev, b.Claim)
	if refused != nil {
		return *refused
	}
	switch {
	case row.Usage != 0:
		return refuse(verify.OutcomeClosed, "the usage of the claim has been counted")
	case row.Report == 0 || row.Sequence != b.Sequence:
		return refuse(verify.OutcomeConflict, "usage counts with the report of its run, and that is not in the log")
	case row.State == Failed:
		return refuse(verify.OutcomeConflict, "the report says that nothing ran to its end, so nothing was measured")
	}
	if over := b.Over(kind.Limits{Wall: row.budget(), Memory: row.Memory}); over != "" {
		return refuse(verify.OutcomeConflict, over+" is more than a run within the limits of this claim can use")
	}
	row.Usage, row.Quantities, row.From = v.NextIndex(), b.Sorted(), b.From
	var d ledger.Decision
	if s.charger != nil {
		d = s.charger.Charge(v, at, row.Leases, Charge{
			Claim: b.Claim, Account: row.Account, Agent: row.Agent, Link: row.Link, Quantities: row.Quantities,
		})
		if d.Outcome != verify.OutcomeAccepted {
			return d
		}
		row.Leases = nil
	}
	c := s.change(v, at)
	c.also(d)
	c.set(TableClaim, indexKey(b.Claim), row)
	c.d.Quantities = row.Quantities
	return c.decision()
}
