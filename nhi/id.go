package nhi

import (
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Digest is a SHA-256 digest.
type Digest = [32]byte

// ID names a tenant, human, agent, service, node or account: 16 random bytes
// that say nothing about what they name. In text it is 26 characters of
// lower-case base32 (RFC 4648, without padding).
type ID [16]byte

// KeyID identifies a public key of a suite:
// SHA-256("creto/key/v1\0" ‖ suite name ‖ 0x00 ‖ public key). In text it is hex.
type KeyID [32]byte

// LinkID identifies a delegation link: SHA-256("creto/dlg/v1\0" ‖ body). In text
// it is hex.
type LinkID [32]byte

// ErrBadID is returned for text that is not the one spelling of an id.
var ErrBadID = errors.New("malformed id")

const idTextLen = 26

// idEncoding is RFC 4648 base32 in lower case.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID draws an ID from random.
func NewID(random io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return ID{}, fmt.Errorf("draw id: %w", err)
	}
	return id, nil
}

// ParseID parses the text form of an ID. Of the spellings that decode to the
// same bytes only the one String writes is accepted.
func ParseID(s string) (ID, error) {
	var id ID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// String returns the text form of id.
func (id ID) String() string { return idEncoding.EncodeToString(id[:]) }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns the text form of id.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses the text form of an ID, as ParseID does.
func (id *ID) UnmarshalText(text []byte) error {
	// The decoder skips line breaks and ignores the two spare bits of the last
	// character; the length and the way back leave one spelling.
	var out [idTextLen]byte
	if len(text) != idTextLen {
		return fmt.Errorf("parse id %q: %w", clip(text), ErrBadID)
	}
	n, err := idEncoding.Decode(out[:], text)
	if err != nil || n != len(id) || idEncoding.EncodeToString(out[:n]) != string(text) {
		return fmt.Errorf("parse id %q: %w", clip(text), ErrBadID)
	}
	copy(id[:], out[:n])
	return nil
}

// ParseKeyID parses the text form of a KeyID.
func ParseKeyID(s string) (KeyID, error) {
	var k KeyID
	err := k.UnmarshalText([]byte(s))
	return k, err
}

// String returns k in hex.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// IsZero reports whether k identifies nothing.
func (k KeyID) IsZero() bool { return k == KeyID{} }

// MarshalText returns k in hex.
func (k KeyID) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText parses 64 lower-case hex digits.
func (k *KeyID) UnmarshalText(text []byte) error { return parseHex32((*[32]byte)(k), text, "key id") }

// ParseLinkID parses the text form of a LinkID.
func ParseLinkID(s string) (LinkID, error) {
	var l LinkID
	err := l.UnmarshalText([]byte(s))
	return l, err
}

// String returns l in hex.
func (l LinkID) String() string { return hex.EncodeToString(l[:]) }

// IsZero reports whether l names no link.
func (l LinkID) IsZero() bool { return l == LinkID{} }

// MarshalText returns l in hex.
func (l LinkID) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText parses 64 lower-case hex digits.
func (l *LinkID) UnmarshalText(text []byte) error {
	return parseHex32((*[32]byte)(l), text, "link id")
}

func parseHex32(dst *[32]byte, text []byte, what string) error {
	var out [32]byte
	if len(text) != 2*len(out) {
		return fmt.Errorf("parse %s %q: %w", what, clip(text), ErrBadID)
	}
	for _, c := range text {
		if c >= 'A' && c <= 'F' {
			return fmt.Errorf("parse %s %q: %w", what, clip(text), ErrBadID)
		}
	}
	if _, err := hex.Decode(out[:], text); err != nil {
		return fmt.Errorf("parse %s %q: %w", what, clip(text), ErrBadID)
	}
	*dst = out
	return nil
}

// clip keeps hostile text out of logs and errors beyond a recognisable start.
func clip(b []byte) string {
	if len(b) > 80 {
		return string(b[:80]) + "…"
	}
	return string(b)
}
