package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// pending is a stream whose request comes when body is closed, or never.
type pending struct {
	grpc.ServerStream
	ctx  context.Context
	body chan struct{}
}

func (p *pending) RecvMsg(m any) error {
	select {
	case <-p.body:
		m.(*cretov1.SubmitRequest).Tenant = make([]byte, 1000)
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// What requests may take up is set aside before they are read; who does not send, or finds no room, is told so in time, and
// everything comes back.
func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(2 * maxMessage)
		ctx, end := context.WithCancel(t.Context())
		came := make(chan struct{})
		close(came)
		read := func(c *connState, call *admitted, body chan struct{}) error {
			call.pool = a.clients
			return a.read(t.Context(), c, call, &pending{ctx: ctx, body: body}, new(cretov1.SubmitRequest))
		}
		var good admitted
		if err := read(newConnState(nil), &good, came); err != nil || good.held < 1000 || good.held > 2000 {
			t.Fatalf("read: got %v, %d bytes held, want those of the request", err, good.held)
		}
		good.done()
		// Two that never send hold all room until they are given up on.
		slow := make(chan error)
		for range 2 {
			go func() { slow <- read(newConnState(nil), new(admitted), nil) }()
		}
		synctest.Wait()
		start := time.Now()
		if err := read(newConnState(nil), new(admitted), came); !errors.Is(err, errCrowded) || time.Since(start) != readWait {
			t.Errorf("without room: got %v after %v, want %v after %v", err, time.Since(start), errCrowded, readWait)
		}
		for range 2 {
			if err := <-slow; !errors.Is(err, errSlowBody) || time.Since(start) != bodyTimeout {
				t.Errorf("late body: got %v after %v, want %v after %v", err, time.Since(start), errSlowBody, bodyTimeout)
			}
		}
		end() // as gRPC does when the handlers have returned
		synctest.Wait()
		if !a.clients.TryAcquire(2 * maxMessage) {
			t.Error("bytes were not given back")
		}
		a.clients.Release(2 * maxMessage)

		// One connection reads maxReading requests at a time, however much room there is.
		a = newAdmission(100 * maxMessage)
		ctx, end = context.WithCancel(t.Context())
		c := newConnState(nil)
		for range maxReading {
			go func() { slow <- read(c, new(admitted), nil) }()
		}
		synctest.Wait()
		if err := read(c, new(admitted), came); !errors.Is(err, errCrowded) {
			t.Errorf("same connection: got %v, want %v", err, errCrowded)
		}
		if err := read(newConnState(nil), new(admitted), came); err != nil {
			t.Errorf("another connection: got %v", err)
		}
		end()
		for range maxReading {
			if err := <-slow; !errors.Is(err, context.Canceled) {
				t.Errorf("ended call: got %v", err)
			}
		}

		// Those that wait are bounded too.
		for range maxWaiting {
			a.waiting <- struct{}{}
		}
		if err := read(newConnState(nil), new(admitted), came); !errors.Is(err, errCrowded) {
			t.Errorf("too many wait: got %v, want %v", err, errCrowded)
		}
	})
}

// Who shows nothing is answered before its request is read, and holds few calls at once.
func TestAnonymous(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	cc := c.dial(0, "", false)
	for method, want := range map[string]codes.Code{
		cretov1.EventService_Submit_FullMethodName:        codes.NotFound,
		cretov1.NodeService_Forward_FullMethodName:        codes.PermissionDenied,
		cretov1.ClusterService_Status_FullMethodName:      codes.PermissionDenied,
		cretov1.SandboxService_Connect_FullMethodName:     codes.PermissionDenied,
		cretov1.EventService_TailEvents_FullMethodName:    codes.NotFound,
		cretov1.MeterService_QueryUsage_FullMethodName:    codes.NotFound,
		cretov1.ClusterService_SetClock_FullMethodName:    codes.PermissionDenied,
		cretov1.OversightService_GetPolicy_FullMethodName: codes.NotFound,
	} {
		s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		// Nothing is sent.
		if err := s.RecvMsg(new(cretov1.SubmitResponse)); status.Code(err) != want {
			t.Errorf("%s without a request: got %v, want %v", method, err, want)
		}
	}
	var streams []healthpb.Health_WatchClient
	for range maxAnonymous {
		s, err := healthpb.NewHealthClient(cc).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatalf("watch %d: %v", len(streams), err)
		}
		streams = append(streams, s)
	}
	if _, err := cretov1.NewLedgerServiceClient(cc).GetTrust(t.Context(), &cretov1.GetTrustRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more call: got %v, want exhausted", err)
	}
	if _, err := cretov1.NewLedgerServiceClient(c.dial(0, "", false)).GetTrust(t.Context(), &cretov1.GetTrustRequest{}); err != nil {
		t.Errorf("on another connection: got %v", err)
	}
}

// tenantOf is a request that names these bytes as its tenant.
type tenantOf []byte

func (t tenantOf) GetTenant() []byte { return t }

// A tenant has 16 bytes, whoever asks and whatever else has been checked before; none means the spine, to its two methods.
func TestTenantHasItsLength(t *testing.T) {
	g := new(guard)
	for method, rule := range methods {
		if rule != accessTenant {
			continue
		}
		spine := method == cretov1.LedgerService_GetHeads_FullMethodName || method == cretov1.LedgerService_GetConsistency_FullMethodName
		for size, ok := range map[int]bool{0: spine, 1: false, 15: false, 16: true, 17: false, 32: false} {
			err := g.allowRequest(t.Context(), caller{local: true}, method, make(tenantOf, size))
			if refused, _ := errors.AsType[*Error](err); ok && err != nil || !ok && (refused == nil || refused.Kind != KindInvalid) {
				t.Errorf("%s for a tenant of %d bytes: got %v, want allowed %t, otherwise invalid", method, size, err, ok)
			}
		}
		if err := g.allowRequest(t.Context(), caller{local: true}, method, struct{}{}); err == nil {
			t.Errorf("%s without a tenant: got it allowed", method)
		}
	}
}

// Connections that say nothing yield to new ones; those of the cluster's own stay.
func TestListenerYields(t *testing.T) {
	ca, err := spiffe.NewCA(rand.Reader, "creto.test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := ca.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	source := func(role spiffe.Role, id byte) *spiffe.Source {
		svid, err := ca.NewSVID(spiffe.Order{Principal: systemPrincipal("creto.test", role, nhi.ID{id})}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s, err := spiffe.NewSource(time.Now, svid, bundle)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	anybody := func(spiffe.Principal) error { return nil }
	g := grpc.NewServer(grpc.Creds(serverCreds{credentials.NewTLS(spiffe.ServerTLS(source(spiffe.RoleNode, 1), anybody, false))}))
	go func() { _ = g.Serve(newLimitListener(lis, 3, true)) }()
	defer g.Stop()
	dial := func(cfg *tls.Config) *tls.Conn {
		cfg.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", lis.Addr().String(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil { // the server's settings: its handshake is done
			t.Fatal(err)
		}
		return conn
	}
	anonymous := source(spiffe.RoleNode, 2)
	silent := func() *tls.Config { return spiffe.AnonymousClientTLS(anonymous, anybody) }
	kept := dial(spiffe.ClientTLS(source(spiffe.RoleNode, 3), anybody))
	first := dial(silent())
	for range 5 {
		dial(silent())
	}
	if _, err := io.Copy(io.Discard, first); isTimeout(err) {
		t.Error("the oldest silent connection is still open")
	}
	_ = kept.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := io.Copy(io.Discard, kept); !isTimeout(err) {
		t.Errorf("the node's connection: got %v, want it open", err)
	}
}

// A connection outlives neither the SVID it was made with, nor the bundle that trusted it.
func TestConnectionPrincipal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := spiffe.NewCA(rand.Reader, "creto.test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := ca.Bundle()
		if err != nil {
			t.Fatal(err)
		}
		p := systemPrincipal("creto.test", spiffe.RoleAdmin, nhi.ID{1})
		svid, err := ca.NewSVID(spiffe.Order{Principal: p, TTL: spiffe.MinTTL}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		source, err := spiffe.NewSource(time.Now, nil, bundle)
		if err != nil {
			t.Fatal(err)
		}
		raw, far := net.Pipe()
		defer far.Close()
		c, state := newConnState(raw), tlsState{HandshakeComplete: true, Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{svid.Certificate()}}
		if got, err := c.principal(source, state); err != nil || got != p {
			t.Fatalf("got %v, %v, want %v", got, err, p)
		}
		time.Sleep(spiffe.MinTTL + time.Second)
		if got, err := c.principal(source, state); err == nil {
			t.Errorf("after its end: got %v", got)
		}
		if _, err := raw.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("connection: got %v, want it closed", err)
		}
	})
}

// A token that is removed ends what it has opened.
func TestRemovedToken(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	cc := c.dial(0, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	const second = "creto-read-second"
	body := &ledger.ReadTokenBody{Token: sha256.Sum256([]byte(second)), Expires: time.Now().Add(time.Hour).UnixNano()}
	c.submit(cc, c.AuthorityKey, c.event(c.Tenant, c.Authority, ledger.KindReadTokenAdd, body))
	stream, err := cretov1.NewEventServiceClient(c.dial(0, second, false)).TailEvents(t.Context(), &cretov1.TailEventsRequest{Tenant: c.Tenant[:], Filter: &cretov1.EventFilter{FromIndex: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatalf("tail: %v", err)
	}
	removed := c.submit(cc, c.AuthorityKey, c.event(c.Tenant, c.Authority, ledger.KindReadTokenRemove, &ledger.ReadTokenBody{Token: body.Token}))
	c.submit(cc, key, c.usage(service, 1))
	for {
		e, err := stream.Recv()
		if err == nil && e.GetIndex() >= removed.GetIndex() {
			t.Fatalf("leaf %d was sent after the token was removed at %d", e.GetIndex(), removed.GetIndex())
		}
		if err != nil {
			if status.Code(err) != codes.NotFound {
				t.Errorf("tail: got %v, want not found", err)
			}
			return
		}
	}
}

// An admin whose identity is revoked administers no longer, whatever its certificate says.
func TestRevokedAdmin(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	admin := c.dial(0, "", true)
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := newID(t)
	ca, err := spiffe.LoadCA(filepath.Join(c.Dir, caDir), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := ca.Bundle()
	if err != nil {
		t.Fatal(err)
	}
	svid, err := ca.NewSVID(spiffe.Order{Principal: systemPrincipal("dev.creto.internal", spiffe.RoleAdmin, id)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	source, err := spiffe.NewSource(time.Now, svid, bundle)
	if err != nil {
		t.Fatal(err)
	}
	cc := c.dialAs(0, source, "", true)
	call := func() codes.Code {
		_, err := cretov1.NewClusterServiceClient(cc).Status(t.Context(), &cretov1.StatusRequest{})
		if sys := callAny(t, cc, cretov1.EventService_ListEvents_FullMethodName, c.Tenant); (status.Code(sys) == codes.NotFound) != (err != nil) {
			t.Errorf("list events: got %v beside %v", sys, err)
		}
		return status.Code(err)
	}
	if got := call(); got != codes.PermissionDenied {
		t.Errorf("before it is registered: got %v, want denied", got)
	}
	reg, err := registry.NewRegistration(key, c.LedgerID, nhi.ID{}, id, registry.Admin)
	if err != nil {
		t.Fatal(err)
	}
	c.submit(admin, c.AdminKey, c.event(nhi.ID{}, c.Admin, registry.KindRegister, reg))
	if got := call(); got != codes.OK {
		t.Errorf("registered: got %v, want OK", got)
	}
	c.submit(admin, c.AdminKey, c.event(nhi.ID{}, c.Admin, registry.KindRevoke, &registry.StatusBody{ID: id, Reason: "test"}))
	if got := call(); got != codes.PermissionDenied {
		t.Errorf("revoked: got %v, want denied", got)
	}
}
