package ledger

import (
	"fmt"
	"io"
	"slices"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi/registry"
)

// Anchor is the checkpoint that proofs end in: a published checkpoint of the spine with its size.
type Anchor struct {
	Size uint64 // leaves of the spine under the checkpoint, at most the snapshot's Epoch
	Note []byte // the checkpoint with its signatures, verbatim
}

// spineProof returns the tlog-proof of an epoch's spine leaf under an anchor.
func (s *Snapshot) spineProof(epoch uint64, at Anchor) ([]byte, error) {
	path, err := s.Inclusion(SpineSlot, epoch-1, at.Size)
	if err != nil {
		return nil, err
	}
	p := verify.TLogProof{Index: epoch - 1, Path: path, Checkpoint: at.Note}
	return p.Marshal(), nil
}

// HeadProof proves the head of a log in one epoch under an anchor.
func (s *Snapshot) HeadProof(slot uint32, epoch uint64, at Anchor) (*verify.HeadProof, error) {
	if epoch > at.Size {
		return nil, fmt.Errorf("epoch %d under an anchor of size %d: %w", epoch, at.Size, ErrRange)
	}
	p := new(verify.HeadProof)
	var err error
	if p.Head, _, err = s.SealedHead(slot, epoch); err != nil {
		return nil, err
	}
	if p.HeadPath, _, err = s.HeadsProof(slot, epoch); err != nil {
		return nil, err
	}
	if p.Spine, _, err = s.SpineLeaf(epoch); err != nil {
		return nil, err
	}
	p.SpineProof, err = s.spineProof(epoch, at)
	return p, err
}

// EventProof returns everything that leads from a leaf to an anchor: what a .creto-proof file holds. The error matches
// ErrNotFound while no epoch under the anchor covers the leaf.
func (s *Snapshot) EventProof(t Tenant, index uint64, at Anchor) (p *verify.EventProof, err error) {
	defer guard(&err)
	e, err := s.Event(t.Slot, index)
	if err != nil {
		return nil, err
	}
	epoch, head, err := s.SealedSize(t.Slot, index+1)
	if err != nil {
		return nil, err
	}
	if epoch > at.Size {
		return nil, fmt.Errorf("leaf %d is sealed by epoch %d, the anchor covers %d: %w", index, epoch, at.Size, ErrNotFound)
	}
	hp, err := s.HeadProof(t.Slot, epoch, at)
	if err != nil {
		return nil, err
	}
	p = &verify.EventProof{
		LedgerID: s.ident.ledger, Tenant: t.ID, Index: index, Leaf: e.Raw, Head: hp.Head, HeadPath: hp.HeadPath, Spine: hp.Spine,
		SpineProof: hp.SpineProof,
	}
	if p.Path, err = s.Inclusion(t.Slot, index, head.Size); err != nil {
		return nil, err
	}
	if e.Signature != nil {
		p.Payload = e.Payload
		if err := s.addEvidence(p, t, e, head, epoch); err != nil {
			return nil, err
		}
	}
	if !e.Leaf.Link.IsZero() {
		p.Links, err = s.links(t, e.Leaf, index)
	}
	return p, err
}

// addEvidence adds the signature, its key and, where the key was registered before the same head, its registration.
func (s *Snapshot) addEvidence(p *verify.EventProof, t Tenant, e *StoredEvent, head *verify.HeadLeaf, epoch uint64) error {
	p.Evidence = &verify.Evidence{KeyID: e.Signature.Key, Signature: e.Signature.Signature}
	if e.Signature.Batch {
		b, err := s.BatchProof(t, e.Signature, e.Position)
		if err != nil {
			return err
		}
		p.Evidence.Batch = b
	}
	v, err := s.view(t)
	if err != nil {
		return err
	}
	key, err := registry.ResolveKey(RegistryView(v), e.Signature.Key, head.Size)
	if err == nil {
		p.Key = &verify.KeyRecord{Suite: uint8(key.Suite), Public: key.Public}
		return s.addRegistration(p, t, key, head)
	}
	// A node of the cluster, whose key stands in the system log.
	sys, err := s.view(Tenant{Slot: SystemSlot})
	if err != nil {
		return err
	}
	_, sysHead, err := s.SealedHead(SystemSlot, epoch)
	if err != nil {
		return err
	}
	if key, err = registry.ResolveKey(RegistryView(sys), e.Signature.Key, sysHead.Size); err != nil {
		return fmt.Errorf("key of leaf %d of slot %d: %w", e.Index, t.Slot, err)
	}
	p.Key = &verify.KeyRecord{Suite: uint8(key.Suite), Public: key.Public}
	return nil
}

// addRegistration adds the leaf that registered the key, if an identity.register of the same log did: keys of rotations and
// of the genesis are vouched for by the node quorum.
func (s *Snapshot) addRegistration(p *verify.EventProof, t Tenant, key *registry.Key, head *verify.HeadLeaf) error {
	if key.From >= head.Size {
		return nil
	}
	e, err := s.Event(t.Slot, key.From)
	if err != nil {
		return err
	}
	if e.Leaf.Kind != registry.KindRegister {
		return nil
	}
	path, err := s.Inclusion(t.Slot, key.From, head.Size)
	if err != nil {
		return err
	}
	p.Register = &verify.Registration{Payload: e.Payload, Leaf: e.Raw, Path: path}
	return nil
}

// links returns the bodies of the chain that a leaf names, its own link first, as they were registered; none if the link was
// not the agent's to name: then the event was refused or flagged for it, and the links would explain nothing.
func (s *Snapshot) links(t Tenant, leaf *verify.Leaf, asOf uint64) ([][]byte, error) {
	v, err := s.view(t)
	if err != nil {
		return nil, err
	}
	records, err := registry.Walk(RegistryView(v), leaf.Link, asOf)
	if err != nil || len(records) == 0 {
		return nil, nil // the event was refused because it named no chain; the leaf says so
	}
	if records[len(records)-1].Link.Subject != leaf.Agent {
		return nil, nil
	}
	var out [][]byte
	for _, r := range slices.Backward(records) {
		out = append(out, r.Body)
	}
	return out, nil
}

// WriteCompleteness writes the completeness file of [from, to): all leaves of a log between an epoch at or before from and
// one at or after to, under an anchor, with the events' payloads if asked. w should be buffered. progress, if not nil, is told
// before the first leaf and after each how many are written, and how many there are. The error matches ErrNotFound while the
// end of the interval is not sealed under the anchor.
func (s *Snapshot) WriteCompleteness(w io.Writer, t Tenant, from, to int64, at Anchor, payloads bool, progress func(done, total uint64)) (err error) {
	defer guard(&err)
	if from > to {
		return fmt.Errorf("interval from %d to %d: %w", from, to, ErrRange)
	}
	before, after, err := s.EpochsAround(from, to)
	if err != nil {
		return err
	}
	if after == 0 || after > at.Size {
		return fmt.Errorf("end of the interval is not sealed under the anchor: %w", ErrNotFound)
	}
	h := &verify.CompletenessHeader{V: 1, LedgerID: s.ident.ledger, Tenant: t.ID, Cell: s.ident.genesis.Cell, Slot: t.Slot, From: from, To: to}
	end, err := s.HeadProof(t.Slot, after, at)
	if err != nil {
		return err
	}
	h.End = *end
	_, head, err := s.SealedHead(t.Slot, after)
	if err != nil {
		return err
	}
	h.B = head.Size
	if err := s.completenessStart(h, t, before, at); err != nil {
		return err
	}
	cw, err := verify.NewCompletenessWriter(w, h)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	progress(0, h.B-h.A)
	err = s.Leaves(t.Slot, h.A, h.B, func(index uint64, raw []byte) error {
		var payload []byte
		if payloads {
			e, err := s.event(t.Slot, index, raw)
			if err != nil {
				return err
			}
			payload = e.Payload
		}
		if err := cw.Leaf(raw, payload); err != nil {
			return err
		}
		progress(index+1-h.A, h.B-h.A)
		return nil
	})
	if err != nil {
		return err
	}
	return cw.Close()
}

// completenessStart fills in where the interval begins: nowhere if the log was empty then.
func (s *Snapshot) completenessStart(h *verify.CompletenessHeader, t Tenant, before uint64, at Anchor) error {
	if before == 0 {
		return nil
	}
	_, head, err := s.SealedHead(t.Slot, before)
	if isNotFound(err) || err == nil && head.Size == 0 {
		return nil // the tenant came later: everything follows
	}
	if err != nil {
		return err
	}
	if h.Start, err = s.HeadProof(t.Slot, before, at); err != nil {
		return err
	}
	r, err := s.RangeAt(t.Slot, head.Size)
	if err != nil {
		return err
	}
	h.A, h.Range = head.Size, r.Hashes
	return nil
}
