package node

import (
	"crypto/rand"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// A tenant that floods a node is pushed back over gRPC, with a reason and a delay, while another log's event is taken and
// answered; what was pushed back is accepted when it comes again.
func TestPushbackOverGRPC(t *testing.T) {
	const perCall = 512
	c := startDev(t, DevConfig{Nodes: 1})
	cc, admin, s := c.dial(0, c.ReadToken, false), c.dial(0, "", true), c.Servers()[0]
	service, key := c.register(cc, registry.Service)
	batch := func() *cretov1.SubmitRequest {
		payloads := make([][]byte, perCall)
		for i := range payloads {
			var err error
			if payloads[i], err = c.usage(service, 1).Encode(); err != nil {
				t.Fatal(err)
			}
		}
		env, err := nhi.SignBatch(key, c.LedgerID, c.Tenant, payloads)
		if err != nil {
			t.Fatal(err)
		}
		return &cretov1.SubmitRequest{Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{{
			Payloads: env.Payloads, KeyId: env.KeyID[:], Signature: env.Signature, Batch: true,
		}}}
	}
	// More than the commands under way and the tenant's queue hold together, and less than the node reads at once.
	calls := make([]*cretov1.SubmitRequest, 56)
	for i := range calls {
		calls[i] = batch()
	}
	type answer struct {
		call *cretov1.SubmitRequest
		resp *cretov1.SubmitResponse
		err  error
	}
	answers := make(chan answer, len(calls))
	other := make(chan error, 1)
	submit := func(call *cretov1.SubmitRequest) {
		resp, err := cretov1.NewEventServiceClient(cc).Submit(t.Context(), call)
		answers <- answer{call, resp, err}
	}
	accepted := func(a answer) {
		t.Helper()
		if a.err != nil || len(a.resp.GetResults()) != perCall {
			t.Fatalf("got %d results, %v, want %d", len(a.resp.GetResults()), a.err, perCall)
		}
		for _, r := range a.resp.GetResults() {
			if r.GetState() != cretov1.Result_STATE_SEQUENCED || r.GetOutcome() != "accepted" {
				t.Fatalf("got %v, want it sequenced and accepted once", r)
			}
		}
	}

	// What is applied is not answered while the test holds this.
	s.machine.mu.Lock()
	held := true
	release := func() {
		if held {
			s.machine.mu.Unlock()
			held = false
		}
	}
	defer release()
	for _, call := range calls {
		go submit(call)
	}
	first := <-answers // nothing else is answered now
	st := status.Convert(first.err)
	var retry *errdetails.RetryInfo
	var info *errdetails.ErrorInfo
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.RetryInfo:
			retry = d
		case *errdetails.ErrorInfo:
			info = d
		}
	}
	if st.Code() != codes.ResourceExhausted || retry.GetRetryDelay().AsDuration() <= 0 || info.GetReason() != string(KindExhausted) || info.GetMetadata()["hint"] == "" {
		t.Errorf("beyond the bound: got %v with %v, want it exhausted with a delay and a hint", first.err, st.Details())
	}

	_, digest, err := NewJoinToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	token := c.sign(c.AdminKey, c.event(nhi.ID{}, c.Admin, ledger.KindJoinTokenAdd, &ledger.JoinTokenBody{
		Token: digest, Role: registry.RoleVoter, Expires: time.Now().Add(time.Hour).UnixNano(),
	}))
	go func() {
		_, err := cretov1.NewEventServiceClient(admin).Submit(t.Context(), &cretov1.SubmitRequest{Tenant: make([]byte, 16), Envelopes: []*cretov1.Envelope{token}})
		other <- err
	}()
	eventually(t, "the other log's event waits for its turn", func() bool { _, n := s.edge.Load(); return n == 2 })
	release()
	if err := <-other; err != nil {
		t.Errorf("another log: got %v, want it taken", err)
	}
	back := []*cretov1.SubmitRequest{first.call}
	for range len(calls) - 1 {
		a := <-answers
		if status.Code(a.err) == codes.ResourceExhausted {
			back = append(back, a.call)
			continue
		}
		accepted(a)
	}
	for _, call := range back {
		submit(call)
		accepted(<-answers)
	}
	t.Logf("%d of %d calls were pushed back", len(back), len(calls))
}
