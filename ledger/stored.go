package ledger

import (
	"crypto/sha256"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/transparency-dev/merkle/compact"
)

// StoredEvent is one leaf with everything that is kept beside it.
type StoredEvent struct {
	Slot    uint32
	Index   uint64
	Raw     []byte // the leaf's bytes
	Leaf    *verify.Leaf
	Payload []byte // of a system leaf: its body
	Detail  []byte
	// Position is the event's place under its signature, and Signature the record of it; nil for system leaves.
	Position  int
	Signature *SignatureRecord
	Erased    *Erasure // of the addenda; nil = not erased
	Addenda   int      // sealed addenda that are there
}

// Event returns a leaf with what is kept beside it. The error matches ErrNotFound.
func (s *Snapshot) Event(slot uint32, index uint64) (*StoredEvent, error) {
	raw, err := s.Leaf(slot, index)
	if err != nil {
		return nil, err
	}
	return s.event(slot, index, raw)
}

func (s *Snapshot) event(slot uint32, index uint64, raw []byte) (*StoredEvent, error) {
	e := &StoredEvent{Slot: slot, Index: index, Raw: raw}
	var err error
	if e.Leaf, err = verify.DecodeLeaf(raw); err != nil {
		return nil, corrupt("leaf %d of slot %d: %v", index, slot, err)
	}
	b, ok, err := s.row(indexKey(nil, tablePayloads, slot, index))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, corrupt("payload of leaf %d of slot %d is missing", index, slot)
	}
	if e.Position, e.Detail, e.Payload, err = decodePayload(b); err != nil {
		return nil, err
	}
	if nhi.PayloadDigest(e.Payload) != e.Leaf.Payload {
		return nil, corrupt("payload of leaf %d of slot %d is not what the leaf commits to", index, slot)
	}
	if len(e.Detail) > 0 && DetailDigest(e.Detail) != e.Leaf.Outcome.Detail {
		return nil, corrupt("detail of leaf %d of slot %d is not what the leaf commits to", index, slot)
	}
	if e.Leaf.Signature != (nhi.Digest{}) {
		if e.Signature, err = s.Signature(slot, e.Leaf.Signature); err != nil {
			return nil, err
		}
		if e.Position >= len(e.Signature.Digests) || e.Signature.Digests[e.Position] != e.Leaf.Payload {
			return nil, corrupt("signature record of leaf %d of slot %d", index, slot)
		}
	}
	if len(e.Leaf.Addenda) == 0 {
		return e, nil
	}
	if e.Erased, err = s.Erased(slot, index); err != nil {
		return nil, err
	}
	sealed, err := s.Addenda(slot, index)
	e.Addenda = len(sealed)
	return e, err
}

// Signature returns the record of a signature by its digest.
func (s *Snapshot) Signature(slot uint32, digest nhi.Digest) (*SignatureRecord, error) {
	b, ok, err := s.row(rowKey(nil, tableSigs, slot, digest[:]))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, corrupt("signature %x of slot %d is missing", digest[:8], slot)
	}
	r, err := decodeSignature(b)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(r.Signature) != digest {
		return nil, corrupt("signature %x of slot %d", digest[:8], slot)
	}
	return r, nil
}

// BatchProof shows that payload number position stands under the signature of a batch, without the other payloads. The
// error says so if the record is of a lone signature.
func (s *Snapshot) BatchProof(tenant Tenant, r *SignatureRecord, position int) (*nhi.BatchProof, error) {
	if !r.Batch || position < 0 || position >= len(r.Digests) {
		return nil, fmt.Errorf("payload %d of %d is under no batch: %w", position, len(r.Digests), ErrRange)
	}
	root, path, err := batchPath(r.Digests, position)
	if err != nil {
		return nil, err
	}
	return &nhi.BatchProof{
		V: 1, LedgerID: s.ident.ledger, Tenant: tenant.ID, KeyID: r.Key, N: uint64(len(r.Digests)), Root: root, K: uint64(position),
		Path: path,
	}, nil
}

// batchPath returns root and inclusion path over payload digests (RFC 6962, 2.1).
func batchPath(leaves []nhi.Digest, k int) (nhi.Digest, []nhi.Digest, error) {
	nodes := make(map[compact.NodeID][]byte, 2*len(leaves))
	rng := treeRange().NewEmptyRange(0)
	for i := range leaves {
		nodes[compact.NodeID{Level: 0, Index: uint64(i)}] = leaves[i][:]
		if err := rng.Append(leaves[i][:], func(id compact.NodeID, h []byte) { nodes[id] = h }); err != nil {
			return nhi.Digest{}, nil, fmt.Errorf("compute batch root: %w", err)
		}
	}
	root, err := rng.GetRootHash(nil)
	if err != nil {
		return nhi.Digest{}, nil, fmt.Errorf("compute batch root: %w", err)
	}
	path, err := inclusion(uint64(k), uint64(len(leaves)), func(id compact.NodeID) ([]byte, error) {
		h, ok := nodes[id]
		if !ok {
			return nil, corrupt("node %d of level %d of a batch", id.Index, id.Level)
		}
		return h, nil
	})
	return nhi.Digest(root), path, err
}

// Addenda returns the sealed addenda of a leaf that are there, in the order of the event's digests.
func (s *Snapshot) Addenda(slot uint32, index uint64) ([]SealedAddendum, error) {
	var out []SealedAddendum
	for n := range nhi.MaxAddenda {
		b, ok, err := s.row(ordinalKey(nil, tableAddenda, slot, index, n))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		k, ok, err := s.row(ordinalKey(nil, tableKeyring, slot, index, n))
		if err != nil {
			return nil, err
		}
		if !ok || len(b) < 32 {
			return nil, corrupt("addendum %d of leaf %d of slot %d", n, index, slot)
		}
		out = append(out, SealedAddendum{Digest: nhi.Digest(b[:32]), Ciphertext: b[32:], WrappedKey: k})
	}
	return out, nil
}

// Erased says whether and where the addenda of a leaf were erased; nil = they were not.
func (s *Snapshot) Erased(slot uint32, index uint64) (*Erasure, error) {
	b, ok, err := s.row(indexKey(nil, tableErasures, slot, index))
	if err != nil || !ok {
		return nil, err
	}
	e, err := decodeErasure(b)
	return &e, err
}

// Request returns what the first event under a request id led to. The error is ErrNotFound.
func (s *Snapshot) Request(slot uint32, signer nhi.ID, id [16]byte) (EventResult, error) {
	b, ok, err := s.row(requestKey(nil, slot, signer, id))
	if err != nil {
		return EventResult{}, err
	}
	if !ok {
		return EventResult{}, fmt.Errorf("request: %w", ErrNotFound)
	}
	var r request
	if err := r.decode(b); err != nil {
		return EventResult{}, err
	}
	return EventResult{
		State: Duplicate, Slot: slot, Index: r.index, LeafHash: r.leaf, Time: r.time, Quality: r.quality, Outcome: r.outcome, Detail: r.detail,
		First: r.intent,
	}, nil
}
