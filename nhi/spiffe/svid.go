package spiffe

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"

	maxKeyBytes = 16 << 10
	maxChain    = 4 // certificates of an SVID, leaf included
)

// Errors of verification. All of them close the connection.
var (
	ErrNoPeer        = errors.New("peer presented no SVID")
	ErrBadSVID       = errors.New("SVID is not acceptable")
	ErrNotAuthorized = errors.New("peer is not authorized")
)

// SVID is a certificate with its private key. It is immutable.
type SVID struct {
	principal Principal
	leaf      *x509.Certificate
	tls       tls.Certificate
}

// NewSVID joins a private key and its certificate chain, leaf first. It
// checks that they belong together and that the leaf is an SVID, not that
// anybody trusts it.
func NewSVID(key crypto.Signer, chain ...*x509.Certificate) (*SVID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("%w: %d certificates, want 1 to %d", ErrBadSVID, len(chain), maxChain)
	}
	leaf := chain[0]
	p, err := principalOf(leaf)
	if err != nil {
		return nil, err
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("%w: the private key is not the certificate's", ErrBadSVID)
	}
	s := &SVID{principal: p, leaf: leaf, tls: tls.Certificate{PrivateKey: key, Leaf: leaf}}
	for _, c := range chain {
		s.tls.Certificate = append(s.tls.Certificate, c.Raw)
	}
	return s, nil
}

// Principal returns whose SVID it is.
func (s *SVID) Principal() Principal { return s.principal }

// Certificate returns the leaf. The caller does not change it.
func (s *SVID) Certificate() *x509.Certificate { return s.leaf }

// ParseSVID parses a certificate chain, leaf first, and a PKCS #8 key in PEM.
func ParseSVID(certPEM, keyPEM []byte) (*SVID, error) {
	chain, err := parseCertificates(certPEM, maxBundleBytes, maxChain)
	if err != nil {
		return nil, fmt.Errorf("parse SVID: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("parse SVID: %w", err)
	}
	return NewSVID(key, chain...)
}

// PEM returns the chain and the key in the form that ParseSVID reads.
func (s *SVID) PEM() (cert, key []byte, err error) {
	signer, ok := s.tls.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("marshal key: type %T cannot sign", s.tls.PrivateKey)
	}
	if key, err = marshalKey(signer); err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	for _, der := range s.tls.Certificate {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}))
	}
	return out.Bytes(), key, nil
}

// Files are the paths of an SVID and its trust bundle.
type Files struct {
	Cert   string // certificate chain, PEM, leaf first
	Key    string // private key, PKCS #8 PEM
	Bundle string // CA certificates, PEM
}

// nextKey is the path at which Save leaves a key until its certificate is in
// place.
func (f Files) nextKey() string { return f.Key + ".next" }

// Save writes the SVID to the paths of f, the key 0600; f.Bundle is left
// alone. LoadSVID finds the old pair or the new one, wherever a crash ends it.
func (s *SVID) Save(f Files) error {
	cert, key, err := s.PEM()
	if err != nil {
		return fmt.Errorf("save SVID: %w", err)
	}
	next := f.nextKey()
	if err := writeFile(filepath.Dir(next), filepath.Base(next), key, 0o600); err != nil {
		return fmt.Errorf("save SVID: %w", err)
	}
	// This decides which pair it is: until here the old key fits, from here on the next one.
	if err := writeFile(filepath.Dir(f.Cert), filepath.Base(f.Cert), cert, 0o644); err != nil {
		return fmt.Errorf("save SVID: %w", err)
	}
	if err := os.Rename(next, f.Key); err != nil {
		return fmt.Errorf("save SVID: %w", err)
	}
	if err := syncDir(filepath.Dir(f.Key)); err != nil {
		return fmt.Errorf("save SVID: %w", err)
	}
	return nil
}

// LoadSVID reads the SVID at the paths of f, also where Save was cut short.
func LoadSVID(f Files) (*SVID, error) {
	cert, err := readBounded(f.Cert, maxBundleBytes)
	if err != nil {
		return nil, fmt.Errorf("load SVID: %w", err)
	}
	key, err := readBounded(f.Key, maxKeyBytes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("load SVID: %w", err)
	}
	svid, perr := ParseSVID(cert, key)
	if perr == nil && err == nil {
		return svid, nil
	}
	next, nerr := readBounded(f.nextKey(), maxKeyBytes)
	if nerr == nil {
		if svid, nerr = ParseSVID(cert, next); nerr == nil {
			return svid, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load SVID: %w", err)
	}
	return nil, fmt.Errorf("load SVID: %w", perr)
}

// principalOf returns the principal that a leaf names, and checks what an
// SVID must be besides trusted (X509-SVID, 2 to 4).
func principalOf(leaf *x509.Certificate) (Principal, error) {
	uris, err := uriNames(leaf)
	if err != nil {
		return Principal{}, fmt.Errorf("%w: %w", ErrBadSVID, err)
	}
	if len(uris) != 1 {
		return Principal{}, fmt.Errorf("%w: %d URI names, want exactly one", ErrBadSVID, len(uris))
	}
	p, err := ParseID(uris[0])
	if err != nil {
		return Principal{}, fmt.Errorf("%w: %w", ErrBadSVID, err)
	}
	switch {
	case leaf.IsCA:
		return Principal{}, fmt.Errorf("%w: it is a CA certificate", ErrBadSVID)
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return Principal{}, fmt.Errorf("%w: it may sign certificates", ErrBadSVID)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return Principal{}, fmt.Errorf("%w: it may not sign", ErrBadSVID)
	}
	if err := checkPublicKey(leaf.PublicKey); err != nil {
		return Principal{}, fmt.Errorf("%w: %w", ErrBadSVID, err)
	}
	return p, nil
}

// verify checks a peer's chain against the bundle at time now, for the given
// use, and returns whom it names.
func verify(chain []*x509.Certificate, b *Bundle, now time.Time, use x509.ExtKeyUsage) (Principal, error) {
	if len(chain) == 0 {
		return Principal{}, ErrNoPeer
	}
	if len(chain) > maxChain {
		return Principal{}, fmt.Errorf("%w: %d certificates, at most %d are allowed", ErrBadSVID, len(chain), maxChain)
	}
	if !b.valid(now) {
		return Principal{}, ErrNoBundle
	}
	p, err := principalOf(chain[0])
	if err != nil {
		return Principal{}, err
	}
	// Bundles of different trust domains are never merged (SPIFFE Trust Domain
	// and Bundle, 4): a root speaks for its own domain only.
	if p.TrustDomain != b.trustDomain {
		return Principal{}, fmt.Errorf("%w: trust domain %q is not %q", ErrBadSVID, clip(p.TrustDomain), b.trustDomain)
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: b.pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use},
	})
	if err != nil {
		return Principal{}, fmt.Errorf("%w: %w", ErrBadSVID, err)
	}
	return p, nil
}

// uriNames returns the URI subject alternative names as the bytes that were
// signed. Certificate.URIs went through a parser that folds the scheme's case
// and could hide other spellings.
func uriNames(c *x509.Certificate) ([]string, error) {
	var names []string
	found := false
	for _, ext := range c.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		if found {
			return nil, errors.New("two subject alternative name extensions")
		}
		found = true
		var seq asn1.RawValue
		rest, err := asn1.Unmarshal(ext.Value, &seq)
		if err != nil || len(rest) > 0 || !seq.IsCompound || seq.Tag != asn1.TagSequence || seq.Class != asn1.ClassUniversal {
			return nil, errors.New("malformed subject alternative names")
		}
		for rest = seq.Bytes; len(rest) > 0; {
			var name asn1.RawValue
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				return nil, errors.New("malformed subject alternative names")
			}
			// uniformResourceIdentifier [6] (RFC 5280, 4.2.1.6)
			if name.Class == asn1.ClassContextSpecific && name.Tag == 6 {
				names = append(names, string(name.Bytes))
			}
		}
	}
	return names, nil
}

func parseCertificates(text []byte, maxBytes, maxCerts int) ([]*x509.Certificate, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxBytes)
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("PEM block %q, want %q", clip(block.Type), pemCertificate)
		}
		if len(certs) == maxCerts {
			return nil, fmt.Errorf("more than %d certificates", maxCerts)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(bytes.TrimSpace(text)) > 0 {
		return nil, errors.New("text after the last certificate")
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	return certs, nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	if len(text) > maxKeyBytes {
		return nil, fmt.Errorf("key of %d bytes, at most %d are allowed", len(text), maxKeyBytes)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemPrivateKey || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("key is not one PEM block %q", pemPrivateKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("key is not PKCS #8") // the cause could quote key bytes
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key of type %T cannot sign", key)
	}
	return signer, nil
}

func marshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("marshal key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// readBounded reads a file of at most max bytes.
func readBounded(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("%s: more than %d bytes", path, max)
	}
	return b, nil
}

// writeFile replaces a file atomically and durably: a crash leaves the old
// content or the new, and perhaps a temporary file whose name begins with a
// dot.
func writeFile(dir, name string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(dir, "."+name+".*") // created 0600
	if err != nil {
		return err
	}
	err = fill(tmp, data, mode)
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(dir)
}

// syncDir makes renames in a directory durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fill writes, syncs and closes f.
func fill(f *os.File, data []byte, mode os.FileMode) error {
	err := f.Chmod(mode)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
