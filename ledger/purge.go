package ledger

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/creto-systems/creto/nhi"
)

// Erasing deletes rows, and a deleted row's bytes stay in the store's files until a compaction happens to rewrite them. What
// follows makes it happen.

// Bounds of purging.
const (
	MaxPurge     = 256 // erasures of one PurgeErased
	purgePoll    = 10 * time.Millisecond
	purgeEvery   = 10 * time.Second // least time between two passes of RunPurge: each flushes and compacts
	purgeTimeout = time.Minute      // how long a pass waits for open snapshots
)

// purgeMarkFile holds the last erasure that PurgeErased has finished with. It stands beside the store's own files, so that a
// store that is lost or replaced takes it along; without it everything is purged once more.
const purgeMarkFile = "creto-purged"

const purgeMarkHead = "creto/purged/v1 "

// purgeMark is the part of a purgeKey that orders erasures.
type purgeMark [20]byte

func (m *purgeMark) erasure() (slot uint32, index uint64) {
	return binary.BigEndian.Uint32(m[8:]), binary.BigEndian.Uint64(m[12:])
}

// Purge removes the bytes of erased addenda of leaves from to to (inclusive) of a tenant's log from the state store: it
// returns when the files that held them are deleted. It waits for snapshots that were opened before it to be closed, as they
// still show what was erased; ctx bounds the wait.
func (l *Log) Purge(ctx context.Context, slot uint32, from, to uint64) error {
	if from > to {
		return fmt.Errorf("purge erased addenda: leaves %d to %d: %w", from, to, ErrRange)
	}
	return l.purge(ctx, []purgeRange{{slot, from, to}}, l.applied.Load())
}

type purgeRange struct {
	slot     uint32
	from, to uint64
}

// PurgeErased removes the bytes of addenda that were erased since its last call from the state store, at most MaxPurge
// erasures, oldest first, and returns of how many. What it has finished is marked on disk, so that the next call, in this
// process or after a restart, goes on there; a call that ends in an error marks nothing. See Purge for what it waits for.
func (l *Log) PurgeErased(ctx context.Context) (n int, err error) {
	l.purgeMu.Lock()
	defer l.purgeMu.Unlock()
	last, ranges, err := l.unpurged()
	if err != nil || len(ranges) == 0 {
		return 0, err
	}
	if err := l.purge(ctx, ranges, binary.BigEndian.Uint64(last[:])); err != nil {
		return 0, err
	}
	if err := l.storePurgeMark(last); err != nil {
		return 0, fmt.Errorf("purge erased addenda: write mark: %w", err)
	}
	return len(ranges), nil
}

// Purged says whether an erasure of a leaf's addenda has reached this node's files: the bytes are gone from its state store.
func (l *Log) Purged(slot uint32, index uint64, e Erasure) bool {
	var want purgeMark
	binary.BigEndian.PutUint64(want[:], e.RaftIndex)
	binary.BigEndian.PutUint32(want[8:], slot)
	binary.BigEndian.PutUint64(want[12:], index)
	m := l.purged.Load()
	return m != nil && string(m[:]) >= string(want[:])
}

// RunPurge calls PurgeErased after erasures until ctx ends or the store fails. What cannot be purged yet, because a reader
// holds a snapshot for longer than a minute, is tried again.
func (l *Log) RunPurge(ctx context.Context) error {
	for {
		worked, again, err := l.purgePass(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if worked {
			pause := time.NewTimer(purgeEvery)
			select {
			case <-ctx.Done():
				pause.Stop()
				return ctx.Err()
			case <-pause.C:
			}
		}
		if again {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.erasures:
		}
	}
}

// purgePass is one pass; again says that there may be more to do.
func (l *Log) purgePass(ctx context.Context) (worked, again bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	n, err := l.PurgeErased(bounded)
	switch {
	case err != nil && bounded.Err() != nil && ctx.Err() == nil:
		l.cfg.Logger.Warn("erased addenda are still in the store's files: a reader holds an old snapshot", "err", err)
		return true, true, nil
	case err != nil:
		return false, false, err
	case n > 0:
		l.cfg.Logger.Info("erased addenda are gone from the store's files", "erasures", n)
	}
	return n > 0, n == MaxPurge, nil
}

// unpurged returns the erasures after the mark, and the last of them.
func (l *Log) unpurged() (last purgeMark, ranges []purgeRange, err error) {
	defer guard(&err)
	mark := l.purged.Load()
	prefix := rowKey(nil, tablePurge, SystemSlot, nil)
	from := prefix
	if mark != nil {
		from = append(rowKey(nil, tablePurge, SystemSlot, mark[:]), 0)
	}
	l.mu.Lock()
	err = l.usable()
	l.mu.Unlock()
	if err != nil {
		return last, nil, err
	}
	s := l.snapshot()
	defer s.release()
	s.scan(prefix, from, false, func(raw, _ []byte) bool {
		if len(raw) != rowPrefix+len(last) {
			err = corrupt("purge key of %d bytes", len(raw))
			return false
		}
		last = purgeMark(raw[rowPrefix:])
		slot, index := last.erasure()
		ranges = append(ranges, purgeRange{slot, index, index})
		return len(ranges) < MaxPurge
	})
	return last, ranges, err
}

// purge removes the bytes of what the commands through an index have erased. Snapshots that were opened after that command do
// not show it, and are not waited for.
func (l *Log) purge(ctx context.Context, ranges []purgeRange, through uint64) error {
	if err := l.bury(ranges); err != nil {
		return fmt.Errorf("purge erased addenda: %w", err)
	}
	if err := poll(ctx, func() (bool, error) { return l.oldestSnapshot() >= through, nil }); err != nil {
		return fmt.Errorf("purge erased addenda: wait for open snapshots: %w", err)
	}
	for _, r := range ranges {
		for _, t := range [...]Table{tableAddenda, tableKeyring} {
			lo := indexKey(nil, t, r.slot, r.from)
			hi := append(indexKey(nil, t, r.slot, r.to), 0xff)
			if err := l.db.Compact(ctx, lo, hi, false); err != nil {
				return fmt.Errorf("purge erased addenda: %w", err)
			}
		}
	}
	if err := l.awaitDeletion(ctx); err != nil {
		return fmt.Errorf("purge erased addenda: wait for deletion of files: %w", err)
	}
	return nil
}

// bury deletes the rows of erased addenda once more, which changes nothing that can be read, and flushes. A row and its first
// deletion may both have reached the lowest level while a snapshot kept them apart; a compaction looks at that level only if
// something above it overlaps.
func (l *Log) bury(ranges []purgeRange) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	b := l.db.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, r := range ranges {
		erased, err := l.erasedIn(r)
		if err != nil {
			return err
		}
		for _, index := range erased {
			for n := range nhi.MaxAddenda {
				for _, t := range [...]Table{tableAddenda, tableKeyring} {
					if err := b.Delete(ordinalKey(nil, t, r.slot, index, n), nil); err != nil {
						return err
					}
				}
			}
		}
	}
	if err := l.db.Apply(b, pebble.NoSync); err != nil {
		return l.breakDown(&FatalError{Op: "commit batch", Err: err})
	}
	return l.flush()
}

// erasedIn returns the leaves of a range whose addenda are erased, which alone may be buried.
func (l *Log) erasedIn(r purgeRange) (out []uint64, err error) {
	defer guard(&err)
	s := l.snapshot()
	defer s.release()
	s.scan(rowKey(nil, tableErasures, r.slot, nil), indexKey(nil, tableErasures, r.slot, r.from), false, func(raw, _ []byte) bool {
		index := binary.BigEndian.Uint64(raw[rowPrefix:])
		if index <= r.to {
			out = append(out, index)
		}
		return index < r.to
	})
	return out, err
}

// awaitDeletion waits until the table files that are in the directory but no longer part of the store are gone. Iterators keep
// them for a while.
func (l *Log) awaitDeletion(ctx context.Context) error {
	names, err := l.cfg.FS.List(l.cfg.Dir)
	if err != nil {
		return err
	}
	dead := make(map[string]bool)
	for _, name := range names {
		if l.cfg.FS.PathBase(name) == name && len(name) > 4 && name[len(name)-4:] == ".sst" {
			dead[name] = true
		}
	}
	return poll(ctx, func() (bool, error) {
		live, err := l.liveTables()
		if err != nil {
			return false, err
		}
		for name := range dead {
			// What a compaction was writing when the directory was read is part of the store by now, or soon.
			if live[name] {
				delete(dead, name)
				continue
			}
			_, err := l.cfg.FS.Stat(l.cfg.FS.PathJoin(l.cfg.Dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				delete(dead, name)
			} else if err != nil {
				return false, err
			}
		}
		return len(dead) == 0, nil
	})
}

func (l *Log) liveTables() (map[string]bool, error) {
	levels, err := l.db.SSTables()
	if err != nil {
		return nil, err
	}
	live := make(map[string]bool)
	for _, level := range levels {
		for i := range level {
			live[fmt.Sprintf("%06d.sst", uint64(level[i].BackingSSTNum))] = true
		}
	}
	return live, nil
}

// loadPurgeMark reads the mark. One that cannot be read is as good as none.
func (l *Log) loadPurgeMark() error {
	f, err := l.cfg.FS.Open(l.cfg.FS.PathJoin(l.cfg.Dir, purgeMarkFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open purge mark: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read purge mark: %w", err)
	}
	m := new(purgeMark)
	if len(b) != len(purgeMarkHead)+2*len(m)+1 || string(b[:len(purgeMarkHead)]) != purgeMarkHead {
		return nil
	}
	if _, err := hex.Decode(m[:], b[len(purgeMarkHead):len(b)-1]); err != nil {
		return nil
	}
	// A mark beyond the state is of another store's life: this one replays, and may erase, what the mark calls done.
	if binary.BigEndian.Uint64(m[:]) <= l.meta.applied {
		l.purged.Store(m)
	}
	return nil
}

// storePurgeMark writes the mark so that a crash leaves the old one or the new one.
func (l *Log) storePurgeMark(m purgeMark) error {
	path := l.cfg.FS.PathJoin(l.cfg.Dir, purgeMarkFile)
	if err := writeSynced(l.cfg.FS, path+".tmp", []byte(purgeMarkHead+hex.EncodeToString(m[:])+"\n")); err != nil {
		return err
	}
	if err := l.cfg.FS.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := l.cfg.FS.OpenDir(l.cfg.Dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return err
	}
	l.purged.Store(&m)
	return nil
}

func writeSynced(fsys vfs.FS, path string, b []byte) error {
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// poll waits until done says so, or fails.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(purgePoll)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
