// Package keyfile keeps a private key in a file: under a passphrase, or, when
// that is asked for by name, in the open for development.
//
// The calls are [Write] and [Read]; [WritePlain] is the open form, and Read says
// which form it found.
//
// Invariants: a file appears whole or not at all, readable by its owner only,
// and is never overwritten, because the key in it may exist nowhere else. An
// open file that others can read is refused. A hostile file costs a bounded
// amount of memory and time.
//
// It does not ask for passphrases, hold keys in memory longer than its caller
// does, or talk to hardware.
package keyfile
