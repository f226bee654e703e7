package sandbox

import (
	"slices"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/sandbox/kind"
)

// maxSteps bounds how many waiting claims one event looks at. It is more than the largest capacity, so it ends only a run of
// claims whose authority is gone; the node's next event goes on.
const maxSteps = 2 * kind.MaxCapacity

// change collects what one decision does. The view does not show a decision's own writes, so rows that a decision touches
// more than once live here until it is made.
type change struct {
	s      *Sandbox
	v      ledger.View
	at     int64
	stamp  ledger.Stamp
	d      ledger.Decision
	leases []uint64 // of runs that will not be, to give back
	counts []count  // in the order of first use
	taken  []taken  // waiting claims that this decision has taken out of the queue
	node   *nodeRow // the one node a decision is about
	nodeID nhi.ID   //
}

type count struct {
	key []byte
	n   uint64
	had bool
}

type taken struct {
	template string
	class    kind.Class
	claim    uint64
}

func (s *Sandbox) change(v ledger.View, at ledger.Stamp) *change {
	return &change{s: s, v: v, at: at.Time, stamp: at}
}

// also takes over what another domain's decision brings about.
func (c *change) also(d ledger.Decision) {
	c.d.Writes = append(c.d.Writes, d.Writes...)
	c.d.Timers = append(c.d.Timers, d.Timers...)
	c.d.Leaves = append(c.d.Leaves, d.Leaves...)
}

// release gives the leases of a claim back that has used nothing.
func (c *change) release(row *claimRow) {
	c.leases = append(c.leases, row.Leases...)
	row.Leases = nil
}

func (c *change) set(t ledger.Table, key []byte, row any) {
	c.d.Writes = append(c.d.Writes, ledger.Write{Table: t, Key: key, Value: canon.MustMarshal(row)})
}

func (c *change) mark(t ledger.Table, key []byte) {
	c.d.Writes = append(c.d.Writes, ledger.Write{Table: t, Key: key, Value: []byte{rowVersion}})
}

func (c *change) del(t ledger.Table, key []byte) {
	c.d.Writes = append(c.d.Writes, ledger.Write{Table: t, Key: key, Delete: true})
}

// count returns the counter of a key, which stays valid until the next call.
func (c *change) count(key []byte) *count {
	for i := range c.counts {
		if string(c.counts[i].key) == string(key) {
			return &c.counts[i]
		}
	}
	k := count{key: key}
	if row, ok := read[countRow](c.v, TableCount, key); ok {
		k.n, k.had = row.N, true
	}
	c.counts = append(c.counts, k)
	return &c.counts[len(c.counts)-1]
}

func (c *change) waiting() *count          { return c.count(nil) }
func (c *change) open(agent nhi.ID) *count { return c.count(agent[:]) }

func (k *count) less() {
	if k.n > 0 {
		k.n--
	}
}

// use makes a node the one the decision is about.
func (c *change) use(id nhi.ID, row *nodeRow) { c.nodeID, c.node = id, row }

// claimTimer is the deadline of a claim.
func claimTimer(claim uint64, deadline int64, cancel bool) ledger.Timer {
	return ledger.Timer{Due: deadline, Name: timerClaim, Ref: indexKey(claim), Cancel: cancel}
}

func nodeTimer(id nhi.ID, until int64, cancel bool) ledger.Timer {
	return ledger.Timer{Due: until, Name: timerNode, Ref: append([]byte(nil), id[:]...), Cancel: cancel}
}

// allocate gives a claim to the decision's node, which has room for it.
func (c *change) allocate(claim uint64, row *claimRow, class kind.Class, rootfs nhi.Digest) kind.Claimed {
	row.State, row.Node, row.Class, row.Rootfs, row.Allocated = Allocated, c.nodeID, class, rootfs, c.at
	c.node.Running++
	c.mark(TableRunning, runningKey(c.nodeID, claim))
	c.set(TableClaim, indexKey(claim), row)
	return kind.Claimed{Claim: claim, Node: c.nodeID, Deadline: row.Deadline, Class: class}
}

// fill gives waiting claims to the decision's node while it has room, in the order of their indices.
func (c *change) fill() {
	n := c.node
	for range maxSteps {
		if n.Lost || n.Until <= c.at || n.Running >= n.Capacity {
			return
		}
		t, ok := c.next()
		if !ok {
			return
		}
		c.taken = append(c.taken, t)
		row, ok := read[claimRow](c.v, TableClaim, indexKey(t.claim))
		if !ok {
			panic(&CorruptRowError{TableClaim, indexKey(t.claim)})
		}
		c.del(TableWaiting, waitingKey(t.template, t.class, t.claim))
		c.waiting().less()
		if c.s.authority(c.v, row, c.at) != nil {
			c.end(t.claim, row, kind.ReasonAuthority)
			continue
		}
		class, _ := n.class(row.Class)
		rootfs, _ := n.template(row.Template)
		got := c.allocate(t.claim, row, class, rootfs)
		c.d.Leaves = append(c.d.Leaves, ledger.SystemLeaf{
			Kind: kind.Allocated, Body: got.Encode(), Agent: row.Agent, Link: row.Link, Account: row.Account, Ref: indexKey(t.claim),
		})
	}
}

// next finds the waiting claim with the lowest index that the decision's node can take.
func (c *change) next() (best taken, found bool) {
	for _, t := range c.node.Templates {
		for class := kind.Process; class <= c.node.strongest(); class++ {
			c.v.Scan(TableWaiting, waitingPrefix(t.Name, class), nil, false, func(key, _ []byte) bool {
				w := taken{t.Name, class, lastIndex(TableWaiting, key)}
				if slices.Contains(c.taken, w) {
					return true
				}
				if !found || w.claim < best.claim {
					best, found = w, true
				}
				return false
			})
		}
	}
	return best, found
}

// end ends a claim that has no report; its queue and node rows are the caller's. One that had a node may have run: what it
// has reserved stays so until its node says what it used, or somebody with the right to writes it off.
func (c *change) end(claim uint64, row *claimRow, reason string) {
	row.State, row.Reason = Expired, reason
	if row.Node.IsZero() {
		c.release(row)
	}
	c.set(TableClaim, indexKey(claim), row)
	c.open(row.Agent).less()
	if reason != kind.ReasonDeadline {
		c.d.Timers = append(c.d.Timers, claimTimer(claim, row.Deadline, true))
	}
	c.d.Leaves = append(c.d.Leaves, ledger.SystemLeaf{
		Kind: kind.Expired, Body: canon.MustMarshal(kind.Expiry{Claim: claim, Node: row.Node, Reason: reason}),
		Agent: row.Agent, Link: row.Link, Account: row.Account, Ref: indexKey(claim),
	})
}

// free takes a claim off its node and gives the room to the next.
func (c *change) free(claim uint64, node nhi.ID) {
	c.del(TableRunning, runningKey(node, claim))
	row, ok := read[nodeRow](c.v, TableNode, node[:])
	if !ok {
		return // the node was replaced; see decideNode
	}
	c.use(node, row)
	if row.Running > 0 {
		row.Running--
	}
	c.fill()
}

// decision completes the decision with the rows that were collected.
func (c *change) decision() ledger.Decision {
	if len(c.leases) > 0 {
		c.also(c.s.charger.Release(c.v, c.stamp, c.leases))
	}
	if c.node != nil {
		c.set(TableNode, append([]byte(nil), c.nodeID[:]...), c.node)
	}
	for i := range c.counts {
		switch k := &c.counts[i]; {
		case k.n > 0:
			c.set(TableCount, k.key, countRow{rowVersion, k.n})
		case k.had:
			c.del(TableCount, k.key)
		}
	}
	return c.d
}

// class returns the weakest class of the node that is at least as strong as least.
func (n *nodeRow) class(least kind.Class) (kind.Class, bool) {
	for _, c := range n.Classes {
		if c >= least {
			return c, true
		}
	}
	return 0, false
}

func (n *nodeRow) strongest() kind.Class { return n.Classes[len(n.Classes)-1] }

func (n *nodeRow) template(name string) (nhi.Digest, bool) {
	for _, t := range n.Templates {
		if t.Name == name {
			return t.Rootfs, true
		}
	}
	return nhi.Digest{}, false
}
