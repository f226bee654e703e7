// Package verifytest builds small, deterministic ledgers whose proofs verify, for the tests and vectors of whatever reads
// proofs: ledger/verify itself, the CLI, the SDKs and second implementations.
//
// New makes a ledger from a seed, AddTenant, Append and Seal fill it, EventProof and Completeness give its files, and
// Trust the trust file. The same calls in the same order give the same bytes.
//
// It keeps every tree whole in memory and recomputes roots from scratch: it is a reference, not a ledger.
package verifytest
