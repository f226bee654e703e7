package node

import (
	"context"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/publish"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

var publishedNothing publish.Height

type nodeService struct {
	cretov1.UnsafeNodeServiceServer
	s *Server
}

// Forward commits what a follower passes on; it is not passed on again.
func (n *nodeService) Forward(ctx context.Context, req *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) {
	return n.s.submit(ctx, req, n.s.edge.SubmitHere)
}

// ReadIndex returns the log position that a linearizable read on another node must have applied.
func (n *nodeService) ReadIndex(ctx context.Context, _ *cretov1.ReadIndexRequest) (*cretov1.ReadIndexResponse, error) {
	i, err := n.s.raft.ReadIndex(ctx)
	if err != nil {
		return nil, err
	}
	return &cretov1.ReadIndexResponse{RaftIndex: i}, nil
}

// Cosign takes another node's cosignatures and gives this node's newest. A node hands over only its own.
func (n *nodeService) Cosign(ctx context.Context, req *cretov1.CosignRequest) (*cretov1.CosignResponse, error) {
	c, err := cosignature(req.GetNodeId(), req.GetEpoch(), req.GetSize(), req.GetRoot(), req.GetLines())
	if err != nil {
		return nil, err
	}
	if c.Node != callerOf(ctx).principal.ID {
		return nil, refuse(KindDenied, "cosignature of node %s from another node", c.Node)
	}
	own, err := n.s.publisher.Receive(*c)
	if err != nil {
		return nil, &Error{Kind: KindInvalid, Message: "cosignature does not count here", Cause: err}
	}
	if own == nil {
		return &cretov1.CosignResponse{}, nil
	}
	return &cretov1.CosignResponse{Epoch: own.Epoch, Size: own.Size, Root: own.Root[:], Lines: lineTexts(own.Lines)}, nil
}

func cosignature(node string, epoch, size uint64, root []byte, lines []string) (*publish.Cosignature, error) {
	id, err := nhi.ParseID(node)
	if err != nil || len(root) != len(nhi.Digest{}) {
		return nil, refuse(KindInvalid, "node id or root is malformed")
	}
	c := &publish.Cosignature{Node: id, Epoch: epoch, Size: size, Root: nhi.Digest(root)}
	for _, l := range lines {
		c.Lines = append(c.Lines, []byte(l))
	}
	return c, nil
}

func lineTexts(lines [][]byte) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = string(l)
	}
	return out
}

// voterPeer is another voter, for the exchange of cosignatures.
type voterPeer struct {
	s  *Server
	id nhi.ID
}

// peers are the other voters.
func (s *Server) peers() []publish.Peer {
	ms, err := members(s.ledger)
	if err != nil {
		s.log.Warn("members cannot be read", "err", err)
		return nil
	}
	var out []publish.Peer
	for _, m := range ms {
		if m.State == ledger.MemberVoter && m.ID != s.identity.id {
			out = append(out, &voterPeer{s, m.ID})
		}
	}
	return out
}

func (p *voterPeer) ID() nhi.ID { return p.id }

// Exchange hands over this node's cosignature.
func (p *voterPeer) Exchange(ctx context.Context, own publish.Cosignature) (*publish.Cosignature, error) {
	cc, err := p.s.conns.to(p.id)
	if err != nil {
		return nil, err
	}
	resp, err := cretov1.NewNodeServiceClient(cc).Cosign(ctx, &cretov1.CosignRequest{
		NodeId: own.Node.String(), Epoch: own.Epoch, Size: own.Size, Root: own.Root[:], Lines: lineTexts(own.Lines),
	})
	if err != nil {
		return nil, err
	}
	if resp.GetSize() == 0 {
		return nil, nil
	}
	return cosignature(p.id.String(), resp.GetEpoch(), resp.GetSize(), resp.GetRoot(), resp.GetLines())
}
