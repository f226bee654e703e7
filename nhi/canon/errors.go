package canon

import "fmt"

// Code names the rule that an input breaks. A Code is itself an error, so that
// callers can write errors.Is(err, canon.DuplicateKey).
type Code uint8

// The rules an input can break.
const (
	Malformed    Code = iota + 1 // not CBOR at all: reserved header, stray break
	Truncated                    // the input ends, or a length claims more than is there
	Trailing                     // bytes follow the one data item
	Indefinite                   // indefinite length (RFC 8949, 3.2)
	NotShortest                  // an integer or length not in its shortest form
	Unsorted                     // map keys not in bytewise order of their encodings
	DuplicateKey                 // the same map key twice in a row
	KeyType                      // a map key that is not an integer of 64 bits or a string
	Tag                          // a tagged item
	Float                        // a floating-point number
	Simple                       // undefined or an unassigned simple value
	BadUTF8                      // text that is not valid UTF-8
	TooDeep                      // more open arrays and maps than allowed
	TooLarge                     // more bytes than allowed
	TooMany                      // more pairs or elements than allowed
	WrongType                    // well-formed, but not the type the reader wants
	UnknownField                 // a map key that the Go struct does not have
	MissingField                 // a field of the Go struct that is not there
	NotCanonical                 // the decoded value encodes to other bytes
	Unsupported                  // the Go value has no canonical encoding
)

var codeText = [...]string{
	Malformed:    "malformed item",
	Truncated:    "truncated input",
	Trailing:     "trailing bytes",
	Indefinite:   "indefinite length",
	NotShortest:  "integer not in shortest form",
	Unsorted:     "map keys out of order",
	DuplicateKey: "duplicate map key",
	KeyType:      "map key of a forbidden type",
	Tag:          "tag",
	Float:        "floating-point number",
	Simple:       "forbidden simple value",
	BadUTF8:      "text is not valid UTF-8",
	TooDeep:      "nesting too deep",
	TooLarge:     "input too large",
	TooMany:      "too many entries",
	WrongType:    "item of another type",
	UnknownField: "unknown field",
	MissingField: "missing field",
	NotCanonical: "not the canonical encoding of its value",
	Unsupported:  "value without canonical encoding",
}

// String returns the rule in words.
func (c Code) String() string {
	if int(c) < len(codeText) && codeText[c] != "" {
		return codeText[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error returns the rule in words.
func (c Code) Error() string { return c.String() }

// Error is every refusal of this package.
type Error struct {
	Code   Code
	Offset int   // byte at which the rule was broken; -1 when it has no place
	Err    error // cause, where another package found it; may be nil
}

// Error says which rule was broken and where.
func (e *Error) Error() string {
	s := "canonical cbor: " + e.Code.String()
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is the Code of e.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
