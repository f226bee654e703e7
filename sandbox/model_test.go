package sandbox

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Whatever happens in whatever order: counters are what they count, no node has more than it offers or what it does not
// offer, and no claim waits while a node that can take it has room.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(t)
		templates := []string{"a", "b", "hello"}
		var nodes []*ledgertest.Identity
		for _, name := range []string{"n1", "n2", "n3"} {
			nodes = append(nodes, w.node(name))
		}
		byID := make(map[nhi.ID]*ledgertest.Identity)
		for _, n := range nodes {
			byID[n.ID] = n
		}
		for range 100 {
			switch r.IntN(10) {
			case 0, 1, 2, 3:
				w.Submit(w.claim(func(b *kind.ClaimBody) {
					b.Template = templates[r.IntN(len(templates))]
					b.Class = kind.Class(1 + r.IntN(3))
					b.TTL = int64(time.Second) * int64(1+r.IntN(100))
				}))
			case 4:
				n := nodes[r.IntN(len(nodes))]
				w.Accepted(w.Submit(w.offer(n, uint64(r.IntN(4)), func(b *kind.NodeBody) {
					b.Classes = [][]kind.Class{{1}, {2}, {1, 3}, {2, 3}}[r.IntN(4)]
					b.Templates = nil
					for _, name := range templates {
						if r.IntN(3) > 0 {
							b.Templates = append(b.Templates, kind.Template{Name: name, Rootfs: nhi.Digest{byte(r.IntN(3))}})
						}
					}
					b.TTL = int64(time.Second) * int64(10+r.IntN(200))
				}))...)
			case 5, 6, 7:
				var open []*Info
				w.WithView(w.Tenant, func(v ledger.View) {
					for _, n := range nodes {
						open = append(open, Running(v, n.ID)...)
					}
				})
				if len(open) > 0 {
					i := open[r.IntN(len(open))]
					n := byID[i.Node]
					w.Accepted(w.SubmitBatch(w.report(n, i.Claim, nil), w.usage(n, i.Claim))...)
				}
			case 8:
				w.Advance(time.Duration(r.IntN(20)) * time.Second)
				w.Tick()
			case 9:
				// A late report of something that has expired.
				w.WithView(w.Tenant, func(v ledger.View) {
					late, _, _ := List(v, Expired, 0, 0)
					for _, i := range late {
						if !i.Node.IsZero() && i.Report == 0 {
							w.Accepted(w.Submit(w.report(byID[i.Node], i.Claim, nil))...)
							break
						}
					}
				})
			}
			w.consistent()
			w.noneWaitsForNothing()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// noneWaitsForNothing holds nodes and queue against each other by reading everything.
func (w *world) noneWaitsForNothing() {
	w.t.Helper()
	w.WithView(w.Tenant, func(v ledger.View) {
		claims, _, _ := List(v, 0, 0, 0)
		for _, n := range Nodes(v) {
			row := nodeRow{Classes: n.Classes, Templates: n.Templates}
			for _, c := range claims {
				if c.State == Waiting && !n.Lost && n.Until > w.Now && n.Running < n.Capacity {
					_, offers := row.template(c.Template)
					if _, strong := row.class(c.Class); offers && strong {
						w.t.Errorf("claim %d waits while node %s has room", c.Claim, n.ID)
					}
				}
				if c.State == Allocated && c.Node == n.ID && c.Deadline < w.Now-int64(30*time.Second) {
					w.t.Errorf("claim %d is past its deadline", c.Claim)
				}
			}
		}
	})
}
