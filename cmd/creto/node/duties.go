package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/creto-systems/creto/ledger"
)

// duties is what the leader does on its own: the genesis, ticks when timers are due, and Raft configuration changes that
// the log has announced.
func (s *Server) duties(ctx context.Context) error {
	tick := time.NewTicker(dutyInterval)
	defer tick.Stop()
	for {
		if s.raft.Leading() {
			for _, duty := range []func(context.Context) error{s.begin, s.tick, s.reconcile} {
				if err := duty(ctx); err != nil && ctx.Err() == nil {
					// Leadership moved, or a bound was reached: the next round, here or elsewhere, does it.
					s.log.Debug("duty not done", "err", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-s.wake:
		}
	}
}

func (s *Server) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// begin proposes the genesis to a log that has none. A second one has no effect.
func (s *Server) begin(ctx context.Context) error {
	if _, err := s.ledger.LedgerID(); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, proposeWait)
	defer cancel()
	_, err := propose(ctx, s.raft, &ledger.Command{Type: ledger.CommandGenesis, Time: s.now(), Genesis: s.identity.raw})
	return err
}

// tick lets consensus time pass when a timer is due by this node's clock, and goes on while others are.
func (s *Server) tick(ctx context.Context) error {
	for {
		snap, err := s.ledger.Read()
		if err != nil {
			return err
		}
		last := snap.Time()
		due, ok, err := snap.NextTimer()
		if err := errors.Join(err, snap.Close()); err != nil {
			return err
		}
		// Consensus time can be ahead of this node's clock: what it has passed is due.
		now := s.now()
		if !ok || due > max(now, last) {
			return nil
		}
		tctx, cancel := context.WithTimeout(ctx, proposeWait)
		r, err := propose(tctx, s.raft, &ledger.Command{Type: ledger.CommandTick, Time: now})
		cancel()
		if err != nil {
			return err
		}
		if t, ok := r.(ledger.TickResult); !ok || t.Expired == 0 && !t.More {
			return nil
		}
	}
}

// readiness closes Ready when writes work, and then keeps health in step with it.
func (s *Server) readiness(ctx context.Context) error {
	const fast, slow = 10 * time.Millisecond, 500 * time.Millisecond
	interval := fast
	for {
		ok := s.writable(ctx)
		if ok && interval == fast {
			interval = slow
			close(s.ready)
			s.log.InfoContext(ctx, "ready", "ledger", fmt.Sprintf("%x", s.identity.ledger[:8]))
		}
		select {
		case <-s.stopping:
		default:
			if s.serving.Swap(ok) != ok {
				status := healthpb.HealthCheckResponse_NOT_SERVING
				if ok {
					status = healthpb.HealthCheckResponse_SERVING
				}
				s.health.SetServingStatus(healthService, status)
			}
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// writable says whether this node has applied the genesis and knows a leader that takes writes.
func (s *Server) writable(ctx context.Context) bool {
	if _, err := s.ledger.LedgerID(); err != nil {
		return false
	}
	if s.raft.Leading() {
		return true
	}
	leader, err := s.leader()
	if err != nil || leader == s.identity.id {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = s.leaderIndex(ctx, leader)
	return err == nil
}
