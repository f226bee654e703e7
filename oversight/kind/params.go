package kind

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
)

// Bounds of parameters. They lie within those of a policy request, so that a policy sees all of them.
const (
	MaxParameters      = 16 << 10 // bytes of the canonical form
	MaxParameterDepth  = 6        // objects and arrays open at once
	MaxParameterKeys   = 64       // of one object
	MaxParameterValues = 512      // altogether
	MaxParameterString = 4096     // bytes of one string
	maxParameterKey    = 64       // bytes of one key
	maxSafeInteger     = 1<<53 - 1
)

// Parameters returns the canonical form (RFC 8785) of the parameters of an action: v is anything that encoding/json turns
// into an object. It refuses what a policy could not see: null, fractions, integers beyond 2^53−1 (write those as strings).
func Parameters(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode parameters: %w", err)
	}
	if len(raw) > 8*MaxParameters {
		return nil, invalid("parameters", fmt.Sprintf("have more than %d bytes", MaxParameters))
	}
	b, err := jcs.Transform(raw)
	if err != nil {
		return nil, fmt.Errorf("encode parameters: %w", err)
	}
	if _, err := ParseParameters(b); err != nil {
		return nil, err
	}
	return b, nil
}

// ParseParameters parses the parameters of an action. It accepts exactly their canonical form, one JSON object as RFC 8785
// writes it, within the bounds of this package. Values are int64, string, bool, []any and map[string]any.
func ParseParameters(b []byte) (map[string]any, error) {
	if len(b) > MaxParameters {
		return nil, invalid("parameters", fmt.Sprintf("have more than %d bytes", MaxParameters))
	}
	if !utf8.Valid(b) {
		return nil, invalid("parameters", "are not valid UTF-8")
	}
	p := paramParser{b: b, values: MaxParameterValues}
	if len(b) == 0 || b[0] != '{' {
		return nil, invalid("parameters", "are not a JSON object")
	}
	v, ok := p.value(MaxParameterDepth)
	if ok && p.i != len(b) {
		p.fail("bytes follow the object")
		ok = false
	}
	if !ok {
		return nil, invalid("parameters", fmt.Sprintf("are not canonical at byte %d: %s", p.i, p.why))
	}
	return v.(map[string]any), nil
}

// paramParser reads one canonical JSON value. It works with integers alone, so that it gives the same answer on every
// machine.
type paramParser struct {
	b      []byte
	i      int
	values int // how many more may come
	why    string
}

func (p *paramParser) fail(why string) bool {
	if p.why == "" {
		p.why = why
	}
	return false
}

func (p *paramParser) next(c byte) bool {
	if p.i < len(p.b) && p.b[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *paramParser) value(depth int) (any, bool) {
	if p.values--; p.values < 0 {
		return nil, p.fail(fmt.Sprintf("more than %d values", MaxParameterValues))
	}
	if p.i >= len(p.b) {
		return nil, p.fail("the end comes too early")
	}
	switch c := p.b[p.i]; {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		return p.text(MaxParameterString)
	case c == '-' || c >= '0' && c <= '9':
		return p.integer()
	case p.word("true"):
		return true, true
	case p.word("false"):
		return false, true
	case p.word("null"):
		return nil, p.fail("null, which policies cannot see: leave the member out")
	}
	return nil, p.fail("no value begins like this")
}

func (p *paramParser) word(w string) bool {
	if len(p.b)-p.i >= len(w) && string(p.b[p.i:p.i+len(w)]) == w {
		p.i += len(w)
		return true
	}
	return false
}

func (p *paramParser) object(depth int) (any, bool) {
	if depth == 0 {
		return nil, p.fail(fmt.Sprintf("nested deeper than %d", MaxParameterDepth))
	}
	p.i++
	m := make(map[string]any)
	if p.next('}') {
		return m, true
	}
	last := ""
	for {
		key, ok := p.text(maxParameterKey)
		if !ok {
			return nil, false
		}
		k := key.(string)
		if !validKey(k) {
			return nil, p.fail("a key that is not printable ASCII without spaces, quotes and backslashes")
		}
		// All keys are ASCII, where the order of RFC 8785 (by UTF-16 units) is that of bytes.
		if k <= last {
			return nil, p.fail("keys that are not sorted and unique")
		}
		last = k
		if len(m) == MaxParameterKeys {
			return nil, p.fail(fmt.Sprintf("more than %d keys in one object", MaxParameterKeys))
		}
		if !p.next(':') {
			return nil, p.fail("want ':'")
		}
		if m[k], ok = p.value(depth - 1); !ok {
			return nil, false
		}
		switch {
		case p.next('}'):
			return m, true
		case !p.next(','):
			return nil, p.fail("want ',' or '}'")
		}
	}
}

func (p *paramParser) array(depth int) (any, bool) {
	if depth == 0 {
		return nil, p.fail(fmt.Sprintf("nested deeper than %d", MaxParameterDepth))
	}
	p.i++
	a := []any{}
	if p.next(']') {
		return a, true
	}
	for {
		v, ok := p.value(depth - 1)
		if !ok {
			return nil, false
		}
		a = append(a, v)
		switch {
		case p.next(']'):
			return a, true
		case !p.next(','):
			return nil, p.fail("want ',' or ']'")
		}
	}
}

// integer reads an integer as ECMAScript writes it: no sign but a minus, no leading zero, no minus zero.
func (p *paramParser) integer() (any, bool) {
	start := p.i
	p.next('-')
	digits := p.i
	for p.i < len(p.b) && p.b[p.i] >= '0' && p.b[p.i] <= '9' {
		p.i++
	}
	if p.i < len(p.b) && (p.b[p.i] == '.' || p.b[p.i] == 'e' || p.b[p.i] == 'E') {
		return nil, p.fail("a number that is not an integer up to 2^53−1: write it as a string")
	}
	n, err := strconv.ParseInt(string(p.b[start:p.i]), 10, 64)
	if err != nil || n > maxSafeInteger || n < -maxSafeInteger {
		return nil, p.fail("a number that is not an integer up to 2^53−1: write it as a string")
	}
	if p.b[digits] == '0' && (p.i-digits > 1 || digits > start) {
		return nil, p.fail("a number that is not in its shortest form")
	}
	return n, true
}

// text reads a string as RFC 8785, 3.2.2.2 writes it: escapes only where JSON demands one, and then the shortest.
func (p *paramParser) text(most int) (any, bool) {
	if !p.next('"') {
		return nil, p.fail("want '\"'")
	}
	var out []byte
	for p.i < len(p.b) {
		c := p.b[p.i]
		switch {
		case c == '"':
			p.i++
			return string(out), true
		case len(out) >= most:
			return nil, p.fail(fmt.Sprintf("a string of more than %d bytes", most))
		case c < 0x20:
			return nil, p.fail("a control character that is not escaped")
		case c == '\\':
			e, n := unescape(p.b[p.i:])
			if n == 0 {
				return nil, p.fail("an escape that RFC 8785 writes otherwise")
			}
			out = append(out, e)
			p.i += n
		default:
			out = append(out, c)
			p.i++
		}
	}
	return nil, p.fail("a string that does not end")
}

// unescape returns the byte that a canonical escape at the beginning of b stands for, and its length; 0 = not canonical.
func unescape(b []byte) (c byte, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\':
		return b[1], 2
	case 'b':
		return '\b', 2
	case 't':
		return '\t', 2
	case 'n':
		return '\n', 2
	case 'f':
		return '\f', 2
	case 'r':
		return '\r', 2
	case 'u':
		if len(b) < 6 || b[2] != '0' || b[3] != '0' || b[4] != '0' && b[4] != '1' {
			return 0, 0
		}
		low := b[5]
		switch {
		case low >= '0' && low <= '9':
			low -= '0'
		case low >= 'a' && low <= 'f':
			low -= 'a' - 10
		default:
			return 0, 0
		}
		c = (b[4]-'0')<<4 | low
		switch c {
		case '\b', '\t', '\n', '\f', '\r':
			return 0, 0
		}
		return c, 6
	}
	return 0, 0
}

func validKey(s string) bool { return len(s) <= maxParameterKey && plain(s) }

// plain reports whether s is not empty, printable ASCII, and free of spaces, quotes and backslashes, so that JSON writes it
// as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return len(s) > 0
}
