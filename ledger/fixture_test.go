package ledger_test

import (
	"bytes"
	"encoding/binary"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// The table of the counters that these tests count in.
const tableCounter ledger.Table = 0x30

// countBody is the body of the test kind "usage".
type countBody struct {
	N     uint64 `cbor:"1,keyasint"`
	Lease uint64 `cbor:"2,keyasint,omitempty"` // the fact cites it
}

// counter counts usage per account: the smallest handler that reads and writes state. What else it does, a test sets.
type counter struct {
	decide func(v ledger.View, ev *ledger.Event, at ledger.Stamp) (ledger.Decision, bool)
	expire func(v ledger.View, t ledger.Timer, at ledger.Stamp) ledger.Decision
	tables []ledger.Table
}

func (c *counter) Name() string { return "counter" }

func (c *counter) Tables() []ledger.Table {
	if c.tables != nil {
		return c.tables
	}
	return []ledger.Table{tableCounter}
}

func (c *counter) Decide(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	if c.decide != nil {
		if d, ok := c.decide(v, ev, at); ok {
			return d
		}
	}
	var b countBody
	if err := canon.Unmarshal(ev.Body, &b); err != nil {
		return ledger.Decision{Outcome: verify.OutcomeInvalid}
	}
	n := uint64(0)
	if old, ok := v.Get(tableCounter, ev.Account[:]); ok {
		n = binary.BigEndian.Uint64(old)
	}
	return ledger.Decision{
		Writes:     []ledger.Write{{Table: tableCounter, Key: bytes.Clone(ev.Account[:]), Value: binary.BigEndian.AppendUint64(nil, n+b.N)}},
		Quantities: []verify.Quantity{{Meter: "tokens", N: b.N}},
	}
}

func (c *counter) Expire(v ledger.View, t ledger.Timer, at ledger.Stamp) ledger.Decision {
	if c.expire != nil {
		return c.expire(v, t, at)
	}
	return ledger.Decision{}
}

// usageKinds are an ask, "usage", and a fact that cites a lease if its body names one, "settle".
func usageKinds(c *counter) []ledger.Kind {
	return []ledger.Kind{
		{Name: "usage", Class: ledger.Ask, Handler: c, Cedar: true},
		{Name: "settle", Class: ledger.Fact, Handler: c, Cedar: true, Cites: func(_ ledger.View, ev *ledger.Event) bool {
			var b countBody
			return canon.Unmarshal(ev.Body, &b) == nil && b.Lease != 0
		}},
		{Name: "plain", Class: ledger.Ask, Handler: c},
	}
}

func counted(v ledger.View, account nhi.ID) uint64 {
	if b, ok := v.Get(tableCounter, account[:]); ok {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
