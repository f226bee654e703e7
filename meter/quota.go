package meter

import (
	"encoding/binary"
	"errors"
	"sort"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Quota is a limit in force: on one meter, at one account, for one period.
type Quota struct {
	Period     kind.Period
	Mode       kind.Mode
	Anchor     int
	Limit      uint64
	Until      int64 // of Observe
	Thresholds []uint16
	SetBy      nhi.ID // who signed it
	Set        uint64 // index of its leaf
}

// modeAt is the mode in force: Observe ends at its date.
func (q *Quota) modeAt(at int64) kind.Mode {
	if q.Mode == kind.Observe && q.Until != 0 && at >= q.Until {
		return kind.Block
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
		q := Quota{Period: kind.Period(r.byte()), Mode: kind.Mode(r.byte()), Anchor: int(r.byte()), Limit: r.uint(), Until: r.int(), SetBy: r.id(), Set: r.uint()}
		if n := int(r.byte()); n > 0 && n <= kind.MaxThresholds {
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
	b, err := kind.DecodeQuotaBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	if !mayAdminister(v, ev, kind.Set, b.Account) {
		return refuse(verify.OutcomeUnauthorized, "only the authority, or a link that names quota.set on the account, sets quotas")
	}
	if _, ok := LookupAccount(v, b.Account); !ok {
		return refuse(verify.OutcomeNotFound, "the account does not exist")
	}
	if b.Period != kind.Total {
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

// Refusal is a decision that refuses, with its detail.
type Refusal struct {
	kind.Refusal
	Outcome verify.OutcomeCode
}

// Decision returns the refusal as a decision.
func (r *Refusal) Decision() ledger.Decision {
	return ledger.Decision{Outcome: r.Outcome, Detail: r.Encode()}
}

func refusal(code verify.OutcomeCode, hint string) *Refusal {
	return &Refusal{Outcome: code, Refusal: kind.Refusal{Hint: hint}}
}

func refuse(code verify.OutcomeCode, hint string) ledger.Decision {
	return refusal(code, hint).Decision()
}

func refuseBody(err error) ledger.Decision { return badBody(err).Decision() }

// badBody refuses a body. The detail enters the leaf, so it is made of words of this project only: the text of a library's
// error may be another one in its next version.
func badBody(err error) *Refusal {
	hint := "the body is not what its kind requires"
	if bad, ok := errors.AsType[*kind.InvalidError](err); ok {
		hint = bad.Error()
	} else if e, ok := errors.AsType[*canon.Error](err); ok {
		hint = "the body is not canonical: " + e.Code.String()
	}
	return refusal(verify.OutcomeInvalid, hint)
}
