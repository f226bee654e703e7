package node

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
)

const (
	maxTokenCache = 4096
	tokenCacheAge = time.Second // a token expires by time, which an idle log does not show
)

// tokenCache remembers which read tokens opened a log, for as long as nothing has been applied since: an answer from it is
// the one the state gives. Wrong tokens are not remembered.
type tokenCache struct {
	mu      sync.Mutex
	applied uint64                // guarded by mu; index that good is about
	since   time.Time             // guarded by mu
	good    map[tokenKey]struct{} // guarded by mu
}

type tokenKey struct {
	tenant nhi.ID
	token  nhi.Digest
}

func (c *tokenCache) has(k tokenKey, applied uint64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.applied != applied || now.Sub(c.since) > tokenCacheAge {
		return false
	}
	_, ok := c.good[k]
	return ok
}

// add keeps a good token that was looked up at an applied index.
func (c *tokenCache) add(k tokenKey, applied uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == nil || c.applied != applied || now.Sub(c.since) > tokenCacheAge || len(c.good) >= maxTokenCache {
		c.good = make(map[tokenKey]struct{})
		c.applied, c.since = applied, now
	}
	c.good[k] = struct{}{}
}

// readToken says whether a token opens a tenant's log now.
func (s *Server) readToken(tenant nhi.ID, token []byte) bool {
	k := tokenKey{tenant, sha256.Sum256(token)}
	if s.tokens.has(k, s.ledger.AppliedIndex(), time.Now()) {
		return true
	}
	ok, applied, err := s.lookToken(tenant, token)
	if err != nil || !ok {
		return false
	}
	s.tokens.add(k, applied, time.Now())
	return true
}

func (s *Server) lookToken(tenant nhi.ID, token []byte) (ok bool, applied uint64, err error) {
	var snap *ledger.Snapshot
	if snap, err = s.ledger.Read(); err != nil {
		return false, 0, err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return false, 0, err
	}
	ok, err = snap.ReadTokenValid(t.Slot, token, max(snap.Time(), s.now()))
	return ok, snap.Index(), err
}
