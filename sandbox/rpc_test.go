package sandbox

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	"github.com/creto-systems/creto/sandbox/kind"
)

// served is a world behind the service.
type served struct {
	*world
	mu     sync.Mutex // of the fixture
	peer   nhi.ID     // whose SVID connections present; zero = none
	client cretov1.SandboxServiceClient
	err    error // what Submit says, if set
	asked  int   // calls of Submit
}

func serve(t *testing.T) *served {
	t.Helper()
	s := &served{world: newWorld(t)}
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true)) // a handler must not outlive the log it reads
	New(charger{s.world}).RegisterService(server, ServiceConfig{
		Reads: s, Changes: s, Submitter: s,
		Peer: func(context.Context) (nhi.ID, bool) { return s.peer, !s.peer.IsZero() },
	})
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///sandbox", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(conn.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	s.client = cretov1.NewSandboxServiceClient(conn)
	return s
}

func (s *served) Snapshot(_ context.Context, tenant nhi.ID, _ cretov1.Consistency, fn func(*ledger.Snapshot, ledger.Tenant, *cretov1.ReadInfo) error) error {
	snap, err := s.Log.Read()
	if err != nil {
		return err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return status.Error(codes.NotFound, "not found")
	}
	return ledger.Guard(func() error { return fn(snap, t, &cretov1.ReadInfo{TimeNs: snap.Time()}) })
}

func (s *served) Changed(context.Context, nhi.ID) <-chan struct{} { return s.Log.Applied() }

func (s *served) Submit(_ context.Context, tenant nhi.ID, subs []edge.Submission) (out []edge.Result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.err != nil {
		return nil, s.err
	}
	for _, sub := range subs {
		raw, err := sub.Envelope.Encode()
		if err != nil {
			return nil, err
		}
		for _, r := range s.SubmitSigned(tenant, len(sub.Envelope.Payloads), raw) {
			out = append(out, edge.Result{EventResult: r})
		}
	}
	return out, nil
}

// request is events of a node as a report carries them.
func (s *served) request(tenant nhi.ID, events ...ledgertest.Signed) []byte {
	s.t.Helper()
	env, err := nhi.DecodeEnvelope(s.SignBatch(events...))
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := proto.Marshal(&cretov1.SubmitRequest{Tenant: tenant[:], Envelopes: []*cretov1.Envelope{{
		Payloads: env.Payloads, KeyId: env.KeyID[:], Signature: env.Signature, Batch: env.Batch,
	}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

func hello(node, tenant nhi.ID) *cretov1.NodeMessage {
	return &cretov1.NodeMessage{Message: &cretov1.NodeMessage_Hello{Hello: &cretov1.NodeHello{NodeId: node[:], Tenant: tenant[:]}}}
}

func reported(sequence uint64, raw []byte) *cretov1.NodeMessage {
	return &cretov1.NodeMessage{Message: &cretov1.NodeMessage_Report{Report: &cretov1.NodeReport{Sequence: sequence, SubmitRequest: raw}}}
}

func (s *served) connect(messages ...*cretov1.NodeMessage) cretov1.SandboxService_ConnectClient {
	s.t.Helper()
	stream, err := s.client.Connect(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			s.t.Fatal(err)
		}
	}
	return stream
}

func recv(t testing.TB, stream cretov1.SandboxService_ConnectClient) *cretov1.ServerMessage {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConnectRefusesTheWrongNode(t *testing.T) {
	s := serve(t)
	n := s.node("n1")
	for name, tc := range map[string]struct {
		peer  nhi.ID
		first *cretov1.NodeMessage
		want  codes.Code
	}{
		"no SVID":        {nhi.ID{}, hello(n.ID, s.Tenant), codes.Unauthenticated},
		"another node":   {n.ID, hello(nhi.ID{1}, s.Tenant), codes.PermissionDenied},
		"no hello":       {n.ID, reported(1, nil), codes.InvalidArgument},
		"nothing":        {n.ID, &cretov1.NodeMessage{}, codes.InvalidArgument},
		"no tenant":      {n.ID, hello(n.ID, nhi.ID{}), codes.InvalidArgument},
		"unknown tenant": {n.ID, hello(n.ID, nhi.ID{9}), codes.NotFound},
		"short id": {n.ID, &cretov1.NodeMessage{Message: &cretov1.NodeMessage_Hello{Hello: &cretov1.NodeHello{
			NodeId: n.ID[:15], Tenant: s.Tenant[:],
		}}}, codes.PermissionDenied},
	} {
		s.peer = tc.peer
		if _, err := s.connect(tc.first).Recv(); status.Code(err) != tc.want {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
}

func TestConnectRefusesWhatIsNotTheNodesReport(t *testing.T) {
	s := serve(t)
	n, other := s.ready("n1", 1), s.node("n2")
	s.peer = n.ID
	mixed := s.request(s.Tenant, s.offer(n, 1, nil))
	var req cretov1.SubmitRequest
	if err := proto.Unmarshal(mixed, &req); err != nil {
		t.Fatal(err)
	}
	change := func(fn func(*cretov1.SubmitRequest)) []byte {
		r := proto.Clone(&req).(*cretov1.SubmitRequest)
		fn(r)
		raw, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	stream := s.connect(hello(n.ID, s.Tenant))
	asked := s.asked
	for name, raw := range map[string][]byte{
		"garbage":           []byte("\xff\xff\xff"),
		"empty":             nil,
		"too long":          make([]byte, maxReportBytes+1),
		"other tenant":      s.request(nhi.ID{9}, s.offer(n, 1, nil)),
		"no envelope":       change(func(r *cretov1.SubmitRequest) { r.Envelopes = nil }),
		"many envelopes":    change(func(r *cretov1.SubmitRequest) { r.Envelopes = make([]*cretov1.Envelope, 300) }),
		"key":               change(func(r *cretov1.SubmitRequest) { r.Envelopes[0].KeyId = []byte{1} }),
		"no payload":        change(func(r *cretov1.SubmitRequest) { r.Envelopes[0].Payloads = nil }),
		"malformed payload": change(func(r *cretov1.SubmitRequest) { r.Envelopes[0].Payloads[0] = []byte{0xa0} }),
		"salt": change(func(r *cretov1.SubmitRequest) {
			r.Envelopes[0].Addenda = []*cretov1.Addenda{{Items: []*cretov1.Addendum{{}}}}
		}),
		"addenda":         change(func(r *cretov1.SubmitRequest) { r.Envelopes[0].Addenda = make([]*cretov1.Addenda, 3) }),
		"another node":    s.request(s.Tenant, s.offer(other, 1, nil)),
		"a claim":         s.request(s.Tenant, s.claim(nil)),
		"an identity act": s.request(s.Tenant, s.Event(n, "identity.rotate", map[uint64]uint64{})),
	} {
		if err := stream.Send(reported(7, raw)); err != nil {
			t.Fatal(err)
		}
		ack := recv(t, stream).GetAck()
		if ack.GetSequence() != 7 || ack.GetError() == "" {
			t.Errorf("%s: got %v, want a final refusal", name, ack)
		}
	}
	if s.asked != asked {
		t.Errorf("%d of them went to the ledger", s.asked-asked)
	}
}

func TestConnectAllocatesAndAcknowledges(t *testing.T) {
	s := serve(t)
	n := s.ready("n1", 2)
	s.peer = n.ID
	s.mu.Lock()
	first := s.claimed(func(b *kind.ClaimBody) { b.Command = []string{"/hello", "a"} })
	s.mu.Unlock()
	stream := s.connect(hello(n.ID, s.Tenant))
	a := recv(t, stream).GetAllocation()
	if a.GetClaim() != first.Claim || strings.Join(a.GetCommand(), " ") != "/hello a" || a.GetIsolation() != "process" ||
		a.GetDeadlineNs() != first.Deadline || string(a.GetAgent()) != string(s.agent.ID[:]) || string(a.GetLinkId()) != string(s.link.ID[:]) {
		t.Errorf("got %v", a)
	}
	// One that comes while the stream is there is sent too, and none twice.
	s.mu.Lock()
	second := s.claimed(nil)
	s.mu.Unlock()
	if a := recv(t, stream).GetAllocation(); a.GetClaim() != second.Claim {
		t.Errorf("got %v, want claim %d", a, second.Claim)
	}
	s.mu.Lock()
	raw := s.request(s.Tenant, s.report(n, first.Claim, nil), s.usage(n, first.Claim))
	s.mu.Unlock()
	for range 2 { // the second one is a duplicate, which is as good as committed
		if err := stream.Send(reported(1, raw)); err != nil {
			t.Fatal(err)
		}
		if ack := recv(t, stream).GetAck(); ack.GetSequence() != 1 || ack.GetError() != "" {
			t.Errorf("got %v, want an acknowledgement", ack)
		}
	}
	// What the ledger refuses is final, and says why.
	s.mu.Lock()
	raw = s.request(s.Tenant, s.report(n, first.Claim, nil))
	s.mu.Unlock()
	if err := stream.Send(reported(2, raw)); err != nil {
		t.Fatal(err)
	}
	if ack := recv(t, stream).GetAck(); !strings.Contains(ack.GetError(), "closed: ") {
		t.Errorf("got %v, want the refusal's outcome and hint", ack)
	}
	// What could not be committed is not acknowledged: the stream ends.
	s.mu.Lock()
	s.err = status.Error(codes.Unavailable, "no leader")
	s.mu.Unlock()
	if err := stream.Send(reported(3, raw)); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, %v, want the stream to end with Unavailable", m, err)
	}
	// On a new stream only what still runs is sent again.
	stream = s.connect(hello(n.ID, s.Tenant))
	if a := recv(t, stream).GetAllocation(); a.GetClaim() != second.Claim {
		t.Errorf("got %v, want claim %d", a, second.Claim)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err == nil {
		t.Errorf("got %v after the node has closed the stream", m)
	}
}

func TestGetListAwait(t *testing.T) {
	s := serve(t)
	n := s.ready("n1", 1)
	var claims []uint64
	for range 3 {
		claims = append(claims, s.claimed(nil).Claim)
	}
	tenant := s.Tenant[:]
	got, err := s.client.GetSandbox(t.Context(), &cretov1.GetSandboxRequest{Tenant: tenant, Claim: claims[0]})
	if err != nil || got.GetSandbox().GetState() != "running" || string(got.GetSandbox().GetNode()) != string(n.ID[:]) || got.GetRead().GetTimeNs() == 0 {
		t.Errorf("got %v, %v", got, err)
	}
	// Await ends with its time if nothing comes,
	got, err = s.client.AwaitSandbox(t.Context(), &cretov1.GetSandboxRequest{Tenant: tenant, Claim: claims[0], TimeoutMs: 1})
	if err != nil || got.GetSandbox().GetState() != "running" || got.GetRead().GetTimeNs() == 0 {
		t.Errorf("got %v, %v", got, err)
	}
	// and with the report if it comes.
	done := make(chan string, 1)
	go func() {
		r, err := s.client.AwaitSandbox(t.Context(), &cretov1.GetSandboxRequest{Tenant: tenant, Claim: claims[0], TimeoutMs: 50_000})
		if err != nil {
			t.Error(err)
		}
		done <- r.GetSandbox().GetState()
	}()
	s.mu.Lock()
	s.Accepted(s.SubmitBatch(s.report(n, claims[0], func(r *kind.Run) { r.ExitCode = 2 }), s.usage(n, claims[0]))...)
	s.mu.Unlock()
	if state := <-done; state != "finished" {
		t.Errorf("got %q, want finished", state)
	}
	got, err = s.client.GetSandbox(t.Context(), &cretov1.GetSandboxRequest{Tenant: tenant, Claim: claims[0]})
	if p := got.GetSandbox(); err != nil || p.GetExitCode() != 2 || len(p.GetStatement()) == 0 || len(p.GetUsage()) != 2 || p.GetReportIndex() == 0 {
		t.Errorf("got %v, %v", got, err)
	}

	var listed []uint64
	for cursor, pages := "", 0; ; pages++ {
		r, err := s.client.ListSandboxes(t.Context(), &cretov1.ListSandboxesRequest{Tenant: tenant, PageSize: 2, Cursor: cursor})
		if err != nil || pages > 3 {
			t.Fatal(err, pages)
		}
		for _, p := range r.GetSandboxes() {
			listed = append(listed, p.GetClaim())
		}
		if cursor = r.GetNextCursor(); cursor == "" {
			break
		}
	}
	if want := []uint64{claims[2], claims[1], claims[0]}; !slices.Equal(listed, want) {
		t.Errorf("got %v, want %v, newest first", listed, want)
	}
	r, err := s.client.ListSandboxes(t.Context(), &cretov1.ListSandboxesRequest{Tenant: tenant, State: "claimed"})
	if err != nil || len(r.GetSandboxes()) != 1 || r.GetSandboxes()[0].GetClaim() != claims[2] || len(r.GetSandboxes()[0].GetNode()) != 0 {
		t.Errorf("got %v, %v, want the one that waits", r, err)
	}

	// Why a run did not finish is the node's word, and comes with it.
	const why = "program is not in the template"
	s.mu.Lock()
	s.Accepted(s.SubmitBatch(s.report(n, claims[1], func(r *kind.Run) {
		r.Status, r.Reason, r.ExitCode, r.MeasuredFrom = kind.Failed, why, kind.NoExitCode, ""
	}))...)
	s.mu.Unlock()
	got, err = s.client.GetSandbox(t.Context(), &cretov1.GetSandboxRequest{Tenant: tenant, Claim: claims[1]})
	if p := got.GetSandbox(); err != nil || p.GetState() != "failed" || p.GetReason() != why {
		t.Errorf("got %v, %v, want it failed because the %s", got, err, why)
	}

	for name, tc := range map[string]struct {
		call func() error
		want codes.Code
	}{
		"no such claim": {func() error {
			_, err := s.client.GetSandbox(t.Context(), &cretov1.GetSandboxRequest{Tenant: tenant, Claim: 1 << 60})
			return err
		}, codes.NotFound},
		"await no such claim": {func() error {
			_, err := s.client.AwaitSandbox(t.Context(), &cretov1.GetSandboxRequest{Tenant: tenant, Claim: 1 << 60, TimeoutMs: 5000})
			return err
		}, codes.NotFound},
		"no tenant": {func() error {
			_, err := s.client.GetSandbox(t.Context(), &cretov1.GetSandboxRequest{})
			return err
		}, codes.InvalidArgument},
		"state": {func() error {
			_, err := s.client.ListSandboxes(t.Context(), &cretov1.ListSandboxesRequest{Tenant: tenant, State: "odd"})
			return err
		}, codes.InvalidArgument},
		"cursor": {func() error {
			_, err := s.client.ListSandboxes(t.Context(), &cretov1.ListSandboxesRequest{Tenant: tenant, Cursor: "-1"})
			return err
		}, codes.InvalidArgument},
		"cursor of no claim": {func() error {
			_, err := s.client.ListSandboxes(t.Context(), &cretov1.ListSandboxesRequest{Tenant: tenant, Cursor: "0"})
			return err
		}, codes.InvalidArgument},
	} {
		if err := tc.call(); status.Code(err) != tc.want {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
}
