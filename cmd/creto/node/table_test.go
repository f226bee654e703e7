package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/consensus"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
)

// Every kind has a code, every error that rooms export has a kind, and no cause reaches the caller.
func TestErrorTable(t *testing.T) {
	for _, k := range []Kind{KindInvalid, KindUnauthenticated, KindDenied, KindNotFound, KindConflict, KindExhausted, KindUnavailable, KindInternal} {
		if grpcCodes[k] == codes.OK {
			t.Errorf("kind %q has no code", k)
		}
	}
	const secret = "disk /var/lib/creto"
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{&edge.InvalidError{Event: 1, Reason: errors.New("kind is unknown")}, codes.InvalidArgument},
		{edge.ErrUnauthenticated, codes.Unauthenticated},
		{edge.ErrUnknownTenant, codes.NotFound},
		{edge.ErrPushback, codes.ResourceExhausted},
		{&edge.RefusalsError{After: 3 * time.Second}, codes.ResourceExhausted},
		{edge.ErrUnavailable, codes.Unavailable},
		{ledger.ErrNotFound, codes.NotFound},
		{ledger.ErrRange, codes.InvalidArgument},
		{ledger.ErrCursor, codes.InvalidArgument},
		{ledger.ErrNoLedger, codes.Unavailable},
		{ledger.ErrClosed, codes.Unavailable},
		{ledger.ErrCorrupt, codes.Internal},
		{ledger.ErrUnwrap, codes.Internal},
		{&consensus.NotLeaderError{}, codes.Unavailable},
		{consensus.ErrPushback, codes.ResourceExhausted},
		{consensus.ErrDiskFull, codes.ResourceExhausted},
		{fmt.Errorf("%w: %w", edge.ErrUnavailable, consensus.ErrDiskFull), codes.ResourceExhausted},
		{fmt.Errorf("%w: %w", consensus.ErrAmbiguous, consensus.ErrDiskFull), codes.Unavailable},
		{consensus.ErrAmbiguous, codes.Unavailable},
		{consensus.ErrClosed, codes.Unavailable},
		{refuse(KindDenied, "no"), codes.PermissionDenied},
		{errNotPublished, codes.Unavailable},
		{errors.New(secret), codes.Internal},
	} {
		err := c.err
		var e *Error
		if !errors.As(err, &e) {
			err = fmt.Errorf("%w: %s", err, secret)
		}
		got := status.Convert(toStatus(t.Context(), slog.New(slog.DiscardHandler), "m", err))
		if got.Code() != c.code {
			t.Errorf("%v: got %v, want %v", c.err, got.Code(), c.code)
		}
		if strings.Contains(got.Message(), secret) {
			t.Errorf("%v: got %q, which gives the cause away", c.err, got.Message())
		}
		retry, info := false, false
		for _, d := range got.Details() {
			switch d.(type) {
			case *errdetails.RetryInfo:
				retry = true
			case *errdetails.ErrorInfo:
				info = true
			}
		}
		if !info || retry != (c.code == codes.Unavailable || c.code == codes.ResourceExhausted) {
			t.Errorf("%v: got info %t, retry %t", c.err, info, retry)
		}
	}
	var retry *errdetails.RetryInfo
	for _, d := range status.Convert(toStatus(t.Context(), slog.New(slog.DiscardHandler), "m", &edge.RefusalsError{After: 3 * time.Second})).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			retry = r
		}
	}
	if got := retry.GetRetryDelay().AsDuration(); got != 3*time.Second {
		t.Errorf("refusals: got a delay of %v, want that of the error", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := status.Code(toStatus(ctx, slog.New(slog.DiscardHandler), "m", errors.New("x"))); got != codes.Canceled {
		t.Errorf("canceled call: got %v", got)
	}
}

func TestConfig(t *testing.T) {
	good := "listen: {peer: 127.0.0.1:1, grpc: 127.0.0.1:2}\ndata_dir: /x\nraft: {heartbeat: 2s}\n"
	c, err := ParseConfig([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	c.EnsureDefaults()
	if err := c.Validate(); err != nil {
		t.Fatalf("good configuration: %v", err)
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseConfig(text)
	if err != nil || again.Raft != c.Raft || again.Listen != c.Listen {
		t.Errorf("round trip: got %+v, %v, want %+v", again, err, c)
	}
	for name, text := range map[string]string{
		"unknown key":        good + "colour: blue\n",
		"unknown nested key": "listen: {peer: a:1, grpc: a:2, gprc: a:3}\n",
		"twice":              good + "data_dir: /y\n",
		"two documents":      good + "---\n" + good,
		"wrong type":         "listen: 7\n",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	bad := Config{
		Listen: ListenConfig{Peer: "x", Read: "0.0.0.0:1", Admin: "tcp:1"}, PlainRead: true,
		Log: LogConfig{Level: "loud", Format: "xml"}, Raft: RaftConfig{Heartbeat: 1, Election: 1, LeaderLease: 1},
		Peers: []PeerConfig{{}},
	}
	bad.EnsureDefaults()
	err = bad.Validate()
	if err == nil {
		t.Fatal("bad configuration accepted")
	}
	for _, want := range []string{"data_dir", "listen.peer", "listen.grpc", "listen.admin", "plain_read", "log.level", "log.format", "raft timers", "peers[0]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s too", err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("listen: {peer: 127.0.0.1:1, grpc: 127.0.0.1:2}\n"))
	f.Add([]byte("peers: [{id: aaaaaaaaaaaaaaaaaaaaaaaaaa}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			return
		}
		c.EnsureDefaults()
		_ = c.Validate()
	})
}
