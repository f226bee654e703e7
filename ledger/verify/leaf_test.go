package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func fullLeaf() *Leaf {
	rev := uint64(41)
	return &Leaf{
		V: 1, Cell: 3, Slot: 70000, Index: 1 << 33, Time: 1767225600123456789,
		Quality: Quality{Code: QualityStale, Flags: FlagCeil | FlagTest, Cert: bytes.Repeat([]byte{7}, 16)},
		Kind:    "quota.settle", Agent: nhi.ID{1}, Link: nhi.LinkID{2}, Seq: nhi.Seq{Instance: [8]byte{3}, N: 300}, ID: [16]byte{4},
		Payload: nhi.Digest{5}, Signature: nhi.Digest{6}, Outcome: Outcome{Code: OutcomeConflict, Detail: nhi.Digest{7}},
		Quantities: []Quantity{{Meter: "a", N: 0}, {Meter: "input_tokens", N: math.MaxUint64}, {Meter: "z/9", N: 24}},
		Epochs:     Epochs{Policy: 8, Entities: 900, Revocation: 70000}, Addenda: []nhi.Digest{{}, {9}},
		Cause: &Cause{Kind: CauseEvent, Index: 5, Ref: []byte("ref")}, Account: nhi.ID{10}, Reverses: &rev,
		Lease: &LeaseRef{ID: 11, From: 12, To: 1300}, Decision: nhi.Digest{14}, Assurance: AssuranceGateway,
	}
}

// variants are leaves that differ in which fields are present.
func variants() []*Leaf {
	out := []*Leaf{fullLeaf(), {V: 1, Kind: "x"}}
	for i := range 16 {
		l := fullLeaf()
		switch i {
		case 0:
			l.Quality = Quality{}
		case 1:
			l.Quality.Cert = nil
		case 2:
			l.Quality.Flags = 0
		case 3:
			l.Agent, l.Link = nhi.ID{}, nhi.LinkID{}
		case 4:
			l.Seq = nhi.Seq{N: 1}
		case 5:
			l.Seq = nhi.Seq{}
		case 6:
			l.ID, l.Payload, l.Signature = [16]byte{}, nhi.Digest{}, nhi.Digest{}
		case 7:
			l.Outcome = Outcome{}
		case 8:
			l.Quantities = nil
		case 9:
			l.Epochs = Epochs{}
		case 10:
			l.Addenda = nil
		case 11:
			l.Cause = nil
		case 12:
			l.Cause.Ref = nil
		case 13:
			l.Account, l.Reverses = nhi.ID{}, new(uint64)
		case 14:
			l.Lease, l.Reverses = nil, nil
		case 15:
			l.Decision, l.Assurance = nhi.Digest{}, 0
		}
		out = append(out, l)
	}
	return out
}

// TestLeafEncodingIsTheReflectiveOne holds the hand-written codec against canon, which works from the struct's tags.
func TestLeafEncodingIsTheReflectiveOne(t *testing.T) {
	for i, l := range variants() {
		got, err := l.Encode()
		if err != nil {
			t.Fatalf("variant %d: %v", i, err)
		}
		want, err := canon.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("variant %d: got  %x\nwant %x", i, got, want)
		}
		back, err := DecodeLeaf(got)
		if err != nil {
			t.Fatalf("variant %d: %v", i, err)
		}
		if d := cmp.Diff(l, back, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("variant %d (-want +got):\n%s", i, d)
		}
		var reflected Leaf
		if err := canon.Unmarshal(got, &reflected); err != nil {
			t.Errorf("variant %d: %v", i, err)
		}
	}
}

func TestLeafRefuses(t *testing.T) {
	big := uint64(1 << 40)
	for _, c := range []struct {
		field string
		edit  func(*Leaf)
	}{
		{"v", func(l *Leaf) { l.V = 2 }},
		{"index", func(l *Leaf) { l.Index = MaxTreeSize }},
		{"time", func(l *Leaf) { l.Time = -1 }},
		{"quality.cert", func(l *Leaf) { l.Quality.Cert = make([]byte, 65) }},
		{"kind", func(l *Leaf) { l.Kind = "" }},
		{"kind", func(l *Leaf) { l.Kind = "Usage" }},
		{"kind", func(l *Leaf) { l.Kind = strings.Repeat("a", 65) }},
		{"quantities", func(l *Leaf) { l.Quantities = make([]Quantity, 33) }},
		{"quantities", func(l *Leaf) { l.Quantities = []Quantity{{Meter: "b"}, {Meter: "a"}} }},
		{"quantities", func(l *Leaf) { l.Quantities = []Quantity{{Meter: "a"}, {Meter: "a"}} }},
		{"quantities", func(l *Leaf) { l.Quantities = []Quantity{{Meter: "a b"}} }},
		{"quantities", func(l *Leaf) { l.Quantities = []Quantity{{Meter: "é"}} }},
		{"addenda", func(l *Leaf) { l.Addenda = make([]nhi.Digest, 9) }},
		{"cause.ref", func(l *Leaf) { l.Cause.Ref = make([]byte, 65) }},
		{"reverses", func(l *Leaf) { l.Index, l.Reverses = 5, &big }},
		{"lease", func(l *Leaf) { l.Lease.To = 0 }},
	} {
		l := fullLeaf()
		c.edit(l)
		dst := []byte("kept")
		got, err := l.AppendTo(dst)
		if e, ok := errors.AsType[*FieldError](err); !ok || e.Field != c.field || string(got) != "kept" {
			t.Errorf("got %q, %v, want a refusal of field %q and dst unchanged", got, err, c.field)
		}
		if b, err := canon.Marshal(l); err == nil {
			if _, err := DecodeLeaf(b); err == nil {
				t.Errorf("field %q: decoded, want a refusal", c.field)
			}
		}
	}
}

func TestDecodeLeafRefusesOtherEncodings(t *testing.T) {
	good, err := (&Leaf{V: 1, Kind: "x", Assurance: 1}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	h := hex.EncodeToString(good) // a9 0101 0200 0300 0400 0500 06a10100 076178 0ea10100 1701
	if h != "a9010102000300040005000"+"6a10100"+"076178"+"0ea10100"+"1701" {
		t.Fatalf("got %s", h)
	}
	zero32 := strings.Repeat("00", 32)
	for name, bad := range map[string]string{
		"empty":              "",
		"not a map":          "80",
		"trailing byte":      h + "00",
		"truncated":          h[:len(h)-2],
		"long integer":       strings.Replace(h, "0101", "011801", 1),
		"indefinite":         "bf" + h[2:] + "ff",
		"unknown key":        "aa" + h[2:] + "181800",
		"duplicate key":      "aa" + h[2:] + "1701",
		"unsorted keys":      "a9" + "0200" + "0101" + h[10:],
		"missing outcome":    "a8" + strings.Replace(h[2:], "0ea10100", "", 1),
		"missing cell":       "a8" + strings.Replace(h[2:], "0200", "", 1),
		"zero assurance":     h[:len(h)-2] + "00",
		"zero payload":       "aa" + h[2:len(h)-12] + "0c5820" + zero32 + h[len(h)-12:],
		"empty quantities":   "aa" + h[2:len(h)-4] + "0f80" + "1701",
		"zero epochs":        "aa" + h[2:len(h)-4] + "10a3010002000300" + "1701",
		"zero flags":         strings.Replace(h, "06a10100", "06a201000200", 1),
		"tagged":             strings.Replace(h, "0200", "02c000", 1),
		"negative time":      strings.Replace(h, "0500", "0520", 1),
		"float":              strings.Replace(h, "0200", "02f90000", 1),
		"kind as bytes":      strings.Replace(h, "076178", "074178", 1),
		"huge claimed array": "aa" + h[2:len(h)-4] + "0f9affffffff" + "1701",
		"huge claimed map":   "bb" + "ffffffffffffffff",
	} {
		b, err := hex.DecodeString(bad)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := DecodeLeaf(b); err == nil {
			t.Errorf("%s: decoded %+v", name, l)
		}
	}
	if _, err := DecodeLeaf(make([]byte, MaxLeafSize+1)); err == nil {
		t.Error("4097 bytes: decoded")
	}
}

func TestLeafAtItsLimit(t *testing.T) {
	l := fullLeaf()
	l.Quantities = nil
	for i := range MaxQuantities {
		l.Quantities = append(l.Quantities, Quantity{Meter: fmt.Sprintf("%02d", i) + strings.Repeat("m", MaxMeterSize-2), N: math.MaxUint64})
	}
	l.Addenda = make([]nhi.Digest, MaxAddenda)
	l.Kind = strings.Repeat("k", MaxKindSize)
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxLeafSize {
		t.Errorf("got %d bytes, want at most %d", len(b), MaxLeafSize)
	}
	if _, err := DecodeLeaf(b); err != nil {
		t.Error(err)
	}
}

func TestLeafHash(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 513, 4096} {
		b := bytes.Repeat([]byte{9}, n)
		if got, want := LeafHash(b), sha256.Sum256(append([]byte{0}, b...)); got != want {
			t.Errorf("%d bytes: got %x, want %x", n, got, want)
		}
	}
}

func TestOutcomeNames(t *testing.T) {
	seen := map[string]bool{}
	for c := range len(outcomeNames) {
		name := OutcomeCode(c).String()
		back, ok := ParseOutcomeCode(name)
		if !ok || back != OutcomeCode(c) || seen[name] || name == "" {
			t.Errorf("code %d: got name %q, back %d", c, name, back)
		}
		seen[name] = true
	}
	if got := OutcomeCode(200).String(); got != "outcome-200" {
		t.Errorf("got %q", got)
	}
	if OutcomeVoided.String() != "voided" || OutcomeBadSignature.String() != "bad_signature" {
		t.Error("the table of names has shifted against the constants")
	}
}

func TestHeadsAndReceiptsAreCanonical(t *testing.T) {
	head := &HeadLeaf{V: 1, Cell: 2, Slot: 3, Origin: "c/t/x", Size: 1000, Root: nhi.Digest{4}}
	spine := &SpineLeaf{V: 1, Cell: 2, Epoch: 3, Time: 4e18, HeadsSize: 5, HeadsRoot: nhi.Digest{6}, StateHash: nhi.Digest{7}, ActiveVersion: 8}
	test := *spine
	test.Flags = FlagTest
	receipt := &Receipt{V: 1, LedgerID: nhi.Digest{1}, Tenant: nhi.ID{2}, Slot: 3, Index: 4, LeafHash: nhi.Digest{5}, Time: 6, Outcome: 7}
	root := &receiptRoot{V: 1, LedgerID: nhi.Digest{1}, Node: nhi.ID{2}, N: 3, Root: nhi.Digest{4}}
	for _, c := range []struct {
		value  any
		encode func() ([]byte, error)
		decode func([]byte) (any, error)
	}{
		{head, head.Encode, func(b []byte) (any, error) { return DecodeHeadLeaf(b) }},
		{spine, spine.Encode, func(b []byte) (any, error) { return DecodeSpineLeaf(b) }},
		{&test, test.Encode, func(b []byte) (any, error) { return DecodeSpineLeaf(b) }},
		{receipt, receipt.Encode, func(b []byte) (any, error) { return DecodeReceipt(b) }},
		{root, func() ([]byte, error) { return root.encode(), nil }, nil},
	} {
		got, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		if want := canon.MustMarshal(c.value); !bytes.Equal(got, want) {
			t.Errorf("%T: got %x, want %x", c.value, got, want)
		}
		if c.decode == nil {
			continue
		}
		back, err := c.decode(got)
		if d := cmp.Diff(c.value, back); err != nil || d != "" {
			t.Errorf("%T: %v (-want +got):\n%s", c.value, err, d)
		}
		for i := range got {
			if _, err := c.decode(got[:i]); err == nil {
				t.Errorf("%T: decoded the first %d bytes", c.value, i)
			}
		}
		if _, err := c.decode(append(bytes.Clone(got), 0)); err == nil {
			t.Errorf("%T: decoded with a trailing byte", c.value)
		}
	}
	for name, h := range map[string]HeadLeaf{
		"version": {V: 2, Origin: "x", Root: EmptyRoot()}, "origin": {V: 1, Root: EmptyRoot()}, "empty root": {V: 1, Origin: "x"},
		"size": {V: 1, Origin: "x", Size: MaxTreeSize + 1}, "space": {V: 1, Origin: "a b", Root: EmptyRoot()},
	} {
		if _, err := h.Encode(); err == nil {
			t.Errorf("head with bad %s: encoded", name)
		}
	}
}

func TestOrigins(t *testing.T) {
	id := nhi.ID{1, 2, 3}
	if c, ok := ClusterOf(SpineOrigin("eu/one")); !ok || c != "eu/one" {
		t.Errorf("got %q, %t", c, ok)
	}
	if _, ok := ClusterOf("/spine"); ok {
		t.Error("a cluster without a name")
	}
	for origin, want := range map[string]nhi.ID{TenantOrigin("c", id): id, SystemOrigin("c"): {}, TenantOrigin("c", nhi.ID{}): {}} {
		if got, ok := TenantOf("c", origin); !ok || got != want {
			t.Errorf("%q: got %s, %t", origin, got, ok)
		}
	}
	for _, origin := range []string{"c/t/", "d/t/" + id.String(), "c/t/" + strings.ToUpper(id.String()), "c/t/" + nhi.ID{}.String(), "c/spine"} {
		if _, ok := TenantOf("c", origin); ok {
			t.Errorf("%q: got a tenant", origin)
		}
	}
}

func BenchmarkLeafAppend(b *testing.B) {
	l := fullLeaf()
	l.Cause, l.Reverses, l.Addenda = nil, nil, nil
	buf := make([]byte, 0, MaxLeafSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.AppendTo(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafDecode(b *testing.B) {
	l := fullLeaf()
	l.Cause, l.Reverses, l.Addenda = nil, nil, nil
	raw, err := l.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	var into Leaf
	for b.Loop() {
		if err := into.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafHash(b *testing.B) {
	raw := make([]byte, 400)
	for b.Loop() {
		LeafHash(raw)
	}
}
