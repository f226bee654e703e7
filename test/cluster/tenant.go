package cluster

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	creto "github.com/creto-systems/creto/sdk/go"
)

// Party is somebody with a key.
type Party struct {
	ID    nhi.ID
	Key   *nhi.PrivateKey
	Link  nhi.LinkID // for agents: the chain they act under
	Agent *creto.Agent
}

// Tenant is a tenant with its authority. Its methods are safe for concurrent use once CreateTenant has returned.
type Tenant struct {
	ID        nhi.ID
	Token     string
	Authority *Party
	Client    *creto.Client // to all nodes
	c         *Cluster
}

func newID() (nhi.ID, error) { return nhi.NewID(rand.Reader) }

func newParty() (*Party, error) {
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := newID()
	return &Party{ID: id, Key: key}, err
}

// CreateTenant makes a tenant and registers its authority.
func (c *Cluster) CreateTenant(ctx context.Context) (*Tenant, error) {
	t := &Tenant{c: c}
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return nil, err
	}
	t.Token = "creto-read-" + hex.EncodeToString(raw)
	var err error
	if t.ID, err = newID(); err != nil {
		return nil, err
	}
	if t.Client, err = c.dial(t.Token, false, c.Addrs()...); err != nil {
		return nil, err
	}
	if t.Authority, err = newParty(); err != nil {
		return nil, err
	}
	pk := t.Authority.Key.Public()
	pop, err := registry.NewPossession(t.Authority.Key, c.Init.LedgerID, t.ID, t.Authority.ID, registry.Authority)
	if err != nil {
		return nil, err
	}
	body := &ledger.TenantCreateBody{
		Tenant: t.ID, Authority: t.Authority.ID, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop, Zone: "UTC",
		ReadToken: sha256.Sum256([]byte(t.Token)),
	}
	if err := do(ctx, c.Admin.Agent, ledger.KindTenantCreate, body); err != nil {
		return nil, err
	}
	if t.Authority.Agent, err = t.Act(t.Authority, nhi.ID{}); err != nil {
		return nil, err
	}
	reg, err := registry.NewRegistration(t.Authority.Key, c.Init.LedgerID, t.ID, t.Authority.ID, registry.Authority)
	if err != nil {
		return nil, err
	}
	// A follower may hear of the new tenant a moment later than the leader has answered; until then it knows no such tenant.
	return t, Eventually(ctx, 10*time.Second, "the tenant", func(ctx context.Context) error {
		return do(ctx, t.Authority.Agent, registry.KindRegister, reg)
	})
}

// Act returns the agent with which a party acts in the tenant, charged to an account.
func (t *Tenant) Act(p *Party, account nhi.ID) (*creto.Agent, error) {
	return t.ActOn(t.Client, p, account)
}

// ActOn is Act through another client.
func (t *Tenant) ActOn(client *creto.Client, p *Party, account nhi.ID) (*creto.Agent, error) {
	return creto.NewAgent(creto.AgentConfig{
		Client: client, Signer: p.Key, ID: p.ID, Link: p.Link, Account: account, Tenant: t.ID, LedgerID: t.c.Init.LedgerID,
	})
}

// Dial returns a client of some nodes, or of all.
func (t *Tenant) Dial(nodes ...int) (*creto.Client, error) {
	var addrs []string
	for _, i := range nodes {
		addrs = append(addrs, t.c.Nodes[i].GRPC)
	}
	if len(nodes) == 0 {
		addrs = t.c.Addrs()
	}
	return t.c.dial(t.Token, false, addrs...)
}

// encoder is every body.
type encoder interface{ Encode() ([]byte, error) }

// do submits one event that must be accepted.
func do(ctx context.Context, a *creto.Agent, kind string, body encoder, opts ...creto.EventOption) error {
	raw, err := body.Encode()
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if _, err := a.Do(ctx, kind, raw, opts...); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// Do submits one event of the authority, which must be accepted.
func (t *Tenant) Do(ctx context.Context, kind string, body encoder) error {
	return do(ctx, t.Authority.Agent, kind, body)
}

// Register makes and registers an identity.
func (t *Tenant) Register(ctx context.Context, typ registry.Type) (*Party, error) {
	p, err := newParty()
	if err != nil {
		return nil, err
	}
	reg, err := registry.NewRegistration(p.Key, t.c.Init.LedgerID, t.ID, p.ID, typ)
	if err != nil {
		return nil, err
	}
	return p, t.Do(ctx, registry.KindRegister, reg)
}

// Delegate registers a root link from a human to an agent, which covers everything for a day unless change narrows it, and
// lets the agent act under it.
func (t *Tenant) Delegate(ctx context.Context, issuer, subject *Party, change func(*registry.Link)) error {
	now := time.Now()
	l := &registry.Link{
		Ledger: t.c.Init.LedgerID, Tenant: t.ID, Issuer: issuer.ID, Subject: subject.ID, SubjectKey: subject.Key.Public().ID(),
		MaxDepth: 3, NotBefore: now.Add(-time.Hour).UnixMilli(), Expires: now.Add(24 * time.Hour).UnixMilli(), Redelegate: true,
		Scopes: []registry.Scope{{Actions: []string{"*"}, Resource: "*"}}, Purpose: registry.Purpose{Label: "test"},
	}
	if _, err := rand.Read(l.Nonce[:]); err != nil {
		return err
	}
	if change != nil {
		change(l)
	}
	body, sig, id, err := registry.SignLink(issuer.Key, l)
	if err != nil {
		return err
	}
	b := &registry.RegisterLinkBody{Body: body, Signature: sig, Evidence: registry.Evidence{Kind: registry.CompositeKey, Bytes: []byte{}}}
	if b.Countersignature, err = registry.Countersign(t.Authority.Key, id); err != nil {
		return err
	}
	if err := t.Do(ctx, registry.KindRegisterLink, b); err != nil {
		return err
	}
	subject.Link = id
	return nil
}

// Account creates an account below the root, with a blocking quota if limit is not 0.
func (t *Tenant) Account(ctx context.Context, meter string, limit uint64) (nhi.ID, error) {
	id, err := newID()
	if err != nil {
		return id, err
	}
	if err := t.Do(ctx, kind.Account, kind.AccountBody{ID: id, Type: "team"}); err != nil || limit == 0 {
		return id, err
	}
	return id, t.Do(ctx, kind.Set, kind.QuotaBody{Account: id, Meter: meter, Period: kind.Total, Limit: limit, Mode: kind.Block})
}

// Worker registers a human and an agent under a chain from one to the other, and returns the agent.
func (t *Tenant) Worker(ctx context.Context, change func(*registry.Link)) (*Party, error) {
	human, err := t.Register(ctx, registry.Human)
	if err != nil {
		return nil, err
	}
	agent, err := t.Register(ctx, registry.Agent)
	if err != nil {
		return nil, err
	}
	return agent, t.Delegate(ctx, human, agent, change)
}

// Usage returns the body of one usage event.
func Usage(meter string, n uint64) []byte {
	b, err := kind.UsageBody{Quantities: []verify.Quantity{{Meter: meter, N: n}}}.Encode()
	if err != nil {
		panic(err) // the caller's constants are wrong
	}
	return b
}

// Revoke revokes an identity and returns the leaf that did.
func (t *Tenant) Revoke(ctx context.Context, id nhi.ID) (index uint64, err error) {
	b, err := (&registry.StatusBody{ID: id, Reason: "test"}).Encode()
	if err != nil {
		return 0, err
	}
	r, err := t.Authority.Agent.Do(ctx, registry.KindRevoke, b)
	if err != nil {
		return 0, err
	}
	return r.Index, nil
}
