package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/publish"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/spiffe"
)

// Names in a node's directory. DESIGN.md says what each holds and what losing it means.
const (
	genesisFile    = "genesis.cbor"
	firstStartFile = "first-start"
	adminSocket    = "admin.sock"
	keysDir        = "keys"
	nodeKeyFile    = "keys/node.key"
	edSeedFile     = "keys/cosign-ed25519.seed"
	pqSeedFile     = "keys/cosign-mldsa44.seed"
	logSeedFile    = "keys/log.seed"
	kekFile        = "keys/kek"
	svidDir        = "svid"
	caDir          = "ca"
	stateDir       = "state"
	localDir       = "local"
	bookFile       = "local/addresses.json"
)

// What a first-start file says. It is there until the node has a Raft log: a node that has lost its log must not begin anew,
// because it has voted before.
const (
	firstBootstrap = "bootstrap\n" // a founder: it begins the log
	firstJoin      = "join\n"      // it gets the log from the others
)

// svidFiles are the SVID files of a directory that Init or JoinCluster has made.
func svidFiles(dir string) spiffe.Files {
	return spiffe.Files{
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Bundle: filepath.Join(dir, "bundle.pem"),
	}
}

// identity is what a node is, from its directory.
type identity struct {
	id      nhi.ID
	key     *nhi.PrivateKey
	genesis *ledger.Genesis
	raw     []byte // of genesis
	ledger  nhi.Digest
	keys    publish.Keys
	kek     ledger.KEK
	founder bool // stands in the genesis
}

// loadIdentity reads genesis and keys. A node of role sandbox has no directory of this kind.
func (c *Config) loadIdentity() (*identity, error) {
	raw, err := os.ReadFile(c.path(genesisFile))
	if err != nil {
		return nil, fmt.Errorf("load genesis: %w", err)
	}
	id := &identity{raw: raw, ledger: ledger.LedgerID(raw)}
	if id.genesis, err = ledger.DecodeGenesis(raw); err != nil {
		return nil, fmt.Errorf("load genesis: %w", err)
	}
	k, _, err := keyfile.Read(c.path(nodeKeyFile), nil)
	if err != nil {
		return nil, fmt.Errorf("load node key: %w", err)
	}
	if id.key, err = k.Private(); err != nil {
		return nil, fmt.Errorf("load node key: %w", err)
	}
	id.id = k.ID
	for _, n := range id.genesis.Nodes {
		if n.ID == id.id {
			id.founder = true
		}
	}
	ed, err := readSecret(c.path(edSeedFile), ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	id.keys.Ed = ed25519.NewKeyFromSeed(ed)
	pq, err := readSecret(c.path(pqSeedFile), nhi.MLDSA44SeedSize)
	if err != nil {
		return nil, err
	}
	if id.keys.PQ, err = nhi.NewMLDSA44(pq); err != nil {
		return nil, fmt.Errorf("load cosigning key: %w", err)
	}
	log, err := readSecret(c.path(logSeedFile), ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	id.keys.Log = ed25519.NewKeyFromSeed(log)
	if id.kek, err = ledger.LoadKEKFile(c.path(kekFile), rand.Reader); err != nil {
		return nil, err
	}
	return id, nil
}

// writeSecret creates a file that only its owner can read and that must not exist, synced.
func writeSecret(path string, data []byte) error { return createFile(path, data, 0o600) }

func createFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("create %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

// readSecret reads a file of exactly size bytes that others cannot read, where the system has modes.
func readSecret(path string, size int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load secret: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load secret: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		return nil, fmt.Errorf("load secret %s: mode %#o lets others read it", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(size)+1))
	if err != nil {
		return nil, fmt.Errorf("load secret %s: %w", path, err)
	}
	if len(b) != size {
		return nil, fmt.Errorf("load secret %s: not %d bytes", path, size)
	}
	return b, nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// emptyDir makes a directory and refuses one that has something in it, but for these names.
func emptyDir(path string, but ...string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains(but, e.Name()) {
			return fmt.Errorf("directory %s is not empty: %w", path, fs.ErrExist)
		}
	}
	return nil
}
