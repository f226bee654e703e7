package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/ledger/verify/verifytest"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

func TestVerifyAnyKnowsItsKinds(t *testing.T) {
	f := newFixture(t, 1)
	p := f.proof(t, f.one, 0)
	note := must[*verify.Note](t)(f.Checkpoint(1))
	for _, c := range []struct {
		kind verify.FileKind
		file []byte
		opt  verify.Options
	}{
		{verify.KindEvent, encode(t, p), verify.Options{}},
		{verify.KindCompleteness, f.completeness(t, 0, 1, 0, 1), verify.Options{}},
		{verify.KindCheckpoint, note.Marshal(), verify.Options{}},
		{verify.KindTLogProof, p.SpineProof, verify.Options{Leaf: p.Spine}},
	} {
		r, err := verify.VerifyAny(iotest.OneByteReader(bytes.NewReader(c.file)), f.trust, c.opt)
		if err != nil || r.Kind != c.kind || !r.OK || len(r.Statement) == 0 || len(r.NotProved) == 0 || r.AsOf == "unknown" {
			t.Errorf("got %+v, %v, want kind %q with statement", r, err, c.kind)
		}
	}
	r, err := verify.VerifyAny(bytes.NewReader(p.SpineProof), f.trust, verify.Options{})
	wantFailure(t, r, err, verify.StepFile, verify.ClassMismatch, verify.ExitMalformed)
	r, err = verify.VerifyAny(bytes.NewReader(p.SpineProof), f.trust, verify.Options{Leaf: p.Leaf})
	wantFailure(t, r, err, verify.StepTenantTree, verify.ClassTampering, verify.ExitInclusion)
	note.Signatures[1].Blob[9] ^= 1
	r, err = verify.VerifyAny(bytes.NewReader(note.Marshal()), f.trust, verify.Options{})
	wantFailure(t, r, err, verify.StepCheckpoint, verify.ClassTampering, verify.ExitUntrusted)
}

func TestVerifyAnyRefusesJunk(t *testing.T) {
	f := newFixture(t, 1)
	event := encode(t, f.proof(t, f.one, 0))
	for name, file := range map[string][]byte{
		"nothing":                {},
		"text":                   []byte("hello\n"),
		"a map":                  {0xa0},
		"event proof, truncated": event[:len(event)/2],
		"event proof and more":   append(bytes.Clone(event), event...),
		"kind of the future":     must[[]byte](t)(verify.EncodeContainer("future", []byte{0xa0})),
		"empty event proof":      must[[]byte](t)(verify.EncodeContainer(verify.KindEvent, []byte{0xa0})),
		"empty receipt":          must[[]byte](t)(verify.EncodeContainer(verify.KindReceipt, []byte{0xa0})),
		"version 2":              must[[]byte](t)(canon.Marshal(map[uint64]any{1: 2, 2: "event", 3: []byte{0xa0}, 4: make([]byte, 32)})),
		"completeness magic":     []byte("creto-completeness/v1\n"),
		"completeness, junk":     []byte("creto-completeness/v1\n\x01\x00\x00\x00\x01\xa0"),
		"completeness, huge":     []byte("creto-completeness/v1\n\x01\xff\xff\xff\xff"),
		"tlog-proof header":      []byte("c2sp.org/tlog-proof@v1\n"),
		"note without signature": []byte("x\n\n— \n"),
		"three megabytes":        bytes.Repeat([]byte{0xa4}, 3<<20),
	} {
		r, err := verify.VerifyAny(bytes.NewReader(file), f.trust, verify.Options{})
		t.Run(name, func(t *testing.T) {
			wantFailure(t, r, err, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed)
		})
	}
	broken := errors.New("disk")
	r, err := verify.VerifyAny(io.MultiReader(strings.NewReader("creto"), iotest.ErrReader(broken)), f.trust, verify.Options{})
	wantFailure(t, r, err, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed)
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error inside", err)
	}
}

// appendSigned appends one event with the given kind, link and body.
func (f *fixture) appendSigned(t *testing.T, kind string, body []byte, edit func(*nhi.Event)) {
	t.Helper()
	f.appendEdited(t, kind, body, edit, nil)
}

func (f *fixture) appendEdited(t *testing.T, kind string, body []byte, edit func(*nhi.Event), leaf func(*verify.Leaf)) {
	t.Helper()
	e := must[*nhi.Event](t)(nhi.DecodeEvent(must[[]byte](t)(f.Event(f.one, f.agent, kind, body))))
	if edit != nil {
		edit(e)
	}
	env := must[*nhi.Envelope](t)(nhi.SignEvent(f.agent.Key, must[[]byte](t)(e.Encode())))
	check(t, f.Append(f.one, f.agent, env, nil, leaf))
}

func registerBody(id nhi.ID, suite uint8, public []byte) []byte {
	b := canon.AppendMap(nil, 4)
	b = canon.AppendBytes(canon.AppendUint(b, 1), id[:])
	b = canon.AppendUint(canon.AppendUint(b, 2), 2)
	b = canon.AppendUint(canon.AppendUint(b, 3), uint64(suite))
	return canon.AppendBytes(canon.AppendUint(b, 4), public)
}

func TestEventProofWithRegistration(t *testing.T) {
	f := newFixture(t, 1)
	other := must[*verifytest.Agent](t)(f.NewAgent())
	f.appendSigned(t, "identity.register", registerBody(f.agent.ID, 1, f.agent.Key.Public().Bytes()), nil) // 10
	f.appendSigned(t, "identity.register", registerBody(other.ID, 1, f.agent.Key.Public().Bytes()), nil)   // 11
	f.appendSigned(t, "identity.register", registerBody(f.agent.ID, 1, other.Key.Public().Bytes()), nil)   // 12
	f.appendSigned(t, "usage", registerBody(f.agent.ID, 1, f.agent.Key.Public().Bytes()), nil)             // 13
	f.lone(t, f.one, nil, nil)                                                                             // 14
	f.appendSigned(t, "identity.register", registerBody(f.agent.ID, 1, f.agent.Key.Public().Bytes()), nil) // 15
	check(t, f.Seal())
	with := func(index int) *verify.EventProof {
		p, reg := f.proof(t, f.one, 14), f.proof(t, f.one, index)
		p.Register = &verify.Registration{Payload: reg.Payload, Leaf: reg.Leaf, Path: reg.Path}
		return p
	}
	r, err := verify.VerifyEventProof(encode(t, with(10)), f.trust, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.Join(r.NotProved, "\n"), "whose key it is") {
		t.Errorf("got %q, want the key's owner proved", r.NotProved)
	}
	self := f.proof(t, f.one, 10) // an authority's own registration proves itself
	self.Register = &verify.Registration{Payload: self.Payload, Leaf: self.Leaf, Path: self.Path}
	if _, err := verify.VerifyEventProof(encode(t, self), f.trust, verify.Options{}); err != nil {
		t.Error(err)
	}
	bad := with(10)
	bad.Register.Path[0][0] ^= 1
	for name, p := range map[string]*verify.EventProof{
		"of another agent": with(11), "of another key": with(12), "of a usage event": with(13), "after the event": with(15), "not included": bad,
	} {
		r, err := verify.VerifyEventProof(encode(t, p), f.trust, verify.Options{})
		t.Run(name, func(t *testing.T) {
			wantFailure(t, r, err, verify.StepRegistration, verify.ClassTampering, verify.ExitInclusion)
		})
	}
}

// link encodes the parts of a delegation link that verification reads, with the other keys around them.
func (f *fixture) link(issuer, subject nhi.ID, parent nhi.LinkID, depth uint64) []byte {
	b := canon.AppendUint(canon.AppendUint(canon.AppendMap(nil, 8), 1), 1)
	b = canon.AppendBytes(canon.AppendUint(b, 2), f.ID[:])
	b = canon.AppendBytes(canon.AppendUint(b, 3), f.one.ID[:])
	b = canon.AppendBytes(canon.AppendUint(b, 5), issuer[:])
	b = canon.AppendBytes(canon.AppendUint(b, 7), subject[:])
	b = canon.AppendBytes(canon.AppendUint(b, 9), parent[:])
	b = canon.AppendUint(canon.AppendUint(b, 10), depth)
	return canon.AppendText(canon.AppendUint(b, 19), "purpose")
}

func TestEventProofWithChain(t *testing.T) {
	f := newFixture(t, 1)
	human, broker := f.NewID(), f.NewID()
	root := f.link(human, broker, nhi.LinkID{}, 0)
	leaf := f.link(broker, f.agent.ID, verify.LinkID(root), 1)
	f.appendSigned(t, "usage", emptyBody, func(e *nhi.Event) { e.Link = verify.LinkID(leaf) })
	check(t, f.Seal())
	p := f.proof(t, f.one, 10)
	p.Links = [][]byte{leaf, root}
	r, err := verify.VerifyEventProof(encode(t, p), f.trust, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(r.Subject.Chain, " > "), human.String()+" > "+broker.String()+" > "+f.agent.ID.String(); got != want {
		t.Errorf("got chain %s, want %s", got, want)
	}
	for name, links := range map[string][][]byte{
		"without the root":  {leaf},
		"in another order":  {root, leaf},
		"another root":      {leaf, f.link(f.NewID(), broker, nhi.LinkID{}, 0)},
		"a link of junk":    {{0xa0}},
		"a link over 4 KiB": {make([]byte, 5000)},
	} {
		p.Links = links
		r, err := verify.VerifyEventProof(encode(t, p), f.trust, verify.Options{})
		t.Run(name, func(t *testing.T) {
			wantFailure(t, r, err, verify.StepChain, verify.ClassTampering, verify.ExitSignature)
		})
	}
}

// TestEventProofOfMisusedLink shows that an event which named somebody else's link, and was refused or flagged for it, is no
// evidence of tampering, while a leaf that accepts it is.
func TestEventProofOfMisusedLink(t *testing.T) {
	f := newFixture(t, 1)
	human, other := f.NewID(), f.NewID()
	root := f.link(human, other, nhi.LinkID{}, 0)
	named := func(e *nhi.Event) { e.Link = verify.LinkID(root) }
	codes := []verify.OutcomeCode{verify.OutcomeUnauthorized, verify.OutcomeAcceptedFlagged, verify.OutcomeAccepted}
	for _, code := range codes {
		f.appendEdited(t, "usage", emptyBody, named, func(l *verify.Leaf) { l.Outcome.Code = code })
	}
	check(t, f.Seal())
	for i, code := range codes {
		p := f.proof(t, f.one, 10+i)
		p.Links = [][]byte{root}
		r, err := verify.VerifyEventProof(encode(t, p), f.trust, verify.Options{})
		if code == verify.OutcomeAccepted {
			wantFailure(t, r, err, verify.StepChain, verify.ClassTampering, verify.ExitSignature)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", code, err)
			continue
		}
		if len(r.Subject.Chain) != 0 {
			t.Errorf("%s: got chain %q, want none: the agent has none", code, r.Subject.Chain)
		}
		p.Links = [][]byte{f.link(human, f.NewID(), nhi.LinkID{}, 0)}
		r, err = verify.VerifyEventProof(encode(t, p), f.trust, verify.Options{})
		wantFailure(t, r, err, verify.StepChain, verify.ClassTampering, verify.ExitSignature)
	}
}

// TestReportJSON pins the names of the JSON form.
func TestReportJSON(t *testing.T) {
	f := newFixture(t, 1)
	r := must[*verify.Report](t)(verify.VerifyEventProof(encode(t, f.proof(t, f.one, 0)), f.trust, verify.Options{}))
	var got map[string]any
	b := must[[]byte](t)(json.Marshal(r))
	check(t, json.Unmarshal(b, &got))
	for _, name := range []string{"kind", "ok", "steps", "statement", "not_proved", "as_of", "epoch", "test", "subject", "keys"} {
		if _, ok := got[name]; !ok {
			t.Errorf("the report has no %q: %s", name, b)
		}
	}
	subject := got["subject"].(map[string]any)
	if _, ok := subject["index"].(string); !ok {
		t.Errorf("got index %T, want a string", subject["index"])
	}
	p := f.proof(t, f.one, 0)
	p.Index = 7
	r, err := verify.VerifyEventProof(encode(t, p), f.trust, verify.Options{})
	if err == nil {
		t.Fatal("verified")
	}
	b = must[[]byte](t)(json.Marshal(r))
	for _, part := range []string{`"ok":false`, `"failure":{"step":"asked","class":"tampering","exit_code":11,`, `"hint":"`, `"statement":[]`} {
		if !strings.Contains(string(b), part) {
			t.Errorf("the report has no %s: %s", part, b)
		}
	}
}

// A checkpoint whose trust file asks for no cosignatures says nothing about its age: who demands one is refused.
func TestAgeOfACheckpointWithoutCosignatures(t *testing.T) {
	f := newFixture(t, 3)
	bare := *f.trust
	bare.Witnesses, bare.Groups, bare.Quorum, bare.Valid = nil, nil, verify.QuorumNone, nil
	note := must[*verify.Note](t)(f.Checkpoint(3)).Marshal()
	if r, err := verify.VerifyAny(bytes.NewReader(note), &bare, verify.Options{}); err != nil {
		t.Errorf("without a demand: got %v, %+v", err, r)
	}
	var failure *verify.Failure
	_, err := verify.VerifyAny(bytes.NewReader(note), &bare, verify.Options{Now: time.Unix(0, f.Time), MaxAge: time.Hour})
	if !errors.As(err, &failure) || failure.Step != verify.StepAge || failure.ExitCode != verify.ExitUntrusted {
		t.Errorf("got %v, want a failure at step age", err)
	}
}
