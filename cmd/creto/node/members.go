package node

import (
	"errors"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
)

// isMember says whether a node is registered with a role and not removed.
func (s *Server) isMember(id nhi.ID, role registry.Role) bool {
	ms, err := members(s.ledger)
	if err != nil {
		return false
	}
	for _, m := range ms {
		if m.ID == id {
			return m.Role == role && m.State != ledger.MemberRemoved
		}
	}
	return false
}

// isAdmin says whether an admin is registered and active. Before this node has a ledger, the genesis says.
func (s *Server) isAdmin(id nhi.ID) bool {
	got, err := s.lookIdentity(nhi.ID{}, id)
	if errors.Is(err, ledger.ErrNoLedger) {
		for _, a := range s.identity.genesis.Admins {
			if a.ID == id {
				return true
			}
		}
	}
	return err == nil && got.Type == registry.Admin && got.Status == registry.Active
}

// isTenantMember says whether the identity of a tenant that an SVID names is registered with a type that fits, and active.
func (s *Server) isTenantMember(p spiffe.Principal) bool {
	got, err := s.lookIdentity(p.Tenant, p.ID)
	if err != nil || got.Status != registry.Active {
		return false
	}
	return SVIDRole(got.Type) == p.Role
}

// SVIDRole is the role that the SVID of a tenant's identity names; "" for those that get none.
func SVIDRole(t registry.Type) spiffe.Role {
	switch t {
	case registry.Human:
		return spiffe.RoleHuman
	case registry.Agent:
		return spiffe.RoleAgent
	case registry.Service, registry.Authority:
		return spiffe.RoleService
	}
	return ""
}

// lookIdentity resolves an identity of a tenant, or of the system log, as of what this node has applied.
func (s *Server) lookIdentity(tenant, id nhi.ID) (got *registry.Identity, err error) {
	snap, err := s.ledger.Read()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return nil, err
	}
	err = ledger.Guard(func() error {
		v, err := snap.View(t)
		if err == nil {
			got, err = registry.ResolveIdentity(ledger.RegistryView(v), id, v.NextIndex())
		}
		return err
	})
	return got, err
}
