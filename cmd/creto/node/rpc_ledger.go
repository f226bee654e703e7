package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// exportChunk is the size of one message of an export, in bytes.
const exportChunk = 256 << 10

// publishWait bounds how long GetProof and Export wait for a checkpoint.
const publishWait = 30 * time.Second

// maxExport bounds how long an export holds the state that it is made from.
const maxExport = 10 * time.Minute

type ledgerService struct {
	cretov1.UnsafeLedgerServiceServer
	s          *Server
	exportTime time.Duration
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
	read, err := s.readInfo(snap, t, cretov1.Consistency_CONSISTENCY_LINEARIZABLE)
	if err != nil {
		return nil, err
	}
	return &cretov1.GetProofResponse{File: file, Read: read}, nil
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
	var t ledger.Tenant // the system log, while the spine is asked about
	if len(req.GetTenant()) > 0 {
		if t, err = snap.Tenant(nhi.ID(req.GetTenant())); err != nil {
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
	read, err := l.s.readInfo(snap, t, cretov1.Consistency_CONSISTENCY_LINEARIZABLE)
	if err != nil {
		return nil, err
	}
	resp := &cretov1.GetConsistencyResponse{FromRoot: from[:], ToRoot: to[:], Read: read}
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
	e, err := s.openExport(snap, req)
	if err != nil {
		return errors.Join(err, snap.Close())
	}
	return e.send(stream, l.exportTime)
}

// export is a completeness file that is about to be written.
type export struct {
	snap     *ledger.Snapshot
	close    func() error // of snap: when the file is written, or given up
	chunk    int          // bytes of a message
	tenant   ledger.Tenant
	at       ledger.Anchor
	from, to int64
	payloads bool
	read     *cretov1.ReadInfo

	done, total atomic.Uint64 // leaves of the file
}

func (s *Server) openExport(snap *ledger.Snapshot, req *cretov1.ExportRequest) (*export, error) {
	e := &export{snap: snap, close: snap.Close, chunk: exportChunk, from: req.GetFromTimeNs(), to: req.GetToTimeNs(), payloads: req.GetWithPayloads()}
	var err error
	if e.tenant, err = snap.Tenant(nhi.ID(req.GetTenant())); err != nil {
		return nil, err
	}
	if e.at, err = s.anchor(snap); err != nil {
		return nil, err
	}
	_, last, err := snap.SpineLeaf(e.at.Size)
	if err != nil {
		return nil, err
	}
	if e.to == 0 {
		e.to = last.Time
	}
	_, _, err = snap.SealedHead(e.tenant.Slot, e.at.Size)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, errNotPublished
	}
	if err != nil {
		return nil, err
	}
	e.read, err = s.readInfo(snap, e.tenant, cretov1.Consistency_CONSISTENCY_LINEARIZABLE)
	return e, err
}

// errSlowExport ends an export whose reader is slow: the state that it is made from holds up the removal of erased bytes.
var errSlowExport = &Error{Kind: KindUnavailable, Message: "the export took too long", Hint: "export a shorter interval, or read faster"}

// send writes the file to the stream. The state is held only while the file is written, and no longer than limit, also while
// a client that does not read holds up the stream.
func (e *export) send(stream grpc.ServerStreamingServer[cretov1.ExportChunk], limit time.Duration) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		b := bufio.NewWriterSize(w, e.chunk)
		err := e.snap.WriteCompleteness(b, e.tenant, e.from, e.to, e.at, e.payloads, func(done, total uint64) {
			e.done.Store(done)
			e.total.Store(total)
		})
		if err == nil {
			err = b.Flush()
		}
		err = errors.Join(err, e.close())
		w.CloseWithError(err) // nil: the end of the file
		written <- err
	}()
	timer := time.AfterFunc(limit, func() { r.CloseWithError(errSlowExport) })
	defer timer.Stop()
	err := e.copy(stream, r)
	r.CloseWithError(context.Canceled) // has no effect if the timer came first
	werr := <-written
	switch {
	case errors.Is(werr, errSlowExport):
		return errSlowExport
	case errors.Is(werr, ledger.ErrNotFound):
		return errNotPublished
	case err == nil:
		return werr
	}
	return err
}

// copy sends what comes out of the pipe as chunks. Its error is the writer's, or the stream's.
func (e *export) copy(stream grpc.ServerStreamingServer[cretov1.ExportChunk], r io.Reader) error {
	read := e.read
	for {
		chunk := make([]byte, e.chunk) // the stream keeps what it was given
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			if err := stream.Send(&cretov1.ExportChunk{Data: chunk[:n], Done: e.done.Load(), Total: e.total.Load(), Read: read}); err != nil {
				return err
			}
			read = nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// GetTrust returns the trust file that follows from the log.
func (l *ledgerService) GetTrust(context.Context, *cretov1.GetTrustRequest) (*cretov1.GetTrustResponse, error) {
	t, err := l.s.Trust()
	if err != nil {
		return nil, err
	}
	read, err := l.s.systemInfo()
	if err != nil {
		return nil, err
	}
	return &cretov1.GetTrustResponse{Trust: string(t.Format()), Fingerprint: t.Fingerprint(), Read: read}, nil
}
