package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

type voteView struct {
	Approver string  `json:"approver"`
	Decision string  `json:"decision"`
	Index    count   `json:"index"`
	Time     instant `json:"time"`
	Counted  bool    `json:"counted"`
}

type approvalView struct {
	Request       count            `json:"request_id"`
	State         string           `json:"state"`
	ShortCode     string           `json:"short_code"`
	Operation     string           `json:"operation"`
	Resource      string           `json:"resource"`
	Parameters    json.RawMessage  `json:"parameters" table:"-"`
	Reasons       string           `json:"agent_reasons,omitempty" table:"-"` // as the agent wrote them; nobody checked them
	ReasonsState  string           `json:"agent_reasons_state,omitempty" table:"-"`
	Agent         string           `json:"agent"`
	Link          string           `json:"link_id,omitempty" table:"-"`
	Account       string           `json:"account,omitempty" table:"-"`
	Chains        []string         `json:"chains"`
	Policies      []string         `json:"policies" table:"-"`
	Eligible      []string         `json:"eligible" table:"-"`
	ApproveNeeded uint32           `json:"approve_needed" table:"-"`
	DenyNeeded    uint32           `json:"deny_needed" table:"-"`
	Reserve       map[string]count `json:"reserve,omitempty" table:"-"`
	Votes         []voteView       `json:"votes" table:"-"`
	Created       instant          `json:"created" table:"-"`
	Deadline      instant          `json:"deadline"`
	NotAfter      instant          `json:"not_after,omitzero" table:"-"`
	StartBy       instant          `json:"start_by,omitzero" table:"-"`
	FencingToken  string           `json:"fencing_token,omitempty" table:"-"`
	ActionDigest  string           `json:"action_digest" table:"-"`
	RequestDigest string           `json:"request_digest" table:"-"`
	Read          *readView        `json:"read,omitempty" table:"-"`

	Reserves []string `json:"-" table:"-"` // each reservation, with the account that pays
}

func (v approvalView) quietID() string { return v.Request.String() }

func approvalOf(p *cretov1.Approval) approvalView {
	v := approvalView{
		Request: count(p.GetRequestId()), State: p.GetState(), ShortCode: p.GetShortCode(), Operation: p.GetOperation(), Resource: p.GetResource(),
		Agent: idOf(p.GetAgent()), Link: hashOf(p.GetLinkId()), Account: idOf(p.GetAccount()), Chains: p.GetChains(), Policies: p.GetPolicies(),
		Eligible: mapped(p.GetEligible(), idOf), ApproveNeeded: p.GetApproveNeeded(), DenyNeeded: p.GetDenyNeeded(), Created: instantNs(p.GetCreatedNs()),
		Deadline: instantNs(p.GetDeadlineNs()), NotAfter: instantNs(p.GetNotAfterNs()), StartBy: instantNs(p.GetStartByNs()),
		FencingToken: hashOf(p.GetFencingToken()), ActionDigest: hexOf(p.GetActionDigest()), RequestDigest: hexOf(p.GetRequestDigest()),
		Votes: []voteView{},
	}
	if json.Valid(p.GetParameters()) {
		v.Parameters = p.GetParameters()
	} else {
		v.Parameters = json.RawMessage("null")
	}
	for _, q := range p.GetReserve() {
		if v.Reserve == nil {
			v.Reserve = make(map[string]count)
		}
		v.Reserve[q.GetMeter()] += count(q.GetN())
		line := fmt.Sprintf("%d %s", q.GetN(), q.GetMeter())
		if at := idOf(q.GetAccount()); at != v.Account {
			line += " of account " + at
		}
		v.Reserves = append(v.Reserves, line)
	}
	for _, w := range p.GetVotes() {
		v.Votes = append(v.Votes, voteView{idOf(w.GetApprover()), w.GetDecision(), count(w.GetIndex()), instantNs(w.GetTimeNs()), w.GetCounted()})
	}
	return v
}

func (a *app) approvalCmd() *cobra.Command {
	in := func(state string, c *cobra.Command) *cobra.Command {
		return a.completeFirst(c, completeApprovals(state))
	}
	return noun("approval", "Ask people, decide, and use what they approved",
		`An agent asks for an approval of one exact action. The humans that the tenant's policy names decide with their own keys. What
they approve can be claimed once, by the key that asked, before it expires; afterwards the agent reports how it ended.`,
		a.approvalRequestCmd(), a.approvalListCmd(), in("", a.approvalShowCmd()), in("pending", a.approvalAwaitCmd()),
		in("pending", a.approvalVoteCmd("approve", kind.Approve)), in("pending", a.approvalVoteCmd("deny", kind.Deny)),
		in("approved", a.approvalClaimCmd()), in("claimed", a.approvalReportCmd()), in("pending", a.approvalCancelCmd()))
}

type openedView struct {
	Request      count   `json:"request_id"`
	ShortCode    string  `json:"short_code"`
	Deadline     instant `json:"deadline"`
	ActionDigest string  `json:"action_digest"`
	Index        count   `json:"index"`
}

func (o openedView) quietID() string { return o.Request.String() }

func (a *app) approvalRequestCmd() *cobra.Command {
	var o struct {
		params, reason, run string
		reserve             []string
		ttl                 time.Duration
		wait                bool
	}
	c := &cobra.Command{
		Use: "request OPERATION RESOURCE", Short: "Ask people to approve one action",
		Long: `Ask people to approve one action: an operation on a resource with parameters. Who decides, and by when, is said by the tenant's
policy. If the policy lets the action happen without approval, that is the answer (exit code 2, reason "not needed").`,
		Example: `  creto approval request pay account:ID --params '{"amount":"1200","currency":"EUR"}' --reason 'invoice 7' --as agent.key --link LINK --account ID
  creto approval request mail.send list:all --reserve mails=500 --wait`,
		Args: exactly("OPERATION", "RESOURCE"),
		RunE: func(c *cobra.Command, args []string) error {
			req := creto.Request{Operation: args[0], Resource: args[1], Run: o.run, Reasoning: o.reason, TTL: o.ttl}
			params, err := a.jsonParams(o.params)
			if err != nil {
				return err
			}
			req.Parameters = params
			q, err := parseQuantities(o.reserve)
			if err != nil {
				return err
			}
			for _, r := range q {
				req.Reserve = append(req.Reserve, kind.Reservation{Meter: r.Meter, Amount: r.N})
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				r, err := w.RequestApproval(ctx, req)
				if err != nil {
					return err
				}
				v := openedView{count(r.Request), r.ShortCode, instantNs(r.Deadline), hexHash(r.Action.Digest()), count(r.Result.Index)}
				if !o.wait {
					return a.object(v)
				}
				a.say("request %d (%s) is open until %s", r.Request, r.ShortCode, instantNs(r.Deadline))
				return a.await(c.Context(), w.client, w.Tenant(), r.Request)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.params, "params", "{}", "parameters of the action, a JSON object, or @FILE; no fractions, no null")
	f.StringVar(&o.reason, "reason", "", "why, shown to approvers as the agent's word; kept erasable, beside the log")
	f.StringVar(&o.run, "run", "", "the agent's name for this run")
	f.StringArrayVar(&o.reserve, "reserve", nil, "METER=N to reserve when it is claimed; repeat it")
	f.DurationVar(&o.ttl, "ttl", 0, "after it nothing is decided or claimed (default: as long as the chains allow)")
	f.BoolVar(&o.wait, "wait", false, "wait for the decision")
	return c
}

// jsonParams reads a JSON object with whole numbers kept exact.
func (a *app) jsonParams(text string) (any, error) {
	raw := []byte(text)
	if name, ok := strings.CutPrefix(text, "@"); ok {
		b, err := a.readText(name, kind.MaxParameters*2)
		if err != nil {
			return nil, localError(fmt.Errorf("read parameters: %w", err))
		}
		raw = b
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, usageError(fmt.Errorf("parameters are not a JSON object: %w", err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, usageError(errors.New("parameters are more than one JSON object"))
	}
	if _, err := kind.Parameters(m); err != nil {
		return nil, usageError(err)
	}
	return m, nil
}

func (a *app) approvalListCmd() *cobra.Command {
	var state, eligible string
	var limit uint32
	c := &cobra.Command{
		Use: "list", Short: "List requests, newest first", Args: noArgs,
		Example: "  creto approval list --state pending\n  creto approval list --eligible HUMAN -q",
		RunE: func(c *cobra.Command, _ []string) error {
			req := &cretov1.ListApprovalsRequest{State: state}
			if eligible != "" {
				id, err := parseID("--eligible", eligible)
				if err != nil {
					return err
				}
				req.Eligible = id[:]
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				req.Tenant = tenant
				rpc := cretov1.NewOversightServiceClient(cl)
				return pages(a, limit, func(size uint32, cursor string) ([]approvalView, string, error) {
					req.PageSize, req.Cursor = size, cursor
					r, err := rpc.ListApprovals(ctx, req)
					if err != nil {
						return nil, "", err
					}
					return mapped(r.GetApprovals(), approvalOf), r.GetNextCursor(), nil
				})
			})
		},
	}
	c.Flags().StringVar(&state, "state", "", "only this state: pending, approved, denied, expired, …")
	c.Flags().StringVar(&eligible, "eligible", "", "only what this human may decide")
	c.Flags().Uint32Var(&limit, "limit", 100, "at most this many; 0 = all")
	return c
}

func (a *app) getApproval(ctx context.Context, c *creto.Client, tenant nhi.ID, id uint64) (*cretov1.GetApprovalResponse, error) {
	return cretov1.NewOversightServiceClient(c).GetApproval(ctx, &cretov1.GetApprovalRequest{Tenant: tenant[:], RequestId: id})
}

// showApproval prints one request whole.
func (a *app) showApproval(ctx context.Context, cl *creto.Client, tenant nhi.ID, p *cretov1.Approval, read *cretov1.ReadInfo) error {
	v := approvalOf(p)
	v.Read = readOf(read)
	why, err := agentsReasons(ctx, cl, tenant, p.GetRequestId(), nil)
	if err != nil {
		return err
	}
	v.Reasons, v.ReasonsState = why.text, why.state
	if a.settings.quiet || a.settings.output != "table" {
		return a.object(v)
	}
	_, err = io.WriteString(a.shown(), approvalText(v))
	return err
}

func approvalText(v approvalView) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		if s := fmt.Sprintf(format, args...); s != "" {
			fmt.Fprintf(&b, "%-14s %s\n", name, s)
		}
	}
	line("request", "%d  %s", v.Request, v.ShortCode)
	line("state", "%s", v.State)
	line("operation", "%s", v.Operation)
	line("resource", "%s", v.Resource)
	line("parameters", "%s", v.Parameters)
	line("agent", "%s", v.Agent)
	line("under link", "%s", v.Link)
	line("account", "%s", v.Account)
	for _, r := range v.Reserves {
		line("reserves", "%s", r)
	}
	if v.Reasons != "" {
		line("agent's word", "(what the agent gives as its reasons; nobody has checked them)")
		for _, s := range quoted(v.Reasons) {
			line("", "%s", s)
		}
	} else if v.ReasonsState != "" {
		line("agent's word", "(%s)", v.ReasonsState)
	}
	line("asked because", "%s", strings.Join(v.Policies, ", "))
	line("chains", "%s", strings.Join(v.Chains, ", "))
	if v.State == kind.StatePending.String() {
		line("needs", "%d to approve, %d to deny, of %d humans", v.ApproveNeeded, v.DenyNeeded, len(v.Eligible))
	}
	for _, e := range v.Eligible {
		line("may decide", "%s", e)
	}
	for _, w := range v.Votes {
		note := ""
		if !w.Counted {
			note = " (not counted)"
		}
		line("vote", "%s %s at leaf %d, %s%s", w.Approver, w.Decision, w.Index, w.Time, note)
	}
	line("created", "%s", v.Created)
	if s := v.Deadline.String(); s != "" {
		line("deadline", "%s  (without a decision by then it is not approved)", s)
	}
	line("claim before", "%s", v.NotAfter)
	line("start by", "%s", v.StartBy)
	line("action", "%s", v.ActionDigest)
	return b.String()
}

func (a *app) approvalShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show REQUEST", Short: "Show a request: what, for whom, who decides, until when",
		Example: "  creto approval show 120\n  creto approval show 120 -o json",
		Args:    exactly("REQUEST"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("request", args[0])
			if err != nil {
				return err
			}
			t, err := a.tenant()
			if err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				r, err := a.getApproval(ctx, cl, t, id)
				if err != nil {
					return err
				}
				return a.showApproval(ctx, cl, t, r.GetApproval(), r.GetRead())
			})
		},
	}
}

func (a *app) approvalAwaitCmd() *cobra.Command {
	return &cobra.Command{
		Use: "await REQUEST", Short: "Wait until a request is decided",
		Long:    "Wait until a request is decided, however long that takes. Exit code 0 if it was approved, 5 if not.",
		Example: "  creto approval await 120 && creto approval claim 120 --as agent.key --link LINK --account ACCOUNT",
		Args:    exactly("REQUEST"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("request", args[0])
			if err != nil {
				return err
			}
			t, err := a.tenant()
			if err != nil {
				return err
			}
			return a.hold(c.Context(), func(ctx context.Context, cl *creto.Client) error { return a.await(ctx, cl, t, id) })
		},
	}
}

func (a *app) await(ctx context.Context, cl *creto.Client, tenant nhi.ID, id uint64) error {
	rpc := cretov1.NewOversightServiceClient(cl)
	pending := kind.StatePending.String()
	for {
		r, err := rpc.AwaitApproval(ctx, &cretov1.AwaitApprovalRequest{Tenant: tenant[:], RequestId: id, WhileState: pending, TimeoutMs: 50_000})
		if err != nil {
			return err
		}
		if s := r.GetApproval().GetState(); s == pending {
			continue
		}
		if err := a.showApproval(ctx, cl, tenant, r.GetApproval(), r.GetRead()); err != nil {
			return err
		}
		return stateError(r.GetApproval())
	}
}

// stateError is exit code 5 for a request that will never be usable.
func stateError(p *cretov1.Approval) error {
	switch s, _ := kind.ParseState(p.GetState()); s {
	case kind.StateDenied, kind.StateExpired, kind.StateCancelled, kind.StateWithdrawn, kind.StateLapsed:
		return &failure{code: exitApproval, err: fmt.Errorf("request %d is %s", p.GetRequestId(), p.GetState())}
	}
	return nil
}

type claimedView struct {
	Request  count   `json:"request_id"`
	Token    string  `json:"fencing_token"`
	StartBy  instant `json:"start_by"`
	ReportBy instant `json:"report_by"`
	Leases   []count `json:"leases"`
}

func (c claimedView) quietID() string { return c.Token }

func (a *app) approvalClaimCmd() *cobra.Command {
	var digest string
	c := &cobra.Command{
		Use: "claim REQUEST", Short: "Take an approval, once, and begin",
		Long: `Take the grant of an approved request, once, with the key that asked, and reserve what it asked for. The fencing token shows it.

Without --action-digest the action is taken from the request as this identity signed it.`,
		Example: "  creto approval claim 120 --as agent.key --link LINK --account ACCOUNT",
		Args:    exactly("REQUEST"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("request", args[0])
			if err != nil {
				return err
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				var action nhi.Digest
				if digest != "" {
					if n, err := decodeHex(action[:], digest); err != nil || n != len(action) {
						return usageError(fmt.Errorf("--action-digest %q is not 64 hexadecimal digits", digest))
					}
				} else {
					q, err := a.question(ctx, w, id)
					if err != nil {
						return err
					}
					if err := stateError(q.Approval); err != nil {
						return err
					}
					action = q.ActionDigest
				}
				r, err := w.Claim(ctx, id, action)
				if err != nil {
					return err
				}
				v := claimedView{Request: count(id), Token: hexOf(r.Token[:]), StartBy: instantNs(r.StartBy), ReportBy: instantNs(r.ReportBy), Leases: []count{}}
				for _, l := range r.Leases {
					v.Leases = append(v.Leases, count(l))
				}
				return a.object(v)
			})
		},
	}
	c.Flags().StringVar(&digest, "action-digest", "", "digest of the action that is about to be done")
	return c
}

type reportedView struct {
	Request count  `json:"request_id"`
	Counted bool   `json:"counted"`
	State   string `json:"state"`
}

func (r reportedView) quietID() string { return r.State }

func (a *app) approvalReportCmd() *cobra.Command {
	var token, result, description string
	c := &cobra.Command{
		Use: "report REQUEST", Short: "Say how the approved action ended",
		Example: "  creto approval report 120 --token TOKEN --result executed --as agent.key --link LINK --account ACCOUNT",
		Args:    exactly("REQUEST"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("request", args[0])
			if err != nil {
				return err
			}
			if token == "" {
				return usageError(errors.New("no fencing token"), "give the one that `creto approval claim` printed with --token")
			}
			var t kind.FencingToken
			if n, err := decodeHex(t[:], token); err != nil || n != len(t) {
				return usageError(errors.New("--token is not a fencing token"), "the one that `creto approval claim` printed")
			}
			if result != "executed" && result != "failed" {
				return usageError(fmt.Errorf("--result %q is not executed or failed", result))
			}
			var text []byte
			if description != "" {
				if text, err = a.readText(description, 16<<20); err != nil {
					return localError(fmt.Errorf("read description: %w", err))
				}
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				r, err := w.Report(ctx, id, t, result == "executed", text)
				if err != nil {
					return err
				}
				return a.object(reportedView{count(r.Request), r.Counted, r.State.String()})
			})
		},
	}
	c.Flags().StringVar(&token, "token", "", "fencing token of the claim")
	c.Flags().StringVar(&result, "result", "executed", "executed or failed")
	c.Flags().StringVar(&description, "description", "", "file that describes the result; its SHA-256 is reported")
	return c
}

func (a *app) approvalCancelCmd() *cobra.Command {
	return &cobra.Command{
		Use: "cancel REQUEST", Short: "Take a request back",
		Example: "  creto approval cancel 120 --as agent.key --link LINK --account ACCOUNT",
		Args:    exactly("REQUEST"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("request", args[0])
			if err != nil {
				return err
			}
			body, err := (&kind.RefBody{Request: id}).Encode()
			if err != nil {
				return usageError(err)
			}
			return a.do(c.Context(), byActor, kind.Cancel, body)
		},
	}
}
