package kind

import (
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// maxDetail is the most bytes of a detail, as the ledger has it.
const maxDetail = 2 << 10

// Refusal is the detail of a refused event of the meter: canonical CBOR. For outcome quota_exhausted it names the counter
// that had the least room; for any other outcome only Hint is there.
type Refusal struct {
	Account   nhi.ID     `cbor:"1,keyasint,omitzero"` // the level that refused: this account, or
	Meter     string     `cbor:"2,keyasint,omitempty"`
	Limit     uint64     `cbor:"3,keyasint,omitempty"`
	Charged   uint64     `cbor:"4,keyasint,omitempty"`
	Open      uint64     `cbor:"5,keyasint,omitempty"`
	Remaining uint64     `cbor:"6,keyasint,omitempty"`
	ResetsAt  int64      `cbor:"7,keyasint,omitempty"` // ns of consensus time; 0 = never
	Hint      string     `cbor:"8,keyasint"`           // how to get further
	Excess    uint64     `cbor:"9,keyasint,omitempty"`
	Period    Period     `cbor:"10,keyasint,omitempty"`
	Link      nhi.LinkID `cbor:"11,keyasint,omitzero"` // the budget of this link
	Want      uint64     `cbor:"12,keyasint,omitempty"`
	Over      uint64     `cbor:"13,keyasint,omitempty"` // claimed beyond limit and grants: takes no room
}

// Encode returns the detail.
func (r *Refusal) Encode() []byte { return canon.MustMarshal(r) }

// DecodeRefusal parses the detail of a refused event of the meter.
func DecodeRefusal(detail []byte) (*Refusal, error) {
	var r Refusal
	if err := canon.UnmarshalMax(detail, &r, maxDetail); err != nil {
		return nil, err
	}
	return &r, nil
}

// UsageDetail is the detail of accepted usage that a quota under observation would have refused.
type UsageDetail struct {
	WouldDeny []Refusal `cbor:"1,keyasint"` // at most MaxWouldDeny, nearest level first
}

// MaxWouldDeny bounds what a UsageDetail lists.
const MaxWouldDeny = 4

// Grant is a lease that was given: the detail of an accepted `quota.reserve`, canonical CBOR.
type Grant struct {
	Lease   uint64      `cbor:"1,keyasint"`
	Granted uint64      `cbor:"2,keyasint"`
	Expires int64       `cbor:"3,keyasint"`           // ns of consensus time: after it, do not spend
	Period  *GrantedFor `cbor:"4,keyasint,omitempty"` // of the counters it was granted by, the instance that ends first
}

// GrantedFor is the period instance that a grant belongs to.
type GrantedFor struct {
	Period Period `cbor:"1,keyasint"`
	Start  int64  `cbor:"2,keyasint"` // ns
	End    int64  `cbor:"3,keyasint"` // ns; 2^63−1 = never
}

// Encode returns the detail.
func (g *Grant) Encode() []byte { return canon.MustMarshal(g) }

// DecodeGrant parses the detail of an accepted `quota.reserve`.
func DecodeGrant(detail []byte) (*Grant, error) {
	var g Grant
	if err := canon.UnmarshalMax(detail, &g, maxDetail); err != nil {
		return nil, err
	}
	return &g, nil
}

// Closed is the detail of an accepted `quota.close` or `quota.writeoff`, canonical CBOR.
type Closed struct {
	Lease    uint64 `cbor:"1,keyasint"`
	Settled  uint64 `cbor:"2,keyasint"` // spent within the grant
	Returned uint64 `cbor:"3,keyasint"` // given back to every counter
	Over     uint64 `cbor:"4,keyasint"` // spent beyond the grant; 2^64−1 = at least that
}

// OverClaim is the detail of an accepted `quota.settle`, or `usage` with a lease, that says more than was granted.
type OverClaim struct {
	Lease uint64 `cbor:"1,keyasint"`
	Over  uint64 `cbor:"2,keyasint"` // by this event
	Sum   uint64 `cbor:"3,keyasint"` // and by all of the lease; 2^64−1 = at least that
}

// DecodeOverClaim parses the detail of an accepted settlement that says more than was granted.
func DecodeOverClaim(detail []byte) (*OverClaim, error) {
	var c OverClaim
	if err := canon.UnmarshalMax(detail, &c, maxDetail); err != nil {
		return nil, err
	}
	return &c, nil
}

// DecodeClosed parses the detail of an accepted `quota.close` or `quota.writeoff`.
func DecodeClosed(detail []byte) (*Closed, error) {
	var c Closed
	if err := canon.UnmarshalMax(detail, &c, maxDetail); err != nil {
		return nil, err
	}
	return &c, nil
}

// Threshold is the body of `system.quota.threshold`: within this instance of the period, usage has reached a percentage of
// the limit. At most one such leaf for each instance and threshold.
type Threshold struct {
	Account nhi.ID `cbor:"1,keyasint"`
	Meter   string `cbor:"2,keyasint"`
	Period  Period `cbor:"3,keyasint"`
	Start   int64  `cbor:"4,keyasint"` // of the period's instance, ns
	Percent uint16 `cbor:"5,keyasint"`
	Limit   uint64 `cbor:"6,keyasint"`
	Used    uint64 `cbor:"7,keyasint"` // charged + excess + over
}

// LeaseExpiry is the body of `system.lease.expired`: the time to spend under a lease is over. What is not settled stays
// open until a signed statement says what became of it.
type LeaseExpiry struct {
	Lease   uint64 `cbor:"1,keyasint"`
	Granted uint64 `cbor:"2,keyasint"`
	Settled uint64 `cbor:"3,keyasint"`
	Burned  uint64 `cbor:"4,keyasint"` // granted − settled
}
