package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// Bounds of an agent's reasons beside a request; `creto event get --addenda` shows the whole.
const (
	maxShownReasons     = 2000 // bytes
	maxShownReasonLines = 24
)

// reasons are what an agent gave as its reasons for a request: text that it chose and nobody checked.
type reasons struct {
	text  string
	state string // "" = the request names none; "present", or why they cannot be shown
}

// agentsReasons fetches the reasons of a request and holds them against the digest that the agent signed: the one given, or the one
// in the event that the server shows.
func agentsReasons(ctx context.Context, cl *creto.Client, tenant nhi.ID, request uint64, signed *nhi.Digest) (reasons, error) {
	r, err := cretov1.NewEventServiceClient(cl).GetEvent(ctx, &cretov1.GetEventRequest{Tenant: tenant[:], Index: request, WithAddenda: true})
	if err != nil {
		return reasons{}, fmt.Errorf("ask for the agent's reasons: %w", err)
	}
	if signed == nil {
		ev, err := nhi.DecodeEvent(r.GetEvent().GetPayload())
		if err != nil {
			return reasons{}, fmt.Errorf("read request %d: %w", request, err)
		}
		b, err := kind.DecodeRequestBody(ev.Body)
		if err != nil {
			return reasons{}, fmt.Errorf("read request %d: %w", request, err)
		}
		signed = &b.Reasoning
	}
	return matchReasons(r.GetEvent(), request, *signed)
}

func matchReasons(ev *cretov1.EventView, request uint64, signed nhi.Digest) (reasons, error) {
	if signed == (nhi.Digest{}) {
		return reasons{}, nil
	}
	for _, p := range ev.GetAddenda() {
		ad := nhi.Addendum{Data: p.GetData()}
		if copy(ad.Salt[:], p.GetSalt()) == len(p.GetSalt()) && nhi.AddendumDigest(ad) == signed {
			return reasons{printable(ad.Data), "present"}, nil
		}
	}
	if len(ev.GetAddenda()) > 0 {
		err := &creto.MismatchError{Request: request, Field: "reasons"}
		return reasons{}, &failure{code: exitSignature, err: err, hints: []string{err.Hint()}}
	}
	state := ev.GetAddendaState()
	if !strings.HasPrefix(state, "erased") {
		state = "withheld by the server"
	}
	return reasons{state: state}, nil
}

// quoted marks each line of a text that somebody else chose, so that none can pass for a line of ours.
func quoted(text string) []string {
	cut := ""
	if len(text) > maxShownReasons {
		text, cut = strings.ToValidUTF8(text[:maxShownReasons], ""), "(there is more: creto event get REQUEST --addenda)"
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > maxShownReasonLines {
		lines, cut = lines[:maxShownReasonLines], "(there is more: creto event get REQUEST --addenda)"
	}
	for i := range lines {
		lines[i] = "| " + lines[i]
	}
	if cut != "" {
		lines = append(lines, cut)
	}
	return lines
}
