// Package verify checks what a Creto cluster proves, offline and without trusting its operator: leaves, heads, checkpoints,
// cosignatures, Merkle proofs, receipts, proof files, consistency files and completeness files, all against a trust file.
//
// The two calls most programs need are ParseTrust, which reads a trust file, and VerifyAny, which reads a file of any
// kind the project writes and returns a Report, or a *Failure that names the step which did not hold.
//
// The package is pure: it opens no file and no connection, reads no clock (the caller passes the time), keeps no global
// state, and builds to WebAssembly (ledger/verify/wasm). The server uses the same codecs to write what this package reads,
// so there is one description of every byte; docs/formats.md is that description in words.
//
// Invariants:
//   - What was hashed or signed is kept and compared as bytes. A decoder accepts only the one canonical encoding, so
//     decode followed by encode gives the same bytes.
//   - Every input is hostile: bounded, parsed strictly, refused with an error, never a panic.
//   - A proof file of which a single bit was changed does not verify.
//
// It does not decide whether a verdict, an amount or a system leaf was right: that is vouched for by the node quorum, and
// the Report says so. It does not fetch anything.
package verify
