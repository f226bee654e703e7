package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	meter "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

type delegationCreated struct {
	Link    string  `json:"link_id"`
	Depth   count   `json:"depth"`
	Issuer  string  `json:"issuer"`
	Subject string  `json:"subject"`
	Expires instant `json:"expires"`
	Index   count   `json:"index"`
}

func (d delegationCreated) quietID() string { return d.Link }

func windowName(w registry.Window) string { return meter.Period(w).String() }

// linkOptions are what the flags of `creto delegation create` say.
type linkOptions struct {
	to, parent, authority, guard, purpose string
	scopes, budgets, oversight            []string
	ttl                                   time.Duration
	maxDepth                              uint64
	redelegate                            bool
}

func (a *app) delegationCmd() *cobra.Command {
	return noun("delegation", "Who acts for whom, and within which bounds",
		`A delegation link lets its subject act for its issuer. Links form chains that begin with a human or a declared service and
are narrower at each hop; an agent names the last link of its chain in everything it does.`,
		a.delegationCreateCmd(), a.delegationShowCmd(), a.delegationRevokeCmd())
}

func (a *app) delegationCreateCmd() *cobra.Command {
	var o linkOptions
	c := &cobra.Command{
		Use: "create", Short: "Let somebody act for the identity of --as",
		Long: `Let somebody act for the identity of --as, within bounds.

Without --parent it is the root of a chain: issued by a human or a service, and countersigned by the tenant's authority
(--authority). With --parent it passes on what its issuer was given under that link; what the flags do not narrow is passed on
as it is.

--scope ACTION[,ACTION…]:RESOURCE[:METER=MAX…]  what may be done. An action is a kind of event ("usage", "quota.*") or the name
of an operation; a resource is "*", "account:ID" (that account and all below it), or the exact name of something. Repeat it.
--budget METER:LIMIT:WINDOW  what all of it together may use; WINDOW is hour, day, week, month or total. Repeat it.

Whoever acts under a scope of "account:ID" names that account, or one below it, with --account in each command; otherwise the act is
outside of the scope. Asking for an approval takes both "approval.*" and the operation itself.`,
		Example: `  creto delegation create --as ada.key --authority acme/authority.key --to AGENT --scope 'usage,quota.*:account:ID' --ttl 8h
  creto delegation create --as ada.key --to AGENT --scope 'pay,approval.*:account:ID'
  creto delegation create --as agent.key --parent LINK --to OTHER --scope 'usage:account:ID:tokens=5000' --budget tokens:100000:day`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.delegationCreate(c, o) },
	}
	f := c.Flags()
	f.StringVar(&o.to, "to", "", "who may act: an identity's id")
	f.StringVar(&o.parent, "parent", "", "link to pass on")
	f.StringVar(&o.authority, "authority", "", "key file of the tenant's authority, which countersigns a root link [CRETO_AUTHORITY]")
	f.StringArrayVar(&o.scopes, "scope", nil, "ACTION[,ACTION…]:RESOURCE[:METER=MAX…]; repeat it")
	f.StringArrayVar(&o.budgets, "budget", nil, "METER:LIMIT:WINDOW; repeat it")
	f.StringArrayVar(&o.oversight, "oversight", nil, "oversight chain that is always asked; repeat it")
	f.StringVar(&o.guard, "guard", "", "file with forbid-only Cedar policies for whatever is done under the link")
	f.StringVar(&o.purpose, "purpose", "", "label of up to 64 plain characters, never personal data")
	f.DurationVar(&o.ttl, "ttl", 24*time.Hour, "how long it is valid")
	f.Uint64Var(&o.maxDepth, "max-depth", 0, "the deepest a link below it may be, the root being 0 (default: 7 with --redelegate)")
	f.BoolVar(&o.redelegate, "redelegate", false, "let the subject pass it on")
	return c
}

func (a *app) delegationCreate(c *cobra.Command, o linkOptions) error {
	if o.to == "" {
		return usageError(errors.New("nobody to delegate to"), "name an identity with --to ID")
	}
	to, err := parseID("--to", o.to)
	if err != nil {
		return err
	}
	scopes, err := parseScopes(o.scopes)
	if err != nil {
		return err
	}
	budgets, err := parseBudgets(o.budgets)
	if err != nil {
		return err
	}
	var guard []byte
	if o.guard != "" {
		if guard, err = a.readText(o.guard, registry.MaxGuardBytes); err != nil {
			return localError(fmt.Errorf("read guard: %w", err))
		}
		if err := authz.CheckGuard(guard); err != nil {
			return localError(fmt.Errorf("check guard: %w", err))
		}
	}
	k, key, err := a.signer(c.Context(), byActor)
	if err != nil {
		return err
	}
	if a.settings.link.IsZero() && o.parent != "" { // who passes a link on acts under it
		if a.settings.link, err = parseLink(o.parent); err != nil {
			return err
		}
	}
	return a.call(c.Context(), func(ctx context.Context, cl *creto.Client) error {
		w, err := a.actAs(ctx, cl, k, key)
		if err != nil {
			return err
		}
		l, err := a.newLink(ctx, w, to, o, scopes, budgets)
		if err != nil {
			return err
		}
		if c.Flag("redelegate").Changed || o.parent == "" {
			l.Redelegate = o.redelegate
		}
		switch {
		case c.Flag("max-depth").Changed:
			l.MaxDepth = o.maxDepth
		case o.parent == "":
			l.MaxDepth = 0
			if o.redelegate {
				l.MaxDepth = registry.MaxLinks - 1
			}
		}
		if guard != nil {
			b := &registry.GuardBody{Text: string(guard)}
			raw, err := b.Encode()
			if err != nil {
				return localError(err)
			}
			if _, err := w.Do(ctx, registry.KindGuard, raw); err != nil {
				return fmt.Errorf("store guard: %w", err)
			}
			l.Guards = b.Digest()
		}
		return a.registerLink(ctx, w, l, o.authority)
	})
}

// newLink returns the link to sign: a new root, or the parent's bounds narrowed by the flags.
func (a *app) newLink(ctx context.Context, w *actor, to nhi.ID, o linkOptions, scopes []registry.Scope, budgets []registry.Budget) (*registry.Link, error) {
	tenant := w.Tenant()
	rpc := cretov1.NewIdentityServiceClient(w.client)
	r, err := rpc.GetIdentity(ctx, &cretov1.GetIdentityRequest{Tenant: tenant[:], Id: to[:]})
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", to, err)
	}
	if len(r.GetIdentity().GetKeyId()) != len(nhi.KeyID{}) {
		return nil, errors.New("read answer: key id of the wrong length")
	}
	subjectKey := nhi.KeyID(r.GetIdentity().GetKeyId())
	nonce, err := random16()
	if err != nil {
		return nil, err
	}
	// Consensus time decides; a minute of tolerance keeps a link usable at once where it lags behind.
	now := time.Unix(0, r.GetRead().GetTimeNs())
	l := &registry.Link{
		Ledger: w.LedgerID(), Tenant: tenant, Issuer: w.ID(), Subject: to, SubjectKey: subjectKey, Nonce: nonce,
		NotBefore: now.Add(-time.Minute).UnixMilli(), Expires: now.Add(o.ttl).UnixMilli(),
	}
	if o.parent != "" {
		id, err := parseLink(o.parent)
		if err != nil {
			return nil, err
		}
		chain, err := rpc.GetChain(ctx, &cretov1.GetChainRequest{Tenant: tenant[:], LinkId: id[:]})
		if err != nil {
			return nil, fmt.Errorf("ask for the parent: %w", err)
		}
		if len(chain.GetLinks()) == 0 {
			return nil, errors.New("read answer: a chain without links")
		}
		parent, err := registry.DecodeLink(chain.GetLinks()[len(chain.GetLinks())-1].GetBody())
		if err != nil {
			return nil, fmt.Errorf("read the parent: %w", err)
		}
		nbf, exp := l.NotBefore, l.Expires
		l = registry.Child(parent, id, to, subjectKey, nonce)
		l.NotBefore, l.Expires = max(nbf, parent.NotBefore), min(exp, parent.Expires)
	}
	if len(scopes) > 0 {
		l.Scopes = scopes
	}
	if len(l.Scopes) == 0 {
		return nil, usageError(errors.New("nothing to delegate"), "say what may be done with --scope 'ACTION,ACTION:RESOURCE'")
	}
	for _, b := range budgets { // a budget of the parent stays; one that is named anew is narrowed
		i := slices.IndexFunc(l.Budgets, func(p registry.Budget) bool { return p.Meter == b.Meter && p.Window == b.Window })
		if i >= 0 {
			b.Unit = l.Budgets[i].Unit
			l.Budgets[i] = b
		} else {
			l.Budgets = append(l.Budgets, b)
		}
	}
	l.Oversight = append(l.Oversight, o.oversight...)
	if o.purpose != "" {
		l.Purpose.Label = o.purpose
	}
	return l, nil
}

func (a *app) registerLink(ctx context.Context, w *actor, l *registry.Link, authority string) error {
	body, sig, id, err := registry.SignLink(w.signer, l)
	if err != nil {
		return usageError(err)
	}
	b := &registry.RegisterLinkBody{Body: body, Signature: sig, Evidence: registry.Evidence{Kind: registry.CompositeKey}}
	if l.Parent.IsZero() {
		if authority == "" {
			authority = a.settings.authority
		}
		if authority == "" {
			return usageError(errors.New("a root link is countersigned by the tenant's authority"), "name its key file with --authority, or pass a link on with --parent")
		}
		_, key, err := a.readKey(ctx, authority)
		if err != nil {
			return err
		}
		if b.Countersignature, err = registry.Countersign(key, id); err != nil {
			return err
		}
	}
	raw, err := b.Encode()
	if err != nil {
		return usageError(err)
	}
	r, err := w.Do(ctx, registry.KindRegisterLink, raw)
	if err != nil {
		return err
	}
	return a.object(delegationCreated{
		Link: id.String(), Depth: count(l.Depth), Issuer: l.Issuer.String(), Subject: l.Subject.String(), Expires: instantNs(l.Expires * 1e6),
		Index: count(r.Index),
	})
}

// parseScopes parses ACTION[,ACTION…]:RESOURCE[:METER=MAX…].
func parseScopes(texts []string) ([]registry.Scope, error) {
	var out []registry.Scope
	for _, t := range texts {
		actions, rest, ok := strings.Cut(t, ":")
		if !ok || actions == "" || rest == "" {
			return nil, usageError(fmt.Errorf("--scope %q is not ACTION[,ACTION…]:RESOURCE[:METER=MAX…]", t))
		}
		s := registry.Scope{Actions: strings.Split(actions, ","), Caps: make(map[string]uint64)}
		parts := strings.Split(rest, ":")
		end := len(parts)
		for end > 1 && strings.Contains(parts[end-1], "=") {
			end--
		}
		s.Resource = strings.Join(parts[:end], ":")
		caps, err := parseQuantities(parts[end:])
		if err != nil {
			return nil, err
		}
		for _, q := range caps {
			s.Caps[q.Meter] = q.N
		}
		slices.Sort(s.Actions)
		out = append(out, s)
	}
	return out, nil
}

// parseBudgets parses METER:LIMIT:WINDOW.
func parseBudgets(texts []string) ([]registry.Budget, error) {
	var out []registry.Budget
	for _, t := range texts {
		p, err := colons("--budget", t, "METER", "LIMIT", "WINDOW")
		if err != nil {
			return nil, err
		}
		limit, err := parseAmount("limit", p[1])
		if err != nil {
			return nil, err
		}
		period, ok := meter.ParsePeriod(p[2])
		if !ok {
			return nil, usageError(fmt.Errorf("window %q is not hour, day, week, month or total", p[2]))
		}
		out = append(out, registry.Budget{Meter: p[0], Unit: "1", Limit: limit, Window: registry.Window(period)})
	}
	return out, nil
}

func (a *app) delegationShowCmd() *cobra.Command {
	var asOf uint64
	c := &cobra.Command{
		Use: "show LINK", Short: "Show a chain, root first, and whether it holds",
		Example: "  creto delegation show LINK\n  creto delegation show LINK --as-of 120 -o json",
		Args:    exactly("LINK"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLink(args[0])
			if err != nil {
				return err
			}
			req := &cretov1.GetChainRequest{LinkId: id[:]}
			if c.Flag("as-of").Changed {
				req.AsOfIndex = &asOf
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				req.Tenant = tenant
				r, err := cretov1.NewIdentityServiceClient(cl).GetChain(ctx, req)
				if err != nil {
					return err
				}
				v := chainView{Link: id.String(), Live: r.GetLive(), Reason: r.GetReason(), Read: readOf(r.GetRead())}
				for _, p := range r.GetLinks() {
					l, err := linkOf(p)
					if err != nil {
						return err
					}
					v.Links = append(v.Links, l)
				}
				if a.settings.output == "table" && !a.settings.quiet {
					if err := list(a, v.Links); err != nil {
						return err
					}
					if v.Live {
						a.say("the chain holds")
					} else {
						a.say("the chain does not hold: %s", v.Reason)
					}
					return nil
				}
				return a.object(v)
			})
		},
	}
	c.Flags().Uint64Var(&asOf, "as-of", 0, "as of this index of the tenant's log")
	return c
}

type chainView struct {
	Link   string     `json:"link_id"`
	Live   bool       `json:"live"`
	Reason string     `json:"reason,omitempty"`
	Links  []linkView `json:"links"`
	Read   *readView  `json:"read,omitempty" table:"-"`
}

func (c chainView) quietID() string { return c.Link }

func (a *app) delegationRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "revoke LINK", Short: "Revoke a link and every chain through it",
		Long: `Revoke a link. It and every chain that passes through it end at the index of this event.

Signed by the link's issuer, by the issuer of a link above it, or by the tenant's authority (--as).`,
		Example: "  creto delegation revoke LINK --as ada.key",
		Args:    exactly("LINK"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseLink(args[0])
			if err != nil {
				return err
			}
			body, err := (&registry.RevokeLinkBody{Link: id}).Encode()
			if err != nil {
				return usageError(err)
			}
			return a.do(c.Context(), byActor, registry.KindRevokeLink, body)
		},
	}
}
