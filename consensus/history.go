package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// keyHistory is the key of the configuration history in the stable store; Raft's own keys have other names.
var keyHistory = []byte("creto/configurations/v1")

// maxHistory bounds the configurations that are remembered. Older ones are only needed by a node whose state machine is
// that many membership changes behind; it replays its log from the start.
const maxHistory = 64

// configurationAt is a committed configuration and the index of its log entry. data is Raft's own encoding.
type configurationAt struct {
	index uint64
	data  []byte
}

// encodeHistory is: for each configuration, big-endian index (8), length (4), bytes.
func encodeHistory(h []configurationAt) []byte {
	var out []byte
	for _, c := range h {
		out = binary.BigEndian.AppendUint64(out, c.index)
		out = binary.BigEndian.AppendUint32(out, uint32(len(c.data)))
		out = append(out, c.data...)
	}
	return out
}

func decodeHistory(b []byte) ([]configurationAt, error) {
	var h []configurationAt
	var prev uint64
	for len(b) > 0 {
		if len(b) < 12 {
			return nil, fmt.Errorf("%w: configuration history is truncated", ErrCorrupt)
		}
		index, n := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
		b = b[12:]
		if uint64(n) > uint64(len(b)) || index <= prev || len(h) == maxHistory {
			return nil, fmt.Errorf("%w: configuration history does not parse", ErrCorrupt)
		}
		data := b[:n:n]
		if _, err := decodeConfiguration(data); err != nil {
			return nil, fmt.Errorf("%w: configuration history: %w", ErrCorrupt, err)
		}
		h, b, prev = append(h, configurationAt{index, data}), b[n:], index
	}
	return h, nil
}

// startSnapshot is the only snapshot Raft ever sees: metadata that say "state up to index exists", made anew at each
// start from what the state machine read back from its disk. With NoSnapshotRestoreOnStart Raft takes index, term and
// configuration from it and replays what follows, so that a restart does not read the whole log. Nothing is ever
// truncated because of it, so it need not be durable: should the state machine lose its tail in a power failure, the
// next start makes a snapshot with a lower index and the log still has the rest.
//
// Raft cannot create, open or receive a snapshot.
type startSnapshot struct{ meta *raft.SnapshotMeta }

var errNoSnapshots = errors.New("snapshots are not part of this protocol version")

func (s *startSnapshot) List() ([]*raft.SnapshotMeta, error) {
	if s.meta == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{s.meta}, nil
}

func (s *startSnapshot) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport) (raft.SnapshotSink, error) {
	return nil, errNoSnapshots
}

func (s *startSnapshot) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return nil, nil, errNoSnapshots
}

// newStartSnapshot checks the log against the state machine's applied index and returns what Raft starts from.
func newStartSnapshot(store storage, history []configurationAt, applied uint64) (*startSnapshot, error) {
	first, err := store.FirstIndex()
	if err != nil {
		return nil, fmt.Errorf("read first index: %w", err)
	}
	last, err := store.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("read last index: %w", err)
	}
	if last > 0 && first != 1 {
		return nil, fmt.Errorf("%w: it begins at entry %d, not 1", ErrCorrupt, first)
	}
	if applied > last {
		return nil, fmt.Errorf("%w: applied %d, last entry %d", ErrStateAhead, applied, last)
	}
	if applied == 0 {
		return &startSnapshot{}, nil
	}
	var entry raft.Log
	if err := store.GetLog(applied, &entry); err != nil {
		return nil, fmt.Errorf("read applied entry %d: %w", applied, err)
	}
	if entry.Type != raft.LogCommand || isTick(&entry) {
		return nil, fmt.Errorf("%w: applied entry %d is not a command", ErrCorrupt, applied)
	}
	for i := len(history) - 1; i >= 0; i-- {
		c := history[i]
		if c.index > applied {
			continue
		}
		configuration, err := decodeConfiguration(c.data)
		if err != nil {
			return nil, err
		}
		return &startSnapshot{meta: &raft.SnapshotMeta{
			Version: raft.SnapshotVersionMax, ID: "applied",
			Index: applied, Term: entry.Term,
			Configuration: configuration, ConfigurationIndex: c.index,
		}}, nil
	}
	// No remembered configuration is old enough: Raft reads the whole log, and the state machine adapter skips.
	return &startSnapshot{}, nil
}
