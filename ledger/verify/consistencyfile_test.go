package verify_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// grown is a ledger of nine epochs.
func grown(t testing.TB, nodes int) *fixture {
	t.Helper()
	f := newFixture(t, nodes)
	for range 7 {
		check(t, f.AppendSystem(f.one, "system.note"))
		check(t, f.Seal())
	}
	return f
}

func TestConsistencyFileVerifies(t *testing.T) {
	f := grown(t, 1)
	for from := 1; from <= len(f.Epochs); from++ {
		for to := from; to <= len(f.Epochs); to++ {
			file := encode(t, must[*verify.ConsistencyFile](t)(f.Consistency(from, to)))
			r, err := verify.VerifyAny(bytes.NewReader(file), f.trust, verify.Options{})
			if err != nil {
				t.Fatalf("sizes %d and %d: %v", from, to, err)
			}
			if !r.OK || r.Kind != verify.KindConsistency || !strings.Contains(r.Statement[0], "consistent") || len(r.NotProved) == 0 || r.AsOf == "unknown" {
				t.Errorf("sizes %d and %d: got %+v, want OK with a statement", from, to, r)
			}
		}
	}
}

func TestConsistencyFileFails(t *testing.T) {
	f, fork := grown(t, 3), grown(t, 3)
	fork.Epochs[3].Spine = must[[]byte](t)(func() ([]byte, error) {
		l := fork.Epochs[3].Leaf
		l.StateHash[0] ^= 1
		return l.Encode()
	}())
	note := func(l *fixture, size, cosigners int) []byte {
		return must[*verify.Note](t)(l.CheckpointAt(size, cosigners)).Marshal()
	}
	now := time.Unix(0, f.Time).Add(48 * time.Hour)
	for _, c := range []struct {
		name     string
		from, to int
		edit     func(*verify.ConsistencyFile)
		opt      verify.Options
		step     string
		class    verify.FailureClass
		code     int
	}{
		{"path changed", 3, 9, func(p *verify.ConsistencyFile) { p.Path[0][0] ^= 1 }, verify.Options{}, verify.StepConsistency, verify.ClassTampering, verify.ExitConsistency},
		{"path left out", 3, 9, func(p *verify.ConsistencyFile) { p.Path = nil }, verify.Options{}, verify.StepConsistency, verify.ClassTampering, verify.ExitConsistency},
		{"a hash too many", 9, 9, func(p *verify.ConsistencyFile) { p.Path = []nhi.Digest{{1}} }, verify.Options{}, verify.StepConsistency, verify.ClassTampering, verify.ExitConsistency},
		{"split view at one size", 4, 4, func(p *verify.ConsistencyFile) { p.To = note(fork, 4, 3) }, verify.Options{}, verify.StepConsistency, verify.ClassTampering, verify.ExitConsistency},
		{"split view, later", 4, 9, func(p *verify.ConsistencyFile) { p.To = note(fork, 9, 3) }, verify.Options{}, verify.StepConsistency, verify.ClassTampering, verify.ExitConsistency},
		{"first without a quorum", 3, 9, func(p *verify.ConsistencyFile) { p.From = note(f, 3, 1) }, verify.Options{}, verify.StepCheckpoint, verify.ClassTrust, verify.ExitUntrusted},
		{"second without a quorum", 3, 9, func(p *verify.ConsistencyFile) { p.To = note(f, 9, 1) }, verify.Options{}, verify.StepCheckpoint, verify.ClassTrust, verify.ExitUntrusted},
		{"backwards", 3, 9, func(p *verify.ConsistencyFile) { p.From, p.To = p.To, p.From }, verify.Options{}, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed},
		{"no note", 3, 9, func(p *verify.ConsistencyFile) { p.To = []byte("junk") }, verify.Options{}, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed},
		{"another ledger", 3, 9, func(p *verify.ConsistencyFile) { p.LedgerID[0] ^= 1 }, verify.Options{}, verify.StepTrust, verify.ClassTrust, verify.ExitUntrusted},
		{"asked for a tenant", 3, 9, nil, verify.Options{Expect: verify.Expect{Tenant: &f.one.ID}}, verify.StepAsked, verify.ClassMismatch, verify.ExitInclusion},
		{"too old", 3, 9, nil, verify.Options{Now: now, MaxAge: time.Hour}, verify.StepAge, verify.ClassTrust, verify.ExitUntrusted},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := must[*verify.ConsistencyFile](t)(f.Consistency(c.from, c.to))
			if c.edit != nil {
				c.edit(p)
			}
			r, err := verify.VerifyAny(bytes.NewReader(encode(t, p)), f.trust, c.opt)
			wantFailure(t, r, err, c.step, c.class, c.code)
		})
	}
}

// TestConsistencyFileEveryFlip shows that no changed bit goes unnoticed, and that the change is not taken for a split view.
func TestConsistencyFileEveryFlip(t *testing.T) {
	f := grown(t, 1)
	file := encode(t, must[*verify.ConsistencyFile](t)(f.Consistency(3, 9)))
	for i := 0; i < len(file); i += flipStride {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		r, err := verify.VerifyAny(bytes.NewReader(bad), f.trust, verify.Options{})
		if err == nil || r.OK || r.Failure.Class == verify.ClassTampering {
			t.Fatalf("byte %d of %d flipped: got %v", i, len(file), err)
		}
	}
	for i := 0; i < len(file); i += 1 + len(file)/97 {
		if r, err := verify.VerifyAny(bytes.NewReader(file[:i]), f.trust, verify.Options{}); err == nil || r.OK {
			t.Fatalf("first %d of %d bytes: verified", i, len(file))
		}
	}
}
