package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/nhi"
)

const testWorkFactor = 10 // the format is the same, the tests are not about scrypt

func testKey() Key {
	return Key{Role: "agent", Tenant: nhi.ID{1}, ID: nhi.ID{2}, Suite: nhi.SuiteMLDSA65Ed25519, Seed: bytes.Repeat([]byte{7}, nhi.SeedSize)}
}

func pass(s string) func() (string, error) { return func() (string, error) { return s, nil } }

func onlyFile(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("got %d files in the directory, want only the key", len(entries))
	}
}

func TestEncrypted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := writeEncrypted(path, "correct horse", testKey(), testWorkFactor); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, dir)
	got, encrypted, err := Read(path, pass("correct horse"))
	if err != nil || !encrypted {
		t.Fatalf("got encrypted %v, %v, want true", encrypted, err)
	}
	if d := cmp.Diff(testKey(), got); d != "" {
		t.Errorf("key (-want +got):\n%s", d)
	}
	if _, err := got.Private(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		pass func() (string, error)
		want error
	}{
		"wrong passphrase": {pass("battery staple"), ErrPassphrase},
		"empty passphrase": {pass(""), ErrNoPass},
		"nobody to ask":    {nil, ErrNoPass},
		"asking fails":     {func() (string, error) { return "", fs.ErrClosed }, fs.ErrClosed},
	} {
		if _, _, err := Read(path, c.pass); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	for name, edit := range map[string]func([]byte) []byte{
		"truncated":     func(b []byte) []byte { return b[:len(b)-40] },
		"trailing text": func(b []byte) []byte { return append(bytes.Clone(b), "x\n"...) },
		"byte changed": func(b []byte) []byte {
			c := bytes.Clone(b)
			c[len(c)-60] ^= 1
			return c
		},
		"empty":    func([]byte) []byte { return nil },
		"too long": func([]byte) []byte { return make([]byte, maxFileBytes+1) },
		"no key":   func([]byte) []byte { return []byte("-----BEGIN PRIVATE KEY-----\n") },
	} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, edit(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Read(bad, pass("correct horse")); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want %v", name, err, ErrFormat)
		}
	}
}

func TestPlain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := WritePlain(path, testKey()); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, dir)
	got, encrypted, err := Read(path, nil)
	if err != nil || encrypted {
		t.Fatalf("got encrypted %v, %v, want false", encrypted, err)
	}
	if d := cmp.Diff(testKey(), got); d != "" {
		t.Errorf("key (-want +got):\n%s", d)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Read(path, nil); !errors.Is(err, ErrPermissions) {
			t.Errorf("readable by the group: got %v, want %v", err, ErrPermissions)
		}
	}
}

func TestNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := os.WriteFile(path, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WritePlain(path, testKey()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("plain: got %v, want %v", err, fs.ErrExist)
	}
	if err := writeEncrypted(path, "p", testKey(), testWorkFactor); !errors.Is(err, fs.ErrExist) {
		t.Errorf("encrypted: got %v, want %v", err, fs.ErrExist)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "dear" {
		t.Errorf("got %q, %v, want the file untouched", b, err)
	}
	onlyFile(t, dir)
}

func TestWriteRefuses(t *testing.T) {
	for name, edit := range map[string]func(k *Key){
		"no role":    func(k *Key) { k.Role = "" },
		"long role":  func(k *Key) { k.Role = strings.Repeat("r", 65) },
		"no suite":   func(k *Key) { k.Suite = 0 },
		"short seed": func(k *Key) { k.Seed = k.Seed[1:] },
	} {
		dir := t.TempDir()
		k := testKey()
		edit(&k)
		if err := WritePlain(filepath.Join(dir, "key"), k); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if err := Write(filepath.Join(t.TempDir(), "key"), "", testKey()); !errors.Is(err, ErrNoPass) {
		t.Errorf("empty passphrase: got %v, want %v", err, ErrNoPass)
	}
}

func TestKeyHidesSeed(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v"} {
		if got, want := fmt.Sprintf(format, testKey()), "agent key of "+(nhi.ID{2}).String(); got != want {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}
}

func FuzzDecodePlain(f *testing.F) {
	path := filepath.Join(f.TempDir(), "key")
	if err := WritePlain(path, testKey()); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(strings.TrimPrefix(string(b), plainHeader))
	f.Fuzz(func(t *testing.T, s string) {
		k, err := decodePlain(s)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("got %v, want %v", err, ErrFormat)
			}
			return
		}
		if _, err := encode(k); err != nil && k.Role != "" && len(k.Role) <= maxRoleBytes {
			t.Fatal(err)
		}
	})
}
