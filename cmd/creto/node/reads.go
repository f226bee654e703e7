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
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// callTimeout bounds a call between nodes whose caller has set no shorter one.
const callTimeout = 10 * time.Second

// leader returns the id of the leader this node knows.
func (s *Server) leader() (nhi.ID, error) {
	l := s.raft.State().Leader
	if l.ID == "" {
		return nhi.ID{}, fmt.Errorf("%w: no leader is known", edge.ErrUnavailable)
	}
	return nhi.ParseID(l.ID)
}

// leaderClient returns a client of another node that leads.
func (s *Server) leaderClient() (cretov1.NodeServiceClient, error) {
	id, err := s.leader()
	if err != nil {
		return nil, err
	}
	if id == s.identity.id {
		// It has not applied an entry of its own term yet.
		return nil, fmt.Errorf("%w: leadership begins", edge.ErrUnavailable)
	}
	cc, err := s.conns.to(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", edge.ErrUnavailable, err)
	}
	return cretov1.NewNodeServiceClient(cc), nil
}

// Forward passes envelopes to the leader, one hop: it implements edge.Forwarder.
func (s *Server) Forward(ctx context.Context, tenant nhi.ID, subs []edge.Submission) ([]edge.Result, error) {
	c, err := s.leaderClient()
	if err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	resp, err := c.Forward(ctx, &cretov1.SubmitRequest{Tenant: tenant[:], Envelopes: envelopes(subs)})
	if err != nil {
		return nil, fromLeader(err)
	}
	return fromAnswer(resp), nil
}

// leaderIndex asks the leader for a read index.
func (s *Server) leaderIndex(ctx context.Context, leader nhi.ID) (uint64, error) {
	cc, err := s.conns.to(leader)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", edge.ErrUnavailable, err)
	}
	resp, err := cretov1.NewNodeServiceClient(cc).ReadIndex(ctx, &cretov1.ReadIndexRequest{})
	if err != nil {
		return 0, fromLeader(err)
	}
	return resp.GetRaftIndex(), nil
}

// barrier returns when this node's state reflects every write acknowledged, by any node, before the call.
func (s *Server) barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.raft.ReadIndex(ctx)
	if err == nil {
		return nil
	}
	if !errors.Is(err, consensus.ErrNotLeader) {
		return err
	}
	leader, lerr := s.leader()
	if lerr != nil {
		return lerr
	}
	if leader == s.identity.id {
		return fmt.Errorf("%w: %w", edge.ErrUnavailable, err)
	}
	index, err := s.leaderIndex(ctx, leader)
	if err != nil {
		return err
	}
	return s.raft.WaitApplied(ctx, index)
}

// snapshot opens the state that a read is answered from. The caller closes it.
func (s *Server) snapshot(ctx context.Context, c cretov1.Consistency) (*ledger.Snapshot, error) {
	if c != cretov1.Consistency_CONSISTENCY_STALE {
		if err := s.barrier(ctx); err != nil {
			return nil, err
		}
	}
	return s.ledger.Read()
}

// readInfo says what a read of a tenant was answered from.
func (s *Server) readInfo(snap *ledger.Snapshot, t ledger.Tenant, c cretov1.Consistency) (*cretov1.ReadInfo, error) {
	head, err := snap.Head(t.Slot)
	if err != nil {
		return nil, err
	}
	return &cretov1.ReadInfo{
		Linearizable: c != cretov1.Consistency_CONSISTENCY_STALE, TreeSize: head.Size, TimeNs: snap.Time(), TimeQuality: s.timeQuality(),
		NodeId: s.identity.id.String(),
	}, nil
}

// systemInfo says how far this node's own state is: of the system log, stale.
func (s *Server) systemInfo() (*cretov1.ReadInfo, error) {
	snap, err := s.ledger.Read()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	return s.readInfo(snap, ledger.Tenant{Slot: ledger.SystemSlot}, cretov1.Consistency_CONSISTENCY_STALE)
}

// timeQuality is the quality of this ledger's stamps as they are made now: nothing certifies them yet.
func (s *Server) timeQuality() string {
	if s.identity.genesis.Test {
		return "CARRIED TEST"
	}
	return "CARRIED"
}

// tenantRead calls fn with the state of a tenant and what the read is answered from.
func (s *Server) tenantRead(ctx context.Context, tenant []byte, c cretov1.Consistency, fn func(snap *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error) error {
	snap, err := s.snapshot(ctx, c)
	if err != nil {
		return err
	}
	defer snap.Close()
	t, err := snap.Tenant(nhi.ID(tenant))
	if err != nil {
		return err
	}
	info, err := s.readInfo(snap, t, c)
	if err != nil {
		return err
	}
	return ledger.Guard(func() error { return fn(snap, t, info) })
}

// View opens the state of a tenant for the rooms' queries: it implements their Reads.
func (s *Server) View(ctx context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(v ledger.View, info *cretov1.ReadInfo) error) error {
	return s.tenantRead(ctx, tenant[:], c, func(snap *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error {
		v, err := snap.View(t)
		if err != nil {
			return err
		}
		return fn(v, info)
	})
}

// Changed returns a channel that is closed when something has been applied after the call.
func (s *Server) Changed(context.Context, nhi.ID) <-chan struct{} { return s.ledger.Applied() }

// waitPublished returns when a leaf is under a published checkpoint that this node knows.
func (s *Server) waitPublished(ctx context.Context, tenant nhi.ID, index uint64) error {
	for {
		applied := s.ledger.Applied()
		epoch, err := s.sealedEpoch(tenant, index)
		if err == nil {
			return s.publisher.WaitPublished(ctx, epoch)
		}
		if !errors.Is(err, ledger.ErrNotFound) && !errors.Is(err, ledger.ErrNoLedger) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopping:
			return errStopping
		case <-applied:
		}
	}
}

// sealedEpoch returns the epoch that covers a leaf; the error matches ledger.ErrNotFound while none does.
func (s *Server) sealedEpoch(tenant nhi.ID, index uint64) (uint64, error) {
	snap, err := s.ledger.Read()
	if err != nil {
		return 0, err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return 0, err
	}
	epoch, _, err := snap.SealedSize(t.Slot, index+1)
	return epoch, err
}

// anchor is the published checkpoint that proofs end in, as far as a snapshot reaches.
func (s *Server) anchor(snap *ledger.Snapshot) (ledger.Anchor, error) {
	h, note := s.publisher.Checkpoint()
	if note == nil || h.Size > snap.Epoch() {
		return ledger.Anchor{}, errNotPublished
	}
	return ledger.Anchor{Size: h.Size, Note: note}, nil
}

// errNotPublished: what is asked for is sequenced and not yet under a checkpoint.
var errNotPublished = &Error{Kind: KindUnavailable, Message: "not published yet", Hint: "a checkpoint follows within a second while a quorum of the nodes is up; wait, or ask with wait set"}
