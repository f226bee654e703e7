package main

import "testing"

func TestRunError(t *testing.T) {
	for _, tt := range []struct {
		state, reason, want string
		hints               int
	}{
		{"failed", "program is not in the template", "the run of claim 7 has failed: program is not in the template", 0},
		{"killed", "wall time limit", "the run of claim 7 was killed: wall time limit", 0},
		{"expired", "", "the run of claim 7 has expired without a report", 1},
	} {
		f := explain(runError(sandboxView{Claim: 7, State: tt.state, Reason: tt.reason}))
		if f.code != exitRefused || f.text() != tt.want || len(f.hints) != tt.hints {
			t.Errorf("%s: got %d %q %q, want %q", tt.state, f.code, f.text(), f.hints, tt.want)
		}
	}
}
