package faults

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// names are the mutations of mutate.sh, which DESIGN.md explains.
func names(t *testing.T) []string {
	t.Helper()
	script, err := os.ReadFile("mutate.sh")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(script)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "mutation" && strings.HasPrefix(f[2], "./") {
			out = append(out, f[1])
		}
	}
	if len(out) < 20 {
		t.Fatalf("got %d mutations, want at least 20", len(out))
	}
	return out
}

// TestDesignListsEveryMutation keeps the list and the script together.
func TestDesignListsEveryMutation(t *testing.T) {
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t) {
		if !strings.Contains(string(design), "| "+name+" |") {
			t.Errorf("mutation %s does not stand in DESIGN.md", name)
		}
	}
}

// TestSoakMutations runs them all: several minutes.
func TestSoakMutations(t *testing.T) {
	if os.Getenv("CRETO_SOAK") == "" {
		t.Skip("takes minutes; make soak runs it")
	}
	out, err := exec.CommandContext(t.Context(), "./mutate.sh").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
