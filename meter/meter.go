package meter

import (
	"encoding/binary"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
)

const (
	handlerName = "meter"
	timerLease  = handlerName + ".lease" // Ref = lease id, 8 bytes
)

// Meter decides the meter's events. It holds nothing but a bounded cache of time-zone rules, so every Meter decides alike.
// It is safe for concurrent use.
type Meter struct {
	zones zoneCache
}

var _ ledger.Handler = (*Meter)(nil)

// New returns a Meter.
func New() *Meter { return &Meter{} }

// Kinds returns the kinds the meter handles, for the ledger's table.
func (m *Meter) Kinds() []ledger.Kind {
	check := func(decode func([]byte) error) func(*nhi.Event) error {
		return func(ev *nhi.Event) error { return decode(ev.Body) }
	}
	return []ledger.Kind{
		{Name: kind.Usage, Class: ledger.Fact, Handler: m, Cedar: true, Cites: citesLease, Check: check(func(b []byte) error {
			_, err := kind.ReadUsageBody(b)
			return err
		})},
		{Name: kind.Reserve, Class: ledger.Ask, Handler: m, Cedar: true, Check: check(checkBody(kind.DecodeReserveBody))},
		{Name: kind.Settle, Class: ledger.Fact, Handler: m, Cites: citesLease, Check: check(checkBody(kind.DecodeSettleBody))},
		{Name: kind.Close, Class: ledger.Fact, Handler: m, InApply: true, Cites: citesLease, Check: check(checkBody(kind.DecodeCloseBody))},
		{Name: kind.WriteOff, Class: ledger.Ask, Handler: m, Cedar: true, InApply: true, Check: check(checkBody(kind.DecodeCloseBody))},
		{Name: kind.Correct, Class: ledger.Ask, Handler: m, Cedar: true, InApply: true, Check: check(checkBody(kind.DecodeCorrectBody))},
		{Name: kind.Account, Class: ledger.Ask, Handler: m, Cedar: true, InApply: true, Check: check(checkBody(kind.DecodeAccountBody))},
		{Name: kind.Set, Class: ledger.Ask, Handler: m, Cedar: true, InApply: true, Check: check(checkBody(kind.DecodeQuotaBody))},
		{Name: kind.Zone, Class: ledger.Ask, Handler: m, InApply: true, System: true, Check: check(checkBody(kind.DecodeZoneBody))},
	}
}

func checkBody[T any](decode func([]byte) (*T, error)) func([]byte) error {
	return func(b []byte) error {
		_, err := decode(b)
		return err
	}
}

// Name is the part of the meter's timer names before the dot.
func (m *Meter) Name() string { return handlerName }

// Tables are those the meter's decisions write.
func (m *Meter) Tables() []ledger.Table { return Tables() }

// Decide decides about an event of one of the meter's kinds.
func (m *Meter) Decide(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	switch ev.Kind {
	case kind.Usage:
		return m.decideUsage(v, ev, at)
	case kind.Reserve:
		return m.decideReserve(v, ev, at)
	case kind.Settle:
		return m.decideSettle(v, ev, at)
	case kind.Close, kind.WriteOff:
		return m.decideClose(v, ev, at)
	case kind.Correct:
		return m.decideCorrect(v, ev, at)
	case kind.Account:
		return m.decideAccount(v, ev)
	case kind.Set:
		return m.decideQuota(v, ev)
	case kind.Zone:
		return m.decideZone(v, ev)
	}
	return refuse(verify.OutcomeUnsupported, "the meter does not know this kind")
}

// Expire marks a lease whose time is over. Nothing returns to a counter: what the holder spent is not known yet, and only a
// signed statement says it.
func (m *Meter) Expire(v ledger.View, t ledger.Timer, _ ledger.Stamp) ledger.Decision {
	if t.Name != timerLease || len(t.Ref) != 8 {
		return ledger.Decision{}
	}
	return expireLease(v, binary.BigEndian.Uint64(t.Ref))
}

// refuseAtQuality holds an ask that will be billed against the quality of its stamp: a strict tenant has it refused while
// consensus time is carried over from an earlier term or stale.
func refuseAtQuality(v ledger.View, at ledger.Stamp) *Refusal {
	q := at.Quality.Code
	if (q == verify.QualityCarried || q == verify.QualityStale) && v.Tenant().Strict {
		return refusal(verify.OutcomeTimeQuality, "consensus time is not certified at the moment: try again with a new id")
	}
	return nil
}
