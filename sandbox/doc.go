// Package sandbox decides on the ledger which node runs what for whom: the registry of sandbox nodes, claims and their
// allocation, and the nodes' reports with what the runs used.
//
// The two calls you need are New, whose Kinds go into the ledger's table of kinds, and NewServer, the gRPC service over it.
// Get, List and Running read.
//
// Invariants:
//   - Allocation is a function of state: every node of the cluster comes to the same one.
//   - A node never has more claims than the capacity it signed, and a claim never gets a weaker isolation class than it asks
//     for, nor another root file system than the one its node signed at that moment.
//   - A waiting claim gets a node only while its agent's key and chain still hold, and in the order of its index among those
//     that the node can take.
//   - A claim is reported at most once and its usage counted at most once, whatever a node sends again; usage counts only with
//     the report that it belongs to, and only within the claim's limits.
//   - From its claim on, a run holds room for all that it may use. The room is given back when its usage is counted, or when
//     the ledger knows that it used nothing.
//   - A report of a run that happened is recorded, however late: expiry frees the node's capacity, it does not forget.
//
// It runs nothing: nodes do (package sandbox/node). It charges nothing itself: a Charger, wired by whoever assembles the
// server, reserves and counts in the same step.
package sandbox
