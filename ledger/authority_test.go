package ledger_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// TestAuthorityRegistersAfterMistakes shows that a tenant is not lost when its authority, or a node, has made some other event
// its log's first: registration by itself stays possible until it has succeeded, and not longer.
func TestAuthorityRegistersAfterMistakes(t *testing.T) {
	byNode := ledger.Kind{Name: "by.node", Class: ledger.Ask, Handler: &counter{}, Nodes: true}
	f := ledgertest.New(t, byNode)
	tenant := ledgertest.ID("second tenant")
	a := f.CreateEmptyTenant(tenant, "second authority", "token")
	at := func(s ledgertest.Signed) ledgertest.Signed { s.Event.Tenant = tenant; return s }
	register := func(who *ledgertest.Identity, change func(*registry.RegisterBody)) ledgertest.Signed {
		b, err := registry.NewRegistration(who.Key, f.LedgerID, tenant, who.ID, who.Type)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(b)
		}
		return at(f.Event(a, registry.KindRegister, f.Encode(b)))
	}
	human := ledgertest.NewIdentity(t, "second human", registry.Human)
	for name, s := range map[string]ledgertest.Signed{
		"somebody else": register(human, nil),
		"another type":  register(a, func(b *registry.RegisterBody) { b.Type = registry.Human }),
	} {
		r := f.Submit(s)[0]
		if r.State != ledger.Invalid || !errors.Is(r.Err, ledger.ErrNotItself) {
			t.Errorf("register %s first: got %s, %v, want no trace", name, r.State, r.Err)
		}
		f.WithView(tenant, func(v ledger.View) {
			if _, err := f.Log.Authorize(v, s.Event, a.Key.Public().ID(), f.Now); !errors.Is(err, ledger.ErrNotItself) {
				t.Errorf("authorize %s first: got %v, want ErrNotItself", name, err)
			}
		})
	}
	if r := f.Submit(at(f.Event(a, ledger.KindReadTokenAdd, []byte{0xa0})))[0]; !errors.Is(r.Err, ledger.ErrUnknownKey) {
		t.Errorf("another kind first: got %s, %v, want ErrUnknownKey", r.State, r.Err)
	}
	// These take indices 0 and 1: a possession that does not hold, and a node.
	f.Want(verify.OutcomeBadSignature, f.Submit(register(a, func(b *registry.RegisterBody) { b.Possession[9] ^= 1 }))...)
	if r := f.Submit(at(f.Event(f.Node, "by.node", countBody{N: 1}))); r[0].State != ledger.Sequenced || r[0].Index != 1 {
		t.Fatalf("node's event: got %+v, want leaf 1", r[0])
	}
	f.WithView(tenant, func(v ledger.View) {
		if _, err := f.Log.PublicKey(v, a.Key.Public().ID()); err != nil {
			t.Errorf("key to verify the registration with: %v", err)
		}
	})
	f.Accepted(f.Submit(register(a, nil))...)
	f.Want(verify.OutcomeInvalid, f.Submit(register(a, nil))...)
	f.Accepted(f.Submit(register(human, nil))...)
	f.WithView(tenant, func(v ledger.View) {
		if _, err := registry.ResolveIdentity(ledger.RegistryView(v), human.ID, v.NextIndex()); err != nil {
			t.Errorf("human: %v", err)
		}
	})
}

// TestMinSuiteOfEveryClass shows where the ledger itself holds a key against the least suite of a class, at the edge and in
// Apply: events always, what a kind says it carries, and whatever nodes sign. The classes of links and of keys are held by the
// registry, where those are registered.
func TestMinSuiteOfEveryClass(t *testing.T) {
	kinds := func() []ledger.Kind {
		c := &counter{}
		all := []ledger.Kind{{Name: "plain", Handler: c}, {Name: "by.node", Handler: c, Nodes: true}}
		for name, class := range map[string]registry.ObjectClass{
			"policy": registry.ClassPolicy, "vote": registry.ClassApproval, "report": registry.ClassAttest,
		} {
			all = append(all, ledger.Kind{Name: name, Handler: c, Object: class})
		}
		return all
	}
	names := []string{"plain", "by.node", "policy", "vote", "report"}
	for class, refused := range map[registry.ObjectClass][]string{
		registry.ClassEvent: names, registry.ClassDelegation: nil, registry.ClassApproval: {"vote"}, registry.ClassPolicy: {"policy"},
		registry.ClassAttest: {"report"}, registry.ClassNode: {"by.node"}, registry.ClassKey: nil,
	} {
		f := ledgertest.New(t, kinds()...)
		if err := f.Log.PutMinSuite(class, nhi.SuiteMLDSA65Ed25519+1); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			by := f.Authority
			if name == "by.node" {
				by = f.Node
			}
			want := verify.OutcomeAccepted
			if slices.Contains(refused, name) {
				want = verify.OutcomeWeakSuite
			}
			s := f.Event(by, name, countBody{N: 1})
			f.WithView(f.Tenant, func(v ledger.View) {
				a, err := f.Log.Authorize(v, s.Event, by.Key.Public().ID(), f.Now)
				if err != nil || ledger.OutcomeOf(a.Refused) != want {
					t.Errorf("class %d: %s at the edge: got %s, %v, want %s", class, name, a.Refused, err, want)
				}
			})
			if r := f.Submit(s)[0]; r.State != ledger.Sequenced || r.Outcome != want {
				t.Errorf("class %d: %s: got %s, %s, want %s", class, name, r.State, r.Outcome, want)
			}
		}
	}
}
