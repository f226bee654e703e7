package node

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// stuck is the stream of a client that does not read.
type stuck struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stuck) Context() context.Context { return s.ctx }
func (s *stuck) Send(*cretov1.ExportChunk) error {
	<-s.ctx.Done()
	return s.ctx.Err()
}

// counted counts what is sent.
type counted struct {
	stuck
	bytes       int
	done, total uint64
	backwards   bool
}

func (c *counted) Send(m *cretov1.ExportChunk) error {
	c.bytes += len(m.GetData())
	c.backwards = c.backwards || m.GetDone() < c.done || m.GetDone() > m.GetTotal() || c.total != 0 && m.GetTotal() != c.total
	c.done, c.total = m.GetDone(), m.GetTotal()
	return nil
}

// A reader that stands still holds the state that its export is made from for a bounded time.
func TestSlowExport(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	cc := c.dial(0, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	var last uint64
	req := &cretov1.SubmitRequest{Tenant: c.Tenant[:]}
	for range 200 {
		req.Envelopes = append(req.Envelopes, c.sign(key, c.usage(service, 1)))
	}
	resp, err := cretov1.NewEventServiceClient(cc).Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resp.GetResults() {
		last = max(last, r.GetIndex())
	}
	s := c.Servers()[0]
	if err := s.waitPublished(t.Context(), c.Tenant, last); err != nil {
		t.Fatal(err)
	}
	open := func() *export {
		snap, err := s.ledger.Read()
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.openExport(snap, &cretov1.ExportRequest{Tenant: c.Tenant[:], WithPayloads: true})
		if err != nil {
			t.Fatal(err)
		}
		e.chunk = 8 << 10
		return e
	}
	whole := &counted{}
	if err := open().send(whole, time.Minute); err != nil || whole.bytes < 64<<10 {
		t.Fatalf("export: got %d bytes, %v, want more than 64 KiB", whole.bytes, err)
	}
	if whole.backwards || whole.done != whole.total || whole.total < 200 {
		t.Errorf("progress: got %d of %d leaves at the end, backwards: %t, want all of more than 200", whole.done, whole.total, whole.backwards)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e, done, closed := open(), make(chan error, 1), make(chan struct{})
	e.close = func() error {
		defer close(closed)
		return e.snap.Close()
	}
	go func() { done <- e.send(&stuck{ctx: ctx}, 50*time.Millisecond) }()
	// The state is closed while the client still reads nothing.
	<-closed
	select {
	case err := <-done:
		t.Fatalf("the call has ended: %v", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, errSlowExport) {
		t.Errorf("got %v, want %v", err, errSlowExport)
	}
	// Over the wire, too, and a client that goes away ends its export.
	stream, err := cretov1.NewLedgerServiceClient(cc).Export(t.Context(), &cretov1.ExportRequest{Tenant: c.Tenant[:], WithPayloads: true})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += len(m.GetData())
	}
	if n != whole.bytes {
		t.Errorf("over gRPC: got %d bytes, want %d", n, whole.bytes)
	}
}
