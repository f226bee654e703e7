package ledger_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

func TestSealCommitsEveryHeadOnce(t *testing.T) {
	w := newWorld(t)
	seal := func(epoch uint64) ledger.SealResult {
		return w.Apply(&ledger.Command{Type: ledger.CommandSeal, Epoch: epoch}).(ledger.SealResult)
	}
	if r := seal(2); r.Sealed {
		t.Errorf("seal of an epoch that is not the next: got %+v", r)
	}
	s := w.Read()
	before := s.StateHash()
	s.Close()
	r := seal(1)
	if !r.Sealed || r.Epoch != 1 || r.Size != 1 {
		t.Fatalf("first seal: got %+v", r)
	}
	if r.StateHash != before {
		t.Errorf("state hash in the seal: got %x, want that before it, %x", r.StateHash, before)
	}
	if again := seal(2); again.Sealed || again.Size != 1 || again.Root != r.Root {
		t.Errorf("seal without news: got %+v", again)
	}
	if again := seal(1); again.Sealed {
		t.Errorf("seal of the last epoch again: got %+v", again)
	}
	w.Accepted(w.Submit(w.usage(1))...)
	s = w.Read()
	if news, err := s.News(); err != nil || !news {
		t.Errorf("news: got %t, %v", news, err)
	}
	s.Close()
	if r := seal(2); !r.Sealed || r.Size != 2 {
		t.Errorf("second seal: got %+v", r)
	}
}

// TestHeadsTreeAtEveryEpoch lets tenants come and grow between seals, and checks every head of every epoch against its root.
func TestHeadsTreeAtEveryEpoch(t *testing.T) {
	w := newWorld(t)
	type tenant struct {
		id        nhi.ID
		authority *ledgertest.Identity
	}
	var tenants []tenant
	heads := make(map[uint64][]uint64) // epoch → sizes by slot
	for round := range 12 {
		if round%3 != 2 {
			id := ledgertest.ID(string(rune('a' + round)))
			tenants = append(tenants, tenant{id, w.CreateTenant(id, "authority of "+id.String(), "token")})
		}
		if n := len(tenants); n > 0 {
			x := tenants[round%n]
			w.RegisterIn(x.id, x.authority, "human of "+x.id.String()+string(rune('a'+round)), registry.Human)
		}
		r := w.Seal()
		s := w.Read()
		for slot := range s.Slots() {
			h, err := s.Head(slot)
			if err != nil {
				t.Fatal(err)
			}
			heads[r.Epoch] = append(heads[r.Epoch], h.Size)
		}
		s.Close()
	}
	s := w.Read()
	defer s.Close()
	for epoch := uint64(1); epoch <= s.Epoch(); epoch++ {
		_, spine, err := s.SpineLeaf(epoch)
		if err != nil {
			t.Fatal(err)
		}
		if spine.HeadsSize != uint64(len(heads[epoch])) || spine.Epoch != epoch {
			t.Fatalf("epoch %d: got heads size %d, want %d", epoch, spine.HeadsSize, len(heads[epoch]))
		}
		for slot, size := range heads[epoch] {
			raw, head, err := s.SealedHead(uint32(slot), epoch)
			if err != nil {
				t.Fatal(err)
			}
			if head.Size != size {
				t.Errorf("epoch %d, slot %d: got size %d, want %d", epoch, slot, head.Size, size)
			}
			if root, err := s.RootAt(uint32(slot), size); err != nil || root != head.Root {
				t.Errorf("epoch %d, slot %d: root at %d: got %x, %v, want %x", epoch, slot, size, root, err, head.Root)
			}
			path, n, err := s.HeadsProof(uint32(slot), epoch)
			if err != nil {
				t.Fatal(err)
			}
			if err := verify.VerifyInclusion(uint64(slot), n, verify.LeafHash(raw), path, spine.HeadsRoot); err != nil {
				t.Errorf("epoch %d, slot %d: %v", epoch, slot, err)
			}
		}
	}
}

func TestLogProofsAtEverySize(t *testing.T) {
	w := newWorld(t)
	for range 5 {
		var events []ledgertest.Signed
		for i := range 101 {
			events = append(events, w.usage(uint64(i)))
		}
		w.Accepted(w.SubmitBatch(events...)...)
	}
	s := w.Read()
	defer s.Close()
	head, err := s.Head(w.Slot)
	if err != nil {
		t.Fatal(err)
	}
	tree := verify.NewTree()
	roots := []nhi.Digest{verify.EmptyRoot()}
	if err := s.Leaves(w.Slot, 0, head.Size, func(_ uint64, leaf []byte) error {
		if err := tree.Append(verify.LeafHash(leaf)); err != nil {
			return err
		}
		root, err := tree.Root()
		roots = append(roots, root)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if head.Root != roots[head.Size] {
		t.Fatalf("root: got %x, want %x", head.Root, roots[head.Size])
	}
	for _, size := range []uint64{1, 2, 3, 255, 256, 257, 300, head.Size - 1, head.Size} {
		if root, err := s.RootAt(w.Slot, size); err != nil || root != roots[size] {
			t.Errorf("root at %d: got %x, %v, want %x", size, root, err, roots[size])
		}
		for _, index := range []uint64{0, 1, size / 2, size - 1} {
			leaf, err := s.Leaf(w.Slot, index)
			if err != nil {
				t.Fatal(err)
			}
			path, err := s.Inclusion(w.Slot, index, size)
			if err == nil {
				err = verify.VerifyInclusion(index, size, verify.LeafHash(leaf), path, roots[size])
			}
			if index < size && err != nil {
				t.Errorf("inclusion of %d at %d: %v", index, size, err)
			}
		}
		for _, from := range []uint64{0, 1, size / 2, size - 1, size} {
			path, err := s.Consistency(w.Slot, from, size)
			if from == 0 && len(path) != 0 {
				t.Errorf("consistency of 0 and %d: got %d hashes, want none", size, len(path))
			}
			if err == nil && from > 0 { // with the empty tree everything is consistent
				err = verify.VerifyConsistency(from, size, path, roots[from], roots[size])
			}
			if err != nil {
				t.Errorf("consistency of %d and %d: %v", from, size, err)
			}
		}
	}
	for name, err := range map[string]error{
		"index beyond size": second(s.Inclusion(w.Slot, head.Size, head.Size)), "size beyond head": second(s.Inclusion(w.Slot, 0, head.Size+1)),
		"sizes turned round": second(s.Consistency(w.Slot, 2, 1)), "consistency beyond head": second(s.Consistency(w.Slot, 1, head.Size+1)),
	} {
		if !errors.Is(err, ledger.ErrRange) {
			t.Errorf("%s: got %v, want ErrRange", name, err)
		}
	}
}

func second[A any](_ A, err error) error { return err }

func TestEventProofsVerifyOffline(t *testing.T) {
	w := busy(t)
	trust, anchor := w.Trust(), w.Anchor()
	s := w.Read()
	defer s.Close()
	for _, tenant := range []nhi.ID{{}, w.Tenant, ledgertest.ID("other tenant")} {
		tn, err := s.Tenant(tenant)
		if err != nil {
			t.Fatal(err)
		}
		_, head, err := s.SealedHead(tn.Slot, s.Epoch())
		if err != nil {
			t.Fatal(err)
		}
		for index := uint64(0); index < head.Size; index += 1 + head.Size/40 {
			p, err := s.EventProof(tn, index, anchor)
			if err != nil {
				t.Fatalf("slot %d, leaf %d: %v", tn.Slot, index, err)
			}
			file, err := p.Encode()
			if err != nil {
				t.Fatalf("slot %d, leaf %d: %v", tn.Slot, index, err)
			}
			if rep, err := verify.VerifyAny(bytes.NewReader(file), trust, verify.Options{}); err != nil {
				t.Errorf("slot %d, leaf %d: %v (%+v)", tn.Slot, index, err, rep.Steps)
			}
		}
	}
	// A leaf that no seal covers has no proof yet.
	w.Accepted(w.Submit(w.usage(1))...)
	late := w.Read()
	defer late.Close()
	tn, err := late.Tenant(w.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.EventProof(tn, w.size()-1, anchor); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("proof of a leaf that is not sealed: got %v, want ErrNotFound", err)
	}
}

func TestCompletenessFilesVerifyOffline(t *testing.T) {
	w := busy(t)
	trust, anchor := w.Trust(), w.Anchor()
	s := w.Read()
	defer s.Close()
	tn, err := s.Tenant(w.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	_, last, err := s.SpineLeaf(s.Epoch())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		from, to int64
	}{
		{"everything", 0, last.Time},
		{"after the first seal", ledgertest.Start.Add(1500 * time.Millisecond).UnixNano(), last.Time},
		{"an instant", last.Time - 1, last.Time},
	} {
		for _, payloads := range []bool{false, true} {
			var b bytes.Buffer
			if err := s.WriteCompleteness(&b, tn, c.from, c.to, anchor, payloads, nil); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			var n uint64
			count := func(leaf *verify.Leaf, _, _ []byte) error {
				if leaf.Time >= c.from && leaf.Time < c.to {
					n++
				}
				return nil
			}
			rep, err := verify.VerifyCompleteness(&b, trust, verify.Options{Visit: count})
			if err != nil {
				t.Errorf("%s, payloads %t: %v (%+v)", c.name, payloads, err, rep.Steps)
			}
			page, err := s.List(tn.Slot, ledger.Query{FromTime: c.from, ToTime: c.to, Limit: ledger.MaxPage})
			if err != nil {
				t.Fatal(err)
			}
			if int(n) != len(page.Events) {
				t.Errorf("%s: the file has %d leaves, the query %d", c.name, n, len(page.Events))
			}
		}
	}
	if err := s.WriteCompleteness(&bytes.Buffer{}, tn, 0, last.Time+1, anchor, false, nil); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("interval that is not sealed: got %v, want ErrNotFound", err)
	}
}

func TestListFindsWhatALookAtEveryLeafFinds(t *testing.T) {
	w := busy(t)
	s := w.Read()
	defer s.Close()
	head, err := s.Head(w.Slot)
	if err != nil {
		t.Fatal(err)
	}
	var all []*ledger.StoredEvent
	for i := range head.Size {
		e, err := s.Event(w.Slot, i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	denied := verify.OutcomeUnauthorized
	queries := map[string]struct {
		q    ledger.Query
		want func(e *ledger.StoredEvent) bool
	}{
		"everything": {ledger.Query{}, func(*ledger.StoredEvent) bool { return true }},
		"kind":       {ledger.Query{Kind: "plain"}, func(e *ledger.StoredEvent) bool { return e.Leaf.Kind == "plain" }},
		"agent":      {ledger.Query{Agent: w.agent.ID}, func(e *ledger.StoredEvent) bool { return e.Leaf.Agent == w.agent.ID }},
		"account":    {ledger.Query{Account: account}, func(e *ledger.StoredEvent) bool { return e.Leaf.Account == account }},
		"link":       {ledger.Query{Link: w.link.ID}, func(e *ledger.StoredEvent) bool { return e.Leaf.Link == w.link.ID }},
		"human":      {ledger.Query{Human: w.human.ID}, func(e *ledger.StoredEvent) bool { return e.Leaf.Link == w.link.ID }},
		"outcome":    {ledger.Query{Outcome: &denied}, func(e *ledger.StoredEvent) bool { return e.Leaf.Outcome.Code == denied }},
		"key": {ledger.Query{Key: w.agent.Key.Public().ID()}, func(e *ledger.StoredEvent) bool {
			return e.Signature != nil && e.Signature.Key == w.agent.Key.Public().ID()
		}},
		"agent and outcome": {ledger.Query{Agent: w.agent.ID, Outcome: &denied}, func(e *ledger.StoredEvent) bool {
			return e.Leaf.Agent == w.agent.ID && e.Leaf.Outcome.Code == denied
		}},
		"kind and index": {ledger.Query{Kind: "usage", FromIndex: 70, ToIndex: 300}, func(e *ledger.StoredEvent) bool {
			return e.Leaf.Kind == "usage" && e.Index >= 70 && e.Index < 300
		}},
		"time": {ledger.Query{FromTime: all[100].Leaf.Time, ToTime: all[200].Leaf.Time}, func(e *ledger.StoredEvent) bool {
			return e.Index >= 100 && e.Index < 200
		}},
		"nothing": {ledger.Query{Kind: "plain", Outcome: new(verify.OutcomeCode), Agent: w.human.ID}, func(*ledger.StoredEvent) bool { return false }},
	}
	for name, c := range queries {
		var want []uint64
		for _, e := range all {
			if c.want(e) {
				want = append(want, e.Index)
			}
		}
		for _, newest := range []bool{false, true} {
			for _, limit := range []int{1, 7, 1000} {
				if limit == 1 && len(want) > 50 {
					continue
				}
				q := c.q
				q.NewestFirst, q.Limit = newest, limit
				var got []uint64
				for pages := 0; ; pages++ {
					page, err := s.List(w.Slot, q)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					for _, e := range page.Events {
						got = append(got, e.Index)
					}
					if page.Next == "" {
						break
					}
					if pages > len(all) {
						t.Fatalf("%s: pages do not end", name)
					}
					q.Cursor = page.Next
				}
				if newest {
					slices.Reverse(got)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s, newest first %t, %d a page: got %v, want %v", name, newest, limit, got, want)
				}
			}
		}
	}
	for _, cursor := range []string{"x", "AQ", ledger.EncodeCursor(true, 5), ledger.EncodeCursor(false, 5) + "="} {
		if _, err := s.List(w.Slot, ledger.Query{Cursor: cursor}); !errors.Is(err, ledger.ErrCursor) {
			t.Errorf("cursor %q: got %v, want ErrCursor", cursor, err)
		}
	}
	if _, err := s.List(w.Slot, ledger.Query{Limit: ledger.MaxPage + 1}); !errors.Is(err, ledger.ErrRange) {
		t.Errorf("long page: got %v, want ErrRange", err)
	}
}

func TestEpochsAroundAnInterval(t *testing.T) {
	w := newWorld(t)
	var times []int64
	for range 5 {
		w.Accepted(w.Submit(w.usage(1))...)
		times = append(times, w.Seal().Time)
		w.Advance(time.Minute)
	}
	s := w.Read()
	defer s.Close()
	for _, c := range []struct {
		t0, t1        int64
		before, after uint64
	}{
		{0, times[0], 0, 1}, {times[0], times[1], 1, 2}, {times[0] + 1, times[1] - 1, 1, 2}, {times[1], times[1], 2, 2},
		{times[4], times[4] + 1, 5, 0}, {times[0] - 1, times[0] + 1, 0, 2},
	} {
		before, after, err := s.EpochsAround(c.t0, c.t1)
		if err != nil || before != c.before || after != c.after {
			t.Errorf("[%d, %d): got %d, %d, %v, want %d, %d", c.t0, c.t1, before, after, err, c.before, c.after)
		}
	}
}

// TestProofOfMisusedLink shows that the proof of an event that names another agent's link, refused or flagged on the record,
// verifies.
func TestProofOfMisusedLink(t *testing.T) {
	w := newWorld(t)
	other := w.Register("other agent", registry.Agent)
	ask := w.Want(verify.OutcomeUnauthorized, w.Submit(w.Under(w.link, other, "usage", account, countBody{N: 7}))...)
	fact := w.Want(verify.OutcomeAcceptedFlagged, w.Submit(w.Under(w.link, other, "settle", account, countBody{N: 7, Lease: 1}))...)
	own := w.Accepted(w.Submit(w.usage(7))...)
	w.Seal()
	at := w.Anchor()
	sn := w.Read()
	defer sn.Close()
	tn, err := sn.Tenant(w.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	for index, chain := range map[uint64]int{ask.Index: 0, fact.Index: 0, own.Index: 2} {
		p, err := sn.EventProof(tn, index, at)
		if err != nil {
			t.Fatal(err)
		}
		file, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r, err := verify.VerifyEventProof(file, w.Trust(), verify.Options{})
		if err != nil {
			t.Errorf("leaf %d: %v", index, err)
		}
		if len(r.Subject.Chain) != chain {
			t.Errorf("leaf %d: got chain %q, want %d members", index, r.Subject.Chain, chain)
		}
	}
}
