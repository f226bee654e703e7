package oversight

import (
	"cmp"
	"slices"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/oversight/kind"
)

// Approval is a request as queries show it.
type Approval struct {
	ID            uint64
	ShortCode     string
	State         kind.State
	Since         int64 // ns: when it became so
	Agent         nhi.ID
	Key           nhi.KeyID // the one that may claim
	Link          nhi.LinkID
	Account       nhi.ID
	Action        kind.Action
	ActionDigest  nhi.Digest
	RequestDigest nhi.Digest
	Rendered      nhi.Digest
	PayloadDigest nhi.Digest // of the request's event
	Reasoning     nhi.Digest // addendum of the request's leaf; zero = none
	Reserve       []kind.Reservation
	PolicyEpoch   uint64
	PolicyDigest  nhi.Digest
	Policies      []string
	Chains        []ChainStatus
	Eligible      []nhi.ID // humans who are asked now and have no vote, sorted; nobody once it is decided
	Votes         []Vote   // by index
	Created       int64    // ns
	Deadline      int64    // ns: the next deadline of a step, while it is pending
	Opens         int64    // ns: earliest claim, once approved
	NotAfter      int64    // ns: after it nothing is decided or claimed
	Claim         uint64   // index of the claim; 0 = none
	Token         kind.FencingToken
	StartBy       int64
	ReportBy      int64
	Leases        []uint64
	Report        uint64 // index of the report; 0 = none
	Result        kind.Result
	ResultDigest  nhi.Digest
}

// ChainStatus is where one chain of a request stands.
type ChainStatus struct {
	kind.Chain        // with the humans who may in fact vote
	Step       int    // that is asked now, from 0
	Deadline   int64  // of it
	Approvals  uint32 // that count
	Denials    uint32
}

// Vote is one vote of a request.
type Vote struct {
	Human     nhi.ID
	Choice    kind.Choice
	Index     uint64
	Time      int64
	Counted   bool       // false: it came too late for the step that is asked, and is kept as evidence
	Reason    nhi.Digest // addendum of the vote's leaf; zero = none
	Withdrawn uint64     // index of its withdrawal; 0 = none
}

// GetApproval returns a request as of a view. A deadline that passed since the last tick is not yet applied.
func GetApproval(v ledger.View, id uint64) (*Approval, bool) {
	r, ok := load(v, id)
	if !ok {
		return nil, false
	}
	s := &r.status
	a := &Approval{
		ID: id, ShortCode: kind.ShortCode(r.Request), State: s.State, Since: s.Since, Agent: r.Agent, Key: r.Key, Link: r.Link,
		Account: r.Account, Action: r.Action, ActionDigest: r.Digest, RequestDigest: r.Request, Rendered: r.Rendered, PayloadDigest: r.Payload,
		Reasoning: r.Reason, Reserve: r.Reserve, PolicyEpoch: r.Epoch, PolicyDigest: r.Policy, Policies: r.Policies,
		Created: r.Created, Opens: s.Opens, NotAfter: r.End, Claim: s.Claim, Token: s.Token, StartBy: s.StartBy,
		ReportBy: s.ReportBy, Leases: s.Leases, Report: s.Report, Result: s.Result, ResultDigest: s.Outcome,
	}
	t := r.tally(v)
	for i := range r.Chains {
		step := s.Steps[i]
		a.Chains = append(a.Chains, ChainStatus{
			Chain: r.Chains[i], Step: int(step.Step), Deadline: step.Deadline, Approvals: r.count(t.approve, i, step), Denials: r.count(t.deny, i, step),
		})
		if s.State != kind.StatePending {
			continue
		}
		if a.Deadline == 0 || step.Deadline < a.Deadline {
			a.Deadline = step.Deadline
		}
		a.Eligible = kind.Union(a.Eligible, r.Chains[i].Asked(int(step.Step)))
	}
	if s.State == kind.StatePending {
		a.Deadline = min(a.Deadline, r.End)
		a.Eligible = slices.DeleteFunc(slices.Clone(a.Eligible), func(id nhi.ID) bool {
			_, voted := r.voteOf(id)
			return voted
		})
	}
	for i := range r.votes {
		one := &r.votes[i]
		a.Votes = append(a.Votes, Vote{
			Human: one.human, Choice: one.Choice, Index: one.Index, Time: one.Time, Counted: r.counts(one), Reason: one.Reason,
			Withdrawn: one.Withdrawn,
		})
	}
	slices.SortFunc(a.Votes, func(a, b Vote) int { return cmp.Compare(a.Index, b.Index) })
	return a, true
}

// StateOf returns the state of a request alone.
func StateOf(v ledger.View, id uint64) (kind.State, bool) {
	value, ok := v.Get(TableStatus, requestKey(id))
	if !ok {
		return 0, false
	}
	return decodeRow[statusRow](TableStatus, requestKey(id), value).State, true
}

// ListQuery selects requests. Zero fields select everything.
type ListQuery struct {
	State  kind.State
	Human  nhi.ID // whom the request asks, or may come to ask
	Agent  nhi.ID // who asked
	Before uint64 // only requests with smaller ids; 0 = from the newest on
	Limit  int    // of the answer
}

// maxScan bounds the index rows that one page looks at.
const maxScan = 10_000

// ListApprovals returns requests, newest first. next is the Before of the next page, 0 if there is none; a page can be
// short, or empty, with more to come.
func ListApprovals(v ledger.View, q ListQuery) (list []*Approval, next uint64) {
	table, prefix := TableRequest, []byte(nil)
	switch {
	case !q.Human.IsZero() && q.State == kind.StatePending:
		table, prefix = TableByHuman, append(q.Human[:], phasePending)
	case !q.Agent.IsZero():
		table, prefix = TableByAgent, q.Agent[:]
	case !q.Human.IsZero():
		// A human's requests lie in two phases, and the newest of both come first.
		return listOfHuman(v, q)
	case q.State != 0:
		table, prefix = TableByState, []byte{byte(q.State)}
	}
	return list, scanIDs(v, table, prefix, q.Before, func(id uint64) bool {
		if a, ok := q.matches(v, id); ok {
			list = append(list, a)
		}
		return len(list) < q.Limit
	})
}

// scanIDs calls fn with the ids of an index below before, in descending order. It returns the id to go on from, 0 at the end.
func scanIDs(v ledger.View, t ledger.Table, prefix []byte, before uint64, fn func(id uint64) bool) (next uint64) {
	var from []byte
	if before > 0 {
		from = append(slices.Clone(prefix), requestKey(before-1)...)
	}
	ids := make([]uint64, 0, 64)
	n := 0
	more := true
	for more {
		// Ids are collected first: fn reads other rows, and a view need not allow that inside a scan.
		ids = ids[:0]
		v.Scan(t, prefix, from, true, func(key, _ []byte) bool {
			ids = append(ids, keyIndex(key))
			return len(ids) < cap(ids)
		})
		for _, id := range ids {
			n++
			if !fn(id) || n >= maxScan {
				return id
			}
			if id == 0 {
				return 0
			}
			from = append(slices.Clone(prefix), requestKey(id-1)...)
		}
		more = len(ids) == cap(ids)
	}
	return 0
}

func listOfHuman(v ledger.View, q ListQuery) (list []*Approval, next uint64) {
	var ids []uint64
	rest := false
	for _, phase := range [...]byte{phasePending, phasePast} {
		found := 0
		rest = scanIDs(v, TableByHuman, append(q.Human[:], phase), q.Before, func(id uint64) bool {
			ids = append(ids, id)
			found++
			return found < q.Limit
		}) != 0 || rest
	}
	slices.SortFunc(ids, func(a, b uint64) int { return cmp.Compare(b, a) })
	for i, id := range ids {
		if i == q.Limit {
			return list, ids[i-1]
		}
		if a, ok := q.matches(v, id); ok {
			list = append(list, a)
		}
		next = id
	}
	if !rest {
		next = 0
	}
	return list, next
}

// matches returns a request if the query selects it.
func (q *ListQuery) matches(v ledger.View, id uint64) (*Approval, bool) {
	if q.State != 0 {
		if s, ok := StateOf(v, id); !ok || s != q.State {
			return nil, false
		}
	}
	a, ok := GetApproval(v, id)
	if !ok || !q.Agent.IsZero() && a.Agent != q.Agent {
		return nil, false
	}
	if !q.Human.IsZero() && !slices.ContainsFunc(a.Chains, func(c ChainStatus) bool {
		return kind.HasID(c.Asked(len(c.Steps)-1), q.Human)
	}) {
		return nil, false
	}
	return a, true
}
