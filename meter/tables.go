package meter

import (
	"encoding/binary"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
)

// The meter's tables. Keys are given without table and slot; integers in keys are big-endian, so that order is order.
const (
	TableAccount ledger.Table = 0x30 // account id → parent, type, depth, index
	TableChild   ledger.Table = 0x31 // parent ‖ account id → nothing
	TableQuota   ledger.Table = 0x32 // account id ‖ meter → the quotas of this meter at this account, by period
	TableCounter ledger.Table = 0x33 // level kind ‖ id ‖ meter ‖ 0 ‖ period ‖ start → charged, open, excess, over, notified
	TableLease   ledger.Table = 0x34 // lease id → the lease and its charge list
	TableUsage   ledger.Table = 0x35 // level ‖ hour start ‖ account ‖ agent ‖ link (‖ meter) → meters with sum and count
	TableZone    ledger.Table = 0x36 // slot 0: zone name → digest of its rules
	TableRules   ledger.Table = 0x37 // slot 0: digest → time-zone rules (TZif)
)

// Tables are those the meter writes.
func Tables() []ledger.Table {
	return []ledger.Table{TableAccount, TableChild, TableQuota, TableCounter, TableLease, TableUsage, TableZone, TableRules}
}

// Level kinds: the first byte of a counter's key keeps link budgets apart from accounts, whose ids clients choose.
const (
	levelAccount = 'a'
	levelLink    = 'l'
)

// rowVersion is the first byte of every value of the meter's tables.
const rowVersion = 1

// CorruptRowError is what the meter panics with when a row of its own cannot be read: the store is damaged or was written
// by another program, and the ledger stops the node with it.
type CorruptRowError struct {
	Table ledger.Table
	Key   []byte
}

// Error names table and key.
func (e *CorruptRowError) Error() string {
	return fmt.Sprintf("row %x of table %#02x is corrupt", e.Key, byte(e.Table))
}

// orderedTime makes the byte order of a signed time its numeric order.
func orderedTime(t int64) uint64 { return uint64(t) ^ 1<<63 }

func appendTime(b []byte, t int64) []byte { return binary.BigEndian.AppendUint64(b, orderedTime(t)) }

func readTime(b []byte) int64 { return int64(binary.BigEndian.Uint64(b) ^ 1<<63) }

// rowReader reads a value from front to back; the first thing that does not fit makes every later read fail.
type rowReader struct {
	b   []byte
	bad bool
}

func readRow(b []byte) rowReader {
	if len(b) == 0 || b[0] != rowVersion {
		return rowReader{bad: true}
	}
	return rowReader{b: b[1:]}
}

func (r *rowReader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *rowReader) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *rowReader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// bytes returns the next n bytes, which alias the row.
func (r *rowReader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *rowReader) str() []byte { return r.bytes(int(min(r.uint(), 1<<16))) }

func (r *rowReader) id() (id nhi.ID) {
	copy(id[:], r.bytes(len(id)))
	return id
}

// end reports whether the row was read to its end without a fault, and panics if not.
func (r *rowReader) end(t ledger.Table, key []byte) {
	if r.bad || len(r.b) != 0 {
		panic(&CorruptRowError{Table: t, Key: append([]byte(nil), key...)})
	}
}
