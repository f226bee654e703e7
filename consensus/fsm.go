package consensus

import (
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
)

// tickExtension marks a read tick. It stands in Raft's field for middleware, so that a command can never look like a
// tick, whatever its bytes. A tick has no data.
var tickExtension = []byte{'t', 1}

func isTick(l *raft.Log) bool {
	return len(l.Extensions) == len(tickExtension) && string(l.Extensions) == string(tickExtension)
}

// adapter is the Raft library's view of the state machine. Its methods are called from one goroutine of the library.
type adapter struct {
	n *Node
	// last is the index of the last entry seen; entries up to it were applied by the state machine before.
	last    uint64
	entries []Entry
	pos     []int
}

var _ raft.BatchingFSM = (*adapter)(nil)

func (a *adapter) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch hands the commands among logs to the state machine. Configurations are remembered before any later
// command is applied, so that whatever index the state machine reports after a crash, the configuration in force there is
// known.
func (a *adapter) ApplyBatch(logs []*raft.Log) []any {
	n := a.n
	results := make([]any, len(logs))
	a.entries, a.pos = a.entries[:0], a.pos[:0]
	if n.store.isDead() {
		return a.unapplied(results)
	}
	var lastIndex, lastTerm uint64
	for i, l := range logs {
		if l.Index <= lastIndex {
			return a.stop(results, fmt.Errorf("%w: entry %d follows entry %d", ErrCorrupt, l.Index, lastIndex))
		}
		lastIndex = l.Index
		switch {
		case l.Type == raft.LogConfiguration:
			n.remember(l.Index, l.Data)
		case l.Type != raft.LogCommand:
		case isTick(l):
			lastTerm = l.Term
		default:
			lastTerm = l.Term
			if l.Index > a.last {
				a.entries = append(a.entries, Entry{Index: l.Index, Term: l.Term, Data: l.Data})
				a.pos = append(a.pos, i)
			}
		}
	}
	if len(a.entries) > 0 {
		start := time.Now()
		out, err := a.call(a.entries)
		if err == nil && len(out) != len(a.entries) {
			err = fmt.Errorf("state machine gave %d results for %d entries", len(out), len(a.entries))
		}
		if err != nil {
			return a.stop(results, err)
		}
		for i, r := range out {
			results[a.pos[i]] = r
		}
		n.metrics.batch.Observe(float64(len(a.entries)))
		n.metrics.apply.Observe(time.Since(start).Seconds())
		n.metrics.applied.Add(float64(len(a.entries)))
		clear(a.entries)
	}
	if lastIndex > a.last {
		a.last = lastIndex
		n.advance(lastIndex, lastTerm)
	}
	return results
}

func (a *adapter) call(entries []Entry) (out []any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("state machine panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return a.n.cfg.StateMachine.Apply(entries)
}

// notApplied is the result of an entry that this node did not apply because it had stopped.
type notApplied struct{}

// stop ends the node. It returns when the node is closed.
func (a *adapter) stop(results []any, err error) []any {
	a.n.fatal(ExitStateMachine, fmt.Errorf("apply: %w", err))
	return a.unapplied(results)
}

// unapplied waits until the node is closed: the library must not learn before it is shut down that these entries were
// not applied. Returning then lets it resolve its futures.
func (a *adapter) unapplied(results []any) []any {
	<-a.n.closed
	for i := range results {
		results[i] = notApplied{}
	}
	return results
}

// Snapshot and Restore are never called: see startSnapshot.
func (a *adapter) Snapshot() (raft.FSMSnapshot, error) { return nil, errNoSnapshots }

func (a *adapter) Restore(r io.ReadCloser) error { return errNoSnapshots }
