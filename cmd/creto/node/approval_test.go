package node

import (
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"

	meterkind "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	oversightkind "github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// try submits one event and returns what became of it.
func (c *cluster) try(cc *grpc.ClientConn, key nhi.Signer, e *nhi.Event) *cretov1.Result {
	c.t.Helper()
	resp, err := cretov1.NewEventServiceClient(cc).Submit(c.t.Context(), &cretov1.SubmitRequest{Tenant: e.Tenant[:], Envelopes: []*cretov1.Envelope{c.sign(key, e)}})
	if err != nil {
		c.t.Fatalf("submit %s: %v", e.Kind, err)
	}
	return resp.GetResults()[0]
}

// delegate registers a root link from a human to an agent that covers everything.
func (c *cluster) delegate(cc *grpc.ClientConn, human nhi.ID, humanKey *nhi.PrivateKey, agent nhi.ID, agentKey *nhi.PrivateKey) nhi.LinkID {
	c.t.Helper()
	now := time.Now()
	l := &registry.Link{
		Ledger: c.LedgerID, Tenant: c.Tenant, Issuer: human, Subject: agent, SubjectKey: agentKey.Public().ID(), MaxDepth: 2,
		NotBefore: now.Add(-time.Minute).UnixMilli(), Expires: now.Add(time.Hour).UnixMilli(), Redelegate: true,
		Scopes: []registry.Scope{{Actions: []string{"*"}, Resource: "*"}}, Purpose: registry.Purpose{Label: "test"},
	}
	if _, err := rand.Read(l.Nonce[:]); err != nil {
		c.t.Fatal(err)
	}
	body, sig, id, err := registry.SignLink(humanKey, l)
	if err != nil {
		c.t.Fatal(err)
	}
	counter, err := registry.Countersign(c.AuthorityKey, id)
	if err != nil {
		c.t.Fatal(err)
	}
	c.submit(cc, humanKey, c.event(c.Tenant, human, registry.KindRegisterLink, &registry.RegisterLinkBody{
		Body: body, Signature: sig, Evidence: registry.Evidence{Kind: registry.CompositeKey, Bytes: []byte{}}, Countersignature: counter,
	}))
	return id
}

// One action through every room: policy, request, refused self-approval, vote, claim with quota reserved, second claim.
func TestApproval(t *testing.T) {
	c := startDev(t, DevConfig{})
	cc := c.dial(1, c.ReadToken, false)
	alice, aliceKey := c.register(cc, registry.Human)
	bob, bobKey := c.register(cc, registry.Human)
	agent, agentKey := c.register(cc, registry.Agent)
	link := c.delegate(cc, alice, aliceKey, agent, agentKey)
	under := func(kind string, body interface{ Encode() ([]byte, error) }) *nhi.Event {
		e := c.event(c.Tenant, agent, kind, body)
		e.Link, e.Account = link, c.Tenant
		return e
	}
	chains, err := oversightkind.EncodeChains([]oversightkind.Chain{{Name: "finance", Steps: []oversightkind.Step{
		{Eligible: []nhi.ID{alice, bob}, Approve: 1, Deny: 1, Timeout: int64(time.Hour)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c.submit(cc, c.AuthorityKey, c.event(c.Tenant, c.Authority, oversightkind.Publish, &oversightkind.PublishBody{
		Hard: `@id("all") permit (principal, action, resource);
@id("no-jokes") forbid (principal, action == Action::"usage", resource) when { context.quantities has jokes };`,
		Soft:   `@id("large") @oversight("finance") forbid (principal, action == Action::"pay", resource) when { context.amount > 100 };`,
		Chains: chains,
	}))
	c.submit(cc, c.AuthorityKey, c.event(c.Tenant, c.Authority, meterkind.Set, &meterkind.QuotaBody{
		Account: c.Tenant, Meter: "eur", Period: meterkind.Day, Limit: 500, Mode: meterkind.Block,
	}))
	joke := under(meterkind.Usage, meterkind.UsageBody{Quantities: quantities("jokes", 1)})
	if r := c.try(cc, agentKey, joke); r.GetOutcome() != "denied" {
		t.Errorf("forbidden usage: got %v, want denied", r)
	}
	c.submit(cc, agentKey, under(meterkind.Usage, meterkind.UsageBody{Quantities: quantities("tokens", 1)}))

	request := func(amount int) (*oversightkind.Action, *cretov1.Result) {
		a, err := oversightkind.NewAction(agent, "pay", "invoice:7", "", map[string]any{"amount": amount})
		if err != nil {
			t.Fatal(err)
		}
		return a, c.try(cc, agentKey, under(oversightkind.Request, &oversightkind.RequestBody{
			Action: *a, Rendered: a.Digest(), Reserve: []oversightkind.Reservation{{Meter: "eur", Amount: uint64(amount)}},
		}))
	}
	if _, r := request(50); r.GetOutcome() == "accepted" {
		t.Errorf("request for what needs no approval: got %v, want a refusal", r)
	}
	action, r := request(400)
	if r.GetOutcome() != "accepted" {
		t.Fatalf("request: got %v, want accepted", r)
	}
	opened, err := oversightkind.DecodeOpened(r.GetDetail())
	if err != nil {
		t.Fatal(err)
	}
	vote := &oversightkind.VoteBody{Request: opened.Request, Choice: oversightkind.Approve, ActionDigest: action.Digest(), RequestDigest: opened.RequestDigest}
	if r := c.try(cc, aliceKey, c.event(c.Tenant, alice, oversightkind.Vote, vote)); r.GetOutcome() == "accepted" {
		t.Errorf("self-approval: got %v, want a refusal", r)
	}
	claim := under(oversightkind.Claim, &oversightkind.ClaimBody{Request: opened.Request, ActionDigest: action.Digest()})
	if r := c.try(cc, agentKey, claim); r.GetOutcome() == "accepted" {
		t.Errorf("claim before the vote: got %v, want a refusal", r)
	}
	c.submit(cc, bobKey, c.event(c.Tenant, bob, oversightkind.Vote, vote))
	claim = under(oversightkind.Claim, &oversightkind.ClaimBody{Request: opened.Request, ActionDigest: action.Digest()})
	claimed, err := oversightkind.DecodeClaimed(c.submit(cc, agentKey, claim).GetDetail())
	if err != nil || len(claimed.Leases) != 1 {
		t.Fatalf("claim: got %+v, %v, want one lease", claimed, err)
	}
	claim = under(oversightkind.Claim, &oversightkind.ClaimBody{Request: opened.Request, ActionDigest: action.Digest()})
	if r := c.try(cc, agentKey, claim); r.GetOutcome() != "closed" {
		t.Errorf("second claim: got %v, want closed", r)
	}
	q, err := cretov1.NewMeterServiceClient(cc).GetQuota(t.Context(), &cretov1.GetQuotaRequest{Tenant: c.Tenant[:], Account: c.Tenant[:], Meter: "eur"})
	if err != nil || len(q.GetCounters()) != 1 || q.GetCounters()[0].GetOpen() != 400 {
		t.Errorf("quota: got %v, %v, want 400 open", q, err)
	}
	got, err := cretov1.NewOversightServiceClient(cc).GetApproval(t.Context(), &cretov1.GetApprovalRequest{Tenant: c.Tenant[:], RequestId: opened.Request})
	if err != nil || got.GetApproval().GetState() != "claimed" {
		t.Errorf("approval: got %v, %v, want claimed", got, err)
	}
	asOfWhen(t, "approval", got.GetRead(), true)
	asOfWhen(t, "quota", q.GetRead(), true)
	await, err := cretov1.NewOversightServiceClient(cc).AwaitApproval(t.Context(), &cretov1.AwaitApprovalRequest{Tenant: c.Tenant[:], RequestId: opened.Request})
	if err != nil {
		t.Errorf("await approval: %v", err)
	}
	asOfWhen(t, "awaited approval", await.GetRead(), true)
	lease, err := cretov1.NewMeterServiceClient(cc).GetLease(t.Context(), &cretov1.GetLeaseRequest{Tenant: c.Tenant[:], LeaseId: claimed.Leases[0]})
	if err != nil {
		t.Errorf("lease: %v", err)
	}
	asOfWhen(t, "lease", lease.GetRead(), true)

	// Without a report the outcome becomes unknown, by the clock of consensus.
	c.Clock.Advance(time.Hour)
	eventually(t, "approval unknown", func() bool {
		got, err := cretov1.NewOversightServiceClient(cc).GetApproval(t.Context(), &cretov1.GetApprovalRequest{Tenant: c.Tenant[:], RequestId: opened.Request})
		return err == nil && got.GetApproval().GetState() == "unknown"
	})

	// The tenant's tiles open to its token.
	ready, err := c.Ready()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "tenant checkpoint", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ready.TenantURL+"/checkpoint", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.ReadToken)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}
