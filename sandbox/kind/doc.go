// Package kind holds what the sandbox's events say: the names of their kinds, the bodies that clients and nodes sign, the
// details that answer them, and the in-toto statement in which a node attests a run.
//
// The calls most programs need are Encode of a …Body, DecodeClaimed for the answer to a claim, and VerifyReport, which
// checks offline what a node attested. A node calls SignStatement.
//
// Invariants:
//   - Encode refuses what the matching decoder refuses, and the ledger with it as outcome invalid.
//   - A statement has one encoding (RFC 8785), and OpenStatement accepts no other; what was signed is kept as bytes.
//   - Every field that a report's body and its statement both have is equal in both, or the report is refused.
//
// The package is pure and links no store, so that clients and nodes can use it. It decides nothing: a statement proves what
// the holder of the node's key claims about a run, not that the claim is true.
package kind
