package edge

import (
	"container/list"
	"fmt"
	"sync"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// Defaults of the rate of refusals, for one signing key in one tenant.
const (
	DefaultRefusalRate  = 20  // leaves per second
	DefaultRefusalBurst = 200 // leaves at once
	maxRefusers         = 16 << 10
)

// RefusalsError says that a key has had too many events refused: what it asks now would be refused again, and not even get a
// leaf. It matches ErrPushback.
type RefusalsError struct {
	Key   nhi.KeyID
	After time.Duration // when the next refusal would be recorded
}

func (e *RefusalsError) Error() string {
	return fmt.Sprintf("key %s… has had too many events refused: the next refusal is recorded in %s", e.Key.String()[:16], e.After)
}

// Is makes the error match ErrPushback.
func (e *RefusalsError) Is(target error) bool { return target == ErrPushback }

// refusals bounds how fast one key can fill a log with refusals, which cost nobody but the ledger: a revoked key goes on
// being refused on the record, with a leaf and a signature that are kept for ever. It keeps one time for each key that was
// refused lately; keys that were refused longest ago are forgotten first.
type refusals struct {
	interval int64 // ns per refusal
	burst    int64
	most     int

	mu     sync.Mutex
	by     map[refuser]*list.Element
	recent list.List // of *refusal, the most recent first
}

type refuser struct {
	tenant nhi.ID
	key    nhi.KeyID
}

// refusal is a token bucket in the form of one time: at full, all tokens are back.
type refusal struct {
	who  refuser
	full int64 // ns
	at   int64 // ns, when it was last asked
}

func newRefusals(rate, burst int) *refusals {
	return &refusals{
		interval: int64(time.Second) / int64(rate), burst: int64(burst), most: maxRefusers, by: make(map[refuser]*list.Element),
	}
}

// take admits n refusals of a key at a time. A batch that is larger than the burst is admitted by a full bucket, which then
// owes the rest.
func (r *refusals) take(who refuser, n int, now int64) error {
	if n == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	el := r.by[who]
	if el == nil {
		if r.recent.Len() >= r.most {
			oldest := r.recent.Back()
			delete(r.by, oldest.Value.(*refusal).who)
			r.recent.Remove(oldest)
		}
		el = r.recent.PushFront(&refusal{who: who, full: now, at: now})
		r.by[who] = el
	} else {
		r.recent.MoveToFront(el)
	}
	b := el.Value.(*refusal)
	if now < b.at { // the clock was set back: as if no time had passed
		b.full -= b.at - now
	}
	b.at, b.full = now, max(b.full, now)
	free := r.burst - (b.full-now+r.interval-1)/r.interval
	if need := min(int64(n), r.burst); free < need {
		return &RefusalsError{Key: who.key, After: time.Duration((need - free) * r.interval)}
	}
	b.full += int64(n) * r.interval
	return nil
}

// refusedAsk says whether Apply will refuse the event as things stand: its authority does not hold, or policy denies it. A fact
// that cites is recorded whatever its authority.
func refusedAsk(v ledger.View, k *ledger.Kind, ev *nhi.Event, key nhi.KeyID, by *ledger.Authority, verdict *ledger.Verdict) bool {
	refused := by.Refused != registry.OK || verdict.Outcome == ledger.VerdictDeny ||
		verdict.Outcome == ledger.VerdictNeedsOversight && !k.Oversight
	if !refused || k.Class != ledger.Fact || k.Cites == nil {
		return refused
	}
	e := ledger.Event{Event: ev, Key: key, SignerSystem: by.System, Chain: by.Chain, Verdict: *verdict}
	if by.Signer != nil {
		e.Signer = by.Signer.Identity
	}
	return !k.Cites(v, &e)
}
