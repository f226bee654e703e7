package authz

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	exptypes "github.com/cedar-policy/cedar-go/x/exp/types"
	"github.com/creto-systems/creto/test/shared"
	"github.com/google/go-cmp/cmp"
)

// suite is one case file of Cedar's own tests.
type suite struct {
	Schema         string `json:"schema"`
	Policies       string `json:"policies"`
	Entities       string `json:"entities"`
	ShouldValidate bool   `json:"shouldValidate"`
	Requests       []struct {
		Description string       `json:"description"`
		Principal   uid          `json:"principal"`
		Action      uid          `json:"action"`
		Resource    uid          `json:"resource"`
		Context     cedar.Record `json:"context"`
		Decision    string       `json:"decision"`
		Reason      []string     `json:"reason"`
		Errors      []string     `json:"errors"`
	} `json:"requests"`
}

type uid struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

func (u uid) cedar() types.EntityUID {
	return types.NewEntityUID(types.EntityType(u.Type), types.String(u.ID))
}

// load compiles a suite the way Cedar names its policies, by position, and
// parses its entities with the schema, without which references to entities
// become records.
func (s *suite) load(t testing.TB, file func(string) []byte) ([]*cedar.Policy, *policySet, types.EntityMap, *validate.Validator) {
	t.Helper()
	list, err := cedar.NewPolicyListFromBytes("", file(s.Policies))
	if err != nil {
		t.Fatalf("parse policies: %v", err)
	}
	n := -1
	set := newPolicySet(list, func(*cedar.Policy) string { n++; return fmt.Sprintf("policy%d", n) })
	var sch schema.Schema
	if err := sch.UnmarshalCedar(file(s.Schema)); err != nil {
		t.Fatalf("parse schema: %v", err)
	}
	resolved, err := sch.Resolve()
	if err != nil {
		t.Fatalf("resolve schema: %v", err)
	}
	var ents exptypes.EntityMap
	if err := ents.UnmarshalJSONWithSchema(file(s.Entities), resolved); err != nil {
		t.Fatalf("parse entities: %v", err)
	}
	return list, set, types.EntityMap(ents), validate.New(resolved)
}

// closure returns an entity and all its ancestors.
func closure(ents types.EntityGetter, uid types.EntityUID) []types.EntityUID {
	all := []types.EntityUID{uid}
	for i := 0; i < len(all); i++ {
		e, _ := ents.Get(all[i])
		for p := range e.Parents.All() {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

func scopeOf(ents types.EntityGetter, req cedar.Request) scope {
	return scope{
		principal: req.Principal,
		actions:   closure(ents, req.Action),
		resources: closure(ents, req.Resource),
	}
}

// plain is Authorize over the whole set, in the form of verdict.
func (s *policySet) plain(ents cedar.EntityGetter, req cedar.Request) verdict {
	whole := slice{set: s}
	for i := range s.policies {
		whole.at = append(whole.at, int32(i))
	}
	decision, diag := cedar.Authorize(whole, ents, req)
	v := verdict{allow: decision == cedar.Allow}
	for _, r := range diag.Reasons {
		v.reasons = append(v.reasons, string(r.PolicyID))
	}
	for _, r := range diag.Errors {
		v.errors = append(v.errors, string(r.PolicyID))
	}
	return v
}

func sameVerdict(a, b verdict) bool {
	return a.allow == b.allow && slices.Equal(sorted(a.reasons), sorted(b.reasons)) && slices.Equal(sorted(a.errors), sorted(b.errors))
}

// Cedar's hand-written suite, through the index: all 74 requests.
func TestCedarIntegrationSuite(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(shared.Dir(t, "conformance"), "cedar_integration_tests.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Tests []suite        `json:"tests"`
		Files map[string]any `json:"files"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	file := func(name string) []byte {
		s, ok := doc.Files[name].(string)
		if !ok {
			t.Fatalf("file %q is absent", name)
		}
		return []byte(s)
	}
	ran := 0
	for _, s := range doc.Tests {
		list, set, ents, validator := s.load(t, file)
		for i, p := range list {
			if err := validator.Policy(fmt.Sprintf("policy%d", i), astOf(p)); s.ShouldValidate && err != nil {
				t.Errorf("%s: validate: %v", s.Policies, err)
			}
		}
		for _, r := range s.Requests {
			req := cedar.Request{Principal: r.Principal.cedar(), Action: r.Action.cedar(), Resource: r.Resource.cedar(), Context: r.Context}
			got := set.evaluate(ents, req, scopeOf(ents, req))
			want := verdict{allow: r.Decision == "allow", reasons: r.Reason, errors: r.Errors}
			if !sameVerdict(got, want) {
				t.Errorf("%s: %s: got %+v, want %+v", s.Policies, r.Description, got, want)
			}
			if !sameVerdict(got, set.plain(ents, req)) {
				t.Errorf("%s: %s: the slice and the whole set differ", s.Policies, r.Description)
			}
			ran++
		}
	}
	if ran != 74 {
		t.Errorf("got %d requests, want 74", ran)
	}
}

// skipOutsideCI skips a test that lacks something which CI has.
func skipOutsideCI(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Cedar's fuzz corpus, which its Go module ships: what the slice of a set
// says equals what the whole set says and what the reference says. One file
// in four by default; CRETO_CEDAR_CORPUS=all runs the 62,000 requests of all
// 7,750.
func TestIdentity29SlicingOracleCorpus(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cedar-policy/cedar-go").Output()
	if err != nil {
		skipOutsideCI(t, "the module cache is not reachable through the go command: %v", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(out)), "corpus-tests.tar.gz"))
	if err != nil {
		skipOutsideCI(t, "cedar-go is here without its corpus: %v", err)
	}
	defer f.Close()
	files := untar(t, f)
	every := 4
	if os.Getenv("CRETO_CEDAR_CORPUS") == "all" {
		every = 1
	}
	var names []string
	for name := range files {
		if strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, ".entities.json") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	ran := 0
	for i := 0; i < len(names); i += every {
		var s suite
		if err := json.Unmarshal(files[names[i]], &s); err != nil {
			t.Fatalf("%s: %v", names[i], err)
		}
		_, set, ents, _ := s.load(t, func(name string) []byte { return files[name] })
		for _, r := range s.Requests {
			req := cedar.Request{Principal: r.Principal.cedar(), Action: r.Action.cedar(), Resource: r.Resource.cedar(), Context: r.Context}
			got := set.evaluate(ents, req, scopeOf(ents, req))
			want := verdict{allow: r.Decision == "allow", reasons: r.Reason, errors: r.Errors}
			if !sameVerdict(got, want) || !sameVerdict(got, set.plain(ents, req)) {
				t.Errorf("%s: %s: got %+v, want %+v", names[i], r.Description, got, want)
			}
			ran++
		}
	}
	t.Logf("%d requests of %d files", ran, (len(names)+every-1)/every)
	if ran == 0 {
		t.Error("no request ran")
	}
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	gz, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, tr); err != nil {
			t.Fatal(err)
		}
		files[h.Name] = b.Bytes()
	}
}

// Random bundles and requests over every form of scope: the engine's slices
// equal the whole sets.
func TestIdentity29SlicingOracleRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(29, 1))
	pick := func(l ...string) string { return l[rng.IntN(len(l))] }
	principals := []string{"", "", ` == Agent::"a1"`, ` == Human::"h1"`, ` == Service::"a1"`, " is Agent", " is Human", ` in Group::"g1"`, ` in Agent::"a1"`, ` is Agent in Group::"g2"`}
	actions := []string{"", ` == Action::"quota.reserve"`, ` == Action::"pay"`, ` in Action::"quota"`, ` in [Action::"pay", Action::"quota"]`, ` in [Action::"quota.reserve", Action::"quota", Action::"read"]`}
	resources := []string{"", ` == Account::"x"`, ` == Resource::"x"`, ` in Account::"top"`, ` in Account::"mid"`, " is Account", " is Resource", ` is Account in Account::"top"`, ` in Account::"x"`}
	conditions := []string{"", "", ` when { context.n > 5 }`, ` when { context.absent > 5 }`, ` unless { context has n }`, ` when { context.n + 9223372036854775807 > 0 }`}
	requests := 100_000
	if testing.Short() {
		requests = 5_000
	}
	const perBundle = 500
	outcomes := map[bool]int{}
	for range requests / perBundle {
		var text strings.Builder
		for i := range 1 + rng.IntN(30) {
			fmt.Fprintf(&text, "@id(\"p%d\") %s (principal%s, action%s, resource%s)%s;\n", i, pick("permit", "permit", "forbid"),
				pick(principals...), pick(actions...), pick(resources...), pick(conditions...))
		}
		e := mustCompile(t, text.String(), "")
		for range perBundle {
			req := &Request{
				PrincipalType: pick(TypeAgent, TypeHuman, TypeService), Principal: pick("a1", "a2", "h1"),
				Action:       pick("quota.reserve", "quota.close", "quota", "pay", "read"),
				ResourceType: pick(TypeAccount, TypeResource), Resource: pick("x", "y", "top"),
				Context: map[string]Value{"n": Long(rng.Int64N(10))},
			}
			if rng.IntN(2) == 0 {
				req.Groups = []string{pick("g1", "g2", "g3")}
			}
			if rng.IntN(2) == 0 {
				req.Accounts = []string{"top", pick("mid", "x")}
			}
			ents, creq, sc := req.build()
			got, want := e.hard.evaluate(ents, creq, sc), e.hard.plain(ents, creq)
			if !sameVerdict(got, want) {
				t.Fatalf("request %+v:\ngot  %+v\nwant %+v\n%s", req, got, want, text.String())
			}
			outcomes[got.allow]++
		}
	}
	if outcomes[true] == 0 || outcomes[false] == 0 {
		t.Errorf("got outcomes %v, want both", outcomes)
	}
}

// The traps of cedar-go that this package exists to close: each subtest shows
// the library's behaviour and ours.
func TestCedarTraps(t *testing.T) {
	const permit = `@id("p") permit (principal, action, resource);`

	t.Run("1 an erring forbid is skipped", func(t *testing.T) {
		for _, when := range []string{`context.absent > 100`, `context.amount * 9223372036854775807 > 100`} {
			text := permit + `@id("f") forbid (principal, action, resource) when { ` + when + ` };`
			e := mustCompile(t, text, "")
			ents, req, _ := pay(5).build()
			if v := e.hard.plain(ents, req); !v.allow {
				t.Errorf("%s: cedar-go denies now: the wrapper may be simpler", when)
			}
			if d := e.Decide(pay(5), nil, nil, Epochs{}); d.Outcome != Deny || !slices.Equal(d.Errors, []string{"f"}) {
				t.Errorf("%s: got %v, errors %v, want deny by error of f", when, d.Outcome, d.Errors)
			}
		}
	})

	t.Run("2 references parsed without a schema are records", func(t *testing.T) {
		// Entities are built in Go; the one reference in a context is typed.
		e := mustCompile(t, `@id("p") permit (principal, action, resource) when { context.root_human == Human::"human1" };`, "")
		if d := e.Decide(pay(1), nil, nil, Epochs{}); d.Outcome != Allow {
			t.Errorf("got %v, want allow", d.Outcome)
		}
		req := pay(1)
		req.Context["who"] = Record(map[string]Value{"type": String("Human"), "id": String("human1")})
		e = mustCompile(t, `@id("p") permit (principal, action, resource) when { context.who == Human::"human1" };`, "")
		if d := e.Decide(req, nil, nil, Epochs{}); d.Outcome != Deny {
			t.Errorf("got %v for a record that looks like a reference, want deny", d.Outcome)
		}
	})

	t.Run("3 the parser has no nesting limit", func(t *testing.T) {
		for _, open := range []string{"!", "(", "-", "[", "if ", "{a:"} {
			text := `@id("p") permit (principal, action, resource) when { ` + strings.Repeat(open, 10_000)
			if _, err := Compile(Bundle{Hard: []byte(text)}); err == nil || !strings.Contains(err.Error(), "nesting") {
				t.Errorf("10,000 of %q: got %v, want a nesting error", open, err)
			}
		}
	})

	t.Run("4 reasons and errors come in any order", func(t *testing.T) {
		var hard, soft strings.Builder
		for i := range 20 {
			fmt.Fprintf(&hard, `@id("p%d") permit (principal, action, resource);`, 19-i)
			fmt.Fprintf(&soft, `@id("s%d") @oversight("c%d") forbid (principal, action, resource);`, 19-i, i%3)
		}
		e := mustCompile(t, hard.String(), soft.String())
		d := e.Decide(pay(1), nil, nil, Epochs{})
		if !slices.IsSorted(d.Policies) || len(d.Policies) != 20 || !slices.Equal(d.Chains, []string{"c0", "c1", "c2"}) {
			t.Errorf("got policies %v and chains %v, want both sorted and complete", d.Policies, d.Chains)
		}
		for range 200 {
			if again := e.Decide(pay(1), nil, nil, Epochs{}); again.Digest != d.Digest {
				t.Fatal("the same request has two digests")
			}
		}
	})

	t.Run("5 ids are positions", func(t *testing.T) {
		const f = `@id("f") forbid (principal, action, resource);`
		for _, text := range []string{f, permit + f, permit + `@id("q") permit (principal, action, resource);` + f} {
			if d := mustCompile(t, text, "").Decide(pay(1), nil, nil, Epochs{}); !slices.Equal(d.Policies, []string{"f"}) {
				t.Errorf("got policies %v, want f", d.Policies)
			}
		}
		if _, err := Compile(Bundle{Hard: []byte(f + f)}); err == nil {
			t.Error("two policies with one @id compiled")
		}
	})

	t.Run("6 strings compare bytewise", func(t *testing.T) {
		for _, text := range []string{
			"@id(\"f\") forbid (principal == Agent::\"caf\u00e9\", action, resource);",
			"@id(\"f\") forbid (principal == Agent::\"cafe\u0301\", action, resource);",
			`@id("f") forbid (principal == Agent::"a\u{202E}", action, resource);`,
			"@id(\"f\") forbid (principal == Agent::\"a\u202e\", action, resource);",
			"@id(\"f\") forbid (principal, action, resource); // \u2066",
			`@id("f") forbid (principal, action, resource) when { [Account::"é"].contains(resource) };`,
		} {
			if _, err := Compile(Bundle{Hard: []byte(text)}); err == nil {
				t.Errorf("%+q compiled", text)
			}
		}
	})

	t.Run("7 numbers are int64 and an entity may be its own parent", func(t *testing.T) {
		e := mustCompile(t, `@id("p") permit (principal, action, resource in Account::"leaf") when { context.amount == -9223372036854775808 };`, "")
		req := pay(-1 << 63)
		req.Accounts = []string{"leaf", "leaf", "root"}
		if d := e.Decide(req, nil, nil, Epochs{}); d.Outcome != Allow {
			t.Errorf("got %v (%s), want allow", d.Outcome, d.Invalid)
		}
		if _, err := Compile(Bundle{Hard: []byte(`@id("f") forbid (principal, action, resource) when { context.n > 9223372036854775808 };`)}); err == nil {
			t.Error("a literal above int64 compiled")
		}
	})

	t.Run("8 no short circuit hides an error", func(t *testing.T) {
		e := mustCompile(t, permit+`@id("f") forbid (principal, action, resource); @id("e") forbid (principal, action, resource) when { context.absent };`, "")
		d := e.Decide(pay(1), nil, nil, Epochs{})
		if diff := cmp.Diff([]string{"e"}, d.Errors); diff != "" || !slices.Equal(d.Policies, []string{"f"}) {
			t.Errorf("got policies %v, errors %v, want f and e", d.Policies, d.Errors)
		}
	})

	t.Run("9 decimal has four places", func(t *testing.T) {
		e := mustCompile(t, permit+`@id("f") forbid (principal, action, resource) when { decimal(context.price).greaterThan(decimal("1.0")) };`, "")
		req := pay(1)
		req.Context["price"] = String("0.00001")
		if d := e.Decide(req, nil, nil, Epochs{}); d.Outcome != Deny || !slices.Equal(d.Errors, []string{"f"}) {
			t.Errorf("got %v, errors %v, want deny by error: money is a Long in the smallest unit", d.Outcome, d.Errors)
		}
	})
}
