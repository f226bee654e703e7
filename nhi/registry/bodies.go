package registry

import (
	"crypto/sha256"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// The kinds of events that the registry decides.
const (
	KindRegister     = "identity.register"
	KindRotate       = "identity.rotate"
	KindSuspend      = "identity.suspend"
	KindResume       = "identity.resume"
	KindRevoke       = "identity.revoke"
	KindErase        = "identity.erase"
	KindRegisterLink = "delegation.register"
	KindRevokeLink   = "delegation.revoke"
	KindGuard        = "delegation.guard"
	KindMinSuite     = "admin.min_suite" // slot 0 only
)

// Bounds of bodies.
const (
	MaxReason     = 32
	MaxGuardBytes = 16 << 10
	MaxGuards     = 256                            // stored by one identity, the authority apart
	MaxOverlap    = 30 * 24 * 3600 * 1_000_000_000 // ns, of a rotation
	maxBodyBytes  = nhi.MaxPayloadBytes
)

// RegisterBody registers an identity and its first key. Signed by the tenant's
// authority, by the authority itself for its own registration, or in slot 0 by
// an admin.
type RegisterBody struct {
	ID         nhi.ID    `cbor:"1,keyasint"`
	Type       Type      `cbor:"2,keyasint"`
	Suite      nhi.Suite `cbor:"3,keyasint"`
	Public     []byte    `cbor:"4,keyasint"`
	Possession []byte    `cbor:"5,keyasint"` // NewPossession
}

// RotateBody gives an identity a new key. Signed by its current key or by the
// authority. The old key signs until OverlapUntil, exclusive; a time that has
// passed, such as 0, ends it at once.
type RotateBody struct {
	ID           nhi.ID    `cbor:"1,keyasint"`
	Suite        nhi.Suite `cbor:"2,keyasint"`
	Public       []byte    `cbor:"3,keyasint"`
	Possession   []byte    `cbor:"4,keyasint"`
	OverlapUntil int64     `cbor:"5,keyasint"` // ns
}

// StatusBody suspends, resumes or revokes. Signed by the authority; an identity
// may suspend and revoke itself.
type StatusBody struct {
	ID               nhi.ID     `cbor:"1,keyasint"`
	Reason           string     `cbor:"2,keyasint"`          // ≤ 32 ASCII, never personal data
	CompromisedSince int64      `cbor:"3,keyasint,omitzero"` // ns; not with resume
	Key              nhi.Digest `cbor:"4,keyasint,omitzero"` // revoke only: this key of the identity, by key or component id
}

// EraseBody erases the addenda of a leaf. Signed by the authority.
type EraseBody struct {
	Index uint64 `cbor:"1,keyasint"`
}

// RegisterLinkBody registers a delegation link. Signed by its issuer or by the
// authority.
type RegisterLinkBody struct {
	Body             []byte   `cbor:"1,keyasint"` // Link.Encode
	Signature        []byte   `cbor:"2,keyasint"` // of the issuer over the link id, CtxDelegation
	Evidence         Evidence `cbor:"3,keyasint"`
	Countersignature []byte   `cbor:"4,keyasint,omitempty"` // of the authority, root links only: Countersign
}

// Evidence says how the issuer showed consent.
type Evidence struct {
	Kind  EvidenceKind `cbor:"1,keyasint"`
	Bytes []byte       `cbor:"2,keyasint"`
}

// EvidenceKind is the tag of Evidence.
type EvidenceKind uint8

// CompositeKey is evidence by the issuer's own registered key: the signature of
// the link is all of it, and Bytes is empty.
const CompositeKey EvidenceKind = 1

// RevokeLinkBody revokes a link. Signed by its issuer, the issuer of a link above
// it, or the authority.
type RevokeLinkBody struct {
	Link nhi.LinkID `cbor:"1,keyasint"`
}

// GuardBody stores guard text, forbid-only Cedar, under its SHA-256. nhi/authz
// checks what it says.
type GuardBody struct {
	Text string `cbor:"1,keyasint"`
}

// Digest is what a link names the guard by.
func (b *GuardBody) Digest() nhi.Digest { return sha256.Sum256([]byte(b.Text)) }

// MinSuiteBody raises the least suite of a class of objects from an index of the
// system log on. Signed by an admin.
type MinSuiteBody struct {
	Class      ObjectClass `cbor:"1,keyasint"`
	Suite      nhi.Suite   `cbor:"2,keyasint"`
	Activation uint64      `cbor:"3,keyasint"`
}

// ObjectClass is a class of signed objects with a least suite of its own.
type ObjectClass uint8

// The classes, and whose key is held against them. This package does it for links
// and new keys; the ledger for all others, at the edge and in Apply.
const (
	ClassEvent      ObjectClass = 1 // whoever signs an event
	ClassDelegation ObjectClass = 2 // issuer, links above and countersigner of a new link
	ClassApproval   ObjectClass = 3 // whoever signs an event of a kind that carries an approval
	ClassPolicy     ObjectClass = 4 // … a policy
	ClassAttest     ObjectClass = 5 // … an attestation
	ClassNode       ObjectClass = 6 // a node, whatever it signs
	ClassKey        ObjectClass = 7 // a key that is registered
)

// Valid reports whether c is one of the classes.
func (c ObjectClass) Valid() bool { return c >= ClassEvent && c <= ClassKey }

// Registered is the detail of identity.register and identity.rotate.
type Registered struct {
	Key   nhi.KeyID `cbor:"1,keyasint"`
	Until int64     `cbor:"2,keyasint,omitzero"` // end of the superseded key, ns
}

// RegisteredLink is the detail of delegation.register.
type RegisteredLink struct {
	Link  nhi.LinkID `cbor:"1,keyasint"`
	Index uint64     `cbor:"2,keyasint"` // of its first registration
}

// Encode returns the canonical body.
func (b *RegisterBody) Encode() ([]byte, error) { return encode(b) }

// Encode returns the canonical body.
func (b *RotateBody) Encode() ([]byte, error) { return encode(b) }

// Encode returns the canonical body.
func (b *StatusBody) Encode() ([]byte, error) { return encode(b) }

// Encode returns the canonical body.
func (b *EraseBody) Encode() ([]byte, error) { return encode(b) }

// Encode returns the canonical body.
func (b *RegisterLinkBody) Encode() ([]byte, error) { return encode(b) }

// Encode returns the canonical body.
func (b *RevokeLinkBody) Encode() ([]byte, error) { return encode(b) }

// Encode returns the canonical body.
func (b *GuardBody) Encode() ([]byte, error) { return encode(b) }

// Encode returns the canonical body.
func (b *MinSuiteBody) Encode() ([]byte, error) { return encode(b) }

func encode(b interface{ check() error }) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	return canon.Marshal(b)
}

// decode decodes a body strictly and checks what can be seen without state.
func decode(raw []byte, b interface{ check() error }) error {
	if err := canon.UnmarshalMax(raw, b, maxBodyBytes); err != nil {
		return refuseFor(CodeMalformed, err)
	}
	return b.check()
}

func (b *RegisterBody) check() error {
	switch {
	case b.ID.IsZero():
		return bad("id is zero")
	case !b.Type.Valid():
		return refuse(CodeType)
	}
	return checkKey(b.Suite, b.Public, b.Possession)
}

func (b *RotateBody) check() error {
	if b.ID.IsZero() || b.OverlapUntil < 0 {
		return bad("id or overlap")
	}
	return checkKey(b.Suite, b.Public, b.Possession)
}

// checkKey refuses a suite that the registry does not know, which includes every
// suite of one signature alone, and lengths that do not belong to it.
func checkKey(s nhi.Suite, pk, possession []byte) error {
	if !known(s) {
		return refuse(CodeSuite)
	}
	if len(pk) != nhi.PublicKeySize {
		return refuse(CodeBadKey)
	}
	if len(possession) != nhi.SignatureSize {
		return refuse(CodePossession)
	}
	return nil
}

func known(s nhi.Suite) bool { return s == nhi.SuiteMLDSA65Ed25519 }

func (b *StatusBody) check() error {
	if b.ID.IsZero() || len(b.Reason) > MaxReason || !printable(b.Reason, true) || b.CompromisedSince < 0 {
		return bad("id, reason or time")
	}
	return nil
}

func (b *EraseBody) check() error { return nil }

func (b *RegisterLinkBody) check() error {
	switch {
	case len(b.Body) > MaxLinkBytes:
		return refuse(CodeTooLarge)
	case b.Evidence.Kind != CompositeKey || len(b.Evidence.Bytes) != 0:
		return refuse(CodeEvidence)
	case len(b.Signature) != nhi.SignatureSize:
		return refuse(CodeBadSignature)
	case len(b.Countersignature) != 0 && len(b.Countersignature) != nhi.SignatureSize:
		return refuse(CodeCountersign)
	}
	return nil
}

func (b *RevokeLinkBody) check() error {
	if (b.Link == nhi.LinkID{}) {
		return bad("link id is zero")
	}
	return nil
}

func (b *GuardBody) check() error {
	if len(b.Text) == 0 || len(b.Text) > MaxGuardBytes {
		return bad("guard text")
	}
	return nil
}

func (b *MinSuiteBody) check() error {
	if !b.Class.Valid() {
		return bad("object class")
	}
	if !known(b.Suite) {
		return refuse(CodeSuite)
	}
	return nil
}
