package node

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi/registry"
)

// keyHistory follows the key leaves of the system log, each once.
type keyHistory struct {
	mu   sync.Mutex
	keys *verify.KeyHistory // guarded by mu; nil before the genesis
	next uint64             // guarded by mu; the first leaf that was not looked at
}

// Trust returns the trust file that follows from the system log as far as this node has applied it: the log key, both
// cosigning keys of every node that ever had a vote with the times of its vote, a majority of the voters of now as quorum, and
// the keys with which these sign receipts. It is a proposal: whom to trust, its reader decides.
func (s *Server) Trust() (*verify.Trust, error) {
	snap, err := s.ledger.Read()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	t, err := s.history.trust(snap)
	if err != nil {
		return nil, fmt.Errorf("make trust file: %w", err)
	}
	return t, nil
}

func (h *keyHistory) trust(snap *ledger.Snapshot) (*verify.Trust, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.follow(snap); err != nil {
		return nil, err
	}
	t := h.keys.Trust()
	sys, err := snap.View(ledger.Tenant{Slot: ledger.SystemSlot})
	if err != nil {
		return nil, err
	}
	err = ledger.Guard(func() error {
		for i, r := range t.Receipts {
			id, err := registry.ResolveIdentity(ledger.RegistryView(sys), r.Node, sys.NextIndex())
			if err != nil {
				return err
			}
			t.Receipts[i].Key = id.Key // it may have been rotated since
		}
		return nil
	})
	return t, err
}

// follow reads the key leaves that have come since. It finds them by their kinds, so its cost does not grow with the log.
func (h *keyHistory) follow(snap *ledger.Snapshot) error {
	head, err := snap.Head(ledger.SystemSlot)
	if err != nil {
		return err
	}
	if h.keys != nil && head.Size <= h.next {
		return nil // nothing new; or another read, of a later state, was first
	}
	keys := h.keys
	if keys == nil {
		keys = verify.NewKeyHistory(snap.LedgerID())
	}
	var leaves []*ledger.StoredEvent
	for _, kind := range verify.KeyLeafKinds() {
		q := ledger.Query{Kind: kind, FromIndex: h.next, ToIndex: head.Size, Limit: ledger.MaxPage}
		for {
			page, err := snap.List(ledger.SystemSlot, q)
			if err != nil {
				return err
			}
			leaves = append(leaves, page.Events...)
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
	}
	slices.SortFunc(leaves, func(a, b *ledger.StoredEvent) int { return cmp.Compare(a.Index, b.Index) })
	for _, e := range leaves {
		if err := keys.Add(e.Leaf, e.Payload); err != nil {
			h.keys, h.next = nil, 0
			return err
		}
	}
	h.keys, h.next = keys, head.Size
	return nil
}
