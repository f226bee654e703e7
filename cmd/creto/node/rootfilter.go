package node

import (
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// narrow restricts a query to the human (or service) that issued the root link. A nil filter restricts nothing.
func (f *rootFilter) narrow(snap *ledger.Snapshot, t ledger.Tenant, q *ledger.Query) error {
	if f == nil {
		return nil
	}
	v, err := snap.View(t)
	if err != nil {
		return err
	}
	r, err := registry.ResolveLink(ledger.RegistryView(v), f.root, v.NextIndex())
	if err != nil {
		return notFound()
	}
	if q.Human.IsZero() {
		q.Human = r.Link.Issuer
	}
	return nil
}

// maxKnownLinks bounds what a filter remembers about links.
const maxKnownLinks = 4096

// matches says whether the leaf's chain begins with the root link.
func (f *rootFilter) matches(snap *ledger.Snapshot, t ledger.Tenant, e *ledger.StoredEvent) (bool, error) {
	if f == nil {
		return true, nil
	}
	link := e.Leaf.Link
	if link == (nhi.LinkID{}) {
		return false, nil
	}
	if ok, seen := f.known[link]; seen {
		return ok, nil
	}
	v, err := snap.View(t)
	if err != nil {
		return false, err
	}
	chain, err := registry.Walk(ledger.RegistryView(v), link, e.Index)
	ok := err == nil && len(chain) > 0 && chain[0].ID == f.root
	if len(f.known) >= maxKnownLinks {
		clear(f.known)
	}
	f.known[link] = ok
	return ok, nil
}
