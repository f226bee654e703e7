package consensus

import (
	"errors"
	"fmt"
)

// Exit codes that [Config.Fatal] receives. They are process exit codes: a supervisor may restart after
// ExitStorage and ExitStateMachine, and must not after ExitRemoved.
const (
	// ExitStorage: the log or its metadata failed or did not answer within [Config.StorageTimeout].
	ExitStorage = 70
	// ExitStateMachine: the state machine returned an error or panicked.
	ExitStateMachine = 71
	// ExitRemoved: the node is no longer a member of the cluster.
	ExitRemoved = 72
)

var (
	// ErrNotLeader matches every [NotLeaderError].
	ErrNotLeader = errors.New("not the leader")
	// ErrPushback means that a bound was reached and nothing was proposed. Retry after a pause.
	ErrPushback = errors.New("too many requests in flight")
	// ErrDiskFull means that the leader's disk has less room than [Config.MinFreePercent] demands and nothing was proposed, or, as
	// the reason of a fatal error, that it has none at all. Retry after somebody has made room; nothing else is needed.
	ErrDiskFull = errors.New("disk is full")
	// ErrAmbiguous means that the fate of a proposal is unknown: it may be committed now, later, or never.
	// Retrying is correct only because commands are idempotent.
	ErrAmbiguous = errors.New("outcome unknown")
	// ErrTooLarge means that a command is longer than [MaxCommandSize]. Nothing was proposed.
	ErrTooLarge = errors.New("command too large")
	// ErrEmpty means that a command has no bytes. Nothing was proposed.
	ErrEmpty = errors.New("command is empty")
	// ErrClosed means that the node was closed or has stopped. Nothing was proposed.
	ErrClosed = errors.New("node is closed")
	// ErrHasState means that a node which holds state was asked to bootstrap or to join.
	ErrHasState = errors.New("node already has state")
	// ErrNoState means that a node without state was asked to go on. Its disk may have been lost: a voter that has forgotten
	// its votes and entries must not come back under its old id.
	ErrNoState = errors.New("node has no state: bootstrap it, or remove its id from the cluster and let it join")
	// ErrStateAhead means that the state machine has applied more than the log holds: the log lost its end. The
	// node must be removed and replaced; it must not start.
	ErrStateAhead = errors.New("state machine is ahead of the log")
	// ErrCorrupt means that the log on disk contradicts itself.
	ErrCorrupt = errors.New("log is corrupt")
	// ErrQuarantined means that the log was found to be corrupt earlier. The node must be removed from the cluster, its data
	// directory kept as evidence or wiped, and a new node must join.
	ErrQuarantined = errors.New("log is quarantined")
	// ErrUnknownServer means that a membership change names a server outside the configuration.
	ErrUnknownServer = errors.New("server is not in the configuration")
	// ErrMember means that a server which is already a voter was to be added as non-voter.
	ErrMember = errors.New("server is already a voter")
)

// NotLeaderError refuses a proposal or a read index: nothing was proposed. It matches [ErrNotLeader].
type NotLeaderError struct {
	// Leader is the leader as far as this node knows; its ID is empty when there is none.
	Leader Server
}

// Error names the known leader.
func (e *NotLeaderError) Error() string {
	if e.Leader.ID == "" {
		return "not the leader: no leader is known"
	}
	return fmt.Sprintf("not the leader: leader is %q at %q", e.Leader.ID, e.Leader.Addr)
}

// Is reports whether target is [ErrNotLeader].
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// PeerError refuses a connection or a frame of a peer. It never reaches Raft.
type PeerError struct {
	// ID is the identity the peer proved, empty before its handshake is complete.
	ID string
	// Reason is a short lower-case phrase.
	Reason string
}

// Error names the peer and the reason.
func (e *PeerError) Error() string { return fmt.Sprintf("refuse peer %q: %s", e.ID, e.Reason) }
