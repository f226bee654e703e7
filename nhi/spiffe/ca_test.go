package spiffe

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const testDomain = "creto.test"

// epoch is the time at which tests issue.
func epoch() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func newTestCA(t testing.TB, td string) *CA {
	t.Helper()
	ca, err := NewCA(rand.Reader, td, epoch())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func bundleOf(t testing.TB, cas ...*CA) *Bundle {
	t.Helper()
	var roots []*x509.Certificate
	for _, ca := range cas {
		roots = append(roots, ca.Certificate())
	}
	b, err := NewBundle(cas[0].TrustDomain(), roots...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func node(n byte) Principal {
	return Principal{TrustDomain: testDomain, System: true, Role: RoleNode, ID: testID(n)}
}

func admin(n byte) Principal {
	return Principal{TrustDomain: testDomain, System: true, Role: RoleAdmin, ID: testID(n)}
}

func svidOf(t testing.TB, ca *CA, p Principal, now time.Time) *SVID {
	t.Helper()
	s, err := ca.NewSVID(Order{Principal: p}, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIssueSVID(t *testing.T) {
	ca := newTestCA(t, testDomain)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	order := Order{PublicKey: key.Public(), Principal: node(1), DNSNames: []string{"n1.creto.test"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
	c, err := ca.IssueSVID(order, epoch())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.URIs) != 1 || c.URIs[0].String() != node(1).String() {
		t.Errorf("got URIs %v, want %v alone", c.URIs, node(1))
	}
	if got, want := c.NotBefore, epoch().Add(-time.Minute); !got.Equal(want) {
		t.Errorf("got not before %v, want %v", got, want)
	}
	if got, want := c.NotAfter, epoch().Add(24*time.Hour); !got.Equal(want) {
		t.Errorf("got not after %v, want %v", got, want)
	}
	if c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("got CA %t, key usage %b, want a signing leaf", c.IsCA, c.KeyUsage)
	}
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		t.Errorf("got usages %v, want server and client", c.ExtKeyUsage)
	}

	// go-spiffe, which shares no code with us here, accepts it.
	td := spiffeid.RequireTrustDomainFromString(testDomain)
	id, _, err := x509svid.Verify([]*x509.Certificate{c}, x509bundle.FromX509Authorities(td, []*x509.Certificate{ca.Certificate()}), x509svid.WithTime(epoch()))
	if err != nil || id.String() != node(1).String() {
		t.Errorf("go-spiffe: got %v, %v, want %v", id, err, node(1))
	}

	a, err := ca.IssueSVID(Order{PublicKey: key.Public(), Principal: admin(1)}, epoch())
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(a.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		t.Error("an admin's SVID may act as a server")
	}
	if a.SerialNumber.Cmp(c.SerialNumber) == 0 {
		t.Error("two SVIDs have one serial number")
	}

	late := ca.Certificate().NotAfter.Add(-time.Hour)
	short, err := ca.IssueSVID(order, late)
	if err != nil {
		t.Fatal(err)
	}
	if !short.NotAfter.Equal(ca.Certificate().NotAfter) {
		t.Errorf("got not after %v, want that of the CA, %v", short.NotAfter, ca.Certificate().NotAfter)
	}

	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Order){
		"trust domain":  func(o *Order) { o.Principal.TrustDomain = "other.test" },
		"no principal":  func(o *Order) { o.Principal = Principal{TrustDomain: testDomain} },
		"RSA":           func(o *Order) { o.PublicKey = rsaKey.Public() },
		"no key":        func(o *Order) { o.PublicKey = nil },
		"negative life": func(o *Order) { o.TTL = -time.Hour },
		"too short":     func(o *Order) { o.TTL = MinTTL - 1 },
		"too long":      func(o *Order) { o.TTL = MaxTTL + 1 },
		"wildcard":      func(o *Order) { o.DNSNames = []string{"*.creto.test"} },
		"bad name":      func(o *Order) { o.DNSNames = []string{"-a.test"} },
		"empty name":    func(o *Order) { o.DNSNames = []string{""} },
		"no address":    func(o *Order) { o.IPs = []net.IP{net.IPv4zero} },
		"bad address":   func(o *Order) { o.IPs = []net.IP{{1, 2}} },
		"many names":    func(o *Order) { o.DNSNames = slices.Repeat([]string{"a.test"}, 33) },
		"admin's name":  func(o *Order) { o.Principal = admin(1) },
	} {
		o := order
		change(&o)
		if _, err := ca.IssueSVID(o, epoch()); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	if _, err := ca.IssueSVID(order, ca.Certificate().NotAfter.Add(time.Second)); err == nil {
		t.Error("an expired CA issued")
	}
	if _, err := ca.IssueSVID(order, ca.Certificate().NotBefore.Add(-time.Second)); err == nil {
		t.Error("a CA issued before it is valid")
	}
}

func TestParseCSR(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	evil, err := url.Parse(node(9).String())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{evil}, Subject: pkix.Name{CommonName: "root"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ParseCSR(der)
	if err != nil || !key.Public().(ed25519.PublicKey).Equal(pub) {
		t.Fatalf("got %v, %v, want the key", pub, err)
	}
	// The names of the request are not taken over.
	c, err := newTestCA(t, testDomain).IssueSVID(Order{PublicKey: pub, Principal: node(1)}, epoch())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := principalOf(c); err != nil || p != node(1) || c.Subject.CommonName != "" {
		t.Errorf("got %v, %v, subject %v, want node 1 without common name", p, err, c.Subject)
	}
	bad := slices.Clone(der)
	bad[len(bad)-1] ^= 1
	for name, b := range map[string][]byte{"signature": bad, "empty": nil, "garbage": []byte("x"), "large": make([]byte, maxCSRBytes+1)} {
		if _, err := ParseCSR(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCASaveLoad(t *testing.T) {
	dir := t.TempDir()
	ca := newTestCA(t, testDomain)
	for range 2 { // saving again is harmless
		if err := ca.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	if runtime.GOOS != "windows" {
		info, err := os.Stat(filepath.Join(dir, "ca.key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
		}
	}
	got, err := LoadCA(dir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got.TrustDomain() != testDomain || !got.Certificate().Equal(ca.Certificate()) {
		t.Errorf("got CA %x of %q, want the one saved", got.Certificate().SerialNumber, got.TrustDomain())
	}
	s := svidOf(t, got, node(1), epoch())
	if _, err := verify(s.chain(), bundleOf(t, ca), epoch(), x509.ExtKeyUsageServerAuth); err != nil {
		t.Errorf("verify what the loaded CA issued: %v", err)
	}
	if err := newTestCA(t, testDomain).Save(dir); err == nil {
		t.Error("a CA overwrote the key of another")
	}
	if names, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(names) > 0 {
		t.Errorf("got temporary files %v left", names)
	}

	other := t.TempDir()
	if err := newTestCA(t, testDomain).Save(other); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(other, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"another key": key, "truncated": key[:40], "empty": nil, "large": make([]byte, maxKeyBytes+1)} {
		if err := os.WriteFile(filepath.Join(dir, "ca.key"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadCA(dir, rand.Reader); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	if _, err := LoadCA(t.TempDir(), rand.Reader); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty folder: got %v, want not exist", err)
	}
}

func TestBundle(t *testing.T) {
	a, b, foreign := newTestCA(t, testDomain), newTestCA(t, testDomain), newTestCA(t, "other.test")
	one := bundleOf(t, a)
	two, err := one.With(b.Certificate(), a.Certificate())
	if err != nil || len(two.Roots()) != 2 {
		t.Fatalf("got %d roots, %v, want 2", len(two.Roots()), err)
	}
	again, err := ParseBundle(testDomain, two.PEM())
	if err != nil || !sameRoots(again, two) {
		t.Errorf("parse what PEM wrote: %v", err)
	}
	if _, err := one.With(foreign.Certificate()); err == nil {
		t.Error("a root of another trust domain was added")
	}
	if _, err := one.Without(a.Certificate()); err == nil {
		t.Error("the last root was removed")
	}
	rest, err := two.Without(a.Certificate())
	if err != nil || len(rest.Roots()) != 1 || !rest.Roots()[0].Equal(b.Certificate()) {
		t.Errorf("got %v, want b alone", err)
	}
	leaf := svidOf(t, a, node(1), epoch())
	if _, err := NewBundle(testDomain, leaf.Certificate()); err == nil {
		t.Error("an SVID was taken for a root")
	}
	_, key, err := leaf.PEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty": nil, "garbage": []byte("x"), "a key": key, "text after": append(one.PEM(), "x"...),
		"bad DER": pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: []byte{1}}),
		"large":   make([]byte, maxBundleBytes+1),
	} {
		if _, err := ParseBundle(testDomain, text); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	var none *Bundle
	if none.valid(epoch()) || one.valid(a.Certificate().NotAfter.Add(time.Second)) || !one.valid(epoch()) {
		t.Error("got validity of bundles wrong: none and expired are not, current is")
	}
}

// forge signs a leaf that IssueSVID would not.
func forge(t testing.TB, ca *CA, change func(*x509.Certificate)) *SVID {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(node(1).String())
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: epoch().Add(-time.Minute), NotAfter: epoch().Add(time.Hour),
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s := &SVID{leaf: leaf}
	s.tls.Certificate, s.tls.PrivateKey = [][]byte{der}, key
	return s
}
