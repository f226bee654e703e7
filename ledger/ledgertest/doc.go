// Package ledgertest gives tests a whole ledger without Raft: a Log in memory with genesis, a tenant and its authority,
// people and agents with keys from seeds, delegation links, and a way to submit signed events straight to Apply.
//
// New makes one; Fixture.Submit sequences events. Everything is deterministic: the same calls give the same bytes, and time
// moves only when a test moves it. It is for tests only and fails them on any error it does not expect.
package ledgertest
