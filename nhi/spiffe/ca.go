package spiffe

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Life of certificates.
const (
	DefaultTTL = 24 * time.Hour      // of an SVID
	MinTTL     = 5 * time.Minute     // of an SVID: less is over before it is renewed
	MaxTTL     = 30 * 24 * time.Hour // of an SVID
	CALife     = 10 * 365 * 24 * time.Hour
	backdate   = time.Minute // so that a peer whose clock is behind accepts a new SVID
)

const (
	caKeyFile    = "ca.key"
	caCertFile   = "ca.pem"
	bundleFile   = "bundle.pem"
	maxNames     = 32
	maxCSRBytes  = 64 << 10
	organization = "Creto"
)

// CA is the certificate authority of one trust domain: an ECDSA P-256 key and
// its self-signed certificate. It holds no state beside them; who may have an
// SVID is decided, and recorded, by the caller.
type CA struct {
	trustDomain string
	key         *ecdsa.PrivateKey
	cert        *x509.Certificate
	random      io.Reader
}

// NewCA makes a new CA, valid from a minute before now for ten years.
func NewCA(random io.Reader, trustDomain string, now time.Time) (*CA, error) {
	if err := checkTrustDomain(trustDomain); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: trustDomain + " CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CALife),
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs SVIDs, never another CA
	}
	if template.SubjectKeyId, err = keyID(&key.PublicKey); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(random, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read CA certificate back: %w", err)
	}
	return &CA{trustDomain: trustDomain, key: key, cert: cert, random: random}, nil
}

// LoadCA reads a CA that Save wrote. random is what it signs with.
func LoadCA(dir string, random io.Reader) (*CA, error) {
	certPEM, err := readBounded(filepath.Join(dir, caCertFile), maxBundleBytes)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	certs, err := parseCertificates(certPEM, maxBundleBytes, 1)
	if err != nil {
		return nil, fmt.Errorf("load CA: %s: %w", caCertFile, err)
	}
	cert := certs[0]
	keyPEM, err := readBounded(filepath.Join(dir, caKeyFile), maxKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	signer, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("load CA: %s: %w", caKeyFile, err)
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("load CA: %s is not the key of %s", caKeyFile, caCertFile)
	}
	if len(cert.URIs) != 1 {
		return nil, fmt.Errorf("load CA: %s names no trust domain", caCertFile)
	}
	// NewBundle holds the certificate against all that a root must be.
	td := cert.URIs[0].Host
	if _, err := NewBundle(td, cert); err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	return &CA{trustDomain: td, key: key, cert: cert, random: random}, nil
}

// Save writes the CA to dir, which must exist: key (0600), certificate, and a
// trust bundle with the one root unless a bundle is there already. The key is
// written first and never overwritten by another: a crash leaves a key without
// certificate, which LoadCA refuses, and Save may be repeated.
func (c *CA) Save(dir string) error {
	if old, err := os.ReadFile(filepath.Join(dir, caKeyFile)); err == nil {
		signer, err := parseKey(old)
		if err != nil || !c.key.PublicKey.Equal(signer.Public()) {
			return fmt.Errorf("save CA: %s holds another key", filepath.Join(dir, caKeyFile))
		}
	}
	keyPEM, err := marshalKey(c.key)
	if err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	if err := writeFile(dir, caKeyFile, keyPEM, 0o600); err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	bundle, err := c.Bundle()
	if err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	if err := writeFile(dir, caCertFile, bundle.PEM(), 0o644); err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, bundleFile)); err == nil {
		return nil
	}
	if err := writeFile(dir, bundleFile, bundle.PEM(), 0o644); err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	return nil
}

// TrustDomain returns the trust domain whose SVIDs the CA signs.
func (c *CA) TrustDomain() string { return c.trustDomain }

// Certificate returns the CA's certificate. The caller does not change it.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// Bundle returns the trust bundle with this CA as its only root.
func (c *CA) Bundle() (*Bundle, error) { return NewBundle(c.trustDomain, c.cert) }

// Order is what an SVID is asked for.
type Order struct {
	PublicKey crypto.PublicKey // ECDSA P-256 or P-384, or Ed25519
	Principal Principal        // of the CA's trust domain
	TTL       time.Duration    // DefaultTTL if zero; MinTTL to MaxTTL
	DNSNames  []string         // names a client may connect to; none for humans and admins
	IPs       []net.IP         // addresses a client may connect to; none for humans and admins
}

// ParseCSR returns the public key of a certificate request in DER, whose
// signature it checks. Everything else in a request is a wish and ignored:
// names come from the order.
func ParseCSR(der []byte) (crypto.PublicKey, error) {
	if len(der) > maxCSRBytes {
		return nil, fmt.Errorf("parse certificate request: %d bytes, at most %d are allowed", len(der), maxCSRBytes)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	return csr.PublicKey, nil
}

// IssueSVID signs an SVID and returns its certificate. It is valid from a
// minute before now and never longer than the CA itself.
func (c *CA) IssueSVID(o Order, now time.Time) (*x509.Certificate, error) {
	if o.Principal.TrustDomain != c.trustDomain {
		return nil, fmt.Errorf("issue SVID: trust domain %q is not %q", clip(o.Principal.TrustDomain), c.trustDomain)
	}
	id, err := FormatID(o.Principal)
	if err != nil {
		return nil, fmt.Errorf("issue SVID: %w", err)
	}
	uri, err := url.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("issue SVID: %w", err)
	}
	if err := checkPublicKey(o.PublicKey); err != nil {
		return nil, fmt.Errorf("issue SVID: %w", err)
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.TTL < MinTTL || o.TTL > MaxTTL {
		return nil, fmt.Errorf("issue SVID: life of %v, want %v to %v", o.TTL, MinTTL, MaxTTL)
	}
	notAfter := now.Add(o.TTL)
	if notAfter.After(c.cert.NotAfter) {
		notAfter = c.cert.NotAfter
	}
	if now.Before(c.cert.NotBefore) || !notAfter.After(now) {
		return nil, errors.New("issue SVID: the CA's certificate is not valid now")
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if o.Principal.Role.server() {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	} else if len(o.DNSNames)+len(o.IPs) > 0 {
		return nil, fmt.Errorf("issue SVID: role %q accepts no connections and has no names", string(o.Principal.Role))
	}
	if len(o.DNSNames)+len(o.IPs) > maxNames {
		return nil, fmt.Errorf("issue SVID: %d names, at most %d are allowed", len(o.DNSNames)+len(o.IPs), maxNames)
	}
	for _, n := range o.DNSNames {
		if !validDNSName(n) {
			return nil, fmt.Errorf("issue SVID: DNS name %+q is not one", clip(n))
		}
	}
	for _, ip := range o.IPs {
		if ip.To16() == nil || ip.IsUnspecified() || ip.IsMulticast() {
			return nil, fmt.Errorf("issue SVID: IP address %v cannot be connected to", ip)
		}
	}
	serial, err := newSerial(c.random)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{organization}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              notAfter,
		URIs:                  []*url.URL{uri},
		DNSNames:              o.DNSNames,
		IPAddresses:           o.IPs,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
		BasicConstraintsValid: true,
	}
	if template.SubjectKeyId, err = keyID(o.PublicKey); err != nil {
		return nil, fmt.Errorf("issue SVID: %w", err)
	}
	der, err := x509.CreateCertificate(c.random, template, c.cert, o.PublicKey, c.key)
	if err != nil {
		return nil, fmt.Errorf("issue SVID: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read SVID back: %w", err)
	}
	return cert, nil
}

// NewSVID makes a key and issues an SVID for it: for the process that holds
// the CA itself, and for `creto init`. o.PublicKey is ignored.
func (c *CA) NewSVID(o Order, now time.Time) (*SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), c.random)
	if err != nil {
		return nil, fmt.Errorf("make SVID key: %w", err)
	}
	o.PublicKey = key.Public()
	cert, err := c.IssueSVID(o, now)
	if err != nil {
		return nil, err
	}
	return NewSVID(key, cert)
}

// checkPublicKey admits the key types that every TLS 1.3 peer of ours uses.
func checkPublicKey(k crypto.PublicKey) error {
	switch k := k.(type) {
	case *ecdsa.PublicKey:
		if k != nil && (k.Curve == elliptic.P256() || k.Curve == elliptic.P384()) {
			return nil
		}
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return nil
		}
	}
	return fmt.Errorf("key of type %T is neither ECDSA P-256 or P-384 nor Ed25519", k)
}

// newSerial draws 159 random bits: positive and at most 20 bytes (RFC 5280,
// 4.1.2.2).
func newSerial(random io.Reader) (*big.Int, error) {
	var b [20]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

// keyID is the first 20 bytes of SHA-256 over the public key (RFC 7093, 2).
func keyID(k crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, fmt.Errorf("marshal public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

// validDNSName accepts lower-case host names (RFC 1123, 2.1), no wildcards.
func validDNSName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
