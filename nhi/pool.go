package nhi

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// ErrPoolStopped is returned for work that a VerifyPool no longer takes.
var ErrPoolStopped = errors.New("verification pool has stopped")

// VerifyPool runs verifications on a fixed number of goroutines. It has no queue
// of its own: a submission waits until a worker takes it, so that pressure stays
// with the callers, who are bounded.
type VerifyPool struct {
	workers int
	tasks   chan func()   // unbuffered: what was sent is running
	stopped chan struct{} // closed when Run begins to end
}

// NewVerifyPool returns a pool of that many workers, by default one per
// processor. Nothing runs until Run does. A pool runs once.
func NewVerifyPool(workers int) *VerifyPool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &VerifyPool{workers: workers, tasks: make(chan func()), stopped: make(chan struct{})}
}

// Run works until ctx ends and returns when every task taken has ended. It
// returns nil.
func (p *VerifyPool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range p.workers {
		wg.Go(func() {
			for {
				select {
				case f := <-p.tasks:
					f()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	<-ctx.Done()
	close(p.stopped)
	wg.Wait()
	return nil
}

// Submit hands f to a worker, waiting for a free one. It returns nil once f is
// running, and otherwise f never runs: the context's error, or ErrPoolStopped.
func (p *VerifyPool) Submit(ctx context.Context, f func()) error {
	select {
	case <-p.stopped:
		return ErrPoolStopped
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	select {
	case p.tasks <- f:
		return nil
	case <-p.stopped:
		return ErrPoolStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Do runs f(0) … f(n-1) on the workers and returns when all that were begun have
// ended. On an error some have not been begun.
func (p *VerifyPool) Do(ctx context.Context, n int, f func(i int)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range n {
		wg.Add(1)
		err := p.Submit(ctx, func() {
			defer wg.Done()
			f(i)
		})
		if err != nil {
			wg.Done()
			return err
		}
	}
	return nil
}

// Verification is one envelope to verify and what came of it.
type Verification struct {
	Envelope *Envelope
	Key      *PublicKey

	Events  []*Event // set by VerifyAll, with Digests or Err
	Digests []Digest
	Err     error
}

// VerifyAll verifies all of vs in parallel and sets their results. Its own error
// means that some were not verified; theirs say ErrPoolStopped or the context's.
func (p *VerifyPool) VerifyAll(ctx context.Context, vs []Verification) error {
	done := make([]bool, len(vs))
	err := p.Do(ctx, len(vs), func(i int) {
		v := &vs[i]
		v.Events, v.Digests, v.Err = v.Envelope.VerifyEvents(v.Key)
		done[i] = true
	})
	if err != nil {
		for i := range vs {
			if !done[i] {
				vs[i].Err = err
			}
		}
	}
	return err
}
