package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/ledger/verify/verifytest"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

func (f *fixture) proof(t testing.TB, tenant *verifytest.Tenant, index int) *verify.EventProof {
	t.Helper()
	return must[*verify.EventProof](t)(f.EventProof(tenant, index))
}

func TestEventProofVerifies(t *testing.T) {
	f := newFixture(t, 3)
	for _, c := range []struct {
		name    string
		tenant  *verifytest.Tenant
		index   int
		edit    func(*verify.EventProof)
		signed  bool // the statement includes "signed by"
		payload string
	}{
		{"lone", f.one, 0, nil, true, "present"},
		{"batch", f.one, 3, nil, true, "present"},
		{"system leaf", f.one, 6, nil, false, "none"},
		{"refused", f.one, 8, nil, true, "present"},
		{"other tenant", f.two, 0, nil, true, "present"},
		{"system log", f.Tenants[0], 0, nil, false, "none"},
		{"lone, event erased", f.one, 0, func(p *verify.EventProof) { p.Payload = nil }, false, "absent"},
		{"batch, event erased", f.one, 3, func(p *verify.EventProof) { p.Payload = nil }, true, "absent"},
		{"without signature", f.one, 0, func(p *verify.EventProof) { p.Evidence, p.Key = nil, nil }, false, "present"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := f.proof(t, c.tenant, c.index)
			if c.edit != nil {
				c.edit(p)
			}
			r, err := verify.VerifyAny(bytes.NewReader(encode(t, p)), f.trust, verify.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK || r.Kind != verify.KindEvent || r.Subject.Payload != c.payload || !r.Test {
				t.Errorf("got %+v of %+v, want OK with payload %q of a test ledger", r, r.Subject, c.payload)
			}
			all := strings.Join(r.Statement, "\n")
			// Without the event nobody but the node quorum says what kind of event it was, and of whom.
			if named := strings.Contains(all, "kind usage") || strings.Contains(all, "agent "+f.agent.ID.String()); named && c.payload != "present" {
				t.Errorf("got statement %q, which says more than was signed", all)
			}
			for _, k := range r.Keys {
				if k.Role == "agent" && (k.Name != "") != (c.payload == "present") {
					t.Errorf("got key %+v with the event %s", k, c.payload)
				}
			}
			if strings.Contains(all, "signed by") != c.signed {
				t.Errorf("got statement %q, want signed by: %t", all, c.signed)
			}
			if !strings.Contains(all, "included") || !strings.Contains(all, "vouched for by the node quorum") || len(r.NotProved) == 0 {
				t.Errorf("got statement %q, want included, vouched for, and what is not proved", all)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEventProofFails breaks one thing at a time in an otherwise intact file, as somebody who lies would.
func TestEventProofFails(t *testing.T) {
	f := newFixture(t, 3)
	other := f.proof(t, f.one, 7)
	foreign := f.proof(t, f.two, 0)
	stranger := must[*verifytest.Agent](t)(f.NewAgent())
	strangerSig := must[*nhi.Envelope](t)(nhi.SignEvent(stranger.Key, f.one.Leaves[0].Payload))
	note := must[*verify.Note](t)(f.Checkpoint(3))
	withNote := func(p *verify.EventProof, n *verify.Note) {
		tp := must[*verify.TLogProof](t)(verify.ParseTLogProof(p.SpineProof))
		tp.Checkpoint = n.Marshal()
		p.SpineProof = tp.Marshal()
	}
	for _, c := range []struct {
		name  string
		index int
		edit  func(*verify.EventProof)
		step  string
		class verify.FailureClass
		code  int
	}{
		{"another event", 0, func(p *verify.EventProof) { p.Payload = other.Payload }, verify.StepPayload, verify.ClassTampering, verify.ExitSignature},
		{"another signature", 0, func(p *verify.EventProof) { p.Evidence.Signature = other.Evidence.Signature }, verify.StepSignature, verify.ClassTampering, verify.ExitSignature},
		{"a stranger's signature", 0, func(p *verify.EventProof) {
			p.Key.Public, p.Evidence.KeyID, p.Evidence.Signature = stranger.Key.Public().Bytes(), stranger.Key.Public().ID(), strangerSig.Signature
		}, verify.StepSignature, verify.ClassTampering, verify.ExitSignature},
		{"a stranger's key", 0, func(p *verify.EventProof) { p.Key.Public = stranger.Key.Public().Bytes() }, verify.StepSignature, verify.ClassTampering, verify.ExitSignature},
		{"unknown suite", 0, func(p *verify.EventProof) { p.Key.Suite = 9 }, verify.StepSignature, verify.ClassTampering, verify.ExitSignature},
		{"another place in the batch", 3, func(p *verify.EventProof) { p.Evidence.Batch.K++ }, verify.StepSignature, verify.ClassTampering, verify.ExitSignature},
		{"another batch size", 3, func(p *verify.EventProof) { p.Evidence.Batch.N++ }, verify.StepSignature, verify.ClassTampering, verify.ExitSignature},
		{"another tenant's batch", 3, func(p *verify.EventProof) { p.Evidence.Batch.Tenant = f.two.ID }, verify.StepSignature, verify.ClassTampering, verify.ExitSignature},
		{"another leaf", 0, func(p *verify.EventProof) { p.Leaf = other.Leaf }, verify.StepAsked, verify.ClassTampering, verify.ExitInclusion},
		{"another leaf and index", 0, func(p *verify.EventProof) {
			p.Leaf, p.Index, p.Payload, p.Evidence, p.Key = other.Leaf, other.Index, nil, nil, nil
		}, verify.StepTenantTree, verify.ClassTampering, verify.ExitInclusion},
		{"outcome of the leaf", 8, func(p *verify.EventProof) {
			l := must[*verify.Leaf](t)(verify.DecodeLeaf(p.Leaf))
			l.Outcome.Code = verify.OutcomeAccepted
			p.Leaf = must[[]byte](t)(l.Encode())
		}, verify.StepTenantTree, verify.ClassTampering, verify.ExitInclusion},
		{"short path", 0, func(p *verify.EventProof) { p.Path = p.Path[1:] }, verify.StepTenantTree, verify.ClassTampering, verify.ExitInclusion},
		{"another tenant's proof", 0, func(p *verify.EventProof) {
			p.Head, p.HeadPath, p.Path, p.Leaf, p.Payload, p.Evidence, p.Key = foreign.Head, foreign.HeadPath, foreign.Path, foreign.Leaf, nil, nil, nil
		}, verify.StepHeadsTree, verify.ClassTampering, verify.ExitInclusion},
		{"another tenant's heads path", 0, func(p *verify.EventProof) { p.HeadPath = foreign.HeadPath }, verify.StepHeadsTree, verify.ClassTampering, verify.ExitInclusion},
		{"another epoch", 0, func(p *verify.EventProof) { p.Spine = f.Epochs[0].Spine }, verify.StepHeadsTree, verify.ClassTampering, verify.ExitInclusion},
		{"spine path", 0, func(p *verify.EventProof) {
			tp := must[*verify.TLogProof](t)(verify.ParseTLogProof(p.SpineProof))
			tp.Index = 0
			p.SpineProof = tp.Marshal()
		}, verify.StepSpine, verify.ClassTampering, verify.ExitInclusion},
		{"another root, old signatures", 0, func(p *verify.EventProof) {
			n := &verify.Note{Text: strings.Replace(note.Text, "\n2\n", "\n3\n", 1), Signatures: note.Signatures}
			withNote(p, n)
		}, verify.StepSpine, verify.ClassTampering, verify.ExitInclusion},
		{"signature swapped between nodes", 0, func(p *verify.EventProof) {
			n := &verify.Note{Text: note.Text, Signatures: slices.Clone(note.Signatures)}
			n.Signatures[1].Blob = n.Signatures[3].Blob
			withNote(p, n)
		}, verify.StepCheckpoint, verify.ClassTampering, verify.ExitUntrusted},
		{"the same cosignature twice", 0, func(p *verify.EventProof) {
			n := &verify.Note{Text: note.Text, Signatures: append(slices.Clone(note.Signatures), note.Signatures[1])}
			withNote(p, n)
		}, verify.StepCheckpoint, verify.ClassTampering, verify.ExitUntrusted},
		{"log signature alone", 0, func(p *verify.EventProof) {
			withNote(p, &verify.Note{Text: note.Text, Signatures: note.Signatures[:1]})
		}, verify.StepCheckpoint, verify.ClassTrust, verify.ExitUntrusted},
		{"one node of three", 0, func(p *verify.EventProof) {
			withNote(p, &verify.Note{Text: note.Text, Signatures: note.Signatures[:3]})
		}, verify.StepCheckpoint, verify.ClassTrust, verify.ExitUntrusted},
		{"two nodes, one without its post-quantum key", 0, func(p *verify.EventProof) {
			withNote(p, &verify.Note{Text: note.Text, Signatures: note.Signatures[:4]})
		}, verify.StepCheckpoint, verify.ClassTrust, verify.ExitUntrusted},
		{"without log signature", 0, func(p *verify.EventProof) {
			withNote(p, &verify.Note{Text: note.Text, Signatures: note.Signatures[1:]})
		}, verify.StepCheckpoint, verify.ClassTrust, verify.ExitUntrusted},
		{"another ledger", 0, func(p *verify.EventProof) { p.LedgerID[0]++ }, verify.StepTrust, verify.ClassTrust, verify.ExitUntrusted},
		{"extra data", 0, func(p *verify.EventProof) {
			tp := must[*verify.TLogProof](t)(verify.ParseTLogProof(p.SpineProof))
			tp.Extra = []byte("x")
			p.SpineProof = tp.Marshal()
		}, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed},
		{"signature without key", 0, func(p *verify.EventProof) { p.Key = nil }, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed},
		{"leaf is junk", 0, func(p *verify.EventProof) { p.Leaf = []byte{1} }, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := f.proof(t, f.one, c.index)
			c.edit(p)
			r, err := verify.VerifyAny(bytes.NewReader(encode(t, p)), f.trust, verify.Options{})
			wantFailure(t, r, err, c.step, c.class, c.code)
		})
	}
}

func TestEventProofTwoOfThreeNodes(t *testing.T) {
	f := newFixture(t, 3)
	p := f.proof(t, f.one, 0)
	note := must[*verify.Note](t)(f.Checkpoint(2))
	f.Grease = nil
	tp := must[*verify.TLogProof](t)(verify.ParseTLogProof(p.SpineProof))
	// A signature by a key that nobody knows, in front: every reader has to ignore it.
	note.Signatures = append([]verify.NoteSignature{{Name: "grease", KeyID: 7, Blob: []byte{1, 2, 3}}}, note.Signatures...)
	tp.Checkpoint = note.Marshal()
	p.SpineProof = tp.Marshal()
	r, err := verify.VerifyEventProof(encode(t, p), f.trust, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Keys) != 6 { // agent, log, two nodes with two keys each
		t.Errorf("got %d keys, want 6", len(r.Keys))
	}
}

func TestEventProofAsked(t *testing.T) {
	f := newFixture(t, 1)
	file := encode(t, f.proof(t, f.one, 0))
	index, cell := uint64(1), uint64(2)
	for name, x := range map[string]verify.Expect{"tenant": {Tenant: &f.two.ID}, "index": {Index: &index}, "cell": {Cell: &cell}} {
		r, err := verify.VerifyEventProof(file, f.trust, verify.Options{Expect: x})
		t.Run(name, func(t *testing.T) {
			wantFailure(t, r, err, verify.StepAsked, verify.ClassMismatch, verify.ExitInclusion)
		})
	}
	now := time.Unix(0, f.Time)
	r, err := verify.VerifyEventProof(file, f.trust, verify.Options{Now: now.Add(2 * time.Hour), MaxAge: time.Hour})
	wantFailure(t, r, err, verify.StepAge, verify.ClassTrust, verify.ExitUntrusted)
	if _, err := verify.VerifyEventProof(file, f.trust, verify.Options{Now: now.Add(time.Minute), MaxAge: time.Hour}); err != nil {
		t.Error(err)
	}
}

// TestEventProofEveryFlip flips one bit in every byte of a proof file: none verifies, neither as it is nor after somebody
// has made the checksum fit again.
func TestEventProofEveryFlip(t *testing.T) {
	f := newFixture(t, 1)
	file := encode(t, f.proof(t, f.one, 0))
	for i := 0; i < len(file); i += flipStride {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if r, err := verify.VerifyAny(bytes.NewReader(bad), f.trust, verify.Options{}); err == nil || r.OK {
			t.Fatalf("byte %d of %d flipped: verified", i, len(file))
		}
	}
	body := must[[]byte](t)(canon.Marshal(f.proof(t, f.one, 3)))
	for i := 0; i < len(body); i += flipStride {
		bad := bytes.Clone(body)
		bad[i] ^= 1 << ((i + 3) % 8)
		file := must[[]byte](t)(verify.EncodeContainer(verify.KindEvent, bad))
		if r, err := verify.VerifyEventProof(file, f.trust, verify.Options{}); err == nil || r.OK {
			t.Fatalf("byte %d of the body flipped, checksum made to fit: verified", i)
		}
	}
}

func TestEventProofDamagedIsSaid(t *testing.T) {
	f := newFixture(t, 1)
	p := f.proof(t, f.one, 0)
	file := encode(t, p)
	at := bytes.Index(file, p.Payload) + len(p.Payload) - 3 // in the body of the event: still an event, another digest
	at = bytes.LastIndex(file[:at], []byte{0x0b, 0x50}) + 4 // its nonce
	file[at] ^= 1
	r, err := verify.VerifyEventProof(file, f.trust, verify.Options{})
	wantFailure(t, r, err, verify.StepPayload, verify.ClassDamaged, verify.ExitSignature)
	file[at] ^= 1
	file[len(file)-1] ^= 1 // the checksum itself
	r, err = verify.VerifyEventProof(file, f.trust, verify.Options{})
	wantFailure(t, r, err, verify.StepIntegrity, verify.ClassDamaged, verify.ExitMalformed)
}

// The caller may look into an event whose signature holds, and what it finds decides.
func TestEventProofContent(t *testing.T) {
	f := newFixture(t, 3)
	file := encode(t, f.proof(t, f.one, 0))
	step := func(r *verify.Report) (detail string) {
		for _, s := range r.Steps {
			if s.Name == verify.StepContent {
				detail = s.Detail
			}
		}
		return detail
	}
	seen := ""
	look := func(answer string, err error) verify.Options {
		return verify.Options{Content: func(e *nhi.Event, key *nhi.PublicKey) (string, error) {
			seen = e.Kind + " " + key.ID().String()
			return answer, err
		}}
	}
	r, err := verify.VerifyAny(bytes.NewReader(file), f.trust, look("it holds", nil))
	if err != nil || step(r) != "it holds" || seen != "usage "+f.agent.Key.Public().ID().String() {
		t.Errorf("got %v, step %q, looked at %q", err, step(r), seen)
	}
	if r, err = verify.VerifyAny(bytes.NewReader(file), f.trust, look("", nil)); err != nil || step(r) != "" {
		t.Errorf("nothing to look at: got %v, step %q", err, step(r))
	}
	var failure *verify.Failure
	_, err = verify.VerifyAny(bytes.NewReader(file), f.trust, look("", errors.New("it lies")))
	if !errors.As(err, &failure) || failure.Step != verify.StepContent || failure.Class != verify.ClassTampering || failure.ExitCode != verify.ExitSignature {
		t.Errorf("it lies: got %v, want tampering at step content", err)
	}
}
