package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/transparency-dev/merkle/compact"
)

// Snapshot is the ledger as it stood after one command. It is safe for concurrent use until Close, and must be closed: an
// open one keeps the store from dropping what it shows.
type Snapshot struct {
	log   *Log
	snap  *pebble.Snapshot
	since uint64 // applied index when it was opened, or a little before
	meta  meta
	ident *identity // nil before genesis
}

// Read opens a snapshot at the last applied command. The error is ErrNoLedger before genesis.
func (l *Log) Read() (*Snapshot, error) {
	s := l.snapshot()
	b, ok, err := s.row(metaKey())
	switch {
	case err != nil:
	case !ok:
		err = ErrNoLedger
	default:
		err = s.meta.decode(b)
	}
	if s.ident = l.ident.Load(); err == nil && (s.ident == nil || s.meta.slots == 0) {
		err = ErrNoLedger
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (l *Log) snapshot() *Snapshot {
	s := &Snapshot{log: l}
	l.openMu.Lock()
	s.since = l.applied.Load()
	l.open[s.since]++
	l.openMu.Unlock()
	s.snap = l.db.NewSnapshot()
	return s
}

// oldestSnapshot returns the applied index that the oldest open snapshot was opened at.
func (l *Log) oldestSnapshot() uint64 {
	l.openMu.Lock()
	defer l.openMu.Unlock()
	oldest := uint64(math.MaxUint64)
	for since := range l.open {
		oldest = min(oldest, since)
	}
	return oldest
}

// Close releases the snapshot.
func (s *Snapshot) Close() error {
	l := s.log
	l.openMu.Lock()
	if l.open[s.since]--; l.open[s.since] == 0 {
		delete(l.open, s.since)
	}
	l.openMu.Unlock()
	if err := s.snap.Close(); err != nil {
		return fmt.Errorf("close snapshot: %w", err)
	}
	return nil
}

func (s *Snapshot) release() { must(s.Close()) }

// row returns a copy of a row.
func (s *Snapshot) row(raw []byte) ([]byte, bool, error) {
	v, closer, err := s.snap.Get(raw)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read state store: %w", err)
	}
	v = bytes.Clone(v)
	return v, true, closer.Close()
}

func (s *Snapshot) get(raw []byte) ([]byte, bool) {
	v, ok, err := s.row(raw)
	must(err)
	return v, ok
}

func (s *Snapshot) scan(prefix, from []byte, reverse bool, fn func(raw, value []byte) bool) {
	it, err := s.snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	must(err)
	defer func() { must(it.Close()) }()
	if reverse {
		scanReverse(it, nil, nil, prefix, from, fn)
	} else {
		scanForward(it, nil, nil, from, fn)
	}
	must(it.Error())
}

// guard turns a store error that a scan below panicked with into an error.
func guard(err *error) {
	if r := recover(); r != nil {
		p, ok := r.(storePanic)
		if !ok {
			panic(r)
		}
		*err = p.err
	}
}

// Guard calls fn and returns a store error that a View panicked with inside it. Whoever uses a View outside a handler wraps
// the use in it.
func Guard(fn func() error) (err error) {
	defer guard(&err)
	return fn()
}

// Index is the Raft index of the last command in the snapshot.
func (s *Snapshot) Index() uint64 { return s.meta.applied }

// Time is the last stamp in the snapshot, ns: what it shows is as of then.
func (s *Snapshot) Time() int64 { return s.meta.last }

// StateHash is the rolling hash of all commands.
func (s *Snapshot) StateHash() nhi.Digest { return s.meta.state }

// Epoch is the number of the last seal, which is the size of the spine.
func (s *Snapshot) Epoch() uint64 { return s.meta.epoch }

// Slots is the number of logs: the system log and one for each tenant.
func (s *Snapshot) Slots() uint32 { return s.meta.slots }

// Active is the active feature level.
func (s *Snapshot) Active() uint32 { return s.meta.active }

// LedgerID names the ledger.
func (s *Snapshot) LedgerID() nhi.Digest { return s.ident.ledger }

// Genesis is what the ledger began with.
func (s *Snapshot) Genesis() *Genesis { return s.ident.genesis }

// Tenant finds a tenant by id; the zero id is the system log. The error is ErrNotFound.
func (s *Snapshot) Tenant(id nhi.ID) (Tenant, error) {
	if id.IsZero() {
		return Tenant{Slot: SystemSlot, Zone: "UTC"}, nil
	}
	b, ok, err := s.row(rowKey(nil, tableTenantID, SystemSlot, id[:]))
	if err != nil {
		return Tenant{}, err
	}
	if !ok {
		return Tenant{}, fmt.Errorf("tenant %s: %w", id, ErrNotFound)
	}
	if len(b) != 4 {
		return Tenant{}, corrupt("slot of tenant %s", id)
	}
	return s.TenantAt(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
}

// TenantAt describes the tenant in a slot. The error is ErrNotFound.
func (s *Snapshot) TenantAt(slot uint32) (Tenant, error) {
	if slot == SystemSlot {
		return Tenant{Slot: SystemSlot, Zone: "UTC"}, nil
	}
	b, ok, err := s.row(rowKey(nil, tableTenants, SystemSlot, slotKey(slot)))
	if err != nil {
		return Tenant{}, err
	}
	if !ok {
		return Tenant{}, fmt.Errorf("slot %d: %w", slot, ErrNotFound)
	}
	_, t, err := decodeTenant(slot, b)
	return t, err
}

// Tenants returns the tenants in slots after the given one, ascending, at most limit. 0 begins with the first tenant.
func (s *Snapshot) Tenants(after uint32, limit int) ([]Tenant, error) {
	var out []Tenant
	for slot := after + 1; slot < s.meta.slots && len(out) < limit; slot++ {
		t, err := s.TenantAt(slot)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// View returns the state of a tenant for handlers' read functions and for decisions at the edge. It is not safe for
// concurrent use, but any number can be made; they end with the snapshot. Uses are wrapped in Guard.
func (s *Snapshot) View(t Tenant) (View, error) {
	v, err := s.view(t)
	if err != nil {
		return nil, err
	}
	v.system = v
	if t.Slot != SystemSlot {
		if v.system, err = s.view(Tenant{Slot: SystemSlot, Zone: "UTC"}); err != nil {
			return nil, err
		}
		v.system.system = v.system
	}
	return v, nil
}

func (s *Snapshot) view(t Tenant) (*view, error) {
	head, err := s.Head(t.Slot)
	if err != nil {
		return nil, err
	}
	v := &view{st: s, ledger: s.ident.ledger, active: s.meta.active, tenant: &t, next: head.Size}
	b, ok, err := s.row(rowKey(nil, tableEpochs, t.Slot, nil))
	if err != nil {
		return nil, err
	}
	if ok {
		if v.epochs, err = decodeEpochs(b); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Head is the head of one log.
type Head struct {
	Size   uint64
	Root   nhi.Digest
	Hashes []nhi.Digest // compact range, largest subtree first
}

// Head returns the head of a log, SpineSlot included, as of the snapshot.
func (s *Snapshot) Head(slot uint32) (Head, error) {
	b, ok, err := s.row(rowKey(nil, tableHeads, slot, nil))
	if err != nil {
		return Head{}, err
	}
	if !ok {
		return Head{Root: verify.EmptyRoot()}, nil
	}
	var h Head
	if h.Size, h.Hashes, err = decodeHead(b); err != nil {
		return Head{}, err
	}
	h.Root, err = rootOf(h.Size, h.Hashes)
	return h, err
}

// RootAt returns the root of a log at a size that it has reached.
func (s *Snapshot) RootAt(slot uint32, size uint64) (root nhi.Digest, err error) {
	h, err := s.RangeAt(slot, size)
	return h.Root, err
}

// RangeAt returns root and compact range of a log at a size that it has reached.
func (s *Snapshot) RangeAt(slot uint32, size uint64) (h Head, err error) {
	defer guard(&err)
	head, err := s.Head(slot)
	if err != nil {
		return Head{}, err
	}
	if size > head.Size {
		return Head{}, fmt.Errorf("root of slot %d at size %d: %w", slot, size, ErrRange)
	}
	if size == head.Size {
		return head, nil
	}
	h.Size = size
	if h.Hashes, err = rangeHashes(size, s.logNodes(slot, size)); err != nil {
		return Head{}, err
	}
	h.Root, err = rootOf(size, h.Hashes)
	return h, err
}

func (s *Snapshot) logNodes(slot uint32, size uint64) nodeReader {
	return func(id compact.NodeID) ([]byte, error) { return nodeHash(s, slot, size, id) }
}

// Inclusion returns the path of a leaf to the root of its log at a size, leaf sibling first.
func (s *Snapshot) Inclusion(slot uint32, index, size uint64) (path []nhi.Digest, err error) {
	defer guard(&err)
	if err := s.reached(slot, size); err != nil {
		return nil, err
	}
	return inclusion(index, size, s.logNodes(slot, size))
}

// Consistency returns the proof that a log at size1 is a prefix of itself at size2.
func (s *Snapshot) Consistency(slot uint32, size1, size2 uint64) (path []nhi.Digest, err error) {
	defer guard(&err)
	if err := s.reached(slot, size2); err != nil {
		return nil, err
	}
	return consistency(size1, size2, s.logNodes(slot, size2))
}

func (s *Snapshot) reached(slot uint32, size uint64) error {
	head, err := s.Head(slot)
	if err != nil {
		return err
	}
	if size > head.Size {
		return fmt.Errorf("size %d of slot %d: %w", size, slot, ErrRange)
	}
	return nil
}

// Tile returns the hashes of a tile within a log of a size (c2sp.org/tlog-tiles): width of them, or, if width is 0, all that
// the size gives. The error matches ErrRange if the size does not give as many.
func (s *Snapshot) Tile(slot uint32, size uint64, level int, tile uint64, width int) (hashes []byte, err error) {
	defer guard(&err)
	if err := s.reached(slot, size); err != nil {
		return nil, err
	}
	return tileHashes(s, slot, size, level, tile, width)
}

// Leaf returns the bytes of a leaf.
func (s *Snapshot) Leaf(slot uint32, index uint64) ([]byte, error) {
	b, ok, err := s.row(indexKey(nil, tableLeaves, slot, index))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("leaf %d of slot %d: %w", index, slot, ErrNotFound)
	}
	return b, nil
}

// Leaves calls fn with the leaves [from, to) of a log in order, until it returns an error, which is returned. leaf is valid
// during the call only. The error matches ErrRange if the log has not all of them.
func (s *Snapshot) Leaves(slot uint32, from, to uint64, fn func(index uint64, leaf []byte) error) (err error) {
	defer guard(&err)
	next := from
	s.scan(rowKey(nil, tableLeaves, slot, nil), indexKey(nil, tableLeaves, slot, from), false, func(raw, leaf []byte) bool {
		if next >= to {
			return false
		}
		if !bytes.Equal(raw, indexKey(nil, tableLeaves, slot, next)) {
			return false
		}
		if err = fn(next, leaf); err != nil {
			return false
		}
		next++
		return true
	})
	if err == nil && next < to {
		return fmt.Errorf("leaf %d of slot %d: %w", next, slot, ErrRange)
	}
	return err
}

// ReadTokenValid says whether a bearer token opens a tenant's log at a time. Tokens are looked up by their SHA-256: how long
// that takes can tell something about the hash of a guess, but nothing about a token.
func (s *Snapshot) ReadTokenValid(slot uint32, token []byte, at int64) (bool, error) {
	digest := sha256.Sum256(token)
	b, ok, err := s.row(rowKey(nil, tableTokens, slot, digest[:]))
	if err != nil || !ok {
		return false, err
	}
	row := new(tokenRow)
	if err := canon.Unmarshal(b, row); err != nil {
		return false, corrupt("read token: %v", err)
	}
	return row.Expires == 0 || at < row.Expires, nil
}

// Members returns the nodes of the cluster, ascending by id.
func (s *Snapshot) Members() (out []Member, err error) {
	defer guard(&err)
	s.scan(rowKey(nil, tableMembers, SystemSlot, nil), nil, false, func(raw, value []byte) bool {
		var m *Member
		if m, err = decodeMember(raw[rowPrefix:], value); err != nil {
			return false
		}
		out = append(out, *m)
		return true
	})
	return out, err
}

// NextTimer returns when the next timer comes due, by consensus time; false if none is set.
func (s *Snapshot) NextTimer() (due int64, ok bool, err error) {
	defer guard(&err)
	s.scan([]byte{byte(tableTimers)}, nil, false, func(raw, _ []byte) bool {
		var t Timer
		if _, t, err = parseTimerKey(raw); err == nil {
			due, ok = t.Due, true
		}
		return false
	})
	return due, ok, err
}

// News says whether some log has grown since the last seal.
func (s *Snapshot) News() (news bool, err error) {
	defer guard(&err)
	s.scan([]byte{byte(tableDirty)}, nil, false, func(_, _ []byte) bool {
		news = true
		return false
	})
	return news, err
}
