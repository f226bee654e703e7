package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// shortLived replaces the SVID in a directory by one for the same key that ends soon and is past half of its life. The CA itself
// issues none so short.
func (c *cluster) shortLived(dir string) (expires time.Time) {
	c.t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			c.t.Fatalf("%s is not PEM", name)
		}
		return block.Bytes
	}
	ca, err := x509.ParseCertificate(read(filepath.Join(c.CADir, "ca.pem")))
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(read(filepath.Join(c.CADir, "ca.key")))
	if err != nil {
		c.t.Fatal(err)
	}
	f := svidFiles(dir)
	cert, err := x509.ParseCertificate(read(f.Cert))
	if err != nil {
		c.t.Fatal(err)
	}
	cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(50*time.Second)
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, cert.PublicKey, key)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(f.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return cert.NotAfter
}

// renew asks a node for a new SVID with the one in f, or with none, by a certificate request; nil makes one that asks for
// somebody else's.
func (c *cluster) renew(node int, f spiffe.Files, csr []byte) (*x509.Certificate, error) {
	c.t.Helper()
	if csr == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			c.t.Fatal(err)
		}
		other, err := url.Parse("spiffe://dev.creto.internal/system/admin/" + nhi.ID{1}.String())
		if err != nil {
			c.t.Fatal(err)
		}
		csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{other}, DNSNames: []string{"elsewhere"}}, key)
		if err != nil {
			c.t.Fatal(err)
		}
	}
	source, err := spiffe.OpenSource(time.Now, "dev.creto.internal", spiffe.Files{
		Cert: first(f.Cert, c.AdminSVID.Cert), Key: first(f.Key, c.AdminSVID.Key), Bundle: c.AdminSVID.Bundle,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := cretov1.NewClusterServiceClient(c.dialAs(node, source, "", f.Cert != "")).Renew(c.t.Context(), &cretov1.RenewRequest{Csr: csr})
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(resp.GetSvidChain())
	return x509.ParseCertificate(block.Bytes)
}

// A sandbox node's SVID is renewed while it is used, for the same principal, by the node that has the CA, also if that one is
// away for a while; nobody else gets one.
func TestRenewSandboxSVID(t *testing.T) {
	dir := t.TempDir()
	c := startDev(t, DevConfig{Nodes: 1, Dir: dir})
	admin := c.dial(0, "", true)
	bundle, err := os.ReadFile(c.AdminSVID.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	joined := c.join(admin, &JoinConfig{Addr: c.Servers()[0].GRPCAddr(), Bundle: bundle, Dir: filepath.Join(t.TempDir(), "s"), Role: "sandbox"})
	files := svidFiles(filepath.Join(joined.Dir, svidDir))
	expires := c.shortLived(filepath.Dir(files.Cert))
	source, err := spiffe.OpenSource(time.Now, "dev.creto.internal", files)
	if err != nil {
		t.Fatal(err)
	}
	want := source.SVID().Principal()

	for name, refused := range map[string]spiffe.Files{"an admin": c.AdminSVID, "nobody": {}} {
		if _, err := c.renew(0, refused, nil); status.Code(err) != codes.PermissionDenied {
			t.Errorf("renewal by %s: got %v, want denied", name, err)
		}
	}
	if _, err := c.renew(0, files, []byte("no request")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("renewal by a malformed request: got %v, want invalid", err)
	}
	// What the request asks for besides a key is ignored.
	cert, err := c.renew(0, files, nil)
	if err != nil {
		t.Fatalf("renew: %v", err)
	}
	if id, err := spiffe.FormatID(want); err != nil || len(cert.URIs) != 1 || cert.URIs[0].String() != id || len(cert.DNSNames) > 0 {
		t.Errorf("renewed: got %v, %v, want %v", cert.URIs, cert.DNSNames, want)
	}

	// The only address that is known first is one where nobody listens: the CA's node is away.
	address := make(chan string, 1)
	address <- "127.0.0.1:1"
	failed := make(chan error, 8)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- KeepSVID(ctx, source, files, func() []string { a := <-address; address <- a; return []string{a} }, func(err error) {
			select {
			case failed <- err:
			default:
			}
		})
	}()
	if err := <-failed; err == nil {
		t.Error("renewal where nobody listens: got an SVID")
	}
	<-address
	address <- c.Servers()[0].GRPCAddr()
	eventually(t, "renewal", func() bool { return source.SVID().Certificate().NotAfter.After(expires.Add(24 * time.Hour)) })
	eventually(t, "renewed files", func() bool {
		saved, err := spiffe.LoadSVID(files)
		return err == nil && saved.Certificate().Equal(source.SVID().Certificate())
	})
	if got := source.SVID().Principal(); got != want {
		t.Errorf("renewed SVID: got %v, want %v", got, want)
	}
	cancel()
	if err := <-done; err != nil && ctx.Err() == nil {
		t.Errorf("keep: %v", err)
	}
	if err := callAny(t, c.dialAs(0, source, "", true), cretov1.SandboxService_Connect_FullMethodName, c.Tenant); status.Code(err) == codes.PermissionDenied {
		t.Errorf("sandbox stream with the renewed SVID: got %v, want it open", err)
	}
}
