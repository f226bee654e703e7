package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Bounds per tenant.
const (
	MaxNodes        = 64
	MaxWaiting      = 1024 // claims waiting for a node
	MaxOpenPerAgent = 128  // claims of one agent that wait or run
)

const (
	handlerName = "sandbox"
	timerClaim  = handlerName + ".claim" // Ref = claim, 8 bytes
	timerNode   = handlerName + ".node"  // Ref = node id
)

// Charge is what one run used, or may use, and who is charged for it.
type Charge struct {
	Claim      uint64 // leaf index
	Account    nhi.ID
	Agent      nhi.ID
	Link       nhi.LinkID
	Quantities []verify.Quantity // ascending by meter
}

// Charger counts usage in another domain, in the same step as the sandbox. It is called in Apply and obeys the rules of a
// ledger.Handler.
type Charger interface {
	// Tables are those its decisions may write.
	Tables() []ledger.Table
	// Reserve holds room for c, all that a run may use, for ttl at least, and returns the leases that do: Writes, Timers,
	// Leaves. An Outcome other than accepted, with its Detail, refuses the claim.
	Reserve(v ledger.View, at ledger.Stamp, c Charge, ttl int64) ([]uint64, ledger.Decision)
	// Release gives leases back, of runs that have used nothing: Writes, Timers, Leaves. It refuses nothing.
	Release(v ledger.View, at ledger.Stamp, leases []uint64) ledger.Decision
	// Charge gives a run's leases back and counts what it has used: Writes, Timers, Leaves. The usage has happened, so limits
	// do not refuse it; an Outcome other than accepted is for what cannot be counted at all, and then nothing is.
	Charge(v ledger.View, at ledger.Stamp, leases []uint64, c Charge) ledger.Decision
}

// Sandbox decides the sandbox's events. It holds no state and is safe for concurrent use.
type Sandbox struct {
	charger Charger
	tables  []ledger.Table
	// authority says why a waiting claim's agent may no longer ask; nil if it may.
	authority func(v ledger.View, c *claimRow, at int64) error
}

var _ ledger.Handler = (*Sandbox)(nil)

// New returns a Sandbox whose usage c counts; nil counts nothing beyond the leaf.
func New(c Charger) *Sandbox {
	s := &Sandbox{charger: c, tables: Tables(), authority: holds}
	if c != nil {
		s.tables = append(s.tables, c.Tables()...)
	}
	return s
}

// Tables are the sandbox's own tables.
func Tables() []ledger.Table {
	return []ledger.Table{TableNode, TableClaim, TableWaiting, TableRunning, TableCount}
}

// Kinds returns the kinds the sandbox handles, for the ledger's table.
func (s *Sandbox) Kinds() []ledger.Kind {
	return []ledger.Kind{
		{Name: kind.Claim, Class: ledger.Ask, Handler: s, Cedar: true, Check: check(kind.DecodeClaimBody)},
		{Name: kind.Node, Class: ledger.Ask, Handler: s, Nodes: true, Check: check(kind.DecodeNodeBody)},
		{Name: kind.Report, Class: ledger.Fact, Handler: s, Nodes: true, Object: registry.ClassAttest, Cites: citesReport, Check: checkReport, Hold: holdReport},
		{Name: kind.Usage, Class: ledger.Fact, Handler: s, Nodes: true, Cites: citesUsage, Check: check(kind.DecodeUsageBody)},
	}
}

func check[T any](decode func([]byte) (*T, error)) func(*nhi.Event) error {
	return func(ev *nhi.Event) error {
		_, err := decode(ev.Body)
		return err
	}
}

// checkReport also holds the statement against the body, which Apply does not: it would have to parse JSON.
func checkReport(ev *nhi.Event) error {
	b, err := kind.DecodeReportBody(ev.Body)
	if err != nil {
		return err
	}
	_, err = kind.CheckReport(b)
	return err
}

// holdReport verifies the statement under the key that has signed the report, and holds it against the claim: a ledger that took
// statements of strangers, or about something else, would attest nothing. A report of no claim, or of another node's, is
// refused on the record by Decide.
func holdReport(ctx context.Context, v ledger.View, ev *nhi.Event, pk *nhi.PublicKey) error {
	b, err := kind.DecodeReportBody(ev.Body)
	if err != nil {
		return err
	}
	run, err := kind.VerifyReport(ctx, pk, b)
	if err != nil {
		return err
	}
	c, ok := read[claimRow](v, TableClaim, indexKey(b.Claim))
	if !ok || c.Node != ev.Agent {
		return nil
	}
	return run.Meets(&kind.Given{
		Ledger: v.LedgerID(), Tenant: ev.Tenant, Claim: b.Claim, Agent: c.Agent, Link: c.Link, Account: c.Account, Node: c.Node,
		Template: c.Template, Command: c.Command, Class: c.Class, Memory: c.Memory,
	})
}

func citesReport(v ledger.View, ev *ledger.Event) bool {
	b, err := kind.DecodeReportBody(ev.Body)
	return err == nil && has(v, b.Claim, ev.Agent)
}

func citesUsage(v ledger.View, ev *ledger.Event) bool {
	b, err := kind.DecodeUsageBody(ev.Body)
	return err == nil && has(v, b.Claim, ev.Agent)
}

// has reports whether the claim was allocated to the node.
func has(v ledger.View, claim uint64, node nhi.ID) bool {
	c, ok := read[claimRow](v, TableClaim, indexKey(claim))
	return ok && !node.IsZero() && c.Node == node
}

// Name is the part of the sandbox's timer names before the dot.
func (s *Sandbox) Name() string { return handlerName }

// Tables are those the sandbox's decisions write, the charger's included.
func (s *Sandbox) Tables() []ledger.Table { return s.tables }

// Decide decides about an event of one of the sandbox's kinds.
func (s *Sandbox) Decide(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	switch ev.Kind {
	case kind.Claim:
		return s.decideClaim(v, ev, at)
	case kind.Node:
		return s.decideNode(v, ev, at)
	case kind.Report:
		return s.decideReport(v, ev, at)
	case kind.Usage:
		return s.decideUsage(v, ev, at)
	}
	return refuse(verify.OutcomeUnsupported, fmt.Sprintf("the sandbox has no kind %q", ev.Kind))
}

// Expire ends a claim whose deadline has passed, or marks a node that has not renewed its registration.
func (s *Sandbox) Expire(v ledger.View, t ledger.Timer, at ledger.Stamp) ledger.Decision {
	switch {
	case t.Name == timerClaim && len(t.Ref) == 8:
		return s.expireClaim(v, binary.BigEndian.Uint64(t.Ref), at)
	case t.Name == timerNode && len(t.Ref) == len(nhi.ID{}):
		return s.expireNode(v, nhi.ID(t.Ref), at)
	}
	return ledger.Decision{}
}

// holds says why the authority behind a waiting claim is gone: revocation takes effect at its own index, and a claim that
// waits has not been given anything yet.
func holds(v ledger.View, c *claimRow, at int64) error {
	rv, now := ledger.RegistryView(v), v.NextIndex()
	signer, err := registry.ResolveSigner(rv, c.Key, now)
	if err != nil {
		return err
	}
	if err := signer.Live(at); err != nil {
		return err
	}
	if c.Link == (nhi.LinkID{}) {
		return nil
	}
	chain, err := registry.ResolveChain(rv, c.Link, now)
	if err != nil {
		return err
	}
	return chain.Live(at)
}

// node returns the signer if it is a sandbox node of the cluster.
func node(ev *ledger.Event) (nhi.ID, bool) {
	if ev.Signer == nil || !ev.SignerSystem || ev.Signer.Type != registry.Node || ev.Signer.Role != registry.RoleSandbox {
		return nhi.ID{}, false
	}
	return ev.Signer.ID, true
}

// refuseBody refuses a body. The detail enters the leaf, so it is made of words of this project only: the text of a library's
// error may be another one in its next version, and replicas would diverge.
func refuseBody(err error) ledger.Decision {
	if bad, ok := errors.AsType[*kind.InvalidError](err); ok {
		return refuse(verify.OutcomeInvalid, bad.Error())
	}
	if e, ok := errors.AsType[*canon.Error](err); ok {
		return refuse(verify.OutcomeInvalid, "the body is not canonical: "+e.Code.String())
	}
	return refuse(verify.OutcomeInvalid, "the body is not what its kind requires")
}

func refuse(code verify.OutcomeCode, hint string) ledger.Decision {
	const most = 512
	if len(hint) > most {
		hint = hint[:most]
	}
	return ledger.Decision{Outcome: code, Detail: (&kind.Refusal{Hint: hint}).Encode()}
}
