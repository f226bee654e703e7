package oversight

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// Bounds and times of requests.
const (
	MaxRequestChains = 8   // chains that one request asks
	MaxApprovers     = 128 // humans that one request asks
	MaxPending       = 64  // requests of one agent that wait for their humans

	// ClaimGrace is how long after its last deadline, and its hold, a request that names no ttl can still be claimed.
	ClaimGrace = time.Hour
	// StartWindow is how long after the claim the action may begin, and ReportWindow how long after that its report is
	// waited for. The leases of the claim live as long as both.
	StartWindow  = time.Minute
	ReportWindow = 15 * time.Minute
)

func checkRequest(ev *nhi.Event) error {
	b, err := kind.DecodeRequestBody(ev.Body)
	if err != nil {
		return err
	}
	if b.Action.Agent != ev.Agent {
		return &kind.InvalidError{Field: "agent", Reason: "of the action is not the signer"}
	}
	return checkAddendum(ev, b.Reasoning)
}

// checkAddendum: a digest that a body names is one of the event's addenda, so that erasing them erases what it names.
func checkAddendum(ev *nhi.Event, d nhi.Digest) error {
	if d != (nhi.Digest{}) && !slices.Contains(ev.Addenda, d) {
		return &kind.InvalidError{Field: "reason", Reason: "is none of the event's addenda"}
	}
	return nil
}

// decideRequest opens a request. The edge has judged the action itself, not the asking: see AuthzRequest.
func (o *Oversight) decideRequest(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeRequestBody(ev.Body)
	if err == nil {
		err = checkRequest(ev.Event)
	}
	if err != nil {
		return refuseInvalid(err)
	}
	switch ev.Verdict.Outcome {
	case ledger.VerdictNeedsOversight:
	case ledger.VerdictAllow:
		return refuse(verify.OutcomeNotFound, kind.Refusal{Reason: kind.ReasonNotNeeded, Hint: "no policy wants this action approved: it is allowed as it is"})
	case ledger.VerdictDeny:
		return refuse(verify.OutcomeDenied, kind.Refusal{Reason: kind.ReasonNotEligible, Hint: "the policy forbids this action, and no approval can help"})
	default:
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNoVerdict, Hint: "agents, services and humans ask for approvals"})
	}
	r := &requestRow{
		Agent: ev.Agent, Key: ev.Key, Link: ev.Link, Account: ev.Account, Action: b.Action, Digest: b.Action.Digest(),
		Rendered: b.Rendered, Reason: b.Reasoning, Reserve: b.Reserve, Payload: ev.PayloadDigest, Policies: ev.Verdict.Policies,
		Members: members(ev), Created: at.Time, Nonce: ev.Nonce,
	}
	for i := range r.Reserve {
		if r.Reserve[i].Account.IsZero() {
			r.Reserve[i].Account = ev.Account
		}
	}
	if err := o.covered(v, ev, r, at.Time); err != nil {
		return refuse(ledger.OutcomeOf(registry.CodeOf(err)), kind.Refusal{
			Reason: kind.ReasonScope, Hint: "the delegation chain does not cover the action or what it reserves: " + err.Error(),
		})
	}
	if pending(v, ev.Agent, at.Time) >= MaxPending {
		return refuse(verify.OutcomeLimit, kind.Refusal{
			Reason: kind.ReasonTooMany,
			Hint:   fmt.Sprintf("%d requests of this agent wait for humans already: wait for them, or cancel some", MaxPending),
		})
	}
	policy, index := currentPolicy(v)
	r.Epoch, r.Policy, r.Soft = policy.Epoch, policy.Digest, policy.SoftDigest
	defined := chainsNamed(policy.chains(index), ev.Verdict.Chains)
	switch {
	case len(defined) < len(ev.Verdict.Chains) || len(defined) == 0:
		return refuse(verify.OutcomeNotFound, kind.Refusal{
			Reason: kind.ReasonChainUndefined, Hint: fmt.Sprintf("the policy in force does not define all of the chains %q that are to approve this", ev.Verdict.Chains),
		})
	case len(defined) > MaxRequestChains:
		return refuse(verify.OutcomeLimit, kind.Refusal{
			Reason: kind.ReasonTooMany, Hint: fmt.Sprintf("%d chains would have to approve this, at most %d can", len(defined), MaxRequestChains),
		})
	}
	r.Defined = chainsDigest(defined)
	r.Chains = frozen(v, defined, r.Members)

	s := &statusRow{State: kind.StatePending, Since: at.Time, Steps: make([]stepRow, len(r.Chains)), Leases: []uint64{}}
	var end int64
	for i := range r.Chains {
		c := &r.Chains[i]
		step, ok := c.Feasible(0)
		if !ok {
			return refuse(verify.OutcomeNotFound, kind.Refusal{
				Reason: kind.ReasonNoApprovers,
				Hint:   fmt.Sprintf("chain %q has too few active humans outside the requester's own delegation chain", c.Name),
			})
		}
		s.Steps[i] = stepRow{Step: uint64(step), Deadline: at.Time + c.Steps[step].Timeout}
		last := at.Time + c.Hold + int64(ClaimGrace)
		for j := step; j < len(c.Steps); j++ {
			last += c.Steps[j].Timeout
		}
		end = max(end, last)
	}
	if b.TTL != 0 {
		end = at.Time + b.TTL
	}
	r.End = end
	humans := r.humans()
	if len(humans) > MaxApprovers {
		return refuse(verify.OutcomeLimit, kind.Refusal{
			Reason: kind.ReasonTooMany, Hint: fmt.Sprintf("%d humans would be asked, at most %d can be", len(humans), MaxApprovers),
		})
	}

	id := v.NextIndex()
	statement := kind.RequestStatement{
		V: 1, Ledger: v.LedgerID(), Tenant: ev.Tenant, Request: id, Payload: r.Payload, Action: r.Digest, Rendered: r.Rendered,
		Policy: r.Policy, Chains: r.Chains, End: r.End, Policies: r.Policies, Created: r.Created,
	}
	r.Request = statement.Digest()
	d := ledger.Decision{
		Writes: []ledger.Write{
			{Table: TableRequest, Key: requestKey(id), Value: canon.MustMarshal(r)},
			{Table: TableStatus, Key: requestKey(id), Value: canon.MustMarshal(s)},
			{Table: TableByState, Key: stateKey(s.State, id)},
			{Table: TableByAgent, Key: agentKey(r.Agent, id)},
			{Table: TablePending, Key: agentKey(r.Agent, id)},
		},
		Timers: []ledger.Timer{{Due: r.End, Name: timerEnd, Ref: requestKey(id)}},
	}
	for _, h := range humans {
		d.Writes = append(d.Writes, ledger.Write{Table: TableByHuman, Key: humanKey(h, phasePending, id)})
	}
	opened := kind.Opened{Request: id, ShortCode: kind.ShortCode(r.Request), Deadline: r.End, RequestDigest: r.Request, End: r.End}
	for i := range s.Steps {
		opened.Deadline = min(opened.Deadline, s.Steps[i].Deadline)
		d.Timers = append(d.Timers, stepTimer(id, i, s.Steps[i].Deadline))
	}
	d.Detail = canon.MustMarshal(opened)
	return d
}

// pending counts the requests of an agent that wait for humans at a stamp. Near the bound it looks at each: some may have expired
// before a tick has said so.
func pending(v ledger.View, agent nhi.ID, at int64) (n int) {
	var ids []uint64
	v.Scan(TablePending, agent[:], nil, false, func(key, _ []byte) bool {
		ids = append(ids, keyIndex(key))
		return true
	})
	if len(ids) < MaxPending {
		return len(ids)
	}
	for _, id := range ids {
		if r, ok := load(v, id); ok {
			if r.settle(v, at); r.status.State == kind.StatePending {
				n++
			}
		}
	}
	return n
}

// members returns who stands in the requester's chain, the requester included, sorted.
func members(ev *ledger.Event) []nhi.ID {
	m := []nhi.ID{ev.Agent}
	if ev.Chain != nil {
		for _, id := range ev.Chain.Members() {
			m = kind.Union(m, []nhi.ID{id})
		}
	}
	return m
}

// covered holds the action, not only the asking, against the requester's chain: nobody is asked to approve what the chain
// would not let happen.
func (o *Oversight) covered(v ledger.View, ev *ledger.Event, r *requestRow, at int64) error {
	if ev.Chain == nil {
		return nil
	}
	req := registry.RequestOf(ev.Event, ev.Agent, at, o.tree(v))
	req.Action, req.Resource = r.Action.Operation, r.Action.Resource
	if id, ok := accountOf(r.Action.Resource); ok {
		req.Account = id
	}
	sums := amounts(r.Reserve)
	req.Amounts = sums
	if err := ev.Chain.Allows(req); err != nil {
		return err
	}
	// What is reserved is charged by the claim, so every account that pays must be one where the chain may claim.
	for i := range r.Reserve {
		req := registry.RequestOf(ev.Event, ev.Agent, at, req.Tree)
		req.Action, req.Account, req.Amounts = kind.Claim, r.Reserve[i].Account, sums
		if err := ev.Chain.Allows(req); err != nil {
			return err
		}
	}
	return nil
}

func size(list []string) (n int) {
	for _, s := range list {
		n += len(s)
	}
	return n
}

// amounts adds up what is reserved of each meter, ascending by meter. A sum that does not fit is the largest that does, which
// no cap allows.
func amounts(rs []kind.Reservation) []registry.Amount {
	var out []registry.Amount
	for i := range rs {
		j := slices.IndexFunc(out, func(a registry.Amount) bool { return a.Meter == rs[i].Meter })
		if j < 0 {
			out = append(out, registry.Amount{Meter: rs[i].Meter, N: rs[i].Amount})
			continue
		}
		if sum := out[j].N + rs[i].Amount; sum >= out[j].N {
			out[j].N = sum
		} else {
			out[j].N = 1<<64 - 1
		}
	}
	slices.SortFunc(out, func(a, b registry.Amount) int {
		switch {
		case a.Meter < b.Meter:
			return -1
		case a.Meter > b.Meter:
			return 1
		}
		return 0
	})
	return out
}

func (o *Oversight) tree(v ledger.View) registry.Tree {
	if o.cfg.Tree == nil {
		return nil
	}
	return o.cfg.Tree(v)
}

// chainsNamed returns the chains of a policy with the given names; both ascend.
func chainsNamed(chains []kind.Chain, names []string) []kind.Chain {
	var out []kind.Chain
	for i := range chains {
		if slices.Contains(names, chains[i].Name) {
			out = append(out, chains[i])
		}
	}
	return out
}

// chainsDigest identifies what a policy says about some of its chains.
func chainsDigest(chains []kind.Chain) nhi.Digest {
	if chains == nil {
		chains = []kind.Chain{}
	}
	return sha256.Sum256(canon.MustMarshal(chains))
}

// frozen returns the chains with only the humans who may in fact vote: active, and not in the requester's chain.
func frozen(v ledger.View, chains []kind.Chain, members []nhi.ID) []kind.Chain {
	out := make([]kind.Chain, len(chains))
	for i := range chains {
		out[i] = chains[i]
		out[i].Steps = make([]kind.Step, len(chains[i].Steps))
		for j, s := range chains[i].Steps {
			eligible := make([]nhi.ID, 0, len(s.Eligible))
			for _, id := range s.Eligible {
				if !kind.HasID(members, id) && active(v, id) {
					eligible = append(eligible, id)
				}
			}
			s.Eligible = eligible
			out[i].Steps[j] = s
		}
	}
	return out
}

// humans returns everybody whom a request may come to ask, sorted.
func (r *requestRow) humans() []nhi.ID {
	var all []nhi.ID
	for i := range r.Chains {
		all = kind.Union(all, r.Chains[i].Asked(len(r.Chains[i].Steps)-1))
	}
	return all
}
