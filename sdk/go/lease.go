package creto

import (
	"context"
	"fmt"
	"time"

	"github.com/creto-systems/creto/meter/kind"
)

// Lease is an amount of one meter that is set aside for its holder to spend without asking again.
type Lease struct {
	ID      uint64
	Meter   string
	Granted uint64
	Expires time.Time // consensus time: do not spend after it
	Index   uint64    // of its leaf
}

// Reserve asks for a lease of at most want and no less than least of a meter (0 = 1) for ttl (0 = 15 s). It is refused,
// naming the level that has no room; QuotaRefusal reads that from the error.
func (a *Agent) Reserve(ctx context.Context, meter string, want, least uint64, ttl time.Duration, opts ...EventOption) (*Lease, error) {
	b, err := kind.ReserveBody{Meter: meter, Want: want, Min: least, TTL: int64(ttl)}.Encode()
	if err != nil {
		return nil, fmt.Errorf("make reservation: %w", err)
	}
	r, err := a.Do(ctx, kind.Reserve, b, opts...)
	if err != nil {
		return nil, err
	}
	g, err := kind.DecodeGrant(r.Detail)
	if err != nil {
		return nil, fmt.Errorf("read grant: %w", err)
	}
	return &Lease{ID: g.Lease, Meter: meter, Granted: g.Granted, Expires: time.Unix(0, g.Expires).UTC(), Index: r.Index}, nil
}

// Settle reports that the spends [from, to) of a lease came to amount together. Each range is settled once.
func (a *Agent) Settle(ctx context.Context, lease, amount, from, to uint64, opts ...EventOption) (*Result, error) {
	b, err := kind.SettleBody{Lease: lease, Amount: amount, From: from, To: to}.Encode()
	if err != nil {
		return nil, fmt.Errorf("make settlement: %w", err)
	}
	return a.Do(ctx, kind.Settle, b, opts...)
}

// CloseLease ends a lease of which spent was spent altogether, and returns what went back.
func (a *Agent) CloseLease(ctx context.Context, lease, spent uint64, opts ...EventOption) (*kind.Closed, error) {
	b, err := kind.CloseBody{Lease: lease, Spent: spent}.Encode()
	if err != nil {
		return nil, fmt.Errorf("close lease: %w", err)
	}
	r, err := a.Do(ctx, kind.Close, b, opts...)
	if err != nil {
		return nil, err
	}
	c, err := kind.DecodeClosed(r.Detail)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return c, nil
}

// QuotaRefusal returns the counter that had no room, from the error of a refused spend.
func QuotaRefusal(err error) (*kind.Refusal, bool) {
	r, ok := refusedDetail(err)
	if !ok {
		return nil, false
	}
	k, derr := kind.DecodeRefusal(r)
	return k, derr == nil
}
