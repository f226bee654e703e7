package node

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	"github.com/creto-systems/creto/sandbox"
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// world is a real ledger behind the real service, and a sandbox node's identity.
type world struct {
	t     testing.TB
	agent *ledgertest.Identity
	link  *ledgertest.Link
	node  *ledgertest.Identity
	conn  *grpc.ClientConn
	dir   string // of the agent's spool
	tmpl  string // of a template

	mu sync.Mutex // of the fixture, which is for one goroutine
	f  *ledgertest.Fixture
	// submit stands before the ledger; it may refuse, or lose the answer.
	submit func(commit func() ([]edge.Result, error)) ([]edge.Result, error)
	kek    *ledger.FileKEK
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), tmpl: t.TempDir()}
	s := sandbox.New(nil)
	w.f = ledgertest.New(t, s.Kinds()...)
	human := w.f.Register("human", registry.Human)
	w.agent = w.f.Register("agent", registry.Agent)
	w.link = w.f.Delegate(nil, human, w.agent, nil)
	w.node = ledgertest.NewIdentity(t, "sandbox node", registry.Node)
	pop, err := registry.NewPossession(w.node.Key, w.f.LedgerID, nhi.ID{}, w.node.ID, registry.Node)
	if err != nil {
		t.Fatal(err)
	}
	pk := w.node.Key.Public()
	w.f.Accepted(w.f.Submit(w.f.SystemEvent(w.f.Admin, ledger.KindNodeAdd, &ledger.NodeAddBody{
		ID: w.node.ID, Role: registry.RoleSandbox, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop,
	}))...)
	if w.kek, err = ledger.NewFileKEK(make([]byte, 32), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.tmpl, "hello"), []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}

	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true)) // a handler must not outlive the log it reads
	s.RegisterService(server, sandbox.ServiceConfig{
		Reads: w, Changes: w, Submitter: w, Peer: func(context.Context) (nhi.ID, bool) { return w.node.ID, true },
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	w.conn, err = grpc.NewClient("passthrough:///sandbox", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(w.conn.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return w
}

// Snapshot opens the fixture's state.
func (w *world) Snapshot(_ context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(*ledger.Snapshot, ledger.Tenant, *cretov1.ReadInfo) error) error {
	snap, err := w.f.Log.Read()
	if err != nil {
		return err
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil {
		return err
	}
	return ledger.Guard(func() error {
		return fn(snap, t, &cretov1.ReadInfo{Linearizable: c != cretov1.Consistency_CONSISTENCY_STALE, TimeNs: snap.Time()})
	})
}

// Changed tells when something was applied.
func (w *world) Changed(context.Context, nhi.ID) <-chan struct{} { return w.f.Log.Applied() }

// Submit applies envelopes as the edge would, addenda sealed.
func (w *world) Submit(_ context.Context, tenant nhi.ID, subs []edge.Submission) ([]edge.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	commit := func() (out []edge.Result, err error) {
		c := &ledger.Command{Tenant: tenant}
		n := 0
		for _, s := range subs {
			raw, err := s.Envelope.Encode()
			if err != nil {
				return nil, err
			}
			c.Envelopes = append(c.Envelopes, raw)
			for i := range s.Envelope.Payloads {
				if i < len(s.Addenda) && len(s.Addenda[i]) > 0 {
					sealed := ledger.SealedAddenda{Event: n}
					for _, a := range s.Addenda[i] {
						one, err := ledger.SealAddendum(w.kek, rand.Reader, w.f.LedgerID, tenant, a)
						if err != nil {
							return nil, err
						}
						sealed.Sealed = append(sealed.Sealed, one)
					}
					c.Addenda = append(c.Addenda, sealed)
				}
				n++
			}
		}
		c.Verdicts = w.f.Verdicts(tenant, n)
		for _, r := range w.f.SubmitCommand(c) {
			out = append(out, edge.Result{EventResult: r})
		}
		return out, nil
	}
	if w.submit != nil {
		return w.submit(commit)
	}
	return commit()
}

// with runs fn while nobody else uses the fixture.
func (w *world) with(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

func (w *world) claim(change func(*kind.ClaimBody)) uint64 {
	w.t.Helper()
	b := &kind.ClaimBody{
		Template: "hello", Command: []string{"/hello"}, Class: kind.Process,
		Limits: kind.Limits{Wall: int64(10 * time.Second), Memory: 64 << 20}, TTL: int64(time.Hour),
	}
	if change != nil {
		change(b)
	}
	var index uint64
	w.with(func() {
		index = w.f.Accepted(w.f.Submit(w.f.Under(w.link, w.agent, kind.Claim, ledgertest.ID("account"), b))...).Index
	})
	return index
}

// await returns the claim once it is done.
func (w *world) await(claim uint64) *cretov1.Sandbox {
	w.t.Helper()
	for {
		r, err := cretov1.NewSandboxServiceClient(w.conn).AwaitSandbox(w.t.Context(), &cretov1.GetSandboxRequest{
			Tenant: w.f.Tenant[:], Claim: claim, TimeoutMs: 20_000,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		s := r.GetSandbox()
		switch s.GetState() {
		case "finished", "killed", "failed", "expired":
			return s
		}
		w.t.Logf("claim %d is still %s", claim, s.GetState())
		if w.t.Context().Err() != nil {
			w.t.Fatal("the test's time is over")
		}
	}
}

// until waits for a condition, looking again whenever the ledger has applied something.
func (w *world) until(what string, done func(v ledger.View) bool) {
	w.t.Helper()
	timeout := time.NewTimer(30 * time.Second)
	defer timeout.Stop()
	for {
		changed := w.f.Log.Applied()
		ok := false
		w.with(func() { w.f.WithView(w.f.Tenant, func(v ledger.View) { ok = done(v) }) })
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			w.t.Fatalf("waited too long until %s", what)
		}
	}
}

// leaves counts the tenant's accepted leaves of a kind.
func (w *world) leaves(name string) (n int) {
	w.t.Helper()
	w.with(func() {
		s := w.f.Read()
		defer s.Close()
		head, err := s.Head(w.f.Slot)
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range head.Size {
			e, err := s.Event(w.f.Slot, i)
			if err != nil {
				w.t.Fatal(err)
			}
			if e.Leaf.Kind == name && e.Leaf.Outcome.Code.Accepted() {
				n++
			}
		}
	})
	return n
}

// fake is a backend whose runs are a function.
type fake struct {
	class kind.Class
	run   func(ctx context.Context, s backend.Spec) (*backend.Result, error)
	mu    sync.Mutex
	runs  []backend.Spec
}

func (*fake) Name() string                { return "fake" }
func (*fake) Version() string             { return "1.0" }
func (f *fake) Class() kind.Class         { return f.class }
func (*fake) Probe(context.Context) error { return nil }
func (f *fake) count() int                { f.mu.Lock(); defer f.mu.Unlock(); return len(f.runs) }

func (f *fake) Run(ctx context.Context, s backend.Spec) (*backend.Result, error) {
	f.mu.Lock()
	f.runs = append(f.runs, s)
	f.mu.Unlock()
	if f.run != nil {
		return f.run(ctx, s)
	}
	return finished("hello\n"), nil
}

func finished(output string) *backend.Result {
	o := backend.NewOutput()
	_, _ = o.Write([]byte(output))
	r := &backend.Result{
		Status: kind.Finished, Started: time.Unix(1700000000, 0), Finished: time.Unix(1700000001, 0), Wall: time.Second,
		CPU: time.Millisecond, MemoryPeak: 1 << 20, MeasuredFrom: kind.FromWait4,
	}
	r.Output, r.OutputDigest, r.OutputBytes = o.Result()
	return r
}

// running is an agent that runs.
type running struct {
	*Agent
	t    testing.TB
	stop context.CancelFunc
	done chan error
}

func (w *world) start(b backend.Backend, change func(*Config)) *running {
	w.t.Helper()
	cfg := Config{
		Conn: w.conn, Ledger: w.f.LedgerID, Tenant: w.f.Tenant, Node: w.node.ID, Key: w.node.Key, Dir: w.dir,
		Templates: []Template{{"hello", w.tmpl}}, Backends: []backend.Backend{b}, Capacity: 2, Random: rand.Reader, Now: time.Now,
	}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	r := &running{Agent: a, t: w.t, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- a.Run(ctx) }()
	w.t.Cleanup(stop)
	return r
}

// end stops the agent and waits for it.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Fatalf("agent: %v", err)
	}
}
