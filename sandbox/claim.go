package sandbox

import (
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox/kind"
)

// decideClaim gives the claim to a node that has room, or lets it wait.
func (s *Sandbox) decideClaim(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeClaimBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	if ev.Signer == nil || ev.SignerSystem {
		return refuse(verify.OutcomeUnauthorized, "a node claims no sandbox")
	}
	switch ev.Signer.Type {
	case registry.Agent, registry.Service, registry.Human:
	default:
		return refuse(verify.OutcomeUnauthorized, "only agents, services and humans claim sandboxes")
	}
	if q := at.Quality.Code; (q == verify.QualityCarried || q == verify.QualityStale) && v.Tenant().Strict {
		return refuse(verify.OutcomeTimeQuality, "consensus time is not certified at the moment: try again with a new id")
	}
	c := s.change(v, at)
	if c.open(ev.Agent).n >= MaxOpenPerAgent {
		return refuse(verify.OutcomeLimit, fmt.Sprintf("the agent has %d open claims: wait until one ends", MaxOpenPerAgent))
	}
	claim := v.NextIndex()
	row := &claimRow{
		V: rowVersion, State: Waiting, Agent: ev.Agent, Key: ev.Key, Link: ev.Link, Account: ev.Account,
		Template: b.Template, Class: b.Class, Wall: b.Limits.Wall, Memory: b.Limits.Memory, Deadline: at.Time + b.TTL,
		Policy: v.Epochs().Policy, Command: kind.CommandDigest(b.Command),
	}
	if s.charger != nil {
		leases, d := s.charger.Reserve(v, at, Charge{
			Claim: claim, Account: row.Account, Agent: row.Agent, Link: row.Link, Quantities: b.Limits.Most(),
		}, b.TTL)
		if d.Outcome != verify.OutcomeAccepted {
			return d
		}
		row.Leases = leases
		c.also(d)
	}
	got := kind.Claimed{Claim: claim, Deadline: row.Deadline, Class: b.Class}
	p := pick(v, b.Template, b.Class, at.Time)
	switch {
	case p.node != nil:
		c.use(p.id, p.node)
		got = c.allocate(claim, row, p.class, p.rootfs)
	case !p.offered:
		return refuse(verify.OutcomeNotFound, fmt.Sprintf("no sandbox node offers template %q in class %s or a stronger one", b.Template, b.Class))
	case c.waiting().n >= MaxWaiting:
		return refuse(verify.OutcomeLimit, fmt.Sprintf("%d claims are waiting for a node: try again later with a new id", MaxWaiting))
	default:
		c.waiting().n++
		c.mark(TableWaiting, waitingKey(b.Template, b.Class, claim))
		c.set(TableClaim, indexKey(claim), row)
	}
	c.open(ev.Agent).n++
	c.d.Timers = append(c.d.Timers, claimTimer(claim, row.Deadline, false))
	got.Leases = row.Leases
	c.d.Detail = got.Encode()
	return c.decision()
}

// picked is the node that a claim gets.
type picked struct {
	id      nhi.ID
	node    *nodeRow // nil: none has room
	class   kind.Class
	rootfs  nhi.Digest
	offered bool // some node offers it, although it may have no room, or be lost and come back; or there is no node yet
}

// pick chooses among the nodes with room: the weakest class that suffices, so that strong nodes stay free, then the most
// room, then the lowest id. Reading all of a tenant's nodes is bounded by MaxNodes.
func pick(v ledger.View, template string, least kind.Class, at int64) (best picked) {
	var room uint64
	// Before its first node has come, a tenant's claims wait for it: nobody can say yet what there will be.
	known, offering := 0, 0
	v.Scan(TableNode, nil, nil, false, func(key, value []byte) bool {
		if len(key) != len(nhi.ID{}) {
			panic(&CorruptRowError{TableNode, append([]byte(nil), key...)})
		}
		n := decodeRow[nodeRow](TableNode, key, value)
		rootfs, ok := n.template(template)
		class, strong := n.class(least)
		known++
		if !ok || !strong || n.Capacity == 0 {
			return true
		}
		offering++
		if n.Lost || n.Until <= at || n.Running >= n.Capacity {
			return true
		}
		if free := n.Capacity - n.Running; best.node == nil || class < best.class || class == best.class && free > room {
			best.id, best.node, best.class, best.rootfs, room = nhi.ID(key), n, class, rootfs, free
		}
		return true
	})
	best.offered = known == 0 || offering > 0
	return best
}

func (s *Sandbox) expireClaim(v ledger.View, claim uint64, at ledger.Stamp) ledger.Decision {
	row, ok := read[claimRow](v, TableClaim, indexKey(claim))
	if !ok || row.State.Done() {
		return ledger.Decision{}
	}
	c := s.change(v, at)
	waiting := row.State == Waiting
	if waiting {
		c.del(TableWaiting, waitingKey(row.Template, row.Class, claim))
		c.waiting().less()
	}
	c.end(claim, row, kind.ReasonDeadline)
	if !waiting {
		c.free(claim, row.Node)
	}
	return c.decision()
}

// decideNode registers what a node offers and gives it what waits.
func (s *Sandbox) decideNode(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeNodeBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	id, ok := node(ev)
	if !ok || id != b.Node {
		return refuse(verify.OutcomeUnauthorized, "a sandbox node of the cluster registers itself")
	}
	c := s.change(v, at)
	row := &nodeRow{
		V: rowVersion, Until: at.Time + b.TTL, Classes: b.Classes, Templates: b.Templates, Capacity: b.Capacity, Index: v.NextIndex(),
	}
	if old, ok := read[nodeRow](v, TableNode, id[:]); ok {
		row.Running = old.Running
		if !old.Lost {
			c.d.Timers = append(c.d.Timers, nodeTimer(id, old.Until, true))
		}
	} else if d, ok := c.makeRoom(); !ok {
		return d
	}
	c.d.Timers = append(c.d.Timers, nodeTimer(id, row.Until, false))
	c.use(id, row)
	c.fill()
	return c.decision()
}

// makeRoom lets the node that was lost first and has nothing make room for another one.
func (c *change) makeRoom() (ledger.Decision, bool) {
	n := 0
	var oldest *nodeRow
	var id nhi.ID
	c.v.Scan(TableNode, nil, nil, false, func(key, value []byte) bool {
		n++
		row := decodeRow[nodeRow](TableNode, key, value)
		if row.Lost && row.Running == 0 && (oldest == nil || row.Until < oldest.Until) {
			oldest, id = row, nhi.ID(key)
		}
		return true
	})
	if n < MaxNodes {
		return ledger.Decision{}, true
	}
	if oldest == nil {
		return refuse(verify.OutcomeLimit, fmt.Sprintf("the tenant has %d sandbox nodes", MaxNodes)), false
	}
	c.del(TableNode, append([]byte(nil), id[:]...))
	return ledger.Decision{}, true
}

func (s *Sandbox) expireNode(v ledger.View, id nhi.ID, at ledger.Stamp) ledger.Decision {
	row, ok := read[nodeRow](v, TableNode, id[:])
	if !ok || row.Lost || row.Until > at.Time {
		return ledger.Decision{}
	}
	row.Lost = true
	c := s.change(v, at)
	c.use(id, row)
	c.d.Leaves = append(c.d.Leaves, ledger.SystemLeaf{
		Kind: kind.NodeLost, Body: canon.MustMarshal(kind.NodeLoss{Node: id, Running: row.Running}), Agent: id,
	})
	return c.decision()
}
