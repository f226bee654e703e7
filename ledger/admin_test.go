package ledger_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

func TestGenesisBeginsOnce(t *testing.T) {
	f := ledgertest.NewWith(t, ledgertest.Options{Empty: true})
	if _, err := f.Log.Read(); !errors.Is(err, ledger.ErrNoLedger) {
		t.Errorf("read before genesis: got %v, want ErrNoLedger", err)
	}
	f.Begin(true)
	raw, err := f.Genesis.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if r := f.Apply(&ledger.Command{Type: ledger.CommandGenesis, Genesis: raw}).(ledger.GenesisResult); r.Begun || r.LedgerID != f.LedgerID {
		t.Errorf("second genesis: got %+v", r)
	}
	s := f.Read()
	defer s.Close()
	e, err := s.Event(ledger.SystemSlot, 0)
	if err != nil {
		t.Fatal(err)
	}
	if e.Leaf.Kind != ledger.KindGenesis || string(e.Payload) != string(raw) || e.Leaf.Quality.Flags&verify.FlagTest == 0 {
		t.Errorf("leaf 0: got %+v", e.Leaf)
	}
	members, err := s.Members()
	if err != nil || len(members) != 1 || members[0].State != ledger.MemberVoter || members[0].Address != "127.0.0.1:7001" {
		t.Errorf("members: got %+v, %v", members, err)
	}
	if g, b, err := f.Log.Genesis(); err != nil || g.Cluster != ledgertest.Cluster || string(b) != string(raw) {
		t.Errorf("genesis: got %+v, %v", g, err)
	}
}

func TestGenesisIsHeldAgainstItsRules(t *testing.T) {
	f := ledgertest.New(t)
	for name, edit := range map[string]func(g *ledger.Genesis){
		"version":     func(g *ledger.Genesis) { g.V = 2 },
		"cluster":     func(g *ledger.Genesis) { g.Cluster = "Creto" },
		"no admin":    func(g *ledger.Genesis) { g.Admins = nil },
		"no node":     func(g *ledger.Genesis) { g.Nodes = nil },
		"threshold":   func(g *ledger.Genesis) { g.Threshold = 2 },
		"log key":     func(g *ledger.Genesis) { g.LogKey = "x" },
		"other name":  func(g *ledger.Genesis) { g.Cluster = "other" },
		"twice":       func(g *ledger.Genesis) { g.Nodes[0].ID = g.Admins[0].ID },
		"weak key":    func(g *ledger.Genesis) { g.Nodes[0].Ed = make([]byte, 32) },
		"short key":   func(g *ledger.Genesis) { g.Admins[0].Public = g.Admins[0].Public[1:] },
		"no address":  func(g *ledger.Genesis) { g.Nodes[0].Address = "" },
		"created":     func(g *ledger.Genesis) { g.Created = 0 },
		"trustdomain": func(g *ledger.Genesis) { g.TrustDomain = "" },
	} {
		g := *f.Genesis
		g.Admins = append([]ledger.GenesisAdmin(nil), g.Admins...)
		g.Nodes = append([]ledger.GenesisNode(nil), g.Nodes...)
		edit(&g)
		if _, err := g.Encode(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTenantCreation(t *testing.T) {
	f := ledgertest.New(t)
	body := func(tenant nhi.ID, a *ledgertest.Identity, possessionFor nhi.ID) *ledger.TenantCreateBody {
		pop, err := registry.NewPossession(a.Key, f.LedgerID, possessionFor, a.ID, registry.Authority)
		if err != nil {
			t.Fatal(err)
		}
		pk := a.Key.Public()
		return &ledger.TenantCreateBody{
			Tenant: tenant, Authority: a.ID, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop, Zone: "Europe/Berlin", ReadToken: nhi.Digest{1},
		}
	}
	a := ledgertest.NewIdentity(t, "new authority", registry.Authority)
	id := ledgertest.ID("new tenant")
	submit := func(by *ledgertest.Identity, b *ledger.TenantCreateBody) ledger.EventResult {
		return f.Submit(f.SystemEvent(by, ledger.KindTenantCreate, b))[0]
	}
	f.Want(verify.OutcomeUnauthorized, submit(f.Node, body(id, a, id)))
	f.Want(verify.OutcomeBadSignature, submit(f.Admin, body(id, a, f.Tenant)))
	f.Accepted(submit(f.Admin, body(id, a, id)))
	f.Want(verify.OutcomeExists, submit(f.Admin, body(id, a, id)))
	s := f.Read()
	defer s.Close()
	tn, err := s.Tenant(id)
	if err != nil || tn.Slot != 2 || tn.Zone != "Europe/Berlin" || tn.AuthorityKey != a.Key.Public().ID() {
		t.Errorf("tenant: got %+v, %v", tn, err)
	}
	all, err := s.Tenants(0, 10)
	if err != nil || len(all) != 2 || all[1].ID != id {
		t.Errorf("tenants: got %+v, %v", all, err)
	}
	// Nobody but the named authority begins the log, and nothing but its registration.
	intruder := ledgertest.NewIdentity(t, "intruder", registry.Authority)
	b, err := registry.NewRegistration(intruder.Key, f.LedgerID, id, a.ID, registry.Authority)
	if err != nil {
		t.Fatal(err)
	}
	e := f.Event(&ledgertest.Identity{ID: a.ID, Key: intruder.Key}, registry.KindRegister, b)
	e.Event.Tenant = id
	if r := f.Submit(e)[0]; r.State != ledger.Invalid {
		t.Errorf("intruder begins the log: got %s, want invalid", r.State)
	}
	e = f.Event(a, registry.KindSuspend, &registry.StatusBody{ID: a.ID, Reason: "x"})
	e.Event.Tenant = id
	if r := f.Submit(e)[0]; r.State != ledger.Invalid {
		t.Errorf("authority begins with something else: got %s, want invalid", r.State)
	}
	f.RegisterAuthority(id, a)
}

func TestNodeJoinsWithAToken(t *testing.T) {
	f := ledgertest.New(t)
	token := sha256.Sum256([]byte("join token"))
	node := ledgertest.NewIdentity(t, "second node", registry.Node)
	pop, err := registry.NewPossession(node.Key, f.LedgerID, nhi.ID{}, node.ID, registry.Node)
	if err != nil {
		t.Fatal(err)
	}
	ed := ed25519.NewKeyFromSeed(ledgertest.Seed("second ed")[:32]).Public().(ed25519.PublicKey)
	pq, err := nhi.NewMLDSA44(ledgertest.Seed("second pq")[:32])
	if err != nil {
		t.Fatal(err)
	}
	add := &ledger.NodeAddBody{
		ID: node.ID, Role: registry.RoleVoter, Suite: node.Key.Public().Suite(), Public: node.Key.Public().Bytes(), Possession: pop, Ed: ed,
		PQ: pq.Public(), Token: token,
	}
	do := func(want verify.OutcomeCode, by *ledgertest.Identity, kind string, body any) {
		t.Helper()
		f.Want(want, f.Submit(f.SystemEvent(by, kind, body))...)
	}
	const ok = verify.OutcomeAccepted
	do(verify.OutcomeNotFound, f.Node, ledger.KindNodeAdd, add)
	expires := f.Now + int64(time.Hour)
	do(verify.OutcomeUnauthorized, f.Node, ledger.KindJoinTokenAdd, &ledger.JoinTokenBody{Token: token, Role: registry.RoleVoter, Expires: expires})
	do(ok, f.Admin, ledger.KindJoinTokenAdd, &ledger.JoinTokenBody{Token: token, Role: registry.RoleVoter, Expires: expires})
	do(verify.OutcomeUnauthorized, f.Node, ledger.KindNodeAdd, add) // not redeemed
	do(ok, f.Node, ledger.KindJoinTokenRedeem, &ledger.JoinRedeemBody{Token: token, Node: node.ID})
	do(verify.OutcomeClosed, f.Node, ledger.KindJoinTokenRedeem, &ledger.JoinRedeemBody{Token: token, Node: ledgertest.ID("third node")})
	wrong := *add
	wrong.Role, wrong.Ed, wrong.PQ = registry.RoleSandbox, nil, nil
	do(verify.OutcomeUnauthorized, f.Node, ledger.KindNodeAdd, &wrong)
	do(ok, f.Node, ledger.KindNodeAdd, add)
	do(verify.OutcomeClosed, f.Node, ledger.KindNodeAdd, add)

	member := func(op ledger.MemberOp, address string) *ledger.MemberBody {
		return &ledger.MemberBody{Op: op, Node: node.ID, Address: address}
	}
	do(verify.OutcomeConflict, f.Node, ledger.KindMember, member(ledger.MemberPromote, ""))
	do(ok, f.Node, ledger.KindMember, member(ledger.MemberAdd, "127.0.0.1:7002"))
	do(ok, f.Node, ledger.KindMember, member(ledger.MemberPromote, ""))
	do(verify.OutcomeConflict, f.Admin, ledger.KindNodeRemove, &ledger.NodeRemoveBody{ID: node.ID})
	do(ok, f.Admin, ledger.KindMember, member(ledger.MemberRemove, ""))
	do(ok, f.Admin, ledger.KindNodeRemove, &ledger.NodeRemoveBody{ID: node.ID})
	do(verify.OutcomeConflict, f.Node, ledger.KindMember, &ledger.MemberBody{Op: ledger.MemberRemove, Node: f.Node.ID}) // the last voter
	do(verify.OutcomeRevoked, node, ledger.KindMember, member(ledger.MemberRemove, ""))
	s := f.Read()
	defer s.Close()
	members, err := s.Members()
	if err != nil || len(members) != 2 {
		t.Fatalf("members: got %+v, %v", members, err)
	}
	for _, m := range members {
		if m.ID == node.ID && m.State != ledger.MemberRemoved || m.ID == f.Node.ID && m.State != ledger.MemberVoter {
			t.Errorf("member: got %+v", m)
		}
	}
}

func TestExpiredJoinTokenAdmitsNobody(t *testing.T) {
	f := ledgertest.New(t)
	token := sha256.Sum256([]byte("join token"))
	add := &ledger.JoinTokenBody{Token: token, Role: registry.RoleSandbox, Expires: f.Now + int64(time.Hour)}
	f.Accepted(f.Submit(f.SystemEvent(f.Admin, ledger.KindJoinTokenAdd, add))...)
	f.Want(verify.OutcomeExists, f.Submit(f.SystemEvent(f.Admin, ledger.KindJoinTokenAdd, add))...)
	f.Advance(time.Hour)
	f.Want(verify.OutcomeExpired, f.Submit(f.SystemEvent(f.Node, ledger.KindJoinTokenRedeem, &ledger.JoinRedeemBody{Token: token, Node: ledgertest.ID("x")}))...)
	f.Want(verify.OutcomeExpired, f.Submit(f.SystemEvent(f.Admin, ledger.KindJoinTokenAdd, &ledger.JoinTokenBody{Token: nhi.Digest{2}, Role: registry.RoleSandbox, Expires: f.Now}))...)
}

// TestNodeSignsInATenantsLog: only kinds that say so.
func TestNodeSignsInATenantsLog(t *testing.T) {
	c := &counter{}
	kinds := usageKinds(c)
	kinds = append(kinds, ledger.Kind{Name: "report", Class: ledger.Fact, Handler: c, Nodes: true, Cites: func(ledger.View, *ledger.Event) bool { return true }})
	f := ledgertest.New(t, kinds...)
	f.Want(verify.OutcomeUnauthorized, f.Submit(f.Event(f.Node, "plain", countBody{N: 1}))...)
	f.Accepted(f.Submit(f.Event(f.Node, "report", countBody{N: 1}))...)
	if r := f.Submit(f.Event(f.Admin, "plain", countBody{N: 1}))[0]; r.State != ledger.Invalid {
		t.Errorf("admin in a tenant's log: got %s, want invalid", r.State)
	}
}

func TestEveryBodyIsBounded(t *testing.T) {
	for name, b := range map[string]interface{ Encode() ([]byte, error) }{
		"tenant": &ledger.TenantCreateBody{}, "node": &ledger.NodeAddBody{ID: nhi.ID{1}, Role: 9}, "remove": &ledger.NodeRemoveBody{},
		"member": &ledger.MemberBody{Op: 4, Node: nhi.ID{1}}, "join": &ledger.JoinTokenBody{Role: 1}, "redeem": &ledger.JoinRedeemBody{},
		"read": &ledger.ReadTokenBody{}, "member without address": &ledger.MemberBody{Op: ledger.MemberAdd, Node: nhi.ID{1}},
		"sandbox node that cosigns": &ledger.NodeAddBody{ID: nhi.ID{1}, Role: registry.RoleSandbox, Ed: make([]byte, 32)},
	} {
		if _, err := b.Encode(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestNodesAreRemovedNotRevoked shows that a node's identity cannot go while its membership stays: a voter that is revoked beside
// admin.node.remove would still be one of those that seal.
func TestNodesAreRemovedNotRevoked(t *testing.T) {
	f := ledgertest.New(t)
	for _, kind := range []string{registry.KindRevoke, registry.KindSuspend} {
		for _, by := range []*ledgertest.Identity{f.Admin, f.Node} {
			f.Want(verify.OutcomeInvalid, f.Submit(f.SystemEvent(by, kind, &registry.StatusBody{ID: f.Node.ID}))...)
		}
	}
	key := &registry.StatusBody{ID: f.Node.ID, Key: nhi.Digest(f.Node.Key.Public().ID())}
	f.Want(verify.OutcomeInvalid, f.Submit(f.SystemEvent(f.Admin, registry.KindRevoke, key))...)
	f.Want(verify.OutcomeConflict, f.Submit(f.SystemEvent(f.Admin, ledger.KindNodeRemove, &ledger.NodeRemoveBody{ID: f.Node.ID}))...)
}
