// Package edge is one event's way into the ledger: parse, verify, ask policy, queue, propose, answer. All of it happens
// before consensus, in parallel, on the leader; a follower only bounds and passes the signed bytes on, one hop.
//
// The two calls most programs need are New and Submit; Run drains the queues.
//
// Invariants:
//   - Nothing is acknowledged before its command is committed and applied.
//   - What is proposed is the signed bytes, the policy verdicts with the epochs they were made under, sealed addenda and the
//     proposed time; no copy of any field of an event.
//   - A verdict whose epochs changed before its command was applied is made again, MaxDecisions times in all.
//   - Every queue is bounded. A full one answers ErrPushback, and tenants are drained in turn, so that one tenant's burst
//     costs another at most one command's time.
//   - An envelope is proposed whole, in one command, or not at all.
//
// It decides nothing about state: Apply repeats every check of authority at its own index.
package edge
