package nhi

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi/canon"
)

// testKey returns the n-th of a fixed sequence of keys.
func testKey(t testing.TB, n byte) *PrivateKey {
	t.Helper()
	seed := sha512.Sum512([]byte{'k', n})
	k, err := NewPrivateKey(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testEvent returns the n-th of a fixed sequence of events, about 300 bytes
// encoded.
func testEvent(n int) *Event {
	return &Event{
		V: 1, LedgerID: Digest{1}, Tenant: ID{2}, ID: [16]byte{3, byte(n >> 8), byte(n)}, Kind: "usage",
		Agent: ID{4}, Link: LinkID{5}, Seq: Seq{Instance: [8]byte{6}, N: uint64(n)}, Account: ID{7},
		ClientTime: 1_790_000_000_000_000_000 + int64(n), Nonce: [16]byte{8, byte(n)},
		Body: canon.MustMarshal(map[string]any{
			"model": "large-2", "meters": map[string]uint64{"tokens_in": 1234, "tokens_out": uint64(n)},
			"region": "eu-central", "trace": bytes.Repeat([]byte{byte(n)}, 16),
		}),
	}
}

func testPayload(t testing.TB, n int) []byte {
	t.Helper()
	b, err := testEvent(n).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testPayloads(t testing.TB, n int) [][]byte {
	t.Helper()
	ps := make([][]byte, n)
	for i := range ps {
		ps[i] = testPayload(t, i)
	}
	return ps
}

func testBatch(t testing.TB, k *PrivateKey, n int) *Envelope {
	t.Helper()
	e, err := SignBatch(k, Digest{1}, ID{2}, testPayloads(t, n))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestIDText(t *testing.T) {
	id := ID{0xff, 15: 0x01}
	s := id.String()
	if len(s) != 26 || s != strings.ToLower(s) {
		t.Fatalf("got %q, want 26 characters in lower case", s)
	}
	got, err := ParseID(s)
	if err != nil || got != id {
		t.Errorf("got %v, %v, want %v", got, err, id)
	}
	for _, bad := range []string{
		"", s[:25], s + "a", strings.ToUpper(s), s[:25] + "=", s[:25] + "f", s[:25] + "\n", "\n" + s[1:],
		s[:12] + "\n" + s[13:], s[:25] + "1", strings.Repeat("é", 13), strings.Repeat("x", 1<<20),
	} {
		if got, err := ParseID(bad); !errors.Is(err, ErrBadID) {
			t.Errorf("%.40q: got %v, %v, want %v", bad, got, err, ErrBadID)
		} else if len(err.Error()) > 400 {
			t.Errorf("error repeats %d bytes of its input", len(err.Error()))
		}
	}
	k := KeyID{1}
	if got, err := ParseKeyID(k.String()); err != nil || got != k {
		t.Errorf("key id: got %v, %v, want %v", got, err, k)
	}
	for _, bad := range []string{"", strings.Repeat("A", 64), strings.Repeat("g", 64), strings.Repeat("a", 63)} {
		if _, err := ParseKeyID(bad); !errors.Is(err, ErrBadID) {
			t.Errorf("key id %q: got %v, want %v", bad, err, ErrBadID)
		}
		if _, err := ParseLinkID(bad); !errors.Is(err, ErrBadID) {
			t.Errorf("link id %q: got %v, want %v", bad, err, ErrBadID)
		}
	}
	if _, err := NewID(bytes.NewReader(make([]byte, 15))); err == nil {
		t.Error("NewID from 15 bytes: got no error")
	}
}

func TestSuite(t *testing.T) {
	s, err := ParseSuite("mldsa65-ed25519")
	if err != nil || s != SuiteMLDSA65Ed25519 {
		t.Errorf("got %v, %v, want %v", s, err, SuiteMLDSA65Ed25519)
	}
	for _, bad := range []string{"", "ed25519", "MLDSA65-ED25519"} {
		if _, err := ParseSuite(bad); !errors.Is(err, ErrUnknownSuite) {
			t.Errorf("%q: got %v, want %v", bad, err, ErrUnknownSuite)
		}
	}
	if _, err := Suite(0).MarshalText(); !errors.Is(err, ErrUnknownSuite) {
		t.Errorf("suite 0: got %v, want %v", err, ErrUnknownSuite)
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	good := testKey(t, 1).Public().Bytes()
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, c := range []struct {
		name  string
		suite Suite
		b     []byte
		want  error
	}{
		{"no suite", 0, good, ErrUnknownSuite},
		{"other suite", 2, good, ErrUnknownSuite},
		{"empty", 1, nil, ErrBadKey},
		{"short", 1, good[:PublicKeySize-1], ErrBadKey},
		{"long", 1, append(bytes.Clone(good), 0), ErrBadKey},
		{"size of an ML-DSA-44 composite", 1, good[:mldsa44PublicKeySize+32], ErrBadKey},
		{"zero ML-DSA half", 1, edit(func(b []byte) []byte { clear(b[32:mldsa65PublicKeySize]); return b }), ErrWeakKey},
		{"identity as Ed25519 half", 1, edit(func(b []byte) []byte {
			clear(b[mldsa65PublicKeySize:])
			b[mldsa65PublicKeySize] = 1
			return b
		}), ErrWeakKey},
		{"y ≥ p", 1, edit(func(b []byte) []byte {
			for i := mldsa65PublicKeySize; i < PublicKeySize; i++ {
				b[i] = 0xff
			}
			return b
		}), ErrBadKey},
	} {
		if _, err := ParsePublicKey(c.suite, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if _, err := NewKeyCache(4).Parse(c.suite, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s, through the cache: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestIdentity02StrippedHalf: one half alone is no signature, and the error does
// not say which was missing.
func TestIdentity02StrippedHalf(t *testing.T) {
	k := testKey(t, 1)
	msg := []byte("message")
	sig, err := k.Sign(CtxEvent, msg)
	if err != nil {
		t.Fatal(err)
	}
	m, e := sig[:mldsa65SignatureSize], sig[mldsa65SignatureSize:]
	for name, s := range map[string][]byte{
		"Ed25519 half":                  e,
		"ML-DSA half":                   m,
		"ML-DSA half and zeros":         append(bytes.Clone(m), make([]byte, 64)...),
		"zeros and Ed25519 half":        append(make([]byte, mldsa65SignatureSize), e...),
		"halves swapped":                append(bytes.Clone(e), m...),
		"truncated":                     sig[:len(sig)-1],
		"trailing byte":                 append(bytes.Clone(sig), 0),
		"empty":                         nil,
		"only zeros, of the right size": make([]byte, SignatureSize),
	} {
		if err := k.Public().Verify(CtxEvent, msg, s); err != ErrBadSignature {
			t.Errorf("%s: got %v, want exactly %v", name, err, ErrBadSignature)
		}
	}
	if err := k.Public().Verify(CtxEvent, msg, sig); err != nil {
		t.Errorf("whole: %v", err)
	}
}

// TestIdentity03CrossContext: a signature of one kind of object is none of
// another kind.
func TestIdentity03CrossContext(t *testing.T) {
	all := []Context{CtxEvent, CtxBatch, CtxDelegation, CtxApproval, CtxPolicy, CtxAttest, CtxNode, CtxReceipt, CtxPossession}
	k := testKey(t, 1)
	msg := []byte("the same bytes")
	for _, made := range all {
		sig, err := k.Sign(made, msg)
		if err != nil {
			t.Fatal(err)
		}
		for _, offered := range all {
			err := k.Public().Verify(offered, msg, sig)
			if made == offered && err != nil || made != offered && !errors.Is(err, ErrBadSignature) {
				t.Errorf("made as %s, offered as %s: got %v", made, offered, err)
			}
		}
	}
	for _, bad := range []Context{"", Context(strings.Repeat("c", 256))} {
		if _, err := k.Sign(bad, msg); !errors.Is(err, ErrBadContext) {
			t.Errorf("sign under a context of %d bytes: got %v, want %v", len(bad), err, ErrBadContext)
		}
		if err := k.Public().Verify(bad, msg, make([]byte, SignatureSize)); !errors.Is(err, ErrBadContext) {
			t.Errorf("verify under a context of %d bytes: got %v, want %v", len(bad), err, ErrBadContext)
		}
	}
}

// TestIdentity04HalfReuse: the Ed25519 half over M' would verify for itself; the
// plain entry point refuses the message, whoever signed it.
func TestIdentity04HalfReuse(t *testing.T) {
	k := testKey(t, 1)
	sig, err := k.Sign(CtxEvent, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum512([]byte("message"))
	m := appendMPrime(nil, string(CtxEvent), &digest)
	edKey := k.Public().Bytes()[mldsa65PublicKeySize:]
	if !verifyEd25519(edKey, m, sig[mldsa65SignatureSize:]) {
		t.Fatal("the half does not verify over M', so the guard guards nothing")
	}
	if err := VerifyEd25519(edKey, m, sig[mldsa65SignatureSize:]); !errors.Is(err, ErrComposite) {
		t.Errorf("got %v, want %v", err, ErrComposite)
	}
	if _, err := SignEd25519(k.ed, m); !errors.Is(err, ErrComposite) {
		t.Errorf("sign: got %v, want %v", err, ErrComposite)
	}
	plain, err := SignEd25519(k.ed, []byte("note"))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyEd25519(edKey, []byte("note"), plain); err != nil {
		t.Errorf("plain signature: got %v, want accepted", err)
	}
	if err := VerifyEd25519(edKey[:31], []byte("note"), plain); !errors.Is(err, ErrBadKey) {
		t.Errorf("short key: got %v, want %v", err, ErrBadKey)
	}
	// The ML-DSA half is bound by its label and verifies nowhere else.
	if k.Public().mldsa.verify(m, nil, sig[:mldsa65SignatureSize]) {
		t.Error("ML-DSA half verifies without the label")
	}
}

// TestIdentity05Downgrade: the suite is the registered key's. There is no way to
// offer a signature of another suite, only one of the wrong size or a key that
// does not parse.
func TestIdentity05Downgrade(t *testing.T) {
	k := testKey(t, 1)
	if _, err := ParsePublicKey(SuiteMLDSA65Ed25519+1, k.Public().Bytes()); !errors.Is(err, ErrUnknownSuite) {
		t.Errorf("unknown suite: got %v, want %v", err, ErrUnknownSuite)
	}
	k44, err := NewMLDSA44(k.Seed()[:MLDSA44SeedSize])
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("message")
	half44, err := k44.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	half, err := k.Sign(CtxEvent, msg)
	if err != nil {
		t.Fatal(err)
	}
	sig44 := append(half44, half[mldsa65SignatureSize:]...)
	if err := k.Public().Verify(CtxEvent, msg, sig44); err != ErrBadSignature {
		t.Errorf("ML-DSA-44 in place of 65: got %v, want %v", err, ErrBadSignature)
	}
	if err := VerifyMLDSA44(k44.Public(), msg, half44); err != nil {
		t.Errorf("ML-DSA-44 alone: got %v, want accepted", err)
	}
	for name, err := range map[string]error{
		"ML-DSA-44 signature, one byte long": VerifyMLDSA44(k44.Public(), msg, append(bytes.Clone(half44), 0)),
		"ML-DSA-65 signature under a 44 key": VerifyMLDSA44(k44.Public(), msg, half[:mldsa65SignatureSize]),
		"other message":                      VerifyMLDSA44(k44.Public(), []byte("massage"), half44),
	} {
		if err != ErrBadSignature {
			t.Errorf("%s: got %v, want %v", name, err, ErrBadSignature)
		}
	}
	if err := VerifyMLDSA44(k44.Public()[1:], msg, half44); !errors.Is(err, ErrBadKey) {
		t.Errorf("short ML-DSA-44 key: got %v, want %v", err, ErrBadKey)
	}
}

// TestIdentity06MixAndMatch: a device may sign with randomness, and then halves
// of two signatures on one message verify together. Nothing identifies an event
// by its signature: the digest, which is what leaves hold, is the same.
func TestIdentity06MixAndMatch(t *testing.T) {
	k := testKey(t, 1)
	payload := testPayload(t, 1)
	env, err := SignEvent(k, payload)
	if err != nil {
		t.Fatal(err)
	}
	again, err := SignEvent(k, payload)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(env.Signature, again.Signature) {
		t.Error("signing is not deterministic")
	}
	mixed := *env
	mixed.Signature = append(bytes.Clone(env.Signature[:mldsa65SignatureSize]), again.Signature[mldsa65SignatureSize:]...)
	d1, err1 := env.Verify(k.Public())
	d2, err2 := mixed.Verify(k.Public())
	if err1 != nil || err2 != nil || d1[0] != d2[0] {
		t.Errorf("got digests %x, %x, errors %v, %v, want one digest", d1, d2, err1, err2)
	}
}

// TestIdentity08Components: the id of a component is the same alone and inside a
// composite, so a registry sees reuse in either direction.
func TestIdentity08Components(t *testing.T) {
	a := testKey(t, 1)
	seed := a.Seed()
	copy(seed[:mldsaSeedSize], testKey(t, 2).Seed())
	b, err := NewPrivateKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	ca, cb := a.Public().ComponentIDs(), b.Public().ComponentIDs()
	if ca[1] != cb[1] || ca[0] == cb[0] || a.Public().ID() == b.Public().ID() {
		t.Error("keys that share the Ed25519 half: want the same second component and nothing else")
	}
	if got := ComponentID("ed25519", a.Public().Bytes()[mldsa65PublicKeySize:]); got != ca[1] {
		t.Errorf("Ed25519 key alone: got %x, want %x", got, ca[1])
	}
	if got := ComponentID("mldsa65", a.Public().Bytes()[mldsa65PublicKeySize:]); got == ca[1] {
		t.Error("component id does not depend on the algorithm")
	}
}

// TestIdentity09NonCanonicalEvents: each way to spell an event differently is
// refused, each with its own code.
func TestIdentity09NonCanonicalEvents(t *testing.T) {
	good := testPayload(t, 1)
	if _, err := DecodeEvent(good); err != nil {
		t.Fatal(err)
	}
	// The first bytes are the map header, key 1, value 1, key 2 and the header
	// of the 32-byte ledger id.
	if !bytes.HasPrefix(good, []byte{0xac, 0x01, 0x01, 0x02, 0x58, 0x20}) {
		t.Fatalf("unexpected start %x", good[:6])
	}
	rest := good[3:]
	for _, c := range []struct {
		name string
		b    []byte
		want canon.Code
	}{
		{"indefinite length", append(append([]byte{0xbf}, good[1:]...), 0xff), canon.Indefinite},
		{"unsorted keys", append([]byte{0xac, 0x02, 0x01, 0x01, 0x58, 0x20}, good[6:]...), canon.Unsorted},
		{"long-form integer", append([]byte{0xac, 0x01, 0x18, 0x01}, rest...), canon.NotShortest},
		{"duplicate key", append([]byte{0xad, 0x01, 0x01, 0x01, 0x01}, rest...), canon.DuplicateKey},
		{"trailing byte", append(bytes.Clone(good), 0), canon.Trailing},
		{"float", append([]byte{0xac, 0x01, 0xf9, 0x3c, 0x00}, rest...), canon.Float},
		{"tag", append([]byte{0xac, 0x01, 0xc1, 0x01}, rest...), canon.Tag},
		{"unknown key 22", append(append([]byte{0xad}, good[1:]...), 0x16, 0x00), canon.UnknownField},
		{"unknown key 0", append([]byte{0xad, 0x00, 0x00}, good[1:]...), canon.UnknownField},
		{"missing field", append([]byte{0xab}, good[3:]...), canon.MissingField},
		{"truncated", good[:len(good)-1], canon.Truncated},
		{"text for version", append([]byte{0xac, 0x01, 0x61, 0x31}, rest...), canon.WrongType},
		{"null for version", append([]byte{0xac, 0x01, 0xf6}, rest...), canon.WrongType},
		{"empty", nil, canon.Truncated},
		{"array", []byte{0x80}, canon.WrongType},
		{"empty addenda", append(append([]byte{0xad}, good[1:]...), 0x0d, 0x80), canon.NotCanonical},
	} {
		_, err := DecodeEvent(c.b)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if _, ok := errors.AsType[*InvalidError](err); !ok {
			t.Errorf("%s: got %T, want *InvalidError", c.name, err)
		}
		if reflectDecode(c.b) == nil {
			t.Errorf("%s: the reflective decoder accepts it", c.name)
		}
	}
}

// reflectDecode is DecodeEvent written the other way.
func reflectDecode(b []byte) error {
	var e Event
	if err := canon.UnmarshalMax(b, &e, MaxPayloadBytes); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return err
	}
	return checkBody(e.Body)
}

func TestEventLimits(t *testing.T) {
	pairs := func(n int) map[uint64]uint64 {
		m := make(map[uint64]uint64)
		for i := range n {
			m[uint64(i)] = 0
		}
		return m
	}
	nest := func(n int) any {
		v := any(uint64(0))
		for range n {
			v = []any{v}
		}
		return map[string]any{"a": v}
	}
	for _, c := range []struct {
		name string
		edit func(e *Event)
		want error // nil: accepted
	}{
		{"as it is", func(e *Event) {}, nil},
		{"version 0", func(e *Event) { e.V = 0 }, ErrVersion},
		{"version 2", func(e *Event) { e.V = 2 }, ErrVersion},
		{"no kind", func(e *Event) { e.Kind = "" }, ErrSyntax},
		{"kind of 64", func(e *Event) { e.Kind = strings.Repeat("k", 64) }, nil},
		{"kind of 65", func(e *Event) { e.Kind = strings.Repeat("k", 65) }, ErrSyntax},
		{"kind with dot, digit and underscore", func(e *Event) { e.Kind = "quota.lease_2" }, nil},
		{"kind with a capital", func(e *Event) { e.Kind = "Usage" }, ErrSyntax},
		{"kind that begins with a digit", func(e *Event) { e.Kind = "2usage" }, ErrSyntax},
		{"kind with a non-ASCII letter", func(e *Event) { e.Kind = "usagé" }, ErrSyntax},
		{"kind with a zero byte", func(e *Event) { e.Kind = "usage\x00" }, ErrSyntax},
		{"negative time", func(e *Event) { e.ClientTime = -1 << 63 }, nil},
		{"8 addenda", func(e *Event) { e.Addenda = make([]Digest, 8) }, nil},
		{"9 addenda", func(e *Event) { e.Addenda = make([]Digest, 9) }, ErrTooMany},
		{"empty body", func(e *Event) { e.Body = []byte{0xa0} }, nil},
		{"no body", func(e *Event) { e.Body = nil }, canon.Truncated},
		{"body that is an array", func(e *Event) { e.Body = []byte{0x80} }, canon.WrongType},
		{"body that is not canonical", func(e *Event) { e.Body = []byte{0xa1, 0x18, 0x01, 0x00} }, canon.NotShortest},
		{"body of two items", func(e *Event) { e.Body = []byte{0xa0, 0xa0} }, canon.Trailing},
		{"100 properties", func(e *Event) { e.Body = canon.MustMarshal(pairs(100)) }, nil},
		{"101 properties", func(e *Event) { e.Body = canon.MustMarshal(pairs(101)) }, canon.TooMany},
		{"101 properties inside", func(e *Event) { e.Body = canon.MustMarshal(map[string]any{"a": pairs(101)}) }, canon.TooMany},
		{"nesting 3", func(e *Event) { e.Body = canon.MustMarshal(nest(3)) }, nil},
		{"nesting 4", func(e *Event) { e.Body = canon.MustMarshal(nest(4)) }, canon.TooDeep},
		{"just too large", func(e *Event) {
			e.Body = canon.MustMarshal(map[string][]byte{"a": make([]byte, MaxPayloadBytes)})
		}, ErrTooLarge},
	} {
		e := testEvent(1)
		c.edit(e)
		b, err := e.Encode()
		if c.want == nil {
			if err != nil {
				t.Errorf("%s: Encode: %v", c.name, err)
				continue
			}
			if _, err := DecodeEvent(b); err != nil {
				t.Errorf("%s: DecodeEvent: %v", c.name, err)
			}
			continue
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: Encode: got %v, want %v", c.name, err, c.want)
		}
		// A client that does not check gets no further.
		if _, err := DecodeEvent(e.append(nil)); err == nil {
			t.Errorf("%s: DecodeEvent: accepted", c.name)
		}
	}
}

// TestIdentity10HostileSizes: what is huge is refused at once and costs nothing.
func TestIdentity10HostileSizes(t *testing.T) {
	deep := testEvent(1)
	deep.Body = bytes.Repeat([]byte{0x81}, 60_000)
	long := testEvent(1)
	long.Body = append([]byte{0xa1, 0x01, 0x9a, 0x00, 0x0f, 0x42, 0x40}, make([]byte, 100)...)
	for name, b := range map[string][]byte{
		"10^6 deep":                     bytes.Repeat([]byte{0x81}, 1e6),
		"body nested 60,000 deep":       deep.append(nil),
		"body claims 10^6 elements":     long.append(nil),
		"addenda claim 10^6":            append(append([]byte{0xad}, testPayload(t, 1)[1:]...), 0x0d, 0x9a, 0x00, 0x0f, 0x42, 0x40),
		"ledger id claims 2^63 bytes":   {0xac, 0x01, 0x01, 0x02, 0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"payload of 64 KiB + 1 of zero": make([]byte, MaxPayloadBytes+1),
	} {
		res := testing.AllocsPerRun(10, func() {
			if _, err := DecodeEvent(b); err == nil {
				t.Fatalf("%s: accepted", name)
			}
			if _, err := DecodeEnvelope(b); err == nil {
				t.Fatalf("%s: accepted as envelope", name)
			}
		})
		if res > 20 {
			t.Errorf("%s: got %v allocations, want a handful", name, res)
		}
	}
}

func TestPAE(t *testing.T) {
	// The example of the DSSE specification, protocol.md.
	got := string(PAE("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, n := range []int{0, 1, 300, 950, 963, 964, 965, 966, 967, 968, 969, 970, 971, 972, 973, 974, 975, 976, 1024, 5000} {
		p := bytes.Repeat([]byte{'p'}, n)
		pae := PAE(PayloadType, p)
		if got, want := PayloadDigest(p), sha256Leaf(pae); got != want {
			t.Errorf("digest of %d bytes: got %x, want %x", n, got, want)
		}
		if got, want := paeSHA512(p), sha512.Sum512(pae); got != want {
			t.Errorf("SHA-512 of %d bytes: got %x, want %x", n, got, want)
		}
		if a := testing.AllocsPerRun(100, func() { PayloadDigest(p) }); a != 0 {
			t.Errorf("digest of %d bytes: got %v allocations, want 0", n, a)
		}
	}
}

func TestPrivateKeyHidesItself(t *testing.T) {
	k := testKey(t, 1)
	k44, err := NewMLDSA44(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, k); got != "private key "+k.Public().ID().String() {
			t.Errorf("%s: got %q", format, got)
		}
		if got := fmt.Sprintf(format, k44); got != "ML-DSA-44 private key" {
			t.Errorf("%s: got %q", format, got)
		}
	}
}
