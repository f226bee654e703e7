package backend

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes a folder from path → content; a path that ends in "/" is a folder, content that begins with "-> " a link.
func tree(t testing.TB, entries ...[2]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		at := filepath.Join(dir, e[0])
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		switch target, link := strings.CutPrefix(e[1], "-> "); {
		case strings.HasSuffix(e[0], "/"):
			err = os.MkdirAll(at, 0o700)
		case link:
			err = os.Symlink(target, at)
		default:
			err = os.WriteFile(at, []byte(e[1]), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func sample(t testing.TB) string {
	return tree(t, [2]string{"bin/run", "program"}, [2]string{"bin/sh", "-> run"}, [2]string{"etc/x", ""}, [2]string{"a b\n", "odd"}, [2]string{"empty/", ""})
}

// The manifest written out by hand, as a second implementation would.
func TestHashRootfsIsTheManifests(t *testing.T) {
	dir := sample(t)
	if err := os.Chmod(filepath.Join(dir, "bin/run"), 0o711); err != nil {
		t.Fatal(err)
	}
	sum := func(s string) string { d := sha256.Sum256([]byte(s)); return hex.EncodeToString(d[:]) }
	manifest := "creto/rootfs/v1\x00" +
		"f 0644 3 " + sum("odd") + ` "a b\n"` + "\n" +
		`d 0755 0 - "bin"` + "\n" +
		"f 0755 7 " + sum("program") + ` "bin/run"` + "\n" +
		`l 0777 0 "run" "bin/sh"` + "\n" +
		`d 0755 0 - "empty"` + "\n" +
		`d 0755 0 - "etc"` + "\n" +
		"f 0644 0 " + sum("") + ` "etc/x"` + "\n"
	got, err := HashRootfs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256([]byte(manifest)); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestHashRootfsSeesEveryChange(t *testing.T) {
	base, err := HashRootfs(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(dir string) error{
		"content":    func(d string) error { return os.WriteFile(filepath.Join(d, "bin/run"), []byte("programs"), 0o600) },
		"executable": func(d string) error { return os.Chmod(filepath.Join(d, "etc/x"), 0o700) },
		"name":       func(d string) error { return os.Rename(filepath.Join(d, "etc/x"), filepath.Join(d, "etc/y")) },
		"link": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "bin/sh")), os.Symlink("other", filepath.Join(d, "bin/sh")))
		},
		"link for a file": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "etc/x")), os.Symlink("", filepath.Join(d, "etc/x")))
		},
		"folder": func(d string) error { return os.Remove(filepath.Join(d, "empty")) },
		"more":   func(d string) error { return os.Mkdir(filepath.Join(d, "more"), 0o700) },
	} {
		dir := sample(t)
		if err := change(dir); err != nil {
			if name == "link for a file" {
				continue // an empty target cannot be made everywhere
			}
			t.Fatal(err)
		}
		got, err := HashRootfs(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got == base {
			t.Errorf("%s: the digest did not change", name)
		}
	}
	// What says nothing about the content changes nothing.
	dir := sample(t)
	err = errors.Join(os.Chmod(filepath.Join(dir, "etc/x"), 0o604), os.Chmod(filepath.Join(dir, "etc"), 0o750), os.Mkdir(filepath.Join(dir, "proc"), 0o700), os.MkdirAll(filepath.Join(dir, "tmp/left"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := HashRootfs(dir); err != nil || got != base {
		t.Errorf("got %x, %v, want %x", got, err, base)
	}
}

func TestStage(t *testing.T) {
	src := sample(t)
	want, err := HashRootfs(src)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "copy")
	got, err := Stage(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got digest %x, want %x", got, want)
	}
	if got, err = HashRootfs(dst); err != nil || got != want {
		t.Errorf("the copy has digest %x, %v, want %x", got, err, want)
	}
	for path, mode := range map[string]os.FileMode{"": 0o755, "bin": 0o755, "bin/run": 0o644, "proc": 0o755, "dev": 0o755, "sys": 0o755} {
		if info, err := os.Stat(filepath.Join(dst, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: got %v, %v, want mode %o", path, info, err, mode)
		}
	}
	if _, err := Stage(src, dst); err == nil {
		t.Error("staged over a folder that is there")
	}
}

func TestRootfsRefusals(t *testing.T) {
	if _, err := HashRootfs(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("hashed an absent folder")
	}
	if _, err := HashRootfs(tree(t, [2]string{"proc", "a file"})); !errors.Is(err, ErrRootfs) {
		t.Errorf("got %v for a file at a mount point, want ErrRootfs", err)
	}
}

func TestCheckProgram(t *testing.T) {
	dir := tree(t, [2]string{"bin/run", "x"}, [2]string{"sh", "-> /bin/run"}, [2]string{"out", "-> ../../../../etc/passwd"}, [2]string{"gone", "-> /nowhere"}, [2]string{"loop", "-> /loop"})
	for path, ok := range map[string]bool{"/bin/run": true, "/sh": true, "/bin": false, "/absent": false, "/gone": false, "/loop": false, "/": false} {
		if err := CheckProgram(dir, []string{path}); (err == nil) != ok || err != nil && !errors.Is(err, ErrNoProgram) {
			t.Errorf("%s: got %v, want ok %t", path, err, ok)
		}
	}
}

func TestOutput(t *testing.T) {
	o := NewOutput()
	var all []byte
	for i := range 3000 {
		line := fmt.Appendf(nil, "line %d of many that come one after the other\n", i)
		all = append(all, line...)
		if n, err := o.Write(line); n != len(line) || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	kept, digest, n := o.Result()
	if string(kept) != string(all[:MaxOutput]) || digest != sha256.Sum256(all) || n != uint64(len(all)) {
		t.Errorf("got %d kept of %d, digest %x", len(kept), n, digest)
	}
}

func FuzzCheckProgram(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "run"), nil, 0o600); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"/run", "/../run", "//", "/\x00", "/./run", "relative"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, path string) { _ = CheckProgram(dir, []string{path}) })
}
