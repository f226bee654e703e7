package registry

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Bounds of a link.
const (
	MaxLinkBytes   = 4 << 10
	MaxLinks       = 8 // in a chain, so depth is 0 to 7
	maxScopes      = 32
	maxActions     = 32
	maxCaps        = 16
	maxBudgets     = 16
	maxGroups      = 16
	maxName        = 64  // of meters, groups, labels, actions
	maxResource    = 128 // of a resource
	maxUnit        = 16
	maxMillisecond = math.MaxInt64 / 1_000_000
)

// Link is the body of a delegation link: its issuer lets its subject act for it,
// within these bounds. Canonical CBOR with integer keys; what is signed is its id.
type Link struct {
	V          uint64     `cbor:"1,keyasint"` // 1
	Ledger     nhi.Digest `cbor:"2,keyasint"`
	Tenant     nhi.ID     `cbor:"3,keyasint"`
	Suite      nhi.Suite  `cbor:"4,keyasint"` // of IssuerKey, as registered
	Issuer     nhi.ID     `cbor:"5,keyasint"`
	IssuerKey  nhi.KeyID  `cbor:"6,keyasint"`
	Subject    nhi.ID     `cbor:"7,keyasint"`
	SubjectKey nhi.KeyID  `cbor:"8,keyasint"`
	Parent     nhi.LinkID `cbor:"9,keyasint"`           // zeros at the root
	Depth      uint64     `cbor:"10,keyasint"`          // root 0
	MaxDepth   uint64     `cbor:"11,keyasint"`          // the deepest a descendant may be, counted from the root
	NotBefore  int64      `cbor:"12,keyasint"`          // ms of consensus time
	Expires    int64      `cbor:"13,keyasint"`          // ms of consensus time, exclusive
	Scopes     []Scope    `cbor:"14,keyasint"`          // sorted by Compare, unique, at least one
	Budgets    []Budget   `cbor:"15,keyasint"`          // sorted by meter and window, unique
	Guards     nhi.Digest `cbor:"16,keyasint,omitzero"` // SHA-256 of forbid-only Cedar text on the ledger; zero = none
	Oversight  []string   `cbor:"17,keyasint"`          // group ids that are always asked, sorted, unique
	Redelegate bool       `cbor:"18,keyasint"`          // whether the subject may issue links below this one
	Purpose    Purpose    `cbor:"19,keyasint"`
	Attest     nhi.Digest `cbor:"20,keyasint,omitzero"` // digest of a runtime attestation; zero = none
	Nonce      [16]byte   `cbor:"21,keyasint"`
}

// Scope lets its holder take some actions on one resource.
//
// An action is a kind of event or the name of an operation; "quota.*" stands for
// all that begin with "quota.", "*" for all. A resource is "*" (any),
// "account:" and an account's id (that account and all below it), or the exact
// name of something. Caps limit the amount of a meter in one request; a cap that
// a child omits is inherited.
type Scope struct {
	Actions  []string          `cbor:"1,keyasint"` // sorted, unique, at least one
	Resource string            `cbor:"2,keyasint"`
	Caps     map[string]uint64 `cbor:"3,keyasint"` // meter → most in one request, ≤ 2^63-1
}

// Budget limits what all requests under a link may use of a meter.
type Budget struct {
	Meter  string `cbor:"1,keyasint"`
	Unit   string `cbor:"2,keyasint"`
	Limit  uint64 `cbor:"3,keyasint"`
	Window Window `cbor:"4,keyasint"`
}

// Window is the period that a budget counts in, in the tenant's time zone.
type Window uint8

// The windows; the numbers are those of quota periods.
const (
	Hour  Window = 1
	Day   Window = 2
	Week  Window = 3
	Month Window = 4
	Total Window = 5
)

// Purpose says what a delegation is for.
type Purpose struct {
	Intent nhi.Digest `cbor:"1,keyasint"` // salted digest of the instruction; zeros = none
	Label  string     `cbor:"2,keyasint"` // ≤ 64 ASCII
}

const (
	linkIDPrefix    = "creto/dlg/v1\x00"
	budgetPrefix    = "creto/linkbudget/v1\x00"
	accountPrefix   = "account:"
	countersignText = "countersign"
)

// LinkIDOf returns the id of a link body, which does not depend on signatures.
func LinkIDOf(body []byte) nhi.LinkID {
	h := sha256.New()
	h.Write([]byte(linkIDPrefix))
	h.Write(body)
	return nhi.LinkID(h.Sum(nil))
}

// BudgetCounter returns the account id under which the meter counts the budgets
// of a link: the first 16 bytes of SHA-256("creto/linkbudget/v1\0" ‖ link id).
func BudgetCounter(id nhi.LinkID) nhi.ID {
	sum := sha256.Sum256(append([]byte(budgetPrefix), id[:]...))
	return nhi.ID(sum[:16])
}

// AccountResource returns the resource that stands for an account and all below
// it.
func AccountResource(id nhi.ID) string { return accountPrefix + id.String() }

// DecodeLink decodes a link body strictly and checks everything that can be seen
// without state. Errors are *Error with CodeTooLarge, CodeMalformed (which wraps
// the *canon.Error, if the encoding is at fault), CodeVersion, CodeWindow or
// CodeSelfDealing.
func DecodeLink(body []byte) (*Link, error) {
	if len(body) > MaxLinkBytes {
		return nil, refuse(CodeTooLarge)
	}
	l := new(Link)
	if err := canon.UnmarshalMax(body, l, MaxLinkBytes); err != nil {
		return nil, refuseFor(CodeMalformed, err)
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l, nil
}

// Encode returns the canonical body of l, refusing what DecodeLink would refuse.
func (l *Link) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	body, err := canon.Marshal(l)
	if err != nil {
		return nil, refuseFor(CodeMalformed, err)
	}
	if len(body) > MaxLinkBytes {
		return nil, refuse(CodeTooLarge)
	}
	return body, nil
}

// Sort brings scopes, their actions, budgets and oversight groups into the order
// that the encoding demands and drops exact repetitions.
func (l *Link) Sort() {
	for i := range l.Scopes {
		a := slices.Clone(l.Scopes[i].Actions)
		slices.Sort(a)
		l.Scopes[i].Actions = slices.Compact(a)
	}
	slices.SortFunc(l.Scopes, Scope.Compare)
	l.Scopes = slices.CompactFunc(l.Scopes, func(a, b Scope) bool { return a.Compare(b) == 0 })
	slices.SortFunc(l.Budgets, Budget.compare)
	slices.Sort(l.Oversight)
	l.Oversight = slices.Compact(l.Oversight)
}

// malformed names the field that is out of bounds.
type malformed string

func (m malformed) Error() string { return string(m) }

func bad(what string) *Error { return refuseFor(CodeMalformed, malformed(what)) }

func (l *Link) check() error {
	switch {
	case l.V != 1:
		return refuse(CodeVersion)
	case l.Suite == 0:
		return refuse(CodeSuite)
	case l.Issuer.IsZero() || l.Subject.IsZero():
		return bad("issuer or subject is zero")
	case l.Issuer == l.Subject:
		return refuse(CodeSelfDealing)
	case l.Depth >= MaxLinks:
		return refuse(CodeTooDeep)
	case l.MaxDepth > MaxLinks:
		return bad("max_depth over 8")
	case l.Depth > l.MaxDepth:
		return refuse(CodeMaxDepth)
	case l.NotBefore < 0 || l.Expires > maxMillisecond || l.NotBefore >= l.Expires:
		return refuse(CodeWindow)
	case (l.Depth == 0) != (l.Parent == nhi.LinkID{}):
		return refuse(CodeDepth)
	case len(l.Scopes) == 0 || len(l.Scopes) > maxScopes:
		return bad("number of scopes")
	case len(l.Budgets) > maxBudgets:
		return bad("number of budgets")
	case len(l.Oversight) > maxGroups:
		return bad("number of oversight groups")
	case len(l.Purpose.Label) > maxName || !printable(l.Purpose.Label, true):
		return bad("purpose label")
	}
	for i, s := range l.Scopes {
		if err := s.check(); err != nil {
			return err
		}
		if i > 0 && l.Scopes[i-1].Compare(s) >= 0 {
			return bad("scopes not sorted and unique")
		}
	}
	for i, b := range l.Budgets {
		if !isName(b.Meter) || len(b.Unit) > maxUnit || !printable(b.Unit, false) || b.Window < Hour || b.Window > Total || b.Limit > math.MaxInt64 {
			return bad("budget")
		}
		if i > 0 && l.Budgets[i-1].compare(b) >= 0 {
			return bad("budgets not sorted and unique")
		}
	}
	for i, g := range l.Oversight {
		if !isName(g) {
			return bad("oversight group")
		}
		if i > 0 && l.Oversight[i-1] >= g {
			return bad("oversight groups not sorted and unique")
		}
	}
	return nil
}

func (s Scope) check() error {
	if len(s.Actions) == 0 || len(s.Actions) > maxActions || len(s.Caps) > maxCaps {
		return bad("number of actions or caps")
	}
	for i, a := range s.Actions {
		if !isAction(a) {
			return bad("action")
		}
		if i > 0 && s.Actions[i-1] >= a {
			return bad("actions not sorted and unique")
		}
	}
	if _, ok := parseResource(s.Resource); !ok {
		return bad("resource")
	}
	for _, m := range slices.Sorted(maps.Keys(s.Caps)) {
		if !isName(m) || s.Caps[m] > math.MaxInt64 {
			return bad("cap")
		}
	}
	return nil
}

// Compare orders scopes: by resource, then by actions, then by caps (meter by
// meter in ascending order, each followed by its amount).
func (s Scope) Compare(t Scope) int {
	if c := strings.Compare(s.Resource, t.Resource); c != 0 {
		return c
	}
	if c := slices.Compare(s.Actions, t.Actions); c != 0 {
		return c
	}
	a, b := slices.Sorted(maps.Keys(s.Caps)), slices.Sorted(maps.Keys(t.Caps))
	for i := range min(len(a), len(b)) {
		if c := strings.Compare(a[i], b[i]); c != 0 {
			return c
		}
		if c := cmp.Compare(s.Caps[a[i]], t.Caps[b[i]]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func (b Budget) compare(c Budget) int {
	if d := strings.Compare(b.Meter, c.Meter); d != 0 {
		return d
	}
	return cmp.Compare(b.Window, c.Window)
}

// isName accepts meters, groups and the like: 1 to 64 of [a-z0-9._-], so that
// two names that look alike are equal.
func isName(s string) bool {
	if len(s) == 0 || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return false
		}
	}
	return true
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'
}

// isAction accepts a name, a name ending in ".*", or "*".
func isAction(s string) bool {
	if s == "*" {
		return true
	}
	if len(s) > maxName {
		return false
	}
	if p, ok := strings.CutSuffix(s, ".*"); ok {
		s = p
	}
	return isName(s)
}

// printable accepts visible ASCII, and the space if spaces is set.
func printable(s string, spaces bool) bool {
	for i := range len(s) {
		if s[i] <= ' ' && (s[i] != ' ' || !spaces) || s[i] > '~' {
			return false
		}
	}
	return true
}

// resource is a parsed resource string: any, an account, or an exact name.
type resource struct {
	any     bool
	account nhi.ID // zero unless it is an account
	name    string
}

func parseResource(s string) (resource, bool) {
	if s == "*" {
		return resource{any: true}, true
	}
	if len(s) == 0 || len(s) > maxResource || !printable(s, false) || strings.Contains(s, "*") {
		return resource{}, false
	}
	if text, ok := strings.CutPrefix(s, accountPrefix); ok {
		id, err := nhi.ParseID(text)
		if err != nil || id.IsZero() {
			return resource{}, false
		}
		return resource{account: id}, true
	}
	return resource{name: s}, true
}

func (l *Link) isRoot() bool { return l.Parent == nhi.LinkID{} }
