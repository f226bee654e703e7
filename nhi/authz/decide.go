package authz

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go"
)

// Outcome is the answer to a request. The zero value is Deny.
type Outcome int

// The three outcomes.
const (
	Deny Outcome = iota
	Allow
	NeedsOversight // allowed once people of Decision.Chains have approved
)

func (o Outcome) String() string {
	switch o {
	case Deny:
		return "deny"
	case Allow:
		return "allow"
	case NeedsOversight:
		return "needs-oversight"
	}
	return fmt.Sprintf("outcome(%d)", int(o))
}

// Epochs are the versions of the tenant's state that a decision was made
// under. It is valid at an index only if they are the same there.
type Epochs struct {
	Policy, Entities, Revocation uint64
}

// Decision is the answer to one request. All slices are sorted and hold each
// value once.
type Decision struct {
	Outcome   Outcome
	Chains    []string // NeedsOversight: the chains that must approve
	Policies  []string // ids of the policies that determined the outcome
	Satisfied []string // ids of the soft policies that matched but are satisfied by an approval
	Errors    []string // ids of the policies whose evaluation erred: Deny
	Invalid   string   // why the request could not be evaluated: Deny; not part of Digest
	Epochs    Epochs
	Digest    [32]byte // of bundle, guards, request, epochs and all of the above but Invalid
}

// Decide answers a request. satisfied names the soft policies that an
// approval of exactly this action covers; guards are those of every link of
// the chain. Decide is a pure function of its arguments; it fails closed.
func (e *Engine) Decide(req *Request, satisfied []string, guards []*Guard, epochs Epochs) (d Decision) {
	// The engine and the evaluator below it meet requests from outside: a
	// panic here would kill the leader, and the retry the next one.
	defer func() {
		if r := recover(); r != nil {
			d = Decision{Outcome: Deny, Invalid: "evaluation stopped", Epochs: epochs}
		}
	}()
	if e == nil {
		return Decision{Outcome: Deny, Invalid: "no policy", Epochs: epochs}
	}
	if err := req.Validate(); err != nil {
		return Decision{Outcome: Deny, Invalid: err.Error(), Epochs: epochs}
	}
	d = e.decide(req, satisfied, guards)
	d.Epochs = epochs
	d.Digest = e.digestDecision(req, guards, &d)
	return d
}

func (e *Engine) decide(req *Request, satisfied []string, guards []*Guard) Decision {
	ents, creq, sc := req.build()

	// Pass 1: permits, plain forbids and every guard. Cedar drops the permits
	// when a forbid matches, so only a pass without the soft set can tell
	// "would be allowed but for oversight" from "would not be allowed".
	var forbids []string
	hard := e.hard.evaluate(ents, creq, sc)
	errs := hard.errors
	if !hard.allow {
		forbids = append(forbids, hard.reasons...)
	}
	for _, g := range guards {
		if g == nil {
			return Decision{Outcome: Deny, Errors: []string{"guard"}}
		}
		v := g.set.evaluate(ents, creq, sc)
		errs = append(errs, v.errors...)
		forbids = append(forbids, v.reasons...)
	}
	if len(errs) > 0 {
		return Decision{Outcome: Deny, Policies: sorted(forbids), Errors: sorted(errs)}
	}
	if !hard.allow || len(forbids) > 0 {
		return Decision{Outcome: Deny, Policies: sorted(forbids)}
	}

	// Pass 2: what people must approve.
	soft := e.soft.evaluate(ents, creq, sc)
	if len(soft.errors) > 0 {
		return Decision{Outcome: Deny, Policies: sorted(soft.reasons), Errors: sorted(soft.errors)}
	}
	var left, met, chains []string
	hold := func(id, chain string) {
		if slices.Contains(satisfied, id) {
			met = append(met, id)
			return
		}
		left = append(left, id)
		chains = append(chains, chain)
	}
	for _, id := range soft.reasons {
		hold(id, e.chains[id])
	}
	for _, chain := range req.Chain.Oversight {
		hold(LinkPolicy(chain), chain)
	}
	if len(left) > 0 {
		return Decision{Outcome: NeedsOversight, Chains: sorted(chains), Policies: sorted(left), Satisfied: sorted(met)}
	}
	return Decision{Outcome: Allow, Policies: sorted(hard.reasons), Satisfied: sorted(met)}
}

// verdict is what one set says. reasons are the matching forbids if there are
// any, otherwise the matching permits. Order is the evaluator's: sort before
// use.
type verdict struct {
	allow           bool
	reasons, errors []string
}

func (s *policySet) evaluate(ents cedar.EntityGetter, req cedar.Request, sc scope) verdict {
	part := s.candidates(sc)
	if len(part.at) == 0 {
		return verdict{}
	}
	decision, diag := cedar.Authorize(part, ents, req)
	v := verdict{allow: decision == cedar.Allow}
	for _, r := range diag.Reasons {
		v.reasons = append(v.reasons, string(r.PolicyID))
	}
	for _, r := range diag.Errors {
		v.errors = append(v.errors, string(r.PolicyID))
	}
	return v
}

func sorted(ids []string) []string {
	slices.Sort(ids)
	return slices.Compact(ids)
}

// digestDecision hashes a decision: label, bundle digest, the guards' digests
// sorted, request digest, outcome, the four lists, the three epochs. Numbers
// are 8 bytes big-endian, strings and lists have their length before them.
func (e *Engine) digestDecision(req *Request, guards []*Guard, d *Decision) [32]byte {
	b := make(encoder, 0, 512)
	b = append(b, "creto/decision/v1\x00"...)
	b = append(b, e.digest[:]...)
	digests := make([]string, len(guards))
	for i, g := range guards {
		if g != nil {
			digests[i] = string(g.digest[:])
		}
	}
	b.list(sorted(digests))
	request := req.Digest()
	b = append(b, request[:]...)
	b.uint(uint64(d.Outcome))
	b.list(d.Chains)
	b.list(d.Policies)
	b.list(d.Satisfied)
	b.list(d.Errors)
	b.uint(d.Epochs.Policy)
	b.uint(d.Epochs.Entities)
	b.uint(d.Epochs.Revocation)
	return sha256.Sum256(b)
}

// Digest identifies the request by its content; the order of groups, accounts
// and set elements does not matter. The encoding is that of the decision
// digest under the label "creto/request/v1\0"; a value is one byte of kind
// and its content, records and sets are sorted.
func (r *Request) Digest() [32]byte {
	b := make(encoder, 0, 512)
	b = append(b, "creto/request/v1\x00"...)
	b.string(r.PrincipalType)
	b.string(r.Principal)
	b.list(sorted(slices.Clone(r.Groups)))
	b.string(r.Action)
	b.string(r.ResourceType)
	b.string(r.Resource)
	b.list(sorted(slices.Clone(r.Accounts)))
	b.fields(r.Context)
	b.uint(uint64(r.Chain.Depth))
	b.string(r.Chain.RootHuman)
	b.string(r.Chain.Purpose)
	b.list(sorted(slices.Clone(r.Chain.Oversight)))
	return sha256.Sum256(b)
}

// encoder appends values so that no two sequences of calls give the same
// bytes.
type encoder []byte

func (b *encoder) uint(v uint64) { *b = binary.BigEndian.AppendUint64(*b, v) }

func (b *encoder) string(s string) {
	b.uint(uint64(len(s)))
	*b = append(*b, s...)
}

func (b *encoder) list(l []string) {
	b.uint(uint64(len(l)))
	for _, s := range l {
		b.string(s)
	}
}

func (b *encoder) fields(m map[string]Value) {
	b.uint(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.string(k)
		b.value(m[k])
	}
}

func (b *encoder) value(v Value) {
	switch v.kind {
	case kindLong:
		*b = append(*b, 'l')
		b.uint(uint64(v.long))
	case kindBool:
		*b = append(*b, 'b')
		b.uint(uint64(v.long))
	case kindString:
		*b = append(*b, 's')
		b.string(v.str)
	case kindSet:
		*b = append(*b, 'S')
		elems := make([]string, len(v.elems))
		for i, e := range v.elems {
			var one encoder
			one.value(e)
			elems[i] = string(one)
		}
		b.list(sorted(elems))
	case kindRecord:
		*b = append(*b, 'R')
		b.fields(v.fields)
	}
}
