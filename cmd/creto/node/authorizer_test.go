package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/registry"
	oversightkind "github.com/creto-systems/creto/oversight/kind"
)

// policyView is a view that says no more than what finds a policy.
type policyView struct{ ledger.View }

func (policyView) Tenant() ledger.Tenant { return ledger.Tenant{Slot: 1} }
func (policyView) Epochs() verify.Epochs { return verify.Epochs{Policy: 1} }

// A request is asked for as long as a verdict can name every policy that wants it approved, and refused beyond: its approval
// could not be claimed.
func TestAuthorizerRefusesMorePoliciesThanAVerdictNames(t *testing.T) {
	for n, want := range map[int]ledger.VerdictOutcome{
		1: ledger.VerdictNeedsOversight, ledger.MaxVerdictNames: ledger.VerdictNeedsOversight, ledger.MaxVerdictNames + 1: ledger.VerdictNone,
	} {
		var soft strings.Builder
		for i := range n {
			fmt.Fprintf(&soft, "@id(%q) @oversight(\"c\") forbid (principal, action == Action::\"pay\", resource);\n", fmt.Sprintf("p%d", i))
		}
		bundle := func(ledger.View) (authz.Bundle, bool) {
			return authz.Bundle{Hard: []byte(authz.DefaultHard), Soft: []byte(soft.String())}, true
		}
		ask := func(ledger.View, *nhi.Event, *registry.Chain) (authz.Request, []string, error) {
			return authz.Request{
				PrincipalType: authz.TypeAgent, Principal: "a", Action: "pay", ResourceType: authz.TypeResource, Resource: "r",
			}, nil, nil
		}
		a := newAuthorizer(bundle, map[string]question{oversightkind.Request: ask})
		v, err := a.Authorize(policyView{}, &nhi.Event{Kind: oversightkind.Request}, ledger.Authority{})
		_, tooMany := errors.AsType[*tooManyPoliciesError](err)
		if v.Outcome != want || tooMany != (want == ledger.VerdictNone) || want != ledger.VerdictNone && len(v.Policies) != n {
			t.Errorf("%d policies: got %v with %d of them, %v, want %v", n, v.Outcome, len(v.Policies), err, want)
		}
	}
}
