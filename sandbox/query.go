package sandbox

import (
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Bounds of queries.
const (
	MaxPage = 1000
	maxScan = 20_000 // claims that one page looks at
)

// Info is what the state says of one claim. The command stands in the claim's payload, the statement in the report's.
type Info struct {
	Claim       uint64
	State       State
	Agent       nhi.ID
	Link        nhi.LinkID
	Account     nhi.ID
	Template    string
	Class       kind.Class // while it waits the least that it accepts
	Wall        int64      // ns that it asks for
	Memory      uint64     // bytes
	Deadline    int64      // ns
	PolicyEpoch uint64
	Node        nhi.ID // zero while it waits
	Rootfs      nhi.Digest
	Allocated   int64 // ns

	Report     uint64 // leaf index; 0 = none
	ExitCode   int64
	Output     nhi.Digest
	Reason     string
	Late       bool   // reported after it had expired
	Usage      uint64 // leaf index; 0 = none
	Quantities []verify.Quantity
	From       string
	Leases     []uint64 // hold room for what it may use, until that is counted
}

// Budget is the time that the run has, ns: what it asks for, or what is left of its deadline at the allocation.
func (i *Info) Budget() int64 { return budget(i.Wall, i.Deadline, i.Allocated) }

func budget(wall, deadline, allocated int64) int64 { return min(wall, deadline-allocated) }

func info(claim uint64, r *claimRow) *Info {
	return &Info{
		Claim: claim, State: r.State, Agent: r.Agent, Link: r.Link, Account: r.Account, Template: r.Template, Class: r.Class,
		Wall: r.Wall, Memory: r.Memory, Deadline: r.Deadline, PolicyEpoch: r.Policy, Node: r.Node, Rootfs: r.Rootfs,
		Allocated: r.Allocated, Report: r.Report, ExitCode: r.ExitCode, Output: r.Output, Reason: r.Reason, Late: r.Late,
		Usage: r.Usage, Quantities: r.Quantities, From: r.From, Leases: r.Leases,
	}
}

// Get returns what the state says of a claim.
func Get(v ledger.View, claim uint64) (*Info, bool) {
	row, ok := read[claimRow](v, TableClaim, indexKey(claim))
	if !ok {
		return nil, false
	}
	return info(claim, row), true
}

// List returns claims, newest first, from an index on downwards (0 = the newest), at most limit (at most MaxPage): those in a
// state, or all if it is 0. next is where to go on; more says whether there may be anything there.
func List(v ledger.View, state State, from uint64, limit int) (page []*Info, next uint64, more bool) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	var start []byte
	if from != 0 {
		start = indexKey(from)
	}
	seen := 0
	v.Scan(TableClaim, nil, start, true, func(key, value []byte) bool {
		claim := lastIndex(TableClaim, key)
		if len(page) == limit || seen == maxScan {
			next, more = claim, true
			return false
		}
		seen++
		if row := decodeRow[claimRow](TableClaim, key, value); state == 0 || row.State == state {
			page = append(page, info(claim, row))
		}
		return true
	})
	return page, next, more
}

// Running returns the claims that a node has, ascending, at most kind.MaxCapacity beyond what it signed.
func Running(v ledger.View, node nhi.ID) []*Info {
	var claims []uint64
	v.Scan(TableRunning, node[:], nil, false, func(key, _ []byte) bool {
		claims = append(claims, lastIndex(TableRunning, key))
		return len(claims) < 2*kind.MaxCapacity
	})
	out := make([]*Info, 0, len(claims))
	for _, claim := range claims {
		if i, ok := Get(v, claim); ok {
			out = append(out, i)
		}
	}
	return out
}

// NodeInfo is what the state says of one sandbox node.
type NodeInfo struct {
	ID        nhi.ID
	Lost      bool  // its registration has ended
	Until     int64 // ns: end of its registration
	Classes   []kind.Class
	Templates []kind.Template
	Capacity  uint64
	Running   uint64
}

// Nodes returns a tenant's sandbox nodes, ascending by id, at most MaxNodes.
func Nodes(v ledger.View) (out []NodeInfo) {
	v.Scan(TableNode, nil, nil, false, func(key, value []byte) bool {
		n := decodeRow[nodeRow](TableNode, key, value)
		out = append(out, NodeInfo{
			ID: nhi.ID(key), Lost: n.Lost, Until: n.Until, Classes: n.Classes, Templates: n.Templates, Capacity: n.Capacity, Running: n.Running,
		})
		return true
	})
	return out
}
