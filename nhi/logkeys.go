package nhi

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
)

// The keys in this file sign checkpoints and cosignatures (C2SP signed-note
// types 01, 04 and 06) and nothing else.

// MLDSA44 key, signature and seed sizes in bytes.
const (
	MLDSA44PublicKeySize = mldsa44PublicKeySize
	MLDSA44SignatureSize = mldsa44SignatureSize
	MLDSA44SeedSize      = mldsaSeedSize
)

// VerifyEd25519 checks a plain Ed25519 signature by the standard library's rule.
// It is the only way in this project to verify one, and refuses (ErrComposite)
// what begins with the composite prefix: otherwise the Ed25519 half of a
// composite signature would pass for a signature of its own.
func VerifyEd25519(pk, msg, sig []byte) error {
	if hasCompositePrefix(msg) {
		return ErrComposite
	}
	if len(pk) != ed25519PublicKeySize {
		return ErrBadKey
	}
	if !verifyEd25519(pk, msg, sig) {
		return ErrBadSignature
	}
	return nil
}

// SignEd25519 makes a plain Ed25519 signature, refusing the same messages as
// VerifyEd25519.
func SignEd25519(k ed25519.PrivateKey, msg []byte) ([]byte, error) {
	if hasCompositePrefix(msg) {
		return nil, ErrComposite
	}
	if len(k) != ed25519.PrivateKeySize {
		return nil, ErrBadKey
	}
	return signEd25519(k, msg), nil
}

// CheckEd25519Key accepts a plain Ed25519 key for registration: the canonical
// encoding of a point of prime order.
func CheckEd25519Key(pk []byte) error { return checkEd25519(pk) }

func hasCompositePrefix(msg []byte) bool {
	return len(msg) >= len(compositePrefix) && string(msg[:len(compositePrefix)]) == compositePrefix
}

// MLDSA44PrivateKey signs with pure ML-DSA-44 (FIPS 204) and the empty context.
// It is safe for concurrent use and signs deterministically.
type MLDSA44PrivateKey struct {
	seed   [mldsaSeedSize]byte
	public []byte
	key    mldsa44Private
}

// GenerateMLDSA44 draws a key from random.
func GenerateMLDSA44(random io.Reader) (*MLDSA44PrivateKey, error) {
	var seed [mldsaSeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("draw key seed: %w", err)
	}
	return NewMLDSA44(seed[:])
}

// NewMLDSA44 derives the key of a 32-byte seed.
func NewMLDSA44(seed []byte) (*MLDSA44PrivateKey, error) {
	if len(seed) != mldsaSeedSize {
		return nil, fmt.Errorf("derive ML-DSA-44 key: seed of %d bytes, want %d", len(seed), mldsaSeedSize)
	}
	k := &MLDSA44PrivateKey{seed: [mldsaSeedSize]byte(seed)}
	k.public, k.key = newMLDSA44(&k.seed)
	return k, nil
}

// Public returns a copy of the public key, MLDSA44PublicKeySize bytes.
func (k *MLDSA44PrivateKey) Public() []byte { return bytes.Clone(k.public) }

// Seed returns a copy of the seed, which is the whole secret.
func (k *MLDSA44PrivateKey) Seed() []byte { return bytes.Clone(k.seed[:]) }

// Sign signs msg.
func (k *MLDSA44PrivateKey) Sign(msg []byte) ([]byte, error) {
	sig := make([]byte, mldsa44SignatureSize)
	if err := k.key.sign(sig, msg); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sig, nil
}

// String hides the seed.
func (k *MLDSA44PrivateKey) String() string { return "ML-DSA-44 private key" }

// GoString is String, so that no format verb prints the seed.
func (k *MLDSA44PrivateKey) GoString() string { return k.String() }

// MLDSA44PublicKey is an unpacked ML-DSA-44 key, immutable and safe for
// concurrent use.
type MLDSA44PublicKey struct{ key *mldsa44Public }

// ParseMLDSA44 unpacks a public key once for many verifications.
func ParseMLDSA44(pk []byte) (*MLDSA44PublicKey, error) {
	k, err := parseMLDSA44(pk)
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	return &MLDSA44PublicKey{k}, nil
}

// Verify checks a signature over msg with the empty context.
func (p *MLDSA44PublicKey) Verify(msg, sig []byte) error {
	if !p.key.verify(msg, sig) {
		return ErrBadSignature
	}
	return nil
}

// VerifyMLDSA44 checks an ML-DSA-44 signature over msg with the empty context.
func VerifyMLDSA44(pk, msg, sig []byte) error {
	p, err := ParseMLDSA44(pk)
	if err != nil {
		return err
	}
	return p.Verify(msg, sig)
}
