package meter

import (
	"encoding/binary"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// MaxReservations bounds the leases of one event.
const MaxReservations = 16

// leaseShift places the number of a lease within its event above the leaf's index, which is below 2^53: the first, and for
// quota.reserve the only, lease of an event has the index of the event's leaf as its id.
const leaseShift = 53

// LeaseState says where a lease stands.
type LeaseState uint8

// The states of a lease. An expired lease still holds what its holder has not accounted for; only Closed and WrittenOff
// have given it back.
const (
	LeaseOpen       LeaseState = 1
	LeaseExpired    LeaseState = 2
	LeaseClosed     LeaseState = 3
	LeaseWrittenOff LeaseState = 4
)

var leaseStateNames = [...]string{LeaseOpen: "open", LeaseExpired: "expired", LeaseClosed: "closed", LeaseWrittenOff: "written_off"}

// String returns the name used in APIs.
func (s LeaseState) String() string {
	if s >= LeaseOpen && s <= LeaseWrittenOff {
		return leaseStateNames[s]
	}
	return "unknown"
}

// holdsUnits says whether counters still count the lease as open.
func (s LeaseState) holdsUnits() bool { return s == LeaseOpen || s == LeaseExpired }

// Lease is a right to spend up to Granted of a meter at an account. It belongs for ever to the period instances of its
// grant, and is charged to the levels that stood above the account then.
type Lease struct {
	ID        uint64
	State     LeaseState
	Holder    nhi.ID     // who alone may settle and close it
	Link      nhi.LinkID // chain it was granted under, zero = the holder itself
	Account   nhi.ID
	Meter     string
	Granted   uint64
	Settled   uint64 // spent within the grant
	Over      uint64 // claimed beyond it, or after it was closed; stays at 2^64−1 once it is there
	Taken     uint64 // of Over, what took room as excess: at most Granted
	Next      uint64 // the sequence number that the next settlement begins with
	GrantedAt int64  // ns
	Expires   int64  // ns

	charges []counterRef
}

func (l *Lease) unsettled() uint64 { return l.Granted - l.Settled }

func leaseKey(id uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 8), id) }

func (l *Lease) row() []byte {
	b := make([]byte, 0, 128+len(l.Meter)+40*len(l.charges))
	b = append(b, rowVersion, byte(l.State))
	b = append(append(append(b, l.Holder[:]...), l.Link[:]...), l.Account[:]...)
	b = append(binary.AppendUvarint(b, uint64(len(l.Meter))), l.Meter...)
	for _, n := range [...]uint64{l.Granted, l.Settled, l.Over, l.Taken, l.Next} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendVarint(binary.AppendVarint(b, l.GrantedAt), l.Expires)
	b = append(b, byte(len(l.charges)))
	for i := range l.charges {
		c := &l.charges[i]
		flags := byte(0)
		if c.link {
			flags |= 1
		}
		if c.holds {
			flags |= 2
		}
		b = append(append(b, flags, byte(c.inst.Period)), c.id[:]...)
		b = binary.AppendVarint(binary.AppendVarint(b, c.inst.Start), c.inst.End)
		if c.link {
			b = binary.AppendUvarint(b, c.budget)
		}
	}
	return b
}

// LookupLease returns a lease of the view's tenant.
func LookupLease(v ledger.View, id uint64) (*Lease, bool) {
	key := leaseKey(id)
	value, ok := v.Get(TableLease, key)
	if !ok {
		return nil, false
	}
	r := readRow(value)
	l := &Lease{ID: id, State: LeaseState(r.byte()), Holder: r.id()}
	copy(l.Link[:], r.bytes(len(l.Link)))
	l.Account, l.Meter = r.id(), string(r.str())
	l.Granted, l.Settled, l.Over, l.Taken, l.Next = r.uint(), r.uint(), r.uint(), r.uint(), r.uint()
	l.GrantedAt, l.Expires = r.int(), r.int()
	l.charges = make([]counterRef, r.byte())
	for i := range l.charges {
		flags := r.byte()
		l.charges[i] = counterRef{link: flags&1 != 0, holds: flags&2 != 0}
		l.charges[i].inst.Period, l.charges[i].id = kind.Period(r.byte()), r.id()
		l.charges[i].inst.Start, l.charges[i].inst.End = r.int(), r.int()
		if l.charges[i].link {
			l.charges[i].budget = r.uint()
		}
	}
	r.end(TableLease, key)
	if l.Settled > l.Granted || l.Taken > min(l.Granted, l.Over) {
		panic(&CorruptRowError{Table: TableLease, Key: key})
	}
	return l, true
}

// citesLease says whether a fact cites a lease of its signer's.
func citesLease(v ledger.View, ev *ledger.Event) bool {
	id, ok := citedLease(ev)
	if !ok {
		return false
	}
	l, ok := LookupLease(v, id)
	return ok && l.Holder == ev.Agent
}

func citedLease(ev *ledger.Event) (uint64, bool) {
	switch ev.Kind {
	case kind.Usage:
		b, err := kind.ReadUsageBody(ev.Body)
		return b.Lease, err == nil && b.Lease != 0
	case kind.Settle:
		b, err := kind.DecodeSettleBody(ev.Body)
		return b.Lease, err == nil
	case kind.Close:
		b, err := kind.DecodeCloseBody(ev.Body)
		return b.Lease, err == nil
	}
	return 0, false
}

// Reservation asks for a lease.
type Reservation struct {
	Account nhi.ID
	Meter   string
	Want    uint64 // at most this much
	Min     uint64 // and no less than this; 0 = 1
	TTL     int64  // ns; 0 = DefaultLeaseTTL
}

func (r Reservation) check() error {
	b := kind.ReserveBody{Meter: r.Meter, Want: r.Want, Min: r.Min, TTL: r.TTL}
	return b.Check()
}

// Reserve grants one lease; see ReserveAll.
func (m *Meter) Reserve(v ledger.View, at ledger.Stamp, chain *registry.Chain, holder nhi.ID, r Reservation) (kind.Grant, []ledger.Write, []ledger.Timer, *Refusal) {
	gs, ws, ts, refused := m.ReserveAll(v, at, chain, holder, []Reservation{r})
	if refused != nil {
		return kind.Grant{}, nil, nil, refused
	}
	return gs[0], ws, ts, nil
}

// ReserveAll grants holder a lease for every reservation, or none at all. It is a pure function, made for handlers of other
// domains: the caller's decision carries the writes and timers. Later reservations see earlier ones. chain is nil for a
// holder who acts for itself. A lease expires at its ttl, or earlier at the end of the first period it was granted by.
func (m *Meter) ReserveAll(v ledger.View, at ledger.Stamp, chain *registry.Chain, holder nhi.ID, rs []Reservation) ([]kind.Grant, []ledger.Write, []ledger.Timer, *Refusal) {
	if len(rs) > MaxReservations {
		return nil, nil, nil, refusal(verify.OutcomeLimit, "too many reservations in one event")
	}
	if r := refuseAtQuality(v, at); r != nil {
		return nil, nil, nil, r
	}
	var (
		c       = m.charges(v, at)
		grants  = make([]kind.Grant, 0, len(rs))
		writes  = make([]ledger.Write, 0, 4*len(rs))
		timers  = make([]ledger.Timer, 0, len(rs))
		listBuf [MaxCounters]int
	)
	for i, r := range rs {
		if err := r.check(); err != nil {
			return nil, nil, nil, badBody(err)
		}
		if refused := c.open(r.Account, chain); refused != nil {
			return nil, nil, nil, refused
		}
		list, refused := c.list(r.Meter, listBuf[:0])
		if refused != nil {
			return nil, nil, nil, refused
		}
		g := r.Want
		if t, room := c.tightest(list); t != nil && room < g {
			if g = room; g < max(r.Min, 1) {
				return nil, nil, nil, t.exhausted(max(r.Min, 1))
			}
		}
		ttl := r.TTL
		if ttl == 0 {
			ttl = int64(kind.DefaultLeaseTTL)
		}
		l := Lease{
			ID: v.NextIndex() | uint64(i)<<leaseShift, State: LeaseOpen, Holder: holder, Account: r.Account, Meter: r.Meter,
			Granted: g, GrantedAt: at.Time, Expires: at.Time + ttl, charges: make([]counterRef, 0, len(list)),
		}
		if chain != nil {
			l.Link = chain.ID()
		}
		grant := kind.Grant{Lease: l.ID, Granted: g}
		for _, j := range list {
			k := &c.counters[j]
			if k.holds {
				k.open += g // ≤ limit
				k.dirty = true
			}
			l.charges = append(l.charges, k.counterRef)
			l.Expires = min(l.Expires, k.inst.End)
			if p := grant.Period; p == nil || k.inst.End < p.End {
				grant.Period = &kind.GrantedFor{Period: k.inst.Period, Start: k.inst.Start, End: k.inst.End}
			}
		}
		grant.Expires = l.Expires
		grants = append(grants, grant)
		writes = append(writes, ledger.Write{Table: TableLease, Key: leaseKey(l.ID), Value: l.row()})
		timers = append(timers, l.timer(false))
	}
	return grants, c.writes(writes), timers, nil
}

func (l *Lease) timer(cancel bool) ledger.Timer {
	return ledger.Timer{Due: l.Expires, Name: timerLease, Ref: leaseKey(l.ID), Cancel: cancel}
}

func (m *Meter) decideReserve(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeReserveBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	r := Reservation{Account: ev.Account, Meter: b.Meter, Want: b.Want, Min: b.Min, TTL: b.TTL}
	if hasCaps(ev.Chain) {
		req := registry.RequestOf(ev.Event, ev.Signer.ID, at.Time, Tree{v})
		if most, capped := ev.Chain.Cap(req, b.Meter); capped && r.Want > most {
			if r.Want = most; r.Want < max(r.Min, 1) {
				return refuse(verify.OutcomeUnauthorized, "the chain's caps allow less in one request")
			}
		}
	}
	g, writes, timers, refused := m.Reserve(v, at, ev.Chain, ev.Agent, r)
	if refused != nil {
		return refused.Decision()
	}
	return ledger.Decision{Detail: g.Encode(), Writes: writes, Timers: timers}
}

// settlement is what a holder says it has spent under a lease.
type settlement struct {
	lease    uint64
	meter    string // empty = the lease's
	amount   uint64
	from, to uint64
}

func (m *Meter) decideSettle(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeSettleBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	return m.settle(v, ev, at, settlement{lease: b.Lease, amount: b.Amount, from: b.From, to: b.To})
}

func (m *Meter) settle(v ledger.View, ev *ledger.Event, at ledger.Stamp, s settlement) ledger.Decision {
	l, refused := ownLease(v, ev, s.lease)
	if refused != nil {
		return refused.Decision()
	}
	if s.meter != "" && s.meter != l.Meter {
		return refuse(verify.OutcomeInvalid, "the lease is of another meter")
	}
	switch {
	case s.to <= l.Next:
		return refuse(verify.OutcomeConflict, "these sequence numbers of the lease are settled")
	case s.from != l.Next:
		return refuse(verify.OutcomeConflict, "sequence numbers settle in order and without gaps")
	}
	c := m.charges(v, at)
	over := c.spendLease(l, s.amount)
	l.Next = s.to
	d := ledger.Decision{
		Quantities: []verify.Quantity{{Meter: l.Meter, N: s.amount}},
		Lease:      &verify.LeaseRef{ID: l.ID, From: s.from, To: s.to},
	}
	if over > 0 {
		d.Detail = canon.MustMarshal(kind.OverClaim{Lease: l.ID, Over: over, Sum: l.Over})
	}
	return c.finishLease(d, l, d.Quantities)
}

// ownLease returns a lease that the event's signer holds.
func ownLease(v ledger.View, ev *ledger.Event, id uint64) (*Lease, *Refusal) {
	l, ok := LookupLease(v, id)
	switch {
	case !ok:
		return nil, refusal(verify.OutcomeNotFound, "the lease does not exist")
	case l.Holder != ev.Agent:
		return nil, refusal(verify.OutcomeUnauthorized, "the lease is held by somebody else")
	case !ev.Account.IsZero() && ev.Account != l.Account:
		return nil, refusal(verify.OutcomeInvalid, "the lease is of another account")
	}
	return l, nil
}

// spendLease charges amount to the counters of a lease and returns how much of it was beyond the grant. A statement of what
// was spent is never refused or dropped:
//
//   - Within the grant it goes from open to charged.
//   - Beyond the grant, and once the lease is closed, it goes to excess as far as an ask of the same lease and size could
//     have had it: what every blocking level has room for, and at most as much again as was granted.
//   - All else goes to over, which takes nobody's room.
//
// Where the counter held nothing, what is charged elsewhere is excess.
func (c *charges) spendLease(l *Lease, amount uint64) (over uint64) {
	in := uint64(0)
	if l.State.holdsUnits() {
		in = min(amount, l.unsettled())
	}
	over = amount - in
	var buf [MaxCounters]int
	list := buf[:0]
	for i := range l.charges {
		list = append(list, c.loadCharge(&l.charges[i], l.Meter))
	}
	take := min(over, l.Granted-l.Taken)
	if _, room := c.tightest(list); room < take {
		take = room
	}
	for _, i := range list {
		k := &c.counters[i]
		if k.holds {
			c.release(k, in)
			k.charged += in // what left open
			k.excess = addSat(k.excess, take)
		} else {
			k.excess = addSat(k.excess, addSat(in, take))
		}
		k.over = addSat(k.over, over-take)
		k.dirty = true
	}
	l.Settled += in
	l.Taken += take
	l.Over = addSat(l.Over, over)
	return over
}

// release takes n units of a lease out of what a counter holds open.
func (c *charges) release(k *counter, n uint64) {
	if n > k.open {
		panic(&CorruptRowError{Table: TableCounter, Key: k.appendKey(nil, k.meter)})
	}
	k.open -= n
}

// loadCharge loads a counter of a lease's charge list, with the limit and thresholds that its quota has now.
func (c *charges) loadCharge(ref *counterRef, meter string) int {
	n := counter{counterRef: *ref, meter: meter, limit: ref.budget}
	if !ref.link {
		c.key = append(append(c.key[:0], ref.id[:]...), meter...)
		if value, ok := c.v.Get(TableQuota, c.key); ok {
			for _, q := range readQuotas(c.quotaBuf[:0], c.key, value) {
				if q.Period == ref.inst.Period {
					n.limit, n.mode, n.thresholds = q.Limit, q.Mode, q.Thresholds
				}
			}
		}
	}
	return c.load(n)
}

// finishLease completes a decision about a lease: its row, its counters, usage and notices.
func (c *charges) finishLease(d ledger.Decision, l *Lease, qs []verify.Quantity) ledger.Decision {
	if len(qs) > 0 {
		path, ok := Path(c.v, l.Account, c.pathBuf[:0])
		if !ok {
			panic(&CorruptRowError{Table: TableAccount, Key: l.Account[:]})
		}
		c.path = path
		d.Writes, _ = c.count(d.Writes, l.Account, l.Holder, l.Link, qs, true)
	}
	d.Leaves = c.notices()
	d.Writes = append(d.Writes, ledger.Write{Table: TableLease, Key: leaseKey(l.ID), Value: l.row()})
	d.Writes = c.writes(d.Writes)
	return d
}

func (m *Meter) decideClose(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeCloseBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	state := LeaseClosed
	var l *Lease
	if ev.Kind == kind.WriteOff {
		state = LeaseWrittenOff
		var ok bool
		if l, ok = LookupLease(v, b.Lease); !ok {
			return refuse(verify.OutcomeNotFound, "the lease does not exist")
		}
		if !mayWriteOff(v, ev, l) {
			return refuse(verify.OutcomeUnauthorized, "only the authority, or who set every quota of the lease, writes it off")
		}
	} else {
		var r *Refusal
		if l, r = ownLease(v, ev, b.Lease); r != nil {
			return r.Decision()
		}
	}
	if !l.State.holdsUnits() {
		return refuse(verify.OutcomeClosed, "the lease is closed")
	}
	// A lease of which more was claimed than one statement can say is closed by the highest that one can.
	known := addSat(l.Settled, l.Over)
	if b.Spent < min(known, kind.MaxAmount) {
		return refuse(verify.OutcomeConflict, "more was settled under the lease than this says was spent")
	}
	c := m.charges(v, at)
	rest := subSat(b.Spent, known)
	c.spendLease(l, rest)
	var d ledger.Decision
	returned := l.unsettled()
	for i := range l.charges {
		if l.charges[i].holds {
			c.release(&c.counters[c.loadCharge(&l.charges[i], l.Meter)], returned)
		}
	}
	if l.State == LeaseOpen {
		d.Timers = []ledger.Timer{l.timer(true)}
	}
	l.State = state
	d.Lease = &verify.LeaseRef{ID: l.ID, From: l.Next, To: l.Next}
	if rest > 0 {
		d.Quantities = []verify.Quantity{{Meter: l.Meter, N: rest}}
	}
	d.Detail = canon.MustMarshal(kind.Closed{Lease: l.ID, Settled: l.Settled, Returned: returned, Over: l.Over})
	return c.finishLease(d, l, d.Quantities)
}

// mayWriteOff: the tenant's authority may, and so may whoever signed the quota behind every counter of the lease. Budgets
// of links belong to their issuers, so a lease charged to one is left to the authority.
func mayWriteOff(v ledger.View, ev *ledger.Event, l *Lease) bool {
	if ev.Signer == nil || ev.SignerSystem {
		return false
	}
	if ev.Signer.Type == registry.Authority {
		return true
	}
	for i := range l.charges {
		if c := &l.charges[i]; c.link || !setQuota(v, ev.Agent, c.id, l.Meter, c.inst.Period) {
			return false
		}
	}
	return len(l.charges) > 0
}

func expireLease(v ledger.View, id uint64) ledger.Decision {
	l, ok := LookupLease(v, id)
	if !ok || l.State != LeaseOpen {
		return ledger.Decision{}
	}
	l.State = LeaseExpired
	return ledger.Decision{
		Writes: []ledger.Write{{Table: TableLease, Key: leaseKey(id), Value: l.row()}},
		Leaves: []ledger.SystemLeaf{{
			Kind: kind.LeaseExpired, Agent: l.Holder, Link: l.Link, Account: l.Account, CauseKind: verify.CauseTick, Ref: leaseKey(id),
			Lease: &verify.LeaseRef{ID: id, From: l.Next, To: l.Next},
			Body:  canon.MustMarshal(kind.LeaseExpiry{Lease: id, Granted: l.Granted, Settled: l.Settled, Burned: l.unsettled()}),
		}},
	}
}
