package ledger

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/transparency-dev/merkle/compact"
)

// SealResult is the result of a seal. A seal that commits nothing (another epoch than the next, or no news) has Sealed
// false and says where the spine stands.
type SealResult struct {
	Sealed    bool
	Epoch     uint64 // last epoch; the spine's size
	Size      uint64
	Root      nhi.Digest
	Time      int64
	StateHash nhi.Digest // that the seal states: through the command before it
}

// seal commits the heads of all tenants to the spine: the heads of those whose logs have grown since the last seal become
// new versions of their leaves in the heads tree, and the spine gets one leaf.
func (a *apply) seal(epoch uint64) (SealResult, error) {
	dirty, err := a.dirtySlots()
	if err != nil {
		return SealResult{}, err
	}
	if epoch != a.meta.epoch+1 || len(dirty) == 0 {
		root, err := a.spine.root()
		return SealResult{Epoch: a.meta.epoch, Size: a.spine.size(), Root: root}, err
	}
	if a.fresh == nil {
		a.fresh = make(map[compact.NodeID][]byte)
	}
	for _, slot := range dirty {
		if err := a.sealSlot(slot, epoch); err != nil {
			return SealResult{}, err
		}
	}
	if err := a.growHeads(dirty, epoch); err != nil {
		return SealResult{}, err
	}
	hashes, err := rangeHashes(uint64(a.meta.slots), func(id compact.NodeID) ([]byte, error) { return a.headsNode(id, epoch) })
	if err != nil {
		return SealResult{}, err
	}
	root, err := rootOf(uint64(a.meta.slots), hashes)
	if err != nil {
		return SealResult{}, err
	}
	leaf := verify.SpineLeaf{
		V: 1, Cell: a.genesis.Cell, Epoch: epoch, Time: a.next, HeadsSize: uint64(a.meta.slots), HeadsRoot: root,
		StateHash: a.meta.state, ActiveVersion: uint64(a.meta.active), Flags: a.quality.Flags,
	}
	raw, err := leaf.Encode()
	if err != nil {
		return SealResult{}, err
	}
	key := indexKey(nil, tableLeaves, SpineSlot, a.spine.size())
	hash := verify.LeafHash(raw)
	a.x.blind(key, raw)
	a.x.feedDigests(key, hash)
	if err := a.spine.append(a.x, hash); err != nil {
		return SealResult{}, err
	}
	a.meta.epoch = epoch
	a.next++
	a.used = true
	res := SealResult{Sealed: true, Epoch: epoch, Size: a.spine.size(), Time: leaf.Time, StateHash: leaf.StateHash}
	res.Root, err = a.spine.root()
	return res, err
}

// dirtySlots returns the slots whose logs have grown since the last seal, ascending: those with a dirty row in the store and
// those that this Apply has made so.
func (a *apply) dirtySlots() ([]uint32, error) {
	var out []uint32
	prefix := []byte{byte(tableDirty)}
	it, release := a.x.iterator(prefix)
	for ok := it.First(); ok; ok = it.Next() {
		slot := binary.BigEndian.Uint32(it.Key()[1:])
		// A seal earlier in this Apply may have taken it.
		if ts := a.tenants[slot]; ts == nil || ts.dirty {
			out = append(out, slot)
		}
	}
	err := it.Error()
	release()
	if err != nil {
		return nil, fmt.Errorf("read dirty rows: %w", err)
	}
	for _, ts := range a.touched {
		if ts.dirty {
			out = append(out, ts.Slot)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// sealSlot writes the head of one tenant as of an epoch.
func (a *apply) sealSlot(slot uint32, epoch uint64) error {
	ts, err := a.tenant(slot)
	if err != nil {
		return err
	}
	root, err := ts.tree.root()
	if err != nil {
		return err
	}
	head := verify.HeadLeaf{
		V: 1, Cell: a.genesis.Cell, Slot: slot, Origin: verify.TenantOrigin(a.genesis.Cluster, ts.ID), Size: ts.tree.size(), Root: root,
	}
	raw, err := head.Encode()
	if err != nil {
		return err
	}
	a.x.blind(indexKey(nil, tableSealed, slot, epoch), raw)
	a.x.blindDel(rowKey(nil, tableDirty, slot, nil))
	ts.dirty = false
	hash := verify.LeafHash(raw)
	id := compact.NodeID{Level: 0, Index: uint64(slot)}
	a.fresh[id] = hash[:]
	a.x.blind(headsKey(nil, id, epoch), hash[:])
	return nil
}

// growHeads computes the nodes above changed leaves, level by level, as long as they are complete.
func (a *apply) growHeads(slots []uint32, epoch uint64) error {
	level := make([]uint64, len(slots))
	for i, s := range slots {
		level[i] = uint64(s)
	}
	size := uint64(a.meta.slots)
	for l := uint(1); len(level) > 0; l++ {
		var above []uint64
		for _, i := range level {
			p := i / 2
			if (p+1)<<l > size || len(above) > 0 && above[len(above)-1] == p {
				continue
			}
			left, err := a.headsNode(compact.NodeID{Level: l - 1, Index: 2 * p}, epoch)
			if err != nil {
				return err
			}
			right, err := a.headsNode(compact.NodeID{Level: l - 1, Index: 2*p + 1}, epoch)
			if err != nil {
				return err
			}
			id := compact.NodeID{Level: l, Index: p}
			a.fresh[id] = hashChildren(left, right)
			a.x.blind(headsKey(nil, id, epoch), a.fresh[id])
			above = append(above, p)
		}
		level = above
	}
	return nil
}

// headsNode returns a complete subtree of the heads tree as of the epoch that is being sealed.
func (a *apply) headsNode(id compact.NodeID, epoch uint64) ([]byte, error) {
	if h, ok := a.fresh[id]; ok {
		return h, nil
	}
	return headsNode(a.x, id, epoch)
}
