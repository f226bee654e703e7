package creto

import (
	"context"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// ErrBatchFull means that an event does not fit into a batch any more: send the batch and add the event to the next one.
var ErrBatchFull = errors.New("batch is full")

// Batch collects events of one agent under one signature: at most nhi.MaxBatch events and nhi.MaxBatchBytes altogether. It
// is not safe for concurrent use.
type Batch struct {
	agent    *Agent
	payloads [][]byte
	addenda  [][]nhi.Addendum
	bytes    int
	any      bool // some payload has addenda
	wait     cretov1.Height
	kind     string
}

// NewBatch returns an empty batch.
func (a *Agent) NewBatch() *Batch { return &Batch{agent: a} }

// Len returns the number of events in the batch.
func (b *Batch) Len() int { return len(b.payloads) }

// Add puts one event into the batch. The error is ErrBatchFull if it does not fit; nothing is added then.
func (b *Batch) Add(kind string, body []byte, opts ...EventOption) error {
	if len(b.payloads) >= nhi.MaxBatch {
		return ErrBatchFull
	}
	d, err := b.agent.draft(kind, body, opts)
	if err != nil {
		return err
	}
	payload, err := d.event.Encode()
	if err != nil {
		return fmt.Errorf("make %s event: %w", kind, err)
	}
	if b.bytes+len(payload) > nhi.MaxBatchBytes {
		return ErrBatchFull
	}
	if len(b.payloads) == 0 {
		b.kind = kind
	}
	b.bytes += len(payload)
	b.payloads = append(b.payloads, payload)
	b.addenda = append(b.addenda, d.addenda)
	b.any = b.any || len(d.addenda) > 0
	b.wait = max(b.wait, d.wait)
	return nil
}

// AddUsage puts one usage event into the batch.
func (b *Batch) AddUsage(body kind.UsageBody, opts ...EventOption) error {
	raw, err := body.Encode()
	if err != nil {
		return fmt.Errorf("make usage event: %w", err)
	}
	return b.Add(kind.Usage, raw, opts...)
}

// Sign signs the events and empties the batch. What it returns can be sent, and sent again, with Agent.Send.
func (b *Batch) Sign() (*Signed, error) {
	if len(b.payloads) == 0 {
		return nil, errors.New("sign batch: it is empty")
	}
	env, err := nhi.SignBatch(b.agent.c.Signer, b.agent.c.LedgerID, b.agent.c.Tenant, b.payloads)
	if err != nil {
		return nil, fmt.Errorf("sign batch: %w", err)
	}
	s := &Signed{Envelope: env, Wait: b.wait, Kind: b.kind}
	if b.any {
		s.Addenda = b.addenda
	}
	*b = Batch{agent: b.agent}
	return s, nil
}

// Send signs the batch, submits it and empties it. Results are in the order in which events were added.
func (b *Batch) Send(ctx context.Context) ([]*Result, error) {
	s, err := b.Sign()
	if err != nil {
		return nil, err
	}
	return b.agent.Send(ctx, s)
}
