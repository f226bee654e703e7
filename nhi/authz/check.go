package authz

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// kind is what is known about the type of an expression without a schema:
// attributes of the context are kindAny, the rest follows from the language
// and from the entities and reserved keys of this package.
type kind string

const (
	kindAny      kind = "any"
	kindBool     kind = "bool"
	kindLong     kind = "long"
	kindString   kind = "string"
	kindSet      kind = "set"
	kindRecord   kind = "record"
	kindEntity   kind = "entity"
	kindDecimal  kind = "decimal"
	kindIP       kind = "ipaddr"
	kindDatetime kind = "datetime"
	kindDuration kind = "duration"
)

func (k kind) is(want ...kind) bool { return k == kindAny || slices.Contains(want, k) }

// extension is the signature of one of Cedar's extension functions; args
// include the receiver.
type extension struct {
	args   []kind
	result kind
}

// extensionOf returns the signature of a Cedar extension function.
func extensionOf(name types.Path) (extension, bool) {
	switch name {
	case "ip":
		return extension{[]kind{kindString}, kindIP}, true
	case "decimal":
		return extension{[]kind{kindString}, kindDecimal}, true
	case "datetime":
		return extension{[]kind{kindString}, kindDatetime}, true
	case "duration":
		return extension{[]kind{kindString}, kindDuration}, true
	case "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual":
		return extension{[]kind{kindDecimal, kindDecimal}, kindBool}, true
	case "isIpv4", "isIpv6", "isLoopback", "isMulticast":
		return extension{[]kind{kindIP}, kindBool}, true
	case "isInRange":
		return extension{[]kind{kindIP, kindIP}, kindBool}, true
	case "toDate":
		return extension{[]kind{kindDatetime}, kindDatetime}, true
	case "toTime":
		return extension{[]kind{kindDatetime}, kindDuration}, true
	case "offset":
		return extension{[]kind{kindDatetime, kindDuration}, kindDatetime}, true
	case "durationSince":
		return extension{[]kind{kindDatetime, kindDatetime}, kindDuration}, true
	case "toDays", "toHours", "toMinutes", "toSeconds", "toMilliseconds":
		return extension{[]kind{kindDuration}, kindLong}, true
	}
	return extension{}, false
}

// checker finds, in one policy, what can never match or would always err:
// unknown entity types, ids that no request can carry, attributes of entities
// (they have none), reserved keys, and operands of a type that the operator
// refuses. A policy that always errs would deny everything it covers.
type checker struct {
	id    string
	line  int
	found *problems
}

func (c *checker) errorf(format string, args ...any) {
	c.found.add(c.id, c.line, format, args...)
}

func (c *checker) policy(p *cedar.Policy) {
	tree := astOf(p)
	switch s := tree.Principal.(type) {
	case ast.ScopeTypeEq:
		c.scope("principal", s.Entity, principalTypes())
	case ast.ScopeTypeIs:
		c.scopeType("principal", s.Type, principalTypes())
	case ast.ScopeTypeIn:
		c.scope("principal", s.Entity, append(principalTypes(), TypeGroup))
	case ast.ScopeTypeIsIn:
		c.scopeType("principal", s.Type, principalTypes())
		c.scope("principal", s.Entity, append(principalTypes(), TypeGroup))
	}
	switch s := tree.Action.(type) {
	case ast.ScopeTypeEq:
		c.scope("action", s.Entity, []string{TypeAction})
	case ast.ScopeTypeIn:
		c.scope("action", s.Entity, []string{TypeAction})
	case ast.ScopeTypeInSet:
		if len(s.Entities) == 0 {
			c.errorf("action in [] never matches")
		}
		for _, e := range s.Entities {
			c.scope("action", e, []string{TypeAction})
		}
	}
	switch s := tree.Resource.(type) {
	case ast.ScopeTypeEq:
		c.scope("resource", s.Entity, resourceTypes())
	case ast.ScopeTypeIs:
		c.scopeType("resource", s.Type, resourceTypes())
	case ast.ScopeTypeIn:
		c.scope("resource", s.Entity, resourceTypes())
	case ast.ScopeTypeIsIn:
		c.scopeType("resource", s.Type, resourceTypes())
		c.scope("resource", s.Entity, resourceTypes())
	}
	for _, cond := range tree.Conditions {
		c.want(cond.Body, "a condition", kindBool)
	}
}

func (c *checker) scope(what string, e types.EntityUID, allowed []string) {
	c.scopeType(what, e.Type, allowed)
	c.entityID(e)
}

func (c *checker) scopeType(what string, t types.EntityType, allowed []string) {
	if !slices.Contains(allowed, string(t)) {
		c.errorf("%s of type %q does not exist: it is one of %s", what, string(t), strings.Join(allowed, ", "))
	}
}

func (c *checker) entity(e types.EntityUID) {
	c.entityType(e.Type)
	c.entityID(e)
}

func (c *checker) entityType(t types.EntityType) {
	all := append(principalTypes(), resourceTypes()...)
	if all = append(all, TypeGroup, TypeAction); !slices.Contains(all, string(t)) {
		c.errorf("entity type %q does not exist: it is one of %s", string(t), strings.Join(all, ", "))
	}
}

func (c *checker) entityID(e types.EntityUID) {
	if err := checkID(string(e.ID)); err != nil {
		c.errorf("entity id %+q: %v", string(e.ID), err)
	}
}

// want checks that a node can have one of the kinds and returns its kind.
func (c *checker) want(n ast.IsNode, what string, kinds ...kind) kind {
	k := c.kind(n)
	if !k.is(kinds...) {
		names := make([]string, len(kinds))
		for i, w := range kinds {
			names[i] = string(w)
		}
		c.errorf("%s is %s, want %s", what, k, strings.Join(names, " or "))
	}
	return k
}

func (c *checker) both(n ast.BinaryNode, op string, result kind, kinds ...kind) kind {
	l := c.want(n.Left, "left side of "+op, kinds...)
	r := c.want(n.Right, "right side of "+op, kinds...)
	c.same(l, r, op)
	return result
}

func (c *checker) same(l, r kind, op string) {
	if l != kindAny && r != kindAny && l != r {
		c.errorf("%s compares %s with %s", op, l, r)
	}
}

// kind returns what is known of a node's type and reports the errors below
// it. Recursion is bounded by scanBounds.
func (c *checker) kind(n ast.IsNode) kind {
	switch n := n.(type) {
	case ast.NodeValue:
		return c.value(n.Value)
	case ast.NodeTypeVariable:
		if n.Name == "context" {
			return kindRecord
		}
		return kindEntity
	case ast.NodeTypeIfThenElse:
		c.want(n.If, "the test of an if", kindBool)
		then, els := c.kind(n.Then), c.kind(n.Else)
		if then != els {
			return kindAny
		}
		return then
	case ast.NodeTypeOr:
		return c.both(n.BinaryNode, "||", kindBool, kindBool)
	case ast.NodeTypeAnd:
		return c.both(n.BinaryNode, "&&", kindBool, kindBool)
	case ast.NodeTypeNot:
		c.want(n.Arg, "operand of !", kindBool)
		return kindBool
	case ast.NodeTypeNegate:
		c.want(n.Arg, "operand of -", kindLong)
		return kindLong
	case ast.NodeTypeLessThan:
		return c.both(n.BinaryNode, "<", kindBool, kindLong, kindDatetime, kindDuration)
	case ast.NodeTypeLessThanOrEqual:
		return c.both(n.BinaryNode, "<=", kindBool, kindLong, kindDatetime, kindDuration)
	case ast.NodeTypeGreaterThan:
		return c.both(n.BinaryNode, ">", kindBool, kindLong, kindDatetime, kindDuration)
	case ast.NodeTypeGreaterThanOrEqual:
		return c.both(n.BinaryNode, ">=", kindBool, kindLong, kindDatetime, kindDuration)
	case ast.NodeTypeEquals:
		c.same(c.kind(n.Left), c.kind(n.Right), "==")
		return kindBool
	case ast.NodeTypeNotEquals:
		c.same(c.kind(n.Left), c.kind(n.Right), "!=")
		return kindBool
	case ast.NodeTypeAdd:
		return c.both(n.BinaryNode, "+", kindLong, kindLong)
	case ast.NodeTypeSub:
		return c.both(n.BinaryNode, "-", kindLong, kindLong)
	case ast.NodeTypeMult:
		return c.both(n.BinaryNode, "*", kindLong, kindLong)
	case ast.NodeTypeIn:
		c.want(n.Left, "left side of in", kindEntity)
		c.want(n.Right, "right side of in", kindEntity, kindSet)
		return kindBool
	case ast.NodeTypeIs:
		c.want(n.Left, "left side of is", kindEntity)
		c.entityType(n.EntityType)
		return kindBool
	case ast.NodeTypeIsIn:
		c.want(n.Left, "left side of is", kindEntity)
		c.entityType(n.EntityType)
		c.want(n.Entity, "right side of in", kindEntity, kindSet)
		return kindBool
	case ast.NodeTypeHas:
		c.attribute(n.StrOpNode)
		return kindBool
	case ast.NodeTypeAccess:
		return c.attribute(n.StrOpNode)
	case ast.NodeTypeHasTag, ast.NodeTypeGetTag:
		c.errorf("entities have no tags")
		return kindAny
	case ast.NodeTypeLike:
		c.want(n.Arg, "left side of like", kindString)
		return kindBool
	case ast.NodeTypeContains:
		c.want(n.Left, "receiver of contains", kindSet)
		c.kind(n.Right)
		return kindBool
	case ast.NodeTypeContainsAll:
		return c.both(n.BinaryNode, "containsAll", kindBool, kindSet)
	case ast.NodeTypeContainsAny:
		return c.both(n.BinaryNode, "containsAny", kindBool, kindSet)
	case ast.NodeTypeIsEmpty:
		c.want(n.Arg, "receiver of isEmpty", kindSet)
		return kindBool
	case ast.NodeTypeRecord:
		for _, e := range n.Elements {
			c.kind(e.Value)
		}
		return kindRecord
	case ast.NodeTypeSet:
		for _, e := range n.Elements {
			c.kind(e)
		}
		return kindSet
	case ast.NodeTypeExtensionCall:
		return c.call(n)
	}
	c.errorf("expression %T is not supported", n)
	return kindAny
}

func (c *checker) value(v types.Value) kind {
	switch v := v.(type) {
	case types.Boolean:
		return kindBool
	case types.Long:
		return kindLong
	case types.String:
		return kindString
	case types.EntityUID:
		c.entity(v)
		return kindEntity
	case types.Set:
		for e := range v.All() {
			c.value(e)
		}
		return kindSet
	case types.Record:
		m := v.Map()
		for _, k := range slices.Sorted(maps.Keys(m)) {
			c.value(m[k])
		}
		return kindRecord
	}
	return kindAny
}

// attribute checks `arg.name` and `arg has name`.
func (c *checker) attribute(n ast.StrOpNode) kind {
	v, ok := n.Arg.(ast.NodeTypeVariable)
	if !ok {
		if k := c.kind(n.Arg); !k.is(kindRecord) {
			c.errorf("attribute %q of %s does not exist", string(n.Value), k)
		}
		return kindAny
	}
	if v.Name != "context" {
		c.errorf("%s has no attribute %q: entities have none", string(v.Name), string(n.Value))
		return kindAny
	}
	switch n.Value {
	case KeyChainDepth:
		return kindLong
	case KeyRootHuman:
		return kindEntity
	case KeyPurpose:
		return kindString
	case KeyApproval:
		c.errorf("policies do not read context.%s: an approval satisfies a soft forbid and nothing else", KeyApproval)
	}
	return kindAny
}

// call checks an extension function and, where its argument is a literal,
// that the literal is one.
func (c *checker) call(n ast.NodeTypeExtensionCall) kind {
	sig, ok := extensionOf(n.Name)
	if !ok {
		c.errorf("function %q does not exist", string(n.Name))
		return kindAny
	}
	if len(n.Args) != len(sig.args) {
		c.errorf("%s takes %d operands, got %d", string(n.Name), len(sig.args), len(n.Args))
		return sig.result
	}
	for i, a := range n.Args {
		c.want(a, fmt.Sprintf("operand %d of %s", i+1, string(n.Name)), sig.args[i])
	}
	lit, ok := n.Args[0].(ast.NodeValue)
	if !ok {
		return sig.result
	}
	s, ok := lit.Value.(types.String)
	if !ok {
		return sig.result
	}
	var err error
	switch n.Name {
	case "ip":
		_, err = types.ParseIPAddr(string(s))
	case "decimal":
		_, err = types.ParseDecimal(string(s))
	case "datetime":
		_, err = types.ParseDatetime(string(s))
	case "duration":
		_, err = types.ParseDuration(string(s))
	}
	if err != nil {
		c.errorf("%s(%q): %v", string(n.Name), string(s), err)
	}
	return sig.result
}

// astOf returns the syntax tree of a policy in the form that cedar-go's
// experimental packages use.
func astOf(p *cedar.Policy) *ast.Policy { return (*ast.Policy)(p.AST()) }
