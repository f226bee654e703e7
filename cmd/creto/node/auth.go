package node

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// access says who may call a method.
type access uint8

const (
	accessNobody   access = iota // a method without a line in the table
	accessPublic                 // anybody who reaches the listener
	accessTenant                 // who may see the tenant that the request names; see spineMethods
	accessAdmin                  // an admin's SVID, or the admin socket
	accessOperator               // an admin, or a voter's SVID
	accessNode                   // a voter's SVID
	accessSandbox                // a sandbox node's SVID
)

// methods is the one table of who may call what. A test holds it against the registered services.
var methods = map[string]access{
	cretov1.EventService_Submit_FullMethodName:     accessTenant,
	cretov1.EventService_GetEvent_FullMethodName:   accessTenant,
	cretov1.EventService_ListEvents_FullMethodName: accessTenant,
	cretov1.EventService_TailEvents_FullMethodName: accessTenant,

	cretov1.LedgerService_GetHeads_FullMethodName:       accessTenant,
	cretov1.LedgerService_GetProof_FullMethodName:       accessTenant,
	cretov1.LedgerService_GetConsistency_FullMethodName: accessTenant,
	cretov1.LedgerService_Export_FullMethodName:         accessTenant,
	cretov1.LedgerService_GetTrust_FullMethodName:       accessPublic,

	cretov1.IdentityService_GetTenant_FullMethodName:      accessTenant,
	cretov1.IdentityService_GetIdentity_FullMethodName:    accessTenant,
	cretov1.IdentityService_ListIdentities_FullMethodName: accessTenant,
	cretov1.IdentityService_GetKey_FullMethodName:         accessTenant,
	cretov1.IdentityService_GetChain_FullMethodName:       accessTenant,

	cretov1.MeterService_GetQuota_FullMethodName:     accessTenant,
	cretov1.MeterService_QueryUsage_FullMethodName:   accessTenant,
	cretov1.MeterService_ListAccounts_FullMethodName: accessTenant,
	cretov1.MeterService_GetLease_FullMethodName:     accessTenant,

	cretov1.OversightService_GetPolicy_FullMethodName:     accessTenant,
	cretov1.OversightService_GetApproval_FullMethodName:   accessTenant,
	cretov1.OversightService_ListApprovals_FullMethodName: accessTenant,
	cretov1.OversightService_AwaitApproval_FullMethodName: accessTenant,

	cretov1.SandboxService_Connect_FullMethodName:       accessSandbox,
	cretov1.SandboxService_GetSandbox_FullMethodName:    accessTenant,
	cretov1.SandboxService_ListSandboxes_FullMethodName: accessTenant,
	cretov1.SandboxService_AwaitSandbox_FullMethodName:  accessTenant,

	cretov1.ClusterService_Status_FullMethodName:             accessOperator,
	cretov1.ClusterService_Join_FullMethodName:               accessPublic, // the token in the request is the authority
	cretov1.ClusterService_ChangeMember_FullMethodName:       accessAdmin,
	cretov1.ClusterService_TransferLeadership_FullMethodName: accessAdmin,
	cretov1.ClusterService_SetClock_FullMethodName:           accessAdmin,

	cretov1.NodeService_Forward_FullMethodName:   accessNode,
	cretov1.NodeService_ReadIndex_FullMethodName: accessNode,
	cretov1.NodeService_Cosign_FullMethodName:    accessNode,

	"/grpc.health.v1.Health/Check":                                   accessPublic,
	"/grpc.health.v1.Health/List":                                    accessPublic,
	"/grpc.health.v1.Health/Watch":                                   accessPublic,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      accessPublic,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": accessPublic,
}

// spineMethods take the empty tenant: it means the spine, which is public.
var spineMethods = map[string]bool{
	cretov1.LedgerService_GetHeads_FullMethodName:       true,
	cretov1.LedgerService_GetConsistency_FullMethodName: true,
}

// maxToken bounds a bearer token, in bytes.
const maxToken = 512

// caller is who makes a call, as far as the connection and its metadata tell.
type caller struct {
	principal spiffe.Principal // zero without SVID
	local     bool             // on the admin socket, which only its owner can open
	token     []byte           // bearer token; nil without
}

func (c caller) system(role spiffe.Role) bool {
	return c.principal.System && c.principal.Role == role
}

type callerKey struct{}

// callerOf returns who makes the call; the interceptors have put it there.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// guard authorises calls on one gRPC server.
type guard struct {
	local bool // the admin socket
	// readToken says whether a token may read the tenant's log now.
	readToken func(tenant nhi.ID, token []byte) bool
	// current returns when this node's state reflects every write acknowledged before the call: a token that this node does
	// not know may be one that it has not heard of yet, because it has just started or follows a little behind.
	current func(ctx context.Context) error
	// voter says whether a node is registered with the role of a voter and not removed, sandbox the same for sandbox nodes.
	voter, sandbox func(id nhi.ID) bool
	// serves says whether a sandbox node has registered in a tenant.
	serves func(tenant, id nhi.ID) bool
	// learn hears the gRPC address that a voter tells about itself; nil = nobody listens.
	learn func(id nhi.ID, address string)
}

func (g *guard) identify(ctx context.Context) context.Context {
	c := caller{local: g.local}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			if principal, err := spiffe.PeerPrincipal(info.State); err == nil {
				c.principal = principal
			}
		}
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get("authorization"); len(v) == 1 {
			if token, ok := strings.CutPrefix(v[0], "Bearer "); ok && token != "" && len(token) <= maxToken {
				c.token = []byte(token)
			}
		}
	}
	return context.WithValue(ctx, callerKey{}, c)
}

// allow decides what can be decided without the request.
func (g *guard) allow(ctx context.Context, method string) error {
	c := callerOf(ctx)
	switch methods[method] {
	case accessPublic, accessTenant:
		return nil
	case accessAdmin, accessOperator:
		if c.local || c.system(spiffe.RoleAdmin) {
			return nil
		}
		if methods[method] == accessOperator && c.system(spiffe.RoleNode) && g.voter(c.principal.ID) {
			return nil
		}
	case accessNode:
		if c.system(spiffe.RoleNode) && g.voter(c.principal.ID) {
			g.hear(ctx, c.principal.ID)
			return nil
		}
		if c.system(spiffe.RoleNode) {
			// Its SVID is the cluster's. Either it was removed, or this node has just started and does not know it yet.
			return refuse(KindUnavailable, "this node knows no voter of that id yet")
		}
	case accessSandbox:
		if c.system(spiffe.RoleSandbox) && g.sandbox(c.principal.ID) {
			return nil
		}
	}
	return refuse(KindDenied, "%s is not for this caller", method)
}

// allowRequest decides about the tenant that the request names.
func (g *guard) allowRequest(ctx context.Context, method string, req any) error {
	if methods[method] != accessTenant {
		return nil
	}
	r, ok := req.(interface{ GetTenant() []byte })
	if !ok {
		return notFound()
	}
	raw := r.GetTenant()
	if len(raw) == 0 && spineMethods[method] {
		return nil
	}
	if len(raw) != len(nhi.ID{}) {
		return refuse(KindInvalid, "tenant has %d bytes, want 16", len(raw))
	}
	tenant := nhi.ID(raw)
	c := callerOf(ctx)
	switch {
	case c.local, c.system(spiffe.RoleAdmin), c.system(spiffe.RoleNode) && g.voter(c.principal.ID):
		return nil
	case tenant.IsZero() && method == cretov1.IdentityService_GetKey_FullMethodName:
		return nil // keys are public: receipts are verified with the nodes', which a trust file names by id
	case tenant.IsZero():
		// The rest of the system log is for the cluster's own.
	case !c.principal.System && !c.principal.Tenant.IsZero() && c.principal.Tenant == tenant:
		return nil
	case method == cretov1.EventService_Submit_FullMethodName && c.system(spiffe.RoleSandbox) && g.sandbox(c.principal.ID) && g.serves(tenant, c.principal.ID):
		return nil // its own reports; it reads no log
	case c.token != nil && g.readToken(tenant, c.token):
		return nil
	case c.token != nil:
		if err := g.current(ctx); err != nil {
			return err
		}
		if g.readToken(tenant, c.token) {
			return nil
		}
	}
	return notFound()
}

// hear passes on where the calling node says it is reached.
func (g *guard) hear(ctx context.Context, id nhi.ID) {
	if g.learn == nil {
		return
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(addressHeader); len(v) == 1 {
			g.learn(id, v[0])
		}
	}
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx = g.identify(ctx)
	if err := g.allow(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if err := g.allowRequest(ctx, info.FullMethod, req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx := g.identify(ss.Context())
	if err := g.allow(ctx, info.FullMethod); err != nil {
		return err
	}
	return next(srv, &guardedStream{ServerStream: ss, ctx: ctx, guard: g, method: info.FullMethod})
}

// guardedStream holds every message of a stream against the table.
type guardedStream struct {
	grpc.ServerStream
	ctx    context.Context
	guard  *guard
	method string
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.guard.allowRequest(s.ctx, s.method, m)
}
