package registry

import (
	"crypto/ed25519"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/edwards25519"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// The tests of this file are named after the acceptance scenarios of identity.

// A link names another suite than the one its issuer's key is registered with;
// and a link registered before a stronger suite became the least stays valid, but
// is no parent any more.
func TestIdentity05Downgrade(t *testing.T) {
	f := newFamily(t)
	// 44 in a message, 65 on the key: the body is re-made with another suite and
	// signed with the registered key.
	l := f.third()
	if _, _, _, err := SignLink(f.b.key, l); err != nil {
		t.Fatal(err)
	}
	l.Suite = 2
	body := canon.MustMarshal(l)
	id := LinkIDOf(body)
	sig, err := f.b.key.Sign(nhi.CtxDelegation, id[:])
	if err != nil {
		t.Fatal(err)
	}
	f.want(CodeSuite, f.do(f.by(f.b), KindRegisterLink, &RegisterLinkBody{
		Body: body, Signature: sig, Evidence: Evidence{Kind: CompositeKey, Bytes: []byte{}},
	}))

	// A second suite of a later version becomes the least for delegations at
	// index 5 of the system log.
	f.system.put(set(TableMinSuite, versioned([]byte{byte(ClassDelegation)}, 5), suiteRow{Suite: 2, Index: 1}))
	child, _ := f.signed(f.third(), f.b)
	f.sysIndex = 4
	if got := MinSuite(f.system, ClassDelegation, f.sysIndex); got != 1 {
		t.Errorf("before the activation: got suite %d, want 1", got)
	}
	if r := f.deciders[KindRegisterLink].Decide(f.env(), f.by(f.b), canon.MustMarshal(child)); r.Code != OK {
		t.Errorf("before the activation: got %v, want %v", r.Code, OK)
	}
	f.sysIndex = 5
	f.want(CodeWeakSuite, f.do(f.by(f.b), KindRegisterLink, child))
	if c, err := ResolveChain(f.tenant, f.second, f.index); err != nil || c.Depth != 1 {
		t.Errorf("what was registered before: %v", err)
	}
	if _, err := VerifyChain(f.tenant, f.second, f.index, f.keys); err != nil {
		t.Errorf("its signatures: %v", err)
	}
	// The class of keys is another: registration goes on until it is raised too.
	late := f.register("late", Agent)
	f.system.put(set(TableMinSuite, versioned([]byte{byte(ClassKey)}, 6), suiteRow{Suite: 2, Index: 1}))
	f.sysIndex = 6
	b, err := NewRotation(keyOf(t, "late 2"), f.ledger, f.tenantID, late.id, Agent, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.want(CodeWeakSuite, f.do(f.by(late), KindRotate, b))
}

// There is no session key: a key or signature of Ed25519 alone is refused
// wherever a registered key or its signature belongs.
func TestIdentity05Ed25519Alone(t *testing.T) {
	f := newFamily(t)
	pk, sk, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewRegistration(keyOf(t, "n"), f.ledger, f.tenantID, idOf("n"), Agent)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(b *RegisterBody)
		want   Code
	}{
		{"suite of Ed25519", func(b *RegisterBody) { b.Suite = 0 }, CodeSuite},
		{"unknown suite", func(b *RegisterBody) { b.Suite = 7 }, CodeSuite},
		{"key of 32 bytes", func(b *RegisterBody) { b.Public = pk }, CodeBadKey},
		{"possession of 64 bytes", func(b *RegisterBody) { b.Possession = ed25519.Sign(sk, []byte("mine")) }, CodePossession},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := *b
			tt.change(&c)
			f.want(tt.want, f.raw(f.by(f.authority), KindRegister, canon.MustMarshal(c)))
		})
	}
	l, id := f.signed(f.third(), f.b)
	l.Signature = ed25519.Sign(sk, id[:])
	f.want(CodeBadSignature, f.raw(f.by(f.b), KindRegisterLink, canon.MustMarshal(l)))
}

// Two signatures over one body are one link: the id excludes them.
func TestIdentity06SecondSignature(t *testing.T) {
	f := newFamily(t)
	b, id := f.signed(f.third(), f.b)
	first := f.index
	f.want(OK, f.do(f.by(f.b), KindRegisterLink, b))
	rows := len(f.tenant.rows)
	mixed := *b
	mixed.Signature = slices.Clone(b.Signature)
	mixed.Signature[3400-64] ^= 1
	r := f.do(f.by(f.b), KindRegisterLink, &mixed)
	f.want(OK, r)
	var d RegisteredLink
	if err := canon.Unmarshal(r.Detail, &d); err != nil || d.Link != id || d.Index != first {
		t.Errorf("got %+v, %v, want link %v at index %d", d, err, id, first)
	}
	if len(f.tenant.rows) != rows {
		t.Errorf("the second registration wrote %d rows", len(f.tenant.rows)-rows)
	}
	f.want(OK, f.do(f.by(f.b), KindRevokeLink, &RevokeLinkBody{Link: id}))
	f.want(CodeLinkRevoked, f.do(f.by(f.b), KindRegisterLink, b))
}

// Registration refuses Ed25519 halves of small or mixed order or in another than
// the canonical encoding.
func TestIdentity07WeakEd25519Half(t *testing.T) {
	w := newWorld(t)
	b, err := NewRegistration(keyOf(t, "n"), w.ledger, w.tenantID, idOf("n"), Agent)
	if err != nil {
		t.Fatal(err)
	}
	good := b.Public[len(b.Public)-32:]
	torsion, err := new(edwards25519.Point).SetBytes(decodeHex(t, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := new(edwards25519.Point).SetBytes(good)
	if err != nil {
		t.Fatal(err)
	}
	nonCanonical := slices.Repeat([]byte{0xff}, 32)
	nonCanonical[0], nonCanonical[31] = 0xee, 0x7f // y = p + 1
	for _, tt := range []struct {
		name string
		half []byte
	}{
		{"small order", torsion.Bytes()},
		{"identity", edwards25519.NewIdentityPoint().Bytes()},
		{"mixed order", new(edwards25519.Point).Add(p, torsion).Bytes()},
		{"not canonical", nonCanonical},
		{"no point", slices.Repeat([]byte{2}, 32)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := *b
			c.Public = slices.Concat(b.Public[:len(b.Public)-32], tt.half)
			w.want(CodeBadKey, w.do(w.by(w.authority), KindRegister, &c))
		})
	}
}

// A component that was registered inside one key, or alone, is not registered in
// another; and revoking it blocks the key that holds it.
func TestIdentity08ComponentReuse(t *testing.T) {
	w := newWorld(t)
	victim := w.register("victim", Agent)
	seeds := func(a, b *nhi.PrivateKey) *nhi.PrivateKey {
		k, err := nhi.NewPrivateKey(slices.Concat(a.Seed()[:32], b.Seed()[32:]))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	fresh := keyOf(t, "fresh")
	for name, k := range map[string]*nhi.PrivateKey{
		"its ML-DSA half":  seeds(victim.key, fresh),
		"its Ed25519 half": seeds(fresh, victim.key),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := NewRegistration(k, w.ledger, w.tenantID, idOf("n"), Agent)
			if err != nil {
				t.Fatal(err)
			}
			w.want(CodeComponent, w.do(w.by(w.authority), KindRegister, b))
			r, err := NewRotation(k, w.ledger, w.tenantID, victim.id, Agent, 0)
			if err != nil {
				t.Fatal(err)
			}
			w.want(CodeComponent, w.do(w.by(victim), KindRotate, r))
		})
	}
	t.Run("registered alone", func(t *testing.T) {
		ed := fresh.Public().ComponentIDs()[1]
		w.system.put(set(TableComponent, ed[:], componentRow{Owner: idOf("node")}))
		b, err := NewRegistration(fresh, w.ledger, w.tenantID, idOf("n"), Agent)
		if err != nil {
			t.Fatal(err)
		}
		w.want(CodeComponent, w.do(w.by(w.authority), KindRegister, b))
	})
	for i, half := range []string{"ML-DSA", "Ed25519"} {
		t.Run("revoked by its "+half+" half", func(t *testing.T) {
			p := w.register("holder of "+half, Agent)
			other := w.register("not holder of "+half, Agent)
			c := p.key.Public().ComponentIDs()[i]
			w.want(CodeUnknownKey, w.do(w.by(w.authority), KindRevoke, &StatusBody{ID: other.id, Key: c}))
			w.want(OK, w.do(w.by(w.authority), KindRevoke, &StatusBody{ID: p.id, Key: c}))
			s, err := ResolveSigner(w.tenant, p.key.Public().ID(), w.index)
			if err != nil {
				t.Fatal(err)
			}
			if got := CodeOf(s.Live(w.time)); got != CodeKeyRevoked {
				t.Errorf("got %v, want %v", got, CodeKeyRevoked)
			}
			w.want(CodeKeyRevoked, w.do(w.by(w.authority), KindRevoke, &StatusBody{ID: p.id, Key: c}))
			// The identity lives on with another key.
			r, err := NewRotation(keyOf(t, "next of "+half), w.ledger, w.tenantID, p.id, Agent, w.time+second)
			if err != nil {
				t.Fatal(err)
			}
			w.want(OK, w.do(w.by(w.authority), KindRotate, r))
		})
	}
}

// Each departure from the canonical form of a link has a code of its own and
// leaves no trace.
func TestIdentity09NonCanonicalLink(t *testing.T) {
	f := newFamily(t)
	l := f.third()
	body, _, _, err := SignLink(f.b.key, l)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) []byte {
		s := string(body)
		if strings.Count(s, old) == 0 {
			t.Fatalf("body has no %x", old)
		}
		return []byte(strings.Replace(s, old, with, 1))
	}
	head := string(body[0:1]) // map of 19 pairs (no guards, no attestation)
	tests := []struct {
		name string
		body []byte
		want canon.Code
	}{
		{"indefinite length", append([]byte{0xbf}, append(slices.Clone(body[1:]), 0xff)...), canon.Indefinite},
		{"unsorted keys", replace(head+"\x01\x01\x02", head+"\x02\x01\x01"), canon.Unsorted},
		{"long-form integer", replace(head+"\x01\x01", head+"\x01\x18\x01"), canon.NotShortest},
		{"trailing byte", append(slices.Clone(body), 0), canon.Trailing},
		{"float", replace(head+"\x01\x01", head+"\x01\xf9\x3c\x00"), canon.Float},
		{"tag", replace(head+"\x01\x01", head+"\x01\xc0\x01"), canon.Tag},
		{"truncated", body[:len(body)-1], canon.Truncated},
		{"duplicate key", append([]byte{body[0] + 1, 1, 1}, body[1:]...), canon.DuplicateKey},
		{"unknown key 22", append(append([]byte{body[0] + 1}, body[1:]...), 22, 0), canon.UnknownField},
		{"null for a number", replace(head+"\x01\x01", head+"\x01\xf6"), canon.NotCanonical},
	}
	seen := map[canon.Code]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := DecodeLink(tt.body); !errors.Is(err, CodeMalformed) || !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			rows := len(f.tenant.rows)
			r := f.deciders[KindRegisterLink].Decide(f.env(), f.by(f.b), canon.MustMarshal(RegisterLinkBody{
				Body: tt.body, Signature: make([]byte, nhi.SignatureSize), Evidence: Evidence{Kind: CompositeKey},
			}))
			if r.Code != CodeMalformed || len(r.Writes) != 0 || len(f.tenant.rows) != rows {
				t.Errorf("got %v with %d writes, want %v", r.Code, len(r.Writes), CodeMalformed)
			}
		})
		seen[tt.want] = true
	}
	if len(seen) < 9 {
		t.Errorf("only %d distinct codes", len(seen))
	}
	with := append([]byte{body[0] + 1}, body[1:]...)
	at := strings.Index(string(with), "\x11\x81\x63sre")
	with = slices.Insert(with, at, append([]byte{0x10, 0x58, 0x20}, make([]byte, 32)...)...)
	if _, err := DecodeLink(with); !errors.Is(err, canon.NotCanonical) {
		t.Errorf("a zero guard digest that is there: got %v, want %v", err, canon.NotCanonical)
	}
}

// Oversized, deep and numerous are refused quickly and cheaply.
func TestIdentity10HugeLink(t *testing.T) {
	scopes := append([]byte{0xb3}, 14)
	scopes = append(scopes, 0x9a, 0x00, 0x0f, 0x42, 0x40) // array of 10^6 elements
	for name, body := range map[string][]byte{
		"over 4 KiB":       make([]byte, MaxLinkBytes+1),
		"a million deep":   slices.Repeat([]byte{0x81}, 1_000_000),
		"4 KiB deep":       slices.Repeat([]byte{0x81}, MaxLinkBytes),
		"a million scopes": scopes,
		"4 KiB of scopes":  append(scopes, make([]byte, 4000)...),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := DecodeLink(body)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatal("accepted")
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
				t.Errorf("allocated %d bytes", grown)
			}
			if took > 50*time.Millisecond { // expected well below 1 ms; the margin is for a busy machine
				t.Errorf("took %v", took)
			}
		})
	}
}

// countingView counts the links that are fetched.
type countingView struct {
	View
	links int
}

func (c *countingView) Get(table byte, key []byte) ([]byte, bool) {
	if table == TableLink {
		c.links++
	}
	return c.View.Get(table, key)
}

// A ninth link is refused, and so are rows that make a cycle, after at most eight
// fetches.
func TestIdentity11DepthBomb(t *testing.T) {
	f := newFamily(t)
	last, holder := f.second, f.b
	for i := 2; i < MaxLinks; i++ {
		next := f.register("agent at "+string(rune('0'+i)), Agent)
		last = f.link(f.childOf(last, next), holder)
		holder = next
	}
	c, err := ResolveChain(f.tenant, last, f.index)
	if err != nil || len(c.Links) != 8 {
		t.Fatalf("eight links: %v", err)
	}
	ninth := f.childOf(last, f.other)
	ninth.Depth, ninth.MaxDepth = 7, 8 // what a body can say
	b, _ := f.signed(ninth, holder)
	v := &countingView{View: f.tenant}
	env := f.env()
	env.View = v
	raw, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r := f.deciders[KindRegisterLink].Decide(env, f.by(holder), raw)
	f.want(CodeTooDeep, r)
	// One look whether the link is known, then the walk.
	if v.links > 1+MaxLinks {
		t.Errorf("fetched %d links", v.links)
	}

	// Rows that no decider writes: nine links, and two links above one another.
	forge := func(id, parent nhi.LinkID, depth uint64) {
		l := f.rootLink(f.human, f.a)
		l.V, l.Suite, l.Parent, l.Depth, l.MaxDepth = 1, 1, parent, depth, 7
		l.Sort()
		f.tenant.put(set(TableLink, id[:], linkRow{Body: canon.MustMarshal(l), Via: []byte{0, 0}}))
	}
	forge(nhi.LinkID{1}, nhi.LinkID{2}, 2)
	forge(nhi.LinkID{2}, nhi.LinkID{1}, 1)
	for i := range byte(9) {
		forge(nhi.LinkID{3, i}, nhi.LinkID{3, i + 1}, 7)
	}
	for _, tt := range []struct {
		leaf nhi.LinkID
		want Code
	}{{nhi.LinkID{1}, CodeCycle}, {nhi.LinkID{3, 0}, CodeTooDeep}} {
		v := &countingView{View: f.tenant}
		if _, err := ResolveChain(v, tt.leaf, f.index); !errors.Is(err, tt.want) {
			t.Errorf("got %v, want %v", err, tt.want)
		}
		if v.links > MaxLinks {
			t.Errorf("fetched %d links", v.links)
		}
	}
}

// Widening is refused in each way (TestRules has them all); only an omitted cap is
// accepted, and inherits.
func TestIdentity12Widening(t *testing.T) {
	f := newFamily(t)
	for _, tt := range []struct {
		name   string
		change func(l *Link)
		want   Code
	}{
		{"adds an action", func(l *Link) { l.Scopes[0].Actions = []string{"quota.*", "usage", "void"} }, CodeScope},
		{"raises a cap", func(l *Link) { l.Scopes[0].Caps["usd"] = 51 }, CodeScope},
		{"changes a budget's window", func(l *Link) { l.Budgets[0].Window = Hour }, CodeBudget},
		{"names a sibling resource", func(l *Link) { l.Scopes[1].Resource = "service/web2" }, CodeScope},
		{"moves to an account the parent lacks", func(l *Link) { l.Scopes[0].Resource = AccountResource(idOf("lacks")) }, CodeScope},
		{"omits a cap", func(l *Link) { delete(l.Scopes[0].Caps, "usd") }, OK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := f.third()
			tt.change(l)
			b, id := f.signed(l, f.b)
			f.want(tt.want, f.do(f.by(f.b), KindRegisterLink, b))
			if tt.want != OK {
				return
			}
			c, err := ResolveChain(f.tenant, id, f.index)
			if err != nil {
				t.Fatal(err)
			}
			r := f.request(c, "usage")
			r.Account = idOf("team")
			if most, ok := c.Cap(r, "usd"); most != 50 || !ok {
				t.Errorf("inherited cap: got %d, %v, want 50", most, ok)
			}
		})
	}
}

// Two scopes of the parent together do not contain what neither contains alone.
func TestIdentity13UnionAttack(t *testing.T) {
	f := newFamily(t)
	parent := f.third()
	parent.Scopes = []Scope{
		{Actions: []string{"usage"}, Resource: AccountResource(idOf("team"))},
		{Actions: []string{"quota.reserve"}, Resource: AccountResource(idOf("team"))},
	}
	id := f.link(parent, f.b)
	child := f.childOf(id, f.other)
	child.Scopes = []Scope{{Actions: []string{"quota.reserve", "usage"}, Resource: AccountResource(idOf("team"))}}
	b, _ := f.signed(child, f.c)
	f.want(CodeScope, f.do(f.by(f.c), KindRegisterLink, b))
	child.Scopes = []Scope{
		{Actions: []string{"quota.reserve"}, Resource: AccountResource(idOf("team"))},
		{Actions: []string{"usage"}, Resource: AccountResource(idOf("team"))},
	}
	b, _ = f.signed(child, f.c)
	f.want(OK, f.do(f.by(f.c), KindRegisterLink, b))
}

// Windows are half-open and measured by the stamp alone.
func TestIdentity14ExpiryEdge(t *testing.T) {
	f := newFamily(t)
	c, err := ResolveChain(f.tenant, f.second, f.index)
	if err != nil {
		t.Fatal(err)
	}
	nbf, exp := c.Links[1].NotBefore*1_000_000, c.Links[1].Expires*1_000_000
	for _, tt := range []struct {
		name string
		at   int64
		want Code
	}{
		{"1 ns before nbf", nbf - 1, CodeNotYet},
		{"nbf", nbf, OK},
		{"1 ms before exp", exp - 1_000_000, OK},
		{"1 ns before exp", exp - 1, OK},
		{"exp", exp, CodeExpired},
	} {
		if got := CodeOf(c.Live(tt.at)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	// A chain that is over parents nothing.
	b, _ := f.signed(f.third(), f.b)
	f.time = exp
	f.want(CodeExpired, f.do(f.by(f.b), KindRegisterLink, b))
}

// A child does not outlive its parent; a parent's revocation holds from its own
// index on, and the cache does not hide it.
func TestIdentity15ParentRevoked(t *testing.T) {
	f := newFamily(t)
	l := f.third()
	l.Expires++
	b, _ := f.signed(l, f.b)
	f.want(CodeWindow, f.do(f.by(f.b), KindRegisterLink, b))

	id := f.link(f.third(), f.b)
	cache := NewChainCache(0)
	for range 2 {
		if _, err := cache.Resolve(f.tenant, f.at(), id); err != nil {
			t.Fatal(err)
		}
	}
	k := f.index
	f.want(OK, f.do(f.by(f.human), KindRevokeLink, &RevokeLinkBody{Link: f.root}))
	if _, err := ResolveChain(f.tenant, id, k-1); err != nil {
		t.Errorf("at k-1: %v", err)
	}
	for _, asOf := range []uint64{k, k + 1} {
		if _, err := ResolveChain(f.tenant, id, asOf); !errors.Is(err, CodeLinkRevoked) {
			t.Errorf("at %d: got %v, want %v", asOf, err, CodeLinkRevoked)
		}
	}
	if _, err := cache.Resolve(f.tenant, f.at(), id); !errors.Is(err, CodeLinkRevoked) {
		t.Errorf("from the cache: got %v, want %v", err, CodeLinkRevoked)
	}
}

// Who may revoke a link: its issuer, an issuer above it, the authority.
func TestIdentity15WhoRevokes(t *testing.T) {
	for _, tt := range []struct {
		name string
		by   func(f *family) *person
		want Code
	}{
		{"its issuer", func(f *family) *person { return f.b }, OK},
		{"an issuer above", func(f *family) *person { return f.a }, OK},
		{"the human", func(f *family) *person { return f.human }, OK},
		{"the authority", func(f *family) *person { return f.authority }, OK},
		{"its subject", func(f *family) *person { return f.c }, CodeUnauthorized},
		{"a bystander", func(f *family) *person { return f.other }, CodeUnauthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFamily(t)
			id := f.link(f.third(), f.b)
			f.want(tt.want, f.do(f.by(tt.by(f)), KindRevokeLink, &RevokeLinkBody{Link: id}))
		})
	}
}

// Revocation and use at neighbouring indices: order decides, whoever asks again.
func TestIdentity16OrderDecides(t *testing.T) {
	f := newFamily(t)
	id := f.link(f.third(), f.b)
	before := f.index // a request that gets this index comes first
	f.index++
	revoke := f.index
	f.want(OK, f.do(f.by(f.b), KindRevokeLink, &RevokeLinkBody{Link: id}))
	after := f.index
	for range 3 { // a replay resolves the same
		if _, err := ResolveChain(f.tenant, id, before); err != nil {
			t.Errorf("request before the revocation: %v", err)
		}
		if _, err := ResolveChain(f.tenant, id, after); !errors.Is(err, CodeLinkRevoked) {
			t.Errorf("request after the revocation: got %v, want %v", err, CodeLinkRevoked)
		}
	}
	if ts, ok := LinkTombstone(f.tenant, id, after); !ok || ts.Index != revoke || ts.By != f.b.id {
		t.Errorf("tombstone: got %+v, %v", ts, ok)
	}
}

// After a rotation only the new key signs links; what the old one signed before
// stays, and a holder acts on with its new key.
func TestIdentity17KeyRotation(t *testing.T) {
	f := newFamily(t)
	early := f.link(f.third(), f.b)
	old := f.rotate(f.b, "b 2", f.time+3600*second)

	if _, err := ResolveChain(f.tenant, early, f.index); err != nil {
		t.Errorf("registered before the rotation: %v", err)
	}
	l := f.third()
	l.Nonce = [16]byte{1}
	b, _ := f.signed(l, &person{f.b.id, old, Agent})
	f.want(CodeIssuerKey, f.do(f.by(f.b), KindRegisterLink, b))
	b, _ = f.signed(l, f.b) // the parent names the old key; this is a rotation of it
	f.want(OK, f.do(f.by(f.b), KindRegisterLink, b))

	// A link to somebody must name their current key.
	stale := f.childOf(f.root, f.b)
	stale.SubjectKey = old.Public().ID()
	b, _ = f.signed(stale, f.a)
	f.want(CodeSubjectKey, f.do(f.by(f.a), KindRegisterLink, b))

	// When the old key turns out to be compromised, what it stood for ends.
	f.want(OK, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.b.id, Key: nhi.Digest(old.Public().ID())}))
	if _, err := ResolveChain(f.tenant, early, f.index); !errors.Is(err, CodeKeyRevoked) {
		t.Errorf("after the old key's revocation: got %v, want %v", err, CodeKeyRevoked)
	}
}

// A window of compromise marks what was signed in it and changes nothing else.
func TestIdentity18CompromiseWindow(t *testing.T) {
	f := newFamily(t)
	since := f.time
	key := f.a.key.Public().ID()
	f.want(OK, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.a.id, Reason: "stolen laptop", CompromisedSince: since}))
	for _, tt := range []struct {
		at   int64
		asOf uint64
		want bool
	}{
		{since - 1, f.index, false},
		{since, f.index, true},
		{since + 1, f.index, true},
		{since + 1, f.index - 2, false}, // not known yet
	} {
		if got := Suspect(f.tenant, key, tt.at, tt.asOf); got != tt.want {
			t.Errorf("at %d as of %d: got %v, want %v", tt.at-since, tt.asOf, got, tt.want)
		}
	}
	other := f.b.key.Public().ID()
	f.want(OK, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.b.id, Key: nhi.Digest(other), CompromisedSince: since}))
	if !Suspect(f.tenant, other, since, f.index) || Suspect(f.tenant, other, since-1, f.index) {
		t.Error("window of a single key is not kept")
	}
	f.want(CodeMalformed, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.c.id, CompromisedSince: f.time + 1}))
}

// A link does not move to another chain: its body names its parent by hash.
func TestIdentity19Splice(t *testing.T) {
	f := newFamily(t)
	l := f.rootLink(f.human, f.a)
	l.Nonce, l.Scopes = [16]byte{9}, l.Scopes[:1]
	root2 := f.link(l, f.human)
	child := f.childOf(root2, f.b)
	body, sig, id, err := SignLink(f.a.key, child)
	if err != nil {
		t.Fatal(err)
	}
	child.Parent = f.root // issuer and scopes would fit the first chain too
	spliced, err := child.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := &RegisterLinkBody{Body: spliced, Signature: sig, Evidence: Evidence{Kind: CompositeKey, Bytes: []byte{}}}
	f.want(CodeBadSignature, f.do(f.by(f.a), KindRegisterLink, b))
	b.Body = body
	f.want(OK, f.do(f.by(f.a), KindRegisterLink, b))

	// And in the state: a row whose parent is another link than the one above.
	c, err := ResolveChain(f.tenant, f.root, f.index)
	if err != nil {
		t.Fatal(err)
	}
	real, err := ResolveLink(f.tenant, id, f.index)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := extend(c, id, real.Link, nil, real.via); !errors.Is(err, CodeUnknownLink) {
		t.Errorf("extend: got %v, want %v", err, CodeUnknownLink)
	}
}

// The same bytes on another cluster or in another tenant.
func TestIdentity20CrossReplay(t *testing.T) {
	f := newFamily(t)
	b, _ := f.signed(f.third(), f.b)
	raw, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(e *Env)
		want   Code
	}{
		{"another cluster", func(e *Env) { e.Ledger = nhi.Digest{8} }, CodeWrongLedger},
		{"another tenant", func(e *Env) { e.Tenant = idOf("another") }, CodeWrongTenant},
		{"the system log", func(e *Env) { e.Slot = 0 }, CodeWrongTenant},
	} {
		env := f.env()
		tt.change(env)
		if r := f.deciders[KindRegisterLink].Decide(env, f.by(f.b), raw); r.Code != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, r.Code, tt.want)
		}
	}
	f.want(OK, f.raw(f.by(f.b), KindRegisterLink, raw))
}

// A link that is registered twice is one link at its first index; the nonce and
// id of the event are the ledger's business.
func TestIdentity21Replay(t *testing.T) {
	f := newFamily(t)
	b, id := f.signed(f.third(), f.b)
	first := f.do(f.by(f.b), KindRegisterLink, b)
	f.want(OK, first)
	again := f.do(f.by(f.b), KindRegisterLink, b)
	f.want(OK, again)
	if !slices.Equal(first.Detail, again.Detail) || len(again.Writes) != 0 {
		t.Errorf("second answer differs or writes: %x, %x", first.Detail, again.Detail)
	}
	r, err := ResolveLink(f.tenant, id, f.index)
	if err != nil || r.Registered != f.index-2 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// One request, one chain: rights of another chain that the holder has do not
// count, and a proof does not serve for another audience.
func TestIdentity22ConfusedDeputy(t *testing.T) {
	f := newFamily(t)
	chain := func(action string, n byte) *Chain {
		l := f.rootLink(f.human, f.other)
		l.Scopes = []Scope{{Actions: []string{action}, Resource: "files"}}
		l.Nonce = [16]byte{n}
		c, err := ResolveChain(f.tenant, f.link(l, f.human), f.index)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	read, write := chain("read", 1), chain("write", 2)
	r := f.request(read, "write")
	r.Resource = "files"
	if got := CodeOf(read.Allows(r)); got != CodeDenied {
		t.Errorf("write under the reading chain: got %v, want %v", got, CodeDenied)
	}
	if got := CodeOf(write.Allows(r)); got != CodeAudience {
		t.Errorf("request that names the reading chain, held against the writing one: got %v, want %v", got, CodeAudience)
	}
	r.Link = write.ID()
	if err := write.Allows(r); err != nil {
		t.Errorf("write under the writing chain: %v", err)
	}
	r.Tenant = idOf("a second audience")
	if got := CodeOf(write.Allows(r)); got != CodeAudience {
		t.Errorf("forwarded elsewhere: got %v, want %v", got, CodeAudience)
	}
	// Passing on one chain while acting under another.
	by := f.by(f.b)
	l := f.rootLink(f.human, f.b)
	l.Nonce = [16]byte{3}
	by.Link = f.link(l, f.human)
	b, _ := f.signed(f.third(), f.b)
	f.want(CodeAudience, f.do(by, KindRegisterLink, b))
	by.Link = f.second
	f.want(OK, f.do(by, KindRegisterLink, b))
}

// What a chain says about itself comes from its verified links.
func TestIdentity23ForgedChainContext(t *testing.T) {
	f := newFamily(t)
	for _, tt := range []struct {
		name   string
		change func(l *Link)
		want   Code
	}{
		{"claims to be a root", func(l *Link) { l.Parent, l.Depth = nhi.LinkID{}, 0 }, CodeBadRoot},
		{"claims to be less deep", func(l *Link) { l.Depth = 1 }, CodeDepth},
	} {
		l := f.third()
		tt.change(l)
		b, _ := f.signed(l, f.b)
		if got := f.do(f.by(f.b), KindRegisterLink, b).Code; got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	c, err := ResolveChain(f.tenant, f.second, f.index)
	if err != nil {
		t.Fatal(err)
	}
	if c.Depth != 1 || c.Root != f.human.id || c.RootType != Human {
		t.Errorf("got depth %d, root %v (%v)", c.Depth, c.Root, c.RootType)
	}
}

// Everybody in the requester's chain is recognised, and nobody else.
func TestIdentity24SelfApproval(t *testing.T) {
	f := newFamily(t)
	c, err := ResolveChain(f.tenant, f.second, f.index)
	if err != nil {
		t.Fatal(err)
	}
	second := f.register("second human", Human)
	for _, tt := range []struct {
		name string
		who  *person
		want bool
	}{
		{"requester", f.b, true}, {"ancestor", f.a, true}, {"root", f.human, true},
		{"another agent", f.c, false}, {"another human", second, false},
	} {
		if got := c.Includes(tt.who.id); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := c.Members(); !slices.Equal(got, []nhi.ID{f.human.id, f.a.id, f.b.id}) {
		t.Errorf("Members: got %v", got)
	}
}

// Names in links are ASCII of few characters, so that what looks equal is equal.
func TestIdentity28Unicode(t *testing.T) {
	f := newFamily(t)
	id := idOf("team").String()
	for _, tt := range []struct {
		name   string
		change func(l *Link)
	}{
		{"NFD resource", func(l *Link) { l.Scopes[1].Resource = "cafe\u0301" }},
		{"NFC resource", func(l *Link) { l.Scopes[1].Resource = "caf\u00e9" }},
		{"zero-width resource", func(l *Link) { l.Scopes[1].Resource = "service\u200b/web" }},
		{"bidi resource", func(l *Link) { l.Scopes[1].Resource = "\u202eservice/web" }},
		{"homoglyph action", func(l *Link) { l.Scopes[1].Actions = []string{"depl\u043ey"} }},
		{"upper-case action", func(l *Link) { l.Scopes[1].Actions = []string{"Deploy"} }},
		{"space in resource", func(l *Link) { l.Scopes[1].Resource = "service web" }},
		{"control in resource", func(l *Link) { l.Scopes[1].Resource = "service\x00web" }},
		{"long resource", func(l *Link) { l.Scopes[1].Resource = strings.Repeat("s", 129) }},
		{"empty resource", func(l *Link) { l.Scopes[1].Resource = "" }},
		{"upper-case account", func(l *Link) { l.Scopes[0].Resource = "account:" + strings.ToUpper(id) }},
		{"padded account", func(l *Link) { l.Scopes[0].Resource = "account:" + id + "======" }},
		{"account alias by spare bits", func(l *Link) { l.Scopes[0].Resource = "account:" + id[:25] + alias(id[25]) }},
		{"homoglyph meter", func(l *Link) { l.Budgets[0].Meter = "t\u043ekens" }},
		{"bidi group", func(l *Link) { l.Oversight = []string{"\u202esre"} }},
		{"zero-width label", func(l *Link) { l.Purpose.Label = "a\u200bb" }},
		{"invalid UTF-8", func(l *Link) { l.Purpose.Label = "\xff" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := f.third()
			tt.change(l)
			if _, err := l.Encode(); !errors.Is(err, CodeMalformed) {
				t.Errorf("got %v, want %v", err, CodeMalformed)
			}
		})
	}
}

// alias returns another character of base32 that decodes to the same two bits.
func alias(c byte) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	return string(alphabet[strings.IndexByte(alphabet, c)|1])
}

func decodeHex(t *testing.T, s string) []byte {
	t.Helper()
	k, err := nhi.ParseKeyID(s)
	if err != nil {
		t.Fatal(err)
	}
	return k[:]
}
