package node

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's own numbers; consensus brings its own.
type metrics struct {
	registerer prometheus.Registerer
	gatherer   prometheus.Gatherer
	commit     prometheus.Histogram
	events     *prometheus.CounterVec
	all        []prometheus.Collector
}

func newMetrics(s *Server) *metrics {
	m := &metrics{registerer: s.opt.Registerer, gatherer: s.opt.Gatherer}
	if m.registerer == nil {
		r := prometheus.NewRegistry()
		m.registerer = r
		if m.gatherer == nil {
			m.gatherer = r
		}
	}
	if m.gatherer == nil {
		m.gatherer = prometheus.DefaultGatherer
	}
	m.commit = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "creto_submit_seconds", Help: "Time from a submission's arrival to its answer, forwarded ones included.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	})
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "creto_events_total", Help: "Events answered by this node, by what became of them.",
	}, []string{"state", "outcome"})
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m.all = []prometheus.Collector{
		m.commit, m.events,
		gauge("creto_edge_bytes", "Bytes of envelopes that wait for their commit on this node.", func() float64 {
			n, _ := s.edge.Load()
			return float64(n)
		}),
		gauge("creto_edge_tenants", "Tenants with events waiting on this node.", func() float64 {
			_, n := s.edge.Load()
			return float64(n)
		}),
		gauge("creto_applied_index", "Raft index of the last command in this node's state.", func() float64 { return float64(s.ledger.AppliedIndex()) }),
		gauge("creto_spine_size", "Epochs sealed, as this node has applied them.", func() float64 { return float64(s.published.Sealed().Size) }),
		gauge("creto_published_size", "Epochs under a checkpoint that the node quorum has cosigned.", func() float64 { return float64(s.publisher.Published().Size) }),
		gauge("creto_published_lag", "Epochs that are sealed and not yet published.", func() float64 {
			return max(0, float64(s.published.Sealed().Size)-float64(s.publisher.Published().Size))
		}),
		gauge("creto_ready", "1 while this node knows a leader that takes writes.", func() float64 {
			if s.serving.Load() {
				return 1
			}
			return 0
		}),
		gauge("creto_svid_expires_seconds", "Unix time at which the node's SVID expires.", func() float64 {
			return float64(s.source.SVID().Certificate().NotAfter.Unix())
		}),
	}
	return m
}

func (m *metrics) register() error {
	for _, c := range m.all {
		if err := m.registerer.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (m *metrics) unregister() {
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}
