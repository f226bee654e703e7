package spiffe

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	maxRoots       = 16
	maxBundleBytes = 256 << 10
)

// ErrNoBundle means that there is no trust bundle, or none whose roots are
// valid now: nobody can be verified.
var ErrNoBundle = errors.New("no valid trust bundle")

// Bundle is the set of CA certificates that a trust domain accepts: one, or
// several while the CA is rotated. It is immutable; its zero value trusts
// nobody.
type Bundle struct {
	trustDomain string
	roots       []*x509.Certificate
	pool        *x509.CertPool
}

// NewBundle returns the bundle of the given CA certificates. Each must be a CA
// whose only URI is that of the trust domain.
func NewBundle(trustDomain string, roots ...*x509.Certificate) (*Bundle, error) {
	if err := checkTrustDomain(trustDomain); err != nil {
		return nil, err
	}
	if len(roots) == 0 || len(roots) > maxRoots {
		return nil, fmt.Errorf("build bundle: %d roots, want 1 to %d", len(roots), maxRoots)
	}
	b := &Bundle{trustDomain: trustDomain, pool: x509.NewCertPool()}
	for _, r := range roots {
		if !r.IsCA || !r.BasicConstraintsValid || r.KeyUsage&x509.KeyUsageCertSign == 0 {
			return nil, fmt.Errorf("build bundle: certificate %x is not a CA", r.SerialNumber)
		}
		uris, err := uriNames(r)
		if err != nil {
			return nil, fmt.Errorf("build bundle: %w", err)
		}
		if len(uris) != 1 || uris[0] != scheme+trustDomain {
			return nil, fmt.Errorf("build bundle: CA certificate %x is not one of trust domain %q", r.SerialNumber, trustDomain)
		}
		if !slices.ContainsFunc(b.roots, r.Equal) {
			b.roots = append(b.roots, r)
			b.pool.AddCert(r)
		}
	}
	return b, nil
}

// ParseBundle parses CA certificates in PEM, at most 16.
func ParseBundle(trustDomain string, text []byte) (*Bundle, error) {
	roots, err := parseCertificates(text, maxBundleBytes, maxRoots)
	if err != nil {
		return nil, fmt.Errorf("parse bundle: %w", err)
	}
	return NewBundle(trustDomain, roots...)
}

// TrustDomain returns the trust domain that the bundle speaks for.
func (b *Bundle) TrustDomain() string { return b.trustDomain }

// Roots returns the CA certificates. The caller does not change them.
func (b *Bundle) Roots() []*x509.Certificate { return slices.Clone(b.roots) }

// PEM returns the CA certificates in PEM, in the order they were added.
func (b *Bundle) PEM() []byte {
	var out bytes.Buffer
	for _, r := range b.roots {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: r.Raw}))
	}
	return out.Bytes()
}

// With returns a bundle that also has the given roots: the first half of a CA
// rotation, published before the new CA issues anything.
func (b *Bundle) With(roots ...*x509.Certificate) (*Bundle, error) {
	return NewBundle(b.trustDomain, append(b.Roots(), roots...)...)
}

// Without returns a bundle that no longer has the root: the second half of a
// CA rotation, once no SVID of the old CA is in use. It refuses to remove the
// last root.
func (b *Bundle) Without(root *x509.Certificate) (*Bundle, error) {
	return NewBundle(b.trustDomain, slices.DeleteFunc(b.Roots(), root.Equal)...)
}

// valid reports whether the bundle has a root valid at t.
func (b *Bundle) valid(t time.Time) bool {
	return b != nil && slices.ContainsFunc(b.roots, func(r *x509.Certificate) bool {
		return !t.Before(r.NotBefore) && !t.After(r.NotAfter)
	})
}
