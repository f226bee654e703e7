package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
	"github.com/creto-systems/creto/test/invariants"
)

// Load submits events of a tenant without pause, each signed alone, and remembers what it was promised. What it is not told
// about it sends again, the same bytes, until it is told or the load ends.
type Load struct {
	t       *Tenant
	workers []*worker

	mu    sync.Mutex
	acks  []invariants.Ack // guarded by mu
	tried []invariants.Ack // guarded by mu; sent, never answered
	at    []time.Time      // guarded by mu; when each of acks came
	stale []error          // guarded by mu; linearizable reads that did not see what was acknowledged before

	refused atomic.Int64
	reads   atomic.Int64
	stop    context.CancelFunc
	end     chan struct{} // closed when nobody is to begin another event
	g       *errgroup.Group
}

type worker struct {
	party   *Party
	agent   *creto.Agent
	readers []*creto.Client // one for each node
	lease   *creto.Lease
	next    uint64 // sequence number of the lease's next spend
	spent   uint64
	n       int
}

// NewLoad prepares workers, each an agent of its own, charged to an account in turn. nodes, if given, are the only ones that
// the workers talk to.
func (t *Tenant) NewLoad(ctx context.Context, workers int, accounts []nhi.ID, nodes ...int) (*Load, error) {
	l := &Load{t: t}
	var readers []*creto.Client
	for i := range t.c.Nodes {
		r, err := t.Dial(i)
		if err != nil {
			return nil, err
		}
		readers = append(readers, r)
	}
	for i := range workers {
		p, err := t.Worker(ctx, nil)
		if err != nil {
			return nil, fmt.Errorf("worker %d: %w", i, err)
		}
		client, err := t.Dial(nodes...)
		if err != nil {
			return nil, err
		}
		w := &worker{party: p, readers: readers}
		if w.agent, err = t.ActOn(client, p, accounts[i%len(accounts)]); err != nil {
			return nil, err
		}
		l.workers = append(l.workers, w)
	}
	return l, nil
}

// Start lets the workers work until Stop.
func (l *Load) Start(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	l.end = make(chan struct{})
	l.g, ctx = errgroup.WithContext(ctx)
	for _, w := range l.workers {
		l.g.Go(func() error { return l.work(ctx, w) })
	}
}

// Stop lets every worker finish what it has begun, for at most limit, and returns the first error that was about more than
// availability.
func (l *Load) Stop(limit time.Duration) error {
	select {
	case <-l.end:
		return nil // stopped before
	default:
	}
	close(l.end)
	timer := time.AfterFunc(limit, l.stop)
	defer timer.Stop()
	err := l.g.Wait()
	l.stop()
	return err
}

// Promises returns what was promised so far.
func (l *Load) Promises() invariants.Promised {
	l.mu.Lock()
	defer l.mu.Unlock()
	return invariants.Promised{Acks: append([]invariants.Ack{}, l.acks...), Tried: append([]invariants.Ack{}, l.tried...)}
}

// Count returns how many events were acknowledged.
func (l *Load) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// Refused returns how many of them were refused by the ledger, and Reads how many linearizable reads were made.
func (l *Load) Refused() int { return int(l.refused.Load()) }

// Reads returns how many linearizable reads were answered.
func (l *Load) Reads() int { return int(l.reads.Load()) }

// Stale returns the linearizable reads that did not see what had been acknowledged before.
func (l *Load) Stale() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.stale...)
}

// WaitMore waits until n more events are acknowledged than now, and returns how long that took.
func (l *Load) WaitMore(ctx context.Context, n int, limit time.Duration) (time.Duration, error) {
	start, have := time.Now(), l.Count()
	err := Eventually(ctx, limit, fmt.Sprintf("%d more acknowledgements", n), func(context.Context) error {
		if got := l.Count() - have; got < n {
			return fmt.Errorf("%d came", got)
		}
		return nil
	})
	return time.Since(start), err
}

// LongestSilence returns the longest time after since in which nothing was acknowledged.
func (l *Load) LongestSilence(since time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	last := since
	for _, t := range l.at {
		if t.After(last) {
			longest = max(longest, t.Sub(last))
			last = t
		}
	}
	return longest
}

func (l *Load) work(ctx context.Context, w *worker) error {
	for {
		select {
		case <-l.end:
			return nil
		case <-ctx.Done():
			return nil
		default:
		}
		s, err := w.sign()
		if err != nil {
			return err
		}
		r, err := l.send(ctx, w, s)
		if err != nil || r == nil {
			return err
		}
		w.done(r)
		if w.n++; w.n%8 == 0 {
			l.read(ctx, w, r)
		}
	}
}

// sign makes the worker's next event: mostly usage, sometimes a lease that is spent in two steps and closed.
func (w *worker) sign() (*creto.Signed, error) {
	if w.lease == nil && w.n%5 == 4 {
		b, err := kind.ReserveBody{Meter: "tok", Want: 20, TTL: int64(time.Hour)}.Encode()
		if err != nil {
			return nil, err
		}
		return w.agent.Sign(kind.Reserve, b)
	}
	if w.lease != nil {
		if w.next < 2 {
			b, err := kind.SettleBody{Lease: w.lease.ID, Amount: 5, From: w.next, To: w.next + 1}.Encode()
			if err != nil {
				return nil, err
			}
			return w.agent.Sign(kind.Settle, b)
		}
		b, err := kind.CloseBody{Lease: w.lease.ID, Spent: w.spent + 3}.Encode()
		if err != nil {
			return nil, err
		}
		return w.agent.Sign(kind.Close, b)
	}
	return w.agent.Sign(kind.Usage, Usage("tok", uint64(1+w.n%3)))
}

// done moves the worker's lease on.
func (w *worker) done(r *creto.Result) {
	if !r.Outcome.Accepted() {
		w.lease = nil
		return
	}
	switch {
	case w.lease == nil && w.n%5 == 4:
		if g, err := kind.DecodeGrant(r.Detail); err == nil {
			w.lease, w.next, w.spent = &creto.Lease{ID: g.Lease, Granted: g.Granted}, 0, 0
		}
	case w.lease != nil && w.next < 2:
		w.next, w.spent = w.next+1, w.spent+5
	case w.lease != nil:
		w.lease = nil
	}
}

// send sends one envelope until its answer comes. A nil result without error: the load has ended first.
func (l *Load) send(ctx context.Context, w *worker, s *creto.Signed) (*creto.Result, error) {
	ev, err := nhi.DecodeEvent(s.Envelope.Payloads[0])
	if err != nil {
		return nil, err
	}
	ack := invariants.Ack{Tenant: l.t.ID, Signer: ev.Agent, ID: ev.ID}
	for {
		out, err := w.agent.Send(ctx, s)
		if err != nil {
			if ctx.Err() != nil {
				l.mu.Lock()
				l.tried = append(l.tried, ack)
				l.mu.Unlock()
				return nil, nil
			}
			switch status.Code(err) {
			case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Canceled:
				continue
			}
			return nil, fmt.Errorf("submit: %w", err)
		}
		r := out[0]
		switch r.State {
		case creto.StateSequenced, creto.StateDuplicate:
			ack.Index, ack.LeafHash, ack.Outcome = r.Index, r.LeafHash, r.Outcome
			l.mu.Lock()
			l.acks, l.at = append(l.acks, ack), append(l.at, time.Now())
			l.mu.Unlock()
			if !r.Outcome.Accepted() {
				l.refused.Add(1)
			}
			return r, nil
		case creto.StateStale:
			continue
		}
		return nil, fmt.Errorf("submit: an event that nobody else has sent is %s: %s", r.State, r.Reason)
	}
}

// read asks another node, linearizably, for the leaf that was just acknowledged. It may not answer; it may not say that the
// leaf is not there.
func (l *Load) read(ctx context.Context, w *worker, r *creto.Result) {
	i := (w.n / 8) % len(w.readers)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	got, err := cretov1.NewEventServiceClient(w.readers[i]).GetEvent(ctx, &cretov1.GetEventRequest{
		Tenant: l.t.ID[:], Index: r.Index, Consistency: cretov1.Consistency_CONSISTENCY_LINEARIZABLE,
	})
	switch {
	case err == nil:
		l.reads.Add(1)
		if string(got.GetEvent().GetLeafHash()) != string(r.LeafHash[:]) {
			l.fail(fmt.Errorf("I2: node %d reads another leaf %d than was acknowledged", i, r.Index))
		}
	case status.Code(err) == codes.NotFound, status.Code(err) == codes.OutOfRange:
		l.fail(fmt.Errorf("I2: node %d does not see acknowledged leaf %d: %w", i, r.Index, err))
	}
}

func (l *Load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.stale) < 5 {
		l.stale = append(l.stale, err)
	}
}
