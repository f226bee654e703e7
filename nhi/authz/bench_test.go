package authz

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkDecide measures a decision over hard sets of 1 to 1,000 policies
// of which two can match, plus a soft set; "whole" is the same without the
// index.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		var text strings.Builder
		text.WriteString(`@id("p")permit(principal is Agent,action==Action::"pay",resource in Account::"team");`)
		for i := 1; i < n; i++ {
			fmt.Fprintf(&text, `@id("f%d")forbid(principal,action,resource==Account::"o%d");`, i, i)
		}
		e := mustCompile(b, text.String(), softPay)
		req := pay(100)
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := e.Decide(req, nil, nil, Epochs{}); d.Outcome != Allow {
					b.Fatalf("got %v, want allow", d.Outcome)
				}
			}
		})
		b.Run(fmt.Sprintf("policies=%d/whole", n), func(b *testing.B) {
			b.ReportAllocs()
			ents, creq, _ := req.build()
			for b.Loop() {
				if v := e.hard.plain(ents, creq); !v.allow {
					b.Fatal("got deny, want allow")
				}
			}
		})
	}
}

// BenchmarkDecideByPrincipal is the same for 1,000 policies of one action
// that each name a principal.
func BenchmarkDecideByPrincipal(b *testing.B) {
	var text strings.Builder
	text.WriteString(`@id("p")permit(principal,action,resource);`)
	for i := 1; i < 1000; i++ {
		fmt.Fprintf(&text, `@id("f%d")forbid(principal==Agent::"%d",action,resource);`, i, i)
	}
	e := mustCompile(b, text.String(), softPay)
	req := pay(100)
	b.ReportAllocs()
	for b.Loop() {
		if d := e.Decide(req, nil, nil, Epochs{}); d.Outcome != Allow {
			b.Fatalf("got %v, want allow", d.Outcome)
		}
	}
}
