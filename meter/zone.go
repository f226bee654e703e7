package meter

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

func (m *Meter) decideZone(_ ledger.View, ev *ledger.Event) ledger.Decision {
	b, err := kind.DecodeZoneBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	if ev.Signer == nil || ev.Signer.Type != registry.Admin {
		return refuse(verify.OutcomeUnauthorized, "only an admin sets time-zone rules")
	}
	digest := sha256.Sum256(b.Rules)
	return ledger.Decision{Writes: []ledger.Write{
		{Table: TableZone, Key: []byte(b.Zone), Value: digest[:]},
		{Table: TableRules, Key: digest[:], Value: b.Rules},
	}}
}

// zoneCache holds parsed rules by their digest. They are a pure function of it, so it does not matter to Apply which ones
// are there.
type zoneCache struct {
	mu        sync.Mutex
	locations map[nhi.Digest]*time.Location
}

const maxCachedZones = 64

// location returns the tenant's zone, and false if the system log has no rules for it.
func (m *Meter) location(v ledger.View) (*time.Location, bool) {
	zone := v.Tenant().Zone
	if zone == "" || zone == "UTC" {
		return time.UTC, true
	}
	sys := v.System()
	key, ok := sys.Get(TableZone, []byte(zone))
	if !ok {
		return nil, false
	}
	if len(key) != len(nhi.Digest{}) {
		panic(&CorruptRowError{Table: TableZone, Key: []byte(zone)})
	}
	digest := nhi.Digest(key)
	c := &m.zones
	c.mu.Lock()
	loc := c.locations[digest]
	c.mu.Unlock()
	if loc != nil {
		return loc, true
	}
	rules, ok := sys.Get(TableRules, digest[:])
	if !ok {
		panic(&CorruptRowError{Table: TableRules, Key: digest[:]})
	}
	loc, err := time.LoadLocationFromTZData(zone, rules)
	if err != nil {
		panic(&CorruptRowError{Table: TableRules, Key: digest[:]})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locations == nil || len(c.locations) >= maxCachedZones {
		c.locations = make(map[nhi.Digest]*time.Location)
	}
	c.locations[digest] = loc
	return loc, true
}
