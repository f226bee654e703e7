package oversight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// tableFunds belongs to the test's meter: account ‖ meter → what is left.
const tableFunds ledger.Table = 0x3f

// funds is a Reserver that only subtracts. Leases are numbered by the index of the claim.
type funds struct{}

func (funds) Tables() []ledger.Table { return []ledger.Table{tableFunds} }

func (funds) ReserveAll(v ledger.View, _ ledger.Stamp, _ *registry.Chain, _ nhi.ID, want []Reservation) (leases []uint64, writes []ledger.Write, timers []ledger.Timer, refused *QuotaRefusal) {
	left := make(map[string]uint64)
	for i, w := range want {
		key := string(w.Account[:]) + w.Meter
		if _, seen := left[key]; !seen {
			if b, ok := v.Get(tableFunds, []byte(key)); ok {
				left[key] = binary.BigEndian.Uint64(b)
			} else {
				left[key] = 1000
			}
		}
		if left[key] < w.Amount {
			return nil, nil, nil, &QuotaRefusal{Outcome: verify.OutcomeQuotaExhausted, Detail: canon.MustMarshal(map[uint64]string{8: "level " + w.Meter})}
		}
		left[key] -= w.Amount
		leases = append(leases, v.NextIndex()+uint64(i)<<48)
		writes = append(writes, ledger.Write{Table: tableFunds, Key: []byte(key), Value: binary.BigEndian.AppendUint64(nil, left[key])})
	}
	return leases, writes, nil, nil
}

// world is a tenant with people and agents on a real ledger, and an edge that asks Cedar as the server's does.
type world struct {
	t  testing.TB
	f  *ledgertest.Fixture
	o  *Oversight
	id map[string]*ledgertest.Identity

	link   *ledgertest.Link // alice > bot
	worker *ledgertest.Link // alice > bot > worker
	engine *authz.Engine
	built  nhi.Digest
}

const (
	hardText = `@id("all") permit (principal, action, resource);
@id("never") forbid (principal, action == Action::"delete", resource);
`
	softText = `@id("pay") @oversight("payments") forbid (principal, action == Action::"pay", resource) when { context.amount > 100 };
@id("wire") @oversight("wires") forbid (principal, action == Action::"pay", resource) when { context has wire && context.wire };
`
)

var account = nhi.ID{0xac, 1}

func newWorld(t testing.TB) *world {
	t.Helper()
	o := New(Config{Reserver: funds{}})
	w := &world{t: t, o: o, f: ledgertest.New(t, o.Kinds()...), id: make(map[string]*ledgertest.Identity)}
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin"} {
		w.id[name] = w.f.Register(name, registry.Human)
	}
	for _, name := range []string{"bot", "worker", "other"} {
		w.id[name] = w.f.Register(name, registry.Agent)
	}
	w.id["authority"] = w.f.Authority
	w.link = w.f.Delegate(nil, w.id["alice"], w.id["bot"], func(l *registry.Link) { l.Redelegate, l.MaxDepth = true, 3 })
	w.worker = w.f.Delegate(w.link, w.id["bot"], w.id["worker"], nil)
	return w
}

func (w *world) ids(names ...string) []nhi.ID {
	out := make([]nhi.ID, len(names))
	for i, n := range names {
		out[i] = w.id[n].ID
	}
	return out
}

// chain is a one-step chain: how many must approve, within an hour, and one denial denies.
func (w *world) chain(name string, approve uint32, humans ...string) kind.Chain {
	return kind.Chain{Name: name, Steps: []kind.Step{{Eligible: w.ids(humans...), Approve: approve, Deny: 1, Timeout: int64(time.Hour)}}}
}

func (w *world) publishBody(hard, soft string, chains ...kind.Chain) *kind.PublishBody {
	w.t.Helper()
	raw, err := kind.EncodeChains(chains)
	if err != nil {
		w.t.Fatal(err)
	}
	return &kind.PublishBody{Hard: hard, Soft: soft, Chains: raw}
}

// publish publishes the standard texts with chains.
func (w *world) publish(chains ...kind.Chain) {
	w.t.Helper()
	w.publishTexts(hardText, softText, chains...)
}

// publishTexts goes around the edge's check, which would refuse texts that name a chain which chains does not define: whatever got
// into the log, Apply fails closed.
func (w *world) publishTexts(hard, soft string, chains ...kind.Chain) {
	w.t.Helper()
	w.want(w.f.Submit(w.f.Event(w.f.Authority, kind.Publish, w.publishBody(hard, soft, chains...)))[0], verify.OutcomeAccepted, "")
}

var errEdge = errors.New("refused at the edge")

// verdict asks Cedar as the edge does.
func (w *world) verdict(s ledgertest.Signed) (out ledger.Verdict, err error) {
	w.t.Helper()
	w.f.WithView(w.f.Tenant, func(v ledger.View) {
		for _, k := range w.o.Kinds() {
			if k.Name == s.Event.Kind {
				if err = k.Check(s.Event); err != nil {
					err = fmt.Errorf("%w: %w", errEdge, err)
					return
				}
			}
		}
		out.Outcome = ledger.VerdictAllow
		if !Judges(s.Event.Kind) || s.By.Type == registry.Authority {
			return
		}
		var chain *registry.Chain
		if !s.Event.Link.IsZero() {
			if chain, err = registry.ResolveChain(ledger.RegistryView(v), s.Event.Link, v.NextIndex()); err != nil {
				err = nil // Apply refuses it
				return
			}
		}
		req, satisfied, aerr := w.o.AuthzRequest(v, s.Event, chain)
		if aerr != nil {
			err = fmt.Errorf("%w: %w", errEdge, aerr)
			return
		}
		if digest, _ := PolicyVersion(v); w.engine == nil || w.built != digest {
			if w.engine, err = authz.Compile(CurrentPolicy(v).Bundle); err != nil {
				w.t.Fatal(err)
			}
			w.built = digest
		}
		d := w.engine.Decide(&req, satisfied, nil, authz.Epochs{})
		if d.Invalid != "" {
			w.t.Fatalf("the policy cannot judge: %s", d.Invalid)
		}
		out.Outcome = map[authz.Outcome]ledger.VerdictOutcome{
			authz.Deny: ledger.VerdictDeny, authz.Allow: ledger.VerdictAllow, authz.NeedsOversight: ledger.VerdictNeedsOversight,
		}[d.Outcome]
		out.Chains, out.Policies, out.Digest = d.Chains, d.Policies, d.Digest
	})
	return out, err
}

// try submits an event through the edge.
func (w *world) try(s ledgertest.Signed) (ledger.EventResult, error) {
	w.t.Helper()
	verdict, err := w.verdict(s)
	if err != nil {
		return ledger.EventResult{}, err
	}
	w.f.Verdict = verdict
	r := w.f.Submit(s)[0]
	w.f.Verdict = ledger.Verdict{Outcome: ledger.VerdictAllow}
	return r, nil
}

func (w *world) submit(s ledgertest.Signed) ledger.EventResult {
	w.t.Helper()
	r, err := w.try(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// want holds a result against an outcome and, for a refusal by oversight, its reason.
func (w *world) want(r ledger.EventResult, code verify.OutcomeCode, reason kind.Reason) ledger.EventResult {
	w.t.Helper()
	var refusal kind.Refusal
	if !r.Outcome.Accepted() && reason != "" {
		d, err := kind.DecodeRefusal(r.Detail)
		if err != nil {
			w.t.Fatalf("outcome %v with detail %x: %v", r.Outcome, r.Detail, err)
		}
		refusal = *d
	}
	if r.State != ledger.Sequenced || r.Outcome != code || refusal.Reason != reason {
		w.t.Fatalf("got %v, %v, reason %q (%s; error %v), want outcome %v, reason %q", r.State, r.Outcome, refusal.Reason, refusal.Hint, r.Err, code, reason)
	}
	return r
}

func detail[T any](t testing.TB, decode func([]byte) (*T, error), r ledger.EventResult) *T {
	t.Helper()
	d, err := decode(r.Detail)
	if err != nil {
		t.Fatalf("detail %x: %v", r.Detail, err)
	}
	return d
}

// action is a payment that policy "pay" wants approved.
func (w *world) action(amount int, extra ...string) kind.Action {
	w.t.Helper()
	params := map[string]any{"amount": amount}
	for _, e := range extra {
		params[e] = true
	}
	a, err := kind.NewAction(w.id["bot"].ID, "pay", "invoice:17", "run-1", params)
	if err != nil {
		w.t.Fatal(err)
	}
	return *a
}

func (w *world) requestBody(a kind.Action) *kind.RequestBody {
	return &kind.RequestBody{Action: a, Rendered: a.Digest()}
}

func (w *world) asBot(name string, body any) ledgertest.Signed {
	w.t.Helper()
	return w.f.Under(w.link, w.id["bot"], name, account, body)
}

// ask opens the standard request.
func (w *world) ask(change ...func(*kind.RequestBody)) *kind.Opened {
	w.t.Helper()
	b := w.requestBody(w.action(500))
	for _, c := range change {
		c(b)
	}
	return detail(w.t, kind.DecodeOpened, w.want(w.submit(w.asBot(kind.Request, b)), verify.OutcomeAccepted, ""))
}

func (w *world) get(id uint64) (a *Approval) {
	w.t.Helper()
	w.f.WithView(w.f.Tenant, func(v ledger.View) {
		var ok bool
		if a, ok = GetApproval(v, id); !ok {
			w.t.Fatalf("request %d is not there", id)
		}
	})
	return a
}

func (w *world) wantState(id uint64, s kind.State) *Approval {
	w.t.Helper()
	a := w.get(id)
	if a.State != s {
		w.t.Fatalf("got state %v, want %v", a.State, s)
	}
	return a
}

func (w *world) ballot(id uint64, c kind.Choice) *kind.VoteBody {
	w.t.Helper()
	a := w.get(id)
	return &kind.VoteBody{Request: id, Choice: c, ActionDigest: a.ActionDigest, RequestDigest: a.RequestDigest}
}

func (w *world) vote(id uint64, who string, c kind.Choice) ledger.EventResult {
	w.t.Helper()
	return w.submit(w.f.Event(w.id[who], kind.Vote, w.ballot(id, c)))
}

func (w *world) approve(id uint64, who ...string) {
	w.t.Helper()
	for _, n := range who {
		if v := detail(w.t, kind.DecodeVoted, w.want(w.vote(id, n, kind.Approve), verify.OutcomeAccepted, "")); !v.Counted {
			w.t.Fatalf("the approval of %s does not count", n)
		}
	}
}

func (w *world) claim(id uint64) ledger.EventResult {
	w.t.Helper()
	return w.submit(w.asBot(kind.Claim, &kind.ClaimBody{Request: id, ActionDigest: w.get(id).ActionDigest}))
}

func (w *world) mustClaim(id uint64) *kind.Claimed {
	w.t.Helper()
	return detail(w.t, kind.DecodeClaimed, w.want(w.claim(id), verify.OutcomeAccepted, ""))
}

func (w *world) status(who, what string) {
	w.t.Helper()
	w.f.Accepted(w.f.Submit(w.f.Event(w.f.Authority, what, &registry.StatusBody{ID: w.id[who].ID, Reason: "test"}))...)
}

// kinds returns the kinds of all leaves from an index on.
func (w *world) kinds(from uint64) []string {
	w.t.Helper()
	var out []string
	w.leaves(from, func(l *verify.Leaf) { out = append(out, l.Kind) })
	return out
}

func (w *world) leaves(from uint64, fn func(*verify.Leaf)) {
	w.t.Helper()
	s := w.f.Read()
	defer s.Close()
	var next uint64
	w.f.WithView(w.f.Tenant, func(v ledger.View) { next = v.NextIndex() })
	if err := s.Leaves(w.f.Slot, from, next, func(_ uint64, raw []byte) error {
		l, err := verify.DecodeLeaf(raw)
		if err == nil {
			fn(l)
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) count(name string) (n int) {
	w.t.Helper()
	for _, k := range w.kinds(0) {
		if k == name {
			n++
		}
	}
	return n
}
