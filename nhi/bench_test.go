package nhi

import (
	"testing"

	"github.com/creto-systems/creto/nhi/canon"
)

func BenchmarkSign(b *testing.B) {
	k, payload := testKey(b, 1), testPayload(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		must(SignEvent(k, payload))
	}
}

func BenchmarkSignBatch256(b *testing.B) {
	k, payloads := testKey(b, 1), testPayloads(b, 256)
	b.ReportAllocs()
	for b.Loop() {
		must(SignBatch(k, Digest{1}, ID{2}, payloads))
	}
}

func BenchmarkVerifyAlone(b *testing.B) {
	k := testKey(b, 1)
	env := must(SignEvent(k, testPayload(b, 1)))
	b.ReportAllocs()
	for b.Loop() {
		must(env.Verify(k.Public()))
	}
}

func BenchmarkVerifyBatch256(b *testing.B) {
	k := testKey(b, 1)
	env := testBatch(b, k, 256)
	b.ReportAllocs()
	for b.Loop() {
		must(env.Verify(k.Public()))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/event")
}

func BenchmarkParsePublicKey(b *testing.B) {
	pk := testKey(b, 1).Public().Bytes()
	b.ReportAllocs()
	for b.Loop() {
		must(ParsePublicKey(SuiteMLDSA65Ed25519, pk))
	}
}

func BenchmarkKeyCacheHit(b *testing.B) {
	pk := testKey(b, 1).Public().Bytes()
	c := NewKeyCache(16)
	b.ReportAllocs()
	for b.Loop() {
		must(c.Parse(SuiteMLDSA65Ed25519, pk))
	}
}

func BenchmarkDecodeEvent(b *testing.B) {
	p := testPayload(b, 1)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		must(DecodeEvent(p))
	}
}

// BenchmarkDecodeEventReflective is what the hand-written decoder replaces.
func BenchmarkDecodeEventReflective(b *testing.B) {
	p := testPayload(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		var e Event
		if err := canon.Unmarshal(p, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeEvent(b *testing.B) {
	e := testEvent(1)
	b.ReportAllocs()
	for b.Loop() {
		must(e.Encode())
	}
}

func BenchmarkPayloadDigest(b *testing.B) {
	p := testPayload(b, 1)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		PayloadDigest(p)
	}
}
