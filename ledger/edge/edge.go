package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Bounds. Sizes are bytes of encoded envelopes with their sealed addenda.
const (
	MaxDecisions      = 3         // times the edge decides about an event whose epochs keep changing
	MaxEnvelopes      = 256       // of one call
	maxQueueEvents    = 16 << 10  // waiting per tenant
	maxQueueBytes     = 8 << 20   // waiting per tenant
	maxNodeBytes      = 128 << 20 // waiting or under way on this node
	maxCommandBytes   = 256 << 10 // of events in one command
	maxCommandEvents  = ledger.MaxCommandEvents
	maxCommandsFlying = 16 // proposed and not yet answered
)

// State is what the edge reads of the ledger. Implementations are safe for concurrent use.
type State interface {
	// View returns a consistent view of a tenant (the zero id: the system log); release it after use.
	View(tenant nhi.ID) (v ledger.View, release func(), err error)
	// Kind returns how events of a kind travel.
	Kind(name string) (ledger.Kind, bool)
	// PublicKey returns the key to verify an envelope with; ledger.ErrUnknownKey if it is not registered here.
	PublicKey(v ledger.View, key nhi.KeyID) (*nhi.PublicKey, error)
	// Authorize says who stands behind an event, by the rules of Apply; see ledger.Log.
	Authorize(v ledger.View, ev *nhi.Event, key nhi.KeyID, at int64) (ledger.Authority, error)
}

// Proposer is the consensus node.
type Proposer interface {
	// Leading says whether this node leads a term in which it has applied a command of its own.
	Leading() bool
	// Propose starts a proposal; wait returns Apply's result for it. Errors that mean "nothing was proposed" match
	// ErrPushback; every other error may have committed.
	Propose(data []byte) (wait func(context.Context) (result any, err error))
}

// Authorizer asks the tenant's policy about one event. It is called only for kinds whose Cedar is set; its errors refuse the
// event.
type Authorizer interface {
	Authorize(v ledger.View, ev *nhi.Event, by ledger.Authority) (ledger.Verdict, error)
}

// Forwarder passes envelopes to the leader.
type Forwarder interface {
	Forward(ctx context.Context, tenant nhi.ID, subs []Submission) ([]Result, error)
}

// Config configures an Edge.
type Config struct {
	State      State
	Proposer   Proposer
	Authorizer Authorizer
	Forwarder  Forwarder
	KEK        ledger.KEK
	Random     io.Reader // keys and nonces of sealed addenda
	Workers    *nhi.VerifyPool
	Now        func() int64 // the node's clock, Unix nanoseconds: the proposed time of commands

	// RefusalRate and RefusalBurst bound the leaves that refusals of one key make in one tenant's log; optional:
	// DefaultRefusalRate per second and DefaultRefusalBurst at once.
	RefusalRate, RefusalBurst int

	// Signed receipts: the answering node's id and composite key.
	Node     nhi.ID
	NodeKey  nhi.Signer
	LedgerID func() nhi.Digest

	Logger *slog.Logger
}

// Submission is one envelope as a client sent it, with the addenda of its payloads.
type Submission struct {
	Envelope *nhi.Envelope
	Addenda  [][]nhi.Addendum // by payload; nil when there are none
}

// Result is what became of one event.
type Result struct {
	ledger.EventResult
	Receipt []byte // encoded verify.SignedReceipt; nil for events without a leaf
	// ReceiptSignature, if not nil, belongs into the receipt, whose own is empty (verify.JoinReceipt): one slice for all events
	// of a command.
	ReceiptSignature []byte
	Reason           string // why, in words, for an event that got no leaf
}

// Edge takes events in on one node.
type Edge struct {
	cfg      Config
	refusals *refusals
	bytes    atomic.Int64 // waiting or under way
	flying   chan struct{}

	mu     sync.Mutex
	queues map[nhi.ID]*queue
	ring   []nhi.ID      // tenants with waiting items, in the order of their turns
	wake   chan struct{} // capacity 1
	closed bool
}

// New returns an Edge; Run must be running for Submit to answer.
func New(cfg Config) *Edge {
	if cfg.RefusalRate <= 0 {
		cfg.RefusalRate = DefaultRefusalRate
	}
	if cfg.RefusalBurst <= 0 {
		cfg.RefusalBurst = DefaultRefusalBurst
	}
	return &Edge{
		cfg:      cfg,
		refusals: newRefusals(cfg.RefusalRate, cfg.RefusalBurst),
		flying:   make(chan struct{}, maxCommandsFlying),
		queues:   make(map[nhi.ID]*queue),
		wake:     make(chan struct{}, 1),
	}
}

// Load says how much waits or is under way on this node: bytes, and tenants whose queue is not empty.
func (e *Edge) Load() (bytes int64, tenants int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bytes.Load(), len(e.queues)
}

// Submit commits the envelopes and returns one result per event, in order. On a follower it asks the leader. An error is
// about every envelope of the call: see the errors of this package. If it is about some of them only, their events are
// Invalid where these bytes will not do, and otherwise Stale, with the reason: the same bytes may be sent again.
func (e *Edge) Submit(ctx context.Context, tenant nhi.ID, subs []Submission) ([]Result, error) {
	if err := bound(subs); err != nil {
		return nil, err
	}
	if !e.cfg.Proposer.Leading() {
		return e.cfg.Forwarder.Forward(ctx, tenant, subs)
	}
	return e.SubmitHere(ctx, tenant, subs)
}

// SubmitHere is Submit on a node that must lead: what a follower forwarded is not forwarded again.
func (e *Edge) SubmitHere(ctx context.Context, tenant nhi.ID, subs []Submission) ([]Result, error) {
	if err := bound(subs); err != nil {
		return nil, err
	}
	if !e.cfg.Proposer.Leading() {
		return nil, fmt.Errorf("submit: %w", ErrUnavailable)
	}
	out, errs := make([][]Result, len(subs)), make([]error, len(subs))
	var wg sync.WaitGroup
	for i := range subs {
		wg.Go(func() { out[i], errs[i] = e.one(ctx, tenant, &subs[i]) })
	}
	wg.Wait()
	return e.together(subs, out, errs)
}

// together makes one answer of those to the envelopes of a call. An error of one envelope must not take away what became of
// the others: they are committed, and their receipts are not given twice. So it is the call's only if no envelope has results.
func (e *Edge) together(subs []Submission, out [][]Result, errs []error) ([]Result, error) {
	var results []Result
	first, some := error(nil), false
	for i, err := range errs {
		if err == nil {
			some = true
		} else if first == nil {
			first = err
		}
		results = append(results, out[i]...)
		if err != nil {
			results = append(results, e.failed(&subs[i], err)...)
		}
	}
	if !some {
		return nil, first
	}
	return results, nil
}

// failed says of every event of an envelope what an error about the whole of it says: invalid if these bytes will not do,
// otherwise stale, for they may be sent again.
func (e *Edge) failed(sub *Submission, err error) []Result {
	r := Result{Reason: ErrUnavailable.Error()}
	r.State = ledger.Stale
	switch {
	case errors.Is(err, ErrUnauthenticated):
		r.State, r.Outcome, r.Reason = ledger.Invalid, verify.OutcomeInvalid, ErrUnauthenticated.Error()
	case errors.Is(err, ErrPushback):
		r.Reason = err.Error()
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	default:
		e.cfg.Logger.Error("envelope was not answered", "err", err)
	}
	results := make([]Result, len(sub.Envelope.Payloads))
	for i := range results {
		results[i] = r
	}
	return results
}

// bound holds a call against what can be said without looking at signatures.
func bound(subs []Submission) error {
	if len(subs) == 0 || len(subs) > MaxEnvelopes {
		return &InvalidError{-1, fmt.Errorf("%d envelopes are not between 1 and %d", len(subs), MaxEnvelopes)}
	}
	for i := range subs {
		if err := subs[i].Envelope.Check(); err != nil {
			return &InvalidError{-1, err}
		}
		if n := len(subs[i].Addenda); n != 0 && n != len(subs[i].Envelope.Payloads) {
			return &InvalidError{-1, fmt.Errorf("addenda of %d payloads, of which there are %d", n, len(subs[i].Envelope.Payloads))}
		}
	}
	return nil
}

// one takes one envelope through all steps, again while its verdicts are stale.
func (e *Edge) one(ctx context.Context, tenant nhi.ID, sub *Submission) ([]Result, error) {
	var checked *item
	taken := 0           // refusals that were counted already
	var results []Result // of the first round; later rounds fill in what was stale
	// Whoever has to come again anyway learns so before the node has verified anything for it.
	if e.full(tenant, len(sub.Envelope.Payloads)) {
		return nil, fmt.Errorf("submit: %w", ErrPushback)
	}
	for range MaxDecisions {
		var err error
		if derr := e.cfg.Workers.Do(ctx, 1, func(int) {
			checked, err = e.check(ctx, tenant, sub, checked)
		}); derr != nil {
			return nil, fmt.Errorf("submit: %w", derr)
		}
		if err != nil {
			return refused(sub, err)
		}
		if more := checked.refused - taken; more > 0 {
			if err := e.refusals.take(refuser{tenant, checked.key}, more, e.cfg.Now()); err != nil {
				return nil, fmt.Errorf("submit: %w", err)
			}
			taken += more
		}
		round, err := e.enqueue(ctx, checked)
		if err != nil {
			return nil, err
		}
		if results == nil {
			results = round
		}
		stale := false
		for i := range results {
			if results[i].State == ledger.Stale {
				results[i] = round[i]
			}
			stale = stale || results[i].State == ledger.Stale
		}
		if !stale {
			return results, nil
		}
	}
	return nil, fmt.Errorf("submit: authority kept changing while it was decided: %w", ErrUnavailable)
}

// refused turns what the check says into results where it is about single events of the envelope, and into an error where
// it is about the caller.
func refused(sub *Submission, err error) ([]Result, error) {
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		return nil, err
	}
	results := make([]Result, len(sub.Envelope.Payloads))
	for i := range results {
		results[i].State = ledger.Invalid
		results[i].Outcome = verify.OutcomeInvalid
		results[i].Reason = "not proposed: another event of the same envelope is invalid"
		if invalid.Event < 0 || invalid.Event == i {
			results[i].Reason = invalid.Error()
		}
	}
	return results, nil
}

// Workers returns the pool that verifies, which its owner runs.
func (e *Edge) Workers() *nhi.VerifyPool { return e.cfg.Workers }

// Waiting returns the number of events that wait for a command.
func (e *Edge) Waiting() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, q := range e.queues {
		n += q.events
	}
	return n
}
