package oversight

import (
	"strings"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// strictView is the view of a tenant that is strict about commit times, or not.
type strictView struct {
	ledger.View
	strict bool
}

func (v strictView) Tenant() ledger.Tenant {
	t := v.View.Tenant()
	t.Strict = v.strict
	return t
}

// Votes and claims are refused for everybody while consensus time is stale, whatever they reserve, and strict tenants neither
// ask then nor claim while it is carried over.
func TestTimeQuality(t *testing.T) {
	w := newWorld(t)
	w.publish(w.chain("payments", 1, "bob", "carol"), w.chain("wires", 1, "carol"))
	open := w.ask()
	granted := w.ask()
	w.approve(granted.Request, "bob")
	claimed := w.ask()
	w.approve(claimed.Request, "bob")
	token := w.mustClaim(claimed.Request).Token

	bot := w.id["bot"].ID
	events := map[string]*ledger.Event{
		kind.Vote:    {Event: w.f.Event(w.id["bob"], kind.Vote, w.ballot(open.Request, kind.Approve)).Event},
		kind.Claim:   {Event: w.asBot(kind.Claim, &kind.ClaimBody{Request: granted.Request, ActionDigest: w.get(granted.Request).ActionDigest}).Event},
		kind.Request: {Event: w.asBot(kind.Request, w.requestBody(w.action(500))).Event},
		kind.Cancel:  {Event: w.asBot(kind.Cancel, &kind.RefBody{Request: open.Request}).Event},
		kind.Report:  {Event: w.asBot(kind.Report, &kind.ReportBody{Request: claimed.Request, Token: token, Result: kind.ResultExecuted}).Event},
	}
	const good, carried, single, stale = verify.QualityGood, verify.QualityCarried, verify.QualitySingle, verify.QualityStale
	for _, tc := range []struct {
		quality verify.QualityCode
		strict  bool
		refused []string
	}{
		{good, false, nil},
		{good, true, nil},
		{single, true, nil},
		{carried, false, nil},
		{carried, true, []string{kind.Claim}},
		{stale, false, []string{kind.Vote, kind.Claim}},
		{stale, true, []string{kind.Vote, kind.Claim, kind.Request, kind.Cancel}},
	} {
		refused := make(map[string]bool)
		for _, name := range tc.refused {
			refused[name] = true
		}
		w.f.WithView(w.f.Tenant, func(view ledger.View) {
			v := strictView{view, tc.strict}
			rv := ledger.RegistryView(v)
			for name, ev := range events {
				var err error
				if ev.Signer, err = registry.ResolveIdentity(rv, ev.Agent, v.NextIndex()); err != nil {
					t.Fatal(err)
				}
				if ev.Agent == bot {
					if ev.Chain, err = registry.ResolveChain(rv, ev.Link, v.NextIndex()); err != nil {
						t.Fatal(err)
					}
					ev.Key = w.get(granted.Request).Key
				}
				ev.Verdict = ledger.Verdict{Outcome: ledger.VerdictAllow}
				if name == kind.Request {
					ev.Verdict = ledger.Verdict{Outcome: ledger.VerdictNeedsOversight, Chains: []string{"payments"}, Policies: []string{"pay"}}
				}
				d := w.o.Decide(v, ev, ledger.Stamp{Time: w.f.Now, Quality: verify.Quality{Code: tc.quality}})
				want := verify.OutcomeAccepted
				if refused[name] {
					want = verify.OutcomeTimeQuality
				}
				if d.Outcome != want || refused[name] && len(d.Writes)+len(d.Timers)+len(d.Leaves) > 0 {
					t.Errorf("%s at quality %v, strict %v: got %v (%x), %d writes, want %v", name, tc.quality, tc.strict, d.Outcome, d.Detail, len(d.Writes), want)
				}
			}
		})
	}
}

// What a body that cannot be read is refused with, if it gets past the edge, holds no words of a library.
func TestInvalidBodiesInOwnWords(t *testing.T) {
	w := newWorld(t)
	for name, want := range map[string]string{
		"":                 "the body is not canonical: ",
		"\xff":             "the body is not canonical: ",
		"\xa1\x01\x61\xff": "the body is not canonical: ",
		"\xa2\x01\x01\x01": "the body is not canonical: ",
		"\x80":             "the body is not ",
		"\xa1\x01\x20":     "the body is not ",
		"\xa1\x18\x63\x00": "the body is not ",
		"\xa0":             "",
	} {
		for _, k := range w.o.Kinds() {
			w.f.WithView(w.f.Tenant, func(v ledger.View) {
				ev := &ledger.Event{Event: &nhi.Event{Kind: k.Name, Body: []byte(name), Agent: w.id["bot"].ID}}
				d := w.o.Decide(v, ev, ledger.Stamp{Time: w.f.Now})
				r, err := kind.DecodeRefusal(d.Detail)
				if err != nil || d.Outcome.Accepted() {
					t.Fatalf("%s %x: got %v, %v, want a refusal", k.Name, name, d.Outcome, err)
				}
				if d.Outcome != verify.OutcomeInvalid && name != "\xa0" || !strings.HasPrefix(r.Hint, want) || strings.Contains(r.Hint, "cbor") || strings.Contains(r.Hint, "Go ") {
					t.Errorf("%s %x: got %v, %q, want %q", k.Name, name, d.Outcome, r.Hint, want)
				}
			})
		}
	}
}
