package node

import (
	"github.com/cairnkv/cairn/watchers"
	"github.com/prometheus/client_golang/prometheus"
)

// watchMetrics shows the watches of this node. One look at the hub serves all of
// them: it goes through every stream.
type watchMetrics struct{ hub *watchers.Hub }

var (
	watchesOpen = prometheus.NewDesc("cairn_watches", "Watches that are open.",
		[]string{"state"}, nil)
	watchesLag = prometheus.NewDesc("cairn_watch_lag_revisions", "Revisions that the watch which is furthest behind has before it.",
		nil, nil)
	watchesQueued = prometheus.NewDesc("cairn_watch_queued_bytes", "Bytes that wait in the queues of watches; what they share is counted for each.",
		nil, nil)
	watchesOpened = prometheus.NewDesc("cairn_watches_opened_total", "Watches that were opened.",
		nil, nil)
	watchesChanges = prometheus.NewDesc("cairn_watch_changes_total", "Changes handed to watches, live or from history.",
		[]string{"source"}, nil)
	watchesOverflowed = prometheus.NewDesc("cairn_watch_overflows_total", "Watches sent to history because their queue was full.",
		nil, nil)
	watchesForgotten = prometheus.NewDesc("cairn_watch_forgotten_total", "Times that all watches were sent to history because changes came faster than they are handed out.",
		nil, nil)
)

func (m watchMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{watchesOpen, watchesLag, watchesQueued, watchesOpened, watchesChanges, watchesOverflowed, watchesForgotten} {
		ch <- d
	}
}

func (m watchMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.hub.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(watchesOpen, float64(s.Live), "live")
	gauge(watchesOpen, float64(s.Behind), "behind")
	gauge(watchesLag, float64(s.Lag))
	gauge(watchesQueued, float64(s.QueuedBytes))
	count(watchesOpened, s.Opened)
	count(watchesChanges, s.Delivered, "live")
	count(watchesChanges, s.CaughtUp, "history")
	count(watchesOverflowed, s.Overflowed)
	count(watchesForgotten, s.Forgotten)
}
