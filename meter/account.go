package meter

import (
	"encoding/binary"
	"slices"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// MaxDepth is how many accounts lie on a path from an account to the tenant's root, both included. With the at most eight
// links of a chain that makes 24 levels.
const MaxDepth = 16

// Account is a node of a tenant's account tree. The root has the tenant's id, exists without a row, and has no parent.
type Account struct {
	ID      nhi.ID
	Parent  nhi.ID
	Type    string
	Depth   int    // 0 = root
	Created uint64 // index of the leaf that created it
}

func (a *Account) row() []byte {
	b := make([]byte, 0, 48)
	b = append(b, rowVersion)
	b = append(b, a.Parent[:]...)
	b = binary.AppendUvarint(b, uint64(a.Depth))
	b = binary.AppendUvarint(b, a.Created)
	b = binary.AppendUvarint(b, uint64(len(a.Type)))
	return append(b, a.Type...)
}

// LookupAccount returns an account of the view's tenant, the root included.
func LookupAccount(v ledger.View, id nhi.ID) (Account, bool) {
	if id == v.Tenant().ID {
		return Account{ID: id, Type: "tenant"}, true
	}
	value, ok := v.Get(TableAccount, id[:])
	if !ok {
		return Account{}, false
	}
	return readAccount(id, value), true
}

func readAccount(id nhi.ID, value []byte) Account {
	r := readRow(value)
	a := Account{ID: id, Parent: r.id(), Depth: int(r.uint()), Created: r.uint(), Type: string(r.str())}
	r.end(TableAccount, id[:])
	return a
}

// Path returns an account and its ancestors, the account first and the tenant's root last; false if it does not exist. It
// appends to dst.
func Path(v ledger.View, account nhi.ID, dst []nhi.ID) ([]nhi.ID, bool) {
	root := v.Tenant().ID
	for range MaxDepth {
		if account == root {
			return append(dst, root), true
		}
		value, ok := v.Get(TableAccount, account[:])
		if !ok {
			return dst, false
		}
		r := readRow(value)
		parent := r.id()
		if r.bad {
			panic(&CorruptRowError{Table: TableAccount, Key: account[:]})
		}
		dst, account = append(dst, account), parent
	}
	return dst, false
}

// Tree is the account tree of one view, as the identity registry wants to see it.
type Tree struct{ View ledger.View }

var _ registry.Tree = Tree{}

// IsDescendant reports whether child lies strictly below ancestor. An unknown account is below nothing.
func (t Tree) IsDescendant(child, ancestor nhi.ID) bool {
	var buf [MaxDepth]nhi.ID
	path, ok := Path(t.View, child, buf[:0])
	if !ok || child == ancestor {
		return false
	}
	for _, id := range path {
		if id == ancestor {
			return true
		}
	}
	return false
}

func (m *Meter) decideAccount(v ledger.View, ev *ledger.Event) ledger.Decision {
	b, err := kind.DecodeAccountBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	root := v.Tenant().ID
	if b.Parent.IsZero() {
		b.Parent = root
	}
	if !mayAdminister(v, ev, kind.Account, b.Parent) {
		return refuse(verify.OutcomeUnauthorized, "only the authority, or a link that names quota.account on the parent, creates accounts")
	}
	if _, taken := LookupAccount(v, b.ID); taken {
		return refuse(verify.OutcomeExists, "the account exists")
	}
	parent, ok := LookupAccount(v, b.Parent)
	if !ok {
		return refuse(verify.OutcomeNotFound, "the parent does not exist")
	}
	if parent.Depth+1 >= MaxDepth {
		return refuse(verify.OutcomeLimit, "the account tree is as deep as it may be")
	}
	a := Account{ID: b.ID, Parent: b.Parent, Type: b.Type, Depth: parent.Depth + 1, Created: v.NextIndex()}
	return ledger.Decision{
		Writes: []ledger.Write{
			{Table: TableAccount, Key: b.ID[:], Value: a.row()},
			{Table: TableChild, Key: append(b.Parent[:], b.ID[:]...), Value: []byte{rowVersion}},
		},
		// Policies see an account's ancestors, so a verdict made before this leaf is not one about this account.
		Bump: ledger.BumpEntities,
	}
}

// mayAdminister says whether the signer may change the tree or a quota at an account: the tenant's authority may, and so
// may whoever acts under a chain of which every link names this very action on a resource that covers the account, in a
// request made for this account. A star does not name it: who passes on "quota.*" so that an agent can reserve does not
// mean that the agent may raise its own limits.
func mayAdminister(v ledger.View, ev *ledger.Event, action string, account nhi.ID) bool {
	if ev.Signer == nil || ev.SignerSystem {
		return false
	}
	if ev.Signer.Type == registry.Authority {
		return true
	}
	if ev.Chain == nil || ev.Account != account {
		return false
	}
	path, ok := Path(v, account, nil)
	if !ok {
		return false
	}
	resources := make([]string, 1, len(path)+1)
	resources[0] = "*"
	for _, id := range path {
		resources = append(resources, registry.AccountResource(id))
	}
	for _, l := range ev.Chain.Links {
		named := slices.ContainsFunc(l.Scopes, func(s registry.Scope) bool {
			return slices.Contains(s.Actions, action) && slices.Contains(resources, s.Resource)
		})
		if !named {
			return false
		}
	}
	return true
}
