package registry

import (
	"fmt"

	"github.com/creto-systems/creto/nhi"
)

// The tables of the registry. DESIGN.md lists their keys and values.
const (
	TableIdentity  byte = 0x20 // id ‖ index → identity version
	TableKey       byte = 0x21 // key id → key, written once
	TableKeyState  byte = 0x22 // key id ‖ index → end of a superseded key
	TableComponent byte = 0x23 // component id → the key that holds it, written once
	TableLink      byte = 0x24 // link id → link, written once
	TableEvidence  byte = 0x25 // link id → signatures of the link, written once
	TableGuard     byte = 0x26 // SHA-256 of text → guard text, written once
	TableTombstone byte = 0x27 // what ‖ id → revocation of a key or link, written once
	TableMinSuite  byte = 0x28 // class ‖ activation index → least suite; slot 0 only
	TableByParent  byte = 0x29 // parent link id ‖ link id → empty
	TableBySubject byte = 0x2a // identity ‖ index ‖ link id → empty
	TableByOwner   byte = 0x2b // identity ‖ index ‖ key id → empty
	TableGuardsBy  byte = 0x2c // identity ‖ SHA-256 of text → empty: the guards it has stored
)

// Tables returns every table the registry writes.
func Tables() []byte {
	return []byte{
		TableIdentity, TableKey, TableKeyState, TableComponent, TableLink, TableEvidence, TableGuard,
		TableTombstone, TableMinSuite, TableByParent, TableBySubject, TableByOwner, TableGuardsBy,
	}
}

// View is read-only state of one tenant, showing everything before the event
// that is being decided. A store error panics inside the view. Slices it hands
// out are neither modified nor kept.
type View interface {
	Get(table byte, key []byte) (value []byte, ok bool)
	// Scan calls fn for the keys that begin with prefix, ascending or (reverse)
	// descending, until fn returns false. from is inclusive and begins with
	// prefix; nil means the first key, or the last one in reverse.
	Scan(table byte, prefix, from []byte, reverse bool, fn func(key, value []byte) (more bool))
}

// Write is a row that a decision sets. The registry deletes nothing.
type Write struct {
	Table      byte
	Key, Value []byte
	Delete     bool // never true; kept so that a Write has the shape of the ledger's
}

// Tree is what the registry knows of the meter's accounts. IsDescendant reports
// whether child lies strictly below ancestor; an unknown account is below
// nothing. It must be a pure function of the same state as the View beside it.
type Tree interface {
	IsDescendant(child, ancestor nhi.ID) bool
}

// Path is a Tree that knows one account and its ancestors: the account first,
// the root last.
type Path []nhi.ID

// IsDescendant reports whether ancestor stands behind child on the path.
func (p Path) IsDescendant(child, ancestor nhi.ID) bool {
	found := false
	for _, id := range p {
		if found && id == ancestor {
			return true
		}
		found = found || id == child
	}
	return false
}

// Env is everything a decider may read besides the signed bytes.
type Env struct {
	View         View
	System       View // slot 0 of the same ledger; in slot 0 the same as View
	Ledger       nhi.Digest
	Slot         uint32
	Tenant       nhi.ID    // as events of this log name it
	AuthorityID  nhi.ID    // the tenant's identity authority; zero in slot 0
	AuthorityKey nhi.KeyID // the key it registers itself with
	Index        uint64    // index the event's leaf will get
	SystemIndex  uint64    // next index of slot 0: what min_suite activations compare with
	Time         int64     // consensus time of the event, ns
	Tree         Tree      // nil: accounts have no descendants
	Keys         *nhi.KeyCache
}

// Bump names the epochs that a decision raises.
type Bump uint8

// The epochs that identity and delegation events raise.
const (
	BumpEntities   Bump = 1 << iota // who exists, or with which key, has changed
	BumpRevocation                  // something that was valid no longer is
)

// Result is a decision. With any Code but OK nothing of it but Code and Detail
// may take effect.
type Result struct {
	Code   Code
	Detail []byte // canonical CBOR; on refusal {1 code, 2 name of the code, 3? hop}
	Writes []Write
	Bump   Bump
	Erase  []uint64 // indices of leaves whose addenda are to be erased
}

// Type says what an identity is.
type Type uint8

// The types of identities. The numbers stand in signed bodies.
const (
	Human     Type = 1 // a person, who holds a key of their own
	Agent     Type = 2 // acts only under a chain
	Service   Type = 3 // a declared workload; may be the root of a chain
	Node      Type = 4 // a node of the cluster, in slot 0
	Authority Type = 5 // a tenant's identity authority
	Admin     Type = 6 // an administrator of the cluster, in slot 0
)

var typeNames = [...]string{Human: "human", Agent: "agent", Service: "service", Node: "node", Authority: "authority", Admin: "admin"}

// Valid reports whether t is one of the types.
func (t Type) Valid() bool { return t >= Human && t <= Admin }

// String returns the name of the type.
func (t Type) String() string {
	if t.Valid() {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ParseType returns the type of that name.
func ParseType(name string) (Type, bool) {
	for t := Human; t <= Admin; t++ {
		if typeNames[t] == name {
			return t, true
		}
	}
	return 0, false
}

// Status of an identity.
type Status uint8

// The states of an identity. Revoked is final.
const (
	Active    Status = 1
	Suspended Status = 2
	Revoked   Status = 3
)

// String returns the name of the status.
func (s Status) String() string {
	switch s {
	case Active:
		return "active"
	case Suspended:
		return "suspended"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Role of a node.
type Role uint8

// The roles of nodes; every other identity has role 0.
const (
	RoleVoter   Role = 1
	RoleSandbox Role = 2
)

// Identity is one version of an identity. Values that the package returns are
// shared and must not be modified.
type Identity struct {
	ID               nhi.ID
	Type             Type
	Status           Status
	Role             Role // of nodes
	Key              nhi.KeyID
	Registered       uint64 // index
	Since            uint64 // index of this version
	Reason           string // of a suspension or revocation
	CompromisedSince int64  // ns; 0 = never known to be compromised
	CompromisedUntil int64  // ns, when it was resumed after that; 0 = not, or not since the last time
}

// Key is a registered public key with what later leaves said about it.
type Key struct {
	ID               nhi.KeyID
	Owner            nhi.ID
	Suite            nhi.Suite
	Public           []byte
	Components       [2]nhi.Digest
	From             uint64 // index of its registration
	Until            int64  // ns; end of the overlap after a rotation, 0 = open
	RevokedAt        uint64 // index; 0 = not revoked
	CompromisedSince int64  // ns; 0 = not known to be compromised
}

// By is the signer of an event, resolved and live as of the event's index.
type By struct {
	Identity *Identity // nil only where an authority registers itself
	Key      nhi.KeyID
	Link     nhi.LinkID // zero: acts for itself
}
