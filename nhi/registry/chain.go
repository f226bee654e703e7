package registry

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/creto-systems/creto/nhi"
)

// Chain is a delegation chain that holds as of an index, time apart. It is
// shared between callers and must not be modified.
type Chain struct {
	Links     []*Link      // root first
	IDs       []nhi.LinkID // of Links
	Root      nhi.ID       // the human or service it begins with
	RootType  Type
	Holder    nhi.ID // the subject of the last link, who alone may act under it
	Depth     int    // of the last link; root 0
	Nbf, Exp  int64  // ns: nbf ≤ t < exp, inside every link's window
	Oversight []string
	Guards    []nhi.Digest // of every link that has one, root first, each once
	Purpose   Purpose      // of the last link
	Budgets   []LinkBudget // of every link that has any, root first
	Since     uint64       // index of its last link's registration

	scopes []effective // of the last link, with what it inherits
}

// LinkBudget is the budgets of one link of a chain. All of them are charged.
type LinkBudget struct {
	Link    nhi.LinkID
	Counter nhi.ID // account id of its counters, BudgetCounter of Link
	Budgets []Budget
}

// effective is a scope of a link with what it inherits from the one scope above
// it that contains it, up to the root.
type effective struct {
	actions   []string
	resources []resource // its own last; a request must lie in all of them
	caps      []Amount   // the least along the way, ascending by meter
}

// Amount is a quantity of a meter.
type Amount struct {
	Meter string
	N     uint64
}

// Request is what a holder wants to do under a chain.
type Request struct {
	Signer   nhi.ID
	Ledger   nhi.Digest
	Tenant   nhi.ID
	Link     nhi.LinkID // the one chain it names
	Action   string     // kind of the event, or the operation
	Account  nhi.ID     // where it is charged; zero = none
	Resource string     // exact name of what it touches; empty = none
	Amounts  []Amount   // what it uses, as far as known
	At       int64      // stamp, ns
	Tree     Tree       // nil: Account has no ancestors
}

// RequestOf returns the request that an event makes.
func RequestOf(ev *nhi.Event, signer nhi.ID, at int64, tree Tree) Request {
	return Request{
		Signer: signer, Ledger: ev.LedgerID, Tenant: ev.Tenant, Link: ev.Link,
		Action: ev.Kind, Account: ev.Account, At: at, Tree: tree,
	}
}

// Includes reports whether id takes part in the chain, as the root, an issuer or
// a subject. Whoever does may not approve what is asked under it.
func (c *Chain) Includes(id nhi.ID) bool {
	if id == c.Root {
		return true
	}
	for _, l := range c.Links {
		if l.Subject == id || l.Issuer == id {
			return true
		}
	}
	return false
}

// Members returns everybody who takes part, the root first, the holder last.
func (c *Chain) Members() []nhi.ID {
	out := make([]nhi.ID, 0, len(c.Links)+1)
	out = append(out, c.Root)
	for _, l := range c.Links {
		out = append(out, l.Subject)
	}
	return out
}

// ID returns the id of the last link, which names the chain.
func (c *Chain) ID() nhi.LinkID { return c.IDs[len(c.IDs)-1] }

// Live holds the chain's window against a stamp: nbf ≤ at < exp.
func (c *Chain) Live(at int64) error {
	if at < c.Nbf {
		return refuse(CodeNotYet)
	}
	if at >= c.Exp {
		return refuse(CodeExpired)
	}
	return nil
}

// Allows holds a request against the chain: holder and audience (rule 11), time
// (rule 6), and one scope that covers action, resource and amounts (rule 7).
// A scope on an account covers requests charged to it or below it; a request
// that names neither account nor resource needs a scope on "*".
//
// What a holder may do about the chain itself needs no scope, because the links
// decide it: pass it on or store a guard where Redelegate says so, revoke a link
// it issued, rotate its own key, suspend or revoke itself. The deciders of those
// kinds check that.
func (c *Chain) Allows(r Request) error {
	last := c.Links[len(c.Links)-1]
	if r.Signer != last.Subject {
		return refuse(CodeNotHolder)
	}
	if r.Ledger != last.Ledger || r.Tenant != last.Tenant || r.Link != c.ID() {
		return refuse(CodeAudience)
	}
	if err := c.Live(r.At); err != nil {
		return err
	}
	switch r.Action {
	case KindRotate, KindSuspend, KindRevoke, KindRevokeLink:
		return nil
	case KindRegisterLink, KindGuard:
		if !last.Redelegate {
			return refuse(CodeNoRedelegate)
		}
		return nil
	}
	code := CodeDenied
	for i := range c.scopes {
		s := &c.scopes[i]
		if !s.covers(&r) {
			continue
		}
		if s.within(r.Amounts) {
			return nil
		}
		code = CodeCap
	}
	return refuse(code)
}

// Cap returns the most of a meter that one request may use: the largest cap
// among the scopes that cover it. ok is false if one of them sets none.
// A request that nothing covers has a cap of 0.
func (c *Chain) Cap(r Request, meter string) (most uint64, ok bool) {
	for i := range c.scopes {
		s := &c.scopes[i]
		if !s.covers(&r) {
			continue
		}
		j, found := slices.BinarySearchFunc(s.caps, meter, func(a Amount, m string) int { return strings.Compare(a.Meter, m) })
		if !found {
			return 0, false
		}
		most = max(most, s.caps[j].N)
	}
	return most, true
}

func (s *effective) covers(r *Request) bool {
	if !slices.ContainsFunc(s.actions, func(a string) bool { return actionIn(r.Action, a) }) {
		return false
	}
	for i := range s.resources {
		if !s.resources[i].covers(r) {
			return false
		}
	}
	return true
}

func (p *resource) covers(r *Request) bool {
	switch {
	case p.any:
		return true
	case !p.account.IsZero():
		return !r.Account.IsZero() && (r.Account == p.account || r.Tree != nil && r.Tree.IsDescendant(r.Account, p.account))
	default:
		return r.Resource == p.name
	}
}

func (s *effective) within(amounts []Amount) bool {
	for _, a := range amounts {
		i, found := slices.BinarySearchFunc(s.caps, a.Meter, func(c Amount, m string) int { return strings.Compare(c.Meter, m) })
		if found && a.N > s.caps[i].N {
			return false
		}
	}
	return true
}

// actionIn reports whether an action or pattern lies in a pattern.
func actionIn(action, pattern string) bool {
	if pattern == "*" || action == pattern {
		return true
	}
	prefix, star := strings.CutSuffix(pattern, "*")
	return star && strings.HasPrefix(action, prefix)
}

// resourceIn reports whether child lies in parent.
func resourceIn(child, parent resource, tree Tree) bool {
	switch {
	case parent.any:
		return true
	case !parent.account.IsZero():
		return child.account == parent.account ||
			!child.account.IsZero() && tree != nil && tree.IsDescendant(child.account, parent.account)
	default:
		return child == parent
	}
}

// narrow returns child as a part of s, or false if child is not inside s.
func (s *effective) narrow(child *Scope, tree Tree) (effective, bool) {
	for _, a := range child.Actions {
		if !slices.ContainsFunc(s.actions, func(q string) bool { return actionIn(a, q) }) {
			return effective{}, false
		}
	}
	own, ok := parseResource(child.Resource)
	if !ok || !resourceIn(own, s.resources[len(s.resources)-1], tree) {
		return effective{}, false
	}
	out := effective{actions: child.Actions, resources: s.resources}
	if own != s.resources[len(s.resources)-1] {
		out.resources = append(slices.Clip(s.resources), own)
	}
	caps := make([]Amount, 0, len(s.caps)+len(child.Caps))
	for _, m := range slices.Sorted(maps.Keys(child.Caps)) {
		caps = append(caps, Amount{m, child.Caps[m]})
	}
	for _, c := range s.caps {
		n, given := child.Caps[c.Meter]
		if given && n > c.N {
			return effective{}, false
		}
		if !given {
			caps = append(caps, c)
		}
	}
	slices.SortFunc(caps, func(a, b Amount) int { return cmp.Compare(a.Meter, b.Meter) })
	out.caps = caps
	return out, true
}

// everything contains every scope: what a root's scopes are measured against.
func everything() []effective {
	return []effective{{actions: []string{"*"}, resources: []resource{{any: true}}}}
}

// recorded is the tree as it was when a link was registered: containment was
// established then, and the path of resources is checked again at each request.
type recorded struct{}

func (recorded) IsDescendant(_, _ nhi.ID) bool { return true }

// extend returns the chain that link continues, checking what links say about
// one another: rules 1 (ledger and tenant), 2 (depth 0 at the root), 3 (alignment,
// depth, redelegation), 4, 6 (windows), 7, 8 and 9 (superset). parent is nil for
// a root.
//
// via is nil at registration, and then returned: for each scope, which scope of
// the parent contains it. If several do, the first in the order of scopes counts,
// since a cap that the child omits is inherited from exactly one. When a
// registered link is resolved, via is what was recorded; an account that moves
// later does not change it.
func extend(parent *Chain, id nhi.LinkID, l *Link, tree Tree, via []byte) (*Chain, []byte, error) {
	hop := int(l.Depth)
	if parent == nil {
		if !l.isRoot() || l.Depth != 0 {
			return nil, nil, refuseAt(CodeBadRoot, hop)
		}
	} else if err := aligned(parent, l); err != nil {
		return nil, nil, err
	}
	c := &Chain{
		Root: l.Issuer, Holder: l.Subject, Depth: hop, Purpose: l.Purpose,
		Nbf: l.NotBefore * 1_000_000, Exp: l.Expires * 1_000_000, Oversight: l.Oversight,
	}
	above := everything()
	if parent != nil {
		above = parent.scopes
		c.Root, c.RootType = parent.Root, parent.RootType
		c.Links, c.IDs = slices.Clip(parent.Links), slices.Clip(parent.IDs)
		c.Guards, c.Budgets = slices.Clip(parent.Guards), slices.Clip(parent.Budgets)
	}
	chosen := make([]byte, len(l.Scopes))
	c.scopes = make([]effective, len(l.Scopes))
	for i := range l.Scopes {
		var ok bool
		if via != nil {
			if ok = i < len(via) && int(via[i]) < len(above); ok {
				chosen[i] = via[i]
				c.scopes[i], ok = above[via[i]].narrow(&l.Scopes[i], recorded{})
			}
		} else {
			for j := 0; j < len(above) && !ok; j++ {
				chosen[i] = byte(j)
				c.scopes[i], ok = above[j].narrow(&l.Scopes[i], tree)
			}
		}
		if !ok {
			return nil, nil, refuseAt(CodeScope, hop)
		}
	}
	c.Links, c.IDs = append(c.Links, l), append(c.IDs, id)
	if l.Guards != (nhi.Digest{}) && !slices.Contains(c.Guards, l.Guards) {
		c.Guards = append(c.Guards, l.Guards)
	}
	if len(l.Budgets) > 0 {
		c.Budgets = append(c.Budgets, LinkBudget{Link: id, Counter: BudgetCounter(id), Budgets: l.Budgets})
	}
	return c, chosen, nil
}

// aligned checks a link against the chain above it.
func aligned(c *Chain, l *Link) error {
	p, hop := c.Links[len(c.Links)-1], int(l.Depth)
	switch {
	case l.Ledger != p.Ledger:
		return refuseAt(CodeWrongLedger, hop)
	case l.Tenant != p.Tenant:
		return refuseAt(CodeWrongTenant, hop)
	case l.Parent != c.ID():
		return refuseAt(CodeUnknownLink, hop)
	case len(c.Links) >= MaxLinks:
		return refuseAt(CodeTooDeep, hop)
	case l.Issuer != p.Subject:
		return refuseAt(CodeMisaligned, hop)
	case l.Depth != p.Depth+1:
		return refuseAt(CodeDepth, hop)
	case !p.Redelegate:
		return refuseAt(CodeNoRedelegate, hop)
	case c.Includes(l.Subject):
		return refuseAt(CodeRepeated, hop)
	case l.MaxDepth > p.MaxDepth || l.Depth > p.MaxDepth:
		return refuseAt(CodeMaxDepth, hop)
	case l.NotBefore < p.NotBefore || l.Expires > p.Expires:
		return refuseAt(CodeWindow, hop)
	}
	for _, b := range p.Budgets {
		i, ok := slices.BinarySearchFunc(l.Budgets, b, Budget.compare)
		if !ok || l.Budgets[i].Limit > b.Limit || l.Budgets[i].Unit != b.Unit {
			return refuseAt(CodeBudget, hop)
		}
	}
	for _, g := range p.Oversight {
		if _, ok := slices.BinarySearch(l.Oversight, g); !ok {
			return refuseAt(CodeOversight, hop)
		}
	}
	return nil
}
