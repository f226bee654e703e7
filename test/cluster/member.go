package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Lose removes a node for good: its process is killed and its directory deleted.
func (c *Cluster) Lose(i int) error {
	if err := c.Kill(i); err != nil {
		return err
	}
	c.Nodes[i].Gone = true
	return os.RemoveAll(c.Nodes[i].Dir)
}

// Join admits a new node with a token, through a node that runs, and makes its directory. It does not start it.
func (c *Cluster) Join(ctx context.Context, through int) (int, error) {
	token, digest, err := node.NewJoinToken(rand.Reader)
	if err != nil {
		return 0, err
	}
	err = do(ctx, c.Admin.Agent, ledger.KindJoinTokenAdd, &ledger.JoinTokenBody{
		Token: digest, Role: registry.RoleVoter, Expires: time.Now().Add(time.Hour).UnixNano(),
	})
	if err != nil {
		return 0, err
	}
	bundle, err := os.ReadFile(c.Init.AdminSVID.Bundle)
	if err != nil {
		return 0, err
	}
	l, n, err := c.addresses(len(c.Nodes))
	if err != nil {
		return 0, err
	}
	l.Admin = "off"
	cfg := node.Config{Listen: l, PlainRead: true, PlainMetrics: true, Raft: c.opt.Raft}
	cfg.Advertise.Peer, cfg.Advertise.GRPC = n.Peer, n.GRPC
	dir := filepath.Join(c.opt.Dir, "cluster", fmt.Sprintf("node%d", len(c.Nodes)+1))
	joined, err := node.JoinCluster(ctx, node.JoinConfig{Addr: c.Nodes[through].GRPC, Token: token, Bundle: bundle, Dir: dir, Node: cfg})
	if err != nil {
		return 0, err
	}
	if err := c.addNode(joined.NodeID, dir, l); err != nil {
		return 0, err
	}
	return len(c.Nodes) - 1, c.Change(ctx, ledger.MemberAdd, joined.NodeID, n.Peer)
}

// Change announces and makes a change of the membership, again while the cluster cannot.
func (c *Cluster) Change(ctx context.Context, op ledger.MemberOp, id nhi.ID, address string) error {
	return Eventually(ctx, 30*time.Second, "change of membership", func(ctx context.Context) error {
		b, err := (&ledger.MemberBody{Op: op, Node: id, Address: address}).Encode()
		if err != nil {
			return err
		}
		s, err := c.Admin.Agent.Sign(ledger.KindMember, b)
		if err != nil {
			return err
		}
		for i := range c.Nodes {
			if !c.Running(i) {
				continue
			}
			var r *cretov1.ChangeMemberResponse
			if r, err = cretov1.NewClusterServiceClient(c.Nodes[i].admin).ChangeMember(ctx, &cretov1.ChangeMemberRequest{Envelope: s.Message()}); err == nil {
				if o := r.GetResult().GetOutcome(); o != "accepted" {
					err = fmt.Errorf("it is %s: %s", o, r.GetResult().GetReason())
				}
				return err
			}
		}
		return err
	})
}

// Remove takes a node out of the Raft configuration and revokes it on the system log.
func (c *Cluster) Remove(ctx context.Context, i int) error {
	id := c.Nodes[i].ID
	if err := c.Change(ctx, ledger.MemberRemove, id, ""); err != nil {
		return err
	}
	return do(ctx, c.Admin.Agent, ledger.KindNodeRemove, &ledger.NodeRemoveBody{ID: id})
}
