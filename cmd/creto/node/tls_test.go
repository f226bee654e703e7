package node

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
)

// startTLS starts one node all of whose listeners speak TLS, as outside a development cluster.
func startTLS(t *testing.T) (*Server, *InitResult) {
	t.Helper()
	ls, err := (&Dev{cfg: DevConfig{Nodes: 1}}).listen()
	if err != nil {
		t.Fatal(err)
	}
	l := ls[0]
	made, err := Init(InitConfig{Dir: filepath.Join(t.TempDir(), "c"), Cluster: "tls", TrustDomain: "tls.internal", Raft: devRaft, Nodes: []InitNode{{
		Peer: l.Peer.Addr().String(), GRPC: l.GRPC.Addr().String(), Read: l.Read.Addr().String(), Metrics: l.Metrics.Addr().String(),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(filepath.Join(made.NodeDirs[0], ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(*cfg, Options{Listeners: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("run: %v", err)
	}
	return s, made
}

// forge makes a certificate for a principal by a CA's key, with dates that the CA itself would not give.
func forge(t *testing.T, caDir string, p spiffe.Principal, from, to time.Time) *tls.Certificate {
	t.Helper()
	ca, err := spiffe.LoadCA(caDir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := ca.NewSVID(spiffe.Order{Principal: p}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := svid.PEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(caDir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	caKey, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	leaf := *svid.Certificate()
	leaf.NotBefore, leaf.NotAfter = from, to
	der, err := x509.CreateCertificate(rand.Reader, &leaf, ca.Certificate(), leaf.PublicKey, caKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: pair.PrivateKey}
}

// Every listener speaks TLS 1.3 only and lets in whom docs/ports.md says.
func TestListenersSpeakTLS(t *testing.T) {
	s, made := startTLS(t)
	now := time.Now()
	valid := func(caDir string, role spiffe.Role, id nhi.ID) *tls.Certificate {
		return forge(t, caDir, systemPrincipal("tls.internal", role, id), now.Add(-time.Minute), now.Add(time.Hour))
	}
	foreign := t.TempDir()
	other, err := spiffe.NewCA(rand.Reader, "tls.internal", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Save(foreign); err != nil {
		t.Fatal(err)
	}
	clients := map[string]*tls.Certificate{
		"nobody": nil, "node": valid(made.CADir, spiffe.RoleNode, nhi.ID{8}), "admin": valid(made.CADir, spiffe.RoleAdmin, made.Admin),
		"sandbox node": valid(made.CADir, spiffe.RoleSandbox, nhi.ID{7}), "foreign CA": valid(foreign, spiffe.RoleNode, made.NodeIDs[0]),
		"expired": forge(t, made.CADir, systemPrincipal("tls.internal", spiffe.RoleNode, made.NodeIDs[0]), now.Add(-2*time.Hour), now.Add(-time.Hour)),
		"not yet": forge(t, made.CADir, systemPrincipal("tls.internal", spiffe.RoleNode, made.NodeIDs[0]), now.Add(time.Hour), now.Add(2*time.Hour)),
	}
	const (
		get     = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
		preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	)
	for name, l := range map[string]struct {
		addr, alpn, hello string
		in                []string
	}{
		// The peer listener has nothing to say to who says nothing.
		"peer":    {s.PeerAddr(), "", "", []string{"node"}},
		"grpc":    {s.GRPCAddr(), "h2", preface, []string{"nobody", "node", "admin", "sandbox node"}},
		"read":    {s.addresses.Read, "http/1.1", get, []string{"nobody", "node", "admin", "sandbox node", "foreign CA", "expired", "not yet"}},
		"metrics": {s.MetricsAddr(), "http/1.1", get, []string{"node", "admin"}},
	} {
		in := make(map[string]bool)
		for _, who := range l.in {
			in[who] = true
		}
		for who, cert := range clients {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				want := in[who] && version == tls.VersionTLS13
				hello := l.hello
				if !want {
					hello = "" // what lies unread when a server closes can make the system drop its alert
				}
				heard, err := knock(l.addr, l.alpn, hello, cert, version, want)
				switch silent := errors.Is(err, os.ErrDeadlineExceeded); {
				case want && l.hello == "" && !silent, want && l.hello != "" && !heard, !want && (heard || err == nil || silent):
					t.Errorf("%s, %s with %s: heard something %t, got %v, want in %t", name, who, tls.VersionName(version), heard, err, want)
				}
			}
		}
		// Plain bytes get no answer in the clear.
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, get); err != nil {
			t.Errorf("%s: write in the clear: %v", name, err)
		}
		if b, _ := io.ReadAll(c); len(b) > 0 && b[0] != 0x15 && string(b[:min(len(b), 12)]) != "HTTP/1.0 400" {
			t.Errorf("%s: got %q in the clear, want nothing, an alert, or the refusal to speak HTTP", name, b)
		}
		_ = c.Close()
	}
}

// knock connects, says something, and listens for an answer: shortly if there may be none, otherwise until the server must have
// said why it does not let the caller in.
func knock(addr, alpn, hello string, cert *tls.Certificate, version uint16, in bool) (heard bool, err error) {
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version} // the server's side is what is tested
	if alpn != "" {
		cfg.NextProtos = []string{alpn}
	}
	// Shown also to a server whose list of CAs it does not fit.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return new(tls.Certificate), nil
		}
		return cert, nil
	}
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return false, err
	}
	defer c.Close()
	wait := 30 * time.Second
	if in && hello == "" {
		wait = 300 * time.Millisecond
	}
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(c, hello); err != nil {
		return false, err
	}
	n, err := c.Read(make([]byte, 1))
	return n > 0, err
}
