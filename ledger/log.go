package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// Config configures a Log. The zero value of an optional field means its default.
type Config struct {
	Dir    string       // of the state store
	FS     vfs.FS       // optional: the default file system; tests give one in memory
	Kinds  []Kind       // of the domains; the ledger's own kinds are always there
	Logger *slog.Logger // optional: nothing is logged

	// Tree gives the accounts of a tenant, for chains whose scopes name accounts; optional: accounts have no descendants. It
	// must be a pure function of the view.
	Tree func(v View) registry.Tree

	// Level is the highest feature level that the kinds know; optional: SupportedLevel. Tests raise it to stand for a binary of
	// tomorrow.
	Level uint32

	CacheBytes   int64 // block cache of the store, out of which up to four memtables are taken; optional: 320 MiB
	MemTableSize int   // bytes of a memtable; optional: 64 MiB
	MaxTenants   int   // tenants whose growing edge is kept in memory, about 10 KiB each; optional: 4096
}

// Log is the ledger of one node. Apply is called from one goroutine; everything else is safe for concurrent use.
type Log struct {
	cfg      Config
	db       *pebble.DB
	kinds    map[string]*kindEntry
	handlers map[string]*handlerEntry
	auth     authority

	mu      sync.Mutex // held by Apply, Sync and Close
	meta    meta       // guarded by mu
	genesis *Genesis   // guarded by mu; nil before the genesis command
	id      nhi.Digest // guarded by mu
	tenants map[uint32]*tenantState
	spine   *tree // guarded by mu
	broken  error // guarded by mu; the FatalError that ended this Log
	closed  bool  // guarded by mu

	applied atomic.Uint64
	synced  atomic.Uint64
	ident   atomic.Pointer[identity]

	openMu sync.Mutex
	open   map[uint64]int // guarded by openMu; open snapshots by the applied index they were opened at

	erasures chan struct{} // capacity 1: something was erased
	purgeMu  sync.Mutex    // held by PurgeErased
	purged   atomic.Pointer[purgeMark]

	watchMu sync.Mutex
	watch   chan struct{} // guarded by watchMu; closed by the next Apply
}

// identity is what never changes once genesis is applied.
type identity struct {
	genesis *Genesis
	raw     []byte
	ledger  nhi.Digest
}

type kindEntry struct {
	Kind
	term    term // its posting
	handler *handlerEntry
}

type handlerEntry struct {
	Handler
	tables [256]bool
}

// tenantState is the growing edge of one tenant's log, used by Apply alone.
type tenantState struct {
	Tenant
	row      *tenantRow // nil in slot 0
	tree     *tree
	epochs   verify.Epochs
	dirty    bool          // has a dirty row
	touched  uint64        // Raft index of the last command for it
	view     *view         // over the Apply that is running
	accounts registry.Tree // over the same
}

// Open opens the state store, or makes an empty one, and reads where it stands. It starts no goroutine but the store's own.
func Open(cfg Config) (*Log, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 320 << 20
	}
	if cfg.MemTableSize == 0 {
		cfg.MemTableSize = 64 << 20
	}
	if cfg.MaxTenants == 0 {
		cfg.MaxTenants = 4096
	}
	if cfg.Level == 0 {
		cfg.Level = SupportedLevel
	}
	l := &Log{
		cfg: cfg, tenants: make(map[uint32]*tenantState), open: make(map[uint64]int), watch: make(chan struct{}), erasures: make(chan struct{}, 1),
	}
	l.auth = newAuthority()
	if err := l.addKinds(slices.Concat(l.ownKinds(), cfg.Kinds)); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	opts := storeOptions(&cfg)
	db, err := pebble.Open(cfg.Dir, opts)
	opts.Cache.Unref() // an open store keeps its own reference
	if err != nil {
		return nil, fmt.Errorf("open ledger: open state store: %w", err)
	}
	l.db = db
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", errors.Join(err, db.Close()))
	}
	if err := l.loadPurgeMark(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", errors.Join(err, db.Close()))
	}
	return l, nil
}

// storeOptions: no write-ahead log, because the Raft log is it; bloom filters, because most lookups are for request ids that
// are not there; no value separation, because an erased value must go away with the compaction of its row.
func storeOptions(cfg *Config) *pebble.Options {
	o := &pebble.Options{
		FS:                          cfg.FS,
		Cache:                       pebble.NewCache(cfg.CacheBytes),
		DisableWAL:                  true,
		MemTableSize:                uint64(cfg.MemTableSize),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      storeLogger{cfg.Logger},
	}
	o.Experimental.ValueSeparationPolicy = separation
	o.Experimental.SpanPolicyFunc = separated
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 16 << 10
	}
	return o
}

// separation: large values are written once, into blob files, and compactions move only their keys. Nothing deletes them, so
// there is no garbage to collect while the log is kept whole.
func separation() pebble.ValueSeparationPolicy {
	return pebble.ValueSeparationPolicy{
		Enabled: true, MinimumSize: 1 << 10, MaxBlobReferenceDepth: 32, RewriteMinimumAge: time.Hour, TargetGarbageRatio: 0.5,
	}
}

// separated says for which tables: payloads and signatures. Everything else is small, or, like addenda, is to be gone from the
// disk as soon as its file is compacted.
func separated(start []byte) (pebble.SpanPolicy, []byte, error) {
	first, end := []byte{byte(tablePayloads)}, []byte{byte(tableSigs) + 1}
	switch {
	case bytes.Compare(start, first) < 0:
		return pebble.SpanPolicy{ValueStoragePolicy: pebble.ValueStorageLowReadLatency}, first, nil
	case bytes.Compare(start, end) < 0:
		return pebble.SpanPolicy{DisableValueSeparationBySuffix: true}, end, nil
	}
	return pebble.SpanPolicy{ValueStoragePolicy: pebble.ValueStorageLowReadLatency}, nil, nil
}

// storeLogger hands the store's messages on; they concern operators only when something is wrong.
type storeLogger struct{ l *slog.Logger }

func (s storeLogger) Infof(format string, args ...any) {}
func (s storeLogger) Errorf(format string, args ...any) {
	s.l.Error("state store", "message", fmt.Sprintf(format, args...))
}

// Fatalf must not return: the store calls it where it cannot go on.
func (s storeLogger) Fatalf(format string, args ...any) {
	panic(storePanic{fmt.Errorf("state store: "+format, args...)})
}

func (l *Log) addKinds(kinds []Kind) error {
	l.kinds = make(map[string]*kindEntry, len(kinds))
	l.handlers = make(map[string]*handlerEntry)
	for _, k := range kinds {
		if k.Handler == nil || l.kinds[k.Name] != nil {
			return fmt.Errorf("kind %q has no handler, or is there twice", k.Name)
		}
		name := k.Handler.Name()
		if name == "" || strings.ContainsAny(name, ".\x00") {
			return fmt.Errorf("handler name %q of kind %q", name, k.Name)
		}
		h := l.handlers[name]
		if h == nil {
			h = &handlerEntry{Handler: k.Handler}
			l.handlers[name] = h
		}
		_, own := k.Handler.(ownHandler)
		for _, t := range k.Handler.Tables() {
			if t < firstForeignTable && !own {
				return fmt.Errorf("handler %q of kind %q declares the ledger's table %#x", name, k.Name, byte(t))
			}
			h.tables[t] = true
		}
		l.kinds[k.Name] = &kindEntry{Kind: k, term: textTerm(k.Name), handler: h}
	}
	return nil
}

// load reads where the store stands.
func (l *Log) load() (err error) {
	defer func() {
		if r := recover(); r != nil {
			p, ok := r.(storePanic)
			if !ok {
				panic(r)
			}
			err = p.err
		}
	}()
	s := l.snapshot()
	defer s.release()
	b, ok := s.get(metaKey())
	if !ok {
		l.spine = &tree{slot: SpineSlot, rng: treeRange().NewEmptyRange(0)}
		return nil
	}
	if err := l.meta.decode(b); err != nil {
		return err
	}
	l.applied.Store(l.meta.applied)
	l.synced.Store(l.meta.applied)
	if raw, ok := s.get(genesisKey()); ok {
		g, err := DecodeGenesis(raw)
		if err != nil {
			return corrupt("genesis: %v", err)
		}
		l.found(g, raw)
	}
	if l.meta.active > l.cfg.Level {
		return fmt.Errorf("the store's active level is %d, this binary knows %d", l.meta.active, l.cfg.Level)
	}
	l.spine, err = loadTree(s, SpineSlot)
	return err
}

// found records the genesis.
func (l *Log) found(g *Genesis, raw []byte) {
	l.genesis, l.id = g, LedgerID(raw)
	l.ident.Store(&identity{genesis: g, raw: raw, ledger: l.id})
}

// Close closes the store. What was applied since the last Sync may be gone; the Raft log replays it.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if err := l.db.Close(); err != nil {
		return fmt.Errorf("close state store: %w", err)
	}
	return nil
}

// Sync makes everything that was applied durable in the state store; afterwards SyncedIndex is the applied index it found.
func (l *Log) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.flush()
}

// flush is Sync for a caller that holds mu.
func (l *Log) flush() error {
	if err := l.db.Flush(); err != nil {
		return l.breakDown(&FatalError{Op: "flush state store", Err: err})
	}
	l.synced.Store(l.meta.applied)
	return nil
}

func (l *Log) usable() error {
	if l.broken != nil {
		return l.broken
	}
	if l.closed {
		return ErrClosed
	}
	return nil
}

func (l *Log) breakDown(err *FatalError) error {
	l.broken = err
	return err
}

// AppliedIndex is the Raft index of the last command in the state, 0 before the first.
func (l *Log) AppliedIndex() uint64 { return l.applied.Load() }

// SyncedIndex is the Raft index through which the state survives a crash of the machine.
func (l *Log) SyncedIndex() uint64 { return l.synced.Load() }

// LedgerID names the ledger; the error is ErrNoLedger before genesis.
func (l *Log) LedgerID() (nhi.Digest, error) {
	i := l.ident.Load()
	if i == nil {
		return nhi.Digest{}, ErrNoLedger
	}
	return i.ledger, nil
}

// Genesis returns the genesis, decoded and as bytes; the error is ErrNoLedger before it is applied.
func (l *Log) Genesis() (*Genesis, []byte, error) {
	i := l.ident.Load()
	if i == nil {
		return nil, nil, ErrNoLedger
	}
	return i.genesis, i.raw, nil
}

// Kind returns the description of a kind.
func (l *Log) Kind(name string) (Kind, bool) {
	k, ok := l.kinds[name]
	if !ok {
		return Kind{}, false
	}
	return k.Kind, true
}

// Applied returns a channel that is closed by the first Apply that commits after the call.
func (l *Log) Applied() <-chan struct{} {
	l.watchMu.Lock()
	defer l.watchMu.Unlock()
	return l.watch
}

func (l *Log) notify() {
	l.watchMu.Lock()
	defer l.watchMu.Unlock()
	close(l.watch)
	l.watch = make(chan struct{})
}

// Spine returns where the spine stands: the last epoch, which is its size, and its root, as this node computed them.
func (l *Log) Spine() (epoch uint64, root nhi.Digest, err error) {
	s, err := l.Read()
	if err != nil {
		return 0, nhi.Digest{}, err
	}
	h, err := s.Head(SpineSlot)
	return h.Size, h.Root, errors.Join(err, s.Close())
}

// SpineRoot returns the root of the spine at a size that this node has applied.
func (l *Log) SpineRoot(size uint64) (nhi.Digest, error) {
	s, err := l.Read()
	if err != nil {
		return nhi.Digest{}, err
	}
	root, err := s.RootAt(SpineSlot, size)
	return root, errors.Join(err, s.Close())
}
