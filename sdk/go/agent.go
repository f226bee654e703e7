package creto

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Quantity is an amount of one meter, at the meter's scale.
type Quantity = verify.Quantity

// AgentConfig says who acts, for whom, and where it is charged. Client, Signer, ID and Tenant are required.
type AgentConfig struct {
	Client  *Client
	Signer  nhi.Signer
	ID      nhi.ID     // who signs: an agent, or a human, service, authority or admin that acts for itself
	Link    nhi.LinkID // the chain it acts under; zero = for itself, which agents may not
	Account nhi.ID     // where events are charged unless they say otherwise; zero = none
	Tenant  nhi.ID     // zero = the system log, for admins
	// LedgerID is asked of the cluster by Connect if it is zero; set it to be sure that an event can be used on no other.
	LedgerID nhi.Digest
	// Receipts keeps what the cluster promises; nil = nothing is kept.
	Receipts *ReceiptStore
	// Observe, if it is set, is told of each event that was sent and what became of it, before the caller is.
	Observe func(payload []byte, r *Result)
	// Random draws ids and nonces; nil = crypto/rand. Now is the clock of client times, which decide nothing; nil = time.Now.
	Random io.Reader
	Now    func() time.Time
}

// Agent signs events of one identity and submits them. It is safe for concurrent use.
type Agent struct {
	c        AgentConfig
	instance [8]byte
	seq      atomic.Uint64
}

// Connect returns the agent of a configuration, asking the cluster for what it leaves out.
func Connect(ctx context.Context, c AgentConfig) (*Agent, error) {
	if c.Client == nil {
		return nil, errors.New("connect: no client")
	}
	if c.LedgerID == (nhi.Digest{}) {
		t, err := cretov1.NewIdentityServiceClient(c.Client).GetTenant(ctx, &cretov1.GetTenantRequest{Tenant: c.Tenant[:]})
		if err != nil {
			return nil, fmt.Errorf("connect: ask for the ledger's id: %w", err)
		}
		if len(t.GetLedgerId()) != len(c.LedgerID) {
			return nil, fmt.Errorf("connect: ledger id has %d bytes", len(t.GetLedgerId()))
		}
		c.LedgerID = nhi.Digest(t.GetLedgerId())
	}
	return NewAgent(c)
}

// NewAgent returns the agent of a configuration that is complete, without asking anybody. Client may be nil for an agent
// that only signs.
func NewAgent(c AgentConfig) (*Agent, error) {
	switch {
	case c.Signer == nil:
		return nil, errors.New("make agent: no signer")
	case c.ID.IsZero():
		return nil, errors.New("make agent: no id")
	case c.LedgerID == (nhi.Digest{}):
		return nil, errors.New("make agent: no ledger id")
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	a := &Agent{c: c}
	if _, err := io.ReadFull(c.Random, a.instance[:]); err != nil {
		return nil, fmt.Errorf("make agent: draw instance: %w", err)
	}
	return a, nil
}

// ID returns who signs.
func (a *Agent) ID() nhi.ID { return a.c.ID }

// Tenant returns whose log events go to.
func (a *Agent) Tenant() nhi.ID { return a.c.Tenant }

// LedgerID returns the ledger that events are for.
func (a *Agent) LedgerID() nhi.Digest { return a.c.LedgerID }

// EventOption changes an event before it is signed.
type EventOption func(*draft)

// draft is an event and what travels beside it.
type draft struct {
	event   nhi.Event
	addenda []nhi.Addendum
	wait    cretov1.Height
	random  io.Reader
	err     error
}

// WithID sets the idempotency key. A caller that may crash and try again keeps it: the same id with the same intent takes
// effect once. What an event says must then be the same too, so use WithNonce and a stored client time as well, or keep the
// signed envelope.
func WithID(id [16]byte) EventOption { return func(d *draft) { d.event.ID = id } }

// WithNonce sets the nonce.
func WithNonce(n [16]byte) EventOption { return func(d *draft) { d.event.Nonce = n } }

// WithAccount charges another account than the agent's.
func WithAccount(id nhi.ID) EventOption { return func(d *draft) { d.event.Account = id } }

// WithLink acts under another chain than the agent's.
func WithLink(id nhi.LinkID) EventOption { return func(d *draft) { d.event.Link = id } }

// WithClientTime sets the time that the client says it was.
func WithClientTime(t time.Time) EventOption {
	return func(d *draft) { d.event.ClientTime = t.UnixNano() }
}

// WithAddendum adds personal or bulky data, of which only a salted digest is signed, so that it can be erased. The salt is
// drawn here.
func WithAddendum(data []byte) EventOption {
	return func(d *draft) {
		ad := nhi.Addendum{Data: data}
		if _, err := io.ReadFull(d.random, ad.Salt[:]); err != nil {
			d.err = fmt.Errorf("draw salt: %w", err)
			return
		}
		d.addenda = append(d.addenda, ad)
		d.event.Addenda = append(d.event.Addenda, nhi.AddendumDigest(ad))
	}
}

// UntilPublished waits until the leaf is under a checkpoint that the node quorum has cosigned.
func UntilPublished() EventOption { return func(d *draft) { d.wait = cretov1.Height_HEIGHT_PUBLISHED } }

func (a *Agent) draft(kind string, body []byte, opts []EventOption) (*draft, error) {
	d := &draft{random: a.c.Random, event: nhi.Event{
		V: 1, LedgerID: a.c.LedgerID, Tenant: a.c.Tenant, Kind: kind, Agent: a.c.ID, Link: a.c.Link, Account: a.c.Account,
		ClientTime: a.c.Now().UnixNano(), Body: body,
	}}
	var drawn [32]byte
	if _, err := io.ReadFull(a.c.Random, drawn[:]); err != nil {
		return nil, fmt.Errorf("make %s event: draw id: %w", kind, err)
	}
	copy(d.event.ID[:], drawn[:16])
	copy(d.event.Nonce[:], drawn[16:])
	for _, o := range opts {
		o(d)
	}
	if d.err != nil {
		return nil, fmt.Errorf("make %s event: %w", kind, d.err)
	}
	d.event.Seq = nhi.Seq{Instance: a.instance, N: a.seq.Add(1)}
	return d, nil
}

// Signed is one envelope that can be sent, and sent again.
type Signed struct {
	Envelope *nhi.Envelope
	Addenda  [][]nhi.Addendum // by payload; nil when none has any
	Wait     cretov1.Height
	Kind     string // of the first payload
}

// Message returns the envelope as the API takes it.
func (s *Signed) Message() *cretov1.Envelope {
	m := &cretov1.Envelope{
		Payloads: s.Envelope.Payloads, KeyId: s.Envelope.KeyID[:], Signature: s.Envelope.Signature, Batch: s.Envelope.Batch,
	}
	for _, list := range s.Addenda {
		items := make([]*cretov1.Addendum, len(list))
		for i, ad := range list {
			items[i] = &cretov1.Addendum{Salt: ad.Salt[:], Data: ad.Data}
		}
		m.Addenda = append(m.Addenda, &cretov1.Addenda{Items: items})
	}
	return m
}

// Sign makes and signs one event.
func (a *Agent) Sign(kind string, body []byte, opts ...EventOption) (*Signed, error) {
	d, err := a.draft(kind, body, opts)
	if err != nil {
		return nil, err
	}
	payload, err := d.event.Encode()
	if err != nil {
		return nil, fmt.Errorf("make %s event: %w", kind, err)
	}
	env, err := nhi.SignEvent(a.c.Signer, payload)
	if err != nil {
		return nil, fmt.Errorf("sign %s event: %w", kind, err)
	}
	s := &Signed{Envelope: env, Wait: d.wait, Kind: kind}
	if len(d.addenda) > 0 {
		s.Addenda = [][]nhi.Addendum{d.addenda}
	}
	return s, nil
}

// Send submits what was signed and keeps the receipts. The results are in the order of the payloads; an event that did not
// take effect is no error here, see Result.Err.
func (a *Agent) Send(ctx context.Context, signed ...*Signed) ([]*Result, error) {
	if a.c.Client == nil {
		return nil, errors.New("send: no client")
	}
	r := &cretov1.SubmitRequest{Tenant: a.c.Tenant[:]}
	for _, s := range signed {
		r.Envelopes = append(r.Envelopes, s.Message())
		r.Wait = max(r.Wait, s.Wait)
	}
	out, err := a.c.Client.Submit(ctx, r)
	if err != nil {
		return out, err
	}
	if a.c.Observe != nil {
		next := out
		for _, s := range signed {
			for i, payload := range s.Envelope.Payloads {
				a.c.Observe(payload, next[i])
			}
			next = next[len(s.Envelope.Payloads):]
		}
	}
	if a.c.Receipts != nil {
		for _, res := range out {
			if len(res.Receipt) == 0 {
				continue
			}
			if err := a.c.Receipts.Append(res.Receipt); err != nil {
				return out, err
			}
		}
		if err := a.c.Receipts.Sync(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Do makes, signs and submits one event. The error is a *RefusedError if it did not take effect; the result is there with it.
func (a *Agent) Do(ctx context.Context, kind string, body []byte, opts ...EventOption) (*Result, error) {
	s, err := a.Sign(kind, body, opts...)
	if err != nil {
		return nil, err
	}
	out, err := a.Send(ctx, s)
	if err != nil {
		return nil, err
	}
	return out[0], refused(kind, out[0])
}

func refused(kind string, r *Result) error {
	err := r.Err()
	if e, ok := errors.AsType[*RefusedError](err); ok {
		e.Kind = kind
	}
	return err
}

// Usage reports what was used, charged to the agent's account (or WithAccount). It is refused, naming the level, if a
// quota that blocks has no room.
func (a *Agent) Usage(ctx context.Context, quantities ...Quantity) (*Result, error) {
	return a.UsageWith(ctx, kind.UsageBody{Quantities: quantities})
}

// UsageWith is Usage with dimensions, or with the lease that pays.
func (a *Agent) UsageWith(ctx context.Context, body kind.UsageBody, opts ...EventOption) (*Result, error) {
	b, err := body.Encode()
	if err != nil {
		return nil, fmt.Errorf("make usage event: %w", err)
	}
	return a.Do(ctx, kind.Usage, b, opts...)
}
