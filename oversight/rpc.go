package oversight

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	maxAwait        = 55 * time.Second
	// maxPageBytes ends a page early: requests carry their parameters and chains.
	maxPageBytes = 2 << 20
)

// Reads opens the state that a query is answered from. Whether the caller may see the tenant was decided before.
type Reads interface {
	// View calls fn with the state of a tenant: linearizable unless the request asks for a stale read. info says which, and
	// as of when; v ends with the call. Errors of fn are returned as they are.
	View(ctx context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(v ledger.View, info *cretov1.ReadInfo) error) error
}

// Changes says when it is worth to look again.
type Changes interface {
	// Changed returns a channel that is closed, or sends, once this node has applied something to the tenant's log after the
	// call. It may do so without need, and for nothing once ctx ends.
	Changed(ctx context.Context, tenant nhi.ID) <-chan struct{}
}

// RegisterService registers OversightService, which answers from reads. It offers no writes: those are signed events.
func (o *Oversight) RegisterService(r grpc.ServiceRegistrar, reads Reads, changes Changes) {
	cretov1.RegisterOversightServiceServer(r, &service{reads: reads, changes: changes})
}

type service struct {
	cretov1.UnsafeOversightServiceServer
	reads   Reads
	changes Changes
}

var _ cretov1.OversightServiceServer = (*service)(nil)

// ErrNoApproval says: there is no request with this id.
var ErrNoApproval = errors.New("approval request does not exist")

func toStatus(err error) error {
	if errors.Is(err, ErrNoApproval) {
		return status.Error(codes.NotFound, ErrNoApproval.Error())
	}
	return err
}

// GetPolicy returns the policy in force.
func (s *service) GetPolicy(ctx context.Context, req *cretov1.GetPolicyRequest) (*cretov1.GetPolicyResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	var res *cretov1.GetPolicyResponse
	err = s.reads.View(ctx, tenant, cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(v ledger.View, info *cretov1.ReadInfo) error {
		p := CurrentPolicy(v)
		res = &cretov1.GetPolicyResponse{
			Epoch: p.Epoch, Hard: string(p.Bundle.Hard), Soft: string(p.Bundle.Soft), PublishedIndex: p.Index, Digest: p.Digest[:], Read: info,
		}
		for i := range p.Chains {
			res.Chains = append(res.Chains, protoChain(&p.Chains[i]))
		}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

func protoChain(c *kind.Chain) *cretov1.Chain {
	out := &cretov1.Chain{Name: c.Name, HoldNs: c.Hold}
	for _, s := range c.Steps {
		out.Steps = append(out.Steps, &cretov1.Step{Eligible: protoIDs(s.Eligible), Approve: s.Approve, Deny: s.Deny, TimeoutNs: s.Timeout})
	}
	return out
}

func protoIDs(ids []nhi.ID) [][]byte {
	out := make([][]byte, len(ids))
	for i := range ids {
		out[i] = ids[i][:]
	}
	return out
}

// GetApproval returns one request.
func (s *service) GetApproval(ctx context.Context, req *cretov1.GetApprovalRequest) (*cretov1.GetApprovalResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	return s.get(ctx, tenant, req.GetRequestId(), req.GetConsistency())
}

func (s *service) get(ctx context.Context, tenant nhi.ID, id uint64, c cretov1.Consistency) (*cretov1.GetApprovalResponse, error) {
	var res *cretov1.GetApprovalResponse
	err := s.reads.View(ctx, tenant, c, func(v ledger.View, info *cretov1.ReadInfo) error {
		a, ok := GetApproval(v, id)
		if !ok {
			return ErrNoApproval
		}
		res = &cretov1.GetApprovalResponse{Approval: a.proto(), Read: info}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

// ListApprovals returns requests, newest first.
func (s *service) ListApprovals(ctx context.Context, req *cretov1.ListApprovalsRequest) (*cretov1.ListApprovalsResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	q := ListQuery{Limit: defaultPageSize}
	if req.GetState() != "" {
		var ok bool
		if q.State, ok = kind.ParseState(req.GetState()); !ok {
			return nil, status.Error(codes.InvalidArgument, "state is none of an approval request's")
		}
	}
	if q.Human, err = parseID("eligible", req.GetEligible(), true); err != nil {
		return nil, err
	}
	if n := req.GetPageSize(); n > 0 {
		q.Limit = int(min(n, maxPageSize))
	}
	if c := req.GetCursor(); c != "" {
		if q.Before, err = strconv.ParseUint(c, 10, 64); err != nil || q.Before == 0 {
			return nil, status.Error(codes.InvalidArgument, "cursor is not one that this service gave")
		}
	}
	var res *cretov1.ListApprovalsResponse
	err = s.reads.View(ctx, tenant, cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(v ledger.View, info *cretov1.ReadInfo) error {
		list, next := ListApprovals(v, q)
		res = &cretov1.ListApprovalsResponse{Read: info}
		bytes := 0
		for i, a := range list {
			res.Approvals = append(res.Approvals, a.proto())
			if bytes += a.protoBytes(); bytes > maxPageBytes && i < len(list)-1 {
				next = a.ID
				break
			}
		}
		if next != 0 {
			res.NextCursor = strconv.FormatUint(next, 10)
		}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

// AwaitApproval answers once the request's state differs from the given one, and at the latest after the timeout, with the
// request as it then is. It holds nothing between looks, so it may be repeated on any node.
func (s *service) AwaitApproval(ctx context.Context, req *cretov1.AwaitApprovalRequest) (*cretov1.GetApprovalResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	wait := maxAwait
	if ms := req.GetTimeoutMs(); ms > 0 {
		wait = min(wait, time.Duration(ms)*time.Millisecond)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	// The first look is linearizable, so that a caller who has just decided sees it. Later ones follow what this node applies.
	c := cretov1.Consistency_CONSISTENCY_LINEARIZABLE
	for {
		// The signal comes before the look: what happens in between wakes the wait.
		changed := s.changes.Changed(ctx, tenant)
		res, err := s.get(ctx, tenant, req.GetRequestId(), c)
		if err != nil || res.GetApproval().GetState() != req.GetWhileState() {
			return res, err
		}
		select {
		case <-changed:
			c = cretov1.Consistency_CONSISTENCY_STALE
		case <-deadline.C:
			return res, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (a *Approval) proto() *cretov1.Approval {
	out := &cretov1.Approval{
		RequestId: a.ID, ShortCode: a.ShortCode, Agent: a.Agent[:], State: a.State.String(), Operation: a.Action.Operation,
		Resource: a.Action.Resource, Parameters: a.Action.Parameters, ActionDigest: a.ActionDigest[:], RequestDigest: a.RequestDigest[:],
		Policies: a.Policies, Eligible: protoIDs(a.Eligible), CreatedNs: a.Created, DeadlineNs: a.Deadline, NotAfterNs: a.NotAfter,
		StartByNs: a.StartBy, PayloadDigest: a.PayloadDigest[:], PolicyDigest: a.PolicyDigest[:], RenderedDigest: a.Rendered[:],
	}
	if a.Link != (nhi.LinkID{}) {
		out.LinkId = a.Link[:]
	}
	if !a.Account.IsZero() {
		out.Account = a.Account[:]
	}
	if a.Claim != 0 {
		out.FencingToken = a.Token[:]
	}
	for i := range a.Chains {
		c := &a.Chains[i]
		step := &c.Steps[c.Step]
		out.Chains = append(out.Chains, c.Name)
		out.ApproveNeeded += step.Approve // every chain's seats are filled by humans of their own
		if out.DenyNeeded == 0 || step.Deny < out.DenyNeeded {
			out.DenyNeeded = step.Deny
		}
		out.Step = max(out.Step, uint32(c.Step))
		out.ChainStatus = append(out.ChainStatus, &cretov1.ChainStatus{Chain: protoChain(&c.Chain), Step: uint32(c.Step), DeadlineNs: c.Deadline})
	}
	for i := range a.Votes {
		vote := &a.Votes[i]
		out.Votes = append(out.Votes, &cretov1.Vote{
			Approver: vote.Human[:], Decision: vote.Choice.String(), Index: vote.Index, TimeNs: vote.Time,
			Counted: vote.Counted && vote.Withdrawn == 0,
		})
	}
	for _, r := range a.Reserve {
		m := &cretov1.Reservation{Meter: r.Meter, N: r.Amount}
		if !r.Account.IsZero() {
			m.Account = r.Account[:]
		}
		out.Reserve = append(out.Reserve, m)
	}
	return out
}

// protoBytes is about how many bytes proto makes of it.
func (a *Approval) protoBytes() int {
	const perHuman = 20
	n := 1024 + len(a.Action.Parameters) + perHuman*len(a.Eligible) + 64*len(a.Votes) + size(a.Policies)
	for i := range a.Chains {
		for _, s := range a.Chains[i].Steps {
			n += 32 + perHuman*len(s.Eligible)
		}
	}
	return n
}

func parseID(field string, b []byte, optional bool) (id nhi.ID, err error) {
	if len(b) == 0 && optional {
		return id, nil
	}
	if len(b) != len(id) {
		return id, status.Errorf(codes.InvalidArgument, "%s is not %d bytes", field, len(id))
	}
	copy(id[:], b)
	return id, nil
}
