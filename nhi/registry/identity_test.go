package registry

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

func TestRegister(t *testing.T) {
	w := newWorld(t)
	p := w.register("human", Human)
	id, err := ResolveIdentity(w.tenant, p.id, w.index)
	if err != nil {
		t.Fatal(err)
	}
	want := &Identity{ID: p.id, Type: Human, Status: Active, Key: p.key.Public().ID(), Registered: 1, Since: 1}
	if diff := cmp.Diff(want, id); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	if _, err := ResolveIdentity(w.tenant, p.id, 0); !errors.Is(err, CodeUnknownIdentity) {
		t.Errorf("as of an earlier index: got %v, want %v", err, CodeUnknownIdentity)
	}
	k, err := ResolveKey(w.tenant, id.Key, w.index)
	if err != nil {
		t.Fatal(err)
	}
	wantKey := &Key{
		ID: id.Key, Owner: p.id, Suite: nhi.SuiteMLDSA65Ed25519, Public: p.key.Public().Bytes(),
		Components: p.key.Public().ComponentIDs(), From: 1,
	}
	if diff := cmp.Diff(wantKey, k); diff != "" {
		t.Errorf("key (-want +got):\n%s", diff)
	}
	if _, err := ResolveKey(w.tenant, id.Key, 0); !errors.Is(err, CodeUnknownKey) {
		t.Errorf("key as of an earlier index: got %v, want %v", err, CodeUnknownKey)
	}
}

func TestRegisterRefuses(t *testing.T) {
	w := newWorld(t)
	human, agent := w.register("human", Human), w.register("agent", Agent)
	body := func(name string, typ Type) *RegisterBody {
		b, err := NewRegistration(keyOf(t, name), w.ledger, w.tenantID, idOf(name), typ)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	with := func(b *RegisterBody, change func(b *RegisterBody)) *RegisterBody { change(b); return b }
	pop := func(signer string, ledger nhi.Digest, tenant, id nhi.ID, typ Type) []byte {
		sig, err := NewPossession(keyOf(t, signer), ledger, tenant, id, typ)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	tests := []struct {
		name string
		by   By
		body *RegisterBody
		want Code
	}{
		{"by a human", w.by(human), body("n", Agent), CodeUnauthorized},
		{"by an agent", w.by(agent), body("n", Agent), CodeUnauthorized},
		{"by nobody", By{Key: keyOf(t, "n").Public().ID()}, body("n", Agent), CodeUnauthorized},
		{"by an admin of the cluster", w.byAdmin(w.admin), body("n", Agent), CodeUnauthorized},
		{"second authority", w.by(w.authority), body("n", Authority), CodeType},
		{"node in a tenant", w.by(w.authority), body("n", Node), CodeType},
		{"admin in a tenant", w.by(w.authority), body("n", Admin), CodeType},
		{"id in use", w.by(w.authority), with(body("n", Human), func(b *RegisterBody) {
			b.ID, b.Possession = human.id, pop("n", w.ledger, w.tenantID, human.id, Human)
		}), CodeExists},
		{"key in use", w.by(w.authority), with(body("human", Human), func(b *RegisterBody) {
			b.ID, b.Possession = idOf("n"), pop("human", w.ledger, w.tenantID, idOf("n"), Human)
		}), CodeComponent},
		{"possession by another key", w.by(w.authority), with(body("n", Human), func(b *RegisterBody) {
			b.Possession = pop("m", w.ledger, w.tenantID, idOf("n"), Human)
		}), CodePossession},
		{"possession for another ledger", w.by(w.authority), with(body("n", Human), func(b *RegisterBody) {
			b.Possession = pop("n", nhi.Digest{7}, w.tenantID, idOf("n"), Human)
		}), CodePossession},
		{"possession for another tenant", w.by(w.authority), with(body("n", Human), func(b *RegisterBody) {
			b.Possession = pop("n", w.ledger, idOf("other"), idOf("n"), Human)
		}), CodePossession},
		{"possession for another id", w.by(w.authority), with(body("n", Human), func(b *RegisterBody) {
			b.Possession = pop("n", w.ledger, w.tenantID, idOf("m"), Human)
		}), CodePossession},
		{"possession for another type", w.by(w.authority), with(body("n", Human), func(b *RegisterBody) {
			b.Possession = pop("n", w.ledger, w.tenantID, idOf("n"), Agent)
		}), CodePossession},
		{"key of no use", w.by(w.authority), with(body("n", Human), func(b *RegisterBody) { clear(b.Public) }), CodeBadKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.want(tt.want, w.do(tt.by, KindRegister, tt.body))
		})
	}
	w.want(OK, w.do(w.by(w.authority), KindRegister, body("n", Agent)))
	w.want(CodeExists, w.do(w.by(w.authority), KindRegister, body("n", Agent)))
}

func TestAuthorityRegistersItselfOnce(t *testing.T) {
	w := newWorld(t) // has done so
	b, err := NewRegistration(w.authority.key, w.ledger, w.tenantID, w.authority.id, Authority)
	if err != nil {
		t.Fatal(err)
	}
	w.want(CodeExists, w.do(By{Key: w.authority.key.Public().ID()}, KindRegister, b))

	pretender := keyOf(t, "pretender")
	empty := w.tenant
	w.tenant = newState() // its key in the body, another under the event
	w.want(CodeUnauthorized, w.do(By{Key: pretender.Public().ID()}, KindRegister, b))
	w.tenant = empty
	b, err = NewRegistration(pretender, w.ledger, w.tenantID, w.authority.id, Authority)
	if err != nil {
		t.Fatal(err)
	}
	w.tenant = newState()
	w.want(CodeUnauthorized, w.do(By{Key: pretender.Public().ID()}, KindRegister, b))
	raw, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SelfRegistration(w.env(), raw); !errors.Is(err, CodeUnauthorized) {
		t.Errorf("SelfRegistration: got %v, want %v", err, CodeUnauthorized)
	}
	if _, err := SelfRegistration(w.sysEnv(), raw); !errors.Is(err, CodeUnauthorized) {
		t.Errorf("SelfRegistration in the system log: got %v, want %v", err, CodeUnauthorized)
	}
}

func TestRotateWithOverlap(t *testing.T) {
	w := newWorld(t)
	p := w.register("agent", Agent)
	until := w.time + 10*second
	at := w.index
	old := w.rotate(p, "agent 2", until)

	signer, err := ResolveSigner(w.tenant, old.Public().ID(), w.index)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   int64
		want Code
	}{{until - 1, OK}, {until, CodeExpired}, {until + 1, CodeExpired}} {
		if got := CodeOf(signer.Live(tt.at)); got != tt.want {
			t.Errorf("old key at %d ns of its end: got %v, want %v", tt.at-until, got, tt.want)
		}
	}
	if signer.Identity.Key != p.key.Public().ID() {
		t.Errorf("current key is %v", signer.Identity.Key)
	}
	before, err := ResolveSigner(w.tenant, old.Public().ID(), at-1)
	if err != nil {
		t.Fatal(err)
	}
	if before.Identity.Key != old.Public().ID() || before.Key.Until != 0 {
		t.Errorf("before the rotation: current key %v, until %d", before.Identity.Key, before.Key.Until)
	}
	if got := KeysOf(w.tenant, p.id, 10, w.index); len(got) != 2 || got[0] != old.Public().ID() || got[1] != p.key.Public().ID() {
		t.Errorf("KeysOf: got %v", got)
	}

	// The old key no longer rotates, and no key comes back.
	again, err := NewRotation(keyOf(t, "agent 3"), w.ledger, w.tenantID, p.id, Agent, 0)
	if err != nil {
		t.Fatal(err)
	}
	by := w.by(p)
	by.Key = old.Public().ID()
	w.want(CodeUnauthorized, w.do(by, KindRotate, again))
	back, err := NewRotation(old, w.ledger, w.tenantID, p.id, Agent, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.want(CodeComponent, w.do(w.by(p), KindRotate, back))
	long, err := NewRotation(keyOf(t, "agent 3"), w.ledger, w.tenantID, p.id, Agent, w.time+MaxOverlap+1)
	if err != nil {
		t.Fatal(err)
	}
	w.want(CodeTooLong, w.do(w.by(p), KindRotate, long))
	w.want(CodeUnauthorized, w.do(w.by(w.register("bystander", Human)), KindRotate, again))

	// By the authority, at once.
	w.want(OK, w.do(w.by(w.authority), KindRotate, again))
	signer, err = ResolveSigner(w.tenant, p.key.Public().ID(), w.index)
	if err != nil {
		t.Fatal(err)
	}
	if got := CodeOf(signer.Live(w.time)); got != CodeExpired {
		t.Errorf("key without overlap: got %v, want %v", got, CodeExpired)
	}
}

func TestSuspendResumeRevoke(t *testing.T) {
	w := newWorld(t)
	p, bystander := w.register("agent", Agent), w.register("bystander", Human)
	body := &StatusBody{ID: p.id, Reason: "odd traffic"}
	state := func(want Code) {
		t.Helper()
		s, err := ResolveSigner(w.tenant, p.key.Public().ID(), w.index)
		if err != nil {
			t.Fatal(err)
		}
		if got := CodeOf(s.Live(w.time)); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	for _, kind := range []string{KindSuspend, KindResume, KindRevoke} {
		w.want(CodeUnauthorized, w.do(w.by(bystander), kind, body))
	}
	w.want(CodeState, w.do(w.by(w.authority), KindResume, body))
	suspendedAt := w.index
	w.want(OK, w.do(w.by(w.authority), KindSuspend, body))
	state(CodeSuspended)
	w.want(CodeState, w.do(w.by(w.authority), KindSuspend, body))
	w.want(CodeUnauthorized, w.do(w.by(p), KindResume, body))
	w.want(OK, w.do(w.by(w.authority), KindResume, body))
	state(OK)
	w.want(OK, w.do(w.by(p), KindSuspend, body)) // itself
	w.want(OK, w.do(w.by(w.authority), KindRevoke, body))
	state(CodeRevoked)
	for _, kind := range []string{KindSuspend, KindResume} {
		w.want(CodeState, w.do(w.by(w.authority), kind, body))
	}
	w.want(CodeRevoked, w.do(w.by(w.authority), KindRevoke, body))
	b, err := NewRotation(keyOf(t, "agent 2"), w.ledger, w.tenantID, p.id, Agent, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.want(CodeRevoked, w.do(w.by(w.authority), KindRotate, b))

	id, err := ResolveIdentity(w.tenant, p.id, suspendedAt)
	if err != nil || id.Status != Suspended || id.Reason != "odd traffic" {
		t.Errorf("as of the suspension: got %+v, %v", id, err)
	}
	id, err = ResolveIdentity(w.tenant, p.id, suspendedAt-1)
	if err != nil || id.Status != Active {
		t.Errorf("before the suspension: got %+v, %v", id, err)
	}
}

func TestNobodyLocksThemselvesOut(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []string{KindSuspend, KindRevoke} {
		w.want(CodeUnauthorized, w.do(w.by(w.authority), kind, &StatusBody{ID: w.authority.id}))
	}
	key := func(k *nhi.PrivateKey) *StatusBody {
		return &StatusBody{ID: w.authority.id, Key: nhi.Digest(k.Public().ID())}
	}
	w.want(CodeUnauthorized, w.do(w.by(w.authority), KindRevoke, key(w.authority.key)))
	old := w.rotate(w.authority, "authority 2", w.time+60*second)
	by := w.by(w.authority)
	by.Key = old.Public().ID()
	again, err := NewRotation(keyOf(t, "authority 3"), w.ledger, w.tenantID, w.authority.id, Authority, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.want(CodeUnauthorized, w.do(by, KindRotate, again))
	w.want(OK, w.do(w.by(w.authority), KindRevoke, key(old)))

	raw, err := (&StatusBody{ID: w.admin.id}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if r := w.deciders[KindRevoke].Decide(w.sysEnv(), w.byAdmin(w.admin), raw); r.Code != CodeUnauthorized {
		t.Errorf("an admin revoking itself: got %v, want %v", r.Code, CodeUnauthorized)
	}
}

func TestErase(t *testing.T) {
	w := newWorld(t)
	p := w.register("human", Human)
	w.want(CodeUnauthorized, w.do(w.by(p), KindErase, &EraseBody{Index: 1}))
	w.want(CodeNotFound, w.do(w.by(w.authority), KindErase, &EraseBody{Index: w.index}))
	r := w.do(w.by(w.authority), KindErase, &EraseBody{Index: 1})
	w.want(OK, r)
	if diff := cmp.Diff([]uint64{1}, r.Erase); diff != "" || len(r.Writes) != 0 {
		t.Errorf("erase (-want +got):\n%s", diff)
	}
}

func TestGuards(t *testing.T) {
	f := newFamily(t)
	b := &GuardBody{Text: "forbid (principal, action, resource) when { context.hour > 18 };"}
	l := f.third()
	l.Guards = b.Digest()
	body, _ := f.signed(l, f.b)
	f.want(CodeGuard, f.do(f.by(f.b), KindRegisterLink, body))
	f.want(OK, f.do(f.by(f.human), KindGuard, b))
	f.want(OK, f.do(f.by(f.human), KindGuard, b)) // again: nothing to write
	f.want(OK, f.do(f.by(f.b), KindRegisterLink, body))

	child := f.childOf(LinkIDOf(body.Body), f.other)
	second := &GuardBody{Text: "forbid (principal, action, resource) unless { context.test };"}
	f.want(OK, f.do(f.by(f.human), KindGuard, second))
	for i := 2; i < MaxGuards; i++ {
		f.want(OK, f.do(f.by(f.human), KindGuard, &GuardBody{Text: fmt.Sprintf("forbid(principal, action, resource) when { %d == 0 };", i)}))
	}
	more := &GuardBody{Text: "forbid(principal, action, resource) when { 1 == 0 };"}
	f.want(CodeTooMany, f.do(f.by(f.human), KindGuard, more))
	f.want(OK, f.do(f.by(f.human), KindGuard, b)) // what is there already needs no room
	f.want(OK, f.do(f.by(f.authority), KindGuard, more))
	child.Guards = second.Digest()
	c, err := ResolveChain(f.tenant, f.link(child, f.c), f.index)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]nhi.Digest{b.Digest(), second.Digest()}, c.Guards); diff != "" {
		t.Errorf("guards (-want +got):\n%s", diff)
	}
	if text, err := ResolveGuard(f.tenant, c.Guards[1], f.index); err != nil || text != second.Text {
		t.Errorf("ResolveGuard: got %q, %v", text, err)
	}
}

func TestMinSuite(t *testing.T) {
	w := newWorld(t)
	decide := func(by By, class ObjectClass, activation uint64) Code {
		t.Helper()
		raw, err := (&MinSuiteBody{Class: class, Suite: nhi.SuiteMLDSA65Ed25519, Activation: activation}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		r := w.deciders[KindMinSuite].Decide(w.sysEnv(), by, raw)
		for _, row := range r.Writes {
			w.system.put(row)
		}
		w.sysIndex++
		return r.Code
	}
	for _, tt := range []struct {
		name       string
		by         By
		activation uint64
		want       Code
	}{
		{"by a tenant's authority", w.by(w.authority), 50, CodeUnauthorized},
		{"in the past", w.byAdmin(w.admin), 1, CodeDowngrade},
		{"later", w.byAdmin(w.admin), 50, OK},
		{"before one that waits", w.byAdmin(w.admin), 49, CodeDowngrade},
		{"in place of one that waits", w.byAdmin(w.admin), 50, CodeDowngrade},
		{"the same after one that waits", w.byAdmin(w.admin), 51, CodeDowngrade},
	} {
		if got := decide(tt.by, ClassEvent, tt.activation); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	cache := NewSuiteCache()
	w.system.put(set(TableMinSuite, versioned([]byte{byte(ClassEvent)}, 60), suiteRow{Suite: 2}))
	for _, index := range []uint64{0, 49, 50, 59, 60, 61, 59} {
		want := nhi.Suite(1)
		if index >= 60 {
			want = 2
		}
		if got := MinSuite(w.system, ClassEvent, index); got != want {
			t.Errorf("MinSuite at %d: got %d, want %d", index, got, want)
		}
		if got := cache.Least(w.system, Position{Index: index}, ClassEvent); got != want {
			t.Errorf("SuiteCache at %d: got %d, want %d", index, got, want)
		}
		if got := cache.Least(w.system, Position{Index: index}, ClassPolicy); got != 1 {
			t.Errorf("SuiteCache of another class at %d: got %d, want 1", index, got)
		}
	}
	raw := canon.MustMarshal(MinSuiteBody{Class: ClassEvent, Suite: 9, Activation: 99})
	if r := w.deciders[KindMinSuite].Decide(w.sysEnv(), w.byAdmin(w.admin), raw); r.Code != CodeSuite {
		t.Errorf("suite nobody knows: got %v, want %v", r.Code, CodeSuite)
	}
	raw = canon.MustMarshal(MinSuiteBody{Class: ClassEvent, Suite: 1, Activation: 99})
	if r := w.deciders[KindMinSuite].Decide(w.env(), w.by(w.authority), raw); r.Code != CodeWrongLog {
		t.Errorf("in a tenant's log: got %v, want %v", r.Code, CodeWrongLog)
	}
}

func TestSystemIdentities(t *testing.T) {
	w := newWorld(t)
	node := keyOf(t, "node")
	ed, pq := nhi.ComponentID("ed25519", []byte("cosigning key")), nhi.ComponentID("mldsa44", []byte("cosigning key"))
	pop, err := NewPossession(node, w.ledger, nhi.ID{}, idOf("node"), Node)
	if err != nil {
		t.Fatal(err)
	}
	n := NewIdentity{
		ID: idOf("node"), Type: Node, Role: RoleSandbox, Suite: 1, Public: node.Public().Bytes(), Possession: pop, Alone: []nhi.Digest{ed, pq},
	}
	twice := n
	twice.ID = idOf("twin")
	if _, err := Register(w.sysEnv(), n, twice); !errors.Is(err, CodePossession) {
		t.Errorf("one key for two: got %v, want %v", err, CodePossession)
	}
	twice.Founding = true
	if _, err := Register(w.sysEnv(), n, twice); !errors.Is(err, CodeComponent) {
		t.Errorf("one key for two at one index: got %v, want %v", err, CodeComponent)
	}
	rows, err := Register(w.sysEnv(), n)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		w.system.put(r)
	}
	w.sysIndex++
	id, err := ResolveIdentity(w.system, n.ID, w.sysIndex)
	if err != nil || id.Role != RoleSandbox || id.Type != Node {
		t.Errorf("got %+v, %v", id, err)
	}
	if rows, err = Revoke(w.sysEnv(), n.ID, "decommissioned"); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		w.system.put(r)
	}
	w.sysIndex++
	if id, err = ResolveIdentity(w.system, n.ID, w.sysIndex); err != nil || id.Status != Revoked {
		t.Errorf("after Revoke: got %+v, %v", id, err)
	}
	if _, err := Revoke(w.sysEnv(), n.ID, "again"); !errors.Is(err, CodeRevoked) {
		t.Errorf("second Revoke: got %v, want %v", err, CodeRevoked)
	}
	// A key of the system log is not registered in a tenant.
	b, err := NewRegistration(node, w.ledger, w.tenantID, idOf("agent"), Agent)
	if err != nil {
		t.Fatal(err)
	}
	w.want(CodeComponent, w.do(w.by(w.authority), KindRegister, b))
}

func TestLists(t *testing.T) {
	f := newFamily(t)
	f.want(OK, f.do(f.by(f.authority), KindSuspend, &StatusBody{ID: f.a.id}))
	var got []nhi.ID
	for after := (nhi.ID{}); ; {
		page := ListIdentities(f.tenant, after, 2, f.index)
		if len(page) == 0 {
			break
		}
		for _, id := range page {
			got = append(got, id.ID)
		}
		after = page[len(page)-1].ID
	}
	if len(got) != 6 {
		t.Errorf("got %d identities, want 6", len(got))
	}
	if links := LinksTo(f.tenant, f.b.id, 0, 10); len(links) != 1 || links[0] != f.second {
		t.Errorf("LinksTo: got %v", links)
	}
	if links := LinksUnder(f.tenant, f.root, nhi.LinkID{}, 10); len(links) != 1 || links[0] != f.second {
		t.Errorf("LinksUnder: got %v", links)
	}
	if links := LinksUnder(f.tenant, f.root, f.second, 10); len(links) != 0 {
		t.Errorf("LinksUnder after the last: got %v", links)
	}
}

func TestCodesHaveNamesAndClasses(t *testing.T) {
	seen := map[string]Code{}
	for c, name := range codeNames {
		if other, ok := seen[name]; ok {
			t.Errorf("%d and %d are both called %q", c, other, name)
		}
		seen[name] = c
		if (c == OK) != (c.Class() == ClassOK) {
			t.Errorf("%v has class %d", c, c.Class())
		}
	}
}
