package kind

import "strconv"

// The kinds of events that oversight decides.
const (
	Publish  = "policy.publish"
	Request  = "approval.request"
	Vote     = "approval.vote"
	Withdraw = "approval.withdraw"
	Claim    = "approval.claim"
	Report   = "approval.report"
	Cancel   = "approval.cancel"
)

// Ungranted returns the kinds of events that policies judge and that no approval can be used for, in order: a claim takes the
// grant of an action, and these are events of their own.
func Ungranted() []string {
	return []string{
		Publish, "quota.account", "quota.correct", "quota.reserve", "quota.set", "quota.writeoff", "sandbox.claim", "usage",
	}
}

// The kinds of system leaves that oversight brings about.
const (
	Granted   = "system.approval.granted"   // body Grant
	Denied    = "system.approval.denied"    // body Resolution
	Escalated = "system.approval.escalated" // body Resolution: the next step of a chain is asked
	Expired   = "system.approval.expired"   // body Resolution: nobody decided in time
	Lapsed    = "system.approval.lapsed"    // body Resolution: approved and not claimed in time
	Unknown   = "system.approval.unknown"   // body Resolution: claimed and never reported
)

// State is where an approval request stands. The numbers stand in rows and leaves and are never reused.
type State uint8

// The states. Pending, Approved and Claimed lead on; all others are final.
const (
	StatePending   State = 1
	StateApproved  State = 2
	StateDenied    State = 3
	StateExpired   State = 4
	StateCancelled State = 5
	StateWithdrawn State = 6
	StateClaimed   State = 7
	StateExecuted  State = 8
	StateFailed    State = 9
	StateUnknown   State = 10
	StateLapsed    State = 11
)

var stateNames = [...]string{
	StatePending: "pending", StateApproved: "approved", StateDenied: "denied", StateExpired: "expired",
	StateCancelled: "cancelled", StateWithdrawn: "withdrawn", StateClaimed: "claimed", StateExecuted: "executed",
	StateFailed: "failed", StateUnknown: "unknown", StateLapsed: "lapsed",
}

// String returns the state in one word; an unknown one is "state-N".
func (s State) String() string {
	if int(s) < len(stateNames) && s != 0 {
		return stateNames[s]
	}
	return "state-" + strconv.Itoa(int(s))
}

// Final says whether the state never changes again.
func (s State) Final() bool { return s != StatePending && s != StateApproved && s != StateClaimed }

// ParseState is the inverse of String for the known states.
func ParseState(name string) (State, bool) {
	for i, n := range stateNames {
		if n != "" && n == name {
			return State(i), true
		}
	}
	return 0, false
}

// Choice is what a vote says.
type Choice uint8

// The choices. An abstention is on record and counts for nothing.
const (
	Approve Choice = 1
	Deny    Choice = 2
	Abstain Choice = 3
)

var choiceNames = [...]string{Approve: "approve", Deny: "deny", Abstain: "abstain"}

// String returns the choice in one word.
func (c Choice) String() string {
	if int(c) < len(choiceNames) && c != 0 {
		return choiceNames[c]
	}
	return "choice-" + strconv.Itoa(int(c))
}

// ParseChoice is the inverse of String for the known choices.
func ParseChoice(name string) (Choice, bool) {
	for i, n := range choiceNames {
		if n != "" && n == name {
			return Choice(i), true
		}
	}
	return 0, false
}

// Result is how a claimed action ended.
type Result uint8

// The results.
const (
	ResultExecuted Result = 1
	ResultFailed   Result = 2
)
