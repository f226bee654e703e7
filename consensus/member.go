package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Status is a snapshot of what one node knows. Its fields are read one after another: they need not belong to the
// same instant.
type Status struct {
	// ID is the node itself; Role is "follower", "candidate", "leader" or "shutdown".
	ID, Role string
	Term     uint64
	// Leader has an empty ID when none is known.
	Leader Server
	// LastIndex is the last entry in the node's log, CommitIndex the last it knows to be committed, AppliedIndex the last
	// that passed through its state machine.
	LastIndex, CommitIndex, AppliedIndex uint64
	// Servers is the latest configuration in the node's log, committed or not.
	Servers []Server
	// LastContact is when the node last heard from a leader; zero when never. It has no meaning on the leader.
	LastContact time.Time
	// AppliedOwnTerm is true when an entry of the current term passed through the state machine.
	AppliedOwnTerm bool
}

// State returns what the node knows.
func (n *Node) State() Status {
	term := n.raft.CurrentTerm()
	applied := n.applied.Load()
	s := Status{
		ID: n.cfg.NodeID, Term: term, Leader: n.leader(),
		LastIndex: n.raft.LastIndex(), AppliedIndex: applied,
		// After a start, and until a leader is heard, Raft knows no commit index; what was applied was committed.
		CommitIndex:    max(n.raft.CommitIndex(), applied),
		Servers:        n.servers(),
		LastContact:    n.raft.LastContact(),
		AppliedOwnTerm: term != 0 && n.appliedTerm.Load() == term,
	}
	switch n.raft.State() {
	case raft.Follower:
		s.Role = "follower"
	case raft.Candidate:
		s.Role = "candidate"
	case raft.Leader:
		s.Role = "leader"
	default:
		s.Role = "shutdown"
	}
	return s
}

// servers is the latest configuration.
func (n *Node) servers() []Server {
	c := n.raft.GetConfiguration().Configuration()
	out := make([]Server, len(c.Servers))
	for i, s := range c.Servers {
		out[i] = Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter}
	}
	return out
}

// server looks id up in the latest configuration.
func (n *Node) server(id string) (Server, bool) {
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == id {
			return Server{ID: id, Addr: string(s.Address), Voter: s.Suffrage == raft.Voter}, true
		}
	}
	return Server{}, false
}

// leader is the leader this node knows. Its address is the configured one where the configuration has it, not the one
// that the leader claims.
func (n *Node) leader() Server {
	addr, id := n.raft.LeaderWithID()
	if id == "" {
		return Server{}
	}
	if s, ok := n.server(string(id)); ok {
		return s
	}
	return Server{ID: string(id), Addr: string(addr)}
}

// Leading reports whether this node is the leader of a term in which it has applied an entry of its own: its state
// machine then reflects every command acknowledged in earlier terms. It is a hint for routing, not evidence for reads.
func (n *Node) Leading() bool {
	return n.unusable() == nil && n.raft.State() == raft.Leader && n.appliedTerm.Load() == n.raft.CurrentTerm()
}

// AddNonvoter adds a server that receives the log and has no vote, or changes the address of one. Only on the leader.
// It returns once the change is committed.
func (n *Node) AddNonvoter(ctx context.Context, id, addr string) error {
	if id == "" || addr == "" || len(id) > maxIDSize {
		return fmt.Errorf("add server %q: id or address is missing or too long", id)
	}
	prev, s, found := n.look(id)
	if found && s.Voter {
		return fmt.Errorf("add server %q: %w", id, ErrMember)
	}
	return n.change(ctx, "add server", id, func(timeout time.Duration) raft.IndexFuture {
		return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), prev, timeout)
	})
}

// Promote gives a vote to a non-voter. The caller has seen it caught up (its AppliedIndex close to the leader's):
// a voter far behind counts for the quorum and cannot help to reach it.
func (n *Node) Promote(ctx context.Context, id string) error {
	prev, s, found := n.look(id)
	if !found {
		return fmt.Errorf("promote server %q: %w", id, ErrUnknownServer)
	}
	if s.Voter {
		return nil
	}
	return n.change(ctx, "promote server", id, func(timeout time.Duration) raft.IndexFuture {
		return n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(s.Addr), prev, timeout)
	})
}

// Remove takes a server out of the configuration. A leader that removes itself stops with [ExitRemoved].
func (n *Node) Remove(ctx context.Context, id string) error {
	prev, _, found := n.look(id)
	if !found {
		return fmt.Errorf("remove server %q: %w", id, ErrUnknownServer)
	}
	return n.change(ctx, "remove server", id, func(timeout time.Duration) raft.IndexFuture {
		return n.raft.RemoveServer(raft.ServerID(id), prev, timeout)
	})
}

// look returns the server and the configuration's index, which makes a change conditional on what was seen.
func (n *Node) look(id string) (prev uint64, s Server, found bool) {
	f := n.raft.GetConfiguration()
	for _, c := range f.Configuration().Servers {
		if string(c.ID) == id {
			return f.Index(), Server{ID: id, Addr: string(c.Address), Voter: c.Suffrage == raft.Voter}, true
		}
	}
	return f.Index(), Server{}, false
}

// change runs one membership change. The library accepts one at a time, and none before it has committed an entry of
// its term.
func (n *Node) change(ctx context.Context, what, id string, call func(time.Duration) raft.IndexFuture) error {
	if err := n.unusable(); err != nil {
		return fmt.Errorf("%s %q: %w", what, id, err)
	}
	if n.raft.State() != raft.Leader {
		return fmt.Errorf("%s %q: %w", what, id, &NotLeaderError{Leader: n.leader()})
	}
	timeout := 10 * n.cfg.Election
	if d, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(d), time.Millisecond)
	}
	if err := n.await(ctx, call(timeout)); err != nil {
		return fmt.Errorf("%s %q: %w", what, id, err)
	}
	return nil
}

// TransferLeadership hands the leadership to the voter with the longest log. Proposals are refused meanwhile.
func (n *Node) TransferLeadership(ctx context.Context) error {
	if err := n.unusable(); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	if n.raft.State() != raft.Leader {
		return fmt.Errorf("transfer leadership: %w", &NotLeaderError{Leader: n.leader()})
	}
	if err := n.await(ctx, n.raft.LeadershipTransfer()); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

// Leadership is what subscribers hear.
type Leadership struct {
	// Leader has an empty ID when none is known.
	Leader Server
	Term   uint64
	// Leading is [Node.Leading] of this node.
	Leading bool
}

// maxSubscribers bounds Subscribe.
const maxSubscribers = 64

// leadership tells subscribers of changes.
type leadership struct {
	wake chan struct{}
	// mu guards what follows.
	mu   sync.Mutex
	last Leadership
	subs map[chan Leadership]struct{}
}

func (l *leadership) poke() { poke(l.wake) }

// observer wakes runLeadership whenever the library sees another leader or role. Its filter runs in the library's
// goroutines and keeps nothing.
func (l *leadership) observer() *raft.Observer {
	return raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			l.poke()
		}
		return false
	})
}

// Subscribe returns a channel on which the current leadership and each change of it appear. A slow reader finds only
// the latest. stop ends the subscription. Changes are seen while Run runs.
func (n *Node) Subscribe() (ch <-chan Leadership, stop func(), err error) {
	l := &n.leadership
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.subs) >= maxSubscribers {
		return nil, nil, fmt.Errorf("subscribe to leadership: %w", ErrPushback)
	}
	if l.subs == nil {
		l.subs = make(map[chan Leadership]struct{})
	}
	c := make(chan Leadership, 1)
	c <- l.last
	l.subs[c] = struct{}{}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, c)
	}, nil
}

// publish replaces what a subscriber has not read yet.
func (l *leadership) publish(now Leadership) (changed, newLeader bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now == l.last {
		return false, false
	}
	newLeader = now.Leader.ID != "" && (now.Leader.ID != l.last.Leader.ID || now.Term != l.last.Term)
	l.last = now
	for c := range l.subs {
		select {
		case <-c:
		default:
		}
		c <- now
	}
	return true, newLeader
}

// runLeadership publishes changes, and makes a new leader propose a tick: the first entry of its own term that it
// applies proves that it holds everything acknowledged before.
func (n *Node) runLeadership(ctx context.Context) {
	ticker := time.NewTicker(max(n.cfg.Heartbeat/4, time.Millisecond))
	defer ticker.Stop()
	for {
		now := Leadership{Leader: n.leader(), Term: n.raft.CurrentTerm(), Leading: n.Leading()}
		if changed, newLeader := n.leadership.publish(now); newLeader {
			n.metrics.leaders.Inc()
			n.log.InfoContext(ctx, "leader changed", "leader", now.Leader.ID, "term", now.Term)
		} else if changed && now.Leading {
			n.log.InfoContext(ctx, "leading", "term", now.Term)
		}
		if !now.Leading && n.raft.State() == raft.Leader {
			n.reads.force()
		}
		select {
		case <-ctx.Done():
			return
		case <-n.dead:
			return
		case <-n.leadership.wake:
		case <-ticker.C:
		}
	}
}

// errRemoved is the reason given with ExitRemoved.
var errRemoved = errors.New("this node was removed from the cluster")

// watchMembership stops a removed node. The library shuts itself down when a leader has removed itself. A removed
// follower may or may not learn of it; when its log says so and no leader has spoken to it for ten election timeouts,
// it is out. A node that replays an older removal of itself hears from the leader all the time.
func (n *Node) watchMembership(ctx context.Context) {
	ticker := time.NewTicker(max(n.cfg.Heartbeat/2, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.dead:
			return
		case <-ticker.C:
		}
		_, member := n.server(n.cfg.NodeID)
		state := n.raft.State()
		switch {
		case n.closing.Load():
			return
		case state == raft.Shutdown && !member:
			n.fatal(ExitRemoved, errRemoved)
		case state == raft.Shutdown:
			n.fatal(ExitStateMachine, errors.New("raft stopped by itself"))
		case !member && n.wasMember() && time.Since(n.raft.LastContact()) > 10*n.cfg.Election:
			n.fatal(ExitRemoved, errRemoved)
		}
	}
}

// wasMember reports whether a remembered configuration has this node.
func (n *Node) wasMember() bool {
	n.historyMu.Lock()
	h := n.history
	n.historyMu.Unlock()
	for _, c := range h {
		conf, err := decodeConfiguration(c.data)
		if err != nil {
			continue
		}
		for _, s := range conf.Servers {
			if string(s.ID) == n.cfg.NodeID {
				return true
			}
		}
	}
	return false
}
