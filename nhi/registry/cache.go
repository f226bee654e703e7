package registry

import (
	"sync"
	"sync/atomic"

	"github.com/creto-systems/creto/nhi"
)

// Position says which state a view shows: whose, and as of when. Every change to
// an identity, key or revocation raises one of the epochs, so what is found at
// one position holds at every later one with the same epochs.
type Position struct {
	Slot       uint32
	Entities   uint64
	Revocation uint64
	Index      uint64 // as of which to resolve
}

// ChainCache finds chains faster than ResolveChain, and finds exactly the same:
// an entry is used only under the slot and epochs it was made under and at or
// after the index at which its last link was registered, so it is a pure function
// of state and may be used in Apply. Refusals are not kept. It is bounded and
// safe for concurrent use. One cache belongs to one ledger.
type ChainCache struct {
	chains *cache[*Chain]
	links  *cache[*LinkRecord] // links never change, so their epochs are zero
}

// NewChainCache returns a cache of at most max chains and as many links, a few
// KiB each; max ≤ 0 means 16384.
func NewChainCache(max int) *ChainCache {
	if max <= 0 {
		max = 16384
	}
	return &ChainCache{chains: newCache[*Chain](max), links: newCache[*LinkRecord](max)}
}

// Resolve is ResolveChain at a position.
func (c *ChainCache) Resolve(v View, at Position, leaf nhi.LinkID) (*Chain, error) {
	if chain, ok := c.chains.get(at, leaf); ok && chain.Since <= at.Index {
		return chain, nil
	}
	chain, err := resolveChain(v, c.source(v, at), leaf, at.Index, MaxLinks)
	if err != nil {
		return nil, err
	}
	c.chains.put(at, leaf, chain)
	return chain, nil
}

func (c *ChainCache) source(v View, at Position) source {
	pos := Position{Slot: at.Slot}
	return func(id nhi.LinkID) (*LinkRecord, error) {
		if r, ok := c.links.get(pos, id); ok && r.Registered <= at.Index {
			return r, nil
		}
		r, err := ResolveLink(v, id, at.Index)
		if err == nil {
			c.links.put(pos, id, r)
		}
		return r, err
	}
}

// SignerCache finds the key and identity behind a key id, by the same rules as
// ChainCache.
type SignerCache struct{ signers *cache[*Signer] }

// NewSignerCache returns a cache of at most max signers, about 3 KiB each;
// max ≤ 0 means 16384.
func NewSignerCache(max int) *SignerCache {
	if max <= 0 {
		max = 16384
	}
	return &SignerCache{newCache[*Signer](max)}
}

// Resolve is ResolveSigner at a position.
func (c *SignerCache) Resolve(v View, at Position, key nhi.KeyID) (*Signer, error) {
	if s, ok := c.signers.get(at, key); ok && s.Key.From <= at.Index {
		return s, nil
	}
	s, err := ResolveSigner(v, key, at.Index)
	if err != nil {
		return nil, err
	}
	c.signers.put(at, key, s)
	return s, nil
}

// SuiteCache finds least suites by the same rules as ChainCache, for every event
// needs one.
type SuiteCache struct{ classes *cache[[]activation] }

// activation is a least suite from an index of the system log on.
type activation struct {
	from  uint64
	suite nhi.Suite
}

// NewSuiteCache returns a cache with room for every class.
func NewSuiteCache() *SuiteCache { return &SuiteCache{newCache[[]activation](256)} }

// Least is MinSuite at a position in slot 0, whose Index is the next of the system
// log.
func (c *SuiteCache) Least(system View, at Position, class ObjectClass) nhi.Suite {
	id := [32]byte{byte(class)}
	all, ok := c.classes.get(at, id)
	if !ok {
		all = activations(system, class)
		c.classes.put(at, id, all)
	}
	least := nhi.SuiteMLDSA65Ed25519
	for _, a := range all {
		if a.from > at.Index {
			break
		}
		least = a.suite
	}
	return least
}

const cacheShards = 16

// cache is a bounded map with second chance eviction, sharded by the first byte
// of the id (ids are hashes).
type cache[V any] struct {
	shards [cacheShards]shard[V]
}

type cacheKey struct {
	id   [32]byte
	slot uint32
}

type shard[V any] struct {
	mu   sync.RWMutex
	m    map[cacheKey]*entry[V] // guarded by mu; as many as ring
	ring []*entry[V]            // guarded by mu; hand walks it
	hand int                    // guarded by mu
	max  int
}

// entry is immutable but for used, and pos, which the shard's mu guards.
type entry[V any] struct {
	key                  cacheKey
	pos                  int // in ring
	entities, revocation uint64
	value                V
	used                 atomic.Bool
}

func newCache[V any](max int) *cache[V] {
	c := new(cache[V])
	for i := range c.shards {
		c.shards[i].m = make(map[cacheKey]*entry[V])
		c.shards[i].max = (max + cacheShards - 1) / cacheShards
	}
	return c
}

func (c *cache[V]) get(at Position, id [32]byte) (value V, ok bool) {
	s := &c.shards[id[0]%cacheShards]
	s.mu.RLock()
	e := s.m[cacheKey{id, at.Slot}]
	s.mu.RUnlock()
	if e == nil || e.entities != at.Entities || e.revocation != at.Revocation {
		return value, false
	}
	if !e.used.Load() { // avoids writing to a line that every core reads
		e.used.Store(true)
	}
	return e.value, true
}

// put keeps value unless a later position's is there: a worker that still looks
// at an older state must not displace what Apply uses.
func (c *cache[V]) put(at Position, id [32]byte, value V) {
	s := &c.shards[id[0]%cacheShards]
	e := &entry[V]{key: cacheKey{id, at.Slot}, entities: at.Entities, revocation: at.Revocation, value: value}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.m[e.key]; old != nil {
		if old.entities > at.Entities || old.revocation > at.Revocation {
			return
		}
		e.pos = old.pos
		s.ring[e.pos], s.m[e.key] = e, e
		return
	}
	s.m[e.key] = e
	if len(s.ring) < s.max {
		e.pos = len(s.ring)
		s.ring = append(s.ring, e)
		return
	}
	// Ends within one round: every entry passed over loses its second chance,
	// and readers that set it again are at most as many as there are cores.
	for range 2 * len(s.ring) {
		if !s.ring[s.hand].used.Swap(false) {
			break
		}
		s.hand = (s.hand + 1) % len(s.ring)
	}
	delete(s.m, s.ring[s.hand].key)
	e.pos = s.hand
	s.ring[s.hand] = e
	s.hand = (s.hand + 1) % len(s.ring)
}

func (c *cache[V]) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.ring)
		s.mu.RUnlock()
	}
	return n
}
