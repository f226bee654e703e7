package registry

import (
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

func decideRegisterLink(env *Env, by By, raw []byte) Result {
	b := new(RegisterLinkBody)
	if err := decode(raw, b); err != nil {
		return refused(err)
	}
	l, err := DecodeLink(b.Body)
	if err != nil {
		return refused(err)
	}
	id := LinkIDOf(b.Body)
	if by.Identity == nil || by.Identity.Status != Active || by.Identity.ID != l.Issuer && !env.byAuthority(by) {
		return refused(refuse(CodeUnauthorized))
	}
	// The id does not depend on signatures, so a second signature over the same
	// body is the same link.
	if r, err := ResolveLink(env.View, id, env.Index); err == nil {
		if _, dead := getTombstone(env.View, tombLink, id, env.Index); dead {
			return refused(refuse(CodeLinkRevoked))
		}
		return Result{Detail: canon.MustMarshal(RegisteredLink{Link: id, Index: r.Registered})}
	}
	if by.Identity.ID == l.Issuer && by.Link != (nhi.LinkID{}) && by.Link != l.Parent {
		return refused(refuse(CodeAudience))
	}
	via, countersigner, err := env.admitLink(l, id, b)
	if err != nil {
		return refused(err)
	}
	return Result{
		Writes: []Write{
			set(TableLink, id[:], linkRow{Body: b.Body, Index: env.Index, Time: env.Time, Via: via}),
			set(TableEvidence, id[:], LinkEvidence{
				Signature: b.Signature, Evidence: b.Evidence, Countersignature: b.Countersignature,
				CountersignKey: countersigner, RegisteredBy: by.Identity.ID,
			}),
			mark(TableByParent, l.Parent[:], id[:]),
			mark(TableBySubject, versioned(l.Subject[:], env.Index), id[:]),
		},
		Detail: canon.MustMarshal(RegisteredLink{Link: id, Index: env.Index}),
	}
}

// admitLink checks every rule of a chain for a new link and the chain above it,
// cheap ones first. It returns which scope of the parent contains each scope and
// the key that countersigned.
func (e *Env) admitLink(l *Link, id nhi.LinkID, b *RegisterLinkBody) (via []byte, countersigner nhi.KeyID, err error) {
	hop := int(l.Depth)
	none := nhi.KeyID{}
	if l.Ledger != e.Ledger {
		return nil, none, refuseAt(CodeWrongLedger, hop)
	}
	if l.Tenant != e.Tenant || e.Slot == 0 {
		return nil, none, refuseAt(CodeWrongTenant, hop)
	}
	var parent *Chain
	if !l.isRoot() {
		get := func(id nhi.LinkID) (*LinkRecord, error) { return ResolveLink(e.View, id, e.Index) }
		// One hop of the eight is the new link itself.
		if parent, err = resolveChain(e.View, get, l.Parent, e.Index, MaxLinks-1); err != nil {
			return nil, none, err
		}
	}
	chain, via, err := extend(parent, id, l, e.Tree, nil)
	if err != nil {
		return nil, none, err
	}
	if e.Time >= chain.Exp {
		return nil, none, refuseAt(CodeExpired, hop)
	}
	issuerKey, err := e.parties(l, hop)
	if err != nil {
		return nil, none, err
	}
	// A link that was registered under a weaker suite stays valid, but nothing new
	// is built on it.
	least := MinSuite(e.System, ClassDelegation, e.SystemIndex)
	for i, p := range chain.Links {
		if p.Suite < least {
			return nil, none, refuseAt(CodeWeakSuite, i)
		}
	}
	if l.Guards != (nhi.Digest{}) {
		if _, err := ResolveGuard(e.View, l.Guards, e.Index); err != nil {
			return nil, none, refuseAt(CodeGuard, hop)
		}
	}
	pk, err := e.Keys.Parse(issuerKey.Suite, issuerKey.Public)
	if err != nil {
		return nil, none, refuseFor(CodeBadKey, err)
	}
	if pk.Verify(nhi.CtxDelegation, id[:], b.Signature) != nil {
		return nil, none, refuseAt(CodeBadSignature, hop)
	}
	if !l.isRoot() {
		if len(b.Countersignature) != 0 {
			return nil, none, refuseAt(CodeCountersign, hop)
		}
		return via, none, nil
	}
	countersigner, err = e.countersigned(id, b.Countersignature, least)
	return via, countersigner, err
}

// parties checks issuer and subject: alive, of types that may take part, and
// named with their current keys (rules 2, 3, 5, 10). Below the root the issuer is
// the subject of a registered link, so its type has been checked. It returns the
// issuer's key.
func (e *Env) parties(l *Link, hop int) (*Key, error) {
	issuer, err := ResolveIdentity(e.View, l.Issuer, e.Index)
	if err != nil {
		return nil, err
	}
	if err := issuer.live(hop); err != nil {
		return nil, err
	}
	if l.isRoot() && !issuesRoots(issuer.Type) {
		return nil, refuseAt(CodeBadRoot, hop)
	}
	subject, err := ResolveIdentity(e.View, l.Subject, e.Index)
	if err != nil {
		return nil, err
	}
	if err := subject.live(hop); err != nil {
		return nil, err
	}
	if !takesPart(subject.Type) {
		return nil, refuseAt(CodeKeyPurpose, hop)
	}
	// The current key is the one the parent named or a rotation of it; an older
	// one signs no new links, even within its overlap.
	if l.IssuerKey != issuer.Key {
		return nil, refuseAt(CodeIssuerKey, hop)
	}
	if l.SubjectKey != subject.Key {
		return nil, refuseAt(CodeSubjectKey, hop)
	}
	for _, k := range [...]nhi.KeyID{l.IssuerKey, l.SubjectKey} {
		if _, dead := getTombstone(e.View, tombKey, k, e.Index); dead {
			return nil, refuseAt(CodeKeyRevoked, hop)
		}
	}
	key, err := ResolveKey(e.View, l.IssuerKey, e.Index)
	if err != nil {
		return nil, err
	}
	if l.Suite != key.Suite {
		return nil, refuseAt(CodeSuite, hop)
	}
	return key, nil
}

// countersigned verifies the authority's countersignature of a root link under
// the authority's current key.
func (e *Env) countersigned(id nhi.LinkID, sig []byte, least nhi.Suite) (nhi.KeyID, error) {
	none := nhi.KeyID{}
	authority, err := ResolveIdentity(e.View, e.AuthorityID, e.Index)
	if err != nil {
		return none, err
	}
	key, err := ResolveKey(e.View, authority.Key, e.Index)
	if err != nil {
		return none, err
	}
	if key.Suite < least {
		return none, refuseAt(CodeWeakSuite, 0)
	}
	if verifyWith(e.View, key.ID, e.Index, e.Keys, countersigned(id), sig) != nil {
		return none, refuseAt(CodeCountersign, 0)
	}
	return key.ID, nil
}

func decideRevokeLink(env *Env, by By, raw []byte) Result {
	b := new(RevokeLinkBody)
	if err := decode(raw, b); err != nil {
		return refused(err)
	}
	records, err := Walk(env.View, b.Link, env.Index)
	if err != nil {
		return refused(err)
	}
	if by.Identity == nil || by.Identity.Status != Active {
		return refused(refuse(CodeUnauthorized))
	}
	may := env.byAuthority(by)
	for _, r := range records {
		may = may || r.Link.Issuer == by.Identity.ID
	}
	if !may {
		return refused(refuse(CodeUnauthorized))
	}
	if _, dead := getTombstone(env.View, tombLink, b.Link, env.Index); dead {
		return refused(refuse(CodeLinkRevoked))
	}
	return Result{
		Writes: []Write{set(TableTombstone, tombstoneKey(tombLink, b.Link), Tombstone{
			Index: env.Index, Time: env.Time, By: by.Identity.ID,
		})},
		Bump: BumpRevocation,
	}
}

// decideGuard stores guard text once. It is one of the few rows a tenant can make
// without being its authority, and they stay for ever, so size and number are
// bounded, and texts are kept by digest.
func decideGuard(env *Env, by By, raw []byte) Result {
	b := new(GuardBody)
	if err := decode(raw, b); err != nil {
		return refused(err)
	}
	if by.Identity == nil || by.Identity.Status != Active || env.Slot == 0 {
		return refused(refuse(CodeUnauthorized))
	}
	digest := b.Digest()
	if _, err := ResolveGuard(env.View, digest, env.Index); err == nil {
		return Result{}
	}
	who := by.Identity.ID
	if !env.byAuthority(by) {
		n := 0
		env.View.Scan(TableGuardsBy, who[:], nil, false, func(_, _ []byte) bool {
			n++
			return n < MaxGuards
		})
		if n >= MaxGuards {
			return refused(refuse(CodeTooMany))
		}
	}
	return Result{Writes: []Write{
		set(TableGuard, digest[:], guardRow{Text: b.Text, Index: env.Index}),
		mark(TableGuardsBy, who[:], digest[:]),
	}}
}
