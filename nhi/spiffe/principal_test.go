package spiffe

import (
	"errors"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func testID(b byte) nhi.ID { return nhi.ID{b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} }

func TestFormatParse(t *testing.T) {
	tenant, id := testID(1), testID(2)
	for _, p := range []Principal{
		{TrustDomain: "creto.test", Tenant: tenant, Role: RoleHuman, ID: id},
		{TrustDomain: "creto.test", Tenant: tenant, Role: RoleAgent, ID: id},
		{TrustDomain: "creto.test", Tenant: tenant, Role: RoleService, ID: id},
		{TrustDomain: "creto.test", Tenant: tenant, Role: RoleNode, ID: id},
		{TrustDomain: "creto.test", Tenant: tenant, Role: RoleSandbox, ID: id},
		{TrustDomain: "a_b-1.x", System: true, Role: RoleNode, ID: id},
		{TrustDomain: "creto.test", System: true, Role: RoleSandbox, ID: id},
		{TrustDomain: strings.Repeat("a", 255), System: true, Role: RoleAdmin, ID: id},
	} {
		s, err := FormatID(p)
		if err != nil {
			t.Errorf("format %+v: %v", p, err)
			continue
		}
		got, err := ParseID(s)
		if err != nil || got != p {
			t.Errorf("parse %q: got %+v, %v, want %+v", s, got, err, p)
		}
		// What we write is a SPIFFE ID to others.
		if _, err := spiffeid.FromString(s); err != nil {
			t.Errorf("go-spiffe refuses %q: %v", s, err)
		}
	}
	want := "spiffe://creto.test/t/aeaqeayeaudaocajbifqydiob4/agent/aiaqeayeaudaocajbifqydiob4"
	if got := (Principal{TrustDomain: "creto.test", Tenant: tenant, Role: RoleAgent, ID: id}).String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	for _, p := range []Principal{
		{},
		{TrustDomain: "creto.test", Role: RoleAgent, ID: id},
		{TrustDomain: "creto.test", Tenant: tenant, Role: RoleAgent},
		{TrustDomain: "creto.test", Tenant: tenant, Role: RoleAdmin, ID: id},
		{TrustDomain: "creto.test", Tenant: tenant, Role: "svc", ID: id},
		{TrustDomain: "creto.test", System: true, Role: RoleAgent, ID: id},
		{TrustDomain: "creto.test", System: true, Tenant: tenant, Role: RoleNode, ID: id},
		{TrustDomain: "Creto.test", System: true, Role: RoleNode, ID: id},
		{TrustDomain: strings.Repeat("a", 256), System: true, Role: RoleNode, ID: id},
	} {
		if s, err := FormatID(p); !errors.Is(err, ErrBadID) {
			t.Errorf("format %+v: got %q, %v, want ErrBadID", p, s, err)
		}
	}
}

// Every spelling but one is refused, so no two texts name one identity.
func TestIdentity28SPIFFEIDSpelling(t *testing.T) {
	const (
		td   = "spiffe://creto.test"
		id   = "aiaqeayeaudaocajbifqydiob4"
		good = td + "/t/aeaqeayeaudaocajbifqydiob4/agent/" + id
	)
	if _, err := ParseID(good); err != nil {
		t.Fatalf("parse %q: %v", good, err)
	}
	tests := []struct{ name, id string }{
		{"empty", ""},
		{"trust domain alone", td},
		{"root path", td + "/"},
		{"NFC", strings.Replace(good, "agent", "ag\u00e9nt", 1)},
		{"NFD", strings.Replace(good, "agent", "age\u0301nt", 1)},
		{"zero width", strings.Replace(good, "agent", "ag\u200dent", 1)},
		{"bidi", strings.Replace(good, "agent", "\u202eagent", 1)},
		{"homoglyph", strings.Replace(good, "agent", "\u0430gent", 1)},
		{"upper-case trust domain", strings.Replace(good, "creto", "Creto", 1)},
		{"upper-case scheme", strings.Replace(good, "spiffe", "SPIFFE", 1)},
		{"upper-case role", strings.Replace(good, "agent", "Agent", 1)},
		{"upper-case id", td + "/t/aeaqeayeaudaocajbifqydiob4/agent/" + strings.ToUpper(id)},
		{"percent dot", strings.Replace(good, "/agent", "/%2e/agent", 1)},
		{"percent letter", strings.Replace(good, "agent", "%61gent", 1)},
		{"dot dot", strings.Replace(good, "/agent", "/../agent", 1)},
		{"dot dot for role", strings.Replace(good, "agent", "..", 1)},
		{"dot", strings.Replace(good, "/agent", "/./agent", 1)},
		{"empty segment", strings.Replace(good, "/agent", "//agent", 1)},
		{"trailing slash", good + "/"},
		{"more path", good + "/x"},
		{"query", good + "?a=b"},
		{"fragment", good + "#a"},
		{"port", strings.Replace(good, "creto.test", "creto.test:443", 1)},
		{"user", strings.Replace(good, "creto.test", "a@creto.test", 1)},
		{"no trust domain", strings.Replace(good, "creto.test", "", 1)},
		{"https", strings.Replace(good, "spiffe", "https", 1)},
		{"leading space", " " + good},
		{"trailing newline", good + "\n"},
		{"NUL", good + "\x00"},
		{"short id", good[:len(good)-1]},
		{"spare bits in id", good[:len(good)-1] + "5"},
		{"padding", good + "="},
		{"zero id", td + "/system/node/aaaaaaaaaaaaaaaaaaaaaaaaaa"},
		{"agent of the cluster", td + "/system/agent/" + id},
		{"admin of a tenant", strings.Replace(good, "agent", "admin", 1)},
		{"256 bytes of trust domain", "spiffe://" + strings.Repeat("a", 256) + "/system/node/" + id},
		{"2,049 bytes", good + strings.Repeat("a", MaxIDBytes+1-len(good))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if p, err := ParseID(tt.id); !errors.Is(err, ErrBadID) {
				t.Errorf("got %+v, %v, want ErrBadID", p, err)
			}
		})
	}
}

// FuzzParseID: what is accepted is written back byte for byte, and is a
// SPIFFE ID to go-spiffe too.
func FuzzParseID(f *testing.F) {
	f.Add("spiffe://creto.test/t/aeaqeayeaudaocajbifqydiob4/agent/aiaqeayeaudaocajbifqydiob4")
	f.Add("spiffe://creto.test/system/node/aiaqeayeaudaocajbifqydiob4")
	f.Add("spiffe://creto.test/system/../aiaqeayeaudaocajbifqydiob4")
	f.Add("SPIFFE://a%2e")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseID(s)
		if err != nil {
			if !errors.Is(err, ErrBadID) {
				t.Fatalf("got %v, want ErrBadID", err)
			}
			return
		}
		if got, err := FormatID(p); err != nil || got != s {
			t.Fatalf("got %q, %v back, want %q", got, err, s)
		}
		if _, err := spiffeid.FromString(s); err != nil {
			t.Fatalf("go-spiffe refuses it: %v", err)
		}
	})
}
