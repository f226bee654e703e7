package authz

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
)

// DefaultHard is the hard set of a tenant that has published nothing: what
// the delegation chain allows is allowed. Decisions under it name policy
// epoch 0.
const DefaultHard = `@id("default-permit")
permit (principal, action, resource);
`

// Bundle is what a tenant publishes, as bytes: Hard and Soft are Cedar text,
// at most 64 KiB and 1,000 policies each.
type Bundle struct {
	Hard, Soft []byte
	Chains     []byte // definitions of the oversight chains; hashed, not read here
}

// DefaultBundle returns the bundle of a tenant that has published nothing.
func DefaultBundle() Bundle { return Bundle{Hard: []byte(DefaultHard)} }

// Digest identifies the bundle by its source bytes; Cedar has no canonical
// text that keeps ids. SHA-256("creto/policy/v1\0" ‖ each part with its
// length as 8 bytes big-endian before it).
func (b Bundle) Digest() [32]byte {
	return digestParts("creto/policy/v1\x00", b.Hard, b.Soft, b.Chains)
}

func digestParts(label string, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(label))
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}

// Engine is a compiled bundle. It is immutable and safe for concurrent use.
type Engine struct {
	digest [32]byte
	hard   *policySet
	soft   *policySet
	chains map[string]string // soft policy id → chain; never iterated
}

// Compile checks and compiles a bundle. Every policy carries a unique @id,
// the hard set no @oversight, the soft set nothing but forbids with
// @oversight("chain"). All that is wrong is returned at once, as PolicyErrors.
func Compile(b Bundle) (*Engine, error) {
	hardText := problems{set: SetHard}
	softText := problems{set: SetSoft}
	hard := parseSet(b.Hard, &hardText)
	soft := parseSet(b.Soft, &softText)

	seen := make(map[string]bool)
	e := &Engine{digest: b.Digest(), chains: make(map[string]string)}
	for _, p := range hard {
		id := checkPolicy(p, seen, &hardText)
		if _, ok := p.Annotations()["oversight"]; ok {
			hardText.add(id, p.Position().Line, "the hard set holds no @oversight: move the policy to the soft set")
		}
	}
	for _, p := range soft {
		id := checkPolicy(p, seen, &softText)
		line := p.Position().Line
		if p.Effect() != cedar.Forbid {
			softText.add(id, line, "the soft set holds only forbids")
		}
		chain, ok := p.Annotations()["oversight"]
		switch {
		case !ok:
			softText.add(id, line, "@oversight(\"chain\") is missing: a forbid without it belongs to the hard set")
		case !validName(string(chain)):
			softText.add(id, line, "chain name %q is not 1 to 64 of a-z, A-Z, 0-9, '.', '_', '-'", string(chain))
		}
		e.chains[id] = string(chain)
	}
	if all := append(hardText.list, softText.list...); len(all) > 0 {
		return nil, all
	}
	e.hard, e.soft = newPolicySet(hard, idOf), newPolicySet(soft, idOf)
	return e, nil
}

// Digest returns the digest of the bundle's source bytes.
func (e *Engine) Digest() [32]byte { return e.digest }

// Guard is a compiled link guard: policies that can only forbid, which a
// delegation link adds to those of the tenant. Immutable.
type Guard struct {
	digest [32]byte
	set    *policySet
}

// CompileGuard checks and compiles the text of a link guard: forbids only,
// each with a unique @id, none with @oversight.
func CompileGuard(text []byte) (*Guard, error) {
	found := problems{set: SetGuard}
	list := parseSet(text, &found)
	seen := make(map[string]bool)
	for _, p := range list {
		id := checkPolicy(p, seen, &found)
		if p.Effect() != cedar.Forbid {
			found.add(id, p.Position().Line, "a guard can only forbid")
		}
		if _, ok := p.Annotations()["oversight"]; ok {
			found.add(id, p.Position().Line, "a guard holds no @oversight: the link's oversight field names chains")
		}
	}
	if len(found.list) > 0 {
		return nil, found.list
	}
	digest := sha256.Sum256(text)
	prefix := fmt.Sprintf("guard:%x/", digest[:8])
	return &Guard{digest: digest, set: newPolicySet(list, func(p *cedar.Policy) string { return prefix + idOf(p) })}, nil
}

// CheckGuard reports what is wrong with the text of a link guard, as
// PolicyErrors, or nil.
func CheckGuard(text []byte) error {
	_, err := CompileGuard(text)
	return err
}

// Digest returns SHA-256 of the guard's text, which is what a delegation link
// names in its field 16.
func (g *Guard) Digest() [32]byte { return g.digest }

func idOf(p *cedar.Policy) string { return string(p.Annotations()["id"]) }

// parseSet checks the bounds of a text and parses it.
func parseSet(text []byte, found *problems) []*cedar.Policy {
	if line, err := scanBounds(text); err != nil {
		found.add("", line, "%v", err)
		return nil
	}
	list, err := parse(text)
	if err != nil {
		line, msg := splitPosition(err)
		found.add("", line, "%s", msg)
		return nil
	}
	if len(list) > MaxPolicies {
		found.add("", 0, "%d policies, at most %d are allowed", len(list), MaxPolicies)
		return nil
	}
	return list
}

// parse turns a panic of the parser into an error: the text comes from
// outside, and a leader that dies on it would take its successors along.
func parse(text []byte) (list cedar.PolicyList, err error) {
	defer func() {
		if r := recover(); r != nil {
			list, err = nil, errors.New("the parser cannot read this text")
		}
	}()
	return cedar.NewPolicyListFromBytes("", text)
}

// splitPosition takes the position out of a parser error, which has it only
// in its text: "… <input>:LINE:COLUMN …".
func splitPosition(err error) (line int, msg string) {
	msg = strings.TrimPrefix(err.Error(), "parser error: ")
	_, rest, ok := strings.Cut(msg, "<input>:")
	if !ok {
		return 0, msg
	}
	digits, _, _ := strings.Cut(rest, ":")
	line, aerr := strconv.Atoi(digits)
	if aerr != nil {
		return 0, msg
	}
	return line, strings.ReplaceAll(msg, "<input>:", "line ")
}

// checkPolicy checks what every policy of every set must satisfy and returns
// its id.
func checkPolicy(p *cedar.Policy, seen map[string]bool, found *problems) string {
	line := p.Position().Line
	id, ok := p.Annotations()["id"]
	switch {
	case !ok:
		found.add("", line, "@id is missing")
	case !validName(string(id)):
		found.add("", line, "@id %q is not 1 to 64 of a-z, A-Z, 0-9, '.', '_', '-'", string(id))
	case seen[string(id)]:
		found.add(string(id), line, "@id is used twice")
	}
	seen[string(id)] = true
	c := checker{id: string(id), line: line, found: found}
	c.policy(p)
	return string(id)
}

// Chains returns the names of the oversight chains that the soft policies name, ascending, each once.
func (e *Engine) Chains() []string {
	names := make([]string, 0, len(e.chains))
	for _, name := range e.chains {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// validName accepts the names of policies and chains.
func validName(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isWord(c) && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
