package ledger

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// TenantCreateBody makes a tenant: its permanent slot, its identity authority's first key and one read token. Signed by an
// admin. The authority's key proves its possession for the new tenant (registry.NewPossession).
type TenantCreateBody struct {
	Tenant     nhi.ID     `cbor:"1,keyasint"`
	Authority  nhi.ID     `cbor:"2,keyasint"`
	Suite      nhi.Suite  `cbor:"3,keyasint"`
	Public     []byte     `cbor:"4,keyasint"`
	Possession []byte     `cbor:"5,keyasint"`
	Zone       string     `cbor:"6,keyasint"` // IANA time zone of its periods
	Strict     bool       `cbor:"7,keyasint"`
	ReadToken  nhi.Digest `cbor:"8,keyasint"` // SHA-256 of the first read token, which does not expire
}

// TenantCreated is the detail of admin.tenant.create.
type TenantCreated struct {
	Slot uint32 `cbor:"1,keyasint"`
}

// NodeAddBody registers a node. Signed by an admin, or by a voter that has redeemed a join token for this very node.
type NodeAddBody struct {
	ID         nhi.ID        `cbor:"1,keyasint"`
	Role       registry.Role `cbor:"2,keyasint"`
	Suite      nhi.Suite     `cbor:"3,keyasint"`
	Public     []byte        `cbor:"4,keyasint"`
	Possession []byte        `cbor:"5,keyasint"`
	Ed         []byte        `cbor:"6,keyasint,omitempty"` // cosigning keys: of voters only
	PQ         []byte        `cbor:"7,keyasint,omitempty"`
	Token      nhi.Digest    `cbor:"8,keyasint,omitzero"` // SHA-256 of the redeemed join token, when a node signs
}

// NodeRemoveBody revokes a node. Signed by an admin.
type NodeRemoveBody struct {
	ID nhi.ID `cbor:"1,keyasint"`
}

// MemberOp is a change of the Raft configuration.
type MemberOp uint8

// The changes. Each is committed before the configuration change that cites its leaf.
const (
	MemberAdd     MemberOp = 1 // as a non-voter
	MemberPromote MemberOp = 2 // to a voter
	MemberRemove  MemberOp = 3
)

// MemberBody announces a change of the Raft configuration. Signed by an admin or a voter.
type MemberBody struct {
	Op      MemberOp `cbor:"1,keyasint"`
	Node    nhi.ID   `cbor:"2,keyasint"`
	Address string   `cbor:"3,keyasint,omitempty"` // host:port of its Raft listener; with MemberAdd
}

// JoinTokenBody admits one node that knows a token. Signed by an admin.
type JoinTokenBody struct {
	Token   nhi.Digest    `cbor:"1,keyasint"` // SHA-256
	Role    registry.Role `cbor:"2,keyasint"`
	Expires int64         `cbor:"3,keyasint"` // ns
}

// JoinRedeemBody uses a join token up. Signed by the voter that served the join.
type JoinRedeemBody struct {
	Token   nhi.Digest `cbor:"1,keyasint"`
	Node    nhi.ID     `cbor:"2,keyasint"`          // that joins
	Request nhi.Digest `cbor:"3,keyasint,omitzero"` // SHA-256 of what it has asked with: who asks so again is answered again
}

// ReadTokenBody lets whoever knows a token read the tenant's log. Signed by the tenant's authority.
type ReadTokenBody struct {
	Token   nhi.Digest `cbor:"1,keyasint"`          // SHA-256
	Expires int64      `cbor:"2,keyasint,omitzero"` // ns; 0 = never; not with removal
}

// checker is the part of a body's check that needs no state.
type checker interface{ check() error }

var errBody = errors.New("field out of bounds")

func decodeBody(ev *nhi.Event, b checker) error {
	if err := canon.Unmarshal(ev.Body, b); err != nil {
		return err
	}
	return b.check()
}

func encodeBody(b checker) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	return canon.Marshal(b)
}

// Encode returns the canonical body.
func (b *TenantCreateBody) Encode() ([]byte, error) { return encodeBody(b) }

// Encode returns the canonical body.
func (b *NodeAddBody) Encode() ([]byte, error) { return encodeBody(b) }

// Encode returns the canonical body.
func (b *NodeRemoveBody) Encode() ([]byte, error) { return encodeBody(b) }

// Encode returns the canonical body.
func (b *MemberBody) Encode() ([]byte, error) { return encodeBody(b) }

// Encode returns the canonical body.
func (b *JoinTokenBody) Encode() ([]byte, error) { return encodeBody(b) }

// Encode returns the canonical body.
func (b *JoinRedeemBody) Encode() ([]byte, error) { return encodeBody(b) }

// Encode returns the canonical body.
func (b *ReadTokenBody) Encode() ([]byte, error) { return encodeBody(b) }

func (b *TenantCreateBody) check() error {
	if b.Tenant.IsZero() || b.Authority.IsZero() || len(b.Zone) == 0 || len(b.Zone) > maxZoneName || b.ReadToken == (nhi.Digest{}) {
		return fmt.Errorf("%s: %w", KindTenantCreate, errBody)
	}
	return nil
}

func (b *NodeAddBody) check() error {
	cosigns := b.Role == registry.RoleVoter
	if b.ID.IsZero() || !cosigns && b.Role != registry.RoleSandbox || cosigns != (len(b.Ed) > 0) || cosigns != (len(b.PQ) > 0) {
		return fmt.Errorf("%s: %w", KindNodeAdd, errBody)
	}
	if !cosigns {
		return nil
	}
	if err := nhi.CheckEd25519Key(b.Ed); err != nil {
		return fmt.Errorf("%s: ed key: %w", KindNodeAdd, err)
	}
	if _, err := nhi.ParseMLDSA44(b.PQ); err != nil {
		return fmt.Errorf("%s: pq key: %w", KindNodeAdd, err)
	}
	return nil
}

func (b *NodeRemoveBody) check() error {
	if b.ID.IsZero() {
		return fmt.Errorf("%s: %w", KindNodeRemove, errBody)
	}
	return nil
}

func (b *MemberBody) check() error {
	if b.Node.IsZero() || b.Op < MemberAdd || b.Op > MemberRemove || (b.Op == MemberAdd) != (b.Address != "") || len(b.Address) > maxAddressSize {
		return fmt.Errorf("%s: %w", KindMember, errBody)
	}
	return nil
}

func (b *JoinTokenBody) check() error {
	if b.Token == (nhi.Digest{}) || b.Expires <= 0 || b.Role != registry.RoleVoter && b.Role != registry.RoleSandbox {
		return fmt.Errorf("%s: %w", KindJoinTokenAdd, errBody)
	}
	return nil
}

func (b *JoinRedeemBody) check() error {
	if b.Token == (nhi.Digest{}) || b.Node.IsZero() {
		return fmt.Errorf("%s: %w", KindJoinTokenRedeem, errBody)
	}
	return nil
}

func (b *ReadTokenBody) check() error {
	if b.Token == (nhi.Digest{}) || b.Expires < 0 {
		return fmt.Errorf("%s: %w", KindReadTokenAdd, errBody)
	}
	return nil
}
