package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/ledger/verify"
	creto "github.com/creto-systems/creto/sdk/go"
)

// demoTimeout ends a demonstration that hangs. It takes well under two minutes on two cores.
const demoTimeout = 5 * time.Minute

// demoMark is the file by which the demonstration knows a folder that it made and may replace.
const demoMark = ".creto-demo"

// demoBatch is how many events the demonstration puts under one signature.
const demoBatch = 256

type demoOptions struct {
	dir       string
	csv       string
	events    int
	noSandbox bool
	humans    []string
	program   string // the executable; its servers and verifier are processes of it
	ci        bool
}

func newDemoCmd() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole on this machine: real traffic, a killed leader, an approval, a sandbox, proofs",
		Long: `Show the whole on this machine, in under two minutes, with and without a terminal.

It starts three servers on loopback; makes a tenant with accounts, humans, agents and delegation chains; meters recorded LLM
traffic as signed events until one agent's quota runs out, and kills the leader on the way; has a payment approved, claimed once
and refused the second time; runs a command in a sandbox; erases a human's name; then stops the cluster and checks everything
from files alone. It exits 0 only if all of that held.

The traffic is --csv, else azure-llm-code.csv in $CRETO_DATA or in ../shared/data, else generated traffic of the same shape.
The folder is made anew each time and kept; one that the demonstration did not make is never touched.`,
		Example: `  creto demo
  creto demo --dir /tmp/creto-demo --events 2000
  creto demo --no-sandbox`,
		Args:        noArgs,
		Annotations: map[string]string{localOnly: "1"},
		RunE: func(c *cobra.Command, _ []string) error {
			if o.events < 0 {
				return usageError(errors.New("--events is negative"))
			}
			if len(o.humans) != 0 && len(o.humans) != 2 {
				return usageError(errors.New("--human is given once for each of the two humans, or not at all"))
			}
			o.ci = os.Getenv("CI") == "true"
			if o.noSandbox && o.ci {
				return usageError(errors.New("--no-sandbox is refused where CI=true: there, what is skipped would pass for shown"))
			}
			var err error
			if o.program, err = os.Executable(); err != nil {
				return localError(fmt.Errorf("find own program: %w", err))
			}
			if o.dir, err = filepath.Abs(o.dir); err != nil {
				return localError(fmt.Errorf("find folder: %w", err))
			}
			ctx, cancel := context.WithTimeout(c.Context(), demoTimeout)
			defer cancel()
			return runDemo(ctx, o, newDemoReport(c.OutOrStdout(), c.ErrOrStderr()))
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "demo-out", "folder for everything the demonstration writes")
	f.StringVar(&o.csv, "csv", "", "recorded traffic: TIMESTAMP,ContextTokens,GeneratedTokens")
	f.IntVar(&o.events, "events", 0, "use only so many requests of the traffic (0: all)")
	f.BoolVar(&o.noSandbox, "no-sandbox", false, "leave the sandbox out")
	f.StringArrayVar(&o.humans, "human", nil, "name of a human, given twice (default: made up)")
	return c
}

// demo is one run of the demonstration.
type demo struct {
	demoOptions
	report *demoReport
	rows   []traceRow

	cluster *demoCluster
	client  *creto.Client // with the tenant's read token
	people  demoPeople
	traffic demoTraffic
	payment demoPayment
	run     demoRun // in the sandbox
	audit   demoAudit
}

func runDemo(ctx context.Context, o demoOptions, report *demoReport) (err error) {
	d := &demo{demoOptions: o, report: report}
	begun := time.Now()
	report.title("creto demo, version " + buildVersion().Version)
	defer func() {
		if d.client != nil {
			err = errors.Join(err, d.client.Close())
		}
		if d.cluster != nil {
			d.cluster.killAll()
		}
		if err != nil {
			report.failed(d.logHint())
		}
	}()
	parts := []struct {
		title string
		steps []demoStep
	}{
		{"A cluster", []demoStep{
			{"choose the traffic", d.loadTraffic},
			{"start three servers", d.startCluster},
		}},
		{"Who acts, and for whom", []demoStep{
			{"create the tenant", d.createTenant},
			{"create accounts", d.createAccounts},
			{"register humans and agents", d.registerPeople},
			{"delegate", d.delegate},
			{"limit what may be spent", d.setQuotas},
		}},
		{"What they use", []demoStep{
			{"meter the traffic", d.meterTraffic},
			{"send a batch again", d.sendAgain},
			{"bring the killed node back", d.bringBack},
		}},
		{"What must wait for people", []demoStep{
			{"publish a policy", d.publishPolicy},
			{"ask", d.askApproval},
			{"decide", d.decide},
			{"claim", d.claim},
			{"claim a second time", d.claimAgain},
			{"report", d.reportPayment},
		}},
		{"What runs in a sandbox", []demoStep{
			{"run a command", d.runSandbox},
		}},
		{"What can be forgotten", []demoStep{
			{"erase a name", d.eraseName},
		}},
		{"What it came to", []demoStep{
			{"add up", d.addUp},
			{"fetch the files of an audit", d.fetchFiles},
			{"stop the cluster", d.stopCluster},
		}},
		{"From files alone", []demoStep{
			{"verify", d.verifyFiles},
			{"add the tokens again", d.recount},
			{"flip one byte", d.flipByte},
			{"flip it and hide the damage", d.forge},
		}},
	}
	if err := d.makeDir(); err != nil {
		return localError(err)
	}
	defer func() { err = errors.Join(err, d.mark("")) }()
	for _, part := range parts {
		report.section(part.title)
		for _, s := range part.steps {
			if err := report.step(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	audit := typed(filepath.Join(d.dir, "audit"))
	report.close(time.Since(begun), []string{
		fmt.Sprintf("%s verify %s --trust %s", typed(d.program), filepath.Join(audit, claimFile), filepath.Join(audit, demoTrustFile)),
		typed(d.program) + " dev",
	})
	return nil
}

// typed is a path as the user would type it: relative to the working directory where that is shorter, and never a bare name,
// which a shell would look for elsewhere.
func typed(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(wd, path)
	if err != nil || len(rel) >= len(path) {
		return path
	}
	if filepath.Base(rel) == rel {
		return "." + string(filepath.Separator) + rel
	}
	return rel
}

// makeDir makes the folder anew, if it is absent, empty or the demonstration's own.
func (d *demo) makeDir() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read folder: %w", err)
	}
	if len(entries) > 0 {
		mark, err := os.ReadFile(filepath.Join(d.dir, demoMark))
		if err != nil {
			return fmt.Errorf("folder %s is not empty, and this demonstration did not make it", d.dir)
		}
		if pid := runningDemo(mark); pid != 0 {
			return fmt.Errorf("folder %s is in use by a demonstration that runs as process %d", d.dir, pid)
		}
		if err := os.RemoveAll(d.dir); err != nil {
			return fmt.Errorf("remove the folder of the last run: %w", err)
		}
	}
	for _, sub := range []string{"", "logs", "audit"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return d.mark(fmt.Sprintf("%s%d\n", runsAs, os.Getpid()))
}

// runsAs stands in the mark of a folder while its demonstration runs.
const runsAs = "runs as process "

func (d *demo) mark(more string) error {
	return os.WriteFile(filepath.Join(d.dir, demoMark), []byte("made by creto demo, which replaces this folder\n"+more), 0o600)
}

// runningDemo returns the process of the demonstration that a mark says is running, 0 if none is.
func runningDemo(mark []byte) int {
	_, text, _ := strings.Cut(string(mark), runsAs)
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || pid <= 0 || pid == os.Getpid() {
		return 0
	}
	p, err := os.FindProcess(pid)
	if err != nil || p.Signal(syscall.Signal(0)) != nil {
		return 0
	}
	return pid
}

func (d *demo) logHint() string {
	if d.cluster == nil {
		return ""
	}
	return "what the servers said is in " + filepath.Join(d.dir, "logs")
}

func (d *demo) loadTraffic(context.Context) (string, error) {
	path := d.csv
	if path == "" {
		path = traceFile(os.Getenv)
	}
	what := "generated traffic of the recorded hour's shape (no azure-llm-code.csv in $CRETO_DATA or ../shared/data)"
	if path == "" {
		d.rows = madeTrace(d.events)
	} else {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("open traffic: %w", err)
		}
		defer f.Close()
		if d.rows, err = readTrace(f, d.events); err != nil {
			return "", err
		}
		what = "recorded traffic, " + filepath.Base(path)
	}
	if len(d.rows) < 64 {
		return "", fmt.Errorf("%d requests are too few to show anything: 64 or more", len(d.rows))
	}
	in, out := tokensOf(d.rows)
	return fmt.Sprintf("%s: %s requests in %s, %s input and %s output tokens", what, thousands(uint64(len(d.rows))),
		d.rows[len(d.rows)-1].after.Round(time.Second), thousands(in), thousands(out)), nil
}

// shortID is the beginning of an id, enough to tell a few of them apart.
func shortID(id interface{ String() string }) string { return id.String()[:8] }

// outcomeIs checks that an event was refused with exactly this outcome.
func outcomeIs(err error, want verify.OutcomeCode) error {
	if err == nil {
		return fmt.Errorf("got acceptance, want refusal as %s", want)
	}
	got, ok := creto.Outcome(err)
	if !ok {
		return err
	}
	if got != want {
		return fmt.Errorf("got %s, want refusal as %s: %w", got, want, err)
	}
	return nil
}
