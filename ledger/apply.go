package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/cockroachdb/pebble/v2"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/transparency-dev/merkle/compact"
)

// SupportedLevel is the highest feature level this binary knows.
const SupportedLevel = 1

// maxStamp leaves room above any stamp, so that stamp arithmetic does not overflow.
const maxStamp = math.MaxInt64 - 1<<40

// Bounds of a Decision. A handler that exceeds one stops the node: the event is decided alike everywhere, and what cannot be
// stored cannot be half stored.
const (
	MaxDetail      = 2 << 10
	MaxTimerRef    = 64
	MaxTickExpires = 512 // timers of one tick
	maxTimerName   = 64
	maxRowKey      = 512
	maxRowValue    = 256 << 10
)

// Entry is one committed Raft entry.
type Entry struct {
	Index, Term uint64
	Data        []byte // an encoded Command
}

// apply is one store batch in the making.
type apply struct {
	*Log
	x       *txn
	posts   postings
	quality verify.Quality // of the command's stamps
	next    int64          // next stamp
	used    bool           // the command has used a stamp
	leaf    []byte         // scratch
	row     []byte         // scratch
	touched []*tenantState
	entry   Entry
	fresh   map[compact.NodeID][]byte // nodes of the heads tree that seals of this Apply have made
	erased  bool                      // there is something to purge
}

// maxBatchBytes is how much command data one store batch takes, unless a single command is larger: a node that catches up
// must not hold its whole backlog in memory.
const maxBatchBytes = 4 << 20

// Apply applies committed commands in order. Each goes whole into one store batch: effects, leaves, tree nodes, applied index
// and state hash; a batch takes as many commands as there are, up to a few MiB. results[i] belongs to entries[i]:
// []EventResult, SealResult, TickResult, GenesisResult or nil. Entries at or below the applied index are skipped. An error is
// a *FatalError: nothing of the command it names, and of those after it, is in the store, and the caller stops the node.
func (l *Log) Apply(entries []Entry) (results []any, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return nil, err
	}
	results = make([]any, len(entries))
	for done := 0; done < len(entries); {
		n, size := 0, 0
		for n == 0 || done+n < len(entries) && size+len(entries[done+n].Data) <= maxBatchBytes {
			size += len(entries[done+n].Data)
			n++
		}
		if err := l.batch(entries[done:done+n], results[done:done+n]); err != nil {
			fatal, ok := errors.AsType[*FatalError](err)
			if !ok {
				fatal = &FatalError{Op: "apply", Err: err}
			}
			return nil, l.breakDown(fatal)
		}
		done += n
	}
	return results, nil
}

// batch applies entries in one store batch.
func (l *Log) batch(entries []Entry, results []any) (err error) {
	a := &apply{Log: l, x: newTxn(l.db)}
	defer func() {
		if r := recover(); r != nil {
			err = a.recovered(r)
		}
		if cerr := a.x.close(); cerr != nil && err == nil {
			err = &FatalError{Op: "close batch", Err: cerr}
		}
	}()
	for i, e := range entries {
		if e.Index <= l.meta.applied {
			continue
		}
		a.entry = e
		if results[i], err = a.command(e); err != nil {
			return &FatalError{Op: "apply", Index: e.Index, Err: err}
		}
		l.meta.applied, l.meta.term = e.Index, e.Term
	}
	return a.commit()
}

// recovered turns a panic into a FatalError. Views have no error to return, and a handler that panics would do so on every
// node.
func (a *apply) recovered(r any) error {
	f := &FatalError{Op: "apply", Index: a.entry.Index}
	switch p := r.(type) {
	case storePanic:
		f.Op, f.Err = "read or write state store", p.err
	case isolationPanic:
		f.Err = p.err
	default:
		f.Op, f.Err, f.Stack = "handler panicked", fmt.Errorf("%v", r), debug.Stack()
	}
	return f
}

// command applies one command and rolls the state hash over what it wrote.
func (a *apply) command(e Entry) (any, error) {
	c, err := DecodeCommand(e.Data)
	if err != nil {
		return nil, err
	}
	if a.genesis == nil && c.Type != CommandGenesis {
		return nil, fmt.Errorf("command of type %d: %w", c.Type, ErrNoLedger)
	}
	a.x.hashed = a.x.hashed[:0]
	a.stamp(c.Time)
	var result any
	switch c.Type {
	case CommandEvents:
		result, err = a.events(c)
	case CommandSeal:
		result, err = a.seal(c.Epoch)
	case CommandTick:
		result, err = a.tick()
	case CommandGenesis:
		result, err = a.begin(c.Genesis)
	case CommandActivate:
		result, err = a.activate(c.Active)
	}
	if err != nil {
		return nil, err
	}
	a.posts.write(a.x)
	if a.used {
		a.meta.last = a.next - 1
	}
	a.roll()
	return result, nil
}

// roll sets the state hash to SHA-256("creto/state/v1\0" ‖ previous ‖ SHA-256(rows of the command)).
func (a *apply) roll() {
	rows := sha256.Sum256(a.x.hashed)
	var buf [79]byte
	b := append(buf[:0], "creto/state/v1\x00"...)
	b = append(b, a.meta.state[:]...)
	a.meta.state = sha256.Sum256(append(b, rows[:]...))
}

// stamp begins the command's stamps by the stamp rule: the proposed time if it is later than the last stamp, otherwise the
// last stamp plus one, flagged.
func (a *apply) stamp(proposed int64) {
	a.used = false
	a.quality = verify.Quality{Code: verify.QualityCarried}
	a.next = proposed
	if proposed <= a.meta.last || proposed > maxStamp {
		a.next = a.meta.last + 1
		a.quality.Flags |= verify.FlagMono
	}
	if a.genesis != nil && a.genesis.Test {
		a.quality.Flags |= verify.FlagTest
	}
}

// now returns the stamp that the next leaf gets, without using it up.
func (a *apply) now() Stamp { return Stamp{Time: a.next, Quality: a.quality} }

// tenant returns the state of the tenant in a slot that exists.
func (a *apply) tenant(slot uint32) (*tenantState, error) {
	ts := a.tenants[slot]
	if ts == nil {
		var err error
		if ts, err = a.loadTenant(slot); err != nil {
			return nil, err
		}
		a.tenants[slot] = ts
	}
	if ts.view == nil || ts.view.st != state(a.x) {
		if err := a.attach(ts); err != nil {
			return nil, err
		}
	}
	ts.touched = a.entry.Index
	return ts, nil
}

// attach gives the tenant a view over this Apply.
func (a *apply) attach(ts *tenantState) error {
	ts.view = &view{st: a.x, ledger: a.id, active: a.meta.active, tenant: &ts.Tenant, next: ts.tree.size(), epochs: ts.epochs}
	ts.accounts = a.accounts(ts.view)
	a.touched = append(a.touched, ts)
	if ts.Slot == SystemSlot {
		ts.view.system = ts.view
		return nil
	}
	sys, err := a.tenant(SystemSlot)
	if err != nil {
		return err
	}
	ts.view.system = sys.view
	return nil
}

func (a *apply) loadTenant(slot uint32) (*tenantState, error) {
	ts := &tenantState{Tenant: Tenant{Slot: slot, Zone: "UTC"}}
	if slot != SystemSlot {
		b, ok := a.x.get(rowKey(nil, tableTenants, SystemSlot, slotKey(slot)))
		if !ok {
			return nil, corrupt("tenant in slot %d is missing", slot)
		}
		var err error
		if ts.row, ts.Tenant, err = decodeTenant(slot, b); err != nil {
			return nil, err
		}
	}
	if b, ok := a.x.get(rowKey(nil, tableEpochs, slot, nil)); ok {
		var err error
		if ts.epochs, err = decodeEpochs(b); err != nil {
			return nil, err
		}
	}
	_, closer, err := a.db.Get(rowKey(nil, tableDirty, slot, nil))
	switch {
	case err == nil:
		ts.dirty = true
		if err := closer.Close(); err != nil {
			return nil, err
		}
	case !errors.Is(err, pebble.ErrNotFound):
		return nil, err
	}
	ts.tree, err = loadTree(a.x, slot)
	return ts, err
}

// slotOf finds a tenant; the zero id is the system log.
func (a *apply) slotOf(tenant nhi.ID) (uint32, bool, error) {
	if tenant.IsZero() {
		return SystemSlot, true, nil
	}
	b, ok := a.x.get(rowKey(nil, tableTenantID, SystemSlot, tenant[:]))
	if !ok {
		return 0, false, nil
	}
	if len(b) != 4 {
		return 0, false, corrupt("slot of tenant %s", tenant)
	}
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), true, nil
}

// markDirty notes that the tenant's head is news for the next seal.
func (a *apply) markDirty(ts *tenantState) {
	if ts.dirty {
		return
	}
	ts.dirty = true
	a.x.key = rowKey(a.x.key[:0], tableDirty, ts.Slot, nil)
	a.x.blind(a.x.key, []byte{rowVersion})
}

// commit writes what follows from the leaves, and the batch.
func (a *apply) commit() error {
	for _, ts := range a.touched {
		ts.tree.flush(a.x)
	}
	a.spine.flush(a.x)
	a.x.blind(metaKey(), a.meta.encode())
	if err := a.x.commit(); err != nil {
		return &FatalError{Op: "commit batch", Err: err}
	}
	for _, ts := range a.touched {
		ts.view, ts.accounts = nil, nil
	}
	a.applied.Store(a.meta.applied)
	a.trim()
	a.notify()
	if a.erased {
		select {
		case a.erasures <- struct{}{}:
		default:
		}
	}
	return nil
}

// trim drops the growing edges of tenants that have been quiet longest, once there are more than MaxTenants.
func (l *Log) trim() {
	if len(l.tenants) <= l.cfg.MaxTenants {
		return
	}
	oldest := make([]uint64, 0, len(l.tenants))
	for _, ts := range l.tenants {
		oldest = append(oldest, ts.touched)
	}
	limit := nth(oldest, len(oldest)-l.cfg.MaxTenants*3/4)
	for slot, ts := range l.tenants {
		if slot != SystemSlot && ts.touched < limit {
			delete(l.tenants, slot)
		}
	}
}
