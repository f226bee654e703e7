package node

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter"
	meterkind "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox"
)

// charger holds room for what sandboxes may use, and counts what they have used.
type charger struct{ meter *meter.Meter }

var _ sandbox.Charger = charger{}

func (c charger) Tables() []ledger.Table { return c.meter.Tables() }

// Reserve takes a lease for each quantity that a quota or a budget counts; without one there is nothing to hold room in.
func (c charger) Reserve(v ledger.View, at ledger.Stamp, u sandbox.Charge, ttl int64) ([]uint64, ledger.Decision) {
	var chain *registry.Chain
	if !u.Link.IsZero() {
		var err error
		if chain, err = registry.ResolveChain(ledger.RegistryView(v), u.Link, v.NextIndex()); err != nil {
			return nil, ledger.Decision{Outcome: ledger.OutcomeOf(registry.CodeOf(err))}
		}
	}
	holder := leaseHolder(v, u.Claim)
	ttl = min(ttl, int64(meterkind.MaxLeaseTTL))
	var counted []meter.Reservation
	for _, q := range u.Quantities {
		// All of it or nothing: the run may use all of it.
		r := meter.Reservation{Account: u.Account, Meter: q.Meter, Want: q.N, Min: q.N, TTL: ttl}
		g, _, _, refused := c.meter.Reserve(v, at, chain, holder, r)
		if refused != nil {
			return nil, refused.Decision()
		}
		if g.Period != nil {
			counted = append(counted, r)
		}
	}
	grants, writes, timers, refused := c.meter.ReserveAll(v, at, chain, holder, counted)
	if refused != nil {
		return nil, refused.Decision()
	}
	var leases []uint64
	for _, g := range grants {
		leases = append(leases, g.Lease)
	}
	return leases, ledger.Decision{Outcome: verify.OutcomeAccepted, Writes: writes, Timers: timers}
}

// leaseHolder is who holds the leases of a claim: an id that nobody can sign as, SHA-256("creto/sandbox/lease/v1\0" ‖ ledger
// ‖ tenant ‖ claim)[:16]. An agent that held them could close them while its run goes on.
func leaseHolder(v ledger.View, claim uint64) nhi.ID {
	id, tenant := v.LedgerID(), v.Tenant().ID
	b := append([]byte("creto/sandbox/lease/v1\x00"), id[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(append(b, tenant[:]...), claim))
	return nhi.ID(sum[:16])
}

func (c charger) Release(v ledger.View, at ledger.Stamp, leases []uint64) ledger.Decision {
	s := &steps{View: v, rows: make(map[rowKey]int), d: ledger.Decision{Outcome: verify.OutcomeAccepted}}
	c.close(s, at, leases)
	return s.d
}

// close closes leases with nothing spent: what was used, if anything, is charged by itself, under the agent's name.
func (c charger) close(s *steps, at ledger.Stamp, leases []uint64) {
	for _, id := range leases {
		l, ok := meter.LookupLease(s, id)
		if !ok {
			continue
		}
		body, err := meterkind.CloseBody{Lease: id}.Encode()
		if err != nil {
			continue
		}
		// A lease that was written off meanwhile is closed: then nothing comes of it.
		if d := c.meter.Decide(s, &ledger.Event{Event: &nhi.Event{Kind: meterkind.Close, Agent: l.Holder, Body: body}}, at); d.Outcome == verify.OutcomeAccepted {
			s.take(d.Writes, d.Timers, d.Leaves)
		}
	}
}

func (c charger) Charge(v ledger.View, at ledger.Stamp, leases []uint64, u sandbox.Charge) ledger.Decision {
	s := &steps{View: v, rows: make(map[rowKey]int), d: ledger.Decision{Outcome: verify.OutcomeAccepted}}
	c.close(s, at, leases)
	usage := meter.Usage{Account: u.Account, Agent: u.Agent, Link: u.Link, Quantities: u.Quantities, Fact: true}
	if !u.Link.IsZero() {
		// A chain that holds no longer has no budgets left to charge; the usage counts all the same.
		if chain, err := registry.ResolveChain(ledger.RegistryView(v), u.Link, v.NextIndex()); err == nil {
			usage.Chain = chain
		}
	}
	writes, leaves, refused := c.meter.Charge(s, at, usage)
	if refused != nil {
		return refused.Decision()
	}
	s.take(writes, nil, leaves)
	return s.d
}

// steps is a view in which each step of one decision sees the rows that earlier ones write. It shows them to Get; the meter
// scans none of its tables in a decision.
type steps struct {
	ledger.View
	rows map[rowKey]int // → d.Writes; never ranged over
	d    ledger.Decision
}

type rowKey struct {
	table ledger.Table
	key   string
}

// Get returns a row as it is after the steps so far.
func (s *steps) Get(t ledger.Table, key []byte) ([]byte, bool) {
	if i, ok := s.rows[rowKey{t, string(key)}]; ok {
		w := &s.d.Writes[i]
		return w.Value, !w.Delete
	}
	return s.View.Get(t, key)
}

// take adds a step; each row is written once, as the last step has it.
func (s *steps) take(writes []ledger.Write, timers []ledger.Timer, leaves []ledger.SystemLeaf) {
	for _, w := range writes {
		k := rowKey{w.Table, string(w.Key)}
		if i, ok := s.rows[k]; ok {
			s.d.Writes[i] = w
			continue
		}
		s.rows[k] = len(s.d.Writes)
		s.d.Writes = append(s.d.Writes, w)
	}
	s.d.Timers = append(s.d.Timers, timers...)
	s.d.Leaves = append(s.d.Leaves, leaves...)
}
