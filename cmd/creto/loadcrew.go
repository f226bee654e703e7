package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	meter "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// maxLoadEvents bounds one load.
const maxLoadEvents = 50_000_000

// loadAmount is what one request used.
type loadAmount struct{ in, out uint32 }

func (l loadAmount) body() meter.UsageBody {
	return meter.UsageBody{Quantities: []verify.Quantity{{Meter: "input_tokens", N: uint64(l.in)}, {Meter: "output_tokens", N: uint64(l.out)}}}
}

// loadAmounts returns the amounts of a trace, again from its start if it is too short, or made-up ones of the same shape.
func loadAmounts(o loadOptions) ([]loadAmount, error) {
	var trace []loadAmount
	if o.trace != "" {
		f, err := os.Open(o.trace)
		if err != nil {
			return nil, localError(fmt.Errorf("read trace: %w", err))
		}
		defer f.Close()
		if trace, err = parseTrace(f); err != nil {
			return nil, localError(fmt.Errorf("read trace %s: %w", o.trace, err))
		}
	} else {
		for i := range 1009 { // a prime, so that agents do not get the same amounts
			trace = append(trace, loadAmount{uint32(100 + i*i%7900), uint32(5 + i*7%300)})
		}
	}
	n := o.events
	if n == 0 {
		n = len(trace)
		if o.trace == "" {
			n = 10_000
		}
	}
	if n > maxLoadEvents {
		return nil, usageError(fmt.Errorf("--events is at most %d", maxLoadEvents))
	}
	out := make([]loadAmount, n)
	for i := range out {
		out[i] = trace[i%len(trace)]
	}
	return out, nil
}

// parseTrace reads TIMESTAMP,ContextTokens,GeneratedTokens lines below a header.
func parseTrace(r io.Reader) ([]loadAmount, error) {
	s := bufio.NewScanner(r)
	var out []loadAmount
	for line := 1; s.Scan(); line++ {
		text := strings.TrimSpace(s.Text())
		if text == "" || line == 1 && strings.HasPrefix(strings.ToUpper(text), "TIMESTAMP") {
			continue
		}
		p := strings.Split(text, ",")
		if len(p) != 3 {
			return nil, fmt.Errorf("line %d has %d columns, want 3", line, len(p))
		}
		in, err1 := strconv.ParseUint(strings.TrimSpace(p[1]), 10, 32)
		gen, err2 := strconv.ParseUint(strings.TrimSpace(p[2]), 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if out = append(out, loadAmount{uint32(in), uint32(gen)}); len(out) > maxLoadEvents {
			return nil, fmt.Errorf("more than %d lines", maxLoadEvents)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("no lines")
	}
	return out, nil
}

// loadCrew is who signs a load: a human of its own, and the agents that act for that human.
type loadCrew struct {
	human   nhi.ID
	account nhi.ID
	agents  []*creto.Agent
}

// newLoadCrew registers human, account, agents and one root link for each, in batches signed by the authority.
func newLoadCrew(ctx context.Context, w *actor, n int) (*loadCrew, error) {
	c := new(loadCrew)
	var err error
	if c.human, err = newID(); err != nil {
		return nil, err
	}
	if c.account, err = newID(); err != nil {
		return nil, err
	}
	humanKey, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	b := &batcher{w: w, batch: w.NewBatch()}
	if err := b.register(ctx, humanKey, c.human, registry.Human); err != nil {
		return nil, err
	}
	body, err := meter.AccountBody{ID: c.account, Type: "run"}.Encode()
	if err != nil {
		return nil, err
	}
	if err := b.add(ctx, meter.Account, body); err != nil {
		return nil, err
	}
	ids, keys := make([]nhi.ID, n), make([]*nhi.PrivateKey, n)
	for i := range n {
		if ids[i], err = newID(); err != nil {
			return nil, err
		}
		if keys[i], err = nhi.GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
		if err := b.register(ctx, keys[i], ids[i], registry.Agent); err != nil {
			return nil, err
		}
	}
	if err := b.flush(ctx); err != nil {
		return nil, err
	}
	tenant := w.Tenant()
	t, err := cretov1.NewIdentityServiceClient(w.client).GetIdentity(ctx, &cretov1.GetIdentityRequest{Tenant: tenant[:], Id: c.human[:]})
	if err != nil {
		return nil, fmt.Errorf("ask for the time: %w", err)
	}
	now := time.Unix(0, t.GetRead().GetTimeNs())
	for i := range n {
		nonce, err := random16()
		if err != nil {
			return nil, err
		}
		l := &registry.Link{
			Ledger: w.LedgerID(), Tenant: tenant, Issuer: c.human, Subject: ids[i], SubjectKey: keys[i].Public().ID(), Nonce: nonce,
			NotBefore: now.Add(-time.Minute).UnixMilli(), Expires: now.Add(24 * time.Hour).UnixMilli(), Purpose: registry.Purpose{Label: "load"},
			Scopes: []registry.Scope{{Actions: []string{meter.Usage}, Resource: registry.AccountResource(c.account), Caps: map[string]uint64{}}},
		}
		raw, sig, id, err := registry.SignLink(humanKey, l)
		if err != nil {
			return nil, err
		}
		counter, err := registry.Countersign(w.signer, id)
		if err != nil {
			return nil, err
		}
		reg, err := (&registry.RegisterLinkBody{Body: raw, Signature: sig, Evidence: registry.Evidence{Kind: registry.CompositeKey}, Countersignature: counter}).Encode()
		if err != nil {
			return nil, err
		}
		if err := b.add(ctx, registry.KindRegisterLink, reg); err != nil {
			return nil, err
		}
		agent, err := creto.NewAgent(creto.AgentConfig{
			Client: w.client, Signer: keys[i], ID: ids[i], Link: id, Account: c.account, Tenant: tenant, LedgerID: w.LedgerID(),
		})
		if err != nil {
			return nil, err
		}
		c.agents = append(c.agents, agent)
	}
	return c, b.flush(ctx)
}

// batcher sends events in as few batches as they fit into.
type batcher struct {
	w     *actor
	batch *creto.Batch
}

func (b *batcher) add(ctx context.Context, kind string, body []byte) error {
	err := b.batch.Add(kind, body)
	if !errors.Is(err, creto.ErrBatchFull) {
		return err
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	return b.batch.Add(kind, body)
}

func (b *batcher) register(ctx context.Context, key *nhi.PrivateKey, id nhi.ID, t registry.Type) error {
	reg, err := registry.NewRegistration(key, b.w.LedgerID(), b.w.Tenant(), id, t)
	if err != nil {
		return err
	}
	body, err := reg.Encode()
	if err != nil {
		return err
	}
	return b.add(ctx, registry.KindRegister, body)
}

func (b *batcher) flush(ctx context.Context) error {
	if b.batch.Len() == 0 {
		return nil
	}
	out, err := b.batch.Send(ctx)
	if err != nil {
		return err
	}
	for _, r := range out {
		if err := r.Err(); err != nil {
			return err
		}
	}
	return nil
}

// publishWatch follows the published size of a tenant's log.
type publishWatch struct {
	rpc    cretov1.LedgerServiceClient
	tenant nhi.ID

	mu   sync.Mutex
	seen []publishedSize // ascending in both fields
}

type publishedSize struct {
	at   time.Time
	size uint64
}

// watchInterval is how fine the lag of publishing is measured.
const watchInterval = 10 * time.Millisecond

func newPublishWatch(c *creto.Client, tenant nhi.ID) *publishWatch {
	return &publishWatch{rpc: cretov1.NewLedgerServiceClient(c), tenant: tenant}
}

func (p *publishWatch) run(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		h, err := p.rpc.GetHeads(ctx, &cretov1.GetHeadsRequest{Tenant: p.tenant[:]})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if creto.Unavailable(err) {
				continue
			}
			return err
		}
		p.mu.Lock()
		if n := len(p.seen); n == 0 || h.GetPublishedTreeSize() > p.seen[n-1].size {
			p.seen = append(p.seen, publishedSize{time.Now(), h.GetPublishedTreeSize()})
		}
		p.mu.Unlock()
	}
}

// publishedAt returns when a leaf was first seen under a published checkpoint.
func (p *publishWatch) publishedAt(index uint64) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := sort.Search(len(p.seen), func(i int) bool { return p.seen[i].size > index })
	if i == len(p.seen) {
		return time.Time{}, false
	}
	return p.seen[i].at, true
}

// await waits until a leaf is published, or for so long.
func (p *publishWatch) await(ctx context.Context, index uint64, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		if _, ok := p.publishedAt(index); ok {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// weighted are durations that stand for several events each.
type weighted struct {
	list  []weight
	total int
}

type weight struct {
	d time.Duration
	n int
}

func (w *weighted) add(d time.Duration, n int) {
	w.list = append(w.list, weight{d, n})
	w.total += n
}

// ms returns a quantile in milliseconds, 0 of nothing.
func (w *weighted) ms(q float64) float64 {
	slices.SortFunc(w.list, func(a, b weight) int { return int(a.d - b.d) })
	rank := int(q * float64(w.total))
	for _, e := range w.list {
		if rank -= e.n; rank <= 0 {
			return float64(e.d.Microseconds()) / 1000
		}
	}
	return 0
}
