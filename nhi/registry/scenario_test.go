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
	if v.links > MaxLinks {
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
	if _, _, err := extend(c, nhi.LinkID{4}, ninth, f.tree, nil); !errors.Is(err, CodeTooDeep) {
		t.Errorf("extend by a ninth: got %v, want %v", err, CodeTooDeep)
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

func decodeHex(t *testing.T, s string) []byte {
	t.Helper()
	k, err := nhi.ParseKeyID(s)
	if err != nil {
		t.Fatal(err)
	}
	return k[:]
}
