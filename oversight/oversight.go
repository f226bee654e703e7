package oversight

import (
	"encoding/binary"
	"errors"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

const (
	handlerName = "oversight"
	timerStep   = handlerName + ".step"   // Ref = request ‖ chain, 1 byte: the deadline of a chain's step
	timerEnd    = handlerName + ".end"    // Ref = request: the end of a request that nobody claimed
	timerReport = handlerName + ".report" // Ref = request: the time by which a claim must be reported
)

// Reservation is what a claim reserves, whole or not at all.
type Reservation struct {
	Account nhi.ID
	Meter   string
	Amount  uint64
	TTL     int64 // ns
}

// QuotaRefusal says why nothing could be reserved, in the words of whoever counts.
type QuotaRefusal struct {
	Outcome verify.OutcomeCode
	Detail  []byte // canonical CBOR; names the level that refused
}

// Reserver counts what claims reserve. ReserveAll is a pure function of its arguments: it grants holder all reservations,
// one lease each in the same order, or none and says why. The claim's decision carries the writes and timers.
type Reserver interface {
	// Tables are those that the writes of ReserveAll go to.
	Tables() []ledger.Table
	ReserveAll(v ledger.View, at ledger.Stamp, chain *registry.Chain, holder nhi.ID, want []Reservation) (leases []uint64, writes []ledger.Write, timers []ledger.Timer, refused *QuotaRefusal)
}

// Config is what oversight needs of other rooms.
type Config struct {
	// Reserver is optional: without it a claim that reserves anything is refused.
	Reserver Reserver
	// Tree gives the accounts of a tenant, for chains whose scopes name accounts. Optional: accounts have no descendants. It
	// must be a pure function of the view.
	Tree func(v ledger.View) registry.Tree
	// Ancestors returns the accounts above one, for policies that name them. Optional: none.
	Ancestors func(v ledger.View, account nhi.ID) []nhi.ID
}

// Oversight decides oversight's events. It holds no state, so every Oversight with the same Config decides alike. It is safe
// for concurrent use.
type Oversight struct {
	cfg    Config
	tables []ledger.Table
}

var _ ledger.Handler = (*Oversight)(nil)

// New returns an Oversight.
func New(cfg Config) *Oversight {
	o := &Oversight{cfg: cfg, tables: Tables()}
	if cfg.Reserver != nil {
		o.tables = append(o.tables, cfg.Reserver.Tables()...)
	}
	return o
}

// Kinds returns the kinds that oversight handles, for the ledger's table.
func (o *Oversight) Kinds() []ledger.Kind {
	return []ledger.Kind{
		{Name: kind.Publish, Class: ledger.Ask, Handler: o, Cedar: true, InApply: true, Object: registry.ClassPolicy, Check: checkPublish},
		{Name: kind.Request, Class: ledger.Ask, Handler: o, Cedar: true, Oversight: true, Check: checkRequest},
		{Name: kind.Vote, Class: ledger.Ask, Handler: o, InApply: true, Object: registry.ClassApproval, Check: checkBody(kind.DecodeVoteBody)},
		{Name: kind.Withdraw, Class: ledger.Ask, Handler: o, InApply: true, Check: checkBody(kind.DecodeRefBody)},
		{Name: kind.Claim, Class: ledger.Ask, Handler: o, Cedar: true, Check: checkBody(kind.DecodeClaimBody)},
		{Name: kind.Report, Class: ledger.Fact, Handler: o, Cites: citesClaim, Check: checkBody(kind.DecodeReportBody)},
		{Name: kind.Cancel, Class: ledger.Ask, Handler: o, Check: checkBody(kind.DecodeRefBody)},
	}
}

func checkBody[T any](decode func([]byte) (*T, error)) func(*nhi.Event) error {
	return func(ev *nhi.Event) error {
		_, err := decode(ev.Body)
		return err
	}
}

// Name is the part of oversight's timer names before the dot.
func (o *Oversight) Name() string { return handlerName }

// Tables are those that oversight's decisions write: its own, and the Reserver's through claims.
func (o *Oversight) Tables() []ledger.Table { return o.tables }

// Decide decides about an event of one of oversight's kinds.
func (o *Oversight) Decide(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	if badTime(ev.Kind, at.Quality.Code, v.Tenant().Strict) {
		return refuse(verify.OutcomeTimeQuality, kind.Refusal{
			Reason: kind.ReasonTimeQuality, Hint: "consensus time is not certified at the moment: try again with a new id",
		})
	}
	switch ev.Kind {
	case kind.Publish:
		return decidePublish(v, ev, at)
	case kind.Request:
		return o.decideRequest(v, ev, at)
	case kind.Vote:
		return decideVote(v, ev, at)
	case kind.Withdraw:
		return decideWithdraw(v, ev, at)
	case kind.Claim:
		return o.decideClaim(v, ev, at)
	case kind.Report:
		return decideReport(v, ev, at)
	case kind.Cancel:
		return decideCancel(v, ev, at)
	}
	return refuse(verify.OutcomeUnsupported, kind.Refusal{Reason: kind.ReasonInvalid, Hint: "oversight has no such kind"})
}

// badTime reports whether the commit time of an event is not good enough for what it asks. At the ceiling of the last
// certificate nobody votes or claims, because whether a deadline has passed cannot be said; strict tenants ask for nothing then,
// and claim nothing, for which they may be billed, before the term has its certificate. Facts are always recorded.
func badTime(kindName string, q verify.QualityCode, strict bool) bool {
	switch q {
	case verify.QualityStale:
		return kindName == kind.Vote || kindName == kind.Claim || strict && kindName != kind.Report
	case verify.QualityCarried:
		return strict && kindName == kind.Claim
	}
	return false
}

// Expire applies the deadlines of a request that have passed. It does nothing that the next event about the request would
// not find out by itself; it only puts it on record in time.
func (o *Oversight) Expire(v ledger.View, t ledger.Timer, at ledger.Stamp) ledger.Decision {
	if len(t.Ref) < 8 {
		return ledger.Decision{}
	}
	r, ok := load(v, binary.BigEndian.Uint64(t.Ref))
	if !ok {
		return ledger.Decision{}
	}
	r.settle(v, at.Time)
	return r.decision(nil)
}

// refuse answers with a refusal. A hint is cut so that the detail stays within its bound.
func refuse(code verify.OutcomeCode, r kind.Refusal) ledger.Decision {
	const maxHint = 512
	if len(r.Hint) > maxHint {
		cut := maxHint
		for cut > 0 && r.Hint[cut]&0xc0 == 0x80 {
			cut--
		}
		r.Hint = r.Hint[:cut]
	}
	return ledger.Decision{Outcome: code, Detail: canon.MustMarshal(r)}
}

// refuseInvalid refuses a body. The hint enters the leaf, so it is made of this project's own words: the text of a library's error
// may be another one in its next version, and replicas would differ.
func refuseInvalid(err error) ledger.Decision {
	hint := "the body is not what its kind requires"
	if bad, ok := errors.AsType[*kind.InvalidError](err); ok {
		hint = bad.Error()
	} else if e, ok := errors.AsType[*canon.Error](err); ok {
		hint = "the body is not canonical: " + e.Code.String()
	}
	return refuse(verify.OutcomeInvalid, kind.Refusal{Reason: kind.ReasonInvalid, Hint: hint})
}
