package canon

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkCases are inputs with the rule each breaks; 0 means canonical.
var checkCases = []struct {
	name, hex string
	want      Code
}{
	{"zero", "00", 0},
	{"24", "1818", 0},
	{"max uint64", "1bffffffffffffffff", 0},
	{"min negative", "3bffffffffffffffff", 0},
	{"empty text", "60", 0},
	{"map sorted", "a3010203041820f6", 0},
	{"text keys by length then bytes", "a2616200626161f5", 0},
	{"eight levels", "818181818181818100", 0},
	{"null", "f6", 0},
	{"empty input", "", Truncated},
	{"trailing byte", "0000", Trailing},
	{"long form 23", "1817", NotShortest},
	{"long form 255", "1900ff", NotShortest},
	{"long form 65535", "1a0000ffff", NotShortest},
	{"long form 2^32-1", "1b00000000ffffffff", NotShortest},
	{"long form length", "58016a", NotShortest},
	{"long form key", "a1180100", NotShortest},
	{"indefinite array", "9f00ff", Indefinite},
	{"indefinite map", "bf0000ff", Indefinite},
	{"indefinite bytes", "5f4100ff", Indefinite},
	{"indefinite text", "7f6161ff", Indefinite},
	{"break alone", "ff", Malformed},
	{"reserved header", "1c", Malformed},
	{"indefinite integer", "1f", Malformed},
	{"duplicate key", "a201000100", DuplicateKey},
	{"unsorted keys", "a202000100", Unsorted},
	{"unsorted nested", "81a202000100", Unsorted},
	{"array as key", "a1800000", KeyType},
	{"bool as key", "a1f400", KeyType},
	{"least int64 as key", "a13b7fffffffffffffff00", 0},
	{"less than any int64 as key", "a13b800000000000000000", KeyType},
	{"tag", "c100", Tag},
	{"tag as key", "a1c10000", Tag},
	{"half float", "f93c00", Float},
	{"single float", "fa3f800000", Float},
	{"double float", "fb3ff0000000000000", Float},
	{"undefined", "f7", Simple},
	{"simple 16", "f0", Simple},
	{"simple 255", "f8ff", Simple},
	{"bad text", "61ff", BadUTF8},
	{"surrogate text", "63eda080", BadUTF8},
	{"short bytes", "4200", Truncated},
	{"short array", "8200", Truncated},
	{"short map", "a200", Truncated},
	{"short head", "19ff", Truncated},
	{"array claims 2^64-1", "9bffffffffffffffff", Truncated},
	{"map claims 2^63", "bb8000000000000000", Truncated},
	{"bytes claim 2^64-1", "5bffffffffffffffff", Truncated},
	{"nine levels", "81818181818181818100", TooDeep},
	{"nine levels, empty", "818181818181818180", TooDeep},
}

func TestCheck(t *testing.T) {
	for _, c := range checkCases {
		b := unhex(t, c.hex)
		err := Check(b)
		if c.want == 0 {
			if err != nil {
				t.Errorf("%s: Check: got %v, want nil", c.name, err)
			}
			continue
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: Check: got %v, want %v", c.name, err, c.want)
		}
		var v any
		if err := Unmarshal(b, &v); !errors.Is(err, c.want) {
			t.Errorf("%s: Unmarshal: got %v, want %v", c.name, err, c.want)
		}
		if naive(b) {
			t.Errorf("%s: the re-encode rule accepts what Check refuses", c.name)
		}
	}
}

func TestCheckLimits(t *testing.T) {
	l := Limits{Depth: 2, Pairs: 2}
	for _, c := range []struct {
		hex  string
		want Code
	}{
		{"a10080", 0}, {"a1008180", TooDeep}, {"a3010002000300", TooMany},
		{"a100a3010002000300", TooMany}, {"8a00000000000000000000", 0},
	} {
		err := CheckLimits(unhex(t, c.hex), l)
		if c.want == 0 && err != nil || c.want != 0 && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.hex, err, c.want)
		}
	}
}

// naive is the rule as formats.md states it: decode, encode, same bytes; and
// none of the types that canonical objects do without.
func naive(b []byte) bool {
	dm, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, MaxNestedLevels: MaxDepth, UTF8: cbor.UTF8RejectInvalid,
		IntDec: cbor.IntDecConvertNone,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	var v any
	if dm.Unmarshal(b, &v) != nil || !plain(v) {
		return false
	}
	em, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	again, err := em.Marshal(v)
	return err == nil && bytes.Equal(b, again)
}

func plain(v any) bool {
	switch v := v.(type) {
	case float32, float64, cbor.SimpleValue:
		return false
	case []any:
		for _, e := range v {
			if !plain(e) {
				return false
			}
		}
	case map[any]any:
		for k, e := range v {
			switch k.(type) {
			case bool, nil:
				return false
			}
			if !plain(k) || !plain(e) {
				return false
			}
		}
	}
	return true
}

// FuzzCheck holds the scanner against the rule it stands for.
func FuzzCheck(f *testing.F) {
	for _, c := range checkCases {
		f.Add(unhex(f, c.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := Check(b)
		if got, want := err == nil, naive(b); got != want {
			t.Fatalf("Check(%x): got %v, the re-encode rule says %v", b, err, want)
		}
		var v any
		if uerr := Unmarshal(b, &v); (uerr == nil) != (err == nil) {
			t.Fatalf("Unmarshal(%x): got %v, Check says %v", b, uerr, err)
		}
	})
}

type inner struct {
	A [4]byte `cbor:"1,keyasint"`
	B []byte  `cbor:"2,keyasint,omitempty"`
}

type outer struct {
	N   uint64            `cbor:"1,keyasint"`
	I   int64             `cbor:"2,keyasint"`
	S   string            `cbor:"3,keyasint"`
	L   []inner           `cbor:"4,keyasint"`
	M   map[string]uint64 `cbor:"5,keyasint,omitempty"`
	Opt *uint64           `cbor:"6,keyasint,omitempty"`
	Raw cbor.RawMessage   `cbor:"7,keyasint,omitempty"`
}

func TestRoundTrip(t *testing.T) {
	one := uint64(1)
	for _, want := range []outer{
		{N: 1, I: math.MinInt64, S: "ä", L: []inner{}},
		{N: math.MaxUint64, I: -1, L: []inner{{A: [4]byte{1}, B: []byte{0}}},
			M: map[string]uint64{"b": 1, "aa": 2, "a": 3}, Opt: &one, Raw: cbor.RawMessage{0xa1, 0x01, 0xf5}},
	} {
		b, err := Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got outer
		if err := Unmarshal(b, &got); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("round trip (-want +got):\n%s", d)
		}
	}
	nilSlice := MustMarshal(outer{})
	if got, want := nilSlice, MustMarshal(outer{L: []inner{}}); !bytes.Equal(got, want) {
		t.Errorf("nil slice: got %x, want the empty one's %x", got, want)
	}
}

// TestUnmarshalOneSpelling: canonical CBOR that is not what Marshal would write
// for the value it decodes to.
func TestUnmarshalOneSpelling(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		v         any
		want      Code
	}{
		{"array one short", "a10143000000", new(inner), NotCanonical},
		{"array one long", "a101450000000000", new(inner), NotCanonical},
		{"omitted when empty, but there", "a201440000000002" + "40", new(inner), NotCanonical},
		{"missing field", "a0", new(inner), NotCanonical},
		{"null for bytes", "a10" + "1f6", new(inner), NotCanonical},
		{"unknown key 22", "a2014400000000160" + "0", new(inner), UnknownField},
		{"text for bytes", "a1016461626364", new(inner), WrongType},
		{"null for number", "f6", new(uint64), NotCanonical},
		{"negative for unsigned", "20", new(uint64), WrongType},
		{"too large for the type", "190100", new(uint8), WrongType},
		{"into a non-pointer", "00", uint64(0), Unsupported},
		{"into nil", "00", nil, Unsupported},
	} {
		if err := Unmarshal(unhex(t, c.hex), c.v); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	deep := any(0)
	for range MaxDepth + 1 {
		deep = []any{deep}
	}
	for name, v := range map[string]any{
		"float": 1.5, "time as float": struct{ F float32 }{1}, "channel": make(chan int),
		"bad text": "\xff", "too deep": deep, "tag": cbor.Tag{Number: 1, Content: 1},
		"raw that is not canonical": cbor.RawMessage{0x18, 0x01},
	} {
		if b, err := Marshal(v); err == nil {
			t.Errorf("%s: got %x, want an error", name, b)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustMarshal of a float: got no panic")
		}
	}()
	MustMarshal(0.5)
}

func TestUnmarshalMax(t *testing.T) {
	var b []byte
	if err := UnmarshalMax(unhex(t, "4100"), &b, 1); !errors.Is(err, TooLarge) {
		t.Errorf("got %v, want %v", err, TooLarge)
	}
	if err := UnmarshalMax(unhex(t, "4100"), &b, 2); err != nil {
		t.Error(err)
	}
}

// TestHostileShapes: what an input claims costs nothing; what it nests ends early.
func TestHostileShapes(t *testing.T) {
	var anyV any
	var list []inner
	for name, c := range map[string]struct {
		b []byte
		v any
	}{
		"10^6 deep":              {bytes.Repeat([]byte{0x81}, 1e6), &anyV},
		"10^6 elements claimed":  {unhex(t, "9a000f4240"), &list},
		"10^6 bytes claimed":     {unhex(t, "5a000f424000"), &anyV},
		"10^6 pairs claimed":     {unhex(t, "ba000f42400000"), &anyV},
		"claims inside of claim": {bytes.Repeat(unhex(t, "9a000f4240"), 1000), &anyV},
	} {
		// Neither time nor memory may follow the claim. The fastest of several
		// runs counts, so that a busy machine cannot fail the test.
		best := time.Hour
		for range 20 {
			start := time.Now()
			if err := UnmarshalMax(c.b, c.v, 2<<20); err == nil {
				t.Fatalf("%s: accepted", name)
			}
			best = min(best, time.Since(start))
		}
		if best > time.Millisecond {
			t.Errorf("%s: refused in %v, want < 1 ms", name, best)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := UnmarshalMax(c.b, c.v, 2<<20); err == nil {
			t.Fatalf("%s: accepted", name)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: allocated %d bytes, want < 1 MiB", name, n)
		}
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	b := MustMarshal(outer{N: 300, S: "text", L: []inner{{}, {B: []byte{1}}}, M: map[string]uint64{"a": 1, "b": 2}})
	if n := testing.AllocsPerRun(100, func() {
		if err := Check(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Check: got %v allocations, want 0", n)
	}
}

func TestReader(t *testing.T) {
	b := AppendMap(nil, 3)
	b = AppendInt(AppendUint(b, 1), -5)
	b = AppendText(AppendUint(b, 2), "hé")
	b = AppendArray(AppendUint(b, 300), 3)
	b = AppendBool(AppendBool(b, true), false)
	b = AppendBytes(b, []byte{1, 2})
	if err := Check(b); err != nil {
		t.Fatal(err)
	}
	r := NewReader(b)
	if n, err := r.Map(); n != 3 || err != nil {
		t.Fatalf("Map: got %d, %v, want 3", n, err)
	}
	if !r.Peek(1) || r.Peek(1) {
		t.Error("Peek(1): got false or twice, want true once")
	}
	if n, err := r.Int(); n != -5 || err != nil {
		t.Errorf("Int: got %d, %v, want -5", n, err)
	}
	if n, err := r.Uint(); n != 2 || err != nil {
		t.Errorf("Uint: got %d, %v, want 2", n, err)
	}
	if s, err := r.Text(); string(s) != "hé" || err != nil {
		t.Errorf("Text: got %q, %v", s, err)
	}
	if n, err := r.Uint(); n != 300 || err != nil {
		t.Errorf("Uint: got %d, %v, want 300", n, err)
	}
	if n, err := r.Array(); n != 3 || err != nil {
		t.Errorf("Array: got %d, %v, want 3", n, err)
	}
	if v, err := r.Bool(); !v || err != nil {
		t.Errorf("Bool: got %v, %v, want true", v, err)
	}
	if v, err := r.Bool(); v || err != nil {
		t.Errorf("Bool: got %v, %v, want false", v, err)
	}
	if err := r.End(); !errors.Is(err, Trailing) {
		t.Errorf("End: got %v, want %v", err, Trailing)
	}
	var two [2]byte
	if err := r.Fixed(two[:]); err != nil || two != [2]byte{1, 2} {
		t.Errorf("Fixed: got %v, %v", two, err)
	}
	if err := r.End(); err != nil {
		t.Error(err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, c := range []struct {
		hex  string
		read func(*Reader) error
		want Code
	}{
		{"20", func(r *Reader) error { _, err := r.Uint(); return err }, WrongType},
		{"1b8000000000000000", func(r *Reader) error { _, err := r.Int(); return err }, WrongType},
		{"3b8000000000000000", func(r *Reader) error { _, err := r.Int(); return err }, WrongType},
		{"f6", func(r *Reader) error { _, err := r.Bool(); return err }, WrongType},
		{"c100", func(r *Reader) error { _, err := r.Bytes(); return err }, Tag},
		{"4200", func(r *Reader) error { _, err := r.Bytes(); return err }, Truncated},
		{"4100", func(r *Reader) error { return r.Fixed(make([]byte, 2)) }, WrongType},
		{"61ff", func(r *Reader) error { _, err := r.Text(); return err }, BadUTF8},
		{"9a000f4240", func(r *Reader) error { _, err := r.Array(); return err }, Truncated},
		{"ba000f4240", func(r *Reader) error { _, err := r.Map(); return err }, Truncated},
		{"", func(r *Reader) error { _, err := r.Map(); return err }, Truncated},
	} {
		r := NewReader(unhex(t, c.hex))
		if err := c.read(&r); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.hex, err, c.want)
		}
	}
}

func TestErrorText(t *testing.T) {
	for c := Malformed; c <= Unsupported; c++ {
		if codeText[c] == "" {
			t.Errorf("code %d has no text", c)
		}
	}
	if got, want := Check([]byte{0, 0}).Error(), "canonical cbor: trailing bytes at byte 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func BenchmarkCheck(b *testing.B) {
	buf := MustMarshal(outer{N: 300, S: "text", L: make([]inner, 20), M: map[string]uint64{"a": 1, "b": 2}})
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	buf := MustMarshal(outer{N: 300, S: "text", L: make([]inner, 20), M: map[string]uint64{"a": 1, "b": 2}})
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		var v outer
		if err := Unmarshal(buf, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	v := outer{N: 300, S: "text", L: make([]inner, 20), M: map[string]uint64{"a": 1, "b": 2}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Marshal(v); err != nil {
			b.Fatal(err)
		}
	}
}
