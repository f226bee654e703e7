package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

type votedView struct {
	Request  count  `json:"request_id"`
	Decision string `json:"decision"`
	Counted  bool   `json:"counted"`
	State    string `json:"state"`
}

func (v votedView) quietID() string { return v.State }

func (a *app) approvalVoteCmd(verb string, choice kind.Choice) *cobra.Command {
	var reason, digest string
	var yes bool
	c := &cobra.Command{
		Use: verb + " REQUEST", Short: strings.ToUpper(verb[:1]) + verb[1:] + " a request, with your own key",
		Long: `Show a request, check that what is shown is what the agent signed, ask, and sign the decision with the human's own key (--as).

Without a terminal, --yes decides without being asked; with --action-digest, only if the request is about exactly that action.`,
		Example: "  creto approval " + verb + " 120 --as ada.key\n  creto approval " + verb + " 120 --as ada.key --yes --reason 'checked with finance'",
		Args:    exactly("REQUEST"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("request", args[0])
			if err != nil {
				return err
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				if w.key.Role != "human" {
					return usageError(fmt.Errorf("this is the key of a %s; decisions are a human's", w.key.Role), "name the human's key file with --as")
				}
				got, err := a.getApproval(ctx, w.client, w.Tenant(), id)
				if err != nil {
					return err
				}
				p := got.GetApproval()
				body, err := a.ballot(ctx, w, p, choice)
				if err != nil {
					return err
				}
				if digest != "" && digest != hexHash(body.ActionDigest) {
					return &failure{code: exitRefused, err: errors.New("the request is about another action than --action-digest")}
				}
				if err := a.confirm(p, verb, yes || digest != ""); err != nil {
					return err
				}
				// The time at the prompt does not count against --timeout.
				ctx, cancel := context.WithTimeout(c.Context(), a.settings.timeout)
				defer cancel()
				r, err := w.Vote(ctx, *body, reason)
				if err != nil {
					return err
				}
				return a.object(votedView{count(r.Request), choice.String(), r.Counted, r.State.String()})
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; kept erasable, beside the log")
	c.Flags().StringVar(&digest, "action-digest", "", "decide only about the action with this digest")
	c.Flags().BoolVar(&yes, "yes", false, "decide without being asked")
	return c
}

// ballot returns what the human signs, after holding what the server shows against what the agent signed.
func (a *app) ballot(ctx context.Context, w *actor, p *cretov1.Approval, choice kind.Choice) (*kind.VoteBody, error) {
	tenant := w.Tenant()
	differs := func(what string) error {
		return &failure{code: exitSignature, err: fmt.Errorf("request %d: %s is not what the agent signed", p.GetRequestId(), what),
			hints: []string{"do not decide; keep this output and tell whoever runs the cluster"}}
	}
	r, err := cretov1.NewEventServiceClient(w.client).GetEvent(ctx, &cretov1.GetEventRequest{Tenant: tenant[:], Index: p.GetRequestId()})
	if err != nil {
		return nil, fmt.Errorf("ask for the request's event: %w", err)
	}
	l, err := verify.DecodeLeaf(r.GetEvent().GetLeaf())
	if err != nil {
		return nil, fmt.Errorf("read the request's leaf: %w", err)
	}
	ev, err := nhi.DecodeEvent(r.GetEvent().GetPayload())
	if err != nil {
		return nil, fmt.Errorf("read the request's event: %w", err)
	}
	if nhi.PayloadDigest(r.GetEvent().GetPayload()) != l.Payload || ev.Kind != kind.Request || ev.Agent != l.Agent {
		return nil, differs("the event")
	}
	b, err := kind.DecodeRequestBody(ev.Body)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	act := b.Action
	switch {
	case act.Agent != nhi.ID(idBytes(p.GetAgent())):
		return nil, differs("the agent")
	case act.Operation != p.GetOperation() || act.Resource != p.GetResource():
		return nil, differs("the operation or the resource")
	case string(act.Parameters) != string(p.GetParameters()):
		return nil, differs("a parameter")
	case hexHash(act.Digest()) != hexOf(p.GetActionDigest()):
		return nil, differs("the digest of the action")
	case len(p.GetRequestDigest()) != len(nhi.Digest{}):
		return nil, errors.New("read the request: its digest has the wrong length")
	}
	request := nhi.Digest(p.GetRequestDigest())
	if kind.ShortCode(request) != p.GetShortCode() {
		return nil, differs("the short code")
	}
	return &kind.VoteBody{Request: p.GetRequestId(), Choice: choice, ActionDigest: act.Digest(), RequestDigest: request}, nil
}

func idBytes(b []byte) (id nhi.ID) {
	copy(id[:], b)
	return id
}

// confirm shows the request and asks, unless it was told not to.
func (a *app) confirm(p *cretov1.Approval, verb string, yes bool) error {
	fmt.Fprint(a.err, visible(approvalText(approvalOf(p))))
	if yes {
		return nil
	}
	if !terminal(a.in) {
		return usageError(errors.New("there is no terminal to ask at"), "decide with --yes, or with --action-digest for exactly one action")
	}
	fmt.Fprintf(a.err, "\n%s this, with your key? Type %q: ", verb, verb)
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != verb {
		return &failure{code: exitLocal, err: errors.New("nothing was decided")}
	}
	return nil
}
