package publish

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// mark is the largest tree this node has signed. It is written, synced, before any signature over it exists, so after a
// crash the node may sign the same head again and nothing else of that size or below.
type mark struct {
	Epoch uint64     `cbor:"1,keyasint"`
	Size  uint64     `cbor:"2,keyasint"`
	Root  nhi.Digest `cbor:"3,keyasint"`
}

// published is the newest checkpoint that reached its quorum, kept so that a restarted node serves it at once.
type published struct {
	Epoch uint64     `cbor:"1,keyasint"`
	Size  uint64     `cbor:"2,keyasint"`
	Root  nhi.Digest `cbor:"3,keyasint"`
	Time  int64      `cbor:"4,keyasint"` // Unix seconds of this node's own cosignature
	Note  []byte     `cbor:"5,keyasint"`
}

var (
	keyMark      = []byte("mark")
	keyPublished = []byte("published")
)

// store is the node's own synced store: nothing in it is replicated.
type store struct{ db *pebble.DB }

func openStore(dir string, fs vfs.FS) (*store, error) {
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		return nil, fmt.Errorf("open local store: %w", err)
	}
	return &store{db}, nil
}

// quiet drops the store's chatter; its errors come back from the calls.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("local store: "+format, args...))
}

func (s *store) get(key []byte, v any) (bool, error) {
	b, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", key, err)
	}
	defer closer.Close()
	if err := canon.Unmarshal(append([]byte(nil), b...), v); err != nil {
		return false, fmt.Errorf("read %s: %w", key, err)
	}
	return true, nil
}

func (s *store) put(key []byte, v any) error {
	b, err := canon.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if err := s.db.Set(key, b, pebble.Sync); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

func (s *store) close() error { return s.db.Close() }
