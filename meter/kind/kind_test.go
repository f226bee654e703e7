package kind

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// reflectedUsage is what ReadUsageBody reads, for the reflecting decoder.
type reflectedUsage struct {
	Quantities map[string]uint64 `cbor:"1,keyasint"`
	Lease      uint64            `cbor:"2,keyasint,omitempty"`
	From       *uint64           `cbor:"3,keyasint,omitempty"`
	To         *uint64           `cbor:"4,keyasint,omitempty"`
	Dims       map[string]string `cbor:"5,keyasint,omitempty"`
}

func TestUsageBodyRoundTrip(t *testing.T) {
	for _, b := range []UsageBody{
		{Quantities: []verify.Quantity{{Meter: "tok", N: 0}}},
		{Quantities: []verify.Quantity{{Meter: "in", N: 1}, {Meter: "longer.name", N: MaxAmount}, {Meter: "z", N: 7}}},
		{Quantities: []verify.Quantity{{Meter: "tok", N: 5}}, Lease: 9, From: 0, To: 1},
		{Quantities: []verify.Quantity{{Meter: "a", N: 5}}, Dims: []Dim{{Name: "id", Value: ""}, {Name: "model", Value: "größe"}}},
	} {
		enc, err := b.Encode()
		if err != nil {
			t.Errorf("%+v: %v", b, err)
			continue
		}
		got, err := DecodeUsageBody(enc)
		if err != nil {
			t.Errorf("%+v: %v", b, err)
		} else if diff := cmp.Diff(&b, got); diff != "" {
			t.Errorf("round trip (-want +got):\n%s", diff)
		}
	}
	// The order of quantities and dimensions does not matter to Encode.
	a, err := UsageBody{Quantities: []verify.Quantity{{Meter: "b", N: 1}, {Meter: "a", N: 2}, {Meter: "aa", N: 3}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := UsageBody{Quantities: []verify.Quantity{{Meter: "aa", N: 3}, {Meter: "a", N: 2}, {Meter: "b", N: 1}}}.Encode()
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("got two encodings of the same quantities (%v)", err)
	}
}

func TestUsageBodyRefusals(t *testing.T) {
	q := func(s ...verify.Quantity) UsageBody { return UsageBody{Quantities: s} }
	many := UsageBody{}
	for i := range MaxQuantities + 1 {
		many.Quantities = append(many.Quantities, verify.Quantity{Meter: "m" + strings.Repeat("x", i), N: 1})
	}
	for name, b := range map[string]UsageBody{
		"no quantities":        {},
		"too many quantities":  many,
		"a meter twice":        q(verify.Quantity{Meter: "a", N: 1}, verify.Quantity{Meter: "a", N: 1}),
		"no meter":             q(verify.Quantity{N: 1}),
		"capital meter":        q(verify.Quantity{Meter: "Tok", N: 1}),
		"long meter":           q(verify.Quantity{Meter: strings.Repeat("m", 65), N: 1}),
		"amount out of range":  q(verify.Quantity{Meter: "a", N: math.MaxUint64}),
		"empty range":          {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Lease: 1, From: 2, To: 2},
		"backward range":       {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Lease: 1, From: 2, To: 1},
		"two meters, a lease":  {Quantities: []verify.Quantity{{Meter: "a", N: 1}, {Meter: "b", N: 1}}, Lease: 1, To: 1},
		"dimension, no name":   {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Dims: []Dim{{Value: "x"}}},
		"dimension too long":   {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Dims: []Dim{{Name: "x", Value: strings.Repeat("y", 129)}}},
		"dimension not UTF-8":  {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Dims: []Dim{{Name: "x", Value: "\xff"}}},
		"a dimension twice":    {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Dims: []Dim{{Name: "x"}, {Name: "x"}}},
		"too many dimensions":  {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Dims: make([]Dim, MaxDims+1)},
		"range beyond the end": {Quantities: []verify.Quantity{{Meter: "a", N: 1}}, Lease: 1, To: math.MaxUint64},
	} {
		if _, err := b.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	for name, raw := range map[string]string{
		"not a map":             "\x80",
		"unknown field":         "\xa2\x01\xa1\x61a\x01\x06\x01",
		"field before":          "\xa2\x00\x00\x01\xa1\x61a\x01",
		"range without a lease": "\xa2\x01\xa1\x61a\x01\x03\x01",
		"lease zero":            "\xa2\x01\xa1\x61a\x01\x02\x00",
		"lease without a range": "\xa2\x01\xa1\x61a\x01\x02\x01",
		"negative amount":       "\xa1\x01\xa1\x61a\x20",
		"text amount":           "\xa1\x01\xa1\x61a\x61a",
		"empty dimensions":      "\xa2\x01\xa1\x61a\x01\x05\xa0",
		"trailing byte":         "\xa1\x01\xa1\x61a\x01\x00",
		"missing pair":          "\xa2\x01\xa1\x61a\x01",
	} {
		if _, err := DecodeUsageBody([]byte(raw)); err == nil {
			t.Errorf("%s: decoded", name)
		}
		if _, err := ReadUsageBody([]byte(raw)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	_, err := DecodeUsageBody([]byte("\xa1\x01\xa1\x61A\x01"))
	if bad, ok := errors.AsType[*InvalidError](err); !ok || bad.Field != "quantities" {
		t.Errorf("got %v, want an InvalidError about quantities", err)
	}
}

func TestBodiesRoundTrip(t *testing.T) {
	id := nhi.ID{1}
	for _, c := range []struct {
		name   string
		encode func() ([]byte, error)
		decode func([]byte) error
	}{
		{"account", AccountBody{ID: id, Type: "team"}.Encode, decoder(DecodeAccountBody)},
		{"quota", QuotaBody{Account: id, Meter: "tok", Period: Month, Limit: 5, Mode: Observe, Anchor: 31, Thresholds: []uint16{50, 100}, Until: 9}.Encode, decoder(DecodeQuotaBody)},
		{"reserve", ReserveBody{Meter: "tok", Want: 5, Min: 2, TTL: 1e9}.Encode, decoder(DecodeReserveBody)},
		{"settle", SettleBody{Lease: 1, Amount: 2, From: 3, To: 4}.Encode, decoder(DecodeSettleBody)},
		{"close", CloseBody{Lease: 1, Spent: 0}.Encode, decoder(DecodeCloseBody)},
	} {
		b, err := c.encode()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := c.decode(b); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for name, bad := range map[string][]byte{"nothing": {}, "empty map": {0xa0}, "trailing byte": append(bytes.Clone(b), 0), "truncated": b[:len(b)-1]} {
			if err := c.decode(bad); err == nil {
				t.Errorf("%s: decoded %s", c.name, name)
			}
		}
	}
	for _, typ := range []string{"", "Team", "a b", strings.Repeat("a", 17), "ü"} {
		b := canon.MustMarshal(AccountBody{ID: id, Type: typ})
		if _, err := DecodeAccountBody(b); err == nil {
			t.Errorf("account of type %q decoded", typ)
		}
	}
	for _, b := range []AccountBody{{Type: "team"}, {ID: id, Parent: id, Type: "team"}} {
		if _, err := DecodeAccountBody(canon.MustMarshal(b)); err == nil {
			t.Errorf("account %+v decoded", b)
		}
	}
}

func decoder[T any](decode func([]byte) (*T, error)) func([]byte) error {
	return func(b []byte) error {
		_, err := decode(b)
		return err
	}
}

func TestNamesRoundTrip(t *testing.T) {
	for p := Hour; p <= Total; p++ {
		if got, ok := ParsePeriod(p.String()); !ok || got != p {
			t.Errorf("period %d: got %v, %v", p, got, ok)
		}
	}
	for m := Block; m <= Observe; m++ {
		if got, ok := ParseMode(m.String()); !ok || got != m {
			t.Errorf("mode %d: got %v, %v", m, got, ok)
		}
	}
	if _, ok := ParsePeriod("unknown"); ok {
		t.Error("an unknown period parsed")
	}
	if _, ok := ParseMode(""); ok {
		t.Error("an empty mode parsed")
	}
	if got := Period(9).String() + Mode(9).String(); got != "unknownunknown" {
		t.Errorf("got %q", got)
	}
}

func FuzzUsageBody(f *testing.F) {
	for _, b := range []UsageBody{
		{Quantities: []verify.Quantity{{Meter: "tok", N: 5}}},
		{Quantities: []verify.Quantity{{Meter: "in", N: 1}, {Meter: "out", N: 7}}, Dims: []Dim{{Name: "model", Value: "m"}}},
		{Quantities: []verify.Quantity{{Meter: "tok", N: 5}}, Lease: 9, From: 3, To: 1 << 40},
	} {
		enc, err := b.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(enc)
	}
	f.Add([]byte("\xa2\x01\xa1\x61a\x01\x03\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeUsageBody(b)
		var r reflectedUsage
		rerr := canon.Unmarshal(b, &r)
		if err != nil {
			return // stricter than the shape alone
		}
		if rerr != nil {
			t.Fatalf("read what the reflecting decoder refuses: %v", rerr)
		}
		if len(got.Quantities) != len(r.Quantities) || got.Lease != r.Lease || len(got.Dims) != len(r.Dims) {
			t.Fatalf("got %+v, want %+v", got, r)
		}
		for i, q := range got.Quantities {
			if n, ok := r.Quantities[q.Meter]; !ok || n != q.N || i > 0 && got.Quantities[i-1].Meter >= q.Meter {
				t.Fatalf("quantity %d is %+v of %+v", i, q, r.Quantities)
			}
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("encodes again to %x (%v), want %x", again, err, b)
		}
	})
}

// FuzzBodies: no decoder panics, and what one accepts it encodes to the same bytes.
func FuzzBodies(f *testing.F) {
	f.Add(canon.MustMarshal(AccountBody{ID: nhi.ID{1}, Type: "team"}))
	f.Add(canon.MustMarshal(QuotaBody{Account: nhi.ID{1}, Meter: "tok", Period: Day, Limit: 5, Mode: Block, Thresholds: []uint16{50}}))
	f.Add(canon.MustMarshal(ReserveBody{Meter: "tok", Want: 5}))
	f.Add(canon.MustMarshal(SettleBody{Lease: 1, To: 4}))
	f.Add(canon.MustMarshal(CloseBody{Lease: 1}))
	f.Add(canon.MustMarshal(ZoneBody{Zone: "UTC", Rules: []byte("TZif2")}))
	f.Add(canon.MustMarshal(Refusal{Meter: "tok", Hint: "h"}))
	f.Add(canon.MustMarshal(Grant{Lease: 1, Granted: 2, Period: &GrantedFor{Period: Day}}))
	f.Add(canon.MustMarshal(Closed{Lease: 1}))
	f.Add(canon.MustMarshal(CorrectBody{Account: nhi.ID{1}, Meter: "tok", Period: Day, Excess: 1, Reason: "r"}))
	f.Add(canon.MustMarshal(Corrected{Excess: 1}))
	f.Add(canon.MustMarshal(OverClaim{Lease: 1, Over: 2, Sum: 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, DecodeAccountBody)
		again(t, b, DecodeQuotaBody)
		again(t, b, DecodeReserveBody)
		again(t, b, DecodeSettleBody)
		again(t, b, DecodeCloseBody)
		again(t, b, DecodeZoneBody)
		again(t, b, DecodeRefusal)
		again(t, b, DecodeGrant)
		again(t, b, DecodeClosed)
		again(t, b, DecodeCorrectBody)
		again(t, b, DecodeCorrected)
		again(t, b, DecodeOverClaim)
	})
}

func again[T any](t *testing.T, b []byte, decode func([]byte) (*T, error)) {
	t.Helper()
	v, err := decode(b)
	if err != nil {
		return
	}
	if enc, err := canon.Marshal(v); err != nil || !bytes.Equal(enc, b) {
		t.Fatalf("%T encodes again to %x (%v), want %x", v, enc, err, b)
	}
}
