package verify

import (
	"crypto/ed25519"
	"fmt"

	"github.com/creto-systems/creto/nhi"
)

// ed25519Signer signs notes with a key in memory.
type ed25519Signer struct {
	key  ed25519.PrivateKey
	vkey VKey
}

// NewEd25519NoteSigner returns the signer of type 01 (log) or 04 (cosigner) under the given key name.
func NewEd25519NoteSigner(name string, typ KeyType, key ed25519.PrivateKey) (NoteSigner, error) {
	if len(key) != ed25519.PrivateKeySize || (typ != KeyEd25519 && typ != KeyCosignature) {
		return nil, fmt.Errorf("%w: not an Ed25519 key of type 01 or 04", ErrNote)
	}
	v, err := NewVKey(name, typ, key[ed25519.SeedSize:])
	if err != nil {
		return nil, err
	}
	return &ed25519Signer{key: key, vkey: v}, nil
}

func (s *ed25519Signer) VKey() VKey { return s.vkey }

func (s *ed25519Signer) SignNote(msg []byte) ([]byte, error) { return nhi.SignEd25519(s.key, msg) }

// mldsa44Signer cosigns with a key in memory.
type mldsa44Signer struct {
	key  *nhi.MLDSA44PrivateKey
	vkey VKey
}

// NewMLDSA44NoteSigner returns the signer of type 06 under the given key name.
func NewMLDSA44NoteSigner(name string, key *nhi.MLDSA44PrivateKey) (NoteSigner, error) {
	v, err := NewVKey(name, KeyMLDSA44, key.Public())
	if err != nil {
		return nil, err
	}
	return &mldsa44Signer{key: key, vkey: v}, nil
}

func (s *mldsa44Signer) VKey() VKey { return s.vkey }

func (s *mldsa44Signer) SignNote(msg []byte) ([]byte, error) { return s.key.Sign(msg) }
