package creto

import (
	"context"
	"crypto/rand"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

const testDomain = "test.internal"

func newCA(t testing.TB) *spiffe.CA {
	t.Helper()
	ca, err := spiffe.NewCA(rand.Reader, testDomain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func bundleOf(t testing.TB, ca *spiffe.CA) *spiffe.Bundle {
	t.Helper()
	b, err := ca.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fakeNode is a node whose answers a test says.
type fakeNode struct {
	cretov1.UnimplementedEventServiceServer
	cretov1.UnimplementedClusterServiceServer
	addr string

	mu      sync.Mutex
	submit  func(n int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) // n counts calls from 1
	calls   []*cretov1.SubmitRequest
	tokens  []string
	changes int
}

func (f *fakeNode) Submit(ctx context.Context, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r)
	md, _ := metadata.FromIncomingContext(ctx)
	f.tokens = append(f.tokens, md.Get("authorization")...)
	return f.submit(len(f.calls), r)
}

func (f *fakeNode) ChangeMember(context.Context, *cretov1.ChangeMemberRequest) (*cretov1.ChangeMemberResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	return nil, status.Error(codes.Unavailable, "no leader")
}

// startNode starts a server with the SVID of a node, or of another role.
func startNode(t testing.TB, ca *spiffe.CA, role spiffe.Role, register func(*grpc.Server)) string {
	t.Helper()
	id, err := nhi.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	principal := spiffe.Principal{TrustDomain: testDomain, System: true, Role: role, ID: id}
	if role != spiffe.RoleNode {
		principal.System, principal.Tenant = false, nhi.ID{1}
	}
	svid, err := ca.NewSVID(spiffe.Order{Principal: principal, TTL: time.Hour, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	source, err := spiffe.NewSource(time.Now, svid, bundleOf(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(spiffe.ServerOnlyTLS(source))))
	register(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

func newFakeNode(t testing.TB, ca *spiffe.CA, submit func(n int, r *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error)) *fakeNode {
	t.Helper()
	f := &fakeNode{submit: submit}
	f.addr = startNode(t, ca, spiffe.RoleNode, func(s *grpc.Server) {
		cretov1.RegisterEventServiceServer(s, f)
		cretov1.RegisterClusterServiceServer(s, f)
	})
	return f
}

func dial(t testing.TB, ca *spiffe.CA, o Options) *Client {
	t.Helper()
	o.CAPEM = bundleOf(t, ca).PEM()
	c, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// accept answers that each event was sequenced, or what state says of each.
func accept(r *cretov1.SubmitRequest, state ...cretov1.Result_State) *cretov1.SubmitResponse {
	resp := &cretov1.SubmitResponse{Height: "sequenced"}
	for _, e := range r.GetEnvelopes() {
		for range e.GetPayloads() {
			s := cretov1.Result_STATE_SEQUENCED
			if i := len(resp.Results); i < len(state) {
				s = state[i]
			}
			resp.Results = append(resp.Results, &cretov1.Result{State: s, Index: uint64(len(resp.Results)), LeafHash: make([]byte, 32), TimeNs: 1})
		}
	}
	return resp
}

func unavailable() error { return status.Error(codes.Unavailable, "no leader") }

func pushback(t testing.TB) error {
	s, err := status.New(codes.ResourceExhausted, "too many").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

func newAgent(t testing.TB, c *Client) *Agent {
	t.Helper()
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAgent(AgentConfig{Client: c, Signer: key, ID: nhi.ID{1}, Tenant: nhi.ID{2}, LedgerID: nhi.Digest{3}, Account: nhi.ID{4}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
