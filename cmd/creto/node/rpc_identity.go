package node

import (
	"context"
	"encoding/base64"
	"errors"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// maxIdentityScan bounds the identities one page looks at.
const maxIdentityScan = 5000

type identityService struct {
	cretov1.UnsafeIdentityServiceServer
	s *Server
}

// read calls fn with the registry's view of a tenant as of an index, which may not lie ahead.
func (i *identityService) read(ctx context.Context, tenant []byte, asOf *uint64, c cretov1.Consistency, fn func(t ledger.Tenant, v ledger.View, asOf uint64, info *cretov1.ReadInfo) error) error {
	return i.s.tenantRead(ctx, tenant, c, func(snap *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error {
		v, err := snap.View(t)
		if err != nil {
			return err
		}
		at := v.NextIndex()
		if asOf != nil {
			if *asOf > at {
				return refuse(KindInvalid, "as_of_index %d lies ahead of the log's size %d", *asOf, at)
			}
			at = *asOf
		}
		return fn(t, v, at, info)
	})
}

// missing turns the registry's refusals into what a caller sees.
func missing(err error) error {
	if _, ok := errors.AsType[*registry.Error](err); ok {
		return notFound()
	}
	return err
}

func (i *identityService) GetTenant(ctx context.Context, req *cretov1.GetTenantRequest) (*cretov1.GetTenantResponse, error) {
	resp := new(cretov1.GetTenantResponse)
	err := i.s.tenantRead(ctx, req.GetTenant(), cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(snap *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error {
		g, id := snap.Genesis(), snap.LedgerID()
		*resp = cretov1.GetTenantResponse{
			Tenant: t.ID[:], Slot: t.Slot, Zone: t.Zone, LedgerId: id[:], Origin: verify.TenantOrigin(g.Cluster, t.ID),
			TrustDomain: g.TrustDomain, Test: g.Test, Read: info,
		}
		if t.Slot != ledger.SystemSlot {
			resp.AuthorityId, resp.AuthorityKeyId = t.AuthorityID[:], t.AuthorityKey[:]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func identityMessage(v ledger.View, id *registry.Identity) *cretov1.Identity {
	m := &cretov1.Identity{
		Id: id.ID[:], Type: id.Type.String(), Status: id.Status.String(), KeyId: id.Key[:], SinceIndex: id.Since,
		CompromisedSinceNs: id.CompromisedSince,
	}
	if k, err := registry.ResolveKey(ledger.RegistryView(v), id.Key, v.NextIndex()); err == nil {
		m.Suite = k.Suite.String()
	}
	return m
}

func (i *identityService) GetIdentity(ctx context.Context, req *cretov1.GetIdentityRequest) (*cretov1.GetIdentityResponse, error) {
	resp := new(cretov1.GetIdentityResponse)
	err := i.read(ctx, req.GetTenant(), req.AsOfIndex, req.GetConsistency(), func(_ ledger.Tenant, v ledger.View, asOf uint64, info *cretov1.ReadInfo) error {
		id, err := registry.ResolveIdentity(ledger.RegistryView(v), nhi.ID(req.GetId()), asOf)
		if err != nil {
			return missing(err)
		}
		resp.Identity, resp.Read = identityMessage(v, id), info
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (i *identityService) ListIdentities(ctx context.Context, req *cretov1.ListIdentitiesRequest) (*cretov1.ListIdentitiesResponse, error) {
	var want registry.Type
	if req.GetType() != "" {
		var ok bool
		if want, ok = registry.ParseType(req.GetType()); !ok {
			return nil, refuse(KindInvalid, "type %q is unknown", req.GetType())
		}
	}
	var after nhi.ID
	if req.GetCursor() != "" {
		b, err := base64.RawURLEncoding.Strict().DecodeString(req.GetCursor())
		if err != nil || len(b) != len(after) {
			return nil, refuse(KindInvalid, "cursor is not one of this call's")
		}
		after = nhi.ID(b)
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = 100
	}
	resp := new(cretov1.ListIdentitiesResponse)
	err := i.read(ctx, req.GetTenant(), nil, cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(_ ledger.Tenant, v ledger.View, asOf uint64, info *cretov1.ReadInfo) error {
		resp.Read = info
		for scanned := 0; scanned < maxIdentityScan; {
			ids := registry.ListIdentities(ledger.RegistryView(v), after, size, asOf)
			for _, id := range ids {
				after = id.ID
				scanned++
				if want != 0 && id.Type != want {
					continue
				}
				resp.Identities = append(resp.Identities, identityMessage(v, id))
				if len(resp.Identities) == size {
					resp.NextCursor = base64.RawURLEncoding.EncodeToString(after[:])
					return nil
				}
			}
			if len(ids) < size {
				return nil
			}
		}
		resp.NextCursor = base64.RawURLEncoding.EncodeToString(after[:])
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (i *identityService) GetKey(ctx context.Context, req *cretov1.GetKeyRequest) (*cretov1.GetKeyResponse, error) {
	resp := new(cretov1.GetKeyResponse)
	err := i.read(ctx, req.GetTenant(), req.AsOfIndex, cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(_ ledger.Tenant, v ledger.View, asOf uint64, info *cretov1.ReadInfo) error {
		k, err := registry.ResolveKey(ledger.RegistryView(v), nhi.KeyID(req.GetKeyId()), asOf)
		if err != nil {
			return missing(err)
		}
		*resp = cretov1.GetKeyResponse{
			KeyId: k.ID[:], Owner: k.Owner[:], Suite: k.Suite.String(), PublicKey: k.Public, RegisteredIndex: k.From,
			RevokedIndex: k.RevokedAt, UntilNs: k.Until, Read: info,
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (i *identityService) GetChain(ctx context.Context, req *cretov1.GetChainRequest) (*cretov1.GetChainResponse, error) {
	resp := new(cretov1.GetChainResponse)
	err := i.read(ctx, req.GetTenant(), req.AsOfIndex, cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(_ ledger.Tenant, v ledger.View, asOf uint64, info *cretov1.ReadInfo) error {
		rv := ledger.RegistryView(v)
		records, err := registry.Walk(rv, nhi.LinkID(req.GetLinkId()), asOf)
		if err != nil {
			return missing(err)
		}
		resp.Read = info
		for _, r := range records {
			m := &cretov1.Link{
				LinkId: r.ID[:], Issuer: r.Link.Issuer[:], Subject: r.Link.Subject[:], Depth: uint32(r.Link.Depth),
				NotBeforeMs: r.Link.NotBefore, ExpiresMs: r.Link.Expires, Body: r.Body, RegisteredIndex: r.Registered,
			}
			if !r.Link.Parent.IsZero() {
				m.Parent = r.Link.Parent[:]
			}
			if t, ok := registry.LinkTombstone(rv, r.ID, asOf); ok {
				m.RevokedIndex = t.Index
			}
			resp.Links = append(resp.Links, m)
		}
		chain, err := registry.ResolveChain(rv, nhi.LinkID(req.GetLinkId()), asOf)
		if err == nil {
			err = chain.Live(max(info.GetTimeNs(), i.s.now()))
		}
		resp.Live = err == nil
		if err != nil {
			resp.Reason = registry.CodeOf(err).String()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}
