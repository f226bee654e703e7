package meter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// MaxCells bounds how many usage cells one query reads, and MaxRows how many rows it answers with.
const (
	MaxCells = 500_000
	MaxRows  = 10_000
)

// Errors of queries.
var (
	ErrNoAccount = errors.New("account does not exist")
	ErrNoLink    = errors.New("link does not exist")
	ErrNoLease   = errors.New("lease does not exist")
	ErrTooWide   = errors.New("query covers too much: narrow its window, account or grouping")
	ErrNoZone    = errors.New("system log has no rules for the tenant's time zone")
)

// Counter is the state of one counter that a spend at an account touches.
type Counter struct {
	Account nhi.ID     // zero when it is the budget of a link
	Link    nhi.LinkID // zero when it is the quota of an account
	Meter   string
	Quota   Quota
	Instance
	Charged, Open uint64 // Q1: together within the limit
	// Beyond it: Excess takes room, Over does not; both are on the invoice. 2^64−1 says at least that much.
	Excess, Over uint64
	Remaining    uint64 // limit − charged − open − excess, never below zero
}

// QueryQuota returns every counter that a spend at account under the chain that link ends (zero = none) would touch at the
// stamp at: from the account up to the root, then from the root of the chain down. Whether the chain still holds does not
// matter. An empty meter asks for all meters. At most MaxRows.
func (m *Meter) QueryQuota(v ledger.View, account nhi.ID, meter string, link nhi.LinkID, at int64) ([]Counter, error) {
	c := m.charges(v, ledger.Stamp{Time: at})
	if r := c.open(account, nil); r != nil {
		return nil, fmt.Errorf("query quota of %s: %w", account, ErrNoAccount)
	}
	if link != (nhi.LinkID{}) {
		links, err := registry.Walk(ledger.RegistryView(v), link, v.NextIndex())
		if err != nil {
			return nil, fmt.Errorf("query quota under %s: %w", link, ErrNoLink)
		}
		for _, l := range links {
			c.budgets = append(c.budgets, registry.LinkBudget{Link: l.ID, Counter: registry.BudgetCounter(l.ID), Budgets: l.Link.Budgets})
		}
	}
	var out []Counter
	add := func(n counter, q Quota) error {
		inst, r := c.instance(q.Period, q.Anchor)
		if r != nil {
			return ErrNoZone
		}
		n.inst = inst
		k := &c.counters[c.load(n)]
		row := Counter{
			Account: k.id, Link: k.linkID, Meter: k.meter, Quota: q, Instance: inst,
			Charged: k.charged, Open: k.open, Excess: k.excess, Over: k.over, Remaining: k.room(),
		}
		if k.link {
			row.Account = nhi.ID{}
		}
		if out = append(out, row); len(out) > MaxRows {
			return ErrTooWide
		}
		return nil
	}
	for _, id := range c.path {
		var err error
		quotasOf(v, id, meter, func(name string, qs []Quota) bool {
			for _, q := range qs {
				q.Mode = q.modeAt(at)
				if err = add(counter{counterRef: counterRef{id: id}, meter: name, limit: q.Limit}, q); err != nil {
					return false
				}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	for _, lb := range c.budgets {
		for _, b := range lb.Budgets {
			if meter != "" && b.Meter != meter {
				continue
			}
			n := counter{counterRef: counterRef{link: true, id: lb.Counter, linkID: lb.Link}, meter: b.Meter, limit: b.Limit}
			if err := add(n, Quota{Period: kind.Period(b.Window), Mode: kind.Block, Limit: b.Limit}); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// quotasOf calls fn with the quotas at an account: of one meter, or of every meter that has any, in ascending order.
func quotasOf(v ledger.View, account nhi.ID, meter string, fn func(meter string, qs []Quota) bool) {
	if meter != "" {
		key := quotaKey(account, meter)
		if value, ok := v.Get(TableQuota, key); ok {
			fn(meter, readQuotas(nil, key, value))
		}
		return
	}
	v.Scan(TableQuota, account[:], nil, false, func(key, value []byte) bool {
		return fn(string(key[len(account):]), readQuotas(nil, key, value))
	})
}

// UsageQuery asks for exact sums over a window of consensus time. Usage is counted by hour, so the window is widened to
// whole hours of the tenant's zone; the rows say which.
type UsageQuery struct {
	Account  nhi.ID      // with its descendants; zero = the whole tenant
	Meter    string      // empty = all
	Agent    nhi.ID      // zero = all
	Link     nhi.LinkID  // what was used under this link or a link below it; zero = all
	From, To int64       // ns, half-open
	Window   kind.Period // rows per Hour or Day; 0 = one row for the whole window

	ByAccount, ByAgent, ByLink bool // what else rows are split by; they are always split by meter
}

// UsageRow is one sum.
type UsageRow struct {
	From, To int64      // ns: the hours that were added up
	Account  nhi.ID     // where it was charged; zero unless grouped by it
	Agent    nhi.ID     // zero unless grouped by it
	Link     nhi.LinkID // the last link of the chain; zero unless grouped by it
	Meter    string
	Sum      uint64 // 2^64−1 says at least that much
	Count    uint64 // events
}

// UsageSums is the answer to a UsageQuery: rows by time, account, agent, link and meter.
type UsageSums struct {
	Rows []UsageRow
	// Exact: the hours added up are the window asked for, except for time that has not come yet, and every sum fitted.
	Exact bool
}

// QueryUsage adds up usage. now is the stamp that the view reflects. The cost is that of the cells under the account in the
// window (an agent, a link and an account for each hour), independent of how many events or leaves there are.
func (m *Meter) QueryUsage(v ledger.View, q UsageQuery, now int64) (*UsageSums, error) {
	if q.To <= q.From {
		return nil, &kind.InvalidError{Field: "to", Reason: "is not after from"}
	}
	if q.Window != 0 && q.Window != kind.Hour && q.Window != kind.Day {
		return nil, &kind.InvalidError{Field: "window", Reason: "is neither hour nor day"}
	}
	if q.Meter != "" {
		if err := kind.CheckMeter(q.Meter); err != nil {
			return nil, err
		}
	}
	if q.Account.IsZero() {
		q.Account = v.Tenant().ID
	}
	if _, ok := LookupAccount(v, q.Account); !ok {
		return nil, fmt.Errorf("query usage of %s: %w", q.Account, ErrNoAccount)
	}
	loc, ok := m.location(v)
	if !ok {
		loc = time.UTC // as in counting
	}
	first, last := InstanceAt(kind.Hour, 0, loc, q.From), InstanceAt(kind.Hour, 0, loc, q.To-1)
	res := &UsageSums{Exact: first.Start == q.From && (last.End == q.To || q.To > now)}
	s := usageScan{v: v, q: &q, loc: loc, from: first.Start, to: last.End, sums: make(map[UsageRow]*usageSum)}
	if err := s.run(); err != nil {
		return nil, err
	}
	res.Rows = make([]UsageRow, 0, len(s.sums))
	for row, sum := range s.sums {
		row.Sum, row.Count = sum.sum, sum.count
		res.Exact = res.Exact && sum.sum != math.MaxUint64
		res.Rows = append(res.Rows, row)
	}
	slices.SortFunc(res.Rows, compareRows)
	return res, nil
}

func compareRows(a, b UsageRow) int {
	return cmp.Or(
		cmp.Compare(a.From, b.From), bytes.Compare(a.Account[:], b.Account[:]), bytes.Compare(a.Agent[:], b.Agent[:]),
		bytes.Compare(a.Link[:], b.Link[:]), cmp.Compare(a.Meter, b.Meter),
	)
}

type usageSum struct{ sum, count uint64 }

type usageScan struct {
	v        ledger.View
	q        *UsageQuery
	loc      *time.Location
	from, to int64
	sums     map[UsageRow]*usageSum
	under    map[nhi.LinkID]bool // whether a link is q.Link or lies below it
	cells    int
}

func (s *usageScan) run() error {
	prefix := s.q.Account[:]
	var err error
	s.v.Scan(TableUsage, prefix, appendTime(slices.Clone(prefix), s.from), false, func(key, value []byte) bool {
		k := readCellKey(key)
		if k.hour >= s.to {
			return false
		}
		if s.cells++; s.cells > MaxCells {
			err = ErrTooWide
			return false
		}
		err = s.cell(key, value, &k)
		return err == nil
	})
	return err
}

func (s *usageScan) cell(key, value []byte, k *cellKey) error {
	q := s.q
	if !q.Agent.IsZero() && k.agent != q.Agent || q.Link != (nhi.LinkID{}) && !s.isUnder(k.link) {
		return nil
	}
	row := UsageRow{From: s.from, To: s.to}
	if q.Window != 0 {
		inst := InstanceAt(q.Window, 0, s.loc, k.hour)
		row.From, row.To = max(inst.Start, s.from), min(inst.End, s.to)
	}
	if q.ByAccount {
		row.Account = k.account
	}
	if q.ByAgent {
		row.Agent = k.agent
	}
	if q.ByLink {
		row.Link = k.link
	}
	var err error
	cellMeters(key, value, func(meter []byte, sum, count uint64) {
		if q.Meter != "" && string(meter) != q.Meter || err != nil {
			return
		}
		row.Meter = string(meter)
		t := s.sums[row]
		if t == nil {
			if len(s.sums) >= MaxRows {
				err = ErrTooWide
				return
			}
			t = new(usageSum)
			s.sums[row] = t
		}
		t.sum, t.count = addSat(t.sum, sum), addSat(t.count, count)
	})
	return err
}

// isUnder says whether the chain that a link ends passes through q.Link.
func (s *usageScan) isUnder(link nhi.LinkID) bool {
	if under, known := s.under[link]; known || link == (nhi.LinkID{}) {
		return under
	}
	if s.under == nil {
		s.under = make(map[nhi.LinkID]bool)
	}
	links, err := registry.Walk(ledger.RegistryView(s.v), link, s.v.NextIndex())
	s.under[link] = err == nil && slices.ContainsFunc(links, func(l *registry.LinkRecord) bool { return l.ID == s.q.Link })
	return s.under[link]
}

// ListAccounts returns accounts in the order of their ids, beginning after the one given (zero = from the start), at most
// limit of them; the root, which has no row, comes first. more says whether there are others.
func ListAccounts(v ledger.View, after nhi.ID, limit int) (accounts []Account, more bool) {
	if after.IsZero() {
		root, _ := LookupAccount(v, v.Tenant().ID)
		accounts = append(accounts, root)
	}
	from := after[:]
	if after.IsZero() {
		from = nil
	}
	v.Scan(TableAccount, nil, from, false, func(key, value []byte) bool {
		id := nhi.ID(key)
		if id == after {
			return true
		}
		if len(accounts) >= limit {
			more = true
			return false
		}
		accounts = append(accounts, readAccount(id, value))
		return true
	})
	return accounts, more
}
