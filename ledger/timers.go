package ledger

import (
	"fmt"
	"strings"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// TickResult is the result of a tick.
type TickResult struct {
	Time    int64 // stamp of the tick
	Expired int   // timers that came due
	More    bool  // others are due as well: propose the next tick at once
}

// checkTimer holds a timer against its bounds: the name leads to a handler, and the key can be parsed back.
func (a *apply) checkTimer(t *Timer) error {
	name, _, ok := strings.Cut(t.Name, ".")
	if !ok || a.handlers[name] == nil || len(t.Name) > maxTimerName || strings.IndexByte(t.Name, 0) >= 0 || len(t.Ref) > MaxTimerRef {
		return fmt.Errorf("%w: timer %q with a reference of %d bytes", ErrIsolation, t.Name, len(t.Ref))
	}
	return nil
}

func (a *apply) setTimer(slot uint32, t *Timer) {
	due := min(max(t.Due, 0), maxStamp)
	a.x.key = timerKey(a.x.key[:0], due, slot, t.Name, t.Ref)
	if t.Cancel {
		if _, ok := a.x.get(a.x.key); ok {
			a.x.del(a.x.key)
		}
		return
	}
	a.x.set(a.x.key, []byte{rowVersion})
}

// tick lets consensus time pass: timers that are due at its stamp expire, at most MaxTickExpires of them.
func (a *apply) tick() (TickResult, error) {
	at := a.now()
	a.next++
	a.used = true
	type due struct {
		key   []byte
		slot  uint32
		timer Timer
	}
	var all []due
	res := TickResult{Time: at.Time}
	var bad error
	a.x.scan([]byte{byte(tableTimers)}, nil, false, func(key, _ []byte) bool {
		slot, t, err := parseTimerKey(key)
		if err != nil {
			bad = corrupt("%v", err)
			return false
		}
		if t.Due > at.Time {
			return false
		}
		if len(all) == MaxTickExpires {
			res.More = true
			return false
		}
		all = append(all, due{append([]byte(nil), key...), slot, t})
		return true
	})
	if bad != nil {
		return res, bad
	}
	for i := range all {
		// An expiry before this one may have cancelled it.
		if _, ok := a.x.get(all[i].key); !ok {
			continue
		}
		a.x.del(all[i].key)
		res.Expired++
		if err := a.expire(all[i].slot, all[i].timer); err != nil {
			return res, err
		}
	}
	return res, nil
}

func (a *apply) expire(slot uint32, t Timer) error {
	ts, err := a.tenant(slot)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(t.Name, ".")
	h := a.handlers[name]
	if h == nil {
		return fmt.Errorf("%w: nobody knows timer %q", ErrIsolation, t.Name)
	}
	d := h.Expire(ts.view, t, a.now())
	if len(d.EraseAddenda) > 0 {
		return fmt.Errorf("%w: timer %q erases addenda", ErrIsolation, t.Name)
	}
	if err := a.perform(ts, h, &d); err != nil {
		return fmt.Errorf("timer %q: %w", t.Name, err)
	}
	a.bump(ts, d.Bump)
	for i := range d.Leaves {
		l := &d.Leaves[i]
		cause := &verify.Cause{Kind: l.CauseKind, Ref: l.Ref}
		if cause.Kind == 0 {
			cause.Kind = verify.CauseTick
		}
		if err := a.systemLeaf(ts, l, cause, nhi.ID{}); err != nil {
			return fmt.Errorf("timer %q: %w", t.Name, err)
		}
	}
	return nil
}
