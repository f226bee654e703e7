package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	meter "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// Meters of the demonstration.
const (
	meterInput    = "llm.input_tokens"
	meterOutput   = "llm.output_tokens"
	meterRequests = "requests"
	meterCents    = "payments.eur_cents"
)

// demoPeople is who acts. What they are called here are their parts; the humans' names go into addenda only.
type demoPeople struct {
	tenant    nhi.ID
	authority *creto.Agent
	authKey   *nhi.PrivateKey

	org, engineering, finance, editor, payments nhi.ID // accounts

	lead, controller *demoHuman // of engineering, of finance
	agents           []*demoAgent
}

// demoHuman is a person with a key of their own.
type demoHuman struct {
	*creto.Agent // signs as the human
	part         string
	name         string
	key          *nhi.PrivateKey
	registered   uint64 // index of the registration, which has the name as its addendum
}

// demoAgent is an agent and the chain it acts under.
type demoAgent struct {
	*creto.Agent // signs as the agent
	part         string
	key          *nhi.PrivateKey
	id           nhi.ID
	account      nhi.ID
	share        int // of ten requests of the traffic
	from         any // *demoHuman or *demoAgent: who delegates to it
	body         *registry.Link
	link         nhi.LinkID
}

// chain is the parts of everybody on an agent's chain, the human first.
func (a *demoAgent) chain() string {
	switch from := a.from.(type) {
	case *demoHuman:
		return from.part + " > " + a.part
	case *demoAgent:
		return from.chain() + " > " + a.part
	}
	return a.part
}

// links counts the links of an agent's chain.
func (a *demoAgent) links() int { return int(a.body.Depth) + 1 }

// createTenant makes the tenant and its identity authority, which registers itself, and connects with the read token.
func (d *demo) createTenant(ctx context.Context) (string, error) {
	c := d.cluster
	admin, err := d.adminAgent()
	if err != nil {
		return "", err
	}
	p := &d.people
	var authority nhi.ID
	for _, id := range []*nhi.ID{&p.tenant, &authority} {
		if *id, err = nhi.NewID(rand.Reader); err != nil {
			return "", err
		}
	}
	if p.authKey, err = nhi.GenerateKey(rand.Reader); err != nil {
		return "", err
	}
	possession, err := registry.NewPossession(p.authKey, c.made.LedgerID, p.tenant, authority, registry.Authority)
	if err != nil {
		return "", err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("draw read token: %w", err)
	}
	token := "creto-read-" + hex.EncodeToString(secret)
	body := &ledger.TenantCreateBody{
		Tenant: p.tenant, Authority: authority, Suite: p.authKey.Public().Suite(), Public: p.authKey.Public().Bytes(), Possession: possession,
		Zone: "UTC", ReadToken: sha256.Sum256([]byte(token)),
	}
	if _, err := demoDo(ctx, admin, ledger.KindTenantCreate, body); err != nil {
		return "", err
	}
	if d.client, err = creto.Dial(ctx, creto.Options{Addrs: c.grpc, CA: c.made.AdminSVID.Bundle, Token: token}); err != nil {
		return "", err
	}
	if err := d.awaitTenant(ctx, token); err != nil {
		return "", err
	}
	if p.authority, err = d.agentOf(p.authKey, authority, nhi.LinkID{}, nhi.ID{}); err != nil {
		return "", err
	}
	registration, err := registry.NewRegistration(p.authKey, c.made.LedgerID, p.tenant, authority, registry.Authority)
	if err != nil {
		return "", err
	}
	if _, err := demoDo(ctx, p.authority, registry.KindRegister, registration); err != nil {
		return "", err
	}
	return fmt.Sprintf("tenant %s with an identity authority of its own, which alone registers people and agents", shortID(p.tenant)), nil
}

// awaitTenant waits until every node knows the tenant and its token: a follower says of both that they do not exist until it
// has applied what made them.
func (d *demo) awaitTenant(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for _, addr := range d.cluster.grpc {
		one, err := creto.Dial(ctx, creto.Options{Addrs: []string{addr}, CA: d.cluster.made.AdminSVID.Bundle, Token: token})
		if err != nil {
			return err
		}
		rpc := cretov1.NewIdentityServiceClient(one)
		for {
			_, err = rpc.GetTenant(ctx, &cretov1.GetTenantRequest{Tenant: d.people.tenant[:]})
			if status.Code(err) != codes.NotFound {
				break
			}
			if err = demoPause(ctx, 10*time.Millisecond); err != nil {
				break
			}
		}
		if err := errors.Join(err, one.Close()); err != nil {
			return fmt.Errorf("wait until %s knows the tenant: %w", addr, err)
		}
	}
	return nil
}

// adminAgent signs as the cluster's founding admin, for the system log.
func (d *demo) adminAgent() (*creto.Agent, error) {
	c := d.cluster
	k, _, err := keyfile.Read(c.made.AdminKey, nil)
	if err != nil {
		return nil, err
	}
	key, err := k.Private()
	if err != nil {
		return nil, err
	}
	return creto.NewAgent(creto.AgentConfig{Client: c.admin, Signer: key, ID: c.made.Admin, LedgerID: c.made.LedgerID})
}

func (d *demo) agentOf(key nhi.Signer, id nhi.ID, link nhi.LinkID, account nhi.ID) (*creto.Agent, error) {
	return creto.NewAgent(creto.AgentConfig{
		Client: d.client, Signer: key, ID: id, Link: link, Account: account, Tenant: d.people.tenant, LedgerID: d.cluster.made.LedgerID,
	})
}

// demoDo submits one event with an encodable body.
func demoDo(ctx context.Context, a *creto.Agent, kind string, body interface{ Encode() ([]byte, error) }, opts ...creto.EventOption) (*creto.Result, error) {
	raw, err := body.Encode()
	if err != nil {
		return nil, fmt.Errorf("make %s event: %w", kind, err)
	}
	return a.Do(ctx, kind, raw, opts...)
}

// createAccounts makes organisation, teams and projects.
func (d *demo) createAccounts(ctx context.Context) (string, error) {
	p := &d.people
	for _, a := range []struct {
		id     *nhi.ID
		parent *nhi.ID
		what   string
	}{
		{&p.org, &nhi.ID{}, "org"},
		{&p.engineering, &p.org, "team"}, {&p.editor, &p.engineering, "project"},
		{&p.finance, &p.org, "team"}, {&p.payments, &p.finance, "project"},
	} {
		if err := d.createAccount(ctx, a.id, *a.parent, a.what); err != nil {
			return "", err
		}
	}
	return "an account tree: one organisation, two teams, a project in each", nil
}

func (d *demo) createAccount(ctx context.Context, id *nhi.ID, parent nhi.ID, what string) error {
	var err error
	if *id, err = nhi.NewID(rand.Reader); err != nil {
		return err
	}
	_, err = demoDo(ctx, d.people.authority, meter.Account, meter.AccountBody{ID: *id, Parent: parent, Type: what})
	return err
}

// registerPeople registers two humans and four agents, each with a key of their own and a name that can be erased.
func (d *demo) registerPeople(ctx context.Context) (string, error) {
	p := &d.people
	names := d.humans
	for len(names) < 2 {
		names = append(names, inventName())
	}
	p.lead = &demoHuman{part: "engineering lead", name: names[0]}
	p.controller = &demoHuman{part: "financial controller", name: names[1]}
	for _, h := range []*demoHuman{p.lead, p.controller} {
		id, key, index, err := d.register(ctx, registry.Human, h.name)
		if err != nil {
			return "", err
		}
		h.key, h.registered = key, index
		if h.Agent, err = d.agentOf(key, id, nhi.LinkID{}, nhi.ID{}); err != nil {
			return "", err
		}
	}
	coder := &demoAgent{part: "coder", account: p.editor, share: 4, from: p.lead}
	reviewer := &demoAgent{part: "reviewer", account: p.editor, share: 3, from: coder}
	tester := &demoAgent{part: "tester", share: 2, from: reviewer}
	buyer := &demoAgent{part: "buyer", account: p.payments, share: 1, from: p.controller}
	p.agents = []*demoAgent{coder, reviewer, tester, buyer}
	for _, a := range p.agents {
		var err error
		if a.id, a.key, _, err = d.register(ctx, registry.Agent, a.part); err != nil {
			return "", err
		}
	}
	// The tester's quota is its own.
	if err := d.createAccount(ctx, &tester.account, p.editor, "agent"); err != nil {
		return "", err
	}
	return "two humans and four agents, each with an ML-DSA-65 and Ed25519 key; names only in addenda, sealed before they are replicated", nil
}

// register registers one identity; its name is an addendum.
func (d *demo) register(ctx context.Context, t registry.Type, name string) (nhi.ID, *nhi.PrivateKey, uint64, error) {
	id, err := nhi.NewID(rand.Reader)
	if err != nil {
		return id, nil, 0, err
	}
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		return id, nil, 0, err
	}
	body, err := registry.NewRegistration(key, d.cluster.made.LedgerID, d.people.tenant, id, t)
	if err != nil {
		return id, nil, 0, err
	}
	r, err := demoDo(ctx, d.people.authority, registry.KindRegister, body, nameAddendum(name)...)
	if err != nil {
		return id, nil, 0, err
	}
	return id, key, r.Index, nil
}

// inventName makes a name of two syllables twice, so that it stands in no program and no file.
func inventName() string {
	syllables := []string{"ba", "do", "fi", "ka", "lu", "me", "no", "pa", "ri", "so", "ta", "vo", "ya", "ze"}
	draw := make([]byte, 6)
	rand.Read(draw) //nolint:errcheck // never fails
	var words [2]strings.Builder
	for i, b := range draw {
		words[i%2].WriteString(syllables[int(b)%len(syllables)])
	}
	word := func(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
	return word(words[0].String()) + " " + word(words[1].String())
}

// delegate makes the chains: human > coder > reviewer > tester, and human > buyer.
func (d *demo) delegate(ctx context.Context) (string, error) {
	p := &d.people
	now := time.Now()
	what := map[string][]registry.Scope{
		"coder":    {{Actions: []string{"sandbox.claim", "usage"}, Resource: registry.AccountResource(p.editor), Caps: map[string]uint64{}}},
		"reviewer": {{Actions: []string{"usage"}, Resource: registry.AccountResource(p.editor), Caps: map[string]uint64{}}},
		"buyer": {{
			Actions: []string{"approval.*", "pay", "quota.close", "usage"}, Resource: registry.AccountResource(p.payments),
			Caps: map[string]uint64{meterCents: 500_000},
		}},
	}
	for _, a := range p.agents {
		var nonce [16]byte
		if _, err := rand.Read(nonce[:]); err != nil {
			return "", fmt.Errorf("draw nonce: %w", err)
		}
		var issuer *creto.Agent
		var key *nhi.PrivateKey
		switch from := a.from.(type) {
		case *demoHuman:
			issuer, key = from.Agent, from.key
			a.body = &registry.Link{
				Ledger: d.cluster.made.LedgerID, Tenant: p.tenant, Issuer: from.ID(), Subject: a.id, SubjectKey: a.key.Public().ID(), MaxDepth: 2,
				NotBefore: now.Add(-time.Minute).UnixMilli(), Expires: now.Add(24 * time.Hour).UnixMilli(), Redelegate: a.part == "coder",
				Purpose: registry.Purpose{Label: "demonstration"}, Nonce: nonce,
			}
		case *demoAgent:
			issuer, key = from.Agent, from.key
			a.body = registry.Child(from.body, from.link, a.id, a.key.Public().ID(), nonce)
			a.body.Redelegate = a.part == "reviewer"
		}
		if scopes := what[a.part]; scopes != nil {
			a.body.Scopes = scopes
		}
		if a.part == "tester" {
			a.body.Scopes[0].Resource = registry.AccountResource(a.account)
		}
		raw, sig, id, err := registry.SignLink(key, a.body)
		if err != nil {
			return "", err
		}
		a.link = id
		body := &registry.RegisterLinkBody{Body: raw, Signature: sig, Evidence: registry.Evidence{Kind: registry.CompositeKey}}
		if a.body.Depth == 0 {
			if body.Countersignature, err = registry.Countersign(p.authKey, id); err != nil {
				return "", err
			}
		}
		if _, err := demoDo(ctx, issuer, registry.KindRegisterLink, body); err != nil {
			return "", fmt.Errorf("register the link of the %s: %w", a.part, err)
		}
		if a.Agent, err = d.agentOf(a.key, a.id, a.link, a.account); err != nil {
			return "", err
		}
	}
	lines := []string{"delegation chains of one to three links, each narrower than the one above it:"}
	for _, a := range p.agents {
		lines = append(lines, fmt.Sprintf("%d  %s", a.links(), a.chain()))
	}
	return strings.Join(lines, "\n"), nil
}

// setQuotas limits the organisation, the tester and the payments.
func (d *demo) setQuotas(ctx context.Context) (string, error) {
	p := &d.people
	input, _ := tokensOf(d.rows)
	tester := p.agents[2]
	wants, _ := tokensOf(d.rowsOf(2))
	d.traffic.limit = wants * 6 / 10
	for _, q := range []meter.QuotaBody{
		{Account: p.org, Meter: meterInput, Period: meter.Total, Limit: 2 * input, Mode: meter.Block},
		{Account: tester.account, Meter: meterInput, Period: meter.Total, Limit: d.traffic.limit, Mode: meter.Block, Thresholds: []uint16{80, 100}},
		{Account: p.payments, Meter: meterCents, Period: meter.Total, Limit: 200_000, Mode: meter.Block},
	} {
		if _, err := demoDo(ctx, p.authority, meter.Set, q); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("blocking quotas on the organisation, on payments, and on the tester: %s input tokens, six tenths of what it will want",
		thousands(d.traffic.limit)), nil
}
