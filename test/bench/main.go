package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/test/cluster"
)

// Figure is one line of the table.
type Figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target string  `json:"target,omitempty"`
	OK     *bool   `json:"ok,omitempty"` // nil: no target
	// Expected: the target is to be reached by now, and the exit code says whether it was. Otherwise it is the design's.
	Expected bool               `json:"expected,omitempty"`
	More     map[string]float64 `json:"more,omitempty"`
	Note     string             `json:"note,omitempty"`
}

// Report is everything that a run has measured.
type Report struct {
	Machine Machine   `json:"machine"`
	Start   time.Time `json:"start"`
	Seconds float64   `json:"seconds"`
	Figures []Figure  `json:"figures"`
}

// Machine is what was measured on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	System string `json:"system"`
	Go     string `json:"go"`
}

type bench struct {
	out     io.Writer
	report  Report
	c       *cluster.Cluster
	t       *cluster.Tenant
	bin     string
	seconds time.Duration
	only    string
	lone    int // envelopes of one request
	flight  int // requests under way
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var errTargets = errors.New("a target that is expected by now was not reached")

func run(ctx context.Context) (err error) {
	b := &bench{out: os.Stdout}
	seconds := flag.Duration("time", envDuration("CRETO_BENCH", 60*time.Second), "length of each load")
	out := flag.String("o", "", "write the figures as JSON to this file")
	flag.StringVar(&b.bin, "bin", "", "creto binary (default: bin/creto, else one that is built now)")
	flag.StringVar(&b.only, "only", "", "comma-separated parts: lone, batch, query, find, kill, restart")
	flag.IntVar(&b.lone, "envelopes", 16, "lone envelopes of one request")
	flag.IntVar(&b.flight, "flight", 32, "requests under way")
	dir := flag.String("dir", "", "directory for the nodes, kept (default: a temporary one, deleted)")
	flag.Parse()
	b.seconds = *seconds
	b.report = Report{Machine: machine(), Start: time.Now()}
	fmt.Fprintf(b.out, "%s, %d cores, %s, %s, %s\n", b.report.Machine.CPU, b.report.Machine.Cores, b.report.Machine.Memory, b.report.Machine.System, b.report.Machine.Go)
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "creto-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*dir)) }()
	}
	if b.bin == "" {
		if _, err := os.Stat("bin/creto"); err == nil {
			b.bin = "bin/creto"
		} else if b.bin, err = cluster.Binary(*dir); err != nil {
			return err
		}
	}
	// The timers are those of a default configuration: what is measured is what operators get.
	raft := node.RaftConfig{Heartbeat: time.Second, Election: time.Second, LeaderLease: 500 * time.Millisecond}
	if b.c, err = cluster.Start(ctx, cluster.Options{Bin: b.bin, Dir: *dir, Raft: raft}); err != nil {
		return err
	}
	defer b.c.Close()
	if b.t, err = b.c.CreateTenant(ctx); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"lone", b.loneSigned}, {"batch", b.batchSigned}, {"query", b.quotaQuery}, {"find", b.findAndProve}, {"kill", b.leaderKill}, {"restart", b.restart},
	} {
		if b.only != "" && !slices.Contains(strings.Split(b.only, ","), part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.report.Seconds = time.Since(b.report.Start).Seconds()
	if *out != "" {
		raw, err := json.MarshalIndent(b.report, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, append(raw, '\n'), 0o644); err != nil {
			return err
		}
	}
	for _, f := range b.report.Figures {
		if f.Expected && f.OK != nil && !*f.OK {
			return errTargets
		}
	}
	return nil
}

func envDuration(name string, def time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil && d > 0 {
		return d
	}
	return def
}

// atLeast and below are the two kinds of targets.
func atLeast(f Figure, target float64) Figure {
	ok := f.Value >= target
	f.OK, f.Target = &ok, fmt.Sprintf("≥ %g %s", target, f.Unit)
	return f
}

func below(f Figure, target float64) Figure {
	ok := f.Value < target
	f.OK, f.Target = &ok, fmt.Sprintf("< %g %s", target, f.Unit)
	return f
}

// expected marks a target as one to be reached by now.
func expected(f Figure) Figure {
	f.Expected = true
	return f
}

func (b *bench) add(f Figure) {
	b.report.Figures = append(b.report.Figures, f)
	mark := " "
	if f.OK != nil {
		mark = map[bool]string{true: "✓", false: "✗"}[*f.OK]
	}
	fmt.Fprintf(b.out, "%s %-44s %12.3f %-10s", mark, f.Name, f.Value, f.Unit)
	if f.Target != "" {
		whose := "design"
		if f.Expected {
			whose = "expected"
		}
		fmt.Fprintf(b.out, " (%s: %s)", whose, f.Target)
	}
	keys := make([]string, 0, len(f.More))
	for k := range f.More {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(b.out, "  %s=%.3f", k, f.More[k])
	}
	if f.Note != "" {
		fmt.Fprintf(b.out, "  %s", f.Note)
	}
	fmt.Fprintln(b.out)
}

// latencies are durations to be summarised.
type latencies []time.Duration

func (l latencies) at(p float64) float64 {
	if len(l) == 0 {
		return 0
	}
	return float64(l[min(len(l)-1, int(p*float64(len(l))))]) / float64(time.Millisecond)
}

func (l latencies) summary() map[string]float64 {
	slices.Sort(l)
	return map[string]float64{"p50_ms": l.at(0.5), "p90_ms": l.at(0.9), "p99_ms": l.at(0.99), "p999_ms": l.at(0.999), "max_ms": l.at(1)}
}

func machine() Machine {
	m := Machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	m.CPU = field("/proc/cpuinfo", "model name")
	m.Memory = field("/proc/meminfo", "MemTotal")
	if v, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += " " + strings.TrimSpace(string(v))
	}
	return m
}

func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
