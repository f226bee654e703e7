package ledger

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// EventState says what became of one event of a command.
type EventState uint8

// The states. Only Sequenced makes a leaf; the first Conflict under an id makes one of the system.
const (
	Sequenced EventState = iota + 1
	Duplicate            // the same request again: the answer is that of the first time
	Conflict             // the same id with another intent
	Stale                // the verdict was made under other epochs: decide again and propose again
	Invalid              // malformed, unauthenticated or misdirected: no trace
)

var eventStateNames = [...]string{Sequenced: "sequenced", Duplicate: "duplicate", Conflict: "conflict", Stale: "stale", Invalid: "invalid"}

// String returns the state in words.
func (s EventState) String() string {
	if int(s) < len(eventStateNames) && s != 0 {
		return eventStateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// EventResult is what became of one event. Index to Detail are set for Sequenced and Duplicate, and for Conflict say what
// the first event under the id led to.
type EventResult struct {
	State    EventState
	Slot     uint32
	Kind     string
	Index    uint64
	LeafHash nhi.Digest
	Time     int64
	Quality  verify.Quality
	Outcome  verify.OutcomeCode
	Detail   []byte     // canonical CBOR, of the handler or of the refusal
	First    nhi.Digest // of a Conflict: payload digest of the first event
	Err      error      // of Invalid: why
}

// PolicyRefusal is the detail of a leaf that the tenant's policy refused: canonical CBOR.
type PolicyRefusal struct {
	Chains   []string `cbor:"1,keyasint,omitempty"` // approval chains to ask, if an approval can help
	Policies []string `cbor:"2,keyasint,omitempty"` // what decided
}

// FlaggedDetail is the detail of a fact that was recorded although its authority was gone: canonical CBOR.
type FlaggedDetail struct {
	Outcome verify.OutcomeCode `cbor:"1,keyasint"` // what an ask would have got
	Refusal []byte             `cbor:"2,keyasint"` // the registry's refusal, canonical CBOR
	Detail  []byte             `cbor:"3,keyasint,omitempty"`
}

// ConflictBody is the payload of a system.conflict leaf: one signer used one id for two intents.
type ConflictBody struct {
	Signer    nhi.ID     `cbor:"1,keyasint"`
	ID        [16]byte   `cbor:"2,keyasint"`
	First     nhi.Digest `cbor:"3,keyasint"` // payload digest of the event that stands in the log
	Second    nhi.Digest `cbor:"4,keyasint"` // payload digest of the one that was refused
	Signature nhi.Digest `cbor:"5,keyasint"` // SHA-256 of the signature over the second
}

// KindConflict is the kind of the leaf that keeps the first conflict under an id.
const KindConflict = "system.conflict"

// ErrBadSignature says that the signature of an event that Apply verifies itself does not hold.
var ErrBadSignature = errors.New("signature does not hold")

// envelope is one envelope of the command and what is known of it so far.
type envelope struct {
	*nhi.Envelope // nil if it cannot be read
	err           error
	events        []*nhi.Event // nil where the payload cannot be read
	digests       []nhi.Digest
	sigDigest     nhi.Digest
	hashed        bool // sigDigest is set
	recorded      bool // the signature record is in the batch
	verified      bool
	bad           bool
}

// events applies a command of events.
func (a *apply) events(c *Command) ([]EventResult, error) {
	slot, known, err := a.slotOf(c.Tenant)
	if err != nil {
		return nil, err
	}
	var ts *tenantState
	var least nhi.Suite
	if known {
		if ts, err = a.tenant(slot); err != nil {
			return nil, err
		}
		sys, err := a.tenant(SystemSlot)
		if err != nil {
			return nil, err
		}
		least = registry.MinSuite(registryView{sys.view}, registry.ClassEvent, sys.tree.size())
	}
	results := make([]EventResult, 0, max(len(c.Envelopes), len(c.Verdicts)))
	addenda := c.Addenda
	envelopes := a.open(slot, c.Envelopes)
	for i := range envelopes {
		env := &envelopes[i]
		if env.Envelope == nil {
			results = append(results, EventResult{State: Invalid, Err: env.err})
			continue
		}
		for k := range env.Payloads {
			n := len(results)
			if n >= MaxCommandEvents || ts == nil {
				results = append(results, EventResult{State: Invalid, Err: ErrWrongLog})
				continue
			}
			in := incoming{env: env, k: k, least: least}
			if n < len(c.Verdicts) {
				in.verdict = &c.Verdicts[n]
			}
			for len(addenda) > 0 && addenda[0].Event < n {
				addenda = addenda[1:]
			}
			if len(addenda) > 0 && addenda[0].Event == n {
				in.sealed = addenda[0].Sealed
			}
			r, err := a.event(ts, &in)
			if err != nil {
				return nil, err
			}
			results = append(results, r)
		}
	}
	return results, nil
}

// open decodes the envelopes of a command and looks up the request rows of all their events at once.
func (a *apply) open(slot uint32, raws [][]byte) []envelope {
	out := make([]envelope, len(raws))
	var keys [][]byte
	for i, raw := range raws {
		e, err := nhi.DecodeEnvelope(raw)
		if err != nil {
			out[i].err = err
			continue
		}
		env := &out[i]
		env.Envelope, env.digests, env.events = e, make([]nhi.Digest, len(e.Payloads)), make([]*nhi.Event, len(e.Payloads))
		for k, p := range e.Payloads {
			env.digests[k] = nhi.PayloadDigest(p)
			if ev, err := nhi.DecodeEvent(p); err == nil {
				env.events[k] = ev
				keys = append(keys, requestKey(nil, slot, ev.Agent, ev.ID))
			}
		}
	}
	a.x.prefetch(keys)
	return out
}

// incoming is one event on its way through event.
type incoming struct {
	env     *envelope
	k       int
	least   nhi.Suite
	verdict *Verdict
	sealed  []SealedAddendum

	kind *kindEntry
	auth Authority
	ev   Event
}

var noVerdict Verdict

// event applies one event: envelope, identity, idempotency, authority, policy, decision, in that order. Up to the
// idempotency row nothing leaves a trace; from there on everything but a duplicate and a stale verdict leaves a leaf.
func (a *apply) event(ts *tenantState, in *incoming) (EventResult, error) {
	invalid := func(err error) (EventResult, error) { return EventResult{State: Invalid, Slot: ts.Slot, Err: err}, nil }
	payload, ev := in.env.Payloads[in.k], in.env.events[in.k]
	if ev == nil {
		_, err := nhi.DecodeEvent(payload) // again, for the reason
		return invalid(err)
	}
	if in.kind = a.kinds[ev.Kind]; in.kind == nil {
		return invalid(ErrUnknownKind)
	}
	if ev.LedgerID != a.id || ev.Tenant != ts.ID || !in.kind.belongs(ts.Slot) {
		return invalid(ErrWrongLog)
	}
	v := ts.view
	self, err := a.selfRegistration(v, ev, in.env.KeyID)
	if err != nil {
		return invalid(err)
	}
	if !self {
		if in.auth.Signer, in.auth.System, err = a.auth.signer(v, in.env.KeyID); err != nil {
			return invalid(err)
		}
		if in.auth.Signer.Identity.ID != ev.Agent {
			return invalid(ErrWrongSigner)
		}
	}
	if in.kind.InApply && !a.verifySignature(ts, in) {
		return invalid(ErrBadSignature)
	}

	digest := in.env.digests[in.k]
	rkey := requestKey(nil, ts.Slot, ev.Agent, ev.ID)
	if b, ok := a.x.get(rkey); ok {
		return a.again(ts, in, ev, rkey, b, digest)
	}

	at := a.now()
	in.ev = Event{
		Event: ev, Payload: payload, PayloadDigest: digest, Key: in.env.KeyID, SignerSystem: in.auth.System, Verdict: noVerdict,
	}
	if in.auth.Signer != nil {
		in.ev.Signer = in.auth.Signer.Identity
	}
	a.auth.check(&in.auth, v, &in.kind.Kind, ev, at.Time, in.least, ts.accounts)
	in.ev.Chain = in.auth.Chain
	if in.verdict != nil {
		in.ev.Verdict = *in.verdict
	}
	d, stale := a.decide(ts, in, at)
	if stale {
		return EventResult{State: Stale, Slot: ts.Slot, Kind: ev.Kind}, nil
	}
	return a.sequence(ts, in, rkey, d, at)
}

// verifySignature verifies the envelope's signature, once for all its events.
func (a *apply) verifySignature(ts *tenantState, in *incoming) bool {
	env := in.env
	if env.verified || env.bad {
		return env.verified
	}
	env.bad = true
	suite, public := nhi.Suite(0), []byte(nil)
	if in.auth.Signer != nil {
		suite, public = in.auth.Signer.Key.Suite, in.auth.Signer.Key.Public
	} else {
		suite, public = ts.row.Suite, ts.row.Public
	}
	pk, err := a.auth.keys.Parse(suite, public)
	if err != nil {
		return false
	}
	if _, err := env.Verify(pk); err != nil {
		return false
	}
	env.verified, env.bad = true, false
	return true
}

// again answers a request id that has been seen: the stored answer, or the evidence of a conflict.
func (a *apply) again(ts *tenantState, in *incoming, ev *nhi.Event, rkey, row []byte, digest nhi.Digest) (EventResult, error) {
	var r request
	if err := r.decode(row); err != nil {
		return EventResult{}, err
	}
	res := EventResult{
		State: Duplicate, Slot: ts.Slot, Kind: ev.Kind, Index: r.index, LeafHash: r.leaf, Time: r.time, Quality: r.quality,
		Outcome: r.outcome, Detail: r.detail,
	}
	if r.intent == digest {
		return res, nil
	}
	res.State, res.First = Conflict, r.intent
	r.conflicts++
	if r.conflicts == 0 {
		r.conflicts-- // counts no further
	}
	if r.conflicts == 1 {
		body := canon.MustMarshal(ConflictBody{
			Signer: ev.Agent, ID: ev.ID, First: r.intent, Second: digest, Signature: in.env.signature(),
		})
		leaf := SystemLeaf{Kind: KindConflict, Body: body, Agent: ev.Agent}
		if err := a.systemLeaf(ts, &leaf, &verify.Cause{Kind: verify.CauseEvent, Index: r.index}, nhi.ID{}); err != nil {
			return EventResult{}, err
		}
	}
	a.x.set(rkey, r.encode())
	return res, nil
}

// decide says what becomes of an event of a known signer; stale means that it must be decided again.
func (a *apply) decide(ts *tenantState, in *incoming, at Stamp) (d Decision, stale bool) {
	k, v := in.kind, ts.view
	cites := k.Class == Fact && k.Cites != nil && k.Cites(v, &in.ev)
	if in.auth.Refused != registry.OK {
		if !cites {
			return Decision{Outcome: OutcomeOf(in.auth.Refused), Detail: in.auth.Detail}, false
		}
		in.ev.Flagged = OutcomeOf(in.auth.Refused)
	} else if in.ev.Signer != nil && !cites && NeedsVerdict(&k.Kind, in.ev.Signer.Type) {
		verdict := &in.ev.Verdict
		if verdict.Outcome == VerdictNone || verdict.Epochs != v.epochs {
			return Decision{}, true
		}
		switch {
		case verdict.Outcome == VerdictDeny:
			return Decision{Outcome: verify.OutcomeDenied, Detail: policyDetail(nil, verdict.Policies)}, false
		case verdict.Outcome == VerdictNeedsOversight && !k.Oversight:
			return Decision{Outcome: verify.OutcomeNeedsApproval, Detail: policyDetail(verdict.Chains, verdict.Policies)}, false
		}
	}
	return k.Handler.Decide(v, &in.ev, at), false
}

// policyDetail names what decided, as far as it fits into a detail.
func policyDetail(chains, policies []string) []byte {
	for {
		b := canon.MustMarshal(PolicyRefusal{Chains: chains, Policies: policies})
		if len(b) <= MaxDetail {
			return b
		}
		if len(policies) > 0 {
			policies = policies[:len(policies)-1]
		} else {
			chains = chains[:len(chains)-1]
		}
	}
}

// sequence writes everything about a decided event.
func (a *apply) sequence(ts *tenantState, in *incoming, rkey []byte, d Decision, at Stamp) (EventResult, error) {
	ev := &in.ev
	leaf := verify.Leaf{
		V: verify.LeafVersion, Cell: a.genesis.Cell, Slot: ts.Slot, Index: ts.tree.size(), Time: at.Time, Quality: at.Quality,
		Kind: ev.Kind, Agent: ev.Agent, Link: ev.Link, Seq: ev.Seq, ID: ev.ID, Payload: ev.PayloadDigest,
		Signature: in.env.signature(), Epochs: ts.view.epochs, Addenda: ev.Addenda, Account: ev.Account,
		Decision: ev.Verdict.Digest, Assurance: verify.AssuranceSelf,
	}
	if d.Outcome == verify.OutcomeAccepted {
		leaf.Quantities, leaf.Reverses, leaf.Lease = d.Quantities, d.Reverses, d.Lease
		if err := leaf.Check(); err != nil {
			// What the handler took from the body cannot stand in a leaf: the event is at fault, not the node.
			d = Decision{Outcome: verify.OutcomeInvalid}
			leaf.Quantities, leaf.Reverses, leaf.Lease = nil, nil, nil
		}
	}
	if len(d.Detail) > MaxDetail {
		return EventResult{}, fmt.Errorf("%w: kind %q: detail of %d bytes", ErrIsolation, ev.Kind, len(d.Detail))
	}
	accepted := d.Outcome == verify.OutcomeAccepted
	if accepted {
		if err := a.perform(ts, in.kind.handler, &d); err != nil {
			return EventResult{}, fmt.Errorf("kind %q: %w", ev.Kind, err)
		}
	}
	if accepted && ev.Flagged != verify.OutcomeAccepted {
		d.Outcome = verify.OutcomeAcceptedFlagged
		d.Detail = canon.MustMarshal(FlaggedDetail{Outcome: ev.Flagged, Refusal: in.auth.Detail, Detail: d.Detail})
	}
	leaf.Outcome.Code = d.Outcome
	if len(d.Detail) > 0 {
		leaf.Outcome.Detail = DetailDigest(d.Detail)
	}
	hash, err := a.appendLeaf(ts, &leaf, ev.Payload, d.Detail, in.k)
	if err != nil {
		return EventResult{}, err
	}
	a.post(ts, &leaf, in.kind.term, ev)
	a.recordSignature(ts, in.env)
	a.keepAddenda(ts, leaf.Index, ev.Addenda, in.sealed)
	r := request{
		intent: ev.PayloadDigest, index: leaf.Index, leaf: hash, time: at.Time, quality: at.Quality, outcome: d.Outcome,
		detail: d.Detail,
	}
	a.x.set(rkey, r.encode())
	if accepted {
		if err := a.follow(ts, in, &d, leaf.Index); err != nil {
			return EventResult{}, fmt.Errorf("kind %q: %w", ev.Kind, err)
		}
	}
	return EventResult{
		State: Sequenced, Slot: ts.Slot, Kind: ev.Kind, Index: leaf.Index, LeafHash: hash, Time: at.Time, Quality: at.Quality,
		Outcome: d.Outcome, Detail: d.Detail,
	}, nil
}

// perform applies the rows and timers of an accepted decision, after holding all of them against what the handler declared.
func (a *apply) perform(ts *tenantState, h *handlerEntry, d *Decision) error {
	for i := range d.Writes {
		w := &d.Writes[i]
		switch {
		case !h.tables[w.Table]:
			return fmt.Errorf("%w: handler %q writes table %#x", ErrIsolation, h.Name(), byte(w.Table))
		case len(w.Key) > maxRowKey || len(w.Value) > maxRowValue:
			return fmt.Errorf("%w: handler %q writes a row of %d and %d bytes", ErrIsolation, h.Name(), len(w.Key), len(w.Value))
		}
	}
	for i := range d.Timers {
		if err := a.checkTimer(&d.Timers[i]); err != nil {
			return err
		}
	}
	if _, own := h.Handler.(ownHandler); !own && len(d.EraseAddenda) > 0 {
		return fmt.Errorf("%w: handler %q erases addenda", ErrIsolation, h.Name())
	}
	for i := range d.Writes {
		w := &d.Writes[i]
		a.x.key = rowKey(a.x.key[:0], w.Table, ts.Slot, w.Key)
		if w.Delete {
			a.x.del(a.x.key)
		} else {
			a.x.set(a.x.key, w.Value)
		}
	}
	for i := range d.Timers {
		a.setTimer(ts.Slot, &d.Timers[i])
	}
	return nil
}

// follow brings about what comes after the event's own leaf.
func (a *apply) follow(ts *tenantState, in *incoming, d *Decision, index uint64) error {
	for _, i := range d.EraseAddenda {
		if err := a.erase(ts, i, index); err != nil {
			return err
		}
	}
	if d.effect.tenant != nil {
		a.meta.slots = d.effect.tenant.Slot + 1
		nt, err := a.tenant(d.effect.tenant.Slot)
		if err != nil {
			return err
		}
		a.x.set(rowKey(nil, tableTokens, nt.Slot, d.effect.token[:]), d.effect.tokenRow)
		a.markDirty(nt)
	}
	a.bump(ts, d.Bump)
	human := nhi.ID{}
	if in.ev.Chain != nil {
		human = in.ev.Chain.Root
	}
	for i := range d.Leaves {
		l := &d.Leaves[i]
		cause := &verify.Cause{Kind: l.CauseKind, Index: index, Ref: l.Ref}
		if cause.Kind == 0 {
			cause.Kind = verify.CauseEvent
		}
		if err := a.systemLeaf(ts, l, cause, human); err != nil {
			return err
		}
	}
	return nil
}

func (a *apply) bump(ts *tenantState, m EpochMask) {
	if m == 0 {
		return
	}
	if m&BumpPolicy != 0 {
		ts.epochs.Policy++
	}
	if m&BumpEntities != 0 {
		ts.epochs.Entities++
	}
	if m&BumpRevocation != 0 {
		ts.epochs.Revocation++
	}
	ts.view.epochs = ts.epochs
	a.x.set(rowKey(nil, tableEpochs, ts.Slot, nil), encodeEpochs(ts.epochs))
}
