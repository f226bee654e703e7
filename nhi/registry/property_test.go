package registry

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/creto-systems/creto/nhi"
)

// accounts of the property tests: a tree in which i's parent is i/2, root 1.
type heap struct{}

func account(i int) nhi.ID { return nhi.ID{0xac, byte(i)} }

func (heap) IsDescendant(child, ancestor nhi.ID) bool {
	for i := int(child[1]) / 2; i > 0; i /= 2 {
		if account(i) == ancestor {
			return true
		}
	}
	return false
}

var (
	someActions   = []string{"*", "quota.*", "quota.reserve", "quota.settle", "usage", "deploy", "deploy.*", "deploy.web"}
	someResources = []string{"*", "db", "web", AccountResource(account(1)), AccountResource(account(2)), AccountResource(account(3)), AccountResource(account(5)), AccountResource(account(11))}
	someMeters    = []string{"calls", "gpu", "tokens", "usd"}
)

func drawLink(t *rapid.T) *Link {
	l := &Link{
		V: 1, Suite: 1, Issuer: nhi.ID{1, 0}, Subject: nhi.ID{1, 1},
		MaxDepth: 7, NotBefore: rapid.Int64Range(0, 1000).Draw(t, "nbf"), Redelegate: true,
	}
	l.Expires = l.NotBefore + rapid.Int64Range(100, 1000).Draw(t, "length")
	for range rapid.IntRange(1, 5).Draw(t, "scopes") {
		l.Scopes = append(l.Scopes, drawScope(t))
	}
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom(someMeters), 0, 3, rapid.ID).Draw(t, "budgets") {
		l.Budgets = append(l.Budgets, Budget{m, "u", rapid.Uint64Range(1, 1000).Draw(t, "limit"), Window(rapid.IntRange(1, 5).Draw(t, "window"))})
	}
	l.Oversight = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"cfo", "dpo", "sre"}), 0, 3, rapid.ID).Draw(t, "oversight")
	l.Sort()
	return l
}

func drawScope(t *rapid.T) Scope {
	s := Scope{
		Actions:  rapid.SliceOfNDistinct(rapid.SampledFrom(someActions), 1, 4, rapid.ID).Draw(t, "actions"),
		Resource: rapid.SampledFrom(someResources).Draw(t, "resource"),
		Caps:     map[string]uint64{},
	}
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom(someMeters), 0, 3, rapid.ID).Draw(t, "caps") {
		s.Caps[m] = rapid.Uint64Range(0, 100).Draw(t, "cap")
	}
	return s
}

// narrowed draws a link below parent that breaks no rule.
func narrowed(t *rapid.T, c *Chain) *Link {
	p := c.Links[len(c.Links)-1]
	l := Child(p, c.ID(), nhi.ID{1, byte(len(c.Links) + 1)}, nhi.KeyID{}, [16]byte{})
	l.MaxDepth = rapid.Uint64Range(l.Depth, p.MaxDepth).Draw(t, "max depth")
	l.NotBefore += rapid.Int64Range(0, 9).Draw(t, "later")
	l.Expires -= rapid.Int64Range(0, 9).Draw(t, "shorter")
	var kept []Scope
	for i, sc := range l.Scopes {
		if i == 0 || rapid.IntRange(0, 3).Draw(t, "keep scope") > 0 {
			kept = append(kept, sc)
		}
	}
	l.Scopes = kept
	for i := range l.Scopes {
		s := &l.Scopes[i]
		if n := rapid.IntRange(1, len(s.Actions)).Draw(t, "keep"); n < len(s.Actions) {
			s.Actions = s.Actions[:n]
		}
		for j, a := range s.Actions {
			if a == "*" || a == "quota.*" {
				s.Actions[j] = rapid.SampledFrom([]string{a, "quota.*", "quota.reserve"}).Draw(t, "action")
			}
		}
		switch s.Resource {
		case "*":
			s.Resource = rapid.SampledFrom(someResources).Draw(t, "resource")
		case AccountResource(account(1)), AccountResource(account(2)):
			s.Resource = rapid.SampledFrom([]string{s.Resource, AccountResource(account(5)), AccountResource(account(11))}).Draw(t, "resource")
		}
		for _, m := range slices.Sorted(maps.Keys(s.Caps)) {
			switch rapid.IntRange(0, 2).Draw(t, "cap") {
			case 0:
				delete(s.Caps, m)
			case 1:
				s.Caps[m] = rapid.Uint64Range(0, s.Caps[m]).Draw(t, "lower")
			}
		}
	}
	for i := range l.Budgets {
		l.Budgets[i].Limit = rapid.Uint64Range(0, l.Budgets[i].Limit).Draw(t, "limit")
	}
	if rapid.Bool().Draw(t, "more oversight") {
		l.Oversight = append(l.Oversight, "auditor")
	}
	l.Sort()
	return l
}

// drawChain draws a chain in which each link narrows the one above; all of it must
// be accepted.
func drawChain(t *rapid.T) (*Chain, [][]byte) {
	root := drawLink(t)
	c, via, err := extend(nil, nhi.LinkID{1}, root, heap{}, nil)
	if err != nil {
		t.Fatalf("root: %v", err)
	}
	vias := [][]byte{via}
	for range rapid.IntRange(1, 4).Draw(t, "hops") {
		if p := c.Links[len(c.Links)-1]; p.Depth == p.MaxDepth {
			break
		}
		l := narrowed(t, c)
		next, via, err := extend(c, nhi.LinkID{byte(len(c.Links) + 1)}, l, heap{}, nil)
		if err != nil {
			t.Fatalf("a narrower link is refused: %v\nparent %+v\nchild %+v", err, c.Links[len(c.Links)-1], l)
		}
		c, vias = next, append(vias, via)
	}
	return c, vias
}

func drawRequest(t *rapid.T) Request {
	r := Request{
		Action: rapid.SampledFrom([]string{"quota.reserve", "quota.settle", "quota.close", "usage", "deploy", "deploy.web", "deploy.db", "read"}).Draw(t, "action"),
		Tree:   heap{},
	}
	if rapid.Bool().Draw(t, "on account") {
		r.Account = account(rapid.IntRange(1, 15).Draw(t, "account"))
	}
	if rapid.Bool().Draw(t, "on resource") {
		r.Resource = rapid.SampledFrom([]string{"db", "web", "mail"}).Draw(t, "resource")
	}
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom(someMeters), 0, 2, rapid.ID).Draw(t, "amounts") {
		r.Amounts = append(r.Amounts, Amount{m, rapid.Uint64Range(0, 120).Draw(t, "amount")})
	}
	r.At = rapid.Int64Range(0, 2100).Draw(t, "at") * 1_000_000
	return r
}

// naive is the rule read literally: every link of the chain has a scope that
// covers the request within its own caps.
func naive(c *Chain, r Request) bool {
	for _, l := range c.Links {
		if r.At < l.NotBefore*1_000_000 || r.At >= l.Expires*1_000_000 {
			return false
		}
		if !slices.ContainsFunc(l.Scopes, func(s Scope) bool {
			e, ok := everything()[0].narrow(&s, heap{})
			return ok && e.covers(&r) && e.within(r.Amounts)
		}) {
			return false
		}
	}
	return true
}

// A chain never allows what any link above refuses, and resolving it from what
// was recorded gives what registering it gave.
func TestChainsOnlyNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, vias := drawChain(t)
		var again *Chain
		for i, l := range c.Links {
			var err error
			if again, _, err = extend(again, c.IDs[i], l, nil, vias[i]); err != nil {
				t.Fatalf("resolve again: %v", err)
			}
		}
		for range 20 {
			r := drawRequest(t)
			r.Signer, r.Link = c.Holder, c.ID()
			got := CodeOf(c.Allows(r))
			if got == OK && !naive(c, r) {
				t.Fatalf("chain allows %+v, a link above does not", r)
			}
			if other := CodeOf(again.Allows(r)); other != got {
				t.Fatalf("resolved again: got %v, want %v", other, got)
			}
		}
	})
}

// Any one widening of a link that is otherwise accepted is refused.
func TestAnyWideningIsRefused(t *testing.T) {
	widenings := []struct {
		name  string
		widen func(t *rapid.T, c *Chain, l *Link) bool // false: does not apply
		want  Code
	}{
		{"action", func(t *rapid.T, c *Chain, l *Link) bool {
			i := rapid.IntRange(0, len(l.Scopes)-1).Draw(t, "scope")
			l.Scopes[i].Actions = append(l.Scopes[i].Actions, "never.granted")
			return !slices.ContainsFunc(c.scopes, func(s effective) bool { return slices.Contains(s.actions, "*") })
		}, CodeScope},
		{"resource", func(t *rapid.T, c *Chain, l *Link) bool {
			i := rapid.IntRange(0, len(l.Scopes)-1).Draw(t, "scope")
			l.Scopes[i].Resource = "never"
			return !slices.ContainsFunc(c.scopes, func(s effective) bool { return s.resources[len(s.resources)-1].any })
		}, CodeScope},
		{"account", func(t *rapid.T, c *Chain, l *Link) bool {
			i := rapid.IntRange(0, len(l.Scopes)-1).Draw(t, "scope")
			l.Scopes[i].Resource = AccountResource(account(99))
			return !slices.ContainsFunc(c.scopes, func(s effective) bool {
				last := s.resources[len(s.resources)-1]
				return last.any || (heap{}).IsDescendant(account(99), last.account)
			})
		}, CodeScope},
		{"cap", func(t *rapid.T, c *Chain, l *Link) bool {
			i := rapid.IntRange(0, len(l.Scopes)-1).Draw(t, "scope")
			l.Scopes[i].Caps["tokens"] = math.MaxInt64 // every scope of the parent caps tokens
			return true
		}, CodeScope},
		{"budget limit", func(t *rapid.T, c *Chain, l *Link) bool {
			if len(l.Budgets) == 0 {
				return false
			}
			i := rapid.IntRange(0, len(l.Budgets)-1).Draw(t, "budget")
			l.Budgets[i].Limit = c.Links[len(c.Links)-1].Budgets[i].Limit + 1
			return true
		}, CodeBudget},
		{"budget left out", func(t *rapid.T, c *Chain, l *Link) bool {
			if len(l.Budgets) == 0 {
				return false
			}
			i := rapid.IntRange(0, len(l.Budgets)-1).Draw(t, "budget")
			l.Budgets = slices.Delete(l.Budgets, i, i+1)
			return true
		}, CodeBudget},
		{"oversight left out", func(t *rapid.T, c *Chain, l *Link) bool {
			p := c.Links[len(c.Links)-1]
			if len(p.Oversight) == 0 {
				return false
			}
			g := rapid.SampledFrom(p.Oversight).Draw(t, "group")
			l.Oversight = slices.DeleteFunc(l.Oversight, func(o string) bool { return o == g })
			return true
		}, CodeOversight},
		{"earlier", func(t *rapid.T, c *Chain, l *Link) bool {
			l.NotBefore = c.Links[len(c.Links)-1].NotBefore - 1
			return true
		}, CodeWindow},
		{"later", func(t *rapid.T, c *Chain, l *Link) bool {
			l.Expires = c.Links[len(c.Links)-1].Expires + 1
			return true
		}, CodeWindow},
		{"deeper", func(t *rapid.T, c *Chain, l *Link) bool {
			l.MaxDepth = c.Links[len(c.Links)-1].MaxDepth + 1
			return true
		}, CodeMaxDepth},
		{"somebody again", func(t *rapid.T, c *Chain, l *Link) bool {
			l.Subject = rapid.SampledFrom(c.Members()).Draw(t, "member")
			return l.Subject != l.Issuer
		}, CodeRepeated},
	}
	for _, w := range widenings {
		t.Run(w.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				top := drawLink(t)
				for i := range top.Scopes {
					top.Scopes[i].Caps["tokens"] = rapid.Uint64Range(0, 100).Draw(t, "tokens")
				}
				top.Sort()
				root, _, err := extend(nil, nhi.LinkID{1}, top, heap{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				l := narrowed(t, root)
				if !w.widen(t, root, l) {
					t.Skip(fmt.Sprintf("%s does not apply", w.name))
				}
				l.Sort()
				if _, _, err := extend(root, nhi.LinkID{2}, l, heap{}, nil); CodeOf(err) != w.want {
					t.Fatalf("got %v, want %v\nparent %+v\nchild %+v", err, w.want, root.Links[0], l)
				}
			})
		})
	}
}
