package nhi

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
)

// Parts of the composite construction (draft-ietf-lamps-pq-composite-sigs-19,
// 3.2): M' = prefix ‖ label ‖ len(ctx) ‖ ctx ‖ SHA-512(M).
const (
	compositePrefix = "CompositeAlgorithmSignatures2025"
	compositeLabel  = "COMPSIG-MLDSA65-Ed25519-SHA512"
	maxContext      = 255
)

// maxMPrime is the size of M' under the longest context.
const maxMPrime = len(compositePrefix) + len(compositeLabel) + 1 + maxContext + sha512.Size

// PublicKey is a composite public key with its ML-DSA half unpacked, about
// 35 KB. It is immutable and safe for concurrent use.
type PublicKey struct {
	suite      Suite
	bytes      []byte
	id         KeyID
	components [2]Digest
	mldsa      *mldsa65Public
}

// ParsePublicKey parses the public key of a suite: for SuiteMLDSA65Ed25519 the
// ML-DSA-65 key (1952 bytes) and then the Ed25519 key (32 bytes). The Ed25519
// half must be the canonical encoding of a point of prime order, because on
// other points verifiers disagree. Errors wrap ErrUnknownSuite, ErrBadKey or
// ErrWeakKey.
func ParsePublicKey(s Suite, b []byte) (*PublicKey, error) {
	if s != SuiteMLDSA65Ed25519 {
		return nil, fmt.Errorf("parse public key of suite %d: %w", uint8(s), ErrUnknownSuite)
	}
	if len(b) != PublicKeySize {
		return nil, fmt.Errorf("parse public key of %d bytes: %w", len(b), ErrBadKey)
	}
	return parsePublicKey(s, b, keyID(s, b))
}

func parsePublicKey(s Suite, b []byte, id KeyID) (*PublicKey, error) {
	m, err := parseMLDSA65(b[:mldsa65PublicKeySize])
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	if err := checkEd25519(b[mldsa65PublicKeySize:]); err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	return &PublicKey{
		suite: s,
		bytes: bytes.Clone(b),
		id:    id,
		components: [2]Digest{
			ComponentID("mldsa65", b[:mldsa65PublicKeySize]),
			ComponentID("ed25519", b[mldsa65PublicKeySize:]),
		},
		mldsa: m,
	}, nil
}

// keyID hashes a key of the right length for its suite.
func keyID(s Suite, pk []byte) KeyID {
	var buf [len("creto/key/v1\x00") + len(suiteNameMLDSA65Ed25519) + 1 + PublicKeySize]byte
	b := append(buf[:0], "creto/key/v1\x00"...)
	b = append(b, s.String()...)
	b = append(b, 0)
	b = append(b, pk...)
	return sha256.Sum256(b)
}

// ComponentID identifies one component key, alone or inside a composite, so that
// a registry can refuse to see it twice:
// SHA-256("creto/component/v1\0" ‖ algorithm ‖ 0x00 ‖ key). Algorithms are
// "mldsa65", "mldsa44" and "ed25519".
func ComponentID(algorithm string, pk []byte) Digest {
	b := make([]byte, 0, len("creto/component/v1\x00")+len(algorithm)+1+len(pk))
	b = append(b, "creto/component/v1\x00"...)
	b = append(b, algorithm...)
	b = append(b, 0)
	b = append(b, pk...)
	return sha256.Sum256(b)
}

// Bytes returns a copy of the encoded key.
func (p *PublicKey) Bytes() []byte { return bytes.Clone(p.bytes) }

// Suite returns the suite of the key.
func (p *PublicKey) Suite() Suite { return p.suite }

// ID returns the key's id.
func (p *PublicKey) ID() KeyID { return p.id }

// ComponentIDs returns the ids of the ML-DSA and of the Ed25519 component. A
// registry refuses a key if either is known already and blocks every key that
// holds a revoked one.
func (p *PublicKey) ComponentIDs() [2]Digest { return p.components }

// Verify checks that sig was made over msg under ctx with this key. Both halves
// must verify; the error is ErrBadSignature (or ErrBadContext) and says no more.
func (p *PublicKey) Verify(ctx Context, msg, sig []byte) error {
	if len(ctx) == 0 {
		return ErrBadContext
	}
	return p.verify(string(ctx), sha512.Sum512(msg), sig)
}

func (p *PublicKey) verify(ctx string, digest [sha512.Size]byte, sig []byte) error {
	if len(ctx) > maxContext {
		return ErrBadContext
	}
	if len(sig) != SignatureSize {
		return ErrBadSignature
	}
	var buf [maxMPrime]byte
	m := appendMPrime(buf[:0], ctx, &digest)
	if !p.mldsa.verify(m, []byte(compositeLabel), sig[:mldsa65SignatureSize]) ||
		!verifyEd25519(p.bytes[mldsa65PublicKeySize:], m, sig[mldsa65SignatureSize:]) {
		return ErrBadSignature
	}
	return nil
}

func appendMPrime(b []byte, ctx string, digest *[sha512.Size]byte) []byte {
	b = append(b, compositePrefix...)
	b = append(b, compositeLabel...)
	b = append(b, byte(len(ctx)))
	b = append(b, ctx...)
	return append(b, digest[:]...)
}

// Signer signs with one key: a PrivateKey, or a device that holds one. Sign must
// be safe for concurrent use. A device may sign with fresh randomness; nothing
// may depend on two signatures of one message being equal.
type Signer interface {
	Public() *PublicKey
	Sign(ctx Context, msg []byte) ([]byte, error)
}

// PrivateKey is a composite private key. It is safe for concurrent use, prints
// as its key id and signs deterministically.
type PrivateKey struct {
	public *PublicKey
	seed   [SeedSize]byte
	mldsa  mldsa65Private
	ed     ed25519.PrivateKey
}

var _ Signer = (*PrivateKey)(nil)

// GenerateKey draws a new key of SuiteMLDSA65Ed25519 from random.
func GenerateKey(random io.Reader) (*PrivateKey, error) {
	var seed [SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("draw key seed: %w", err)
	}
	return NewPrivateKey(seed[:])
}

// NewPrivateKey derives the key of a 64-byte seed: the ML-DSA-65 seed and then
// the Ed25519 seed, which must be independent and used nowhere else.
func NewPrivateKey(seed []byte) (*PrivateKey, error) {
	if len(seed) != SeedSize {
		return nil, fmt.Errorf("derive key: seed of %d bytes, want %d", len(seed), SeedSize)
	}
	k := &PrivateKey{seed: [SeedSize]byte(seed)}
	pk, sk := newMLDSA65((*[mldsaSeedSize]byte)(k.seed[:mldsaSeedSize]))
	k.mldsa = sk
	k.ed = newEd25519(k.seed[mldsaSeedSize:])
	pub := append(pk, k.ed[ed25519SeedSize:]...)
	var err error
	if k.public, err = ParsePublicKey(SuiteMLDSA65Ed25519, pub); err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return k, nil
}

// Public returns the public key.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// Seed returns a copy of the 64-byte seed, which is the whole secret.
func (k *PrivateKey) Seed() []byte { return bytes.Clone(k.seed[:]) }

// Sign signs msg under ctx.
func (k *PrivateKey) Sign(ctx Context, msg []byte) ([]byte, error) {
	if len(ctx) == 0 {
		return nil, ErrBadContext
	}
	return k.sign(string(ctx), msg)
}

func (k *PrivateKey) sign(ctx string, msg []byte) ([]byte, error) {
	if len(ctx) > maxContext {
		return nil, ErrBadContext
	}
	digest := sha512.Sum512(msg)
	var buf [maxMPrime]byte
	m := appendMPrime(buf[:0], ctx, &digest)
	sig := make([]byte, SignatureSize)
	if err := k.mldsa.sign(sig[:mldsa65SignatureSize], m, []byte(compositeLabel)); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	copy(sig[mldsa65SignatureSize:], signEd25519(k.ed, m))
	return sig, nil
}

// String returns the id of the key and nothing secret.
func (k *PrivateKey) String() string { return "private key " + k.public.id.String() }

// GoString is String, so that no format verb prints the seed.
func (k *PrivateKey) GoString() string { return k.String() }
