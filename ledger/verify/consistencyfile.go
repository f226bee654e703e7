package verify

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// ConsistencyFile is the content of a consistency proof file: two checkpoints of one log, and the proof that the tree of the
// first is a prefix of that of the second. Whoever kept the first checkpoint learns that nothing before it was changed.
type ConsistencyFile struct {
	LedgerID nhi.Digest   `cbor:"1,keyasint"`
	From     []byte       `cbor:"2,keyasint"`           // the earlier checkpoint note, verbatim
	To       []byte       `cbor:"3,keyasint"`           // the later one, of the same origin
	Path     []nhi.Digest `cbor:"4,keyasint,omitempty"` // as VerifyConsistency takes it; empty if the sizes are equal
}

// Encode returns the bytes of the .creto-proof file.
func (p *ConsistencyFile) Encode() ([]byte, error) { return encodeContainer(KindConsistency, p) }

// signedHead is a checkpoint note with its parts decoded.
type signedHead struct {
	note *Note
	cp   Checkpoint
}

func parseSignedHead(raw []byte) (signedHead, error) {
	n, err := ParseNote(raw)
	if err != nil {
		return signedHead{}, err
	}
	cp, err := ParseCheckpoint(n.Text)
	if err != nil {
		return signedHead{}, err
	}
	return signedHead{n, cp}, nil
}

// VerifyConsistencyFile verifies a consistency proof file against a trust file: both checkpoints are endorsed, and the later
// tree extends the earlier one. Two endorsed checkpoints that contradict one another are evidence of a split view: exit code
// ExitConsistency. The report is never nil; the error is a *Failure.
func VerifyConsistencyFile(file []byte, t *Trust, o Options) (*Report, error) {
	r := newRun(KindConsistency, t, o)
	if err := r.consistency(file); err != nil {
		return r.failed(err)
	}
	return r.finish(), nil
}

func (r *run) consistency(file []byte) error {
	p, from, to, err := r.parseConsistency(file)
	if err != nil {
		return err
	}
	if err := r.checkLedger(p.LedgerID); err != nil {
		return err
	}
	if x := r.opt.Expect; x.Tenant != nil || x.Index != nil || x.From != nil || x.To != nil {
		return r.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the file is about two heads of %s", from.cp.Origin))
	}
	r.ok(StepAsked, "%s at sizes %d and %d", from.cp.Origin, from.cp.Size, to.cp.Size)
	if _, err := r.checkNote(from.note, 0); err != nil {
		return err
	}
	e, err := r.checkNote(to.note, 0)
	if err != nil {
		return err
	}
	if err := VerifyConsistency(from.cp.Size, to.cp.Size, p.Path, from.cp.Root, to.cp.Root); err != nil {
		return r.fail(StepConsistency, ClassTampering, ExitConsistency, err)
	}
	r.ok(StepConsistency, "the tree of size %d is a prefix of that of size %d", from.cp.Size, to.cp.Size)
	if err := r.checkNoteAge(e); err != nil {
		return err
	}
	if r.damaged {
		return r.fail(StepIntegrity, ClassDamaged, ExitMalformed, errors.New("the file's checksum does not match its content"))
	}
	r.ok(StepIntegrity, "the file is as it was written")
	r.proves("consistent: %s at size %d holds every leaf that it held at size %d, unchanged and in its place", to.cp.Origin, to.cp.Size, from.cp.Size)
	r.proves("vouched for %s: that %s had root %x at size %d and root %x at size %d",
		r.vouched(), from.cp.Origin, from.cp.Root, from.cp.Size, to.cp.Root, to.cp.Size)
	r.doesNotProve(
		"anything about a single entry: an event proof does that",
		"that everybody was shown these two heads: compare the first with the checkpoint that you kept",
		"anything after size "+fmt.Sprint(to.cp.Size),
	)
	return nil
}

func (r *run) parseConsistency(file []byte) (p *ConsistencyFile, from, to signedHead, err error) {
	c, intact, err := decodeContainer(file)
	if err != nil {
		return nil, from, to, r.fail(StepFile, ClassMalformed, ExitMalformed, err)
	}
	r.damaged = !intact
	malformed := func(err error) error {
		class := ClassMalformed
		if r.damaged {
			class = ClassDamaged
		}
		return r.fail(StepFile, class, ExitMalformed, err)
	}
	if c.Type != string(KindConsistency) {
		return nil, from, to, malformed(fmt.Errorf("the file is of kind %q", clip(c.Type)))
	}
	p = new(ConsistencyFile)
	if err := canon.UnmarshalMax(c.Body, p, MaxProofFile); err != nil {
		return nil, from, to, malformed(fmt.Errorf("decode consistency proof: %w", err))
	}
	if from, err = parseSignedHead(p.From); err != nil {
		return nil, from, to, malformed(fmt.Errorf("first checkpoint: %w", err))
	}
	if to, err = parseSignedHead(p.To); err != nil {
		return nil, from, to, malformed(fmt.Errorf("second checkpoint: %w", err))
	}
	switch {
	case from.cp.Origin != to.cp.Origin:
		return nil, from, to, malformed(fmt.Errorf("checkpoints of %q and of %q", clip(from.cp.Origin), clip(to.cp.Origin)))
	case from.cp.Size > to.cp.Size || from.cp.Size == 0:
		return nil, from, to, malformed(fmt.Errorf("from size %d to size %d", from.cp.Size, to.cp.Size))
	}
	r.ok(StepFile, "a consistency proof of %d bytes", len(file))
	return p, from, to, nil
}
