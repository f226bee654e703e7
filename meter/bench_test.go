package meter

import (
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
)

// BenchmarkDecideUsage is the hot path: usage of two meters at an account of a three-level tree, one blocking quota at each
// of two levels.
func BenchmarkDecideUsage(b *testing.B) {
	w := newWorld(b)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tokens.output", Period: kind.Month, Limit: kind.MaxAmount, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tokens.output", Period: kind.Day, Limit: kind.MaxAmount, Mode: kind.Block})
	body := must[[]byte](b)(kind.UsageBody{
		Quantities: []verify.Quantity{{Meter: "tokens.input", N: 1873}, {Meter: "tokens.output", N: 211}},
		Dims:       []kind.Dim{{Name: "model", Value: "large"}},
	}.Encode())
	ev := event(kind.Usage, acctTeam, body)
	w.ok(w.do(ev))
	at := ledger.Stamp{Time: w.now}
	b.ReportAllocs()
	for b.Loop() {
		if d := w.m.Decide(w.v, ev, at); d.Outcome != verify.OutcomeAccepted {
			b.Fatal(d.Outcome)
		}
	}
}

// BenchmarkDecideLeasedUsage is usage that settles a lease.
func BenchmarkDecideLeasedUsage(b *testing.B) {
	w := newWorld(b)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Month, Limit: kind.MaxAmount, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: kind.MaxAmount, Mode: kind.Block})
	g := w.grant(acctTeam, 1<<40)
	body := must[[]byte](b)(kind.UsageBody{Quantities: []verify.Quantity{{Meter: "tok", N: 211}}, Lease: g.Lease, From: 0, To: 1}.Encode())
	ev := event(kind.Usage, acctTeam, body)
	at := ledger.Stamp{Time: w.now}
	b.ReportAllocs()
	for b.Loop() {
		if d := w.m.Decide(w.v, ev, at); d.Outcome != verify.OutcomeAccepted {
			b.Fatal(d.Outcome)
		}
	}
}

func BenchmarkQueryQuota(b *testing.B) {
	w := newWorld(b)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Month, Limit: 1000, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 1000, Mode: kind.Block})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.m.QueryQuota(w.v, acctTeam, "tok", nhi.LinkID{}, w.now); err != nil {
			b.Fatal(err)
		}
	}
}
