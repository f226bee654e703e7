package ledger_test

import (
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// BenchmarkApplyBatch256 applies commands of 256 batch-signed events of one agent under a chain of two links, as followers
// do: signatures were verified before. One operation is one event.
func BenchmarkApplyBatch256(b *testing.B) { benchmarkApply(b, 256) }

// BenchmarkApplyLone applies commands of 256 events that are signed one by one.
func BenchmarkApplyLone(b *testing.B) { benchmarkApply(b, 1) }

func benchmarkApply(b *testing.B, batch int) {
	f := ledgertest.NewWith(b, ledgertest.Options{Kinds: usageKinds(&counter{}), Config: func(c *ledger.Config) {
		c.Dir, c.FS = b.TempDir(), nil
	}})
	human := f.Register("human", registry.Human)
	agent := f.Register("agent", registry.Agent)
	sub := f.Register("sub-agent", registry.Agent)
	link := f.Delegate(f.Delegate(nil, human, agent, nil), agent, sub, nil)
	accounts := []nhi.ID{ledgertest.ID("a"), ledgertest.ID("b"), ledgertest.ID("c")}
	const perCommand = 256
	n := (b.N + perCommand - 1) / perCommand
	entries := make([]ledger.Entry, n)
	first := f.Log.AppliedIndex() + 1
	for i := range entries {
		c := &ledger.Command{Type: ledger.CommandEvents, Time: f.Now, Tenant: f.Tenant, Verdicts: f.Verdicts(f.Tenant, perCommand)}
		for range perCommand / batch {
			events := make([]ledgertest.Signed, batch)
			for k := range events {
				events[k] = f.Under(link, sub, "usage", accounts[k%len(accounts)], countBody{N: uint64(k)})
			}
			if batch == 1 {
				c.Envelopes = append(c.Envelopes, f.Sign(events[0]))
			} else {
				c.Envelopes = append(c.Envelopes, f.SignBatch(events...))
			}
		}
		if batch == 1 { // 256 lone signatures are more than one command holds
			for k := range 4 {
				part := *c
				part.Envelopes, part.Verdicts = c.Envelopes[k*64:(k+1)*64], c.Verdicts[:64]
				data, err := part.Encode()
				if err != nil {
					b.Fatal(err)
				}
				entries = append(entries, ledger.Entry{Index: first, Term: 1, Data: data})
				first++
			}
			continue
		}
		data, err := c.Encode()
		if err != nil {
			b.Fatal(err)
		}
		entries[i] = ledger.Entry{Index: first, Term: 1, Data: data}
		first++
	}
	if batch == 1 {
		entries = entries[n:]
	}
	b.ReportAllocs()
	b.ResetTimer()
	for len(entries) > 0 {
		k := min(4, len(entries))
		results, err := f.Log.Apply(entries[:k])
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range results {
			f.Accepted(r.([]ledger.EventResult)...)
		}
		entries = entries[k:]
	}
}
