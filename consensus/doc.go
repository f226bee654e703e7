// Package consensus is one Raft node: it orders opaque commands, makes each of them durable on a quorum, and
// hands them, in log order and from one goroutine, to one [StateMachine].
//
// The two calls you need are [Open], which touches the disk and joins the network, and [Node.Propose], which
// returns once the command is committed and this node has applied it. [Node.ReadIndex] with
// [Node.WaitApplied] makes a read linearizable on any node.
//
// What holds:
//
//   - A result of Propose without error means: durable on a quorum, applied here. No setting weakens that.
//   - Storage that fails or hangs, or returns something else than was written, stops the node ([ExitStorage]); nothing is
//     acknowledged afterwards and no storage error ever reaches the Raft library, whose handling of them is not safe.
//   - A linearizable read waits for a log entry that was proposed after the read arrived. The leader's lease and
//     the library's VerifyLeader are never used as evidence.
//   - A peer speaks only under the identity of its TLS certificate; frames are checked for shape, size and
//     identity before the Raft library decodes them.
//   - The applied index that the state machine itself stored is the only truth about what it has applied.
//
// What it does not do: it does not truncate its log or transfer state (a new node replays), it does not
// authenticate or interpret commands, it does not retry proposals whose fate is unknown ([ErrAmbiguous]): the state
// machine must make them idempotent.
//
// Raft tolerates crashes, not lies: a node that holds a valid key and misbehaves can harm the order of
// commands. See DESIGN.md.
package consensus
