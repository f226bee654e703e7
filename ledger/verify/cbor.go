package verify

import (
	"errors"

	"github.com/creto-systems/creto/nhi/canon"
)

// The leaf codec is written by hand over canon's Reader and Append functions, without reflection: every node encodes every
// leaf while it applies a command, and an auditor decodes ten million of them.

// Head bytes of a map, to which a count below 24 is added, and of an array of two (RFC 8949, 3.1).
const (
	majorMap   = 5 << 5
	arrayOfTwo = 4<<5 | 2
)

var (
	errRange        = errors.New("value is out of range")
	errNotCanonical = errors.New("field is present although it has the value that is left out, or lacks a part")
	errUnknownKey   = errors.New("unknown, duplicate, missing or unsorted key")
)

// reader reads canonical CBOR. The first error sticks, and everything read after it is zero, so that a decoder can be
// written as a sequence of reads with one check at the end. Byte strings it returns alias the input.
type reader struct {
	canon.Reader
	err error
}

func newReader(b []byte) *reader { return &reader{Reader: canon.NewReader(b)} }

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// uint reads an unsigned integer of at most max.
func (r *reader) uint(max uint64) uint64 {
	if r.err != nil {
		return 0
	}
	n, err := r.Uint()
	if err == nil && n > max {
		err = errRange
	}
	if err != nil {
		r.fail(err)
		return 0
	}
	return n
}

// bytes reads a byte string of at most max bytes.
func (r *reader) bytes(max int) []byte {
	if r.err != nil {
		return nil
	}
	b, err := r.Bytes()
	return r.bounded(b, err, max)
}

// text reads a text string of at most max bytes.
func (r *reader) text(max int) string {
	if r.err != nil {
		return ""
	}
	b, err := r.Text()
	return string(r.bounded(b, err, max))
}

func (r *reader) bounded(b []byte, err error, max int) []byte {
	if err == nil && len(b) > max {
		err = errRange
	}
	if err != nil {
		r.fail(err)
		return nil
	}
	return b
}

// fixed reads a byte string of exactly len(dst) bytes.
func (r *reader) fixed(dst []byte) {
	if r.err == nil {
		r.fail(r.Fixed(dst))
	}
}

// nonzero reads a byte string of exactly len(dst) bytes that are not all zero: zero is encoded by leaving the field out.
func (r *reader) nonzero(dst []byte) {
	r.fixed(dst)
	if r.err != nil {
		return
	}
	for _, b := range dst {
		if b != 0 {
			return
		}
	}
	r.fail(errNotCanonical)
}

// array reads the head of an array of at most max elements.
func (r *reader) array(max int) int {
	if r.err != nil {
		return 0
	}
	n, err := r.Array()
	return r.boundedCount(n, err, max)
}

// pairs reads the head of a map of at most max pairs.
func (r *reader) pairs(max int) int {
	if r.err != nil {
		return 0
	}
	n, err := r.Map()
	return r.boundedCount(n, err, max)
}

func (r *reader) boundedCount(n int, err error, max int) int {
	if err == nil && n > max {
		err = errRange
	}
	if err != nil {
		r.fail(err)
		return 0
	}
	return n
}

// key reads a key that must be k, and says whether it was.
func (r *reader) key(k uint64) bool {
	if r.uint(255) != k {
		r.fail(errUnknownKey)
	}
	return r.err == nil
}

// fixedMap reads the head of a map of exactly n pairs and its first key.
func (r *reader) fixedMap(n int, first uint64) bool {
	if r.pairs(n) != n {
		r.fail(errUnknownKey)
	}
	return r.key(first)
}

// fields walks a map whose keys are small unsigned integers in strictly ascending order.
type fields struct {
	r    *reader
	left int
	next uint64 // the least key that may come
}

func (r *reader) fields(max int) fields { return fields{r: r, left: r.pairs(max)} }

// key returns the next key, or false at the end of the map or after an error.
func (f *fields) key() (uint64, bool) {
	if f.left == 0 || f.r.err != nil {
		return 0, false
	}
	f.left--
	k := f.r.uint(31)
	if k < f.next {
		f.r.fail(errUnknownKey)
	}
	f.next = k + 1
	return k, f.r.err == nil
}

// done reports the first error, or that bytes are left over.
func (r *reader) done() error {
	if r.err != nil {
		return r.err
	}
	return r.End()
}
