package consensus

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// nullSM counts.
type nullSM struct{ applied atomic.Uint64 }

func (s *nullSM) Apply(entries []Entry) ([]any, error) {
	s.applied.Store(entries[len(entries)-1].Index)
	return make([]any, len(entries)), nil
}
func (s *nullSM) AppliedIndex() uint64 { return s.applied.Load() }

// BenchmarkPropose measures proposals of 1 KiB, durable on two of three nodes that share this machine, over TLS.
func BenchmarkPropose(b *testing.B) {
	for _, clients := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			c := newCluster(b, 3, newPKI(b), func(cfg *Config) {
				cfg.StateMachine = &nullSM{}
				cfg.Heartbeat, cfg.Election, cfg.LeaderLease = time.Second, time.Second, 500*time.Millisecond
			})
			l := c.leader()
			data := make([]byte, 1024)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			start := time.Now()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, _, err := l.node.Propose(b.Context(), data); err != nil {
							b.Errorf("propose: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "commits/s")
		})
	}
}

// BenchmarkReadIndex measures linearizable read positions on the leader.
func BenchmarkReadIndex(b *testing.B) {
	for _, clients := range []int{1, 512} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			c := newCluster(b, 3, newPKI(b), func(cfg *Config) { cfg.StateMachine = &nullSM{} })
			l := c.leader()
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := l.node.ReadIndex(b.Context()); err != nil {
							b.Errorf("read index: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
		})
	}
}

// BenchmarkRestart opens a node with a log of 1,000,000 entries of 256 bytes, whose state machine has applied all of
// them ("applied") or nothing ("replay"), and waits until it leads.
func BenchmarkRestart(b *testing.B) {
	dir := b.TempDir()
	if err := os.MkdirAll(dir+"/"+walDir, 0o700); err != nil {
		b.Fatal(err)
	}
	w, err := openWAL(dir+"/"+walDir, discardHCLog(), nil)
	if err != nil {
		b.Fatal(err)
	}
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a", Suffrage: raft.Voter}}})
	if err := w.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: conf}); err != nil {
		b.Fatal(err)
	}
	if err := w.Set(keyHistory, encodeHistory([]configurationAt{{1, conf}})); err != nil {
		b.Fatal(err)
	}
	if err := w.SetUint64(keyCurrentTerm, 1); err != nil {
		b.Fatal(err)
	}
	const entries = 1_000_000
	for i := uint64(2); i <= entries; {
		var batch []*raft.Log
		for ; i <= entries && len(batch) < 1024; i++ {
			batch = append(batch, &raft.Log{Index: i, Term: 1, Data: make([]byte, 256)})
		}
		if err := w.StoreLogs(batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	for name, applied := range map[string]uint64{"applied": entries, "replay": 0} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				sm := &nullSM{}
				sm.applied.Store(applied)
				m := &member{id: "a", dir: dir}
				m.cfg = Config{NodeID: "a", DataDir: dir, StateMachine: sm, Network: NewMemNetwork(),
					Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, LeaderLease: 50 * time.Millisecond}
				c := &cluster{t: b, members: map[string]*member{"a": m}}
				start := time.Now()
				c.start("a")
				open := time.Since(start)
				c.leader()
				b.ReportMetric(open.Seconds(), "open-s")
				b.ReportMetric(time.Since(start).Seconds(), "leading-s")
				c.stop("a")
			}
		})
	}
}
