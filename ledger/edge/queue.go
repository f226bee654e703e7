package edge

import (
	"context"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// queue is what waits for one tenant. Guarded by Edge.mu.
type queue struct {
	items  []*item
	events int
	bytes  int
}

// enqueue waits for the item's command to be applied.
func (e *Edge) enqueue(ctx context.Context, it *item) ([]Result, error) {
	if e.bytes.Add(int64(it.size)) > maxNodeBytes {
		e.bytes.Add(-int64(it.size))
		return nil, fmt.Errorf("submit: %w", ErrPushback)
	}
	if err := e.push(it); err != nil {
		e.bytes.Add(-int64(it.size))
		return nil, err
	}
	select {
	case a := <-it.answer:
		return a.results, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("submit: %w: %w", ErrUnavailable, context.Cause(ctx))
	}
}

func (e *Edge) push(it *item) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fmt.Errorf("submit: %w", ErrUnavailable)
	}
	q := e.queues[it.tenant]
	if q == nil {
		q = &queue{}
		e.queues[it.tenant] = q
		e.ring = append(e.ring, it.tenant)
	}
	if q.events+len(it.events) > maxQueueEvents || q.bytes+it.size > maxQueueBytes {
		if len(q.items) > 0 {
			return fmt.Errorf("submit: %w", ErrPushback)
		}
	}
	q.items = append(q.items, it)
	q.events += len(it.events)
	q.bytes += it.size
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return nil
}

// full says whether the tenant's queue, or the node, has no room for so many events now.
func (e *Edge) full(tenant nhi.ID, events int) bool {
	if e.bytes.Load() > maxNodeBytes {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.queues[tenant]
	return q != nil && len(q.items) > 0 && (q.events+events > maxQueueEvents || q.bytes >= maxQueueBytes)
}

// take returns the items of the next command: as many as fit of the tenant whose turn it is, nil when nothing waits. A
// tenant with more goes to the end of the ring.
func (e *Edge) take() []*item {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ring) == 0 {
		return nil
	}
	tenant := e.ring[0]
	e.ring = e.ring[1:]
	q := e.queues[tenant]
	n, events, bytes := 0, 0, 0
	for n < len(q.items) {
		it := q.items[n]
		if n > 0 && (events+len(it.events) > maxCommandEvents || bytes+it.size > maxCommandBytes) {
			break
		}
		n, events, bytes = n+1, events+len(it.events), bytes+it.size
	}
	taken := q.items[:n:n]
	if n == len(q.items) {
		delete(e.queues, tenant)
		return taken
	}
	q.items = append([]*item(nil), q.items[n:]...)
	q.events -= events
	q.bytes -= bytes
	e.ring = append(e.ring, tenant)
	return taken
}

// Run proposes what waits until ctx ends, then answers whatever is left with ErrUnavailable. Items of one tenant are
// proposed in the order of their arrival.
func (e *Edge) Run(ctx context.Context) error {
	defer e.drain()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wake:
		}
		for {
			// A free place first, then what has arrived meanwhile: the busier the node, the larger its commands.
			select {
			case <-ctx.Done():
				return ctx.Err()
			case e.flying <- struct{}{}:
			}
			items := e.take()
			if items == nil {
				<-e.flying
				break
			}
			e.propose(ctx, items)
		}
	}
}

// drain answers everything that still waits; nothing is accepted afterwards.
func (e *Edge) drain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for _, q := range e.queues {
		for _, it := range q.items {
			e.bytes.Add(-int64(it.size))
			it.answer <- answer{err: fmt.Errorf("submit: %w", ErrUnavailable)}
		}
	}
	clear(e.queues)
	e.ring = nil
}

// propose starts one command. Its goroutine ends when the proposal is resolved or ctx ends.
func (e *Edge) propose(ctx context.Context, items []*item) {
	data, err := e.command(items)
	if err != nil {
		e.finish(items, nil, err)
		return
	}
	wait := e.cfg.Proposer.Propose(data)
	go func() {
		result, err := wait(ctx)
		switch {
		case err == nil:
			results, ok := result.([]ledger.EventResult)
			if !ok {
				err = fmt.Errorf("submit: command gave %T", result)
			}
			e.finish(items, results, err)
		case errors.Is(err, ErrPushback):
			e.finish(items, nil, fmt.Errorf("submit: %w", ErrPushback))
		default:
			e.finish(items, nil, fmt.Errorf("submit: %w: %w", ErrUnavailable, err))
		}
	}()
}

// command encodes the items as one command.
func (e *Edge) command(items []*item) ([]byte, error) {
	c := ledger.Command{Type: ledger.CommandEvents, Time: e.cfg.Now(), Tenant: items[0].tenant}
	events, asked := 0, false
	for _, it := range items {
		c.Envelopes = append(c.Envelopes, it.encoded)
		for k, s := range it.sealed {
			if len(s) > 0 {
				c.Addenda = append(c.Addenda, ledger.SealedAddenda{Event: events + k, Sealed: s})
			}
		}
		asked = asked || it.verdicts != nil
		events += len(it.events)
	}
	if asked {
		c.Verdicts = make([]ledger.Verdict, 0, events)
		for _, it := range items {
			if it.verdicts != nil {
				c.Verdicts = append(c.Verdicts, it.verdicts...)
			} else {
				c.Verdicts = append(c.Verdicts, make([]ledger.Verdict, len(it.events))...)
			}
		}
	}
	return c.Encode()
}

// finish answers the items of one command and frees their places.
func (e *Edge) finish(items []*item, results []ledger.EventResult, err error) {
	defer func() { <-e.flying }()
	var receipts [][]byte
	var signature []byte
	if err == nil {
		want := 0
		for _, it := range items {
			want += len(it.events)
		}
		if len(results) != want {
			err = fmt.Errorf("submit: %d results for %d events", len(results), want)
		} else {
			receipts, signature, err = e.receipts(items[0].tenant, results)
		}
	}
	if err != nil && !errors.Is(err, ErrPushback) && !errors.Is(err, ErrUnavailable) {
		e.cfg.Logger.Error("command was not answered", "err", err)
		err = fmt.Errorf("submit: %w: %w", ErrUnavailable, err)
	}
	at := 0
	for _, it := range items {
		a := answer{err: err}
		if err == nil {
			a.results = make([]Result, len(it.events))
			for i := range a.results {
				a.results[i] = Result{EventResult: results[at+i], Receipt: receipts[at+i]}
				if receipts[at+i] != nil {
					a.results[i].ReceiptSignature = signature
				}
			}
			at += len(it.events)
		}
		e.bytes.Add(-int64(it.size))
		it.answer <- a
	}
}

// receipts makes one receipt per event that has a leaf, and the one signature over all of them, which they leave out.
func (e *Edge) receipts(tenant nhi.ID, results []ledger.EventResult) (receipts [][]byte, signature []byte, err error) {
	out := make([][]byte, len(results))
	var bodies []verify.Receipt
	var at []int
	for i, r := range results {
		if r.State != ledger.Sequenced && r.State != ledger.Duplicate {
			continue
		}
		bodies = append(bodies, verify.Receipt{
			V: 1, LedgerID: e.cfg.LedgerID(), Tenant: tenant, Slot: r.Slot, Index: r.Index, LeafHash: r.LeafHash,
			Time: r.Time, Outcome: r.Outcome,
		})
		at = append(at, i)
	}
	if len(bodies) == 0 {
		return out, nil, nil
	}
	signed, err := verify.SignReceipts(e.cfg.NodeKey, e.cfg.LedgerID(), e.cfg.Node, bodies)
	if err != nil {
		return nil, nil, fmt.Errorf("sign receipts: %w", err)
	}
	signature = signed[0].Signature
	for k := range signed {
		signed[k].Signature = nil
		if out[at[k]], err = signed[k].Encode(); err != nil {
			return nil, nil, fmt.Errorf("encode receipt: %w", err)
		}
	}
	return out, signature, nil
}
