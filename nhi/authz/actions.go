package authz

import (
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// CheckSoftActions reports, as PolicyErrors, every soft policy that could hold back one of the given actions on an account, as
// far as its text says the action: its scope, and what its conditions say about action alone. Whatever else a condition
// asks may be so. It is for actions that no approval can be used for; a policy that means others names them, or
// leaves these out with `unless { action in [...] }`.
func (e *Engine) CheckSoftActions(actions []string) error {
	found := problems{set: SetSoft}
	for i := range e.soft.policies {
		p := &e.soft.policies[i]
		tree := astOf(p.compiled)
		if noAccount(tree.Resource) {
			continue
		}
		var held []string
		for _, name := range actions {
			a := actionText{types.NewEntityUID(TypeAction, types.String(name)), name}
			if a.inScope(tree.Action) && a.conditions(tree.Conditions) != ternaryNo {
				held = append(held, name)
			}
		}
		if len(held) > 0 {
			found.add(string(p.id), p.compiled.Position().Line,
				"it could hold back %s, which no approval can be used for: name the actions it is about, or leave these out with `unless { action in [...] }`",
				strings.Join(held, ", "))
		}
	}
	if len(found.list) > 0 {
		return found.list
	}
	return nil
}

// ternary is what a text says of a question that it answers in part.
type ternary int

const (
	ternaryMaybe ternary = iota
	ternaryNo
	ternaryYes
)

func ternaryOf(b bool) ternary {
	if b {
		return ternaryYes
	}
	return ternaryNo
}

func (t ternary) not() ternary {
	switch t {
	case ternaryNo:
		return ternaryYes
	case ternaryYes:
		return ternaryNo
	}
	return ternaryMaybe
}

func (t ternary) and(u ternary) ternary {
	switch {
	case t == ternaryNo || u == ternaryNo:
		return ternaryNo
	case t == ternaryYes && u == ternaryYes:
		return ternaryYes
	}
	return ternaryMaybe
}

// actionText asks texts about one action.
type actionText struct {
	uid  types.EntityUID
	name string
}

// in reports whether the action is an entity or in its family: "a.b" is in "a".
func (a actionText) in(e types.EntityUID) bool {
	return e.Type == TypeAction && (e == a.uid || strings.HasPrefix(a.name, string(e.ID)+"."))
}

func (a actionText) inScope(s ast.IsActionScopeNode) bool {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity == a.uid
	case ast.ScopeTypeIn:
		return a.in(s.Entity)
	case ast.ScopeTypeInSet:
		for _, e := range s.Entities {
			if a.in(e) {
				return true
			}
		}
		return false
	}
	return true
}

// noAccount reports whether a scope leaves out every account.
func noAccount(s ast.IsResourceScopeNode) bool {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity.Type != TypeAccount
	case ast.ScopeTypeIs:
		return s.Type != TypeAccount
	case ast.ScopeTypeIsIn:
		return s.Type != TypeAccount
	}
	return false
}

func (a actionText) conditions(list []ast.ConditionType) ternary {
	all := ternaryYes
	for _, c := range list {
		t := a.eval(c.Body)
		if c.Condition == ast.ConditionUnless {
			t = t.not()
		}
		all = all.and(t)
	}
	return all
}

// eval says what an expression is for the action, whatever principal, resource and context are. Recursion is bounded by
// scanBounds.
func (a actionText) eval(n ast.IsNode) ternary {
	switch n := n.(type) {
	case ast.NodeValue:
		if b, ok := n.Value.(types.Boolean); ok {
			return ternaryOf(bool(b))
		}
	case ast.NodeTypeNot:
		return a.eval(n.Arg).not()
	case ast.NodeTypeAnd:
		return a.eval(n.Left).and(a.eval(n.Right))
	case ast.NodeTypeOr:
		return a.eval(n.Left).not().and(a.eval(n.Right).not()).not()
	case ast.NodeTypeIfThenElse:
		switch a.eval(n.If) {
		case ternaryYes:
			return a.eval(n.Then)
		case ternaryNo:
			return a.eval(n.Else)
		}
		if then := a.eval(n.Then); then == a.eval(n.Else) {
			return then
		}
	case ast.NodeTypeEquals:
		return a.equals(n.BinaryNode)
	case ast.NodeTypeNotEquals:
		return a.equals(n.BinaryNode).not()
	case ast.NodeTypeIn:
		if !isAction(n.Left) {
			break
		}
		return a.inNode(n.Right)
	}
	return ternaryMaybe
}

func isAction(n ast.IsNode) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == "action"
}

func literal(n ast.IsNode) (e types.EntityUID, ok bool) {
	v, ok := n.(ast.NodeValue)
	if !ok {
		return e, false
	}
	e, ok = v.Value.(types.EntityUID)
	return e, ok
}

func (a actionText) equals(n ast.BinaryNode) ternary {
	other := n.Right
	if !isAction(n.Left) {
		if !isAction(n.Right) {
			return ternaryMaybe
		}
		other = n.Left
	}
	if e, ok := literal(other); ok {
		return ternaryOf(e == a.uid)
	}
	return ternaryMaybe
}

func (a actionText) inNode(n ast.IsNode) ternary {
	if e, ok := literal(n); ok {
		return ternaryOf(a.in(e))
	}
	set, ok := n.(ast.NodeTypeSet)
	if !ok {
		return ternaryMaybe
	}
	all := ternaryNo
	for _, elem := range set.Elements {
		e, ok := literal(elem)
		switch {
		case !ok:
			all = ternaryMaybe
		case a.in(e):
			return ternaryYes
		}
	}
	return all
}
