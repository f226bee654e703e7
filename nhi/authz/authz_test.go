package authz

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mustCompile compiles a bundle that the test knows to be right.
func mustCompile(t testing.TB, hard, soft string) *Engine {
	t.Helper()
	e, err := Compile(Bundle{Hard: []byte(hard), Soft: []byte(soft)})
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return e
}

func mustGuard(t testing.TB, text string) *Guard {
	t.Helper()
	g, err := CompileGuard([]byte(text))
	if err != nil {
		t.Fatalf("compile guard: %v", err)
	}
	return g
}

// pay is a request to pay amount from an account two levels down.
func pay(amount int64) *Request {
	return &Request{
		PrincipalType: TypeAgent, Principal: "agent1", Groups: []string{"traders"},
		Action: "pay", ResourceType: TypeAccount, Resource: "leaf", Accounts: []string{"root", "team"},
		Context: map[string]Value{"amount": Long(amount)},
		Chain:   Chain{Depth: 2, RootHuman: "human1", Purpose: "invoices"},
	}
}

const softPay = `@oversight("payments-over-10k") @id("pay-10k")
forbid (principal, action == Action::"pay", resource) when { context.amount > 10000 };`

func TestDecide(t *testing.T) {
	const permit = `@id("p") permit (principal, action, resource);`
	tests := []struct {
		name       string
		hard, soft string
		req        *Request
		satisfied  []string
		guards     []string
		want       Decision
	}{
		{name: "permit", hard: permit, req: pay(1), want: Decision{Outcome: Allow, Policies: []string{"p"}}},
		{name: "no policy matches", hard: `@id("p") permit (principal, action == Action::"read", resource);`, req: pay(1), want: Decision{}},
		{name: "nothing published and empty", req: pay(1), want: Decision{}},
		{
			name: "forbid wins", hard: permit + `@id("f") forbid (principal, action, resource in Account::"team");`,
			req: pay(1), want: Decision{Policies: []string{"f"}},
		},
		{
			name: "group", hard: `@id("g") permit (principal in Group::"traders", action, resource);`,
			req: pay(1), want: Decision{Outcome: Allow, Policies: []string{"g"}},
		},
		{
			name: "action family", hard: `@id("q") permit (principal, action in Action::"quota", resource);`,
			req:  &Request{PrincipalType: TypeAgent, Principal: "a", Action: "quota.reserve", ResourceType: TypeResource, Resource: "r"},
			want: Decision{Outcome: Allow, Policies: []string{"q"}},
		},
		{
			name: "chain facts", hard: `@id("c") permit (principal, action, resource) when {
				context.chain_depth == 2 && context.root_human == Human::"human1" && context.purpose == "invoices" };`,
			req: pay(1), want: Decision{Outcome: Allow, Policies: []string{"c"}},
		},
		{
			name: "soft match", hard: permit, soft: softPay, req: pay(10001),
			want: Decision{Outcome: NeedsOversight, Chains: []string{"payments-over-10k"}, Policies: []string{"pay-10k"}},
		},
		{name: "soft miss", hard: permit, soft: softPay, req: pay(10000), want: Decision{Outcome: Allow, Policies: []string{"p"}}},
		{
			name: "union of chains", hard: permit, req: pay(1),
			soft: `@oversight("b") @id("s2") forbid (principal, action, resource);
				@oversight("a") @id("s1") forbid (principal, action, resource);
				@oversight("b") @id("s3") forbid (principal, action, resource);`,
			satisfied: []string{"s1"},
			want: Decision{
				Outcome: NeedsOversight, Chains: []string{"b"}, Policies: []string{"s2", "s3"}, Satisfied: []string{"s1"},
			},
		},
		{
			name: "satisfied", hard: permit, soft: softPay, req: pay(10001), satisfied: []string{"pay-10k", "other"},
			want: Decision{Outcome: Allow, Policies: []string{"p"}, Satisfied: []string{"pay-10k"}},
		},
		{
			name: "a link demands oversight", hard: permit, soft: softPay, satisfied: []string{"link:cfo", "pay-10k"},
			req: func() *Request {
				r := pay(10001)
				r.Chain.Oversight = []string{"legal", "cfo", "legal"}
				return r
			}(),
			want: Decision{
				Outcome: NeedsOversight, Chains: []string{"legal"}, Policies: []string{"link:legal"}, Satisfied: []string{"link:cfo", "pay-10k"},
			},
		},
		{
			name: "an approval never names a hard forbid away", hard: permit + `@id("f") forbid (principal, action, resource);`,
			req: pay(1), satisfied: []string{"f"}, want: Decision{Policies: []string{"f"}},
		},
		{
			name: "guard forbids", hard: permit, req: pay(501),
			guards: []string{`@id("cap") forbid (principal, action, resource) when { context.amount > 500 };`},
			want:   Decision{Policies: []string{"guard:/cap"}},
		},
		{
			name: "guard does not permit", hard: "", req: pay(1),
			guards: []string{`@id("cap") forbid (principal, action, resource) when { context.amount > 500 };`},
			want:   Decision{},
		},
		{
			name: "guard id equal to a policy id", hard: `@id("x") permit (principal, action, resource);`, req: pay(1),
			guards: []string{`@id("x") forbid (principal, action, resource) unless { context.amount > 0 };`},
			want:   Decision{Outcome: Allow, Policies: []string{"x"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := mustCompile(t, tt.hard, tt.soft)
			var guards []*Guard
			for _, g := range tt.guards {
				guards = append(guards, mustGuard(t, g))
			}
			got := e.Decide(tt.req, tt.satisfied, guards, Epochs{Policy: 7, Entities: 8, Revocation: 9})
			if got.Digest == ([32]byte{}) || got.Epochs != (Epochs{7, 8, 9}) {
				t.Errorf("got digest %x and epochs %v, want a digest and the epochs given", got.Digest, got.Epochs)
			}
			tt.want.Digest, tt.want.Epochs = got.Digest, got.Epochs
			for i, id := range got.Policies {
				if rest, ok := strings.CutPrefix(id, "guard:"); ok {
					_, name, _ := strings.Cut(rest, "/")
					got.Policies[i] = "guard:/" + name
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultBundle(t *testing.T) {
	e, err := Compile(DefaultBundle())
	if err != nil {
		t.Fatal(err)
	}
	d := e.Decide(pay(1), nil, nil, Epochs{})
	if d.Outcome != Allow || !slices.Equal(d.Policies, []string{"default-permit"}) {
		t.Errorf("got %v by %v, want allow by default-permit", d.Outcome, d.Policies)
	}
	var none *Engine
	if d := none.Decide(pay(1), nil, nil, Epochs{}); d.Outcome != Deny {
		t.Errorf("got %v without an engine, want deny", d.Outcome)
	}
}

// A caller cannot pass facts of the chain, nor any of the principal.
func TestIdentity23ForgedChainContext(t *testing.T) {
	e := mustCompile(t, `@id("p") permit (principal, action, resource) when { context.chain_depth == 0 };`, "")
	if d := e.Decide(pay(1), nil, nil, Epochs{}); d.Outcome != Deny || d.Invalid != "" {
		t.Fatalf("got %v (%s) at depth 2, want deny by policy", d.Outcome, d.Invalid)
	}
	for _, key := range []string{KeyChainDepth, KeyRootHuman, KeyPurpose, KeyApproval} {
		req := pay(1)
		req.Context[key] = Long(0)
		if err := req.Validate(); !errors.Is(err, ErrBadRequest) || !strings.Contains(err.Error(), key) {
			t.Errorf("validate with context.%s: got %v, want ErrBadRequest that names it", key, err)
		}
		d := e.Decide(req, nil, nil, Epochs{})
		if d.Outcome != Deny || !strings.Contains(d.Invalid, "reserved") {
			t.Errorf("context.%s: got %v (%s), want deny because reserved", key, d.Outcome, d.Invalid)
		}
	}
	if _, err := Compile(Bundle{Hard: []byte(`@id("p") permit (principal, action, resource) when { principal.admin };`)}); err == nil {
		t.Error("a policy that reads attributes of the principal compiled")
	}
	if _, err := Compile(Bundle{Hard: []byte(`@id("p") permit (principal, action, resource) when { context.approval };`)}); err == nil {
		t.Error("a policy that reads context.approval compiled")
	}
}

func TestIdentity25HardAgainstSoft(t *testing.T) {
	const permit = `@id("p") permit (principal, action, resource);`
	approval := []string{"pay-10k"}
	tests := []struct {
		name      string
		hard      string
		satisfied []string
		want      Outcome
	}{
		{"hard forbid and approval", permit + `@id("f") forbid (principal, action, resource);`, approval, Deny},
		{"soft forbid without permit: nobody is asked", "", nil, Deny},
		{"approval without permit", "", approval, Deny},
		{"soft forbid and permit", permit, nil, NeedsOversight},
		{"soft forbid, permit and approval", permit, approval, Allow},
		{"soft forbid, permit and an approval of another policy", permit, []string{"pay-20k"}, NeedsOversight},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := mustCompile(t, tt.hard, softPay).Decide(pay(20000), tt.satisfied, nil, Epochs{})
			if d.Outcome != tt.want {
				t.Errorf("got %v, want %v", d.Outcome, tt.want)
			}
			if d.Outcome != NeedsOversight && d.Chains != nil {
				t.Errorf("got chains %v with outcome %v, want none", d.Chains, d.Outcome)
			}
		})
	}
}

func TestIdentity26PolicyError(t *testing.T) {
	const permit = `@id("p") permit (principal, action, resource);`
	for _, fault := range []struct{ name, when string }{
		{"missing attribute", `context.absent > 100`},
		{"overflow", `context.amount + 9223372036854775807 > 100`},
		{"type", `context.amount like "a*"`},
		{"entity without attributes", `(if context.amount > 0 then context.root_human else context.x).name == "a"`},
	} {
		body := fmt.Sprintf(`(principal, action, resource) when { %s };`, fault.when)
		for _, in := range []struct {
			name       string
			hard, soft string
			guard      string
			want       []string
		}{
			{"permit", permit + `@id("b") permit ` + body + `@id("a") permit ` + body, "", "", []string{"a", "b"}},
			{"forbid", permit + `@id("b") forbid ` + body + `@id("a") forbid ` + body, "", "", []string{"a", "b"}},
			{"soft", permit, `@id("b") @oversight("c") forbid ` + body + `@id("a") @oversight("c") forbid ` + body, "", []string{"a", "b"}},
			{"guard", permit, "", `@id("b") forbid ` + body + `@id("a") forbid ` + body, []string{"a", "b"}},
		} {
			t.Run(fault.name+"/"+in.name, func(t *testing.T) {
				var guards []*Guard
				if in.guard != "" {
					guards = append(guards, mustGuard(t, in.guard))
				}
				d := mustCompile(t, in.hard, in.soft).Decide(pay(1), []string{"a", "b"}, guards, Epochs{})
				var got []string
				for _, id := range d.Errors {
					got = append(got, id[strings.LastIndexByte(id, '/')+1:])
				}
				if d.Outcome != Deny || !slices.Equal(got, in.want) {
					t.Errorf("got %v with errors %v, want deny with %v", d.Outcome, got, in.want)
				}
			})
		}
	}
}

func TestIdentity27BundlePoison(t *testing.T) {
	big := strings.Repeat("!", 1<<20)
	many := strings.Repeat(`permit(principal,action,resource);`, 1001)
	nested := func(open, middle, shut string, n int) string {
		return `@id("p") permit (principal, action, resource) when { ` +
			strings.Repeat(open, n) + middle + strings.Repeat(shut, n) + ` };`
	}
	tests := []struct {
		name       string
		hard, soft string
		set        string
		msg        string
	}{
		{"1 MB of !", big, "", SetHard, "at most 65536"},
		{"1 MB of ! in soft", "", big, SetSoft, "at most 65536"},
		{"64 KiB of !", big[:MaxTextBytes], "", SetHard, "nesting"},
		{"64 KiB of (", strings.Repeat("(", MaxTextBytes), "", SetHard, "nesting"},
		{"brackets", nested("(", "true", ")", 65), "", SetHard, "nesting"},
		{"sets", nested("[", "1", "]", 65), "", SetHard, "nesting"},
		{"records", nested("{a:", "1", "}", 65), "", SetHard, "nesting"},
		{"ifs", nested("if true then true else ", "true", "", 65), "", SetHard, "nesting"},
		{"ifs in tests", nested("if ", "true", " then true else true", 65), "", SetHard, "nesting"},
		{"minus", nested("-", "1", "", 65), "", SetHard, "nesting"},
		{"minus apart", nested("- /* a */\n", "1", "", 65), "", SetHard, "nesting"},
		{"operators", nested("true && ", "true", "", 600), "", SetHard, "operators"},
		{"attributes", `@id("p") permit (principal, action, resource) when { context has ` + strings.Repeat("a.", 40) + `a };`, "", SetHard, "in a row"},
		{"1,001 policies", many, "", SetHard, "1001 policies"},
		{"duplicate id", `@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);`, "", SetHard, "twice"},
		{
			"duplicate id across sets", `@id("a") permit (principal, action, resource);`,
			`@id("a") @oversight("c") forbid (principal, action, resource);`, SetSoft, "twice",
		},
		{"duplicate annotation", `@id("a") @id("b") permit (principal, action, resource);`, "", SetHard, "duplicate annotation"},
		{"no id", `permit (principal, action, resource);`, "", SetHard, "@id is missing"},
		{"bad id", `@id("a b") permit (principal, action, resource);`, "", SetHard, "@id"},
		{"oversight in hard", `@id("a") @oversight("c") forbid (principal, action, resource);`, "", SetHard, "no @oversight"},
		{"bare forbid in soft", "", `@id("a") forbid (principal, action, resource);`, SetSoft, "missing"},
		{"empty chain in soft", "", `@id("a") @oversight forbid (principal, action, resource);`, SetSoft, "chain name"},
		{"permit in soft", "", `@id("a") @oversight("c") permit (principal, action, resource);`, SetSoft, "only forbids"},
		{"type error", `@id("a") forbid (principal, action, resource) when { context.amount > "x" };`, "", SetHard, "is string"},
		{"condition of another type", `@id("a") forbid (principal, action, resource) when { 1 };`, "", SetHard, "want bool"},
		{"compare kinds", `@id("a") forbid (principal, action, resource) when { context.purpose == 1 };`, "", SetHard, "string with long"},
		{"negated text", `@id("a") forbid (principal, action, resource) when { !"a" };`, "", SetHard, "want bool"},
		{"unknown function", `@id("a") forbid (principal, action, resource) when { foo("a") };`, "", SetHard, "not a function"},
		{"operands missing", `@id("a") forbid (principal, action, resource) when { ip() == ip("::1") };`, "", SetHard, "operands"},
		{"bad literal", `@id("a") forbid (principal, action, resource) when { decimal("1.00001") == decimal("1.0") };`, "", SetHard, "decimal"},
		{"unknown principal type", `@id("a") forbid (principal is Agnet, action, resource);`, "", SetHard, "Agnet"},
		{"unknown resource type", `@id("a") forbid (principal, action, resource in Acount::"x");`, "", SetHard, "Acount"},
		{"unknown type in condition", `@id("a") forbid (principal, action, resource) when { principal is Robot };`, "", SetHard, "Robot"},
		{"action of another type", `@id("a") forbid (principal, action == Verb::"x", resource);`, "", SetHard, "Verb"},
		{"empty action list", `@id("a") forbid (principal, action in [], resource);`, "", SetHard, "never matches"},
		{"tags", `@id("a") forbid (principal, action, resource) when { principal.hasTag("a") };`, "", SetHard, "tags"},
		{"no UTF-8", "@id(\"a\") forbid (principal, action, resource); // \xff", "", SetHard, "UTF-8"},
		{"NUL", "\x00", "", SetHard, "not allowed"},
		{"open string", `@id("a`, "", SetHard, "not closed"},
		{"open comment", `/* a`, "", SetHard, "not closed"},
		{"garbage", `let x = 1;`, "", SetHard, ""},
		{"truncated", `@id("a") permit (principal, action`, "", SetHard, ""},
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := Compile(Bundle{Hard: []byte(tt.hard), Soft: []byte(tt.soft)})
			var pe *PolicyError
			if !errors.As(err, &pe) {
				t.Fatalf("got engine %v, error %v, want a PolicyError", e != nil, err)
			}
			if pe.Set != tt.set || !strings.Contains(pe.Msg, tt.msg) {
				t.Errorf("got set %q, message %q, want set %q, message with %q", pe.Set, pe.Msg, tt.set, tt.msg)
			}
		})
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > 64<<20 {
		t.Errorf("memory of the process rose by %d bytes, want less than 64 MiB", grown)
	}

	for _, text := range []string{
		`@id("a") permit (principal, action, resource);`,
		`@id("a") @oversight("c") forbid (principal, action, resource);`,
		`forbid (principal, action, resource);`,
		`@id("a") forbid (principal, action, resource) when { "a" < 1 };`,
		big,
	} {
		var pe *PolicyError
		if err := CheckGuard([]byte(text)); !errors.As(err, &pe) || pe.Set != SetGuard {
			t.Errorf("guard %.60q: got %v, want a PolicyError of set guard", text, err)
		}
	}
}

// What is within the bounds compiles: they bound nothing that people write.
func TestBoundsAllow(t *testing.T) {
	deep := `@id("p") permit (principal, action, resource) when { ` + strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60) + ` };`
	list := `@id("l") permit (principal, action, resource) when { principal in [` + strings.Repeat(`Group::"g",`, 2000) + `Group::"h"] };`
	many := ""
	for i := range 1000 {
		many += fmt.Sprintf("@id(\"p%d\")permit(principal,action,resource);\n", i)
	}
	for _, text := range []string{deep, list, many, `@id("a") permit (principal, action, resource) when {
		// ((((
		context.s == "((((" && /* [[[ */ [1, 2].contains(context.n) && ip("10.0.0.0/8").isIpv4() && context has a.b.c &&
		(if context.chain_depth > 1 then -1 < 2 else !false) && datetime("2026-01-01") < datetime("2026-01-02").offset(duration("1h")) };`} {
		mustCompile(t, text, "")
	}
}

func TestPolicyErrorsAllAtOnce(t *testing.T) {
	_, err := Compile(Bundle{
		Hard: []byte("permit (principal, action, resource);\n\n@id(\"x\") @oversight(\"c\")\nforbid (principal, action, resource);\n"),
		Soft: []byte("@id(\"x\")\npermit (principal, action, resource) when { 1 };"),
	})
	var got PolicyErrors
	if !errors.As(err, &got) {
		t.Fatalf("got %T, want PolicyErrors", err)
	}
	want := "hard:1: @id is missing\n" +
		"hard:3: policy \"x\": the hard set holds no @oversight: move the policy to the soft set\n" +
		"soft:1: policy \"x\": @id is used twice\n" +
		"soft:1: policy \"x\": a condition is long, want bool\n" +
		"soft:1: policy \"x\": the soft set holds only forbids\n" +
		"soft:1: policy \"x\": @oversight(\"chain\") is missing: a forbid without it belongs to the hard set"
	if diff := cmp.Diff(want, got.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	_, err = Compile(Bundle{Hard: []byte("@id(\"x\")\npermit (principal, action);")})
	var one *PolicyError
	if !errors.As(err, &one) || one.Line != 2 {
		t.Errorf("got %v, want a PolicyError on line 2", err)
	}
}

func TestRequestRefused(t *testing.T) {
	e, err := Compile(DefaultBundle())
	if err != nil {
		t.Fatal(err)
	}
	deep := Long(1)
	for range 10 {
		deep = Set(deep)
	}
	wide := make([]Value, 2000)
	for i := range wide {
		wide[i] = Long(int64(i))
	}
	tests := []struct {
		name   string
		change func(*Request)
	}{
		{"NFD id", func(r *Request) { r.Principal = "cafe\u0301" }},
		{"NFC id", func(r *Request) { r.Principal = "caf\u00e9" }},
		{"bidi id", func(r *Request) { r.Resource = "a\u202e" }},
		{"empty id", func(r *Request) { r.Resource = "" }},
		{"space", func(r *Request) { r.Action = "pay " }},
		{"long id", func(r *Request) { r.Action = strings.Repeat("a", 257) }},
		{"group id", func(r *Request) { r.Groups = []string{"\x00"} }},
		{"account id", func(r *Request) { r.Accounts = []string{"ü"} }},
		{"too many accounts", func(r *Request) { r.Accounts = slices.Repeat([]string{"a"}, 257) }},
		{"root human id", func(r *Request) { r.Chain.RootHuman = "ü" }},
		{"principal type", func(r *Request) { r.PrincipalType = "Robot" }},
		{"resource type", func(r *Request) { r.ResourceType = "Group" }},
		{"depth", func(r *Request) { r.Chain.Depth = -1 }},
		{"oversight chain", func(r *Request) { r.Chain.Oversight = []string{"a b"} }},
		{"purpose", func(r *Request) { r.Chain.Purpose = "\xff" }},
		{"empty value", func(r *Request) { r.Context["x"] = Value{} }},
		{"context key", func(r *Request) { r.Context["a b"] = Long(1) }},
		{"text not UTF-8", func(r *Request) { r.Context["x"] = String("\xff") }},
		{"long text", func(r *Request) { r.Context["x"] = String(strings.Repeat("a", 4097)) }},
		{"nesting", func(r *Request) { r.Context["x"] = deep }},
		{"values", func(r *Request) { r.Context["x"] = Set(wide...) }},
		{"nested reserved value", func(r *Request) { r.Context["x"] = Record(map[string]Value{"y": {}}) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := pay(1)
			tt.change(req)
			if err := req.Validate(); !errors.Is(err, ErrBadRequest) {
				t.Errorf("validate: got %v, want ErrBadRequest", err)
			}
			if d := e.Decide(req, nil, nil, Epochs{}); d.Outcome != Deny || d.Invalid == "" {
				t.Errorf("decide: got %v, want deny with a reason", d.Outcome)
			}
		})
	}
}

func TestDecisionDigest(t *testing.T) {
	const hard = `@id("p") permit (principal, action, resource);`
	base := func() Decision {
		return mustCompile(t, hard, softPay).Decide(pay(1), nil, nil, Epochs{1, 2, 3})
	}
	want := base().Digest

	same := pay(1)
	same.Accounts = []string{"team", "root", "team"}
	if got := mustCompile(t, hard, softPay).Decide(same, nil, nil, Epochs{1, 2, 3}).Digest; got != want {
		t.Error("the order of accounts changed the digest")
	}

	seen := map[[32]byte]string{want: "base"}
	check := func(name string, d Decision) {
		if prev, ok := seen[d.Digest]; ok {
			t.Errorf("%s has the digest of %s", name, prev)
		}
		seen[d.Digest] = name
	}
	e := mustCompile(t, hard, softPay)
	check("policy epoch", e.Decide(pay(1), nil, nil, Epochs{2, 2, 3}))
	check("entity epoch", e.Decide(pay(1), nil, nil, Epochs{1, 3, 3}))
	check("revocation epoch", e.Decide(pay(1), nil, nil, Epochs{1, 2, 4}))
	check("amount", e.Decide(pay(2), nil, nil, Epochs{1, 2, 3}))
	check("oversight", e.Decide(pay(10001), nil, nil, Epochs{1, 2, 3}))
	check("satisfied", e.Decide(pay(10001), []string{"pay-10k"}, nil, Epochs{1, 2, 3}))
	check("guard", e.Decide(pay(1), nil, []*Guard{mustGuard(t, `@id("g") forbid (principal, action == Action::"x", resource);`)}, Epochs{1, 2, 3}))
	check("bundle bytes", mustCompile(t, hard+" ", softPay).Decide(pay(1), nil, nil, Epochs{1, 2, 3}))
	for name, change := range map[string]func(*Request){
		"principal type": func(r *Request) { r.PrincipalType = TypeService },
		"principal":      func(r *Request) { r.Principal = "agent2" },
		"group":          func(r *Request) { r.Groups = nil },
		"depth":          func(r *Request) { r.Chain.Depth = 1 },
		"root human":     func(r *Request) { r.Chain.RootHuman = "" },
		"link oversight": func(r *Request) { r.Chain.Oversight = []string{"cfo"} },
		"bool":           func(r *Request) { r.Context["x"] = Bool(true) },
		"string":         func(r *Request) { r.Context["x"] = String("1") },
		"long":           func(r *Request) { r.Context["x"] = Long(1) },
		"set":            func(r *Request) { r.Context["x"] = Set(Long(1)) },
		"record":         func(r *Request) { r.Context["x"] = Record(map[string]Value{"y": Long(1)}) },
	} {
		req := pay(1)
		change(req)
		check(name, e.Decide(req, nil, nil, Epochs{1, 2, 3}))
	}
	a, b := pay(1), pay(1)
	a.Context["s"], b.Context["s"] = Set(Long(1), Long(2)), Set(Long(2), Long(1), Long(2))
	if a.Digest() != b.Digest() {
		t.Error("the order of set elements changed the digest")
	}
}

// Guards only narrow: whatever a chain adds, nothing denied becomes allowed.
func TestGuardsNeverWiden(t *testing.T) {
	e := mustCompile(t, `@id("p") permit (principal, action, resource) when { context.amount < 100 };`, softPay)
	guard := mustGuard(t, `@id("g") forbid (principal, action, resource) when { context.amount > 50 };`)
	for _, amount := range []int64{-1, 0, 50, 51, 99, 100, 10001} {
		without := e.Decide(pay(amount), nil, nil, Epochs{}).Outcome
		with := e.Decide(pay(amount), nil, []*Guard{guard}, Epochs{}).Outcome
		if with != Deny && with != without {
			t.Errorf("amount %d: got %v with the guard, %v without", amount, with, without)
		}
	}
	if d := e.Decide(pay(1), nil, []*Guard{nil}, Epochs{}); d.Outcome != Deny {
		t.Errorf("got %v with a guard that is missing, want deny", d.Outcome)
	}
}
