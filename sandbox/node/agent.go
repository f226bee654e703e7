package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Defaults of a Config.
const (
	DefaultCapacity = 4
	DefaultTTL      = 10 * time.Minute
)

const (
	drainTime  = 5 * time.Second
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
	maxTaken   = 2 * kind.MaxCapacity
)

// ErrNoBackend means that nothing can isolate a run on this machine; the error says why for each backend.
var ErrNoBackend = errors.New("no backend can isolate runs on this machine")

// Template is a root file system that the node offers.
type Template struct {
	Name string
	Dir  string // is copied when the agent starts; what changes in it later does not matter
}

// Config configures an Agent.
type Config struct {
	Conn   grpc.ClientConnInterface // to a server of the cluster, with the node's SVID
	Ledger nhi.Digest
	Tenant nhi.ID     // whose claims the node serves
	Node   nhi.ID     //
	Key    nhi.Signer // the node's composite key, registered in the system log with the role of a sandbox node
	Dir    string     // of the spool; survives restarts
	// Stage is where templates are copied to while the agent runs; every user must be able to enter it. "" = a new folder
	// among the temporary files.
	Stage     string
	Templates []Template // at most kind.MaxTemplates
	// Backends are tried in this order; the first that works of each isolation class is used.
	Backends []backend.Backend
	Capacity int           // runs at one time; 0 = DefaultCapacity, at most kind.MaxCapacity
	TTL      time.Duration // how long the ledger counts on the node without hearing of it; 0 = DefaultTTL
	Random   io.Reader     // for salts, nonces and ids
	Now      func() time.Time
	Logger   *slog.Logger
}

// Agent is one sandbox node. It runs once.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	instance [8]byte
	seq      atomic.Uint64

	// Set by Run before anything else starts.
	spool    *Spool
	backends map[kind.Class]backend.Backend
	rootfs   map[string]staged
	slots    chan int // free places

	news    chan struct{} // a report came, buffered by one
	room    chan struct{} // a report went, buffered by one
	leaving chan struct{} // closed when the agent takes no more claims
	left    chan struct{} // the ledger has heard that it leaves, buffered by one

	drainTime time.Duration // for the last reports when the agent stops

	mu    sync.Mutex
	taken map[uint64]bool // claims that wait for a place or run
}

type staged struct {
	dir    string
	digest nhi.Digest
}

// New returns an Agent.
func New(cfg Config) (*Agent, error) {
	if cfg.Capacity == 0 {
		cfg.Capacity = DefaultCapacity
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Conn == nil, cfg.Key == nil, cfg.Random == nil, cfg.Now == nil, cfg.Dir == "":
		return nil, errors.New("configure sandbox node: connection, key, randomness, clock and directory are needed")
	case cfg.Capacity < 0 || cfg.Capacity > kind.MaxCapacity:
		return nil, fmt.Errorf("configure sandbox node: capacity %d is not between 1 and %d", cfg.Capacity, kind.MaxCapacity)
	case int64(cfg.TTL) < kind.MinNodeTTL || int64(cfg.TTL) > kind.MaxNodeTTL:
		return nil, fmt.Errorf("configure sandbox node: %s is not a registration's time between %s and %s",
			cfg.TTL, time.Duration(kind.MinNodeTTL), time.Duration(kind.MaxNodeTTL))
	case len(cfg.Templates) == 0 || len(cfg.Templates) > kind.MaxTemplates:
		return nil, fmt.Errorf("configure sandbox node: %d templates, want 1 to %d", len(cfg.Templates), kind.MaxTemplates)
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger, backends: make(map[kind.Class]backend.Backend), rootfs: make(map[string]staged),
		slots: make(chan int, cfg.Capacity), news: make(chan struct{}, 1), room: make(chan struct{}, 1),
		leaving: make(chan struct{}), left: make(chan struct{}, 1), taken: make(map[uint64]bool),
		drainTime: drainTime,
	}
	for i := range cfg.Capacity {
		a.slots <- i
	}
	if _, err := io.ReadFull(cfg.Random, a.instance[:]); err != nil {
		return nil, fmt.Errorf("configure sandbox node: %w", err)
	}
	// What the templates are called must suit the ledger, or the registration would be refused on and on.
	if err := a.offer(nil).Check(); err != nil {
		return nil, fmt.Errorf("configure sandbox node: %w", err)
	}
	return a, nil
}

// Run serves until ctx ends. Then it takes no more claims, kills what runs, hands in the last reports as far as a server
// takes them soon, and returns nil. Other reasons to end are what cannot be got over: no backend, no template, a spool that
// cannot be written.
func (a *Agent) Run(ctx context.Context) (err error) {
	if err := a.probe(ctx); err != nil {
		return err
	}
	// The spool first: it is locked, and so what an earlier life has staged is nobody's any more.
	a.spool, err = OpenSpool(a.cfg.Dir, Owner{Ledger: a.cfg.Ledger, Tenant: a.cfg.Tenant, Node: a.cfg.Node})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.spool.Close()) }()
	remove, err := a.stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if err := a.recover(ctx); err != nil {
		return err
	}

	// The stream outlives ctx by as long as the last reports may take.
	linkCtx, unlink := context.WithCancel(context.WithoutCancel(ctx))
	defer unlink()
	fatal := make(chan error, 1)
	fail := func(err error) {
		select {
		case fatal <- err:
		default:
		}
	}
	runCtx, stopRuns := context.WithCancel(ctx)
	defer stopRuns()
	var runs, link errgroup.Group
	link.Go(func() error {
		a.serve(linkCtx, func(j *Job) error { return a.start(runCtx, &runs, j, fail) }, fail)
		return nil
	})
	select {
	case <-ctx.Done():
	case err = <-fatal:
		unlink()
	}
	close(a.leaving)
	stopRuns()
	// The stream may still be about to start a run; when it has seen that the agent leaves, none comes any more.
	a.mu.Lock()
	a.taken = nil
	a.mu.Unlock()
	_ = runs.Wait()
	if err == nil {
		a.drain(linkCtx)
	}
	unlink()
	_ = link.Wait()
	select {
	case late := <-fatal:
		err = errors.Join(err, late)
	default:
	}
	return err
}

// probe keeps the first backend of each class that works.
func (a *Agent) probe(ctx context.Context) error {
	var reasons []error
	for _, b := range a.cfg.Backends {
		if a.backends[b.Class()] != nil {
			continue
		}
		if err := b.Probe(ctx); err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", b.Name(), err))
			a.log.WarnContext(ctx, "backend does not work", "backend", b.Name(), "err", err)
			continue
		}
		a.backends[b.Class()] = b
		a.log.InfoContext(ctx, "backend works", "backend", b.Name(), "version", b.Version(), "class", b.Class().String())
	}
	if len(a.backends) == 0 {
		return fmt.Errorf("%w: %w", ErrNoBackend, errors.Join(reasons...))
	}
	return nil
}

// stage copies the templates; remove deletes the copies. What an agent that was killed has left is removed first.
func (a *Agent) stage() (remove func() error, err error) {
	parent := a.cfg.Stage
	if parent == "" {
		parent = os.TempDir()
	}
	prefix := "creto-templates-" + a.runPrefix()
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, fmt.Errorf("stage templates: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
			a.log.Warn("templates of an earlier run stay", "dir", e.Name(), "err", err)
		}
	}
	base, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, fmt.Errorf("stage templates: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(base))
		}
	}()
	if err := os.Chmod(base, 0o711); err != nil {
		return nil, fmt.Errorf("stage templates: %w", err)
	}
	for _, t := range a.cfg.Templates {
		dir := filepath.Join(base, t.Name)
		digest, err := backend.Stage(t.Dir, dir)
		if err != nil {
			return nil, fmt.Errorf("template %q: %w", t.Name, err)
		}
		a.rootfs[t.Name] = staged{dir, digest}
		a.log.Info("template staged", "template", t.Name, "rootfs", fmt.Sprintf("%x", digest))
	}
	return func() error { return os.RemoveAll(base) }, nil
}

// recover ends what an earlier life of this node has left: sandboxes that still run, and claims that nobody will finish.
func (a *Agent) recover(ctx context.Context) error {
	if err := backend.Sweep(ctx, a.runPrefix()); err != nil {
		a.log.WarnContext(ctx, "remains of earlier runs stay", "err", err)
	}
	for _, raw := range a.spool.Begun() {
		j, err := decodeJob(raw)
		if err != nil {
			return fmt.Errorf("recover claims: %w", err)
		}
		a.log.WarnContext(ctx, "claim was begun before a restart", "claim", j.Claim)
		if err := a.report(ctx, j, &outcome{status: kind.Failed, reason: "node was restarted while the claim ran"}); err != nil {
			return fmt.Errorf("recover claims: %w", err)
		}
	}
	return nil
}

// runPrefix begins the names of the runs that this agent, and no other one, has on this machine.
func (a *Agent) runPrefix() string {
	return "sbx-" + a.cfg.Node.String()[:10] + "-" + a.cfg.Tenant.String()[:10] + "-"
}

// offer is what the node registers; with backends nil, of every class that it might have.
func (a *Agent) offer(backends map[kind.Class]backend.Backend) *kind.NodeBody {
	b := &kind.NodeBody{Node: a.cfg.Node, Capacity: uint64(a.cfg.Capacity), TTL: int64(a.cfg.TTL)}
	for c := kind.Process; c <= kind.Confidential; c++ {
		if backends == nil || backends[c] != nil {
			b.Classes = append(b.Classes, c)
		}
	}
	for _, t := range a.cfg.Templates {
		b.Templates = append(b.Templates, kind.Template{Name: t.Name, Rootfs: a.rootfs[t.Name].digest})
	}
	slices.SortFunc(b.Templates, func(x, y kind.Template) int { return cmp.Compare(x.Name, y.Name) })
	return b
}

// serve keeps a stream to a server until ctx ends.
func (a *Agent) serve(ctx context.Context, start func(*Job) error, fail func(error)) {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		acked, err := a.connect(ctx, start)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errSpool) {
			fail(err)
			return
		}
		if acked {
			backoff = minBackoff
		}
		a.log.WarnContext(ctx, "stream to the server ended", "err", err, "retry", backoff.String(), "reports_waiting", a.spool.Waiting())
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
	}
}

// drain waits until every report is acknowledged and the ledger knows that the node leaves.
func (a *Agent) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.drainTime)
	defer cancel()
	left := false
	for a.spool.Waiting() > 0 || !left {
		select {
		case <-a.left:
			left = true
		case <-a.room:
		case <-ctx.Done():
			a.log.Warn("stopping with reports in the spool", "reports_waiting", a.spool.Waiting())
			return
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// errSpool wraps errors of the spool, after which the node must not go on.
var errSpool = errors.New("spool does not work")

// ascii makes a reason of an error: printable ASCII, bounded.
func ascii(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > kind.MaxReason {
		s = s[:kind.MaxReason]
	}
	if s == "" {
		return "unknown"
	}
	return s
}
