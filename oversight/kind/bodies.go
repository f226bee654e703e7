package kind

import (
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Bounds of bodies.
const (
	MaxPolicyBytes  = 60 << 10 // of both texts and the chains together: they travel in one event
	MaxReservations = 8        // of one request
	MaxMeter        = 64       // bytes of a meter's name
	MinTTL          = time.Second
	MaxTTL          = 30 * 24 * time.Hour
	maxBody         = 64 << 10
	maxIndex        = 1<<53 - 1
)

// InvalidError says which field of a body breaks its rules.
type InvalidError struct {
	Field  string
	Reason string
}

// Error names the field.
func (e *InvalidError) Error() string { return e.Field + " " + e.Reason }

func invalid(field, reason string) error { return &InvalidError{Field: field, Reason: reason} }

// checker is a body that knows its own rules.
type checker interface{ check() error }

func encode(what string, b checker) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	out, err := canon.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	return out, nil
}

func decode[T any, P interface {
	*T
	checker
}](what string, body []byte) (*T, error) {
	b := new(T)
	if err := canon.UnmarshalMax(body, b, maxBody); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	if err := P(b).check(); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	return b, nil
}

// PublishBody is the body of policy.publish: it replaces the tenant's policy as a whole. Signed by the tenant's authority or
// by a human whom the policy in force lets publish.
type PublishBody struct {
	Hard   string `cbor:"1,keyasint"`           // Cedar: permits and plain forbids
	Soft   string `cbor:"2,keyasint"`           // Cedar: forbids with @oversight("chain")
	Chains []byte `cbor:"3,keyasint,omitempty"` // EncodeChains: the chains that soft policies and links name
}

func (b *PublishBody) check() error {
	if n := len(b.Hard) + len(b.Soft) + len(b.Chains); n > MaxPolicyBytes {
		return invalid("policy", fmt.Sprintf("has %d bytes, at most %d fit into one event", n, MaxPolicyBytes))
	}
	if !utf8.ValidString(b.Hard) || !utf8.ValidString(b.Soft) {
		return invalid("policy", "is not valid UTF-8")
	}
	_, err := DecodeChains(b.Chains)
	return err
}

// Encode returns the canonical body.
func (b *PublishBody) Encode() ([]byte, error) { return encode("policy", b) }

// DecodePublishBody parses and checks the body of policy.publish, but not the Cedar in it.
func DecodePublishBody(body []byte) (*PublishBody, error) { return decode[PublishBody]("policy", body) }

// Reservation is an amount that is reserved when the grant is claimed, whole or not at all.
type Reservation struct {
	Meter   string `cbor:"1,keyasint"`
	Amount  uint64 `cbor:"2,keyasint"`
	Account nhi.ID `cbor:"3,keyasint,omitzero"` // zero = the account of the request's event
}

// RequestBody is the body of approval.request: an agent asks people to approve one action. Who they are, and by when they
// must decide, is said by the policy alone.
type RequestBody struct {
	Action    Action        `cbor:"1,keyasint"`
	Rendered  nhi.Digest    `cbor:"2,keyasint"`           // of what approvers are shown; the action's own digest = every field as it is
	Reasoning nhi.Digest    `cbor:"3,keyasint,omitzero"`  // addendum with the agent's reasons, untrusted; zero = none
	Reserve   []Reservation `cbor:"4,keyasint,omitempty"` // when claimed
	TTL       int64         `cbor:"5,keyasint,omitzero"`  // ns: after it nothing is decided or claimed; 0 = as long as the chains allow
}

func (b *RequestBody) check() error {
	if _, err := b.Action.Check(); err != nil {
		return err
	}
	switch {
	case b.Rendered == nhi.Digest{}:
		return invalid("rendered digest", "is zero")
	case len(b.Reserve) > MaxReservations:
		return invalid("reserve", fmt.Sprintf("has %d entries, at most %d are allowed", len(b.Reserve), MaxReservations))
	case b.TTL != 0 && (b.TTL < int64(MinTTL) || b.TTL > int64(MaxTTL)):
		return invalid("ttl", "is outside "+MinTTL.String()+" to "+MaxTTL.String())
	}
	for i := range b.Reserve {
		r := &b.Reserve[i]
		if len(r.Meter) > MaxMeter || !plain(r.Meter) {
			return invalid("reserve", fmt.Sprintf("names a meter that is not 1 to %d printable ASCII characters", MaxMeter))
		}
		if r.Amount == 0 || r.Amount > math.MaxInt64 {
			return invalid("reserve", "has an amount outside 1 to 2^63−1")
		}
	}
	return nil
}

// Encode returns the canonical body.
func (b *RequestBody) Encode() ([]byte, error) { return encode("request", b) }

// DecodeRequestBody parses and checks the body of approval.request.
func DecodeRequestBody(body []byte) (*RequestBody, error) {
	return decode[RequestBody]("request", body)
}

// VoteBody is the body of approval.vote: one human's decision, signed with that human's own key. Both digests are what the
// human was shown and checked.
type VoteBody struct {
	Request       uint64     `cbor:"1,keyasint"` // leaf index of the request
	Choice        Choice     `cbor:"2,keyasint"`
	ActionDigest  nhi.Digest `cbor:"3,keyasint"`
	RequestDigest nhi.Digest `cbor:"4,keyasint"`
	Reason        nhi.Digest `cbor:"5,keyasint,omitzero"` // addendum with the human's reasons; zero = none
}

func (b *VoteBody) check() error {
	if b.Choice < Approve || b.Choice > Abstain {
		return invalid("choice", "is none of approve, deny and abstain")
	}
	return checkIndex(b.Request)
}

// Encode returns the canonical body.
func (b *VoteBody) Encode() ([]byte, error) { return encode("vote", b) }

// DecodeVoteBody parses and checks the body of approval.vote.
func DecodeVoteBody(body []byte) (*VoteBody, error) { return decode[VoteBody]("vote", body) }

// ClaimBody is the body of approval.claim: the executor takes the grant, once, and may begin.
type ClaimBody struct {
	Request      uint64     `cbor:"1,keyasint"`
	ActionDigest nhi.Digest `cbor:"2,keyasint"` // of the action it is about to do
}

func (b *ClaimBody) check() error { return checkIndex(b.Request) }

// Encode returns the canonical body.
func (b *ClaimBody) Encode() ([]byte, error) { return encode("claim", b) }

// DecodeClaimBody parses and checks the body of approval.claim.
func DecodeClaimBody(body []byte) (*ClaimBody, error) { return decode[ClaimBody]("claim", body) }

// FencingToken shows that its holder claimed the grant; enforcing gateways ask for it.
type FencingToken [16]byte

// ReportBody is the body of approval.report: how the claimed action ended. A fact.
type ReportBody struct {
	Request uint64       `cbor:"1,keyasint"`
	Token   FencingToken `cbor:"2,keyasint"` // of the claim
	Result  Result       `cbor:"3,keyasint"`
	Digest  nhi.Digest   `cbor:"4,keyasint,omitzero"` // of the result's description; zero = none
}

func (b *ReportBody) check() error {
	if b.Result != ResultExecuted && b.Result != ResultFailed {
		return invalid("result", "is neither executed nor failed")
	}
	return checkIndex(b.Request)
}

// Encode returns the canonical body.
func (b *ReportBody) Encode() ([]byte, error) { return encode("report", b) }

// DecodeReportBody parses and checks the body of approval.report.
func DecodeReportBody(body []byte) (*ReportBody, error) { return decode[ReportBody]("report", body) }

// RefBody is the body of approval.cancel and approval.withdraw: the request they are about.
type RefBody struct {
	Request uint64 `cbor:"1,keyasint"`
}

func (b *RefBody) check() error { return checkIndex(b.Request) }

// Encode returns the canonical body.
func (b *RefBody) Encode() ([]byte, error) { return encode("reference", b) }

// DecodeRefBody parses and checks the body of approval.cancel and approval.withdraw.
func DecodeRefBody(body []byte) (*RefBody, error) { return decode[RefBody]("reference", body) }

func checkIndex(n uint64) error {
	if n > maxIndex {
		return invalid("request", "is no leaf index")
	}
	return nil
}
