package nhi

// This file is the only one that knows which libraries compute signatures:
// circl for ML-DSA (FIPS 204), the standard library for Ed25519.

import (
	"crypto/ed25519"
	"fmt"

	"filippo.io/edwards25519"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

const (
	mldsaSeedSize        = mldsa65.SeedSize
	mldsa65PublicKeySize = mldsa65.PublicKeySize
	mldsa65SignatureSize = mldsa65.SignatureSize
	mldsa44PublicKeySize = mldsa44.PublicKeySize
	mldsa44SignatureSize = mldsa44.SignatureSize
	ed25519PublicKeySize = ed25519.PublicKeySize
	ed25519SignatureSize = ed25519.SignatureSize
	ed25519SeedSize      = ed25519.SeedSize
)

// mldsa65Public is an unpacked ML-DSA-65 public key, about 33 KB in memory.
type mldsa65Public struct{ k mldsa65.PublicKey }

// parseMLDSA65 unpacks a public key. Every 1952 bytes unpack; t1 = 0 is refused,
// because under such a key anybody can produce signatures.
func parseMLDSA65(b []byte) (*mldsa65Public, error) {
	if len(b) != mldsa65PublicKeySize {
		return nil, fmt.Errorf("ML-DSA-65 key of %d bytes: %w", len(b), ErrBadKey)
	}
	if allZero(b[32:]) {
		return nil, fmt.Errorf("ML-DSA-65 key: %w", ErrWeakKey)
	}
	p := new(mldsa65Public)
	p.k.Unpack((*[mldsa65PublicKeySize]byte)(b))
	return p, nil
}

func (p *mldsa65Public) verify(msg, ctx, sig []byte) bool {
	return len(sig) == mldsa65SignatureSize && mldsa65.Verify(&p.k, msg, ctx, sig)
}

type mldsa65Private struct{ k *mldsa65.PrivateKey }

func newMLDSA65(seed *[mldsaSeedSize]byte) (pk []byte, sk mldsa65Private) {
	p, s := mldsa65.NewKeyFromSeed(seed)
	return p.Bytes(), mldsa65Private{s}
}

// sign is deterministic (FIPS 204, 3.4): the same key and message give the same
// signature.
func (p mldsa65Private) sign(dst, msg, ctx []byte) error {
	return mldsa65.SignTo(p.k, msg, ctx, false, dst)
}

// mldsa44Public is an unpacked ML-DSA-44 public key.
type mldsa44Public struct{ k mldsa44.PublicKey }

func parseMLDSA44(b []byte) (*mldsa44Public, error) {
	if len(b) != mldsa44PublicKeySize {
		return nil, fmt.Errorf("ML-DSA-44 key of %d bytes: %w", len(b), ErrBadKey)
	}
	if allZero(b[32:]) {
		return nil, fmt.Errorf("ML-DSA-44 key: %w", ErrWeakKey)
	}
	p := new(mldsa44Public)
	p.k.Unpack((*[mldsa44PublicKeySize]byte)(b))
	return p, nil
}

func (p *mldsa44Public) verify(msg, sig []byte) bool {
	return len(sig) == mldsa44SignatureSize && mldsa44.Verify(&p.k, msg, nil, sig)
}

type mldsa44Private struct{ k *mldsa44.PrivateKey }

func newMLDSA44(seed *[mldsaSeedSize]byte) (pk []byte, sk mldsa44Private) {
	p, s := mldsa44.NewKeyFromSeed(seed)
	return p.Bytes(), mldsa44Private{s}
}

func (p mldsa44Private) sign(dst, msg []byte) error {
	return mldsa44.SignTo(p.k, msg, nil, false, dst)
}

func newEd25519(seed []byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(seed) }

func signEd25519(k ed25519.PrivateKey, msg []byte) []byte { return ed25519.Sign(k, msg) }

// verifyEd25519 is the one acceptance rule of the project, the standard
// library's: cofactorless, S < L. Libraries disagree only about keys and points
// outside the prime-order group (checkEd25519 refuses such keys).
func verifyEd25519(pk, msg, sig []byte) bool {
	return len(pk) == ed25519PublicKeySize && len(sig) == ed25519SignatureSize &&
		ed25519.Verify(pk, msg, sig)
}

// checkEd25519 accepts the canonical encodings of points of order exactly L.
func checkEd25519(pk []byte) error {
	if len(pk) != ed25519PublicKeySize {
		return fmt.Errorf("Ed25519 key of %d bytes: %w", len(pk), ErrBadKey)
	}
	a, err := new(edwards25519.Point).SetBytes(pk)
	if err != nil {
		return fmt.Errorf("Ed25519 key is no point: %w", ErrBadKey)
	}
	if string(a.Bytes()) != string(pk) {
		return fmt.Errorf("Ed25519 key is not in canonical form: %w", ErrBadKey)
	}
	identity := edwards25519.NewIdentityPoint()
	if a.Equal(identity) == 1 {
		return fmt.Errorf("Ed25519 key: %w", ErrWeakKey)
	}
	// [L]A as [L-1]A + A, since the scalar L itself is zero.
	minusOne := edwards25519.NewScalar().Subtract(edwards25519.NewScalar(), scalarOne())
	la := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusOne, a, edwards25519.NewScalar())
	if la.Add(la, a).Equal(identity) != 1 {
		return fmt.Errorf("Ed25519 key: %w", ErrWeakKey)
	}
	return nil
}

func scalarOne() *edwards25519.Scalar {
	var one [32]byte
	one[0] = 1
	s, err := edwards25519.NewScalar().SetCanonicalBytes(one[:])
	if err != nil {
		panic(err) // 1 is canonical
	}
	return s
}

func allZero(b []byte) bool {
	var acc byte
	for _, c := range b {
		acc |= c
	}
	return acc == 0
}
