package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

type identityCreated struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	KeyID   string `json:"key_id"`
	KeyFile string `json:"key_file,omitempty"`
	Index   count  `json:"index"`
}

func (i identityCreated) quietID() string { return i.ID }

type identityView struct {
	ID               string    `json:"id"`
	Type             string    `json:"type"`
	Status           string    `json:"status"`
	KeyID            string    `json:"key_id"`
	Suite            string    `json:"suite" table:"-"`
	SinceIndex       count     `json:"since_index"`
	CompromisedSince instant   `json:"compromised_since,omitzero"`
	Read             *readView `json:"read,omitempty" table:"-"`
}

func (i identityView) quietID() string { return i.ID }

func identityOf(p *cretov1.Identity) identityView {
	return identityView{
		ID: idOf(p.GetId()), Type: p.GetType(), Status: p.GetStatus(), KeyID: hashOf(p.GetKeyId()), Suite: p.GetSuite(),
		SinceIndex: count(p.GetSinceIndex()), CompromisedSince: instantNs(p.GetCompromisedSinceNs()),
	}
}

func (a *app) identityCmd() *cobra.Command {
	ids := func(c *cobra.Command) *cobra.Command { return a.completeFirst(c, completeIdentities) }
	return noun("identity", "Humans, agents, services and their keys",
		`Identities are random ids with keys. What somebody is called stands beside the log and can be erased.`,
		a.identityCreateCmd(), a.identityRegisterCmd(), ids(a.identityRotateCmd()),
		ids(a.identityStatusCmd("suspend", registry.KindSuspend, "Suspend an identity until it is resumed")),
		ids(a.identityStatusCmd("resume", registry.KindResume, "Let a suspended identity act again")),
		ids(a.identityStatusCmd("revoke", registry.KindRevoke, "Revoke an identity for ever")),
		ids(a.identityShowCmd()), a.identityListCmd(), ids(a.identitySVIDCmd()), a.identityEraseCmd(),
	)
}

// registrable are the types that a tenant registers from the command line.
func parseRegistrable(name string) (registry.Type, error) {
	t, ok := registry.ParseType(name)
	if !ok || t != registry.Human && t != registry.Agent && t != registry.Service {
		return 0, usageError(fmt.Errorf("--type %q is not human, agent or service", name))
	}
	return t, nil
}

func (a *app) identityCreateCmd() *cobra.Command {
	var o struct {
		typ, name, out string
		plain          bool
	}
	c := &cobra.Command{
		Use: "create", Short: "Make a key and register an identity with it",
		Long: `Make a new id and a composite key (ML-DSA-65 and Ed25519), keep the key in a file under a passphrase, and register both.

Signed by the tenant's authority (--as). The passphrase is asked for, or read from --passphrase-file. The name is shown by
creto event get INDEX --addenda, INDEX being the leaf that this prints, until creto identity erase INDEX.`,
		Example: `  creto identity create --as acme/authority.key --type human --name 'Ada' --out ada.key
  creto identity create --as acme/authority.key --type agent --out agent.key --plain`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := parseRegistrable(o.typ)
			if err != nil {
				return err
			}
			if o.out == "" {
				return usageError(errors.New("no file for the key"), "name it with --out FILE")
			}
			return a.act(c.Context(), byAuthority, func(_ context.Context, w *actor) error {
				id, err := newID()
				if err != nil {
					return err
				}
				key, err := nhi.GenerateKey(rand.Reader)
				if err != nil {
					return err
				}
				file := keyfile.Key{Role: t.String(), Tenant: w.Tenant(), ID: id, Suite: key.Public().Suite(), Seed: key.Seed()}
				if err := a.writeKey(c.Context(), o.out, file, o.plain); err != nil {
					return err
				}
				// The time at the prompt does not count against --timeout.
				ctx, cancel := context.WithTimeout(c.Context(), a.settings.timeout)
				defer cancel()
				return dropRefused(a.register(ctx, w, key, id, t, o.name, o.out), o.out)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.typ, "type", "agent", "human, agent or service")
	f.StringVar(&o.name, "name", "", "what it is called; kept erasable, beside the log")
	f.StringVar(&o.out, "out", "", "file to write the key to")
	f.BoolVar(&o.plain, "plain", false, "leave the key without a passphrase")
	return c
}

// dropRefused removes the file of a new key that was refused: the command can then be repeated under the same name. After any
// other error the key may be registered, and the file stays.
func dropRefused(err error, path string) error {
	if _, refused := errors.AsType[*creto.RefusedError](err); !refused {
		return err
	}
	if rm := os.Remove(path); rm != nil {
		return errors.Join(err, fmt.Errorf("remove the refused key: %w", rm))
	}
	return err
}

func (a *app) register(ctx context.Context, w *actor, key *nhi.PrivateKey, id nhi.ID, t registry.Type, name, file string) error {
	reg, err := registry.NewRegistration(key, w.LedgerID(), w.Tenant(), id, t)
	if err != nil {
		return err
	}
	body, err := reg.Encode()
	if err != nil {
		return err
	}
	r, err := w.Do(ctx, registry.KindRegister, body, nameAddendum(name)...)
	if err != nil {
		return err
	}
	return a.object(identityCreated{ID: id.String(), Type: t.String(), KeyID: key.Public().ID().String(), KeyFile: file, Index: count(r.Index)})
}

func (a *app) identityRegisterCmd() *cobra.Command {
	var typ, name string
	c := &cobra.Command{
		Use: "register KEYFILE", Short: "Register the identity of a key file",
		Long: `Register an identity whose key file exists already, for example because registering it was interrupted.

Signed by the tenant's authority (--as).`,
		Example: "  creto identity register ada.key --as acme/authority.key",
		Args:    exactly("KEYFILE"),
		RunE: func(c *cobra.Command, args []string) error {
			k, key, err := a.readKey(c.Context(), args[0])
			if err != nil {
				return err
			}
			if typ == "" {
				typ = k.Role
			}
			t, err := parseRegistrable(typ)
			if err != nil {
				return err
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error { return a.register(ctx, w, key, k.ID, t, name, args[0]) })
		},
	}
	c.Flags().StringVar(&typ, "type", "", "human, agent or service (default: what the key file says)")
	c.Flags().StringVar(&name, "name", "", "what it is called; kept erasable, beside the log")
	return c
}

func (a *app) identityRotateCmd() *cobra.Command {
	var o struct {
		out     string
		overlap time.Duration
		plain   bool
	}
	c := &cobra.Command{
		Use: "rotate ID", Short: "Give an identity a new key",
		Long: `Give an identity a new key. The old one signs until the overlap has passed; without an overlap it ends at once.

Signed by the identity's current key, or by the tenant's authority (--as). An agent names its chain as well (--link).`,
		Example: "  creto identity rotate ID --as ada.key --out ada-2.key --overlap 1h",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID("identity", args[0])
			if err != nil {
				return err
			}
			if o.out == "" {
				return usageError(errors.New("no file for the new key"), "name it with --out FILE")
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error {
				tenant := w.Tenant()
				r, err := cretov1.NewIdentityServiceClient(w.client).GetIdentity(ctx, &cretov1.GetIdentityRequest{Tenant: tenant[:], Id: id[:]})
				if err != nil {
					return err
				}
				t, ok := registry.ParseType(r.GetIdentity().GetType())
				if !ok {
					return fmt.Errorf("read answer: unknown type %q", r.GetIdentity().GetType())
				}
				key, err := nhi.GenerateKey(rand.Reader)
				if err != nil {
					return err
				}
				file := keyfile.Key{Role: t.String(), Tenant: tenant, ID: id, Suite: key.Public().Suite(), Seed: key.Seed()}
				if err := a.writeKey(c.Context(), o.out, file, o.plain); err != nil {
					return err
				}
				// The time at the prompt does not count against --timeout.
				ctx, cancel := context.WithTimeout(c.Context(), a.settings.timeout)
				defer cancel()
				var until int64
				if o.overlap > 0 {
					until = time.Unix(0, r.GetRead().GetTimeNs()).Add(o.overlap).UnixNano()
				}
				rot, err := registry.NewRotation(key, w.LedgerID(), tenant, id, t, until)
				if err != nil {
					return err
				}
				body, err := rot.Encode()
				if err != nil {
					return usageError(err)
				}
				res, err := w.Do(ctx, registry.KindRotate, body)
				if err != nil {
					return dropRefused(err, o.out)
				}
				return a.object(identityCreated{ID: id.String(), Type: t.String(), KeyID: key.Public().ID().String(), KeyFile: o.out, Index: count(res.Index)})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.out, "out", "", "file to write the new key to")
	f.DurationVar(&o.overlap, "overlap", 0, "how long the old key still signs")
	f.BoolVar(&o.plain, "plain", false, "leave the key without a passphrase")
	return c
}

func (a *app) identityStatusCmd(verb, kind, short string) *cobra.Command {
	var reason, since, key string
	c := &cobra.Command{
		Use: verb + " ID", Short: short,
		Long:    short + ".\n\nSigned by the tenant's authority, or by the identity itself (--as). An agent names its chain as well (--link).",
		Example: "  creto identity " + verb + " ID --as acme/authority.key --reason left",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID("identity", args[0])
			if err != nil {
				return err
			}
			b := &registry.StatusBody{ID: id, Reason: reason}
			if since != "" {
				at, err := parseTime("--compromised-since", since, time.Now())
				if err != nil {
					return err
				}
				b.CompromisedSince = at.UnixNano()
			}
			if key != "" {
				k, err := nhi.ParseKeyID(key)
				if err != nil {
					return usageError(fmt.Errorf("--key-id %q is not a key id", key))
				}
				b.Key = nhi.Digest(k)
			}
			body, err := b.Encode()
			if err != nil {
				return usageError(err, "--reason is up to 32 plain characters, never personal data")
			}
			return a.do(c.Context(), byAuthority, kind, body)
		},
	}
	c.Flags().StringVar(&reason, "reason", "unspecified", "why, in up to 32 plain characters; never personal data")
	if verb != "resume" {
		c.Flags().StringVar(&since, "compromised-since", "", "from when on nothing signed is to be believed (RFC 3339, or how long ago)")
	}
	if verb == "revoke" {
		c.Flags().StringVar(&key, "key-id", "", "revoke only this key of the identity")
	}
	return c
}

func (a *app) identityShowCmd() *cobra.Command {
	var asOf uint64
	c := &cobra.Command{
		Use: "show ID", Short: "Show an identity, now or as of a leaf",
		Example: "  creto identity show ID\n  creto identity show ID --as-of 120 -o json",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID("identity", args[0])
			if err != nil {
				return err
			}
			req := &cretov1.GetIdentityRequest{Id: id[:]}
			if c.Flag("as-of").Changed {
				req.AsOfIndex = &asOf
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				req.Tenant = tenant
				r, err := cretov1.NewIdentityServiceClient(cl).GetIdentity(ctx, req)
				if err != nil {
					return err
				}
				v := identityOf(r.GetIdentity())
				v.Read = readOf(r.GetRead())
				return a.object(v)
			})
		},
	}
	c.Flags().Uint64Var(&asOf, "as-of", 0, "as of this index of the tenant's log")
	return c
}

func (a *app) identityListCmd() *cobra.Command {
	var typ string
	var limit uint32
	c := &cobra.Command{
		Use: "list", Short: "List the tenant's identities", Args: noArgs,
		Example: "  creto identity list\n  creto identity list --type agent -q",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				rpc := cretov1.NewIdentityServiceClient(cl)
				return pages(a, limit, func(size uint32, cursor string) ([]identityView, string, error) {
					r, err := rpc.ListIdentities(ctx, &cretov1.ListIdentitiesRequest{Tenant: tenant, Type: typ, PageSize: size, Cursor: cursor})
					if err != nil {
						return nil, "", err
					}
					return mapped(r.GetIdentities(), identityOf), r.GetNextCursor(), nil
				})
			})
		},
	}
	c.Flags().StringVar(&typ, "type", "", "only human, agent, service or authority")
	c.Flags().Uint32Var(&limit, "limit", 0, "at most this many (default: all)")
	return c
}

func (a *app) identityEraseCmd() *cobra.Command {
	return &cobra.Command{
		Use: "erase INDEX", Short: "Erase the personal data beside a leaf",
		Long: `Erase the addenda of a leaf: the name in the leaf that registered somebody, for example. The leaf and its proof stay whole,
because only a salted digest of what is erased stands in them. Signed by the tenant's authority (--as).`,
		Example: "  creto identity erase 17 --as acme/authority.key",
		Args:    exactly("INDEX"),
		RunE: func(c *cobra.Command, args []string) error {
			i, err := parseIndex("leaf", args[0])
			if err != nil {
				return err
			}
			body, err := (&registry.EraseBody{Index: i}).Encode()
			if err != nil {
				return usageError(err)
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error {
				tenant := w.Tenant()
				e, err := cretov1.NewEventServiceClient(w.client).GetEvent(ctx, &cretov1.GetEventRequest{Tenant: tenant[:], Index: i})
				// Whoever may not read the leaf may still have it erased: then the ledger alone decides.
				switch state := e.GetEvent().GetAddendaState(); {
				case err != nil || state == "present":
				case state == "":
					return &failure{code: exitNotFound, err: fmt.Errorf("nothing to erase: leaf %d has no addenda", i), hints: []string{"a name stands beside the leaf that `creto identity create` or `creto account create` printed as its index"}}
				default:
					return &failure{code: exitNotFound, err: fmt.Errorf("nothing to erase: the addenda of leaf %d were %s", i, state)}
				}
				r, err := w.Do(ctx, registry.KindErase, body)
				if err != nil {
					return err
				}
				return a.object(submittedOf(r))
			})
		},
	}
}

// pages prints lists page by page, at most limit rows (0 = all).
func pages[T identified](a *app, limit uint32, fetch func(size uint32, cursor string) ([]T, string, error)) error {
	const page = 500
	s := newStream[T](a)
	cursor := ""
	for {
		size := uint32(page)
		if limit > 0 {
			size = min(size, limit-uint32(s.n))
		}
		rows, next, err := fetch(size, cursor)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := s.add(r); err != nil {
				return err
			}
			if limit > 0 && s.n >= int(limit) {
				return s.close()
			}
		}
		if next == "" || next == cursor {
			return s.close()
		}
		cursor = next
	}
}

func mapped[S, T any](in []S, f func(S) T) []T {
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

type linkView struct {
	ID         string   `json:"link_id"`
	Depth      uint32   `json:"depth"`
	Issuer     string   `json:"issuer"`
	Subject    string   `json:"subject"`
	Parent     string   `json:"parent,omitempty" table:"-"`
	NotBefore  instant  `json:"not_before"`
	Expires    instant  `json:"expires"`
	Scopes     []string `json:"scopes"`
	Budgets    []string `json:"budgets,omitempty"`
	Oversight  []string `json:"oversight,omitempty"`
	Redelegate bool     `json:"redelegate"`
	MaxDepth   count    `json:"max_depth" table:"-"`
	Purpose    string   `json:"purpose,omitempty"`
	Index      count    `json:"index"`
	Revoked    count    `json:"revoked_index,omitempty"`
}

func (l linkView) quietID() string { return l.ID }

func linkOf(p *cretov1.Link) (linkView, error) {
	v := linkView{
		ID: hashOf(p.GetLinkId()), Depth: p.GetDepth(), Issuer: idOf(p.GetIssuer()), Subject: idOf(p.GetSubject()), Parent: hashOf(p.GetParent()),
		NotBefore: instantNs(p.GetNotBeforeMs() * 1e6), Expires: instantNs(p.GetExpiresMs() * 1e6), Index: count(p.GetRegisteredIndex()),
		Revoked: count(p.GetRevokedIndex()),
	}
	l, err := registry.DecodeLink(p.GetBody())
	if err != nil {
		return v, fmt.Errorf("read link: %w", err)
	}
	if id := registry.LinkIDOf(p.GetBody()); id.String() != v.ID {
		return v, fmt.Errorf("read link: its body is not that of link %s", v.ID)
	}
	for _, s := range l.Scopes {
		text := strings.Join(s.Actions, ",") + " on " + s.Resource
		for _, m := range sortedKeys(s.Caps) {
			text += fmt.Sprintf(" ≤%d %s", s.Caps[m], m)
		}
		v.Scopes = append(v.Scopes, text)
	}
	for _, b := range l.Budgets {
		v.Budgets = append(v.Budgets, fmt.Sprintf("%d %s per %s", b.Limit, b.Meter, windowName(b.Window)))
	}
	v.Oversight, v.Redelegate, v.MaxDepth, v.Purpose = l.Oversight, l.Redelegate, count(l.MaxDepth), l.Purpose.Label
	return v, nil
}
