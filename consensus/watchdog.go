package consensus

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// patience is how long a storage call may take: beyond handOver a leader asks another voter to lead, beyond leader it stops,
// beyond limit any node stops.
type patience struct{ handOver, leader, limit time.Duration }

// overdue watches one storage call. Its timer goes through the stages of patience; nothing runs for a call that is quick.
type overdue struct {
	s  *failstop
	op string
	// mu guards what follows.
	mu    sync.Mutex
	stage int
	timer *time.Timer
	ended bool
}

func (s *failstop) watch(op string) *overdue {
	o := &overdue{s: s, op: op}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer = time.AfterFunc(s.patience.handOver, o.next)
	return o
}

// next ends one stage of a call that has not returned.
func (o *overdue) next() {
	p := &o.s.patience
	o.mu.Lock()
	if o.ended {
		o.mu.Unlock()
		return
	}
	stage := o.stage
	o.stage++
	switch stage {
	case 0:
		o.timer.Reset(p.leader - p.handOver)
	case 1:
		o.timer.Reset(p.limit - p.leader)
	}
	o.mu.Unlock()
	switch stage {
	case 0:
		o.s.late(o.op)
	case 1:
		if o.s.leading() {
			o.s.fail(ExitStorage, fmt.Errorf("%s: no answer from storage within %v while leading", o.op, p.leader))
		}
	default:
		o.s.fail(ExitStorage, fmt.Errorf("%s: no answer from storage within %v", o.op, p.limit))
	}
}

func (o *overdue) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.timer.Stop()
}

// rawLeading is whether the library believes that this node leads. It may be asked while the library's main goroutine
// hangs.
func (n *Node) rawLeading() bool {
	select {
	case <-n.started:
		return n.raft.State() == raft.Leader
	default:
		return false
	}
}

// storageLate is told of a storage call that takes longer than [Config.HandOverTimeout]. A leader whose disk hangs goes on
// to send heartbeats from another goroutine of the library, so that nobody else asks for an election, while the goroutine that
// could transfer the leadership is the one that hangs. So the request to lead is sent from here, to one voter after another,
// until some member has gone on to a later term. It is a request only: an election decides.
func (n *Node) storageLate(op string) {
	n.metrics.late.Inc()
	n.log.Warn("storage is late", "op", op, "after", n.cfg.HandOverTimeout.String())
	if !n.rawLeading() || n.handingOver.Swap(true) {
		return
	}
	defer n.handingOver.Store(false)
	term := n.raft.CurrentTerm()
	for _, to := range n.successors() {
		n.metrics.handovers.Inc()
		n.log.Warn("asking another node to lead, since storage is late here", "node", to.ID)
		err := n.trans.TimeoutNow(raft.ServerID(to.ID), raft.ServerAddress(to.Addr), &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.cfg.NodeID),
			Addr: n.trans.EncodePeer(raft.ServerID(n.cfg.NodeID), n.trans.LocalAddr()),
		}}, &raft.TimeoutNowResponse{})
		if err != nil {
			n.log.Warn("cannot ask it", "node", to.ID, "error", err.Error())
			continue
		}
		if !n.stillLeads(term, 2*n.cfg.Election) {
			return
		}
	}
}

// stillLeads waits until the leadership of term is over, and reports whether it is not within d.
func (n *Node) stillLeads(term uint64, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	ticker := time.NewTicker(max(n.cfg.Heartbeat/10, time.Millisecond))
	defer ticker.Stop()
	for {
		if !n.rawLeading() || n.raft.CurrentTerm() != term || n.trans.progress.newestTerm() > term {
			return false
		}
		select {
		case <-timer.C:
			return true
		case <-n.dead:
			return false
		case <-n.closed:
			return false
		case <-ticker.C:
		}
	}
}

// successors are the other voters, the one with the longest log first.
func (n *Node) successors() []Server {
	var out []Server
	for _, s := range n.servers() {
		if s.Voter && s.ID != n.cfg.NodeID {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Server) int {
		return cmp.Compare(n.trans.progress.match(b.ID), n.trans.progress.match(a.ID))
	})
	return out
}

// maxProgress bounds the members whose progress is kept; beyond it, it is forgotten.
const maxProgress = 64

// progress is what the answers of other members have shown.
type progress struct {
	// mu guards what follows.
	mu      sync.Mutex
	matched map[string]uint64
	term    uint64
}

func (p *progress) see(id string, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.term = max(p.term, resp.Term)
	if !resp.Success || args.PrevLogEntry == 0 && len(args.Entries) == 0 {
		return
	}
	if p.matched == nil || len(p.matched) >= maxProgress {
		p.matched = make(map[string]uint64)
	}
	p.matched[id] = args.PrevLogEntry + uint64(len(args.Entries))
}

// match is the last entry that a member is known to share with this node.
func (p *progress) match(id string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.matched[id]
}

// newestTerm is the highest term seen in an answer.
func (p *progress) newestTerm() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.term
}
