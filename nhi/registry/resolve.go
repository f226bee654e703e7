package registry

import (
	"slices"

	"github.com/creto-systems/creto/nhi"
)

// Everything here resolves as of an index: the state after the leaf with that
// index, and for an event that is being decided, with the index it will get.

// ResolveIdentity returns the version of an identity as of an index, in whatever
// status it was. The error is CodeUnknownIdentity.
func ResolveIdentity(v View, id nhi.ID, asOf uint64) (*Identity, error) {
	var out *Identity
	latest(v, TableIdentity, id[:], asOf, func(index uint64, value []byte) {
		r := readIdentity(value)
		out = &Identity{
			ID: id, Type: r.Type, Status: r.Status, Role: r.Role, Key: r.Key, Registered: r.Registered,
			Since: index, Reason: r.Reason, CompromisedSince: r.CompromisedSince, CompromisedUntil: r.CompromisedUntil,
		}
	})
	if out == nil {
		return nil, refuse(CodeUnknownIdentity)
	}
	return out, nil
}

// ResolveKey returns a key as of an index, revoked or not. The error is
// CodeUnknownKey.
func ResolveKey(v View, id nhi.KeyID, asOf uint64) (*Key, error) {
	b, ok := v.Get(TableKey, id[:])
	if !ok {
		return nil, refuse(CodeUnknownKey)
	}
	r := readKey(b)
	if r.From > asOf {
		return nil, refuse(CodeUnknownKey)
	}
	k := &Key{ID: id, Owner: r.Owner, Suite: r.Suite, Public: r.Public, Components: r.Components, From: r.From}
	latest(v, TableKeyState, id[:], asOf, func(_ uint64, value []byte) {
		var s keyStateRow
		decodeRow(TableKeyState, value, &s)
		k.Until = s.Until
	})
	if t, ok := getTombstone(v, tombKey, id, asOf); ok {
		k.RevokedAt, k.CompromisedSince = t.Index, t.CompromisedSince
	}
	return k, nil
}

// Signer is a key and the identity that it signs for.
type Signer struct {
	Key      *Key
	Identity *Identity
}

// ResolveSigner returns the key and its owner as of an index, in whatever state
// they were. The error is CodeUnknownKey.
func ResolveSigner(v View, id nhi.KeyID, asOf uint64) (*Signer, error) {
	k, err := ResolveKey(v, id, asOf)
	if err != nil {
		return nil, err
	}
	owner, err := ResolveIdentity(v, k.Owner, asOf)
	if err != nil {
		return nil, err
	}
	return &Signer{Key: k, Identity: owner}, nil
}

// Live holds the signer against a stamp: the identity is active, the key not
// revoked and, if it was superseded, still within its overlap (at < Until).
// Errors are CodeRevoked, CodeSuspended, CodeKeyRevoked or CodeExpired.
func (s *Signer) Live(at int64) error {
	if err := s.Identity.live(-1); err != nil {
		return err
	}
	if s.Key.RevokedAt != 0 {
		return refuse(CodeKeyRevoked)
	}
	if s.Key.Until != 0 && at >= s.Key.Until {
		return refuse(CodeExpired)
	}
	return nil
}

func (id *Identity) live(hop int) error {
	switch id.Status {
	case Active:
		return nil
	case Suspended:
		return refuseAt(CodeSuspended, hop)
	default:
		return refuseAt(CodeRevoked, hop)
	}
}

// ResolveComponent returns the id of the key that holds a component; zero if it
// was registered alone. The error is CodeUnknownKey.
func ResolveComponent(v View, component nhi.Digest, asOf uint64) (nhi.KeyID, error) {
	b, ok := v.Get(TableComponent, component[:])
	if !ok {
		return nhi.KeyID{}, refuse(CodeUnknownKey)
	}
	var r componentRow
	decodeRow(TableComponent, b, &r)
	if r.Index > asOf {
		return nhi.KeyID{}, refuse(CodeUnknownKey)
	}
	return r.Key, nil
}

// LinkRecord is a registered link.
type LinkRecord struct {
	ID         nhi.LinkID
	Link       *Link
	Body       []byte // as signed
	Registered uint64 // index
	Time       int64  // of its registration, ns

	via []byte
}

// ResolveLink returns a link that was registered at or before an index, revoked
// or not. The error is CodeUnknownLink.
func ResolveLink(v View, id nhi.LinkID, asOf uint64) (*LinkRecord, error) {
	b, ok := v.Get(TableLink, id[:])
	if !ok {
		return nil, refuse(CodeUnknownLink)
	}
	var r linkRow
	decodeRow(TableLink, b, &r)
	if r.Index > asOf {
		return nil, refuse(CodeUnknownLink)
	}
	l, err := DecodeLink(r.Body)
	if err != nil {
		panic(corrupt{TableLink, err})
	}
	return &LinkRecord{ID: id, Link: l, Body: r.Body, Registered: r.Index, Time: r.Time, via: r.Via}, nil
}

// LinkEvidence is what a link was registered with.
type LinkEvidence struct {
	Signature        []byte    `cbor:"1,keyasint"` // of the issuer over the link id
	Evidence         Evidence  `cbor:"2,keyasint"`
	Countersignature []byte    `cbor:"3,keyasint"` // of the authority, root links only
	CountersignKey   nhi.KeyID `cbor:"4,keyasint"` // zeros below the root
	RegisteredBy     nhi.ID    `cbor:"5,keyasint"` // who signed the event
}

// ResolveEvidence returns the signatures of a registered link.
func ResolveEvidence(v View, id nhi.LinkID) (*LinkEvidence, error) {
	b, ok := v.Get(TableEvidence, id[:])
	if !ok {
		return nil, refuse(CodeUnknownLink)
	}
	e := new(LinkEvidence)
	decodeRow(TableEvidence, b, e)
	return e, nil
}

// LinkTombstone returns the revocation of a link itself as of an index. A link
// can be dead without one, if a link, key or identity above it was revoked.
func LinkTombstone(v View, id nhi.LinkID, asOf uint64) (*Tombstone, bool) {
	return getTombstone(v, tombLink, id, asOf)
}

// ResolveGuard returns the guard text with that SHA-256. The error is CodeGuard.
func ResolveGuard(v View, digest nhi.Digest, asOf uint64) (string, error) {
	b, ok := v.Get(TableGuard, digest[:])
	if !ok {
		return "", refuse(CodeGuard)
	}
	var r guardRow
	decodeRow(TableGuard, b, &r)
	if r.Index > asOf {
		return "", refuse(CodeGuard)
	}
	return r.Text, nil
}

// source is where a walk finds links: the state, or a cache in front of it.
type source func(id nhi.LinkID) (*LinkRecord, error)

// walk returns the links from the root down to leaf, alive or not. It fetches at
// most most links, counting before it fetches (rule 2).
func walk(get source, leaf nhi.LinkID, most int) ([]*LinkRecord, error) {
	var up []*LinkRecord
	for id := leaf; ; {
		if len(up) == most {
			return nil, refuse(CodeTooDeep)
		}
		for _, seen := range up {
			if seen.ID == id {
				return nil, refuse(CodeCycle)
			}
		}
		r, err := get(id)
		if err != nil {
			return nil, err
		}
		up = append(up, r)
		if r.Link.isRoot() {
			slices.Reverse(up)
			return up, nil
		}
		id = r.Link.Parent
	}
}

// Walk returns the links from the root down to leaf as they were registered,
// whether the chain holds or not.
func Walk(v View, leaf nhi.LinkID, asOf uint64) ([]*LinkRecord, error) {
	return walk(func(id nhi.LinkID) (*LinkRecord, error) { return ResolveLink(v, id, asOf) }, leaf, MaxLinks)
}

// ResolveChain returns the chain that ends with leaf if it holds as of an index:
// every rule of a chain but time, which Chain.Live and Chain.Allows hold against
// a stamp, and signatures, which were verified when each link was registered
// (VerifyChain verifies them again).
func ResolveChain(v View, leaf nhi.LinkID, asOf uint64) (*Chain, error) {
	get := func(id nhi.LinkID) (*LinkRecord, error) { return ResolveLink(v, id, asOf) }
	return resolveChain(v, get, leaf, asOf, MaxLinks)
}

func resolveChain(v View, get source, leaf nhi.LinkID, asOf uint64, most int) (*Chain, error) {
	records, err := walk(get, leaf, most)
	if err != nil {
		return nil, err
	}
	var c *Chain
	for i, r := range records {
		if c, _, err = extend(c, r.ID, r.Link, nil, r.via); err != nil {
			return nil, err
		}
		if i == 0 {
			root, err := ResolveIdentity(v, r.Link.Issuer, asOf)
			if err != nil {
				return nil, err
			}
			if err := root.live(0); err != nil {
				return nil, err
			}
			if !issuesRoots(root.Type) {
				return nil, refuseAt(CodeBadRoot, 0)
			}
			c.RootType = root.Type
		}
		if err := linkLive(v, r, asOf); err != nil {
			return nil, err
		}
		c.Since = r.Registered
	}
	return c, nil
}

// linkLive checks rule 10 for what a link adds to the chain: itself, its two keys
// and its subject. Its issuer is the subject of the link above, or the root.
func linkLive(v View, r *LinkRecord, asOf uint64) error {
	l, hop := r.Link, int(r.Link.Depth)
	if _, dead := getTombstone(v, tombLink, r.ID, asOf); dead {
		return refuseAt(CodeLinkRevoked, hop)
	}
	subject, err := ResolveIdentity(v, l.Subject, asOf)
	if err != nil {
		return err
	}
	if err := subject.live(hop); err != nil {
		return err
	}
	for _, k := range [...]nhi.KeyID{l.IssuerKey, l.SubjectKey} {
		if _, dead := getTombstone(v, tombKey, k, asOf); dead {
			return refuseAt(CodeKeyRevoked, hop)
		}
	}
	return nil
}

func issuesRoots(t Type) bool { return t == Human || t == Service }

func takesPart(t Type) bool { return t == Agent || t == Service }

// VerifyChain is ResolveChain and verifies every signature again, for audits.
func VerifyChain(v View, leaf nhi.LinkID, asOf uint64, keys *nhi.KeyCache) (*Chain, error) {
	c, err := ResolveChain(v, leaf, asOf)
	if err != nil {
		return nil, err
	}
	for i, id := range c.IDs {
		e, err := ResolveEvidence(v, id)
		if err != nil {
			return nil, err
		}
		if err := verifyWith(v, c.Links[i].IssuerKey, asOf, keys, id[:], e.Signature); err != nil {
			return nil, refuseAt(CodeBadSignature, i)
		}
		if i == 0 && verifyWith(v, e.CountersignKey, asOf, keys, countersigned(id), e.Countersignature) != nil {
			return nil, refuseAt(CodeCountersign, i)
		}
	}
	return c, nil
}

func verifyWith(v View, key nhi.KeyID, asOf uint64, keys *nhi.KeyCache, msg, sig []byte) error {
	k, err := ResolveKey(v, key, asOf)
	if err != nil {
		return err
	}
	pk, err := keys.Parse(k.Suite, k.Public)
	if err != nil {
		return err
	}
	return pk.Verify(nhi.CtxDelegation, msg, sig)
}

// Suspect reports whether what was signed with a key at a time is within a
// window of compromise that is known as of an index. Such leaves stay in the log
// and count; queries, invoices and exports mark them.
func Suspect(v View, key nhi.KeyID, at int64, asOf uint64) bool {
	s, err := ResolveSigner(v, key, asOf)
	if err != nil {
		return false
	}
	return s.Suspect(at)
}

// Suspect reports whether what the signer signed at a time is within a known
// window of compromise of its key or of the identity as a whole.
func (s *Signer) Suspect(at int64) bool {
	k, id := s.Key.CompromisedSince, s.Identity
	return k != 0 && at >= k ||
		id.CompromisedSince != 0 && at >= id.CompromisedSince && (id.CompromisedUntil == 0 || at < id.CompromisedUntil)
}

// ListIdentities returns up to limit identities with ids above after, ascending,
// as of an index.
func ListIdentities(v View, after nhi.ID, limit int, asOf uint64) []*Identity {
	var out []*Identity
	from := append(versioned(after[:], 1<<64-1), 0) // beyond every version of after
	if after.IsZero() {
		from = nil
	}
	for len(out) < limit {
		var next nhi.ID
		found := false
		v.Scan(TableIdentity, nil, from, false, func(key, _ []byte) bool {
			next, found = nhi.ID(key[:len(next)]), true
			return false
		})
		if !found {
			break
		}
		if id, err := ResolveIdentity(v, next, asOf); err == nil {
			out = append(out, id)
		}
		from = append(versioned(next[:], 1<<64-1), 0)
	}
	return out
}

// KeysOf returns the ids of an identity's keys, oldest first, at most limit.
func KeysOf(v View, owner nhi.ID, limit int, asOf uint64) []nhi.KeyID {
	var out []nhi.KeyID
	v.Scan(TableByOwner, owner[:], nil, false, func(key, _ []byte) bool {
		if rest := key[len(owner):]; versionOf(rest[:8]) <= asOf {
			out = append(out, nhi.KeyID(rest[8:]))
		}
		return len(out) < limit
	})
	return out
}

// LinksTo returns the ids of the links whose subject is an identity, oldest
// first, at most limit, from those registered at index from on.
func LinksTo(v View, subject nhi.ID, from uint64, limit int) []nhi.LinkID {
	var out []nhi.LinkID
	v.Scan(TableBySubject, subject[:], versioned(subject[:], from), false, func(key, _ []byte) bool {
		out = append(out, nhi.LinkID(key[len(subject)+8:]))
		return len(out) < limit
	})
	return out
}

// LinksUnder returns the ids of the links directly below a link, at most limit,
// with ids above after.
func LinksUnder(v View, parent, after nhi.LinkID, limit int) []nhi.LinkID {
	var out []nhi.LinkID
	v.Scan(TableByParent, parent[:], slices.Concat(parent[:], after[:]), false, func(key, _ []byte) bool {
		if id := nhi.LinkID(key[len(parent):]); id != after {
			out = append(out, id)
		}
		return len(out) < limit
	})
	return out
}
