package meter

import (
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// MaxCounters is how many counters one spend of one meter touches at most: each level's, for each of its periods.
const MaxCounters = 24

// counterRef names a counter and, in a lease, whether it holds the lease's units.
type counterRef struct {
	link   bool   // the budget of a link
	id     nhi.ID // of an account, or registry.BudgetCounter of the link
	inst   Instance
	holds  bool       // mode block when it was charged: Q1 counts it; else all of it is excess
	budget uint64     // of a link: its limit, which never changes
	linkID nhi.LinkID // to name the level by; not kept in leases
}

func (c *counterRef) appendKey(b []byte, meter string) []byte {
	kind := byte(levelAccount)
	if c.link {
		kind = levelLink
	}
	b = append(append(b, kind), c.id[:]...)
	b = append(append(b, meter...), 0, byte(c.inst.Period))
	return appendTime(b, c.inst.Start)
}

// counter is the state of one counter while a decision is made.
type counter struct {
	counterRef
	meter      string
	limit      uint64
	mode       kind.Mode // in force at the stamp
	thresholds []uint16

	charged, open uint64
	// What Q1 does not count. Both stay at 2^64−1 once they are there: no statement of what was spent is refused because
	// others came before it, and the leaves have the amounts.
	excess   uint64 // takes room: spent where the quota does not block, or beyond a grant as far as an ask could have had it
	over     uint64 // takes none: claimed beyond that
	notified uint64 // the highest threshold that was noticed, percent
	dirty    bool
}

// used is what was spent, by all that was signed.
func (c *counter) used() uint64 { return addSat(addSat(c.charged, c.excess), c.over) }

// room is what the limit leaves: limit − charged − open − excess, never below zero.
func (c *counter) room() uint64 {
	return subSat(c.limit, addSat(addSat(c.charged, c.excess), c.open))
}

func (c *counter) appendRow(b []byte) []byte {
	b = append(b, rowVersion)
	b = binary.AppendUvarint(b, c.charged)
	b = binary.AppendUvarint(b, c.open)
	b = binary.AppendUvarint(b, c.excess)
	b = binary.AppendUvarint(b, c.over)
	return binary.AppendUvarint(b, c.notified)
}

func (c *counter) read(key, value []byte) {
	r := readRow(value)
	c.charged, c.open, c.excess, c.over, c.notified = r.uint(), r.uint(), r.uint(), r.uint(), r.uint()
	r.end(TableCounter, key)
}

// charges is the working state of one decision: the counters it has loaded, by which later steps of the same decision see
// earlier ones, and the writes it will return.
type charges struct {
	m        *Meter
	v        ledger.View
	at       int64
	loc      *time.Location        // the tenant's, nil until asked for
	path     []nhi.ID              // account first, root last
	budgets  []registry.LinkBudget // of the chain, root first
	counters []counter             // every one loaded, each once
	observed []kind.Refusal        // by quotas under observation
	key      []byte                // scratch
	arena    []byte                // keys and values of the writes, one after the other

	pathBuf    [MaxDepth]nhi.ID
	quotaBuf   [5]Quota
	counterBuf [6]counter
	keyBuf     [cellKeySize]byte
}

// kept returns what was appended to the arena from start on. It stays valid when the arena grows.
func (c *charges) kept(start int) []byte { return c.arena[start:len(c.arena):len(c.arena)] }

func (m *Meter) charges(v ledger.View, at ledger.Stamp) *charges {
	c := &charges{m: m, v: v, at: at.Time}
	c.key, c.counters = c.keyBuf[:0], c.counterBuf[:0]
	return c
}

// open finds the levels that a spend at account under chain, which may be nil, is charged to.
func (c *charges) open(account nhi.ID, chain *registry.Chain) *Refusal {
	if account.IsZero() {
		return refusal(verify.OutcomeInvalid, "the event names no account")
	}
	path, ok := Path(c.v, account, c.pathBuf[:0])
	if !ok {
		return refusal(verify.OutcomeNotFound, "the account does not exist")
	}
	c.path = path
	if chain != nil {
		c.budgets = chain.Budgets
	}
	return nil
}

// instance returns the instance of a period that the decision's stamp lies in.
func (c *charges) instance(p kind.Period, anchor int) (Instance, *Refusal) {
	if p != kind.Total && c.loc == nil {
		loc, ok := c.m.location(c.v)
		if !ok {
			return Instance{}, refusal(verify.OutcomeNotFound, "the system log has no rules for the tenant's time zone")
		}
		c.loc = loc
	}
	return InstanceAt(p, anchor, c.loc, c.at), nil
}

// list loads the counters a spend of meter is charged to: for every level from the account up to the root, then for every
// link from the root of the chain down, the current instance of each quota. It appends their positions in c.counters to dst.
func (c *charges) list(meter string, dst []int) ([]int, *Refusal) {
	for _, id := range c.path {
		c.key = append(append(c.key[:0], id[:]...), meter...)
		value, ok := c.v.Get(TableQuota, c.key)
		if !ok {
			continue
		}
		for _, q := range readQuotas(c.quotaBuf[:0], c.key, value) {
			inst, r := c.instance(q.Period, q.Anchor)
			if r != nil {
				return nil, r
			}
			mode := q.modeAt(c.at)
			dst = append(dst, c.load(counter{
				counterRef: counterRef{id: id, inst: inst, holds: mode == kind.Block},
				meter:      meter, limit: q.Limit, mode: mode, thresholds: q.Thresholds,
			}))
		}
	}
	for i := range c.budgets {
		for _, b := range c.budgets[i].Budgets {
			if b.Meter != meter {
				continue
			}
			inst, r := c.instance(kind.Period(b.Window), 1)
			if r != nil {
				return nil, r
			}
			dst = append(dst, c.load(counter{
				counterRef: counterRef{link: true, id: c.budgets[i].Counter, linkID: c.budgets[i].Link, inst: inst, holds: true, budget: b.Limit},
				meter:      meter, limit: b.Limit, mode: kind.Block,
			}))
		}
	}
	if len(dst) > MaxCounters {
		return nil, refusal(verify.OutcomeLimit, "more quotas stand above this account than one spend may touch")
	}
	return dst, nil
}

// load returns the position of a counter, reading its row if it was not loaded yet.
func (c *charges) load(n counter) int {
	for i := range c.counters {
		o := &c.counters[i]
		if o.id == n.id && o.link == n.link && o.inst == n.inst && o.meter == n.meter {
			return i
		}
	}
	c.key = n.appendKey(c.key[:0], n.meter)
	if value, ok := c.v.Get(TableCounter, c.key); ok {
		n.read(c.key, value)
	}
	c.counters = append(c.counters, n)
	return len(c.counters) - 1
}

// tightest returns the blocking counter of list with the least room; of equals the one nearest to the account.
func (c *charges) tightest(list []int) (*counter, uint64) {
	var t *counter
	room := uint64(math.MaxUint64)
	for _, i := range list {
		if n := &c.counters[i]; n.holds && (t == nil || n.room() < room) {
			t, room = n, n.room()
		}
	}
	return t, room
}

// exhausted describes the counter that refused a spend of want.
func (c *counter) exhausted(want uint64) *Refusal {
	r := &Refusal{Outcome: verify.OutcomeQuotaExhausted, Refusal: kind.Refusal{
		Account: c.id, Meter: c.meter, Limit: c.limit, Charged: c.charged, Open: c.open,
		Excess: c.excess, Over: c.over, Remaining: c.room(), Period: c.inst.Period, Want: want,
	}}
	if c.inst.End != math.MaxInt64 {
		r.ResetsAt = c.inst.End
	}
	if c.link {
		r.Account, r.Link = nhi.ID{}, c.linkID
		r.Hint = "ask the link's issuer for a link with a larger budget"
		return r
	}
	r.Hint = "ask who administers the account for a higher limit (quota.set)"
	if r.ResetsAt != 0 {
		r.Hint += ", or wait until the period resets"
	}
	return r
}

// spend charges n directly to every counter of list, if all of them have room. A fact is charged in any case; what a
// counter has no room for becomes its excess.
func (c *charges) spend(list []int, n uint64, fact bool) *Refusal {
	if t, room := c.tightest(list); t != nil && n > room && !fact {
		return t.exhausted(n)
	}
	for _, i := range list {
		k := &c.counters[i]
		in := uint64(0)
		if k.holds {
			in = min(n, k.room())
			k.charged += in // ≤ limit
		}
		k.excess = addSat(k.excess, n-in)
		k.dirty = true
	}
	return nil
}

// notices returns the leaves of the thresholds that the spends of this decision have crossed, and remembers them.
func (c *charges) notices() []ledger.SystemLeaf {
	var leaves []ledger.SystemLeaf
	for i := range c.counters {
		k := &c.counters[i]
		if !k.dirty {
			continue
		}
		for _, t := range k.thresholds {
			if uint64(t) <= k.notified || k.used() == 0 || !reached(k.used(), k.limit, uint64(t)) {
				continue
			}
			k.notified = uint64(t)
			leaves = append(leaves, ledger.SystemLeaf{
				Kind: kind.ThresholdReached, Account: k.id, CauseKind: verify.CauseEvent,
				Body: canon.MustMarshal(kind.Threshold{
					Account: k.id, Meter: k.meter, Period: k.inst.Period, Start: k.inst.Start, Percent: t, Limit: k.limit, Used: k.used(),
				}),
			})
		}
	}
	return leaves
}

// writes appends the rows of all counters that have changed.
func (c *charges) writes(dst []ledger.Write) []ledger.Write {
	for i := range c.counters {
		if k := &c.counters[i]; k.dirty {
			start := len(c.arena)
			c.arena = k.appendKey(c.arena, k.meter)
			key := c.kept(start)
			start = len(c.arena)
			c.arena = k.appendRow(c.arena)
			dst = append(dst, ledger.Write{Table: TableCounter, Key: key, Value: c.kept(start)})
		}
	}
	return dst
}

// reached says whether used is at least percent of limit, in exact integers.
func reached(used, limit, percent uint64) bool {
	uh, ul := bits.Mul64(used, 100)
	lh, ll := bits.Mul64(limit, percent)
	return uh > lh || uh == lh && ul >= ll
}

// addSat adds, and stays at the highest number.
func addSat(a, b uint64) uint64 {
	if sum, carry := bits.Add64(a, b, 0); carry == 0 {
		return sum
	}
	return math.MaxUint64
}

func subSat(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
