package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

func TestLinkThatBreaksNoRule(t *testing.T) {
	f := newFamily(t)
	id := f.link(f.third(), f.b)
	c, err := ResolveChain(f.tenant, id, f.index)
	if err != nil {
		t.Fatal(err)
	}
	if c.Root != f.human.id || c.RootType != Human || c.Holder != f.c.id || c.Depth != 2 || len(c.Links) != 3 {
		t.Errorf("got root %v, holder %v, depth %d, %d links", c.Root, c.Holder, c.Depth, len(c.Links))
	}
	if v, err := VerifyChain(f.tenant, id, f.index, f.keys); err != nil || v.ID() != id {
		t.Errorf("VerifyChain: %v", err)
	}
	if got := len(c.Budgets); got != 3 {
		t.Errorf("got budgets of %d links, want 3", got)
	}
}

// TestRules breaks the rules of notes on delegation one at a time: each case
// changes one thing about a link that is otherwise accepted.
func TestRules(t *testing.T) {
	scope := func(l *Link, i int) *Scope { return &l.Scopes[i] }
	// Sorted by resource: scope 0 is the account, scope 1 "service/web".
	tests := []struct {
		name   string
		rule   int
		change func(f *family, l *Link)
		want   Code
	}{
		{"another ledger", 1, func(f *family, l *Link) { l.Ledger[0]++ }, CodeWrongLedger},
		{"another tenant", 1, func(f *family, l *Link) { l.Tenant[0]++ }, CodeWrongTenant},
		{"parent nobody registered", 2, func(f *family, l *Link) { l.Parent[0]++ }, CodeUnknownLink},
		{"issuer is not the parent's subject", 3, func(f *family, l *Link) { l.Parent, l.Depth = f.root, 1 }, CodeMisaligned},
		{"depth skips", 3, func(f *family, l *Link) { l.Depth = 3 }, CodeDepth},
		{"depth repeats", 3, func(f *family, l *Link) { l.Depth = 1 }, CodeDepth},
		{"max_depth raised", 3, func(f *family, l *Link) { l.MaxDepth = 8 }, CodeMaxDepth},
		{"subject key of somebody else", 3, func(f *family, l *Link) { l.SubjectKey = f.a.key.Public().ID() }, CodeSubjectKey},
		{"subject is the root", 4, func(f *family, l *Link) { l.Subject, l.SubjectKey = f.human.id, f.human.key.Public().ID() }, CodeRepeated},
		{"subject is an issuer above", 4, func(f *family, l *Link) { l.Subject, l.SubjectKey = f.a.id, f.a.key.Public().ID() }, CodeRepeated},
		{"begins before the parent", 6, func(f *family, l *Link) { l.NotBefore-- }, CodeWindow},
		{"outlives the parent", 6, func(f *family, l *Link) { l.Expires++ }, CodeWindow},
		{"adds an action", 7, func(f *family, l *Link) { scope(l, 1).Actions = []string{"deploy", "rollback"} }, CodeScope},
		{"widens an action to a prefix", 7, func(f *family, l *Link) { scope(l, 1).Actions = []string{"deploy.*"} }, CodeScope},
		{"widens an action to all", 7, func(f *family, l *Link) { scope(l, 0).Actions = []string{"*"} }, CodeScope},
		{"raises a cap", 7, func(f *family, l *Link) { scope(l, 0).Caps["tokens"] = 1001 }, CodeScope},
		{"names a sibling resource", 7, func(f *family, l *Link) { scope(l, 1).Resource = "service/db" }, CodeScope},
		{"names a sibling account", 7, func(f *family, l *Link) { scope(l, 0).Resource = AccountResource(idOf("sibling")) }, CodeScope},
		{"names the parent account", 7, func(f *family, l *Link) { scope(l, 0).Resource = AccountResource(f.tenantID) }, CodeScope},
		{"names every resource", 7, func(f *family, l *Link) { scope(l, 1).Resource = "*" }, CodeScope},
		{"drops a budget", 8, func(f *family, l *Link) { l.Budgets = l.Budgets[1:] }, CodeBudget},
		{"raises a budget", 8, func(f *family, l *Link) { l.Budgets[0].Limit++ }, CodeBudget},
		{"changes a budget's window", 8, func(f *family, l *Link) { l.Budgets[1].Window = Day }, CodeBudget},
		{"changes a budget's unit", 8, func(f *family, l *Link) { l.Budgets[1].Unit = "cent" }, CodeBudget},
		{"drops an oversight group", 9, func(f *family, l *Link) { l.Oversight = nil }, CodeOversight},
		{"replaces an oversight group", 9, func(f *family, l *Link) { l.Oversight = []string{"friends"} }, CodeOversight},
		{"names a guard nobody stored", 9, func(f *family, l *Link) { l.Guards = nhi.Digest{9} }, CodeGuard},
		{"parent revoked", 10, func(f *family, l *Link) {
			f.want(OK, f.do(f.by(f.a), KindRevokeLink, &RevokeLinkBody{Link: f.second}))
		}, CodeLinkRevoked},
		{"root revoked", 10, func(f *family, l *Link) {
			f.want(OK, f.do(f.by(f.human), KindRevokeLink, &RevokeLinkBody{Link: f.root}))
		}, CodeLinkRevoked},
		{"subject revoked", 10, func(f *family, l *Link) {
			f.want(OK, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.c.id}))
		}, CodeRevoked},
		{"somebody above revoked", 10, func(f *family, l *Link) {
			f.want(OK, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.human.id}))
		}, CodeRevoked},
		{"somebody above suspended", 10, func(f *family, l *Link) {
			f.want(OK, f.do(f.by(f.authority), KindSuspend, &StatusBody{ID: f.a.id}))
		}, CodeSuspended},
		{"key above revoked", 10, func(f *family, l *Link) {
			f.want(OK, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.human.id, Key: nhi.Digest(f.human.key.Public().ID())}))
		}, CodeKeyRevoked},
		{"subject's key revoked", 10, func(f *family, l *Link) {
			f.want(OK, f.do(f.by(f.authority), KindRevoke, &StatusBody{ID: f.c.id, Key: nhi.Digest(f.c.key.Public().ID())}))
		}, CodeKeyRevoked},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("rule %d %s", tt.rule, tt.name), func(t *testing.T) {
			f := newFamily(t)
			l := f.third()
			tt.change(f, l)
			b, _ := f.signed(l, f.b)
			f.want(tt.want, f.do(f.by(f.b), KindRegisterLink, b))
		})
	}
}

// TestRulesOfTheBody are those that are seen without any state; nothing of such
// a link can be signed with this package, so the bytes are made by hand.
func TestRulesOfTheBody(t *testing.T) {
	f := newFamily(t)
	tests := []struct {
		name   string
		change func(l *Link)
		want   Code
	}{
		{"version", func(l *Link) { l.V = 2 }, CodeVersion},
		{"no suite", func(l *Link) { l.Suite = 0 }, CodeSuite},
		{"issuer is subject", func(l *Link) { l.Subject = l.Issuer }, CodeSelfDealing},
		{"too deep", func(l *Link) { l.Depth, l.MaxDepth = 8, 8 }, CodeTooDeep},
		{"deeper than its max_depth", func(l *Link) { l.MaxDepth = 1 }, CodeMaxDepth},
		{"max_depth", func(l *Link) { l.MaxDepth = 9 }, CodeMalformed},
		{"empty window", func(l *Link) { l.Expires = l.NotBefore }, CodeWindow},
		{"window before time", func(l *Link) { l.NotBefore = -1 }, CodeWindow},
		{"window beyond ns", func(l *Link) { l.Expires = maxMillisecond + 1 }, CodeWindow},
		{"root with a depth", func(l *Link) { l.Parent = nhi.LinkID{} }, CodeDepth},
		{"child of depth 0", func(l *Link) { l.Depth = 0 }, CodeDepth},
		{"no scope", func(l *Link) { l.Scopes = nil }, CodeMalformed},
		{"scope twice", func(l *Link) { l.Scopes = append(l.Scopes, l.Scopes[len(l.Scopes)-1]) }, CodeMalformed},
		{"scopes unsorted", func(l *Link) { l.Scopes[0], l.Scopes[1] = l.Scopes[1], l.Scopes[0] }, CodeMalformed},
		{"no action", func(l *Link) { l.Scopes[0].Actions = nil }, CodeMalformed},
		{"actions unsorted", func(l *Link) { l.Scopes[0].Actions = []string{"usage", "quota.*"} }, CodeMalformed},
		{"star inside an action", func(l *Link) { l.Scopes[0].Actions = []string{"quota.*.x"} }, CodeMalformed},
		{"star without a dot", func(l *Link) { l.Scopes[0].Actions = []string{"quota*"} }, CodeMalformed},
		{"cap beyond int64", func(l *Link) { l.Scopes[0].Caps["tokens"] = 1 << 63 }, CodeMalformed},
		{"budget twice", func(l *Link) { l.Budgets[1] = l.Budgets[0] }, CodeMalformed},
		{"budget without a window", func(l *Link) { l.Budgets[0].Window = 0 }, CodeMalformed},
		{"oversight unsorted", func(l *Link) { l.Oversight = []string{"sre", "cfo"} }, CodeMalformed},
		{"oversight twice", func(l *Link) { l.Oversight = []string{"sre", "sre"} }, CodeMalformed},
		{"label", func(l *Link) { l.Purpose.Label = "naïve" }, CodeMalformed},
		{"resource with star", func(l *Link) { l.Scopes[1].Resource = "service/*" }, CodeMalformed},
		{"account of nobody", func(l *Link) { l.Scopes[0].Resource = AccountResource(nhi.ID{}) }, CodeMalformed},
		{"resource that is no account", func(l *Link) { l.Scopes[0].Resource = "account:team" }, CodeMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := f.third()
			l.V, l.Suite = 1, nhi.SuiteMLDSA65Ed25519
			tt.change(l)
			if _, err := DecodeLink(canon.MustMarshal(l)); !errors.Is(err, tt.want) {
				t.Errorf("DecodeLink: got %v, want %v", err, tt.want)
			}
			if _, err := l.Encode(); !errors.Is(err, tt.want) {
				t.Errorf("Encode: got %v, want %v", err, tt.want)
			}
		})
	}
}

// Rule 3: what the parent forbids.
func TestNoRedelegation(t *testing.T) {
	f := newFamily(t)
	l := f.third()
	l.Redelegate = false
	id := f.link(l, f.b)
	b, _ := f.signed(f.childOf(id, f.other), f.c)
	f.want(CodeNoRedelegate, f.do(f.by(f.c), KindRegisterLink, b))

	c, err := ResolveChain(f.tenant, id, f.index)
	if err != nil {
		t.Fatal(err)
	}
	r := f.request(c, KindRegisterLink)
	if err := c.Allows(r); !errors.Is(err, CodeNoRedelegate) {
		t.Errorf("Allows: got %v, want %v", err, CodeNoRedelegate)
	}
}

// Rule 3: max_depth of any link above, not only of the parent.
func TestMaxDepthOfTheChain(t *testing.T) {
	f := newFamily(t)
	l := f.third()
	l.MaxDepth = 2
	id := f.link(l, f.b)
	child := f.childOf(id, f.other)
	child.MaxDepth = 3
	b, _ := f.signed(child, f.c)
	f.want(CodeMaxDepth, f.do(f.by(f.c), KindRegisterLink, b))
}

// Rule 5: signatures, countersignatures, evidence and purpose.
func TestSignaturesOfLinks(t *testing.T) {
	f := newFamily(t)
	child, _ := f.signed(f.third(), f.b)
	rootLink := f.rootLink(f.human, f.other)
	root, rootID := f.signed(rootLink, f.human)
	otherSig := func(signer *person, msg []byte) []byte {
		sig, err := signer.key.Sign(nhi.CtxDelegation, msg)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	tests := []struct {
		name   string
		by     *person
		base   *RegisterLinkBody
		change func(b *RegisterLinkBody)
		want   Code
	}{
		{"flipped bit", f.b, child, func(b *RegisterLinkBody) { b.Signature = append([]byte{b.Signature[0] ^ 1}, b.Signature[1:]...) }, CodeBadSignature},
		{"signed by another", f.b, child, func(b *RegisterLinkBody) { id := LinkIDOf(b.Body); b.Signature = otherSig(f.a, id[:]) }, CodeBadSignature},
		{"signature over the countersign message", f.b, child, func(b *RegisterLinkBody) {
			b.Signature = otherSig(f.b, countersigned(LinkIDOf(b.Body)))
		}, CodeBadSignature},
		{"countersigned below the root", f.b, child, func(b *RegisterLinkBody) {
			b.Countersignature = otherSig(f.authority, countersigned(LinkIDOf(b.Body)))
		}, CodeCountersign},
		{"not countersigned", f.human, root, func(b *RegisterLinkBody) { b.Countersignature = nil }, CodeCountersign},
		{"countersigned by itself", f.human, root, func(b *RegisterLinkBody) { b.Countersignature = otherSig(f.human, countersigned(rootID)) }, CodeCountersign},
		{"countersignature over the issuer's message", f.human, root, func(b *RegisterLinkBody) { b.Countersignature = otherSig(f.authority, rootID[:]) }, CodeCountersign},
		{"registered by a bystander", f.other, child, func(*RegisterLinkBody) {}, CodeUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := *tt.base
			tt.change(&b)
			f.want(tt.want, f.do(f.by(tt.by), KindRegisterLink, &b))
		})
	}
	for _, tt := range []struct {
		name   string
		change func(b *RegisterLinkBody)
		want   Code
	}{
		{"evidence of an unknown kind", func(b *RegisterLinkBody) { b.Evidence.Kind = 2 }, CodeEvidence},
		{"evidence where none belongs", func(b *RegisterLinkBody) { b.Evidence.Bytes = []byte{1} }, CodeEvidence},
		{"short signature", func(b *RegisterLinkBody) { b.Signature = b.Signature[:64] }, CodeBadSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := *child
			tt.change(&b)
			f.want(tt.want, f.raw(f.by(f.b), KindRegisterLink, canon.MustMarshal(b)))
		})
	}
	// What was refused above is accepted unchanged, also when the authority hands it in.
	f.want(OK, f.do(f.by(f.authority), KindRegisterLink, child))
	f.want(OK, f.do(f.by(f.human), KindRegisterLink, root))
}

// Rules 2 and 5: who may stand where in a chain.
func TestTypesInChains(t *testing.T) {
	f := newFamily(t)
	second := f.register("second human", Human)
	service := f.register("service", Service)
	tests := []struct {
		name     string
		from, to *person
		want     Code
	}{
		{"human to agent", second, f.other, OK},
		{"human to service", second, service, OK},
		{"service to agent", service, f.other, OK},
		{"agent as root", f.a, f.other, CodeBadRoot},
		{"authority as root", f.authority, f.other, CodeBadRoot},
		{"human to human", f.human, second, CodeKeyPurpose},
		{"human to authority", f.human, f.authority, CodeKeyPurpose},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := f.rootLink(tt.from, tt.to)
			l.Nonce = [16]byte{1, byte(i)}
			b, _ := f.signed(l, tt.from)
			f.want(tt.want, f.do(f.by(tt.from), KindRegisterLink, b))
		})
	}
	unknown := &person{idOf("nobody"), keyOf(t, "nobody"), Agent}
	b, _ := f.signed(f.rootLink(f.human, unknown), f.human)
	f.want(CodeUnknownIdentity, f.do(f.by(f.human), KindRegisterLink, b))
}

// The rules that registration makes sure of are checked again when a chain is
// resolved, in case rows say otherwise.
func TestRowsThatBreakRules(t *testing.T) {
	f := newFamily(t)
	c, err := ResolveChain(f.tenant, f.second, f.index)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(l *Link)
		want   Code
	}{
		{"another ledger", func(l *Link) { l.Ledger[0]++ }, CodeWrongLedger},
		{"another tenant", func(l *Link) { l.Tenant[0]++ }, CodeWrongTenant},
		{"another parent", func(l *Link) { l.Parent[0]++ }, CodeUnknownLink},
		{"nothing", func(*Link) {}, OK},
	} {
		l := f.third()
		tt.change(l)
		if _, _, err := extend(c, nhi.LinkID{1}, l, f.tree, nil); CodeOf(err) != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	l := f.rootLink(f.a, f.b)
	l.V, l.Suite, l.IssuerKey = 1, 1, f.a.key.Public().ID()
	l.Sort()
	f.tenant.put(set(TableLink, []byte(strings.Repeat("r", 32)), linkRow{Body: canon.MustMarshal(l), Via: []byte{0, 0}}))
	if _, err := ResolveChain(f.tenant, nhi.LinkID([]byte(strings.Repeat("r", 32))), f.index); !errors.Is(err, CodeBadRoot) {
		t.Errorf("root issued by an agent: got %v, want %v", err, CodeBadRoot)
	}
}

// A suspended human's root link does not come in by way of the authority.
func TestSuspendedIssuer(t *testing.T) {
	f := newFamily(t)
	l := f.rootLink(f.human, f.other)
	b, _ := f.signed(l, f.human)
	f.want(OK, f.do(f.by(f.authority), KindSuspend, &StatusBody{ID: f.human.id}))
	f.want(CodeSuspended, f.do(f.by(f.authority), KindRegisterLink, b))
	f.want(CodeUnauthorized, f.do(f.by(f.human), KindRegisterLink, b))
	r, err := NewRotation(keyOf(t, "human 2"), f.ledger, f.tenantID, f.human.id, Human, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.want(CodeSuspended, f.do(f.by(f.human), KindRotate, r))
}

func (w *world) request(c *Chain, action string) Request {
	return Request{
		Signer: c.Holder, Ledger: w.ledger, Tenant: w.tenantID, Link: c.ID(), Action: action, At: w.time, Tree: w.tree,
	}
}

// Rule 11 and, at the time of use, 6 and 7.
func TestAllows(t *testing.T) {
	f := newFamily(t)
	l := f.third()
	l.Scopes[0].Resource = AccountResource(idOf("project"))
	delete(l.Scopes[0].Caps, "usd")
	l.Scopes[0].Caps["tokens"] = 700
	id := f.link(l, f.b)
	c, err := ResolveChain(f.tenant, id, f.index)
	if err != nil {
		t.Fatal(err)
	}
	onProject := func(r *Request) { r.Action, r.Account = "usage", idOf("project") }
	tests := []struct {
		name   string
		change func(r *Request)
		want   Code
	}{
		{"account", onProject, OK},
		{"action by prefix", func(r *Request) { onProject(r); r.Action = "quota.reserve" }, OK},
		{"prefix without the dot's part", func(r *Request) { onProject(r); r.Action = "quota" }, CodeDenied},
		{"exact resource", func(r *Request) { r.Action, r.Resource = "deploy", "service/web" }, OK},
		{"another resource", func(r *Request) { r.Action, r.Resource = "deploy", "service/db" }, CodeDenied},
		{"action of the other scope", func(r *Request) { r.Action, r.Resource = "usage", "service/web" }, CodeDenied},
		{"no account", func(r *Request) { onProject(r); r.Account = nhi.ID{} }, CodeDenied},
		{"account above", func(r *Request) { onProject(r); r.Account = idOf("team") }, CodeDenied},
		{"account elsewhere", func(r *Request) { onProject(r); r.Account = idOf("elsewhere") }, CodeDenied},
		{"within the caps", func(r *Request) { onProject(r); r.Amounts = []Amount{{"tokens", 700}, {"usd", 50}} }, OK},
		{"over its own cap", func(r *Request) { onProject(r); r.Amounts = []Amount{{"tokens", 701}} }, CodeCap},
		{"over an inherited cap", func(r *Request) { onProject(r); r.Amounts = []Amount{{"usd", 51}} }, CodeCap},
		{"meter without a cap", func(r *Request) { onProject(r); r.Amounts = []Amount{{"calls", 1 << 60}} }, OK},
		{"another signer", func(r *Request) { onProject(r); r.Signer = f.b.id }, CodeNotHolder},
		{"another ledger", func(r *Request) { onProject(r); r.Ledger[0]++ }, CodeAudience},
		{"another tenant", func(r *Request) { onProject(r); r.Tenant[0]++ }, CodeAudience},
		{"another link", func(r *Request) { onProject(r); r.Link = f.second }, CodeAudience},
		{"before nbf", func(r *Request) { onProject(r); r.At = c.Nbf - 1 }, CodeNotYet},
		{"at nbf", func(r *Request) { onProject(r); r.At = c.Nbf }, OK},
		{"at exp", func(r *Request) { onProject(r); r.At = c.Exp }, CodeExpired},
		{"rotation of its own key", func(r *Request) { r.Action = KindRotate }, OK},
		{"passing the link on", func(r *Request) { r.Action = KindRegisterLink }, OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := f.request(c, "")
			tt.change(&r)
			if got := CodeOf(c.Allows(r)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	r := f.request(c, "usage")
	r.Account = idOf("project")
	for _, tt := range []struct {
		meter string
		most  uint64
		ok    bool
	}{{"tokens", 700, true}, {"usd", 50, true}, {"calls", 0, false}} {
		if most, ok := c.Cap(r, tt.meter); most != tt.most || ok != tt.ok {
			t.Errorf("Cap(%q): got %d, %v, want %d, %v", tt.meter, most, ok, tt.most, tt.ok)
		}
	}
}

// An account that has moved out of a scope above since the registration is no
// longer covered, although the link that names it still stands.
func TestScopeHoldsAtEveryHop(t *testing.T) {
	f := newFamily(t)
	l := f.third()
	l.Scopes[0].Resource = AccountResource(idOf("project"))
	id := f.link(l, f.b)
	c, err := ResolveChain(f.tenant, id, f.index)
	if err != nil {
		t.Fatal(err)
	}
	r := f.request(c, "usage")
	r.Account = idOf("project")
	if err := c.Allows(r); err != nil {
		t.Fatal(err)
	}
	r.Tree = Path{idOf("project"), idOf("other team"), f.tenantID}
	if err := c.Allows(r); !errors.Is(err, CodeDenied) {
		t.Errorf("after the move: got %v, want %v", err, CodeDenied)
	}
}
