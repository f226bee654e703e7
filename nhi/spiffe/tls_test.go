package spiffe

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// connect makes one connection and sends one byte each way: in TLS 1.3 a
// client learns only after its handshake that it was refused.
func connect(t testing.TB, server, client *tls.Config) (s, c tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		conn := tls.Server(raw, server)
		defer conn.Close()
		var b [1]byte
		_, err = io.ReadFull(conn, b[:])
		if err == nil {
			_, err = conn.Write(b[:])
		}
		s = conn.ConnectionState()
		done <- err
	}()
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, client)
	var b [1]byte
	_, clientErr = conn.Write([]byte{1})
	if clientErr == nil {
		_, clientErr = io.ReadFull(conn, b[:])
	}
	c = conn.ConnectionState()
	conn.Close()
	serverErr = <-done
	return s, c, serverErr, clientErr
}

func sourceOf(t testing.TB, now func() time.Time, svid *SVID, b *Bundle) *Source {
	t.Helper()
	s, err := NewSource(now, svid, b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// raw returns a source with parts that Set would refuse.
func rawSource(now time.Time, svid *SVID, b *Bundle) *Source {
	s := &Source{now: at(now)}
	s.state.Store(&identity{svid: svid, bundle: b})
	return s
}

func TestMutualTLS(t *testing.T) {
	ca := newTestCA(t, testDomain)
	b := bundleOf(t, ca)
	server := sourceOf(t, at(epoch()), svidOf(t, ca, node(1), epoch()), b)
	client := sourceOf(t, at(epoch()), svidOf(t, ca, admin(2), epoch()), b)
	s, c, serverErr, clientErr := connect(t,
		ServerTLS(server, AllowRoles(testDomain, RoleNode, RoleAdmin), true),
		ClientTLS(client, AllowRoles(testDomain, RoleNode)))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("got server error %v, client error %v, want none", serverErr, clientErr)
	}
	if got, err := PeerPrincipal(s); err != nil || got != admin(2) {
		t.Errorf("server sees %v, %v, want %v", got, err, admin(2))
	}
	if got, err := server.PeerPrincipal(s); err != nil || got != admin(2) {
		t.Errorf("server verifies again %v, %v, want %v", got, err, admin(2))
	}
	if got, err := PeerPrincipal(c); err != nil || got != node(1) {
		t.Errorf("client sees %v, %v, want %v", got, err, node(1))
	}
	if s.Version != tls.VersionTLS13 || s.DidResume {
		t.Errorf("got version %x, resumed %t, want TLS 1.3 anew", s.Version, s.DidResume)
	}

	// A connection that outlives the SVID of its peer.
	server.now = at(epoch().Add(25 * time.Hour))
	if _, err := server.PeerPrincipal(s); !errors.Is(err, ErrBadSVID) {
		t.Errorf("after the SVID's end: got %v, want ErrBadSVID", err)
	}
	if _, err := PeerPrincipal(tls.ConnectionState{}); !errors.Is(err, ErrNoPeer) {
		t.Errorf("no connection: got %v, want ErrNoPeer", err)
	}
}

// Every way in which a client can be wrong ends the connection.
func TestServerRefuses(t *testing.T) {
	ca, stranger, foreign := newTestCA(t, testDomain), newTestCA(t, testDomain), newTestCA(t, "other.test")
	b := bundleOf(t, ca)
	server := sourceOf(t, at(epoch()), svidOf(t, ca, node(1), epoch()), b)
	other := node(2)
	other.TrustDomain = "other.test"
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	tests := []struct {
		name string
		svid *SVID
		want error
	}{
		{"no certificate", nil, nil},
		{"wrong trust domain", svidOf(t, foreign, other, epoch()), ErrBadSVID},
		{"trust domain under our CA", forge(t, ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri(other.String())} }), ErrBadSVID},
		{"wrong role", svidOf(t, ca, admin(2), epoch()), ErrNotAuthorized},
		{"unknown CA", svidOf(t, stranger, node(2), epoch()), ErrBadSVID},
		{"two URI names", forge(t, ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, uri(node(2).String())) }), ErrBadSVID},
		{"the same URI name twice", forge(t, ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), ErrBadSVID},
		{"no URI name", forge(t, ca, func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"creto.test"} }), ErrBadSVID},
		{"URI that is no SPIFFE ID", forge(t, ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("https://creto.test/")} }), ErrBadSVID},
		{"upper-case scheme", forge(t, ca, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{san(t, strings.Replace(node(1).String(), "spiffe", "SPIFFE", 1))}
		}), ErrBadSVID},
		{"not valid yet", forge(t, ca, func(c *x509.Certificate) { c.NotBefore = epoch().Add(time.Second) }), ErrBadSVID},
		{"expired", forge(t, ca, func(c *x509.Certificate) { c.NotAfter = epoch().Add(-time.Second) }), ErrBadSVID},
		{"a CA as leaf", forge(t, ca, func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }), ErrBadSVID},
		{"may sign certificates", forge(t, ca, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), ErrBadSVID},
		{"may not sign", forge(t, ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), ErrBadSVID},
		{"server only", forge(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), ErrBadSVID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var seen error
			cfg := ServerTLS(server, AllowRoles(testDomain, RoleNode), true)
			verify := cfg.VerifyConnection
			cfg.VerifyConnection = func(cs tls.ConnectionState) error { seen = verify(cs); return seen }

			client := AnonymousClientTLS(rawSource(epoch(), nil, b), AllowRoles(testDomain, RoleNode))
			if tt.svid != nil {
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tt.svid.tls, nil }
			}
			_, _, serverErr, clientErr := connect(t, cfg, client)
			if serverErr == nil || clientErr == nil {
				t.Fatalf("got server error %v, client error %v, want both refused", serverErr, clientErr)
			}
			if tt.want != nil && !errors.Is(seen, tt.want) {
				t.Errorf("got %v, want %v", seen, tt.want)
			}
		})
	}
}

// san is a subject alternative name extension with one URI, as bytes.
func san(t testing.TB, uri string) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}
}

// A client is as strict about servers.
func TestClientRefuses(t *testing.T) {
	ca, stranger := newTestCA(t, testDomain), newTestCA(t, testDomain)
	b := bundleOf(t, ca)
	good := sourceOf(t, at(epoch()), svidOf(t, ca, node(2), epoch()), b)
	nodes := AllowRoles(testDomain, RoleNode)
	tests := []struct {
		name   string
		server *tls.Config
		client *tls.Config
	}{
		{"server of an unknown CA", ServerOnlyTLS(sourceOf(t, at(epoch()), svidOf(t, stranger, node(1), epoch()), bundleOf(t, stranger))), ClientTLS(good, nodes)},
		{"server that is a client", ServerOnlyTLS(sourceOf(t, at(epoch()), svidOf(t, ca, admin(1), epoch()), b)), ClientTLS(good, AllowRoles(testDomain, RoleAdmin))},
		{"another node", ServerOnlyTLS(good), ClientTLS(good, func(p Principal) error {
			if p != node(3) {
				return ErrNotAuthorized
			}
			return nil
		})},
		{"client trusts nobody", ServerOnlyTLS(good), ClientTLS(good, nil)},
		{"server admits nobody", ServerTLS(good, nil, true), ClientTLS(good, nodes)},
		{"client without SVID that needs one", ServerTLS(good, nodes, true), ClientTLS(sourceOf(t, at(epoch()), nil, b), nodes)},
		{"client without bundle", ServerOnlyTLS(good), ClientTLS(rawSource(epoch(), good.SVID(), nil), nodes)},
		{"server without bundle", ServerTLS(rawSource(epoch(), good.SVID(), nil), nodes, true), ClientTLS(good, nodes)},
		{"bundle over", ServerTLS(good, nodes, true), ClientTLS(rawSource(epoch().Add(CALife+time.Hour), forge(t, ca, func(c *x509.Certificate) { c.NotAfter = epoch().Add(2 * CALife) }), b), nodes)},
		{"server whose SVID is over", ServerOnlyTLS(rawSource(epoch().Add(25*time.Hour), good.SVID(), b)), ClientTLS(good, nodes)},
		{"client whose SVID is over", ServerTLS(good, nodes, true), ClientTLS(rawSource(epoch().Add(25*time.Hour), good.SVID(), b), nodes)},
		{"TLS 1.2 server", func() *tls.Config {
			c := ServerTLS(good, nodes, true)
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return c
		}(), ClientTLS(good, nodes)},
		{"TLS 1.2 client", ServerTLS(good, nodes, true), func() *tls.Config {
			c := ClientTLS(good, nodes)
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return c
		}()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, _, err := connect(t, tt.server, tt.client); err == nil {
				t.Error("connected")
			}
		})
	}
}

// Where a client may come without SVID, a bad one is still refused.
func TestOptionalClientSVID(t *testing.T) {
	ca, stranger := newTestCA(t, testDomain), newTestCA(t, testDomain)
	b := bundleOf(t, ca)
	nodes := AllowRoles(testDomain, RoleNode)
	good := sourceOf(t, at(epoch()), svidOf(t, ca, node(1), epoch()), b)
	cfg := ServerTLS(good, nodes, false)

	s, _, serverErr, clientErr := connect(t, cfg, AnonymousClientTLS(sourceOf(t, at(epoch()), nil, b), nodes))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("without SVID: got %v, %v, want a connection", serverErr, clientErr)
	}
	if _, err := PeerPrincipal(s); !errors.Is(err, ErrNoPeer) {
		t.Errorf("without SVID: got %v, want ErrNoPeer", err)
	}
	if s, _, _, err := connect(t, cfg, ClientTLS(good, nodes)); err != nil {
		t.Errorf("with SVID: %v", err)
	} else if p, err := PeerPrincipal(s); err != nil || p != node(1) {
		t.Errorf("with SVID: got %v, %v, want %v", p, err, node(1))
	}
	bad := AnonymousClientTLS(good, nodes)
	wrong := svidOf(t, stranger, node(1), epoch())
	bad.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &wrong.tls, nil }
	if _, _, _, err := connect(t, cfg, bad); err == nil {
		t.Error("an SVID of an unknown CA was taken for none")
	}
	if _, _, _, err := connect(t, ServerOnlyTLS(good), ClientTLS(good, nodes)); err != nil {
		t.Errorf("server-only: %v", err)
	}
}

// The CA is replaced while connections keep being made: publish both roots,
// issue from the new one, withdraw the old one.
func TestCARotation(t *testing.T) {
	before, after := newTestCA(t, testDomain), newTestCA(t, testDomain)
	nodes := AllowRoles(testDomain, RoleNode)
	only := bundleOf(t, before)
	a := sourceOf(t, at(epoch()), svidOf(t, before, node(1), epoch()), only)
	b := sourceOf(t, at(epoch()), svidOf(t, before, node(2), epoch()), only)
	check := func(step string) {
		t.Helper()
		for _, pair := range [][2]*Source{{a, b}, {b, a}} {
			if _, _, serverErr, clientErr := connect(t, ServerTLS(pair[0], nodes, true), ClientTLS(pair[1], nodes)); serverErr != nil || clientErr != nil {
				t.Errorf("%s: got %v, %v, want a connection", step, serverErr, clientErr)
			}
		}
	}
	check("before")

	// Out of order: an SVID that the own bundle does not know.
	fresh := svidOf(t, after, node(1), epoch())
	if err := a.Set(fresh, only); !errors.Is(err, ErrBadSVID) {
		t.Errorf("SVID of a CA not in the bundle: got %v, want ErrBadSVID", err)
	}

	both, err := only.With(after.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetBundle(both); err != nil {
		t.Fatal(err)
	}
	check("one node has both roots")
	if err := b.SetBundle(both); err != nil {
		t.Fatal(err)
	}
	if err := a.Set(fresh, both); err != nil {
		t.Fatal(err)
	}
	check("overlap")

	last, err := both.Without(before.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetBundle(last); err == nil {
		t.Error("the root of the SVID in use was withdrawn")
	}
	if err := b.Set(svidOf(t, after, node(2), epoch()), last); err != nil {
		t.Fatal(err)
	}
	if err := a.SetBundle(last); err != nil {
		t.Fatal(err)
	}
	check("after")
	old := sourceOf(t, at(epoch()), svidOf(t, before, node(3), epoch()), both)
	if _, _, _, err := connect(t, ServerTLS(a, nodes, true), ClientTLS(old, nodes)); err == nil {
		t.Error("an SVID of the withdrawn CA connected")
	}
}

// FuzzParseSVID: no text of certificates and keys makes the parsers panic, and
// what is accepted is written and read back the same.
func FuzzParseSVID(f *testing.F) {
	ca := newTestCA(f, testDomain)
	cert, key, err := svidOf(f, ca, node(1), epoch()).PEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cert, key)
	f.Add(bundleOf(f, ca).PEM(), key)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("x"))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		if b, err := ParseBundle(testDomain, cert); err == nil {
			if again, err := ParseBundle(testDomain, b.PEM()); err != nil || !sameRoots(b, again) {
				t.Fatalf("bundle read back: %v", err)
			}
		}
		s, err := ParseSVID(cert, key)
		if err != nil {
			return
		}
		c, k, err := s.PEM()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseSVID(c, k)
		if err != nil || again.principal != s.principal {
			t.Fatalf("read back: got %v, want %v", err, s.principal)
		}
	})
}

// FuzzParseCSR: no request makes the parser panic or brings another key type.
func FuzzParseCSR(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		if pub, err := ParseCSR(der); err == nil && checkPublicKey(pub) != nil {
			t.Fatalf("accepted a key of type %T", pub)
		}
	})
}

// FuzzURINames: the reader of the name extension never panics and returns
// nothing that is not in its input.
func FuzzURINames(f *testing.F) {
	f.Add(san(f, node(1).String()).Value)
	f.Add([]byte{0x30, 0x04, 0x86, 0x02, 'a', ':'})
	f.Add([]byte{0x30, 0x80, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, value []byte) {
		c := &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}}
		names, err := uriNames(c)
		if err != nil && names != nil {
			t.Fatalf("got names %q with error %v", names, err)
		}
		total := 0
		for _, n := range names {
			total += len(n)
		}
		if total > len(value) {
			t.Fatalf("got %d bytes of names out of %d", total, len(value))
		}
	})
}
