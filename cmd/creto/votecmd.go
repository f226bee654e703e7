package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
	creto "github.com/creto-systems/creto/sdk/go"
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
		Long: `Show a request, ask, and sign the decision with the human's own key (--as). Before anything is shown, the agent's signature is
verified under the key that the registry has for it, all that is shown of the question is held against what the agent signed, and the
digest that the decision names is computed from it here. A difference ends the command. The agent's reasons are shown as its word.

Without a terminal, --yes decides without being asked; with --action-digest, only if the request is about exactly that action.`,
		Example: "  creto approval " + verb + " 120 --as ada.key\n  creto approval " + verb + " 120 --as ada.key --yes --reason 'checked with finance'",
		Args:    exactly("REQUEST"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("request", args[0])
			if err != nil {
				return err
			}
			if a.settings.from["link"] != "--link" { // the one in the environment is an agent's; a human decides in their own name
				a.settings.link = nhi.LinkID{}
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				if w.key.Role != "human" {
					return usageError(fmt.Errorf("this is the key of a %s; decisions are a human's", w.key.Role), "name the human's key file with --as")
				}
				q, err := a.question(ctx, w, id)
				if err != nil {
					return err
				}
				body := q.Vote(choice)
				if digest != "" && digest != hexHash(body.ActionDigest) {
					return &failure{code: exitRefused, err: errors.New("the request is about another action than --action-digest")}
				}
				shown := approvalOf(q.Approval)
				why, err := agentsReasons(ctx, w.client, w.Tenant(), id, &q.Body.Reasoning)
				if err != nil {
					return err
				}
				shown.Reasons, shown.ReasonsState = why.text, why.state
				if err := a.confirm(c.Context(), shown, verb, yes || digest != ""); err != nil {
					return err
				}
				// The time at the prompt does not count against --timeout.
				ctx, cancel := context.WithTimeout(c.Context(), a.settings.timeout)
				defer cancel()
				r, err := w.Vote(ctx, body, reason)
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

// question returns what a request asks, after holding what the server shows against what the agent signed.
func (a *app) question(ctx context.Context, w *actor, id uint64) (*creto.Question, error) {
	q, err := w.CheckApproval(ctx, id)
	if e, ok := errors.AsType[*creto.MismatchError](err); ok {
		return nil, &failure{code: exitSignature, err: err, hints: []string{e.Hint()}}
	}
	return q, err
}

// confirm shows the request and asks, unless it was told not to.
func (a *app) confirm(ctx context.Context, v approvalView, verb string, yes bool) error {
	fmt.Fprint(a.err, visible(approvalText(v)))
	if yes {
		return nil
	}
	in, ok := a.in.(*os.File)
	if !ok || !terminal(in) {
		return usageError(errors.New("there is no terminal to ask at"), "decide with --yes, or with --action-digest for exactly one action")
	}
	answer, err := a.ask(ctx, in, fmt.Sprintf("\n%s this, with your key? Type %q: ", verb, verb), false)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || strings.TrimSpace(answer) != verb {
		return &failure{code: exitLocal, err: errors.New("nothing was decided")}
	}
	return nil
}
