// Package nhi says who a non-human identity is, what it signed and in whose
// name: random ids, composite post-quantum keys, events, signed envelopes and
// batches.
//
// The two calls most code needs are [SignEvent] (or [SignBatch]), which turns
// the payload of an [Event] into an [Envelope], and [Envelope.VerifyEvents],
// which checks the one signature and returns the events with their digests.
// Keys come from a [KeyCache], because unpacking one costs more than verifying
// with it.
//
// Invariants:
//
//   - Bytes that were signed are kept and compared as bytes. Nothing here
//     serialises an event again in order to verify it.
//   - A signature counts only if both of its halves do, and no error says which
//     half failed.
//   - The suite is the one of the key that was registered, never one that a
//     message names; a signature is never an identifier.
//   - Every decoder is strict: one value, one encoding, bounded in size, depth
//     and count. No input makes this package panic.
//   - Verification and decoding are deterministic: no clock, no randomness.
//
// It does not decide whether a key may sign: registration, rotation, revocation
// and delegation are in nhi/registry, policies in nhi/authz.
package nhi
