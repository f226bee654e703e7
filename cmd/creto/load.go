package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// loadOptions are the flags of `creto load`.
type loadOptions struct {
	trace       string
	events      int
	rate        float64
	batch       int
	single      bool
	perCall     int
	agents      int
	concurrency int
	receipts    string
	leader      bool
}

// loadView is the result of a load. JSON names are a contract.
type loadView struct {
	Count           int     `json:"count"`
	Accepted        int     `json:"accepted"`
	Refused         int     `json:"refused"`
	Duplicates      int     `json:"duplicates"`
	Failed          int     `json:"failed"`
	Retries         int64   `json:"retries"`
	Mode            string  `json:"mode"`
	Batch           int     `json:"batch"`
	PerCall         int     `json:"per_call"`
	Agents          int     `json:"agents"`
	Concurrency     int     `json:"concurrency"`
	Seconds         float64 `json:"seconds"`
	Rate            float64 `json:"rate"`
	Target          float64 `json:"target_rate,omitempty"`
	P50             float64 `json:"p50_ms"`
	P90             float64 `json:"p90_ms"`
	P99             float64 `json:"p99_ms"`
	Max             float64 `json:"max_ms"`
	PublishedLag    float64 `json:"published_lag_ms"`
	PublishedLagP99 float64 `json:"published_lag_p99_ms"`
	SignSeconds     float64 `json:"sign_seconds"`
	SignRate        float64 `json:"sign_rate"`
	ReceiptsChecked int     `json:"receipts_checked,omitempty"`
	FirstIndex      count   `json:"first_index"`
	LastIndex       count   `json:"last_index"`
	Account         string  `json:"account"`
	Human           string  `json:"human"`
	Machine         string  `json:"machine"`
}

func (l loadView) quietID() string { return fmt.Sprintf("%.0f", l.Rate) }

func (a *app) loadCmd() *cobra.Command {
	var o loadOptions
	c := &cobra.Command{
		Use: "load", Short: "Load a cluster with signed usage events, and measure",
		Long: `Make a human, an account, agents and their delegation chains of its own; sign usage events; then start the clock and submit them,
until every one of them is acknowledged. Exit code 0 only if all are.

With --rate the events have their times, and latency counts from the time at which an event was due, so that a slow answer is
not hidden by what waits behind it. Without, it goes as fast as --concurrency allows.

--batch N signs N events at once, --single each by itself; --per-call says how many signatures travel in one call. --trace takes
the amounts of recorded traffic (TIMESTAMP,ContextTokens,GeneratedTokens) instead of made-up ones. Signed calls wait in a
temporary file. Needs the key of the tenant's authority (--ready, --as or CRETO_AUTHORITY).`,
		Example: `  creto load --ready dev.json --events 20000 --single
  creto load --ready dev.json --events 100000 --batch 256 --agents 8 -o json
  creto load --ready dev.json --trace azure-llm-code.csv --rate 2000 --receipts receipts`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			return a.load(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.trace, "trace", "", "CSV of recorded traffic: TIMESTAMP,ContextTokens,GeneratedTokens")
	f.IntVar(&o.events, "events", 0, "how many events (default: all of --trace, or 10000)")
	f.Float64Var(&o.rate, "rate", 0, "events a second (default: as fast as it goes)")
	f.IntVar(&o.batch, "batch", 256, "events under one signature")
	f.BoolVar(&o.single, "single", false, "sign every event by itself")
	f.IntVar(&o.perCall, "per-call", 0, "signatures in one call (default: 32 with --single, otherwise 1)")
	f.IntVar(&o.agents, "agents", 4, "agents that sign")
	f.IntVar(&o.concurrency, "concurrency", 16, "calls at one time")
	f.StringVar(&o.receipts, "receipts", "", "keep the receipts in this file, and hold them against proofs at the end (needs --trust)")
	f.BoolVar(&o.leader, "leader", false, "send to the leader only, instead of to all nodes in turn")
	return c
}

func (o *loadOptions) check(c *cobra.Command) error {
	if o.single && c.Flag("batch").Changed {
		return usageError(errors.New("--single and --batch exclude one another"))
	}
	if o.single {
		o.batch = 1
	}
	if o.perCall == 0 {
		o.perCall = 1
		if o.single {
			o.perCall = 32
		}
	}
	switch {
	case o.events < 0 || o.rate < 0 || o.events == 0 && c.Flags().Changed("events"):
		return usageError(errors.New("--events is positive, and --rate not negative"))
	case o.batch < 1 || o.batch > nhi.MaxBatch:
		return usageError(fmt.Errorf("--batch is 1 to %d", nhi.MaxBatch))
	case o.perCall < 1 || o.perCall > 256:
		return usageError(errors.New("--per-call is 1 to 256"))
	case o.agents < 1 || o.agents > 1000:
		return usageError(errors.New("--agents is 1 to 1000"))
	case o.concurrency < 1 || o.concurrency > 4096:
		return usageError(errors.New("--concurrency is 1 to 4096"))
	}
	return nil
}

func (a *app) load(ctx context.Context, o loadOptions) error {
	amounts, err := loadAmounts(o)
	if err != nil {
		return err
	}
	var trust *verify.Trust
	if o.receipts != "" {
		if a.settings.trust == "" {
			return usageError(errors.New("receipts are checked against a trust file"), "name it with --trust")
		}
		if trust, err = a.readTrust([]string{a.settings.trust}); err != nil {
			return err
		}
	}
	k, key, err := a.signer(ctx, byAuthority)
	if err != nil {
		return err
	}
	return a.hold(ctx, func(ctx context.Context, c *creto.Client) error {
		w, err := a.actAs(ctx, c, k, key)
		if err != nil {
			return err
		}
		a.say("making a human, an account and %d agents", o.agents)
		crew, err := newLoadCrew(ctx, w, o.agents)
		if err != nil {
			return err
		}
		a.say("signing %d events", len(amounts))
		spool, signing, err := a.signLoad(ctx, crew, amounts, o)
		if err != nil {
			return err
		}
		defer spool.close()
		clients, err := a.loadClients(ctx, c, o)
		if err != nil {
			return err
		}
		for _, cl := range clients {
			defer cl.Close()
		}
		r := &loadRun{
			app: a, o: o, tenant: w.Tenant(), spool: spool, clients: clients, monitor: c,
			latency: make([]time.Duration, len(spool.calls)), acked: make([]ackedCall, len(spool.calls)),
		}
		if o.receipts != "" {
			if r.receipts, err = creto.OpenReceipts(o.receipts); err != nil {
				return localError(err)
			}
			defer r.receipts.Close()
		}
		v, runErr := r.run(ctx)
		v.SignSeconds, v.SignRate = rounded(signing.Seconds()), rounded(float64(len(amounts))/signing.Seconds())
		v.Account, v.Human = crew.account.String(), crew.human.String()
		if runErr == nil && r.receipts != nil {
			done, err := c.CheckReceipts(ctx, r.receipts, trust)
			v.ReceiptsChecked = done.Checked
			if err != nil {
				return errors.Join(a.object(v), err)
			}
			if done.Pending > 0 {
				runErr = fmt.Errorf("%d receipts are of leaves that are not published yet", done.Pending)
			}
		}
		if err := a.object(v); err != nil {
			return err
		}
		if runErr != nil {
			return runErr
		}
		if v.Failed > 0 || v.Count != len(amounts) {
			return &failure{code: exitUnavailable, err: fmt.Errorf("%d of %d events are not acknowledged", len(amounts)-v.Count, len(amounts))}
		}
		return nil
	})
}

// loadClients returns one client for each node, each beginning with its own, or one that begins with the leader.
func (a *app) loadClients(ctx context.Context, c *creto.Client, o loadOptions) ([]*creto.Client, error) {
	addrs := slices.Clone(a.settings.addrs)
	n := len(addrs)
	if o.leader {
		n = 1
		st, err := cretov1.NewClusterServiceClient(c).Status(ctx, &cretov1.StatusRequest{})
		if err != nil {
			return nil, fmt.Errorf("ask for the leader: %w", err)
		}
		if a.settings.ready != nil {
			if i := slices.Index(a.settings.ready.Nodes, st.GetLeaderId()); i >= 0 && i < len(addrs) {
				addrs = append(slices.Clone(addrs[i:]), addrs[:i]...)
			}
		}
	}
	var out []*creto.Client
	keep := a.settings.addrs
	defer func() { a.settings.addrs = keep }()
	for i := range n {
		a.settings.addrs = append(slices.Clone(addrs[i:]), addrs[:i]...)
		cl, err := a.dial(ctx)
		if err != nil {
			return out, err
		}
		out = append(out, cl)
	}
	return out, nil
}

// ackedCall is when a call was acknowledged, and its highest leaf.
type ackedCall struct {
	at   time.Time
	last uint64
}

type loadRun struct {
	app      *app
	o        loadOptions
	tenant   nhi.ID
	spool    *loadSpool
	clients  []*creto.Client
	monitor  *creto.Client
	receipts *creto.ReceiptStore

	latency []time.Duration // by call; written by the one worker that has it
	acked   []ackedCall

	mu                                    sync.Mutex // guards what follows
	sequenced, refused, duplicate, failed int
	retries                               int64
	first, last                           uint64
	any                                   bool
	reason                                string
}

func (r *loadRun) run(ctx context.Context) (loadView, error) {
	p := r.app.progress("submitting", "events")
	watch := newPublishWatch(r.monitor, r.tenant)
	wctx, stop := context.WithCancel(ctx)
	g, gctx := errgroup.WithContext(wctx)
	g.Go(func() error { return watch.run(gctx) })

	next := make(chan int)
	begun := time.Now()
	var work errgroup.Group
	for w := range r.o.concurrency {
		cl := r.clients[w%len(r.clients)]
		work.Go(func() error {
			for i := range next {
				if err := r.call(ctx, cl, i, begun); err != nil {
					return err
				}
			}
			return nil
		})
	}
	feed := func() error {
		defer close(next)
		for i, c := range r.spool.calls {
			if r.o.rate > 0 {
				due := begun.Add(time.Duration(float64(c.first) / r.o.rate * float64(time.Second)))
				if d := time.Until(due); d > 0 {
					t := time.NewTimer(d)
					select {
					case <-t.C:
					case <-ctx.Done():
						t.Stop()
						return ctx.Err()
					}
				}
			}
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
			p.set(uint64(c.first), uint64(r.spool.count))
		}
		return nil
	}
	fed := make(chan error, 1)
	go func() { fed <- feed() }()
	err := work.Wait()
	if err != nil {
		for range next { // let the feeder end
		}
	}
	err = errors.Join(err, <-fed)
	seconds := time.Since(begun)
	p.done()
	if err == nil && r.any {
		watch.await(ctx, r.last, 10*time.Second)
	}
	stop()
	if werr := g.Wait(); werr != nil && !errors.Is(werr, context.Canceled) && err == nil {
		r.app.say("the published height could not be followed: %v", werr)
	}
	return r.view(seconds, watch), err
}

// call sends one signed call until each of its events has a final answer.
func (r *loadRun) call(ctx context.Context, cl *creto.Client, i int, begun time.Time) error {
	c := r.spool.calls[i]
	raw, err := r.spool.read(i)
	if err != nil {
		return err
	}
	from := time.Now()
	if r.o.rate > 0 { // latency counts from when it was due
		from = begun.Add(time.Duration(float64(c.first) / r.o.rate * float64(time.Second)))
	}
	resp := new(cretov1.SubmitResponse)
	tries := int64(0)
	for {
		cctx, cancel := context.WithTimeout(ctx, r.app.settings.timeout)
		proto.Reset(resp)
		err := cl.Invoke(cctx, cretov1.EventService_Submit_FullMethodName, signedCall(raw), resp, grpc.ForceCodec(signedCodec{}))
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return r.lost(i, err)
		}
		if !slices.ContainsFunc(resp.GetResults(), func(p *cretov1.Result) bool { return p.GetState() == cretov1.Result_STATE_STALE }) || tries > 20 {
			break
		}
		tries++
	}
	r.latency[i] = time.Since(from)
	return r.answered(i, resp, tries)
}

// lost counts the events of a call that has no answer. One such call ends the load: there is nothing to measure any more.
func (r *loadRun) lost(i int, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed += r.spool.calls[i].events
	return err
}

func (r *loadRun) answered(i int, resp *cretov1.SubmitResponse, tries int64) error {
	results := resp.GetResults()
	if len(results) != r.spool.calls[i].events {
		return fmt.Errorf("read answer: %d results for %d events", len(results), r.spool.calls[i].events)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retries += tries
	last := uint64(0)
	for k, p := range results {
		switch p.GetState() {
		case cretov1.Result_STATE_SEQUENCED, cretov1.Result_STATE_DUPLICATE:
			if p.GetState() == cretov1.Result_STATE_DUPLICATE {
				r.duplicate++
			}
			r.sequenced++
			if !verify.OutcomeCode(p.GetOutcomeCode()).Accepted() {
				r.refused++
				r.reason = p.GetOutcome() + " " + p.GetReason()
			}
			n := p.GetIndex()
			if !r.any || n < r.first {
				r.first = n
			}
			r.any, last = true, max(last, n)
		default:
			r.failed++
			r.reason = p.GetState().String() + " " + p.GetReason()
		}
		if r.receipts != nil && len(p.GetReceipt()) > 0 {
			receipt, err := creto.ReceiptOf(resp, k)
			if err != nil {
				return fmt.Errorf("read answer: result %d: %w", k, err)
			}
			if err := r.receipts.Append(receipt); err != nil {
				return localError(err)
			}
		}
	}
	r.last = max(r.last, last)
	r.acked[i] = ackedCall{time.Now(), last}
	return nil
}

func (r *loadRun) view(took time.Duration, watch *publishWatch) loadView {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := loadView{
		Count: r.sequenced, Accepted: r.sequenced - r.refused, Refused: r.refused, Duplicates: r.duplicate, Failed: r.failed, Retries: r.retries,
		Mode: "batch", Batch: r.o.batch, PerCall: r.o.perCall, Agents: r.o.agents, Concurrency: r.o.concurrency, Target: r.o.rate,
		Seconds: rounded(took.Seconds()), Rate: rounded(float64(r.sequenced) / took.Seconds()), FirstIndex: count(r.first), LastIndex: count(r.last),
		Machine: fmt.Sprintf("%s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()),
	}
	if r.o.single {
		v.Mode = "single"
	}
	if r.reason != "" {
		r.app.say("not accepted, for example: %s", r.reason)
	}
	// Every event has the latency of its call.
	var latencies weighted
	var lags weighted
	for i, c := range r.spool.calls {
		if r.latency[i] > 0 {
			latencies.add(r.latency[i], c.events)
		}
		if a := r.acked[i]; !a.at.IsZero() {
			if at, ok := watch.publishedAt(a.last); ok {
				lags.add(max(at.Sub(a.at), 0), c.events)
			}
		}
	}
	v.P50, v.P90, v.P99, v.Max = latencies.ms(0.5), latencies.ms(0.9), latencies.ms(0.99), latencies.ms(1)
	v.PublishedLag, v.PublishedLagP99 = lags.ms(0.5), lags.ms(0.99)
	return v
}

func rounded(x float64) float64 { return math.Round(x*1000) / 1000 }
