package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	oversight "github.com/creto-systems/creto/oversight/kind"
	creto "github.com/creto-systems/creto/sdk/go"
)

// demoSoft is the one rule that asks for people.
const demoSoft = `@id("large-payments") @oversight("payments")
forbid (principal, action == Action::"pay", resource)
when { context.eur_cents > 10000 };
`

// demoHard is the hard set: what the delegation chains allow is allowed.
const demoHard = `@id("what-chains-allow")
permit (principal, action, resource);
`

// Amounts of the demonstration's payment, in cents.
const (
	centsReserved = 130_000
	centsPaid     = 124_900
)

// demoPayment is an action that waits for people.
type demoPayment struct {
	buyer    *demoAgent
	opened   *creto.Opened
	claimed  *oversight.Claimed
	claimLog uint64 // index of the claim
}

// publishPolicy publishes the soft rule and who decides about what it matches: either human, alone.
func (d *demo) publishPolicy(ctx context.Context) (string, error) {
	p := &d.people
	chains, err := oversight.EncodeChains([]oversight.Chain{{Name: "payments", Steps: []oversight.Step{{
		Eligible: []nhi.ID{p.lead.ID(), p.controller.ID()}, Approve: 1, Deny: 1, Timeout: int64(10 * time.Minute),
	}}}})
	if err != nil {
		return "", err
	}
	r, err := demoDo(ctx, p.authority, oversight.Publish, &oversight.PublishBody{Hard: demoHard, Soft: demoSoft, Chains: chains})
	if err != nil {
		return "", err
	}
	published, err := oversight.DecodePublished(r.Detail)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("a policy, epoch %d: payments over 100 euros wait for one of two humans", published.Epoch), nil
}

// askApproval lets the buyer ask.
func (d *demo) askApproval(ctx context.Context) (string, error) {
	buyer := d.people.agents[3]
	d.payment.buyer = buyer
	var err error
	d.payment.opened, err = buyer.RequestApproval(ctx, creto.Request{
		Operation: "pay", Resource: registry.AccountResource(d.people.payments), Run: "demo",
		Parameters: map[string]any{"eur_cents": centsPaid, "invoice": "2024-0117", "payee": "GPU rental"},
		Reasoning:  "The invoice matches the order and the usage of this hour.",
		Reserve:    []oversight.Reservation{{Meter: meterCents, Amount: centsReserved}},
	})
	if err != nil {
		return "", err
	}
	o := d.payment.opened
	return fmt.Sprintf("the buyer asks to pay 1,249.00 euros; request %d waits, code %s, decided by %s", o.Request, o.ShortCode,
		time.Unix(0, o.Deadline).UTC().Format("15:04:05")+" UTC or not at all"), nil
}

// decide shows that the buyer's own chain cannot approve, and that another human can.
func (d *demo) decide(ctx context.Context) (string, error) {
	o := d.payment.opened
	vote := oversight.VoteBody{Request: o.Request, Choice: oversight.Approve, ActionDigest: o.Action.Digest(), RequestDigest: o.RequestDigest}
	_, err := d.people.controller.Vote(ctx, vote, "")
	if err := outcomeIs(err, verify.OutcomeSelfApproval); err != nil {
		return "", fmt.Errorf("vote of the human in whose name the buyer asks: %w", err)
	}
	if _, err := d.people.lead.Vote(ctx, vote, "checked against the order"); err != nil {
		return "", err
	}
	a, err := d.payment.buyer.AwaitApproval(ctx, o.Request)
	if err != nil {
		return "", err
	}
	if got, want := a.GetState(), oversight.StateApproved.String(); got != want {
		return "", fmt.Errorf("request is %s, want %s", got, want)
	}
	return "the financial controller, in whose name the buyer asks, may not approve; the engineering lead does", nil
}

// claim takes the grant, which reserves the money in the same step.
func (d *demo) claim(ctx context.Context) (string, error) {
	p := &d.payment
	body := &oversight.ClaimBody{Request: p.opened.Request, ActionDigest: p.opened.Action.Digest()}
	r, err := demoDo(ctx, p.buyer.Agent, oversight.Claim, body)
	if err != nil {
		return "", err
	}
	p.claimLog = r.Index
	if p.claimed, err = oversight.DecodeClaimed(r.Detail); err != nil {
		return "", err
	}
	if len(p.claimed.Leases) != 1 {
		return "", fmt.Errorf("got %d leases, want 1", len(p.claimed.Leases))
	}
	return fmt.Sprintf("claimed at index %d: 1,300.00 euros reserved in the same step, fencing token %x…", r.Index, p.claimed.Token[:4]), nil
}

// claimAgain shows that a grant is used once.
func (d *demo) claimAgain(ctx context.Context) (string, error) {
	p := &d.payment
	_, err := p.buyer.Claim(ctx, p.opened.Request, p.opened.Action.Digest())
	if err := outcomeIs(err, verify.OutcomeClosed); err != nil {
		return "", err
	}
	refused, ok := errors.AsType[*creto.RefusedError](err)
	if !ok {
		return "", err
	}
	why, err := oversight.DecodeRefusal(refused.Result.Detail)
	if err != nil {
		return "", err
	}
	if why.Reason != oversight.ReasonAlreadyClaimed || why.Index != p.claimLog {
		return "", fmt.Errorf("got reason %s at index %d, want %s at %d", why.Reason, why.Index, oversight.ReasonAlreadyClaimed, p.claimLog)
	}
	return fmt.Sprintf("a second claim is refused: already claimed at index %d", why.Index), nil
}

// reportPayment reports the payment and gives back what was not spent.
func (d *demo) reportPayment(ctx context.Context) (string, error) {
	p := &d.payment
	reported, err := p.buyer.Report(ctx, p.opened.Request, p.claimed.Token, true, []byte("paid by bank transfer"))
	if err != nil {
		return "", err
	}
	if reported.State != oversight.StateExecuted {
		return "", fmt.Errorf("request is %s, want %s", reported.State, oversight.StateExecuted)
	}
	closed, err := p.buyer.CloseLease(ctx, p.claimed.Leases[0], centsPaid)
	if err != nil {
		return "", err
	}
	if closed.Settled != centsPaid || closed.Returned != centsReserved-centsPaid {
		return "", fmt.Errorf("lease closed with %d settled and %d returned, want %d and %d", closed.Settled, closed.Returned, centsPaid, centsReserved-centsPaid)
	}
	return "reported as executed; the lease is closed with 1,249.00 euros spent and 51.00 returned", nil
}
