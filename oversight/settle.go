package oversight

import (
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/oversight/kind"
)

// request is one request under a decision: its rows as they are, and what the decision changes.
type request struct {
	id uint64
	requestRow
	status statusRow
	was    statusRow // as loaded
	votes  []vote    // ascending by human; loaded with the request

	writes []ledger.Write
	timers []ledger.Timer
	leaves []ledger.SystemLeaf
}

type vote struct {
	human nhi.ID
	voteRow
}

// load reads a request with its votes.
func load(v ledger.View, id uint64) (*request, bool) {
	key := requestKey(id)
	value, ok := v.Get(TableRequest, key)
	if !ok {
		return nil, false
	}
	r := &request{id: id, requestRow: *decodeRow[requestRow](TableRequest, key, value)}
	if value, ok = v.Get(TableStatus, key); !ok {
		panic(&CorruptRowError{Table: TableStatus, Key: key, Err: errMissing})
	}
	r.status = *decodeRow[statusRow](TableStatus, key, value)
	if len(r.status.Steps) != len(r.Chains) {
		panic(&CorruptRowError{Table: TableStatus, Key: key, Err: errMissing})
	}
	r.was = r.status
	r.was.Steps = append([]stepRow(nil), r.status.Steps...)
	v.Scan(TableVote, key, nil, false, func(key, value []byte) bool {
		one := vote{voteRow: *decodeRow[voteRow](TableVote, key, value)}
		copy(one.human[:], key[8:])
		r.votes = append(r.votes, one)
		return true
	})
	return r, true
}

// settle applies every deadline that lies at or before a stamp, in the order of time, as if each had been applied when it
// was due: what a later event finds does not depend on when the ticks came.
func (r *request) settle(v ledger.View, at int64) {
	if r.status.State == kind.StatePending {
		r.settlePending(v, at)
	}
	switch r.status.State {
	case kind.StateApproved:
		if at >= r.End {
			r.become(kind.StateLapsed, r.End)
			r.leaf(kind.Lapsed, kind.Resolution{State: kind.StateLapsed, Time: r.End})
		}
	case kind.StateClaimed:
		if at >= r.status.ReportBy {
			r.become(kind.StateUnknown, r.status.ReportBy)
			r.leaf(kind.Unknown, kind.Resolution{State: kind.StateUnknown, Time: r.status.ReportBy})
		}
	}
}

// settlePending moves every chain on to the step that is asked at a stamp, one deadline after the other. A chain whose own
// quorum is there waits for the others. The first chain that runs out of steps, or the end of the request, expires it; a step
// that begins may find its quorum, or its denial, among the votes that are there.
func (r *request) settlePending(v ledger.View, at int64) {
	t := r.tally(v)
	for r.status.State == kind.StatePending {
		due, which := r.End, -1
		for i, s := range r.status.Steps {
			if s.Deadline < due && r.count(t.approve, i, s) < r.Chains[i].Steps[s.Step].Approve {
				due, which = s.Deadline, i
			}
		}
		if due > at {
			break
		}
		body := kind.Resolution{State: kind.StateExpired, Time: due}
		if which >= 0 {
			body.Chain = r.Chains[which].Name
			if r.escalate(which) {
				r.resolve(v, r.reached(due))
				continue
			}
		}
		r.become(kind.StateExpired, due)
		r.leaf(kind.Expired, body)
	}
}

// escalate lets a chain ask its next step, if it has one that can reach its quorum.
func (r *request) escalate(i int) bool {
	c, old := &r.Chains[i], r.status.Steps[i]
	next, ok := c.Feasible(int(old.Step) + 1)
	if !ok {
		return false
	}
	s := stepRow{Step: uint64(next), Deadline: old.Deadline + c.Steps[next].Timeout}
	r.status.Steps[i] = s
	cancel := stepTimer(r.id, i, old.Deadline)
	cancel.Cancel = true
	r.timers = append(r.timers, cancel, stepTimer(r.id, i, s.Deadline))
	r.leaf(kind.Escalated, kind.Resolution{State: kind.StatePending, Chain: c.Name, Step: s.Step + 1, Time: old.Deadline})
	return true
}

// reached is when votes decide at a deadline: not before the last of them, where a quorum was lost after a deadline had passed.
func (r *request) reached(due int64) int64 {
	for i := range r.votes {
		due = max(due, r.votes[i].Time)
	}
	return due
}

func stepTimer(id uint64, chain int, due int64) ledger.Timer {
	return ledger.Timer{Due: due, Name: timerStep, Ref: append(requestKey(id), byte(chain))}
}

// become changes the state, and with it the timers and the indexes that follow from it.
func (r *request) become(s kind.State, since int64) {
	old := r.status.State
	r.status.State, r.status.Since = s, since
	if old == kind.StatePending {
		r.writes = append(r.writes, ledger.Write{Table: TablePending, Key: agentKey(r.Agent, r.id), Delete: true})
		for i := range r.status.Steps {
			// A step that this very decision began has set its timer already.
			for _, due := range [...]int64{r.was.Steps[i].Deadline, r.status.Steps[i].Deadline} {
				t := stepTimer(r.id, i, due)
				t.Cancel = true
				r.timers = append(r.timers, t)
			}
		}
		for _, h := range r.humans() {
			r.writes = append(r.writes,
				ledger.Write{Table: TableByHuman, Key: humanKey(h, phasePending, r.id), Delete: true},
				ledger.Write{Table: TableByHuman, Key: humanKey(h, phasePast, r.id)})
		}
	}
	if s != kind.StateApproved && (old == kind.StatePending || old == kind.StateApproved) {
		r.timers = append(r.timers, ledger.Timer{Due: r.End, Name: timerEnd, Ref: requestKey(r.id), Cancel: true})
	}
	if old == kind.StateClaimed {
		r.timers = append(r.timers, ledger.Timer{Due: r.was.ReportBy, Name: timerReport, Ref: requestKey(r.id), Cancel: true})
	}
	r.writes = append(r.writes,
		ledger.Write{Table: TableByState, Key: stateKey(old, r.id), Delete: true},
		ledger.Write{Table: TableByState, Key: stateKey(s, r.id)})
}

// leaf adds a system leaf about the request.
func (r *request) leaf(name string, body kind.Resolution) {
	body.Request, body.ActionDigest = r.id, r.Digest
	r.rawLeaf(name, canon.MustMarshal(body))
}

func (r *request) rawLeaf(name string, body []byte) {
	r.leaves = append(r.leaves, ledger.SystemLeaf{
		Kind: name, Body: body, Agent: r.Agent, Link: r.Link, Account: r.Account, Ref: requestKey(r.id),
	})
}

// setVote records a vote.
func (r *request) setVote(human nhi.ID, row voteRow) {
	r.writes = append(r.writes, ledger.Write{Table: TableVote, Key: voteKey(r.id, human), Value: canon.MustMarshal(row)})
	for i := range r.votes {
		if r.votes[i].human == human {
			r.votes[i].voteRow = row
			return
		}
	}
	r.votes = append(r.votes, vote{human, row})
}

// voteOf returns the vote of a human, if there is one.
func (r *request) voteOf(human nhi.ID) (voteRow, bool) {
	for i := range r.votes {
		if r.votes[i].human == human {
			return r.votes[i].voteRow, true
		}
	}
	return voteRow{}, false
}

// decision is the acceptance that carries all changes.
func (r *request) decision(detail []byte) ledger.Decision {
	now, was := canon.MustMarshal(r.status), canon.MustMarshal(r.was)
	if string(now) != string(was) {
		r.writes = append(r.writes, ledger.Write{Table: TableStatus, Key: requestKey(r.id), Value: now})
	}
	return ledger.Decision{Detail: detail, Writes: r.writes, Timers: r.timers, Leaves: r.leaves}
}
