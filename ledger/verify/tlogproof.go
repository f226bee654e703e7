package verify

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/creto-systems/creto/nhi"
)

// tlogProofHeader is the first line of a proof of c2sp.org/tlog-proof.
const tlogProofHeader = "c2sp.org/tlog-proof@v1"

// MaxTLogExtra bounds the extra data of a tlog-proof, in bytes.
const MaxTLogExtra = 64 << 10

// ErrTLogProof is what every malformed tlog-proof matches with errors.Is.
var ErrTLogProof = errors.New("malformed tlog-proof")

// TLogProof is a c2sp.org/tlog-proof@v1: an index, an inclusion path and the checkpoint it leads to, with its signatures.
// Marshal and ParseTLogProof are inverse to each other, byte for byte.
type TLogProof struct {
	Extra      []byte // not authenticated by anything; nil when absent
	Index      uint64
	Path       []nhi.Digest // leaf sibling first, at most MaxProofHashes
	Checkpoint []byte       // the checkpoint note, verbatim
}

// Marshal returns the text form.
func (p *TLogProof) Marshal() []byte {
	out := append([]byte(tlogProofHeader), '\n')
	if p.Extra != nil {
		out = append(base64.StdEncoding.AppendEncode(append(out, "extra "...), p.Extra), '\n')
	}
	out = append(strconv.AppendUint(append(out, "index "...), p.Index, 10), '\n')
	for i := range p.Path {
		out = append(base64.StdEncoding.AppendEncode(out, p.Path[i][:]), '\n')
	}
	out = append(out, '\n')
	return append(out, p.Checkpoint...)
}

// ParseTLogProof parses the text form strictly: line feeds only, canonical decimals and base64, a well-formed checkpoint
// note at the end. It verifies nothing.
func ParseTLogProof(b []byte) (*TLogProof, error) {
	bad := func(what string) (*TLogProof, error) { return nil, fmt.Errorf("%w: %s", ErrTLogProof, what) }
	if len(b) > MaxNoteSize+2*MaxTLogExtra {
		return bad("too long")
	}
	head, checkpoint, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok || len(head) > 2*MaxTLogExtra {
		return bad("no blank line before the checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	if len(lines) > 3+MaxProofHashes {
		return bad("too many lines")
	}
	if lines[0] != tlogProofHeader {
		return bad("header line")
	}
	lines = lines[1:]
	p := &TLogProof{Checkpoint: bytes.Clone(checkpoint)}
	if len(lines) > 0 {
		if b64, ok := strings.CutPrefix(lines[0], "extra "); ok {
			extra, err := decodeBase64(b64)
			if err != nil || len(extra) > MaxTLogExtra {
				return bad("extra line")
			}
			if extra == nil {
				extra = []byte{}
			}
			p.Extra, lines = extra, lines[1:]
		}
	}
	if len(lines) == 0 {
		return bad("no index line")
	}
	index, ok := strings.CutPrefix(lines[0], "index ")
	n, err := parseDecimal(index)
	if !ok || err != nil {
		return bad("index line")
	}
	p.Index = n
	if len(lines) > 1+MaxProofHashes {
		return bad("too many hashes")
	}
	for _, line := range lines[1:] {
		h, err := parseHashLine(line)
		if err != nil {
			return bad("hash line")
		}
		p.Path = append(p.Path, h)
	}
	if _, err := ParseNote(checkpoint); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTLogProof, err)
	}
	return p, nil
}
