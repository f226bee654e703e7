package registry

import (
	"bytes"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Every body that decodes encodes to the same bytes, and its rows decode again.
func FuzzDecodeLink(f *testing.F) {
	w := &world{TB: f, ledger: nhi.Digest{1}, tenantID: idOf("tenant")}
	from, to := &person{idOf("human"), keyOf(f, "human"), Human}, &person{idOf("a"), keyOf(f, "a"), Agent}
	root, _, id, err := SignLink(from.key, w.rootLink(from, to))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(root)
	l, err := DecodeLink(root)
	if err != nil {
		f.Fatal(err)
	}
	child := Child(l, id, idOf("b"), nhi.KeyID{2}, [16]byte{3})
	child.Guards, child.Attest = nhi.Digest{4}, nhi.Digest{5}
	body, _, _, err := SignLink(to.key, child)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(body[:len(body)-1])
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLink(b)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("got %x, %v, want %x", again, err, b)
		}
		c, _, err := extend(nil, LinkIDOf(b), l, nil, nil)
		if err == nil {
			r := Request{Signer: l.Subject, Ledger: l.Ledger, Tenant: l.Tenant, Link: c.ID(), Action: "usage", At: c.Nbf, Account: nhi.ID{1}}
			_ = c.Allows(r)
		}
	})
}

// No body makes a decider panic, and a refusal has no effect.
func FuzzDeciders(f *testing.F) {
	w := newFamily(f)
	reg, err := NewRegistration(keyOf(f, "n"), w.ledger, w.tenantID, idOf("n"), Agent)
	if err != nil {
		f.Fatal(err)
	}
	rot, err := NewRotation(keyOf(f, "n"), w.ledger, w.tenantID, w.a.id, Agent, 0)
	if err != nil {
		f.Fatal(err)
	}
	link, _ := w.signed(w.third(), w.b)
	all := Deciders()
	for i, d := range all {
		for _, b := range []encoder{
			reg, rot, link, &StatusBody{ID: w.a.id, Reason: "r"}, &EraseBody{Index: 1}, &RevokeLinkBody{Link: w.root},
			&GuardBody{Text: "forbid (principal, action, resource);"}, &MinSuiteBody{Class: ClassEvent, Suite: 1, Activation: 9},
		} {
			raw, err := b.Encode()
			if err != nil {
				f.Fatal(err)
			}
			if d.Check(raw) == nil {
				f.Add(byte(i), byte(0), raw)
				f.Add(byte(i), byte(1), raw)
			}
		}
	}
	signers := []By{w.by(w.authority), w.by(w.b), w.by(w.human), {Key: w.authority.key.Public().ID()}}
	f.Fuzz(func(t *testing.T, kind, who byte, raw []byte) {
		d := all[int(kind)%len(all)]
		r := d.Decide(w.env(), signers[int(who)%len(signers)], raw)
		if err := canon.Check(r.Detail); len(r.Detail) != 0 && err != nil {
			t.Errorf("detail %x: %v", r.Detail, err)
		}
		if r.Code != OK && (len(r.Writes) != 0 || r.Bump != 0 || len(r.Erase) != 0) {
			t.Errorf("%v and yet %d writes", r.Code, len(r.Writes))
		}
		if r.Code == OK && d.Check(raw) != nil {
			t.Error("accepted what Check refuses")
		}
	})
}
