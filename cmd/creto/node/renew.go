package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Renew gives a member the SVID that follows its current one: of the same principal, for the same names and addresses, and for
// a new key. What the request says besides the key is ignored.
func (c *clusterService) Renew(ctx context.Context, req *cretov1.RenewRequest) (*cretov1.RenewResponse, error) {
	s, conn := c.s, connOf(ctx)
	if s.ca == nil {
		return nil, &Error{Kind: KindUnavailable, Message: "this node does not have the cluster's CA", Hint: "ask the node whose ca_dir holds it"}
	}
	if conn == nil || len(conn.State.PeerCertificates) == 0 {
		return nil, refuse(KindDenied, "only the holder of an SVID can renew it")
	}
	key, err := spiffe.ParseCSR(req.GetCsr())
	if err != nil {
		return nil, &Error{Kind: KindInvalid, Message: "certificate request is malformed", Cause: err}
	}
	// The connection was let in by what this node had applied; a member may have been removed since, and an SVID lasts.
	if err := s.barrier(ctx); err != nil {
		return nil, err
	}
	p := callerOf(ctx).principal
	if !s.isMember(p.ID, registry.RoleVoter) && !s.isMember(p.ID, registry.RoleSandbox) {
		return nil, refuse(KindDenied, "%s is not a member", p)
	}
	old := conn.State.PeerCertificates[0]
	cert, err := s.ca.IssueSVID(spiffe.Order{
		PublicKey: key, Principal: p, TTL: spiffe.MaxTTL, DNSNames: old.DNSNames, IPs: old.IPAddresses,
	}, time.Now())
	if err != nil {
		return nil, &Error{Kind: KindInvalid, Message: "no certificate can be issued for this request", Cause: err}
	}
	s.log.InfoContext(ctx, "SVID issued", "for", p.String(), "serial", cert.SerialNumber.Text(16), "expires", cert.NotAfter)
	return &cretov1.RenewResponse{SvidChain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), Bundle: s.source.Bundle().PEM()}, nil
}

// tlsRequest makes a key for TLS and the certificate request for it.
func tlsRequest(random io.Reader) (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), random); err != nil {
		return nil, nil, fmt.Errorf("generate TLS key: %w", err)
	}
	if csr, err = x509.CreateCertificateRequest(random, &x509.CertificateRequest{}, key); err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	return key, csr, nil
}

// answeredSVID reads the chain and the bundle that a node has answered a request for this key with.
func answeredSVID(trustDomain string, key *ecdsa.PrivateKey, chain, roots []byte) (*spiffe.SVID, *spiffe.Bundle, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode TLS key: %w", err)
	}
	svid, err := spiffe.ParseSVID(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		return nil, nil, err
	}
	bundle, err := spiffe.ParseBundle(trustDomain, roots)
	if err != nil {
		return nil, nil, err
	}
	return svid, bundle, nil
}

// askSVID asks the nodes at these gRPC addresses, in turn, for the SVID that follows the source's. Only one that has the
// cluster's CA gives one.
func askSVID(ctx context.Context, source *spiffe.Source, addresses []string) (*spiffe.SVID, *spiffe.Bundle, error) {
	td := source.Bundle().TrustDomain()
	var errs []error
	for _, a := range addresses {
		svid, bundle, err := askSVIDAt(ctx, source, td, a)
		if err == nil {
			return svid, bundle, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", a, err))
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("no address of a node is known"))
	}
	return nil, nil, fmt.Errorf("renew SVID: %w", errors.Join(errs...))
}

// askSVIDAt asks one node, on a connection of its own: whom it shows is the SVID of this moment.
func askSVIDAt(ctx context.Context, source *spiffe.Source, td, address string) (*spiffe.SVID, *spiffe.Bundle, error) {
	creds := credentials.NewTLS(spiffe.ClientTLS(source, spiffe.AllowRoles(td, spiffe.RoleNode)))
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, nil, err
	}
	defer cc.Close()
	key, csr, err := tlsRequest(crand.Reader)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := cretov1.NewClusterServiceClient(cc).Renew(ctx, &cretov1.RenewRequest{Csr: csr})
	if err != nil {
		return nil, nil, err
	}
	return answeredSVID(td, key, resp.GetSvidChain(), resp.GetBundle())
}

// KeepSVID keeps the SVID of a directory that JoinCluster has made valid until ctx ends: it asks the nodes at these addresses
// for the next one at half of its life, and takes up files that somebody else has renewed. told hears of every SVID (nil) and
// every failure.
func KeepSVID(ctx context.Context, source *spiffe.Source, files spiffe.Files, addresses func() []string, told func(error)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return source.Watch(ctx, reloadSVID, told) })
	g.Go(func() error {
		r := &spiffe.Rotator{
			Source: source, Jitter: rand.Float64,
			Issue: func(ctx context.Context) (*spiffe.SVID, *spiffe.Bundle, error) {
				return askSVID(ctx, source, addresses())
			},
			Rotated: func(v *spiffe.SVID) { told(saveSVID(files, v, source.Bundle())) },
			Failed:  told,
		}
		return r.Run(ctx)
	})
	return g.Wait()
}

// renewal keeps the node's SVID valid: by the CA where this node has it, otherwise by the node that has it.
func (s *Server) renewal(ctx context.Context) error {
	files := svidFiles(s.cfg.path(svidDir))
	told := func(err error) {
		if err != nil {
			s.log.Warn("SVID was not renewed", "err", err, "expires", s.source.SVID().Certificate().NotAfter)
		} else {
			s.log.Info("SVID renewed", "expires", s.source.SVID().Certificate().NotAfter)
		}
	}
	if s.ca == nil {
		return KeepSVID(ctx, s.source, files, s.otherAddresses, told)
	}
	r := &spiffe.Rotator{
		Source: s.source, Jitter: func() float64 { return 0.5 },
		Issue: func(context.Context) (*spiffe.SVID, *spiffe.Bundle, error) {
			svid, err := s.ca.NewSVID(orderLike(s.source.SVID(), 0), time.Now())
			return svid, nil, err
		},
		Rotated: func(v *spiffe.SVID) { told(v.Save(files)) },
		Failed:  told,
	}
	return r.Run(ctx)
}

// otherAddresses are the gRPC addresses of the other nodes, in the order of their ids.
func (s *Server) otherAddresses() []string {
	known := s.book.known()
	ids := make([]nhi.ID, 0, len(known))
	for id := range known {
		if id != s.identity.id && known[id] != "" {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b nhi.ID) int { return bytes.Compare(a[:], b[:]) })
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = known[id]
	}
	return out
}
