package verify

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// MaxProofHashes bounds a Merkle proof: C2SP caps proofs at 63 hashes, and no tree of up to MaxTreeSize leaves needs more
// than 54 for inclusion.
const MaxProofHashes = 63

// ErrProof is what every Merkle proof that does not hold matches with errors.Is.
var ErrProof = errors.New("proof of the Merkle tree does not hold")

// EmptyRoot returns the root of the tree without leaves, SHA-256 of nothing (RFC 6962, 2.1).
func EmptyRoot() nhi.Digest {
	var d nhi.Digest
	copy(d[:], rfc6962.DefaultHasher.EmptyRoot())
	return d
}

// NodeHash returns the RFC 6962 interior hash SHA-256(0x01 ‖ left ‖ right).
func NodeHash(left, right nhi.Digest) nhi.Digest {
	var d nhi.Digest
	copy(d[:], rfc6962.DefaultHasher.HashChildren(left[:], right[:]))
	return d
}

// VerifyInclusion checks that leafHash is leaf index of the tree of the given size and root. The path begins with the
// leaf's sibling. The error matches ErrProof.
func VerifyInclusion(index, size uint64, leafHash nhi.Digest, path []nhi.Digest, root nhi.Digest) error {
	if size > MaxTreeSize {
		return fmt.Errorf("%w: tree size %d is beyond 2^53-1", ErrProof, size)
	}
	if index >= size {
		return fmt.Errorf("%w: index %d is not below tree size %d", ErrProof, index, size)
	}
	if len(path) > MaxProofHashes {
		return fmt.Errorf("%w: %d hashes are more than %d", ErrProof, len(path), MaxProofHashes)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leafHash[:], slices32(path), root[:]); err != nil {
		return fmt.Errorf("%w: inclusion of leaf %d at size %d", ErrProof, index, size)
	}
	return nil
}

// VerifyConsistency checks that the tree of size1 and root1 is a prefix of the tree of size2 and root2. Size 0 is refused:
// the empty tree is a prefix of every tree, so there is nothing to prove, and a caller that starts from nothing must know
// that it does. The error matches ErrProof.
func VerifyConsistency(size1, size2 uint64, path []nhi.Digest, root1, root2 nhi.Digest) error {
	switch {
	case size2 > MaxTreeSize:
		return fmt.Errorf("%w: tree size %d is beyond 2^53-1", ErrProof, size2)
	case size1 > size2:
		return fmt.Errorf("%w: size %d is above size %d", ErrProof, size1, size2)
	case len(path) > MaxProofHashes:
		return fmt.Errorf("%w: %d hashes are more than %d", ErrProof, len(path), MaxProofHashes)
	case size1 == 0:
		// The library accepts any proof from size 0 (merkle v0.0.2); the rule is ours.
		return fmt.Errorf("%w: consistency with the empty tree proves nothing", ErrProof)
	case size1 == size2:
		if len(path) != 0 || root1 != root2 {
			return fmt.Errorf("%w: two roots at size %d", ErrProof, size1)
		}
		return nil
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, size1, size2, slices32(path), root1[:], root2[:]); err != nil {
		return fmt.Errorf("%w: consistency of sizes %d and %d", ErrProof, size1, size2)
	}
	return nil
}

// slices32 gives the library its [][]byte; every element is 32 bytes by type, which the library itself does not check.
func slices32(ds []nhi.Digest) [][]byte {
	out := make([][]byte, len(ds))
	for i := range ds {
		out[i] = ds[i][:]
	}
	return out
}

// Tree is a compact range [0, size): it appends leaf hashes and gives the root, in memory that grows with the logarithm of
// the size. It is not safe for concurrent use.
type Tree struct {
	rng *compact.Range
}

func rangeFactory() *compact.RangeFactory {
	return &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
}

// NewTree returns the empty tree.
func NewTree() *Tree { return &Tree{rng: rangeFactory().NewEmptyRange(0)} }

// ResumeTree returns the tree of the given size from the hashes of its compact range, largest subtree first: one for each
// bit set in size.
func ResumeTree(size uint64, hashes []nhi.Digest) (*Tree, error) {
	if size > MaxTreeSize {
		return nil, fmt.Errorf("%w: tree size %d is beyond 2^53-1", ErrProof, size)
	}
	rng, err := rangeFactory().NewRange(0, size, slices32(hashes))
	if err != nil {
		return nil, fmt.Errorf("%w: a compact range of size %d has not %d hashes", ErrProof, size, len(hashes))
	}
	return &Tree{rng: rng}, nil
}

// Size returns the number of leaves.
func (t *Tree) Size() uint64 { return t.rng.End() }

// Append adds the hash of the next leaf. It fails only at MaxTreeSize.
func (t *Tree) Append(leafHash nhi.Digest) error {
	if t.rng.End() >= MaxTreeSize {
		return fmt.Errorf("append leaf: the tree holds 2^53-1 leaves")
	}
	if err := t.rng.Append(leafHash[:], nil); err != nil {
		return fmt.Errorf("append leaf: %w", err)
	}
	return nil
}

// Root returns the root; EmptyRoot for the empty tree.
func (t *Tree) Root() (nhi.Digest, error) {
	if t.rng.End() == 0 {
		return EmptyRoot(), nil // the library returns nil here
	}
	root, err := t.rng.GetRootHash(nil)
	if err != nil {
		return nhi.Digest{}, fmt.Errorf("compute root: %w", err)
	}
	var d nhi.Digest
	if copy(d[:], root) != len(d) {
		return nhi.Digest{}, errors.New("compute root: the hash is not 32 bytes long")
	}
	return d, nil
}

// Hashes returns the hashes of the compact range, largest subtree first, as ResumeTree takes them.
func (t *Tree) Hashes() []nhi.Digest {
	hs := t.rng.Hashes()
	out := make([]nhi.Digest, len(hs))
	for i := range hs {
		copy(out[i][:], hs[i])
	}
	return out
}

// SmallTree is an RFC 6962 tree that is kept whole, for trees that are built at once: receipts of a command, test logs.
type SmallTree struct {
	levels [][]nhi.Digest // levels[0] are the leaf hashes; a last node without sibling moves up unchanged
}

// NewSmallTree builds the tree over leaf hashes.
func NewSmallTree(leafHashes []nhi.Digest) *SmallTree {
	t := &SmallTree{levels: [][]nhi.Digest{leafHashes}}
	for level := leafHashes; len(level) > 1; {
		up := make([]nhi.Digest, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			up = append(up, NodeHash(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		t.levels = append(t.levels, up)
		level = up
	}
	return t
}

// Root returns the root; EmptyRoot without leaves.
func (t *SmallTree) Root() nhi.Digest {
	if top := t.levels[len(t.levels)-1]; len(top) == 1 {
		return top[0]
	}
	return EmptyRoot()
}

// Path returns the inclusion path of leaf k, leaf sibling first. k must be below the number of leaves.
func (t *SmallTree) Path(k int) []nhi.Digest {
	var path []nhi.Digest
	for _, level := range t.levels {
		if sibling := k ^ 1; sibling < len(level) && len(level) > 1 {
			path = append(path, level[sibling])
		}
		k >>= 1
	}
	return path
}

// rootFromPath returns the root to which an inclusion path leads.
func rootFromPath(index, size uint64, leafHash nhi.Digest, path []nhi.Digest) (nhi.Digest, error) {
	var d nhi.Digest
	if size > MaxTreeSize || index >= size || len(path) > MaxProofHashes {
		return d, fmt.Errorf("%w: inclusion of leaf %d at size %d", ErrProof, index, size)
	}
	root, err := proof.RootFromInclusionProof(rfc6962.DefaultHasher, index, size, leafHash[:], slices32(path))
	if err != nil {
		return d, fmt.Errorf("%w: inclusion of leaf %d at size %d", ErrProof, index, size)
	}
	copy(d[:], root)
	return d, nil
}
