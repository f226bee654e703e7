package consensus

import (
	"encoding/binary"
	"fmt"
)

// Raft's network protocol is a byte that names the request and one MessagePack map; the answer is a string and a map.
// Nothing on the wire says how long a frame is, lengths inside are the sender's word, and the library believes the id
// that a request claims. The filter reads along before the library does, allocates nothing that depends on the input, and
// refuses the first byte that does not belong: the library only ever sees frames whose every byte was checked.

// Kinds of requests, the library's constants.
const (
	kindAppendEntries   = 0
	kindRequestVote     = 1
	kindInstallSnapshot = 2
	kindTimeoutNow      = 3
	kindRequestPreVote  = 4
)

const (
	// maxIDSize bounds a server id.
	maxIDSize = 256
	// maxDepth bounds nesting: request, entries, entry.
	maxDepth = 4
	// maxMapSize bounds the fields of a request or an entry.
	maxMapSize = 32
	// maxStringSize bounds one string or byte string: a command, or a configuration.
	maxStringSize = MaxCommandSize + 4096
	// maxRequestSize bounds a request: a full batch of the longest commands.
	maxRequestSize = maxAppendEntries*(MaxCommandSize+1024) + 4096
	// maxAnswerSize bounds an answer, both of its values.
	maxAnswerSize = 64 << 10
	maxKeySize    = 32
)

type filterState uint8

const (
	wantKind filterState = iota
	wantHead
	wantLength
	wantBody
)

// container is a map or array that is not complete.
type container struct {
	// left counts the values still to come; a map has two for each of its pairs.
	left  uint32
	isMap bool
}

// filter checks one direction of one connection. feed it every byte, in order.
type filter struct {
	// requests is true for the direction that carries requests.
	requests bool
	// id is the sender's proven identity; empty means that identities are not checked.
	id string
	// permit decides on a request before its body is read.
	permit func(kind byte) error

	state filterState
	kind  byte
	// values counts the complete values of this frame.
	values int
	size   int
	stack  [maxDepth]container
	depth  int
	// head is the byte of the value under way, lenBuf the bytes of its length so far, need how many there are.
	head   byte
	lenBuf [4]byte
	lenPos int
	need   int
	// body is what is left of a string, extension or number; capture says where it goes.
	body    uint32
	capture captureKind
	key     [maxKeySize]byte
	keyLen  int
	value   [maxIDSize]byte
	valLen  int
	sawID   bool
}

type captureKind uint8

const (
	captureNone captureKind = iota
	captureKey
	captureID
)

// midFrame reports whether a frame has begun and not ended.
func (f *filter) midFrame() bool { return f.size > 0 }

func (f *filter) bad(format string, args ...any) error {
	return &PeerError{ID: f.id, Reason: fmt.Sprintf(format, args...)}
}

// feed checks b. After an error the connection is lost and feed must not be called again.
func (f *filter) feed(b []byte) error {
	limit := maxAnswerSize
	if f.requests {
		limit = maxRequestSize
	}
	for len(b) > 0 {
		if f.size == 0 {
			f.begin()
		}
		n := 1
		switch f.state {
		case wantKind:
			f.kind = b[0]
			if f.kind > kindRequestPreVote || f.kind == kindInstallSnapshot {
				return f.bad("unknown request %d", f.kind)
			}
			if f.permit != nil {
				if err := f.permit(f.kind); err != nil {
					return err
				}
			}
			f.state = wantHead
		case wantHead:
			if err := f.onHead(b[0]); err != nil {
				return err
			}
		case wantLength:
			f.lenBuf[f.lenPos] = b[0]
			if f.lenPos++; f.lenPos == f.need {
				if err := f.onLength(); err != nil {
					return err
				}
			}
		case wantBody:
			n = int(min(uint32(len(b)), f.body))
			f.store(b[:n])
			if f.body -= uint32(n); f.body == 0 {
				if err := f.endString(); err != nil {
					return err
				}
			}
		}
		if f.size += n; f.size > limit {
			return f.bad("frame is longer than %d bytes", limit)
		}
		b = b[n:]
		if f.values == 1 && f.requests || f.values == 2 {
			if f.requests && f.id != "" && !f.sawID {
				return f.bad("request names no sender")
			}
			f.size = 0
		}
	}
	return nil
}

// begin prepares for the first byte of a frame.
func (f *filter) begin() {
	f.state, f.values, f.depth, f.sawID = wantKind, 0, 0, false
	if !f.requests {
		f.state = wantHead
	}
}

// atKey reports whether the next value is a key of the outermost map.
func (f *filter) atKey() bool {
	return f.depth == 1 && f.stack[0].isMap && f.stack[0].left%2 == 0
}

// atID reports whether the next value is the sender's id.
func (f *filter) atID() bool {
	return f.requests && f.depth == 1 && f.stack[0].isMap && f.stack[0].left%2 == 1 && string(f.key[:f.keyLen]) == "ID"
}

// onHead handles the first byte of a value.
func (f *filter) onHead(h byte) error {
	f.head = h
	isString := h >= 0xa0 && h <= 0xbf || h >= 0xc4 && h <= 0xc6 || h >= 0xd9 && h <= 0xdb
	isMap := h >= 0x80 && h <= 0x8f || h == 0xde || h == 0xdf
	switch {
	case f.depth == 0 && f.requests && !isMap:
		return f.bad("request is not a map")
	case f.atKey() && !isString:
		return f.bad("field name is not a string")
	case f.atID() && !isString:
		return f.bad("sender is not a string")
	}
	switch {
	case h <= 0x7f, h >= 0xe0, h == 0xc0, h == 0xc2, h == 0xc3:
		return f.endValue()
	case h <= 0x8f:
		return f.open(uint32(h&0x0f), true)
	case h <= 0x9f:
		return f.open(uint32(h&0x0f), false)
	case h <= 0xbf:
		return f.string(uint32(h & 0x1f))
	case h == 0xc1:
		return f.bad("invalid byte in frame")
	case h == 0xca, h == 0xcc, h == 0xcd, h == 0xce, h == 0xcf, h == 0xcb, h >= 0xd0 && h <= 0xd3:
		return f.skip(numberSize(h))
	case h >= 0xd4 && h <= 0xd8:
		return f.skip(1 + 1<<(h-0xd4))
	}
	switch h {
	case 0xc4, 0xc7, 0xd9:
		f.need = 1
	case 0xc5, 0xc8, 0xda, 0xdc, 0xde:
		f.need = 2
	default: // 0xc6, 0xc9, 0xdb, 0xdd, 0xdf
		f.need = 4
	}
	f.state, f.lenPos = wantLength, 0
	return nil
}

func numberSize(h byte) uint32 {
	switch h {
	case 0xcc, 0xd0:
		return 1
	case 0xcd, 0xd1:
		return 2
	case 0xca, 0xce, 0xd2:
		return 4
	default:
		return 8
	}
}

// onLength handles a complete length.
func (f *filter) onLength() error {
	var n uint32
	switch f.need {
	case 1:
		n = uint32(f.lenBuf[0])
	case 2:
		n = uint32(binary.BigEndian.Uint16(f.lenBuf[:]))
	default:
		n = binary.BigEndian.Uint32(f.lenBuf[:])
	}
	switch f.head {
	case 0xdc, 0xdd:
		return f.open(n, false)
	case 0xde, 0xdf:
		return f.open(n, true)
	case 0xc7, 0xc8, 0xc9:
		if n > maxMapSize {
			return f.bad("extension of %d bytes", n)
		}
		return f.skip(n + 1)
	}
	return f.string(n)
}

// open begins a map or an array of n elements.
func (f *filter) open(n uint32, isMap bool) error {
	if isMap && n > maxMapSize || n > maxAppendEntries {
		return f.bad("container of %d elements", n)
	}
	if n == 0 {
		return f.endValue()
	}
	if f.depth == maxDepth {
		return f.bad("nesting deeper than %d", maxDepth)
	}
	if isMap {
		n *= 2
	}
	f.stack[f.depth] = container{n, isMap}
	f.depth++
	f.state = wantHead
	return nil
}

// string begins a string of n bytes.
func (f *filter) string(n uint32) error {
	if n > maxStringSize {
		return f.bad("string of %d bytes", n)
	}
	f.capture = captureNone
	switch {
	case f.atKey():
		if n > maxKeySize {
			return f.bad("field name of %d bytes", n)
		}
		f.capture, f.keyLen = captureKey, 0
	case f.atID():
		if n > maxIDSize {
			return f.bad("sender of %d bytes", n)
		}
		f.capture, f.valLen = captureID, 0
	}
	f.body, f.state = n, wantBody
	if n == 0 {
		return f.endString()
	}
	return nil
}

// skip passes over n bytes that are no string.
func (f *filter) skip(n uint32) error {
	f.capture, f.body, f.state = captureNone, n, wantBody
	return nil
}

func (f *filter) store(b []byte) {
	switch f.capture {
	case captureKey:
		f.keyLen += copy(f.key[f.keyLen:], b)
	case captureID:
		f.valLen += copy(f.value[f.valLen:], b)
	}
}

func (f *filter) endString() error {
	if f.capture == captureID {
		if f.id != "" && string(f.value[:f.valLen]) != f.id {
			return f.bad("request claims to come from %q", f.value[:f.valLen])
		}
		f.sawID = true
	}
	return f.endValue()
}

// endValue closes a value and every container it completes.
func (f *filter) endValue() error {
	f.state = wantHead
	for f.depth > 0 {
		top := &f.stack[f.depth-1]
		if top.left--; top.left > 0 {
			return nil
		}
		f.depth--
	}
	f.values++
	return nil
}
