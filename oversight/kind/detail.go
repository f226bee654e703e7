package kind

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// maxDetail is the most bytes of a detail, as the ledger has it.
const maxDetail = 2 << 10

func decodeDetail[T any](what string, detail []byte) (*T, error) {
	d := new(T)
	if err := canon.UnmarshalMax(detail, d, maxDetail); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	return d, nil
}

// RequestStatement is what a vote's request digest covers besides the vote itself: the signed request, what it asks for,
// and under which policy and quorum it is decided, as frozen when it was opened. Everything in it can be had, or computed,
// by whoever reads the request, so that a voter signs what was shown and not what a server says its digest is.
type RequestStatement struct {
	V        uint64     `cbor:"1,keyasint"` // 1
	Ledger   nhi.Digest `cbor:"2,keyasint"`
	Tenant   nhi.ID     `cbor:"3,keyasint"`
	Request  uint64     `cbor:"4,keyasint"` // leaf index
	Payload  nhi.Digest `cbor:"5,keyasint"` // of the request's event, which holds its nonce
	Action   nhi.Digest `cbor:"6,keyasint"`
	Rendered nhi.Digest `cbor:"7,keyasint"`
	Policy   nhi.Digest `cbor:"8,keyasint"`  // of the policy bundle
	Chains   []Chain    `cbor:"9,keyasint"`  // with the humans who may in fact vote
	End      int64      `cbor:"10,keyasint"` // ns: after it nothing is decided or claimed
	Policies []string   `cbor:"11,keyasint"` // soft policies that an approval satisfies, sorted
	Created  int64      `cbor:"12,keyasint"` // ns: time of the request's leaf, from which deadlines are counted
}

// Digest is SHA-256("creto/approval/request/v1\0" ‖ canonical CBOR of the statement).
func (s *RequestStatement) Digest() nhi.Digest {
	if s.Policies == nil { // no policies are an empty list, wherever they were read from
		c := *s
		c.Policies, s = []string{}, &c
	}
	return sha256.Sum256(append([]byte("creto/approval/request/v1\x00"), canon.MustMarshal(s)...))
}

var codeText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ShortCode is the first 40 bits of a request digest for people to compare by eye or by telephone: "k7f2-9xqp". It
// identifies nothing by itself.
func ShortCode(request nhi.Digest) string {
	s := codeText.EncodeToString(request[:5])
	return s[:4] + "-" + s[4:]
}

// Published is the detail of an accepted policy.publish.
type Published struct {
	Epoch  uint64     `cbor:"1,keyasint"` // policy epoch from here on
	Digest nhi.Digest `cbor:"2,keyasint"` // of the bundle
}

// DecodePublished parses the detail of an accepted policy.publish.
func DecodePublished(detail []byte) (*Published, error) {
	return decodeDetail[Published]("published policy", detail)
}

// Opened is the detail of an accepted approval.request.
type Opened struct {
	Request       uint64     `cbor:"1,keyasint"` // its id from here on
	ShortCode     string     `cbor:"2,keyasint"`
	Deadline      int64      `cbor:"3,keyasint"` // ns: of the first step that has one
	RequestDigest nhi.Digest `cbor:"4,keyasint"`
	End           int64      `cbor:"5,keyasint"` // ns: after it nothing is decided or claimed
}

// DecodeOpened parses the detail of an accepted approval.request.
func DecodeOpened(detail []byte) (*Opened, error) {
	return decodeDetail[Opened]("opened request", detail)
}

// Voted is the detail of an accepted approval.vote and approval.withdraw.
type Voted struct {
	Request uint64 `cbor:"1,keyasint"`
	Counted bool   `cbor:"2,keyasint"` // false: it came too late for the step that was asked then, and is kept as evidence
	State   State  `cbor:"3,keyasint"` // of the request now
}

// DecodeVoted parses the detail of an accepted approval.vote or approval.withdraw.
func DecodeVoted(detail []byte) (*Voted, error) { return decodeDetail[Voted]("vote", detail) }

// Claimed is the detail of an accepted approval.claim.
type Claimed struct {
	Token    FencingToken `cbor:"1,keyasint"`
	StartBy  int64        `cbor:"2,keyasint"` // ns: do not begin after it
	Leases   []uint64     `cbor:"3,keyasint"` // one for each reservation of the request, in order
	ReportBy int64        `cbor:"4,keyasint"` // ns: without a report by then the outcome is unknown
}

// DecodeClaimed parses the detail of an accepted approval.claim.
func DecodeClaimed(detail []byte) (*Claimed, error) { return decodeDetail[Claimed]("claim", detail) }

// Reported is the detail of an accepted approval.report.
type Reported struct {
	Request uint64 `cbor:"1,keyasint"`
	Counted bool   `cbor:"2,keyasint"` // false: the outcome was unknown already; the report is kept for whoever looks into it
	State   State  `cbor:"3,keyasint"`
}

// DecodeReported parses the detail of an accepted approval.report.
func DecodeReported(detail []byte) (*Reported, error) {
	return decodeDetail[Reported]("report", detail)
}

// Cancelled is the detail of an accepted approval.cancel.
type Cancelled struct {
	Request uint64 `cbor:"1,keyasint"`
	Was     State  `cbor:"2,keyasint"` // pending or approved
}

// DecodeCancelled parses the detail of an accepted approval.cancel.
func DecodeCancelled(detail []byte) (*Cancelled, error) {
	return decodeDetail[Cancelled]("cancel", detail)
}

// Reason says in one word why oversight refused. The words stand in details of leaves and keep their meaning.
type Reason string

// The reasons.
const (
	ReasonInvalid        Reason = "invalid"         // the body breaks its rules
	ReasonNotNeeded      Reason = "not_needed"      // the policy lets the action happen without approval
	ReasonNoVerdict      Reason = "no_verdict"      // this identity's actions are not judged by policies
	ReasonChainUndefined Reason = "chain_undefined" // a policy or link names a chain that is not published
	ReasonNoApprovers    Reason = "no_approvers"    // too few humans are left who may approve
	ReasonTooMany        Reason = "too_many"        // more chains, humans or requests than may be asked
	ReasonNotSigner      Reason = "not_signer"      // this identity may not sign such an event
	ReasonScope          Reason = "scope"           // the delegation chain does not cover the action
	ReasonNoRequest      Reason = "no_request"      // there is no such request
	ReasonSelfApproval   Reason = "self_approval"   // the voter stands in the requester's chain
	ReasonNotEligible    Reason = "not_eligible"    // not asked, or not yet
	ReasonDigest         Reason = "digest_mismatch" // it names another action or request
	ReasonAlreadyVoted   Reason = "already_voted"   // one human, one vote
	ReasonNotExecutor    Reason = "not_executor"    // grant or claim belongs to another key or chain
	ReasonNotApproved    Reason = "not_approved"    // it is not approved yet
	ReasonOnHold         Reason = "on_hold"         // approved, and the chain holds it back until Time
	ReasonApproverGone   Reason = "approver_gone"   // an approver is no longer active, and the quorum with them
	ReasonAlreadyClaimed Reason = "already_claimed" // at Index
	ReasonOver           Reason = "over"            // the request ended in State
	ReasonBadToken       Reason = "bad_token"       // not the fencing token of the claim
	ReasonNoMeter        Reason = "no_meter"        // this ledger reserves nothing
	ReasonUnknownHuman   Reason = "unknown_human"   // a chain names somebody who is no active human
	ReasonTimeQuality    Reason = "time_quality"    // consensus time cannot be relied on at the moment: the same again later, with a new id
)

// Refusal is the detail of a refused event of oversight, except where the meter refused a claim: then it is the meter's.
type Refusal struct {
	Reason Reason `cbor:"1,keyasint"`
	Hint   string `cbor:"2,keyasint,omitempty"` // how to get further
	State  State  `cbor:"3,keyasint,omitzero"`
	Index  uint64 `cbor:"4,keyasint,omitzero"` // of the leaf that stands in the way
	Time   int64  `cbor:"5,keyasint,omitzero"` // ns: when it ended, or from when on it works
}

// DecodeRefusal parses the detail of a refused event of oversight.
func DecodeRefusal(detail []byte) (*Refusal, error) { return decodeDetail[Refusal]("refusal", detail) }

// Grant is the body of system.approval.granted: proof that exactly this action was approved, for one use by one key. It is
// nothing to bear: only a claim signed by the key takes it.
type Grant struct {
	Request       uint64     `cbor:"1,keyasint"`
	ActionDigest  nhi.Digest `cbor:"2,keyasint"`
	Agent         nhi.ID     `cbor:"3,keyasint"`
	Key           nhi.KeyID  `cbor:"4,keyasint"`
	Link          nhi.LinkID `cbor:"5,keyasint"`
	PolicyEpoch   uint64     `cbor:"6,keyasint"`
	PolicyDigest  nhi.Digest `cbor:"7,keyasint"`
	NotBefore     int64      `cbor:"8,keyasint"`  // ns; later than the approval where a chain holds
	NotAfter      int64      `cbor:"9,keyasint"`  // ns
	Uses          uint64     `cbor:"10,keyasint"` // 1
	RequestDigest nhi.Digest `cbor:"11,keyasint"`
	Votes         []uint64   `cbor:"12,keyasint"` // leaf indices of the approvals that made the quorum
}

// DecodeGrant parses the body of system.approval.granted.
func DecodeGrant(body []byte) (*Grant, error) {
	var g Grant
	if err := canon.UnmarshalMax(body, &g, maxBody); err != nil {
		return nil, fmt.Errorf("decode grant: %w", err)
	}
	return &g, nil
}

// Resolution is the body of the other system leaves about a request.
type Resolution struct {
	Request      uint64     `cbor:"1,keyasint"`
	ActionDigest nhi.Digest `cbor:"2,keyasint"`
	State        State      `cbor:"3,keyasint"`
	Chain        string     `cbor:"4,keyasint,omitempty"` // whose step or denial it is
	Step         uint64     `cbor:"5,keyasint,omitzero"`  // from 1: the step that is asked now
	Time         int64      `cbor:"6,keyasint"`           // ns: the deadline that passed
}

// DecodeResolution parses the body of a system leaf about a request.
func DecodeResolution(body []byte) (*Resolution, error) {
	return decodeDetail[Resolution]("resolution", body)
}
