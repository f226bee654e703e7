package node

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter"
	meterkind "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/registry"
)

// Bounds of the authorizer's caches. A full one is emptied: what is in use comes back at once.
const (
	maxEngines = 256   // compiled bundles
	maxGuards  = 1024  // compiled link guards
	maxMemo    = 16384 // decisions
)

// question is what an event asks of the tenant's policy. Kinds about actions of their own (approvals) bring theirs.
type question func(v ledger.View, ev *nhi.Event, chain *registry.Chain) (req authz.Request, satisfied []string, err error)

// authorizer asks the tenant's policy about events: it implements edge.Authorizer. Everything it caches is found by what
// it was made from, so nothing in it can be out of date.
type authorizer struct {
	// bundle returns the tenant's published policy; false = none, and the built-in one counts.
	bundle    func(v ledger.View) (authz.Bundle, bool)
	questions map[string]question // by kind; absent: ask about the event itself

	mu      sync.Mutex
	engines map[engineKey]*authz.Engine // guarded by mu
	guards  map[nhi.Digest]*authz.Guard // guarded by mu
	memo    map[memoKey]ledger.Verdict  // guarded by mu
}

// memoKey is everything a verdict about an event itself depends on. Signer, chain, guards, accounts and policy change only
// with one of the epochs; the rest is what the event says.
type memoKey struct {
	slot    uint32
	epochs  verify.Epochs
	signer  nhi.ID
	link    nhi.LinkID
	account nhi.ID
	kind    string
	body    nhi.Digest
}

// engineKey finds a compiled bundle: what stands published at a policy epoch of a tenant never changes.
type engineKey struct {
	slot  uint32
	epoch uint64
}

func newAuthorizer(bundle func(v ledger.View) (authz.Bundle, bool), questions map[string]question) *authorizer {
	return &authorizer{
		bundle: bundle, questions: questions, engines: make(map[engineKey]*authz.Engine), guards: make(map[nhi.Digest]*authz.Guard),
		memo: make(map[memoKey]ledger.Verdict),
	}
}

// Authorize decides about one event. An error refuses the event before it is proposed.
func (a *authorizer) Authorize(v ledger.View, ev *nhi.Event, by ledger.Authority) (verdict ledger.Verdict, err error) {
	err = ledger.Guard(func() error {
		verdict, err = a.remember(v, ev, by)
		return err
	})
	return verdict, err
}

// remember answers from memory where the event is judged by what it says itself: a batch mostly repeats one question.
func (a *authorizer) remember(v ledger.View, ev *nhi.Event, by ledger.Authority) (ledger.Verdict, error) {
	if _, ok := a.questions[ev.Kind]; ok {
		return a.authorize(v, ev, by)
	}
	key := memoKey{v.Tenant().Slot, v.Epochs(), by.Signer.Identity.ID, ev.Link, ev.Account, ev.Kind, sha256.Sum256(ev.Body)}
	a.mu.Lock()
	verdict, ok := a.memo[key]
	a.mu.Unlock()
	if ok {
		return verdict, nil
	}
	verdict, err := a.authorize(v, ev, by)
	if err != nil {
		return verdict, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.memo) >= maxMemo {
		clear(a.memo)
	}
	a.memo[key] = verdict
	return verdict, nil
}

func (a *authorizer) authorize(v ledger.View, ev *nhi.Event, by ledger.Authority) (ledger.Verdict, error) {
	engine, err := a.engine(v)
	if err != nil {
		return ledger.Verdict{}, err
	}
	req, satisfied, err := a.ask(v, ev, by)
	if err != nil {
		return ledger.Verdict{}, err
	}
	if err := req.Validate(); err != nil {
		return ledger.Verdict{}, err
	}
	var guards []*authz.Guard
	if by.Chain != nil {
		if guards, err = a.guardsOf(v, by.Chain); err != nil {
			return ledger.Verdict{}, err
		}
	}
	e := v.Epochs()
	d := engine.Decide(&req, satisfied, guards, authz.Epochs{Policy: e.Policy, Entities: e.Entities, Revocation: e.Revocation})
	verdict := ledger.Verdict{Digest: d.Digest, Chains: d.Chains, Policies: d.Policies, Epochs: e}
	switch d.Outcome {
	case authz.Allow:
		verdict.Outcome = ledger.VerdictAllow
	case authz.NeedsOversight:
		verdict.Outcome = ledger.VerdictNeedsOversight
	default:
		verdict.Outcome = ledger.VerdictDeny
	}
	// An approval satisfies the policies that its request's verdict names: one that left some out could never be claimed.
	if _, own := a.questions[ev.Kind]; own && verdict.Outcome == ledger.VerdictNeedsOversight {
		if n := max(len(verdict.Policies), len(verdict.Chains)); n > ledger.MaxVerdictNames {
			return ledger.Verdict{}, &tooManyPoliciesError{n}
		}
	}
	clipNames(&verdict.Chains)
	clipNames(&verdict.Policies)
	return verdict, nil
}

// tooManyPoliciesError refuses to ask for an approval that more policies want than one verdict can name.
type tooManyPoliciesError struct{ n int }

func (e *tooManyPoliciesError) Error() string {
	return fmt.Sprintf("%d policies want this approved, at most %d can be satisfied by one approval", e.n, ledger.MaxVerdictNames)
}

// clipNames keeps a verdict within what a command holds; the decision's digest covers all of them.
func clipNames(names *[]string) {
	if len(*names) > ledger.MaxVerdictNames {
		*names = (*names)[:ledger.MaxVerdictNames]
	}
}

func (a *authorizer) ask(v ledger.View, ev *nhi.Event, by ledger.Authority) (authz.Request, []string, error) {
	if q, ok := a.questions[ev.Kind]; ok {
		return q(v, ev, by.Chain)
	}
	req, err := eventRequest(v, ev, by)
	return req, nil, err
}

// eventRequest asks whether the event itself may be: its kind on its account, with the quantities of usage in the context.
func eventRequest(v ledger.View, ev *nhi.Event, by ledger.Authority) (authz.Request, error) {
	id := by.Signer.Identity
	req := authz.Request{Principal: id.ID.String(), Action: ev.Kind, ResourceType: authz.TypeAccount, Chain: chainFacts(by.Chain)}
	switch id.Type {
	case registry.Agent:
		req.PrincipalType = authz.TypeAgent
	case registry.Human:
		req.PrincipalType = authz.TypeHuman
	case registry.Service:
		req.PrincipalType = authz.TypeService
	default:
		return req, fmt.Errorf("policy has no say about a signer of type %s", id.Type)
	}
	account := ev.Account
	if account.IsZero() {
		account = v.Tenant().ID
	}
	req.Resource = account.String()
	path, ok := meter.Path(v, account, nil)
	if ok {
		for _, p := range path[1:] {
			req.Accounts = append(req.Accounts, p.String())
		}
	}
	if ev.Kind == meterkind.Usage {
		if b, err := meterkind.DecodeUsageBody(ev.Body); err == nil {
			q := make(map[string]authz.Value, len(b.Quantities))
			for _, x := range b.Quantities {
				q[x.Meter] = authz.Long(int64(min(x.N, meterkind.MaxAmount)))
			}
			dims := make(map[string]authz.Value, len(b.Dims))
			for _, x := range b.Dims {
				dims[x.Name] = authz.String(x.Value)
			}
			req.Context = map[string]authz.Value{"quantities": authz.Record(q), "dims": authz.Record(dims)}
		}
	}
	return req, nil
}

// chainFacts is what policy hears about a verified chain.
func chainFacts(c *registry.Chain) authz.Chain {
	if c == nil {
		return authz.Chain{}
	}
	f := authz.Chain{Depth: c.Depth, Purpose: c.Purpose.Label, Oversight: c.Oversight}
	if c.RootType == registry.Human {
		f.RootHuman = c.Root.String()
	}
	return f
}

// engine returns the compiled policy of the view's tenant.
func (a *authorizer) engine(v ledger.View) (*authz.Engine, error) {
	key := engineKey{v.Tenant().Slot, v.Epochs().Policy}
	if key.epoch == 0 {
		key.slot = 0 // the built-in bundle is one for all
	}
	a.mu.Lock()
	e := a.engines[key]
	a.mu.Unlock()
	if e != nil {
		return e, nil
	}
	b, ok := a.bundle(v)
	if !ok {
		b = authz.DefaultBundle()
	}
	e, err := authz.Compile(b)
	if err != nil {
		return nil, fmt.Errorf("compile the published policy: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.engines) >= maxEngines {
		clear(a.engines)
	}
	a.engines[key] = e
	return e, nil
}

// guardsOf returns the compiled guards of a chain.
func (a *authorizer) guardsOf(v ledger.View, c *registry.Chain) ([]*authz.Guard, error) {
	var out []*authz.Guard
	for _, digest := range c.Guards {
		a.mu.Lock()
		g := a.guards[digest]
		a.mu.Unlock()
		if g == nil {
			text, err := registry.ResolveGuard(ledger.RegistryView(v), digest, v.NextIndex())
			if err != nil {
				return nil, err
			}
			if g, err = authz.CompileGuard([]byte(text)); err != nil {
				return nil, fmt.Errorf("compile guard: %w", err)
			}
			a.mu.Lock()
			if len(a.guards) >= maxGuards {
				clear(a.guards)
			}
			a.guards[digest] = g
			a.mu.Unlock()
		}
		out = append(out, g)
	}
	return out, nil
}
