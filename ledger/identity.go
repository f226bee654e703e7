package ledger

import (
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// ownHandler marks the ledger's own handlers, which may write the ledger's tables of administration and erase addenda.
type ownHandler interface{ own() }

// identityHandler adapts the deciders of nhi/registry, which may not know this package.
type identityHandler struct {
	log      *Log
	deciders map[string]registry.Decider
}

const identityName = "identity"

func (*identityHandler) own()         {}
func (*identityHandler) Name() string { return identityName }

func (*identityHandler) Tables() []Table {
	var out []Table
	for _, t := range registry.Tables() {
		out = append(out, Table(t))
	}
	return out
}

// Decide runs the registry's decider of the event's kind.
func (h *identityHandler) Decide(v View, ev *Event, at Stamp) Decision {
	env := h.log.env(v, at.Time)
	r := h.deciders[ev.Kind].Decide(&env, registry.By{Identity: ev.Signer, Key: ev.Key, Link: ev.Link}, ev.Body)
	return fromRegistry(r)
}

// Expire is never called: the registry sets no timers, because windows are checked where they are used.
func (*identityHandler) Expire(View, Timer, Stamp) Decision { return Decision{} }

func fromRegistry(r registry.Result) Decision {
	d := Decision{Outcome: OutcomeOf(r.Code), Detail: r.Detail, EraseAddenda: r.Erase, Writes: fromWrites(r.Writes)}
	if r.Bump&registry.BumpEntities != 0 {
		d.Bump |= BumpEntities
	}
	if r.Bump&registry.BumpRevocation != 0 {
		d.Bump |= BumpRevocation
	}
	return d
}

func fromWrites(ws []registry.Write) []Write {
	out := make([]Write, len(ws))
	for i, w := range ws {
		out[i] = Write{Table: Table(w.Table), Key: w.Key, Value: w.Value, Delete: w.Delete}
	}
	return out
}

// env is what the registry's functions read of a view.
func (l *Log) env(v View, at int64) registry.Env {
	t := v.Tenant()
	sys := v.System()
	return registry.Env{
		View: RegistryView(v), System: RegistryView(sys), Ledger: v.LedgerID(), Slot: t.Slot, Tenant: t.ID,
		AuthorityID: t.AuthorityID, AuthorityKey: t.AuthorityKey, Index: v.NextIndex(), SystemIndex: sys.NextIndex(), Time: at,
		Tree: l.accounts(v), Keys: l.auth.keys,
	}
}

// checkGuard holds the text of a guard against what a guard may say. It belongs to the edge alone: Apply must not depend on how
// a version of Cedar reads a text. What gets past it makes every event under its link invalid.
func checkGuard(ev *nhi.Event) error {
	b := new(registry.GuardBody)
	if err := canon.Unmarshal(ev.Body, b); err != nil {
		return err
	}
	if len(b.Text) == 0 || len(b.Text) > registry.MaxGuardBytes {
		return fmt.Errorf("guard of %d bytes: %w", len(b.Text), errBody)
	}
	if err := authz.CheckGuard([]byte(b.Text)); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// ownKinds are the kinds that exist in every ledger: identities, delegation, administration.
func (l *Log) ownKinds() []Kind {
	h := &identityHandler{log: l, deciders: make(map[string]registry.Decider)}
	var out []Kind
	for _, d := range registry.Deciders() {
		h.deciders[d.Kind] = d
		check := func(ev *nhi.Event) error { return d.Check(ev.Body) }
		if d.Kind == registry.KindGuard {
			check = checkGuard
		}
		out = append(out, Kind{
			Name: d.Kind, Class: Ask, Handler: h, InApply: true, System: d.System, Everywhere: !d.System, Check: check,
		})
	}
	return append(out, l.adminKinds()...)
}
