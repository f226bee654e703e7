// Package node assembles one Creto server from its rooms: stores, ledger, consensus, the edge, the publisher, the services
// and their listeners. The binary and the tests build the same server.
//
// The two calls you need are New, which opens everything and listens, and Server.Run, which serves until its context ends.
// Init makes the directories of a new cluster, JoinCluster that of a node which joins one, and StartDev a whole cluster on
// loopback in one process.
//
// Invariants:
//   - Every listener speaks TLS 1.3 (but a development cluster's read and metrics listeners, on loopback). Every RPC has a
//     line in the table of auth.go that says who may call it; one without is refused, and a test fails.
//   - A caller who may not see a tenant gets the answer of a tenant that does not exist.
//   - What a cause says stays in this process's log; callers get a kind, a reason and a hint (errors.go).
//
// It decides nothing about events and verifies nothing for others.
package node
