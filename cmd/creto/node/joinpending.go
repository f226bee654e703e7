package node

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// pendingFile holds the keys of a node that has asked to join, from before it asks until its directory is complete.
const pendingFile = "join-pending"

const maxPending = 4096

// PendingJoinError says that a join was not answered, or that its answer could not be written: whether the token is used up
// nobody knows here. Joining again with the same token and directory asks the same question again, and while the token lives it
// is answered again.
type PendingJoinError struct {
	Dir string // where the keys are kept
	Err error
}

func (e *PendingJoinError) Error() string { return e.Err.Error() }

func (e *PendingJoinError) Unwrap() error { return e.Err }

// pendingKeys are what a request to join is made from.
type pendingKeys struct {
	*nodeKeys
	tls *ecdsa.PrivateKey
}

// pendingRow is the content of pendingFile.
type pendingRow struct {
	V     uint64     `cbor:"1,keyasint"`
	Token nhi.Digest `cbor:"2,keyasint"` // SHA-256 of the token that the keys are offered with
	ID    nhi.ID     `cbor:"3,keyasint"`
	Key   []byte     `cbor:"4,keyasint"` // seeds
	Ed    []byte     `cbor:"5,keyasint"`
	PQ    []byte     `cbor:"6,keyasint"`
	TLS   []byte     `cbor:"7,keyasint"` // PKCS #8
}

// joinKeys returns the keys of a join that began in dir with this token, or draws new ones and keeps them there before anybody
// hears of them. Other than such a join's remains, nothing may be in dir.
func joinKeys(random io.Reader, dir string, token nhi.Digest) (*pendingKeys, error) {
	path := filepath.Join(dir, pendingFile)
	raw, err := readPending(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := emptyDir(dir); err != nil {
			return nil, err
		}
		return newJoinKeys(random, path, token)
	}
	if err != nil {
		return nil, err
	}
	if err := clearJoin(dir); err != nil {
		return nil, err
	}
	row := new(pendingRow)
	// A file that a crash has cut is of keys that nobody has heard of.
	if err := canon.Unmarshal(raw, row); err != nil || row.V != 1 || row.Token != token {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("give up keys of another join: %w", err)
		}
		return newJoinKeys(random, path, token)
	}
	k, err := row.keys()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return k, nil
}

func newJoinKeys(random io.Reader, path string, token nhi.Digest) (*pendingKeys, error) {
	k, err := newNodeKeys(random)
	if err != nil {
		return nil, err
	}
	tls, _, err := tlsRequest(random)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(tls)
	if err != nil {
		return nil, fmt.Errorf("encode TLS key: %w", err)
	}
	raw, err := canon.Marshal(&pendingRow{V: 1, Token: token, ID: k.id, Key: k.key.Seed(), Ed: k.ed.Seed(), PQ: k.pq.Seed(), TLS: der})
	if err != nil {
		return nil, err
	}
	if err := writeSecret(path, raw); err != nil {
		return nil, err
	}
	return &pendingKeys{k, tls}, nil
}

func readPending(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read keys of a join: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxPending))
	if err != nil {
		return nil, fmt.Errorf("read keys of a join: %w", err)
	}
	return raw, nil
}

func (r *pendingRow) keys() (*pendingKeys, error) {
	k := &nodeKeys{id: r.ID}
	var err error
	if k.key, err = nhi.NewPrivateKey(r.Key); err != nil {
		return nil, err
	}
	if len(r.Ed) != ed25519.SeedSize {
		return nil, fmt.Errorf("Ed25519 seed of %d bytes", len(r.Ed))
	}
	k.ed = ed25519.NewKeyFromSeed(r.Ed)
	if k.pq, err = nhi.NewMLDSA44(r.PQ); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(r.TLS)
	if err != nil {
		return nil, fmt.Errorf("parse TLS key: %w", err)
	}
	tls, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("TLS key is of type %T", key)
	}
	return &pendingKeys{k, tls}, nil
}

// csr makes the certificate request of these keys. Its signature differs each time.
func (k *pendingKeys) csr(random io.Reader) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(random, &x509.CertificateRequest{}, k.tls)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return csr, nil
}

// clearJoin removes what an interrupted join has written besides its keys. A directory that holds anything else, such as one
// that a node has run in, is refused and left as it is.
func clearJoin(dir string) error {
	written := []string{genesisFile, firstStartFile, keysDir, svidDir, localDir, ConfigFile}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != pendingFile && !slices.Contains(written, name) {
			return fmt.Errorf("directory %s has %s in it: %w", dir, name, fs.ErrExist)
		}
	}
	for _, name := range written {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("clear directory: %w", err)
		}
	}
	return nil
}

// requestDigest is what a join token remembers of the request that has used it up: the keys and the id, each of which the
// answer is for. Only whoever has them all can ask again.
func requestDigest(tlsKey any, id nhi.ID, public, ed, pq []byte) (nhi.Digest, error) {
	spki, err := x509.MarshalPKIXPublicKey(tlsKey)
	if err != nil {
		return nhi.Digest{}, fmt.Errorf("encode TLS key: %w", err)
	}
	b := canon.AppendArray([]byte("creto/join-request/v1\x00"), 5)
	for _, part := range [][]byte{spki, id[:], public, ed, pq} {
		b = canon.AppendBytes(b, part)
	}
	return sha256.Sum256(b), nil
}
