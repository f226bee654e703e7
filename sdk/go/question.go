package creto

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Question is an approval request as its agent signed it, checked by CheckApproval: what a human is asked, and what the human's
// vote signs.
type Question struct {
	// Approval is what the API shows. What was asked and who decides is checked; where the request stands (state, votes, the
	// step that is asked) is the server's word, and the ledger holds every vote against it again.
	Approval *cretov1.Approval
	Event    *nhi.Event
	Body     *kind.RequestBody
	Key      *nhi.PublicKey // that signed the event
	// Statement was put together here, from the event and from what Approval shows.
	Statement     kind.RequestStatement
	ActionDigest  nhi.Digest
	RequestDigest nhi.Digest // of Statement: nothing but exactly this can be approved by a vote that names it
}

// Vote returns the body of a vote on the question.
func (q *Question) Vote(choice kind.Choice) kind.VoteBody {
	return kind.VoteBody{Request: q.Statement.Request, Choice: choice, ActionDigest: q.ActionDigest, RequestDigest: q.RequestDigest}
}

// MismatchError means that a node shows something else than what the agent signed, or than what votes would be about. Nothing
// that it says about the request can be relied on.
type MismatchError struct {
	Request uint64
	Field   string // what differs: "parameters", "reserve", "signature", …
	Err     error  // may be nil
}

// Error names the field.
func (e *MismatchError) Error() string {
	s := fmt.Sprintf("request %d: the %s that the server shows is not what the agent signed", e.Request, e.Field)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause, if there is one.
func (e *MismatchError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *MismatchError) Hint() string {
	return "do not decide; keep this output and tell whoever runs the cluster"
}

// CheckApproval fetches a request and everything that it takes to verify it: the agent's event, its signature, and the key that
// the registry has for the agent. It holds each thing that Approval shows about the question against what was signed, and
// computes what a vote signs from what is shown, never from a digest that the server names. Differences are
// *MismatchError.
func (a *Agent) CheckApproval(ctx context.Context, request uint64) (*Question, error) {
	if a.c.Client == nil {
		return nil, errors.New("check approval: no client")
	}
	p, err := a.GetApproval(ctx, request)
	if err != nil {
		return nil, err
	}
	resp, err := cretov1.NewEventServiceClient(a.c.Client).GetEvent(ctx, &cretov1.GetEventRequest{Tenant: a.c.Tenant[:], Index: request})
	if err != nil {
		return nil, fmt.Errorf("ask for the request's event: %w", err)
	}
	q, leaf, err := a.signedQuestion(ctx, request, resp.GetEvent())
	if err != nil {
		return nil, err
	}
	if err := q.hold(p, leaf); err != nil {
		return nil, err
	}
	return q, nil
}

func differs(request uint64, field string, err error) error {
	return &MismatchError{Request: request, Field: field, Err: err}
}

// signedQuestion verifies the agent's signature and opens what it is about.
func (a *Agent) signedQuestion(ctx context.Context, request uint64, v *cretov1.EventView) (*Question, *verify.Leaf, error) {
	leaf, err := verify.DecodeLeaf(v.GetLeaf())
	if err != nil {
		return nil, nil, differs(request, "leaf", err)
	}
	ev, err := nhi.DecodeEvent(v.GetPayload())
	if err != nil {
		return nil, nil, differs(request, "event", err)
	}
	switch {
	case leaf.Index != request || v.GetIndex() != request:
		return nil, nil, differs(request, "index", nil)
	case ev.LedgerID != a.c.LedgerID:
		return nil, nil, differs(request, "ledger", nil)
	case ev.Tenant != a.c.Tenant:
		return nil, nil, differs(request, "tenant", nil)
	case ev.Kind != kind.Request || leaf.Kind != ev.Kind:
		return nil, nil, differs(request, "kind", nil)
	case nhi.PayloadDigest(v.GetPayload()) != leaf.Payload || ev.Agent != leaf.Agent || ev.Link != leaf.Link || ev.Account != leaf.Account:
		return nil, nil, differs(request, "leaf", nil)
	case sha256.Sum256(v.GetSignature()) != leaf.Signature:
		return nil, nil, differs(request, "signature", errors.New("the leaf commits to another one"))
	}
	key, err := a.registeredKey(ctx, request, ev.Agent, v.GetKeyId())
	if err != nil {
		return nil, nil, err
	}
	if err := checkEventSignature(v, key); err != nil {
		return nil, nil, differs(request, "signature", err)
	}
	b, err := kind.DecodeRequestBody(ev.Body)
	if err != nil {
		return nil, nil, differs(request, "event", err)
	}
	if b.Action.Agent != ev.Agent {
		return nil, nil, differs(request, "agent", nil)
	}
	return &Question{Event: ev, Body: b, Key: key, ActionDigest: b.Action.Digest()}, leaf, nil
}

// registeredKey asks the registry for the key that signed, as of the request.
func (a *Agent) registeredKey(ctx context.Context, request uint64, agent nhi.ID, id []byte) (*nhi.PublicKey, error) {
	r, err := cretov1.NewIdentityServiceClient(a.c.Client).GetKey(ctx, &cretov1.GetKeyRequest{Tenant: a.c.Tenant[:], KeyId: id, AsOfIndex: &request})
	if err != nil {
		return nil, fmt.Errorf("ask for the agent's key: %w", err)
	}
	suite, err := nhi.ParseSuite(r.GetSuite())
	if err != nil {
		return nil, differs(request, "key", err)
	}
	key, err := nhi.ParsePublicKey(suite, r.GetPublicKey())
	if err != nil {
		return nil, differs(request, "key", err)
	}
	keyID := key.ID()
	switch {
	case !bytes.Equal(keyID[:], id) || !bytes.Equal(r.GetKeyId(), id):
		return nil, differs(request, "key", errors.New("it is not the key of that id"))
	case !bytes.Equal(r.GetOwner(), agent[:]):
		return nil, differs(request, "key", errors.New("it is not one of the agent's"))
	}
	return key, nil
}

// checkEventSignature verifies the signature of an event as the API returns it, alone or in a batch.
func checkEventSignature(v *cretov1.EventView, key *nhi.PublicKey) error {
	if len(v.GetBatchProof()) == 0 {
		e := nhi.Envelope{Payloads: [][]byte{v.GetPayload()}, KeyID: key.ID(), Signature: v.GetSignature()}
		_, err := e.Verify(key)
		return err
	}
	var proof nhi.BatchProof
	if err := canon.Unmarshal(v.GetBatchProof(), &proof); err != nil {
		return fmt.Errorf("read batch proof: %w", err)
	}
	_, err := proof.Verify(key, v.GetPayload(), v.GetSignature())
	return err
}

// hold compares what the API shows with what was signed, field by field, and puts the statement together.
func (q *Question) hold(p *cretov1.Approval, leaf *verify.Leaf) error {
	ev, act := q.Event, &q.Body.Action
	field := ""
	switch {
	case p.GetRequestId() != leaf.Index:
		field = "request id"
	case !bytes.Equal(p.GetAgent(), ev.Agent[:]):
		field = "agent"
	case !equalOrAbsent(p.GetLinkId(), ev.Link[:], ev.Link.IsZero()):
		field = "link"
	case !equalOrAbsent(p.GetAccount(), ev.Account[:], ev.Account.IsZero()):
		field = "account"
	case p.GetOperation() != act.Operation:
		field = "operation"
	case p.GetResource() != act.Resource:
		field = "resource"
	case !bytes.Equal(p.GetParameters(), act.Parameters):
		field = "parameters"
	case !bytes.Equal(p.GetActionDigest(), q.ActionDigest[:]):
		field = "action digest"
	case !sameReserve(p.GetReserve(), q.Body.Reserve, ev.Account):
		field = "reserve"
	case !bytes.Equal(p.GetPayloadDigest(), leaf.Payload[:]):
		field = "payload digest"
	case !bytes.Equal(p.GetRenderedDigest(), q.Body.Rendered[:]):
		field = "rendered digest"
	case len(p.GetPolicyDigest()) != len(nhi.Digest{}):
		field = "policy digest"
	case p.GetCreatedNs() != leaf.Time:
		field = "created"
	case q.Body.TTL != 0 && p.GetNotAfterNs() != leaf.Time+q.Body.TTL:
		field = "not after"
	}
	if field != "" {
		return differs(leaf.Index, field, nil)
	}
	chains, err := frozenChains(p)
	if err != nil {
		return differs(leaf.Index, "chains", err)
	}
	q.Approval = p
	q.Statement = kind.RequestStatement{
		V: 1, Ledger: ev.LedgerID, Tenant: ev.Tenant, Request: leaf.Index, Payload: leaf.Payload, Action: q.ActionDigest, Rendered: q.Body.Rendered,
		Policy: nhi.Digest(p.GetPolicyDigest()), Chains: chains, End: p.GetNotAfterNs(), Policies: p.GetPolicies(), Created: leaf.Time,
	}
	q.RequestDigest = q.Statement.Digest()
	if field := q.derived(p); field != "" {
		return differs(leaf.Index, field, nil)
	}
	switch {
	case !bytes.Equal(p.GetRequestDigest(), q.RequestDigest[:]):
		return differs(leaf.Index, "request digest", errors.New("policies, policy, end, chains or humans are not those it covers"))
	case p.GetShortCode() != kind.ShortCode(q.RequestDigest):
		return differs(leaf.Index, "short code", nil)
	}
	return nil
}

// equalOrAbsent compares a field that is left out where it is zero.
func equalOrAbsent(got, want []byte, zero bool) bool {
	if zero {
		return len(got) == 0
	}
	return bytes.Equal(got, want)
}

func sameReserve(got []*cretov1.Reservation, want []kind.Reservation, account nhi.ID) bool {
	return slices.EqualFunc(got, want, func(g *cretov1.Reservation, w kind.Reservation) bool {
		at := w.Account
		if at.IsZero() {
			at = account
		}
		return g.GetMeter() == w.Meter && g.GetN() == w.Amount && equalOrAbsent(g.GetAccount(), at[:], at.IsZero())
	})
}

// frozenChains reads the chains of a request, which steps that ask nobody may stand in.
func frozenChains(p *cretov1.Approval) ([]kind.Chain, error) {
	if len(p.GetChainStatus()) == 0 {
		return nil, errors.New("there is none")
	}
	chains := make([]kind.Chain, len(p.GetChainStatus()))
	for i, status := range p.GetChainStatus() {
		c := kind.Chain{Name: status.GetChain().GetName(), Hold: status.GetChain().GetHoldNs(), Steps: []kind.Step{}}
		for _, s := range status.GetChain().GetSteps() {
			step := kind.Step{Eligible: make([]nhi.ID, len(s.GetEligible())), Approve: s.GetApprove(), Deny: s.GetDeny(), Timeout: s.GetTimeoutNs()}
			for j, id := range s.GetEligible() {
				if len(id) != len(step.Eligible[j]) {
					return nil, fmt.Errorf("the id of a human has %d bytes", len(id))
				}
				copy(step.Eligible[j][:], id)
			}
			c.Steps = append(c.Steps, step)
		}
		if int(status.GetStep()) >= len(c.Steps) {
			return nil, fmt.Errorf("chain %q has no step %d", c.Name, status.GetStep())
		}
		chains[i] = c
	}
	return chains, nil
}

// derived returns which of the fields that follow from the chains, and from the steps that are said to be asked, does not.
func (q *Question) derived(p *cretov1.Approval) string {
	var names []string
	var asked []nhi.ID
	var approve, deny, step uint32
	deadline := q.Statement.End
	for i := range q.Statement.Chains {
		c, at := &q.Statement.Chains[i], p.GetChainStatus()[i]
		now := &c.Steps[at.GetStep()]
		names = append(names, c.Name)
		asked = kind.Union(asked, c.Asked(int(at.GetStep())))
		approve += now.Approve
		if i == 0 || now.Deny < deny {
			deny = now.Deny
		}
		step = max(step, at.GetStep())
		due := q.Statement.Created
		s, ok := c.Feasible(0)
		for ; ok && s <= int(at.GetStep()); s, ok = c.Feasible(s + 1) {
			due += c.Steps[s].Timeout
		}
		if due != at.GetDeadlineNs() {
			return "deadline"
		}
		deadline = min(deadline, due)
	}
	pending := p.GetState() == kind.StatePending.String()
	switch {
	case !slices.Equal(names, p.GetChains()):
		return "chains"
	case approve != p.GetApproveNeeded():
		return "approvals needed"
	case deny != p.GetDenyNeeded():
		return "denials needed"
	case step != p.GetStep():
		return "step"
	case pending && deadline != p.GetDeadlineNs(), !pending && p.GetDeadlineNs() != 0:
		return "deadline"
	}
	// Whoever is asked may decide until the first vote.
	asked = slices.DeleteFunc(slices.Clone(asked), func(id nhi.ID) bool {
		return !pending || slices.ContainsFunc(p.GetVotes(), func(v *cretov1.Vote) bool { return bytes.Equal(v.GetApprover(), id[:]) })
	})
	if !slices.EqualFunc(p.GetEligible(), asked, func(got []byte, want nhi.ID) bool { return bytes.Equal(got, want[:]) }) {
		return "eligible humans"
	}
	return ""
}
