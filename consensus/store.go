package consensus

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// storage is what raft-wal offers: the log and the small stable store (term, vote) beside it.
type storage interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// walStore is raft-wal with its metadata file, which it does not close itself.
type walStore struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

// openWAL opens or creates the log in dir.
func openWAL(dir string, log hclog.Logger, files types.VFS) (*walStore, error) {
	return openSegments(dir, log, files, segmentSize)
}

func openSegments(dir string, log hclog.Logger, files types.VFS, size int) (*walStore, error) {
	if files == nil {
		files = fs.New()
	}
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(size), wal.WithMetaStore(meta),
		wal.WithSegmentFiler(segment.NewFiler(dir, files)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), meta.Close())
	}
	return &walStore{w, meta}, nil
}

// Close closes both.
func (w *walStore) Close() error { return errors.Join(w.WAL.Close(), w.meta.Close()) }

// failstop stands between Raft and its storage. Once armed, it never returns an error to Raft: the first error,
// and the first call that takes longer than its patience, stop the node, and this call and all later ones block until the node
// is closed. The library, given an error, would go on: as a follower it may then commit entries that were replaced, and
// as a leader it keeps its leadership (see DESIGN.md).
//
// After a failed or late write nothing is known about what the disk holds, so there is no retry either: fsync on the same
// file may report success for pages that were dropped.
type failstop struct {
	inner    storage
	patience patience
	fail     func(code int, err error)
	// late is told of a call beyond patience.handOver; leading is whether this node leads.
	late    func(op string)
	leading func() bool
	// dead is closed by the first fatal error of the node, from whatever part; release by Close.
	dead, release <-chan struct{}
	// armed is false while Open runs, in which errors are returned to the caller.
	armed   atomic.Bool
	observe func(op string, took time.Duration)
}

func (s *failstop) arm() { s.armed.Store(true) }

// block ends the calling goroutine, with its deferred calls, once the node is closed.
func (s *failstop) block() {
	<-s.release
	runtime.Goexit()
}

func (s *failstop) isDead() bool {
	select {
	case <-s.dead:
		return true
	default:
		return false
	}
}

// do runs one storage call.
func (s *failstop) do(op string, call func() error) error {
	if !s.armed.Load() {
		return guard(call)
	}
	if s.isDead() {
		s.block()
	}
	start := time.Now()
	watch := s.watch(op)
	err := guard(call)
	watch.end()
	if err != nil {
		s.fail(ExitStorage, fmt.Errorf("%s: %w", op, err))
		// Also when the node is being closed and fail has nothing to do any more.
		s.block()
	}
	if s.isDead() {
		s.block()
	}
	s.observe(op, time.Since(start))
	return nil
}

// guard turns a panic of the store, which decodes what it reads without much suspicion, into an error.
func guard(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	return call()
}

// IsMonotonic tells Raft that the log has no gaps.
func (s *failstop) IsMonotonic() bool { return true }

func (s *failstop) FirstIndex() (i uint64, err error) {
	err = s.do("read first index", func() error { i, err = s.inner.FirstIndex(); return err })
	return i, err
}

func (s *failstop) LastIndex() (i uint64, err error) {
	err = s.do("read last index", func() error { i, err = s.inner.LastIndex(); return err })
	return i, err
}

// GetLog returns raft.ErrLogNotFound for an index outside the log, which Raft asks for in the course of normal
// replication; inside the log a missing entry is corruption.
func (s *failstop) GetLog(index uint64, log *raft.Log) error {
	missing := false
	err := s.do("read log entry", func() error {
		err := s.inner.GetLog(index, log)
		if errors.Is(err, raft.ErrLogNotFound) {
			first, err1 := s.inner.FirstIndex()
			last, err2 := s.inner.LastIndex()
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if index < first || index > last || last == 0 {
				missing = true
				return nil
			}
			return fmt.Errorf("%w: entry %d is missing between %d and %d", ErrCorrupt, index, first, last)
		}
		if err != nil {
			return err
		}
		if log.Index != index {
			return fmt.Errorf("%w: entry %d says it is entry %d", ErrCorrupt, index, log.Index)
		}
		return nil
	})
	if err == nil && missing {
		return raft.ErrLogNotFound
	}
	return err
}

func (s *failstop) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs refuses entries that would make the library panic when it applies them, so that they do not get into the
// log, where they would make it panic at every start.
func (s *failstop) StoreLogs(logs []*raft.Log) error {
	return s.do("append to log", func() error {
		for _, l := range logs {
			switch l.Type {
			case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
			case raft.LogConfiguration:
				if _, err := decodeConfiguration(l.Data); err != nil {
					return fmt.Errorf("entry %d: %w", l.Index, err)
				}
			default:
				return fmt.Errorf("entry %d has unknown type %d", l.Index, l.Type)
			}
		}
		return s.inner.StoreLogs(logs)
	})
}

func (s *failstop) DeleteRange(min, max uint64) error {
	return s.do("delete from log", func() error { return s.inner.DeleteRange(min, max) })
}

func (s *failstop) Set(key, val []byte) error {
	return s.do("write stable store", func() error { return s.inner.Set(key, val) })
}

func (s *failstop) Get(key []byte) (val []byte, err error) {
	err = s.do("read stable store", func() error { val, err = s.inner.Get(key); return err })
	return val, err
}

func (s *failstop) SetUint64(key []byte, val uint64) error {
	return s.do("write stable store", func() error { return s.inner.SetUint64(key, val) })
}

func (s *failstop) GetUint64(key []byte) (val uint64, err error) {
	err = s.do("read stable store", func() error { val, err = s.inner.GetUint64(key); return err })
	return val, err
}

// decodeConfiguration is raft.DecodeConfiguration without its panic.
func decodeConfiguration(data []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode configuration: %v", p)
		}
	}()
	return raft.DecodeConfiguration(data), nil
}
