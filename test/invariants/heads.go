package invariants

import (
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Checkpoint is a root that somebody was shown for a size of a log: the spine if Spine is set.
type Checkpoint struct {
	From   string // who showed it
	Spine  bool
	Tenant nhi.ID
	Size   uint64
	Root   nhi.Digest
}

// heads compares the logs of all replicas with the longest one, epoch by epoch and size by size, and every checkpoint that was
// shown with all of them.
func (c *violations) heads(replicas []Replica, shown []Checkpoint, r *Report) {
	ref := replicas[0]
	for _, rep := range replicas[1:] {
		if rep.Snap.Index() > ref.Snap.Index() {
			ref = rep
		}
	}
	for _, rep := range replicas {
		if rep.Snap.LedgerID() != ref.Snap.LedgerID() {
			c.add("I3", rep.Name, "is of another ledger than %s", ref.Name)
			continue
		}
		if rep.Snap.Index() == ref.Snap.Index() && rep.Snap.StateHash() != ref.Snap.StateHash() {
			c.add("I4", rep.Name, "state hash at command %d differs from that of %s", rep.Snap.Index(), ref.Name)
		}
		c.epochs(rep, ref, r)
		c.logs(rep, func(t ledger.Tenant) { c.prefix(rep, ref, t.Slot, where(rep, t)) })
		for _, s := range shown {
			r.Checkpoints++
			c.checkpoint(rep, s)
		}
	}
}

// epochs: every seal states the same on both, and its own heads are those of the logs.
func (c *violations) epochs(rep, ref Replica, r *Report) {
	last := min(rep.Snap.Epoch(), ref.Snap.Epoch())
	for e := uint64(1); e <= last; e++ {
		a, la, err := rep.Snap.SpineLeaf(e)
		if err != nil {
			c.add("I3", rep.Name, "epoch %d: %v", e, err)
			return
		}
		b, lb, err := ref.Snap.SpineLeaf(e)
		if err != nil {
			c.add("I3", ref.Name, "epoch %d: %v", e, err)
			return
		}
		r.Epochs++
		switch {
		case la.StateHash != lb.StateHash:
			c.add("I4", rep.Name, "epoch %d: state hash differs from that of %s", e, ref.Name)
		case string(a) != string(b):
			c.add("I3", rep.Name, "epoch %d: spine leaf differs from that of %s", e, ref.Name)
		}
	}
	c.prefix(rep, ref, ledger.SpineSlot, rep.Name+", spine")
	if rep.Name == ref.Name {
		c.sealed(rep, last)
	}
}

// sealed: what each of the newest epochs sealed of each log is a root of that log, and consistent with its head now.
func (c *violations) sealed(rep Replica, last uint64) {
	first := uint64(1)
	if last > 64 {
		first = last - 63
	}
	c.logs(rep, func(t ledger.Tenant) {
		at := where(rep, t)
		head, err := rep.Snap.Head(t.Slot)
		if err != nil {
			c.add("I3", at, "head: %v", err)
			return
		}
		for e := first; e <= last; e++ {
			_, sealed, err := rep.Snap.SealedHead(t.Slot, e)
			if err != nil {
				continue // the log began later
			}
			root, err := rep.Snap.RootAt(t.Slot, sealed.Size)
			if err != nil || root != sealed.Root {
				c.add("I3", at, "epoch %d sealed root %x at size %d, the log has %x (%v)", e, sealed.Root, sealed.Size, root, err)
				continue
			}
			if sealed.Size == 0 || sealed.Size > head.Size {
				continue
			}
			if err := consistent(rep.Snap, t.Slot, sealed.Size, head.Size, sealed.Root, head.Root); err != nil {
				c.add("I3", at, "epoch %d: %v", e, err)
			}
		}
	})
}

func consistent(s *ledger.Snapshot, slot uint32, size1, size2 uint64, root1, root2 nhi.Digest) error {
	path, err := s.Consistency(slot, size1, size2)
	if err == nil {
		err = verify.VerifyConsistency(size1, size2, path, root1, root2)
	}
	if err != nil {
		return fmt.Errorf("size %d is no prefix of size %d: %w", size1, size2, err)
	}
	return nil
}

// prefix: both have the same roots at every size they share, of which powers of two and their neighbours are asked.
func (c *violations) prefix(rep, ref Replica, slot uint32, at string) {
	if rep.Name == ref.Name {
		return
	}
	a, err := rep.Snap.Head(slot)
	if err != nil {
		c.add("I3", at, "head: %v", err)
		return
	}
	b, err := ref.Snap.Head(slot)
	if err != nil {
		c.add("I3", at, "head on %s: %v", ref.Name, err)
		return
	}
	size := min(a.Size, b.Size)
	for n := size; n > 0; n = n * 3 / 4 {
		ra, erra := rep.Snap.RootAt(slot, n)
		rb, errb := ref.Snap.RootAt(slot, n)
		if erra != nil || errb != nil || ra != rb {
			c.add("I3", at, "size %d: root %x, on %s %x (%v, %v)", n, ra, ref.Name, rb, erra, errb)
		}
	}
	if size > 0 && size < b.Size {
		root, err := rep.Snap.RootAt(slot, size)
		if err == nil {
			err = consistent(ref.Snap, slot, size, b.Size, root, b.Root)
		}
		if err != nil {
			c.add("I3", at, "%v", err)
		}
	}
}

func (c *violations) checkpoint(rep Replica, s Checkpoint) {
	slot := ledger.SpineSlot
	if !s.Spine {
		t, err := rep.Snap.Tenant(s.Tenant)
		if err != nil {
			c.add("I3", rep.Name, "checkpoint of %s: %v", s.Tenant, err)
			return
		}
		slot = t.Slot
	}
	if s.Size == 0 {
		return
	}
	root, err := rep.Snap.RootAt(slot, s.Size)
	if err != nil || root != s.Root {
		c.add("I3", rep.Name, "%s showed root %x for size %d of slot %d; the log has %x (%v)", s.From, s.Root, s.Size, slot, root, err)
	}
}
