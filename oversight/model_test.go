package oversight

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
)

// model is a request as the design describes it, in the plainest terms: it keeps everything that happened, moves through
// deadlines one by one in the order of time, and counts by trying out every way to seat the approvers.
type model struct {
	id       uint64
	chains   []modelChain
	state    kind.State
	end      int64
	hold     int64
	opens    int64
	reportBy int64
	votes    map[string]*modelVote
	token    kind.FencingToken
	reported bool
}

type modelChain struct {
	steps    []modelStep
	step     int
	deadline int64
}

type modelStep struct {
	eligible []string // without those who may not vote
	approve  int
	deny     int
	timeout  int64
}

type modelVote struct {
	who       string
	choice    kind.Choice
	time      int64
	cast      bool // while the request was pending
	withdrawn bool
}

// chains are those in which a vote counts, as they stand.
func (m *model) chainsOf(v *modelVote) (in []int) {
	for i := range m.chains {
		if c := &m.chains[i]; v.cast && !v.withdrawn && c.asks(v.who) && v.time < c.deadline {
			in = append(in, i)
		}
	}
	return in
}

func (c *modelChain) asks(who string) bool {
	for _, s := range c.steps[:c.step+1] {
		if slices.Contains(s.eligible, who) {
			return true
		}
	}
	return false
}

func (c *modelChain) ever(who string) bool {
	for _, s := range c.steps {
		if slices.Contains(s.eligible, who) {
			return true
		}
	}
	return false
}

// begin moves a chain to the first step from one on that can reach its quorum.
func (c *modelChain) begin(step int, at int64) bool {
	for ; step < len(c.steps); step++ {
		asked := map[string]bool{}
		for _, s := range c.steps[:step+1] {
			for _, who := range s.eligible {
				asked[who] = true
			}
		}
		if len(asked) >= c.steps[step].approve {
			c.step, c.deadline = step, at+c.steps[step].timeout
			return true
		}
	}
	return false
}

func (m *model) counted(chain int, c kind.Choice) (n int) {
	for _, v := range m.votes {
		if v.choice == c && slices.Contains(m.chainsOf(v), chain) {
			n++
		}
	}
	return n
}

// seated tries every assignment of approvers to chains.
func (m *model) seated() bool {
	var approvers []*modelVote
	for _, v := range m.votes {
		if v.choice == kind.Approve && !v.withdrawn {
			approvers = append(approvers, v)
		}
	}
	need := make([]int, len(m.chains))
	for i := range m.chains {
		need[i] = m.chains[i].steps[m.chains[i].step].approve
	}
	var try func(k int) bool
	try = func(k int) bool {
		if k == len(approvers) {
			return slices.Max(need) <= 0
		}
		if try(k + 1) {
			return true
		}
		for _, c := range m.chainsOf(approvers[k]) {
			need[c]--
			ok := try(k + 1)
			need[c]++
			if ok {
				return true
			}
		}
		return false
	}
	return try(0)
}

// advance lets time pass up to at, one deadline after the other.
func (m *model) advance(at int64) {
	for m.state == kind.StatePending {
		next, which := m.end, -1
		for i := range m.chains {
			c := &m.chains[i]
			if m.counted(i, kind.Approve) < c.steps[c.step].approve && c.deadline < next {
				next, which = c.deadline, i
			}
		}
		if next > at {
			break
		}
		if which < 0 || !m.chains[which].begin(m.chains[which].step+1, next) {
			m.state = kind.StateExpired
			break
		}
		for _, v := range m.votes {
			next = max(next, v.time)
		}
		m.decide(next)
	}
	if m.state == kind.StateApproved && at >= m.end {
		m.state = kind.StateLapsed
	}
	if m.state == kind.StateClaimed && at >= m.reportBy {
		m.state = kind.StateUnknown
	}
}

// vote returns whether it is accepted and whether it counts.
func (m *model) vote(who string, c kind.Choice, at int64) (accepted, counted bool) {
	if who == "alice" || m.votes[who] != nil {
		return false, false
	}
	m.advance(at)
	v := &modelVote{who: who, choice: c, time: at, cast: m.state == kind.StatePending}
	asked := false
	for i := range m.chains {
		if v.cast {
			asked = asked || m.chains[i].asks(who)
		} else {
			asked = asked || m.chains[i].ever(who)
		}
	}
	if !asked {
		return false, false
	}
	m.votes[who] = v
	if len(m.chainsOf(v)) == 0 {
		return true, false
	}
	m.decide(at)
	return true, true
}

// decide ends a request that the votes there are decide.
func (m *model) decide(at int64) {
	for i := range m.chains {
		if m.counted(i, kind.Deny) >= m.chains[i].steps[m.chains[i].step].deny {
			m.state = kind.StateDenied
			return
		}
	}
	if m.seated() {
		m.state, m.opens = kind.StateApproved, at+m.hold
	}
}

func (m *model) withdraw(who string, at int64) bool {
	v := m.votes[who]
	if v == nil || v.choice != kind.Approve || !v.cast || v.withdrawn {
		return false
	}
	m.advance(at)
	switch m.state {
	case kind.StateApproved:
		m.state = kind.StateWithdrawn
	case kind.StatePending:
	default:
		return false
	}
	v.withdrawn = true
	m.advance(at)
	return true
}

func (m *model) cancel(at int64) bool {
	m.advance(at)
	if m.state != kind.StatePending && m.state != kind.StateApproved {
		return false
	}
	m.state = kind.StateCancelled
	return true
}

func (m *model) claim(at int64) bool {
	m.advance(at)
	if m.state != kind.StateApproved || at < m.opens {
		return false
	}
	m.state = kind.StateClaimed
	m.reportBy = at + int64(StartWindow+ReportWindow)
	return true
}

func (m *model) report(at int64) (accepted, counted bool) {
	m.advance(at)
	if m.reported || m.token == (kind.FencingToken{}) {
		return false, false
	}
	m.reported = true
	if m.state != kind.StateClaimed {
		return true, false
	}
	m.state = kind.StateExecuted
	return true, true
}

var modelHumans = []string{"alice", "bob", "carol", "dave", "erin"}

// drawChain draws a chain, and what it is without alice, who stands behind the agent.
func drawChain(t *rapid.T, w *world, name string) kind.Chain {
	c := kind.Chain{Name: name, Hold: int64(rapid.SampledFrom([]time.Duration{0, 0, 30 * time.Second}).Draw(t, name+" hold"))}
	asked := 0
	var names []string
	for i := range rapid.IntRange(1, 3).Draw(t, name+" steps") {
		who := rapid.SliceOfNDistinct(rapid.SampledFrom(modelHumans), 1, 3, func(s string) string { return s }).Draw(t, fmt.Sprintf("%s step %d", name, i))
		for _, n := range who {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		asked = len(names)
		c.Steps = append(c.Steps, kind.Step{
			Eligible: w.ids(who...),
			Approve:  uint32(rapid.IntRange(1, min(2, asked)).Draw(t, "approve")),
			Deny:     uint32(rapid.IntRange(1, min(2, asked)).Draw(t, "deny")),
			Timeout:  int64(rapid.SampledFrom([]time.Duration{time.Minute, 2 * time.Minute}).Draw(t, "timeout")),
		})
	}
	return c
}

func newModel(w *world, id uint64, chains []kind.Chain, at, ttl int64) *model {
	m := &model{id: id, state: kind.StatePending, votes: map[string]*modelVote{}}
	names := map[nhi.ID]string{}
	for _, n := range modelHumans {
		names[w.id[n].ID] = n
	}
	for _, c := range chains {
		mc := modelChain{}
		for _, s := range c.Steps {
			ms := modelStep{approve: int(s.Approve), deny: int(s.Deny), timeout: s.Timeout}
			for _, h := range s.Eligible {
				if names[h] != "alice" {
					ms.eligible = append(ms.eligible, names[h])
				}
			}
			mc.steps = append(mc.steps, ms)
		}
		if !mc.begin(0, at) {
			return nil
		}
		last := at + c.Hold + int64(time.Hour)
		for _, s := range mc.steps[mc.step:] {
			last += s.timeout
		}
		m.end = max(m.end, last)
		m.hold = max(m.hold, c.Hold)
		m.chains = append(m.chains, mc)
	}
	if ttl != 0 {
		m.end = at + ttl
	}
	return m
}

// TestModel holds random orders of everything that can happen to requests, at random times and with ticks at random places,
// against the model: outcomes, whether votes count, and states.
func TestModel(t *testing.T) {
	// Runs share a ledger, because making one costs more than a run; not for long, because its links last a year.
	var w *world
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; w == nil || runs%25 == 0 {
			w = newWorld(t)
		}
		runModel(w, rt)
	})
}

func runModel(w *world, rt *rapid.T) {
	payments, wires := drawChain(rt, w, "payments"), drawChain(rt, w, "wires")
	w.publish(payments, wires)
	var requests []*model
	check := func(what string, r ledger.EventResult, accepted bool) {
		if r.State != ledger.Sequenced || r.Outcome.Accepted() != accepted {
			rt.Fatalf("%s: got %v, %v (%x), want accepted = %v", what, r.State, r.Outcome, r.Detail, accepted)
		}
	}
	ask := func(rt *rapid.T) {
		chains, amount, extra := []kind.Chain{payments}, 500, []string(nil)
		switch rapid.IntRange(0, 2).Draw(rt, "which") {
		case 1:
			chains, extra = []kind.Chain{payments, wires}, []string{"wire"}
		case 2:
			chains, amount, extra = []kind.Chain{wires}, 50, []string{"wire"}
		}
		b := w.requestBody(w.action(amount, extra...))
		b.TTL = int64(rapid.SampledFrom([]time.Duration{0, 0, 90 * time.Second}).Draw(rt, "ttl"))
		r := w.submit(w.asBot(kind.Request, b))
		m := newModel(w, r.Index, chains, r.Time, b.TTL)
		check("request", r, m != nil)
		if m != nil {
			requests = append(requests, m)
		}
	}
	pick := func(rt *rapid.T) *model {
		if len(requests) == 0 {
			rt.Skip("no request")
		}
		return rapid.SampledFrom(requests).Draw(rt, "request")
	}
	counts := func(what string, r ledger.EventResult, m *model, accepted, counted bool) {
		check(what, r, accepted)
		if !accepted {
			return
		}
		v, err := kind.DecodeVoted(r.Detail)
		if err != nil {
			rt.Fatal(err)
		}
		if v.Counted != counted || v.State != m.state {
			rt.Fatalf("%s: got counted %v, state %v, want %v, %v", what, v.Counted, v.State, counted, m.state)
		}
	}
	rt.Repeat(map[string]func(*rapid.T){
		"request": ask,
		"vote":    func(rt *rapid.T) { modelVoteStep(rt, w, pick(rt), counts) },
		"another vote": func(rt *rapid.T) {
			modelVoteStep(rt, w, pick(rt), counts)
		},
		"withdraw": func(rt *rapid.T) {
			m, who := pick(rt), rapid.SampledFrom(modelHumans).Draw(rt, "who")
			r := w.submit(w.f.Event(w.id[who], kind.Withdraw, &kind.RefBody{Request: m.id}))
			accepted := m.withdraw(who, r.Time)
			counts("withdraw", r, m, accepted, true)
		},
		"cancel": func(rt *rapid.T) {
			if rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
				rt.Skip("rarely")
			}
			m := pick(rt)
			r := w.submit(w.asBot(kind.Cancel, &kind.RefBody{Request: m.id}))
			check("cancel", r, m.cancel(r.Time))
		},
		"claim": func(rt *rapid.T) {
			m := pick(rt)
			r := w.claim(m.id)
			accepted := m.claim(r.Time)
			check("claim", r, accepted)
			if accepted {
				c, err := kind.DecodeClaimed(r.Detail)
				if err != nil {
					rt.Fatal(err)
				}
				m.token = c.Token
			}
		},
		"report": func(rt *rapid.T) {
			m := pick(rt)
			r := w.submit(w.asBot(kind.Report, &kind.ReportBody{Request: m.id, Token: m.token, Result: kind.ResultExecuted}))
			accepted, counted := m.report(r.Time)
			check("report", r, accepted)
			if accepted {
				if d, err := kind.DecodeReported(r.Detail); err != nil || d.Counted != counted || d.State != m.state {
					rt.Fatalf("report: got %+v, %v, want counted %v, state %v", d, err, counted, m.state)
				}
			}
		},
		"time": func(rt *rapid.T) {
			w.f.Now += int64(rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second, time.Minute, 5 * time.Minute, time.Hour}).Draw(rt, "by"))
		},
		"time to a deadline": func(rt *rapid.T) {
			m := pick(rt)
			times := []int64{m.end, m.reportBy, m.opens}
			for _, c := range m.chains {
				times = append(times, c.deadline)
			}
			// A tick and what it brings about take up a few nanoseconds of consensus time, so "just before" is further off.
			to := rapid.SampledFrom(times).Draw(rt, "to") + int64(rapid.IntRange(-1, 1).Draw(rt, "off"))*int64(time.Millisecond)
			w.f.Now = max(w.f.Now, to)
		},
		"tick": func(rt *rapid.T) {
			w.f.Tick()
			at := w.f.Now - int64(time.Millisecond) // of the last tick
			for _, m := range requests {
				m.advance(at)
				if got := w.get(m.id).State; got != m.state {
					rt.Fatalf("request %d after a tick: got %v, want %v", m.id, got, m.state)
				}
			}
		},
	})
	// At the end of time everything is final, and no timer is left.
	w.f.Now += int64(3 * time.Hour)
	w.f.Tick()
	for _, m := range requests {
		m.advance(w.f.Now)
		if got := w.get(m.id).State; got != m.state || !got.Final() {
			rt.Fatalf("request %d at the end: got %v, want %v", m.id, got, m.state)
		}
	}
	w.f.Now += int64(3 * time.Hour)
	if n := w.f.Tick(); n != 0 {
		rt.Fatalf("%d timers are left", n)
	}
	checkIndexes(rt, w, requests)
}

func modelVoteStep(rt *rapid.T, w *world, m *model, counts func(string, ledger.EventResult, *model, bool, bool)) {
	who := rapid.SampledFrom(modelHumans).Draw(rt, "who")
	c := rapid.SampledFrom([]kind.Choice{kind.Approve, kind.Approve, kind.Approve, kind.Deny, kind.Abstain}).Draw(rt, "choice")
	r := w.vote(m.id, who, c)
	accepted, counted := m.vote(who, c, r.Time)
	counts(who+" votes "+c.String(), r, m, accepted, counted)
	if who == "alice" && r.Outcome != verify.OutcomeSelfApproval {
		rt.Fatalf("got %v for a self-approval", r.Outcome)
	}
}

// checkIndexes holds the index rows against the requests: every one once under its state and agent, and past for its humans.
func checkIndexes(rt *rapid.T, w *world, requests []*model) {
	w.f.WithView(w.f.Tenant, func(v ledger.View) {
		ours := make(map[uint64]bool)
		for _, m := range requests {
			ours[m.id] = true
		}
		states, agents, waiting := 0, 0, 0
		v.Scan(TablePending, nil, nil, false, func(key, _ []byte) bool {
			if s, ok := StateOf(v, keyIndex(key)); !ok || s != kind.StatePending {
				rt.Errorf("request %d is indexed as pending, it is %v", keyIndex(key), s)
			}
			waiting++
			return true
		})
		for _, m := range requests {
			if s, _ := StateOf(v, m.id); s == kind.StatePending {
				waiting--
			}
		}
		if waiting != 0 {
			rt.Errorf("the index of pending requests has %d rows too many", waiting)
		}
		v.Scan(TableByState, nil, nil, false, func(key, _ []byte) bool {
			if ours[keyIndex(key)] {
				states++
			}
			if s, ok := StateOf(v, keyIndex(key)); !ok || byte(s) != key[0] {
				rt.Errorf("request %d is indexed as %v, it is %v", keyIndex(key), kind.State(key[0]), s)
			}
			return true
		})
		v.Scan(TableByAgent, w.id["bot"].ID[:], nil, false, func(key, _ []byte) bool {
			if ours[keyIndex(key)] {
				agents++
			}
			return true
		})
		if states != len(requests) || agents != len(requests) {
			rt.Errorf("got %d rows by state, %d by agent, want %d", states, agents, len(requests))
		}
		v.Scan(TableByHuman, nil, nil, false, func(key, _ []byte) bool {
			if bytes.Equal(key[:16], w.id["alice"].ID[:]) || key[16] != phasePast {
				rt.Errorf("got row %x by human, want none of alice's and none that is pending", key)
			}
			return true
		})
	})
}
