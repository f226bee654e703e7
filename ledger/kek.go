package ledger

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// KEK wraps the record keys of addenda. Implementations are safe for concurrent use. Nothing of it is called inside Apply.
type KEK interface {
	// Wrap encrypts a 32-byte record key so that Unwrap with the same additional data returns it. The result is at most 256
	// bytes.
	Wrap(key, additional []byte) ([]byte, error)
	// Unwrap is the inverse of Wrap; the error matches ErrUnwrap if this KEK did not wrap it or it was changed.
	Unwrap(wrapped, additional []byte) ([]byte, error)
}

// ErrUnwrap says that a wrapped record key is not this KEK's, or was changed.
var ErrUnwrap = errors.New("record key cannot be unwrapped")

const (
	kekSize     = 32
	kekIDSize   = 8
	wrapVersion = 1
)

// FileKEK is a KEK whose key lies in a file that every voter holds.
type FileKEK struct {
	aead   cipher.AEAD
	id     [kekIDSize]byte
	random io.Reader
}

// NewFileKEK returns the KEK of 32 key bytes. random draws nonces.
func NewFileKEK(key []byte, random io.Reader) (*FileKEK, error) {
	if len(key) != kekSize {
		return nil, fmt.Errorf("key-encryption key of %d bytes is not %d", len(key), kekSize)
	}
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	d := sha256.Sum256(append([]byte("creto/kek/v1\x00"), key...))
	k := &FileKEK{aead: aead, random: random}
	copy(k.id[:], d[:])
	return k, nil
}

// CreateKEKFile writes a new key to a file that must not exist yet, mode 0600, synced.
func CreateKEKFile(path string, random io.Reader) error {
	key := make([]byte, kekSize)
	if _, err := io.ReadFull(random, key); err != nil {
		return fmt.Errorf("draw key-encryption key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create key-encryption key: %w", err)
	}
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("create key-encryption key %s: %w", path, err)
	}
	return nil
}

// LoadKEKFile reads a key written by CreateKEKFile. A file that others may read is refused where the system has modes.
func LoadKEKFile(path string, random io.Reader) (*FileKEK, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load key-encryption key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		return nil, fmt.Errorf("load key-encryption key %s: mode %#o lets others read it", path, info.Mode().Perm())
	}
	if info.Size() != kekSize {
		return nil, fmt.Errorf("load key-encryption key %s: %d bytes are not %d", path, info.Size(), kekSize)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load key-encryption key: %w", err)
	}
	return NewFileKEK(key, random)
}

// Wrap returns version ‖ key id ‖ nonce ‖ AES-256-GCM.
func (k *FileKEK) Wrap(key, additional []byte) ([]byte, error) {
	out := append([]byte{wrapVersion}, k.id[:]...)
	return sealGCM(k.aead, k.random, out, key, additional)
}

// Unwrap is the inverse of Wrap.
func (k *FileKEK) Unwrap(wrapped, additional []byte) ([]byte, error) {
	const head = 1 + kekIDSize
	if len(wrapped) < head || wrapped[0] != wrapVersion || [kekIDSize]byte(wrapped[1:head]) != k.id {
		return nil, ErrUnwrap
	}
	key, err := openGCM(k.aead, wrapped[head:], additional)
	if err != nil {
		return nil, ErrUnwrap
	}
	return key, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return aead, nil
}

// sealGCM appends nonce ‖ ciphertext to dst.
func sealGCM(aead cipher.AEAD, random io.Reader, dst, plain, additional []byte) ([]byte, error) {
	nonce := make([]byte, aead.NonceSize())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	return aead.Seal(append(dst, nonce...), nonce, plain, additional), nil
}

func openGCM(aead cipher.AEAD, sealed, additional []byte) ([]byte, error) {
	n := aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("ciphertext is too short")
	}
	return aead.Open(nil, sealed[:n], sealed[n:], additional)
}

func syncDir(path string) error {
	if os.PathSeparator != '/' {
		return nil // directories cannot be synced
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
