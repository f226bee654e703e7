package consensus

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are this node's. Names begin with creto_consensus_; times are in seconds.
type metrics struct {
	applied, ticks, leaders, pushback, refused prometheus.Counter
	late, handovers                            prometheus.Counter
	checkpoints, verifiedEntries               prometheus.Counter
	verifySkipped                              prometheus.Counter
	verifyFailed                               *prometheus.CounterVec
	scrubbed, scrubTime                        prometheus.Gauge
	batch, apply, propose                      prometheus.Histogram
	storage                                    *prometheus.HistogramVec
	all                                        []prometheus.Collector
	registered                                 bool
}

func newMetrics(n *Node) *metrics {
	m := &metrics{}
	add := func(c prometheus.Collector) { m.all = append(m.all, c) }
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "creto", Subsystem: "consensus", Name: name, Help: help})
		add(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "creto", Subsystem: "consensus", Name: name, Help: help, Buckets: buckets})
		add(h)
		return h
	}
	gauge := func(name, help string, f func() float64) {
		add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "creto", Subsystem: "consensus", Name: name, Help: help}, f))
	}
	seconds := prometheus.ExponentialBuckets(0.0001, 2, 17)
	m.applied = counter("commands_applied_total", "Committed commands handed to the state machine.")
	m.ticks = counter("read_ticks_total", "Entries proposed for linearizable reads and new leaders.")
	m.leaders = counter("leader_changes_total", "Leaders this node has seen come.")
	m.pushback = counter("pushback_total", "Requests refused because a bound was reached.")
	m.refused = counter("peers_refused_total", "Peer connections refused or cut.")
	m.late = counter("storage_late_total", "Calls to the log that took longer than the hand-over timeout (2s).")
	m.handovers = counter("storage_handovers_total", "Requests to another node to lead because the log was late here.")
	m.checkpoints = counter("checkpoints_written_total", "Checkpoints stored in the log, on the leader and on followers.")
	m.verifiedEntries = counter("log_entries_verified_total", "Entries that were read back from the log as a checkpoint says they were written.")
	m.verifySkipped = counter("log_verify_skipped_total", "Checkpoints whose range was not compared: truncated, not in this log, or written too fast to be read back at once. The scrub reads them.")
	m.verifyFailed = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "creto", Subsystem: "consensus", Name: "log_verify_failures_total",
		Help: "Ranges of the log that differ from what the leader wrote: at rest (on this disk) or in flight (on the way here)."}, []string{"where"})
	for _, where := range []string{"rest", "flight"} {
		m.verifyFailed.WithLabelValues(where)
	}
	add(m.verifyFailed)
	settable := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "creto", Subsystem: "consensus", Name: name, Help: help})
		add(g)
		return g
	}
	m.scrubbed = settable("log_scrubbed_index", "Last entry re-read by the scrub under way, or by the last one.")
	m.scrubTime = settable("log_scrub_seconds", "Time of the last complete scrub of the log.")
	m.batch = histogram("apply_batch_commands", "Commands per call of the state machine.", prometheus.ExponentialBuckets(1, 2, 9))
	m.apply = histogram("apply_seconds", "Time of one call of the state machine.", seconds)
	m.propose = histogram("propose_seconds", "From proposal to its application here, when it succeeded.", seconds)
	m.storage = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "creto", Subsystem: "consensus",
		Name: "storage_seconds", Help: "Time of writes to the log.", Buckets: seconds}, []string{"op"})
	add(m.storage)
	gauge("proposals_in_flight", "Proposals that wait for their commit.", func() float64 { return float64(len(n.slots)) })
	gauge("proposal_bytes_in_flight", "Bytes of those proposals.", func() float64 { return float64(n.bytes.Load()) })
	gauge("applied_index", "Last entry that passed through the state machine.", func() float64 { return float64(n.applied.Load()) })
	gauge("last_index", "Last entry in the log.", func() float64 { return float64(n.raft.LastIndex()) })
	gauge("commit_index", "Last entry known to be committed.", func() float64 { return float64(n.raft.CommitIndex()) })
	gauge("term", "Current term.", func() float64 { return float64(n.raft.CurrentTerm()) })
	gauge("disk_free_bytes", "Room on the file system of the data directory.", func() float64 { return float64(n.disk.free.Load()) })
	gauge("disk_reserve_bytes", "Room below which no proposals are taken.", func() float64 { return float64(n.disk.reserve.Load()) })
	gauge("disk_full", "1 while no proposals are taken because the disk is nearly full.", func() float64 {
		if n.disk.full.Load() {
			return 1
		}
		return 0
	})
	gauge("leading", "1 while this node leads and has applied an entry of its term.", func() float64 {
		if n.Leading() {
			return 1
		}
		return 0
	})
	gauge("log_records_dropped", "Log records dropped because the sink was slow.", func() float64 { return float64(n.sink.Dropped()) })
	return m
}

func (m *metrics) observeStore(op string, took time.Duration) {
	switch op {
	case "append to log", "delete from log", "write stable store":
		m.storage.WithLabelValues(op).Observe(took.Seconds())
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for i, c := range m.all {
		if err := r.Register(c); err != nil {
			for _, c := range m.all[:i] {
				r.Unregister(c)
			}
			return fmt.Errorf("register: %w", err)
		}
	}
	m.registered = true
	return nil
}

func (m *metrics) unregister(r prometheus.Registerer) {
	if !m.registered {
		return
	}
	for _, c := range m.all {
		r.Unregister(c)
	}
}
