package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger/verify"
	meterkind "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// cluster is a development cluster with clients.
type cluster struct {
	*Dev
	t testing.TB
}

func startDev(t *testing.T, cfg DevConfig) *cluster {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, err := StartDev(context.WithoutCancel(ctx), cfg)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &cluster{d, t}
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return true }

// dial connects to node i: with a token, or as the admin if token is empty and admin set, or as nobody.
func (c *cluster) dial(i int, token string, admin bool) *grpc.ClientConn {
	c.t.Helper()
	src, err := spiffe.OpenSource(time.Now, "dev.creto.internal", c.AdminSVID)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.dialAs(i, src, token, admin)
}

// dialAs connects to node i with the SVID of a source, if svid is set.
func (c *cluster) dialAs(i int, src *spiffe.Source, token string, svid bool) *grpc.ClientConn {
	c.t.Helper()
	tls := spiffe.AnonymousClientTLS(src, spiffe.AllowRoles("dev.creto.internal", spiffe.RoleNode))
	if svid {
		tls = spiffe.ClientTLS(src, spiffe.AllowRoles("dev.creto.internal", spiffe.RoleNode))
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(tls))}
	if token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(token)))
	}
	cc, err := grpc.NewClient("passthrough:///"+c.Servers()[i].GRPCAddr(), opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func (c *cluster) event(tenant, agent nhi.ID, kind string, body interface{ Encode() ([]byte, error) }) *nhi.Event {
	c.t.Helper()
	raw, err := body.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	e, err := newEvent(rand.Reader, c.LedgerID, tenant, kind, agent, time.Now().UnixNano(), raw)
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

func (c *cluster) sign(key nhi.Signer, e *nhi.Event) *cretov1.Envelope {
	c.t.Helper()
	payload, err := e.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	env, err := nhi.SignEvent(key, payload)
	if err != nil {
		c.t.Fatal(err)
	}
	return &cretov1.Envelope{Payloads: env.Payloads, KeyId: env.KeyID[:], Signature: env.Signature}
}

// submit sends one event over gRPC, again while there is no leader, and wants it accepted.
func (c *cluster) submit(cc *grpc.ClientConn, key nhi.Signer, e *nhi.Event) *cretov1.Result {
	c.t.Helper()
	req := &cretov1.SubmitRequest{Tenant: e.Tenant[:], Envelopes: []*cretov1.Envelope{c.sign(key, e)}}
	for {
		resp, err := cretov1.NewEventServiceClient(cc).Submit(c.t.Context(), req)
		if status.Code(err) == codes.Unavailable && c.t.Context().Err() == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			c.t.Fatalf("submit %s: %v", e.Kind, err)
		}
		r := resp.GetResults()[0]
		if r.GetState() != cretov1.Result_STATE_SEQUENCED && r.GetState() != cretov1.Result_STATE_DUPLICATE || r.GetOutcome() != "accepted" {
			c.t.Fatalf("submit %s: got %v, want accepted", e.Kind, r)
		}
		return r
	}
}

// register makes an identity of the tenant.
func (c *cluster) register(cc *grpc.ClientConn, typ registry.Type) (nhi.ID, *nhi.PrivateKey) {
	c.t.Helper()
	id, err := nhi.NewID(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := registry.NewRegistration(key, c.LedgerID, c.Tenant, id, typ)
	if err != nil {
		c.t.Fatal(err)
	}
	c.submit(cc, c.AuthorityKey, c.event(c.Tenant, c.Authority, registry.KindRegister, b))
	return id, key
}

func (c *cluster) usage(agent nhi.ID, n uint64) *nhi.Event {
	e := c.event(c.Tenant, agent, meterkind.Usage, meterkind.UsageBody{Quantities: []verify.Quantity{{Meter: "tokens", N: n}}})
	e.Account = c.Tenant
	return e
}

func TestDev(t *testing.T) {
	start := time.Now()
	c := startDev(t, DevConfig{})
	took := time.Since(start)
	t.Logf("ready after %v", took)
	if took > 3*time.Second && !raceEnabled {
		t.Errorf("ready after %v, want < 3s", took)
	}
	cc := c.dial(1, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	r := c.submit(cc, key, c.usage(service, 42))

	got, err := cretov1.NewEventServiceClient(cc).GetEvent(t.Context(), &cretov1.GetEventRequest{Tenant: c.Tenant[:], Index: r.GetIndex()})
	if err != nil {
		t.Fatalf("get event: %v", err)
	}
	if !bytes.Equal(got.GetEvent().GetLeafHash(), r.GetLeafHash()) || !got.GetRead().GetLinearizable() {
		t.Errorf("get event: got %v, want leaf hash %x, linearizable", got, r.GetLeafHash())
	}
	list, err := cretov1.NewEventServiceClient(cc).ListEvents(t.Context(), &cretov1.ListEventsRequest{
		Tenant: c.Tenant[:], Filter: &cretov1.EventFilter{Kind: meterkind.Usage}, WithPayload: true,
	})
	if err != nil || len(list.GetEvents()) != 1 || list.GetEvents()[0].GetIndex() != r.GetIndex() {
		t.Errorf("list: got %v, %v, want leaf %d", list.GetEvents(), err, r.GetIndex())
	}
	sum, err := cretov1.NewMeterServiceClient(cc).QueryUsage(t.Context(), &cretov1.QueryUsageRequest{
		Tenant: c.Tenant[:], FromTimeNs: time.Now().Add(-2 * time.Hour).UnixNano(), ToTimeNs: time.Now().Add(2 * time.Hour).UnixNano(),
	})
	if err != nil || len(sum.GetRows()) != 1 || sum.GetRows()[0].GetSum() != 42 {
		t.Errorf("usage: got %v, %v, want 42", sum, err)
	}

	trust := c.trust(cc)
	proof, err := cretov1.NewLedgerServiceClient(cc).GetProof(t.Context(), &cretov1.GetProofRequest{Tenant: c.Tenant[:], Index: r.GetIndex(), Wait: true})
	if err != nil {
		t.Fatalf("get proof: %v", err)
	}
	index := r.GetIndex()
	rep, err := verify.VerifyAny(bytes.NewReader(proof.GetFile()), trust, verify.Options{Expect: verify.Expect{Tenant: &c.Tenant, Index: &index}})
	if err != nil {
		t.Fatalf("verify proof: %v", err)
	}
	t.Logf("proved: %q", rep.Statement)

	var file bytes.Buffer
	export, err := cretov1.NewLedgerServiceClient(cc).Export(t.Context(), &cretov1.ExportRequest{Tenant: c.Tenant[:], WithPayloads: true})
	if err != nil {
		t.Fatal(err)
	}
	for {
		chunk, err := export.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("export: %v", err)
		}
		file.Write(chunk.GetData())
	}
	rep, err = verify.VerifyAny(&file, trust, verify.Options{})
	if err != nil {
		t.Fatalf("verify export: %v", err)
	}
	if got := rep.Period.Totals["tokens"]; got != "42" {
		t.Errorf("export: got %s tokens, want 42", got)
	}

	ready, err := c.Ready()
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]int{ready.SpineURL + "/checkpoint": 200, ready.TenantURL + "/checkpoint": 404, ready.Metrics[0] + "/metrics": 200, ready.Metrics[2] + "/readyz": 200} {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: got %d, want %d", url, resp.StatusCode, want)
		}
	}
}

func (c *cluster) trust(cc *grpc.ClientConn) *verify.Trust {
	c.t.Helper()
	resp, err := cretov1.NewLedgerServiceClient(cc).GetTrust(c.t.Context(), &cretov1.GetTrustRequest{})
	if err != nil {
		c.t.Fatalf("get trust: %v", err)
	}
	trust, err := verify.ParseTrust([]byte(resp.GetTrust()))
	if err != nil {
		c.t.Fatalf("parse trust: %v", err)
	}
	return trust
}

func quantities(meter string, n uint64) []verify.Quantity {
	return []verify.Quantity{{Meter: meter, N: n}}
}
