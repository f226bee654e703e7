package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/creto-systems/creto/nhi"
)

// state is what a view reads: a txn inside Apply, a Snapshot outside.
type state interface {
	get(raw []byte) ([]byte, bool)
	scan(prefix, from []byte, reverse bool, fn func(raw, value []byte) bool)
}

// storePanic carries a store error out of a view, through handler code that has no error to return.
type storePanic struct{ err error }

func must(err error) {
	if err != nil {
		panic(storePanic{err})
	}
}

// txn collects what one Apply call writes. Rows that may be read back before the batch is committed stand in the overlay as
// well; the others (leaves, payloads, tiles, postings) go into the batch only.
//
// The bytes that the state hash covers are collected per command: key and value of every domain row in order of writing;
// leaves, payloads and addenda by their digests. Rows that follow from these (heads, tiles, postings, seals) stay out, so
// that the hash does not depend on how commands fall into Apply calls.
//
// What is written reaches the store in order of table and key, each row once: the store's memtable takes sorted rows in a
// fraction of the time.
type txn struct {
	db      *pebble.DB
	overlay [256]*overlay      // by table
	blinds  [256]*pebble.Batch // by table: rows that are not in the overlay
	points  *pebble.Iterator   // for get: reused, because setting one up costs more than a lookup
	iter    *pebble.Iterator
	iterOut bool // iter is in use by a scan further up the stack
	hashed  []byte
	key     []byte // scratch
}

// overlay holds the rows of one table that this Apply has read or written.
type overlay struct {
	rows  map[string]row
	order []string // keys of written rows, sorted
	fresh []string // keys of written rows that are not in order yet
}

type row struct {
	value   []byte
	absent  bool
	written bool
}

func newTxn(db *pebble.DB) *txn {
	return &txn{db: db}
}

func (t *txn) close() error {
	var errs []error
	if t.points != nil {
		errs = append(errs, t.points.Close())
	}
	if t.iter != nil {
		errs = append(errs, t.iter.Close())
	}
	for _, b := range t.blinds {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	return errors.Join(errs...)
}

func (t *txn) table(tb byte) *overlay {
	o := t.overlay[tb]
	if o == nil {
		o = &overlay{rows: make(map[string]row)}
		t.overlay[tb] = o
	}
	return o
}

// get returns a row as of now. The value belongs to the txn.
func (t *txn) get(raw []byte) ([]byte, bool) {
	o := t.table(raw[0])
	if r, ok := o.rows[string(raw)]; ok {
		return r.value, !r.absent
	}
	if t.points == nil {
		it, err := t.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
		must(err)
		t.points = it
	}
	if !t.points.SeekPrefixGE(raw) {
		must(t.points.Error())
		o.rows[string(raw)] = row{absent: true}
		return nil, false
	}
	v, err := t.points.ValueAndErr()
	must(err)
	v = bytes.Clone(v)
	o.rows[string(raw)] = row{value: v}
	return v, true
}

// set writes a row that may be read back and enters the state hash. It keeps value.
func (t *txn) set(raw, value []byte) {
	t.table(raw[0]).put(raw, row{value: value, written: true})
	t.feed(1, raw, value)
}

// del deletes a row that may be read back; it enters the state hash.
func (t *txn) del(raw []byte) {
	t.table(raw[0]).put(raw, row{absent: true, written: true})
	t.feed(2, raw, nil)
}

// blind writes a row that nobody reads back in the same Apply and whose content the state hash covers otherwise.
func (t *txn) blind(raw, value []byte) { must(t.blindBatch(raw[0]).Set(raw, value, nil)) }

// blindDel is blind for a deletion.
func (t *txn) blindDel(raw []byte) { must(t.blindBatch(raw[0]).Delete(raw, nil)) }

func (t *txn) blindBatch(table byte) *pebble.Batch {
	b := t.blinds[table]
	if b == nil {
		b = t.db.NewBatch()
		t.blinds[table] = b
	}
	return b
}

// commit writes everything to the store in one batch.
func (t *txn) commit() (err error) {
	all := t.db.NewBatch()
	defer func() { err = errors.Join(err, all.Close()) }()
	for table := range t.overlay {
		if b := t.blinds[table]; b != nil {
			if err := all.Apply(b, nil); err != nil {
				return err
			}
		}
		o := t.overlay[table]
		if o == nil {
			continue
		}
		for _, k := range o.sorted() {
			r := o.rows[k]
			if r.absent {
				err = all.Delete([]byte(k), nil)
			} else {
				err = all.Set([]byte(k), r.value, nil)
			}
			if err != nil {
				return err
			}
		}
	}
	return all.Commit(pebble.NoSync)
}

// prefetch looks up rows before they are asked for one by one: in order, each lookup begins where the last one ended.
func (t *txn) prefetch(keys [][]byte) {
	slices.SortFunc(keys, bytes.Compare)
	for _, k := range keys {
		t.get(k)
	}
}

func (o *overlay) put(raw []byte, r row) {
	old, ok := o.rows[string(raw)]
	if ok && old.written {
		o.rows[string(raw)] = r
		return
	}
	k := string(raw)
	o.rows[k] = r
	o.fresh = append(o.fresh, k)
}

// sorted returns the keys of all written rows in order.
func (o *overlay) sorted() []string {
	if len(o.fresh) == 0 {
		return o.order
	}
	slices.Sort(o.fresh)
	if len(o.fresh) <= 8 {
		for _, k := range o.fresh {
			i, _ := slices.BinarySearch(o.order, k)
			o.order = slices.Insert(o.order, i, k)
		}
	} else {
		merged := make([]string, 0, len(o.order)+len(o.fresh))
		a, b := o.order, o.fresh
		for len(a) > 0 && len(b) > 0 {
			if a[0] < b[0] {
				merged, a = append(merged, a[0]), a[1:]
			} else {
				merged, b = append(merged, b[0]), b[1:]
			}
		}
		o.order = append(append(merged, a...), b...)
	}
	o.fresh = o.fresh[:0]
	return o.order
}

// feed adds one row to what the state hash of the command covers: op ‖ len(key) ‖ key ‖ len(value) ‖ value.
func (t *txn) feed(op byte, key, value []byte) {
	t.hashed = append(t.hashed, op)
	t.hashed = binary.BigEndian.AppendUint32(t.hashed, uint32(len(key)))
	t.hashed = append(t.hashed, key...)
	t.hashed = binary.BigEndian.AppendUint32(t.hashed, uint32(len(value)))
	t.hashed = append(t.hashed, value...)
}

// feedDigests adds a row by the digests of its content.
func (t *txn) feedDigests(key []byte, digests ...nhi.Digest) {
	t.hashed = append(t.hashed, 3)
	t.hashed = binary.BigEndian.AppendUint32(t.hashed, uint32(len(key)))
	t.hashed = append(t.hashed, key...)
	t.hashed = binary.BigEndian.AppendUint32(t.hashed, uint32(len(digests)*32))
	for i := range digests {
		t.hashed = append(t.hashed, digests[i][:]...)
	}
}

// scan merges the store with the overlay. fn may read and scan, but not write.
func (t *txn) scan(prefix, from []byte, reverse bool, fn func(raw, value []byte) bool) {
	it, release := t.iterator(prefix)
	defer release()
	var keys []string
	var rows map[string]row
	if o := t.overlay[prefix[0]]; o != nil {
		keys, rows = within(o.sorted(), prefix), o.rows
	}
	if reverse {
		scanReverse(it, keys, rows, prefix, from, fn)
	} else {
		scanForward(it, keys, rows, from, fn)
	}
	must(it.Error())
}

// iterator returns a store iterator bounded to prefix. One is kept for the whole Apply, as opening them costs more than
// the scan; a scan within a scan gets its own.
func (t *txn) iterator(prefix []byte) (*pebble.Iterator, func()) {
	if t.iterOut {
		it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
		must(err)
		return it, func() { must(it.Close()) }
	}
	if t.iter == nil {
		it, err := t.db.NewIter(nil)
		must(err)
		t.iter = it
	}
	t.iter.SetBounds(prefix, prefixEnd(prefix))
	t.iterOut = true
	return t.iter, func() { t.iterOut = false }
}

// within returns the part of sorted keys that begin with prefix.
func within(keys []string, prefix []byte) []string {
	lo, _ := slices.BinarySearch(keys, string(prefix))
	end := prefixEnd(prefix)
	if end == nil {
		return keys[lo:]
	}
	n, _ := slices.BinarySearch(keys[lo:], string(end))
	return keys[lo : lo+n]
}

func scanForward(it *pebble.Iterator, keys []string, rows map[string]row, from []byte, fn func(raw, value []byte) bool) {
	valid := false
	if from == nil {
		valid = it.First()
	} else {
		valid = it.SeekGE(from)
		i, _ := slices.BinarySearch(keys, string(from))
		keys = keys[i:]
	}
	for valid || len(keys) > 0 {
		if len(keys) > 0 && (!valid || keys[0] <= string(it.Key())) {
			k := keys[0]
			keys = keys[1:]
			if valid && string(it.Key()) == k {
				valid = it.Next()
			}
			if r := rows[k]; !r.absent && !fn([]byte(k), r.value) {
				return
			}
			continue
		}
		v, err := it.ValueAndErr()
		must(err)
		if !fn(it.Key(), v) {
			return
		}
		valid = it.Next()
	}
}

func scanReverse(it *pebble.Iterator, keys []string, rows map[string]row, prefix, from []byte, fn func(raw, value []byte) bool) {
	valid := false
	if from == nil {
		valid = it.Last()
	} else {
		after := append(bytes.Clone(from), 0) // the first key after from
		valid = it.SeekLT(after)
		i, _ := slices.BinarySearch(keys, string(after))
		keys = keys[:i]
	}
	for valid || len(keys) > 0 {
		if len(keys) > 0 && (!valid || keys[len(keys)-1] >= string(it.Key())) {
			k := keys[len(keys)-1]
			keys = keys[:len(keys)-1]
			if valid && string(it.Key()) == k {
				valid = it.Prev()
			}
			if r := rows[k]; !r.absent && !fn([]byte(k), r.value) {
				return
			}
			continue
		}
		v, err := it.ValueAndErr()
		must(err)
		if !fn(it.Key(), v) {
			return
		}
		valid = it.Prev()
	}
}
