// Package meter counts what agents use and holds it within quotas before it is spent: usage, the account tree, quotas,
// and leases, as handlers of the ledger and as queries over its state.
//
// The two calls most programs need are [New], whose [Meter.Kinds] the server gives to the ledger, and
// [Meter.RegisterService], which answers GetQuota, QueryUsage, ListAccounts and GetLease over gRPC. Clients build bodies
// with the …Body types; other domains take leases inside their own decisions with [Meter.ReserveAll].
//
// Invariants, true at every index (Q1 to Q6 of the design):
//
//   - Q1: charged + open ≤ limit for every counter of a blocking quota. After a limit is lowered, or a quota turns
//     blocking, it may lie above, and can then only fall.
//   - Q2: what a lease has settled is at most its grant. Anything beyond is counted and never dropped; it takes at most as
//     much room again, and never more than every level has.
//   - Q3: each sequence number of a lease settles once.
//   - Q4: a lease belongs to the period instances of its grant.
//   - Q5: no grant and no direct spend is accepted where a counter has no room for it.
//   - Q6: all of it is a function of state, signed bytes and stamp.
//   - Units return to a counter only by a signed statement: of what was spent, by close or write-off, or that excess does
//     not stand, by a correction. No timer, period end or expiry returns any.
//   - No fact is refused for its amount, or for what others have claimed.
//   - The sums that queries give are the sums of the quantities of the tenant's accepted leaves.
//
// It does not decide who may act (the ledger, the chain and policies do that first), price anything, or spend locally: it
// grants the leases that do.
package meter
