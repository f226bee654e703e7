package authz

import (
	"fmt"
	"strings"
)

// maxProblems bounds how many problems one compilation reports.
const maxProblems = 100

// Names of the sets that a [PolicyError] can name.
const (
	SetHard  = "hard"
	SetSoft  = "soft"
	SetGuard = "guard"
)

// PolicyError is one thing wrong with a policy text.
type PolicyError struct {
	Set  string // SetHard, SetSoft or SetGuard
	ID   string // the policy's @id, empty where it has none or was not reached
	Line int    // line of the policy or of the token, from 1; 0 if unknown
	Msg  string // what is wrong and what is wanted
}

func (e *PolicyError) Error() string {
	var b strings.Builder
	b.WriteString(e.Set)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.ID != "" {
		fmt.Fprintf(&b, ": policy %q", e.ID)
	}
	b.WriteString(": ")
	b.WriteString(e.Msg)
	return b.String()
}

// PolicyErrors is every problem found in one bundle or guard, in the order of
// the text, at most 100. errors.As finds the first *PolicyError in it.
type PolicyErrors []*PolicyError

func (e PolicyErrors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single problems.
func (e PolicyErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, p := range e {
		errs[i] = p
	}
	return errs
}

// problems collects what a compilation finds in one set.
type problems struct {
	set  string
	list PolicyErrors
}

func (p *problems) add(id string, line int, format string, args ...any) {
	if len(p.list) < maxProblems {
		p.list = append(p.list, &PolicyError{Set: p.set, ID: id, Line: line, Msg: fmt.Sprintf(format, args...)})
	}
}
