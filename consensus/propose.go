package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// enqueueTimeout is how long a proposal may wait for room in Raft's own queue.
const enqueueTimeout = time.Second

// Future is a proposal under way.
type Future struct {
	done   chan struct{}
	node   *Node
	result any
	index  uint64
	err    error
}

// Wait returns the state machine's result and the command's log index once this node has applied it. An end of ctx gives
// an error that matches [ErrAmbiguous] and the ctx's error; the proposal goes on. Wait may be called again.
func (f *Future) Wait(ctx context.Context) (result any, index uint64, err error) {
	select {
	case <-f.done:
		return f.result, f.index, f.err
	default:
	}
	select {
	case <-f.done:
		return f.result, f.index, f.err
	case <-f.node.dead:
		return nil, 0, fmt.Errorf("propose: %w: %w", ErrAmbiguous, f.node.failure())
	case <-f.node.closed:
		return nil, 0, fmt.Errorf("propose: %w: %w", ErrAmbiguous, ErrClosed)
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("propose: %w: %w", ErrAmbiguous, context.Cause(ctx))
	}
}

// Done is closed when Wait would not block any more.
func (f *Future) Done() <-chan struct{} { return f.done }

// Propose commits data and returns the state machine's result for it and its log index. Errors to match:
// [ErrNotLeader] (with the leader, in a [NotLeaderError]), [ErrPushback], [ErrDiskFull], [ErrTooLarge], [ErrEmpty] and [ErrClosed] mean
// that nothing was proposed; [ErrAmbiguous] means that nobody knows.
func (n *Node) Propose(ctx context.Context, data []byte) (result any, index uint64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("propose: %w", err)
	}
	return n.ProposeAsync(data).Wait(ctx)
}

// ProposeAsync starts a proposal. Proposals of one goroutine are committed, if they are, in the order of its calls,
// as long as the leadership does not change. It blocks only while Raft's queue is full, for at most a second. data
// must not be modified afterwards.
func (n *Node) ProposeAsync(data []byte) *Future {
	f := &Future{done: make(chan struct{}), node: n}
	refuse := func(err error) *Future {
		f.err = fmt.Errorf("propose: %w", err)
		close(f.done)
		return f
	}
	switch {
	case len(data) == 0:
		return refuse(ErrEmpty)
	case len(data) > MaxCommandSize:
		return refuse(fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxCommandSize))
	}
	if err := n.unusable(); err != nil {
		return refuse(err)
	}
	// Raft would queue it and refuse it later; this is cheaper and keeps a follower's queue empty.
	if n.raft.State() != raft.Leader {
		return refuse(&NotLeaderError{Leader: n.leader()})
	}
	if err := n.disk.check(); err != nil {
		n.metrics.pushback.Inc()
		return refuse(err)
	}
	size := int64(len(data))
	select {
	case n.slots <- struct{}{}:
	default:
		n.metrics.pushback.Inc()
		return refuse(ErrPushback)
	}
	if n.bytes.Add(size) > maxInFlightBytes {
		n.bytes.Add(-size)
		<-n.slots
		n.metrics.pushback.Inc()
		return refuse(ErrPushback)
	}
	// Readers that have registered by now are answered by this entry: it is proposed after their arrival.
	riders := n.reads.take()
	start := time.Now()
	entry := raft.Log{Data: data}
	if n.checkpoints.due(len(data), n.cfg.checkpointEvery) {
		entry.Extensions = checkpointMark
	}
	future := n.raft.ApplyLog(entry, enqueueTimeout)
	// The goroutine ends when Raft resolves the proposal, at the latest when it shuts down.
	go func() {
		err := future.Error()
		if err == nil && future.Response() == (notApplied{}) {
			err = ErrClosed
		}
		if err == nil {
			f.result, f.index = future.Response(), future.Index()
			n.metrics.propose.Observe(time.Since(start).Seconds())
		} else {
			f.err = fmt.Errorf("propose: %w", n.translate(err))
		}
		n.bytes.Add(-size)
		<-n.slots
		riders.finish(f.index, f.err)
		close(f.done)
	}()
	return f
}

// translate maps the library's errors to ours. Unknown ones are ambiguous.
func (n *Node) translate(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return &NotLeaderError{Leader: n.leader()}
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrPushback
	default:
		return fmt.Errorf("%w: %w", ErrAmbiguous, err)
	}
}

// await waits for a future of the library, which may never be resolved when the library shuts down or is blocked: the
// goroutine then stays behind until the process ends.
func (n *Node) await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		if err != nil {
			return n.translate(err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrAmbiguous, context.Cause(ctx))
	case <-n.dead:
		return fmt.Errorf("%w: %w", ErrAmbiguous, n.failure())
	case <-n.closed:
		return fmt.Errorf("%w: %w", ErrAmbiguous, ErrClosed)
	}
}

// drain waits until no proposal is in flight, new ones being refused already. A leader that cannot commit steps down
// within its lease, so this is short.
func (n *Node) drain() {
	timer := time.NewTimer(2 * n.cfg.Election)
	defer timer.Stop()
	for range maxInFlight {
		select {
		case n.slots <- struct{}{}:
		case <-timer.C:
			return
		case <-n.dead:
			return
		}
	}
}
