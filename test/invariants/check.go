package invariants

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
)

// Replica is the state of one node after some command.
type Replica struct {
	Name string
	Snap *ledger.Snapshot
}

// Violation says which invariant does not hold, where, and how.
type Violation struct {
	Invariant string // "I1" … "I12"
	Where     string // replica, and log if it is about one
	What      string
}

func (v Violation) Error() string { return v.Invariant + " at " + v.Where + ": " + v.What }

// maxViolations bounds what one check reports of each invariant: the first ones tell the story.
const maxViolations = 5

// violations collects what a check finds.
type violations struct {
	list  []error
	count map[string]int
}

func (c *violations) add(invariant, where, format string, args ...any) {
	if c.count[invariant]++; c.count[invariant] <= maxViolations {
		c.list = append(c.list, Violation{invariant, where, fmt.Sprintf(format, args...)})
	}
}

// Promised is everything that clients and observers of a cluster know and that its replicas must bear out.
type Promised struct {
	Acks        []Ack
	Checkpoints []Checkpoint
	// Tried are events that were sent and never acknowledged: each may be there, once, or not at all.
	Tried []Ack
}

// Report says how much was looked at: a check that looked at nothing has shown nothing.
type Report struct {
	Leaves, Signatures, Epochs, Acks, Checkpoints, Counters, Claims int
}

func (r Report) String() string {
	return fmt.Sprintf("%d leaves, %d signatures, %d epochs, %d promises, %d checkpoints, %d counters after every leaf, %d claims",
		r.Leaves, r.Signatures, r.Epochs, r.Acks, r.Checkpoints, r.Counters, r.Claims)
}

// Check holds replicas against one another, their own leaves and what was promised. The error joins every Violation found.
func Check(replicas []Replica, p Promised) (Report, error) {
	c := violations{count: make(map[string]int)}
	var r Report
	if len(replicas) == 0 {
		return r, errors.New("check: no replicas")
	}
	c.heads(replicas, p.Checkpoints, &r)
	for _, rep := range replicas {
		leaves := c.leaves(rep, &r)
		c.acks(rep, p, leaves, &r)
		c.quotas(rep, &r)
		c.approvals(rep, &r)
	}
	return r, errors.Join(c.list...)
}

// where names a log of a replica.
func where(rep Replica, t ledger.Tenant) string {
	if t.ID.IsZero() {
		return rep.Name + ", system log"
	}
	return fmt.Sprintf("%s, tenant %s", rep.Name, t.ID)
}

// logs calls fn for every log of a replica, the system log first.
func (c *violations) logs(rep Replica, fn func(t ledger.Tenant)) {
	for slot := range rep.Snap.Slots() {
		t, err := rep.Snap.TenantAt(slot)
		if slot == ledger.SystemSlot {
			t, err = rep.Snap.Tenant(nhi.ID{})
		}
		if err != nil {
			c.add("I9", rep.Name, "slot %d has no tenant: %v", slot, err)
			continue
		}
		fn(t)
	}
}
