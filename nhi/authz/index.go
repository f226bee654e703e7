package authz

import (
	"iter"
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// policySet is an ordered set of compiled policies with an index over their
// scopes. Cedar evaluates every policy it is given; most of a large set
// cannot match a request because of action, principal or resource, and a
// scope never errs, so leaving those out changes neither decision nor errors.
type policySet struct {
	policies []policy
	byAction map[types.EntityUID]*bucket // `action ==` and `action in`
	any      bucket                      // every action
}

type policy struct {
	id            cedar.PolicyID
	compiled      *cedar.Policy
	principal     types.EntityUID  // of `principal ==`; zero for any
	principalType types.EntityType // of `principal ==` and `principal is`; "" for any
	resourceType  types.EntityType // of `resource is`; "" for any
}

// bucket holds positions in policySet.policies, in order.
type bucket struct {
	byResource  map[types.EntityUID][]int32 // `resource ==` and `resource in`
	byPrincipal map[types.EntityUID][]int32 // `principal ==` and every resource
	any         []int32                     // neither
}

func newPolicySet(list []*cedar.Policy, id func(*cedar.Policy) string) *policySet {
	s := &policySet{byAction: make(map[types.EntityUID]*bucket)}
	for i, p := range list {
		s.add(int32(i), cedar.PolicyID(id(p)), p)
	}
	return s
}

func (s *policySet) add(n int32, id cedar.PolicyID, p *cedar.Policy) {
	tree := astOf(p)
	entry := policy{id: id, compiled: p}
	switch sc := tree.Principal.(type) {
	case ast.ScopeTypeEq:
		entry.principal, entry.principalType = sc.Entity, sc.Entity.Type
	case ast.ScopeTypeIs:
		entry.principalType = sc.Type
	case ast.ScopeTypeIsIn:
		entry.principalType = sc.Type
	}

	var resource *types.EntityUID
	switch sc := tree.Resource.(type) {
	case ast.ScopeTypeEq:
		resource = &sc.Entity
	case ast.ScopeTypeIn:
		resource = &sc.Entity
	case ast.ScopeTypeIs:
		entry.resourceType = sc.Type
	case ast.ScopeTypeIsIn:
		resource, entry.resourceType = &sc.Entity, sc.Type
	}
	s.policies = append(s.policies, entry)

	var actions []types.EntityUID
	switch sc := tree.Action.(type) {
	case ast.ScopeTypeEq:
		actions = []types.EntityUID{sc.Entity}
	case ast.ScopeTypeIn:
		actions = []types.EntityUID{sc.Entity}
	case ast.ScopeTypeInSet:
		actions = sc.Entities
	default:
		s.any.add(n, entry.principal, resource)
		return
	}
	for _, a := range actions {
		b := s.byAction[a]
		if b == nil {
			b = new(bucket)
			s.byAction[a] = b
		}
		b.add(n, entry.principal, resource)
	}
}

func (b *bucket) add(n int32, principal types.EntityUID, resource *types.EntityUID) {
	switch {
	case resource != nil:
		if b.byResource == nil {
			b.byResource = make(map[types.EntityUID][]int32)
		}
		b.byResource[*resource] = append(b.byResource[*resource], n)
	case principal.Type != "":
		if b.byPrincipal == nil {
			b.byPrincipal = make(map[types.EntityUID][]int32)
		}
		b.byPrincipal[principal] = append(b.byPrincipal[principal], n)
	default:
		b.any = append(b.any, n)
	}
}

// scope is what of a request the index looks at. actions and resources hold
// the entity itself and all its ancestors.
type scope struct {
	principal types.EntityUID
	actions   []types.EntityUID
	resources []types.EntityUID
}

// slice is the part of a set that can match a request. It is a
// cedar.PolicyIterator.
type slice struct {
	set *policySet
	at  []int32
}

func (s slice) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, n := range s.at {
			p := &s.set.policies[n]
			if !yield(p.id, p.compiled) {
				return
			}
		}
	}
}

// candidates returns the policies whose scope can match, each once, in order.
func (s *policySet) candidates(sc scope) slice {
	at := s.collect(nil, &s.any, sc)
	if len(s.byAction) > 0 {
		for _, a := range sc.actions {
			if b := s.byAction[a]; b != nil {
				at = s.collect(at, b, sc)
			}
		}
	}
	slices.Sort(at)
	return slice{set: s, at: slices.Compact(at)}
}

func (s *policySet) collect(at []int32, b *bucket, sc scope) []int32 {
	at = s.filter(at, b.any, sc)
	if len(b.byPrincipal) > 0 {
		at = s.filter(at, b.byPrincipal[sc.principal], sc)
	}
	if len(b.byResource) > 0 {
		for _, r := range sc.resources {
			at = s.filter(at, b.byResource[r], sc)
		}
	}
	return at
}

func (s *policySet) filter(at, from []int32, sc scope) []int32 {
	for _, n := range from {
		p := &s.policies[n]
		if p.principalType != "" && p.principalType != sc.principal.Type {
			continue
		}
		if p.principal.Type != "" && p.principal != sc.principal {
			continue
		}
		if p.resourceType != "" && p.resourceType != sc.resources[0].Type {
			continue
		}
		at = append(at, n)
	}
	return at
}
