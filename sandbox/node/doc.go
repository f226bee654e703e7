// Package node is the agent on a sandbox node: it takes the claims that the ledger allocates to it, runs each in a sandbox,
// and reports what came of it in signed events.
//
// The two calls you need are New and Agent.Run. It speaks to a server over a connection that the caller has made with the
// node's SVID, and drives backends (package sandbox/backend) that the caller chooses.
//
// Invariants:
//   - A claim is begun at most once: that it is begun is on disk before the command starts, and a node that finds a begun
//     claim without a report after a restart reports that it failed, and does not run it again.
//   - A report is signed once and on disk before it is sent; it is sent again, byte for byte, until a server has said that it
//     is committed, or that it never will be.
//   - The spool is bounded: without room for one more report no further claim is begun.
//   - Two agents never use one spool.
//
// It decides nothing about who may run what: the ledger has.
package node
