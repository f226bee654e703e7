package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/creto-systems/creto/nhi"
)

// ErrZone is returned for a time zone that the IANA database does not have.
var ErrZone = errors.New("not in the IANA time zone database")

// CheckZone refuses a time zone whose name the IANA database of this machine, or the one built into the program, does not have.
// It reads files, so it is for clients and the edge: Apply takes any name, and counts by the rules that the system log has.
func CheckZone(name string) error {
	if name == "" || name == "Local" { // which Go takes for UTC, and for wherever it runs
		return fmt.Errorf("time zone %q: %w", name, ErrZone)
	}
	if _, err := time.LoadLocation(name); err != nil {
		return fmt.Errorf("time zone %q: %w", name, ErrZone)
	}
	return nil
}

// checkTenantCreate is the edge's check: a tenant never changes its zone, so a mistyped one is refused while it still can be.
func checkTenantCreate(ev *nhi.Event) error {
	b := new(TenantCreateBody)
	if err := decodeBody(ev, b); err != nil {
		return err
	}
	return CheckZone(b.Zone)
}
