package registry

import (
	"errors"
	"sync"
	"testing"

	"github.com/creto-systems/creto/nhi"
)

func TestCachesAgreeWithState(t *testing.T) {
	f := newFamily(t)
	chains, signers := NewChainCache(64), NewSignerCache(64)
	id := f.link(f.third(), f.b)
	people := []*person{f.human, f.a, f.b, f.c}
	keys := []nhi.KeyID{}
	for _, p := range people {
		keys = append(keys, p.key.Public().ID())
	}
	check := func(step string) {
		t.Helper()
		for range 2 { // cold and hot
			want, wantErr := ResolveChain(f.tenant, id, f.index)
			got, err := chains.Resolve(f.tenant, f.at(), id)
			if CodeOf(err) != CodeOf(wantErr) || (want == nil) != (got == nil) {
				t.Errorf("%s: chain from the cache: %v, from state: %v", step, err, wantErr)
			}
			for _, k := range keys {
				want, wantErr := ResolveSigner(f.tenant, k, f.index)
				got, err := signers.Resolve(f.tenant, f.at(), k)
				if err != nil || wantErr != nil || CodeOf(got.Live(f.time)) != CodeOf(want.Live(f.time)) || got.Identity.Key != want.Identity.Key {
					t.Errorf("%s: signer from the cache: %v, from state: %v", step, err, wantErr)
				}
			}
		}
	}
	check("registered")
	f.want(OK, f.do(f.by(f.authority), KindSuspend, &StatusBody{ID: f.a.id}))
	check("suspended")
	f.want(OK, f.do(f.by(f.authority), KindResume, &StatusBody{ID: f.a.id}))
	check("resumed")
	f.rotate(f.c, "c 2", f.time+5*second)
	check("rotated")
	f.want(OK, f.do(f.by(f.a), KindRevokeLink, &RevokeLinkBody{Link: f.second}))
	check("revoked")
}

// A worker that looks at an older state neither finds what is registered later
// nor displaces what Apply uses.
func TestCacheAtOlderPositions(t *testing.T) {
	f := newFamily(t)
	c := NewChainCache(64)
	old := f.at()
	id := f.link(f.third(), f.b) // raises no epoch
	if f.at().Entities != old.Entities || f.at().Revocation != old.Revocation {
		t.Fatal("registering a link raised an epoch")
	}
	if _, err := c.Resolve(f.tenant, f.at(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resolve(f.tenant, Position{Slot: 1, Entities: old.Entities, Revocation: old.Revocation, Index: old.Index - 1}, id); !errors.Is(err, CodeUnknownLink) {
		t.Errorf("before the registration: got %v, want %v", err, CodeUnknownLink)
	}

	signers, key := NewSignerCache(64), f.b.key.Public().ID()
	if _, err := signers.Resolve(f.tenant, f.at(), key); err != nil {
		t.Fatal(err)
	}
	early := f.at()
	early.Index = 0
	if _, err := signers.Resolve(f.tenant, early, key); !errors.Is(err, CodeUnknownKey) {
		t.Errorf("key before its registration: got %v, want %v", err, CodeUnknownKey)
	}

	before := f.at()
	f.want(OK, f.do(f.by(f.human), KindRevokeLink, &RevokeLinkBody{Link: f.root}))
	before.Index-- // the state before the revocation
	if _, err := c.Resolve(f.tenant, before, id); err != nil {
		t.Errorf("at the older position: %v", err)
	}
	if _, err := c.Resolve(f.tenant, f.at(), id); !errors.Is(err, CodeLinkRevoked) {
		t.Errorf("at the newer position: got %v, want %v", err, CodeLinkRevoked)
	}
	other := f.at()
	other.Slot = 2
	if _, err := c.Resolve(newState(), other, id); !errors.Is(err, CodeUnknownLink) {
		t.Errorf("in another slot: got %v, want %v", err, CodeUnknownLink)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache[int](64)
	at := Position{Slot: 1}
	for i := range 10_000 {
		c.put(at, [32]byte{byte(i), byte(i >> 8)}, i)
		c.get(at, [32]byte{byte(i / 2), byte(i / 2 >> 8)})
	}
	if n := c.len(); n > 64 {
		t.Errorf("holds %d entries, want at most 64", n)
	}
	for i := range c.shards {
		s := &c.shards[i]
		if len(s.m) != len(s.ring) {
			t.Errorf("shard %d: %d in the map, %d in the ring", i, len(s.m), len(s.ring))
		}
		for j, e := range s.ring {
			if e.pos != j || s.m[e.key] != e {
				t.Errorf("shard %d: entry %d is out of place", i, j)
			}
		}
	}
	at.Entities++
	c.put(at, [32]byte{byte(9999 & 0xff), byte(9999 >> 8)}, -1)
	if v, ok := c.get(at, [32]byte{byte(9999 & 0xff), byte(9999 >> 8)}); !ok || v != -1 {
		t.Errorf("replaced entry: got %d, %v", v, ok)
	}
	at.Entities--
	if _, ok := c.get(at, [32]byte{byte(9999 & 0xff), byte(9999 >> 8)}); ok {
		t.Error("found under another epoch")
	}
	c.put(at, [32]byte{byte(9999 & 0xff), byte(9999 >> 8)}, -2)
	at.Entities++
	if v, ok := c.get(at, [32]byte{byte(9999 & 0xff), byte(9999 >> 8)}); !ok || v != -1 {
		t.Errorf("after an older put: got %d, %v", v, ok)
	}
}

func TestCachesConcurrently(t *testing.T) {
	f := newFamily(t)
	chains, signers := NewChainCache(16), NewSignerCache(16)
	ids := []nhi.LinkID{f.root, f.second, f.link(f.third(), f.b)}
	at, view := f.at(), f.tenant
	key := f.b.key.Public().ID()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				p := at
				p.Revocation += uint64((i + g) % 3)
				if c, err := chains.Resolve(view, p, ids[i%3]); err != nil || c.ID() != ids[i%3] {
					t.Errorf("chain: %v", err)
				}
				if s, err := signers.Resolve(view, p, key); err != nil || s.Key.ID != key {
					t.Errorf("signer: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
