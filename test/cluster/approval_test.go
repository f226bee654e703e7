package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	mkind "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
	creto "github.com/creto-systems/creto/sdk/go"
)

// TestOneClaimWins: many requests are approved, the leader is killed, and for each the claim is tried many times at once, with
// ids of their own, through every node. Exactly one of them is accepted, and the quota is reserved once.
func TestOneClaimWins(t *testing.T) {
	h := newHarness(t, Options{})
	tenant := h.tenant()
	l := h.load(tenant, 2)
	account, err := tenant.Account(t.Context(), "eur", 5000)
	h.ok(err)
	alice, err := tenant.Register(t.Context(), registry.Human)
	h.ok(err)
	bob, err := tenant.Register(t.Context(), registry.Human)
	h.ok(err)
	agent, err := tenant.Register(t.Context(), registry.Agent)
	h.ok(err)
	h.ok(tenant.Delegate(t.Context(), alice, agent, nil))
	chains, err := kind.EncodeChains([]kind.Chain{{Name: "finance", Steps: []kind.Step{
		{Eligible: sorted(alice.ID, bob.ID), Approve: 1, Deny: 1, Timeout: int64(time.Hour)},
	}}})
	h.ok(err)
	h.ok(tenant.Do(t.Context(), kind.Publish, &kind.PublishBody{
		Hard:   `@id("all") permit (principal, action, resource);`,
		Soft:   `@id("pay") @oversight("finance") forbid (principal, action == Action::"pay", resource);`,
		Chains: chains,
	}))
	var agents []*creto.Agent
	for i := range h.Nodes {
		client, err := tenant.Dial(i, (i+1)%3, (i+2)%3)
		h.ok(err)
		a, err := tenant.ActOn(client, agent, account)
		h.ok(err)
		agents = append(agents, a)
	}
	approver, err := tenant.Act(bob, nhi.ID{})
	h.ok(err)
	self, err := tenant.Act(alice, nhi.ID{})
	h.ok(err)

	const requests = 4
	var opened []*creto.Opened
	for range requests {
		o, err := agents[0].RequestApproval(t.Context(), creto.Request{
			Operation: "pay", Resource: "invoice", Parameters: map[string]any{"amount": 400},
			Reserve: []kind.Reservation{{Meter: "eur", Amount: 400}},
		})
		h.ok(err)
		vote := kind.VoteBody{Request: o.Request, Choice: kind.Approve, ActionDigest: o.Action.Digest(), RequestDigest: o.RequestDigest}
		if _, err := self.Vote(t.Context(), vote, ""); err == nil {
			t.Error("whoever the agent acts for approves its request")
		}
		_, err = approver.Vote(t.Context(), vote, "it is due")
		h.ok(err)
		opened = append(opened, o)
	}
	leader, err := h.Leader(t.Context())
	h.ok(err)
	h.ok(h.Kill(leader))
	for _, o := range opened {
		var wg sync.WaitGroup
		var mu sync.Mutex
		won, refused := 0, 0
		for k := range 9 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
				defer cancel()
				for {
					_, err := agents[k%3].Claim(ctx, o.Request, o.Action.Digest())
					mu.Lock()
					var r *creto.RefusedError
					switch {
					case err == nil:
						won++
					case errors.As(err, &r):
						refused++
					case creto.Unavailable(err) && ctx.Err() == nil:
						mu.Unlock()
						continue // another id: the lost one may have won, and then this is refused
					default:
						t.Errorf("claim: %v", err)
					}
					mu.Unlock()
					return
				}
			})
		}
		wg.Wait()
		// The answer to the one that won may have been lost with the leader: that each was claimed, what is reserved below says.
		if won > 1 || won+refused != 9 {
			t.Errorf("request %d: %d claims were accepted and %d refused, want at most one, and the others refused", o.Request, won, refused)
		}
	}
	h.ok(h.StartNode(leader))
	h.ok(h.WaitNode(t.Context(), leader))
	h.more(l, 20, 30*time.Second)
	spent, err := mkind.DecodeRefusal(h.exhaust(agents[0], account))
	h.ok(err)
	if spent.Open != requests*400 {
		t.Errorf("open: got %d, want %d: each claim reserves once", spent.Open, requests*400)
	}
	h.end()
}

// exhaust asks for more than there is and returns what the refusal says.
func (h *harness) exhaust(a *creto.Agent, account nhi.ID) []byte {
	h.t.Helper()
	_, err := a.Usage(h.t.Context(), creto.Quantity{Meter: "eur", N: 1 << 40})
	var r *creto.RefusedError
	if !errors.As(err, &r) {
		h.t.Fatalf("usage beyond the quota of %s: got %v, want a refusal", account, err)
	}
	return r.Result.Detail
}

func sorted(a, b nhi.ID) []nhi.ID {
	if string(a[:]) > string(b[:]) {
		a, b = b, a
	}
	return []nhi.ID{a, b}
}
