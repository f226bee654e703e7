package authz

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCheckSoftActions(t *testing.T) {
	for _, tc := range []struct {
		policy string
		held   string // of usage, sandbox.claim
	}{
		{`forbid (principal, action == Action::"pay", resource);`, ""},
		{`forbid (principal, action == Action::"usage", resource);`, "usage"},
		{`forbid (principal, action in Action::"usage", resource);`, "usage"},
		{`forbid (principal, action in [Action::"pay", Action::"sandbox"], resource);`, "sandbox.claim"},
		{`forbid (principal, action == Action::"sandbox", resource);`, ""},
		{`forbid (principal, action in Action::"sand", resource);`, ""},
		{`forbid (principal, action, resource);`, "usage, sandbox.claim"},
		{`forbid (principal, action, resource is Resource);`, ""},
		{`forbid (principal, action, resource == Resource::"x");`, ""},
		{`forbid (principal, action, resource is Account);`, "usage, sandbox.claim"},
		{`forbid (principal, action, resource) unless { action in [Action::"usage", Action::"sandbox"] };`, ""},
		{`forbid (principal, action, resource) unless { action == Action::"usage" };`, "sandbox.claim"},
		{`forbid (principal, action, resource) when { action == Action::"usage" };`, "usage"},
		{`forbid (principal, action, resource) when { Action::"pay" == action };`, ""},
		{`forbid (principal, action, resource) when { action != Action::"usage" && !(action in [Action::"sandbox"]) };`, ""},
		{`forbid (principal, action, resource) when { action == Action::"pay" || action == Action::"mail" };`, ""},
		{`forbid (principal, action, resource) when { action == Action::"pay" || context.x };`, "usage, sandbox.claim"},
		{`forbid (principal, action, resource) when { context.x && action == Action::"pay" };`, ""},
		{`forbid (principal, action, resource) when { if action == Action::"usage" then false else context.x };`, "sandbox.claim"},
		{`forbid (principal, action, resource) when { if context.x then false else false };`, ""},
		{`forbid (principal, action, resource) when { context.amount > 5 };`, "usage, sandbox.claim"},
		{`forbid (principal, action, resource) when { false };`, ""},
		{`forbid (principal, action, resource) when { action in context.actions };`, "usage, sandbox.claim"},
		{`forbid (principal, action, resource) when { action in [context.one, Action::"usage"] };`, "usage, sandbox.claim"},
	} {
		e, err := Compile(Bundle{Hard: []byte(DefaultHard), Soft: []byte(`@id("x") @oversight("c") ` + tc.policy)})
		if err != nil {
			t.Fatalf("%s: %v", tc.policy, err)
		}
		err = e.CheckSoftActions([]string{"usage", "sandbox.claim"})
		if tc.held == "" {
			if err != nil {
				t.Errorf("%s: got %v, want no problem", tc.policy, err)
			}
			continue
		}
		p, ok := errors.AsType[*PolicyError](err)
		if !ok || p.ID != "x" || p.Line != 1 || !strings.Contains(p.Msg, "hold back "+tc.held+", which") {
			t.Errorf("%s: got %v, want that it could hold back %s", tc.policy, err, tc.held)
		}
	}
}

// No policy that the check lets pass is among those that hold one of the actions back, whatever is asked.
func TestCheckSoftActionsIsSound(t *testing.T) {
	actions := []string{"usage", "sandbox.claim"}
	rapid.Check(t, func(t *rapid.T) {
		entity := rapid.SampledFrom([]string{`Action::"usage"`, `Action::"sandbox"`, `Action::"sandbox.claim"`, `Action::"pay"`})
		var expr func(depth int) string
		expr = func(depth int) string {
			n := rapid.IntRange(0, 4).Draw(t, "leaf")
			if depth > 0 {
				n = rapid.IntRange(0, 9).Draw(t, "node")
			}
			switch n {
			case 0:
				return fmt.Sprintf("action == %s", entity.Draw(t, "entity"))
			case 1:
				return fmt.Sprintf("action in [%s, %s]", entity.Draw(t, "entity"), entity.Draw(t, "entity"))
			case 2:
				return fmt.Sprintf("action in %s", entity.Draw(t, "entity"))
			case 3:
				return fmt.Sprintf("action != %s", entity.Draw(t, "entity"))
			case 4:
				return rapid.SampledFrom([]string{"context.flag", "true", "false", "context has other"}).Draw(t, "other")
			case 5:
				return fmt.Sprintf("!(%s)", expr(depth-1))
			case 6, 7:
				return fmt.Sprintf("(%s) && (%s)", expr(depth-1), expr(depth-1))
			case 8:
				return fmt.Sprintf("(%s) || (%s)", expr(depth-1), expr(depth-1))
			}
			return fmt.Sprintf("(if %s then %s else %s)", expr(depth-1), expr(depth-1), expr(depth-1))
		}
		clause := rapid.SampledFrom([]string{"when", "unless"}).Draw(t, "clause")
		text := fmt.Sprintf(`@id("x") @oversight("c") forbid (principal, action, resource) %s { %s };`, clause, expr(3))
		e, err := Compile(Bundle{Hard: []byte(DefaultHard), Soft: []byte(text)})
		if err != nil {
			t.Skip(err)
		}
		action := rapid.SampledFrom(actions).Draw(t, "action")
		req := &Request{
			PrincipalType: TypeAgent, Principal: "a", Action: action, ResourceType: TypeAccount, Resource: "r",
			Context: map[string]Value{"flag": Bool(rapid.Bool().Draw(t, "flag"))},
		}
		if d := e.Decide(req, nil, nil, Epochs{}); d.Outcome == NeedsOversight && e.CheckSoftActions([]string{action}) == nil {
			t.Fatalf("%s\nholds %s back, and passed", text, action)
		}
	})
}
