package meter

import (
	"encoding/binary"
	"sort"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

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
func (b QuotaBody) Encode() ([]byte, error) { return encode(b, b.check) }

// DecodeQuotaBody parses and checks the body of `quota.set`.
func DecodeQuotaBody(body []byte) (*QuotaBody, error) {
	var b QuotaBody
	return &b, decode(body, &b, b.check, "quota")
}

func (b *QuotaBody) check() error {
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

// Quota is a limit in force: on one meter, at one account, for one period.
type Quota struct {
	Period     Period
	Mode       Mode
	Anchor     int
	Limit      uint64
	Until      int64 // of Observe
	Thresholds []uint16
	SetBy      nhi.ID // who signed it
	Set        uint64 // index of its leaf
}

// modeAt is the mode in force: Observe ends at its date.
func (q *Quota) modeAt(at int64) Mode {
	if q.Mode == Observe && q.Until != 0 && at >= q.Until {
		return Block
	}
	return q.Mode
}

func quotaKey(account nhi.ID, meter string) []byte {
	k := make([]byte, 0, len(account)+len(meter))
	return append(append(k, account[:]...), meter...)
}

// All periods of one meter at one account share a row, since every spend looks at all of them.
func quotaRow(qs []Quota) []byte {
	b := append(make([]byte, 0, 64), rowVersion, byte(len(qs)))
	for i := range qs {
		q := &qs[i]
		b = append(b, byte(q.Period), byte(q.Mode), byte(q.Anchor))
		b = binary.AppendUvarint(b, q.Limit)
		b = binary.AppendVarint(b, q.Until)
		b = append(b, q.SetBy[:]...)
		b = binary.AppendUvarint(b, q.Set)
		b = append(b, byte(len(q.Thresholds)))
		for _, t := range q.Thresholds {
			b = binary.AppendUvarint(b, uint64(t))
		}
	}
	return b
}

// readQuotas appends the quotas of a row to dst.
func readQuotas(dst []Quota, key, value []byte) []Quota {
	r := readRow(value)
	for range r.byte() {
		q := Quota{Period: Period(r.byte()), Mode: Mode(r.byte()), Anchor: int(r.byte()), Limit: r.uint(), Until: r.int(), SetBy: r.id(), Set: r.uint()}
		if n := int(r.byte()); n > 0 && n <= MaxThresholds {
			q.Thresholds = make([]uint16, n)
			for i := range q.Thresholds {
				q.Thresholds[i] = uint16(r.uint())
			}
		}
		dst = append(dst, q)
	}
	r.end(TableQuota, key)
	return dst
}

func (m *Meter) decideQuota(v ledger.View, ev *ledger.Event) ledger.Decision {
	b, err := DecodeQuotaBody(ev.Body)
	if err != nil {
		return refuse(verify.OutcomeInvalid, err.Error())
	}
	if !mayAdminister(v, ev, KindSet, b.Account) {
		return refuse(verify.OutcomeUnauthorized, "only the authority, or a link that names quota.set on the account, sets quotas")
	}
	if _, ok := LookupAccount(v, b.Account); !ok {
		return refuse(verify.OutcomeNotFound, "the account does not exist")
	}
	if b.Period != Total {
		if _, ok := m.location(v); !ok {
			return refuse(verify.OutcomeNotFound, "the system log has no rules for the tenant's time zone: an admin sets them with admin.tz")
		}
	}
	key := quotaKey(b.Account, b.Meter)
	var qs []Quota
	if value, ok := v.Get(TableQuota, key); ok {
		qs = readQuotas(qs, key, value)
	}
	q := Quota{
		Period: b.Period, Mode: b.Mode, Anchor: int(b.Anchor), Limit: b.Limit, Until: b.Until,
		Thresholds: b.Thresholds, SetBy: ev.Agent, Set: v.NextIndex(),
	}
	i := sort.Search(len(qs), func(i int) bool { return qs[i].Period >= b.Period })
	if i < len(qs) && qs[i].Period == b.Period {
		if max(qs[i].Anchor, 1) != max(q.Anchor, 1) {
			return refuse(verify.OutcomeConflict, "the anchor day of an existing quota cannot change")
		}
		qs[i] = q
	} else {
		qs = append(qs, Quota{})
		copy(qs[i+1:], qs[i:])
		qs[i] = q
	}
	return ledger.Decision{Writes: []ledger.Write{{Table: TableQuota, Key: key, Value: quotaRow(qs)}}}
}

const maxDetail = 2 << 10 // bytes, as the ledger has it

// Refusal is the detail of a refused event of the meter: canonical CBOR. For outcome quota_exhausted it names the counter
// that had the least room; for any other outcome only Hint is there.
type Refusal struct {
	Account   nhi.ID     `cbor:"1,keyasint,omitzero"` // the level that refused: this account, or
	Meter     string     `cbor:"2,keyasint,omitempty"`
	Limit     uint64     `cbor:"3,keyasint,omitempty"`
	Charged   uint64     `cbor:"4,keyasint,omitempty"`
	Open      uint64     `cbor:"5,keyasint,omitempty"`
	Remaining uint64     `cbor:"6,keyasint,omitempty"`
	ResetsAt  int64      `cbor:"7,keyasint,omitempty"` // ns of consensus time; 0 = never
	Hint      string     `cbor:"8,keyasint"`           // how to get further
	Excess    uint64     `cbor:"9,keyasint,omitempty"`
	Period    Period     `cbor:"10,keyasint,omitempty"`
	Link      nhi.LinkID `cbor:"11,keyasint,omitzero"` // the budget of this link
	Want      uint64     `cbor:"12,keyasint,omitempty"`

	Outcome verify.OutcomeCode `cbor:"-"`
}

// Encode returns the detail.
func (r *Refusal) Encode() []byte { return canon.MustMarshal(r) }

// DecodeRefusal parses the detail of a refused event of the meter.
func DecodeRefusal(detail []byte) (*Refusal, error) {
	var r Refusal
	if err := canon.UnmarshalMax(detail, &r, maxDetail); err != nil {
		return nil, err
	}
	return &r, nil
}

// Decision returns the refusal as a decision.
func (r *Refusal) Decision() ledger.Decision {
	return ledger.Decision{Outcome: r.Outcome, Detail: r.Encode()}
}

func refusal(code verify.OutcomeCode, hint string) *Refusal {
	const maxHint = 512
	return &Refusal{Outcome: code, Hint: toASCII(hint, maxHint)}
}

func refuse(code verify.OutcomeCode, hint string) ledger.Decision {
	return refusal(code, hint).Decision()
}

// toASCII keeps a text that may quote input short and printable.
func toASCII(s string, most int) string {
	b := []byte(s[:min(len(s), most)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
