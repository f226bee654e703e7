package backend

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/creto-systems/creto/nhi"
)

// Bounds of a root file system.
const (
	MaxRootfsEntries = 200_000
	MaxRootfsBytes   = 16 << 30
)

// ErrRootfs means that a folder cannot be a root file system.
var ErrRootfs = errors.New("not a usable root file system")

// mountPoints are folders at the top that every sandbox covers with a mount. They are never part of a template.
var mountPoints = []string{"dev", "proc", "sys", "tmp"}

// HashRootfs returns the digest of a root file system: SHA-256 over "creto/rootfs/v1\0" and its manifest, one line for each
// entry below dir, in the order of their paths' bytes:
//
//	d 0755 0 - "path"
//	f 0644 <size> <SHA-256 in hex> "path"
//	l 0777 0 "target" "path"
//
// Paths are relative, with slashes, quoted as Go strings. The mode is 0755 for folders and for files that anybody may
// execute, otherwise 0644: what the umask of whoever built the folder did to it does not matter, nor do owners and times. The
// mount points at the top (dev, proc, sys, tmp) are left out. Anything but folders, files and symbolic links is refused.
func HashRootfs(dir string) (nhi.Digest, error) { return walkRootfs(dir, "") }

// Stage copies a root file system into the new folder dst and returns the digest of what it copied. The copy can be read by
// everybody and has the mount points.
func Stage(dir, dst string) (nhi.Digest, error) {
	if err := os.Mkdir(dst, 0o755); err != nil {
		return nhi.Digest{}, fmt.Errorf("stage root file system: %w", err)
	}
	d, err := walkRootfs(dir, dst)
	if err != nil {
		return nhi.Digest{}, err
	}
	// The process's umask must not take away what a sandbox under another user needs.
	err = os.Chmod(dst, 0o755)
	for _, m := range mountPoints {
		mode := fs.FileMode(0o755)
		if m == "tmp" {
			// runc gives the mount the mode of the folder that it covers.
			mode = 0o777 | fs.ModeSticky
		}
		at := filepath.Join(dst, m)
		err = errors.Join(err, os.Mkdir(at, 0o755), os.Chmod(at, mode))
	}
	if err != nil {
		return nhi.Digest{}, fmt.Errorf("stage root file system: %w", err)
	}
	return d, nil
}

func walkRootfs(dir, dst string) (nhi.Digest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nhi.Digest{}, fmt.Errorf("open root file system: %w", err)
	}
	defer root.Close()
	w := &rootfsWalk{root: root, dst: dst, sum: sha256.New()}
	w.sum.Write([]byte("creto/rootfs/v1\x00"))
	entries, err := w.list()
	if err != nil {
		return nhi.Digest{}, err
	}
	for _, e := range entries {
		if err := w.entry(e); err != nil {
			return nhi.Digest{}, err
		}
	}
	return nhi.Digest(w.sum.Sum(nil)), nil
}

type rootfsWalk struct {
	root  *os.Root
	dst   string // empty: only hash
	sum   hash.Hash
	bytes int64
}

// list returns the paths below the root in the order of their bytes, which is also one in which folders come before what is
// in them.
func (w *rootfsWalk) list() ([]string, error) {
	var out []string
	err := fs.WalkDir(w.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read root file system: %w", err)
		}
		if p == "." {
			return nil
		}
		for _, m := range mountPoints {
			if p == m {
				if d.IsDir() {
					return fs.SkipDir
				}
				return fmt.Errorf("%w: %q is not a folder", ErrRootfs, p)
			}
		}
		if out = append(out, p); len(out) > MaxRootfsEntries {
			return fmt.Errorf("%w: more than %d entries", ErrRootfs, MaxRootfsEntries)
		}
		return nil
	})
	sort.Strings(out)
	return out, err
}

func (w *rootfsWalk) entry(p string) error {
	info, err := w.root.Lstat(filepath.FromSlash(p))
	if err != nil {
		return fmt.Errorf("read root file system: %w", err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		fmt.Fprintf(w.sum, "d 0755 0 - %s\n", strconv.Quote(p))
		if w.dst == "" {
			return nil
		}
		return w.mkdir(p)
	case mode&fs.ModeSymlink != 0:
		target, err := w.root.Readlink(filepath.FromSlash(p))
		if err != nil {
			return fmt.Errorf("read root file system: %w", err)
		}
		fmt.Fprintf(w.sum, "l 0777 0 %s %s\n", strconv.Quote(target), strconv.Quote(p))
		if w.dst == "" {
			return nil
		}
		if err := os.Symlink(target, w.to(p)); err != nil {
			return fmt.Errorf("stage root file system: %w", err)
		}
		return nil
	case mode.IsRegular():
		return w.file(p, mode.Perm())
	default:
		return fmt.Errorf("%w: %q is neither folder, file nor symbolic link", ErrRootfs, p)
	}
}

func (w *rootfsWalk) to(p string) string {
	return filepath.Join(w.dst, filepath.FromSlash(path.Clean(p)))
}

func (w *rootfsWalk) mkdir(p string) error {
	if err := os.Mkdir(w.to(p), 0o755); err != nil {
		return fmt.Errorf("stage root file system: %w", err)
	}
	return os.Chmod(w.to(p), 0o755)
}

// file hashes and copies the same bytes, so that the copy is what the digest says even if the file changes.
func (w *rootfsWalk) file(p string, perm fs.FileMode) error {
	mode := fs.FileMode(0o644)
	if perm&0o111 != 0 {
		mode = 0o755
	}
	in, err := w.root.Open(filepath.FromSlash(p))
	if err != nil {
		return fmt.Errorf("read root file system: %w", err)
	}
	defer in.Close()
	sum := sha256.New()
	var to io.Writer = sum
	var out *os.File
	if w.dst != "" {
		if out, err = os.OpenFile(w.to(p), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("stage root file system: %w", err)
		}
		to = io.MultiWriter(sum, out)
	}
	n, err := io.Copy(to, io.LimitReader(in, MaxRootfsBytes-w.bytes+1))
	if out != nil {
		err = errors.Join(err, out.Chmod(mode), out.Close())
	}
	if err != nil {
		return fmt.Errorf("copy %q of root file system: %w", p, err)
	}
	if w.bytes += n; w.bytes > MaxRootfsBytes {
		return fmt.Errorf("%w: more than %d bytes", ErrRootfs, int64(MaxRootfsBytes))
	}
	fmt.Fprintf(w.sum, "f %04o %d %x %s\n", mode, n, sum.Sum(nil), strconv.Quote(p))
	return nil
}

// validName reports whether a run's name can be a file name and a control group.
func validName(s string) bool {
	return len(s) > 0 && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
