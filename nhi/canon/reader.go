package canon

import (
	"bytes"
	"math"
	"unicode/utf8"
)

// MaxDepth is how many arrays and maps may be open at once.
const MaxDepth = 8

// CBOR major types (RFC 8949, 3.1).
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
	major7     = 7
)

// Limits bounds what Item and CheckLimits accept, on top of the canonical form.
type Limits struct {
	Depth int // open arrays and maps at once; 0 or more than MaxDepth means MaxDepth
	Pairs int // pairs in any one map; 0 means as many as fit
}

// Check reports whether b is exactly one item in canonical form. It neither
// reflects nor allocates unless it refuses.
func Check(b []byte) error { return CheckLimits(b, Limits{}) }

// CheckLimits is Check with tighter limits.
func CheckLimits(b []byte, l Limits) error {
	r := Reader{buf: b}
	if _, err := r.Item(l); err != nil {
		return err
	}
	return r.End()
}

// Reader walks over canonical CBOR from front to back. Byte strings, text and
// raw items it returns alias the input. After an error its position is
// undefined. It is a plain value and not safe for concurrent use.
type Reader struct {
	buf []byte
	off int
}

// NewReader returns a Reader at the start of b.
func NewReader(b []byte) Reader { return Reader{buf: b} }

// Offset returns how many bytes have been read.
func (r *Reader) Offset() int { return r.off }

// End refuses unread bytes.
func (r *Reader) End() error {
	if r.off != len(r.buf) {
		return &Error{Code: Trailing, Offset: r.off}
	}
	return nil
}

// head reads one item header: major type and argument, the latter in its
// shortest form. For major type 7 arg is the simple value.
func (r *Reader) head() (major byte, arg uint64, code Code) {
	if r.off >= len(r.buf) {
		return 0, 0, Truncated
	}
	b := r.buf[r.off]
	major, info := b>>5, b&0x1f
	if major == major7 {
		return r.head7(info)
	}
	if info < 24 {
		r.off++
		return major, uint64(info), 0
	}
	var n int
	var least uint64 // below it a shorter form exists
	switch info {
	case 24:
		n, least = 1, 24
	case 25:
		n, least = 2, 1<<8
	case 26:
		n, least = 4, 1<<16
	case 27:
		n, least = 8, 1<<32
	case 31:
		if major >= majorBytes && major <= majorMap {
			return 0, 0, Indefinite
		}
		return 0, 0, Malformed
	default:
		return 0, 0, Malformed
	}
	if len(r.buf)-r.off-1 < n {
		return 0, 0, Truncated
	}
	for _, c := range r.buf[r.off+1 : r.off+1+n] {
		arg = arg<<8 | uint64(c)
	}
	if arg < least {
		return 0, 0, NotShortest
	}
	r.off += 1 + n
	return major, arg, 0
}

func (r *Reader) head7(info byte) (major byte, arg uint64, code Code) {
	switch {
	case info >= 20 && info <= 22:
		r.off++
		return major7, uint64(info), 0
	case info >= 25 && info <= 27:
		return 0, 0, Float
	case info >= 28:
		return 0, 0, Malformed
	}
	return 0, 0, Simple
}

// expect reads a header of the given major type.
func (r *Reader) expect(want byte) (uint64, error) {
	start := r.off
	major, arg, code := r.head()
	if code == 0 && major == want {
		return arg, nil
	}
	if code == 0 {
		code = WrongType
		if major == majorTag {
			code = Tag
		}
	}
	return 0, &Error{Code: code, Offset: start}
}

// Map reads a map header and returns its number of pairs. The caller reads the
// keys, and is the one who checks their order.
func (r *Reader) Map() (pairs int, err error) {
	start := r.off
	n, err := r.expect(majorMap)
	if err == nil && n > uint64(len(r.buf)-r.off)/2 {
		err = &Error{Code: Truncated, Offset: start}
	}
	if err != nil {
		return 0, err
	}
	return int(n), nil
}

// Array reads an array header and returns its number of elements, each of
// which is at least one byte of the input.
func (r *Reader) Array() (n int, err error) {
	start := r.off
	m, err := r.expect(majorArray)
	if err == nil && m > uint64(len(r.buf)-r.off) {
		err = &Error{Code: Truncated, Offset: start}
	}
	if err != nil {
		return 0, err
	}
	return int(m), nil
}

// Uint reads an unsigned integer.
func (r *Reader) Uint() (uint64, error) { return r.expect(majorUint) }

// Int reads an integer that fits into an int64.
func (r *Reader) Int() (int64, error) {
	start := r.off
	major, arg, code := r.head()
	switch {
	case code != 0:
	case arg > math.MaxInt64 || major > majorNint:
		code = WrongType
	case major == majorNint:
		return -1 - int64(arg), nil
	default:
		return int64(arg), nil
	}
	return 0, &Error{Code: code, Offset: start}
}

// Bool reads false or true.
func (r *Reader) Bool() (bool, error) {
	start := r.off
	v, err := r.expect(major7)
	if err != nil {
		return false, err
	}
	if v == 22 {
		return false, &Error{Code: WrongType, Offset: start}
	}
	return v == 21, nil
}

// Bytes reads a byte string, which aliases the input.
func (r *Reader) Bytes() ([]byte, error) { return r.str(majorBytes) }

// Text reads a text string as bytes of valid UTF-8, which alias the input.
func (r *Reader) Text() ([]byte, error) {
	start := r.off
	b, err := r.str(majorText)
	if err == nil && !utf8.Valid(b) {
		return nil, &Error{Code: BadUTF8, Offset: start}
	}
	return b, err
}

// Fixed reads a byte string of exactly len(dst) bytes into dst.
func (r *Reader) Fixed(dst []byte) error {
	start := r.off
	b, err := r.str(majorBytes)
	if err != nil {
		return err
	}
	if len(b) != len(dst) {
		return &Error{Code: WrongType, Offset: start}
	}
	copy(dst, b)
	return nil
}

func (r *Reader) str(major byte) ([]byte, error) {
	start := r.off
	n, err := r.expect(major)
	if err != nil {
		return nil, err
	}
	if n > uint64(len(r.buf)-r.off) {
		return nil, &Error{Code: Truncated, Offset: start}
	}
	b := r.buf[r.off : r.off+int(n) : r.off+int(n)]
	r.off += int(n)
	return b, nil
}

// Peek reports whether the next item begins with the unsigned integer key,
// which must be below 24, and reads it if so.
func (r *Reader) Peek(key byte) bool {
	if r.off < len(r.buf) && r.buf[r.off] == key && key < 24 {
		r.off++
		return true
	}
	return false
}

// Item checks and skips one whole item and returns its bytes, which alias the
// input.
func (r *Reader) Item(l Limits) ([]byte, error) {
	if l.Depth <= 0 || l.Depth > MaxDepth {
		l.Depth = MaxDepth
	}
	if l.Pairs <= 0 {
		l.Pairs = math.MaxInt
	}
	start := r.off
	if code := r.skip(l.Depth, uint64(l.Pairs)); code != 0 {
		return nil, &Error{Code: code, Offset: r.off}
	}
	return r.buf[start:r.off:r.off], nil
}

// skip checks one item. depth is how many arrays and maps may still be opened,
// which also bounds the recursion. On refusal r.off stays near the culprit.
func (r *Reader) skip(depth int, maxPairs uint64) Code {
	start := r.off
	major, n, code := r.head()
	if code != 0 {
		return code
	}
	left := uint64(len(r.buf) - r.off)
	switch major {
	case majorBytes, majorText:
		if n > left {
			r.off = start
			return Truncated
		}
		s := r.buf[r.off : r.off+int(n)]
		if major == majorText && !utf8.Valid(s) {
			return BadUTF8
		}
		r.off += int(n)
	case majorArray:
		if depth == 0 {
			r.off = start
			return TooDeep
		}
		if n > left {
			r.off = start
			return Truncated
		}
		for range n {
			if code := r.skip(depth-1, maxPairs); code != 0 {
				return code
			}
		}
	case majorMap:
		if depth == 0 {
			r.off = start
			return TooDeep
		}
		if n > left/2 {
			r.off = start
			return Truncated
		}
		if n > maxPairs {
			r.off = start
			return TooMany
		}
		return r.skipPairs(n, depth-1, maxPairs)
	case majorTag:
		r.off = start
		return Tag
	}
	return 0
}

// skipPairs checks n pairs whose keys must rise strictly in the bytewise order
// of their encodings (RFC 8949, 4.2.1).
func (r *Reader) skipPairs(n uint64, depth int, maxPairs uint64) Code {
	var last []byte
	for range n {
		start := r.off
		if start < len(r.buf) {
			if m := r.buf[start] >> 5; m == majorArray || m == majorMap || m == major7 {
				return KeyType
			}
		}
		if code := r.skip(0, 0); code != 0 {
			return code
		}
		key := r.buf[start:r.off]
		if key[0] == majorNint<<5|27 && key[1] >= 0x80 {
			r.off = start
			return KeyType // below -2^63: no Go integer, and so no map, has this key
		}
		if last != nil {
			if c := bytes.Compare(last, key); c >= 0 {
				r.off = start
				if c == 0 {
					return DuplicateKey
				}
				return Unsorted
			}
		}
		last = key
		if code := r.skip(depth, maxPairs); code != 0 {
			return code
		}
	}
	return 0
}
