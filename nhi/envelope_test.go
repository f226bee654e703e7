package nhi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/nhi/canon"
)

func sha256Leaf(b []byte) Digest { return sha256.Sum256(append([]byte{0}, b...)) }

func TestSignAlone(t *testing.T) {
	k := testKey(t, 1)
	payload := testPayload(t, 1)
	env, err := SignEvent(k, payload)
	if err != nil {
		t.Fatal(err)
	}
	events, digests, err := env.VerifyEvents(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]*Event{testEvent(1)}, events); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if want := sha256Leaf(PAE(PayloadType, payload)); len(digests) != 1 || digests[0] != want {
		t.Errorf("got digests %x, want %x", digests, want)
	}
	if err := k.Public().Verify(CtxEvent, PAE(PayloadType, payload), env.Signature); err != nil {
		t.Errorf("the signature is not over the PAE: %v", err)
	}
}

func TestSignBatch(t *testing.T) {
	k := testKey(t, 1)
	for _, n := range []int{1, 2, 3, 7, 8, 256} {
		env := testBatch(t, k, n)
		events, digests, err := env.VerifyEvents(k.Public())
		if err != nil {
			t.Fatalf("n=%d: %v", n, err)
		}
		if len(events) != n || len(digests) != n {
			t.Fatalf("n=%d: got %d events, %d digests", n, len(events), len(digests))
		}
		statement := canon.MustMarshal(batchStatement{1, Digest{1}, ID{2}, k.Public().ID(), uint64(n), naiveRoot(digests)})
		if err := k.Public().Verify(CtxBatch, statement, env.Signature); err != nil {
			t.Errorf("n=%d: the signature is not over the statement: %v", n, err)
		}
		for i := range n {
			p, err := env.Proof(i)
			if err != nil {
				t.Fatal(err)
			}
			ev, err := p.Verify(k.Public(), env.Payloads[i], env.Signature)
			if err != nil {
				t.Fatalf("n=%d: proof of %d: %v", n, i, err)
			}
			if ev.Seq.N != uint64(i) {
				t.Errorf("n=%d: proof of %d: got event %d", n, i, ev.Seq.N)
			}
			var back BatchProof
			if err := canon.Unmarshal(canon.MustMarshal(p), &back); err != nil {
				t.Errorf("n=%d: proof of %d does not survive encoding: %v", n, i, err)
			}
			if n == 256 && i > 8 {
				break
			}
		}
	}
}

// naiveRoot is RFC 6962's root level by level: an odd node moves up.
func naiveRoot(level []Digest) Digest {
	for len(level) > 1 {
		var up []Digest
		for i := 0; i+1 < len(level); i += 2 {
			up = append(up, sha256.Sum256(append(append([]byte{1}, level[i][:]...), level[i+1][:]...)))
		}
		if len(level)%2 == 1 {
			up = append(up, level[len(level)-1])
		}
		level = up
	}
	return level[0]
}

func TestMerkle(t *testing.T) {
	for n := 1; n <= 70; n++ {
		leaves := make([]Digest, n)
		for i := range leaves {
			leaves[i] = sha256.Sum256([]byte{byte(i)})
		}
		root := merkleRoot(leaves)
		if want := naiveRoot(leaves); root != want {
			t.Fatalf("n=%d: got root %x, want %x", n, root, want)
		}
		for k := range n {
			path := merklePath(nil, k, leaves)
			if got := pathLength(uint64(k), uint64(n)); got != len(path) {
				t.Fatalf("(%d, %d): got length %d, want %d", k, n, got, len(path))
			}
			if got := rootFromPath(leaves[k], uint64(k), uint64(n), path); got != root {
				t.Fatalf("(%d, %d): got root %x, want %x", k, n, got, root)
			}
		}
	}
}

func TestBatchProofRefuses(t *testing.T) {
	k := testKey(t, 1)
	env := testBatch(t, k, 5)
	other := testBatch(t, k, 6)
	for _, c := range []struct {
		name string
		edit func(p *BatchProof)
		want error
	}{
		{"as it is", func(p *BatchProof) {}, nil},
		{"version", func(p *BatchProof) { p.V = 2 }, ErrVersion},
		{"ledger", func(p *BatchProof) { p.LedgerID[0]++ }, ErrForeign},
		{"tenant", func(p *BatchProof) { p.Tenant[0]++ }, ErrForeign},
		{"key id", func(p *BatchProof) { p.KeyID[0]++ }, ErrKeyMismatch},
		{"empty batch", func(p *BatchProof) { p.N = 0 }, ErrTooMany},
		{"huge batch", func(p *BatchProof) { p.N = MaxBatch + 1 }, ErrTooMany},
		{"other size, same path length", func(p *BatchProof) { p.N = 6 }, ErrBadSignature},
		{"other size, other path length", func(p *BatchProof) { p.N = 9 }, ErrSyntax},
		{"other position", func(p *BatchProof) { p.K = 2 }, ErrBadPath},
		{"position of the last, whose path is shorter", func(p *BatchProof) { p.K = 4 }, ErrSyntax},
		{"position behind the end", func(p *BatchProof) { p.K = 5 }, ErrTooMany},
		{"position 2^64-1", func(p *BatchProof) { p.K = 1<<64 - 1 }, ErrTooMany},
		{"root", func(p *BatchProof) { p.Root[0]++ }, ErrBadPath},
		{"path one short", func(p *BatchProof) { p.Path = p.Path[1:] }, ErrSyntax},
		{"path one long", func(p *BatchProof) { p.Path = append(p.Path, Digest{}) }, ErrSyntax},
		{"path node", func(p *BatchProof) { p.Path[1][0]++ }, ErrBadPath},
		{"no path", func(p *BatchProof) { p.Path = nil }, ErrSyntax},
	} {
		p, err := env.Proof(1)
		if err != nil {
			t.Fatal(err)
		}
		c.edit(p)
		if _, err := p.Verify(k.Public(), env.Payloads[1], env.Signature); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	p, err := env.Proof(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(k.Public(), env.Payloads[2], env.Signature); !errors.Is(err, ErrBadPath) {
		t.Errorf("another payload: got %v, want %v", err, ErrBadPath)
	}
	if _, err := p.Verify(k.Public(), env.Payloads[1], other.Signature); !errors.Is(err, ErrBadSignature) {
		t.Errorf("another batch's signature: got %v, want %v", err, ErrBadSignature)
	}
	if _, err := p.Verify(testKey(t, 2).Public(), env.Payloads[1], env.Signature); !errors.Is(err, ErrKeyMismatch) {
		t.Errorf("another key: got %v, want %v", err, ErrKeyMismatch)
	}
	if _, err := env.Proof(5); err == nil {
		t.Error("proof behind the end: got no error")
	}
	alone, err := SignEvent(k, env.Payloads[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Proof(0); err == nil {
		t.Error("proof of a lone event: got no error")
	}
	// An inner node of the tree is no leaf: with the proof shortened by one
	// level it would be one if leaves and nodes hashed alike.
	digests, err := env.Verify(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	p.N, p.K, p.Path = 3, 0, p.Path[1:]
	if err := VerifyBatchPath(p, hashChildren(&digests[0], &digests[1])); err == nil && p.VerifySignature(k.Public(), env.Signature) == nil {
		t.Error("an inner node passes for a leaf")
	}
}

func TestVerifyRefuses(t *testing.T) {
	k, k2 := testKey(t, 1), testKey(t, 2)
	foreign := testEvent(1)
	foreign.Tenant = ID{99}
	foreignBytes, err := foreign.Encode()
	if err != nil {
		t.Fatal(err)
	}
	otherLedger := testEvent(1)
	otherLedger.LedgerID = Digest{99}
	otherLedgerBytes, err := otherLedger.Encode()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := SignEvent(k, testPayload(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	batch := testBatch(t, k, 4)
	for _, c := range []struct {
		name  string
		batch bool
		edit  func(e *Envelope)
		want  error
	}{
		{"alone", false, func(e *Envelope) {}, nil},
		{"batch", true, func(e *Envelope) {}, nil},
		{"payload changed", false, func(e *Envelope) { e.Payloads[0] = testPayload(t, 2) }, ErrBadSignature},
		{"payload of a batch changed", true, func(e *Envelope) { e.Payloads[3] = testPayload(t, 9) }, ErrBadSignature},
		{"payloads exchanged", true, func(e *Envelope) { e.Payloads[0], e.Payloads[1] = e.Payloads[1], e.Payloads[0] }, ErrBadSignature},
		{"payload dropped", true, func(e *Envelope) { e.Payloads = e.Payloads[:3] }, ErrBadSignature},
		{"payload repeated", true, func(e *Envelope) { e.Payloads = append(e.Payloads, e.Payloads[0]) }, ErrBadSignature},
		{"alone as batch of one", false, func(e *Envelope) { e.Batch = true }, ErrBadSignature},
		{"batch as one", true, func(e *Envelope) { e.Batch = false }, ErrTooMany},
		{"foreign tenant in a batch", true, func(e *Envelope) { e.Payloads[2] = foreignBytes }, ErrForeign},
		{"foreign ledger in a batch", true, func(e *Envelope) { e.Payloads[2] = otherLedgerBytes }, ErrForeign},
		{"other key id", false, func(e *Envelope) { e.KeyID = k2.Public().ID() }, ErrKeyMismatch},
		{"signature of another key", false, func(e *Envelope) {
			e.Signature = must(k2.Sign(CtxEvent, PAE(PayloadType, e.Payloads[0])))
		}, ErrBadSignature},
		{"signature in another context", false, func(e *Envelope) {
			e.Signature = must(k.Sign(CtxApproval, PAE(PayloadType, e.Payloads[0])))
		}, ErrBadSignature},
		{"signature over another payload type", false, func(e *Envelope) {
			e.Signature = must(k.Sign(CtxEvent, PAE("text/plain", e.Payloads[0])))
		}, ErrBadSignature},
		{"signature over the bare payload", false, func(e *Envelope) {
			e.Signature = must(k.Sign(CtxEvent, e.Payloads[0]))
		}, ErrBadSignature},
		{"no signature", false, func(e *Envelope) { e.Signature = nil }, ErrBadSignature},
		{"short signature", false, func(e *Envelope) { e.Signature = e.Signature[1:] }, ErrBadSignature},
		{"long signature", false, func(e *Envelope) { e.Signature = append(bytes.Clone(e.Signature), 0) }, ErrBadSignature},
		{"no payloads", false, func(e *Envelope) { e.Payloads = nil }, ErrEmpty},
		{"empty payload", true, func(e *Envelope) { e.Payloads[1] = nil }, ErrEmpty},
		{"garbage payload", true, func(e *Envelope) { e.Payloads[1] = []byte("garbage") }, canon.Truncated},
		{"1,025 payloads", true, func(e *Envelope) { e.Payloads = make([][]byte, MaxBatch+1) }, ErrTooMany},
		{"huge payload", false, func(e *Envelope) { e.Payloads[0] = make([]byte, MaxPayloadBytes+1) }, ErrTooLarge},
		{"batch over 128 KiB", true, func(e *Envelope) {
			e.Payloads = [][]byte{make([]byte, 50<<10), make([]byte, 50<<10), make([]byte, 50<<10)}
		}, ErrTooLarge},
	} {
		e := *alone
		if c.batch {
			e = *batch
		}
		e.Payloads = append([][]byte(nil), e.Payloads...)
		c.edit(&e)
		events, digests, err := e.VerifyEvents(k.Public())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err != nil && (events != nil || digests != nil) {
			t.Errorf("%s: got events beside an error", c.name)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSignRefuses(t *testing.T) {
	k := testKey(t, 1)
	if _, err := SignEvent(k, []byte("no event")); err == nil {
		t.Error("garbage: got no error")
	}
	if _, err := SignBatch(k, Digest{1}, ID{2}, nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty batch: got %v, want %v", err, ErrEmpty)
	}
	if _, err := SignBatch(k, Digest{1}, ID{3}, testPayloads(t, 2)); !errors.Is(err, ErrForeign) {
		t.Errorf("other tenant: got %v, want %v", err, ErrForeign)
	}
	if _, err := SignBatch(k, Digest{2}, ID{2}, testPayloads(t, 2)); !errors.Is(err, ErrForeign) {
		t.Errorf("other ledger: got %v, want %v", err, ErrForeign)
	}
	if _, err := SignBatch(k, Digest{1}, ID{2}, make([][]byte, MaxBatch+1)); !errors.Is(err, ErrTooMany) {
		t.Errorf("1,025 payloads: got %v, want %v", err, ErrTooMany)
	}
}

func TestEnvelopeEncoding(t *testing.T) {
	k := testKey(t, 1)
	alone, err := SignEvent(k, testPayload(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	big := &Envelope{Payloads: [][]byte{make([]byte, 64<<10), make([]byte, 64<<10)}, Signature: make([]byte, SignatureSize), Batch: true}
	many := &Envelope{Signature: make([]byte, SignatureSize), Batch: true}
	for range MaxBatch {
		many.Payloads = append(many.Payloads, make([]byte, MaxBatchBytes/MaxBatch))
	}
	for _, e := range []*Envelope{alone, testBatch(t, k, 3), big, many} {
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if want := canon.MustMarshal(e); !bytes.Equal(b, want) {
			t.Errorf("Encode: got %d bytes, the struct tags say %d others", len(b), len(want))
		}
		got, err := DecodeEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, got); d != "" {
			t.Errorf("round trip (-want +got):\n%s", d)
		}
	}
	b, err := alone.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"trailing byte": {append(bytes.Clone(b), 0), canon.Trailing},
		"truncated":     {b[:len(b)-1], canon.Truncated},
		"unknown field": {append(append([]byte{0xa5}, b[1:]...), 0x05, 0x00), canon.UnknownField},
		"missing field": {append([]byte{0xa3}, b[1:len(b)-2]...), canon.MissingField},
		"too large":     {make([]byte, MaxEnvelopeBytes+1), ErrTooLarge},
	} {
		if _, err := DecodeEnvelope(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestAddenda(t *testing.T) {
	a := []Addendum{{Salt: [16]byte{1}, Data: []byte("name")}, {Salt: [16]byte{2}}}
	e := testEvent(1)
	e.Addenda = []Digest{AddendumDigest(a[0]), AddendumDigest(a[1])}
	if want := sha256.Sum256([]byte("creto/addendum/v1\x00\x01" + string(make([]byte, 15)) + "name")); e.Addenda[0] != want {
		t.Errorf("digest: got %x, want %x", e.Addenda[0], want)
	}
	if err := CheckAddenda(e, a); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		a    []Addendum
		want error
	}{
		"missing":    {a[:1], ErrSyntax},
		"exchanged":  {[]Addendum{a[1], a[0]}, ErrAddendum},
		"other salt": {[]Addendum{{Salt: [16]byte{9}, Data: a[0].Data}, a[1]}, ErrAddendum},
		"too many":   {make([]Addendum, 9), ErrTooMany},
		"too large":  {[]Addendum{{Data: make([]byte, 128<<10)}, {Data: []byte{1}}}, ErrTooLarge},
	} {
		if err := CheckAddenda(e, c.a); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestKeyCache(t *testing.T) {
	const max = 4
	c := NewKeyCache(max)
	keys := make([]*PublicKey, 12)
	for i := range keys {
		keys[i] = testKey(t, byte(i)).Public()
	}
	var kept *PublicKey
	for i, k := range keys {
		got, err := c.Parse(k.Suite(), k.Bytes())
		if err != nil || got.ID() != k.ID() {
			t.Fatalf("got %v, %v, want %v", got, err, k.ID())
		}
		// A key in use survives those that come once.
		first, err := c.Parse(keys[0].Suite(), keys[0].Bytes())
		if err != nil || i == 0 && first != got {
			t.Errorf("second Parse: got another key or %v, want the cached one", err)
		}
		if cached, ok := c.Get(keys[0].ID()); !ok || i > 0 && cached != kept {
			t.Error("a key that is used all the time was evicted")
		}
		kept = first
		if n := c.Len(); n > max {
			t.Fatalf("got %d keys, want at most %d", n, max)
		}
	}
	if _, ok := c.Get(KeyID{}); ok {
		t.Error("unknown id: got a key")
	}
	if n := NewKeyCache(100); len(n.shards)*n.shards[0].max > 100 {
		t.Errorf("got room for %d, want at most 100", len(n.shards)*n.shards[0].max)
	}
	b := keys[0].Bytes()
	if a := testing.AllocsPerRun(100, func() { must(c.Parse(SuiteMLDSA65Ed25519, b)) }); a != 0 {
		t.Errorf("hit: got %v allocations, want 0", a)
	}
}

func TestKeyCacheConcurrent(t *testing.T) {
	c := NewKeyCache(3)
	keys := make([]*PublicKey, 8)
	for i := range keys {
		keys[i] = testKey(t, byte(i)).Public()
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 40 {
				k := keys[(i*7+g)%len(keys)]
				if got, err := c.Parse(k.Suite(), k.bytes); err != nil || got.ID() != k.ID() {
					t.Errorf("got %v, %v, want %v", got, err, k.ID())
				}
			}
		})
	}
	wg.Wait()
	if n := c.Len(); n > 3 {
		t.Errorf("got %d keys, want at most 3", n)
	}
}

func startPool(t *testing.T, workers int) (*VerifyPool, context.CancelFunc, <-chan error) {
	p := NewVerifyPool(workers)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(cancel)
	return p, cancel, done
}

func TestVerifyPool(t *testing.T) {
	p, cancel, done := startPool(t, 2)
	k := testKey(t, 1)
	good := testBatch(t, k, 3)
	bad := *good
	bad.Signature = make([]byte, SignatureSize)
	vs := make([]Verification, 9)
	for i := range vs {
		vs[i] = Verification{Envelope: good, Key: k.Public()}
		if i%3 == 2 {
			vs[i].Envelope = &bad
		}
	}
	if err := p.VerifyAll(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	for i, v := range vs {
		if i%3 == 2 {
			if v.Err != ErrBadSignature || v.Events != nil {
				t.Errorf("%d: got %v, want %v", i, v.Err, ErrBadSignature)
			}
		} else if v.Err != nil || len(v.Events) != 3 || len(v.Digests) != 3 {
			t.Errorf("%d: got %v, %d events", i, v.Err, len(v.Events))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if err := p.Submit(t.Context(), func() {}); err != ErrPoolStopped {
		t.Errorf("Submit after the end: got %v, want %v", err, ErrPoolStopped)
	}
	if err := p.VerifyAll(t.Context(), vs); err != ErrPoolStopped || vs[0].Err != ErrPoolStopped {
		t.Errorf("VerifyAll after the end: got %v, %v, want %v", err, vs[0].Err, ErrPoolStopped)
	}
}

// TestVerifyPoolBounded: a full pool holds its callers back, and a caller can
// leave; what was taken ends before Run does.
func TestVerifyPoolBounded(t *testing.T) {
	p, cancel, done := startPool(t, 2)
	release := make(chan struct{})
	var ended atomic.Int32
	for range 2 {
		if err := p.Submit(t.Context(), func() { <-release; ended.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- p.Submit(ctx, func() { t.Error("ran after its caller left") }) }()
	leave()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	cancel()
	close(release)
	<-done
	if n := ended.Load(); n != 2 {
		t.Errorf("got %d tasks ended when Run did, want 2", n)
	}
}

// FuzzDecodeEvent holds the hand-written decoder against the reflective one, and
// encoding against both.
func FuzzDecodeEvent(f *testing.F) {
	f.Add(testPayload(f, 1))
	e := testEvent(2)
	e.Addenda = []Digest{{1}, {2}}
	f.Add(e.append(nil))
	e.Body, e.ClientTime = []byte{0xa0}, -5
	f.Add(e.append(nil))
	f.Add([]byte{0xac, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeEvent(b)
		if want := reflectDecode(b); (err == nil) != (want == nil) {
			t.Fatalf("DecodeEvent(%x): got %v, the reflective decoder says %v", b, err, want)
		}
		if err != nil {
			if _, ok := errors.AsType[*InvalidError](err); !ok {
				t.Fatalf("got %T, want *InvalidError", err)
			}
			return
		}
		var want Event
		if err := canon.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&want, got); d != "" {
			t.Fatalf("decoders differ (-reflective +ours):\n%s", d)
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("Encode: got %x, %v, want %x", again, err, b)
		}
	})
}

func FuzzDecodeEnvelope(f *testing.F) {
	k := testKey(f, 1)
	for _, n := range []int{1, 2} {
		b, err := testBatch(f, k, n).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	small := &Envelope{Payloads: [][]byte{{0xa0}}, Signature: []byte{1}}
	f.Add(must(small.Encode()))
	pk := k.Public()
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEnvelope(b)
		var r Envelope
		want := canon.UnmarshalMax(b, &r, MaxEnvelopeBytes)
		if want == nil {
			want = r.Check()
		}
		if (err == nil) != (want == nil) {
			t.Fatalf("DecodeEnvelope(%x): got %v, the reflective decoder says %v", b, err, want)
		}
		if err != nil {
			return
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("Encode: got %x, %v, want %x", again, err, b)
		}
		if _, err := e.Verify(pk); err == nil && fmt.Sprint(e.KeyID) != fmt.Sprint(pk.ID()) {
			t.Fatal("verified under another key")
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(ID{1}.String())
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaab")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Fatalf("%q parses to the id that is written %q", s, id.String())
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(testKey(f, 1).Public().Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParsePublicKey(SuiteMLDSA65Ed25519, b); err == nil && !bytes.Equal(k.Bytes(), b) {
			t.Fatal("key does not encode to its bytes")
		}
	})
}
