package ledger

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/transparency-dev/merkle/compact"
)

// SealedHead returns the head of a log as an epoch sealed it: its leaf of the heads tree, as bytes and decoded. Epochs
// between changes show the last one before. The error matches ErrNotFound if the slot had no head yet.
func (s *Snapshot) SealedHead(slot uint32, epoch uint64) (raw []byte, head *verify.HeadLeaf, err error) {
	defer guard(&err)
	if epoch > s.meta.epoch {
		return nil, nil, fmt.Errorf("epoch %d: %w", epoch, ErrRange)
	}
	s.scan(rowKey(nil, tableSealed, slot, nil), indexKey(nil, tableSealed, slot, epoch), true, func(_, value []byte) bool {
		raw = bytes.Clone(value)
		return false
	})
	if raw == nil {
		return nil, nil, fmt.Errorf("head of slot %d at epoch %d: %w", slot, epoch, ErrNotFound)
	}
	if head, err = verify.DecodeHeadLeaf(raw); err != nil {
		return nil, nil, corrupt("head of slot %d at epoch %d: %v", slot, epoch, err)
	}
	return raw, head, nil
}

// HeadsProof returns the path of a slot's head to the root of the heads tree as an epoch sealed it, and the tree's size.
func (s *Snapshot) HeadsProof(slot uint32, epoch uint64) (path []nhi.Digest, size uint64, err error) {
	defer guard(&err)
	_, spine, err := s.SpineLeaf(epoch)
	if err != nil {
		return nil, 0, err
	}
	path, err = inclusion(uint64(slot), spine.HeadsSize, func(id compact.NodeID) ([]byte, error) { return headsNode(s, id, epoch) })
	return path, spine.HeadsSize, err
}

// SpineLeaf returns what an epoch sealed; epochs begin with 1 and are leaf epoch−1 of the spine.
func (s *Snapshot) SpineLeaf(epoch uint64) (raw []byte, leaf *verify.SpineLeaf, err error) {
	if epoch == 0 || epoch > s.meta.epoch {
		return nil, nil, fmt.Errorf("epoch %d: %w", epoch, ErrRange)
	}
	if raw, err = s.Leaf(SpineSlot, epoch-1); err != nil {
		return nil, nil, err
	}
	if leaf, err = verify.DecodeSpineLeaf(raw); err != nil {
		return nil, nil, corrupt("spine leaf of epoch %d: %v", epoch, err)
	}
	return raw, leaf, nil
}

// EpochsAround returns the last epoch that was sealed at or before t0 and the first at or after t1 (t0 ≤ t1): between their
// heads lies everything that was committed in [t0, t1). before is 0 if there is none; after is 0 if the time has not been
// sealed yet.
func (s *Snapshot) EpochsAround(t0, t1 int64) (before, after uint64, err error) {
	at := func(epoch uint64) int64 {
		_, leaf, e := s.SpineLeaf(epoch)
		if e != nil {
			err = errors.Join(err, e)
			return 0
		}
		return leaf.Time
	}
	n := int(s.meta.epoch)
	first := func(t int64) uint64 { // first epoch with time ≥ t; n+1 if there is none
		lo, hi := 1, n+1
		for lo < hi && err == nil {
			if mid := lo + (hi-lo)/2; at(uint64(mid)) < t {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		return uint64(lo)
	}
	before = first(t0+1) - 1
	if after = first(t1); after > uint64(n) {
		after = 0
	}
	return before, after, err
}

// SealedSize returns the first epoch that sealed a log at or beyond a size, that is, that covers leaf size−1.
func (s *Snapshot) SealedSize(slot uint32, size uint64) (epoch uint64, head *verify.HeadLeaf, err error) {
	_, last, err := s.SealedHead(slot, s.meta.epoch)
	if err != nil {
		return 0, nil, err
	}
	if last.Size < size {
		return 0, nil, fmt.Errorf("size %d of slot %d is not sealed: %w", size, slot, ErrNotFound)
	}
	lo, hi := uint64(1), s.meta.epoch
	for lo < hi {
		mid := lo + (hi-lo)/2
		_, h, err := s.SealedHead(slot, mid)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return 0, nil, err
		}
		if err != nil || h.Size < size {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	_, head, err = s.SealedHead(slot, lo)
	return lo, head, err
}

// IndexAt returns the index of the first leaf of a log with a commit time at or after t; the log's size if there is none.
func (s *Snapshot) IndexAt(slot uint32, t int64) (uint64, error) {
	head, err := s.Head(slot)
	if err != nil {
		return 0, err
	}
	lo, hi := uint64(0), head.Size
	var leaf verify.Leaf
	for lo < hi {
		mid := lo + (hi-lo)/2
		raw, err := s.Leaf(slot, mid)
		if err != nil {
			return 0, err
		}
		leaf = verify.Leaf{}
		if err := leaf.Decode(raw); err != nil {
			return 0, corrupt("leaf %d of slot %d: %v", mid, slot, err)
		}
		if leaf.Time < t {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}
