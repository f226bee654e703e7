package authz

import (
	"errors"
	"testing"
)

// policySeeds are texts at the edges of the grammar and of the bounds.
func policySeeds() []string {
	return []string{
		DefaultHard,
		softPay,
		`@id("f") forbid (principal is Agent in Group::"g", action in [Action::"a", Action::"b.c"], resource == Account::"x") when { context has a.b && context.a.b in [1, 2] } unless { if true then !false else ip("::1").isIpv6() };`,
		`@id("f") forbid (principal, action, resource) when { "\u{202E}" like "*\*" };`,
		`@id("f") forbid (principal, action, resource) when { {"a": -9223372036854775808}["a"] == datetime("2026-01-01").toTime().toDays() };`,
		"/* ((( */ // !!!\n",
		`((((((((`, `!!!!!!!!`, `@id`, `"`, "\xff", "/*/", "",
	}
}

// FuzzCompile: whatever the text, Compile returns; what it accepts decides
// without panic, the same twice, and never errs about what it could know.
func FuzzCompile(f *testing.F) {
	for _, s := range policySeeds() {
		f.Add([]byte(s), []byte(softPay))
		f.Add([]byte(DefaultHard), []byte(s))
	}
	f.Fuzz(func(t *testing.T, hard, soft []byte) {
		e, err := Compile(Bundle{Hard: hard, Soft: soft})
		if err != nil {
			var pe *PolicyError
			if !errors.As(err, &pe) {
				t.Fatalf("got %T, want PolicyErrors", err)
			}
			return
		}
		req := pay(20000)
		d, again := e.Decide(req, nil, nil, Epochs{}), e.Decide(req, nil, nil, Epochs{})
		if d.Digest != again.Digest {
			t.Fatal("the same request has two digests")
		}
		if d.Invalid != "" {
			t.Fatalf("evaluation stopped: %s", d.Invalid)
		}
		if d.Outcome != Deny && len(d.Errors) > 0 {
			t.Fatalf("got %v with errors %v, want deny", d.Outcome, d.Errors)
		}
		if d.Outcome == NeedsOversight && len(d.Chains) == 0 {
			t.Fatal("oversight is needed but by no chain")
		}
	})
}

// FuzzCheckGuard: a guard that compiles never turns a refusal into anything
// else.
func FuzzCheckGuard(f *testing.F) {
	for _, s := range policySeeds() {
		f.Add([]byte(s))
	}
	allow, err := Compile(DefaultBundle())
	if err != nil {
		f.Fatal(err)
	}
	none, err := Compile(Bundle{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := CompileGuard(text)
		if (CheckGuard(text) == nil) != (err == nil) {
			t.Fatal("CheckGuard and CompileGuard differ")
		}
		if err != nil {
			return
		}
		if d := none.Decide(pay(1), nil, []*Guard{g}, Epochs{}); d.Outcome != Deny {
			t.Fatalf("got %v, want deny: a guard permits nothing", d.Outcome)
		}
		if d := allow.Decide(pay(1), nil, []*Guard{g}, Epochs{}); d.Invalid != "" {
			t.Fatalf("evaluation stopped: %s", d.Invalid)
		}
	})
}
