package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft-wal/types"
)

const (
	// minReserve and maxReserve bound the space that is kept free: room for the next file of the log at least, and on large disks
	// no more than an operator has hours to react to.
	minReserve = segmentSize + 16<<20
	maxReserve = 8 << 30
	// ballastFile is in the data directory.
	ballastFile = "ballast"
	// diskInterval is how often the space is looked at.
	diskInterval = time.Second
)

// disk watches the space of the data directory. Below the reserve a node takes no more proposals, so that what is in flight
// and what others send still fits, and an operator finds a node that runs. Should the space run out all the same, the
// ballast is given up: the rest of the process then has room to close what it has open.
type disk struct {
	dir     string
	log     *slog.Logger
	percent int
	// space is what the file system says: bytes free for this process, and in total.
	space func() (free, total uint64, err error)

	// unread: the space could not be read, and this has been said.
	unread    atomic.Bool
	full      atomic.Bool
	exhausted atomic.Bool
	free      atomic.Uint64
	reserve   atomic.Uint64

	// mu guards the ballast file.
	mu          sync.Mutex
	ballast     int64
	held        bool
	unavailable bool
}

func newDisk(cfg *Config, log *slog.Logger) *disk {
	d := &disk{dir: cfg.DataDir, log: log, percent: cfg.MinFreePercent, ballast: cfg.Ballast, space: cfg.space}
	if d.space == nil {
		d.space = func() (uint64, uint64, error) { return diskSpace(d.dir) }
	}
	return d
}

// look reads the space, keeps full up to date, and puts the ballast back when there is room again.
func (d *disk) look() {
	free, total, err := d.space()
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) && !d.unread.Swap(true) {
			d.log.Warn("cannot read free space", "error", err.Error())
		}
		return
	}
	reserve := uint64(0)
	if d.percent > 0 {
		reserve = min(max(total/100*uint64(d.percent), minReserve), maxReserve)
	}
	d.unread.Store(false)
	d.free.Store(free)
	d.reserve.Store(reserve)
	// A little more than the reserve is wanted before proposals are taken again, so that this does not flutter.
	enough := reserve + reserve/8
	switch {
	case d.full.Load() && free >= enough && !d.exhausted.Load():
		d.full.Store(false)
		d.log.Info("disk has room again", "free", free, "reserve", reserve)
	case !d.full.Load() && free < reserve:
		d.full.Store(true)
		d.log.Error("disk is nearly full: no proposals are taken", "free", free, "reserve", reserve)
	}
	if free >= enough+uint64(max(d.ballast, 0)) {
		d.hold()
	}
}

// hold makes the ballast if it is not there.
func (d *disk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ballast <= 0 || d.held || d.unavailable || d.exhausted.Load() {
		return
	}
	path := filepath.Join(d.dir, ballastFile)
	if info, err := os.Stat(path); err == nil && info.Size() == d.ballast {
		d.held = true
		return
	}
	if err := makeBallast(path, d.ballast); err != nil {
		d.unavailable = true
		d.log.Warn("cannot keep ballast", "error", errors.Join(err, os.Remove(path)).Error())
		return
	}
	d.held = true
}

// release gives the ballast up. It is called when the disk has no room and the node ends.
func (d *disk) release() {
	if d.exhausted.Swap(true) {
		return
	}
	d.full.Store(true)
	// Whoever holds mu makes the ballast on a disk with room.
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = false
	err := os.Remove(filepath.Join(d.dir, ballastFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.log.Error("cannot give ballast up", "error", err.Error())
		return
	}
	d.log.Error("disk has no room: ballast is given up", "bytes", d.ballast)
}

// check is nil while proposals are taken.
func (d *disk) check() error {
	if !d.full.Load() {
		return nil
	}
	return fmt.Errorf("%w: %d MiB free, %d MiB wanted", ErrDiskFull, d.free.Load()>>20, d.reserve.Load()>>20)
}

// noSpace reports whether err says that the disk, or the quota on it, has no room.
func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// writeZeros fills f where blocks cannot be reserved otherwise.
func writeZeros(f *os.File, size int64) error {
	chunk := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(chunk)) {
		if _, err := f.WriteAt(chunk[:min(int64(len(chunk)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// runDisk looks until the node ends.
func (n *Node) runDisk(ctx context.Context) {
	ticker := time.NewTicker(diskInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.dead:
			return
		case <-n.closed:
			return
		case <-ticker.C:
		}
		n.disk.look()
	}
}

// fullFS is the log's file system; it remembers that the disk had no room, which raft-wal does not pass on when the next file of
// the log cannot be made.
type fullFS struct {
	types.VFS
	disk *disk
}

func (f *fullFS) note(err error) error {
	if noSpace(err) {
		f.disk.release()
	}
	return err
}

func (f *fullFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	w, err := f.VFS.Create(dir, name, size)
	if err != nil {
		return nil, f.note(err)
	}
	return &fullFile{w, f}, nil
}

func (f *fullFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.VFS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return &fullFile{w, f}, nil
}

type fullFile struct {
	types.WritableFile
	fs *fullFS
}

func (f *fullFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.WritableFile.WriteAt(p, off)
	return n, f.fs.note(err)
}

func (f *fullFile) Sync() error { return f.fs.note(f.WritableFile.Sync()) }
