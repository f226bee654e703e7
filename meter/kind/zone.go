package kind

import (
	"fmt"
	"time"

	"github.com/creto-systems/creto/nhi/canon"
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
