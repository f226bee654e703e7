package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	sandboxkind "github.com/creto-systems/creto/sandbox/kind"
)

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if poll(ctx, ok) != nil {
		t.Fatalf("%s: not within 15s", what)
	}
}

// Every method of the API has a rule, and every rule a method.
func TestMethodTable(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	registered := make(map[string]bool)
	for service, info := range c.Servers()[0].grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			registered["/"+service+"/"+m.Name] = true
		}
	}
	for m := range registered {
		if methods[m] == accessNobody {
			t.Errorf("%s has no line in the table", m)
		}
	}
	for m := range methods {
		if !registered[m] {
			t.Errorf("%s stands in the table and is not served", m)
		}
	}
}

// Whoever may not see a tenant gets, from every method that names one, byte for byte the answer of a tenant that does not
// exist.
func TestTenantIsolation(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	unknown := nhi.ID{1, 2, 3}
	callers := map[string]*grpc.ClientConn{
		"nobody":        c.dial(0, "", false),
		"foreign token": c.dial(0, "creto-read-00", false),
		"long token":    c.dial(0, strings.Repeat("x", maxToken+1), false),
	}
	service, _ := c.register(c.dial(0, c.ReadToken, false), registry.Service)
	for name, p := range map[string]spiffe.Principal{
		"an SVID of another tenant":      {Tenant: nhi.ID{9}, Role: spiffe.RoleService, ID: service},
		"an SVID of an unknown identity": {Tenant: c.Tenant, Role: spiffe.RoleService, ID: nhi.ID{9}},
		"an SVID of another role":        {Tenant: c.Tenant, Role: spiffe.RoleAgent, ID: service},
		"the right SVID":                 {Tenant: c.Tenant, Role: spiffe.RoleService, ID: service},
	} {
		p.TrustDomain = "dev.creto.internal"
		files, _, err := IssueSVID(c.CADir, filepath.Join(t.TempDir(), "svid"), p, time.Hour, time.Now())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		src, err := spiffe.OpenSource(time.Now, p.TrustDomain, files)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		callers[name] = c.dialAs(0, src, "", true)
	}
	if _, err := cretov1.NewIdentityServiceClient(callers["the right SVID"]).GetTenant(t.Context(), &cretov1.GetTenantRequest{Tenant: c.Tenant[:]}); err != nil {
		t.Errorf("the right SVID: %v", err)
	}
	delete(callers, "the right SVID")
	for method, rule := range methods {
		if rule != accessTenant {
			continue
		}
		for name, cc := range callers {
			known := callAny(t, cc, method, c.Tenant)
			if status.Code(known) != codes.NotFound {
				t.Errorf("%s by %s: got %v, want not found", method, name, known)
			}
			if other := callAny(t, cc, method, unknown); other.Error() != known.Error() || !proto.Equal(status.Convert(other).Proto(), status.Convert(known).Proto()) {
				t.Errorf("%s by %s: got %v for a known and %v for an unknown tenant", method, name, known, other)
			}
			// The system log is not for tenants either.
			if sys := callAny(t, cc, method, nhi.ID{}); status.Code(sys) != codes.NotFound {
				t.Errorf("%s by %s on the system log: got %v, want not found", method, name, sys)
			}
		}
	}
	for method, rule := range methods {
		if rule == accessPublic || rule == accessTenant {
			continue
		}
		if err := callAny(t, callers["nobody"], method, nhi.ID{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s by nobody: got %v, want permission denied", method, err)
		}
	}
}

// callAny calls a method with a request that is well formed and names a tenant.
func callAny(t *testing.T, cc *grpc.ClientConn, method string, tenant nhi.ID) error {
	t.Helper()
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		t.Fatalf("find %s: %v", method, err)
	}
	md := d.(protoreflect.MethodDescriptor)
	req := dynamicpb.NewMessage(md.Input())
	fill(req, 0)
	if f := md.Input().Fields().ByName("tenant"); f != nil {
		req.Set(f, protoreflect.ValueOfBytes(tenant[:]))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if !md.IsStreamingServer() && !md.IsStreamingClient() {
		return cc.Invoke(ctx, method, req, dynamicpb.NewMessage(md.Output()))
	}
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil {
		return s.RecvMsg(dynamicpb.NewMessage(md.Output()))
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return s.RecvMsg(dynamicpb.NewMessage(md.Output()))
}

// fill gives required-looking bytes fields the length that validation wants, so that the answer is about authority.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsList() && f.Message() != nil && depth == 0 && f.Name() == "envelopes":
			e := m.NewField(f).List()
			el := e.NewElement()
			fill(el.Message(), depth+1)
			e.Append(el)
			m.Set(f, protoreflect.ValueOfList(e))
		case f.IsList() && f.Name() == "payloads":
			l := m.NewField(f).List()
			l.Append(protoreflect.ValueOfBytes([]byte{0xa0}))
			m.Set(f, protoreflect.ValueOfList(l))
		case f.IsList() || f.Message() != nil:
		case f.Kind() == protoreflect.BytesKind:
			n := 16
			if strings.Contains(string(f.Name()), "link") || strings.Contains(string(f.Name()), "key_id") {
				n = 32
			}
			m.Set(f, protoreflect.ValueOfBytes(make([]byte, n)))
		}
	}
}

// A follower forwards writes, and a linearizable read on any node sees them at once.
func TestForwardAndRead(t *testing.T) {
	c := startDev(t, DevConfig{})
	var conns []*grpc.ClientConn
	for i := range c.Servers() {
		conns = append(conns, c.dial(i, c.ReadToken, false))
	}
	service, key := c.register(conns[0], registry.Service)
	for round := range 6 {
		r := c.submit(conns[round%3], key, c.usage(service, 1))
		got, err := cretov1.NewEventServiceClient(conns[(round+1)%3]).GetEvent(t.Context(), &cretov1.GetEventRequest{Tenant: c.Tenant[:], Index: r.GetIndex()})
		if err != nil || !bytes.Equal(got.GetEvent().GetLeafHash(), r.GetLeafHash()) {
			t.Fatalf("round %d: got %v, %v, want the leaf just written", round, got, err)
		}
	}
	// The same event again, through every node: one leaf, one answer.
	e := c.usage(service, 7)
	first := c.submit(conns[0], key, e)
	for i := range conns {
		again := c.submit(conns[i], key, e)
		if again.GetIndex() != first.GetIndex() || again.GetState() != cretov1.Result_STATE_DUPLICATE {
			t.Errorf("again through node %d: got %v, want a duplicate of %d", i, again, first.GetIndex())
		}
	}
}

// A stopped cluster begins again where it was, on other ports, and a stopped leader is replaced.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	c := startDev(t, DevConfig{Dir: dir})
	cc := c.dial(0, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	r := c.submit(cc, key, c.usage(service, 5))

	leader := c.Leader()
	if err := c.StopNode(leader); err != nil {
		t.Fatalf("stop leader: %v", err)
	}
	start := time.Now()
	other := c.dial((leader+1)%3, c.ReadToken, false)
	c.submit(other, key, c.usage(service, 6))
	t.Logf("writes resume after %v", time.Since(start))
	if err := c.StartNode(context.WithoutCancel(t.Context()), leader); err != nil {
		t.Fatalf("start node: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}

	again := startDev(t, DevConfig{Dir: dir})
	if again.LedgerID != c.LedgerID || again.Tenant != c.Tenant {
		t.Errorf("got ledger %x, tenant %s, want those of before", again.LedgerID, again.Tenant)
	}
	got, err := cretov1.NewEventServiceClient(again.dial(2, c.ReadToken, false)).GetEvent(t.Context(), &cretov1.GetEventRequest{Tenant: c.Tenant[:], Index: r.GetIndex()})
	if err != nil || !bytes.Equal(got.GetEvent().GetLeafHash(), r.GetLeafHash()) {
		t.Errorf("after the restart: got %v, %v, want the leaf of before", got, err)
	}
}

// A founder that has lost its Raft log must not vote as if it had never voted.
func TestLostLog(t *testing.T) {
	dir := t.TempDir()
	c := startDev(t, DevConfig{Dir: dir, Nodes: 1})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"raft", "state"} {
		if err := os.RemoveAll(filepath.Join(dir, "node1", name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := StartDev(t.Context(), DevConfig{Dir: dir, Nodes: 1}); err == nil || !strings.Contains(err.Error(), "must not vote again") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// joinToken puts a new token of a role on the log.
func (c *cluster) joinToken(admin *grpc.ClientConn, role registry.Role) string {
	c.t.Helper()
	token, digest, err := NewJoinToken(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	c.submit(admin, c.AdminKey, c.event(nhi.ID{}, c.Admin, ledger.KindJoinTokenAdd, &ledger.JoinTokenBody{
		Token: digest, Role: role, Expires: time.Now().Add(time.Hour).UnixNano(),
	}))
	return token
}

// join joins with a token of its own, which it leaves in j. Where the leadership moves underway, and whether the token is used
// up nobody knows, it asks again, as an operator would.
func (c *cluster) join(admin *grpc.ClientConn, j *JoinConfig) *JoinResult {
	c.t.Helper()
	j.Token = c.joinToken(admin, joinRoles[first(j.Role, "voter")])
	for {
		joined, err := JoinCluster(c.t.Context(), *j)
		if err == nil {
			return joined
		}
		if status.Code(err) != codes.Unavailable {
			c.t.Fatalf("join: %v", err)
		}
	}
}

// A node joins by a token, which works once; it replays the log, gets a vote and replaces a node that is lost.
func TestJoinAndReplace(t *testing.T) {
	c := startDev(t, DevConfig{})
	admin := c.dial(0, "", true)
	bundle, err := os.ReadFile(c.AdminSVID.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	ls, err := (&Dev{cfg: DevConfig{Nodes: 1}}).listen()
	if err != nil {
		t.Fatal(err)
	}
	join := JoinConfig{
		Addr: c.Servers()[1].GRPCAddr(), Bundle: bundle, Dir: filepath.Join(t.TempDir(), "node4"),
		Node: Config{
			Listen:    ListenConfig{Peer: ls[0].Peer.Addr().String(), GRPC: ls[0].GRPC.Addr().String(), Read: ls[0].Read.Addr().String(), Metrics: ls[0].Metrics.Addr().String()},
			PlainRead: true, PlainMetrics: true, Raft: devRaft,
		},
	}
	wrong := join
	wrong.Dir, wrong.Token = t.TempDir(), joinTokenPrefix+hex.EncodeToString(make([]byte, 32))
	if _, err := JoinCluster(t.Context(), wrong); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("join with a wrong token: got %v, want denied", err)
	}
	joined := c.join(admin, &join)
	again := join
	again.Dir = t.TempDir()
	if _, err := JoinCluster(t.Context(), again); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("join with a used token: got %v, want denied", err)
	}
	change := func(op ledger.MemberOp, node nhi.ID, address string) error {
		t.Helper()
		resp, err := cretov1.NewClusterServiceClient(admin).ChangeMember(t.Context(), &cretov1.ChangeMemberRequest{
			Envelope: c.sign(c.AdminKey, c.event(nhi.ID{}, c.Admin, ledger.KindMember, &ledger.MemberBody{Op: op, Node: node, Address: address})),
		})
		if err != nil {
			return err
		}
		if resp.GetResult().GetOutcome() != "accepted" {
			return refuse(KindConflict, "refused: %s", resp.GetResult().GetOutcome())
		}
		return nil
	}
	if err := change(ledger.MemberAdd, joined.NodeID, ls[0].Peer.Addr().String()); err != nil {
		t.Fatalf("add: %v", err)
	}
	cfg, err := LoadConfig(filepath.Join(joined.Dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	expires := c.shortLived(filepath.Join(joined.Dir, svidDir))
	cfg.Listen.Admin = "off"
	s, err := New(*cfg, Options{Clock: c.Clock, Logger: c.cfg.Logger, Listeners: ls[0]})
	if err != nil {
		t.Fatalf("new node: %v", err)
	}
	c.run(context.WithoutCancel(t.Context()), 3, s)
	select {
	case <-s.Ready():
	case <-c.running()[3].done:
		t.Fatalf("new node: %v", c.running()[3].err)
	}
	eventually(t, "promotion", func() bool { return change(ledger.MemberPromote, joined.NodeID, "") == nil })
	eventually(t, "renewal of its SVID", func() bool { return s.source.SVID().Certificate().NotAfter.After(expires.Add(24 * time.Hour)) })

	before := c.audit(admin)

	// Node 2 is lost: remove it from the configuration and from the ledger.
	lost := c.Servers()[2].ID()
	if err := c.StopNode(2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "removal", func() bool { return change(ledger.MemberRemove, lost, "") == nil })
	c.submit(admin, c.AdminKey, c.event(nhi.ID{}, c.Admin, ledger.KindNodeRemove, &ledger.NodeRemoveBody{ID: lost}))
	if _, err := c.renew(0, svidFiles(filepath.Join(c.cfg.Dir, "node3", svidDir)), nil); status.Code(err) != codes.PermissionDenied {
		t.Errorf("renewal by a removed node: got %v, want denied", err)
	}
	if _, err := c.renew(3, svidFiles(filepath.Join(joined.Dir, svidDir)), nil); status.Code(err) != codes.Unavailable {
		t.Errorf("renewal by a node without the CA: got %v, want unavailable", err)
	}

	// Two of the three voters of now are needed: stop one founder, and the new node must count.
	if err := c.StopNode(1); err != nil {
		t.Fatal(err)
	}
	cc := c.dial(3, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	r := c.submit(cc, key, c.usage(service, 9))
	proof, err := cretov1.NewLedgerServiceClient(cc).GetProof(t.Context(), &cretov1.GetProofRequest{Tenant: c.Tenant[:], Index: r.GetIndex(), Wait: true})
	if err != nil || len(proof.GetFile()) == 0 {
		t.Errorf("proof after the replacement: got %v", err)
	}
	c.auditAgain(admin, before, lost, joined.NodeID)
	st, err := cretov1.NewClusterServiceClient(admin).Status(t.Context(), &cretov1.StatusRequest{})
	if err != nil || len(st.GetMembers()) != 3 || st.GetFailureTolerance() != 1 {
		t.Errorf("status: got %v, %v, want three voters", st, err)
	}
}

// The clock of a test ledger moves for all nodes, and timers follow it.
func TestSetClock(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	admin := cretov1.NewClusterServiceClient(c.dial(0, "", true))
	before := c.Clock.Now()
	r, err := admin.SetClock(t.Context(), &cretov1.SetClockRequest{AdvanceNs: int64(48 * time.Hour), Freeze: true})
	if err != nil || !r.GetFrozen() || r.GetTimeNs() < before.Add(48*time.Hour).UnixNano() {
		t.Fatalf("advance: got %v, %v", r, err)
	}
	if _, err := admin.SetClock(t.Context(), &cretov1.SetClockRequest{AdvanceNs: -1}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("backwards: got %v, want invalid", err)
	}
	cc := c.dial(0, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	if got := c.submit(cc, key, c.usage(service, 1)).GetTimeNs(); got < before.Add(48*time.Hour).UnixNano() {
		t.Errorf("stamp: got %v, want two days later than %v", time.Unix(0, got), before)
	}
}

// A sandbox node's SVID opens the sandbox stream and nothing that is for voters.
func TestJoinSandbox(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	admin := c.dial(0, "", true)
	bundle, err := os.ReadFile(c.AdminSVID.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	join := JoinConfig{Addr: c.Servers()[0].GRPCAddr(), Token: c.joinToken(admin, registry.RoleSandbox), Bundle: bundle, Dir: filepath.Join(t.TempDir(), "s"), Role: "voter"}
	if _, err := JoinCluster(t.Context(), join); status.Code(err) != codes.PermissionDenied {
		t.Errorf("join in another role: got %v, want denied", err)
	}
	join.Role, join.Dir = "sandbox", filepath.Join(t.TempDir(), "s")
	joined := c.join(admin, &join)
	if _, err := os.Stat(filepath.Join(joined.Dir, logSeedFile)); err == nil {
		t.Error("a sandbox node was given the log key")
	}
	c.AdminSVID = svidFiles(filepath.Join(joined.Dir, svidDir))
	node := c.dial(0, "", true) // as the node
	if err := callAny(t, node, cretov1.SandboxService_Connect_FullMethodName, c.Tenant); status.Code(err) == codes.PermissionDenied {
		t.Errorf("sandbox stream: got %v, want it open", err)
	}
	for _, m := range []string{cretov1.NodeService_ReadIndex_FullMethodName, cretov1.ClusterService_Status_FullMethodName, cretov1.NodeService_Forward_FullMethodName} {
		if err := callAny(t, node, m, c.Tenant); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s by a sandbox node: got %v, want denied", m, err)
		}
	}
	source, err := spiffe.OpenSource(time.Now, "dev.creto.internal", c.AdminSVID)
	if err != nil {
		t.Fatal(err)
	}
	want := spiffe.Principal{TrustDomain: "dev.creto.internal", System: true, Role: spiffe.RoleSandbox, ID: joined.NodeID}
	if got := source.SVID().Principal(); got != want {
		t.Errorf("SVID: got %v, want %v", got, want)
	}
	// It reads no log, not even that of a tenant it serves.
	for round, serves := range []bool{false, true} {
		for m, rule := range methods {
			submit := m == cretov1.EventService_Submit_FullMethodName
			if rule != accessTenant || submit && serves {
				continue
			}
			if err := callAny(t, node, m, c.Tenant); status.Code(err) != codes.NotFound {
				t.Errorf("%s by a sandbox node, serves %t: got %v, want not found", m, serves, err)
			}
		}
		if round == 0 {
			c.offer(node, joined)
		}
	}
	if err := callAny(t, node, cretov1.EventService_Submit_FullMethodName, c.Tenant); status.Code(err) == codes.NotFound {
		t.Errorf("submit for a tenant it serves: got %v", err)
	}
	if err := callAny(t, node, cretov1.EventService_Submit_FullMethodName, nhi.ID{}); status.Code(err) != codes.NotFound {
		t.Errorf("submit to the system log: got %v, want not found", err)
	}
	anybody := func(spiffe.Principal) error { return nil }
	// The peer listener does not let it in: TLS 1.3 tells the client with the first read.
	conn, err := tls.Dial("tcp", c.Servers()[0].PeerAddr(), spiffe.ClientTLS(source, anybody))
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err = conn.Read(make([]byte, 1)); !isAlert(err) {
			t.Errorf("peer listener: got %v, want the connection refused", err)
		}
		_ = conn.Close()
	}
	// It cannot pose as the server that one joins through: no token is sent to it.
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := grpc.NewServer(grpc.Creds(credentials.NewTLS(spiffe.ServerTLS(source, anybody, false))), grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		t.Error("a call reached a sandbox node that posed as a voter")
		return nil
	}))
	go func() { _ = fake.Serve(lis) }()
	defer fake.Stop()
	join.Addr, join.Dir = lis.Addr().String(), filepath.Join(t.TempDir(), "t")
	if _, err := JoinCluster(t.Context(), join); status.Code(err) != codes.Unavailable {
		t.Errorf("join through a sandbox node: got %v, want no connection", err)
	}
}

// offer registers a sandbox node in the tenant, as its agent does.
func (c *cluster) offer(cc *grpc.ClientConn, joined *JoinResult) {
	c.t.Helper()
	k, _, err := keyfile.Read(filepath.Join(joined.Dir, nodeKeyFile), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := k.Private()
	if err != nil {
		c.t.Fatal(err)
	}
	body := &sandboxkind.NodeBody{Node: k.ID, Classes: []sandboxkind.Class{sandboxkind.Process}, Capacity: 1, TTL: int64(time.Minute)}
	raw, err := proto.Marshal(&cretov1.SubmitRequest{Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{c.sign(key, c.event(c.Tenant, k.ID, sandboxkind.Node, body))}})
	if err != nil {
		c.t.Fatal(err)
	}
	stream, err := cretov1.NewSandboxServiceClient(cc).Connect(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range []*cretov1.NodeMessage{
		{Message: &cretov1.NodeMessage_Hello{Hello: &cretov1.NodeHello{NodeId: k.ID[:], Tenant: c.Tenant[:]}}},
		{Message: &cretov1.NodeMessage_Report{Report: &cretov1.NodeReport{SubmitRequest: raw}}},
	} {
		if err := stream.Send(m); err != nil {
			c.t.Fatal(err)
		}
	}
	m, err := stream.Recv()
	if err != nil || m.GetAck() == nil || m.GetAck().GetError() != "" {
		c.t.Fatalf("register a sandbox node: got %v, %v, want an acknowledgement", m, err)
	}
	if err := stream.CloseSend(); err != nil {
		c.t.Fatal(err)
	}
}

func isAlert(err error) bool {
	var alert tls.AlertError
	op, ok := errors.AsType[*net.OpError](err)
	return errors.As(err, &alert) || ok && op.Op == "remote error" || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}
