package edge

import (
	"context"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// item is a checked envelope on its way into a command.
type item struct {
	tenant   nhi.ID
	encoded  []byte // the envelope
	events   []*nhi.Event
	kinds    []ledger.Kind
	key      nhi.KeyID
	verdicts []ledger.Verdict // by event; nil when no kind wants one
	sealed   [][]ledger.SealedAddendum
	size     int
	refused  int // events that Apply will refuse, as things stand

	answer chan answer // capacity 1
}

type answer struct {
	results []Result
	err     error
}

// check verifies the envelope and asks policy. before is what an earlier check of the same envelope found: then only
// policy is asked again.
func (e *Edge) check(ctx context.Context, tenant nhi.ID, sub *Submission, before *item) (*item, error) {
	v, release, err := e.cfg.State.View(tenant)
	if err != nil {
		return nil, err
	}
	defer release()
	// A store error panics inside the view; Guard brings it back as an error.
	var next item
	if err := ledger.Guard(func() (err error) {
		it := before
		if it == nil {
			if it, err = e.authenticate(ctx, v, tenant, sub); err != nil {
				return err
			}
			if err = e.seal(it, sub); err != nil {
				return err
			}
		}
		next = *it
		next.answer = make(chan answer, 1)
		next.verdicts, next.refused, err = e.decide(v, it)
		return err
	}); err != nil {
		return nil, err
	}
	next.size = len(next.encoded) + 16
	for _, verdict := range next.verdicts {
		next.size += 64
		for _, s := range verdict.Chains {
			next.size += len(s) + 2
		}
		for _, s := range verdict.Policies {
			next.size += len(s) + 2
		}
	}
	for _, s := range next.sealed {
		for i := range s {
			next.size += len(s[i].Ciphertext) + len(s[i].WrappedKey) + 48
		}
	}
	if next.size > maxCommandBytes {
		return nil, &InvalidError{-1, fmt.Errorf("%d bytes with addenda are more than a command's %d", next.size, maxCommandBytes)}
	}
	return &next, nil
}

// authenticate verifies the signature under the registered key and holds every event against its kind.
func (e *Edge) authenticate(ctx context.Context, v ledger.View, tenant nhi.ID, sub *Submission) (*item, error) {
	env := sub.Envelope
	pk, err := e.cfg.State.PublicKey(v, env.KeyID)
	if errors.Is(err, ledger.ErrUnknownKey) {
		return nil, ErrUnauthenticated
	}
	if err != nil {
		return nil, err
	}
	events, _, err := env.VerifyEvents(pk)
	if errors.Is(err, nhi.ErrBadSignature) {
		return nil, ErrUnauthenticated
	}
	if err != nil {
		return nil, &InvalidError{-1, err}
	}
	it := &item{tenant: tenant, events: events, key: env.KeyID, kinds: make([]ledger.Kind, len(events))}
	for i, ev := range events {
		kind, ok := e.cfg.State.Kind(ev.Kind)
		if !ok {
			return nil, &InvalidError{i, fmt.Errorf("kind %q is unknown", ev.Kind)}
		}
		if kind.Check != nil {
			if err := kind.Check(ev); err != nil {
				return nil, &InvalidError{i, err}
			}
		}
		if kind.Hold != nil {
			if err := kind.Hold(ctx, v, ev, pk); err != nil {
				return nil, &InvalidError{i, err}
			}
		}
		it.kinds[i] = kind
	}
	if it.encoded, err = env.Encode(); err != nil {
		return nil, &InvalidError{-1, err}
	}
	return it, nil
}

// decide resolves who stands behind every event and asks policy about those whose kind wants a verdict. A batch mostly
// repeats one question; the Authorizer may know that, the edge does not. refused counts the events that Apply will refuse.
func (e *Edge) decide(v ledger.View, it *item) (verdicts []ledger.Verdict, refused int, err error) {
	for i, ev := range it.events {
		authority, err := e.cfg.State.Authorize(v, ev, it.key, e.cfg.Now())
		switch {
		case errors.Is(err, ledger.ErrUnknownKey):
			return nil, 0, ErrUnauthenticated
		case errors.Is(err, ledger.ErrWrongSigner), errors.Is(err, ledger.ErrWrongLog), errors.Is(err, ledger.ErrUnknownKind), errors.Is(err, ledger.ErrNotItself):
			return nil, 0, &InvalidError{i, err}
		case err != nil:
			return nil, 0, err
		}
		// What has no authority now is refused by Apply, on the record; policy has no say in it.
		if authority.Refused != registry.OK || authority.Signer == nil ||
			!ledger.NeedsVerdict(&it.kinds[i], authority.Signer.Identity.Type) {
			if refusedAsk(v, &it.kinds[i], ev, it.key, &authority, new(ledger.Verdict)) {
				refused++
			}
			continue
		}
		verdict, err := e.cfg.Authorizer.Authorize(v, ev, authority)
		if err != nil {
			return nil, 0, &InvalidError{i, err}
		}
		if verdicts == nil {
			verdicts = make([]ledger.Verdict, len(it.events))
		}
		verdict.Epochs = v.Epochs()
		verdicts[i] = verdict
		if refusedAsk(v, &it.kinds[i], ev, it.key, &authority, &verdict) {
			refused++
		}
	}
	return verdicts, refused, nil
}

// seal encrypts the addenda: what is proposed, stored and backed up is ciphertext.
func (e *Edge) seal(it *item, sub *Submission) error {
	for i, ev := range it.events {
		var addenda []nhi.Addendum
		if len(sub.Addenda) > 0 {
			addenda = sub.Addenda[i]
		}
		if err := nhi.CheckAddenda(ev, addenda); err != nil {
			return &InvalidError{i, err}
		}
		if len(addenda) == 0 {
			continue
		}
		if it.sealed == nil {
			it.sealed = make([][]ledger.SealedAddendum, len(it.events))
		}
		for k, a := range addenda {
			s, err := ledger.SealAddendum(e.cfg.KEK, e.cfg.Random, ev.LedgerID, it.tenant, a)
			if err != nil {
				return fmt.Errorf("event %d, addendum %d: %w", i, k, err)
			}
			it.sealed[i] = append(it.sealed[i], s)
		}
	}
	return nil
}
