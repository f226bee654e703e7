package oversight

import (
	"errors"
	"fmt"
	"strings"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// ErrNoRequest says: a claim names a request that does not exist in the view it is judged in. Such an event is refused without a
// leaf, because there is no question that a policy could be asked about it.
var ErrNoRequest = errors.New("approval request does not exist")

// Judges says whether events of a kind are judged as the action that they are about, so that the edge asks AuthzRequest what
// to ask, instead of asking about the event itself.
func Judges(kindName string) bool { return kindName == kind.Request || kindName == kind.Claim }

// AuthzRequest returns what policies are asked about an event of a kind that Judges: not whether its signer may ask or claim,
// but whether it may do the action. For a claim that is the stored action, and satisfied names the soft policies that its
// request would satisfy if it is approved, which Apply checks. chain is nil for a signer who acts for itself. Guards of the
// chain are the caller's to add.
func (o *Oversight) AuthzRequest(v ledger.View, ev *nhi.Event, chain *registry.Chain) (req authz.Request, satisfied []string, err error) {
	switch ev.Kind {
	case kind.Request:
		b, err := kind.DecodeRequestBody(ev.Body)
		if err != nil {
			return authz.Request{}, nil, err
		}
		req, err = o.authzRequest(v, ev.Agent, &b.Action, chain)
		return req, nil, err
	case kind.Claim:
		return o.ClaimAuthz(v, ev, chain)
	}
	return authz.Request{}, nil, fmt.Errorf("kind %q is not judged as an action", ev.Kind)
}

// ClaimAuthz is AuthzRequest for a claim. The approval satisfies its soft policies only while the policy in force says the
// same about them as when it was asked for: the soft text and the chains must be equal, and what is hard is judged afresh.
// After any other change the soft policies match again, and the claim is refused as one that needs approval.
func (o *Oversight) ClaimAuthz(v ledger.View, ev *nhi.Event, chain *registry.Chain) (req authz.Request, satisfied []string, err error) {
	b, err := kind.DecodeClaimBody(ev.Body)
	if err != nil {
		return authz.Request{}, nil, err
	}
	r, ok := load(v, b.Request)
	if !ok {
		return authz.Request{}, nil, fmt.Errorf("claim %d: %w", b.Request, ErrNoRequest)
	}
	if req, err = o.authzRequest(v, ev.Agent, &r.Action, chain); err != nil {
		return authz.Request{}, nil, err
	}
	if r.stillSatisfies(v) {
		satisfied = r.Policies
	}
	return req, satisfied, nil
}

func (r *request) stillSatisfies(v ledger.View) bool {
	policy, index := currentPolicy(v)
	if policy.SoftDigest != r.Soft {
		return false
	}
	names := make([]string, len(r.Chains))
	for i := range r.Chains {
		names[i] = r.Chains[i].Name
	}
	return chainsDigest(chainsNamed(policy.chains(index), names)) == r.Defined
}

func (o *Oversight) authzRequest(v ledger.View, agent nhi.ID, a *kind.Action, chain *registry.Chain) (authz.Request, error) {
	params, err := a.Check()
	if err != nil {
		return authz.Request{}, err
	}
	who, err := registry.ResolveIdentity(ledger.RegistryView(v), agent, v.NextIndex())
	if err != nil {
		return authz.Request{}, fmt.Errorf("judge action of %s: %w", agent, err)
	}
	req := authz.Request{Principal: agent.String(), Action: a.Operation, Context: make(map[string]authz.Value, len(params))}
	switch who.Type {
	case registry.Agent:
		req.PrincipalType = authz.TypeAgent
	case registry.Human:
		req.PrincipalType = authz.TypeHuman
	case registry.Service:
		req.PrincipalType = authz.TypeService
	default:
		return authz.Request{}, fmt.Errorf("judge action of %s: %s identities are not judged by policies", agent, who.Type)
	}
	req.ResourceType, req.Resource = authz.TypeResource, a.Resource
	if id, ok := accountOf(a.Resource); ok {
		req.ResourceType, req.Resource = authz.TypeAccount, id.String()
		if o.cfg.Ancestors != nil {
			for _, above := range o.cfg.Ancestors(v, id) {
				req.Accounts = append(req.Accounts, above.String())
			}
		}
	}
	for key, value := range params {
		req.Context[key] = contextValue(value)
	}
	if chain != nil {
		req.Chain = authz.Chain{Depth: chain.Depth, Purpose: chain.Purpose.Label, Oversight: chain.Oversight}
		if chain.RootType == registry.Human {
			req.Chain.RootHuman = chain.Root.String()
		}
	}
	return req, nil
}

// accountOf returns the account that a resource stands for.
func accountOf(resource string) (nhi.ID, bool) {
	text, ok := strings.CutPrefix(resource, "account:")
	if !ok {
		return nhi.ID{}, false
	}
	id, err := nhi.ParseID(text)
	return id, err == nil
}

// contextValue turns a value of ParseParameters into one of a policy's context.
func contextValue(v any) authz.Value {
	switch x := v.(type) {
	case int64:
		return authz.Long(x)
	case string:
		return authz.String(x)
	case bool:
		return authz.Bool(x)
	case []any:
		elems := make([]authz.Value, len(x))
		for i := range x {
			elems[i] = contextValue(x[i])
		}
		return authz.Set(elems...)
	case map[string]any:
		fields := make(map[string]authz.Value, len(x))
		for k := range x {
			fields[k] = contextValue(x[k])
		}
		return authz.Record(fields)
	}
	return authz.Value{} // ParseParameters gives no other; authz refuses it
}
