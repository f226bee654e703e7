package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/creto-systems/creto/consensus"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// maxPromoteLag is how many log entries behind the leader a node may be that gets a vote.
const maxPromoteLag = 1024

type clusterService struct {
	cretov1.UnsafeClusterServiceServer
	s *Server
}

// Status says what this node knows of the cluster.
func (c *clusterService) Status(context.Context, *cretov1.StatusRequest) (*cretov1.StatusResponse, error) {
	s := c.s
	st := s.raft.State()
	resp := &cretov1.StatusResponse{
		NodeId: st.ID, Role: st.Role, Term: st.Term, LeaderId: st.Leader.ID, LeaderAddr: st.Leader.Addr, LastIndex: st.LastIndex,
		CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex, LedgerId: s.identity.ledger[:], Cluster: s.identity.genesis.Cluster,
		Version: s.opt.Version, Test: s.identity.genesis.Test, PublishedEpoch: s.publisher.Published().Epoch, TimeQuality: s.timeQuality(),
		CertificateExpiresNs: s.source.SVID().Certificate().NotAfter.UnixNano(),
	}
	voters := 0
	for _, m := range st.Servers {
		if m.Voter {
			voters++
		}
		contact := -1.0
		if m.ID == st.ID && st.Role != "leader" && !st.LastContact.IsZero() {
			contact = time.Since(st.LastContact).Seconds()
		}
		resp.Members = append(resp.Members, &cretov1.Member{
			NodeId: m.ID, RaftAddr: m.Addr, Voter: m.Voter, Leader: m.ID == st.Leader.ID, LastContactSeconds: contact,
		})
	}
	if voters > 0 {
		resp.FailureTolerance = uint32((voters - 1) / 2)
	}
	snap, err := s.ledger.Read()
	if errors.Is(err, ledger.ErrNoLedger) {
		return resp, nil
	}
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	hash := snap.StateHash()
	resp.Epoch, resp.StateHash, resp.TimeNs, resp.ActiveLevel = snap.Epoch(), hash[:], snap.Time(), snap.Active()
	resp.Tenants = snap.Slots() - 1
	resp.Read, err = s.readInfo(snap, ledger.Tenant{Slot: ledger.SystemSlot}, cretov1.Consistency_CONSISTENCY_STALE)
	return resp, err
}

// TransferLeadership asks this node, which must lead, to hand over.
func (c *clusterService) TransferLeadership(ctx context.Context, _ *cretov1.TransferLeadershipRequest) (*cretov1.TransferLeadershipResponse, error) {
	s := c.s
	if err := s.raft.TransferLeadership(ctx); err != nil {
		if l, ok := errors.AsType[*consensus.NotLeaderError](err); ok {
			return nil, &Error{Kind: KindUnavailable, Message: "this node does not lead", Hint: fmt.Sprintf("ask node %s", l.Leader.ID), Cause: err}
		}
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var leader string
	err := poll(ctx, func() bool {
		leader = s.raft.State().Leader.ID
		return leader != "" && leader != s.identity.id.String()
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", edge.ErrUnavailable, err)
	}
	return &cretov1.TransferLeadershipResponse{LeaderId: leader}, nil
}

// poll waits until ok, looking every 10 ms, or until ctx ends.
func poll(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// SetClock moves the clock of a test ledger, as far as it is this process's.
func (c *clusterService) SetClock(_ context.Context, req *cretov1.SetClockRequest) (*cretov1.SetClockResponse, error) {
	clock, ok := c.s.clock.(*TestClock)
	if !ok || !c.s.identity.genesis.Test {
		return nil, &Error{Kind: KindDenied, Message: "the clock of this ledger cannot be moved", Hint: "only a ledger whose genesis says test has a movable clock"}
	}
	if req.GetAdvanceNs() < 0 || req.GetFreeze() && req.GetThaw() {
		return nil, refuse(KindInvalid, "a clock goes forward, and is frozen or thawed, not both")
	}
	if req.GetFreeze() {
		clock.Freeze()
	}
	now := clock.Advance(time.Duration(req.GetAdvanceNs()))
	if req.GetThaw() {
		clock.Thaw()
	}
	c.s.poke()
	return &cretov1.SetClockResponse{TimeNs: now.UnixNano(), Frozen: clock.Frozen()}, nil
}

// ChangeMember commits an admin.member event that an admin has signed. The leader then changes the Raft configuration to what
// the log says; the call returns when this node sees it.
func (c *clusterService) ChangeMember(ctx context.Context, req *cretov1.ChangeMemberRequest) (*cretov1.ChangeMemberResponse, error) {
	s := c.s
	if req.GetEnvelope() == nil {
		return nil, refuse(KindInvalid, "envelope is missing")
	}
	subs, err := submissions([]*cretov1.Envelope{req.GetEnvelope()})
	if err != nil {
		return nil, err
	}
	body, err := memberBody(subs[0].Envelope)
	if err != nil {
		return nil, err
	}
	s.memberChange.Lock()
	defer s.memberChange.Unlock()
	if body.Op == ledger.MemberPromote {
		if err := s.caughtUp(ctx, body.Node); err != nil {
			return nil, err
		}
	}
	rs, err := s.edge.Submit(ctx, nhi.ID{}, subs)
	if err != nil {
		return nil, err
	}
	resp := &cretov1.ChangeMemberResponse{Result: whole(rs[0])}
	if r := rs[0]; r.State != ledger.Sequenced && r.State != ledger.Duplicate || !r.Outcome.Accepted() {
		return resp, nil
	}
	s.poke()
	wctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = poll(wctx, func() bool {
		st := s.raft.State()
		resp.RaftIndex = st.CommitIndex
		m, found := findServer(st.Servers, body.Node.String())
		switch body.Op {
		case ledger.MemberAdd:
			return found
		case ledger.MemberPromote:
			return found && m.Voter
		default:
			return !found
		}
	})
	if err != nil {
		return nil, &Error{
			Kind: KindUnavailable, Message: "the change is in the log and not yet in the Raft configuration", Cause: err,
			Hint: "the leader makes it as soon as it can; see cluster status",
		}
	}
	return resp, nil
}

// memberBody reads the one event of the envelope. Whether its signature holds is decided where every event's is.
func memberBody(e *nhi.Envelope) (*ledger.MemberBody, error) {
	if err := e.Check(); err != nil || len(e.Payloads) != 1 {
		return nil, refuse(KindInvalid, "an envelope with one event of kind %s is wanted", ledger.KindMember)
	}
	ev, err := nhi.DecodeEvent(e.Payloads[0])
	if err != nil || ev.Kind != ledger.KindMember {
		return nil, refuse(KindInvalid, "an event of kind %s is wanted", ledger.KindMember)
	}
	body := new(ledger.MemberBody)
	if err := canon.Unmarshal(ev.Body, body); err != nil {
		return nil, &Error{Kind: KindInvalid, Message: "body is malformed", Cause: err}
	}
	return body, nil
}

// caughtUp asks a node that shall get a vote how far it is: one far behind counts for the quorum and cannot help to reach it.
func (s *Server) caughtUp(ctx context.Context, id nhi.ID) error {
	cc, err := s.conns.to(id)
	if err != nil {
		return &Error{Kind: KindUnavailable, Message: "the node has not been heard of yet", Hint: "start it, and wait until it has announced itself", Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	theirs, err := cretov1.NewClusterServiceClient(cc).Status(ctx, &cretov1.StatusRequest{})
	if err != nil {
		return &Error{Kind: KindUnavailable, Message: "the node does not answer", Hint: "start it before it gets a vote", Cause: err}
	}
	if own := s.raft.State().CommitIndex; theirs.GetAppliedIndex()+maxPromoteLag < own {
		return &Error{
			Kind: KindUnavailable, Hint: "try again when it has caught up",
			Message: fmt.Sprintf("the node has applied %d of %d log entries", theirs.GetAppliedIndex(), own),
		}
	}
	return nil
}

func findServer(all []consensus.Server, id string) (consensus.Server, bool) {
	for _, m := range all {
		if m.ID == id {
			return m, true
		}
	}
	return consensus.Server{}, false
}

// reconcile makes the Raft configuration what the system log says it is, one change at a time. The log comes first: a crash
// between the two is healed by whoever leads next.
func (s *Server) reconcile(ctx context.Context) error {
	ms, err := members(s.ledger)
	if err != nil {
		return err
	}
	servers := s.raft.State().Servers
	for _, m := range ms {
		if m.Role != registry.RoleVoter {
			continue
		}
		id := m.ID.String()
		is, found := findServer(servers, id)
		var change func(context.Context) error
		switch {
		case m.State == ledger.MemberNonvoter && !found,
			m.State == ledger.MemberNonvoter && !is.Voter && is.Addr != m.Address:
			change = func(ctx context.Context) error { return s.raft.AddNonvoter(ctx, id, m.Address) }
		case m.State == ledger.MemberVoter && found && !is.Voter:
			change = func(ctx context.Context) error { return s.raft.Promote(ctx, id) }
		case (m.State == ledger.MemberRegistered || m.State == ledger.MemberRemoved) && found && m.ID == s.identity.id:
			change = s.raft.TransferLeadership // the next leader removes this one
		case (m.State == ledger.MemberRegistered || m.State == ledger.MemberRemoved) && found:
			change = func(ctx context.Context) error { return s.raft.Remove(ctx, id) }
		default:
			continue
		}
		cctx, cancel := context.WithTimeout(ctx, proposeWait)
		err := change(cctx)
		cancel()
		if err != nil {
			return fmt.Errorf("change membership of %s: %w", id, err)
		}
		s.log.InfoContext(ctx, "membership changed", "member", id, "state", int(m.State))
		return nil
	}
	return nil
}
