package meter

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// Bounds of a time zone's rules.
const (
	MaxZoneName  = 64
	MaxZoneRules = 32 << 10 // bytes; the largest of the IANA database has 4 KiB
)

// ZoneBody is the body of `admin.tz`: it puts the rules of one time zone into the system log, where periods of tenants in
// that zone read them. Signed by an admin.
type ZoneBody struct {
	Zone  string `cbor:"1,keyasint"` // IANA name, such as "Europe/Berlin"
	Rules []byte `cbor:"2,keyasint"` // TZif (RFC 9636), at most MaxZoneRules bytes
}

// Encode returns the canonical body.
func (b ZoneBody) Encode() ([]byte, error) { return canon.Marshal(b) }

// DecodeZoneBody parses and checks the body of `admin.tz`.
func DecodeZoneBody(body []byte) (*ZoneBody, error) {
	var b ZoneBody
	if err := canon.UnmarshalMax(body, &b, MaxZoneRules+256); err != nil {
		return nil, fmt.Errorf("decode time zone: %w", err)
	}
	if !validZoneName(b.Zone) {
		return nil, invalid("zone", "is not the name of a time zone")
	}
	if len(b.Rules) > MaxZoneRules {
		return nil, invalid("rules", "are too long")
	}
	if _, err := time.LoadLocationFromTZData(b.Zone, b.Rules); err != nil {
		return nil, invalid("rules", "are not TZif")
	}
	return &b, nil
}

func validZoneName(s string) bool {
	if s == "" || len(s) > MaxZoneName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '_' || c == '+' || c == '-' || c == '/'):
		default:
			return false
		}
	}
	return true
}

func (m *Meter) decideZone(_ ledger.View, ev *ledger.Event) ledger.Decision {
	b, err := DecodeZoneBody(ev.Body)
	if err != nil {
		return refuse(verify.OutcomeInvalid, err.Error())
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
