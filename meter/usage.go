package meter

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// MaxCellMeters is how many different meters one agent may ask to use in one hour at one account under one link. What has
// happened is counted beyond them, each further meter in a row of its own.
const MaxCellMeters = 64

func (m *Meter) decideUsage(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.ReadUsageBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	if b.Lease != 0 {
		q := b.Quantities[0]
		return m.settle(v, ev, at, settlement{lease: b.Lease, meter: q.Meter, amount: q.N, from: b.From, to: b.To})
	}
	if r := refuseAtQuality(v, at); r != nil {
		return r.Decision()
	}
	c := m.charges(v, at)
	if r := c.open(ev.Account, ev.Chain); r != nil {
		return r.Decision()
	}
	if r := c.checkCaps(ev, b.Quantities); r != nil {
		return r.Decision()
	}
	if r := c.spendAll(b.Quantities, false); r != nil {
		return r.Decision()
	}
	d := ledger.Decision{Quantities: b.Quantities, Leaves: c.notices()}
	var r *Refusal
	if d.Writes, r = c.finish(ev.Account, ev.Agent, ev.Link, b.Quantities, false); r != nil {
		return r.Decision()
	}
	if len(c.observed) > 0 {
		d.Detail = canon.MustMarshal(kind.UsageDetail{WouldDeny: c.observed})
	}
	return d
}

// Usage is what was used, for Charge.
type Usage struct {
	Account    nhi.ID
	Agent      nhi.ID            // who used it
	Link       nhi.LinkID        // the chain it acted under, zero = itself
	Chain      *registry.Chain   // that chain, whose budgets are charged; nil if it holds no longer
	Quantities []verify.Quantity // ascending by meter, each once
	// Fact: it has happened. Then nothing is refused for want of room: what a counter has none for becomes excess.
	Fact bool
}

// Charge counts usage as part of another domain's decision, in the same step. It is a pure function: the caller's decision
// carries the writes and leaves, and names the quantities, or the sums that queries give are not those of the leaves.
func (m *Meter) Charge(v ledger.View, at ledger.Stamp, u Usage) ([]ledger.Write, []ledger.SystemLeaf, *Refusal) {
	if len(u.Quantities) == 0 || len(u.Quantities) > kind.MaxQuantities {
		return nil, nil, refusal(verify.OutcomeInvalid, "quantities are none or too many")
	}
	for i, q := range u.Quantities {
		if kind.CheckMeter(q.Meter) != nil || q.N > kind.MaxAmount || i > 0 && u.Quantities[i-1].Meter >= q.Meter {
			return nil, nil, refusal(verify.OutcomeInvalid, "quantities are out of range or out of order")
		}
	}
	if !u.Fact {
		if r := refuseAtQuality(v, at); r != nil {
			return nil, nil, r
		}
	}
	c := m.charges(v, at)
	if r := c.open(u.Account, u.Chain); r != nil {
		return nil, nil, r
	}
	if r := c.spendAll(u.Quantities, u.Fact); r != nil {
		return nil, nil, r
	}
	leaves := c.notices()
	writes, r := c.finish(u.Account, u.Agent, u.Link, u.Quantities, u.Fact)
	if r != nil {
		return nil, nil, r
	}
	return writes, leaves, nil
}

// spendAll charges quantities directly, each to its own counters.
func (c *charges) spendAll(qs []verify.Quantity, fact bool) *Refusal {
	var buf [MaxCounters]int
	for _, q := range qs {
		list, r := c.list(q.Meter, buf[:0])
		if r != nil {
			return r
		}
		c.wouldDeny(list, q.N)
		if r := c.spend(list, q.N, fact); r != nil {
			return r
		}
	}
	return nil
}

// finish returns the writes of a decision: the counters that changed, and usage.
func (c *charges) finish(account, agent nhi.ID, link nhi.LinkID, qs []verify.Quantity, fact bool) ([]ledger.Write, *Refusal) {
	return c.count(c.writes(make([]ledger.Write, 0, len(c.counters)+len(c.path))), account, agent, link, qs, fact)
}

// wouldDeny remembers what the quotas under observation have to say about a spend.
func (c *charges) wouldDeny(list []int, n uint64) {
	for _, i := range list {
		if k := &c.counters[i]; k.mode == kind.Observe && n > k.room() && len(c.observed) < kind.MaxWouldDeny {
			r := k.exhausted(n).Refusal
			r.Hint = "would_deny: the quota is under observation"
			c.observed = append(c.observed, r)
		}
	}
}

// checkCaps holds what one request uses against the caps of the chain's scopes (delegation rule 7). The ledger has checked
// the chain without amounts, which only the meter knows.
func (c *charges) checkCaps(ev *ledger.Event, qs []verify.Quantity) *Refusal {
	if !hasCaps(ev.Chain) {
		return nil
	}
	req := registry.RequestOf(ev.Event, ev.Signer.ID, c.at, registry.Path(c.path))
	req.Amounts = make([]registry.Amount, len(qs))
	for i, q := range qs {
		req.Amounts[i] = registry.Amount{Meter: q.Meter, N: q.N}
	}
	if err := ev.Chain.Allows(req); err != nil {
		return refusal(verify.OutcomeUnauthorized, "the chain's caps allow less in one request")
	}
	return nil
}

func hasCaps(chain *registry.Chain) bool {
	if chain == nil {
		return false
	}
	for _, l := range chain.Links {
		for i := range l.Scopes {
			if len(l.Scopes[i].Caps) > 0 {
				return true
			}
		}
	}
	return false
}

// Usage is counted in cells: one for each level from the charged account up to the root, hour, charged account, agent and
// link, holding every meter's sum and count. A query of any subtree over any window reads the cells of its root only. A
// meter that a full cell has no place for has a cell of its own, whose key ends in its name.

const cellKeySize = 16 + 8 + 16 + 16 + 32

type cellKey struct {
	level, account, agent nhi.ID
	link                  nhi.LinkID
	hour                  int64 // start, ns
}

func (k *cellKey) append(b []byte) []byte {
	b = appendTime(append(b, k.level[:]...), k.hour)
	b = append(append(b, k.account[:]...), k.agent[:]...)
	return append(b, k.link[:]...)
}

func readCellKey(b []byte) (k cellKey) {
	if len(b) < cellKeySize {
		panic(&CorruptRowError{Table: TableUsage, Key: append([]byte(nil), b...)})
	}
	copy(k.level[:], b)
	k.hour = readTime(b[16:])
	copy(k.account[:], b[24:])
	copy(k.agent[:], b[40:])
	copy(k.link[:], b[56:])
	return k
}

// count appends the writes that count quantities, ascending by meter, as used at account by agent under link. It refuses
// asks only, for a meter too many in a cell.
func (c *charges) count(dst []ledger.Write, account, agent nhi.ID, link nhi.LinkID, qs []verify.Quantity, fact bool) ([]ledger.Write, *Refusal) {
	hour := c.hour().Start
	c.arena = slices.Grow(c.arena, len(c.path)*(cellKeySize+16+32*len(qs)))
	for _, level := range c.path {
		k := cellKey{level: level, hour: hour, account: account, agent: agent, link: link}
		start := len(c.arena)
		c.arena = k.append(c.arena)
		key := c.kept(start)
		old, _ := c.v.Get(TableUsage, key)
		start = len(c.arena)
		var rest []verify.Quantity
		c.arena, rest = addToCell(c.arena, key, old, qs)
		dst = append(dst, ledger.Write{Table: TableUsage, Key: key, Value: c.kept(start)})
		for i := range rest {
			start := len(c.arena)
			c.arena = append(append(c.arena, key...), rest[i].Meter...)
			key := c.kept(start)
			old, ok := c.v.Get(TableUsage, key)
			if !ok && !fact {
				return nil, refusal(verify.OutcomeLimit, "too many different meters in one hour")
			}
			start = len(c.arena)
			c.arena, _ = addToCell(c.arena, key, old, rest[i:i+1])
			dst = append(dst, ledger.Write{Table: TableUsage, Key: key, Value: c.kept(start)})
		}
	}
	return dst, nil
}

// hour is the hour that usage is counted in: of the tenant's zone, or of UTC while the system log has no rules for it.
func (c *charges) hour() Instance {
	i, r := c.instance(kind.Hour, 0)
	if r != nil {
		return InstanceAt(kind.Hour, 0, time.UTC, c.at)
	}
	return i
}

// addToCell appends a cell's value with quantities merged into it to out: version, then meters in ascending order, each
// {length, name, sum, count}. old may be nil. It returns the quantities whose meters the cell is too full for. Sums stay at
// 2^64−1 once they are there.
func addToCell(out, key, old []byte, qs []verify.Quantity) ([]byte, []verify.Quantity) {
	r := rowReader{}
	free := MaxCellMeters
	if old != nil {
		r = readRow(old)
		cellMeters(key, old, func([]byte, uint64, uint64) { free-- })
	}
	out = append(out, rowVersion)
	emit := func(meter []byte, sum, count uint64) {
		out = append(append(out, byte(len(meter))), meter...)
		out = binary.AppendUvarint(binary.AppendUvarint(out, sum), count)
	}
	var rest []verify.Quantity
	var name []byte
	var sum, count uint64
	next := func() {
		name = nil
		if !r.bad && len(r.b) > 0 {
			name = r.bytes(int(r.byte()))
			sum, count = r.uint(), r.uint()
		}
	}
	next()
	for i := 0; i < len(qs); {
		switch q := &qs[i]; {
		case name != nil && string(name) < q.Meter:
			emit(name, sum, count)
			next()
		case name != nil && string(name) == q.Meter:
			emit(name, addSat(sum, q.N), count+1)
			next()
			i++
		case free <= 0:
			rest = append(rest, *q)
			i++
		default:
			out = append(append(out, byte(len(q.Meter))), q.Meter...)
			out = binary.AppendUvarint(binary.AppendUvarint(out, q.N), 1)
			free--
			i++
		}
	}
	for name != nil {
		emit(name, sum, count)
		next()
	}
	if old != nil {
		r.end(TableUsage, key)
	}
	return out, rest
}

// cellMeters calls fn for every meter of a cell.
func cellMeters(key, value []byte, fn func(meter []byte, sum, count uint64)) {
	r := readRow(value)
	for !r.bad && len(r.b) > 0 {
		name := r.bytes(int(r.byte()))
		sum, count := r.uint(), r.uint()
		if !r.bad {
			fn(name, sum, count)
		}
	}
	r.end(TableUsage, key)
}
