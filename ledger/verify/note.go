package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/creto-systems/creto/nhi"
)

// Bounds of a signed note.
const (
	MaxNoteSize       = 1 << 20 // bytes of a note with all its signatures
	MaxNoteSignatures = 100     // signature lines
)

// ErrNote is what every malformed note, checkpoint, verifier key and cosignature matches with errors.Is.
var ErrNote = errors.New("malformed note")

// ErrSignature is what a signature that does not hold matches with errors.Is.
var ErrSignature = errors.New("signature does not hold")

// Note is a signed note (c2sp.org/signed-note): a text that ends with a newline, and signature lines. Parse and Marshal
// are inverse to each other, byte for byte.
type Note struct {
	Text       string
	Signatures []NoteSignature
}

// NoteSignature is one signature line of a note. Blob is what follows the four bytes of the key ID.
type NoteSignature struct {
	Name  string
	KeyID uint32
	Blob  []byte
}

const sigPrefix = "— " // em dash U+2014 and one space

// strictBase64 refuses non-zero trailing bits; newlines, which the decoder would skip, cannot occur inside a line.
var strictBase64 = base64.StdEncoding.Strict()

// ParseNote parses a note strictly. It verifies nothing.
func ParseNote(b []byte) (*Note, error) {
	if len(b) > MaxNoteSize {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrNote, MaxNoteSize)
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrNote)
	}
	for _, c := range b {
		if c < 0x20 && c != '\n' {
			return nil, fmt.Errorf("%w: control character", ErrNote)
		}
	}
	split := bytes.LastIndex(b, []byte("\n\n"))
	if split < 0 {
		return nil, fmt.Errorf("%w: no blank line before the signatures", ErrNote)
	}
	text, lines := b[:split+1], b[split+2:]
	if len(lines) == 0 || lines[len(lines)-1] != '\n' {
		return nil, fmt.Errorf("%w: no newline at the end", ErrNote)
	}
	n := &Note{Text: string(text)}
	for len(lines) > 0 {
		if len(n.Signatures) == MaxNoteSignatures {
			return nil, fmt.Errorf("%w: more than %d signatures", ErrNote, MaxNoteSignatures)
		}
		i := bytes.IndexByte(lines, '\n')
		sig, err := parseSignatureLine(string(lines[:i]))
		if err != nil {
			return nil, err
		}
		n.Signatures = append(n.Signatures, sig)
		lines = lines[i+1:]
	}
	return n, nil
}

// ParseSignatureLines parses what a witness answers: one or more signature lines, each ended by a newline.
func ParseSignatureLines(b []byte) ([]NoteSignature, error) {
	n, err := ParseNote(append([]byte("x\n\n"), b...))
	if err != nil {
		return nil, err
	}
	return n.Signatures, nil
}

func parseSignatureLine(line string) (NoteSignature, error) {
	rest, ok := strings.CutPrefix(line, sigPrefix)
	if !ok {
		return NoteSignature{}, fmt.Errorf("%w: a signature line does not begin with an em dash", ErrNote)
	}
	name, b64, _ := strings.Cut(rest, " ")
	blob, err := decodeBase64(b64)
	if err != nil || len(blob) < 5 || !validKeyName(name) {
		return NoteSignature{}, fmt.Errorf("%w: bad signature line", ErrNote)
	}
	return NoteSignature{Name: name, KeyID: binary.BigEndian.Uint32(blob), Blob: blob[4:]}, nil
}

// decodeBase64 decodes the one canonical form.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, ErrNote
	}
	return strictBase64.DecodeString(s)
}

// validKeyName holds a key name to c2sp.org/signed-note, and to MaxOriginSize.
func validKeyName(s string) bool {
	return s != "" && len(s) <= MaxOriginSize && utf8.ValidString(s) && !strings.Contains(s, "+") &&
		strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r < 0x20 }) < 0
}

// Marshal returns the note's bytes.
func (n *Note) Marshal() []byte {
	out := append([]byte(n.Text), '\n')
	for _, s := range n.Signatures {
		out = s.AppendTo(out)
	}
	return out
}

// AppendTo appends the signature line, with its newline, to dst.
func (s NoteSignature) AppendTo(dst []byte) []byte {
	blob := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(s.Blob)), s.KeyID)
	blob = append(blob, s.Blob...)
	dst = append(append(append(dst, sigPrefix...), s.Name...), ' ')
	return append(base64.StdEncoding.AppendEncode(dst, blob), '\n')
}

// KeyType is the type byte of a verifier key (c2sp.org/signed-note).
type KeyType byte

// The key types that this package knows.
const (
	KeyEd25519     KeyType = 0x01 // Ed25519 over the note's text: logs
	KeyCosignature KeyType = 0x04 // Ed25519 timestamped cosignature, cosignature/v1
	KeyMLDSA44     KeyType = 0x06 // ML-DSA-44 (sub)tree cosignature, subtree/v1
)

const (
	ed25519KeySize = 32
	ed25519SigSize = 64
	mldsa44KeySize = 1312
	mldsa44SigSize = 2420
)

// VKey is a verifier key. Its text form is "<name>+<8 hex digits>+<base64 of type and key>".
type VKey struct {
	Name string
	Type KeyType
	Key  string // the raw public key's bytes; a string, so that a VKey can be compared and used as a map key
}

// NewVKey checks name, type and key length and returns the verifier key.
func NewVKey(name string, typ KeyType, key []byte) (VKey, error) {
	if !validKeyName(name) {
		return VKey{}, fmt.Errorf("%w: key name %q", ErrNote, clip(name))
	}
	want := ed25519KeySize
	switch typ {
	case KeyEd25519, KeyCosignature:
	case KeyMLDSA44:
		want = mldsa44KeySize
	default:
		return VKey{}, fmt.Errorf("%w: key type %#02x is not one of 01, 04, 06", ErrNote, byte(typ))
	}
	if len(key) != want {
		return VKey{}, fmt.Errorf("%w: a key of type %#02x has %d bytes, not %d", ErrNote, byte(typ), want, len(key))
	}
	return VKey{Name: name, Type: typ, Key: string(key)}, nil
}

// ParseVKey parses the text form strictly; the key ID in it must be the one computed from name and key.
func ParseVKey(text string) (VKey, error) {
	name, rest, _ := strings.Cut(text, "+")
	id, b64, _ := strings.Cut(rest, "+")
	raw, err := decodeBase64(b64)
	if err != nil || len(raw) < 2 {
		return VKey{}, fmt.Errorf("%w: verifier key %q", ErrNote, clip(text))
	}
	v, err := NewVKey(name, KeyType(raw[0]), raw[1:])
	if err != nil {
		return VKey{}, err
	}
	if v.String() != text {
		return VKey{}, fmt.Errorf("%w: the key ID %q of verifier key %q is not that of the key", ErrNote, clip(id), clip(name))
	}
	return v, nil
}

// ID returns the key ID: the first four bytes of SHA-256(name ‖ 0x0A ‖ type ‖ key), big-endian.
func (v VKey) ID() uint32 {
	h := sha256.New()
	h.Write([]byte(v.Name + "\n"))
	h.Write([]byte{byte(v.Type)})
	h.Write([]byte(v.Key))
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// String returns the text form.
func (v VKey) String() string {
	var id [4]byte
	binary.BigEndian.PutUint32(id[:], v.ID())
	return v.Name + "+" + hex.EncodeToString(id[:]) + "+" +
		base64.StdEncoding.EncodeToString(append([]byte{byte(v.Type)}, v.Key...))
}

// WithName returns the verifier key of the same key pair under another name, as a log that signs several origins has it.
func (v VKey) WithName(name string) (VKey, error) { return NewVKey(name, v.Type, []byte(v.Key)) }

// Matches says whether the signature line claims to be by this key.
func (v VKey) Matches(s NoteSignature) bool { return s.Name == v.Name && s.KeyID == v.ID() }

// Verify checks a signature line that Matches the key, over the text of its note. It returns the POSIX time in seconds of
// a cosignature, 0 for type 01. The error matches ErrSignature or ErrNote.
func (v VKey) Verify(text string, s NoteSignature) (int64, error) {
	if !v.Matches(s) {
		return 0, fmt.Errorf("%w: %s is by another key", ErrSignature, clip(s.Name))
	}
	switch v.Type {
	case KeyEd25519:
		if len(s.Blob) != ed25519SigSize || nhi.VerifyEd25519([]byte(v.Key), []byte(text), s.Blob) != nil {
			return 0, fmt.Errorf("%w: %s", ErrSignature, v.Name)
		}
		return 0, nil
	case KeyCosignature, KeyMLDSA44:
		return v.verifyCosignature(text, s)
	}
	return 0, fmt.Errorf("%w: key type %#02x", ErrNote, byte(v.Type))
}

// clip shortens hostile text for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
