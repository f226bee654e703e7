package node

import (
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Bad envelopes are refused with typed answers, leave no leaf, and the cluster goes on.
func TestBadInput(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	cc := c.dial(0, c.ReadToken, false)
	client := cretov1.NewEventServiceClient(cc)
	service, key := c.register(cc, registry.Service)
	stranger, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	size := func() uint64 {
		h, err := cretov1.NewLedgerServiceClient(cc).GetHeads(t.Context(), &cretov1.GetHeadsRequest{Tenant: c.Tenant[:]})
		if err != nil {
			t.Fatal(err)
		}
		return h.GetTreeSize()
	}
	before := size()
	good := func() *cretov1.Envelope { return c.sign(key, c.usage(service, 1)) }
	flipped := good()
	flipped.Signature[7] ^= 1
	changed := good()
	changed.Payloads[0][len(changed.Payloads[0])-1] ^= 1
	unsigned := good()
	unsigned.Signature = nil
	foreign := c.usage(service, 1)
	foreign.LedgerID = nhi.Digest{1}
	elsewhere := c.usage(service, 1)
	elsewhere.Tenant = nhi.ID{9}
	unknownKind := c.usage(service, 1)
	unknownKind.Kind = "usage.of.magic"
	badBody := c.usage(service, 1)
	badBody.Body = []byte{0xa1, 0x18, 0x63, 0x01} // an unknown key
	other := c.usage(newID(t), 1)
	system := c.usage(service, 1)
	system.Kind = "admin.tenant.create"
	for _, x := range []struct {
		name string
		env  *cretov1.Envelope
		code codes.Code // OK: a result that is not accepted
	}{
		{"flipped signature", flipped, codes.Unauthenticated},
		{"changed payload", changed, codes.Unauthenticated},
		{"no signature", unsigned, codes.InvalidArgument},
		{"unknown key", c.sign(stranger, c.usage(service, 1)), codes.Unauthenticated},
		{"another's agent", c.sign(key, other), codes.OK},
		{"another ledger", c.sign(key, foreign), codes.OK},
		{"another tenant", c.sign(key, elsewhere), codes.OK},
		{"unknown kind", c.sign(key, unknownKind), codes.OK},
		{"unknown key in the body", c.sign(key, badBody), codes.OK},
		{"kind of the system log", c.sign(key, system), codes.OK},
		{"not an event", &cretov1.Envelope{Payloads: [][]byte{{0xff}}, KeyId: flipped.KeyId, Signature: good().Signature}, codes.OK},
		{"short key id", &cretov1.Envelope{Payloads: good().Payloads, KeyId: []byte{1}, Signature: good().Signature}, codes.InvalidArgument},
		{"batch of a lone signature", func() *cretov1.Envelope { e := good(); e.Batch = true; return e }(), codes.Unauthenticated},
	} {
		resp, err := client.Submit(t.Context(), &cretov1.SubmitRequest{Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{x.env}})
		if got := status.Code(err); got != x.code {
			t.Errorf("%s: got %v, want %v", x.name, err, x.code)
		} else if err == nil && (resp.GetResults()[0].GetState() != cretov1.Result_STATE_INVALID || resp.GetResults()[0].GetReason() == "") {
			t.Errorf("%s: got %v, want invalid and why", x.name, resp)
		}
	}
	for name, req := range map[string]*cretov1.SubmitRequest{
		"no envelopes": {Tenant: c.Tenant[:]},
		"no tenant":    {Envelopes: []*cretov1.Envelope{good()}},
		"short tenant": {Tenant: []byte{1}, Envelopes: []*cretov1.Envelope{good()}},
		"unknown wait": {Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{good()}, Wait: 77},
		"nil envelope": {Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{{}}},
		"too many":     {Tenant: c.Tenant[:], Envelopes: make([]*cretov1.Envelope, 300)},
		"wide addenda": {Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{func() *cretov1.Envelope { e := good(); e.Addenda = make([]*cretov1.Addenda, 3); return e }()}},
	} {
		for i := range req.Envelopes {
			if req.Envelopes[i] == nil {
				req.Envelopes[i] = &cretov1.Envelope{}
			}
			for k := range req.Envelopes[i].Addenda {
				req.Envelopes[i].Addenda[k] = &cretov1.Addenda{}
			}
		}
		if _, err := client.Submit(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, want invalid argument", name, err)
		}
	}
	if after := size(); after != before {
		t.Errorf("log grew from %d to %d leaves", before, after)
	}
	c.submit(cc, key, c.usage(service, 1))
}

func newID(t *testing.T) nhi.ID {
	id, err := nhi.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Garbage and old TLS on every port end the connection and nothing else.
func TestGarbageOnPorts(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	s := c.Servers()[0]
	for name, address := range map[string]string{"peer": s.addresses.Peer, "grpc": s.addresses.GRPC, "read": s.addresses.Read, "metrics": s.addresses.Metrics} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		garbage := make([]byte, 64<<10)
		_, _ = rand.Read(garbage)
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = conn.Write(garbage)
		if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
			t.Errorf("%s: the connection is still open after garbage", name)
		}
		_ = conn.Close()
	}
	for _, address := range []string{s.addresses.Peer, s.addresses.GRPC} {
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}}
		if conn, err := d.DialContext(t.Context(), "tcp", address); err == nil {
			_ = conn.Close()
			t.Errorf("%s: TLS 1.2 was accepted", address)
		}
	}
	cc := c.dial(0, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	c.submit(cc, key, c.usage(service, 1))
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
