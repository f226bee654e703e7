package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	"github.com/creto-systems/creto/test/invariants"
)

// loneSigned: events with a signature each.
func (b *bench) loneSigned(ctx context.Context) error {
	return b.throughput(ctx, "lone-signed", 0, b.lone, 5000)
}

// batchSigned: 256 events to a signature.
func (b *bench) batchSigned(ctx context.Context) error {
	return b.throughput(ctx, "batch-signed (256)", 256, 1, 25000)
}

// throughput measures what the cluster takes at most, then the latency at the target's rate, and what is written.
func (b *bench) throughput(ctx context.Context, name string, batch, per int, target float64) error {
	agents, err := b.agents(ctx, 8)
	if err != nil {
		return err
	}
	leader, err := b.c.Leader(ctx)
	if err != nil {
		return err
	}
	// A short load tells how many events a long one needs, and warms up.
	warm, err := b.sign(ctx, agents, int(target*2), batch, per)
	if err != nil {
		return err
	}
	w, err := b.drive(ctx, leader, warm, b.flight, 0, time.Minute)
	if err != nil {
		return err
	}
	rate := float64(w.events) / w.took.Seconds()
	requests, err := b.sign(ctx, agents, int(rate*1.3*b.seconds.Seconds()), batch, per)
	if err != nil {
		return err
	}
	before, err := b.written()
	if err != nil {
		return err
	}
	stop, err := b.lag(ctx, leader)
	if err != nil {
		return err
	}
	cpu, err := b.cpu()
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "  loading node %d, which leads, for %v\n", leader, b.seconds)
	used, total := busy()
	l, err := b.drive(ctx, leader, requests, b.flight, 0, b.seconds)
	lag := stop()
	if err != nil {
		return err
	}
	used2, total2 := busy()
	spent, err := b.cpu()
	if err != nil {
		return err
	}
	more := l.calls.summary()
	more["seconds"], more["events"], more["pushed_back"] = l.took.Seconds(), float64(l.events), float64(l.retries)
	note := fmt.Sprintf("%d lone events to a request, %d requests under way", per, b.flight)
	if batch > 0 {
		note = fmt.Sprintf("one batch to a request, %d requests under way", b.flight)
	}
	b.add(expected(atLeast(Figure{Name: name + ", committed", Value: float64(l.events) / l.took.Seconds(), Unit: "events/s", More: more, Note: note}, target)))
	m := lag.summary()
	b.add(Figure{Name: name + ", published after", Value: m["p99_ms"], Unit: "ms p99", More: m})
	// What else runs on the machine takes its share: processor time says what the figure would be without.
	ours, work := time.Duration(0), make(map[string]float64)
	for i := range spent {
		d := spent[i] - cpu[i]
		ours += d
		role := "client"
		if i == leader {
			role = "leader"
		} else if i < len(b.c.Nodes) {
			role = fmt.Sprintf("follower%d", i)
		}
		work[role+"_µs"] = float64(d.Microseconds()) / float64(l.events)
	}
	work["others_cores"] = float64(b.report.Machine.Cores)*(used2-used)/(total2-total) - ours.Seconds()/l.took.Seconds()
	work["alone_events/s"] = float64(b.report.Machine.Cores) * float64(l.events) / ours.Seconds()
	b.add(Figure{Name: name + ", processor time", Value: float64(ours.Microseconds()) / float64(l.events), Unit: "µs/event", More: work, Note: "all nodes and the client"})
	if err := b.c.Settle(ctx); err != nil {
		return err
	}
	after, err := b.written()
	if err != nil {
		return err
	}
	most, size := 0.0, float64(l.bytes)/float64(l.events)
	for i := range after {
		most = max(most, float64(after[i]-before[i])/float64(l.events))
	}
	f := Figure{Name: name + ", written per node", Value: most, Unit: "B/event", More: map[string]float64{"signed_bytes": size}, Note: "raft log, state store and local store, as /proc counts them"}
	if batch > 0 {
		b.add(below(f, 4096))
	} else {
		b.add(below(f, 4*size))
	}

	// Latency at half of that, where the queue is not always full.
	pace := float64(l.events) / l.took.Seconds() / 2
	paced, err := b.sign(ctx, agents, int(pace*min(10, b.seconds.Seconds())), batch, per)
	if err != nil {
		return err
	}
	p, err := b.drive(ctx, leader, paced, 4*b.flight, pace, 5*time.Minute)
	if err != nil {
		return err
	}
	m = p.calls.summary()
	f = Figure{Name: name + ", latency at half that rate", Value: m["p99_ms"], Unit: "ms p99", More: m, Note: fmt.Sprintf("%.0f/s", float64(p.events)/p.took.Seconds())}
	if batch == 0 {
		f = below(f, 50)
	}
	b.add(f)
	return nil
}

// quotaQuery: linearizable reads of a quota at 1,000/s, at the leader and at a follower.
func (b *bench) quotaQuery(ctx context.Context) error {
	account, err := b.t.Account(ctx, "tok", 1000)
	if err != nil {
		return err
	}
	leader, err := b.c.Leader(ctx)
	if err != nil {
		return err
	}
	for _, at := range []struct {
		name string
		node int
	}{{"leader", leader}, {"follower", (leader + 1) % len(b.c.Nodes)}} {
		conn, err := b.dial(at.node)
		if err != nil {
			return err
		}
		client := cretov1.NewMeterServiceClient(conn)
		actx := b.authorized(ctx)
		const rate, flight = 1000, 64
		total := rate * int(min(10, b.seconds.Seconds()))
		var mu sync.Mutex
		var all latencies
		start := time.Now()
		g, gctx := errgroup.WithContext(actx)
		for w := range flight {
			g.Go(func() error {
				var own latencies
				for i := w; i < total; i += flight {
					began := start.Add(time.Duration(i) * time.Second / rate)
					if d := time.Until(began); d > 0 {
						time.Sleep(d)
					}
					r, err := client.GetQuota(gctx, &cretov1.GetQuotaRequest{Tenant: b.t.ID[:], Account: account[:], Meter: "tok"})
					if err != nil {
						return err
					}
					if !r.GetRead().GetLinearizable() {
						return fmt.Errorf("an answer is not linearizable")
					}
					own = append(own, time.Since(began))
				}
				mu.Lock()
				all = append(all, own...)
				mu.Unlock()
				return nil
			})
		}
		err = g.Wait()
		_ = conn.Close()
		if err != nil {
			return err
		}
		m := all.summary()
		b.add(below(Figure{Name: "linearizable quota query, " + at.name, Value: m["p99_ms"], Unit: "ms p99", More: m, Note: "1,000/s for " + time.Since(start).Round(time.Second).String()}, 10))
	}
	return nil
}

// findAndProve: 100 leaves by agent, kind and time over gRPC; then, on the stopped node's store, proofs without a network.
func (b *bench) findAndProve(ctx context.Context) error {
	leader, err := b.c.Leader(ctx)
	if err != nil {
		return err
	}
	conn, err := b.dial(leader)
	if err != nil {
		return err
	}
	defer conn.Close()
	actx := b.authorized(ctx)
	events := cretov1.NewEventServiceClient(conn)
	last, err := events.ListEvents(actx, &cretov1.ListEventsRequest{Tenant: b.t.ID[:], PageSize: 1, NewestFirst: true, Filter: &cretov1.EventFilter{Kind: kind.Usage}})
	if err != nil {
		return err
	}
	if len(last.GetEvents()) == 0 {
		return fmt.Errorf("the log has no usage: run lone or batch first")
	}
	leaf, err := verify.DecodeLeaf(last.GetEvents()[0].GetLeaf())
	if err != nil {
		return err
	}
	size := float64(last.GetRead().GetTreeSize())
	var find latencies
	for range 300 {
		from := uint64(rand.Int64N(int64(size)/2 + 1))
		start := time.Now()
		page, err := events.ListEvents(actx, &cretov1.ListEventsRequest{
			Tenant: b.t.ID[:], PageSize: 100, Filter: &cretov1.EventFilter{Kind: kind.Usage, Agent: leaf.Agent[:], FromTimeNs: 1, ToTimeNs: leaf.Time + 1, FromIndex: from},
		})
		if err != nil {
			return err
		}
		if len(page.GetEvents()) == 0 {
			return fmt.Errorf("nothing found from leaf %d on", from)
		}
		find = append(find, time.Since(start))
	}
	m := find.summary()
	b.add(below(Figure{Name: "find 100 leaves by agent, kind, time", Value: m["p99_ms"], Unit: "ms p99", More: m, Note: fmt.Sprintf("of %.0f leaves, over gRPC, linearizable", size)}, 50))

	follower := (leader + 1) % len(b.c.Nodes)
	if err := b.c.Kill(follower); err != nil {
		return err
	}
	if err := b.prove(follower); err != nil {
		return err
	}
	if err := b.c.StartNode(follower); err != nil {
		return err
	}
	return b.c.WaitNode(ctx, follower)
}

func (b *bench) prove(i int) error {
	s, err := invariants.Open("node", b.c.Nodes[i].Dir)
	if err != nil {
		return err
	}
	defer s.Close()
	t, err := s.Snap.Tenant(b.t.ID)
	if err != nil {
		return err
	}
	head, err := s.Snap.Head(t.Slot)
	if err != nil {
		return err
	}
	if head.Size == 0 {
		return fmt.Errorf("the store has no leaves")
	}
	var built, verified latencies
	for range 2000 {
		index := uint64(rand.Int64N(int64(head.Size)))
		raw, err := s.Snap.Leaf(t.Slot, index)
		if err != nil {
			return err
		}
		start := time.Now()
		path, err := s.Snap.Inclusion(t.Slot, index, head.Size)
		built = append(built, time.Since(start))
		if err != nil {
			return err
		}
		start = time.Now()
		err = verify.VerifyInclusion(index, head.Size, verify.LeafHash(raw), path, head.Root)
		verified = append(verified, time.Since(start))
		if err != nil {
			return err
		}
	}
	note := fmt.Sprintf("of %d leaves", head.Size)
	m := built.summary()
	b.add(below(Figure{Name: "inclusion proof built", Value: m["p50_ms"] * 1000, Unit: "µs p50", More: m, Note: note}, 200))
	m = verified.summary()
	b.add(below(Figure{Name: "inclusion proof verified", Value: m["p50_ms"] * 1000, Unit: "µs p50", More: m, Note: note}, 200))
	return nil
}

// leaderKill: how long after kill -9 of the leader writes are acknowledged again, several times.
func (b *bench) leaderKill(ctx context.Context) error {
	account, err := b.t.Account(ctx, "tok", 0)
	if err != nil {
		return err
	}
	var took latencies
	const rounds = 5
	for range rounds {
		// A healthy cluster: the node that was killed before has everything again, and could lead.
		if err := b.c.Settle(ctx); err != nil {
			return err
		}
		leader, err := b.c.Leader(ctx)
		if err != nil {
			return err
		}
		p, err := b.t.Worker(ctx, nil)
		if err != nil {
			return err
		}
		// Clients of all three nodes, as they would be: one writer for each, none of which knows who leads.
		var writers errgroup.Group
		first := make(chan time.Duration, len(b.c.Nodes))
		start := time.Now()
		if err := b.c.Kill(leader); err != nil {
			return err
		}
		wctx, cancel := context.WithTimeout(ctx, time.Minute)
		for i := range b.c.Nodes {
			if i == leader {
				continue
			}
			conn, err := b.dial(i)
			if err != nil {
				cancel()
				return err
			}
			defer conn.Close()
			a, err := b.t.Act(p, account)
			if err != nil {
				cancel()
				return err
			}
			writers.Go(func() error {
				for wctx.Err() == nil {
					s, err := a.Sign(kind.Usage, body)
					if err != nil {
						return err
					}
					tctx, stop := context.WithTimeout(b.authorized(wctx), 500*time.Millisecond)
					_, err = cretov1.NewEventServiceClient(conn).Submit(tctx, &cretov1.SubmitRequest{Tenant: b.t.ID[:], Envelopes: []*cretov1.Envelope{s.Message()}})
					stop()
					if err == nil {
						first <- time.Since(start)
						return nil
					}
					select {
					case <-wctx.Done():
					case <-time.After(10 * time.Millisecond):
					}
				}
				return wctx.Err()
			})
		}
		err = writers.Wait()
		cancel()
		if err != nil {
			return err
		}
		took = append(took, <-first)
		if err := b.c.StartNode(leader); err != nil {
			return err
		}
		if err := b.c.WaitNode(ctx, leader); err != nil {
			return err
		}
	}
	m := took.summary()
	b.add(expected(below(Figure{Name: "leader killed, writes resume", Value: m["max_ms"] / 1000, Unit: "s max", More: m, Note: fmt.Sprintf("%d rounds", rounds)}, 3)))
	return nil
}

// restart: from the start of a killed node's process to ready, with everything in its log.
func (b *bench) restart(ctx context.Context) error {
	leader, err := b.c.Leader(ctx)
	if err != nil {
		return err
	}
	follower := (leader + 1) % len(b.c.Nodes)
	if err := b.c.Settle(ctx); err != nil {
		return err
	}
	st, err := b.c.Status(ctx, leader)
	if err != nil {
		return err
	}
	if err := b.c.Kill(follower); err != nil {
		return err
	}
	start := time.Now()
	if err := b.c.StartNode(follower); err != nil {
		return err
	}
	if err := b.c.WaitNode(ctx, follower); err != nil {
		return err
	}
	// Ready is not enough: it must also have what it had, which it reads again from its Raft log.
	if err := b.c.Settle(ctx); err != nil {
		return err
	}
	took := time.Since(start)
	rss := residentMiB(b.c.PID(follower))
	b.add(below(Figure{
		Name: "restart after kill -9, caught up", Value: took.Seconds(), Unit: "s", More: map[string]float64{"resident_MiB": rss},
		Note: fmt.Sprintf("%d log entries in %s", st.GetLastIndex(), filepath.Base(b.c.Nodes[follower].Dir)),
	}, 10))
	return nil
}

// residentMiB is the memory that a process holds now.
func residentMiB(pid int) float64 {
	v, _, _ := strings.Cut(field("/proc/"+strconv.Itoa(pid)+"/status", "VmRSS"), " ")
	kib, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return 0
	}
	return kib / 1024
}
