package nhi

import (
	"crypto/sha256"
	"math/bits"
)

// The tree over a batch is RFC 6962's; its leaf hashes are the payload digests.

func hashChildren(l, r *Digest) Digest {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], l[:])
	copy(b[1+sha256.Size:], r[:])
	return sha256.Sum256(b[:])
}

// split is the largest power of two below n, for n ≥ 2.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// merkleRoot is MTH of RFC 6962, 2.1, over at least one leaf hash.
func merkleRoot(leaves []Digest) Digest {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	l, r := merkleRoot(leaves[:k]), merkleRoot(leaves[k:])
	return hashChildren(&l, &r)
}

// merklePath is PATH of RFC 6962, 2.1.1, from the leaf upwards.
func merklePath(path []Digest, k int, leaves []Digest) []Digest {
	if len(leaves) == 1 {
		return path
	}
	if m := split(len(leaves)); k < m {
		return append(merklePath(path, k, leaves[:m]), merkleRoot(leaves[m:]))
	} else {
		return append(merklePath(path, k-m, leaves[m:]), merkleRoot(leaves[:m]))
	}
}

// pathLength is the length of the inclusion path of leaf k of n.
func pathLength(k, n uint64) int {
	inner := bits.Len64(k ^ (n - 1)) // up to where the path joins the right edge
	return inner + bits.OnesCount64(k>>inner)
}

// rootFromPath recomputes the root of n leaves from leaf k and its path, which
// must be of length pathLength(k, n) (RFC 9162, 2.1.3.2).
func rootFromPath(leaf Digest, k, n uint64, path []Digest) Digest {
	r := leaf
	fn, sn := k, n-1
	for i := range path {
		if fn&1 == 1 || fn == sn {
			r = hashChildren(&path[i], &r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = hashChildren(&r, &path[i])
		}
		fn, sn = fn>>1, sn>>1
	}
	return r
}
