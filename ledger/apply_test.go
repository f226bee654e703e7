package ledger_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

var account = ledgertest.ID("account")

// world is a fixture with a human, an agent and a link between them.
type world struct {
	*ledgertest.Fixture
	counter *counter
	human   *ledgertest.Identity
	agent   *ledgertest.Identity
	link    *ledgertest.Link
}

func newWorld(t testing.TB) *world {
	c := &counter{}
	w := &world{Fixture: ledgertest.New(t, usageKinds(c)...), counter: c}
	w.human = w.Register("human", registry.Human)
	w.agent = w.Register("agent", registry.Agent)
	w.link = w.Delegate(nil, w.human, w.agent, nil)
	return w
}

func (w *world) usage(n uint64) ledgertest.Signed {
	return w.Under(w.link, w.agent, "usage", account, countBody{N: n})
}

func (w *world) size() uint64 {
	var n uint64
	w.WithView(w.Tenant, func(v ledger.View) { n = v.NextIndex() })
	return n
}

func (w *world) count() uint64 {
	var n uint64
	w.WithView(w.Tenant, func(v ledger.View) { n = counted(v, account) })
	return n
}

func TestEventIsSequencedWithEverythingBesideIt(t *testing.T) {
	w := newWorld(t)
	s := w.usage(7)
	r := w.Accepted(w.Submit(s)...)
	e := w.Stored(r.Index)
	want := &verify.Leaf{
		V: 1, Cell: 1, Slot: 1, Index: r.Index, Time: r.Time, Quality: verify.Quality{Code: verify.QualityCarried}, Kind: "usage",
		Agent: w.agent.ID, Link: w.link.ID, Seq: s.Event.Seq, ID: s.Event.ID, Payload: nhi.PayloadDigest(w.Payload(s)),
		Signature: e.Leaf.Signature, Quantities: []verify.Quantity{{Meter: "tokens", N: 7}}, Epochs: e.Leaf.Epochs, Account: account,
		Assurance: verify.AssuranceSelf,
	}
	if d := cmp.Diff(want, e.Leaf); d != "" {
		t.Errorf("leaf (-want +got):\n%s", d)
	}
	if string(e.Payload) != string(w.Payload(s)) {
		t.Error("payload is not the signed bytes")
	}
	if e.Signature.Key != w.agent.Key.Public().ID() || e.Signature.Batch {
		t.Errorf("signature: got %+v", e.Signature)
	}
	if w.count() != 7 {
		t.Errorf("count: got %d, want 7", w.count())
	}
}

func TestSameRequestIsAnsweredOnce(t *testing.T) {
	w := newWorld(t)
	s := w.usage(1)
	// The same envelope twice in one command, then in a later one.
	raw := w.Sign(s)
	rs := w.SubmitSigned(w.Tenant, 2, raw, raw)
	if rs[0].State != ledger.Sequenced || rs[1].State != ledger.Duplicate {
		t.Fatalf("states: got %s, %s, want sequenced, duplicate", rs[0].State, rs[1].State)
	}
	again := w.SubmitSigned(w.Tenant, 1, raw)[0]
	want := rs[0]
	want.State = ledger.Duplicate
	if d := cmp.Diff(want, again); d != "" {
		t.Errorf("answer (-want +got):\n%s", d)
	}
	// A stale verdict does not keep a retry from its answer, and neither does a revoked key.
	w.Accepted(w.Submit(w.Event(w.Authority, registry.KindRevoke, &registry.StatusBody{ID: w.agent.ID, Reason: "test"}))...)
	if r := w.SubmitCommand(&ledger.Command{Tenant: w.Tenant, Envelopes: [][]byte{raw}})[0]; r.State != ledger.Duplicate {
		t.Errorf("after revocation: got %s, want duplicate", r.State)
	}
	if w.count() != 1 {
		t.Errorf("count: got %d, want 1", w.count())
	}
}

func TestSameIDWithAnotherIntentIsAConflict(t *testing.T) {
	w := newWorld(t)
	s := w.usage(1)
	first := w.Accepted(w.Submit(s)...)
	size := w.size()
	other := *s.Event
	other.Nonce = [16]byte{9}
	for i := range 3 {
		r := w.Submit(ledgertest.Signed{Event: &other, By: s.By})[0]
		if r.State != ledger.Conflict || r.Index != first.Index || r.First != nhi.PayloadDigest(w.Payload(s)) {
			t.Fatalf("conflict %d: got %+v", i, r)
		}
	}
	if got := w.size(); got != size+1 {
		t.Fatalf("leaves of conflicts: got %d, want 1", got-size)
	}
	e := w.Stored(size)
	var body ledger.ConflictBody
	if err := canon.Unmarshal(e.Payload, &body); err != nil {
		t.Fatal(err)
	}
	otherDigest := nhi.PayloadDigest(w.Payload(ledgertest.Signed{Event: &other, By: s.By}))
	if e.Leaf.Kind != ledger.KindConflict || e.Leaf.Cause.Index != first.Index || body.Second != otherDigest {
		t.Errorf("leaf of the conflict: got %+v, body %+v", e.Leaf, body)
	}
	if w.count() != 1 {
		t.Errorf("count: got %d, want 1", w.count())
	}
}

func TestVerdictOfOtherEpochsIsStale(t *testing.T) {
	w := newWorld(t)
	s := w.usage(1)
	raw := w.Sign(s)
	old := w.Verdicts(w.Tenant, 1)
	w.Register("somebody", registry.Human) // raises the entities epoch
	before := w.size()
	for name, verdicts := range map[string][]ledger.Verdict{"older epochs": old, "not asked": nil, "zero": make([]ledger.Verdict, 1)} {
		r := w.SubmitCommand(&ledger.Command{Tenant: w.Tenant, Envelopes: [][]byte{raw}, Verdicts: verdicts})[0]
		if r.State != ledger.Stale {
			t.Errorf("%s: got %s, want stale", name, r.State)
		}
	}
	if w.size() != before || w.count() != 0 {
		t.Errorf("stale events left a trace: size %d, want %d, count %d", w.size(), before, w.count())
	}
	w.Accepted(w.SubmitSigned(w.Tenant, 1, raw)...)
}

func TestEpochsThatAnEarlierEventOfTheCommandRaises(t *testing.T) {
	w := newWorld(t)
	revoke := w.Event(w.Authority, registry.KindRevoke, &registry.StatusBody{ID: w.agent.ID, Reason: "test"})
	rs := w.Submit(w.usage(1), revoke, w.usage(2))
	w.Accepted(rs[:2]...)
	w.Want(verify.OutcomeRevoked, rs[2])
	if w.count() != 1 {
		t.Errorf("count: got %d, want 1", w.count())
	}
}

func TestPolicyRefusals(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		verdict ledger.VerdictOutcome
		want    verify.OutcomeCode
	}{{ledger.VerdictDeny, verify.OutcomeDenied}, {ledger.VerdictNeedsOversight, verify.OutcomeNeedsApproval}} {
		w.Verdict = ledger.Verdict{Outcome: c.verdict, Digest: nhi.Digest{1}, Chains: []string{"finance"}, Policies: []string{"p1", "p2"}}
		r := w.Want(c.want, w.Submit(w.usage(5))...)
		e := w.Stored(r.Index)
		if e.Leaf.Decision != w.Verdict.Digest || len(e.Leaf.Quantities) != 0 || e.Leaf.Outcome.Detail != ledger.DetailDigest(e.Detail) {
			t.Errorf("refusal leaf: got %+v", e.Leaf)
		}
		var d ledger.PolicyRefusal
		if err := canon.Unmarshal(r.Detail, &d); err != nil || len(d.Policies) != 2 {
			t.Errorf("detail: got %+v, %v", d, err)
		}
	}
	if w.count() != 0 {
		t.Errorf("count: got %d, want 0", w.count())
	}
}

func TestAskAndFactWhenAuthorityIsGone(t *testing.T) {
	w := newWorld(t)
	w.Accepted(w.Submit(w.Event(w.Authority, registry.KindSuspend, &registry.StatusBody{ID: w.agent.ID, Reason: "test"}))...)
	w.Want(verify.OutcomeFrozen, w.Submit(w.usage(1))...)
	settle := func(lease uint64) ledgertest.Signed {
		return w.Under(w.link, w.agent, "settle", account, countBody{N: 3, Lease: lease})
	}
	w.Want(verify.OutcomeFrozen, w.Submit(settle(0))...)
	r := w.Want(verify.OutcomeAcceptedFlagged, w.Submit(settle(1))...)
	var d ledger.FlaggedDetail
	if err := canon.Unmarshal(r.Detail, &d); err != nil || d.Outcome != verify.OutcomeFrozen {
		t.Errorf("detail: got %+v, %v", d, err)
	}
	if w.count() != 3 {
		t.Errorf("count: got %d, want 3", w.count())
	}
	// A fact that cites needs no verdict: what happened has happened.
	w.Accepted(w.Submit(w.Event(w.Authority, registry.KindResume, &registry.StatusBody{ID: w.agent.ID, Reason: "test"}))...)
	w.Accepted(w.SubmitCommand(&ledger.Command{Tenant: w.Tenant, Envelopes: [][]byte{w.Sign(settle(1))}})...)
}

func TestChainIsHeldAgainstTheStamp(t *testing.T) {
	w := newWorld(t)
	short := w.Delegate(nil, w.human, w.agent, func(l *registry.Link) {
		l.NotBefore, l.Expires = ledgertest.Start.Add(time.Hour).UnixMilli(), ledgertest.Start.Add(2*time.Hour).UnixMilli()
		l.Scopes[0].Actions = []string{"usage"}
	})
	s := func() ledgertest.Signed { return w.Under(short, w.agent, "usage", account, countBody{N: 1}) }
	w.Want(verify.OutcomeNotYetValid, w.Submit(s())...)
	w.Now = ledgertest.Start.Add(time.Hour).UnixNano()
	w.Accepted(w.Submit(s())...)
	w.Want(verify.OutcomeUnauthorized, w.Submit(w.Under(short, w.agent, "plain", account, countBody{N: 1}))...)
	w.Want(verify.OutcomeUnauthorized, w.Submit(w.Event(w.agent, "plain", countBody{N: 1}))...) // an agent names a chain
	w.Want(verify.OutcomeUnauthorized, w.Submit(w.Under(short, w.human, "plain", account, countBody{N: 1}))...)
	w.Now = ledgertest.Start.Add(2 * time.Hour).UnixNano()
	w.Want(verify.OutcomeExpired, w.Submit(s())...)
}

func TestInvalidEventsLeaveNoTrace(t *testing.T) {
	w := newWorld(t)
	stranger := ledgertest.NewIdentity(t, "stranger", registry.Agent)
	other := w.CreateTenant(ledgertest.ID("other tenant"), "other authority", "other token")
	rows, err := w.Log.Rows()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(fn func(e *nhi.Event)) ledgertest.Signed {
		s := w.usage(1)
		fn(s.Event)
		return s
	}
	badSig := w.Event(w.Authority, registry.KindSuspend, &registry.StatusBody{ID: w.agent.ID, Reason: "test"})
	env, err := nhi.DecodeEnvelope(w.Sign(badSig))
	if err != nil {
		t.Fatal(err)
	}
	env.Signature[5] ^= 1
	badSigRaw, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		raw    []byte
		tenant nhi.ID
		want   error
	}{
		{"garbage", []byte{1, 2, 3}, w.Tenant, nil},
		{"unknown key", w.Sign(w.Event(stranger, "plain", countBody{})), w.Tenant, ledger.ErrUnknownKey},
		{"key of another tenant", w.Sign(w.Event(other, "plain", countBody{})), w.Tenant, ledger.ErrUnknownKey},
		{"other agent's name", w.Sign(edit(func(e *nhi.Event) { e.Agent = w.human.ID })), w.Tenant, ledger.ErrWrongSigner},
		{"foreign ledger", w.Sign(edit(func(e *nhi.Event) { e.LedgerID[0] ^= 1 })), w.Tenant, ledger.ErrWrongLog},
		{"foreign tenant", w.Sign(edit(func(e *nhi.Event) { e.Tenant = ledgertest.ID("other tenant") })), w.Tenant, ledger.ErrWrongLog},
		{"command for another tenant", w.Sign(w.usage(1)), ledgertest.ID("other tenant"), ledger.ErrWrongLog},
		{"tenant that does not exist", w.Sign(w.usage(1)), ledgertest.ID("nowhere"), ledger.ErrWrongLog},
		{"unknown kind", w.Sign(edit(func(e *nhi.Event) { e.Kind = "nothing" })), w.Tenant, ledger.ErrUnknownKind},
		{"system kind", w.Sign(edit(func(e *nhi.Event) { e.Kind = ledger.KindTenantCreate })), w.Tenant, ledger.ErrWrongLog},
		{"bad signature of a rare kind", badSigRaw, w.Tenant, ledger.ErrBadSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := w.SubmitCommand(&ledger.Command{Tenant: c.tenant, Envelopes: [][]byte{c.raw}, Verdicts: w.Verdicts(w.Tenant, 1)})
			if rs[0].State != ledger.Invalid || rs[0].Err == nil || c.want != nil && !errors.Is(rs[0].Err, c.want) {
				t.Errorf("got %s (%v), want invalid (%v)", rs[0].State, rs[0].Err, c.want)
			}
		})
	}
	after, err := w.Log.Rows()
	if err != nil {
		t.Fatal(err)
	}
	// Only where the log stands has changed: applied index and state hash.
	for k := range rows {
		if k[0] == 1 {
			delete(rows, k)
			delete(after, k)
		}
	}
	if !maps.Equal(rows, after) {
		t.Error("an invalid event changed the state")
	}
}

func TestWhatARefusalReturnsIsNotApplied(t *testing.T) {
	w := newWorld(t)
	w.counter.decide = func(v ledger.View, ev *ledger.Event, at ledger.Stamp) (ledger.Decision, bool) {
		return ledger.Decision{
			Outcome: verify.OutcomeQuotaExhausted, Detail: canon.MustMarshal(map[uint64]uint64{1: 2}),
			Writes: []ledger.Write{{Table: tableCounter, Key: account[:], Value: []byte{1}}},
			Timers: []ledger.Timer{{Due: at.Time + 1, Name: "counter.x"}},
			Leaves: []ledger.SystemLeaf{{Kind: "system.x", Body: []byte{0xa0}}}, Bump: ledger.BumpPolicy,
			Quantities: []verify.Quantity{{Meter: "tokens", N: 1}},
		}, true
	}
	before := w.size()
	r := w.Want(verify.OutcomeQuotaExhausted, w.Submit(w.usage(1))...)
	if w.size() != before+1 {
		t.Errorf("leaves: got %d, want 1", w.size()-before)
	}
	if e := w.Stored(r.Index); len(e.Leaf.Quantities) != 0 || len(e.Detail) == 0 {
		t.Errorf("refusal: got %+v", e)
	}
	w.WithView(w.Tenant, func(v ledger.View) {
		if _, ok := v.Get(tableCounter, account[:]); ok {
			t.Error("a refusal's write was applied")
		}
		if v.Epochs().Policy != 0 {
			t.Error("a refusal raised an epoch")
		}
	})
	if n, err := w.Log.CountRows(ledger.TableTimers); err != nil || n != 0 {
		t.Errorf("timers: got %d, %v, want none", n, err)
	}
}

func TestHandlerThatExceedsWhatItDeclaredStopsTheNode(t *testing.T) {
	for _, c := range []struct {
		name string
		d    func(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision
		want string
	}{
		{"write to a table it did not declare", func(ledger.View, *ledger.Event, ledger.Stamp) ledger.Decision {
			return ledger.Decision{Writes: []ledger.Write{{Table: 0x31, Key: []byte{1}, Value: []byte{1}}}}
		}, "writes table 0x31"},
		{"write to the ledger's table", func(ledger.View, *ledger.Event, ledger.Stamp) ledger.Decision {
			return ledger.Decision{Writes: []ledger.Write{{Table: ledger.TableLeaves, Key: []byte{1}, Value: []byte{1}}}}
		}, "writes table 0x3"},
		{"read of the ledger's table", func(v ledger.View, _ *ledger.Event, _ ledger.Stamp) ledger.Decision {
			v.Get(ledger.TableLeaves, []byte{1})
			return ledger.Decision{}
		}, "may not be read"},
		{"scan of the ledger's table", func(v ledger.View, _ *ledger.Event, _ ledger.Stamp) ledger.Decision {
			v.Scan(ledger.TablePayloads, nil, nil, false, func(_, _ []byte) bool { return false })
			return ledger.Decision{}
		}, "may not be read"},
		{"timer of nobody", func(_ ledger.View, _ *ledger.Event, at ledger.Stamp) ledger.Decision {
			return ledger.Decision{Timers: []ledger.Timer{{Due: at.Time, Name: "nobody.x"}}}
		}, "nobody.x"},
		{"leaf that is not the system's", func(ledger.View, *ledger.Event, ledger.Stamp) ledger.Decision {
			return ledger.Decision{Leaves: []ledger.SystemLeaf{{Kind: "usage", Body: []byte{0xa0}}}}
		}, `system leaf of kind "usage"`},
		{"erasure", func(ledger.View, *ledger.Event, ledger.Stamp) ledger.Decision {
			return ledger.Decision{EraseAddenda: []uint64{0}}
		}, "erases addenda"},
		{"long detail", func(ledger.View, *ledger.Event, ledger.Stamp) ledger.Decision {
			return ledger.Decision{Detail: make([]byte, ledger.MaxDetail+1)}
		}, "detail of 2049 bytes"},
		{"panic", func(ledger.View, *ledger.Event, ledger.Stamp) ledger.Decision { panic("boom") }, "boom"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			before, err := w.Log.Rows()
			if err != nil {
				t.Fatal(err)
			}
			w.counter.decide = func(v ledger.View, ev *ledger.Event, at ledger.Stamp) (ledger.Decision, bool) {
				return c.d(v, ev, at), true
			}
			env := w.Sign(w.usage(1))
			cmd := &ledger.Command{Type: ledger.CommandEvents, Tenant: w.Tenant, Envelopes: [][]byte{env}, Verdicts: w.Verdicts(w.Tenant, 1)}
			_, err = w.TryApply(cmd)
			fatal, ok := errors.AsType[*ledger.FatalError](err)
			if !ok || !strings.Contains(err.Error(), c.want) || fatal.Index != w.Log.AppliedIndex()+1 {
				t.Fatalf("got %v, want a FatalError about %q", err, c.want)
			}
			if _, again := w.TryApply(cmd); !errors.Is(again, err) {
				t.Errorf("next call: got %v, want the same error", again)
			}
			after, err := w.Log.Rows()
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(before, after) {
				t.Error("the call that failed changed the store")
			}
		})
	}
}

func TestUnreadableCommandStopsTheNode(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty":           {},
		"not CBOR":        {0xff},
		"unknown version": {0xa3, 1, 2, 2, 3, 3, 0},
		"unknown type":    {0xa3, 1, 1, 2, 9, 3, 0},
		"unknown field":   {0xa4, 1, 1, 2, 3, 3, 0, 9, 0},
		"higher level":    {0xa4, 1, 1, 2, 5, 3, 0, 4, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := ledgertest.New(t)
			if _, err := w.TryApplyRaw(data); err == nil {
				t.Error("got no error, want a FatalError")
			} else if _, ok := errors.AsType[*ledger.FatalError](err); !ok {
				t.Errorf("got %v, want a FatalError", err)
			}
		})
	}
}

func TestHandlerTakesFromTheBodyWhatALeafCannotHold(t *testing.T) {
	w := newWorld(t)
	w.counter.decide = func(ledger.View, *ledger.Event, ledger.Stamp) (ledger.Decision, bool) {
		return ledger.Decision{
			Quantities: []verify.Quantity{{Meter: "not a meter", N: 1}},
			Writes:     []ledger.Write{{Table: tableCounter, Key: account[:], Value: []byte{1}}},
		}, true
	}
	w.Want(verify.OutcomeInvalid, w.Submit(w.usage(1))...)
	w.WithView(w.Tenant, func(v ledger.View) {
		if _, ok := v.Get(tableCounter, account[:]); ok {
			t.Error("the write of an invalid event was applied")
		}
	})
}

func TestStampsRiseWhateverIsProposed(t *testing.T) {
	w := newWorld(t)
	last := int64(0)
	check := func(r ledger.EventResult, mono bool) {
		t.Helper()
		if r.Time <= last {
			t.Fatalf("stamp %d is not after %d", r.Time, last)
		}
		if got := r.Quality.Flags&verify.FlagMono != 0; got != mono {
			t.Errorf("flag MONO: got %t, want %t", got, mono)
		}
		last = r.Time
	}
	submit := func(at int64, n int) []ledger.EventResult {
		var envs [][]byte
		for range n {
			envs = append(envs, w.Sign(w.usage(1)))
		}
		return w.SubmitCommand(&ledger.Command{Time: at, Tenant: w.Tenant, Envelopes: envs, Verdicts: w.Verdicts(w.Tenant, n)})
	}
	base := w.Now + int64(time.Hour)
	for i, r := range submit(base, 3) {
		check(r, false)
		if r.Time != base+int64(i) {
			t.Errorf("event %d: got stamp %d, want %d", i, r.Time, base+int64(i))
		}
	}
	check(submit(base, 1)[0], true)
	check(submit(last, 1)[0], true)
	check(submit(base-int64(time.Hour), 1)[0], true)
	check(submit(1<<63-1, 1)[0], true)
	check(submit(-5, 1)[0], true)
	if last != base+7 {
		t.Errorf("last stamp: got %d, want %d", last, base+7)
	}
}

// TestAuthorizeSaysWhatApplyWillSay asks at the edge's side, with a snapshot, what the tests above show in Apply.
func TestAuthorizeSaysWhatApplyWillSay(t *testing.T) {
	w := newWorld(t)
	stranger := ledgertest.NewIdentity(t, "stranger", registry.Agent)
	ask := func(s ledgertest.Signed, key nhi.KeyID) (a ledger.Authority, err error) {
		w.WithView(w.Tenant, func(v ledger.View) { a, err = w.Log.Authorize(v, s.Event, key, w.Now) })
		return a, err
	}
	a, err := ask(w.usage(1), w.agent.Key.Public().ID())
	if err != nil || a.Refused != registry.OK || a.Signer.Identity.ID != w.agent.ID || a.Chain.Root != w.human.ID {
		t.Errorf("agent under its link: got %+v, %v", a, err)
	}
	if _, err := ask(w.usage(1), stranger.Key.Public().ID()); !errors.Is(err, ledger.ErrUnknownKey) {
		t.Errorf("unknown key: got %v", err)
	}
	if _, err := ask(w.usage(1), w.human.Key.Public().ID()); !errors.Is(err, ledger.ErrWrongSigner) {
		t.Errorf("another's name: got %v", err)
	}
	if a, err := ask(w.Event(w.agent, "plain", countBody{}), w.agent.Key.Public().ID()); err != nil || a.Refused != registry.CodeNotHolder {
		t.Errorf("agent without link: got %+v, %v", a, err)
	}
	if a, err := ask(w.Event(w.Node, "plain", countBody{}), w.Node.Key.Public().ID()); err != nil || a.Refused != registry.CodeUnauthorized || !a.System {
		t.Errorf("node: got %+v, %v", a, err)
	}
	w.WithView(w.Tenant, func(v ledger.View) {
		pk, err := w.Log.PublicKey(v, w.agent.Key.Public().ID())
		if err != nil || pk.ID() != w.agent.Key.Public().ID() {
			t.Errorf("public key: got %v", err)
		}
	})
	// The one key that can speak before it is registered.
	id := ledgertest.ID("empty tenant")
	authority := w.CreateEmptyTenant(id, "authority of the empty tenant", "token")
	w.WithView(id, func(v ledger.View) {
		pk, err := w.Log.PublicKey(v, authority.Key.Public().ID())
		if err != nil || pk.ID() != authority.Key.Public().ID() {
			t.Errorf("authority's first key: got %v", err)
		}
	})
}
