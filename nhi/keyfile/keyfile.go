package keyfile

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

const (
	version     = 1
	plainHeader = "CRETO PRIVATE KEY, NOT ENCRYPTED\n"

	maxFileBytes = 16 << 10
	maxKeyBytes  = 1 << 10
	maxRoleBytes = 64

	// workFactor is log2 of scrypt's N: 2^18 takes about a second and 256 MiB,
	// for who knows the passphrase once, for who guesses each time.
	workFactor    = 18
	maxWorkFactor = 20 // of a file that somebody else wrote
)

// Errors that a caller can act on.
var (
	ErrPassphrase  = errors.New("wrong passphrase")                           // ask again
	ErrNoPass      = errors.New("passphrase is empty")                        // ask for one
	ErrFormat      = errors.New("not a creto key file")                       // other file
	ErrPermissions = errors.New("unencrypted key file is readable by others") // chmod 600
)

// Key is what a file holds.
type Key struct {
	Role   string    // what the key is for, such as "agent", "human", "admin"; chosen by the writer
	Tenant nhi.ID    // zero for keys outside every tenant
	ID     nhi.ID    // whom the key belongs to
	Suite  nhi.Suite // of the seed
	Seed   []byte    // nhi.SeedSize bytes
}

// String names the key without its seed.
func (k Key) String() string { return fmt.Sprintf("%s key of %s", k.Role, k.ID) }

// GoString is String, so that no format verb prints the seed.
func (k Key) GoString() string { return k.String() }

// Private returns the key for signing.
func (k Key) Private() (*nhi.PrivateKey, error) {
	if k.Suite != nhi.SuiteMLDSA65Ed25519 {
		return nil, fmt.Errorf("key of suite %d: %w", k.Suite, nhi.ErrUnknownSuite)
	}
	return nhi.NewPrivateKey(k.Seed)
}

// body is what is encrypted: canonical CBOR. KeyID shows a damaged seed before
// it signs anything.
type body struct {
	V      uint64    `cbor:"1,keyasint"`
	Role   string    `cbor:"2,keyasint"`
	Tenant nhi.ID    `cbor:"3,keyasint"`
	ID     nhi.ID    `cbor:"4,keyasint"`
	Suite  nhi.Suite `cbor:"5,keyasint"`
	Seed   []byte    `cbor:"6,keyasint"`
	KeyID  nhi.KeyID `cbor:"7,keyasint"`
}

func encode(k Key) ([]byte, error) {
	if k.Role == "" || len(k.Role) > maxRoleBytes || !utf8.ValidString(k.Role) {
		return nil, fmt.Errorf("key role %.70q: empty, longer than %d bytes or not text", k.Role, maxRoleBytes)
	}
	p, err := k.Private()
	if err != nil {
		return nil, err
	}
	return canon.Marshal(body{version, k.Role, k.Tenant, k.ID, k.Suite, k.Seed, p.Public().ID()})
}

func decode(b []byte) (Key, error) {
	var c body
	if err := canon.UnmarshalMax(b, &c, maxKeyBytes); err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if c.V != version {
		return Key{}, fmt.Errorf("%w: version %d", ErrFormat, c.V)
	}
	k := Key{c.Role, c.Tenant, c.ID, c.Suite, c.Seed}
	p, err := k.Private()
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if p.Public().ID() != c.KeyID {
		return Key{}, fmt.Errorf("%w: seed and key id disagree", ErrFormat)
	}
	return k, nil
}

// Write creates path with k under a passphrase (age, scrypt, armored), mode
// 0600. It fails with fs.ErrExist if path exists. After a crash there is the
// whole file or none, and at most a stray ".creto-key-*" beside it that is
// encrypted as well.
func Write(path, passphrase string, k Key) error {
	return writeEncrypted(path, passphrase, k, workFactor)
}

func writeEncrypted(path, passphrase string, k Key, logN int) error {
	if passphrase == "" {
		return fmt.Errorf("write key file: %w", ErrNoPass)
	}
	plain, err := encode(k)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	defer clear(plain)
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	r.SetWorkFactor(logN)
	var buf bytes.Buffer
	a := armor.NewWriter(&buf)
	w, err := age.Encrypt(a, r)
	if err != nil {
		return fmt.Errorf("encrypt key: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return fmt.Errorf("encrypt key: %w", err)
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return fmt.Errorf("encrypt key: %w", err)
	}
	return create(path, buf.Bytes())
}

// WritePlain creates path with k in the open, mode 0600. It is for development
// and for machines whose disk is the protection.
func WritePlain(path string, k Key) error {
	plain, err := encode(k)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	text := base64.StdEncoding.AppendEncode([]byte(plainHeader), plain)
	clear(plain)
	return create(path, append(text, '\n'))
}

// Read reads a key file of either form and says whether it was encrypted. The
// passphrase is asked for only if it is; nil refuses encrypted files with
// ErrNoPass.
func Read(path string, passphrase func() (string, error)) (k Key, encrypted bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, false, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, false, fmt.Errorf("open key file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return Key{}, false, fmt.Errorf("read key file %s: %w", path, err)
	}
	if len(b) > maxFileBytes {
		return Key{}, false, fmt.Errorf("read key file %s: %w", path, ErrFormat)
	}
	if rest, ok := strings.CutPrefix(string(b), plainHeader); ok {
		if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
			return Key{}, false, fmt.Errorf("read key file %s: %w (chmod 600)", path, ErrPermissions)
		}
		k, err = decodePlain(rest)
	} else {
		encrypted = true
		k, err = decrypt(b, passphrase)
	}
	if err != nil {
		return Key{}, encrypted, fmt.Errorf("read key file %s: %w", path, err)
	}
	return k, encrypted, nil
}

func decodePlain(text string) (Key, error) {
	line, rest, ok := strings.Cut(text, "\n")
	if !ok || rest != "" {
		return Key{}, ErrFormat
	}
	b, err := base64.StdEncoding.Strict().DecodeString(line)
	if err != nil {
		return Key{}, ErrFormat
	}
	return decode(b)
}

func decrypt(b []byte, passphrase func() (string, error)) (Key, error) {
	if !bytes.HasPrefix(b, []byte(armor.Header)) {
		return Key{}, ErrFormat
	}
	if passphrase == nil {
		return Key{}, ErrNoPass
	}
	pass, err := passphrase()
	if err != nil {
		return Key{}, fmt.Errorf("ask passphrase: %w", err)
	}
	if pass == "" {
		return Key{}, ErrNoPass
	}
	id, err := age.NewScryptIdentity(pass)
	if err != nil {
		return Key{}, err
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(b)), id)
	if err != nil {
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok || errors.Is(err, age.ErrIncorrectIdentity) {
			return Key{}, ErrPassphrase
		}
		return Key{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxKeyBytes+1))
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	defer clear(plain)
	return decode(plain)
}

// create writes b to a new file: a synced temporary one beside it, linked to its
// name, so that an existing file is never replaced.
func create(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".creto-key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	defer func() {
		err = errors.Join(err, removeIfThere(f.Name()))
	}()
	_, werr := f.Write(b)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := place(f.Name(), path); err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	return syncDir(dir)
}

// place gives the temporary file its name. Where the file system has no hard
// links it renames, after looking: two writers at once could then meet.
func place(temp, path string) error {
	err := os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, serr := os.Lstat(path); !errors.Is(serr, fs.ErrNotExist) {
		return errors.Join(err, serr)
	}
	return os.Rename(temp, path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove temporary key file: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // directories cannot be synced there
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync key directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync key directory: %w", err)
	}
	return nil
}
