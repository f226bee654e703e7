package spiffe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Source holds the SVID and the trust bundle of a process and hands them to
// every handshake. They are replaced together and atomically; connections
// that stand keep what they were made with. Safe for concurrent use.
type Source struct {
	now   func() time.Time
	state atomic.Pointer[identity]

	mu    sync.Mutex // held while state is replaced; handshakes do not take it
	files Files      // empty unless opened from files; under mu
	td    string     // under mu
}

// identity is one consistent pair. Either may be nil: without svid nothing is
// presented, without bundle nobody is believed.
type identity struct {
	svid   *SVID
	bundle *Bundle
}

// NewSource returns a source with the given SVID, which may be nil for a
// client that presents none, and bundle. now is the process's clock.
func NewSource(now func() time.Time, svid *SVID, bundle *Bundle) (*Source, error) {
	s := &Source{now: now}
	s.state.Store(&identity{})
	if err := s.Set(svid, bundle); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenSource reads the SVID and the bundle of a trust domain from files.
// Reload and Watch read them again.
func OpenSource(now func() time.Time, trustDomain string, files Files) (*Source, error) {
	s := &Source{now: now, files: files, td: trustDomain}
	s.state.Store(&identity{})
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Set replaces SVID and bundle. The SVID must verify against the bundle now,
// and keep the principal of the one before it: a process does not become
// another one. On error the source keeps what it has.
func (s *Source) Set(svid *SVID, bundle *Bundle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setLocked(svid, bundle)
}

func (s *Source) setLocked(svid *SVID, bundle *Bundle) error {
	now := s.now()
	if !bundle.valid(now) {
		return fmt.Errorf("set SVID: %w", ErrNoBundle)
	}
	old := s.state.Load()
	if old.bundle != nil && old.bundle.trustDomain != bundle.trustDomain {
		return fmt.Errorf("set SVID: trust domain %q is not %q", bundle.trustDomain, old.bundle.trustDomain)
	}
	if svid != nil {
		if _, err := verify(svid.chain(), bundle, now, x509.ExtKeyUsageAny); err != nil {
			return fmt.Errorf("set SVID: %w", err)
		}
		if old.svid != nil && old.svid.principal != svid.principal {
			return fmt.Errorf("set SVID: %w: it is of %v, not of %v", ErrBadSVID, svid.principal, old.svid.principal)
		}
	}
	s.state.Store(&identity{svid: svid, bundle: bundle})
	return nil
}

// SetBundle replaces the trust bundle, as Set does with the SVID there is.
func (s *Source) SetBundle(bundle *Bundle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setLocked(s.state.Load().svid, bundle)
}

// SVID returns the SVID of this process, or nil.
func (s *Source) SVID() *SVID { return s.state.Load().svid }

// Bundle returns the trust bundle, or nil.
func (s *Source) Bundle() *Bundle { return s.state.Load().bundle }

// Reload reads the files again and reports whether anything changed. Files
// that do not fit together, as between the writes of an update, are an error
// and the source keeps what it has.
func (s *Source) Reload() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == (Files{}) {
		return false, errors.New("reload SVID: source was not opened from files")
	}
	roots, err := readBounded(s.files.Bundle, maxBundleBytes)
	if err != nil {
		return false, fmt.Errorf("reload SVID: %w", err)
	}
	bundle, err := ParseBundle(s.td, roots)
	if err != nil {
		return false, fmt.Errorf("reload SVID: %w", err)
	}
	svid, err := LoadSVID(s.files)
	if err != nil {
		return false, fmt.Errorf("reload SVID: %w", err)
	}
	old := s.state.Load()
	if old.svid != nil && old.svid.leaf.Equal(svid.leaf) && sameRoots(old.bundle, bundle) {
		return false, nil
	}
	if err := s.setLocked(svid, bundle); err != nil {
		return false, err
	}
	return true, nil
}

func sameRoots(a, b *Bundle) bool {
	if len(a.roots) != len(b.roots) {
		return false
	}
	for i := range a.roots {
		if !a.roots[i].Equal(b.roots[i]) {
			return false
		}
	}
	return true
}

// Watch reloads the files every interval until ctx ends, and returns its
// error. report is told of every change (nil) and every error; it may be nil.
func (s *Source) Watch(ctx context.Context, interval time.Duration, report func(error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if changed, err := s.Reload(); (changed || err != nil) && report != nil {
			report(err)
		}
	}
}

// GetCertificate is for tls.Config: the SVID, if it is valid now.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.certificate()
}

// GetClientCertificate is for tls.Config: the SVID, if it is valid now.
func (s *Source) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.certificate()
}

func (s *Source) certificate() (*tls.Certificate, error) {
	svid := s.SVID()
	if svid == nil {
		return nil, errors.New("this process has no SVID")
	}
	now := s.now()
	if now.Before(svid.leaf.NotBefore) || now.After(svid.leaf.NotAfter) {
		return nil, fmt.Errorf("the SVID of this process is not valid now: it is from %v to %v", svid.leaf.NotBefore, svid.leaf.NotAfter)
	}
	return &svid.tls, nil
}

// PeerPrincipal verifies the peer of a connection against the bundle of this
// moment and returns whom its SVID names. For connections that live longer
// than an SVID, this is where an expired one or a withdrawn root shows.
func (s *Source) PeerPrincipal(cs tls.ConnectionState) (Principal, error) {
	if _, err := PeerPrincipal(cs); err != nil {
		return Principal{}, err
	}
	return verify(cs.PeerCertificates, s.Bundle(), s.now(), x509.ExtKeyUsageAny)
}

// chain returns the certificates, leaf first.
func (s *SVID) chain() []*x509.Certificate {
	chain := []*x509.Certificate{s.leaf}
	for _, der := range s.tls.Certificate[1:] {
		// They came from parsed certificates; one that does not parse is left
		// out and the chain does not verify.
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	return chain
}
