package verify

import (
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/creto-systems/creto/nhi"
)

// LeafVersion is the version of the leaf encoding that this package reads and writes.
const LeafVersion = 1

// Bounds of a leaf. A leaf that exceeds one is neither encoded nor decoded.
const (
	MaxLeafSize    = 4 << 10 // bytes of an encoded leaf
	MaxQuantities  = 32      // meters of one leaf
	MaxMeterSize   = 64      // bytes of a meter's name
	MaxKindSize    = 64      // bytes of a kind
	MaxAddenda     = 8       // addenda digests of one leaf
	MaxCertSize    = 64      // bytes of a time certificate's reference
	MaxCauseRef    = 64      // bytes of a cause's reference
	MaxTreeSize    = 1<<53 - 1
	maxUnixNano    = 1<<63 - 1
	leafHashPrefix = 0x00
)

// Leaf is one entry of a tenant's log: canonical CBOR, a map with the integer keys of the tags. Its encoded bytes are the
// entry of the C2SP log, and their RFC 6962 leaf hash is what the tree commits to. A field whose value is zero (or nil) is
// absent from the encoding, except v, cell, slot, index, time, quality, kind and outcome, which are always there.
type Leaf struct {
	V          uint64       `cbor:"1,keyasint"`
	Cell       uint64       `cbor:"2,keyasint"`
	Slot       uint32       `cbor:"3,keyasint"` // the tenant's permanent slot; 0 is the system log
	Index      uint64       `cbor:"4,keyasint"` // position in the tenant's log, dense from 0
	Time       int64        `cbor:"5,keyasint"` // commit time, Unix nanoseconds, consensus time
	Quality    Quality      `cbor:"6,keyasint"`
	Kind       string       `cbor:"7,keyasint"`
	Agent      nhi.ID       `cbor:"8,keyasint,omitzero"`
	Link       nhi.LinkID   `cbor:"9,keyasint,omitzero"`
	Seq        nhi.Seq      `cbor:"10,keyasint,omitzero"`
	ID         [16]byte     `cbor:"11,keyasint,omitzero"` // the request id; zero in system leaves
	Payload    nhi.Digest   `cbor:"12,keyasint,omitzero"` // nhi.PayloadDigest of the event
	Signature  nhi.Digest   `cbor:"13,keyasint,omitzero"` // SHA-256 of the signature that covers the event
	Outcome    Outcome      `cbor:"14,keyasint"`
	Quantities []Quantity   `cbor:"15,keyasint,omitempty"` // ascending by meter, each meter once
	Epochs     Epochs       `cbor:"16,keyasint,omitzero"`
	Addenda    []nhi.Digest `cbor:"17,keyasint,omitempty"`
	Cause      *Cause       `cbor:"18,keyasint,omitempty"` // system leaves only
	Account    nhi.ID       `cbor:"19,keyasint,omitzero"`
	Reverses   *uint64      `cbor:"20,keyasint,omitempty"` // index of the leaf this one takes back; its quantities subtract
	Lease      *LeaseRef    `cbor:"21,keyasint,omitempty"`
	Decision   nhi.Digest   `cbor:"22,keyasint,omitzero"` // digest of the policy decision
	Assurance  Assurance    `cbor:"23,keyasint,omitempty"`
}

// Quality says how far the commit time of a leaf can be relied on.
type Quality struct {
	Code  QualityCode  `cbor:"1,keyasint"`
	Flags QualityFlags `cbor:"2,keyasint,omitempty"`
	Cert  []byte       `cbor:"3,keyasint,omitempty"` // reference of the time certificate, at most MaxCertSize bytes
}

// QualityCode is the quality of a commit time.
type QualityCode uint8

// The qualities of a commit time.
const (
	QualityGood    QualityCode = 0 // certified by a majority of the voters
	QualityCarried QualityCode = 1 // no certificate of this term yet
	QualitySingle  QualityCode = 2 // fewer than three voters
	QualityStale   QualityCode = 3 // clamped at the certificate's ceiling
)

// String returns the name used in reports.
func (q QualityCode) String() string {
	switch q {
	case QualityGood:
		return "good"
	case QualityCarried:
		return "carried"
	case QualitySingle:
		return "single"
	case QualityStale:
		return "stale"
	}
	return "quality-" + strconv.Itoa(int(q))
}

// QualityFlags are bits that tell how a commit time was made.
type QualityFlags uint8

// The flags of a commit time.
const (
	FlagMono QualityFlags = 1 // the proposed time did not increase; last + 1 was taken
	FlagCeil QualityFlags = 2 // the proposed time was above the ceiling
	FlagTest QualityFlags = 4 // the ledger is a test ledger, whose clock can be moved
)

// Outcome is what the ledger decided about the event.
type Outcome struct {
	Code   OutcomeCode `cbor:"1,keyasint"`
	Detail nhi.Digest  `cbor:"2,keyasint,omitzero"` // digest of the handler's detail, if it gave one
}

// Quantity is one metered amount, at the scale of the meter's catalogue version. Encoded as the array [meter, n].
type Quantity struct {
	_     struct{} `cbor:",toarray"`
	Meter string
	N     uint64
}

// Epochs are the epochs of authority that held when the leaf was applied.
type Epochs struct {
	Policy     uint64 `cbor:"1,keyasint"`
	Entities   uint64 `cbor:"2,keyasint"`
	Revocation uint64 `cbor:"3,keyasint"`
}

// Cause says what brought a system leaf about.
type Cause struct {
	Kind  CauseKind `cbor:"1,keyasint"`
	Index uint64    `cbor:"2,keyasint"`           // leaf index in the same log, where the kind has one
	Ref   []byte    `cbor:"3,keyasint,omitempty"` // id of the object, at most MaxCauseRef bytes
}

// CauseKind is the kind of a cause.
type CauseKind uint8

// The kinds of a cause.
const (
	CauseGenesis CauseKind = 0 // leaf 0 of the system log
	CauseEvent   CauseKind = 1 // an event: Index is its leaf
	CauseTick    CauseKind = 2 // consensus time passed a deadline; Ref names the object
	CauseSeal    CauseKind = 3 // a seal
	CauseCommand CauseKind = 4 // a command of the cluster itself (version, membership, scrub)
	CauseDispute CauseKind = 5 // an auditor's dispute: Index is the disputed leaf
)

// LeaseRef says which lease pays for a leaf, and for which sequence numbers of the lease's spends.
type LeaseRef struct {
	ID   uint64 `cbor:"1,keyasint"`
	From uint64 `cbor:"2,keyasint"` // first sequence number
	To   uint64 `cbor:"3,keyasint"` // one past the last
}

// Assurance says who vouches for the event of a leaf.
type Assurance uint8

// The assurances of a leaf.
const (
	AssuranceSystem   Assurance = 0 // the ledger itself; no signature
	AssuranceSelf     Assurance = 1 // signed by the agent's own key
	AssuranceGateway  Assurance = 2 // signed by a gateway for a caller with a token
	AssuranceWebAuthn Assurance = 3 // a human's passkey, inside an event that a gateway signed
)

// String returns the name used in reports.
func (a Assurance) String() string {
	switch a {
	case AssuranceSystem:
		return "system"
	case AssuranceSelf:
		return "self"
	case AssuranceGateway:
		return "gateway"
	case AssuranceWebAuthn:
		return "webauthn"
	}
	return "assurance-" + strconv.Itoa(int(a))
}

// LeafHash returns the RFC 6962 leaf hash SHA-256(0x00 ‖ leaf) of the encoded leaf (RFC 6962, 2.1). It is also the leaf
// hash of heads leaves and spine leaves.
func LeafHash(leaf []byte) nhi.Digest {
	if len(leaf) < 512 {
		var buf [513]byte
		buf[0] = leafHashPrefix
		return sha256.Sum256(buf[:1+copy(buf[1:], leaf)])
	}
	h := sha256.New()
	h.Write([]byte{leafHashPrefix})
	h.Write(leaf)
	var d nhi.Digest
	h.Sum(d[:0])
	return d
}

// FieldError says which field of a leaf, head, receipt or proof file is out of bounds or not canonical.
type FieldError struct {
	Object string // "leaf", "head", "spine leaf", …
	Field  string
	Reason string
}

// Error names the object and the field.
func (e *FieldError) Error() string {
	return fmt.Sprintf("%s field %q %s", e.Object, e.Field, e.Reason)
}
