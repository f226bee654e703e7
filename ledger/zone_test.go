package ledger_test

import (
	"errors"
	"testing"
	_ "time/tzdata"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/nhi"
)

func TestCheckZone(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "Asia/Kolkata", "Etc/GMT+5"} {
		if err := ledger.CheckZone(name); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, name := range []string{"", "Local", "Europe/Nowhere", "../etc/passwd", "/etc/localtime", "Europe", "Europe/Berlin\x00"} {
		if err := ledger.CheckZone(name); !errors.Is(err, ledger.ErrZone) {
			t.Errorf("%q: got %v, want ErrZone", name, err)
		}
	}
}

// TestTenantCreateAtTheEdge holds the check that a node makes before it proposes a tenant.
func TestTenantCreateAtTheEdge(t *testing.T) {
	f := ledgertest.New(t)
	k, ok := f.Log.Kind(ledger.KindTenantCreate)
	if !ok {
		t.Fatal("no such kind")
	}
	for zone, want := range map[string]error{"Europe/Berlin": nil, "Europe/Nowhere": ledger.ErrZone} {
		b := &ledger.TenantCreateBody{Tenant: nhi.ID{1}, Authority: nhi.ID{2}, Zone: zone, ReadToken: nhi.Digest{1}}
		body, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Check(&nhi.Event{Kind: ledger.KindTenantCreate, Body: body}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", zone, err, want)
		}
	}
}
