package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/meter/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
	"github.com/creto-systems/creto/test/cluster"
)

// rawCodec sends requests that are encoded already.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return proto.Marshal(v.(proto.Message))
}

func (rawCodec) Unmarshal(data []byte, v any) error { return proto.Unmarshal(data, v.(proto.Message)) }

// request is one encoded SubmitRequest with n events.
type request struct {
	raw    []byte
	events int
	bytes  int // of payloads and signatures
}

// dial connects to one node as the tenant.
func (b *bench) dial(i int) (*grpc.ClientConn, error) {
	// The figures are about the server; whether the client checks its certificate costs nothing once connected, so this one
	// pins nothing.
	creds := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
	return grpc.NewClient("passthrough:///"+b.c.Nodes[i].GRPC, grpc.WithTransportCredentials(creds),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
}

func (b *bench) authorized(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+b.t.Token)
}

// agents makes agents that act under chains of their own, each charged to its account.
func (b *bench) agents(ctx context.Context, n int) ([]*creto.Agent, error) {
	var out []*creto.Agent
	for range n {
		account, err := b.t.Account(ctx, "tok", 1<<50)
		if err != nil {
			return nil, err
		}
		p, err := b.t.Worker(ctx, nil)
		if err != nil {
			return nil, err
		}
		a, err := b.t.Act(p, account)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// sign signs events and encodes requests: lone envelopes, `per` to a request, or, if batch is over 0, one envelope of so many
// events.
func (b *bench) sign(ctx context.Context, agents []*creto.Agent, events, batch, per int) ([]request, error) {
	size := per
	if batch > 0 {
		size = batch
	}
	requests := make([]request, (events+size-1)/size)
	fmt.Fprintf(b.out, "  signing %d events\n", len(requests)*size)
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range b.report.Machine.Cores {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return nil
				}
				var err error
				if requests[i], err = b.request(agents[i%len(agents)], batch, per); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return requests, g.Wait()
}

var body = cluster.Usage("tok", 17)

func (b *bench) request(a *creto.Agent, batch, per int) (request, error) {
	r := &cretov1.SubmitRequest{Tenant: b.t.ID[:]}
	n := 0
	add := func(s *creto.Signed) {
		r.Envelopes = append(r.Envelopes, s.Message())
		n += len(s.Envelope.Signature)
		for _, p := range s.Envelope.Payloads {
			n += len(p)
		}
	}
	if batch > 0 {
		x := a.NewBatch()
		for range batch {
			if err := x.Add(kind.Usage, body); err != nil {
				return request{}, err
			}
		}
		s, err := x.Sign()
		if err != nil {
			return request{}, err
		}
		add(s)
	} else {
		for range per {
			s, err := a.Sign(kind.Usage, body)
			if err != nil {
				return request{}, err
			}
			add(s)
		}
	}
	raw, err := proto.Marshal(r)
	if batch > 0 {
		per = batch
	}
	return request{raw: raw, events: per, bytes: n}, err
}

// loaded is what a load has shown.
type loaded struct {
	events  int
	took    time.Duration
	calls   latencies
	retries int64
	bytes   int
}

// drive sends all requests to a node, `flight` at a time and as fast as they are answered (or at `rate` events a second if it
// is not 0), and stops when none is left or the time is over. An answer counts when all its events were accepted.
func (b *bench) drive(ctx context.Context, leader int, requests []request, flight int, rate float64, limit time.Duration) (loaded, error) {
	conns := make([]*grpc.ClientConn, 4)
	for i := range conns {
		var err error
		if conns[i], err = b.dial(leader); err != nil {
			return loaded{}, err
		}
		defer conns[i].Close()
	}
	ctx = b.authorized(ctx)
	var next, events, bytes, retries atomic.Int64
	var mu sync.Mutex
	var all latencies
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for w := range flight {
		g.Go(func() error {
			var own latencies
			defer func() {
				mu.Lock()
				all = append(all, own...)
				mu.Unlock()
			}()
			for time.Since(start) < limit {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return nil
				}
				r := &requests[i]
				began := time.Now()
				if rate > 0 {
					// The schedule does not wait for slow answers: what a request waits for its turn is part of its latency.
					began = start.Add(time.Duration(float64(i*r.events) / rate * float64(time.Second)))
					if d := time.Until(began); d > 0 {
						time.Sleep(d)
					}
				}
				for {
					var resp cretov1.SubmitResponse
					err := conns[w%len(conns)].Invoke(ctx, cretov1.EventService_Submit_FullMethodName, r.raw, &resp, grpc.ForceCodec(rawCodec{}))
					if c := status.Code(err); c == codes.ResourceExhausted || c == codes.Unavailable {
						retries.Add(1)
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-time.After(5 * time.Millisecond):
						}
						continue
					}
					if err != nil {
						return err
					}
					for _, x := range resp.GetResults() {
						if x.GetOutcomeCode() != 0 || x.GetState() != cretov1.Result_STATE_SEQUENCED && x.GetState() != cretov1.Result_STATE_DUPLICATE {
							return fmt.Errorf("an event is %s, %s: %s", x.GetState(), x.GetOutcome(), x.GetReason())
						}
					}
					break
				}
				own = append(own, time.Since(began))
				events.Add(int64(r.events))
				bytes.Add(int64(r.bytes))
			}
			return nil
		})
	}
	err := g.Wait()
	return loaded{events: int(events.Load()), took: time.Since(start), calls: all, retries: retries.Load(), bytes: int(bytes.Load())}, err
}

// lag watches, until stop is called, how long leaves take from sequenced to published, on one node.
func (b *bench) lag(ctx context.Context, i int) (stop func() latencies, err error) {
	conn, err := b.dial(i)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(b.authorized(ctx))
	var out latencies
	done := make(chan struct{})
	// Ends when stop is called, which waits for it.
	go func() {
		defer close(done)
		type seen struct {
			size uint64
			at   time.Time
		}
		var waiting []seen
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			h, err := cretov1.NewLedgerServiceClient(conn).GetHeads(ctx, &cretov1.GetHeadsRequest{Tenant: b.t.ID[:]})
			if err != nil {
				continue
			}
			now := time.Now()
			if n := len(waiting); n == 0 || waiting[n-1].size < h.GetTreeSize() {
				waiting = append(waiting, seen{h.GetTreeSize(), now})
			}
			for len(waiting) > 0 && waiting[0].size <= h.GetPublishedTreeSize() {
				out = append(out, now.Sub(waiting[0].at))
				waiting = waiting[1:]
			}
		}
	}()
	return func() latencies {
		cancel()
		<-done
		_ = conn.Close()
		return out
	}, nil
}

// written returns the bytes that each node's process has caused to be written to the disk so far.
func (b *bench) written() ([]uint64, error) {
	var out []uint64
	for i := range b.c.Nodes {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(b.c.PID(i)) + "/io")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(raw)) {
			if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
				n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
				if err != nil {
					return nil, err
				}
				out = append(out, n)
			}
		}
	}
	if len(out) != len(b.c.Nodes) {
		return nil, errors.New("no write_bytes in /proc")
	}
	return out, nil
}

// cpu returns the processor time that each node has used so far, and, last, this process.
func (b *bench) cpu() ([]time.Duration, error) {
	var out []time.Duration
	pids := []int{}
	for i := range b.c.Nodes {
		pids = append(pids, b.c.PID(i))
	}
	for _, pid := range append(pids, os.Getpid()) {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return nil, err
		}
		// The second field is a name in parentheses; user and system time are fields 14 and 15, in hundredths of a second.
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		var sum time.Duration
		for _, f := range fields[11:13] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return nil, err
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
		out = append(out, sum)
	}
	return out, nil
}

// busy returns the share of this machine's processors that is used by anybody, between two readings.
func busy() (used, total float64) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	for i, f := range strings.Fields(line)[1:] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, 0
		}
		total += n
		if i != 3 && i != 4 { // idle, waiting for a disk
			used += n
		}
	}
	return used, total
}
