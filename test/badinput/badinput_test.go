package badinput

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
	"github.com/creto-systems/creto/test/cluster"
	"github.com/creto-systems/creto/test/invariants"
)

// house is a cluster with a tenant, an agent that works and others that may not.
type house struct {
	*cluster.Cluster
	t             *testing.T
	tenant, other *cluster.Tenant
	account       nhi.ID
	agent         *creto.Agent
	party         *cluster.Party
	revoked       *creto.Agent
	expired       *creto.Agent
	stranger      *creto.Agent
	clients       []*creto.Client // one for each node
}

func newHouse(t *testing.T) *house {
	dir := t.TempDir()
	bin, err := cluster.Binary(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Options{Bin: bin, Dir: dir, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := &house{Cluster: c, t: t}
	h.tenant, h.other = must(c.CreateTenant(t.Context()))(t), must(c.CreateTenant(t.Context()))(t)
	h.account = must(h.tenant.Account(t.Context(), "tok", 1000))(t)
	for i := range c.Nodes {
		h.clients = append(h.clients, must(h.tenant.Dial(i))(t))
	}
	worker := func(change func(*registry.Link)) (*cluster.Party, *creto.Agent) {
		p := must(h.tenant.Worker(t.Context(), change))(t)
		return p, must(h.tenant.Act(p, h.account))(t)
	}
	h.party, h.agent = worker(nil)
	var gone *cluster.Party
	gone, h.revoked = worker(nil)
	must(h.tenant.Revoke(t.Context(), gone.ID))(t)
	soon := time.Now().Add(2 * time.Second)
	_, h.expired = worker(func(l *registry.Link) { l.Expires = soon.UnixMilli() })
	key := must(nhi.GenerateKey(rand.Reader))(t)
	h.stranger = must(h.tenant.Act(&cluster.Party{ID: h.party.ID, Key: key, Link: h.party.Link}, h.account))(t)
	err = cluster.Eventually(t.Context(), 10*time.Second, "a chain to expire", func(context.Context) error {
		if time.Now().Before(soon) {
			return errors.New("it holds")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// usage signs n tokens of usage by an agent.
func (h *house) usage(a *creto.Agent, n uint64, opts ...creto.EventOption) *cretov1.Envelope {
	return h.sign(a, kind.Usage, cluster.Usage("tok", n), opts...)
}

func (h *house) sign(a *creto.Agent, k string, body []byte, opts ...creto.EventOption) *cretov1.Envelope {
	h.t.Helper()
	return must(a.Sign(k, body, opts...))(h.t).Message()
}

// event signs an event after change, which the SDK would not make.
func (h *house) event(change func(*nhi.Event)) *cretov1.Envelope {
	h.t.Helper()
	s := must(h.agent.Sign(kind.Usage, cluster.Usage("tok", 1)))(h.t)
	e := must(nhi.DecodeEvent(s.Envelope.Payloads[0]))(h.t)
	change(e)
	return h.payload(must(e.Encode())(h.t))
}

// body signs an event with a body that no encoder would write.
func (h *house) body(b []byte) *cretov1.Envelope {
	h.t.Helper()
	was := cluster.Usage("tok", 1)
	s := must(h.agent.Sign(kind.Usage, was))(h.t)
	p := s.Envelope.Payloads[0]
	if bytes.Count(p, was) != 1 {
		h.t.Fatal("the body does not stand in the payload once")
	}
	return h.payload(bytes.Replace(p, was, b, 1))
}

// payload signs bytes as they are.
func (h *house) payload(p []byte) *cretov1.Envelope {
	h.t.Helper()
	sig := must(h.party.Key.Sign(nhi.CtxEvent, nhi.PAE(nhi.PayloadType, p)))(h.t)
	id := h.party.Key.Public().ID()
	return &cretov1.Envelope{Payloads: [][]byte{p}, KeyId: id[:], Signature: sig}
}

func (h *house) submit(client int, tenant nhi.ID, envelopes ...*cretov1.Envelope) (*cretov1.SubmitResponse, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	return cretov1.NewEventServiceClient(h.clients[client]).Submit(ctx, &cretov1.SubmitRequest{Tenant: tenant[:], Envelopes: envelopes})
}

// state is everything that a bad input must not change: the rolling hash of all commands, on every node.
func (h *house) state() []byte {
	h.t.Helper()
	must(struct{}{}, h.Settle(h.t.Context()))(h.t)
	return must(h.Status(h.t.Context(), 0))(h.t).GetStateHash()
}

// used is what the meter has counted.
func (h *house) used() uint64 {
	h.t.Helper()
	r := must(cretov1.NewMeterServiceClient(h.tenant.Client).GetQuota(h.t.Context(), &cretov1.GetQuotaRequest{Tenant: h.tenant.ID[:], Account: h.account[:], Meter: "tok"}))(h.t)
	var sum uint64
	for _, c := range r.GetCounters() {
		sum += c.GetCharged() + c.GetOpen() + c.GetExcess()
	}
	return sum
}

// size is the number of leaves of the tenant's log.
func (h *house) size() uint64 {
	h.t.Helper()
	r := must(cretov1.NewLedgerServiceClient(h.tenant.Client).GetHeads(h.t.Context(), &cretov1.GetHeadsRequest{Tenant: h.tenant.ID[:]}))(h.t)
	return r.GetTreeSize()
}

// reencoded is a payload with a map header that is one byte longer than it need be.
func reencoded(p []byte) []byte { return append([]byte{0xb8, p[0] & 0x1f}, p[1:]...) }

// withUnknownKey is a payload with one more key, in its canonical place at the end.
func withUnknownKey(p []byte) []byte {
	return append(append([]byte{p[0] + 1}, p[1:]...), 0x18, 0x63, 0x01)
}

// TestBadInput goes through leader and followers alike.
func TestBadInput(t *testing.T) {
	h := newHouse(t)
	first := h.usage(h.agent, 5)
	resp, err := h.submit(0, h.tenant.ID, first)
	if err != nil || resp.GetResults()[0].GetOutcome() != "accepted" {
		t.Fatalf("good input: got %v, %v, want accepted", resp, err)
	}
	ack := resp.GetResults()[0]
	before, used := h.state(), h.used()
	good := must(h.agent.Sign(kind.Usage, cluster.Usage("tok", 1)))(t)
	flip := func(e *cretov1.Envelope, at func(*cretov1.Envelope) []byte) *cretov1.Envelope {
		c := proto.Clone(e).(*cretov1.Envelope)
		at(c)[3] ^= 1
		return c
	}
	unsigned := proto.Clone(good.Message()).(*cretov1.Envelope)
	unsigned.Signature = nil
	half := proto.Clone(good.Message()).(*cretov1.Envelope)
	half.Signature = half.Signature[:nhiHalf]
	raw := good.Envelope.Payloads[0]
	usage := func(n uint64) []byte { // by hand: Encode refuses what is out of range
		b := []byte{0xa1, 0x01, 0xa1, 0x63, 't', 'o', 'k', 0x1b}
		for i := 7; i >= 0; i-- {
			b = append(b, byte(n>>(8*i)))
		}
		return b
	}

	// No trace: no leaf, no row, nothing.
	for _, c := range []struct {
		name string
		env  *cretov1.Envelope
		want codes.Code // OK: a result whose state says invalid
	}{
		{"unsigned", unsigned, codes.InvalidArgument},
		{"half a signature", half, codes.Unauthenticated},
		{"wrongly signed", flip(good.Message(), func(e *cretov1.Envelope) []byte { return e.Signature }), codes.Unauthenticated},
		{"another payload", func() *cretov1.Envelope { e := h.usage(h.agent, 1); e.Signature = good.Envelope.Signature; return e }(), codes.Unauthenticated},
		{"unknown key", h.usage(h.stranger, 1), codes.Unauthenticated},
		{"key id of another", flip(good.Message(), func(e *cretov1.Envelope) []byte { return e.KeyId }), codes.Unauthenticated},
		{"another tenant's event", h.event(func(e *nhi.Event) { e.Tenant = h.other.ID }), codes.OK},
		{"another ledger's event", h.event(func(e *nhi.Event) { e.LedgerID[0] ^= 1 }), codes.OK},
		{"signed for another agent", h.event(func(e *nhi.Event) { e.Agent[0] ^= 1 }), codes.OK},
		{"unknown kind", h.event(func(e *nhi.Event) { e.Kind = "usage.of.magic" }), codes.OK},
		{"kind of the system log", h.event(func(e *nhi.Event) { e.Kind = "admin.tenant.create" }), codes.OK},
		{"kind that only the ledger makes", h.event(func(e *nhi.Event) { e.Kind = "system.genesis" }), codes.OK},
		{"non-canonical", h.payload(reencoded(raw)), codes.OK},
		{"unknown field", h.payload(withUnknownKey(raw)), codes.OK},
		{"trailing byte", h.payload(append(bytes.Clone(raw), 0)), codes.OK},
		{"no event at all", h.payload([]byte("hello")), codes.OK},
		{"empty payload", h.payload(nil), codes.OK},
		{"unknown field in the body", h.body([]byte{0xa1, 0x18, 0x63, 0x01}), codes.OK},
		{"body of floats", h.body([]byte{0xa1, 0x01, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0}), codes.OK},
		{"quantity beyond 2^63", h.body(usage(math.MaxUint64)), codes.OK},
		{"no quantities", h.body([]byte{0xa1, 0x01, 0xa0}), codes.OK},
		{"oversized payload", h.payload(make([]byte, 65<<10)), codes.InvalidArgument},
		{"oversized signature", &cretov1.Envelope{Payloads: good.Envelope.Payloads, KeyId: good.Envelope.KeyID[:], Signature: make([]byte, 9<<10)}, codes.InvalidArgument},
		{"lone event as a batch", func() *cretov1.Envelope { e := good.Message(); e.Batch = true; return e }(), codes.Unauthenticated},
		{"a batch of one event twice", &cretov1.Envelope{Payloads: [][]byte{raw, raw}, KeyId: good.Envelope.KeyID[:], Signature: good.Envelope.Signature, Batch: true}, codes.Unauthenticated},
		{"addenda nobody signed", func() *cretov1.Envelope {
			e := good.Message()
			e.Addenda = []*cretov1.Addenda{{Items: []*cretov1.Addendum{{Salt: make([]byte, 16), Data: []byte("x")}}}}
			return e
		}(), codes.OK},
	} {
		for i := range h.clients {
			resp, err := h.submit(i, h.tenant.ID, proto.Clone(c.env).(*cretov1.Envelope))
			switch {
			case c.want == codes.OK && err == nil:
				for _, r := range resp.GetResults() {
					if r.GetState() != cretov1.Result_STATE_INVALID || r.GetReason() == "" {
						t.Errorf("%s at node %d: got %s, %q, want invalid and why", c.name, i, r.GetState(), r.GetReason())
					}
				}
			case status.Code(err) != c.want && !(c.want == codes.OK && status.Code(err) == codes.InvalidArgument):
				t.Errorf("%s at node %d: got %v, want %s", c.name, i, err, c.want)
			case err != nil && len(status.Convert(err).Details()) == 0:
				t.Errorf("%s at node %d: %v has no typed reason", c.name, i, err)
			}
		}
	}
	for i := range h.clients {
		if _, err := h.submit(i, h.other.ID, good.Message()); status.Code(err) != codes.NotFound {
			t.Errorf("foreign tenant at node %d: got %v, want not found", i, err)
		}
		if _, err := h.submit(i, nhi.ID{}, good.Message()); status.Code(err) != codes.NotFound {
			t.Errorf("system log at node %d: got %v, want not found", i, err)
		}
		many := make([]*cretov1.Envelope, 300)
		for k := range many {
			many[k] = good.Message()
		}
		if _, err := h.submit(i, h.tenant.ID, many...); status.Code(err) != codes.InvalidArgument {
			t.Errorf("300 envelopes at node %d: got %v, want invalid argument", i, err)
		}
	}
	if h.used() != used {
		t.Errorf("used: got %d, want %d", h.used(), used)
	}
	if after := h.state(); !bytes.Equal(after, before) {
		t.Errorf("state hash: got %x, want %x: something was written", after, before)
	}

	// A replay is answered with what was said the first time, by a command that writes nothing.
	size := h.size()
	for i := range h.clients {
		resp, err := h.submit(i, h.tenant.ID, proto.Clone(first).(*cretov1.Envelope))
		if err != nil || resp.GetResults()[0].GetState() != cretov1.Result_STATE_DUPLICATE || resp.GetResults()[0].GetIndex() != ack.GetIndex() {
			t.Errorf("replay at node %d: got %v, %v, want a duplicate of leaf %d", i, resp, err, ack.GetIndex())
		}
	}
	if h.size() != size || h.used() != used {
		t.Errorf("after replays: got %d leaves and %d used, want %d and %d", h.size(), h.used(), size, used)
	}

	// On the record, and without effect: who is known is refused by a leaf.
	leaves := uint64(0)
	for _, c := range []struct {
		name string
		env  *cretov1.Envelope
		want verify.OutcomeCode
	}{
		{"revoked key", h.usage(h.revoked, 1), verify.OutcomeRevoked},
		{"expired chain", h.usage(h.expired, 1), verify.OutcomeExpired},
		{"no chain", h.usage(h.agent, 1, creto.WithLink(nhi.LinkID{})), verify.OutcomeUnauthorized},
		{"unknown chain", h.usage(h.agent, 1, creto.WithLink(nhi.LinkID{1})), verify.OutcomeNotFound},
		{"unknown account", h.usage(h.agent, 1, creto.WithAccount(nhi.ID{1})), verify.OutcomeNotFound},
		{"beyond the quota", h.usage(h.agent, 1<<40), verify.OutcomeQuotaExhausted},
		{"lease of nobody", h.sign(h.agent, kind.Settle, must(kind.SettleBody{Lease: 1 << 40, Amount: 1, From: 0, To: 1}.Encode())(t)), verify.OutcomeNotFound},
	} {
		resp, err := h.submit(int(leaves)%3, h.tenant.ID, c.env)
		if err != nil {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
			continue
		}
		if r := resp.GetResults()[0]; r.GetState() != cretov1.Result_STATE_SEQUENCED || r.GetOutcomeCode() != uint32(c.want) {
			t.Errorf("%s: got %s, %s (%s), want a leaf that says %s", c.name, r.GetState(), r.GetOutcome(), r.GetReason(), c.want)
		}
		leaves++
	}
	conflict := h.event(func(e *nhi.Event) {
		e.ID = must(nhi.DecodeEvent(first.Payloads[0]))(t).ID
	})
	if resp, err := h.submit(1, h.tenant.ID, conflict); err != nil || resp.GetResults()[0].GetState() != cretov1.Result_STATE_CONFLICT {
		t.Errorf("same id, other intent: got %v, %v, want a conflict", resp, err)
	}
	if got := h.size(); got != size+leaves+1 {
		t.Errorf("leaves: got %d, want %d: one for each refusal, and one for the conflict", got, size+leaves+1)
	}
	if h.used() != used {
		t.Errorf("used after refusals: got %d, want %d", h.used(), used)
	}

	h.garbage()
	h.unknownProtobufFields()
	h.end(ack, first)
}

// nhiHalf is the length of the ML-DSA half of a composite signature.
const nhiHalf = 3309

// garbage goes to every port of every node: nothing answers with sense, and nothing happens.
func (h *house) garbage() {
	h.t.Helper()
	before := h.state()
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	for i, n := range h.Nodes {
		for name, addr := range map[string]string{"peer": n.Peer, "grpc": n.GRPC, "read": n.Read, "metrics": n.Metrics} {
			for what, send := range map[string][]byte{
				"noise": noise, "http": []byte("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "h2": append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), noise[:4096]...),
				"nothing": nil,
			} {
				if err := poke(addr, send, false); err != nil {
					h.t.Errorf("node %d, %s, %s: %v", i, name, what, err)
				}
			}
			if name == "peer" || name == "grpc" {
				if err := poke(addr, noise[:64<<10], true); err != nil {
					h.t.Errorf("node %d, %s, noise under TLS: %v", i, name, err)
				}
			}
		}
		for _, path := range []string{"/t/x/checkpoint", "/t/" + h.tenant.ID.String() + "/checkpoint", "/spine/tile/00/000", "/spine/tile/0/x000", "/spine/tile/99/000", "/spine/tile/0/000.p/0", "/spine/%2e%2e/", "//", "/spine/tile/0/" + string(bytes.Repeat([]byte("x999/"), 200))} {
			if b, err := cluster.Get(h.t.Context(), "http://"+n.Read+path, "wrong"); err == nil {
				h.t.Errorf("node %d: %s is answered with %d bytes", i, path, len(b))
			}
		}
	}
	if after := h.state(); !bytes.Equal(after, before) {
		h.t.Errorf("state hash after garbage: got %x, want %x", after, before)
	}
}

// poke sends bytes to a port and wants the connection to end by itself.
func poke(addr string, send []byte, over bool) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return err
	}
	rw := net.Conn(conn)
	if over {
		tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
		if err := tc.Handshake(); err != nil {
			return nil // refused is fine
		}
		rw = tc
	}
	_, _ = rw.Write(send)
	if len(send) == 0 {
		return nil // an idle connection may stay a while; it is bounded
	}
	_, err = io.Copy(io.Discard, io.LimitReader(rw, 1<<20))
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return fmt.Errorf("the connection is still open: %w", err)
	}
	return nil
}

// unknownProtobufFields are ignored, unlike those of signed objects: a later client may send them.
func (h *house) unknownProtobufFields() {
	h.t.Helper()
	e := h.usage(h.agent, 1)
	e.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 4000, protowire.VarintType), 7))
	resp, err := h.submit(2, h.tenant.ID, e)
	if err != nil || resp.GetResults()[0].GetOutcome() != "accepted" {
		h.t.Errorf("unknown protobuf field: got %v, %v, want accepted", resp, err)
	}
}

// end stops the nodes, which have all survived, and looks at their disks.
func (h *house) end(ack *cretov1.Result, first *cretov1.Envelope) {
	t := h.t
	t.Helper()
	for i := range h.Nodes {
		if !h.Running(i) {
			t.Errorf("node %d has stopped", i)
		}
	}
	must(struct{}{}, h.Settle(t.Context()))(t)
	must(struct{}{}, h.Stop())(t)
	ev := must(nhi.DecodeEvent(first.Payloads[0]))(t)
	p := invariants.Promised{Acks: []invariants.Ack{{
		Tenant: h.tenant.ID, Signer: ev.Agent, ID: ev.ID, Index: ack.GetIndex(), LeafHash: nhi.Digest(ack.GetLeafHash()),
	}}}
	var replicas []invariants.Replica
	for i, n := range h.Nodes {
		log := must(os.ReadFile(n.Log))(t)
		if at := bytes.Index(log, []byte("panic")); at >= 0 {
			t.Errorf("node %d panicked: %.800s", i, log[at:])
		}
		s := must(invariants.Open(fmt.Sprintf("node %d", i), n.Dir))(t)
		defer func() { must(struct{}{}, s.Close())(t) }()
		replicas = append(replicas, s.Replica)
	}
	if _, err := invariants.Check(replicas, p); err != nil {
		t.Error(err)
	}
}
