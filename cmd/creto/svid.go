package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

type svidView struct {
	ID      string  `json:"id"`
	SPIFFE  string  `json:"spiffe_id"`
	Cert    string  `json:"cert"`
	CertKey string  `json:"cert_key"`
	CA      string  `json:"ca"`
	Expires instant `json:"expires"`
}

func (s svidView) quietID() string { return s.SPIFFE }

func (a *app) identitySVIDCmd() *cobra.Command {
	var ca, out string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "svid ID", Short: "Issue a certificate with which an identity connects",
		Long: `Issue an SVID, a TLS certificate that names a registered identity by its SPIFFE ID, with a new key, into a directory.

Whoever connects with it may see the tenant, as with a read token, for as long as the certificate lasts and the identity is active.
It signs no events: that takes the identity's own key. It is for the holder of the certificate authority (--ca-dir); the cluster is
asked what the identity is.`,
		Example: `  creto identity svid ID --ca-dir cluster/ca --out ada-svid --ttl 24h
  creto event list --cert ada-svid/cert.pem --key ada-svid/key.pem --ca ada-svid/bundle.pem`,
		Args: exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID("identity", args[0])
			if err != nil {
				return err
			}
			switch {
			case ca == "":
				return usageError(errors.New("no certificate authority"), "name its directory with --ca-dir")
			case out == "":
				return usageError(errors.New("no directory for the certificate"), "name a new one with --out")
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				p, err := svidPrincipal(ctx, cl, nhi.ID(tenant), id)
				if err != nil {
					return err
				}
				files, expires, err := node.IssueSVID(ca, out, p, ttl, time.Now())
				if err != nil {
					return localError(err)
				}
				text, err := spiffe.FormatID(p)
				if err != nil {
					return localError(err)
				}
				return a.object(svidView{id.String(), text, files.Cert, files.Key, files.Bundle, instantNs(expires.UnixNano())})
			})
		},
	}
	c.Flags().StringVar(&ca, "ca-dir", "", "directory of the certificate authority")
	c.Flags().StringVar(&out, "out", "", "new directory for certificate, key and trust bundle")
	c.Flags().DurationVar(&ttl, "ttl", 0, "life of the certificate (default 24 hours, at most 30 days)")
	return c
}

// svidPrincipal is whom the SVID of an identity names. Only an active one gets one.
func svidPrincipal(ctx context.Context, cl *creto.Client, tenant, id nhi.ID) (spiffe.Principal, error) {
	ids := cretov1.NewIdentityServiceClient(cl)
	t, err := ids.GetTenant(ctx, &cretov1.GetTenantRequest{Tenant: tenant[:]})
	if err != nil {
		return spiffe.Principal{}, err
	}
	r, err := ids.GetIdentity(ctx, &cretov1.GetIdentityRequest{Tenant: tenant[:], Id: id[:]})
	if err != nil {
		return spiffe.Principal{}, err
	}
	if s := r.GetIdentity().GetStatus(); s != registry.Active.String() {
		return spiffe.Principal{}, localError(fmt.Errorf("%s is %s", id, s), "only an active identity gets a certificate")
	}
	typ, _ := registry.ParseType(r.GetIdentity().GetType())
	role := node.SVIDRole(typ)
	if role == "" {
		return spiffe.Principal{}, localError(fmt.Errorf("%s is of type %q", id, r.GetIdentity().GetType()), "humans, agents and services get certificates here")
	}
	return spiffe.Principal{TrustDomain: t.GetTrustDomain(), Tenant: tenant, Role: role, ID: id}, nil
}
