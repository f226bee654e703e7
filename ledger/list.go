package ledger

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// MaxPage bounds the leaves of one page.
const MaxPage = 1000

// MaxPageSteps bounds how often one page looks into a list. Where lists meet nowhere, a page ends with fewer leaves than its
// limit, or none, and its cursor says where to go on.
const MaxPageSteps = 10_000

// Query selects leaves of one log. Zero fields select everything; several select what matches all of them.
type Query struct {
	Kind    string
	Agent   nhi.ID
	Human   nhi.ID // root of the chain, or the human that signed
	Link    nhi.LinkID
	Account nhi.ID
	Key     nhi.KeyID
	Outcome *verify.OutcomeCode

	FromTime, ToTime   int64  // commit times: from ≤ t < to; a ToTime of 0 is open
	FromIndex, ToIndex uint64 // from ≤ index < to; a ToIndex of 0 is open

	NewestFirst bool
	Limit       int    // 1 to MaxPage; 0 means 100
	Cursor      string // of the page before; the other fields must be the same

	steps int // in place of MaxPageSteps; 0 means that
}

// Page is one page of leaves.
type Page struct {
	Events []*StoredEvent
	Next   string // cursor of the next page; empty if this is the last one as of the snapshot
	From   uint64 // while Next is set, the bound of the next page: its FromIndex, or, newest first, its ToIndex

	steps int // looks into lists
}

// ErrCursor says that a page cursor was not made by this ledger for this order.
var ErrCursor = fmt.Errorf("cursor is not one of this query's")

const cursorSize = 1 + 8

// encodeCursor names the last index that a page has looked at.
func encodeCursor(newest bool, index uint64) string {
	b := make([]byte, 0, cursorSize)
	if newest {
		b = append(b, 2)
	} else {
		b = append(b, 1)
	}
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, index))
}

// parseCursor is the strict inverse of encodeCursor.
func parseCursor(s string, newest bool) (uint64, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != cursorSize || len(s) != base64.RawURLEncoding.EncodedLen(cursorSize) {
		return 0, ErrCursor
	}
	index := binary.BigEndian.Uint64(b[1:])
	if b[0] == 2 != newest || b[0] != 1 && b[0] != 2 || index > verify.MaxTreeSize {
		return 0, ErrCursor
	}
	return index, nil
}

// List returns one page of the leaves that a query selects: it walks the lists of the dimensions that the query names and takes
// their intersection. Its cost does not grow with the log: a page ends after MaxPageSteps looks into lists, whatever it has
// found, so only an empty Next says that nothing follows.
func (s *Snapshot) List(slot uint32, q Query) (page *Page, err error) {
	defer guard(&err)
	limit := q.Limit
	if limit == 0 {
		limit = 100
	}
	if limit < 0 || limit > MaxPage {
		return nil, fmt.Errorf("page of %d leaves: %w", limit, ErrRange)
	}
	lo, hi, err := s.window(slot, &q)
	if err != nil {
		return nil, err
	}
	if q.Cursor != "" {
		at, err := parseCursor(q.Cursor, q.NewestFirst)
		if err != nil {
			return nil, err
		}
		if q.NewestFirst {
			hi = min(hi, at)
		} else {
			lo = max(lo, at+1)
		}
	}
	page = &Page{}
	left := q.steps
	if left == 0 {
		left = MaxPageSteps
	}
	budget := left
	c, err := s.cursors(slot, &q)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, p := range c {
			must(p.it.Close())
		}
	}()
	for lo < hi && len(page.Events) < limit && (left > 0 || len(c) == 0) {
		i, found, err := nextMatch(c, lo, hi, q.NewestFirst, &left)
		page.steps = budget - left
		if err != nil {
			return nil, err
		}
		switch {
		case found == endOfLists:
			page.Next, page.From = "", 0
			return page, nil
		case found == outOfSteps && q.NewestFirst: // nothing above i
			page.From, page.Next = i+1, encodeCursor(true, i+1)
			return page, nil
		case found == outOfSteps: // nothing below i, which is behind where the page began
			page.From, page.Next = i, encodeCursor(false, i-1)
			return page, nil
		}
		if q.NewestFirst {
			hi, page.From = i, i
		} else {
			lo, page.From = i+1, i+1
		}
		raw, err := s.Leaf(slot, i)
		if err != nil {
			return nil, err
		}
		e, err := s.event(slot, i, raw)
		if err != nil {
			return nil, err
		}
		if q.matches(e) {
			page.Events = append(page.Events, e)
		}
		page.Next = encodeCursor(q.NewestFirst, i)
	}
	if lo >= hi {
		page.Next, page.From = "", 0
	}
	return page, nil
}

// window turns times and indices into one range of indices [lo, hi) within the log.
func (s *Snapshot) window(slot uint32, q *Query) (lo, hi uint64, err error) {
	head, err := s.Head(slot)
	if err != nil {
		return 0, 0, err
	}
	lo, hi = q.FromIndex, head.Size
	if q.ToIndex != 0 {
		hi = min(hi, q.ToIndex)
	}
	if q.FromTime > 0 {
		i, err := s.IndexAt(slot, q.FromTime)
		if err != nil {
			return 0, 0, err
		}
		lo = max(lo, i)
	}
	if q.ToTime > 0 {
		i, err := s.IndexAt(slot, q.ToTime)
		if err != nil {
			return 0, 0, err
		}
		hi = min(hi, i)
	}
	return lo, hi, nil
}

// matches tells apart values that share a term. Human and key are not in the leaf; their terms are ids and hashes, of which
// 16 bytes suffice.
func (q *Query) matches(e *StoredEvent) bool {
	l := e.Leaf
	return (q.Kind == "" || l.Kind == q.Kind) && (q.Link.IsZero() || l.Link == q.Link) &&
		(q.Outcome == nil || l.Outcome.Code == *q.Outcome) && (q.Key.IsZero() || e.Signature != nil && e.Signature.Key == q.Key)
}

// cursor walks one posting list.
type cursor struct {
	it     *pebble.Iterator
	prefix []byte
	row    []uint64 // indices of the row the iterator stands on
}

func (s *Snapshot) cursors(slot uint32, q *Query) ([]*cursor, error) {
	var keys []posting
	add := func(d dimension, t term) { keys = append(keys, posting{slot, d, t}) }
	if !q.Link.IsZero() {
		add(byLink, linkTerm(q.Link))
	}
	if !q.Agent.IsZero() {
		add(byAgent, term(q.Agent))
	}
	if !q.Account.IsZero() {
		add(byAccount, term(q.Account))
	}
	if !q.Key.IsZero() {
		add(byKey, keyTerm(q.Key))
	}
	if !q.Human.IsZero() {
		add(byHuman, term(q.Human))
	}
	if q.Kind != "" {
		add(byKind, textTerm(q.Kind))
	}
	if q.Outcome != nil {
		add(byOutcome, term{byte(*q.Outcome)})
	}
	var out []*cursor
	for _, k := range keys {
		prefix := postingPrefix(nil, k)
		it, err := s.snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
		if err != nil {
			for _, c := range out {
				must(c.it.Close())
			}
			return nil, fmt.Errorf("open posting list: %w", err)
		}
		out = append(out, &cursor{it: it, prefix: prefix})
	}
	return out, nil
}

// match says what nextMatch has found.
type match int

const (
	matched    match = iota + 1
	endOfLists       // no further index stands in all lists
	outOfSteps       // the index is the next candidate
)

// nextMatch returns the first (newest: last) index in [lo, hi) that stands in all lists. Each look into a list takes one of
// left; it stops on a candidate behind lo (newest: before hi) when none is left.
func nextMatch(cs []*cursor, lo, hi uint64, newest bool, left *int) (uint64, match, error) {
	if len(cs) == 0 {
		if newest {
			return hi - 1, matched, nil
		}
		return lo, matched, nil
	}
	at := lo
	if newest {
		at = hi - 1
	}
	for agreed := 0; agreed < len(cs); {
		for _, c := range cs {
			if *left <= 0 && (newest && at < hi-1 || !newest && at > lo) {
				return at, outOfSteps, nil
			}
			*left--
			var i uint64
			var ok bool
			var err error
			if newest {
				i, ok, err = c.atOrBefore(at)
			} else {
				i, ok, err = c.atOrAfter(at)
			}
			if err != nil || !ok || i < lo || i >= hi {
				return 0, endOfLists, err
			}
			if i != at {
				at, agreed = i, 1
			} else if agreed++; agreed == len(cs) {
				break
			}
		}
	}
	return at, matched, nil
}

// load decodes the row the iterator stands on.
func (c *cursor) load() error {
	key := c.it.Key()
	if len(key) != len(c.prefix)+8 {
		return corrupt("posting key of %d bytes", len(key))
	}
	v, err := c.it.ValueAndErr()
	if err != nil {
		return fmt.Errorf("read posting list: %w", err)
	}
	c.row, err = decodePosting(binary.BigEndian.Uint64(key[len(c.prefix):]), v, c.row[:0])
	return err
}

// reach stands on the last row that begins at or before index; false if there is none.
func (c *cursor) reach(index uint64) (bool, error) {
	if n := len(c.row); n > 0 && c.row[0] <= index && index <= c.row[n-1] {
		return true, nil
	}
	after := uint64(math.MaxUint64)
	if index < after {
		after = index + 1
	}
	if !c.it.SeekLT(binary.BigEndian.AppendUint64(append([]byte(nil), c.prefix...), after)) {
		c.row = c.row[:0]
		return false, c.it.Error()
	}
	return true, c.load()
}

func (c *cursor) atOrAfter(index uint64) (uint64, bool, error) {
	ok, err := c.reach(index)
	if err != nil {
		return 0, false, err
	}
	if ok {
		for _, i := range c.row {
			if i >= index {
				return i, true, nil
			}
		}
		ok = c.it.Next()
	} else {
		ok = c.it.First()
	}
	if !ok {
		c.row = c.row[:0]
		return 0, false, c.it.Error()
	}
	if err := c.load(); err != nil {
		return 0, false, err
	}
	return c.row[0], true, nil
}

func (c *cursor) atOrBefore(index uint64) (uint64, bool, error) {
	ok, err := c.reach(index)
	if err != nil || !ok {
		return 0, false, err
	}
	for k := len(c.row) - 1; k >= 0; k-- {
		if c.row[k] <= index {
			return c.row[k], true, nil
		}
	}
	return 0, false, corrupt("posting row begins after its key")
}
