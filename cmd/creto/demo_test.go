package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestThousands(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 18059974: "18,059,974", 1 << 63: "9,223,372,036,854,775,808"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d): got %q, want %q", n, got, want)
		}
	}
}

func TestDemoReport(t *testing.T) {
	for _, live := range []bool{false, true} {
		var out, talk bytes.Buffer
		r := &demoReport{out: &out, talk: &talk, live: live}
		r.section("Part")
		shown := demoStep{"count", func(context.Context) (string, error) { r.progress(1, 2); return "counted\ntwice", nil }}
		skipped := demoStep{"skip", func(context.Context) (string, error) { return leftOut + "no reason", nil }}
		broken := demoStep{"break", func(context.Context) (string, error) { return "", errors.New("it broke") }}
		for _, s := range []demoStep{shown, skipped} {
			if err := r.step(t.Context(), s); err != nil {
				t.Errorf("step %s: %v", s.name, err)
			}
		}
		if err := r.step(t.Context(), broken); err == nil || err.Error() != "it broke" {
			t.Errorf("broken step: got %v, want its error", err)
		}
		r.close(time.Second, nil)
		if !strings.Contains(out.String(), "All of it but what was left out (skip) held") {
			t.Errorf("got %q, which claims what was left out", out.String())
		}
		lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
		for i, want := range []string{"", "Part", "  ok ", "      ", "  -- ", "  FAIL"} {
			if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
				t.Errorf("line %d: got %q, want it to begin with %q", i, lines[min(i, len(lines)-1)], want)
			}
		}
		if got := talk.Len() > 0; got != live {
			t.Errorf("live %v: got talk %q", live, talk.Bytes())
		}
		if live && !strings.Contains(talk.String(), "1 of 2") {
			t.Errorf("got talk %q, want a bar", talk.Bytes())
		}
	}
}

// TestQuotaRunsOut computes from the traffic alone what a quota has no room for, as the ledger must decide it.
func TestQuotaRunsOut(t *testing.T) {
	d := &demo{rows: make([]traceRow, 30)}
	for i := range d.rows {
		d.rows[i].input = uint64(10 + i)
	}
	for _, share := range []int{4, 3, 2, 1} {
		d.people.agents = append(d.people.agents, &demoAgent{share: share})
	}
	sizes := make([]int, 4)
	for n := range sizes {
		sizes[n] = len(d.rowsOf(n))
	}
	if sizes[0] != 12 || sizes[1] != 9 || sizes[2] != 6 || sizes[3] != 3 {
		t.Errorf("got %v requests by agent, want 12, 9, 6, 3", sizes)
	}
	d.traffic.limit = 17 + 18 + 27 + 37 // the third agent has 17, 18, 27, 28, 37, 38
	refused := 0
	used := uint64(0)
	for i, r := range d.expectRefusals() {
		switch {
		case d.rowAgent(i) != 2:
			if r {
				t.Errorf("request %d of another agent is refused", i)
			}
		case r:
			refused++
			if used+d.rows[i].input <= d.traffic.limit {
				t.Errorf("request %d is refused though there is room", i)
			}
		default:
			if used += d.rows[i].input; used > d.traffic.limit {
				t.Errorf("request %d is accepted though there is no room", i)
			}
		}
	}
	if refused == 0 {
		t.Error("nothing is refused")
	}
}

func TestDemoDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	d := &demo{demoOptions: demoOptions{dir: dir}}
	if err := d.makeDir(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "audit", "old")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.makeDir(); err != nil {
		t.Errorf("its own folder: %v", err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of the last run: got %v, want it gone", err)
	}
	if err := d.mark(runsAs + strconv.Itoa(os.Getppid()) + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := d.makeDir(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the folder of a demonstration that runs: got %v, want it refused", err)
	}
	if err := os.Remove(filepath.Join(dir, demoMark)); err != nil {
		t.Fatal(err)
	}
	if err := d.makeDir(); err == nil {
		t.Error("a folder without the mark: got nil, want an error")
	}
}

func TestFreePorts(t *testing.T) {
	addrs, err := freePorts(12)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, a := range addrs {
		if seen[a] {
			t.Errorf("%s came twice", a)
		}
		seen[a] = true
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Errorf("%s is not free: %v", a, err)
			continue
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != 12 {
		t.Errorf("got %d addresses, want 12", len(seen))
	}
}

func TestInventedNamesDiffer(t *testing.T) {
	seen := make(map[string]bool)
	for range 20 {
		n := inventName()
		if len(strings.Fields(n)) != 2 {
			t.Errorf("got %q, want two words", n)
		}
		seen[n] = true
	}
	if len(seen) < 15 {
		t.Errorf("got %d names of 20, want nearly all different", len(seen))
	}
}
