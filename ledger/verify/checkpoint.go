package verify

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/creto-systems/creto/nhi"
)

// Checkpoint is the body of a checkpoint note (c2sp.org/tlog-checkpoint): three lines, no extension lines.
type Checkpoint struct {
	Origin string
	Size   uint64 // at most MaxTreeSize
	Root   nhi.Digest
}

// Check reports whether the checkpoint can be written: the origin is a key name, the size within bounds, and the root of
// size 0 the empty root.
func (c Checkpoint) Check() error {
	switch {
	case !validKeyName(c.Origin):
		return fmt.Errorf("%w: checkpoint origin %q", ErrNote, clip(c.Origin))
	case c.Size > MaxTreeSize:
		return fmt.Errorf("%w: checkpoint size %d is beyond 2^53-1", ErrNote, c.Size)
	case c.Size == 0 && c.Root != EmptyRoot():
		return fmt.Errorf("%w: the checkpoint of size 0 has not the empty root", ErrNote)
	}
	return nil
}

// Text returns the body, the text that is signed.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// ParseCheckpoint parses a body strictly: canonical decimal size, 32-byte root in canonical base64, no extension lines
// (a type 06 cosignature does not cover them, so our logs never write any).
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 5)
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint has exactly three lines", ErrNote)
	}
	size, err := parseDecimal(lines[1])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint size %q", ErrNote, clip(lines[1]))
	}
	root, err := parseHashLine(lines[2])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint root", ErrNote)
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: root}
	if err := c.Check(); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}

// parseDecimal parses a decimal without sign or leading zero, at most MaxTreeSize.
func parseDecimal(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s || n > MaxTreeSize {
		return 0, ErrNote
	}
	return n, nil
}

func parseHashLine(s string) (nhi.Digest, error) {
	var d nhi.Digest
	if len(s) != 44 {
		return d, ErrNote
	}
	b, err := decodeBase64(s)
	if err != nil || len(b) != len(d) {
		return d, ErrNote
	}
	copy(d[:], b)
	return d, nil
}
