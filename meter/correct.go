package meter

import (
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// decideCorrect takes excess back that should not stand: somebody claimed what nobody believes, or it is forgiven. Counters
// of any instance can be corrected, those of past periods too, since invoices are made of them. Usage is left as it is: its
// sums are those of the leaves.
func (m *Meter) decideCorrect(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodeCorrectBody(ev.Body)
	if err != nil {
		return refuseBody(err)
	}
	if !mayCorrect(v, ev, b) {
		return refuse(verify.OutcomeUnauthorized, "only the authority, or who set the quota, corrects its counters")
	}
	ref := counterRef{id: b.Account, inst: Instance{Period: b.Period, Start: b.Start}}
	if !b.Link.IsZero() {
		ref.link, ref.id = true, registry.BudgetCounter(b.Link)
	}
	c := m.charges(v, at)
	k := &c.counters[c.load(counter{counterRef: ref, meter: b.Meter})]
	if k.excess < b.Excess || k.over < b.Over {
		return refuse(verify.OutcomeConflict, "the counter of this instance has less excess than that")
	}
	k.excess -= b.Excess
	k.over -= b.Over
	k.dirty = true
	return ledger.Decision{
		Detail: canon.MustMarshal(kind.Corrected{Charged: k.charged, Open: k.open, Excess: k.excess, Over: k.over}),
		Writes: c.writes(nil),
	}
}

func mayCorrect(v ledger.View, ev *ledger.Event, b *kind.CorrectBody) bool {
	if ev.Signer == nil || ev.SignerSystem {
		return false
	}
	if ev.Signer.Type == registry.Authority {
		return true
	}
	return b.Link.IsZero() && setQuota(v, ev.Agent, b.Account, b.Meter, b.Period)
}

// setQuota says whether somebody signed the quota in force.
func setQuota(v ledger.View, who, account nhi.ID, meter string, p kind.Period) bool {
	key := quotaKey(account, meter)
	value, ok := v.Get(TableQuota, key)
	if !ok {
		return false
	}
	for _, q := range readQuotas(nil, key, value) {
		if q.Period == p && q.SetBy == who {
			return true
		}
	}
	return false
}
