package creto

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

var used = Quantity{Meter: "tokens", N: 5}

func TestFailoverSendsTheSameBytes(t *testing.T) {
	ca := newCA(t)
	down := newFakeNode(t, ca, func(int, *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) { return nil, unavailable() })
	up := newFakeNode(t, ca, func(_ int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) { return accept(r), nil })
	c := dial(t, ca, Options{Addrs: []string{"127.0.0.1:1", down.addr, up.addr}, Token: "secret"})
	r, err := newAgent(t, c).Usage(t.Context(), used)
	if err != nil || r.State != StateSequenced {
		t.Fatalf("usage: got %+v, %v, want sequenced", r, err)
	}
	if len(down.calls) != 1 || len(up.calls) != 1 || !proto.Equal(down.calls[0], up.calls[0]) {
		t.Errorf("calls: got %d and %d, want one each with the same bytes", len(down.calls), len(up.calls))
	}
	if len(up.tokens) != 1 || up.tokens[0] != "Bearer secret" {
		t.Errorf("token: got %q", up.tokens)
	}
	// It stays where it was answered.
	if _, err := newAgent(t, c).Usage(t.Context(), used); err != nil || len(up.calls) != 2 {
		t.Errorf("second call: got %v after %d calls, want it at the same node", err, len(up.calls))
	}
}

func TestRetries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fail  func(testing.TB) error
		calls int
		code  codes.Code
	}{
		{"pushback", pushback, 3, codes.OK},
		{"no leader", func(testing.TB) error { return unavailable() }, 3, codes.OK},
		{"bound that stays", func(testing.TB) error { return status.Error(codes.ResourceExhausted, "too large") }, 1, codes.ResourceExhausted},
		{"invalid", func(testing.TB) error { return status.Error(codes.InvalidArgument, "bad") }, 1, codes.InvalidArgument},
		{"not found", func(testing.TB) error { return status.Error(codes.NotFound, "not found") }, 1, codes.NotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca := newCA(t)
			n := newFakeNode(t, ca, func(n int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) {
				if n < 3 {
					return nil, tt.fail(t)
				}
				return accept(r), nil
			})
			_, err := newAgent(t, dial(t, ca, Options{Addrs: []string{n.addr}})).Usage(t.Context(), used)
			if status.Code(err) != tt.code || len(n.calls) != tt.calls {
				t.Errorf("got %v after %d calls, want %v after %d", err, len(n.calls), tt.code, tt.calls)
			}
		})
	}
}

func TestAttemptsEnd(t *testing.T) {
	ca := newCA(t)
	n := newFakeNode(t, ca, func(int, *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) { return nil, unavailable() })
	_, err := newAgent(t, dial(t, ca, Options{Addrs: []string{n.addr}, Attempts: 2})).Usage(t.Context(), used)
	if !Unavailable(err) || len(n.calls) != 2 {
		t.Errorf("got %v after %d calls, want unavailable after 2", err, len(n.calls))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newAgent(t, dial(t, ca, Options{Addrs: []string{n.addr}})).Usage(ctx, used); err == nil || len(n.calls) > 2 {
		t.Errorf("cancelled: got %v after %d calls, want an error and no call", err, len(n.calls))
	}
}

func TestHangingNodeIsLeft(t *testing.T) {
	ca := newCA(t)
	hang := startNode(t, ca, spiffe.RoleNode, func(s *grpc.Server) { cretov1.RegisterEventServiceServer(s, hangingNode{}) })
	up := newFakeNode(t, ca, func(_ int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) { return accept(r), nil })
	c := dial(t, ca, Options{Addrs: []string{hang, up.addr}, AttemptTimeout: 200 * time.Millisecond})
	if _, err := newAgent(t, c).Usage(t.Context(), used); err != nil {
		t.Errorf("got %v, want the other node's answer", err)
	}
}

type hangingNode struct {
	cretov1.UnimplementedEventServiceServer
}

func (hangingNode) Submit(ctx context.Context, _ *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestMembershipIsNotRepeated(t *testing.T) {
	ca := newCA(t)
	n := newFakeNode(t, ca, nil)
	c := dial(t, ca, Options{Addrs: []string{n.addr, n.addr}})
	if _, err := cretov1.NewClusterServiceClient(c).ChangeMember(t.Context(), &cretov1.ChangeMemberRequest{}); err == nil || n.changes != 1 {
		t.Errorf("got %v after %d calls, want an error after one", err, n.changes)
	}
}

func TestOnlyNodesAreBelieved(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	register := func(s *grpc.Server) {
		cretov1.RegisterEventServiceServer(s, &fakeNode{submit: func(_ int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) { return accept(r), nil }})
	}
	for name, addr := range map[string]string{
		"another CA": startNode(t, other, spiffe.RoleNode, register),
		"a service":  startNode(t, ca, spiffe.RoleService, register),
	} {
		_, err := newAgent(t, dial(t, ca, Options{Addrs: []string{addr}, Attempts: 1})).Usage(t.Context(), used)
		if err == nil {
			t.Errorf("a server with the SVID of %s was believed", name)
		}
	}
}

func TestStaleIsSentAgain(t *testing.T) {
	ca := newCA(t)
	n := newFakeNode(t, ca, func(n int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) {
		if n == 1 {
			return accept(r, cretov1.Result_STATE_SEQUENCED, cretov1.Result_STATE_STALE), nil
		}
		return accept(r, cretov1.Result_STATE_DUPLICATE, cretov1.Result_STATE_SEQUENCED), nil
	})
	b := newAgent(t, dial(t, ca, Options{Addrs: []string{n.addr}})).NewBatch()
	for range 2 {
		if err := b.AddUsage(kind.UsageBody{Quantities: []Quantity{used}}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Send(t.Context())
	if err != nil || len(out) != 2 || out[0].State != StateDuplicate || out[1].State != StateSequenced || !proto.Equal(n.calls[0], n.calls[1]) {
		t.Errorf("got %+v, %v, want a duplicate and a sequenced event from the same bytes", out, err)
	}
}

func TestAnswersAreChecked(t *testing.T) {
	ca := newCA(t)
	for name, answer := range map[string]*cretov1.SubmitResponse{
		"no result":     {},
		"unknown state": {Results: []*cretov1.Result{{State: 99}}},
		"no state":      {Results: []*cretov1.Result{{}}},
		"no leaf hash":  {Results: []*cretov1.Result{{State: cretov1.Result_STATE_SEQUENCED}}},
		"bad outcome":   {Results: []*cretov1.Result{{State: cretov1.Result_STATE_SEQUENCED, LeafHash: make([]byte, 32), OutcomeCode: 300}}},
	} {
		n := newFakeNode(t, ca, func(int, *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) { return answer, nil })
		if r, err := newAgent(t, dial(t, ca, Options{Addrs: []string{n.addr}})).Usage(t.Context(), used); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		result  Result
		outcome verify.OutcomeCode
		leaf    bool
		refused bool
	}{
		{Result{State: StateSequenced}, 0, false, false},
		{Result{State: StateDuplicate, Outcome: verify.OutcomeAcceptedFlagged}, 0, false, false},
		{Result{State: StateSequenced, Outcome: verify.OutcomeQuotaExhausted}, verify.OutcomeQuotaExhausted, true, true},
		{Result{State: StateConflict}, 0, false, true},
		{Result{State: StateInvalid}, 0, false, true},
	} {
		err := tt.result.Err()
		o, leaf := Outcome(err)
		if (err != nil) != tt.refused || o != tt.outcome || leaf != tt.leaf {
			t.Errorf("%+v: got %v, outcome %v %v", tt.result, err, o, leaf)
		}
		if e, ok := errors.AsType[*RefusedError](err); ok && tt.result.State != StateSequenced && e.Hint() == "" {
			t.Errorf("%+v: no hint", tt.result)
		}
	}
}

// A fact whose authority is gone takes effect, and its detail lies within the flag's.
func TestFlaggedFacts(t *testing.T) {
	inner := canon.MustMarshal(kind.Closed{Lease: 7, Settled: 5, Returned: 3})
	detail := canon.MustMarshal(map[int]any{1: uint8(verify.OutcomeUnauthorized), 2: []byte{0xa0}, 3: inner})
	ca := newCA(t)
	n := newFakeNode(t, ca, func(_ int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) {
		resp := accept(r)
		resp.Results[0].OutcomeCode, resp.Results[0].Detail = uint32(verify.OutcomeAcceptedFlagged), detail
		return resp, nil
	})
	a := newAgent(t, dial(t, ca, Options{Addrs: []string{n.addr}}))
	var observed []*Result
	var about *nhi.Event
	a.c.Observe = func(payload []byte, r *Result) {
		observed = append(observed, r)
		about, _ = nhi.DecodeEvent(payload)
	}
	got, err := a.CloseLease(t.Context(), 7, 5)
	if err != nil || got.Lease != 7 || got.Settled != 5 || got.Returned != 3 {
		t.Errorf("close: got %+v, %v, want what the lease's handler said", got, err)
	}
	if len(observed) != 1 || observed[0].Flag == nil || observed[0].Flag.Outcome != verify.OutcomeUnauthorized || !bytes.Equal(observed[0].Flag.Refusal, []byte{0xa0}) {
		t.Fatalf("observed: got %+v, want one result with its flag", observed)
	}
	if about == nil || about.Kind != kind.Close {
		t.Errorf("observed event: got %+v, want the one that was sent", about)
	}
	detail = []byte{0xff}
	if _, err := a.CloseLease(t.Context(), 7, 5); err == nil {
		t.Error("a flag that cannot be read: want an error")
	}
}

func TestEvents(t *testing.T) {
	a := newAgent(t, nil)
	s1, err := a.Sign("message.note", []byte{0xa0}, WithAddendum([]byte("Ada")), WithAccount(nhi.ID{9}))
	if err != nil {
		t.Fatal(err)
	}
	s2, err := a.Sign("message.note", []byte{0xa0})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s1.Envelope.Verify(a.c.Signer.Public()); err != nil {
		t.Errorf("signature: %v", err)
	}
	e1, e2 := decode(t, s1), decode(t, s2)
	if e1.ID == e2.ID || e1.Nonce == e2.Nonce || e2.Seq.N != e1.Seq.N+1 || e1.Seq.Instance != e2.Seq.Instance {
		t.Errorf("two events: ids %x %x, sequence %v %v", e1.ID, e2.ID, e1.Seq, e2.Seq)
	}
	if e1.Account != (nhi.ID{9}) || e2.Account != (nhi.ID{4}) || e1.Tenant != (nhi.ID{2}) {
		t.Errorf("accounts %v %v, tenant %v", e1.Account, e2.Account, e1.Tenant)
	}
	if err := nhi.CheckAddenda(e1, s1.Addenda[0]); err != nil || bytes.Contains(s1.Envelope.Payloads[0], []byte("Ada")) {
		t.Errorf("addendum: %v", err)
	}
	if m := s1.Message(); len(m.GetAddenda()) != 1 || string(m.GetAddenda()[0].GetItems()[0].GetData()) != "Ada" {
		t.Errorf("message: addenda %v", m.GetAddenda())
	}
	if _, err := a.Sign("Not A Kind", []byte{0xa0}); err == nil {
		t.Error("a bad kind was signed")
	}
}

func decode(t *testing.T, s *Signed) *nhi.Event {
	t.Helper()
	e, err := nhi.DecodeEvent(s.Envelope.Payloads[0])
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestBatchBounds(t *testing.T) {
	a := newAgent(t, nil)
	b := a.NewBatch()
	if _, err := b.Sign(); err == nil {
		t.Error("an empty batch was signed")
	}
	body, err := kind.UsageBody{Quantities: []Quantity{used}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		if err = b.Add(kind.Usage, body); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrBatchFull) || b.Len() != n || n == 0 || n > nhi.MaxBatch {
		t.Fatalf("batch ended after %d with %v", n, err)
	}
	s, err := b.Sign()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Envelope.Verify(a.c.Signer.Public()); err != nil || len(s.Envelope.Payloads) != n || b.Len() != 0 || s.Addenda != nil {
		t.Errorf("signed batch: %v, %d payloads, %d left", err, len(s.Envelope.Payloads), b.Len())
	}
	big := make([]byte, 40<<10)
	raw := append([]byte{0xa1, 0x01, 0x59, byte(len(big) >> 8), byte(len(big))}, big...)
	for i := range 4 {
		if err := b.Add("message.note", raw); (i < 3) != (err == nil) {
			t.Errorf("event %d of 40 KiB: got %v", i, err)
		}
	}
}
