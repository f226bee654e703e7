package ledger

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// authority resolves who signs and for whom. Its caches are pure functions of state, shared by Apply and the edge.
type authority struct {
	keys    *nhi.KeyCache
	signers *registry.SignerCache
	chains  *registry.ChainCache
	suites  *registry.SuiteCache
}

// maxCachedKeys bounds the unpacked public keys in memory, about 40 KiB each with what ML-DSA expands to.
const maxCachedKeys = 2048

func newAuthority() authority {
	return authority{
		keys:    nhi.NewKeyCache(maxCachedKeys),
		signers: registry.NewSignerCache(0),
		chains:  registry.NewChainCache(0),
		suites:  registry.NewSuiteCache(),
	}
}

// Authority is what stands behind an event: whose key signed it and under which chain, as of a view.
type Authority struct {
	Signer *registry.Signer // nil only where an authority registers itself
	System bool             // the signer stands in slot 0
	Chain  *registry.Chain  // nil when the event names no link, or when Refused is set

	// Refused says why the authority does not hold: a code of nhi/registry, OK if it does.
	Refused registry.Code
	// Detail is the canonical registry.Refusal that goes with it.
	Detail []byte
}

// Errors of events that leave no trace: no row and no leaf.
var (
	ErrUnknownKey  = errors.New("signing key is not registered")
	ErrWrongSigner = errors.New("event's agent is not the owner of the signing key")
	ErrUnknownKind = errors.New("kind is unknown")
	ErrWrongLog    = errors.New("event is for another ledger or log")
	ErrNotItself   = errors.New("tenant's authority must register itself first")
)

func position(v View) registry.Position {
	e := v.Epochs()
	return registry.Position{Slot: v.Tenant().Slot, Entities: e.Entities, Revocation: e.Revocation, Index: v.NextIndex()}
}

// signer finds the key in the tenant's log, then among the cluster's nodes.
func (au *authority) signer(v View, key nhi.KeyID) (s *registry.Signer, system bool, err error) {
	s, err = au.signers.Resolve(RegistryView(v), position(v), key)
	if err == nil {
		return s, false, nil
	}
	if v.Tenant().Slot == SystemSlot || !errors.Is(err, registry.CodeUnknownKey) {
		return nil, false, ErrUnknownKey
	}
	sys := v.System()
	s, err = au.signers.Resolve(RegistryView(sys), position(sys), key)
	if err != nil || s.Identity.Type != registry.Node {
		return nil, false, ErrUnknownKey
	}
	return s, true, nil
}

// check holds the signer and the chain of an event against a stamp. It fills in a.
func (au *authority) check(a *Authority, v View, k *Kind, ev *nhi.Event, at int64, least nhi.Suite, tree registry.Tree) {
	if a.Signer == nil {
		return
	}
	refuse := func(err error) {
		a.Refused = registry.CodeOf(err)
		a.Detail = refusalDetail(err)
	}
	if err := a.Signer.Live(at); err != nil {
		refuse(err)
		return
	}
	if a.System && !k.Nodes {
		refuse(&registry.Error{Code: registry.CodeUnauthorized, Hop: -1})
		return
	}
	if a.Signer.Key.Suite < max(least, au.least(v, k, a.Signer.Identity.Type)) {
		refuse(&registry.Error{Code: registry.CodeWeakSuite, Hop: -1})
		return
	}
	if ev.Link.IsZero() {
		if a.Signer.Identity.Type == registry.Agent {
			refuse(&registry.Error{Code: registry.CodeNotHolder, Hop: -1})
		}
		return
	}
	chain, err := au.chains.Resolve(RegistryView(v), position(v), ev.Link)
	if err == nil {
		a.Chain = chain
		err = chain.Allows(registry.RequestOf(ev, a.Signer.Identity.ID, at, tree))
	}
	if err != nil {
		refuse(err)
	}
}

// least is the least suite beside that of events: of what the kind carries and, for nodes, of what nodes sign.
func (au *authority) least(v View, k *Kind, signer registry.Type) (least nhi.Suite) {
	for _, class := range [...]registry.ObjectClass{k.Object, registry.ClassNode} {
		if class == 0 || class == registry.ClassNode && signer != registry.Node {
			continue
		}
		sys := v.System()
		least = max(least, au.suites.Least(RegistryView(sys), position(sys), class))
	}
	return least
}

func refusalDetail(err error) []byte {
	r := registry.Refusal{Code: registry.CodeOf(err)}
	r.Name = r.Code.String()
	if e, ok := errors.AsType[*registry.Error](err); ok && e.Hop >= 0 {
		r.Hop = &e.Hop
	}
	return canon.MustMarshal(r)
}

// Authorize says who stands behind an event that a key has signed, by the same rules as Apply, for a decision at the edge
// before the event is proposed. at is a stamp the event might get. An error is one of ErrUnknownKey, ErrWrongSigner,
// ErrUnknownKind, ErrWrongLog and ErrNotItself; the state may have moved on by the time the event is applied, which checks again.
func (l *Log) Authorize(v View, ev *nhi.Event, key nhi.KeyID, at int64) (Authority, error) {
	k := l.kinds[ev.Kind]
	if k == nil {
		return Authority{}, ErrUnknownKind
	}
	t := v.Tenant()
	if ev.LedgerID != v.LedgerID() || ev.Tenant != t.ID || !k.belongs(t.Slot) {
		return Authority{}, ErrWrongLog
	}
	self, err := l.selfRegistration(v, ev, key)
	if self || err != nil {
		return Authority{}, err
	}
	var a Authority
	if a.Signer, a.System, err = l.auth.signer(v, key); err != nil {
		return Authority{}, err
	}
	if a.Signer.Identity.ID != ev.Agent {
		return Authority{}, ErrWrongSigner
	}
	sys := v.System()
	least := l.auth.suites.Least(RegistryView(sys), position(sys), registry.ClassEvent)
	l.auth.check(&a, v, &k.Kind, ev, at, least, l.accounts(v))
	return a, nil
}

// PublicKey returns the unpacked key to verify an envelope with. For the registration of a tenant's authority by itself it
// is the key that the system log named.
func (l *Log) PublicKey(v View, key nhi.KeyID) (*nhi.PublicKey, error) {
	if t := v.Tenant(); t.Slot != SystemSlot && t.AuthorityKey == key && !authorityKnown(v, &t) {
		row, err := l.tenantKey(v)
		if err != nil {
			return nil, err
		}
		return l.auth.keys.Parse(row.Suite, row.Public)
	}
	s, _, err := l.auth.signer(v, key)
	if err != nil {
		return nil, err
	}
	return l.auth.keys.Parse(s.Key.Suite, s.Key.Public)
}

func (l *Log) tenantKey(v View) (*tenantRow, error) {
	slot := v.Tenant().Slot
	b, ok := v.System().Get(tableTenants, slotKey(slot))
	if !ok {
		return nil, corrupt("tenant in slot %d is missing", slot)
	}
	row, _, err := decodeTenant(slot, b)
	return row, err
}

// authorityKnown says whether the tenant's authority has registered itself.
func authorityKnown(v View, t *Tenant) bool {
	_, err := registry.ResolveIdentity(RegistryView(v), t.AuthorityID, v.NextIndex())
	return err == nil
}

// selfRegistration says whether the event is a tenant's authority registering itself with the key that the system log named,
// which nobody else can vouch for. That stays possible until it has succeeded: whatever else came to stand in the log before
// must not leave a tenant without an authority. An event that only looks like one is ErrNotItself and leaves no trace.
func (l *Log) selfRegistration(v View, ev *nhi.Event, key nhi.KeyID) (bool, error) {
	t := v.Tenant()
	if t.Slot == SystemSlot || key != t.AuthorityKey || ev.Agent != t.AuthorityID || authorityKnown(v, &t) {
		return false, nil
	}
	if ev.Kind != registry.KindRegister {
		return false, nil // whose key is not registered
	}
	env := l.env(v, 0)
	if _, err := registry.SelfRegistration(&env, ev.Body); err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotItself, err)
	}
	return true, nil
}

func (l *Log) accounts(v View) registry.Tree {
	if l.cfg.Tree == nil || v.Tenant().Slot == SystemSlot {
		return nil
	}
	return l.cfg.Tree(v)
}

// belongs says whether events of the kind may stand in the log of a slot.
func (k *Kind) belongs(slot uint32) bool {
	return k.Everywhere || k.System == (slot == SystemSlot)
}

// NeedsVerdict says whether an event of the kind needs a policy verdict when an identity of a type signs it. Whether a fact
// cites is asked of the kind itself.
func NeedsVerdict(k *Kind, signer registry.Type) bool {
	return k.Cedar && (signer == registry.Agent || signer == registry.Service || signer == registry.Human)
}

// OutcomeOf is the outcome that stands in a leaf for a refusal of the identity registry.
func OutcomeOf(c registry.Code) verify.OutcomeCode {
	switch c.Class() {
	case registry.ClassOK:
		return verify.OutcomeAccepted
	case registry.ClassUnauthorized:
		return verify.OutcomeUnauthorized
	case registry.ClassNotFound:
		return verify.OutcomeNotFound
	case registry.ClassExists:
		return verify.OutcomeExists
	case registry.ClassRevoked:
		return verify.OutcomeRevoked
	case registry.ClassFrozen:
		return verify.OutcomeFrozen
	case registry.ClassExpired:
		return verify.OutcomeExpired
	case registry.ClassNotYet:
		return verify.OutcomeNotYetValid
	case registry.ClassWeakSuite:
		return verify.OutcomeWeakSuite
	case registry.ClassBadSignature:
		return verify.OutcomeBadSignature
	case registry.ClassConflict:
		return verify.OutcomeConflict
	case registry.ClassLimit:
		return verify.OutcomeLimit
	}
	return verify.OutcomeInvalid
}
