package spiffe

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"
)

const (
	issueTimeout = 30 * time.Second
	firstRetry   = time.Second
	lastRetry    = 5 * time.Minute
	maxSleep     = time.Hour // after that the clock is read again: it may have jumped
)

// Rotator renews the SVID of a Source before it expires. Its fields are set
// before Run and not changed after.
type Rotator struct {
	Source *Source

	// Issue gets a new SVID, with a new key, and the trust bundle of now. A
	// nil bundle keeps the one there is. The SVID must verify against both.
	// It is given 30 seconds.
	Issue func(ctx context.Context) (*SVID, *Bundle, error)

	// Jitter returns a number in [0, 1). It moves a renewal up to a tenth
	// of the SVID's life before half of it, so that a fleet does not ask at once.
	Jitter func() float64

	Rotated func(*SVID) // told of each renewal; may be nil
	Failed  func(error) // told of each failure, which is retried; may be nil
}

// Run renews until ctx ends, and returns its error. It asks at half of the
// SVID's life, or at once if there is none; after a failure it tries again
// after one second, then twice that, up to five minutes.
func (r *Rotator) Run(ctx context.Context) error {
	retry := time.Duration(0)
	for {
		due := r.due()
		if retry > 0 {
			due = r.Source.now().Add(retry)
		}
		if err := r.sleepUntil(ctx, due); err != nil {
			return err
		}
		svid, err := r.renew(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			retry = min(max(2*retry, firstRetry), lastRetry)
			if r.Failed != nil {
				r.Failed(err)
			}
			continue
		}
		retry = 0
		if r.Rotated != nil {
			r.Rotated(svid)
		}
	}
}

// due returns when the SVID there is should be replaced.
func (r *Rotator) due() time.Time {
	svid := r.Source.SVID()
	if svid == nil {
		return r.Source.now()
	}
	return svid.halfLife().Add(-time.Duration(r.Jitter() * float64(svid.life()/10)))
}

func (s *SVID) life() time.Duration { return s.leaf.NotAfter.Sub(s.leaf.NotBefore) }

func (s *SVID) halfLife() time.Time { return s.leaf.NotBefore.Add(s.life() / 2) }

func (r *Rotator) sleepUntil(ctx context.Context, due time.Time) error {
	for {
		left := due.Sub(r.Source.now())
		if left <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(min(left, maxSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func (r *Rotator) renew(ctx context.Context) (*SVID, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	svid, bundle, err := r.Issue(ctx)
	if err != nil {
		return nil, fmt.Errorf("renew SVID: %w", err)
	}
	if bundle == nil {
		bundle = r.Source.Bundle()
	}
	// An SVID that is due for renewal already would be asked for again at
	// once, without end.
	if svid == nil || !svid.halfLife().After(r.Source.now()) {
		return nil, fmt.Errorf("renew SVID: %w: the issuer gave one that is past half of its life", ErrBadSVID)
	}
	// Roots come only with an SVID that the roots of now vouch for: whoever answers without having their CA replaces none.
	if _, err := verify(svid.chain(), r.Source.Bundle(), r.Source.now(), x509.ExtKeyUsageAny); err != nil {
		return nil, fmt.Errorf("renew SVID: %w", err)
	}
	if err := r.Source.Set(svid, bundle); err != nil {
		return nil, fmt.Errorf("renew SVID: %w", err)
	}
	return svid, nil
}
