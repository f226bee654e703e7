package invariants

import (
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Ack is what a client was told about one event it had signed.
type Ack struct {
	Tenant, Signer nhi.ID
	ID             [16]byte
	Index          uint64
	LeafHash       nhi.Digest
	Outcome        verify.OutcomeCode
}

// acks looks for every promise on a replica: the leaf at the promised index, and no other with this id.
func (c *violations) acks(rep Replica, p Promised, found map[requestID]uint64, r *Report) {
	for _, a := range p.Acks {
		r.Acks++
		at := fmt.Sprintf("%s, tenant %s", rep.Name, a.Tenant)
		index, ok := found[requestID{a.Tenant, a.Signer, a.ID}]
		if !ok {
			c.add("I1", at, "acknowledged request %x of %s (leaf %d) is not there", a.ID, a.Signer, a.Index)
			continue
		}
		if index != a.Index {
			c.add("I1", at, "request %x of %s has leaf %d, its receipt says %d", a.ID, a.Signer, index, a.Index)
			continue
		}
		t, err := rep.Snap.Tenant(a.Tenant)
		if err != nil {
			c.add("I1", at, "%v", err)
			continue
		}
		e, err := rep.Snap.Event(t.Slot, index)
		switch {
		case err != nil:
			c.add("I1", at, "leaf %d: %v", index, err)
		case verify.LeafHash(e.Raw) != a.LeafHash:
			c.add("I1", at, "leaf %d has another hash than its receipt", index)
		case e.Leaf.Outcome.Code != a.Outcome:
			c.add("I1", at, "leaf %d is %s, its receipt says %s", index, e.Leaf.Outcome.Code, a.Outcome)
		}
		// A retry today must be told the same.
		first, err := rep.Snap.Request(t.Slot, a.Signer, a.ID)
		switch {
		case err != nil:
			c.add("I5", at, "request %x of %s: %v", a.ID, a.Signer, err)
		case first.Index != a.Index || first.LeafHash != a.LeafHash || first.Outcome != a.Outcome:
			c.add("I5", at, "request %x of %s would now be answered with leaf %d, %s", a.ID, a.Signer, first.Index, first.Outcome)
		}
	}
	if want := len(p.Acks) + len(p.Tried); p.Acks != nil && want == 0 {
		c.add("I1", rep.Name, "nothing was promised")
	}
}
