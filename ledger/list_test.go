package ledger_test

import (
	"slices"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi/canon"
)

// TestPageTakesBoundedSteps shows that a page over lists that hardly meet ends after a bounded number of looks into them, with a
// cursor from which the pages together find what is to be found, once each.
func TestPageTakesBoundedSteps(t *testing.T) {
	w := newWorld(t)
	w.counter.decide = func(_ ledger.View, ev *ledger.Event, _ ledger.Stamp) (ledger.Decision, bool) {
		var b countBody
		refused := canon.Unmarshal(ev.Body, &b) == nil && ev.Kind == "plain" && b.N == 0
		return ledger.Decision{Outcome: verify.OutcomeLimit}, refused
	}
	// Usage is accepted, "plain" refused, in turn; twice "plain" is accepted as well.
	var want []uint64
	for round := range 4 {
		var batch []ledgertest.Signed
		for i := range 200 {
			switch {
			case i%2 == 0:
				batch = append(batch, w.usage(1))
			case round%2 == 0 && i == 101:
				want = append(want, w.size()+uint64(i))
				batch = append(batch, w.Under(w.link, w.agent, "plain", account, countBody{N: 1}))
			default:
				batch = append(batch, w.Under(w.link, w.agent, "plain", account, countBody{}))
			}
		}
		w.SubmitBatch(batch...)
	}
	s := w.Read()
	defer s.Close()
	accepted := verify.OutcomeAccepted
	q := ledger.Query{Kind: "plain", Outcome: &accepted}
	const bound, lists = 32, 2
	for _, newest := range []bool{false, true} {
		q.NewestFirst, q.Cursor = newest, ""
		byIndex := q // goes on from where a page ended by its index, as a stream does
		var got, streamed []uint64
		empty, steps := 0, 0
		for pages := 1; ; pages++ {
			page, err := s.List(w.Slot, q.WithSteps(bound))
			if err != nil {
				t.Fatal(err)
			}
			same, err := s.List(w.Slot, byIndex.WithSteps(bound))
			if err != nil {
				t.Fatal(err)
			}
			got, streamed = appendIndices(got, page), appendIndices(streamed, same)
			if page.Steps() > bound+lists {
				t.Errorf("newest first %t: a page took %d steps, want at most %d", newest, page.Steps(), bound+lists)
			}
			steps += page.Steps()
			if page.Next == "" {
				break
			}
			if len(page.Events) == 0 {
				empty++
			}
			if pages > 100 {
				t.Fatal("pages do not end")
			}
			q.Cursor = page.Next
			if newest {
				byIndex.ToIndex = same.From
			} else {
				byIndex.FromIndex = same.From
			}
		}
		if newest {
			slices.Reverse(got)
			slices.Reverse(streamed)
		}
		if !slices.Equal(got, want) || !slices.Equal(streamed, want) {
			t.Errorf("newest first %t: got %v by cursor and %v by index, want %v", newest, got, streamed, want)
		}
		if empty < 10 || steps < 700 {
			t.Errorf("newest first %t: %d empty pages, %d steps: the bound was not tried", newest, empty, steps)
		}
		// With the bound that a server has, it is one page.
		q.Cursor = ""
		if page, err := s.List(w.Slot, q); err != nil || page.Next != "" || len(page.Events) != len(want) {
			t.Errorf("newest first %t: got %+v, %v, want all of it in one page", newest, page, err)
		}
	}
}

func appendIndices(to []uint64, p *ledger.Page) []uint64 {
	for _, e := range p.Events {
		to = append(to, e.Index)
	}
	return to
}
