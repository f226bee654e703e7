package oversight

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// The whole path: policy, request, vote, grant, claim with a reservation, report; and a second claim refused (21).
func TestPath(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 2, "bob", "carol", "dave"))
	opened := w.ask(func(b *kind.RequestBody) { b.Reserve = []kind.Reservation{{Meter: "usd", Amount: 500}} })
	a := w.wantState(opened.Request, kind.StatePending)
	if diff := cmp.Diff(w.get(opened.Request).Policies, []string{"pay"}); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	if a.RequestDigest != opened.RequestDigest || a.ShortCode != opened.ShortCode || a.Deadline != opened.Deadline || len(a.Eligible) != 3 {
		t.Errorf("got %+v, want what the answer said: %+v", a, opened)
	}
	w.approve(opened.Request, "bob")
	w.wantState(opened.Request, kind.StatePending)
	w.want(w.claim(opened.Request), verify.OutcomeNeedsApproval, kind.ReasonNotApproved)
	w.approve(opened.Request, "carol")
	a = w.wantState(opened.Request, kind.StateApproved)
	if len(a.Eligible) != 0 || len(a.Votes) != 2 || !a.Votes[0].Counted {
		t.Errorf("got eligible %v, votes %+v, want nobody and two that count", a.Eligible, a.Votes)
	}

	var grant *kind.Grant
	w.leaves(0, func(l *verify.Leaf) {
		if l.Kind == kind.Granted {
			g, err := kind.DecodeGrant(w.f.Stored(l.Index).Payload)
			if err != nil {
				t.Fatal(err)
			}
			grant = g
		}
	})
	want := &kind.Grant{
		Request: a.ID, ActionDigest: a.ActionDigest, Agent: w.id["bot"].ID, Key: w.id["bot"].Key.Public().ID(), Link: w.link.ID,
		PolicyEpoch: 1, PolicyDigest: a.PolicyDigest, NotBefore: a.Votes[1].Time, NotAfter: a.NotAfter, Uses: 1,
		RequestDigest: a.RequestDigest, Votes: []uint64{a.Votes[0].Index, a.Votes[1].Index},
	}
	if diff := cmp.Diff(want, grant); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}

	claimed := w.mustClaim(a.ID)
	if len(claimed.Leases) != 1 || claimed.StartBy <= a.Votes[1].Time || claimed.ReportBy <= claimed.StartBy || claimed.Token == (kind.FencingToken{}) {
		t.Errorf("got claim %+v", claimed)
	}
	second := w.want(w.claim(a.ID), verify.OutcomeClosed, kind.ReasonAlreadyClaimed)
	if d := detail(t, kind.DecodeRefusal, second); d.Index != w.get(a.ID).Claim {
		t.Errorf("got index %d of the first claim, want %d", d.Index, w.get(a.ID).Claim)
	}
	w.want(w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: a.ID, Token: claimed.Token, Result: kind.ResultExecuted, Digest: nhi.Digest{9}})), verify.OutcomeAccepted, "")
	a = w.wantState(a.ID, kind.StateExecuted)
	if a.Result != kind.ResultExecuted || a.ResultDigest != (nhi.Digest{9}) || a.Report == 0 {
		t.Errorf("got %+v, want the report", a)
	}
	w.want(w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: a.ID, Token: claimed.Token, Result: kind.ResultFailed})), verify.OutcomeClosed, kind.ReasonOver)
	if w.f.Advance(48 * time.Hour); w.f.Tick() != 0 {
		t.Error("timers are left after the end")
	}
}

func TestPublish(t *testing.T) {
	w := newWorld(t)
	body := w.publishBody(hardText, softText, w.chain("payments", 1, "bob"), w.chain("wires", 1, "carol"))
	w.f.WithView(w.f.Tenant, func(v ledger.View) {
		p := CurrentPolicy(v)
		if p.Epoch != 0 || string(p.Bundle.Hard) != authz.DefaultHard || p.Digest != authz.DefaultBundle().Digest() || p.Chains != nil {
			t.Errorf("got %+v before anything is published, want the default", p)
		}
	})
	for name, tt := range map[string]struct {
		by     string
		body   *kind.PublishBody
		code   verify.OutcomeCode
		reason kind.Reason
	}{
		"an agent":      {"bot", body, verify.OutcomeUnauthorized, kind.ReasonNotSigner},
		"an unknown id": {"authority", w.publishBody(hardText, "", kind.Chain{Name: "x", Steps: []kind.Step{{Eligible: []nhi.ID{{9}}, Approve: 1, Deny: 1, Timeout: int64(time.Hour)}}}), verify.OutcomeNotFound, kind.ReasonUnknownHuman},
		"an agent asks": {"authority", w.publishBody(hardText, "", w.chain("x", 1, "bot")), verify.OutcomeNotFound, kind.ReasonUnknownHuman},
	} {
		s := w.f.Event(w.id[tt.by], kind.Publish, tt.body)
		if tt.by == "bot" {
			s = w.asBot(kind.Publish, tt.body)
		}
		t.Log(name)
		w.want(w.submit(s), tt.code, tt.reason)
	}
	// Nothing that does not compile gets past the edge; all that is wrong is said.
	for name, bad := range map[string]*kind.PublishBody{
		"permit in the soft set": w.publishBody(hardText, `@id("x") @oversight("payments") permit (principal, action, resource);`),
		"undefined chain":        w.publishBody(hardText, softText, w.chain("payments", 1, "bob")),
		"soft on a kind without grant": w.publishBody(hardText, `@id("x") @oversight("payments") forbid (principal, action == Action::"sandbox.claim", resource);`,
			w.chain("payments", 1, "bob")),
		"soft on every action":    w.publishBody(hardText, `@id("x") @oversight("payments") forbid (principal, action, resource);`, w.chain("payments", 1, "bob")),
		"unannotated soft forbid": w.publishBody(hardText, `@id("x") forbid (principal, action, resource);`),
		"syntax":                  w.publishBody("permit", ""),
		"no id":                   w.publishBody("permit (principal, action, resource);", ""),
	} {
		if _, err := w.try(w.f.Event(w.f.Authority, kind.Publish, bad)); !errors.Is(err, errEdge) {
			t.Errorf("%s: got %v, want a refusal at the edge", name, err)
		}
	}
	first := w.want(w.submit(w.f.Event(w.id["alice"], kind.Publish, body)), verify.OutcomeAccepted, "")
	p := detail(t, kind.DecodePublished, first)
	if p.Epoch != 1 || p.Digest != (authz.Bundle{Hard: []byte(hardText), Soft: []byte(softText), Chains: body.Chains}).Digest() {
		t.Errorf("got %+v, want epoch 1 and the digest of the bundle", p)
	}
	w.publish(w.chain("payments", 1, "dave"))
	w.f.WithView(w.f.Tenant, func(v ledger.View) {
		p := CurrentPolicy(v)
		if p.Epoch != 2 || v.Epochs().Policy != 2 || p.Publisher != w.f.Authority.ID || len(p.Chains) != 1 || p.Index <= first.Index {
			t.Errorf("got %+v at policy epoch %d, want the second policy", p, v.Epochs().Policy)
		}
	})
}

func TestRequestRefusals(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 2, "alice", "bob"), w.chain("wires", 1, "carol"))
	ask := func(s ledgertest.Signed) ledger.EventResult { t.Helper(); return w.submit(s) }
	body := func(amount int, extra ...string) *kind.RequestBody { return w.requestBody(w.action(amount, extra...)) }

	// No policy wants it approved.
	w.want(ask(w.asBot(kind.Request, body(100))), verify.OutcomeNotFound, kind.ReasonNotNeeded)
	// A hard forbid: nobody is asked, whatever else matches.
	a, err := kind.NewAction(w.id["bot"].ID, "delete", "db", "", map[string]any{"amount": 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.want(ask(w.asBot(kind.Request, w.requestBody(*a))), verify.OutcomeDenied, "")
	// A policy that errs denies: context.amount is not there.
	a, err = kind.NewAction(w.id["bot"].ID, "pay", "db", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.want(ask(w.asBot(kind.Request, w.requestBody(*a))), verify.OutcomeDenied, "")
	// Two must approve, and one of the two is the human the agent acts for (11, 33).
	w.want(ask(w.asBot(kind.Request, body(500))), verify.OutcomeNotFound, kind.ReasonNoApprovers)
	// A chain that is not published.
	w.publish(w.chain("wires", 1, "carol"))
	w.want(ask(w.asBot(kind.Request, body(500))), verify.OutcomeNotFound, kind.ReasonChainUndefined)
	w.want(ask(w.asBot(kind.Request, body(500, "wire"))), verify.OutcomeNotFound, kind.ReasonChainUndefined)
	// Everybody is suspended (33).
	w.publish(w.chain("payments", 1, "bob"))
	w.status("bob", registry.KindSuspend)
	w.want(ask(w.asBot(kind.Request, body(500))), verify.OutcomeNotFound, kind.ReasonNoApprovers)
	w.status("bob", registry.KindResume)
	w.want(ask(w.asBot(kind.Request, body(500))), verify.OutcomeAccepted, "")
	// Somebody whom no policy judges.
	s := w.f.Event(w.f.Authority, kind.Request, func() *kind.RequestBody { b := body(500); b.Action.Agent = w.f.Authority.ID; return b }())
	r := w.f.Submit(s)
	w.want(r[0], verify.OutcomeNotFound, kind.ReasonNotNeeded) // the fixture's verdict allows
	w.f.Verdict = ledger.Verdict{}
	s = w.f.Event(w.f.Authority, kind.Request, func() *kind.RequestBody { b := body(500); b.Action.Agent = w.f.Authority.ID; return b }())
	w.want(w.f.Submit(s)[0], verify.OutcomeUnauthorized, kind.ReasonNoVerdict)

	// What is malformed is refused at the edge, and by Apply as well.
	for name, change := range map[string]func(*kind.RequestBody, *nhi.Event){
		"for another agent": func(b *kind.RequestBody, _ *nhi.Event) { b.Action.Agent = w.id["worker"].ID },
		"reason not among the addenda": func(b *kind.RequestBody, _ *nhi.Event) {
			b.Reasoning = nhi.Digest{1}
		},
		"parameters not canonical": func(b *kind.RequestBody, ev *nhi.Event) {
			good, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			ev.Body = []byte(strings.Replace(string(good), `{"amount":500}`, `{"amount" 500}`, 1))
		},
	} {
		b := body(500)
		s := w.asBot(kind.Request, b)
		change(b, s.Event)
		if name != "parameters not canonical" {
			s = w.asBot(kind.Request, b)
		}
		if _, err := w.try(s); !errors.Is(err, errEdge) {
			t.Errorf("%s: got %v, want a refusal at the edge", name, err)
		}
		w.f.Verdict = ledger.Verdict{Outcome: ledger.VerdictNeedsOversight, Chains: []string{"payments"}, Policies: []string{"pay"}}
		w.want(w.f.Submit(s)[0], verify.OutcomeInvalid, kind.ReasonInvalid)
	}
}

// One agent cannot bury its humans under requests, nor the ledger: so many wait at once, and no more until one of them ends, by
// whatever way, also if no tick has come to say so.
func TestPendingRequestsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	ask := func() ledger.EventResult { return w.submit(w.asBot(kind.Request, w.requestBody(w.action(500)))) }
	var ids []uint64
	for range MaxPending {
		ids = append(ids, w.ask().Request)
	}
	w.want(ask(), verify.OutcomeLimit, kind.ReasonTooMany)
	w.approve(ids[0], "bob") // one that is approved waits for its agent, not for humans
	w.ask()
	w.want(ask(), verify.OutcomeLimit, kind.ReasonTooMany)
	w.want(w.submit(w.asBot(kind.Cancel, &kind.RefBody{Request: ids[1]})), verify.OutcomeAccepted, "")
	w.ask()
	w.want(ask(), verify.OutcomeLimit, kind.ReasonTooMany)
	w.f.Now += int64(2 * time.Hour) // all steps are over; the next event comes before any tick
	w.ask()
}

// The delegation chain must cover the action and every account that pays.
func TestRequestScope(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	narrow := w.f.Delegate(nil, w.id["alice"], w.id["other"], func(l *registry.Link) {
		l.Scopes = []registry.Scope{
			{Actions: []string{"approval.*"}, Resource: registry.AccountResource(account)},
			{Actions: []string{"pay"}, Resource: "invoice:17", Caps: map[string]uint64{"usd": 600}},
		}
	})
	for _, tt := range []struct {
		name     string
		resource string
		reserve  []kind.Reservation
		code     verify.OutcomeCode
		reason   kind.Reason
	}{
		{"covered", "invoice:17", []kind.Reservation{{Meter: "usd", Amount: 600}}, verify.OutcomeAccepted, ""},
		{"other resource", "invoice:18", nil, verify.OutcomeUnauthorized, kind.ReasonScope},
		{"over the cap", "invoice:17", []kind.Reservation{{Meter: "usd", Amount: 601}}, 0, kind.ReasonScope},
		{"over the cap in two", "invoice:17", []kind.Reservation{{Meter: "usd", Amount: 301}, {Meter: "usd", Amount: 300}}, 0, kind.ReasonScope},
		{"somebody else pays", "invoice:17", []kind.Reservation{{Meter: "usd", Amount: 1, Account: nhi.ID{0xac, 2}}}, verify.OutcomeUnauthorized, kind.ReasonScope},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			a, err := kind.NewAction(w.id["other"].ID, "pay", tt.resource, "", map[string]any{"amount": 500})
			if err != nil {
				t.Fatal(err)
			}
			b := w.requestBody(*a)
			b.Reserve = tt.reserve
			r := w.submit(w.f.Under(narrow, w.id["other"], kind.Request, account, b))
			if tt.code == 0 && tt.reason != "" {
				tt.code = ledger.OutcomeOf(registry.CodeCap)
			}
			w.want(r, tt.code, tt.reason)
		})
	}
}

func TestVoteRules(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 2, "alice", "bob", "carol", "dave"))
	id := w.ask().Request
	other := w.ask().Request

	// Self-approval, along the whole chain (11): the human at its root, and the agents in it.
	w.want(w.vote(id, "alice", kind.Approve), verify.OutcomeSelfApproval, kind.ReasonSelfApproval)
	w.want(w.submit(w.asBot(kind.Vote, w.ballot(id, kind.Approve))), verify.OutcomeUnauthorized, kind.ReasonNotSigner)
	// Not asked; not a human's own act; unknown request.
	w.want(w.vote(id, "erin", kind.Approve), verify.OutcomeUnauthorized, kind.ReasonNotEligible)
	w.want(w.submit(w.f.Event(w.f.Authority, kind.Vote, w.ballot(id, kind.Approve))), verify.OutcomeUnauthorized, kind.ReasonNotSigner)
	w.want(w.submit(w.f.Event(w.id["bob"], kind.Vote, &kind.VoteBody{Request: 1 << 40, Choice: kind.Approve})), verify.OutcomeNotFound, kind.ReasonNoRequest)
	// Another action, another request: both digests bind.
	b := w.ballot(id, kind.Approve)
	b.ActionDigest[0] ^= 1
	w.want(w.submit(w.f.Event(w.id["bob"], kind.Vote, b)), verify.OutcomeConflict, kind.ReasonDigest)
	b = w.ballot(other, kind.Approve)
	b.Request = id
	w.want(w.submit(w.f.Event(w.id["bob"], kind.Vote, b)), verify.OutcomeConflict, kind.ReasonDigest)
	// A vote signed with another key than the human's own leaves no trace.
	s := w.f.Event(w.id["bob"], kind.Vote, w.ballot(id, kind.Approve))
	s.By = w.id["carol"]
	if r := w.f.Submit(s)[0]; r.State != ledger.Invalid {
		t.Errorf("got %v for a vote under another key, want invalid", r.State)
	}
	w.wantState(id, kind.StatePending)

	// One human, one seat (3): a repetition and a change of mind are refused, the count stays.
	w.approve(id, "bob")
	w.want(w.vote(id, "bob", kind.Approve), verify.OutcomeExists, kind.ReasonAlreadyVoted)
	w.want(w.vote(id, "bob", kind.Deny), verify.OutcomeConflict, kind.ReasonAlreadyVoted)
	// An abstention is on record and counts for nothing.
	w.want(w.vote(id, "carol", kind.Abstain), verify.OutcomeAccepted, "")
	if a := w.wantState(id, kind.StatePending); a.Chains[0].Approvals != 1 || len(a.Votes) != 2 {
		t.Errorf("got %d approvals, %d votes, want 1 and 2", a.Chains[0].Approvals, len(a.Votes))
	}
	w.approve(id, "dave")
	w.wantState(id, kind.StateApproved)

	// One denial denies, whatever came before; the end absorbs what comes after (2).
	w.approve(other, "bob")
	w.want(w.vote(other, "carol", kind.Deny), verify.OutcomeAccepted, "")
	w.wantState(other, kind.StateDenied)
	late := detail(t, kind.DecodeVoted, w.want(w.vote(other, "dave", kind.Approve), verify.OutcomeAccepted, ""))
	if late.Counted || late.State != kind.StateDenied {
		t.Errorf("got %+v for a vote after the end, want evidence", late)
	}
	w.wantState(other, kind.StateDenied)
	w.want(w.claim(other), verify.OutcomeClosed, kind.ReasonOver)
	if n := w.count(kind.Denied); n != 1 {
		t.Errorf("got %d leaves of denial, want 1", n)
	}
}

// A human who is asked by two chains fills one seat (12), whatever the order of votes.
func TestOneHumanOneSeat(t *testing.T) {
	for _, order := range [][]string{{"bob", "carol"}, {"carol", "bob"}} {
		w := newWorld(t)
		w.publish(w.chain("payments", 1, "bob", "carol"), w.chain("wires", 1, "bob"))
		b := w.requestBody(w.action(500, "wire"))
		opened := detail(t, kind.DecodeOpened, w.want(w.submit(w.asBot(kind.Request, b)), verify.OutcomeAccepted, ""))
		w.approve(opened.Request, order[0])
		w.wantState(opened.Request, kind.StatePending)
		w.approve(opened.Request, order[1])
		a := w.wantState(opened.Request, kind.StateApproved)
		if diff := cmp.Diff([]string{"pay", "wire"}, a.Policies); diff != "" {
			t.Errorf("policies (-want +got):\n%s", diff)
		}
		w.mustClaim(opened.Request)
	}
}

// A vote at or after the deadline loses, whether the expiry is in the log or not (4); one just before it stays (5).
func TestDeadline(t *testing.T) {
	for _, tick := range []bool{false, true} {
		w := newWorld(t)
		w.publish(w.chain("payments", 1, "bob", "carol"))
		late, early := w.ask(), w.ask()
		w.f.Now = early.Deadline - 1
		w.approve(early.Request, "bob")
		w.f.Now = early.Deadline + 1
		if tick {
			w.f.Tick()
			w.wantState(late.Request, kind.StateExpired)
		}
		v := detail(t, kind.DecodeVoted, w.want(w.vote(late.Request, "bob", kind.Approve), verify.OutcomeAccepted, ""))
		if v.Counted || v.State != kind.StateExpired {
			t.Errorf("tick %v: got %+v, want evidence on an expired request", tick, v)
		}
		a := w.wantState(late.Request, kind.StateExpired)
		if a.Since != late.Deadline || len(a.Votes) != 1 || a.Votes[0].Counted {
			t.Errorf("tick %v: got expired at %d with votes %+v, want at %d with one that does not count", tick, a.Since, a.Votes, late.Deadline)
		}
		w.want(w.claim(late.Request), verify.OutcomeExpired, kind.ReasonOver)
		w.f.Tick()
		if n := w.count(kind.Expired); n != 1 {
			t.Errorf("tick %v: got %d leaves of expiry, want 1", tick, n)
		}
		// Exhaustion is the system's act, and never a denial (32).
		w.leaves(0, func(l *verify.Leaf) {
			if l.Kind == kind.Expired && (l.Signature != nhi.Digest{} || l.Cause == nil) {
				t.Errorf("got an expiry with signature %x, cause %v, want none and one", l.Signature, l.Cause)
			}
		})
		w.wantState(early.Request, kind.StateApproved)
		w.mustClaim(early.Request)
	}
}

// At exactly the deadline it is too late.
func TestVoteAtDeadline(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	opened := w.ask()
	w.f.Now = opened.Deadline
	if v := detail(t, kind.DecodeVoted, w.want(w.vote(opened.Request, "bob", kind.Approve), verify.OutcomeAccepted, "")); v.Counted {
		t.Error("a vote at the deadline counts")
	}
	w.wantState(opened.Request, kind.StateExpired)
}

// Steps ask more people, keep what was voted, and follow one another on time, whenever the ticks come (6, 7).
func TestEscalation(t *testing.T) {
	for _, tick := range []bool{false, true} {
		w := newWorld(t)
		w.publish(kind.Chain{Name: "payments", Steps: []kind.Step{
			{Eligible: w.ids("bob"), Approve: 1, Deny: 1, Timeout: int64(time.Hour)},
			{Eligible: w.ids("carol", "dave"), Approve: 2, Deny: 2, Timeout: int64(time.Hour)},
		}})
		opened := w.ask()
		w.want(w.vote(opened.Request, "carol", kind.Approve), verify.OutcomeUnauthorized, kind.ReasonNotEligible)
		w.f.Now = opened.Deadline + int64(30*time.Minute)
		if tick {
			w.f.Tick()
		}
		w.approve(opened.Request, "carol")
		a := w.wantState(opened.Request, kind.StatePending)
		if a.Chains[0].Step != 1 || a.Deadline != opened.Deadline+int64(time.Hour) {
			t.Errorf("tick %v: got step %d until %d, want 1 until an hour after the first", tick, a.Chains[0].Step, a.Deadline)
		}
		if n := w.count(kind.Escalated); n != 1 {
			t.Errorf("tick %v: got %d leaves of escalation, want 1", tick, n)
		}
		w.want(w.vote(opened.Request, "dave", kind.Deny), verify.OutcomeAccepted, "")
		w.wantState(opened.Request, kind.StatePending) // two denials deny
		w.approve(opened.Request, "bob")               // who was asked first and may still vote
		w.wantState(opened.Request, kind.StateApproved)
	}
}

func TestExhaustion(t *testing.T) {
	w := newWorld(t)
	w.publish(kind.Chain{Name: "payments", Steps: []kind.Step{
		{Eligible: w.ids("bob"), Approve: 1, Deny: 1, Timeout: int64(time.Hour)},
		{Eligible: w.ids("carol"), Approve: 1, Deny: 1, Timeout: int64(time.Hour)},
	}})
	opened := w.ask()
	w.f.Advance(3 * time.Hour)
	w.f.Tick()
	a := w.wantState(opened.Request, kind.StateExpired)
	if a.Since != opened.Deadline+int64(time.Hour) {
		t.Errorf("got expired at %d, want at the end of the last step %d", a.Since, opened.Deadline+int64(time.Hour))
	}
}

// A step whose people are not there is skipped, not waited for.
func TestStepWithoutApprovers(t *testing.T) {
	w := newWorld(t)
	w.status("bob", registry.KindSuspend)
	w.publish(kind.Chain{Name: "payments", Steps: []kind.Step{
		{Eligible: w.ids("alice", "bob"), Approve: 1, Deny: 1, Timeout: int64(time.Hour)},
		{Eligible: w.ids("carol"), Approve: 1, Deny: 1, Timeout: int64(time.Minute)},
	}})
	opened := w.ask()
	if a := w.get(opened.Request); a.Chains[0].Step != 1 || opened.Deadline-a.Created != int64(time.Minute) {
		t.Errorf("got step %d, want the second at once", a.Chains[0].Step)
	}
	w.approve(opened.Request, "carol")
	w.wantState(opened.Request, kind.StateApproved)
}

// An approver who is suspended or revoked between vote and quorum, or before the claim, does not count (9).
func TestApproverGone(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 2, "bob", "carol", "dave"))
	id := w.ask().Request
	w.approve(id, "bob")
	w.status("bob", registry.KindSuspend)
	w.approve(id, "carol")
	w.wantState(id, kind.StatePending)
	w.approve(id, "dave")
	w.wantState(id, kind.StateApproved)
	w.status("carol", registry.KindRevoke)
	w.want(w.claim(id), verify.OutcomeRevoked, kind.ReasonApproverGone)
	w.wantState(id, kind.StateApproved)
	w.status("bob", registry.KindResume)
	w.mustClaim(id)

	// Nor can somebody who is suspended vote (10).
	id = w.ask().Request
	w.status("dave", registry.KindSuspend)
	if r := w.vote(id, "dave", kind.Approve); r.Outcome != verify.OutcomeFrozen {
		t.Errorf("got %v for a vote of a suspended human, want frozen", r.Outcome)
	}
}

func TestClaimRules(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	id := w.ask(func(b *kind.RequestBody) {
		b.Reserve = []kind.Reservation{{Meter: "usd", Amount: 700}, {Meter: "usd", Amount: 200}}
	}).Request
	poor := w.ask(func(b *kind.RequestBody) { b.Reserve = []kind.Reservation{{Meter: "usd", Amount: 101}} }).Request
	w.approve(id, "bob")
	w.approve(poor, "bob")
	digest := w.get(id).ActionDigest

	// Another action than the one approved (19).
	w.want(w.submit(w.asBot(kind.Claim, &kind.ClaimBody{Request: id, ActionDigest: nhi.Digest{1}})), verify.OutcomeConflict, kind.ReasonDigest)
	// Another agent, another chain, another key of the same agent (21).
	w.want(w.submit(w.f.Under(w.worker, w.id["worker"], kind.Claim, account, &kind.ClaimBody{Request: id, ActionDigest: digest})), verify.OutcomeUnauthorized, kind.ReasonNotExecutor)
	again := w.f.Delegate(nil, w.id["alice"], w.id["bot"], nil)
	w.want(w.submit(w.f.Under(again, w.id["bot"], kind.Claim, account, &kind.ClaimBody{Request: id, ActionDigest: digest})), verify.OutcomeUnauthorized, kind.ReasonNotExecutor)
	// A request that does not exist has no action to judge: the edge refuses, and so does Apply.
	if _, err := w.try(w.asBot(kind.Claim, &kind.ClaimBody{Request: 1 << 40})); !errors.Is(err, ErrNoRequest) {
		t.Errorf("got %v for a claim of nothing, want ErrNoRequest", err)
	}
	w.want(w.f.Submit(w.asBot(kind.Claim, &kind.ClaimBody{Request: 1 << 40}))[0], verify.OutcomeNotFound, kind.ReasonNoRequest)
	// A link that is not the request's leaf index.
	w.want(w.f.Submit(w.asBot(kind.Claim, &kind.ClaimBody{Request: 0}))[0], verify.OutcomeNotFound, kind.ReasonNoRequest)

	first := w.mustClaim(id)
	if len(first.Leases) != 2 {
		t.Errorf("got %d leases, want 2", len(first.Leases))
	}
	// Nothing fits any more: refused by the meter, in its own words, and the grant stays.
	if r := w.claim(poor); r.Outcome != verify.OutcomeQuotaExhausted || len(r.Detail) == 0 {
		t.Errorf("got %v with detail %x, want quota_exhausted with the meter's", r.Outcome, r.Detail)
	}
	w.wantState(poor, kind.StateApproved)

	// The fencing token of one claim is not that of another.
	other := w.ask().Request
	w.approve(other, "bob")
	second := w.mustClaim(other)
	if first.Token == second.Token {
		t.Error("two claims have one token")
	}
	w.want(w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: id, Token: second.Token, Result: kind.ResultExecuted})), verify.OutcomeConflict, kind.ReasonBadToken)
	w.want(w.submit(w.f.Under(w.worker, w.id["worker"], kind.Report, account, &kind.ReportBody{Request: id, Token: first.Token, Result: kind.ResultExecuted})), verify.OutcomeUnauthorized, kind.ReasonNotExecutor)
	w.want(w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: poor, Result: kind.ResultExecuted})), verify.OutcomeConflict, kind.ReasonNotApproved)
	w.want(w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: id, Token: first.Token, Result: kind.ResultFailed})), verify.OutcomeAccepted, "")
	w.wantState(id, kind.StateFailed)
}

// Without a meter nothing is claimed that has to be reserved.
func TestClaimWithoutMeter(t *testing.T) {
	w := newWorld(t)
	w.o.cfg.Reserver = nil
	w.publish(w.chain("payments", 1, "bob"))
	id := w.ask(func(b *kind.RequestBody) { b.Reserve = []kind.Reservation{{Meter: "usd", Amount: 1}} }).Request
	w.approve(id, "bob")
	w.want(w.claim(id), verify.OutcomeUnsupported, kind.ReasonNoMeter)
	w.wantState(id, kind.StateApproved)
}

// What changes in the policy between approval and claim (20).
func TestPolicyChangesBeforeClaim(t *testing.T) {
	chain := func(w *world) kind.Chain { return w.chain("payments", 1, "bob") }
	tight := strings.Replace(softText, "> 100", "> 50", 1)
	for _, tt := range []struct {
		name       string
		hard, soft string
		chains     func(w *world) []kind.Chain
		code       verify.OutcomeCode
	}{
		{"nothing that matters", hardText + "// reviewed\n", softText, nil, verify.OutcomeAccepted},
		{"another chain is new", hardText, softText, func(w *world) []kind.Chain { return []kind.Chain{chain(w), w.chain("wires", 1, "carol")} }, verify.OutcomeAccepted},
		{"hard forbid", hardText + `@id("stop") forbid (principal, action == Action::"pay", resource);`, softText, nil, verify.OutcomeDenied},
		{"soft policy tightened", hardText, tight, nil, verify.OutcomeNeedsApproval},
		{"chain tightened", hardText, softText, func(w *world) []kind.Chain { return []kind.Chain{w.chain("payments", 2, "bob", "carol")} }, verify.OutcomeNeedsApproval},
		{"chain gone", hardText, softText, func(w *world) []kind.Chain { return []kind.Chain{w.chain("wires", 1, "bob")} }, verify.OutcomeNeedsApproval},
		{"no longer needed", hardText, "", nil, verify.OutcomeAccepted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.publish(chain(w))
			id := w.ask().Request
			w.approve(id, "bob")
			chains := []kind.Chain{chain(w)}
			if tt.chains != nil {
				chains = tt.chains(w)
			}
			w.publishTexts(tt.hard, tt.soft, chains...)
			if r := w.claim(id); r.Outcome != tt.code {
				t.Fatalf("got %v, want %v", r.Outcome, tt.code)
			}
			if tt.code != verify.OutcomeAccepted {
				w.wantState(id, kind.StateApproved)
			}
		})
	}
}

// A verdict that was made before the policy changed is not one: the leader decides again.
func TestStaleVerdict(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	id := w.ask().Request
	w.approve(id, "bob")
	s := w.asBot(kind.Claim, &kind.ClaimBody{Request: id, ActionDigest: w.get(id).ActionDigest})
	verdicts := w.f.Verdicts(w.f.Tenant, 1)
	w.publish(w.chain("payments", 2, "bob", "carol"))
	r := w.f.SubmitCommand(&ledger.Command{Tenant: w.f.Tenant, Envelopes: [][]byte{w.f.Sign(s)}, Verdicts: verdicts})
	if r[0].State != ledger.Stale {
		t.Fatalf("got %v, want stale", r[0].State)
	}
	w.wantState(id, kind.StateApproved)
}

func TestHold(t *testing.T) {
	w := newWorld(t)
	c := w.chain("payments", 1, "bob")
	c.Hold = int64(10 * time.Minute)
	w.publish(c)
	id := w.ask().Request
	w.approve(id, "bob")
	a := w.wantState(id, kind.StateApproved)
	if d := detail(t, kind.DecodeRefusal, w.want(w.claim(id), verify.OutcomeNotYetValid, kind.ReasonOnHold)); d.Time != a.Opens || a.Opens != a.Votes[0].Time+c.Hold {
		t.Errorf("got held until %d, want %d", d.Time, a.Votes[0].Time+c.Hold)
	}
	w.f.Now = a.Opens
	w.mustClaim(id)
}

// Approved and not claimed in time: lapsed, and no claim, whether the tick came or not.
func TestLapse(t *testing.T) {
	for _, tick := range []bool{false, true} {
		w := newWorld(t)
		w.publish(w.chain("payments", 1, "bob"))
		opened := w.ask(func(b *kind.RequestBody) { b.TTL = int64(30 * time.Minute) })
		if opened.Deadline != opened.End {
			t.Errorf("got deadline %d after the end %d", opened.Deadline, opened.End)
		}
		w.approve(opened.Request, "bob")
		w.f.Now = opened.End
		if tick {
			w.f.Tick()
		}
		w.want(w.claim(opened.Request), verify.OutcomeExpired, kind.ReasonOver)
		w.f.Tick()
		w.wantState(opened.Request, kind.StateLapsed)
		if n := w.count(kind.Lapsed); n != 1 {
			t.Errorf("got %d leaves, want 1", n)
		}
	}
}

// A crash between claim and report: unknown, by the system; a late report is kept, nothing is claimed again (23).
func TestUnknown(t *testing.T) {
	for _, tick := range []bool{false, true} {
		w := newWorld(t)
		w.publish(w.chain("payments", 1, "bob"))
		id := w.ask().Request
		w.approve(id, "bob")
		c := w.mustClaim(id)
		w.f.Now = c.ReportBy
		if tick {
			w.f.Tick()
			w.wantState(id, kind.StateUnknown)
			w.want(w.claim(id), verify.OutcomeClosed, kind.ReasonAlreadyClaimed)
		}
		r := detail(t, kind.DecodeReported, w.want(w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: id, Token: c.Token, Result: kind.ResultExecuted})), verify.OutcomeAccepted, ""))
		if r.Counted || r.State != kind.StateUnknown {
			t.Errorf("got %+v, want evidence on an unknown outcome", r)
		}
		if a := w.wantState(id, kind.StateUnknown); a.Result != kind.ResultExecuted {
			t.Errorf("got result %d, want the late report's", a.Result)
		}
		w.f.Tick()
		if n := w.count(kind.Unknown); n != 1 {
			t.Errorf("got %d leaves, want 1", n)
		}
	}
}

// A report is a fact: it is recorded although the agent was revoked meanwhile. A claim is an ask: it is not.
func TestAuthorityGone(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	id, unclaimed := w.ask().Request, w.ask().Request
	w.approve(id, "bob")
	w.approve(unclaimed, "bob")
	c := w.mustClaim(id)
	w.f.Accepted(w.f.Submit(w.f.Event(w.f.Authority, registry.KindRevokeLink, &registry.RevokeLinkBody{Link: w.link.ID}))...)
	if r := w.claim(unclaimed); r.Outcome != verify.OutcomeRevoked {
		t.Errorf("got %v for a claim under a revoked link, want revoked", r.Outcome)
	}
	if r := w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: id, Token: kind.FencingToken{1}, Result: kind.ResultExecuted})); r.Outcome != verify.OutcomeRevoked {
		t.Errorf("got %v for a report that cites nothing, want revoked", r.Outcome)
	}
	if r := w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: id, Token: c.Token, Result: kind.ResultExecuted})); r.Outcome != verify.OutcomeAcceptedFlagged {
		t.Errorf("got %v for the report, want accepted_flagged", r.Outcome)
	}
	w.wantState(id, kind.StateExecuted)
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	cancel := func(by string, id uint64) ledger.EventResult {
		t.Helper()
		if by == "bot" {
			return w.submit(w.asBot(kind.Cancel, &kind.RefBody{Request: id}))
		}
		return w.submit(w.f.Event(w.id[by], kind.Cancel, &kind.RefBody{Request: id}))
	}
	for _, by := range []string{"bot", "alice", "authority"} {
		id := w.ask().Request
		w.want(cancel("bob", id), verify.OutcomeUnauthorized, kind.ReasonNotSigner)
		w.want(cancel(by, id), verify.OutcomeAccepted, "")
		w.wantState(id, kind.StateCancelled)
		w.want(cancel(by, id), verify.OutcomeClosed, kind.ReasonOver)
		if v := detail(t, kind.DecodeVoted, w.want(w.vote(id, "bob", kind.Approve), verify.OutcomeAccepted, "")); v.Counted {
			t.Error("a vote after the cancellation counts")
		}
	}
	// Approved, then cancelled before the claim: no claim (31). Claimed: no cancellation.
	id := w.ask().Request
	w.approve(id, "bob")
	if d := detail(t, kind.DecodeCancelled, w.want(cancel("bot", id), verify.OutcomeAccepted, "")); d.Was != kind.StateApproved {
		t.Errorf("got %v, want approved", d.Was)
	}
	w.want(w.claim(id), verify.OutcomeClosed, kind.ReasonOver)
	id = w.ask().Request
	w.approve(id, "bob")
	w.mustClaim(id)
	w.want(cancel("bot", id), verify.OutcomeClosed, kind.ReasonAlreadyClaimed)
	w.want(cancel("bot", 1<<40), verify.OutcomeNotFound, kind.ReasonNoRequest)
}

func TestWithdraw(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 2, "bob", "carol", "dave"))
	withdraw := func(by string, id uint64) ledger.EventResult {
		t.Helper()
		return w.submit(w.f.Event(w.id[by], kind.Withdraw, &kind.RefBody{Request: id}))
	}
	id := w.ask().Request
	w.want(withdraw("bob", id), verify.OutcomeNotFound, kind.ReasonNotEligible)
	w.approve(id, "bob")
	w.want(withdraw("bob", id), verify.OutcomeAccepted, "")
	w.want(w.vote(id, "bob", kind.Approve), verify.OutcomeExists, kind.ReasonAlreadyVoted)
	w.approve(id, "carol")
	w.wantState(id, kind.StatePending)
	w.approve(id, "dave")
	w.wantState(id, kind.StateApproved)
	w.want(withdraw("bob", id), verify.OutcomeNotFound, kind.ReasonNotEligible)
	w.want(withdraw("carol", id), verify.OutcomeAccepted, "")
	w.wantState(id, kind.StateWithdrawn)
	w.want(w.claim(id), verify.OutcomeClosed, kind.ReasonOver)
	w.want(withdraw("dave", id), verify.OutcomeClosed, kind.ReasonOver)

	id = w.ask().Request
	w.approve(id, "bob", "carol")
	w.mustClaim(id)
	w.want(withdraw("bob", id), verify.OutcomeClosed, kind.ReasonAlreadyClaimed)
}

// A chain that waits for another with its own deadline behind it asks its next step as soon as it loses its quorum.
func TestWithdrawWhileWaiting(t *testing.T) {
	w := newWorld(t)
	payments := w.chain("payments", 1, "bob")
	payments.Steps = append(payments.Steps, kind.Step{Eligible: w.ids("dave"), Approve: 1, Deny: 1, Timeout: int64(2 * time.Hour)})
	wires := w.chain("wires", 1, "carol")
	wires.Steps[0].Timeout *= 4
	w.publish(payments, wires)
	r := w.want(w.submit(w.asBot(kind.Request, w.requestBody(w.action(500, "wire")))), verify.OutcomeAccepted, "")
	opened := detail(t, kind.DecodeOpened, r)
	w.approve(opened.Request, "bob")
	w.f.Now = opened.Deadline + int64(time.Hour)
	w.f.Tick()
	if a := w.wantState(opened.Request, kind.StatePending); a.Chains[0].Step != 0 {
		t.Errorf("got step %d of a chain that has its quorum, want it to wait", a.Chains[0].Step)
	}
	// bob's approval came in time, carol's still can: the deadline behind the first chain does not matter.
	w.want(w.submit(w.f.Event(w.id["bob"], kind.Withdraw, &kind.RefBody{Request: opened.Request})), verify.OutcomeAccepted, "")
	if a := w.wantState(opened.Request, kind.StatePending); a.Chains[0].Step != 1 || a.Chains[0].Deadline != opened.Deadline+int64(2*time.Hour) {
		t.Errorf("got step %d until %d, want the second from the end of the first on", a.Chains[0].Step, a.Chains[0].Deadline)
	}
	w.approve(opened.Request, "carol", "dave")
	w.wantState(opened.Request, kind.StateApproved)
}

// A link can demand a chain of its own, whatever the policies say; the sub-agent's whole chain is barred from voting.
func TestLinkDemandsOversight(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("wires", 1, "alice", "carol"))
	link := w.f.Delegate(w.link, w.id["bot"], w.id["worker"], func(l *registry.Link) { l.Oversight = []string{"wires"} })
	a, err := kind.NewAction(w.id["worker"].ID, "mail.send", "list", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := w.want(w.submit(w.f.Under(link, w.id["worker"], kind.Request, account, w.requestBody(*a))), verify.OutcomeAccepted, "")
	id := detail(t, kind.DecodeOpened, r).Request
	got := w.get(id)
	if diff := cmp.Diff([]string{authz.LinkPolicy("wires")}, got.Policies); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	w.want(w.vote(id, "alice", kind.Approve), verify.OutcomeSelfApproval, kind.ReasonSelfApproval)
	w.approve(id, "carol")
	w.want(w.submit(w.f.Under(link, w.id["worker"], kind.Claim, account, &kind.ClaimBody{Request: id, ActionDigest: got.ActionDigest})), verify.OutcomeAccepted, "")
}

// The same request again, also from a client that restarted, is the same request (22).
func TestRequestIsIdempotent(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob"))
	s := w.asBot(kind.Request, w.requestBody(w.action(500)))
	first := w.want(w.submit(s), verify.OutcomeAccepted, "")
	again := w.submit(s)
	if again.State != ledger.Duplicate || again.Index != first.Index || string(again.Detail) != string(first.Detail) {
		t.Errorf("got %+v, want the first answer %+v", again, first)
	}
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob", "carol"))
	var ids []uint64
	for range 5 {
		ids = append(ids, w.ask().Request)
	}
	w.approve(ids[1], "bob")
	w.want(w.vote(ids[2], "carol", kind.Deny), verify.OutcomeAccepted, "")
	for name, tt := range map[string]struct {
		q    ListQuery
		want []uint64
	}{
		"all":                 {ListQuery{}, []uint64{ids[4], ids[3], ids[2], ids[1], ids[0]}},
		"pending":             {ListQuery{State: kind.StatePending}, []uint64{ids[4], ids[3], ids[0]}},
		"approved":            {ListQuery{State: kind.StateApproved}, []uint64{ids[1]}},
		"pending for bob":     {ListQuery{State: kind.StatePending, Human: w.id["bob"].ID}, []uint64{ids[4], ids[3], ids[0]}},
		"denied for bob":      {ListQuery{State: kind.StateDenied, Human: w.id["bob"].ID}, []uint64{ids[2]}},
		"all for bob":         {ListQuery{Human: w.id["bob"].ID}, []uint64{ids[4], ids[3], ids[2], ids[1], ids[0]}},
		"pending for erin":    {ListQuery{State: kind.StatePending, Human: w.id["erin"].ID}, nil},
		"of bot":              {ListQuery{Agent: w.id["bot"].ID, State: kind.StateDenied}, []uint64{ids[2]}},
		"of worker":           {ListQuery{Agent: w.id["worker"].ID}, nil},
		"of bot, asking erin": {ListQuery{Agent: w.id["bot"].ID, Human: w.id["erin"].ID}, nil},
	} {
		for _, limit := range []int{1, 2, 5, 100} {
			var got []uint64
			q := tt.q
			q.Limit = limit
			w.f.WithView(w.f.Tenant, func(v ledger.View) {
				for {
					list, next := ListApprovals(v, q)
					if len(list) > limit {
						t.Fatalf("%s: got %d of at most %d", name, len(list), limit)
					}
					for _, a := range list {
						got = append(got, a.ID)
					}
					if next == 0 {
						return
					}
					q.Before = next
				}
			})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s by %d (-want +got):\n%s", name, limit, diff)
			}
		}
	}
}

// Two ledgers that apply the same entries have the same state, and the replay is complete: handlers read nothing else.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob", "carol"), w.chain("wires", 1, "dave"))
	a, b, c := w.ask().Request, w.ask().Request, w.ask().Request
	w.approve(a, "bob")
	w.mustClaim(a)
	w.want(w.vote(b, "carol", kind.Deny), verify.OutcomeAccepted, "")
	w.f.Advance(30 * time.Hour)
	w.f.Tick()
	w.wantState(a, kind.StateUnknown)
	w.wantState(c, kind.StateExpired)
	w.f.Seal()
	cfg := w.f.Config
	cfg.Kinds = New(Config{Reserver: funds{}}).Kinds()
	again := ledgertest.NewWith(t, ledgertest.Options{Kinds: cfg.Kinds, Empty: true})
	if _, err := again.Log.Apply(w.f.Entries); err != nil {
		t.Fatal(err)
	}
	if got, want := stateHash(t, again), stateHash(t, w.f); got != want {
		t.Errorf("got state hash %x after the replay, want %x", got, want)
	}
}

func stateHash(t *testing.T, f *ledgertest.Fixture) nhi.Digest {
	t.Helper()
	s := f.Read()
	defer s.Close()
	return s.StateHash()
}
