package ledger

import (
	"crypto/sha256"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// systemLeaf writes a leaf that Apply itself brings about. It takes a stamp of its own.
func (a *apply) systemLeaf(ts *tenantState, l *SystemLeaf, cause *verify.Cause, human nhi.ID) error {
	if len(l.Kind) < 8 || l.Kind[:7] != "system." {
		return fmt.Errorf("%w: system leaf of kind %q", ErrIsolation, l.Kind)
	}
	if err := canon.Check(l.Body); err != nil {
		return fmt.Errorf("%w: body of %q: %w", ErrIsolation, l.Kind, err)
	}
	at := a.now()
	leaf := verify.Leaf{
		V: verify.LeafVersion, Cell: a.genesis.Cell, Slot: ts.Slot, Index: ts.tree.size(), Time: at.Time, Quality: at.Quality,
		Kind: l.Kind, Agent: l.Agent, Link: l.Link, Payload: nhi.PayloadDigest(l.Body), Quantities: l.Quantities,
		Epochs: ts.view.epochs, Cause: cause, Account: l.Account, Lease: l.Lease,
	}
	if _, err := a.appendLeaf(ts, &leaf, l.Body, nil, 0); err != nil {
		return err
	}
	a.postLeaf(ts.Slot, &leaf, textTerm(l.Kind), human)
	return nil
}

// appendLeaf writes a leaf and its payload, uses up its stamp and lets the log grow.
func (a *apply) appendLeaf(ts *tenantState, leaf *verify.Leaf, payload, detail []byte, position int) (nhi.Digest, error) {
	var err error
	if a.leaf, err = leaf.AppendTo(a.leaf[:0]); err != nil {
		return nhi.Digest{}, err
	}
	hash := verify.LeafHash(a.leaf)
	x := a.x
	x.key = indexKey(x.key[:0], tableLeaves, ts.Slot, leaf.Index)
	x.blind(x.key, a.leaf)
	x.feedDigests(x.key, hash) // covers the payload and the detail by their digests in the leaf
	x.key[0] = byte(tablePayloads)
	a.row = appendPayload(a.row[:0], position, detail, payload)
	x.blind(x.key, a.row)
	if err := ts.tree.append(x, hash); err != nil {
		return nhi.Digest{}, err
	}
	ts.view.next = ts.tree.size()
	a.next++
	a.used = true
	a.markDirty(ts)
	return hash, nil
}

// post makes the leaf of an event findable.
func (a *apply) post(ts *tenantState, leaf *verify.Leaf, kind term, ev *Event) {
	human := nhi.ID{}
	switch {
	case ev.Chain != nil:
		human = ev.Chain.Root
	case ev.Signer != nil && ev.Signer.Type == registry.Human:
		human = ev.Signer.ID
	}
	a.postLeaf(ts.Slot, leaf, kind, human)
	a.posts.add(ts.Slot, byKey, keyTerm(ev.Key), leaf.Index)
}

func (a *apply) postLeaf(slot uint32, leaf *verify.Leaf, kind term, human nhi.ID) {
	p := &a.posts
	p.add(slot, byKind, kind, leaf.Index)
	p.add(slot, byOutcome, term{byte(leaf.Outcome.Code)}, leaf.Index)
	if !leaf.Agent.IsZero() {
		p.add(slot, byAgent, term(leaf.Agent), leaf.Index)
	}
	if !human.IsZero() {
		p.add(slot, byHuman, term(human), leaf.Index)
	}
	if !leaf.Link.IsZero() {
		p.add(slot, byLink, linkTerm(leaf.Link), leaf.Index)
	}
	if !leaf.Account.IsZero() {
		p.add(slot, byAccount, term(leaf.Account), leaf.Index)
	}
}

// signature returns the digest that leaves name the signature by.
func (e *envelope) signature() nhi.Digest {
	if !e.hashed {
		e.sigDigest, e.hashed = e.SignatureDigest(), true
	}
	return e.sigDigest
}

// recordSignature keeps the signature, once for all events it covers. Writing it again for events of the same batch that
// come in a later command changes nothing.
func (a *apply) recordSignature(ts *tenantState, e *envelope) {
	if e.recorded {
		return
	}
	e.recorded = true
	d := e.signature()
	a.x.key = rowKey(a.x.key[:0], tableSigs, ts.Slot, d[:])
	a.row = appendSignature(a.row[:0], e.Envelope, e.digests)
	a.x.blind(a.x.key, a.row)
	a.x.feedDigests(a.x.key, d)
}

// DetailDigest is the digest by which a leaf commits to a detail: SHA-256(detail).
func DetailDigest(detail []byte) nhi.Digest { return sha256.Sum256(detail) }
