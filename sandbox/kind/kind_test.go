package kind

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

func testKey(t testing.TB, n byte) *nhi.PrivateKey {
	t.Helper()
	k, err := nhi.NewPrivateKey(bytes.Repeat([]byte{n}, nhi.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func validClaim() ClaimBody {
	return ClaimBody{
		Template: "hello", Command: []string{"/hello", "x"}, Class: Process,
		Limits: Limits{Wall: int64(time.Second), Memory: 64 << 20}, TTL: int64(time.Minute),
	}
}

func validNode() NodeBody {
	return NodeBody{
		Node: nhi.ID{1}, Classes: []Class{Process, Container}, Templates: []Template{{Name: "a"}, {Name: "hello", Rootfs: nhi.Digest{2}}},
		Capacity: 2, TTL: int64(time.Minute),
	}
}

func validReport() ReportBody {
	return ReportBody{
		Claim: 7, Statement: []byte("{}"), StatementDigest: sha256.Sum256([]byte("{}")), Status: Finished, Sequence: 1,
	}
}

func validUsage() UsageBody {
	return UsageBody{Claim: 7, Quantities: map[string]uint64{MeterCPU: 5, MeterWall: 9}, From: FromWait4, Sequence: 1}
}

func TestBodiesRoundTrip(t *testing.T) {
	c, n, r, u := validClaim(), validNode(), validReport(), validUsage()
	for _, tc := range []struct {
		name   string
		encode func() ([]byte, error)
		decode func([]byte) (any, error)
		want   any
	}{
		{"claim", c.Encode, func(b []byte) (any, error) { return DecodeClaimBody(b) }, &c},
		{"node", n.Encode, func(b []byte) (any, error) { return DecodeNodeBody(b) }, &n},
		{"report", r.Encode, func(b []byte) (any, error) { return DecodeReportBody(b) }, &r},
		{"usage", u.Encode, func(b []byte) (any, error) { return DecodeUsageBody(b) }, &u},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := tc.encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := tc.decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
			// Every body must also be allowed inside an event.
			if err := canon.CheckLimits(b, canon.Limits{Depth: nhi.MaxBodyDepth + 1, Pairs: nhi.MaxProperties}); err != nil {
				t.Errorf("body does not fit into an event: %v", err)
			}
			for i := range b {
				if _, err := tc.decode(b[:i]); err == nil {
					t.Fatalf("accepted the first %d of %d bytes", i, len(b))
				}
			}
			if _, err := tc.decode(append(b, 0)); err == nil {
				t.Error("accepted a trailing byte")
			}
		})
	}
}

func TestBodyRules(t *testing.T) {
	claim := func(change func(*ClaimBody)) func() error {
		return func() error { b := validClaim(); change(&b); return b.Check() }
	}
	node := func(change func(*NodeBody)) func() error {
		return func() error { b := validNode(); change(&b); return b.Check() }
	}
	report := func(change func(*ReportBody)) func() error {
		return func() error { b := validReport(); change(&b); return b.Check() }
	}
	usage := func(change func(*UsageBody)) func() error {
		return func() error { b := validUsage(); change(&b); return b.Check() }
	}
	for _, tc := range []struct {
		field string
		check func() error
	}{
		{"template", claim(func(b *ClaimBody) { b.Template = "" })},
		{"template", claim(func(b *ClaimBody) { b.Template = "../etc" })},
		{"template", claim(func(b *ClaimBody) { b.Template = strings.Repeat("a", MaxTemplateName+1) })},
		{"command", claim(func(b *ClaimBody) { b.Command = nil })},
		{"command", claim(func(b *ClaimBody) { b.Command = make([]string, MaxArgs+1); b.Command[0] = "/x" })},
		{"command", claim(func(b *ClaimBody) { b.Command[0] = "hello" })},
		{"command", claim(func(b *ClaimBody) { b.Command[1] = "a\x00b" })},
		{"command", claim(func(b *ClaimBody) { b.Command[1] = strings.Repeat("a", MaxCommandBytes) })},
		{"class", claim(func(b *ClaimBody) { b.Class = 0 })},
		{"class", claim(func(b *ClaimBody) { b.Class = Confidential + 1 })},
		{"limits.wall", claim(func(b *ClaimBody) { b.Limits.Wall = 0 })},
		{"limits.wall", claim(func(b *ClaimBody) { b.Limits.Wall = -1 })},
		{"limits.wall", claim(func(b *ClaimBody) { b.Limits.Wall = MaxWall + 1 })},
		{"limits.memory", claim(func(b *ClaimBody) { b.Limits.Memory = MinMemory - 1 })},
		{"limits.memory", claim(func(b *ClaimBody) { b.Limits.Memory = MaxMemory + 1 })},
		{"ttl", claim(func(b *ClaimBody) { b.TTL = b.Limits.Wall - 1 })},
		{"ttl", claim(func(b *ClaimBody) { b.TTL = MaxTTL + 1 })},
		{"node", node(func(b *NodeBody) { b.Node = nhi.ID{} })},
		{"classes", node(func(b *NodeBody) { b.Classes = nil })},
		{"classes", node(func(b *NodeBody) { b.Classes = []Class{Container, Process} })},
		{"classes", node(func(b *NodeBody) { b.Classes = []Class{Process, Process} })},
		{"classes", node(func(b *NodeBody) { b.Classes = []Class{9} })},
		{"templates", node(func(b *NodeBody) { b.Templates = []Template{{Name: "b"}, {Name: "a"}} })},
		{"templates", node(func(b *NodeBody) { b.Templates = make([]Template, MaxTemplates+1) })},
		{"template", node(func(b *NodeBody) { b.Templates[0].Name = "A" })},
		{"capacity", node(func(b *NodeBody) { b.Capacity = MaxCapacity + 1 })},
		{"ttl", node(func(b *NodeBody) { b.TTL = 0 })},
		{"ttl", node(func(b *NodeBody) { b.TTL = MaxNodeTTL + 1 })},
		{"statement", report(func(b *ReportBody) { b.Statement = nil })},
		{"statement", report(func(b *ReportBody) { b.Statement = make([]byte, MaxStatement+1) })},
		{"statement_digest", report(func(b *ReportBody) { b.StatementDigest[0]++ })},
		{"status", report(func(b *ReportBody) { b.Status = 0 })},
		{"exit_code", report(func(b *ReportBody) { b.ExitCode = 256 })},
		{"exit_code", report(func(b *ReportBody) { b.Status, b.Reason = Failed, "x" })},
		{"reason", report(func(b *ReportBody) { b.Status, b.ExitCode = Failed, NoExitCode })},
		{"reason", report(func(b *ReportBody) { b.Reason = "x" })},
		{"reason", report(func(b *ReportBody) { b.Status, b.ExitCode, b.Reason = Failed, NoExitCode, "é" })},
		{"reason", report(func(b *ReportBody) { b.Status, b.ExitCode, b.Reason = Killed, NoExitCode, strings.Repeat("x", 129) })},
		{"quantities", usage(func(b *UsageBody) { b.Quantities = nil })},
		{"quantities", usage(func(b *UsageBody) { b.Quantities["tokens"] = 1 })},
		{"quantities", usage(func(b *UsageBody) { delete(b.Quantities, MeterCPU) })},
		{"quantities", usage(func(b *UsageBody) { delete(b.Quantities, MeterWall) })},
		{"quantities", usage(func(b *UsageBody) { b.Quantities[MeterCPU] = MaxQuantity + 1 })},
		{"measured_from", usage(func(b *UsageBody) { b.From = "guess" })},
	} {
		err := tc.check()
		var bad *InvalidError
		if !errors.As(err, &bad) || bad.Field != tc.field {
			t.Errorf("got %v, want a refusal of %s", err, tc.field)
		}
	}
}

func testRun() *Run {
	command := []string{"/hello", "<ü&>\n"}
	return &Run{
		Ledger: nhi.Digest{1}, Tenant: nhi.ID{2}, Claim: 7, Agent: nhi.ID{3}, Link: nhi.LinkID{4}, Account: nhi.ID{5}, PolicyEpoch: 9,
		Node: nhi.ID{6}, Sequence: 3, Template: "hello", Rootfs: nhi.Digest{8}, Command: command, CommandDigest: CommandDigest(command),
		Isolation: Process, Backend: "bubblewrap", BackendVersion: "0.8.0", Status: Finished, ExitCode: 0, Output: nhi.Digest{9},
		OutputBytes: 12, Started: time.Unix(1700000000, 5).UTC(), Finished: time.Unix(1700000001, 0).UTC(), MeasuredFrom: FromCgroup1,
		WallLimit: int64(time.Second), MemoryLimit: 64 << 20,
	}
}

func signedReport(t testing.TB, k *nhi.PrivateKey, r *Run) *ReportBody {
	t.Helper()
	env, err := SignStatement(t.Context(), k, r)
	if err != nil {
		t.Fatal(err)
	}
	return &ReportBody{
		Claim: r.Claim, Statement: env, StatementDigest: sha256.Sum256(env), Rootfs: r.Rootfs, ExitCode: r.ExitCode,
		Output: r.Output, PolicyEpoch: r.PolicyEpoch, Sequence: r.Sequence, Status: r.Status, Reason: r.Reason,
	}
}

func TestStatement(t *testing.T) {
	k := testKey(t, 1)
	want := testRun()
	b := signedReport(t, k, want)
	got, err := VerifyReport(t.Context(), k.Public(), b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got, err = CheckReport(b); err != nil {
		t.Fatal(err)
	} else if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	again := signedReport(t, k, testRun())
	if !bytes.Equal(again.Statement, b.Statement) {
		t.Error("two statements about one run differ")
	}
	if _, err := VerifyReport(t.Context(), testKey(t, 2).Public(), b); !errors.Is(err, nhi.ErrKeyMismatch) {
		t.Errorf("got %v under another node's key, want ErrKeyMismatch", err)
	}
}

func TestStatementOfARunThatNeverStarted(t *testing.T) {
	k := testKey(t, 1)
	want := &Run{
		Ledger: nhi.Digest{1}, Tenant: nhi.ID{2}, Claim: 0, Agent: nhi.ID{3}, Node: nhi.ID{6}, Sequence: 1, Template: "hello",
		Command: []string{"/hello"}, Isolation: Container, Backend: "runc", Status: Failed, Reason: "node was restarted", ExitCode: NoExitCode,
	}
	got, err := VerifyReport(t.Context(), k.Public(), signedReport(t, k, want))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLongCommandIsStatedByDigest(t *testing.T) {
	k := testKey(t, 1)
	r := testRun()
	r.Command = []string{"/hello", strings.Repeat("\x01", MaxCommandBytes-6)}
	got, err := VerifyReport(t.Context(), k.Public(), signedReport(t, k, r))
	if err != nil {
		t.Fatal(err)
	}
	if got.Command != nil || got.CommandDigest != CommandDigest(r.Command) {
		t.Errorf("got command of %d arguments, want the digest alone", len(got.Command))
	}
}

func TestEveryFlippedByteOfAStatementIsRefused(t *testing.T) {
	k := testKey(t, 1)
	b := signedReport(t, k, testRun())
	for i := 0; i < len(b.Statement); i += 13 {
		bad := *b
		bad.Statement = bytes.Clone(b.Statement)
		bad.Statement[i] ^= 1
		bad.StatementDigest = sha256.Sum256(bad.Statement)
		if _, err := VerifyReport(t.Context(), k.Public(), &bad); err == nil {
			t.Fatalf("accepted a statement with byte %d flipped", i)
		}
	}
}

func TestReportMustMatchItsStatement(t *testing.T) {
	k := testKey(t, 1)
	for name, change := range map[string]func(*ReportBody){
		"claim":        func(b *ReportBody) { b.Claim++ },
		"rootfs":       func(b *ReportBody) { b.Rootfs[0]++ },
		"exit_code":    func(b *ReportBody) { b.ExitCode++ },
		"output":       func(b *ReportBody) { b.Output[0]++ },
		"policy_epoch": func(b *ReportBody) { b.PolicyEpoch++ },
		"sequence":     func(b *ReportBody) { b.Sequence++ },
		"status":       func(b *ReportBody) { b.Status, b.Reason, b.ExitCode = Killed, "wall", NoExitCode },
	} {
		b := signedReport(t, k, testRun())
		change(b)
		if _, err := VerifyReport(t.Context(), k.Public(), b); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: got %v, want ErrMismatch", name, err)
		}
	}
}

func TestStatementAnswersItsClaim(t *testing.T) {
	claim := func() (*nhi.Event, *ClaimBody, *Run) {
		b := validClaim()
		r := testRun()
		r.Command, r.CommandDigest, r.MemoryLimit = b.Command, CommandDigest(b.Command), b.Limits.Memory
		return &nhi.Event{LedgerID: r.Ledger, Tenant: r.Tenant, Kind: Claim, Agent: r.Agent, Link: r.Link, Account: r.Account}, &b, r
	}
	for _, tc := range []struct {
		name   string
		change func(*nhi.Event, *ClaimBody, *Run)
	}{
		{"", func(*nhi.Event, *ClaimBody, *Run) {}},
		{"kind", func(e *nhi.Event, _ *ClaimBody, _ *Run) { e.Kind = Usage }},
		{"ledger", func(e *nhi.Event, _ *ClaimBody, _ *Run) { e.LedgerID[3]++ }},
		{"tenant", func(e *nhi.Event, _ *ClaimBody, _ *Run) { e.Tenant[3]++ }},
		{"agent", func(e *nhi.Event, _ *ClaimBody, _ *Run) { e.Agent[3]++ }},
		{"link", func(e *nhi.Event, _ *ClaimBody, _ *Run) { e.Link[3]++ }},
		{"account", func(e *nhi.Event, _ *ClaimBody, _ *Run) { e.Account[3]++ }},
		{"claim", func(_ *nhi.Event, _ *ClaimBody, r *Run) { r.Claim++ }},
		{"node", func(_ *nhi.Event, _ *ClaimBody, r *Run) { r.Node[3]++ }},
		{"template", func(_ *nhi.Event, b *ClaimBody, _ *Run) { b.Template = "other" }},
		{"command", func(_ *nhi.Event, b *ClaimBody, _ *Run) { b.Command = []string{"/other"} }},
		{"isolation", func(_ *nhi.Event, b *ClaimBody, _ *Run) { b.Class = VM }},
		{"limits", func(_ *nhi.Event, b *ClaimBody, _ *Run) { b.Limits.Memory *= 2 }},
	} {
		e, b, r := claim()
		node := r.Node
		tc.change(e, b, r)
		body, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		e.Body = body
		err = r.Answers(e, 7, node)
		if tc.name == "" && err != nil || tc.name != "" && (!errors.Is(err, ErrMismatch) || !strings.HasSuffix(err.Error(), " "+tc.name)) {
			t.Errorf("%q: got %v", tc.name, err)
		}
	}
}

// A second spelling of the same statement would be a second digest for one thing.
func TestStatementHasOneSpelling(t *testing.T) {
	k := testKey(t, 1)
	payload, err := encodeStatement(testRun())
	if err != nil {
		t.Fatal(err)
	}
	sign := func(payload string) []byte {
		sig, err := k.Sign(nhi.CtxAttest, nhi.PAE(PayloadType, []byte(payload)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(dsse.Envelope{
			PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString([]byte(payload)),
			Signatures: []dsse.Signature{{KeyID: k.Public().ID().String(), Sig: base64.StdEncoding.EncodeToString(sig)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// The payload as it is must pass, or the refusals below say nothing.
	if _, err := OpenStatement(t.Context(), k.Public(), sign(string(payload))); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"white space":   func(s string) string { return strings.Replace(s, ":", ": ", 1) },
		"unknown field": func(s string) string { return strings.Replace(s, `"claim":`, `"more":1,"claim":`, 1) },
		"two subjects": func(s string) string {
			return strings.Replace(s, `"subject":[`, `"subject":[{"name":"x","digest":{"sha256":"`+strings.Repeat("0", 64)+`"}},`, 1)
		},
		"other predicate": func(s string) string { return strings.Replace(s, PredicateType, PredicateType+"x", 1) },
		"old type":        func(s string) string { return strings.Replace(s, "Statement/v1", "Statement/v0.1", 1) },
		"fraction":        func(s string) string { return strings.Replace(s, `"claim":7`, `"claim":7.5`, 1) },
		"exponent":        func(s string) string { return strings.Replace(s, `"claim":7`, `"claim":70e-1`, 1) },
		"huge":            func(s string) string { return strings.Replace(s, `"claim":7`, `"claim":9007199254740994`, 1) },
	} {
		changed := change(string(payload))
		if changed == string(payload) {
			t.Fatalf("%s changed nothing", name)
		}
		var bad *InvalidError
		if _, err := OpenStatement(t.Context(), k.Public(), sign(changed)); !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func TestClasses(t *testing.T) {
	for c := Process; c <= Confidential; c++ {
		if got, err := ParseClass(c.String()); err != nil || got != c {
			t.Errorf("got %v, %v for %v", got, err, c)
		}
	}
	for _, s := range []string{"", "Process", "class_0", "vm "} {
		if _, err := ParseClass(s); err == nil {
			t.Errorf("accepted class %q", s)
		}
	}
}

func FuzzBodies(f *testing.F) {
	c, n, r, u := validClaim(), validNode(), validReport(), validUsage()
	for _, encode := range []func() ([]byte, error){c.Encode, n.Encode, r.Encode, u.Encode} {
		b, err := encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again := func(encode func() ([]byte, error)) {
			if got, err := encode(); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("got %x, %v, want the same bytes back", got, err)
			}
		}
		if v, err := DecodeClaimBody(b); err == nil {
			again(v.Encode)
		}
		if v, err := DecodeNodeBody(b); err == nil {
			again(v.Encode)
		}
		if v, err := DecodeReportBody(b); err == nil {
			again(v.Encode)
		}
		if v, err := DecodeUsageBody(b); err == nil {
			again(v.Encode)
		}
	})
}

func FuzzStatement(f *testing.F) {
	payload, err := encodeStatement(testRun())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeStatement(b); err == nil {
			if again, err := encodeStatement(r); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("got %s, %v, want the same bytes back", again, err)
			}
		}
		_, _ = parseEnvelope(b)
	})
}
