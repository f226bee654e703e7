package kind

import (
	"unicode/utf8"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Period is the length of time a quota's limit holds for. The numbers stand in signed bodies and in rows.
type Period uint8

// The periods. All but Total follow the tenant's time zone.
const (
	Hour  Period = 1
	Day   Period = 2
	Week  Period = 3 // Monday to Monday
	Month Period = 4 // from the anchor day to the next month's; a day the month lacks is its last one
	Total Period = 5 // for ever
)

var periodNames = [...]string{Hour: "hour", Day: "day", Week: "week", Month: "month", Total: "total"}

// String returns the name used in APIs.
func (p Period) String() string {
	if p.valid() {
		return periodNames[p]
	}
	return "unknown"
}

// ParsePeriod is the inverse of String.
func ParsePeriod(s string) (Period, bool) {
	for p := Hour; p <= Total; p++ {
		if periodNames[p] == s {
			return p, true
		}
	}
	return 0, false
}

func (p Period) valid() bool { return p >= Hour && p <= Total }

// Mode is what happens to a spend that a quota has no room for. The numbers stand in signed bodies and in rows.
type Mode uint8

// The modes. Only Block refuses; under the others a spend is counted as excess, outside invariant Q1.
const (
	Block   Mode = 1
	Overage Mode = 2
	Notify  Mode = 3
	Observe Mode = 4 // would_deny is recorded in the event's detail; after its end date the mode is Block
)

var modeNames = [...]string{Block: "block", Overage: "overage", Notify: "notify", Observe: "observe"}

// String returns the name used in APIs.
func (m Mode) String() string {
	if m.valid() {
		return modeNames[m]
	}
	return "unknown"
}

// ParseMode is the inverse of String.
func ParseMode(s string) (Mode, bool) {
	for m := Block; m <= Observe; m++ {
		if modeNames[m] == s {
			return m, true
		}
	}
	return 0, false
}

func (m Mode) valid() bool { return m >= Block && m <= Observe }

// Bounds of a quota.
const (
	MaxThresholds = 8
	MaxThreshold  = 1000 // percent
	MaxAnchor     = 31   // a month without this day is cut at its last one
)

// QuotaBody is the body of `quota.set`: it sets, or sets anew, the quota of one meter at one account for one period.
// Signed by the tenant's authority or under a link that names the action `quota.set` on the account. It counts what is
// charged from its own leaf on; set anew, its counters go on. The anchor of an existing quota cannot change, since that
// would cut its current period off.
type QuotaBody struct {
	Account    nhi.ID   `cbor:"1,keyasint"` // the tenant's id = its root account
	Meter      string   `cbor:"2,keyasint"`
	Period     Period   `cbor:"3,keyasint"`
	Limit      uint64   `cbor:"4,keyasint"`
	Mode       Mode     `cbor:"5,keyasint"`
	Anchor     uint8    `cbor:"6,keyasint,omitempty"` // first day of a Month, 1 to 31; 0 = 1, and for every other period
	Thresholds []uint16 `cbor:"7,keyasint,omitempty"` // percent of the limit, ascending: each makes one notice per period
	Until      int64    `cbor:"8,keyasint,omitempty"` // ns, Observe only: from then on the mode is Block; 0 = no end
}

// Encode returns the canonical body.
func (b QuotaBody) Encode() ([]byte, error) { return encode(b, b.Check) }

// DecodeQuotaBody parses and checks the body of `quota.set`.
func DecodeQuotaBody(body []byte) (*QuotaBody, error) {
	var b QuotaBody
	return &b, decode(body, &b, b.Check, "quota")
}

// Check refuses what is out of bounds.
func (b *QuotaBody) Check() error {
	if b.Account.IsZero() {
		return invalid("account", "is zero")
	}
	if err := CheckMeter(b.Meter); err != nil {
		return err
	}
	switch {
	case !b.Period.valid():
		return invalid("period", "is unknown")
	case b.Limit > MaxAmount:
		return invalid("limit", "is out of range")
	case !b.Mode.valid():
		return invalid("mode", "is unknown")
	case b.Anchor > MaxAnchor || b.Anchor != 0 && b.Period != Month:
		return invalid("anchor", "is not a day of a monthly period")
	case len(b.Thresholds) > MaxThresholds:
		return invalid("thresholds", "are too many")
	case b.Until < 0 || b.Until != 0 && b.Mode != Observe:
		return invalid("until", "is not the end of an observe quota")
	}
	last := uint16(0)
	for _, t := range b.Thresholds {
		if t <= last || t > MaxThreshold {
			return invalid("thresholds", "are not ascending percentages of 1 to 1000")
		}
		last = t
	}
	return nil
}

// MaxReasonSize is the most bytes of the reason of a correction.
const MaxReasonSize = 256

// CorrectBody is the body of `quota.correct`: it takes back what one counter has beyond its limit and grants. Excess makes
// room again; over comes off the invoice only. Signed by the tenant's authority or by who set the quota. What was charged
// within a grant cannot be taken back, nor what is open: see `quota.writeoff`.
type CorrectBody struct {
	Account nhi.ID     `cbor:"1,keyasint,omitzero"` // whose quota's counter it is, or
	Meter   string     `cbor:"2,keyasint"`
	Period  Period     `cbor:"3,keyasint"`
	Start   int64      `cbor:"4,keyasint"` // ns: of the period's instance, as queries have it
	Excess  uint64     `cbor:"5,keyasint,omitempty"`
	Over    uint64     `cbor:"6,keyasint,omitempty"`
	Reason  string     `cbor:"7,keyasint"`
	Link    nhi.LinkID `cbor:"8,keyasint,omitzero"` // whose budget's; the authority only
}

// Encode returns the canonical body.
func (b CorrectBody) Encode() ([]byte, error) { return encode(b, b.Check) }

// DecodeCorrectBody parses and checks the body of `quota.correct`.
func DecodeCorrectBody(body []byte) (*CorrectBody, error) {
	var b CorrectBody
	return &b, decode(body, &b, b.Check, "correct")
}

// Check refuses what is out of bounds.
func (b *CorrectBody) Check() error {
	if err := CheckMeter(b.Meter); err != nil {
		return err
	}
	switch {
	case b.Account.IsZero() == b.Link.IsZero():
		return invalid("account", "and link are both there or both missing")
	case !b.Period.valid():
		return invalid("period", "is unknown")
	case b.Excess == 0 && b.Over == 0:
		return invalid("excess", "and over are both zero")
	case b.Reason == "" || len(b.Reason) > MaxReasonSize || !utf8.ValidString(b.Reason):
		return invalid("reason", "is missing, too long or not UTF-8")
	}
	for _, r := range b.Reason {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return invalid("reason", "has a control character")
		}
	}
	return nil
}

// Corrected is the detail of an accepted `quota.correct`: what the counter has left, canonical CBOR.
type Corrected struct {
	Charged uint64 `cbor:"1,keyasint"`
	Open    uint64 `cbor:"2,keyasint"`
	Excess  uint64 `cbor:"3,keyasint"`
	Over    uint64 `cbor:"4,keyasint"`
}

// DecodeCorrected parses the detail of an accepted `quota.correct`.
func DecodeCorrected(detail []byte) (*Corrected, error) {
	var c Corrected
	if err := canon.UnmarshalMax(detail, &c, maxDetail); err != nil {
		return nil, err
	}
	return &c, nil
}
