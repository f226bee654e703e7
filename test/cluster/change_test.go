package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/test/invariants"
)

// TestReplaceNode: a node is lost with its disk under load; it is removed, and another joins with an empty one, reads the whole
// log, gets a vote, and counts: with one of the old nodes down as well, writes go on.
func TestReplaceNode(t *testing.T) {
	h := newHarness(t, Options{})
	l := h.load(h.tenant(), 4)
	h.more(l, 100, 30*time.Second)
	lost, err := h.Leader(t.Context())
	h.ok(err)
	h.ok(h.Lose(lost))
	t.Logf("writes resume %v after the leader was lost", h.resume(l))

	through := (lost + 1) % 3
	fresh, err := h.Join(t.Context(), through)
	h.ok(err)
	h.ok(h.StartNode(fresh))
	h.ok(h.WaitNode(t.Context(), fresh))
	h.more(l, 40, 30*time.Second)
	h.ok(h.Change(t.Context(), ledger.MemberPromote, h.Nodes[fresh].ID, ""))
	h.ok(h.Remove(t.Context(), lost))
	h.more(l, 40, 30*time.Second)

	down := (lost + 2) % 3
	h.ok(h.Kill(down))
	h.resume(l)
	h.more(l, 40, 30*time.Second)
	h.ok(h.StartNode(down))
	h.ok(h.WaitNode(t.Context(), down))
	h.end()
	h.replay(fresh)
}

// TestRevocationRacesWithUse: agents use what they have while they are revoked, in the middle of it, through all nodes and with
// the leader killed in between. Whatever stands before the revocation's leaf may be accepted; nothing behind it is, whoever was
// told what in which order.
func TestRevocationRacesWithUse(t *testing.T) {
	h := newHarness(t, Options{})
	tenant := h.tenant()
	account, err := tenant.Account(t.Context(), "tok", 1<<40)
	h.ok(err)
	const rounds = 3
	revoked := make(map[nhi.ID]uint64)
	for round := range rounds {
		l, err := tenant.NewLoad(t.Context(), 3, []nhi.ID{account})
		h.ok(err)
		h.loads = append(h.loads, l)
		l.Start(context.WithoutCancel(t.Context()))
		h.more(l, 60, 30*time.Second)
		if round == 1 {
			leader, err := h.Leader(t.Context())
			h.ok(err)
			h.ok(h.Kill(leader))
			h.ok(h.StartNode(leader))
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, w := range l.workers {
			wg.Go(func() {
				index, err := tenant.Revoke(context.WithoutCancel(t.Context()), w.party.ID)
				if err != nil {
					t.Errorf("revoke: %v", err)
					return
				}
				mu.Lock()
				revoked[w.party.ID] = index
				mu.Unlock()
			})
		}
		wg.Wait()
		refused := l.Refused()
		h.more(l, 30, 30*time.Second) // they go on, in vain
		if l.Refused()-refused < 20 {
			t.Errorf("round %d: %d of 30 uses after the revocation were refused", round, l.Refused()-refused)
		}
		h.ok(l.Stop(20 * time.Second))
	}
	h.end()
	h.holdsRevocations(tenant, revoked)
}

// holdsRevocations walks a tenant's log on a stopped node.
func (h *harness) holdsRevocations(t *Tenant, revoked map[nhi.ID]uint64) {
	h.t.Helper()
	s, err := invariants.Open("node 0", h.Nodes[0].Dir)
	h.ok(err)
	defer func() { h.ok(s.Close()) }()
	tenant, err := s.Snap.Tenant(t.ID)
	h.ok(err)
	head, err := s.Snap.Head(tenant.Slot)
	h.ok(err)
	before, after := 0, 0
	h.ok(s.Snap.Leaves(tenant.Slot, 0, head.Size, func(index uint64, raw []byte) error {
		l, err := verify.DecodeLeaf(raw)
		if err != nil {
			return err
		}
		at, ok := revoked[l.Agent]
		if !ok {
			return nil
		}
		if index < at {
			before++
			return nil
		}
		after++
		// A fact that cites a lease given before is recorded and says so; anything else is refused.
		if l.Outcome.Code == verify.OutcomeAccepted {
			return fmt.Errorf("leaf %d (%s) of %s is accepted, which was revoked at leaf %d", index, l.Kind, l.Agent, at)
		}
		return nil
	}))
	if before == 0 || after == 0 {
		h.t.Errorf("%d leaves before and %d behind revocations: nothing raced", before, after)
	}
	h.t.Logf("%d leaves of revoked agents before their revocation, %d behind, none of them accepted unflagged", before, after)
}
