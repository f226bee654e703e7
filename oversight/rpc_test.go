package oversight

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// reads answers from the world's ledger; before a look it may let something happen.
type reads struct {
	w      *world
	looks  []cretov1.Consistency
	before func(look int)
}

func (r *reads) View(_ context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(v ledger.View, info *cretov1.ReadInfo) error) (err error) {
	if tenant != r.w.f.Tenant {
		return status.Error(codes.NotFound, "no such tenant")
	}
	r.looks = append(r.looks, c)
	if r.before != nil {
		r.before(len(r.looks))
	}
	r.w.f.WithView(tenant, func(v ledger.View) {
		err = fn(v, &cretov1.ReadInfo{Linearizable: c != cretov1.Consistency_CONSISTENCY_STALE, TreeSize: v.NextIndex()})
	})
	return err
}

// always is a Changes that always says look again; never one that does not.
type always struct{}

func (always) Changed(context.Context, nhi.ID) <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

type never struct{}

func (never) Changed(context.Context, nhi.ID) <-chan struct{} { return nil }

func TestService(t *testing.T) {
	w := newWorld(t)
	s := &service{reads: &reads{w: w}, changes: never{}}
	tenant := w.f.Tenant[:]
	wantCode := func(err error, want codes.Code) {
		t.Helper()
		if got := status.Code(err); got != want {
			t.Errorf("got %v (%v), want %v", got, err, want)
		}
	}
	policy, err := s.GetPolicy(t.Context(), &cretov1.GetPolicyRequest{Tenant: tenant})
	if err != nil || policy.Epoch != 0 || policy.Hard == "" || !policy.Read.Linearizable {
		t.Errorf("got %v, %v before anything is published, want the default", policy, err)
	}
	w.publish(w.chain("payments", 1, "bob", "carol"))
	policy, err = s.GetPolicy(t.Context(), &cretov1.GetPolicyRequest{Tenant: tenant})
	if err != nil || policy.Epoch != 1 || policy.Soft != softText || len(policy.Chains) != 1 || len(policy.Chains[0].Steps[0].Eligible) != 2 {
		t.Errorf("got %v, %v, want what was published", policy, err)
	}
	var ids []uint64
	for range 3 {
		ids = append(ids, w.ask(func(b *kind.RequestBody) { b.Reserve = []kind.Reservation{{Meter: "usd", Amount: 5}} }).Request)
	}
	w.approve(ids[0], "bob")
	w.mustClaim(ids[0])

	got, err := s.GetApproval(t.Context(), &cretov1.GetApprovalRequest{Tenant: tenant, RequestId: ids[0]})
	if err != nil {
		t.Fatal(err)
	}
	a := got.Approval
	if a.State != "claimed" || a.Operation != "pay" || string(a.Parameters) != `{"amount":500}` || len(a.Votes) != 1 || !a.Votes[0].Counted ||
		a.Votes[0].Decision != "approve" || len(a.FencingToken) != 16 || len(a.Reserve) != 1 || a.ApproveNeeded != 1 || a.DenyNeeded != 1 {
		t.Errorf("got %v", a)
	}
	_, err = s.GetApproval(t.Context(), &cretov1.GetApprovalRequest{Tenant: tenant, RequestId: 1})
	wantCode(err, codes.NotFound)
	_, err = s.GetApproval(t.Context(), &cretov1.GetApprovalRequest{Tenant: tenant[:3]})
	wantCode(err, codes.InvalidArgument)
	_, err = s.GetApproval(t.Context(), &cretov1.GetApprovalRequest{Tenant: make([]byte, 16), RequestId: ids[0]})
	wantCode(err, codes.NotFound)

	bob := w.id["bob"].ID
	var listed []uint64
	req := &cretov1.ListApprovalsRequest{Tenant: tenant, State: "pending", Eligible: bob[:], PageSize: 1}
	for {
		list, err := s.ListApprovals(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list.Approvals {
			listed = append(listed, a.RequestId)
		}
		if req.Cursor = list.NextCursor; req.Cursor == "" {
			break
		}
	}
	if len(listed) != 2 || listed[0] != ids[2] || listed[1] != ids[1] {
		t.Errorf("got %v, want %v, newest first", listed, ids[1:])
	}
	for _, bad := range []*cretov1.ListApprovalsRequest{
		{Tenant: tenant, State: "open"}, {Tenant: tenant, Eligible: []byte{1}}, {Tenant: tenant, Cursor: "x"}, {Tenant: tenant, Cursor: "0"},
	} {
		_, err = s.ListApprovals(t.Context(), bad)
		wantCode(err, codes.InvalidArgument)
	}
}

func TestAwait(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	id := w.ask().Request
	req := func(state string, ms uint32) *cretov1.AwaitApprovalRequest {
		return &cretov1.AwaitApprovalRequest{Tenant: w.f.Tenant[:], RequestId: id, WhileState: state, TimeoutMs: ms}
	}

	// Another state than the caller knows: the answer comes at once.
	s := &service{reads: &reads{w: w}, changes: never{}}
	if got, err := s.AwaitApproval(t.Context(), req("", 0)); err != nil || got.Approval.State != "pending" {
		t.Errorf("got %v, %v, want pending at once", got, err)
	}
	// Nothing happens: the same state after the timeout.
	if got, err := s.AwaitApproval(t.Context(), req("pending", 1)); err != nil || got.Approval.State != "pending" {
		t.Errorf("got %v, %v, want pending after the timeout", got, err)
	}
	// The caller goes away.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.AwaitApproval(ctx, req("pending", 0)); status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want canceled", err)
	}
	// It is approved between two looks.
	r := &reads{w: w, before: func(look int) {
		if look == 3 {
			w.want(w.vote(id, "bob", kind.Approve), verify.OutcomeAccepted, "")
		}
	}}
	s = &service{reads: r, changes: always{}}
	got, err := s.AwaitApproval(t.Context(), req("pending", uint32((10*time.Second)/time.Millisecond)))
	if err != nil || got.Approval.State != "approved" {
		t.Errorf("got %v, %v, want approved", got, err)
	}
	if len(r.looks) != 3 || r.looks[0] != cretov1.Consistency_CONSISTENCY_LINEARIZABLE {
		t.Errorf("got looks %v, want three, the first linearizable", r.looks)
	}
	if _, err := s.AwaitApproval(t.Context(), &cretov1.AwaitApprovalRequest{Tenant: w.f.Tenant[:], RequestId: 1 << 40}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v, want not found", err)
	}
}
