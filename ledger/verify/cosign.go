package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/creto-systems/creto/nhi"
)

// cosignatureV1 begins what a type 04 cosignature signs; subtreeV1 what a type 06 cosignature signs
// (c2sp.org/tlog-cosignature).
const (
	cosignatureV1 = "cosignature/v1\ntime "
	subtreeV1     = "subtree/v1\n\x00"
)

// maxCosignTime is the last second of the year 9999: a later one has no RFC 3339 form, and no clock shows it.
const maxCosignTime = 253402300799

// NoteSigner makes raw signatures with the private half of a verifier key: Ed25519 for types 01 and 04, pure ML-DSA-44
// with an empty context for type 06. An implementation is safe for concurrent use.
type NoteSigner interface {
	VKey() VKey
	SignNote(msg []byte) ([]byte, error)
}

// SignCheckpoint returns the note of the checkpoint with the log's type 01 signature. The key's name must be the origin.
func SignCheckpoint(c Checkpoint, log NoteSigner) (*Note, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	v := log.VKey()
	if v.Type != KeyEd25519 || v.Name != c.Origin {
		return nil, fmt.Errorf("sign checkpoint: key %q is not the type 01 key of origin %q", v.Name, c.Origin)
	}
	sig, err := log.SignNote([]byte(c.Text()))
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	line := NoteSignature{Name: v.Name, KeyID: v.ID(), Blob: sig}
	if _, err := v.Verify(c.Text(), line); err != nil {
		return nil, fmt.Errorf("sign checkpoint: check own signature: %w", err)
	}
	return &Note{Text: c.Text(), Signatures: []NoteSignature{line}}, nil
}

// Cosign returns a type 04 or 06 cosignature of the checkpoint at the given POSIX time in seconds, which must be positive:
// a cosigner of this project always claims that it has signed no larger tree before.
func Cosign(c Checkpoint, cosigner NoteSigner, unixSeconds int64) (NoteSignature, error) {
	if err := c.Check(); err != nil {
		return NoteSignature{}, err
	}
	if unixSeconds <= 0 || unixSeconds > maxCosignTime {
		return NoteSignature{}, errors.New("cosign checkpoint: time is not positive, or after the year 9999")
	}
	v := cosigner.VKey()
	var msg []byte
	switch v.Type {
	case KeyCosignature:
		msg = cosignatureMessage(c.Text(), uint64(unixSeconds))
	case KeyMLDSA44:
		msg = subtreeMessage(v.Name, uint64(unixSeconds), c)
	default:
		return NoteSignature{}, fmt.Errorf("cosign checkpoint: key type %#02x makes no cosignatures", byte(v.Type))
	}
	sig, err := cosigner.SignNote(msg)
	if err != nil {
		return NoteSignature{}, fmt.Errorf("cosign checkpoint: %w", err)
	}
	blob := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(sig)), uint64(unixSeconds))
	line := NoteSignature{Name: v.Name, KeyID: v.ID(), Blob: append(blob, sig...)}
	if _, err := v.Verify(c.Text(), line); err != nil {
		return NoteSignature{}, fmt.Errorf("cosign checkpoint: check own signature: %w", err)
	}
	return line, nil
}

func cosignatureMessage(text string, time uint64) []byte {
	msg := strconv.AppendUint([]byte(cosignatureV1), time, 10)
	return append(append(msg, '\n'), text...)
}

// subtreeMessage is the signed structure of type 06 for a whole tree: start 0, end the size.
func subtreeMessage(cosigner string, time uint64, c Checkpoint) []byte {
	msg := append([]byte(subtreeV1), byte(len(cosigner)))
	msg = binary.BigEndian.AppendUint64(append(msg, cosigner...), time)
	msg = append(append(msg, byte(len(c.Origin))), c.Origin...)
	msg = binary.BigEndian.AppendUint64(msg, 0)
	msg = binary.BigEndian.AppendUint64(msg, c.Size)
	return append(msg, c.Root[:]...)
}

// verifyCosignature checks a line of type 04 or 06. A time of 0 makes no claim about the largest tree, so it is refused.
func (v VKey) verifyCosignature(text string, s NoteSignature) (int64, error) {
	want := 8 + ed25519SigSize
	if v.Type == KeyMLDSA44 {
		want = 8 + mldsa44SigSize
	}
	if len(s.Blob) != want {
		return 0, fmt.Errorf("%w: %s: %d bytes, want %d", ErrSignature, v.Name, len(s.Blob), want)
	}
	time, sig := binary.BigEndian.Uint64(s.Blob), s.Blob[8:]
	if time == 0 || time > maxCosignTime {
		return 0, fmt.Errorf("%w: %s: cosignature time %d", ErrSignature, v.Name, time)
	}
	var err error
	if v.Type == KeyCosignature {
		err = nhi.VerifyEd25519([]byte(v.Key), cosignatureMessage(text, time), sig)
	} else {
		var c Checkpoint
		if c, err = ParseCheckpoint(text); err != nil {
			return 0, err
		}
		err = nhi.VerifyMLDSA44([]byte(v.Key), subtreeMessage(v.Name, time, c), sig)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %s", ErrSignature, v.Name)
	}
	return int64(time), nil
}
