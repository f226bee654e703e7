package ledgertest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// Cluster is the name of every fixture's cluster.
const Cluster = "creto.test"

// Start is the first moment of every fixture's ledger: 2026-01-01 00:00:00 UTC.
var Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// ReadToken opens the log of every fixture's first tenant.
const ReadToken = "read-token-of-the-test-tenant"

// Fixture is a ledger under test. It is used from one goroutine.
type Fixture struct {
	T         testing.TB
	Config    ledger.Config
	Log       *ledger.Log
	LedgerID  nhi.Digest
	Genesis   *ledger.Genesis
	LogKey    ed25519.PrivateKey
	Admin     *Identity
	Node      *Identity
	NodeEd    ed25519.PrivateKey
	NodePQ    *nhi.MLDSA44PrivateKey
	Tenant    nhi.ID // the first tenant
	Slot      uint32 // its slot, 1
	Authority *Identity
	Entries   []ledger.Entry // everything that was applied, for replays
	Now       int64          // proposed time of the next command, ns
	Verdict   ledger.Verdict // for events that need one; epochs are filled in. Outcome is allow by default
	seq       uint64
	ids       uint64
}

// Identity is somebody with a key.
type Identity struct {
	ID   nhi.ID
	Type registry.Type
	Key  *nhi.PrivateKey
}

// Link is a registered delegation link.
type Link struct {
	ID   nhi.LinkID
	Body *registry.Link
}

// Seed returns 64 bytes that depend on name alone.
func Seed(name string) []byte {
	a, b := sha256.Sum256([]byte("seed 1 "+name)), sha256.Sum256([]byte("seed 2 "+name))
	return append(a[:], b[:]...)
}

// ID returns an id that depends on name alone.
func ID(name string) nhi.ID {
	d := sha256.Sum256([]byte("id " + name))
	return nhi.ID(d[:16])
}

// Random returns a reader of bytes that depend on name alone.
func Random(name string) io.Reader {
	return rand.NewChaCha8(sha256.Sum256([]byte("random " + name)))
}

// NewIdentity makes an identity with a key from a seed, which nothing knows yet.
func NewIdentity(tb testing.TB, name string, typ registry.Type) *Identity {
	tb.Helper()
	key, err := nhi.NewPrivateKey(Seed(name))
	if err != nil {
		tb.Fatalf("make key of %s: %v", name, err)
	}
	return &Identity{ID: ID(name), Type: typ, Key: key}
}

// Options change how New makes a fixture.
type Options struct {
	Kinds  []ledger.Kind
	Config func(*ledger.Config) // optional: changes the configuration before the log is opened
	Empty  bool                 // no genesis and no tenant
	Test   bool                 // genesis says test
}

// New makes a ledger in memory with the given kinds beside the ledger's own, applies genesis, creates a tenant and
// registers its authority. The log is closed when the test ends.
func New(tb testing.TB, kinds ...ledger.Kind) *Fixture {
	tb.Helper()
	return NewWith(tb, Options{Kinds: kinds})
}

// NewWith is New with options.
func NewWith(tb testing.TB, o Options) *Fixture {
	tb.Helper()
	cfg := ledger.Config{Dir: "state", FS: vfs.NewMem(), Kinds: o.Kinds}
	if o.Config != nil {
		o.Config(&cfg)
	}
	f := &Fixture{T: tb, Config: cfg, Now: Start.UnixNano(), Verdict: ledger.Verdict{Outcome: ledger.VerdictAllow}}
	f.Log = f.Open(cfg)
	if o.Empty {
		return f
	}
	f.Begin(o.Test)
	f.Tenant = ID("tenant")
	f.Authority = f.CreateTenant(f.Tenant, "authority", ReadToken)
	f.Slot = 1
	return f
}

// Open opens a log that is closed when the test ends.
func (f *Fixture) Open(cfg ledger.Config) *ledger.Log {
	f.T.Helper()
	l, err := ledger.Open(cfg)
	if err != nil {
		f.T.Fatalf("open log: %v", err)
	}
	f.T.Cleanup(func() {
		if err := l.Close(); err != nil {
			f.T.Errorf("close log: %v", err)
		}
	})
	return l
}

// Begin applies the genesis: one admin and one node, whose keys stand in the fixture.
func (f *Fixture) Begin(test bool) {
	f.T.Helper()
	f.Admin = NewIdentity(f.T, "admin", registry.Admin)
	f.Node = NewIdentity(f.T, "node", registry.Node)
	f.LogKey = ed25519.NewKeyFromSeed(Seed("log key")[:32])
	f.NodeEd = ed25519.NewKeyFromSeed(Seed("node ed")[:32])
	pq, err := nhi.NewMLDSA44(Seed("node pq")[:32])
	if err != nil {
		f.T.Fatalf("make cosigning key: %v", err)
	}
	f.NodePQ = pq
	vkey, err := verify.NewVKey(verify.SpineOrigin(Cluster), verify.KeyEd25519, f.LogKey.Public().(ed25519.PublicKey))
	if err != nil {
		f.T.Fatalf("name log key: %v", err)
	}
	f.Genesis = &ledger.Genesis{
		V: 1, Cluster: Cluster, Cell: 1, TrustDomain: "creto.test", Test: test, Threshold: 1, LogKey: vkey.String(), Created: f.Now,
		Admins: []ledger.GenesisAdmin{{ID: f.Admin.ID, Suite: f.Admin.Key.Public().Suite(), Public: f.Admin.Key.Public().Bytes()}},
		Nodes: []ledger.GenesisNode{{
			ID: f.Node.ID, Suite: f.Node.Key.Public().Suite(), Public: f.Node.Key.Public().Bytes(),
			Ed: f.NodeEd.Public().(ed25519.PublicKey), PQ: pq.Public(), Address: "127.0.0.1:7001",
		}},
	}
	raw, err := f.Genesis.Encode()
	if err != nil {
		f.T.Fatalf("encode genesis: %v", err)
	}
	f.LedgerID = ledger.LedgerID(raw)
	if r, ok := f.Apply(&ledger.Command{Type: ledger.CommandGenesis, Genesis: raw}).(ledger.GenesisResult); !ok || !r.Begun {
		f.T.Fatalf("genesis: got %+v", r)
	}
}

// CreateTenant creates a tenant by the admin and registers its authority, whose key comes from its name.
func (f *Fixture) CreateTenant(tenant nhi.ID, authority, token string) *Identity {
	f.T.Helper()
	a := f.CreateEmptyTenant(tenant, authority, token)
	f.RegisterAuthority(tenant, a)
	return a
}

// RegisterAuthority lets a tenant's authority register itself, before which its log is of no use.
func (f *Fixture) RegisterAuthority(tenant nhi.ID, a *Identity) {
	f.T.Helper()
	f.Accepted(f.Submit(f.register(tenant, a, a))...)
}

// CreateEmptyTenant is CreateTenant without the authority's registration: the tenant's log is empty.
func (f *Fixture) CreateEmptyTenant(tenant nhi.ID, authority, token string) *Identity {
	f.T.Helper()
	a := NewIdentity(f.T, authority, registry.Authority)
	pop, err := registry.NewPossession(a.Key, f.LedgerID, tenant, a.ID, registry.Authority)
	if err != nil {
		f.T.Fatalf("sign possession: %v", err)
	}
	pk := a.Key.Public()
	b := &ledger.TenantCreateBody{
		Tenant: tenant, Authority: a.ID, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop, Zone: "UTC",
		ReadToken: sha256.Sum256([]byte(token)),
	}
	f.Accepted(f.Submit(f.SystemEvent(f.Admin, ledger.KindTenantCreate, f.Encode(b)))...)
	return a
}

func (f *Fixture) register(tenant nhi.ID, by, who *Identity) Signed {
	f.T.Helper()
	b, err := registry.NewRegistration(who.Key, f.LedgerID, tenant, who.ID, who.Type)
	if err != nil {
		f.T.Fatalf("register %s: %v", who.Type, err)
	}
	s := f.Event(by, registry.KindRegister, f.Encode(b))
	s.Event.Tenant = tenant
	return s
}

// Register makes an identity with a key from its name and registers it in the first tenant.
func (f *Fixture) Register(name string, typ registry.Type) *Identity {
	f.T.Helper()
	who := NewIdentity(f.T, name, typ)
	f.Accepted(f.Submit(f.register(f.Tenant, f.Authority, who))...)
	return who
}

// RegisterIn is Register in another tenant, by its authority.
func (f *Fixture) RegisterIn(tenant nhi.ID, authority *Identity, name string, typ registry.Type) *Identity {
	f.T.Helper()
	who := NewIdentity(f.T, name, typ)
	f.Accepted(f.Submit(f.register(tenant, authority, who))...)
	return who
}

// Delegate registers a link from issuer to subject in the first tenant: a root link, which the authority countersigns, if
// parent is nil, otherwise one below parent. It covers everything for a year, unless change narrows it.
func (f *Fixture) Delegate(parent *Link, issuer, subject *Identity, change func(*registry.Link)) *Link {
	f.T.Helper()
	var l *registry.Link
	f.ids++
	nonce := [16]byte{}
	binary.BigEndian.PutUint64(nonce[:], f.ids)
	if parent == nil {
		l = &registry.Link{
			Ledger: f.LedgerID, Tenant: f.Tenant, Issuer: issuer.ID, Subject: subject.ID, SubjectKey: subject.Key.Public().ID(),
			MaxDepth: 7, NotBefore: Start.UnixMilli(), Expires: Start.AddDate(1, 0, 0).UnixMilli(), Redelegate: true,
			Scopes: []registry.Scope{{Actions: []string{"*"}, Resource: "*"}}, Purpose: registry.Purpose{Label: "test"}, Nonce: nonce,
		}
	} else {
		l = registry.Child(parent.Body, parent.ID, subject.ID, subject.Key.Public().ID(), nonce)
	}
	if change != nil {
		change(l)
	}
	body, sig, id, err := registry.SignLink(issuer.Key, l)
	if err != nil {
		f.T.Fatalf("sign link: %v", err)
	}
	b := &registry.RegisterLinkBody{Body: body, Signature: sig, Evidence: registry.Evidence{Kind: registry.CompositeKey, Bytes: []byte{}}}
	if parent == nil {
		if b.Countersignature, err = registry.Countersign(f.Authority.Key, id); err != nil {
			f.T.Fatalf("countersign link: %v", err)
		}
	}
	f.Accepted(f.Submit(f.Event(f.Authority, registry.KindRegisterLink, f.Encode(b)))...)
	return &Link{ID: id, Body: l}
}

// Encode returns the canonical body, whatever has an Encode method or canon can marshal.
func (f *Fixture) Encode(body any) []byte {
	f.T.Helper()
	var b []byte
	var err error
	switch x := body.(type) {
	case []byte:
		return x
	case interface{ Encode() ([]byte, error) }:
		b, err = x.Encode()
	default:
		b, err = canon.Marshal(body)
	}
	if err != nil {
		f.T.Fatalf("encode %T: %v", body, err)
	}
	return b
}

// Signed is an event with who signs it. The event may be changed until it is submitted.
type Signed struct {
	Event *nhi.Event
	By    *Identity
}

// Event makes an event of the first tenant: fresh id and nonce, the signer's next sequence number, no link, no account. body
// is encoded by Encode.
func (f *Fixture) Event(by *Identity, kind string, body any) Signed {
	f.T.Helper()
	f.seq++
	e := &nhi.Event{
		V: 1, LedgerID: f.LedgerID, Tenant: f.Tenant, Kind: kind, Agent: by.ID, Seq: nhi.Seq{Instance: [8]byte{1}, N: f.seq},
		ClientTime: f.Now, Body: f.Encode(body),
	}
	d := sha256.Sum256(fmt.Appendf(nil, "event %d", f.seq))
	e.ID, e.Nonce = [16]byte(d[:16]), [16]byte(d[16:])
	return Signed{e, by}
}

// Under is Event under a link.
func (f *Fixture) Under(link *Link, by *Identity, kind string, account nhi.ID, body any) Signed {
	f.T.Helper()
	s := f.Event(by, kind, body)
	s.Event.Link, s.Event.Account = link.ID, account
	return s
}

// SystemEvent is Event in the system log.
func (f *Fixture) SystemEvent(by *Identity, kind string, body any) Signed {
	f.T.Helper()
	s := f.Event(by, kind, body)
	s.Event.Tenant = nhi.ID{}
	return s
}

// Payload returns the event's bytes.
func (f *Fixture) Payload(s Signed) []byte {
	f.T.Helper()
	b, err := s.Event.Encode()
	if err != nil {
		f.T.Fatalf("encode event: %v", err)
	}
	return b
}

// Sign returns the encoded envelope of a lone event.
func (f *Fixture) Sign(s Signed) []byte {
	f.T.Helper()
	e, err := nhi.SignEvent(s.By.Key, f.Payload(s))
	if err != nil {
		f.T.Fatalf("sign event: %v", err)
	}
	b, err := e.Encode()
	if err != nil {
		f.T.Fatalf("encode envelope: %v", err)
	}
	return b
}

// SignBatch returns the encoded envelope of events under the signature of the first one's signer.
func (f *Fixture) SignBatch(events ...Signed) []byte {
	f.T.Helper()
	payloads := make([][]byte, len(events))
	for i, s := range events {
		payloads[i] = f.Payload(s)
	}
	e, err := nhi.SignBatch(events[0].By.Key, f.LedgerID, events[0].Event.Tenant, payloads)
	if err != nil {
		f.T.Fatalf("sign batch: %v", err)
	}
	b, err := e.Encode()
	if err != nil {
		f.T.Fatalf("encode envelope: %v", err)
	}
	return b
}

// Submit signs events of one tenant alone and applies them in one command, with the fixture's Verdict under the tenant's
// epochs.
func (f *Fixture) Submit(events ...Signed) []ledger.EventResult {
	f.T.Helper()
	envelopes := make([][]byte, len(events))
	for i, s := range events {
		envelopes[i] = f.Sign(s)
	}
	return f.SubmitSigned(events[0].Event.Tenant, len(events), envelopes...)
}

// SubmitBatch signs events of one signer as a batch and applies them in one command.
func (f *Fixture) SubmitBatch(events ...Signed) []ledger.EventResult {
	f.T.Helper()
	return f.SubmitSigned(events[0].Event.Tenant, len(events), f.SignBatch(events...))
}

// SubmitSigned applies envelopes with n events together in one command.
func (f *Fixture) SubmitSigned(tenant nhi.ID, n int, envelopes ...[]byte) []ledger.EventResult {
	f.T.Helper()
	return f.SubmitCommand(&ledger.Command{Tenant: tenant, Envelopes: envelopes, Verdicts: f.Verdicts(tenant, n)})
}

// SubmitCommand applies a command of events.
func (f *Fixture) SubmitCommand(c *ledger.Command) []ledger.EventResult {
	f.T.Helper()
	c.Type = ledger.CommandEvents
	r, ok := f.Apply(c).([]ledger.EventResult)
	if !ok {
		f.T.Fatalf("submit: no results")
	}
	return r
}

// Verdicts returns the fixture's Verdict n times, under the tenant's epochs.
func (f *Fixture) Verdicts(tenant nhi.ID, n int) []ledger.Verdict {
	f.T.Helper()
	v := f.Verdict
	if tenant.IsZero() {
		return nil
	}
	f.WithView(tenant, func(view ledger.View) { v.Epochs = view.Epochs() })
	out := make([]ledger.Verdict, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// Apply applies one command at the fixture's time, which it then moves by a millisecond, and returns its result.
func (f *Fixture) Apply(c *ledger.Command) any {
	f.T.Helper()
	r, err := f.TryApply(c)
	if err != nil {
		f.T.Fatalf("apply: %v", err)
	}
	return r
}

// TryApply is Apply that returns the error.
func (f *Fixture) TryApply(c *ledger.Command) (any, error) {
	f.T.Helper()
	if c.Time == 0 {
		c.Time = f.Now
		f.Now += int64(time.Millisecond)
	}
	data, err := c.Encode()
	if err != nil {
		f.T.Fatalf("encode command: %v", err)
	}
	return f.TryApplyRaw(data)
}

// TryApplyRaw applies the data of one Raft entry.
func (f *Fixture) TryApplyRaw(data []byte) (any, error) {
	f.T.Helper()
	e := ledger.Entry{Index: f.Log.AppliedIndex() + 1, Term: 1, Data: data}
	r, err := f.Log.Apply([]ledger.Entry{e})
	if err != nil {
		return nil, err
	}
	f.Entries = append(f.Entries, e)
	return r[0], nil
}

// Advance moves the fixture's time.
func (f *Fixture) Advance(d time.Duration) { f.Now += int64(d) }

// Tick applies ticks until nothing is due at the fixture's time, and returns how many timers expired.
func (f *Fixture) Tick() int {
	f.T.Helper()
	n := 0
	for {
		r, ok := f.Apply(&ledger.Command{Type: ledger.CommandTick}).(ledger.TickResult)
		if !ok {
			f.T.Fatalf("tick: no result")
		}
		n += r.Expired
		if !r.More {
			return n
		}
	}
}

// Seal applies a seal of the next epoch.
func (f *Fixture) Seal() ledger.SealResult {
	f.T.Helper()
	s := f.Read()
	epoch := s.Epoch() + 1
	f.close(s)
	r, ok := f.Apply(&ledger.Command{Type: ledger.CommandSeal, Epoch: epoch}).(ledger.SealResult)
	if !ok {
		f.T.Fatalf("seal: no result")
	}
	return r
}

// Read opens a snapshot, which the caller closes.
func (f *Fixture) Read() *ledger.Snapshot {
	f.T.Helper()
	s, err := f.Log.Read()
	if err != nil {
		f.T.Fatalf("read: %v", err)
	}
	return s
}

func (f *Fixture) close(s *ledger.Snapshot) {
	if err := s.Close(); err != nil {
		f.T.Fatalf("close snapshot: %v", err)
	}
}

// WithView calls fn with a view of a tenant as of now.
func (f *Fixture) WithView(tenant nhi.ID, fn func(v ledger.View)) {
	f.T.Helper()
	s := f.Read()
	defer f.close(s)
	t, err := s.Tenant(tenant)
	if err != nil {
		f.T.Fatalf("find tenant: %v", err)
	}
	v, err := s.View(t)
	if err != nil {
		f.T.Fatalf("view: %v", err)
	}
	fn(v)
}

// Stored returns a leaf of the first tenant with what is kept beside it.
func (f *Fixture) Stored(index uint64) *ledger.StoredEvent {
	f.T.Helper()
	s := f.Read()
	defer f.close(s)
	e, err := s.Event(f.Slot, index)
	if err != nil {
		f.T.Fatalf("read leaf %d: %v", index, err)
	}
	return e
}

// Accepted fails the test unless every event was sequenced and took effect. It returns the first result.
func (f *Fixture) Accepted(results ...ledger.EventResult) ledger.EventResult {
	f.T.Helper()
	return f.Want(verify.OutcomeAccepted, results...)
}

// Want fails the test unless every event was sequenced with an outcome. It returns the first result.
func (f *Fixture) Want(outcome verify.OutcomeCode, results ...ledger.EventResult) ledger.EventResult {
	f.T.Helper()
	for i, r := range results {
		if r.State != ledger.Sequenced || r.Outcome != outcome {
			f.T.Fatalf("event %d: got %s, %s (detail %x, error %v), want sequenced, %s", i, r.State, r.Outcome, r.Detail, r.Err, outcome)
		}
	}
	if len(results) == 0 {
		f.T.Fatalf("no results")
	}
	return results[0]
}
