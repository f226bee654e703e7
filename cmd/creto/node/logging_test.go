package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creto-systems/creto/consensus"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// fullPipe is a standard error that nobody reads, and that is full.
func fullPipe(t *testing.T) *slog.Logger {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = w.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Nobody reads what the nodes log, down to debug: the cluster starts, takes events and answers linearizable reads (etcd#22214).
func TestFault23BlockedLogHoldsUpNothing(t *testing.T) {
	c := startDev(t, DevConfig{Logger: fullPipe(t)})
	admin := c.dial(0, "", true)
	start := time.Now()
	for range 5 {
		c.register(admin, registry.Service)
	}
	for i := range c.Servers() {
		if _, err := cretov1.NewLedgerServiceClient(c.dial(i, "", true)).GetTrust(t.Context(), &cretov1.GetTrustRequest{}); err != nil {
			t.Errorf("read on node %d: %v", i, err)
		}
	}
	t.Logf("5 registrations and reads on each node with a blocked log: %v", time.Since(start))
}

// hungSink never returns.
type hungSink struct{ free chan struct{} }

func (h *hungSink) Enabled(context.Context, slog.Level) bool { return true }
func (h *hungSink) Handle(context.Context, slog.Record) error {
	<-h.free
	return nil
}
func (h *hungSink) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *hungSink) WithGroup(string) slog.Handler      { return h }

// A node that must stop does so although it cannot say why.
func TestBlockedLogDoesNotKeepANodeThatMustStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hungSink{make(chan struct{})}
		q := consensus.NewLogQueue(h)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		defer close(h.free)
		go q.Run(ctx)
		codes := make(chan int, 1)
		s := &Server{log: slog.New(q), fatal: make(chan *ExitError, 1), opt: Options{Exit: func(code int) { codes <- code }}}
		start := time.Now()
		s.onFatal(consensus.ExitStorage, errors.New("disk"))
		if got := <-codes; got != consensus.ExitStorage || time.Since(start) != exitGrace {
			t.Errorf("got exit %d after %v, want %d after %v", got, time.Since(start), consensus.ExitStorage, exitGrace)
		}
	})
}
