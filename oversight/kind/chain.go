package kind

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Bounds of oversight chains.
const (
	MaxChains      = 64       // of one policy
	MaxChainsBytes = 32 << 10 // of all chains of one policy, encoded
	MaxSteps       = 8        // of one chain
	MaxEligible    = 32       // humans of one step
	MaxName        = 64       // bytes of a chain's name
	MinTimeout     = time.Second
	MaxTimeout     = 30 * 24 * time.Hour
	MaxHold        = 7 * 24 * time.Hour
)

// Chain says who decides and how, when a policy or a link names it. Each step asks more people: whoever was asked by an
// earlier step may still vote, and earlier votes still count.
type Chain struct {
	Name  string `cbor:"1,keyasint"` // as in @oversight("name"): letters, digits, '_', '.', '-'
	Steps []Step `cbor:"2,keyasint"`
	Hold  int64  `cbor:"4,keyasint,omitzero"` // ns between approval and the earliest claim
}

// Step is one stage of a chain: if its quorum is not reached within its timeout, the next step is asked as well; after the
// last one the request expires.
type Step struct {
	Eligible []nhi.ID `cbor:"1,keyasint"` // humans, sorted, unique, at least one
	Approve  uint32   `cbor:"2,keyasint"` // how many must approve, of those asked so far
	Deny     uint32   `cbor:"3,keyasint"` // how many denials deny
	Timeout  int64    `cbor:"4,keyasint"` // ns
}

// EncodeChains sorts and encodes the chains of a policy for PublishBody. It changes the order of chains and eligible humans
// in place.
func EncodeChains(chains []Chain) ([]byte, error) {
	if len(chains) == 0 {
		return nil, nil
	}
	slices.SortFunc(chains, func(a, b Chain) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	for i := range chains {
		for j := range chains[i].Steps {
			e := chains[i].Steps[j].Eligible
			slices.SortFunc(e, compareID)
			chains[i].Steps[j].Eligible = slices.Compact(e)
		}
	}
	b, err := canon.Marshal(chains)
	if err != nil {
		return nil, fmt.Errorf("encode chains: %w", err)
	}
	if _, err := DecodeChains(b); err != nil {
		return nil, err
	}
	return b, nil
}

// DecodeChains parses and checks the chains of a policy. No bytes are no chains.
func DecodeChains(b []byte) ([]Chain, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var chains []Chain
	if err := canon.UnmarshalMax(b, &chains, MaxChainsBytes); err != nil {
		return nil, fmt.Errorf("decode chains: %w", err)
	}
	if len(chains) == 0 || len(chains) > MaxChains {
		return nil, invalid("chains", fmt.Sprintf("are %d, not between 1 and %d", len(chains), MaxChains))
	}
	for i := range chains {
		if i > 0 && chains[i-1].Name >= chains[i].Name {
			return nil, invalid("chains", "are not sorted by name and unique")
		}
		if err := chains[i].check(); err != nil {
			return nil, err
		}
	}
	return chains, nil
}

func (c *Chain) check() error {
	field := fmt.Sprintf("chain %q", c.Name)
	switch {
	case !validName(c.Name):
		return invalid("chain name", fmt.Sprintf("%q is not 1 to %d letters, digits, '_', '.' or '-'", c.Name, MaxName))
	case len(c.Steps) == 0 || len(c.Steps) > MaxSteps:
		return invalid(field, fmt.Sprintf("has %d steps, not between 1 and %d", len(c.Steps), MaxSteps))
	case c.Hold < 0 || c.Hold > int64(MaxHold):
		return invalid(field, "holds for a time outside 0 to "+MaxHold.String())
	}
	var asked []nhi.ID
	for i := range c.Steps {
		s := &c.Steps[i]
		step := fmt.Sprintf("%s step %d", field, i+1)
		if len(s.Eligible) == 0 || len(s.Eligible) > MaxEligible {
			return invalid(step, fmt.Sprintf("asks %d humans, not between 1 and %d", len(s.Eligible), MaxEligible))
		}
		for j, id := range s.Eligible {
			if id.IsZero() {
				return invalid(step, "asks the zero id")
			}
			if j > 0 && compareID(s.Eligible[j-1], id) >= 0 {
				return invalid(step, "has eligible humans that are not sorted and unique")
			}
		}
		asked = Union(asked, s.Eligible)
		n := uint32(len(asked))
		switch {
		case s.Approve < 1 || s.Approve > n:
			return invalid(step, fmt.Sprintf("wants %d approvals of %d humans", s.Approve, n))
		case s.Deny < 1 || s.Deny > n:
			return invalid(step, fmt.Sprintf("is denied by %d of %d humans", s.Deny, n))
		case s.Timeout < int64(MinTimeout) || s.Timeout > int64(MaxTimeout):
			return invalid(step, "has a timeout outside "+MinTimeout.String()+" to "+MaxTimeout.String())
		}
	}
	return nil
}

// Asked returns the humans that are asked once the step with that number (from 0) has begun, sorted.
func (c *Chain) Asked(step int) []nhi.ID {
	var asked []nhi.ID
	for i := 0; i <= step && i < len(c.Steps); i++ {
		asked = Union(asked, c.Steps[i].Eligible)
	}
	return asked
}

// Feasible returns the first step from one on (from 0) whose quorum the humans that are asked by then could reach. Steps
// that cannot are skipped.
func (c *Chain) Feasible(from int) (step int, ok bool) {
	for i := from; i < len(c.Steps); i++ {
		if uint64(len(c.Asked(i))) >= uint64(c.Steps[i].Approve) {
			return i, true
		}
	}
	return 0, false
}

// Union returns the sorted union of two sorted sets. It may return either of them.
func Union(a, b []nhi.ID) []nhi.ID {
	if len(a) == 0 {
		return b
	}
	out := make([]nhi.ID, 0, len(a)+len(b))
	out = append(append(out, a...), b...)
	slices.SortFunc(out, compareID)
	return slices.Compact(out)
}

// HasID reports whether a sorted set holds an id.
func HasID(set []nhi.ID, id nhi.ID) bool {
	_, ok := slices.BinarySearchFunc(set, id, compareID)
	return ok
}

func compareID(a, b nhi.ID) int { return bytes.Compare(a[:], b[:]) }

func validName(s string) bool {
	if len(s) == 0 || len(s) > MaxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
