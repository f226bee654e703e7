package consensus

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
)

// A leader whose disk is nearly full refuses proposals before the disk is full, answers reads, and goes on when there is
// room again, without a restart.
func TestRaft08NearlyFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(50 << 30)
		c := newCluster(t, 3, nil, func(cfg *Config) {
			cfg.space = func() (uint64, uint64, error) { return free.Load(), 100 << 30, nil }
		})
		defer c.stopAll()
		l := c.leader()
		c.propose(l, "before")
		for _, step := range []struct {
			free uint64
			full bool
		}{
			{10 << 30, false},
			{8 << 30, false}, // the bound on large disks
			{8<<30 - 1, true},
			{8 << 30, true}, // room again only with a margin
			{9<<30 - 1, true},
			{9 << 30, false},
			{0, true},
			{50 << 30, false},
		} {
			free.Store(step.free)
			time.Sleep(2 * diskInterval)
			_, _, err := l.node.Propose(t.Context(), []byte("x"))
			if got := errors.Is(err, ErrDiskFull); got != step.full || !got && err != nil {
				t.Errorf("propose with %d bytes free: got %v, want refusal: %v", step.free, err, step.full)
			}
			if _, err := l.node.ReadIndex(t.Context()); err != nil {
				t.Errorf("read with %d bytes free: %v", step.free, err)
			}
		}
		c.agree(c.propose(l, "after"))
	})
}

func TestReserve(t *testing.T) {
	for _, tt := range []struct {
		percent     int
		total, want uint64
	}{
		{10, 100 << 20, minReserve},
		{10, 20 << 30, (20 << 30) / 100 * 10},
		{10, 1 << 50, maxReserve},
		{50, 10 << 30, (10 << 30) / 100 * 50},
		{-1, 10 << 30, 0},
	} {
		d := newDisk(&Config{MinFreePercent: tt.percent, Ballast: -1, DataDir: t.TempDir(),
			space: func() (uint64, uint64, error) { return 0, tt.total, nil }}, discardLog())
		d.look()
		if got := d.reserve.Load(); got != tt.want {
			t.Errorf("%d%% of %d: got reserve %d, want %d", tt.percent, tt.total, got, tt.want)
		}
		if got := d.check() != nil; got != (tt.percent > 0) {
			t.Errorf("%d%% of %d with nothing free: got refusal %v", tt.percent, tt.total, got)
		}
	}
}

// Ballast is made when there is room for it beside the reserve, and only then.
func TestBallast(t *testing.T) {
	const size = 1 << 20
	var free uint64 = minReserve + minReserve/8 + size - 1
	dir := t.TempDir()
	d := newDisk(&Config{MinFreePercent: 10, Ballast: size, DataDir: dir,
		space: func() (uint64, uint64, error) { return free, 100 << 20, nil }}, discardLog())
	path := filepath.Join(dir, ballastFile)
	d.look()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ballast without room: got %v, want none", err)
	}
	free++
	d.look()
	info, err := os.Stat(path)
	if err != nil || info.Size() != size {
		t.Fatalf("ballast: got %v, want %d bytes", err, size)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Blocks*512 < size {
		t.Errorf("ballast occupies %d bytes, want %d", s.Blocks*512, size)
	}
	d.release()
	d.release()
	d.look()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ballast after release: got %v, want none", err)
	}
	if err := d.check(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("check after release: got %v, want ErrDiskFull", err)
	}
}

// fillFS has no room once it is armed.
type fillFS struct {
	types.VFS
	armed atomic.Bool
}

func (f *fillFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	w, err := f.VFS.Create(dir, name, size)
	return &fillFile{w, f}, err
}

func (f *fillFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.VFS.OpenWriter(dir, name)
	return &fillFile{w, f}, err
}

type fillFile struct {
	types.WritableFile
	fs *fillFS
}

func (f *fillFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.armed.Load() {
		return 0, &os.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC}
	}
	return f.WritableFile.WriteAt(p, off)
}

// A write that finds no room stops the node, gives the ballast up, and costs nothing that was acknowledged.
func TestNoSpaceStopsAndGivesBallastUp(t *testing.T) {
	disks := make(map[string]*fillFS)
	c := newCluster(t, 3, nil, func(cfg *Config) {
		d := &fillFS{VFS: fs.New()}
		disks[cfg.NodeID] = d
		cfg.files, cfg.Ballast = d, 1<<20
		cfg.space = func() (uint64, uint64, error) { return 50 << 30, 100 << 30, nil }
	})
	l := c.leader()
	c.propose(l, "before")
	path := filepath.Join(l.dir, ballastFile)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("ballast: %v", err)
	}
	disks[l.id].armed.Store(true)
	if _, _, err := l.node.Propose(t.Context(), []byte("during")); !errors.Is(err, ErrAmbiguous) || !errors.Is(err, ErrDiskFull) {
		t.Errorf("propose: got %v, want ErrAmbiguous for ErrDiskFull", err)
	}
	if f := c.fatal(l); f.code != ExitStorage || !errors.Is(f.err, ErrDiskFull) || !errors.Is(f.err, syscall.ENOSPC) {
		t.Errorf("fatal: got %d %v, want %d ErrDiskFull", f.code, f.err, ExitStorage)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ballast: got %v, want none", err)
	}
	last := c.propose(c.leader(l.id), "after")
	c.stop(l.id)
	disks[l.id].armed.Store(false)
	c.start(l.id)
	c.agree(last)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("ballast after restart with room: %v", err)
	}
}

// smallDisk mounts an ext4 file system of size bytes.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	skip := func(format string, args ...any) {
		t.Helper()
		if os.Getenv("CI") == "true" {
			t.Fatalf(format, args...)
		}
		t.Skipf(format, args...)
	}
	if os.Getuid() != 0 {
		skip("mounting a file system needs root")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(mount, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			skip("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v: %s", err, out)
		}
	})
	return mount
}

// fill writes a file until keep bytes are free, or the disk has no room.
func fill(t *testing.T, dir string, keep uint64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "somebody-elses"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for {
		free, _, err := diskSpace(dir)
		if err != nil {
			t.Fatal(err)
		}
		if free <= keep {
			return
		}
		if _, err := f.Write(chunk[:min(uint64(len(chunk)), free-keep)]); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A real file system of 400 MiB that somebody else fills: first to below the reserve, then to the last byte.
func TestFault05NoSpaceOnExt4(t *testing.T) {
	mount := smallDisk(t, 400<<20)
	c := newCluster(t, 1, nil, func(cfg *Config) {
		cfg.DataDir = filepath.Join(mount, "data")
		cfg.Ballast = 32 << 20
		cfg.segmentSize = 1 << 20
	})
	a := c.leader()
	a.dir = a.cfg.DataDir
	c.propose(a, "before")
	path := filepath.Join(a.dir, ballastFile)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("ballast: %v", err)
	}
	fill(t, mount, minReserve-(4<<20))
	c.eventually("refusal", func() bool {
		_, _, err := a.node.Propose(t.Context(), []byte("x"))
		return errors.Is(err, ErrDiskFull)
	})
	if _, err := a.node.ReadIndex(t.Context()); err != nil {
		t.Errorf("read on a nearly full disk: %v", err)
	}
	if err := os.Remove(filepath.Join(mount, "somebody-elses")); err != nil {
		t.Fatal(err)
	}
	c.eventually("proposal", func() bool {
		_, _, err := a.node.Propose(t.Context(), []byte("y"))
		return err == nil
	})
	// The reserve is turned off, and the disk runs full under the node.
	c.stop(a.id)
	a.cfg.MinFreePercent = -1
	c.start(a.id)
	c.leader()
	fill(t, mount, 0)
	command := bytes.Repeat([]byte("z"), 64<<10)
	var acked int
	var failed error
	for i := 0; failed == nil && i < 1000; i++ {
		if _, _, failed = a.node.Propose(t.Context(), command); failed == nil {
			acked++
		}
	}
	if !errors.Is(failed, ErrDiskFull) {
		t.Errorf("propose on a full disk: got %v, want ErrDiskFull", failed)
	}
	if f := c.fatal(a); f.code != ExitStorage || !errors.Is(f.err, ErrDiskFull) {
		t.Errorf("fatal: got %d %v, want %d ErrDiskFull", f.code, f.err, ExitStorage)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ballast: got %v, want none", err)
	}
	// The rest of the process has room to end in order.
	if err := os.WriteFile(filepath.Join(mount, "last words"), make([]byte, 16<<20), 0o600); err != nil {
		t.Errorf("write after the ballast was given up: %v", err)
	}
	c.stop(a.id)
	if err := errors.Join(os.Remove(filepath.Join(mount, "somebody-elses")), os.Remove(filepath.Join(mount, "last words"))); err != nil {
		t.Fatal(err)
	}
	a.cfg.MinFreePercent = 0
	c.start(a.id)
	last := c.propose(c.leader(), "after")
	var got int
	for _, d := range c.agree(last) {
		if d == string(command) {
			got++
		}
	}
	if got < acked {
		t.Errorf("got %d of %d acknowledged commands", got, acked)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("ballast after restart with room: %v", err)
	}
	t.Logf("%d commands fitted before the disk was full", acked)
}
