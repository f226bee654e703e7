package nhi

import (
	"errors"
	"fmt"
)

// Suite is a signature suite. Suites are ordered by strength, so that a ledger's
// min_suite is a comparison. The zero value is no suite.
type Suite uint8

// SuiteMLDSA65Ed25519 is id-MLDSA65-Ed25519-SHA512 of
// draft-ietf-lamps-pq-composite-sigs-19: public key 1984 bytes, signature 3373,
// private seed 64.
const SuiteMLDSA65Ed25519 Suite = 1

// Sizes of SuiteMLDSA65Ed25519 in bytes.
const (
	PublicKeySize = mldsa65PublicKeySize + ed25519PublicKeySize
	SignatureSize = mldsa65SignatureSize + ed25519SignatureSize
	SeedSize      = mldsaSeedSize + ed25519SeedSize
)

const suiteNameMLDSA65Ed25519 = "mldsa65-ed25519"

// Errors of keys and signatures. They are final: the same bytes never verify
// later.
var (
	ErrUnknownSuite = errors.New("unknown signature suite")
	ErrBadKey       = errors.New("malformed public key")
	ErrWeakKey      = errors.New("public key outside the prime-order group or degenerate")
	ErrBadSignature = errors.New("signature does not verify")
	ErrBadContext   = errors.New("signature context is empty or longer than 255 bytes")
	ErrKeyMismatch  = errors.New("signed under another key")
	ErrComposite    = errors.New("message begins with the composite signature prefix")
)

// String returns the suite's name, which is part of key ids.
func (s Suite) String() string {
	if s == SuiteMLDSA65Ed25519 {
		return suiteNameMLDSA65Ed25519
	}
	return fmt.Sprintf("suite(%d)", uint8(s))
}

// ParseSuite returns the suite of that name.
func ParseSuite(name string) (Suite, error) {
	if name == suiteNameMLDSA65Ed25519 {
		return SuiteMLDSA65Ed25519, nil
	}
	return 0, fmt.Errorf("parse suite %q: %w", clip([]byte(name)), ErrUnknownSuite)
}

// MarshalText returns the suite's name.
func (s Suite) MarshalText() ([]byte, error) {
	if s != SuiteMLDSA65Ed25519 {
		return nil, fmt.Errorf("suite %d: %w", uint8(s), ErrUnknownSuite)
	}
	return []byte(s.String()), nil
}

// UnmarshalText parses a suite's name.
func (s *Suite) UnmarshalText(text []byte) error {
	p, err := ParseSuite(string(text))
	if err != nil {
		return err
	}
	*s = p
	return nil
}

// Context separates the kinds of objects that are signed: a signature made
// under one context never verifies under another.
type Context string

// The contexts of Creto's signed objects.
const (
	CtxEvent      Context = "creto/event/v1"    // one event, over its PAE
	CtxBatch      Context = "creto/batch/v1"    // a batch statement
	CtxDelegation Context = "creto/dlg/v1"      // a delegation link id
	CtxApproval   Context = "creto/approval/v1" // an approver's decision
	CtxPolicy     Context = "creto/policy/v1"   // a policy bundle
	CtxAttest     Context = "creto/attest/v1"   // an attestation statement
	CtxNode       Context = "creto/node/v1"     // a node's statement about itself
	CtxReceipt    Context = "creto/receipt/v1"  // receipts of one command
	CtxPossession Context = "creto/pop/v1"      // proof of possession of a new key
)
