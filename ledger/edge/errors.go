package edge

import (
	"errors"
	"fmt"
	"time"
)

// Answers of Submit that concern the whole call.
var (
	// ErrPushback: the tenant's queue, or the node, has no room. Nothing was proposed; try again after RetryAfter.
	ErrPushback = errors.New("too many events are waiting")
	// ErrUnavailable: no leader, or leadership changed underway. The events may have been committed: try again with the same
	// ids, which cannot take effect twice.
	ErrUnavailable = errors.New("no leader can commit now")
	// ErrUnknownTenant: there is no such tenant.
	ErrUnknownTenant = errors.New("unknown tenant")
	// ErrUnauthenticated: the key is unknown or the signature does not hold. Which of the two is not said.
	ErrUnauthenticated = errors.New("signature is not by a key registered here")
)

// RetryAfter is what callers are told to wait after ErrPushback and ErrUnavailable.
const RetryAfter = 100 * time.Millisecond

// InvalidError refuses an envelope before it is proposed: what it says about an event of it is final for these bytes.
type InvalidError struct {
	Event  int // position in the envelope, -1 for the envelope itself
	Reason error
}

func (e *InvalidError) Error() string {
	if e.Event < 0 {
		return fmt.Sprintf("envelope: %v", e.Reason)
	}
	return fmt.Sprintf("event %d of the envelope: %v", e.Event, e.Reason)
}

// Unwrap returns the reason.
func (e *InvalidError) Unwrap() error { return e.Reason }
