package ledger

import (
	"encoding/binary"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
)

// nodeReader returns the hash of a complete subtree.
type nodeReader func(id compact.NodeID) ([]byte, error)

func digests(hashes [][]byte) []nhi.Digest {
	out := make([]nhi.Digest, len(hashes))
	for i := range hashes {
		copy(out[i][:], hashes[i])
	}
	return out
}

func collect(nodes proof.Nodes, read nodeReader) ([]nhi.Digest, error) {
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		h, err := read(id)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	hashes, err := nodes.Rehash(hashes, hashChildren)
	if err != nil {
		return nil, fmt.Errorf("combine proof hashes: %w", err)
	}
	return digests(hashes), nil
}

// inclusion returns the path of leaf index in the tree of the given size, leaf sibling first (RFC 6962, 2.1.1).
func inclusion(index, size uint64, read nodeReader) ([]nhi.Digest, error) {
	if size > verify.MaxTreeSize || index >= size {
		return nil, fmt.Errorf("inclusion of leaf %d at size %d: %w", index, size, ErrRange)
	}
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, fmt.Errorf("inclusion of leaf %d at size %d: %w", index, size, err)
	}
	return collect(nodes, read)
}

// consistency returns the proof that the tree of size1 is a prefix of that of size2 (RFC 6962, 2.1.2). From size 0 it is
// empty: the library gives hashes there that nobody may need.
func consistency(size1, size2 uint64, read nodeReader) ([]nhi.Digest, error) {
	if size2 > verify.MaxTreeSize || size1 > size2 {
		return nil, fmt.Errorf("consistency of sizes %d and %d: %w", size1, size2, ErrRange)
	}
	if size1 == 0 || size1 == size2 {
		return []nhi.Digest{}, nil
	}
	nodes, err := proof.Consistency(size1, size2)
	if err != nil {
		return nil, fmt.Errorf("consistency of sizes %d and %d: %w", size1, size2, err)
	}
	return collect(nodes, read)
}

// rangeHashes returns the compact range [0, size), largest subtree first.
func rangeHashes(size uint64, read nodeReader) ([]nhi.Digest, error) {
	var out []nhi.Digest
	for _, id := range compact.RangeNodes(0, size, nil) {
		h, err := read(id)
		if err != nil {
			return nil, err
		}
		out = append(out, nhi.Digest(h))
	}
	return out, nil
}

// rootOf returns the root over a compact range.
func rootOf(size uint64, hashes []nhi.Digest) (nhi.Digest, error) {
	if size == 0 {
		return verify.EmptyRoot(), nil
	}
	hs := make([][]byte, len(hashes))
	for i := range hashes {
		hs[i] = hashes[i][:]
	}
	rng, err := treeRange().NewRange(0, size, hs)
	if err != nil {
		return nhi.Digest{}, fmt.Errorf("compact range of size %d: %w", size, err)
	}
	h, err := rng.GetRootHash(nil)
	if err != nil {
		return nhi.Digest{}, fmt.Errorf("compute root at size %d: %w", size, err)
	}
	return nhi.Digest(h), nil
}

// headsKey is the row of one node of the heads tree as one epoch made it. Newer epochs sort first.
func headsKey(dst []byte, id compact.NodeID, epoch uint64) []byte {
	dst = headsPrefix(dst, id)
	return binary.BigEndian.AppendUint64(dst, ^epoch)
}

func headsPrefix(dst []byte, id compact.NodeID) []byte {
	dst = append(dst, byte(tableNodes))
	dst = binary.BigEndian.AppendUint32(dst, headsSlot)
	dst = append(dst, byte(id.Level))
	return binary.BigEndian.AppendUint64(dst, id.Index)
}

// headsNode returns a complete subtree of the heads tree as of an epoch.
func headsNode(st state, id compact.NodeID, epoch uint64) ([]byte, error) {
	prefix := headsPrefix(nil, id)
	var out []byte
	st.scan(prefix, headsKey(nil, id, epoch), false, func(_, value []byte) bool {
		out = append([]byte(nil), value...)
		return false
	})
	if len(out) != 32 {
		return nil, corrupt("node %d of level %d of the heads tree is missing at epoch %d", id.Index, id.Level, epoch)
	}
	return out, nil
}
