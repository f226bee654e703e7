package consensus

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// reads collects the callers of ReadIndex for the next entry that will be proposed, a command or a tick.
type reads struct {
	// mu guards next and count.
	mu   sync.Mutex
	next *round
	// count is how many callers wait, in next or in rounds under way.
	count int
	wake  chan struct{}
	// forced asks for a tick that no reader waits for.
	forced atomic.Bool
}

// force makes runTicks propose a tick.
func (r *reads) force() {
	r.forced.Store(true)
	poke(r.wake)
}

// poke fills a channel of capacity one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// round is the set of readers that one log entry answers. A nil round has none.
type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// join registers a reader with the next round.
func (r *reads) join() (*round, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count >= maxWaiters {
		return nil, ErrPushback
	}
	r.count++
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	poke(r.wake)
	return r.next, nil
}

func (r *reads) leave() {
	r.mu.Lock()
	r.count--
	r.mu.Unlock()
}

// take closes the round to new readers and returns it: the caller proposes next.
func (r *reads) take() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.next
	r.next = nil
	return next
}

func (r *round) finish(index uint64, err error) {
	if r == nil {
		return
	}
	r.index, r.err = index, err
	close(r.done)
}

// ReadIndex returns an index such that a state machine which has applied it reflects every command that was
// acknowledged, by any node, before ReadIndex was called. When it returns, this node, the leader, has applied it; a
// follower asks the leader for an index and calls [Node.WaitApplied].
//
// The index is that of an entry proposed after the call arrived and committed since. All calls that wait share it.
// Errors: [ErrNotLeader], [ErrPushback], [ErrClosed], or that of ctx. A lost leadership is ErrNotLeader: the read may
// simply be repeated elsewhere.
func (n *Node) ReadIndex(ctx context.Context) (index uint64, err error) {
	if err := n.unusable(); err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	if n.raft.State() != raft.Leader {
		return 0, fmt.Errorf("read index: %w", &NotLeaderError{Leader: n.leader()})
	}
	r, err := n.reads.join()
	if err != nil {
		n.metrics.pushback.Inc()
		return 0, fmt.Errorf("read index: %w", err)
	}
	defer n.reads.leave()
	select {
	case <-r.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("read index: %w", context.Cause(ctx))
	case <-n.dead:
		return 0, fmt.Errorf("read index: %w", n.unusable())
	case <-n.closed:
		return 0, fmt.Errorf("read index: %w", ErrClosed)
	}
	if r.err != nil {
		return 0, fmt.Errorf("read index: %w", n.readError(r.err))
	}
	return r.index, nil
}

// readError says to a reader why its entry was not committed. Reads change nothing, so what is ambiguous for a proposal is
// a plain refusal here.
func (n *Node) readError(err error) error {
	if errors.Is(err, ErrAmbiguous) {
		return &NotLeaderError{Leader: n.leader()}
	}
	return err
}

// runTicks proposes one tick after another while readers wait. Readers that arrive while a tick is under way wait for
// the next one: at most one tick is in flight.
func (n *Node) runTicks(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.dead:
			return
		case <-n.reads.wake:
		}
		r := n.reads.take()
		if r == nil && !n.reads.forced.Swap(false) {
			continue
		}
		index, err := n.tick(ctx)
		r.finish(index, err)
	}
}

// tick proposes an entry that the state machine does not see and waits until it is applied.
func (n *Node) tick(ctx context.Context) (uint64, error) {
	if err := n.unusable(); err != nil {
		return 0, err
	}
	future := n.raft.ApplyLog(raft.Log{Extensions: tickExtension}, enqueueTimeout)
	if err := n.await(ctx, future); err != nil {
		return 0, err
	}
	n.metrics.ticks.Inc()
	return future.Index(), nil
}

// WaitApplied returns once this node has applied index, which came from [Node.ReadIndex] or [Node.Propose] of any node.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	if n.applied.Load() >= index {
		return nil
	}
	w := &waiter{index: index, done: make(chan struct{})}
	if err := n.waiters.add(w); err != nil {
		n.metrics.pushback.Inc()
		return fmt.Errorf("wait for index %d: %w", index, err)
	}
	defer n.waiters.remove(w)
	// The index may have been applied between the look and the registration.
	if n.applied.Load() >= index {
		return nil
	}
	select {
	case <-w.done:
		if n.applied.Load() < index {
			return fmt.Errorf("wait for index %d: %w", index, ErrClosed)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for index %d: %w", index, context.Cause(ctx))
	case <-n.dead:
		return fmt.Errorf("wait for index %d: %w", index, n.unusable())
	case <-n.closed:
		return fmt.Errorf("wait for index %d: %w", index, ErrClosed)
	}
}

// waiters are the callers of WaitApplied, the lowest index first.
type waiters struct {
	// mu guards list and the positions in its elements.
	mu   sync.Mutex
	list waiterHeap
}

type waiter struct {
	index uint64
	pos   int
	done  chan struct{}
}

func (w *waiters) add(x *waiter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) >= maxWaiters {
		return ErrPushback
	}
	heap.Push(&w.list, x)
	return nil
}

func (w *waiters) remove(x *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x.pos >= 0 {
		heap.Remove(&w.list, x.pos)
	}
}

// release wakes everyone who waits for an index up to applied.
func (w *waiters) release(applied uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.list) > 0 && w.list[0].index <= applied {
		close(heap.Pop(&w.list).(*waiter).done)
	}
}

func (w *waiters) releaseAll() { w.release(^uint64(0)) }

type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].index < h[j].index }
func (h waiterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}
func (h *waiterHeap) Push(x any) {
	w := x.(*waiter)
	w.pos = len(*h)
	*h = append(*h, w)
}
func (h *waiterHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.pos = -1
	return w
}
