// Package ledger is the log: dense per-tenant Merkle logs of signed events, the spine over all of them, and the one
// transaction in which the state of every domain changes.
//
// Committed commands go in through Log.Apply, which every node calls in the same order and with the same result; reads
// come out of Log.Read, a snapshot at one index. Domains (meter, oversight, sandbox, the identity registry) are Handlers:
// functions from state and a signed event to a Decision. The ledger writes what a Decision names; a handler writes nothing
// itself.
//
// What always holds: a command is applied whole or the node stops; effects, leaves, tree nodes, applied index and state
// hash are one store batch; an accepted or refused request is final under its id; a leaf once written is never changed;
// equal commands give equal state, key by key, and equal state hashes.
//
// The package does not order commands (consensus), decide policies (ledger/edge asks nhi/authz), sign heads
// (ledger/publish) or check proofs (ledger/verify).
package ledger
