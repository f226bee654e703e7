package creto

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// maxHold is how long the server holds one call, in milliseconds.
const maxHold = 55_000

// Request is what an agent asks people to approve.
type Request struct {
	Operation  string             // what policies know as the action
	Resource   string             // what it touches
	Run        string             // of the agent; may be empty
	Parameters any                // whatever encoding/json makes an object of; nil = {}
	Reasoning  string             // the agent's reasons, shown to approvers as untrusted; may be empty
	Reserve    []kind.Reservation // when claimed
	TTL        time.Duration      // 0 = as long as the chains allow
}

// Opened is a request that people can decide about now.
type Opened struct {
	*kind.Opened
	Action *kind.Action
	Result *Result
}

// Action returns the action of the request as this agent would do it.
func (a *Agent) Action(r Request) (*kind.Action, error) {
	return kind.NewAction(a.c.ID, r.Operation, r.Resource, r.Run, r.Parameters)
}

// RequestApproval asks for an approval. Who decides, and by when, is said by the tenant's policy. A refusal with reason
// not_needed means that the action may be done as it is.
func (a *Agent) RequestApproval(ctx context.Context, r Request, opts ...EventOption) (*Opened, error) {
	act, err := a.Action(r)
	if err != nil {
		return nil, fmt.Errorf("ask for approval: %w", err)
	}
	body := kind.RequestBody{Action: *act, Rendered: act.Digest(), Reserve: r.Reserve, TTL: int64(r.TTL)}
	if r.Reasoning != "" {
		opts = append(opts, withReasoning(r.Reasoning, &body.Reasoning))
	}
	s, err := a.signLate(kind.Request, func() ([]byte, error) { return body.Encode() }, opts)
	if err != nil {
		return nil, fmt.Errorf("ask for approval: %w", err)
	}
	out, err := a.Send(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := refused(kind.Request, out[0]); err != nil {
		return nil, err
	}
	o, err := kind.DecodeOpened(out[0].Detail)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return &Opened{Opened: o, Action: act, Result: out[0]}, nil
}

// withReasoning adds text as an addendum and tells its digest, which the body names.
func withReasoning(text string, digest *nhi.Digest) EventOption {
	return func(d *draft) {
		WithAddendum([]byte(text))(d)
		if n := len(d.event.Addenda); d.err == nil && n > 0 {
			*digest = d.event.Addenda[n-1]
		}
	}
}

// signLate signs an event whose body depends on its options.
func (a *Agent) signLate(kind string, body func() ([]byte, error), opts []EventOption) (*Signed, error) {
	var late error
	opts = append(opts[:len(opts):len(opts)], func(d *draft) { d.event.Body, late = body() })
	s, err := a.Sign(kind, nil, opts...)
	return s, errors.Join(late, err)
}

// GetApproval returns a request as it stands.
func (a *Agent) GetApproval(ctx context.Context, request uint64) (*cretov1.Approval, error) {
	r, err := cretov1.NewOversightServiceClient(a.c.Client).GetApproval(ctx, &cretov1.GetApprovalRequest{Tenant: a.c.Tenant[:], RequestId: request})
	if err != nil {
		return nil, err
	}
	return r.GetApproval(), nil
}

// AwaitApproval waits until people, or the deadline, have decided a request, and returns it. It survives the loss of the
// node it waits at. The context ends the wait.
func (a *Agent) AwaitApproval(ctx context.Context, request uint64) (*cretov1.Approval, error) {
	rpc := cretov1.NewOversightServiceClient(a.c.Client)
	pending := kind.StatePending.String()
	for {
		r, err := rpc.AwaitApproval(ctx, &cretov1.AwaitApprovalRequest{
			Tenant: a.c.Tenant[:], RequestId: request, WhileState: pending, TimeoutMs: holdFor(ctx),
		})
		if err != nil {
			return nil, err
		}
		if r.GetApproval().GetState() != pending {
			return r.GetApproval(), nil
		}
		if err := wait(ctx, minBackoff); err != nil {
			return r.GetApproval(), err
		}
	}
}

// holdFor asks the server to answer a little before the context ends, so that the answer is not lost.
func holdFor(ctx context.Context) uint32 {
	end, ok := ctx.Deadline()
	if !ok {
		return maxHold
	}
	left := time.Until(end) - 100*time.Millisecond
	return uint32(min(max(left.Milliseconds(), 1), maxHold))
}

// Vote decides a request as a human, with the human's own key. The body is Question.Vote of a question that CheckApproval
// verified and the human was shown; the reason, if there is one, is kept as an addendum.
func (a *Agent) Vote(ctx context.Context, body kind.VoteBody, reason string, opts ...EventOption) (*kind.Voted, error) {
	if reason != "" {
		opts = append(opts, withReasoning(reason, &body.Reason))
	}
	s, err := a.signLate(kind.Vote, func() ([]byte, error) { return body.Encode() }, opts)
	if err != nil {
		return nil, fmt.Errorf("vote: %w", err)
	}
	out, err := a.Send(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := refused(kind.Vote, out[0]); err != nil {
		return nil, err
	}
	return kind.DecodeVoted(out[0].Detail)
}

// Claim takes the grant of an approved request, once, and reserves what the request asked for. Begin what was approved
// before Claimed.StartBy, then Report.
func (a *Agent) Claim(ctx context.Context, request uint64, action nhi.Digest, opts ...EventOption) (*kind.Claimed, error) {
	b, err := (&kind.ClaimBody{Request: request, ActionDigest: action}).Encode()
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	r, err := a.Do(ctx, kind.Claim, b, opts...)
	if err != nil {
		return nil, err
	}
	return kind.DecodeClaimed(r.Detail)
}

// Report says how a claimed action ended. The description is the caller's to keep: only its SHA-256 is reported.
func (a *Agent) Report(ctx context.Context, request uint64, token kind.FencingToken, executed bool, description []byte, opts ...EventOption) (*kind.Reported, error) {
	body := kind.ReportBody{Request: request, Token: token, Result: kind.ResultFailed}
	if executed {
		body.Result = kind.ResultExecuted
	}
	if len(description) > 0 {
		body.Digest = sha256.Sum256(description)
	}
	b, err := body.Encode()
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r, err := a.Do(ctx, kind.Report, b, opts...)
	if err != nil {
		return nil, err
	}
	return kind.DecodeReported(r.Detail)
}

// ApprovalRefusal returns why oversight refused, from the error of a refused request, vote, claim or report.
func ApprovalRefusal(err error) (*kind.Refusal, bool) {
	d, ok := refusedDetail(err)
	if !ok {
		return nil, false
	}
	r, derr := kind.DecodeRefusal(d)
	return r, derr == nil
}

func refusedDetail(err error) ([]byte, bool) {
	e, ok := errors.AsType[*RefusedError](err)
	if !ok || len(e.Result.Detail) == 0 {
		return nil, false
	}
	return e.Result.Detail, true
}
