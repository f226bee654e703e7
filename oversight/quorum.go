package oversight

import (
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/oversight/kind"
)

// tally is the votes of a request that can count now: of humans who are still active, not withdrawn, and cast while it was
// pending. For which chains they count follows from where each chain stands: see seat.
type tally struct {
	approve []vote // ascending by human
	deny    []vote
}

// tally counts. An approver who was suspended or revoked since does not count, neither at the quorum nor at the claim.
func (r *request) tally(v ledger.View) tally {
	var t tally
	for _, one := range r.votes {
		if !one.Cast || one.Withdrawn != 0 || one.Choice == kind.Abstain || !active(v, one.human) {
			continue
		}
		if one.Choice == kind.Approve {
			t.approve = append(t.approve, one)
		} else {
			t.deny = append(t.deny, one)
		}
	}
	return t
}

// seat reports whether a vote has a seat in a chain at a step: the human is asked by then, and voted before the step's deadline.
// A vote from before the step began counts as well: whoever is asked later and has voted need not vote again, and could not.
func seat(c *kind.Chain, s stepRow, one *vote) bool {
	return one.Time < s.Deadline && kind.HasID(c.Asked(int(s.Step)), one.human)
}

// count returns how many of the votes have a seat in chain i at a step of it.
func (r *request) count(votes []vote, i int, s stepRow) (n uint32) {
	for k := range votes {
		if seat(&r.Chains[i], s, &votes[k]) {
			n++
		}
	}
	return n
}

// counts reports whether a vote has a seat in any chain.
func (r *request) counts(one *vote) bool {
	for i := range r.Chains {
		if one.Cast && seat(&r.Chains[i], r.status.Steps[i], one) {
			return true
		}
	}
	return false
}

// denied returns the first chain that is denied.
func (r *request) denied(t *tally) (chain int, ok bool) {
	for i := range r.Chains {
		s := r.status.Steps[i]
		if r.count(t.deny, i, s) >= r.Chains[i].Steps[s.Step].Deny {
			return i, true
		}
	}
	return 0, false
}

// quorum reports whether the seats of all chains are filled, each by a human of its own: a human whom two chains ask fills a
// seat in one of them. It is a matching of seats to approvals (Kuhn's algorithm), so the order of votes does not matter.
func (r *request) quorum(t *tally) bool {
	var seats []int                       // chain of each seat
	fits := make([][]bool, len(r.Chains)) // by chain and approval: whether it has a seat there
	for i := range r.Chains {
		at := r.status.Steps[i]
		need := r.Chains[i].Steps[at.Step].Approve
		if r.count(t.approve, i, at) < need {
			return false
		}
		fits[i] = make([]bool, len(t.approve))
		for k := range t.approve {
			fits[i][k] = seat(&r.Chains[i], at, &t.approve[k])
		}
		for range need {
			seats = append(seats, i)
		}
	}
	holder := make([]int, len(t.approve)) // by approval: its seat + 1
	var fill func(s int, seen []bool) bool
	fill = func(s int, seen []bool) bool {
		for k := range t.approve {
			if seen[k] || !fits[seats[s]][k] {
				continue
			}
			seen[k] = true
			if holder[k] == 0 || fill(holder[k]-1, seen) {
				holder[k] = s + 1
				return true
			}
		}
		return false
	}
	for s := range seats {
		if !fill(s, make([]bool, len(t.approve))) {
			return false
		}
	}
	return true
}
