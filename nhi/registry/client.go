package registry

import (
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// possession is what a new key signs: that its holder wants it to be this
// identity's key, on this ledger and in this tenant.
type possession struct {
	Ledger nhi.Digest `cbor:"1,keyasint"`
	Tenant nhi.ID     `cbor:"2,keyasint"`
	ID     nhi.ID     `cbor:"3,keyasint"`
	Type   Type       `cbor:"4,keyasint"`
	Suite  nhi.Suite  `cbor:"5,keyasint"`
	Public []byte     `cbor:"6,keyasint"`
}

// NewPossession proves that signer's key is held by whoever registers it for an
// identity, at registration and at rotation. tenant is zero in slot 0.
func NewPossession(signer nhi.Signer, ledger nhi.Digest, tenant, id nhi.ID, t Type) ([]byte, error) {
	pk := signer.Public()
	msg, err := canon.Marshal(possession{ledger, tenant, id, t, pk.Suite(), pk.Bytes()})
	if err != nil {
		return nil, err
	}
	sig, err := signer.Sign(nhi.CtxPossession, msg)
	if err != nil {
		return nil, fmt.Errorf("sign possession: %w", err)
	}
	return sig, nil
}

func verifyPossession(pk *nhi.PublicKey, ledger nhi.Digest, tenant, id nhi.ID, t Type, sig []byte) error {
	msg := canon.MustMarshal(possession{ledger, tenant, id, t, pk.Suite(), pk.Bytes()})
	if pk.Verify(nhi.CtxPossession, msg, sig) != nil {
		return refuse(CodePossession)
	}
	return nil
}

// CheckPossession verifies what NewPossession made, under the public key of a
// suite. It is for servers that check a request before they commit anything;
// registration checks it again.
func CheckPossession(s nhi.Suite, public []byte, ledger nhi.Digest, tenant, id nhi.ID, t Type, possession []byte) error {
	pk, err := nhi.ParsePublicKey(s, public)
	if err != nil {
		return &Error{Code: CodeBadKey, Hop: -1, Err: err}
	}
	return verifyPossession(pk, ledger, tenant, id, t, possession)
}

// NewRegistration returns the body that registers signer's key for an identity.
func NewRegistration(signer nhi.Signer, ledger nhi.Digest, tenant, id nhi.ID, t Type) (*RegisterBody, error) {
	pop, err := NewPossession(signer, ledger, tenant, id, t)
	if err != nil {
		return nil, err
	}
	return &RegisterBody{ID: id, Type: t, Suite: signer.Public().Suite(), Public: signer.Public().Bytes(), Possession: pop}, nil
}

// NewRotation returns the body that makes next's key the key of an identity.
func NewRotation(next nhi.Signer, ledger nhi.Digest, tenant, id nhi.ID, t Type, overlapUntil int64) (*RotateBody, error) {
	pop, err := NewPossession(next, ledger, tenant, id, t)
	if err != nil {
		return nil, err
	}
	return &RotateBody{
		ID: id, Suite: next.Public().Suite(), Public: next.Public().Bytes(), Possession: pop, OverlapUntil: overlapUntil,
	}, nil
}

// SignLink completes a link with version, suite and key of its issuer, sorts it,
// and signs its id. It changes l; what it returns registers the link, together
// with a countersignature if it is a root.
func SignLink(signer nhi.Signer, l *Link) (body, sig []byte, id nhi.LinkID, err error) {
	l.V, l.Suite, l.IssuerKey = 1, signer.Public().Suite(), signer.Public().ID()
	l.Sort()
	if body, err = l.Encode(); err != nil {
		return nil, nil, nhi.LinkID{}, fmt.Errorf("encode delegation link: %w", err)
	}
	id = LinkIDOf(body)
	if sig, err = signer.Sign(nhi.CtxDelegation, id[:]); err != nil {
		return nil, nil, nhi.LinkID{}, fmt.Errorf("sign delegation link: %w", err)
	}
	return body, sig, id, nil
}

// Countersign is the authority's signature under a root link.
func Countersign(authority nhi.Signer, id nhi.LinkID) ([]byte, error) {
	sig, err := authority.Sign(nhi.CtxDelegation, countersigned(id))
	if err != nil {
		return nil, fmt.Errorf("countersign delegation link: %w", err)
	}
	return sig, nil
}

// countersigned cannot be taken for what an issuer signs, which is 32 bytes.
func countersigned(id nhi.LinkID) []byte { return append([]byte(countersignText), id[:]...) }

// Child returns a link below parent that passes on all of it from its subject to
// another, to be narrowed before it is signed. The nonce is the caller's.
func Child(parent *Link, parentID nhi.LinkID, subject nhi.ID, subjectKey nhi.KeyID, nonce [16]byte) *Link {
	l := *parent
	l.Issuer, l.IssuerKey = parent.Subject, parent.SubjectKey
	l.Subject, l.SubjectKey = subject, subjectKey
	l.Parent, l.Depth, l.Nonce = parentID, parent.Depth+1, nonce
	l.Attest = nhi.Digest{}
	l.Scopes = make([]Scope, len(parent.Scopes))
	for i, s := range parent.Scopes {
		l.Scopes[i] = Scope{Actions: append([]string(nil), s.Actions...), Resource: s.Resource, Caps: make(map[string]uint64, len(s.Caps))}
		for m, n := range s.Caps {
			l.Scopes[i].Caps[m] = n
		}
	}
	l.Budgets = append([]Budget(nil), parent.Budgets...)
	l.Oversight = append([]string(nil), parent.Oversight...)
	return &l
}
