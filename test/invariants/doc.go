// Package invariants checks, from outside, what must always hold of a ledger: each of the project's invariants has a checker
// here that runs after every fault a test injects.
//
// The two calls a test needs are Open, which opens what a stopped node has on disk, and Check, which holds several replicas
// against each other, against their own leaves, and against what clients were promised. CheckRaftLog does the same for the
// Raft log of a stopped node: it applies every command to an empty store and compares the result key by key.
//
//	I1  every acknowledged event is on every replica, with the leaf that was promised           acks.go
//	I3  one root per size: heads of all replicas are prefixes of one another, and so is every
//	    checkpoint that a node has ever shown                                                    heads.go
//	I4  state hashes agree at every epoch; replaying the log gives the same rows                 heads.go, replay.go
//	I5  a request id has one leaf; a second intent under it has evidence                         leaves.go
//	I6  charged + open ≤ limit of every blocking counter after every leaf, and counters are what
//	    the leaves say                                                                           quota.go
//	I7  every accepted claim stands on one grant: unexpired, unclaimed, of that very action, and
//	    voted for by humans outside the requester's chain                                        approvals.go
//	I8  commit times rise strictly over all logs                                                 leaves.go
//	I9  every leaf carries its own slot, and its payload its own tenant and ledger; its signature
//	    verifies under a key of its agent in that tenant                                         leaves.go
//	I12 a membership change is announced by a leaf before the Raft log has it                    replay.go
//
// I2 (reads), I10 (time to resume) and I11 (corruption is never served) need a running cluster and are checked in test/cluster.
//
// The checkers recompute instead of asking: trees by an arithmetic of their own, counters from payloads, signatures from
// stored keys. They share the decoders of the project and the arithmetic of periods, nothing else.
package invariants
