package nhi

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// KeyCache holds unpacked public keys, because unpacking one costs two to three
// times as much as verifying with it. It is bounded and safe for concurrent
// use. Keys are found by their id, which is a hash over all their bytes, so a
// hit is that key and no other; whether the key may sign is not its business.
type KeyCache struct {
	shards []keyShard
}

// keyShard evicts by second chance: a hit only sets a bit, under a read lock.
type keyShard struct {
	mu    sync.RWMutex
	slots map[KeyID]*keySlot // guarded by mu; as many as ring, at most max
	ring  []*keySlot         // guarded by mu; in order of arrival, hand walks it
	hand  int                // guarded by mu
	max   int
}

type keySlot struct {
	key  *PublicKey
	used atomic.Bool
}

const (
	keyCacheShards      = 16
	keyCacheShardLeast  = 8 // a smaller shard would evict by accident of the hash
	keyCacheDefaultKeys = 4096
)

// NewKeyCache returns a cache of at most max keys, each about 35 KB; max ≤ 0
// means 4096 (about 145 MB when full).
func NewKeyCache(max int) *KeyCache {
	if max <= 0 {
		max = keyCacheDefaultKeys
	}
	n := 1
	for n < keyCacheShards && max/(2*n) >= keyCacheShardLeast {
		n *= 2
	}
	c := &KeyCache{shards: make([]keyShard, n)}
	for i := range c.shards {
		c.shards[i].max = max / n
		c.shards[i].slots = make(map[KeyID]*keySlot)
	}
	return c
}

func (c *KeyCache) shard(id KeyID) *keyShard {
	return &c.shards[int(id[0])&(len(c.shards)-1)]
}

// Get returns the cached key of that id.
func (c *KeyCache) Get(id KeyID) (*PublicKey, bool) {
	s := c.shard(id)
	s.mu.RLock()
	slot := s.slots[id]
	s.mu.RUnlock()
	if slot == nil {
		return nil, false
	}
	if !slot.used.Load() { // avoids writing to a line that every core reads
		slot.used.Store(true)
	}
	return slot.key, true
}

// Parse returns the public key with these bytes, from the cache if it is there.
// It refuses what ParsePublicKey refuses and remembers no refusal.
func (c *KeyCache) Parse(s Suite, pk []byte) (*PublicKey, error) {
	if s != SuiteMLDSA65Ed25519 {
		return nil, fmt.Errorf("parse public key of suite %d: %w", uint8(s), ErrUnknownSuite)
	}
	if len(pk) != PublicKeySize {
		return nil, fmt.Errorf("parse public key of %d bytes: %w", len(pk), ErrBadKey)
	}
	id := keyID(s, pk)
	if k, ok := c.Get(id); ok {
		return k, nil
	}
	k, err := parsePublicKey(s, pk, id)
	if err != nil {
		return nil, err
	}
	return c.shard(id).add(k), nil
}

// Len returns how many keys are cached.
func (c *KeyCache) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.ring)
		s.mu.RUnlock()
	}
	return n
}

// add keeps k, or returns the equal key that another goroutine added meanwhile.
func (s *keyShard) add(k *PublicKey) *PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot := s.slots[k.id]; slot != nil {
		return slot.key
	}
	slot := &keySlot{key: k}
	s.slots[k.id] = slot
	if len(s.ring) < s.max {
		s.ring = append(s.ring, slot)
		return k
	}
	// Ends within one round: every slot passed over loses its second chance,
	// and readers that set it again are at most as many as there are cores.
	for range 2 * len(s.ring) {
		if !s.ring[s.hand].used.Swap(false) {
			break
		}
		s.hand = (s.hand + 1) % len(s.ring)
	}
	delete(s.slots, s.ring[s.hand].key.id)
	s.ring[s.hand] = slot
	s.hand = (s.hand + 1) % len(s.ring)
	return k
}
