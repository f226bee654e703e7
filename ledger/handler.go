package ledger

import (
	"context"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// Table is the first byte of every key in the store. 0x01–0x1f belong to the ledger, 0x20–0x2f to the identity registry,
// 0x30–0x3f to the meter, 0x40–0x4f to oversight, 0x50–0x5f to the sandbox.
type Table byte

// View is the read-only state of one tenant, showing everything before this event, earlier events of the same command
// included. A store error panics inside the view with a type of this package, and the ledger stops the node; a handler must
// not recover. Returned slices must not be modified or kept beyond the call.
//
// A handler may read its own tables and those of any other domain (0x20 and above). Of the ledger's own tables only those
// of administration are visible (tenants, nodes, read tokens); reading any other one stops the node.
type View interface {
	// Get returns the value of a key, given without table and slot.
	Get(t Table, key []byte) (value []byte, ok bool)
	// Scan calls fn for the keys that begin with prefix, in ascending or (reverse) descending order, until fn returns
	// false. from is inclusive and begins with prefix; nil means the first key, or the last one in reverse. In reverse, a key
	// that extends from counts as being beyond it.
	Scan(t Table, prefix, from []byte, reverse bool, fn func(key, value []byte) (more bool))
	// System is the view of slot 0 of the same ledger, the system log.
	System() View
	// Tenant describes the tenant; in slot 0 only Zone and Created say something.
	Tenant() Tenant
	LedgerID() nhi.Digest
	// NextIndex is the index the leaf of this event will get if it gets one.
	NextIndex() uint64
	// Epochs are the tenant's epochs before this event.
	Epochs() verify.Epochs
	// Active is the active feature level; the first is 1. Any change to what a handler returns, even a fix, stands behind
	// v.Active() >= N.
	Active() uint32
}

// Tenant is what the ledger knows of a tenant.
type Tenant struct {
	Slot         uint32 // permanent
	ID           nhi.ID
	AuthorityID  nhi.ID    // the tenant's identity authority
	AuthorityKey nhi.KeyID // its first key
	Zone         string    // IANA time zone of its periods, "UTC" by default
	Strict       bool      // refuses billable asks while commit times are not certified
	Created      uint64    // index in the system log
}

// Stamp is the commit time of one leaf: consensus time, unique in the ledger and strictly increasing.
type Stamp struct {
	Time    int64 // Unix nanoseconds
	Quality verify.Quality
}

// Write is one row that a Decision sets or deletes. Key is without table and slot: the ledger puts the event's own tenant in
// front, and stops the node if Table is not one of the handler's.
type Write struct {
	Table  Table
	Key    []byte
	Value  []byte
	Delete bool
}

// Timer asks for Expire at Due by consensus time. Its identity is (Due, Name, Ref); setting an existing one changes nothing,
// cancelling an absent one neither.
type Timer struct {
	Due    int64  // Unix nanoseconds
	Name   string // "<handler>.<what>": the part before the first dot names the handler that is called
	Ref    []byte // what expires, in the handler's own terms; at most MaxTimerRef bytes
	Cancel bool
}

// SystemLeaf is a leaf that Apply itself brings about: an expiry, an escalation, a notice. It has no signature; its cause is
// the event of the Decision it comes from or, from Expire, the tick.
type SystemLeaf struct {
	Kind       string // "system.…"
	Body       []byte // canonical CBOR; becomes the payload
	Agent      nhi.ID // whom it concerns; zero = nobody
	Link       nhi.LinkID
	Account    nhi.ID
	Quantities []verify.Quantity
	Lease      *verify.LeaseRef
	CauseKind  verify.CauseKind // 0 = the event (or, from Expire, the tick)
	Ref        []byte           // cause's reference, at most verify.MaxCauseRef bytes
}

// EpochMask names epochs of a tenant that a Decision raises by one.
type EpochMask uint8

// The epochs of a tenant. A policy verdict is valid only under the epochs it was made under.
const (
	BumpPolicy     EpochMask = 1 << iota // the policy sets changed
	BumpEntities                         // identities, accounts or groups changed
	BumpRevocation                       // something that was valid no longer is
)

// Decision is what a handler makes of an event.
type Decision struct {
	// Outcome other than accepted: Writes, Timers, Leaves, Bump and EraseAddenda are not applied; the refusal's leaf is.
	Outcome verify.OutcomeCode
	// Detail answers the caller: canonical CBOR, at most MaxDetail bytes. Its digest stands in the leaf; it is stored, so
	// that a retry gets it again.
	Detail     []byte
	Writes     []Write
	Timers     []Timer
	Leaves     []SystemLeaf
	Bump       EpochMask
	Quantities []verify.Quantity // ascending by meter
	Lease      *verify.LeaseRef
	Reverses   *uint64
	// EraseAddenda are the indices of leaves whose addenda and record keys are deleted (identity and admin kinds only).
	EraseAddenda []uint64

	effect effect // what only the ledger's own handlers bring about
}

// Event is what a handler is given: the signed bytes and what the ledger has resolved about their signer, never copies of
// fields made elsewhere.
type Event struct {
	*nhi.Event
	Payload       []byte
	PayloadDigest nhi.Digest
	Key           nhi.KeyID
	Signer        *registry.Identity // row as of NextIndex; nil only for the registration of the tenant's authority by itself
	SignerSystem  bool               // the signer stands in slot 0 (a node), not in the tenant
	Chain         *registry.Chain    // nil when Link is zero; verified at this index and stamp
	Flagged       verify.OutcomeCode // a fact whose authority is gone is recorded anyway, and this says why (0 = fine)
	Verdict       Verdict            // what the edge decided; zero for kinds without Cedar
}

// VerdictOutcome is the edge's policy decision.
type VerdictOutcome uint8

// The policy decisions.
const (
	VerdictNone           VerdictOutcome = 0 // not asked
	VerdictAllow          VerdictOutcome = 1
	VerdictDeny           VerdictOutcome = 2
	VerdictNeedsOversight VerdictOutcome = 3
)

// Verdict is the edge's policy decision about one event and the epochs it was made under. Canonical CBOR, keys 1 to 5.
type Verdict struct {
	Outcome  VerdictOutcome `cbor:"1,keyasint"`
	Epochs   verify.Epochs  `cbor:"2,keyasint"`
	Digest   nhi.Digest     `cbor:"3,keyasint"`
	Chains   []string       `cbor:"4,keyasint,omitempty"` // approval chains that are asked for, sorted
	Policies []string       `cbor:"5,keyasint,omitempty"` // ids of the policies that decided, sorted
}

// Handler is one domain of the ledger's state. Both methods are pure functions of view, event and stamp: no clock,
// randomness, float, map order, I/O, regexp or locale. They return writes and never make them.
type Handler interface {
	// Name is the part of a timer's name before the first dot.
	Name() string
	// Tables are those its decisions may write.
	Tables() []Table
	// Decide decides about an event of one of the handler's kinds.
	Decide(v View, ev *Event, at Stamp) Decision
	// Expire is called for a timer that has come due. The timer is gone already; Outcome, Detail, Quantities, Lease and
	// Reverses of the Decision are ignored.
	Expire(v View, t Timer, at Stamp) Decision
}

// Class says what happens to an event whose authority is gone.
type Class uint8

const (
	// Ask wants something: without authority it is refused.
	Ask Class = iota
	// Fact states something that has happened. One that cites a lease or grant given while authority stood is recorded and
	// flagged; one that cites nothing is an ask.
	Fact
)

// Kind describes how events of one kind travel.
type Kind struct {
	Name    string
	Class   Class
	Handler Handler
	// Cites says whether the fact cites a lease or grant that was given to its signer while authority stood; nil = never.
	Cites func(v View, ev *Event) bool
	// InApply: the signature is verified in Apply on every node (rare kinds).
	InApply bool
	// Cedar: the edge asks the tenant's policies about events that agents, services and humans sign; without a verdict of the
	// current epochs such an event is stale. Events of authorities, admins and nodes need none, and neither does a fact that
	// cites (see NeedsVerdict).
	Cedar bool
	// Oversight: a verdict that needs oversight goes to Decide instead of being refused (the request for that very approval).
	Oversight bool
	// System: only in slot 0. Everywhere: in slot 0 as well as in tenants' logs. Neither: in tenants' logs only.
	System, Everywhere bool
	// Nodes: a node of the cluster may sign it in a tenant's log, with its key of slot 0.
	Nodes bool
	// Object is the class of what the event carries (a policy, an approval, an attestation): its signer's key must reach the least
	// suite of that class as well as that of events. 0 = events alone. A node's key must reach that of ClassNode, whatever it signs.
	Object registry.ObjectClass
	// Check is the cheap check of the body at the edge before consensus; Decide repeats it. nil = none.
	Check func(ev *nhi.Event) error
	// Hold is the check at the edge that Decide does not repeat, because it is expensive or parses what Apply must not: what the
	// event carries is held against the tenant's state of now and the key whose signature over the event holds. nil = none.
	Hold func(ctx context.Context, v View, ev *nhi.Event, pk *nhi.PublicKey) error
}
