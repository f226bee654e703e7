package ledger

import (
	"errors"
	"fmt"
)

// FatalError stops the node: what was committed cannot be applied here, or the state on this machine cannot be trusted any
// more. Nothing of the Apply call it comes from is in the store, and every later call fails with the same error.
type FatalError struct {
	Op    string // what was being done
	Index uint64 // Raft index of the command, 0 if it is about none
	Err   error
	Stack []byte // of a handler that panicked
}

// Error names the command and the cause.
func (e *FatalError) Error() string {
	if e.Index == 0 {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: command at raft index %d: %v", e.Op, e.Index, e.Err)
}

// Unwrap returns the cause.
func (e *FatalError) Unwrap() error { return e.Err }

// Hint says what an operator can do.
func (e *FatalError) Hint() string {
	return "this node has stopped so that it cannot diverge; compare its binary's version with the other nodes', check its disk, then restart it: the command is tried again from the log"
}

// Causes inside a FatalError, and answers of reads.
var (
	// ErrIsolation: a handler returned a write, timer or leaf outside what it declared.
	ErrIsolation = errors.New("handler exceeds what it declared")
	// ErrCorrupt: a row of the store is not what was written.
	ErrCorrupt = errors.New("stored row is damaged")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log is closed")
	// ErrNotFound: a read names something that does not exist at its index.
	ErrNotFound = errors.New("not found")
	// ErrRange: an index, size or epoch lies outside what exists.
	ErrRange = errors.New("out of range")
	// ErrNoLedger: the genesis command has not been applied yet.
	ErrNoLedger = errors.New("ledger has no genesis yet")
)

func corrupt(what string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(what, args...))
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
