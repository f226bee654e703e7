package kind

// The kinds of events that the meter decides.
const (
	Usage    = "usage"
	Account  = "quota.account"
	Set      = "quota.set"
	Reserve  = "quota.reserve"
	Settle   = "quota.settle"
	Close    = "quota.close"
	WriteOff = "quota.writeoff"
	Correct  = "quota.correct"
	Zone     = "admin.tz" // of the system log
)

// The kinds of system leaves that the meter brings about.
const (
	ThresholdReached = "system.quota.threshold" // body Threshold
	LeaseExpired     = "system.lease.expired"   // body LeaseExpiry
)
