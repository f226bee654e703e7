package node

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/creto-systems/creto/ledger/edge"
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
	accessMember                 // a voter's or a sandbox node's SVID
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
	cretov1.ClusterService_Renew_FullMethodName:              accessMember,
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

// systemMethods are open to anybody about the system log: the keys with which nodes sign receipts are public, and a trust file
// names them by id.
var systemMethods = map[string]bool{
	cretov1.IdentityService_GetKey_FullMethodName: true,
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

// anonymous: with nothing that could be held against the log.
func (c caller) anonymous() bool {
	return !c.local && c.token == nil && c.principal == spiffe.Principal{}
}

type callerKey struct{}

// callerOf returns who makes the call; the interceptors have put it there.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// guard authorises calls on one gRPC server.
type guard struct {
	local  bool // the admin socket
	source *spiffe.Source
	// applied is how far this node is: a stream's caller is looked at again when it has changed.
	applied func() uint64
	// readToken says whether a token may read the tenant's log now.
	readToken func(tenant nhi.ID, token []byte) bool
	// current returns when this node's state reflects every write acknowledged before the call: a token that this node does
	// not know may be one that it has not heard of yet, because it has just started or follows a little behind.
	current func(ctx context.Context) error
	// serving says whether this node has caught up with what was committed before it started: until then it does not know
	// whose certificates belong to members.
	serving func() bool
	// voter says whether a node is registered with the role of a voter and not removed, sandbox the same for sandbox nodes.
	voter, sandbox func(id nhi.ID) bool
	// admin says whether an admin is registered and active, member the same of a tenant's identity in its role.
	admin  func(id nhi.ID) bool
	member func(p spiffe.Principal) bool
	// serves says whether a sandbox node has registered in a tenant.
	serves func(tenant, id nhi.ID) bool
	// learn hears the gRPC address that a voter tells about itself; nil = nobody listens.
	learn func(id nhi.ID, address string)
}

// caller says who makes a call, as its connection and metadata tell. An SVID that holds no longer is no SVID, and ends the
// connection.
func (g *guard) caller(ctx context.Context) (caller, error) {
	c := caller{local: g.local}
	if conn := connOf(ctx); conn != nil {
		var err error
		if c.principal, err = conn.state.principal(g.source, conn.State); err != nil {
			return caller{}, err
		}
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get("authorization"); len(v) == 1 {
			if token, ok := strings.CutPrefix(v[0], "Bearer "); ok && token != "" && len(token) <= maxToken {
				c.token = []byte(token)
			}
		}
	}
	return c, nil
}

// holds looks twice: what this node does not know may be what it has not heard of yet.
func (g *guard) holds(ctx context.Context, is func() bool) (bool, error) {
	if is() {
		return true, nil
	}
	if err := g.current(ctx); err != nil {
		return false, err
	}
	return is(), nil
}

// allow decides what can be decided without the request, which is not read if it refuses.
func (g *guard) allow(ctx context.Context, c caller, method string) error {
	switch methods[method] {
	case accessPublic:
		return nil
	case accessTenant:
		if c.anonymous() && !spineMethods[method] && !systemMethods[method] {
			return notFound()
		}
		return nil
	case accessAdmin, accessOperator:
		if c.local {
			return nil
		}
		if c.system(spiffe.RoleAdmin) {
			ok, err := g.holds(ctx, func() bool { return g.admin(c.principal.ID) })
			if ok || err != nil {
				return err
			}
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
	case accessMember:
		if c.system(spiffe.RoleNode) && g.voter(c.principal.ID) || c.system(spiffe.RoleSandbox) && g.sandbox(c.principal.ID) {
			return nil
		}
	}
	if c.principal.System && !g.serving() {
		return fmt.Errorf("%w: this node does not know yet whether %s is a member", edge.ErrUnavailable, c.principal)
	}
	return refuse(KindDenied, "%s is not for this caller", method)
}

// allowRequest decides about the tenant that the request names.
func (g *guard) allowRequest(ctx context.Context, c caller, method string, req any) error {
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
	ok, err := g.sees(ctx, c, method, nhi.ID(raw))
	if err != nil {
		return err
	}
	if !ok {
		return notFound()
	}
	return nil
}

// sees says whether a caller may call a method about a tenant.
func (g *guard) sees(ctx context.Context, c caller, method string, tenant nhi.ID) (bool, error) {
	p := c.principal
	switch {
	case c.local:
		return true, nil
	case c.system(spiffe.RoleAdmin):
		return g.holds(ctx, func() bool { return g.admin(p.ID) })
	case c.system(spiffe.RoleNode) && g.voter(p.ID):
		return true, nil
	case tenant.IsZero():
		// The rest of the system log is for the cluster's own.
		return systemMethods[method], nil
	case c.system(spiffe.RoleSandbox) && method == cretov1.EventService_Submit_FullMethodName && g.sandbox(p.ID) && g.serves(tenant, p.ID):
		return true, nil // its own reports; it reads no log
	}
	if !p.System && !p.Tenant.IsZero() && p.Tenant == tenant {
		ok, err := g.holds(ctx, func() bool { return g.member(p) })
		if ok || err != nil {
			return ok, err
		}
	}
	if c.token == nil {
		return false, nil
	}
	return g.holds(ctx, func() bool { return g.readToken(tenant, c.token) })
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
