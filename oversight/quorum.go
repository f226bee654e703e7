package oversight

import (
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/oversight/kind"
)

// tally is the votes of a request that count now: of humans who are still active, not withdrawn, and in time for at least
// one chain.
type tally struct {
	approve []vote // ascending by human
	deny    []vote
}

// tally counts. An approver who was suspended or revoked since does not count, neither at the quorum nor at the claim.
func (r *request) tally(v ledger.View) tally {
	var t tally
	for _, one := range r.votes {
		if one.Seats == 0 || one.Withdrawn != 0 || one.Choice == kind.Abstain || !active(v, one.human) {
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

// approvals returns how many approvals chain i has by itself.
func (t *tally) approvals(i int) uint32 { return count(t.approve, i) }

func count(votes []vote, chain int) (n uint32) {
	for _, one := range votes {
		if one.Seats&(1<<chain) != 0 {
			n++
		}
	}
	return n
}

// denied returns the first chain that is denied.
func (r *request) denied(t *tally) (chain int, ok bool) {
	for i := range r.Chains {
		if count(t.deny, i) >= r.Chains[i].Steps[r.status.Steps[i].Step].Deny {
			return i, true
		}
	}
	return 0, false
}

// quorum reports whether the seats of all chains are filled, each by a human of its own: a human whom two chains ask fills a
// seat in one of them. It is a matching of seats to approvals (Kuhn's algorithm), so the order of votes does not matter.
func (r *request) quorum(t *tally) bool {
	var seats []int // chain of each seat
	for i := range r.Chains {
		need := r.Chains[i].Steps[r.status.Steps[i].Step].Approve
		if t.approvals(i) < need {
			return false
		}
		for range need {
			seats = append(seats, i)
		}
	}
	holder := make([]int, len(t.approve)) // by approval: its seat + 1
	var fill func(seat int, seen []bool) bool
	fill = func(seat int, seen []bool) bool {
		for k := range t.approve {
			if seen[k] || t.approve[k].Seats&(1<<seats[seat]) == 0 {
				continue
			}
			seen[k] = true
			if holder[k] == 0 || fill(holder[k]-1, seen) {
				holder[k] = seat + 1
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
