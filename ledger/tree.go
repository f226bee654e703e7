package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/transparency-dev/merkle/compact"
)

// Tiles hold 256 hashes (c2sp.org/tlog-tiles); a hash of level l+1 is the root of a full tile of level l.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	maxLevels  = 7 // 256^7 leaves are more than verify.MaxTreeSize
)

// hashChildren is the RFC 6962 interior hash without the allocations of the library's hasher.
func hashChildren(l, r []byte) []byte {
	var buf [65]byte
	buf[0] = 1
	copy(buf[1:33], l)
	copy(buf[33:], r)
	d := sha256.Sum256(buf[:])
	return d[:]
}

func treeRange() *compact.RangeFactory { return &compact.RangeFactory{Hash: hashChildren} }

// tree is the growing edge of one log: its compact range, which gives the root, and its partial tiles. It is used by Apply
// alone. Full tiles are written as they are completed; partial tiles above level 0 and the head row at the end of an Apply.
// The partial tile of level 0 is never stored: its hashes are those of the leaf rows.
type tree struct {
	slot  uint32
	rng   *compact.Range
	tiles [maxLevels]partialTile
	grown bool // since the head row was written
}

type partialTile struct {
	index  uint64 // of the tile within its level
	hashes []byte // width × 32, width < 256
	grown  bool
}

func (t *tree) size() uint64 { return t.rng.End() }

// append adds a leaf hash and writes the tiles that it completes.
func (t *tree) append(x *txn, leaf nhi.Digest) error {
	if t.size() >= verify.MaxTreeSize {
		return fmt.Errorf("log in slot %d: %w: the tree holds 2^53-1 leaves", t.slot, ErrRange)
	}
	t.grown = true
	t.push(x, 0, leaf[:])
	// The library shows every node that becomes complete; those of levels 8, 16, … are what full tiles hash to.
	return t.rng.Append(leaf[:], func(id compact.NodeID, hash []byte) {
		if id.Level > 0 && id.Level%tileHeight == 0 {
			t.push(x, int(id.Level/tileHeight), hash)
		}
	})
}

// push adds a hash to the tile under construction at a level.
func (t *tree) push(x *txn, level int, hash []byte) {
	p := &t.tiles[level]
	p.hashes = append(p.hashes, hash...)
	p.grown = true
	if len(p.hashes) == tileWidth*sha256.Size {
		x.key = tileKey(x.key[:0], t.slot, level, p.index)
		x.blind(x.key, p.hashes)
		p.index++
		p.hashes = p.hashes[:0]
		p.grown = false
	}
}

// flush writes the head row and the partial tiles that have grown.
func (t *tree) flush(x *txn) {
	if !t.grown {
		return
	}
	for level := 1; level < maxLevels; level++ {
		if p := &t.tiles[level]; p.grown {
			x.key = tileKey(x.key[:0], t.slot, level, p.index)
			x.blind(x.key, p.hashes)
			p.grown = false
		}
	}
	x.key = rowKey(x.key[:0], tableHeads, t.slot, nil)
	x.blind(x.key, encodeHead(t.size(), t.rng.Hashes()))
	t.grown = false
}

// root returns the root of the whole tree.
func (t *tree) root() (nhi.Digest, error) {
	if t.size() == 0 {
		return verify.EmptyRoot(), nil // the library returns nil here
	}
	h, err := t.rng.GetRootHash(nil)
	if err != nil {
		return nhi.Digest{}, fmt.Errorf("compute root of slot %d: %w", t.slot, err)
	}
	return nhi.Digest(h), nil
}

func encodeHead(size uint64, hashes [][]byte) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+32*len(hashes)), size)
	for _, h := range hashes {
		b = append(b, h...)
	}
	return b
}

func decodeHead(b []byte) (size uint64, hashes []nhi.Digest, err error) {
	if len(b) < 8 || (len(b)-8)%32 != 0 {
		return 0, nil, corrupt("head of %d bytes", len(b))
	}
	size = binary.BigEndian.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[32:] {
		hashes = append(hashes, nhi.Digest(b[:32]))
	}
	if size > verify.MaxTreeSize || len(hashes) != compact.RangeSize(0, size) {
		return 0, nil, corrupt("head of size %d with %d hashes", size, len(hashes))
	}
	return size, hashes, nil
}

// loadTree reads the growing edge of a log from a state without pending writes to it.
func loadTree(st state, slot uint32) (*tree, error) {
	t := &tree{slot: slot}
	var size uint64
	var hashes [][]byte
	if b, ok := st.get(rowKey(nil, tableHeads, slot, nil)); ok {
		n, hs, err := decodeHead(b)
		if err != nil {
			return nil, err
		}
		size = n
		for i := range hs {
			hashes = append(hashes, hs[i][:])
		}
	}
	rng, err := treeRange().NewRange(0, size, hashes)
	if err != nil {
		return nil, corrupt("head of slot %d: %v", slot, err)
	}
	t.rng = rng
	for level := range t.tiles {
		p := &t.tiles[level]
		n := size >> (tileHeight * level)
		p.index = n >> tileHeight
		p.hashes, err = partialTileHashes(st, slot, level, p.index, int(n%tileWidth))
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// partialTileHashes reads the first width hashes of a tile that is not full; at level 0 from the leaves themselves.
func partialTileHashes(st state, slot uint32, level int, tile uint64, width int) ([]byte, error) {
	out := make([]byte, 0, tileWidth*sha256.Size)
	if width == 0 {
		return out, nil
	}
	if level > 0 {
		b, ok := st.get(tileKey(nil, slot, level, tile))
		if !ok || len(b) < width*sha256.Size {
			return nil, corrupt("tile %d of level %d in slot %d has less than %d hashes", tile, level, slot, width)
		}
		return append(out, b[:width*sha256.Size]...), nil
	}
	first := tile << tileHeight
	next := first
	st.scan(rowKey(nil, tableLeaves, slot, nil), indexKey(nil, tableLeaves, slot, first), false, func(raw, leaf []byte) bool {
		if binary.BigEndian.Uint64(raw[rowPrefix:]) != next {
			return false
		}
		h := verify.LeafHash(leaf)
		out = append(out, h[:]...)
		next++
		return next < first+uint64(width)
	})
	if next != first+uint64(width) {
		return nil, corrupt("leaf %d of slot %d is missing", next, slot)
	}
	return out, nil
}

// tileHashes returns the first width hashes of any tile within a log of the given size; width 0 means all that size gives.
func tileHashes(st state, slot uint32, size uint64, level int, tile uint64, width int) ([]byte, error) {
	if level < 0 || level >= maxLevels {
		return nil, fmt.Errorf("tile level %d: %w", level, ErrRange)
	}
	n := size >> (tileHeight * level)
	have := 0
	switch {
	case tile < n>>tileHeight:
		have = tileWidth
	case tile == n>>tileHeight:
		have = int(n % tileWidth)
	}
	if width == 0 {
		width = have
	}
	if width <= 0 || width > have {
		return nil, fmt.Errorf("tile %d of level %d with %d hashes: %w", tile, level, width, ErrRange)
	}
	if b, ok := st.get(tileKey(nil, slot, level, tile)); ok && len(b) >= width*sha256.Size {
		return b[:width*sha256.Size], nil
	}
	if level == 0 {
		return partialTileHashes(st, slot, 0, tile, width)
	}
	return nil, corrupt("tile %d of level %d in slot %d is missing", tile, level, slot)
}

// nodeHash returns the hash of a complete subtree of a log: a hash of a tile, or the root over some of them.
func nodeHash(st state, slot uint32, size uint64, id compact.NodeID) ([]byte, error) {
	level := int(id.Level / tileHeight)
	up := id.Level % tileHeight
	first := id.Index << up // in units of the tile level's hashes
	count := uint64(1) << up
	tile := first >> tileHeight
	from := int(first % tileWidth)
	b, err := tileHashes(st, slot, size, level, tile, from+int(count))
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, count)
	for i := range hashes {
		at := (from + i) * sha256.Size
		hashes[i] = b[at : at+sha256.Size]
	}
	for len(hashes) > 1 {
		for i := range len(hashes) / 2 {
			hashes[i] = hashChildren(hashes[2*i], hashes[2*i+1])
		}
		hashes = hashes[:len(hashes)/2]
	}
	return append([]byte(nil), hashes[0]...), nil
}
