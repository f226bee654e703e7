package publish

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/creto-systems/creto/nhi"
)

// exchangeLoop hands every new cosignature of ours to the other voters, and asks those that have not answered again until
// the head is published everywhere we know of.
func (p *Publisher) exchangeLoop(ctx context.Context) error {
	answered := make(map[nhi.ID]uint64) // by peer: largest size it has answered with
	var sent int64                      // time of the cosignature the answers are about
	for {
		p.mu.Lock()
		own, at, changed := p.mu.own, p.mu.ownTime, p.mu.changed
		p.mu.Unlock()
		waiting := false
		if own != nil {
			if at != sent {
				// A refresh goes to everybody again.
				clear(answered)
				sent = at
			}
			waiting = p.exchange(ctx, *own, answered)
		}
		if !waiting {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		retry := time.NewTimer(retryInterval)
		select {
		case <-ctx.Done():
			retry.Stop()
			return ctx.Err()
		case <-changed:
			retry.Stop()
		case <-retry.C:
		}
	}
}

// exchange asks every peer that has not answered with own's size, side by side, and says whether some still have to.
func (p *Publisher) exchange(ctx context.Context, own Cosignature, answered map[nhi.ID]uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	var (
		g  errgroup.Group
		mu sync.Mutex
	)
	var asked []Peer
	for _, peer := range p.cfg.Peers() {
		if answered[peer.ID()] < own.Size {
			asked = append(asked, peer)
		}
	}
	for _, peer := range asked {
		g.Go(func() error {
			theirs, err := peer.Exchange(ctx, own)
			if err != nil || theirs == nil {
				return nil // asked again
			}
			if theirs.Node != peer.ID() {
				p.cfg.Logger.Warn("cosignature of another node", "peer", peer.ID().String(), "node", theirs.Node.String())
				return nil
			}
			if _, err := p.Receive(*theirs); err != nil {
				p.cfg.Logger.Warn("cosignature refused", "peer", peer.ID().String(), "err", err)
				return nil
			}
			mu.Lock()
			answered[peer.ID()] = theirs.Size
			mu.Unlock()
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	for _, peer := range asked {
		if answered[peer.ID()] < own.Size {
			return true
		}
	}
	return false
}
