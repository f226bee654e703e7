package invariants

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
)

// RaftLog is the Raft log of a stopped node.
type RaftLog struct {
	wal         *wal.WAL
	meta        *metadb.BoltMetaDB
	First, Last uint64
}

// OpenRaftLog opens the log in a node's directory. Opening does what a start of the node would do: a torn batch at the end is
// dropped.
func OpenRaftLog(nodeDir string) (*RaftLog, error) {
	dir := filepath.Join(nodeDir, "raft")
	r := &RaftLog{meta: &metadb.BoltMetaDB{}}
	var err error
	r.wal, err = wal.Open(dir, wal.WithLogger(hclog.New(&hclog.LoggerOptions{Output: io.Discard})), wal.WithMetaStore(r.meta),
		wal.WithSegmentFiler(segment.NewFiler(dir, fs.New())), wal.WithSegmentSize(80<<20))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log: %w", err), r.meta.Close())
	}
	var ferr, lerr error
	r.First, ferr = r.wal.FirstIndex()
	r.Last, lerr = r.wal.LastIndex()
	if err := errors.Join(ferr, lerr); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close closes the log.
func (r *RaftLog) Close() error { return errors.Join(r.wal.Close(), r.meta.Close()) }

// Entry returns one entry; ok is false for what is no command of the ledger (elections, configurations, read ticks). servers is
// set for a configuration.
func (r *RaftLog) Entry(index uint64) (e ledger.Entry, ok bool, servers []raft.Server, err error) {
	var l raft.Log
	if err := r.wal.GetLog(index, &l); err != nil {
		return e, false, nil, fmt.Errorf("read raft entry %d: %w", index, err)
	}
	if l.Index != index {
		return e, false, nil, fmt.Errorf("raft entry %d says it is %d", index, l.Index)
	}
	switch {
	case l.Type == raft.LogConfiguration:
		return e, false, raft.DecodeConfiguration(l.Data).Servers, nil
	case l.Type != raft.LogCommand || len(l.Extensions) > 0 && len(l.Data) == 0:
		return e, false, nil, nil
	}
	return ledger.Entry{Index: l.Index, Term: l.Term, Data: l.Data}, true, nil, nil
}

// Replayed says what a replay went through.
type Replayed struct {
	Commands, Configurations int
	Rows                     int
}

func (r Replayed) String() string {
	return fmt.Sprintf("%d commands, %d configurations, %d rows", r.Commands, r.Configurations, r.Rows)
}

// CheckRaftLog applies every command of a stopped node's Raft log, up to the index that its state store says it has applied,
// to an empty store in scratch, and compares the two stores key by key. On the way it checks that each server of each
// configuration was announced on the system log before. batch is how many entries are applied at a time.
func CheckRaftLog(nodeDir, scratch string, batch int) (Replayed, error) {
	var done Replayed
	node, err := Open("node", nodeDir)
	if err != nil {
		return done, err
	}
	applied, want := node.Snap.Index(), node.Snap.StateHash()
	if err := node.Close(); err != nil {
		return done, err
	}
	if err := replay(nodeDir, scratch, batch, applied, want, &done); err != nil {
		return done, fmt.Errorf("replay: %w", err)
	}
	done.Rows, err = sameRows(filepath.Join(nodeDir, "state"), scratch)
	return done, err
}

func replay(nodeDir, scratch string, batch int, applied uint64, want nhi.Digest, done *Replayed) (err error) {
	r, err := OpenRaftLog(nodeDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	l, err := ledger.Open(LedgerConfig(scratch))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if r.First != 1 || r.Last < applied {
		return fmt.Errorf("raft log has entries %d to %d, the state %d", r.First, r.Last, applied)
	}
	var pending []ledger.Entry
	flush := func() error {
		if len(pending) == 0 {
			return nil
		}
		_, err := l.Apply(pending)
		pending = pending[:0]
		return err
	}
	for i := r.First; i <= applied; i++ {
		e, command, servers, err := r.Entry(i)
		if err != nil {
			return err
		}
		switch {
		case command:
			done.Commands++
			if pending = append(pending, e); len(pending) < batch {
				continue
			}
			if err := flush(); err != nil {
				return err
			}
		case servers != nil:
			done.Configurations++
			if err := flush(); err != nil {
				return err
			}
			if err := announced(l, servers); err != nil {
				return fmt.Errorf("configuration at raft entry %d: %w", i, err)
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	s, err := l.Read()
	if err != nil {
		return err
	}
	got, index := s.StateHash(), s.Index()
	if err := s.Close(); err != nil {
		return err
	}
	if got != want || index != applied {
		return Violation{"I4", nodeDir, fmt.Sprintf("replay of %d commands gives state hash %x at %d, the node has %x at %d", done.Commands, got, index, want, applied)}
	}
	return l.Sync()
}

// announced: whoever stands in a configuration stands in the system log, as at least what the configuration makes it. Before
// the genesis only the founders can stand in one, and the genesis names them.
func announced(l *ledger.Log, servers []raft.Server) error {
	s, err := l.Read()
	if errors.Is(err, ledger.ErrNoLedger) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	members, err := s.Members()
	if err != nil {
		return err
	}
	for _, server := range servers {
		ok := false
		for _, m := range members {
			if m.ID.String() != string(server.ID) {
				continue
			}
			// A removal is announced first and carried out after, so a removed member may still stand in a configuration.
			ok = m.State == ledger.MemberVoter || m.State == ledger.MemberRemoved || m.State == ledger.MemberNonvoter && server.Suffrage == raft.Nonvoter
		}
		if !ok {
			return Violation{"I12", "raft log", fmt.Sprintf("server %s is %s and the system log has not said so", server.ID, server.Suffrage)}
		}
	}
	return nil
}

// sameRows compares two state stores key by key and returns the number of rows.
func sameRows(a, b string) (rows int, err error) {
	open := func(dir string) (*pebble.DB, *pebble.Iterator, error) {
		o := &pebble.Options{ReadOnly: true, Logger: quiet{}}
		o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
		db, err := pebble.Open(dir, o)
		if err != nil {
			return nil, nil, fmt.Errorf("open %s: %w", dir, err)
		}
		it, err := db.NewIter(nil)
		if err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		return db, it, nil
	}
	da, ia, err := open(a)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ia.Close(), da.Close()) }()
	db, ib, err := open(b)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ib.Close(), db.Close()) }()
	oka, okb := ia.First(), ib.First()
	for oka && okb {
		va, err := ia.ValueAndErr()
		if err != nil {
			return rows, err
		}
		vb, err := ib.ValueAndErr()
		if err != nil {
			return rows, err
		}
		if !bytes.Equal(ia.Key(), ib.Key()) {
			return rows, Violation{"I4", a, fmt.Sprintf("row %x stands where the replay has row %x", ia.Key(), ib.Key())}
		}
		if !bytes.Equal(va, vb) {
			return rows, Violation{"I4", a, fmt.Sprintf("row %x is %.64x, the replay has %.64x", ia.Key(), va, vb)}
		}
		rows++
		oka, okb = ia.Next(), ib.Next()
	}
	if err := errors.Join(ia.Error(), ib.Error()); err != nil {
		return rows, err
	}
	if oka != okb {
		return rows, Violation{"I4", a, fmt.Sprintf("after %d rows one store has more", rows)}
	}
	return rows, nil
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
