// Package registry says who may sign and for whom: identities, their keys and
// the delegation links between them, as pure functions over a tenant's state.
//
// The two calls most code needs are [SignerCache.Resolve], which finds the key
// and the identity behind a key id, and [ChainCache.Resolve], which finds the
// whole delegation chain that a link ends; [Signer.Live] and [Chain.Allows] then
// hold them against the stamp and the request. Changes go through [Deciders]:
// one function for each kind of identity and delegation event, which returns
// rows and never writes them.
//
// Invariants:
//
//   - Rows are versioned by the index of the leaf that made them and never
//     overwritten or deleted, so everything can be resolved as of any index.
//   - An id, a key and a component of a key are registered once and never again,
//     also after their revocation.
//   - A link is registered only if the whole chain above it holds at that index;
//     a chain is narrower at each hop in actions, resources, caps, budgets,
//     window and depth, and wider in oversight and guards.
//   - A revocation holds from its own index on and reaches every chain that
//     passes through the revoked link, key or identity, because chains are
//     resolved by walking them and nothing is copied down.
//   - Everything here is deterministic: no clock, randomness, map order or I/O.
//     A row that does not decode is a broken store and panics; input never does.
//
// It does not verify the signatures of events (nhi does), evaluate guards
// (nhi/authz), count budgets (the meter) or hold names: ids are random, and what
// a person is called stands in an erasable addendum.
package registry
