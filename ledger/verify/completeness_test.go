package verify_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/ledger/verify/verifytest"
	"github.com/creto-systems/creto/nhi"
	"github.com/google/go-cmp/cmp"
)

func (f *fixture) completeness(t testing.TB, from, to int64, start, end int) []byte {
	t.Helper()
	return must[[]byte](t)(f.Completeness(f.one, from, to, start, end))
}

func TestCompletenessVerifies(t *testing.T) {
	f := newFixture(t, 3)
	seal1, seal2 := f.Epochs[0].Leaf.Time, f.Epochs[1].Leaf.Time
	for _, c := range []struct {
		name             string
		from, to         int64
		start, end       int
		leaves, accepted uint64
		totals           map[string]string
	}{
		{"from the first leaf", 0, seal2, 0, 2, 10, 9, map[string]string{"input_tokens": "600", "output_tokens": "42"}},
		{"one epoch", seal1, seal2, 1, 2, 3, 2, map[string]string{"input_tokens": "0", "output_tokens": "0"}},
		{"part of an epoch", seal1 + 1, seal1 + 1e9 + 1, 1, 2, 1, 1, map[string]string{"input_tokens": "100", "output_tokens": "7"}},
		{"first epoch", 0, seal1, 0, 1, 7, 7, map[string]string{"input_tokens": "600", "output_tokens": "42"}},
		{"nothing happened", seal1, seal1, 1, 1, 0, 0, map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := uint64(0)
			r, err := verify.VerifyAny(bytes.NewReader(f.completeness(t, c.from, c.to, c.start, c.end)), f.trust, verify.Options{
				Visit: func(l *verify.Leaf, raw, payload []byte) error {
					if verify.LeafHash(raw) != verify.LeafHash(f.one.Leaves[l.Index].Leaf) || !bytes.Equal(payload, f.one.Leaves[l.Index].Payload) {
						t.Errorf("leaf %d was visited with other bytes", l.Index)
					}
					seen++
					return nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Period.Leaves != c.leaves || seen != c.leaves || r.Period.Outcomes["accepted"] != c.accepted {
				t.Errorf("got %+v, visited %d, want %d leaves, %d accepted", r.Period, seen, c.leaves, c.accepted)
			}
			if d := cmp.Diff(c.totals, r.Period.Totals); d != "" {
				t.Errorf("totals (-want +got):\n%s", d)
			}
		})
	}
}

func TestCompletenessEveryFlip(t *testing.T) {
	f := newFixture(t, 1)
	file := f.completeness(t, f.Epochs[0].Leaf.Time, f.Epochs[1].Leaf.Time, 1, 2)
	for i := 0; i < len(file); i += flipStride {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if r, err := verify.VerifyAny(bytes.NewReader(bad), f.trust, verify.Options{}); err == nil || r.OK {
			t.Fatalf("byte %d of %d flipped: verified", i, len(file))
		}
	}
	for i := 0; i < len(file); i += 1 + len(file)/97 {
		if r, err := verify.VerifyAny(bytes.NewReader(file[:i]), f.trust, verify.Options{}); err == nil || r.OK {
			t.Fatalf("first %d of %d bytes: verified", i, len(file))
		}
	}
	if _, err := verify.VerifyAny(bytes.NewReader(append(bytes.Clone(file), 0)), f.trust, verify.Options{}); err == nil {
		t.Error("a byte too many: verified")
	}
}

// rewrite builds a completeness file from the header of another and any leaves.
func rewrite(t *testing.T, h *verify.CompletenessHeader, entries []*verifytest.Entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := must[*verify.CompletenessWriter](t)(verify.NewCompletenessWriter(&out, h))
	for _, e := range entries {
		check(t, w.Leaf(e.Leaf, e.Payload))
	}
	check(t, w.Close())
	return out.Bytes()
}

func TestCompletenessFails(t *testing.T) {
	f := newFixture(t, 3)
	seal1, seal2 := f.Epochs[0].Leaf.Time, f.Epochs[1].Leaf.Time
	header := func(start, end int) *verify.CompletenessHeader {
		file := f.completeness(t, seal1, seal2, start, end)
		return must[*verify.CompletenessHeader](t)(verify.ReadCompletenessHeader(bytes.NewReader(file)))
	}
	leaves := f.one.Leaves[7:10]
	changed := *leaves[1]
	l := must[*verify.Leaf](t)(verify.DecodeLeaf(changed.Leaf))
	l.Quantities[0].N++
	changed.Leaf = must[[]byte](t)(l.Encode())
	for _, c := range []struct {
		name    string
		header  func(h *verify.CompletenessHeader)
		entries []*verifytest.Entry
		step    string
		class   verify.FailureClass
		code    int
	}{
		{"a leaf changed", nil, []*verifytest.Entry{leaves[0], &changed, leaves[2]}, verify.StepLeaves, verify.ClassTampering, verify.ExitConsistency},
		{"two leaves swapped", nil, []*verifytest.Entry{leaves[1], leaves[0], leaves[2]}, verify.StepLeaves, verify.ClassTampering, verify.ExitInclusion},
		{"a leaf twice", nil, []*verifytest.Entry{leaves[0], leaves[0], leaves[2]}, verify.StepLeaves, verify.ClassTampering, verify.ExitInclusion},
		{"another tenant's leaf", nil, []*verifytest.Entry{f.two.Leaves[0], leaves[1], leaves[2]}, verify.StepLeaves, verify.ClassTampering, verify.ExitInclusion},
		{"another event", nil, []*verifytest.Entry{{Leaf: leaves[0].Leaf, Payload: leaves[1].Payload}, leaves[1], leaves[2]}, verify.StepPayload, verify.ClassTampering, verify.ExitSignature},
		{"last leaf left out", func(h *verify.CompletenessHeader) { h.B-- }, leaves[:2], verify.StepHeadsTree, verify.ClassTampering, verify.ExitInclusion},
		{"first leaf left out", func(h *verify.CompletenessHeader) { h.A++ }, leaves[1:], verify.StepHeadsTree, verify.ClassTampering, verify.ExitInclusion},
		{"the end epoch lies before the period's end", func(h *verify.CompletenessHeader) { h.To = seal2 + 1 }, leaves, verify.StepEpochs, verify.ClassTampering, verify.ExitConsistency},
		{"the start epoch lies after the period's begin", func(h *verify.CompletenessHeader) { h.From = seal1 - 1 }, leaves, verify.StepEpochs, verify.ClassTampering, verify.ExitConsistency},
		{"another range", func(h *verify.CompletenessHeader) { h.Range[0][0]++ }, leaves, verify.StepLeaves, verify.ClassTampering, verify.ExitConsistency},
		{"a range too short", func(h *verify.CompletenessHeader) { h.Range = h.Range[1:] }, leaves, verify.StepLeaves, verify.ClassTampering, verify.ExitConsistency},
		{"another ledger", func(h *verify.CompletenessHeader) { h.LedgerID[3]++ }, leaves, verify.StepTrust, verify.ClassTrust, verify.ExitUntrusted},
		{"another tenant", func(h *verify.CompletenessHeader) { h.Tenant = f.two.ID }, leaves, verify.StepHeadsTree, verify.ClassTampering, verify.ExitInclusion},
		{"without the start head", func(h *verify.CompletenessHeader) { h.Start = nil }, leaves, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := header(1, 2)
			if c.header != nil {
				c.header(h)
			}
			r, err := verify.VerifyCompleteness(bytes.NewReader(rewrite(t, h, c.entries)), f.trust, verify.Options{})
			wantFailure(t, r, err, c.step, c.class, c.code)
		})
	}
	file := f.completeness(t, seal1, seal2, 1, 2)
	t.Run("damaged", func(t *testing.T) {
		bad := bytes.Replace(file, []byte("input_tokens"), []byte("inpux_tokens"), 1)
		r, err := verify.VerifyCompleteness(bytes.NewReader(bad), f.trust, verify.Options{})
		wantFailure(t, r, err, verify.StepLeaves, verify.ClassDamaged, verify.ExitConsistency)
	})
	t.Run("truncated", func(t *testing.T) {
		r, err := verify.VerifyCompleteness(bytes.NewReader(file[:len(file)-100]), f.trust, verify.Options{})
		wantFailure(t, r, err, verify.StepFile, verify.ClassDamaged, verify.ExitMalformed)
	})
	t.Run("asked for another period", func(t *testing.T) {
		from := time.Unix(0, seal1+5)
		r, err := verify.VerifyCompleteness(bytes.NewReader(file), f.trust, verify.Options{Expect: verify.Expect{From: &from}})
		wantFailure(t, r, err, verify.StepAsked, verify.ClassMismatch, verify.ExitInclusion)
	})
	t.Run("visitor stops", func(t *testing.T) {
		stop := errors.New("enough")
		r, err := verify.VerifyCompleteness(bytes.NewReader(file), f.trust, verify.Options{Visit: func(*verify.Leaf, []byte, []byte) error { return stop }})
		wantFailure(t, r, err, "visit", verify.ClassStopped, 1)
		if !errors.Is(err, stop) {
			t.Errorf("got %v, want the visitor's error inside", err)
		}
	})
}

func TestCompletenessWriterCounts(t *testing.T) {
	f := newFixture(t, 1)
	h := must[*verify.CompletenessHeader](t)(verify.ReadCompletenessHeader(bytes.NewReader(f.completeness(t, 0, 1, 0, 1))))
	w := must[*verify.CompletenessWriter](t)(verify.NewCompletenessWriter(io.Discard, h))
	check(t, w.Leaf(f.one.Leaves[0].Leaf, nil))
	if err := w.Close(); err == nil {
		t.Error("closed after 1 of 7 leaves: got no error")
	}
	for range 8 {
		if w, err := verify.NewCompletenessWriter(io.Discard, h); err == nil {
			for range 8 {
				err = w.Leaf(f.one.Leaves[0].Leaf, nil)
			}
			if err == nil {
				t.Error("8 leaves for 7: got no error")
			}
		}
	}
}

// TestCompletenessConstantMemory looks at how much memory is in use near the first and near the last of many leaves.
func TestCompletenessConstantMemory(t *testing.T) {
	f := newFixture(t, 0)
	for range 5000 {
		check(t, f.AppendSystem(f.one, "system.tick"))
	}
	check(t, f.Seal())
	trust := must[*verify.Trust](t)(verify.ParseTrust(f.Trust()))
	var inUse []uint64
	measure := func() {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		inUse = append(inUse, m.HeapAlloc)
	}
	file := f.completeness(t, 0, f.Time, 0, len(f.Epochs))
	visited := 0
	opt := verify.Options{Visit: func(*verify.Leaf, []byte, []byte) error {
		if visited++; visited%2000 == 1 {
			measure()
		}
		return nil
	}}
	if _, err := verify.VerifyCompleteness(bytes.NewReader(file), trust, opt); err != nil {
		t.Fatal(err)
	}
	if len(inUse) < 3 {
		t.Fatalf("measured %d times, want at least 3", len(inUse))
	}
	if first, last := inUse[0], inUse[len(inUse)-1]; last > first+64<<10 {
		t.Errorf("got %d bytes in use near the start and %d near the end, want no growth", first, last)
	}
}

func TestReceiptFile(t *testing.T) {
	f := newFixture(t, 3)
	node := f.Nodes[1]
	var receipts []verify.Receipt
	for i, e := range f.one.Leaves {
		l := must[*verify.Leaf](t)(verify.DecodeLeaf(e.Leaf))
		receipts = append(receipts, verify.Receipt{
			V: 1, LedgerID: f.ID, Tenant: f.one.ID, Slot: f.one.Slot, Index: uint64(i), LeafHash: verify.LeafHash(e.Leaf), Time: l.Time, Outcome: l.Outcome.Code,
		})
	}
	signed := must[[]verify.SignedReceipt](t)(verify.SignReceipts(node.Receipt, f.ID, node.ID, receipts))
	pk := node.Receipt.Public()
	file := func(i int) *verify.ReceiptFile {
		return &verify.ReceiptFile{Receipt: signed[i], Key: verify.KeyRecord{Suite: uint8(pk.Suite()), Public: pk.Bytes()}, Leaf: f.one.Leaves[i].Leaf}
	}
	for i := range signed {
		b := must[[]byte](t)(signed[i].Encode())
		again := must[*verify.SignedReceipt](t)(verify.DecodeSignedReceipt(b))
		if got, err := again.Verify(pk); err != nil || *got != receipts[i] {
			t.Fatalf("receipt %d: got %+v, %v, want %+v", i, got, err, receipts[i])
		}
		if r, err := verify.VerifyAny(bytes.NewReader(encode(t, file(i))), f.trust, verify.Options{}); err != nil || r.Kind != verify.KindReceipt {
			t.Fatalf("receipt file %d: %v", i, err)
		}
	}
	for _, c := range []struct {
		name  string
		edit  func(p *verify.ReceiptFile)
		step  string
		class verify.FailureClass
		code  int
	}{
		{"another leaf", func(p *verify.ReceiptFile) { p.Leaf = f.one.Leaves[5].Leaf }, verify.StepPayload, verify.ClassTampering, verify.ExitSignature},
		{"another node", func(p *verify.ReceiptFile) { p.Receipt.Node = f.Nodes[0].ID }, verify.StepReceipt, verify.ClassTrust, verify.ExitUntrusted},
		{"an agent's key", func(p *verify.ReceiptFile) {
			p.Receipt.Key, p.Key.Public = f.agent.Key.Public().ID(), f.agent.Key.Public().Bytes()
		}, verify.StepReceipt, verify.ClassTrust, verify.ExitUntrusted},
		{"another place", func(p *verify.ReceiptFile) { p.Receipt.K-- }, verify.StepReceipt, verify.ClassTampering, verify.ExitSignature},
		{"another count", func(p *verify.ReceiptFile) { p.Receipt.N += 3 }, verify.StepReceipt, verify.ClassTampering, verify.ExitSignature},
		{"another body", func(p *verify.ReceiptFile) { p.Receipt.Body = signed[2].Body }, verify.StepReceipt, verify.ClassTampering, verify.ExitSignature},
		{"no receipt", func(p *verify.ReceiptFile) { p.Receipt.Body = nil }, verify.StepFile, verify.ClassMalformed, verify.ExitMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := file(4)
			c.edit(p)
			r, err := verify.VerifyAny(bytes.NewReader(encode(t, p)), f.trust, verify.Options{})
			wantFailure(t, r, err, c.step, c.class, c.code)
		})
	}
	whole := encode(t, file(4))
	for i := 0; i < len(whole); i += 1 + 4*(flipStride-1) {
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << (i % 8)
		if r, err := verify.VerifyAny(bytes.NewReader(bad), f.trust, verify.Options{}); err == nil || r.OK {
			t.Fatalf("byte %d flipped: verified", i)
		}
	}
	if _, err := verify.SignReceipts(node.Receipt, nhi.Digest{}, node.ID, receipts); err == nil {
		t.Error("receipts of another ledger: got no error")
	}
}

func BenchmarkVerifyCompleteness(b *testing.B) {
	f := newFixture(b, 0)
	const n = 20000
	for range n {
		check(b, f.AppendSystem(f.one, "system.tick"))
	}
	check(b, f.Seal())
	trust := must[*verify.Trust](b)(verify.ParseTrust(f.Trust()))
	file := f.completeness(b, 0, f.Time, 0, len(f.Epochs))
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := verify.VerifyCompleteness(bytes.NewReader(file), trust, verify.Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/leaf")
}

func BenchmarkVerifyEventProof(b *testing.B) {
	f := newFixture(b, 3)
	file := encode(b, f.proof(b, f.one, 3))
	for b.Loop() {
		if _, err := verify.VerifyEventProof(file, f.trust, verify.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestQuietPeriodOfATestLedger shows that a file without a single leaf still says whose clock it is.
func TestQuietPeriodOfATestLedger(t *testing.T) {
	f := newFixture(t, 1)
	file := must[[]byte](t)(f.Completeness(f.two, f.Epochs[0].Leaf.Time, f.Epochs[1].Leaf.Time, 1, 2))
	r, err := verify.VerifyAny(bytes.NewReader(file), f.trust, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Period.Leaves != 0 || !r.Test || !strings.Contains(strings.Join(r.NotProved, "\n"), "test ledger") {
		t.Errorf("got %d leaves, test %t, not proved %q, want none, of a test ledger", r.Period.Leaves, r.Test, r.NotProved)
	}
}

// TestSpineLeafStandsAtItsEpoch shows that a spine cannot number its epochs otherwise than by their place.
func TestSpineLeafStandsAtItsEpoch(t *testing.T) {
	f := newFixture(t, 1)
	e := f.Epochs[1]
	e.Leaf.Epoch = 7
	e.Spine = must[[]byte](t)(e.Leaf.Encode())
	r, err := verify.VerifyEventProof(encode(t, f.proof(t, f.one, 0)), f.trust, verify.Options{})
	wantFailure(t, r, err, verify.StepSpine, verify.ClassTampering, verify.ExitInclusion)
	file := must[[]byte](t)(f.Completeness(f.one, f.Epochs[0].Leaf.Time, e.Leaf.Time, 1, 2))
	r, err = verify.VerifyCompleteness(bytes.NewReader(file), f.trust, verify.Options{})
	wantFailure(t, r, err, verify.StepSpine, verify.ClassTampering, verify.ExitInclusion)
}
