package authz

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// Entity types of a request.
const (
	TypeAgent    = "Agent"
	TypeHuman    = "Human"
	TypeService  = "Service"
	TypeGroup    = "Group"    // parents of a principal
	TypeAction   = "Action"   // an event kind or an operation; "a.b" is in "a"
	TypeAccount  = "Account"  // id is the account's base32 text; parents are its ancestors
	TypeResource = "Resource" // anything else, by name
)

func principalTypes() []string { return []string{TypeAgent, TypeHuman, TypeService} }
func resourceTypes() []string  { return []string{TypeAccount, TypeResource} }

func isPrincipalType(s string) bool { return s == TypeAgent || s == TypeHuman || s == TypeService }
func isResourceType(s string) bool  { return s == TypeAccount || s == TypeResource }

// Reserved keys of the context. The first three are set from the verified
// chain; a request that brings any of them is refused. KeyApproval is never
// set: policies do not know about approvals.
const (
	KeyChainDepth = "chain_depth"
	KeyRootHuman  = "root_human"
	KeyPurpose    = "purpose"
	KeyApproval   = "approval"
)

// Bounds of a request.
const (
	maxIDBytes       = 256
	maxParents       = 256
	maxContextKeys   = 128
	maxContextValues = 1024
	maxContextDepth  = 8
	maxStringBytes   = 4096
)

// ErrBadRequest is wrapped by what [Request.Validate] returns.
var ErrBadRequest = errors.New("request cannot be evaluated")

// Chain is what a verified delegation chain says; it never comes from the
// caller. The zero value is a principal that acts for itself.
type Chain struct {
	Depth     int    // links below the root
	RootHuman string // base32 id of the human at the root, empty if there is none
	Purpose   string // label of the leaf link's purpose

	// Oversight names the chains that the links demand for whatever is done
	// under them (field 16 of a link forbids, field 17 asks). The request is
	// held as by a soft policy with the id [LinkPolicy] of the chain.
	Oversight []string
}

// LinkPolicy is the id under which a decision, and the approval that satisfies
// it, name an oversight chain that a delegation link demands. No policy can
// have such an id.
func LinkPolicy(chain string) string { return "link:" + chain }

// Request is one question. Ids are printable ASCII without spaces, at most
// 256 bytes. Decide does not modify it.
type Request struct {
	PrincipalType string   // TypeAgent, TypeHuman or TypeService
	Principal     string   // base32 id
	Groups        []string // every group of the principal, ancestors included
	Action        string   // event kind or operation
	ResourceType  string   // TypeAccount or TypeResource
	Resource      string   // id of the resource
	Accounts      []string // every account above the resource, in any order
	Context       map[string]Value
	Chain         Chain
}

// Value is a value of the context: an integer, string, boolean, set or
// record. There are no floats: amounts are integers in the smallest unit. The
// zero Value is invalid.
type Value struct {
	kind   kind
	long   int64
	str    string
	elems  []Value
	fields map[string]Value
}

// Long returns an integer value.
func Long(v int64) Value { return Value{kind: kindLong, long: v} }

// String returns a text value; it is compared byte by byte, so the caller
// decides on a normal form.
func String(v string) Value { return Value{kind: kindString, str: v} }

// Bool returns a boolean value.
func Bool(v bool) Value {
	b := Value{kind: kindBool}
	if v {
		b.long = 1
	}
	return b
}

// Set returns a set; order and repetition do not matter. It keeps elems.
func Set(elems ...Value) Value { return Value{kind: kindSet, elems: elems} }

// Record returns a record. It keeps fields.
func Record(fields map[string]Value) Value { return Value{kind: kindRecord, fields: fields} }

// Validate reports why the request cannot be evaluated: an id that is not
// plain ASCII, an unknown type, a reserved context key, a bound broken. The
// error wraps [ErrBadRequest]. Decide answers Deny to such a request.
func (r *Request) Validate() error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return nil
}

func (r *Request) validate() error {
	if !isPrincipalType(r.PrincipalType) {
		return fmt.Errorf("principal type %q", r.PrincipalType)
	}
	if !isResourceType(r.ResourceType) {
		return fmt.Errorf("resource type %q", r.ResourceType)
	}
	for _, f := range []struct{ name, id string }{
		{"principal", r.Principal}, {"action", r.Action}, {"resource", r.Resource},
	} {
		if err := checkID(f.id); err != nil {
			return fmt.Errorf("%s %+q: %w", f.name, f.id, err)
		}
	}
	for _, f := range []struct {
		name string
		ids  []string
	}{{"groups", r.Groups}, {"accounts", r.Accounts}} {
		if len(f.ids) > maxParents {
			return fmt.Errorf("%d %s, at most %d are allowed", len(f.ids), f.name, maxParents)
		}
		for _, id := range f.ids {
			if err := checkID(id); err != nil {
				return fmt.Errorf("%s %+q: %w", f.name, id, err)
			}
		}
	}
	if r.Chain.Depth < 0 {
		return fmt.Errorf("chain depth %d", r.Chain.Depth)
	}
	if r.Chain.RootHuman != "" {
		if err := checkID(r.Chain.RootHuman); err != nil {
			return fmt.Errorf("root human %+q: %w", r.Chain.RootHuman, err)
		}
	}
	if len(r.Chain.Oversight) > maxParents {
		return fmt.Errorf("%d oversight chains, at most %d are allowed", len(r.Chain.Oversight), maxParents)
	}
	for _, c := range r.Chain.Oversight {
		if !validName(c) {
			return fmt.Errorf("oversight chain %+q is not a name", c)
		}
	}
	if err := checkText(r.Chain.Purpose); err != nil {
		return fmt.Errorf("purpose: %w", err)
	}
	for _, key := range []string{KeyApproval, KeyChainDepth, KeyPurpose, KeyRootHuman} {
		if _, ok := r.Context[key]; ok {
			return fmt.Errorf("context key %q is reserved", key)
		}
	}
	budget := maxContextValues
	return checkFields(r.Context, maxContextDepth, &budget)
}

func checkID(s string) error {
	if len(s) == 0 || len(s) > maxIDBytes {
		return fmt.Errorf("id has %d bytes, want 1 to %d", len(s), maxIDBytes)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return errors.New("id is not printable ASCII without spaces")
		}
	}
	return nil
}

func checkText(s string) error {
	if len(s) > maxStringBytes {
		return fmt.Errorf("string has %d bytes, at most %d are allowed", len(s), maxStringBytes)
	}
	if !utf8.ValidString(s) {
		return errors.New("string is not valid UTF-8")
	}
	return nil
}

func checkFields(fields map[string]Value, depth int, budget *int) error {
	if len(fields) > maxContextKeys {
		return fmt.Errorf("%d context keys, at most %d are allowed", len(fields), maxContextKeys)
	}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if err := checkID(k); err != nil {
			return fmt.Errorf("context key %+q: %w", k, err)
		}
		if err := checkValue(fields[k], depth, budget); err != nil {
			return fmt.Errorf("context key %q: %w", k, err)
		}
	}
	return nil
}

func checkValue(v Value, depth int, budget *int) error {
	if *budget--; *budget < 0 {
		return fmt.Errorf("more than %d values", maxContextValues)
	}
	if depth == 0 {
		return fmt.Errorf("nested deeper than %d", maxContextDepth)
	}
	switch v.kind {
	case kindLong, kindBool:
		return nil
	case kindString:
		return checkText(v.str)
	case kindSet:
		for _, e := range v.elems {
			if err := checkValue(e, depth-1, budget); err != nil {
				return err
			}
		}
		return nil
	case kindRecord:
		return checkFields(v.fields, depth-1, budget)
	}
	return errors.New("value is empty")
}

func (v Value) cedar() types.Value {
	switch v.kind {
	case kindLong:
		return types.Long(v.long)
	case kindBool:
		return types.Boolean(v.long != 0)
	case kindString:
		return types.String(v.str)
	case kindSet:
		elems := make([]types.Value, len(v.elems))
		for i, e := range v.elems {
			elems[i] = e.cedar()
		}
		return types.NewSet(elems...)
	default:
		fields := make(types.RecordMap, len(v.fields))
		for k, f := range v.fields {
			fields[types.String(k)] = f.cedar()
		}
		return types.NewRecord(fields)
	}
}

// entities are the three entities of a request, built here and with no
// attributes. Ancestors are flattened into direct parents: Cedar walks them
// once and never further.
type entities [3]types.Entity

func (e *entities) Get(uid types.EntityUID) (types.Entity, bool) {
	for i := range e {
		if e[i].UID == uid {
			return e[i], true
		}
	}
	return types.Entity{}, false
}

// build turns a valid request into Cedar's form.
func (r *Request) build() (*entities, cedar.Request, scope) {
	principal := types.NewEntityUID(types.EntityType(r.PrincipalType), types.String(r.Principal))
	actions := actionFamily(r.Action)
	resources := make([]types.EntityUID, 1, 1+len(r.Accounts))
	resources[0] = types.NewEntityUID(types.EntityType(r.ResourceType), types.String(r.Resource))
	for _, a := range r.Accounts {
		resources = append(resources, types.NewEntityUID(TypeAccount, types.String(a)))
	}
	groups := make([]types.EntityUID, len(r.Groups))
	for i, g := range r.Groups {
		groups[i] = types.NewEntityUID(TypeGroup, types.String(g))
	}

	context := make(types.RecordMap, len(r.Context)+3)
	for k, v := range r.Context {
		context[types.String(k)] = v.cedar()
	}
	context[KeyChainDepth] = types.Long(r.Chain.Depth)
	context[KeyPurpose] = types.String(r.Chain.Purpose)
	if r.Chain.RootHuman != "" {
		context[KeyRootHuman] = types.NewEntityUID(TypeHuman, types.String(r.Chain.RootHuman))
	}

	ents := &entities{
		{UID: principal, Parents: types.NewEntityUIDSet(groups...)},
		{UID: actions[0], Parents: types.NewEntityUIDSet(actions[1:]...)},
		{UID: resources[0], Parents: types.NewEntityUIDSet(resources[1:]...)},
	}
	return ents,
		cedar.Request{Principal: principal, Action: actions[0], Resource: resources[0], Context: types.NewRecord(context)},
		scope{principal: principal, actions: actions, resources: resources}
}

// actionFamily returns the action and the families it belongs to: "a.b.c",
// "a.b", "a".
func actionFamily(action string) []types.EntityUID {
	family := []types.EntityUID{types.NewEntityUID(TypeAction, types.String(action))}
	for i := strings.LastIndexByte(action, '.'); i > 0; i = strings.LastIndexByte(action, '.') {
		action = action[:i]
		family = append(family, types.NewEntityUID(TypeAction, types.String(action)))
	}
	return family
}
