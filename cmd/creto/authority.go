package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	oversight "github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// maxShownScopes is how many scopes of a link a hint spells out.
const maxShownScopes = 6

// held is an event that did not have the authority it needed, and what became of it.
type held struct {
	event *nhi.Event
	flag  *creto.Flag // nil = refused
	rule  string      // that it broke; may be empty
}

// observe keeps what the registry held against an event. Facts take effect nevertheless, which their result alone hides.
func (w *actor) observe(payload []byte, r *creto.Result) {
	if r.State == creto.StateConflict { // its detail is of the event that had the id first
		return
	}
	detail := r.Detail
	if r.Flag != nil {
		detail = r.Flag.Refusal
	} else if r.Err() == nil {
		return
	}
	rule := ruleOf(detail)
	ev, err := nhi.DecodeEvent(payload)
	if err != nil || r.Flag == nil && rule == "" {
		return
	}
	w.last = &held{ev, r.Flag, rule}
}

// ruleOf names the rule that a refusal of the registry says was broken; "" if it is no such refusal.
func ruleOf(detail []byte) string {
	var why registry.Refusal
	if len(detail) == 0 || canon.Unmarshal(detail, &why) != nil {
		return ""
	}
	return why.Name
}

// flagText is the outcome that a flagged fact would have had as an ask, and the rule; "" without a flag.
func flagText(f *creto.Flag) string {
	if f == nil {
		return ""
	}
	s := f.Outcome.String()
	if rule := ruleOf(f.Refusal); rule != "" {
		s += ": " + strings.ReplaceAll(rule, "_", " ")
	}
	return s
}

// explainAuthority says that a fact was flagged, and adds to a refusal what the chain would have allowed.
func (a *app) explainAuthority(ctx context.Context, w *actor, err error) error {
	if w.last == nil {
		return err
	}
	hint := ""
	if w.last.rule == registry.CodeDenied.String() {
		hint = scopeHint(ctx, w)
	}
	if w.last.flag != nil {
		a.say("creto: it took effect, because it states what has happened, but it is flagged: %s", flagText(w.last.flag))
		if hint != "" {
			a.say("  hint: %s", hint)
		}
		return err
	}
	if _, ok := errors.AsType[*creto.RefusedError](err); !ok || hint == "" {
		return err
	}
	f := explain(err)
	return &failure{code: f.code, err: err, hints: append(f.hints, hint)}
}

// scopeHint holds what an event is about against what the chain allows; "" if that cannot be found out.
func scopeHint(ctx context.Context, w *actor) string {
	ev, tenant := w.last.event, w.Tenant()
	if ev.Link.IsZero() {
		return ""
	}
	r, err := cretov1.NewIdentityServiceClient(w.client).GetChain(ctx, &cretov1.GetChainRequest{Tenant: tenant[:], LinkId: ev.Link[:]})
	if err != nil || len(r.GetLinks()) == 0 {
		return ""
	}
	l, err := registry.DecodeLink(r.GetLinks()[len(r.GetLinks())-1].GetBody())
	if err != nil {
		return ""
	}
	return scopeText(ev, l.Scopes)
}

func scopeText(ev *nhi.Event, scopes []registry.Scope) string {
	var allowed []string
	for i, s := range scopes {
		if i == maxShownScopes {
			allowed = append(allowed, fmt.Sprintf("%d more", len(scopes)-i))
			break
		}
		on := " on " + s.Resource
		if s.Resource == "*" {
			on = " on anything"
		}
		allowed = append(allowed, strings.Join(s.Actions, ", ")+on)
	}
	about := ev.Kind
	if ev.Kind == oversight.Request {
		if b, err := oversight.DecodeRequestBody(ev.Body); err == nil {
			about += " of " + b.Action.Operation + " on " + b.Action.Resource
		}
	}
	if ev.Account.IsZero() {
		about += ", about no account: --account or CRETO_ACCOUNT names one"
	} else {
		about += ", about account:" + ev.Account.String()
	}
	return fmt.Sprintf("link %s… allows %s; this event is %s", ev.Link.String()[:12], strings.Join(allowed, "; "), about)
}
