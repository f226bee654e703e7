package invariants

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	okind "github.com/creto-systems/creto/oversight/kind"
	skind "github.com/creto-systems/creto/sandbox/kind"
)

// The model derives every counter from the leaves of a log, by what time-and-quota.md says and by nothing the meter stores.
type quotas struct {
	c      *violations
	at     string
	loc    *time.Location
	tenant nhi.ID

	parents  map[nhi.ID]nhi.ID
	limits   map[level][]quota // by account and meter
	links    map[nhi.LinkID]*registry.Link
	leases   map[uint64]*lease
	counters map[counterID]*counter
	requests map[uint64]*okind.RequestBody // approvals, by leaf
	accounts map[uint64]nhi.ID             // of those requests' events
	claims   map[uint64]*claim             // of sandboxes, by leaf
}

// claim is what a claim of a sandbox holds room with until its usage is counted.
type claim struct {
	account nhi.ID
	link    nhi.LinkID
	leases  []uint64
}

type level struct {
	account nhi.ID
	meter   string
}

type quota struct {
	period kind.Period
	anchor int
	limit  uint64
	mode   kind.Mode
	until  int64
}

type counterID struct {
	link   bool
	id     nhi.ID
	meter  string
	period kind.Period
	start  int64
}

type counter struct {
	charged, open, excess, over uint64
	limit                       uint64
}

// sum adds, and stays at the highest number, as counters do with what lies beyond limits and grants.
func sum(a uint64, more ...uint64) uint64 {
	for _, b := range more {
		if a += b; a < b {
			return math.MaxUint64
		}
	}
	return a
}

type charge struct {
	id    counterID
	holds bool
	limit uint64
	end   int64
}

type lease struct {
	meter                  string
	granted, settled, over uint64
	taken                  uint64 // of over, what took room
	closed                 bool
	list                   []charge
}

// quotas walks every tenant's log of a replica and holds Q1 after each leaf, and what comes out against the meter's rows.
func (c *violations) quotas(rep Replica, r *Report) {
	c.logs(rep, func(t ledger.Tenant) {
		if t.Slot == ledger.SystemSlot {
			return
		}
		q := &quotas{
			c: c, at: where(rep, t), tenant: t.ID, parents: make(map[nhi.ID]nhi.ID), limits: make(map[level][]quota),
			links: make(map[nhi.LinkID]*registry.Link), leases: make(map[uint64]*lease), counters: make(map[counterID]*counter),
			requests: make(map[uint64]*okind.RequestBody), accounts: make(map[uint64]nhi.ID), claims: make(map[uint64]*claim),
		}
		var err error
		if q.loc, err = time.LoadLocation(t.Zone); err != nil {
			c.add("I6", q.at, "zone: %v", err)
			return
		}
		head, err := rep.Snap.Head(t.Slot)
		if err != nil {
			return // leaves has said so
		}
		for i := range head.Size {
			e, err := rep.Snap.Event(t.Slot, i)
			if err != nil {
				return
			}
			if !accepted(e.Leaf) {
				continue
			}
			if err := q.leaf(e); err != nil {
				c.add("I6", q.at, "leaf %d (%s): %v", i, e.Leaf.Kind, err)
				return
			}
		}
		r.Counters += len(q.counters)
		q.compare(rep, t)
	})
}

func (q *quotas) leaf(e *ledger.StoredEvent) error {
	l := e.Leaf
	var body []byte
	if e.Signature != nil {
		ev, err := nhi.DecodeEvent(e.Payload)
		if err != nil {
			return err
		}
		body = ev.Body
	} else {
		body = e.Payload
	}
	detail := e.Detail
	if l.Outcome.Code == verify.OutcomeAcceptedFlagged {
		var d ledger.FlaggedDetail
		if err := canon.Unmarshal(detail, &d); err != nil {
			return err
		}
		detail = d.Detail
	}
	switch l.Kind {
	case kind.Account:
		b, err := kind.DecodeAccountBody(body)
		if err != nil {
			return err
		}
		if b.Parent.IsZero() {
			b.Parent = q.tenant
		}
		q.parents[b.ID] = b.Parent
	case kind.Set:
		return q.set(body)
	case registry.KindRegisterLink:
		var b registry.RegisterLinkBody
		if err := canon.Unmarshal(body, &b); err != nil {
			return err
		}
		link, err := registry.DecodeLink(b.Body)
		if err != nil {
			return err
		}
		q.links[registry.LinkIDOf(b.Body)] = link
	case kind.Reserve:
		b, err := kind.DecodeReserveBody(body)
		if err != nil {
			return err
		}
		g, err := kind.DecodeGrant(detail)
		if err != nil {
			return err
		}
		if g.Granted > b.Want || g.Granted < max(b.Min, 1) {
			return fmt.Errorf("granted %d, asked for %d to %d", g.Granted, b.Min, b.Want)
		}
		return q.grant(g.Lease, l.Account, b.Meter, g.Granted, l)
	case okind.Request:
		b, err := okind.DecodeRequestBody(body)
		if err != nil {
			return err
		}
		q.requests[l.Index], q.accounts[l.Index] = b, l.Account
	case okind.Claim:
		return q.claim(body, detail, l)
	case kind.Settle:
		b, err := kind.DecodeSettleBody(body)
		if err != nil {
			return err
		}
		return q.settle(b.Lease, b.Amount)
	case kind.Close, kind.WriteOff:
		b, err := kind.DecodeCloseBody(body)
		if err != nil {
			return err
		}
		return q.close(b)
	case kind.Correct:
		b, err := kind.DecodeCorrectBody(body)
		if err != nil {
			return err
		}
		return q.correct(b)
	case kind.Usage:
		b, err := kind.DecodeUsageBody(body)
		if err != nil {
			return err
		}
		if b.Lease != 0 {
			return q.settle(b.Lease, b.Quantities[0].N)
		}
		return q.spend(l, l.Account, l.Link, false)
	case skind.Claim:
		return q.sandbox(body, detail, l)
	case skind.Report:
		b, err := skind.DecodeReportBody(body)
		if err != nil {
			return err
		}
		if b.Status == skind.Failed { // nothing was measured
			return q.release(b.Claim)
		}
	case skind.Expired:
		var b skind.Expiry
		if err := canon.Unmarshal(body, &b); err != nil {
			return err
		}
		if b.Node.IsZero() { // it never ran
			return q.release(b.Claim)
		}
	case skind.Usage:
		b, err := skind.DecodeUsageBody(body)
		if err != nil {
			return err
		}
		if err := q.release(b.Claim); err != nil {
			return err
		}
		c := q.claims[b.Claim]
		return q.spend(l, c.account, c.link, true)
	case kind.LeaseExpired:
		// Returns nothing.
	default:
		// Other domains charge what their leaves say, and what they report has happened.
		if e.Signature != nil && len(l.Quantities) > 0 {
			return q.spend(l, l.Account, l.Link, true)
		}
	}
	return nil
}

func (q *quotas) set(body []byte) error {
	b, err := kind.DecodeQuotaBody(body)
	if err != nil {
		return err
	}
	n := quota{period: b.Period, anchor: int(b.Anchor), limit: b.Limit, mode: b.Mode, until: b.Until}
	at := level{b.Account, b.Meter}
	for i := range q.limits[at] {
		if o := &q.limits[at][i]; o.period == b.Period {
			*o = n
			return nil
		}
	}
	q.limits[at] = append(q.limits[at], n)
	return nil
}

// list is the charge list of a spend: each quota of the account and its ancestors, then each budget of the chain.
func (q *quotas) list(account nhi.ID, link nhi.LinkID, m string, at int64) ([]charge, error) {
	var out []charge
	for a, depth := account, 0; ; a, depth = q.parents[a], depth+1 {
		if depth > meter.MaxDepth || a.IsZero() {
			return nil, fmt.Errorf("account %s does not lead to the root", account)
		}
		for _, k := range q.limits[level{a, m}] {
			mode := k.mode
			if mode == kind.Observe && k.until != 0 && at >= k.until {
				mode = kind.Block
			}
			inst := meter.InstanceAt(k.period, k.anchor, q.loc, at)
			out = append(out, charge{counterID{false, a, m, k.period, inst.Start}, mode == kind.Block, k.limit, inst.End})
		}
		if a == q.tenant {
			break
		}
	}
	for depth := 0; link != (nhi.LinkID{}); depth++ {
		l := q.links[link]
		if l == nil || depth > 16 {
			return nil, fmt.Errorf("link %s is not registered", link)
		}
		for _, b := range l.Budgets {
			if b.Meter == m {
				inst := meter.InstanceAt(kind.Period(b.Window), 1, q.loc, at)
				out = append(out, charge{counterID{true, registry.BudgetCounter(link), m, kind.Period(b.Window), inst.Start}, true, b.Limit, inst.End})
			}
		}
		link = l.Parent
	}
	return out, nil
}

func (q *quotas) counter(c charge) *counter {
	k := q.counters[c.id]
	if k == nil {
		k = &counter{}
		q.counters[c.id] = k
	}
	k.limit = c.limit
	return k
}

// hold checks Q1 after a counter has grown: within its limit. Only a lowered limit lets a counter lie above, and then it
// cannot grow.
func hold(c charge, k *counter, grown uint64) error {
	if grown > 0 && c.holds && k.charged+k.open > c.limit {
		return fmt.Errorf("Q1: %s of %s (%s): charged %d + open %d is above the limit %d", c.id.meter, c.id.id, c.id.period, k.charged, k.open, c.limit)
	}
	return nil
}

// room is what excess counts in and over does not.
func (k *counter) room(limit uint64) uint64 {
	if used := sum(k.charged, k.open, k.excess); used < limit {
		return limit - used
	}
	return 0
}

// limit is what the quota of a charge says now; the budget of a link says the same for ever.
func (q *quotas) limit(c charge) uint64 {
	if !c.id.link {
		for _, n := range q.limits[level{c.id.id, c.id.meter}] {
			if n.period == c.id.period {
				return n.limit
			}
		}
	}
	return c.limit
}

func (q *quotas) spend(l *verify.Leaf, account nhi.ID, link nhi.LinkID, fact bool) error {
	for _, n := range l.Quantities {
		list, err := q.list(account, link, n.Meter, l.Time)
		if err != nil {
			return err
		}
		for _, c := range list {
			k := q.counter(c)
			in := uint64(0)
			if c.holds {
				room := k.room(c.limit)
				if in = min(n.N, room); in < n.N && !fact {
					return fmt.Errorf("Q5: %d of %s accepted at %s, which has room for %d", n.N, n.Meter, c.id.id, room)
				}
				k.charged += in
			}
			k.excess = sum(k.excess, n.N-in)
			if err := hold(c, k, in); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *quotas) grant(id uint64, account nhi.ID, m string, n uint64, l *verify.Leaf) error {
	list, err := q.list(account, l.Link, m, l.Time)
	if err != nil {
		return err
	}
	if q.leases[id] != nil {
		return fmt.Errorf("lease %d was granted before", id)
	}
	for _, c := range list {
		if !c.holds {
			continue
		}
		k := q.counter(c)
		k.open += n
		if err := hold(c, k, n); err != nil {
			return err
		}
	}
	q.leases[id] = &lease{meter: m, granted: n, list: list}
	return nil
}

func (q *quotas) claim(body, detail []byte, l *verify.Leaf) error {
	b, err := okind.DecodeClaimBody(body)
	if err != nil {
		return err
	}
	d, err := okind.DecodeClaimed(detail)
	if err != nil {
		return err
	}
	req := q.requests[b.Request]
	if req == nil {
		return fmt.Errorf("request %d is not there", b.Request)
	}
	if len(d.Leases) != len(req.Reserve) {
		return fmt.Errorf("%d leases for %d reservations", len(d.Leases), len(req.Reserve))
	}
	for i, w := range req.Reserve {
		account := w.Account
		if account.IsZero() {
			account = q.accounts[b.Request]
		}
		if err := q.grant(d.Leases[i], account, w.Meter, w.Amount, l); err != nil {
			return err
		}
	}
	return nil
}

// sandbox takes the leases of a claim: one for each meter that anything counts, in the order of the limits.
func (q *quotas) sandbox(body, detail []byte, l *verify.Leaf) error {
	b, err := skind.DecodeClaimBody(body)
	if err != nil {
		return err
	}
	d, err := skind.DecodeClaimed(detail)
	if err != nil {
		return err
	}
	c := &claim{account: l.Account, link: l.Link, leases: d.Leases}
	rest := d.Leases
	for _, n := range b.Limits.Most() {
		list, err := q.list(c.account, c.link, n.Meter, l.Time)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			continue
		}
		if len(rest) == 0 {
			return fmt.Errorf("claim holds no room for %s", n.Meter)
		}
		if err := q.grant(rest[0], c.account, n.Meter, n.N, l); err != nil {
			return err
		}
		rest = rest[1:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("claim has %d leases for nothing", len(rest))
	}
	q.claims[l.Index] = c
	return nil
}

// release gives back what the leases of a claim hold that nobody has written off.
func (q *quotas) release(id uint64) error {
	c := q.claims[id]
	if c == nil {
		return fmt.Errorf("claim %d is not there", id)
	}
	for _, n := range c.leases {
		if l := q.leases[n]; l != nil && !l.closed {
			if err := q.close(&kind.CloseBody{Lease: n}); err != nil {
				return err
			}
		}
	}
	c.leases = nil
	return nil
}

func (q *quotas) settle(id, amount uint64) error {
	l := q.leases[id]
	if l == nil {
		return fmt.Errorf("lease %d was never granted", id)
	}
	in := uint64(0)
	if !l.closed {
		in = min(amount, l.granted-l.settled)
	}
	// Beyond the grant: as an ask could have had it, and as much again as was granted at most, it takes room.
	over := amount - in
	take := min(over, l.granted-l.taken)
	for _, c := range l.list {
		if c.holds {
			take = min(take, q.counter(c).room(q.limit(c)))
		}
	}
	for _, c := range l.list {
		k := q.counter(c)
		k.over = sum(k.over, over-take)
		if !c.holds {
			k.excess = sum(k.excess, in, take)
			continue
		}
		if k.open < in {
			return fmt.Errorf("counter of %s holds %d open, lease %d takes %d", c.id.id, k.open, id, in)
		}
		k.open -= in
		k.charged += in
		k.excess = sum(k.excess, take)
	}
	l.settled += in
	l.taken += take
	l.over = sum(l.over, over)
	if l.settled > l.granted {
		return fmt.Errorf("Q2: lease %d settled %d of %d", id, l.settled, l.granted)
	}
	return nil
}

func (q *quotas) close(b *kind.CloseBody) error {
	l := q.leases[b.Lease]
	switch {
	case l == nil:
		return fmt.Errorf("lease %d was never granted", b.Lease)
	case l.closed:
		return fmt.Errorf("lease %d was closed before", b.Lease)
	case b.Spent < min(sum(l.settled, l.over), kind.MaxAmount):
		return fmt.Errorf("lease %d closed with %d spent, %d were settled", b.Lease, b.Spent, l.settled+l.over)
	}
	more := uint64(0)
	if known := sum(l.settled, l.over); b.Spent > known {
		more = b.Spent - known
	}
	if err := q.settle(b.Lease, more); err != nil {
		return err
	}
	rest := l.granted - l.settled
	for _, c := range l.list {
		if c.holds {
			k := q.counters[c.id]
			if k.open < rest {
				return fmt.Errorf("counter of %s holds %d open, lease %d returns %d", c.id.id, k.open, b.Lease, rest)
			}
			k.open -= rest
		}
	}
	l.closed = true
	return nil
}

func (q *quotas) correct(b *kind.CorrectBody) error {
	id := counterID{false, b.Account, b.Meter, b.Period, b.Start}
	if !b.Link.IsZero() {
		id.link, id.id = true, registry.BudgetCounter(b.Link)
	}
	k := q.counters[id]
	if k == nil || k.excess < b.Excess || k.over < b.Over {
		return fmt.Errorf("correction takes back %d and %d of %s, which is more than the counter has", b.Excess, b.Over, b.Meter)
	}
	k.excess -= b.Excess
	k.over -= b.Over
	return nil
}

// compare holds the model against the counter rows of the store.
func (q *quotas) compare(rep Replica, t ledger.Tenant) {
	v, err := rep.Snap.View(t)
	if err != nil {
		q.c.add("I6", q.at, "view: %v", err)
		return
	}
	stored := make(map[counterID]*counter)
	err = ledger.Guard(func() error {
		var bad error
		v.Scan(meter.TableCounter, nil, nil, false, func(key, value []byte) bool {
			id, k, err := readCounter(key, value)
			if err != nil {
				bad = err
				return false
			}
			stored[id] = k
			return true
		})
		return bad
	})
	if err != nil {
		q.c.add("I6", q.at, "counters: %v", err)
		return
	}
	for id, want := range q.counters {
		got := stored[id]
		if got == nil {
			got = &counter{}
		}
		if got.charged != want.charged || got.open != want.open || got.excess != want.excess || got.over != want.over {
			q.c.add("I6", q.at, "counter of %s, %s (%s, link %t): stored charged, open, excess, over %d %d %d %d; the leaves give %d %d %d %d",
				id.id, id.meter, id.period, id.link, got.charged, got.open, got.excess, got.over, want.charged, want.open, want.excess, want.over)
		}
		delete(stored, id)
	}
	for id, k := range stored {
		if k.charged|k.open|k.excess|k.over != 0 {
			q.c.add("I6", q.at, "counter of %s, %s (%s): stored charged, open, excess, over %d %d %d %d; no leaf charges it",
				id.id, id.meter, id.period, k.charged, k.open, k.excess, k.over)
		}
	}
}

// readCounter parses a row of meter/DESIGN.md's table 0x33.
func readCounter(key, value []byte) (id counterID, k *counter, err error) {
	if len(key) < 1+16+1+1+8 || key[0] != 'a' && key[0] != 'l' {
		return id, nil, errors.New("counter key is malformed")
	}
	id.link = key[0] == 'l'
	copy(id.id[:], key[1:])
	rest := key[17:]
	end := bytes.IndexByte(rest, 0)
	if end < 0 || len(rest) != end+1+1+8 {
		return id, nil, errors.New("counter key is malformed")
	}
	id.meter, id.period = string(rest[:end]), kind.Period(rest[end+1])
	id.start = int64(binary.BigEndian.Uint64(rest[end+2:]) ^ 1<<63)
	k = &counter{}
	if len(value) == 0 || value[0] != 1 {
		return id, nil, errors.New("counter row is of another version")
	}
	value = value[1:]
	for _, n := range []*uint64{&k.charged, &k.open, &k.excess, &k.over} {
		u, size := binary.Uvarint(value)
		if size <= 0 {
			return id, nil, errors.New("counter row is malformed")
		}
		*n, value = u, value[size:]
	}
	if sum(k.charged, k.open) > math.MaxInt64 {
		return id, nil, errors.New("counter row is out of range")
	}
	return id, k, nil
}
