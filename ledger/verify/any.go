package verify

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// VerifyAny verifies a file of any kind, which it tells by the first bytes, against a trust file. It reads a completeness
// file once and in constant memory, every other kind whole, up to its bound. The report is never nil; the error is a
// *Failure, whose ExitCode is what `creto verify` exits with.
func VerifyAny(file io.Reader, t *Trust, o Options) (*Report, error) {
	br := bufio.NewReaderSize(file, 64<<10)
	first, err := br.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return unreadable(t, o, fmt.Errorf("read file: %w", err))
	}
	if bytes.HasPrefix(first, []byte(completenessMagic)) {
		return VerifyCompleteness(br, t, o)
	}
	b, err := io.ReadAll(io.LimitReader(br, MaxProofFile+MaxNoteSize+1))
	if err != nil {
		return unreadable(t, o, fmt.Errorf("read file: %w", err))
	}
	if len(b) > MaxProofFile+MaxNoteSize {
		return unreadable(t, o, errors.New("the file is longer than any proof"))
	}
	switch {
	case bytes.HasPrefix(b, []byte(containerHead)):
		c, _, err := decodeContainer(b)
		switch {
		case err == nil && c.Type == string(KindReceipt):
			return VerifyReceiptFile(b, t, o)
		case err == nil && c.Type == string(KindConsistency):
			return VerifyConsistencyFile(b, t, o)
		}
		return VerifyEventProof(b, t, o)
	case bytes.HasPrefix(b, []byte(tlogProofHeader)):
		return VerifyTLogProof(b, t, o)
	case bytes.Contains(b, []byte("\n\n"+sigPrefix)):
		return VerifyCheckpoint(b, t, o)
	}
	return unreadable(t, o, errors.New("the file begins like no file of this project"))
}

func unreadable(t *Trust, o Options, err error) (*Report, error) {
	r := newRun(KindUnknown, t, o)
	return r.failed(r.fail(StepFile, ClassMalformed, ExitMalformed, err))
}

// VerifyCheckpoint verifies a checkpoint note of the spine or of any other log whose key the trust file has. The report is
// never nil; the error is a *Failure.
func VerifyCheckpoint(note []byte, t *Trust, o Options) (*Report, error) {
	r := newRun(KindCheckpoint, t, o)
	n, err := ParseNote(note)
	if err != nil {
		return r.failed(r.fail(StepFile, ClassMalformed, ExitMalformed, err))
	}
	r.ok(StepFile, "a note with %d signatures", len(n.Signatures))
	e, err := r.checkNote(n, 0)
	if err != nil {
		return r.failed(err)
	}
	if err := r.checkNoteAge(e); err != nil {
		return r.failed(err)
	}
	r.proves("vouched for %s: %s had %s and root %x", r.vouched(), e.Checkpoint.Origin, counted(e.Checkpoint.Size, "leaf", "leaves"), e.Checkpoint.Root)
	r.doesNotProve("anything about a single entry: an event proof does that",
		"that an earlier checkpoint you hold is a prefix of this one: that takes a consistency proof")
	return r.finish(), nil
}

// VerifyTLogProof verifies a bare tlog-proof@v1 of the entry in Options.Leaf. The report is never nil; the error is a
// *Failure.
func VerifyTLogProof(text []byte, t *Trust, o Options) (*Report, error) {
	r := newRun(KindTLogProof, t, o)
	fail := func(class FailureClass, code int, err error) (*Report, error) {
		return r.failed(r.fail(StepFile, class, code, err))
	}
	p, err := ParseTLogProof(text)
	if err != nil {
		return fail(ClassMalformed, ExitMalformed, err)
	}
	if o.Leaf == nil {
		return fail(ClassMismatch, ExitMalformed, errors.New("a tlog-proof does not hold its entry: give the entry's bytes beside it"))
	}
	n, err := ParseNote(p.Checkpoint)
	if err != nil {
		return fail(ClassMalformed, ExitMalformed, err)
	}
	r.ok(StepFile, "a tlog-proof of index %d", p.Index)
	e, err := r.checkNote(n, 0)
	if err != nil {
		return r.failed(err)
	}
	if o.Expect.Index != nil && *o.Expect.Index != p.Index {
		return r.failed(r.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the proof is about index %d, not %d", p.Index, *o.Expect.Index)))
	}
	if err := VerifyInclusion(p.Index, e.Checkpoint.Size, LeafHash(o.Leaf), p.Path, e.Checkpoint.Root); err != nil {
		return r.failed(r.fail(StepTenantTree, ClassTampering, ExitInclusion, err))
	}
	r.ok(StepTenantTree, "the entry is leaf %d of %s at size %d", p.Index, e.Checkpoint.Origin, e.Checkpoint.Size)
	if err := r.checkNoteAge(e); err != nil {
		return r.failed(err)
	}
	r.proves("included: the entry is leaf %d of %s, vouched for %s", p.Index, e.Checkpoint.Origin, r.vouched())
	if p.Extra != nil {
		r.doesNotProve("the extra data of the proof: nothing authenticates it")
	}
	r.doesNotProve("who signed what the entry reports")
	return r.finish(), nil
}
