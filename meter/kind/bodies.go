package kind

import (
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi/canon"
)

// Bounds of what a body says.
const (
	MaxMeterSize  = verify.MaxMeterSize
	MaxQuantities = verify.MaxQuantities // meters of one usage event
	MaxDims       = 16                   // dimensions of one usage event
	MaxDimSize    = 128                  // bytes of the name or the value of a dimension
	MaxAmount     = math.MaxInt64        // of any one quantity or limit

	DefaultLeaseTTL = 15 * time.Second
	MaxLeaseTTL     = 24 * time.Hour
)

// InvalidError says which field of a body breaks its rules.
type InvalidError struct {
	Field  string
	Reason string
}

// Error names the field.
func (e *InvalidError) Error() string { return e.Field + " " + e.Reason }

func invalid(field, reason string) error { return &InvalidError{Field: field, Reason: reason} }

// CheckMeter refuses what is not the name of a meter: [a-z][a-z0-9_.-]{0,63}.
func CheckMeter(name string) error {
	if !validMeter(name) {
		return invalid("meter", "is not a name of the form [a-z][a-z0-9_.-]{0,63}")
	}
	return nil
}

func validMeter[S string | []byte](s S) bool {
	if len(s) == 0 || len(s) > MaxMeterSize || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// UsageBody is the body of `usage`: what was used, charged to the event's account. With a lease it is a fact that settles
// the lease's sequence numbers [From, To), by one meter only, the lease's; without one it is an ask, charged directly.
type UsageBody struct {
	Quantities []verify.Quantity // each meter once; Encode sorts
	Lease      uint64            // id of the lease that pays, 0 = none
	From, To   uint64            // sequence numbers of the lease's spends; To is one past the last
	Dims       []Dim             // provider, model, …: recorded, not interpreted; Encode sorts
}

// Dim is one dimension of a usage event.
type Dim struct{ Name, Value string }

// Encode returns the canonical body {1 quantities {meter: n}, 2? lease, 3? from, 4? to, 5? dims {name: value}}.
func (b UsageBody) Encode() ([]byte, error) {
	pairs := 1
	if b.Lease != 0 {
		pairs += 3
	}
	if len(b.Dims) > 0 {
		pairs++
	}
	qs := append([]verify.Quantity(nil), b.Quantities...)
	sort.Slice(qs, func(i, j int) bool { return canonLess(qs[i].Meter, qs[j].Meter) })
	out := canon.AppendMap(make([]byte, 0, 64+24*len(qs)), pairs)
	out = canon.AppendUint(out, 1)
	out = canon.AppendMap(out, len(qs))
	for _, q := range qs {
		out = canon.AppendUint(canon.AppendText(out, q.Meter), q.N)
	}
	if b.Lease != 0 {
		out = canon.AppendUint(canon.AppendUint(out, 2), b.Lease)
		out = canon.AppendUint(canon.AppendUint(out, 3), b.From)
		out = canon.AppendUint(canon.AppendUint(out, 4), b.To)
	}
	if len(b.Dims) > 0 {
		ds := append([]Dim(nil), b.Dims...)
		sort.Slice(ds, func(i, j int) bool { return canonLess(ds[i].Name, ds[j].Name) })
		out = canon.AppendMap(canon.AppendUint(out, 5), len(ds))
		for _, d := range ds {
			out = canon.AppendText(canon.AppendText(out, d.Name), d.Value)
		}
	}
	if _, err := DecodeUsageBody(out); err != nil {
		return nil, fmt.Errorf("encode usage: %w", err)
	}
	return out, nil
}

// canonLess is the order of text keys in canonical CBOR: by length, then bytewise (RFC 8949, 4.2.1).
func canonLess(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

// DecodeUsageBody parses and checks the body of `usage`.
func DecodeUsageBody(body []byte) (*UsageBody, error) {
	if err := canon.Check(body); err != nil {
		return nil, fmt.Errorf("decode usage: %w", err)
	}
	var b UsageBody
	if err := b.read(body, true); err != nil {
		return nil, fmt.Errorf("decode usage: %w", err)
	}
	return &b, nil
}

// ReadUsageBody reads a body that is known to be canonical CBOR, as that of every decoded event is: keys ascend and none
// comes twice. It is the hot path of the meter. Quantities come out ascending by meter; dimensions are checked and not
// kept.
func ReadUsageBody(body []byte) (UsageBody, error) {
	var b UsageBody
	err := b.read(body, false)
	return b, err
}

func (b *UsageBody) read(body []byte, keepDims bool) error {
	r := canon.NewReader(body)
	left, err := r.Map()
	if err != nil {
		return err
	}
	if !r.Peek(1) {
		return invalid("quantities", "are missing")
	}
	left--
	n, err := r.Map()
	if err != nil {
		return err
	}
	if n == 0 || n > MaxQuantities {
		return invalid("quantities", "are none or too many")
	}
	b.Quantities = make([]verify.Quantity, n)
	for i := range b.Quantities {
		name, err := r.Text()
		if err != nil {
			return err
		}
		if !validMeter(name) {
			return invalid("quantities", "name something that is not a meter")
		}
		amount, err := r.Uint()
		if err != nil {
			return err
		}
		if amount > MaxAmount {
			return invalid("quantities", "are out of range")
		}
		// Canonical order puts short names first; a leaf wants plain order.
		at := i
		for ; at > 0 && b.Quantities[at-1].Meter > string(name); at-- {
			b.Quantities[at] = b.Quantities[at-1]
		}
		b.Quantities[at] = verify.Quantity{Meter: string(name), N: amount}
	}
	for _, f := range []struct {
		key byte
		to  *uint64
	}{{2, &b.Lease}, {3, &b.From}, {4, &b.To}} {
		if !r.Peek(f.key) {
			continue
		}
		left--
		if *f.to, err = r.Uint(); err != nil {
			return err
		}
		if f.key == 2 && b.Lease == 0 {
			return invalid("lease", "is zero")
		}
		if f.key != 2 && b.Lease == 0 {
			return invalid("lease", "is missing beside a sequence range")
		}
	}
	if b.Lease != 0 {
		if b.From >= b.To || b.To > MaxAmount {
			return invalid("to", "is not beyond from")
		}
		if len(b.Quantities) != 1 {
			return invalid("quantities", "beside a lease must be of its one meter")
		}
	}
	if r.Peek(5) {
		left--
		if err := b.parseDims(&r, keepDims); err != nil {
			return err
		}
	}
	if left != 0 {
		return invalid("body", "has an unknown or misplaced field")
	}
	return r.End()
}

func (b *UsageBody) parseDims(r *canon.Reader, keep bool) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	if n == 0 || n > MaxDims {
		return invalid("dims", "are none or too many")
	}
	for range n {
		name, err := r.Text()
		if err != nil {
			return err
		}
		value, err := r.Text()
		if err != nil {
			return err
		}
		if len(name) == 0 || len(name) > MaxDimSize || len(value) > MaxDimSize {
			return invalid("dims", "are empty or too long")
		}
		if keep {
			b.Dims = append(b.Dims, Dim{Name: string(name), Value: string(value)})
		}
	}
	return nil
}

// ReserveBody is the body of `quota.reserve`: it asks for a lease on a meter at the event's account.
type ReserveBody struct {
	Meter string `cbor:"1,keyasint"`
	Want  uint64 `cbor:"2,keyasint"`           // at most this much
	Min   uint64 `cbor:"3,keyasint,omitempty"` // and no less than this; 0 = 1
	TTL   int64  `cbor:"4,keyasint,omitempty"` // ns; 0 = DefaultLeaseTTL
}

// Encode returns the canonical body.
func (b ReserveBody) Encode() ([]byte, error) { return encode(b, b.Check) }

// DecodeReserveBody parses and checks the body of `quota.reserve`.
func DecodeReserveBody(body []byte) (*ReserveBody, error) {
	var b ReserveBody
	return &b, decode(body, &b, b.Check, "reserve")
}

// Check refuses what is out of bounds.
func (b *ReserveBody) Check() error {
	if err := CheckMeter(b.Meter); err != nil {
		return err
	}
	switch {
	case b.Want == 0 || b.Want > MaxAmount:
		return invalid("want", "is zero or out of range")
	case b.Min > b.Want:
		return invalid("min", "is more than want")
	case b.TTL < 0 || b.TTL > int64(MaxLeaseTTL):
		return invalid("ttl", "is negative or longer than a day")
	}
	return nil
}

// SettleBody is the body of `quota.settle`: what the spends [From, To) of a lease came to, together. `usage` with a lease
// says the same and more; a holder uses one of them for each range.
type SettleBody struct {
	Lease  uint64 `cbor:"1,keyasint"`
	Amount uint64 `cbor:"2,keyasint"`
	From   uint64 `cbor:"3,keyasint"`
	To     uint64 `cbor:"4,keyasint"` // one past the last
}

// Encode returns the canonical body.
func (b SettleBody) Encode() ([]byte, error) { return encode(b, b.Check) }

// DecodeSettleBody parses and checks the body of `quota.settle`.
func DecodeSettleBody(body []byte) (*SettleBody, error) {
	var b SettleBody
	return &b, decode(body, &b, b.Check, "settle")
}

// Check refuses what is out of bounds.
func (b *SettleBody) Check() error {
	switch {
	case b.Lease == 0:
		return invalid("lease", "is zero")
	case b.Amount > MaxAmount:
		return invalid("amount", "is out of range")
	case b.From >= b.To || b.To > MaxAmount:
		return invalid("to", "is not beyond from")
	}
	return nil
}

// CloseBody is the body of `quota.close`, by the lease's holder, and of `quota.writeoff`, by the tenant's authority or who
// set the quotas it was granted under: all that was spent under the lease, what was settled included. The rest returns.
type CloseBody struct {
	Lease uint64 `cbor:"1,keyasint"`
	Spent uint64 `cbor:"2,keyasint"`
}

// Encode returns the canonical body.
func (b CloseBody) Encode() ([]byte, error) { return encode(b, b.Check) }

// DecodeCloseBody parses and checks the body of `quota.close` and `quota.writeoff`.
func DecodeCloseBody(body []byte) (*CloseBody, error) {
	var b CloseBody
	return &b, decode(body, &b, b.Check, "close")
}

// Check refuses what is out of bounds.
func (b *CloseBody) Check() error {
	switch {
	case b.Lease == 0:
		return invalid("lease", "is zero")
	case b.Spent > MaxAmount:
		return invalid("spent", "is out of range")
	}
	return nil
}

func encode(b any, check func() error) ([]byte, error) {
	if err := check(); err != nil {
		return nil, err
	}
	return canon.Marshal(b)
}

func decode(body []byte, b any, check func() error, what string) error {
	if err := canon.Unmarshal(body, b); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	if err := check(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}
