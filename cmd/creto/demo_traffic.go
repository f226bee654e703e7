package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/creto-systems/creto/ledger/verify"
	meter "github.com/creto-systems/creto/meter/kind"
	creto "github.com/creto-systems/creto/sdk/go"
)

// demoTraffic is what became of the traffic.
type demoTraffic struct {
	limit   uint64     // of the tester's input tokens
	refused []bool     // by row: as the answers say
	index   []uint64   // by row: of its leaf
	first   *sentBatch // to be sent again
	batch   int        // events under one signature
	killed  chan struct{}
}

// sentBatch is a batch with its answers.
type sentBatch struct {
	agent   *demoAgent
	signed  *creto.Signed
	results []*creto.Result
}

// rowAgent is whose request row i is: ten requests in turn, to each agent its share.
func (d *demo) rowAgent(i int) int {
	at := i % 10
	for n, a := range d.people.agents {
		if at < a.share {
			return n
		}
		at -= a.share
	}
	return 0
}

// rowsOf returns the requests of one agent.
func (d *demo) rowsOf(agent int) []traceRow {
	var out []traceRow
	for i, r := range d.rows {
		if d.rowAgent(i) == agent {
			out = append(out, r)
		}
	}
	return out
}

// meterTraffic sends every request as a signed usage event, each agent its own in order, and kills the leader when half of
// them are acknowledged.
func (d *demo) meterTraffic(ctx context.Context) (string, error) {
	t := &d.traffic
	t.refused, t.index = make([]bool, len(d.rows)), make([]uint64, len(d.rows))
	t.killed = make(chan struct{})
	// Each agent sends several batches, however short the traffic is.
	t.batch = min(max(len(d.rows)/32, 8), demoBatch)
	begun := time.Now()
	// The traffic is moved so that its last request is now; its spacing is kept.
	base := begun.Add(-d.rows[len(d.rows)-1].after)
	var acked atomic.Int64
	half := make(chan struct{})
	var mu sync.Mutex
	last, longest := begun, time.Duration(0) // guarded by mu: the last acknowledgement, and the longest pause between two
	g, gctx := errgroup.WithContext(ctx)
	for n, a := range d.people.agents {
		g.Go(func() error {
			return d.sendRows(gctx, n, a, base, func(sent int) {
				mu.Lock()
				longest, last = max(longest, time.Since(last)), time.Now()
				mu.Unlock()
				total := int(acked.Add(int64(sent)))
				d.report.progress(total, len(d.rows))
				if before := total - sent; total*2 >= len(d.rows) && before*2 < len(d.rows) {
					close(half)
				}
			})
		})
	}
	var was int
	g.Go(func() error {
		select {
		case <-half:
		case <-gctx.Done():
			return gctx.Err()
		}
		var err error
		if was, err = d.cluster.leader(gctx); err != nil {
			return err
		}
		if err := d.cluster.kill(was); err != nil {
			return fmt.Errorf("kill the leader: %w", err)
		}
		close(t.killed)
		return nil
	})
	if err := g.Wait(); err != nil {
		return "", err
	}
	took := time.Since(begun)
	is, err := d.cluster.leader(ctx)
	if err != nil {
		return "", err
	}
	refused, want := 0, d.expectRefusals()
	for i := range d.rows {
		if t.refused[i] != want[i] {
			return "", fmt.Errorf("request %d: got refused=%v, want %v by the tester's quota", i+1, t.refused[i], want[i])
		}
		if want[i] {
			refused++
		}
	}
	if refused == 0 {
		return "", errors.New("nothing was refused: the tester's quota did not run out")
	}
	return fmt.Sprintf("%s requests as signed usage events, up to %d under one signature, %.0f a second with the kill\n"+
		"kill -9 of node %d, the leader, at the half: node %d leads, %.1f s without an acknowledgement, same bytes sent again\n"+
		"the tester's quota ran out: %s requests refused, exactly those for which there was no room",
		thousands(uint64(len(d.rows))), t.batch, float64(len(d.rows))/took.Seconds(), was+1, is+1, longest.Seconds(), thousands(uint64(refused))), nil
}

// sendRows sends the requests of one agent, one batch after the other.
func (d *demo) sendRows(ctx context.Context, n int, a *demoAgent, base time.Time, acked func(int)) error {
	batch := a.NewBatch()
	var rows []int
	send := func() error {
		signed, err := batch.Sign()
		if err != nil {
			return err
		}
		results, err := a.Send(ctx, signed)
		if err != nil {
			return fmt.Errorf("send a batch of the %s: %w", a.part, err)
		}
		for k, r := range results {
			switch err := r.Err(); {
			case err == nil:
			case r.Outcome == verify.OutcomeQuotaExhausted:
				d.traffic.refused[rows[k]] = true
			default:
				return fmt.Errorf("request %d, of the %s: %w", rows[k]+1, a.part, err)
			}
			d.traffic.index[rows[k]] = r.Index
		}
		if n == 0 && d.traffic.first == nil {
			d.traffic.first = &sentBatch{a, signed, results}
		}
		acked(len(rows))
		rows = rows[:0]
		return nil
	}
	for i, r := range d.rows {
		if d.rowAgent(i) != n {
			continue
		}
		body := meter.UsageBody{
			Quantities: []verify.Quantity{{Meter: meterInput, N: r.input}, {Meter: meterOutput, N: r.output}, {Meter: meterRequests, N: 1}},
			Dims:       []meter.Dim{{Name: "model", Value: "code"}},
		}
		err := batch.AddUsage(body, creto.WithClientTime(base.Add(r.after)))
		if errors.Is(err, creto.ErrBatchFull) {
			if err = send(); err == nil {
				err = batch.AddUsage(body, creto.WithClientTime(base.Add(r.after)))
			}
		}
		if err != nil {
			return err
		}
		rows = append(rows, i)
		if batch.Len() == d.traffic.batch {
			if err := send(); err != nil {
				return err
			}
		}
	}
	// The last batch of each agent goes out after the kill, so that there is something to go on with.
	select {
	case <-d.traffic.killed:
	case <-ctx.Done():
		return ctx.Err()
	}
	if batch.Len() == 0 {
		return nil
	}
	return send()
}

// expectRefusals says which requests the tester's quota has no room for, from the traffic alone.
func (d *demo) expectRefusals() []bool {
	out := make([]bool, len(d.rows))
	used := uint64(0)
	for i, r := range d.rows {
		if d.rowAgent(i) != 2 {
			continue
		}
		if used+r.input > d.traffic.limit {
			out[i] = true
		} else {
			used += r.input
		}
	}
	return out
}

// sendAgain sends the first batch a second time: nothing happens twice.
func (d *demo) sendAgain(ctx context.Context) (string, error) {
	b := d.traffic.first
	again, err := b.agent.Send(ctx, b.signed)
	if err != nil {
		return "", err
	}
	for k, r := range again {
		if r.State != creto.StateDuplicate || r.Index != b.results[k].Index || r.LeafHash != b.results[k].LeafHash {
			return "", fmt.Errorf("event %d of a batch that was sent again: got %s at index %d, want duplicate at %d", k, r.State, r.Index, b.results[k].Index)
		}
	}
	return fmt.Sprintf("a batch of %d sent again: each event gets its first answer, with its first index", len(again)), nil
}
