package ledger

import (
	"context"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// PutMinSuite sets the least suite of a class from the system log's first leaf on, as no event can while there is one suite.
func (l *Log) PutMinSuite(class registry.ObjectClass, suite nhi.Suite) error {
	key := binary.BigEndian.AppendUint64([]byte{byte(class)}, 0)
	row := canon.MustMarshal(map[uint64]uint64{1: uint64(suite), 2: 0})
	return l.db.Set(rowKey(nil, Table(registry.TableMinSuite), SystemSlot, key), row, pebble.NoSync)
}

// CompactAll moves every row down to the lowest level.
func (l *Log) CompactAll(ctx context.Context) error {
	if err := l.Sync(); err != nil {
		return err
	}
	return l.db.Compact(ctx, []byte{0}, []byte{0xff}, false)
}

// Rows returns every row of the state store but where the Raft log stands, for comparing two stores key by key.
func (l *Log) Rows() (map[string]string, error) {
	it, err := l.db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		out[string(it.Key())] = string(v)
	}
	return out, it.Close()
}

// CountRows returns the number of rows of a table.
func (l *Log) CountRows(t Table) (int, error) {
	rows, err := l.Rows()
	n := 0
	for k := range rows {
		if Table(k[0]) == t {
			n++
		}
	}
	return n, err
}

// Tables that tests count.
const (
	TableLeaves   = tableLeaves
	TableRequests = tableRequests
	TableTimers   = tableTimers
	TablePayloads = tablePayloads
)

// ParseCursor is what List does with a page cursor.
func ParseCursor(s string, newest bool) (uint64, error) { return parseCursor(s, newest) }

// EncodeCursor is the inverse of ParseCursor.
func EncodeCursor(newest bool, index uint64) string { return encodeCursor(newest, index) }

// WithSteps returns the query with another bound than MaxPageSteps.
func (q Query) WithSteps(n int) Query {
	q.steps = n
	return q
}

// Steps returns how often a page has looked into a list.
func (p *Page) Steps() int { return p.steps }
