package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// exportChunk is the size of one message of an export, in bytes.
const exportChunk = 256 << 10

// publishWait bounds how long GetProof and Export wait for a checkpoint.
const publishWait = 30 * time.Second

type ledgerService struct {
	cretov1.UnsafeLedgerServiceServer
	s *Server
}

// GetHeads returns the heights of the ledger and of one log.
func (l *ledgerService) GetHeads(ctx context.Context, req *cretov1.GetHeadsRequest) (*cretov1.GetHeadsResponse, error) {
	s := l.s
	snap, err := s.snapshot(ctx, cretov1.Consistency_CONSISTENCY_LINEARIZABLE)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	resp := &cretov1.GetHeadsResponse{Epoch: snap.Epoch(), SpineSize: snap.Epoch()}
	h, note := s.publisher.Checkpoint()
	if h.Size > snap.Epoch() {
		h, note = publishedNothing, nil
	}
	resp.PublishedEpoch, resp.PublishedSpineSize, resp.SpineCheckpoint = h.Epoch, h.Size, note
	hash := snap.StateHash()
	resp.StateHash = hash[:]
	if len(req.GetTenant()) == 0 {
		resp.Read, err = s.readInfo(snap, ledger.Tenant{}, cretov1.Consistency_CONSISTENCY_LINEARIZABLE)
		return resp, err
	}
	t, err := snap.Tenant(nhi.ID(req.GetTenant()))
	if err != nil {
		return nil, err
	}
	if resp.Read, err = s.readInfo(snap, t, cretov1.Consistency_CONSISTENCY_LINEARIZABLE); err != nil {
		return nil, err
	}
	resp.TreeSize = resp.GetRead().GetTreeSize()
	if h.Epoch == 0 {
		return resp, nil
	}
	_, head, err := snap.SealedHead(t.Slot, h.Epoch)
	if errors.Is(err, ledger.ErrNotFound) {
		return resp, nil
	}
	if err != nil {
		return nil, err
	}
	resp.PublishedTreeSize = head.Size
	resp.TenantCheckpoint, err = s.publisher.SignTenant(t.ID, head.Size, head.Root)
	return resp, err
}

// GetProof returns the proof file of one leaf.
func (l *ledgerService) GetProof(ctx context.Context, req *cretov1.GetProofRequest) (*cretov1.GetProofResponse, error) {
	s := l.s
	tenant := nhi.ID(req.GetTenant())
	if err := s.barrier(ctx); err != nil {
		return nil, err
	}
	if err := l.exists(tenant, req.GetIndex()); err != nil {
		return nil, err
	}
	if req.GetWait() {
		wctx, cancel := context.WithTimeout(ctx, publishWait)
		defer cancel()
		if err := s.waitPublished(wctx, tenant, req.GetIndex()); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				return nil, errNotPublished
			}
			return nil, err
		}
	}
	snap, err := s.ledger.Read()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return nil, err
	}
	at, err := s.anchor(snap)
	if err != nil {
		return nil, err
	}
	p, err := snap.EventProof(t, req.GetIndex(), at)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, errNotPublished
	}
	if err != nil {
		return nil, err
	}
	file, err := p.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode proof: %w", err)
	}
	return &cretov1.GetProofResponse{File: file}, nil
}

// exists says whether a leaf is there, before anybody waits for its checkpoint.
func (l *ledgerService) exists(tenant nhi.ID, index uint64) error {
	snap, err := l.s.ledger.Read()
	if err != nil {
		return err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return err
	}
	_, err = snap.Leaf(t.Slot, index)
	return err
}

// GetConsistency proves that one size of a log is a prefix of another.
func (l *ledgerService) GetConsistency(ctx context.Context, req *cretov1.GetConsistencyRequest) (*cretov1.GetConsistencyResponse, error) {
	snap, err := l.s.snapshot(ctx, cretov1.Consistency_CONSISTENCY_LINEARIZABLE)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	slot := ledger.SpineSlot
	if len(req.GetTenant()) > 0 {
		t, err := snap.Tenant(nhi.ID(req.GetTenant()))
		if err != nil {
			return nil, err
		}
		slot = t.Slot
	}
	path, err := snap.Consistency(slot, req.GetFromSize(), req.GetToSize())
	if err != nil {
		return nil, err
	}
	from, err := snap.RootAt(slot, req.GetFromSize())
	if err != nil {
		return nil, err
	}
	to, err := snap.RootAt(slot, req.GetToSize())
	if err != nil {
		return nil, err
	}
	resp := &cretov1.GetConsistencyResponse{FromRoot: from[:], ToRoot: to[:]}
	for i := range path {
		resp.Hashes = append(resp.Hashes, path[i][:])
	}
	return resp, nil
}

// Export streams the completeness file of an interval. An end of zero is the time of the newest published epoch, which is
// waited for if the log has grown since.
func (l *ledgerService) Export(req *cretov1.ExportRequest, stream grpc.ServerStreamingServer[cretov1.ExportChunk]) error {
	s, ctx := l.s, stream.Context()
	if err := s.barrier(ctx); err != nil {
		return err
	}
	tenant := nhi.ID(req.GetTenant())
	if req.GetToTimeNs() == 0 {
		snap, err := s.ledger.Read()
		if err != nil {
			return err
		}
		t, err := snap.Tenant(tenant)
		head := ledger.Head{}
		if err == nil {
			head, err = snap.Head(t.Slot)
		}
		if err := errors.Join(err, snap.Close()); err != nil {
			return err
		}
		if head.Size > 0 {
			wctx, cancel := context.WithTimeout(ctx, publishWait)
			err := s.waitPublished(wctx, tenant, head.Size-1)
			cancel()
			if err != nil {
				return errNotPublished
			}
		}
	}
	snap, err := s.ledger.Read()
	if err != nil {
		return err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return err
	}
	at, err := s.anchor(snap)
	if err != nil {
		return err
	}
	_, last, err := snap.SpineLeaf(at.Size)
	if err != nil {
		return err
	}
	to := req.GetToTimeNs()
	if to == 0 {
		to = last.Time
	}
	_, head, err := snap.SealedHead(t.Slot, at.Size)
	if errors.Is(err, ledger.ErrNotFound) {
		return errNotPublished
	}
	if err != nil {
		return err
	}
	w := &chunkWriter{stream: stream, total: head.Size}
	b := bufio.NewWriterSize(w, exportChunk)
	err = snap.WriteCompleteness(b, t, req.GetFromTimeNs(), to, at, req.GetWithPayloads())
	if errors.Is(err, ledger.ErrNotFound) {
		return errNotPublished
	}
	if err != nil {
		return err
	}
	return b.Flush()
}

// chunkWriter sends what is written to it as chunks.
type chunkWriter struct {
	stream grpc.ServerStreamingServer[cretov1.ExportChunk]
	total  uint64
}

func (w *chunkWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), exportChunk)
		if err := w.stream.Send(&cretov1.ExportChunk{Data: rest[:n], Total: w.total}); err != nil {
			return len(b) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// GetTrust returns the trust file as the voters of now make it.
func (l *ledgerService) GetTrust(context.Context, *cretov1.GetTrustRequest) (*cretov1.GetTrustResponse, error) {
	t, err := l.s.Trust()
	if err != nil {
		return nil, err
	}
	return &cretov1.GetTrustResponse{Trust: string(t.Format()), Fingerprint: t.Fingerprint()}, nil
}

// Trust returns the trust file of the ledger: its log key, both cosigning keys of every voter, a majority of the voters as
// quorum, and the keys with which they sign receipts. It is a proposal: whom to trust, its reader decides.
func (s *Server) Trust() (*verify.Trust, error) {
	snap, err := s.ledger.Read()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	ms, err := snap.Members()
	if err != nil {
		return nil, err
	}
	sys, err := snap.View(ledger.Tenant{Slot: ledger.SystemSlot})
	if err != nil {
		return nil, err
	}
	cluster := snap.Genesis().Cluster
	key, err := verify.ParseVKey(snap.Genesis().LogKey)
	if err != nil {
		return nil, fmt.Errorf("make trust file: %w", err)
	}
	t := &verify.Trust{LedgerID: snap.LedgerID(), Logs: []verify.TrustLog{{Key: key}}, Quorum: "quorum"}
	quorum := verify.TrustGroup{Name: t.Quorum}
	for _, m := range ms {
		if m.State != ledger.MemberVoter {
			continue
		}
		ed, err := verify.NewVKey(verify.NodeKeyName(cluster, m.ID, "ed"), verify.KeyCosignature, m.Ed)
		if err != nil {
			return nil, fmt.Errorf("make trust file: %w", err)
		}
		pq, err := verify.NewVKey(verify.NodeKeyName(cluster, m.ID, "pq"), verify.KeyMLDSA44, m.PQ)
		if err != nil {
			return nil, fmt.Errorf("make trust file: %w", err)
		}
		node := m.ID.String()
		t.Witnesses = append(t.Witnesses, verify.TrustWitness{Name: node + "-ed", Key: ed}, verify.TrustWitness{Name: node + "-pq", Key: pq})
		t.Groups = append(t.Groups, verify.TrustGroup{Name: node, K: 2, Members: []string{node + "-ed", node + "-pq"}})
		quorum.Members = append(quorum.Members, node)
		err = ledger.Guard(func() error {
			id, err := registry.ResolveIdentity(ledger.RegistryView(sys), m.ID, sys.NextIndex())
			if err != nil {
				return err
			}
			t.Receipts = append(t.Receipts, verify.TrustReceiptKey{Node: m.ID, Key: id.Key})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("make trust file: %w", err)
		}
	}
	quorum.K = len(quorum.Members)/2 + 1
	t.Groups = append(t.Groups, quorum)
	return t, nil
}
