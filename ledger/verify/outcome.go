package verify

import "strconv"

// OutcomeCode is the ledger's decision about an event. Zero is acceptance, and so is OutcomeAcceptedFlagged; everything
// else is a refusal, with no effect but its leaf.
type OutcomeCode uint8

// The outcomes. The numbers stand in leaves for ever and are never reused.
const (
	OutcomeAccepted       OutcomeCode = 0
	OutcomeDenied         OutcomeCode = 1  // the tenant's policy forbids it, or permits nothing
	OutcomeNeedsApproval  OutcomeCode = 2  // a soft forbid matched: ask for approval
	OutcomeQuotaExhausted OutcomeCode = 3  // a counter of the charge list has too little left
	OutcomeExpired        OutcomeCode = 4  // chain, grant, lease or request is past its end
	OutcomeRevoked        OutcomeCode = 5  // key, identity or link was revoked
	OutcomeConflict       OutcomeCode = 6  // the state already says otherwise
	OutcomeInvalid        OutcomeCode = 7  // the body does not say what its kind requires
	OutcomeFrozen         OutcomeCode = 8  // tenant, account, identity or key is frozen or suspended
	OutcomeNotFound       OutcomeCode = 9  // something it refers to does not exist
	OutcomeNotYetValid    OutcomeCode = 10 // the chain's window has not begun
	OutcomeUnauthorized   OutcomeCode = 11 // the signer may not do this, policy aside
	OutcomeExists         OutcomeCode = 12 // what it creates is already there
	OutcomeClosed         OutcomeCode = 13 // grant already claimed, lease or request already closed
	OutcomeWeakSuite      OutcomeCode = 14 // the key's suite is below the minimum of its class
	OutcomeSelfApproval   OutcomeCode = 15 // the voter stands in the requester's own chain
	OutcomeLimit          OutcomeCode = 16 // a structural bound (depth, count, size) is reached
	OutcomeBadSignature   OutcomeCode = 17 // a signature that Apply itself verifies does not hold
	OutcomeUnsupported    OutcomeCode = 18 // the kind is unknown to the active version
	OutcomeTimeQuality    OutcomeCode = 19 // the commit time is not good enough for this act
	OutcomeOverflow       OutcomeCode = 20 // an amount does not fit
	OutcomeVoided         OutcomeCode = 21 // a dispute took the leaf's event back

	// OutcomeAcceptedFlagged is a fact that took effect although the authority behind it was gone when it arrived: the
	// leaf's detail says why.
	OutcomeAcceptedFlagged OutcomeCode = 22
)

// outcomeNames is indexed by OutcomeCode.
var outcomeNames = [...]string{
	"accepted", "denied", "needs_approval", "quota_exhausted", "expired", "revoked", "conflict", "invalid", "frozen",
	"not_found", "not_yet_valid", "unauthorized", "exists", "closed", "weak_suite", "self_approval", "limit",
	"bad_signature", "unsupported", "time_quality", "overflow", "voided", "accepted_flagged",
}

// String returns the name used in reports and APIs; an unknown code is "outcome-N".
func (c OutcomeCode) String() string {
	if int(c) < len(outcomeNames) {
		return outcomeNames[c]
	}
	return "outcome-" + strconv.Itoa(int(c))
}

// ParseOutcomeCode is the inverse of String for the known codes.
func ParseOutcomeCode(name string) (OutcomeCode, bool) {
	for i, n := range outcomeNames {
		if n == name {
			return OutcomeCode(i), true
		}
	}
	return 0, false
}

// Accepted says whether the event took effect.
func (c OutcomeCode) Accepted() bool { return c == OutcomeAccepted || c == OutcomeAcceptedFlagged }
