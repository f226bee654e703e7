package spiffe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/creto-systems/creto/nhi"
)

// MaxIDBytes bounds a SPIFFE ID (SPIFFE-ID, 2.3).
const MaxIDBytes = 2048

const (
	scheme              = "spiffe://"
	maxTrustDomainBytes = 255
)

// ErrBadID is wrapped by every error of [ParseID] and [FormatID].
var ErrBadID = errors.New("malformed SPIFFE ID")

// Role is what kind of identity a SPIFFE ID names.
type Role string

// Roles of a tenant's identities, and of the cluster's own. RoleNode and
// RoleSandbox exist in both: the cluster's RoleNode is a voter, which holds
// every tenant's log, its RoleSandbox a machine that runs what nobody trusts.
const (
	RoleHuman   Role = "human"
	RoleAgent   Role = "agent"
	RoleService Role = "service"
	RoleNode    Role = "node"
	RoleSandbox Role = "sandbox"
	RoleAdmin   Role = "admin" // of the cluster only
)

func (r Role) valid(system bool) bool {
	switch r {
	case RoleNode, RoleSandbox:
		return true
	case RoleHuman, RoleAgent, RoleService:
		return !system
	case RoleAdmin:
		return system
	}
	return false
}

// server reports whether identities of this role accept connections.
func (r Role) server() bool { return r != RoleHuman && r != RoleAdmin }

// Principal is an identity inside a trust domain. A tenant's is
// spiffe://TRUSTDOMAIN/t/TENANT/ROLE/ID, one of the cluster itself is
// spiffe://TRUSTDOMAIN/system/ROLE/ID. Values are comparable with ==.
type Principal struct {
	TrustDomain string // lower-case a-z, 0-9, '.', '-', '_'; at most 255 bytes
	Tenant      nhi.ID // zero if System
	System      bool   // belongs to the cluster, not to a tenant
	Role        Role
	ID          nhi.ID
}

// String returns the SPIFFE ID, or a text that is none if the principal is
// not valid.
func (p Principal) String() string {
	id, err := FormatID(p)
	if err != nil {
		return "invalid principal"
	}
	return id
}

// FormatID returns the SPIFFE ID of a principal.
func FormatID(p Principal) (string, error) {
	if err := checkTrustDomain(p.TrustDomain); err != nil {
		return "", err
	}
	switch {
	case !p.Role.valid(p.System):
		return "", fmt.Errorf("%w: role %q with system=%t", ErrBadID, string(p.Role), p.System)
	case p.ID.IsZero():
		return "", fmt.Errorf("%w: id is zero", ErrBadID)
	case p.System && !p.Tenant.IsZero():
		return "", fmt.Errorf("%w: an identity of the cluster has no tenant", ErrBadID)
	case !p.System && p.Tenant.IsZero():
		return "", fmt.Errorf("%w: tenant is zero", ErrBadID)
	case p.System:
		return scheme + p.TrustDomain + "/system/" + string(p.Role) + "/" + p.ID.String(), nil
	}
	return scheme + p.TrustDomain + "/t/" + p.Tenant.String() + "/" + string(p.Role) + "/" + p.ID.String(), nil
}

// ParseID parses a SPIFFE ID. It accepts only what FormatID writes: SPIFFE's
// grammar would allow other paths, and each of them would be an identity
// that the ledger does not know.
func ParseID(s string) (Principal, error) {
	if len(s) > MaxIDBytes {
		return Principal{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrBadID, len(s), MaxIDBytes)
	}
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return Principal{}, fmt.Errorf("%w: %+q does not begin with %q", ErrBadID, clip(s), scheme)
	}
	td, path, _ := strings.Cut(rest, "/")
	if err := checkTrustDomain(td); err != nil {
		return Principal{}, err
	}
	p := Principal{TrustDomain: td}
	seg := strings.SplitN(path, "/", 6)
	var err error
	switch {
	case len(seg) == 4 && seg[0] == "t":
		p.Role = Role(seg[2])
		if p.Tenant, err = nhi.ParseID(seg[1]); err != nil {
			return Principal{}, fmt.Errorf("%w: tenant: %w", ErrBadID, err)
		}
		p.ID, err = nhi.ParseID(seg[3])
	case len(seg) == 3 && seg[0] == "system":
		p.System, p.Role = true, Role(seg[1])
		p.ID, err = nhi.ParseID(seg[2])
	default:
		return Principal{}, fmt.Errorf("%w: path %+q is neither /t/TENANT/ROLE/ID nor /system/ROLE/ID", ErrBadID, clip(path))
	}
	if err != nil {
		return Principal{}, fmt.Errorf("%w: id: %w", ErrBadID, err)
	}
	// Roles and zero ids are refused where they are written.
	if _, err := FormatID(p); err != nil {
		return Principal{}, err
	}
	return p, nil
}

func checkTrustDomain(td string) error {
	if td == "" || len(td) > maxTrustDomainBytes {
		return fmt.Errorf("%w: trust domain has %d bytes, want 1 to %d", ErrBadID, len(td), maxTrustDomainBytes)
	}
	for i := range len(td) {
		c := td[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("%w: trust domain %+q has characters other than a-z, 0-9, '.', '-', '_'", ErrBadID, clip(td))
		}
	}
	return nil
}

// clip keeps hostile text out of logs beyond a recognisable start.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// AllowRoles returns an authorization that admits principals of a trust
// domain that belong to the cluster itself and have one of the roles.
func AllowRoles(trustDomain string, roles ...Role) func(Principal) error {
	return allow(trustDomain, true, roles)
}

// AllowTenantRoles is AllowRoles for identities of tenants, of any tenant:
// the caller compares Principal.Tenant where it matters.
func AllowTenantRoles(trustDomain string, roles ...Role) func(Principal) error {
	return allow(trustDomain, false, roles)
}

// AllowAny admits what one of the given authorizations admits.
func AllowAny(of ...func(Principal) error) func(Principal) error {
	return func(p Principal) error {
		err := fmt.Errorf("%w: %v", ErrNotAuthorized, p)
		for _, f := range of {
			if err = f(p); err == nil {
				return nil
			}
		}
		return err
	}
}

func allow(trustDomain string, system bool, roles []Role) func(Principal) error {
	return func(p Principal) error {
		if p.TrustDomain == trustDomain && p.System == system {
			for _, r := range roles {
				if p.Role == r {
					return nil
				}
			}
		}
		return fmt.Errorf("%w: %v", ErrNotAuthorized, p)
	}
}
