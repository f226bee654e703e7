package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	meterkind "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// BenchmarkSubmit commits usage, signed beforehand, on three nodes of this process through the leader's gRPC listener. One
// operation is one event.
func BenchmarkSubmit(b *testing.B) {
	b.Run("single", func(b *testing.B) { benchSubmit(b, 1) })
	b.Run("batch=256", func(b *testing.B) { benchSubmit(b, 256) })
}

func benchSubmit(b *testing.B, batch int) {
	d, err := StartDev(b.Context(), DevConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	c := &cluster{d, b}
	cc := c.dial(d.Leader(), d.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	n := max(b.N/batch, 1)
	requests := make([]*cretov1.SubmitRequest, n)
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := w; i < n; i += 2 {
				requests[i] = c.signed(service, key, batch)
			}
		})
	}
	wg.Wait()
	const workers = 256
	took := make([]time.Duration, n)
	var next atomic.Int64
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	client := cretov1.NewEventServiceClient(cc)
	b.ResetTimer()
	for range min(workers, n) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				start := time.Now()
				for {
					resp, err := client.Submit(ctx, requests[i])
					if err != nil {
						if ctx.Err() != nil {
							b.Error(err)
							return
						}
						time.Sleep(5 * time.Millisecond)
						continue
					}
					for _, r := range resp.GetResults() {
						if r.GetOutcome() != "accepted" {
							b.Errorf("got %v", r)
							return
						}
					}
					break
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(n*batch)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(took[n/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[n*99/100].Microseconds())/1000, "p99-ms")
}

// signed returns a request of n usage events under one signature.
func (c *cluster) signed(agent nhi.ID, key *nhi.PrivateKey, n int) *cretov1.SubmitRequest {
	payloads := make([][]byte, n)
	for i := range payloads {
		e := c.event(c.Tenant, agent, meterkind.Usage, meterkind.UsageBody{Quantities: quantities("tokens", 1)})
		e.Account = c.Tenant
		p, err := e.Encode()
		if err != nil {
			c.t.Fatal(err)
		}
		payloads[i] = p
	}
	var env *nhi.Envelope
	var err error
	if n == 1 {
		env, err = nhi.SignEvent(key, payloads[0])
	} else {
		env, err = nhi.SignBatch(key, c.LedgerID, c.Tenant, payloads)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return &cretov1.SubmitRequest{Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{{Payloads: env.Payloads, KeyId: env.KeyID[:], Signature: env.Signature, Batch: env.Batch}}}
}
