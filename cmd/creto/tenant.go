package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// nameAddendum is the addendum that holds what somebody or something is called. It can be erased.
func nameAddendum(name string) []creto.EventOption {
	if name == "" {
		return nil
	}
	b, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return nil // a map of strings always has an encoding
	}
	return []creto.EventOption{creto.WithAddendum(b)}
}

type tenantCreated struct {
	Tenant       string `json:"tenant"`
	Slot         uint32 `json:"slot"`
	Authority    string `json:"authority"`
	AuthorityKey string `json:"authority_key_file"`
	TokenFile    string `json:"token_file"`
	Index        count  `json:"index"`
}

func (t tenantCreated) quietID() string { return t.Tenant }

func (a *app) tenantCmd() *cobra.Command {
	var o struct {
		name, dir, zone string
		strict, plain   bool
	}
	create := &cobra.Command{
		Use: "create", Short: "Make a tenant and its identity authority",
		Long: `Make a tenant: its permanent slot in the ledger, its identity authority and its first read token.

The authority's key and the read token are written to --dir before anything is sent, so that an interrupted command loses
nothing that took effect. Signed by an admin (--as); afterwards the authority registers itself in the tenant's own log.

Periods are counted by the rules for the tenant's zone in the system log. An admin puts them there once for each zone but UTC, as
in the example; until then the tenant's quotas by hour, day, week or month are refused.`,
		Example: "  creto tenant create --as admin/admin.key --dir acme --name 'Acme GmbH' --zone Europe/Berlin\n" +
			"  creto event submit --as admin/admin.key --kind admin.tz \\\n" +
			"    --body '{\"1\":\"Europe/Berlin\",\"2\":\"hex:'$(xxd -p /usr/share/zoneinfo/Europe/Berlin | tr -d '\\n')'\"}'",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tenantCreate(c.Context(), o.name, o.dir, o.zone, o.strict, o.plain)
		},
	}
	f := create.Flags()
	f.StringVar(&o.name, "name", "", "what the tenant is called; kept erasable, beside the log")
	f.StringVar(&o.dir, "dir", ".", "folder for authority.key and read-token")
	f.StringVar(&o.zone, "zone", "UTC", "IANA time zone of the tenant's periods")
	f.BoolVar(&o.strict, "strict", false, "refuse what strict tenants refuse")
	f.BoolVar(&o.plain, "plain", false, "leave the authority's key without a passphrase")
	show := &cobra.Command{
		Use: "show", Short: "Show the tenant that --tenant names", Args: noArgs,
		Example: "  creto tenant show\n  creto tenant show --tenant TENANT -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				r, err := cretov1.NewIdentityServiceClient(cl).GetTenant(ctx, &cretov1.GetTenantRequest{Tenant: tenant})
				if err != nil {
					return err
				}
				return a.object(tenantView{
					Tenant: idOf(r.GetTenant()), Slot: r.GetSlot(), Authority: idOf(r.GetAuthorityId()), AuthorityKey: hashOf(r.GetAuthorityKeyId()),
					Zone: r.GetZone(), LedgerID: hexOf(r.GetLedgerId()), Origin: r.GetOrigin(), TrustDomain: r.GetTrustDomain(), Test: r.GetTest(),
					Read: readOf(r.GetRead()),
				})
			})
		},
	}
	return noun("tenant", "Tenants and their authorities", "", create, show)
}

type tenantView struct {
	Tenant       string    `json:"tenant"`
	Slot         uint32    `json:"slot"`
	Authority    string    `json:"authority"`
	AuthorityKey string    `json:"authority_key"`
	Zone         string    `json:"zone"`
	LedgerID     string    `json:"ledger_id"`
	Origin       string    `json:"origin"`
	TrustDomain  string    `json:"trust_domain"`
	Test         bool      `json:"test"`
	Read         *readView `json:"read,omitempty" table:"-"`
}

func (t tenantView) quietID() string { return t.Tenant }

// newToken draws a read token and its digest.
func newToken(prefix string) (string, nhi.Digest, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", nhi.Digest{}, err
	}
	t := prefix + base64.RawURLEncoding.EncodeToString(b[:])
	return t, sha256.Sum256([]byte(t)), nil
}

const (
	readTokenPrefix = "creto-read-"
	joinTokenPrefix = "creto-join-"
)

func (a *app) tenantCreate(ctx context.Context, name, dir, zone string, strict, plain bool) error {
	if err := ledger.CheckZone(zone); err != nil {
		return usageError(fmt.Errorf("--zone: %w", err), "a name such as Europe/Berlin or UTC")
	}
	admin, adminKey, err := a.signer(ctx, byAdmin)
	if err != nil {
		return err
	}
	if admin.Role != "admin" {
		return usageError(fmt.Errorf("this is the key of a %s; tenants are made by an admin", admin.Role), "name an admin's key with --as or CRETO_ADMIN")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return localError(err)
	}
	tenant, err := newID()
	if err != nil {
		return err
	}
	authority, err := newID()
	if err != nil {
		return err
	}
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	token, digest, err := newToken(readTokenPrefix)
	if err != nil {
		return err
	}
	keyPath, tokenPath := filepath.Join(dir, "authority.key"), filepath.Join(dir, "read-token")
	file := keyfile.Key{Role: "authority", Tenant: tenant, ID: authority, Suite: key.Public().Suite(), Seed: key.Seed()}
	if err := a.writeKey(ctx, keyPath, file, plain); err != nil {
		return err
	}
	if err := createFile(tokenPath, []byte(token+"\n")); err != nil {
		return localError(fmt.Errorf("write read token: %w", err))
	}
	return a.call(ctx, func(ctx context.Context, c *creto.Client) error {
		w, err := a.actAs(ctx, c, admin, adminKey)
		if err != nil {
			return err
		}
		reg, err := registry.NewRegistration(key, w.LedgerID(), tenant, authority, registry.Authority)
		if err != nil {
			return err
		}
		body, err := (&ledger.TenantCreateBody{
			Tenant: tenant, Authority: authority, Suite: reg.Suite, Public: reg.Public, Possession: reg.Possession, Zone: zone, Strict: strict,
			ReadToken: digest,
		}).Encode()
		if err != nil {
			return usageError(err)
		}
		r, err := w.Do(ctx, ledger.KindTenantCreate, body)
		if err != nil {
			return err
		}
		created := new(ledger.TenantCreated)
		if err := canon.Unmarshal(r.Detail, created); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		auth, err := creto.NewAgent(creto.AgentConfig{Client: c, Signer: key, ID: authority, Tenant: tenant, LedgerID: w.LedgerID()})
		if err != nil {
			return err
		}
		raw, err := reg.Encode()
		if err != nil {
			return err
		}
		if _, err := auth.Do(ctx, registry.KindRegister, raw, nameAddendum(name)...); err != nil {
			return fmt.Errorf("tenant %s exists, but its authority could not register itself: %w", tenant, err)
		}
		return a.object(tenantCreated{
			Tenant: tenant.String(), Slot: created.Slot, Authority: authority.String(), AuthorityKey: keyPath, TokenFile: tokenPath, Index: count(r.Index),
		})
	})
}

type tokenView struct {
	File    string  `json:"file,omitempty"`
	SHA256  string  `json:"sha256"`
	Expires instant `json:"expires"`
	Index   count   `json:"index"`
}

func (t tokenView) quietID() string { return t.SHA256 }

func (a *app) tokenCmd() *cobra.Command {
	var out string
	var ttl time.Duration
	create := &cobra.Command{
		Use: "create", Short: "Make a read token of the tenant's log",
		Long: `Make a token that lets whoever knows it read the tenant's log, and submit events that somebody else has signed.

The token is written to a file and shown nowhere; the ledger keeps its SHA-256. Signed by the tenant's authority (--as).`,
		Example: "  creto token create --as acme/authority.key --out auditor-token --ttl 720h",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if out == "" {
				return usageError(errors.New("no file for the token"), "name it with --out FILE")
			}
			token, digest, err := newToken(readTokenPrefix)
			if err != nil {
				return err
			}
			b := &ledger.ReadTokenBody{Token: digest}
			if ttl > 0 {
				b.Expires = time.Now().Add(ttl).UnixNano()
			}
			body, err := b.Encode()
			if err != nil {
				return usageError(err)
			}
			if err := createFile(out, []byte(token+"\n")); err != nil {
				return localError(fmt.Errorf("write token: %w", err))
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error {
				r, err := w.Do(ctx, ledger.KindReadTokenAdd, body)
				if err != nil {
					return errors.Join(err, os.Remove(out))
				}
				return a.object(tokenView{File: out, SHA256: hexOf(digest[:]), Expires: instantNs(b.Expires), Index: count(r.Index)})
			})
		},
	}
	create.Flags().StringVar(&out, "out", "", "file to write the token to")
	create.Flags().DurationVar(&ttl, "ttl", 0, "how long it is valid (default: until it is revoked)")
	revoke := &cobra.Command{
		Use: "revoke FILE|SHA256", Short: "Revoke a read token",
		Example: "  creto token revoke auditor-token --as acme/authority.key",
		Args:    exactly("FILE|SHA256"),
		RunE: func(c *cobra.Command, args []string) error {
			digest, err := nhi.ParseLinkID(args[0]) // 64 hexadecimal digits
			if err != nil {
				b, err := readBounded(args[0], 4096)
				if err != nil {
					return localError(fmt.Errorf("read token: %w", err))
				}
				digest = sha256.Sum256([]byte(strings.TrimSpace(string(b))))
			}
			body, err := (&ledger.ReadTokenBody{Token: nhi.Digest(digest)}).Encode()
			if err != nil {
				return usageError(err)
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error {
				r, err := w.Do(ctx, ledger.KindReadTokenRemove, body)
				if err != nil {
					return err
				}
				return a.object(tokenView{SHA256: hexOf(digest[:]), Index: count(r.Index)})
			})
		},
	}
	return noun("token", "Read tokens of a tenant's log", "", create, revoke)
}
