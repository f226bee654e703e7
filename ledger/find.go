package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/creto-systems/creto/nhi"
)

// dimension is what leaves can be found by.
type dimension byte

const (
	byKind    dimension = 1
	byAgent   dimension = 2
	byHuman   dimension = 3 // the root of the chain the event acts under
	byLink    dimension = 4
	byAccount dimension = 5
	byOutcome dimension = 6
	byKey     dimension = 7 // the signing key
)

// term is a value of a dimension: ids as they are, digests cut off, text hashed. Two values with one term are told apart by
// looking at the leaf.
type term [16]byte

func textTerm(s string) term {
	h := sha256.Sum256([]byte(s))
	return term(h[:16])
}

func linkTerm(l nhi.LinkID) term { return term(l[:16]) }
func keyTerm(k nhi.KeyID) term   { return term(k[:16]) }

// posting is one list under construction.
type posting struct {
	slot uint32
	dim  dimension
	term term
}

// postings collects where the leaves of one command can be found: one row per list and command, so that a row is written
// once and never changed.
type postings struct {
	lists map[posting]*list
	free  []*list
	keys  []posting
}

type list struct {
	first, last uint64
	deltas      []byte
}

func (p *postings) add(slot uint32, dim dimension, t term, index uint64) {
	if p.lists == nil {
		p.lists = make(map[posting]*list)
	}
	k := posting{slot, dim, t}
	l := p.lists[k]
	if l == nil {
		if n := len(p.free); n > 0 {
			l, p.free = p.free[n-1], p.free[:n-1]
		} else {
			l = new(list)
		}
		l.first, l.last, l.deltas = index, index, l.deltas[:0]
		p.lists[k] = l
		p.keys = append(p.keys, k)
		return
	}
	l.deltas = binary.AppendUvarint(l.deltas, index-l.last)
	l.last = index
}

// write writes the command's rows and empties the collection. The order of writing is that of first use, which the command
// determines.
func (p *postings) write(x *txn) {
	for _, k := range p.keys {
		l := p.lists[k]
		x.key = postingKey(x.key[:0], k, l.first)
		x.blind(x.key, l.deltas)
		delete(p.lists, k)
		p.free = append(p.free, l)
	}
	p.keys = p.keys[:0]
}

func postingPrefix(dst []byte, k posting) []byte {
	dst = append(dst, byte(tablePostings))
	dst = binary.BigEndian.AppendUint32(dst, k.slot)
	dst = append(dst, byte(k.dim))
	return append(dst, k.term[:]...)
}

func postingKey(dst []byte, k posting, first uint64) []byte {
	return binary.BigEndian.AppendUint64(postingPrefix(dst, k), first)
}

// decodePosting returns the indices of one row, ascending.
func decodePosting(first uint64, deltas []byte, dst []uint64) ([]uint64, error) {
	dst = append(dst, first)
	for len(deltas) > 0 {
		d, n := binary.Uvarint(deltas)
		if n <= 0 || d == 0 || first+d < first {
			return nil, corrupt("posting row")
		}
		first += d
		dst = append(dst, first)
		deltas = deltas[n:]
	}
	return dst, nil
}

// nth returns the n-th smallest element; it sorts s.
func nth(s []uint64, n int) uint64 {
	slices.Sort(s)
	return s[min(n, len(s)-1)]
}
