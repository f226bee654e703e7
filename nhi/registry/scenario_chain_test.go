package registry

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
)

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

// A window of compromise is not forgotten by what comes after it: resumption ends it, and a later revocation that knows
// nothing of it keeps it.
func TestIdentity18CompromiseWindowStays(t *testing.T) {
	f := newFamily(t)
	key := f.a.key.Public().ID()
	since := f.time - 1000
	suspect := func(what string, at int64, want bool) {
		t.Helper()
		if got := Suspect(f.tenant, key, at, f.index); got != want {
			t.Errorf("%s, %d ns after its beginning: got %v, want %v", what, at-since, got, want)
		}
	}
	status := func(kind string, since int64) int64 {
		t.Helper()
		at := f.time
		f.want(OK, f.do(f.by(f.authority), kind, &StatusBody{ID: f.a.id, CompromisedSince: since}))
		return at
	}
	status(KindSuspend, since)
	suspect("suspended", since, true)
	resumed := status(KindResume, 0)
	suspect("resumed", since, true)
	suspect("resumed", resumed-1, true)
	suspect("resumed", resumed+1_000_000_000, false)
	status(KindSuspend, 0)
	suspect("suspended for another reason", since, true)
	suspect("suspended for another reason", since-1, false)
	second := status(KindResume, 0)
	suspect("resumed again", resumed+1_000_000_000, false)
	status(KindSuspend, since-500) // it began earlier, as it turns out
	suspect("known to be earlier", since-500, true)
	suspect("known to be earlier", second+1, true)
	status(KindResume, 0)
	status(KindRevoke, 0)
	suspect("revoked", since-500, true)
	suspect("revoked", since-501, false)
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
