package spiffe

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// ServerTLS returns the configuration of a listener that authenticates its
// clients by SVID. authorize says who may connect and is called once per
// connection, from any goroutine; nil admits nobody. With clientAuth false a
// client may come without SVID (it authenticates by other means, and
// PeerPrincipal says ErrNoPeer), but one that it presents must be good.
//
// The caller may add NextProtos; nothing else is meant to be changed.
func ServerTLS(s *Source, authorize func(Principal) error, clientAuth bool) *tls.Config {
	c := ServerOnlyTLS(s)
	c.ClientAuth = tls.RequestClientCert
	if clientAuth {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 && !clientAuth {
			return nil
		}
		return s.check(cs, x509.ExtKeyUsageClientAuth, authorize)
	}
	return c
}

// ServerOnlyTLS returns the configuration of a listener that presents its
// SVID and asks clients for none.
func ServerOnlyTLS(s *Source) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   s.now,
		GetCertificate:         s.GetCertificate,
		ClientAuth:             tls.NoClientCert,
		SessionTicketsDisabled: true, // a resumed session would outlive a revocation
	}
}

// ClientTLS returns the configuration of a client that presents its SVID and
// authenticates the server by SVID. authorize says which server is the right
// one; nil trusts none.
//
// The server's name plays no part: it is identified by its SPIFFE ID. That is
// why the chain is checked in VerifyConnection, which runs on every
// connection, in place of crypto/tls's own check.
func ClientTLS(s *Source, authorize func(Principal) error) *tls.Config {
	c := AnonymousClientTLS(s, authorize)
	c.GetClientCertificate = s.GetClientCertificate
	return c
}

// AnonymousClientTLS is ClientTLS for a client that presents no SVID.
func AnonymousClientTLS(s *Source, authorize func(Principal) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   s.now,
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return s.check(cs, x509.ExtKeyUsageServerAuth, authorize)
		},
	}
}

func (s *Source) check(cs tls.ConnectionState, use x509.ExtKeyUsage, authorize func(Principal) error) error {
	p, err := verify(cs.PeerCertificates, s.Bundle(), s.now(), use)
	if err != nil {
		return err
	}
	if authorize == nil {
		return fmt.Errorf("%w: %v", ErrNotAuthorized, p)
	}
	return authorize(p)
}

// PeerPrincipal returns whom the peer's SVID names. The connection must have
// been made with a configuration of this package, which verified it; where
// that is not sure, or long ago, call [Source.PeerPrincipal]. ErrNoPeer says
// that the peer presented no SVID.
func PeerPrincipal(cs tls.ConnectionState) (Principal, error) {
	if !cs.HandshakeComplete || cs.Version < tls.VersionTLS13 || len(cs.PeerCertificates) == 0 {
		return Principal{}, ErrNoPeer
	}
	return principalOf(cs.PeerCertificates[0])
}
