package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/sandbox"
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

func TestRunAndReport(t *testing.T) {
	w := newWorld(t)
	b := &fake{class: kind.Process}
	a := w.start(b, nil)
	claim := w.claim(nil)
	s := w.await(claim)
	if s.GetState() != "finished" || s.GetExitCode() != 0 || s.GetMeasuredFrom() != kind.FromWait4 || len(s.GetUsage()) != 3 {
		t.Errorf("got %v", s)
	}
	run, err := kind.OpenStatement(t.Context(), w.node.Key.Public(), s.GetStatement())
	if err != nil {
		t.Fatal(err)
	}
	w.with(func() {
		ev, err := nhi.DecodeEvent(w.f.Stored(claim).Payload)
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Answers(ev, claim, w.node.ID); err != nil {
			t.Error(err)
		}
		// What the command printed can be read, and erased.
		if e := w.f.Stored(s.GetReportIndex()); e.Addenda != 1 {
			t.Errorf("got %d addenda of the report, want the output", e.Addenda)
		}
	})
	want, err := backend.HashRootfs(w.tmpl)
	if err != nil {
		t.Fatal(err)
	}
	if run.Rootfs != want || string(s.GetRootfsDigest()) != string(want[:]) || run.Backend != "fake" || run.BackendVersion != "1.0" {
		t.Errorf("got rootfs %x under %s %s, want %x", run.Rootfs, run.Backend, run.BackendVersion, want)
	}
	a.end()
	w.until("the node has left", func(v ledger.View) bool { return sandbox.Nodes(v)[0].Capacity == 0 })
	if n := b.count(); n != 1 {
		t.Errorf("got %d runs, want 1", n)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "creto-templates-*")); err != nil || len(left) > 0 {
		t.Logf("staged templates of somebody are there: %v %v", left, err)
	}
}

func TestFailuresAreReported(t *testing.T) {
	w := newWorld(t)
	w.start(&fake{class: kind.Process, run: func(_ context.Context, s backend.Spec) (*backend.Result, error) {
		if s.Command[0] == "/absent" {
			return nil, fmt.Errorf("%w: \"é%s\"", backend.ErrNoProgram, strings.Repeat("x", 300))
		}
		r := finished("")
		r.Status, r.Reason, r.ExitCode = kind.Killed, backend.ReasonWall, kind.NoExitCode
		return r, nil
	}}, nil)
	s := w.await(w.claim(func(b *kind.ClaimBody) { b.Command = []string{"/absent"} }))
	run, err := kind.OpenStatement(t.Context(), w.node.Key.Public(), s.GetStatement())
	if err != nil {
		t.Fatal(err)
	}
	if s.GetState() != "failed" || len(s.GetUsage()) != 0 || !strings.HasPrefix(run.Reason, "program is not in the template") || !run.Started.IsZero() {
		t.Errorf("got %v, %q", s, run.Reason)
	}
	s = w.await(w.claim(nil))
	if run, err = kind.OpenStatement(t.Context(), w.node.Key.Public(), s.GetStatement()); err != nil {
		t.Fatal(err)
	}
	if s.GetState() != "killed" || run.Reason != backend.ReasonWall || len(s.GetUsage()) != 3 {
		t.Errorf("got %v, %q", s, run.Reason)
	}
}

// The server has committed the report and the stream breaks before the answer.
func TestALostAnswerLosesNoReportAndDoublesNone(t *testing.T) {
	w := newWorld(t)
	lost := 0
	w.submit = func(commit func() ([]edge.Result, error)) ([]edge.Result, error) {
		r, err := commit()
		if err == nil && len(r) == 2 && lost < 3 {
			lost++
			return nil, status.Error(codes.Unavailable, "the answer is lost")
		}
		return r, err
	}
	b := &fake{class: kind.Process}
	a := w.start(b, nil)
	if s := w.await(w.claim(nil)); s.GetState() != "finished" {
		t.Errorf("got %s", s.GetState())
	}
	// A later claim shows that the stream has come back.
	if s := w.await(w.claim(nil)); s.GetState() != "finished" {
		t.Errorf("got %s", s.GetState())
	}
	a.end()
	if reports, usage := w.leaves(kind.Report), w.leaves(kind.Usage); reports != 2 || usage != 2 || lost != 3 {
		t.Errorf("got %d reports and %d usages after %d lost answers, want 2 of each", reports, usage, lost)
	}
	if n := b.count(); n != 2 {
		t.Errorf("got %d runs, want 2", n)
	}
}

// The stream is lost between run and report, and then the node's process too.
func TestARestartLosesNoReport(t *testing.T) {
	w := newWorld(t)
	refused := make(chan struct{}, 1)
	down := false // guarded by the world's mutex, under which submit is called
	w.submit = func(commit func() ([]edge.Result, error)) ([]edge.Result, error) {
		if !down {
			return commit()
		}
		signal(refused)
		return nil, status.Error(codes.Unavailable, "down")
	}
	b := &fake{class: kind.Process}
	// The node registers while the server is well; then nothing gets through.
	a := w.start(b, nil)
	a.drainTime = 10 * time.Millisecond
	w.until("the node is registered", func(v ledger.View) bool { return len(sandbox.Nodes(v)) == 1 })
	w.with(func() { down = true })
	claim := w.claim(nil)
	<-refused
	a.end()
	if n := w.leaves(kind.Report); n != 0 {
		t.Fatalf("got %d reports while nothing gets through", n)
	}

	w.with(func() { down = false })
	again := w.start(b, nil)
	if s := w.await(claim); s.GetState() != "finished" {
		t.Errorf("got %s, want what the first process had seen", s.GetState())
	}
	again.end()
	if reports, usage := w.leaves(kind.Report), w.leaves(kind.Usage); reports != 1 || usage != 1 {
		t.Errorf("got %d reports and %d usages, want 1 of each", reports, usage)
	}
	if n := b.count(); n != 1 {
		t.Errorf("got %d runs, want 1", n)
	}
}

// A crash between the beginning of a run and its report: nobody knows how it ended, and it is not run again.
func TestACrashDuringARunIsAFailure(t *testing.T) {
	w := newWorld(t)
	b := &fake{class: kind.Process}
	a := w.start(b, nil)
	w.until("the node is registered", func(v ledger.View) bool { return len(sandbox.Nodes(v)) == 1 })
	// A crash is an agent that stops here and a spool that says the claim was begun.
	a.end()
	w.with(func() {
		body := &kind.NodeBody{
			Node: w.node.ID, Classes: []kind.Class{kind.Process}, Templates: []kind.Template{{Name: "hello"}}, Capacity: 1, TTL: int64(time.Hour),
		}
		w.f.Accepted(w.f.Submit(w.f.Event(w.node, kind.Node, body))...)
	})
	claim := w.claim(nil)
	var j *Job
	w.until("the claim is allocated", func(v ledger.View) bool {
		i, ok := sandbox.Get(v, claim)
		if ok && i.State == sandbox.Allocated {
			j = &Job{
				Claim: claim, Agent: i.Agent, Link: i.Link, Account: i.Account, Template: i.Template, Command: []string{"/hello"},
				Class: i.Class, PolicyEpoch: i.PolicyEpoch, Memory: i.Memory, Wall: i.Budget(),
			}
		}
		return j != nil
	})
	s, err := OpenSpool(w.dir, Owner{Ledger: w.f.LedgerID, Tenant: w.f.Tenant, Node: w.node.ID})
	if err != nil {
		t.Fatal(err)
	}
	if fresh, err := s.Begin(claim, canon.MustMarshal(j)); err != nil || !fresh {
		t.Fatalf("got %t, %v", fresh, err)
	}
	closeSpool(t, s)

	// And its copies of the templates lie where it left them.
	left := filepath.Join(os.TempDir(), "creto-templates-"+a.runPrefix()+"left")
	if err := os.MkdirAll(filepath.Join(left, "hello"), 0o700); err != nil {
		t.Fatal(err)
	}

	again := w.start(b, nil)
	got := w.await(claim)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the agent had staged before: got %v, want it gone", err)
	}
	run, err := kind.OpenStatement(t.Context(), w.node.Key.Public(), got.GetStatement())
	if err != nil {
		t.Fatal(err)
	}
	if got.GetState() != "failed" || !strings.Contains(run.Reason, "restarted") {
		t.Errorf("got %s, %q, want a failure because of the restart", got.GetState(), run.Reason)
	}
	again.end()
	if n := b.count(); n != 0 {
		t.Errorf("got %d runs of a claim that was begun before, want none", n)
	}
}

// The node was given a claim, died before it had begun it, and comes back with another root file system under the same name.
func TestAClaimOfAnotherRootFileSystemIsNotRun(t *testing.T) {
	w := newWorld(t)
	w.with(func() {
		body := &kind.NodeBody{
			Node: w.node.ID, Classes: []kind.Class{kind.Process}, Templates: []kind.Template{{Name: "hello", Rootfs: nhi.Digest{0xdd}}}, Capacity: 1,
			TTL: int64(time.Hour),
		}
		w.f.Accepted(w.f.Submit(w.f.Event(w.node, kind.Node, body))...)
	})
	claim := w.claim(nil)
	w.until("the claim is allocated", func(v ledger.View) bool {
		i, ok := sandbox.Get(v, claim)
		return ok && i.State == sandbox.Allocated
	})
	b := &fake{class: kind.Process}
	a := w.start(b, nil)
	got := w.await(claim)
	run, err := kind.OpenStatement(t.Context(), w.node.Key.Public(), got.GetStatement())
	if err != nil {
		t.Fatal(err)
	}
	if got.GetState() != "failed" || run.Reason != reasonTemplate || len(got.GetUsage()) != 0 {
		t.Errorf("got %s, %q, usage %v, want a failure because of the template", got.GetState(), run.Reason, got.GetUsage())
	}
	// What is claimed from now on runs in what is there now.
	if s := w.await(w.claim(nil)); s.GetState() != "finished" {
		t.Errorf("got %s", s.GetState())
	}
	a.end()
	if n := b.count(); n != 1 {
		t.Errorf("got %d runs, want that of the second claim", n)
	}
}

// What a run was measured to have used beyond its limits is reported as the most that the ledger takes: else none of it counts.
func TestUsageBeyondTheLimitsIsStillCounted(t *testing.T) {
	w := newWorld(t)
	a := w.start(&fake{class: kind.Process, run: func(context.Context, backend.Spec) (*backend.Result, error) {
		r := finished("")
		r.Wall, r.CPU, r.MemoryPeak = time.Hour, 1000*time.Hour, 1<<40
		return r, nil
	}}, nil)
	s := w.await(w.claim(nil))
	a.end() // its last report is in
	wall := uint64(10*time.Second) + uint64(kind.SlackWall)
	want := map[string]uint64{
		kind.MeterWall: wall, kind.MeterCPU: kind.MaxProcesses * (wall + uint64(time.Second)), kind.MeterMemory: 64<<20 + kind.SlackMemory,
	}
	if len(s.GetUsage()) != len(want) {
		t.Errorf("got %v, want %v", s.GetUsage(), want)
	}
	for _, q := range s.GetUsage() {
		if q.GetN() != want[q.GetMeter()] {
			t.Errorf("%s: got %d, want %d", q.GetMeter(), q.GetN(), want[q.GetMeter()])
		}
	}
}

// told is a log handler that passes messages on.
type told struct {
	slog.Handler
	messages chan string
}

func (h told) Enabled(context.Context, slog.Level) bool { return true }
func (h told) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h told) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.messages <- r.Message:
	default:
	}
	return nil
}

// A claim that a node cannot take now is offered to it again.
func TestAClaimBeyondWhatANodeKeepsIsNotLost(t *testing.T) {
	w := newWorld(t)
	log := told{slog.DiscardHandler, make(chan string, 100)}
	a := w.start(&fake{class: kind.Process}, func(c *Config) { c.Logger = slog.New(log) })
	w.until("the node is registered", func(v ledger.View) bool { return len(sandbox.Nodes(v)) == 1 })
	a.mu.Lock()
	for i := range uint64(maxTaken) {
		a.taken[1<<40+i] = true
	}
	a.mu.Unlock()
	claim := w.claim(nil)
	for m := range log.messages {
		if m == "stream to the server ended" {
			break
		}
	}
	a.mu.Lock()
	clear(a.taken)
	a.mu.Unlock()
	if s := w.await(claim); s.GetState() != "finished" {
		t.Errorf("got %s", s.GetState())
	}
	a.end()
}

func TestStoppingKillsRunsAndReportsThem(t *testing.T) {
	w := newWorld(t)
	started := make(chan struct{})
	a := w.start(&fake{class: kind.Process, run: func(ctx context.Context, _ backend.Spec) (*backend.Result, error) {
		close(started)
		<-ctx.Done()
		r := finished("cut off")
		r.Status, r.Reason, r.ExitCode = kind.Killed, backend.ReasonCancel, kind.NoExitCode
		return r, nil
	}}, nil)
	claim := w.claim(nil)
	<-started
	a.end()
	if s := w.await(claim); s.GetState() != "killed" {
		t.Errorf("got %s, want killed", s.GetState())
	}
}

func TestPlacesAreTheCapacity(t *testing.T) {
	w := newWorld(t)
	places := make(chan int, 8)
	release := make(chan struct{})
	a := w.start(&fake{class: kind.Process, run: func(_ context.Context, s backend.Spec) (*backend.Result, error) {
		places <- s.Slot
		<-release
		return finished("x"), nil
	}}, nil)
	var claims []uint64
	for range 4 {
		claims = append(claims, w.claim(nil))
	}
	first, second := <-places, <-places
	if first == second || first+second != 1 {
		t.Errorf("got places %d and %d, want 0 and 1", first, second)
	}
	close(release)
	for _, c := range claims {
		if s := w.await(c); s.GetState() != "finished" {
			t.Errorf("got %s", s.GetState())
		}
	}
	a.end()
}

func TestARefusedReportIsNotSentForEver(t *testing.T) {
	w := newWorld(t)
	b := &fake{class: kind.Process}
	a := w.start(b, nil)
	w.until("the node is registered", func(v ledger.View) bool { return len(sandbox.Nodes(v)) == 1 })
	w.with(func() {
		w.submit = func(commit func() ([]edge.Result, error)) ([]edge.Result, error) {
			return nil, &edge.InvalidError{Event: -1, Reason: errors.New("not today")}
		}
	})
	w.claim(nil)
	for a.spool.Acknowledged() == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the refused report is still in the spool")
		}
		runtime.Gosched()
	}
	w.with(func() { w.submit = nil })
	if s := w.await(w.claim(nil)); s.GetState() != "finished" {
		t.Errorf("got %s after a refused report", s.GetState())
	}
	a.end()
}

func TestWhatKeepsAnAgentFromRunning(t *testing.T) {
	w := newWorld(t)
	broken := unavailable{&fake{class: kind.Process}}
	for name, tc := range map[string]struct {
		b      backend.Backend
		change func(*Config)
		want   error
	}{
		"no backend":  {broken, nil, ErrNoBackend},
		"no template": {&fake{class: kind.Process}, func(c *Config) { c.Templates[0].Dir = filepath.Join(w.tmpl, "absent") }, os.ErrNotExist},
		"other spool": {&fake{class: kind.Process}, func(c *Config) {
			s, err := OpenSpool(filepath.Join(w.dir, "other"), testOwner)
			if err != nil {
				t.Fatal(err)
			}
			closeSpool(t, s)
			c.Dir = filepath.Join(w.dir, "other")
		}, ErrSpoolForeign},
	} {
		a := w.start(tc.b, tc.change)
		if err := <-a.done; !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	for name, change := range map[string]func(*Config){
		"capacity":  func(c *Config) { c.Capacity = -1 },
		"ttl":       func(c *Config) { c.TTL = time.Second },
		"templates": func(c *Config) { c.Templates = nil },
		"name":      func(c *Config) { c.Templates = []Template{{Name: "../x", Dir: w.tmpl}} },
		"twice":     func(c *Config) { c.Templates = []Template{{"a", w.tmpl}, {"a", w.tmpl}} },
		"no key":    func(c *Config) { c.Key = nil },
	} {
		cfg := Config{Conn: w.conn, Key: w.node.Key, Node: w.node.ID, Dir: w.dir, Templates: []Template{{"a", w.tmpl}}, Random: strings.NewReader(strings.Repeat("x", 100)), Now: time.Now}
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: made an agent of a bad configuration", name)
		}
	}
}

type unavailable struct{ *fake }

func (unavailable) Probe(context.Context) error { return backend.ErrUnavailable }
