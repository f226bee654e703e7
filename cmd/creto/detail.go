package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	meter "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	oversight "github.com/creto-systems/creto/oversight/kind"
	sandbox "github.com/creto-systems/creto/sandbox/kind"
	creto "github.com/creto-systems/creto/sdk/go"
)

// hintOfLink says which link an event was refused under because another identity holds it, and where it came from.
func (s *settings) hintOfLink(err error) string {
	r, ok := errors.AsType[*creto.RefusedError](err)
	why := new(registry.Refusal)
	if !ok || s.link.IsZero() || canon.Unmarshal(r.Result.Detail, why) != nil || why.Code != registry.CodeNotHolder {
		return ""
	}
	source := s.from["link"]
	if source == "" {
		source = "--parent"
	}
	h := fmt.Sprintf("link %s, from %s, is held by another identity than the one that signs", s.link, source)
	if source == "CRETO_LINK" {
		h += ": unset CRETO_LINK, or name the signer's own with --link"
	}
	return h
}

// describeDetail puts the detail of a refusal into words. What it cannot read it leaves out: the outcome has been said.
func describeDetail(r *creto.RefusedError) []string {
	d := r.Result.Detail
	if len(d) == 0 {
		return nil
	}
	if q, err := meter.DecodeRefusal(d); err == nil && q.Meter != "" {
		return describeQuota(q)
	}
	switch {
	case strings.HasPrefix(r.Kind, "approval."), strings.HasPrefix(r.Kind, "policy."):
		if o, err := oversight.DecodeRefusal(d); err == nil {
			return describeOversight(o)
		}
	case strings.HasPrefix(r.Kind, "sandbox."), strings.HasPrefix(r.Kind, "attestation."):
		if s, err := sandbox.DecodeRefusal(d); err == nil {
			return []string{s.Hint}
		}
	case strings.HasPrefix(r.Kind, "quota."), r.Kind == meter.Usage:
		if q, err := meter.DecodeRefusal(d); err == nil && q.Hint != "" {
			return []string{q.Hint}
		}
	}
	why := new(registry.Refusal)
	if canon.Unmarshal(d, why) == nil && why.Name != "" {
		s := "rule: " + strings.ReplaceAll(why.Name, "_", " ")
		if why.Hop != nil {
			s += fmt.Sprintf(" (at link %d of the chain, the root being 0)", *why.Hop)
		}
		return []string{s}
	}
	return nil
}

func describeQuota(q *meter.Refusal) []string {
	level := "account " + q.Account.String()
	if !q.Link.IsZero() {
		level = "the budget of link " + q.Link.String()
	}
	s := fmt.Sprintf("%s has %d of %d %s left for this %s (%d charged, %d reserved)",
		level, q.Remaining, q.Limit, q.Meter, q.Period, q.Charged, q.Open)
	if q.Want != 0 {
		s += fmt.Sprintf("; asked for %d", q.Want)
	}
	out := []string{s}
	if q.ResetsAt != 0 {
		out = append(out, "it begins anew at "+time.Unix(0, q.ResetsAt).UTC().Format(time.RFC3339))
	}
	if q.Hint != "" {
		out = append(out, q.Hint)
	}
	return out
}

func describeOversight(o *oversight.Refusal) []string {
	s := "reason: " + strings.ReplaceAll(string(o.Reason), "_", " ")
	if o.State != 0 {
		s += ", the request is " + o.State.String()
	}
	if o.Index != 0 {
		s += fmt.Sprintf(", see leaf %d", o.Index)
	}
	if o.Time != 0 {
		s += ", " + time.Unix(0, o.Time).UTC().Format(time.RFC3339)
	}
	out := []string{s}
	if o.Hint != "" {
		out = append(out, o.Hint)
	}
	return out
}
