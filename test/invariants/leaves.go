package invariants

import (
	"crypto/sha256"
	"fmt"
	"math"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// requestID is what may have one leaf.
type requestID struct {
	tenant nhi.ID
	signer nhi.ID
	id     [16]byte
}

// leaves walks all logs of a replica and returns where each request id stands.
func (c *violations) leaves(rep Replica, r *Report) map[requestID]uint64 {
	found := make(map[requestID]uint64)
	times := make(map[int64]string)
	c.logs(rep, func(t ledger.Tenant) {
		at := where(rep, t)
		head, err := rep.Snap.Head(t.Slot)
		if err != nil {
			c.add("I3", at, "head: %v", err)
			return
		}
		audit := newAudit(rep.Snap, t)
		var tree tree
		var last int64
		for i := range head.Size {
			e, err := rep.Snap.Event(t.Slot, i)
			if err != nil {
				c.add("I1", at, "leaf %d of %d: %v", i, head.Size, err)
				return
			}
			r.Leaves++
			tree.add(e.Raw)
			l := e.Leaf
			if l.Index != i || l.Slot != t.Slot {
				c.add("I9", at, "leaf %d says it is leaf %d of slot %d", i, l.Index, l.Slot)
			}
			if l.Time <= last {
				c.add("I8", at, "leaf %d: time %d does not come after %d", i, l.Time, last)
			}
			last = l.Time
			if before, ok := times[l.Time]; ok {
				c.add("I8", at, "leaf %d: time %d is also that of %s", i, l.Time, before)
			}
			times[l.Time] = fmt.Sprintf("leaf %d of slot %d", i, t.Slot)
			if e.Signature == nil {
				if l.Cause == nil {
					c.add("I9", at, "leaf %d (%s) has neither signature nor cause", i, l.Kind)
				}
				continue
			}
			id := requestID{t.ID, l.Agent, l.ID}
			if before, ok := found[id]; ok {
				c.add("I5", at, "request %x of %s has leaves %d and %d", l.ID, l.Agent, before, i)
			}
			found[id] = i
			if err := audit.leaf(e); err != nil {
				c.add("I9", at, "leaf %d (%s): %v", i, l.Kind, err)
			}
			r.Signatures++
		}
		if got := tree.root(); got != head.Root {
			c.add("I3", at, "root of %d leaves: recomputed %x, stored %x", head.Size, got, head.Root)
		}
	})
	return found
}

// audit verifies envelope signatures with the keys of the registry, whole, as nobody on the path of an event has trusted
// another to.
type audit struct {
	snap   *ledger.Snapshot
	tenant ledger.Tenant
	ledger nhi.Digest
	keys   map[nhi.KeyID]signer
	seen   map[nhi.Digest]bool // signatures that hold
}

type signer struct {
	owner nhi.ID
	key   *nhi.PublicKey
}

func newAudit(s *ledger.Snapshot, t ledger.Tenant) *audit {
	return &audit{snap: s, tenant: t, ledger: s.LedgerID(), keys: make(map[nhi.KeyID]signer), seen: make(map[nhi.Digest]bool)}
}

func (a *audit) leaf(e *ledger.StoredEvent) error {
	ev, err := nhi.DecodeEvent(e.Payload)
	if err != nil {
		return err
	}
	l := e.Leaf
	switch {
	case ev.Tenant != a.tenant.ID:
		return fmt.Errorf("payload is of tenant %s", ev.Tenant)
	case ev.LedgerID != a.ledger:
		return fmt.Errorf("payload is of ledger %x", ev.LedgerID)
	case ev.Agent != l.Agent || ev.ID != l.ID || ev.Kind != l.Kind || ev.Link != l.Link || ev.Account != l.Account:
		return fmt.Errorf("payload and leaf name different events")
	}
	digest := nhi.PayloadDigest(e.Payload)
	if digest != l.Payload {
		return fmt.Errorf("payload has digest %x, leaf says %x", digest, l.Payload)
	}
	s := e.Signature
	if sha256.Sum256(s.Signature) != l.Signature {
		return fmt.Errorf("signature record is another one than the leaf names")
	}
	key, err := a.key(s.Key)
	if err != nil {
		return err
	}
	if key.owner != l.Agent {
		return fmt.Errorf("key of %s signed for %s", key.owner, l.Agent)
	}
	if !s.Batch {
		env := nhi.Envelope{Payloads: [][]byte{e.Payload}, KeyID: s.Key, Signature: s.Signature}
		_, err := env.Verify(key.key)
		return err
	}
	p, err := a.snap.BatchProof(a.tenant, s, e.Position)
	if err != nil {
		return err
	}
	if err := nhi.VerifyBatchPath(p, digest); err != nil {
		return err
	}
	if a.seen[l.Signature] {
		return nil
	}
	if err := p.VerifySignature(key.key, s.Signature); err != nil {
		return err
	}
	a.seen[l.Signature] = true
	return nil
}

// key returns a key as it was ever registered in the tenant, or, for nodes, in the system log.
func (a *audit) key(id nhi.KeyID) (signer, error) {
	if s, ok := a.keys[id]; ok {
		return s, nil
	}
	v, err := a.snap.View(a.tenant)
	if err != nil {
		return signer{}, err
	}
	var s signer
	err = ledger.Guard(func() error {
		k, err := registry.ResolveKey(ledger.RegistryView(v), id, math.MaxUint64)
		if err != nil {
			if k, err = registry.ResolveKey(ledger.RegistryView(v.System()), id, math.MaxUint64); err != nil {
				return err
			}
		}
		s.owner = k.Owner
		s.key, err = nhi.ParsePublicKey(k.Suite, k.Public)
		return err
	})
	if err != nil {
		return signer{}, fmt.Errorf("key %s: %w", id, err)
	}
	a.keys[id] = s
	return s, nil
}

// tree computes RFC 6962 roots from leaves: the roots of full subtrees, largest first, merged as they fill. It is written
// again here so that a fault of the ledger's own arithmetic does not hide itself.
type tree struct {
	size  uint64
	parts []nhi.Digest
}

func (t *tree) add(leaf []byte) {
	h := sha256.Sum256(append([]byte{0}, leaf...))
	for n := t.size; n&1 == 1; n >>= 1 {
		h = pair(t.parts[len(t.parts)-1], h)
		t.parts = t.parts[:len(t.parts)-1]
	}
	t.parts = append(t.parts, h)
	t.size++
}

func (t *tree) root() nhi.Digest {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	h := t.parts[len(t.parts)-1]
	for i := len(t.parts) - 2; i >= 0; i-- {
		h = pair(t.parts[i], h)
	}
	return h
}

func pair(l, r nhi.Digest) nhi.Digest {
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

// accepted says whether a leaf took effect.
func accepted(l *verify.Leaf) bool {
	return l.Outcome.Code == verify.OutcomeAccepted || l.Outcome.Code == verify.OutcomeAcceptedFlagged
}
