package kind

import (
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// maxDetail is the most bytes of a detail, as the ledger has it.
const maxDetail = 2 << 10

// Claimed is the detail of an accepted `sandbox.claim` and the body of `system.sandbox.allocated`, canonical CBOR.
type Claimed struct {
	Claim    uint64 `cbor:"1,keyasint"` // leaf index of the claim, which names it
	Node     nhi.ID `cbor:"2,keyasint"` // zero while it waits for one
	Deadline int64  `cbor:"3,keyasint"` // ns of consensus time: without a report by then the claim expires
	Class    Class  `cbor:"4,keyasint"` // that it gets; of a waiting claim the least it accepts
	// Leases hold room for what the run may use, until its usage is counted or it ends without a run.
	Leases []uint64 `cbor:"5,keyasint,omitempty"`
}

// Encode returns the detail.
func (c *Claimed) Encode() []byte { return canon.MustMarshal(c) }

// DecodeClaimed parses the detail of an accepted `sandbox.claim`.
func DecodeClaimed(detail []byte) (*Claimed, error) {
	var c Claimed
	if err := canon.UnmarshalMax(detail, &c, maxDetail); err != nil {
		return nil, err
	}
	return &c, nil
}

// Refusal is the detail of a refused event of the sandbox, canonical CBOR.
type Refusal struct {
	Hint string `cbor:"1,keyasint"` // how to get further
}

// Encode returns the detail.
func (r *Refusal) Encode() []byte { return canon.MustMarshal(r) }

// DecodeRefusal parses the detail of a refused event of the sandbox.
func DecodeRefusal(detail []byte) (*Refusal, error) {
	var r Refusal
	if err := canon.UnmarshalMax(detail, &r, maxDetail); err != nil {
		return nil, err
	}
	return &r, nil
}

// Expiry is the body of `system.sandbox.expired`.
type Expiry struct {
	Claim  uint64 `cbor:"1,keyasint"`
	Node   nhi.ID `cbor:"2,keyasint"` // zero if it never had one
	Reason string `cbor:"3,keyasint"` // ReasonDeadline or ReasonAuthority
}

// Why a claim ended without a report.
const (
	ReasonDeadline  = "deadline"  // its deadline passed
	ReasonAuthority = "authority" // while it waited, its agent lost the authority to ask
)

// NodeLoss is the body of `system.sandbox.node_lost`. Claims that the node has keep it until they end.
type NodeLoss struct {
	Node    nhi.ID `cbor:"1,keyasint"`
	Running uint64 `cbor:"2,keyasint"` // claims it has
}
