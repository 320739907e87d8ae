package node

import (
	"runtime"

	"github.com/cairnkv/cairn/kv"
	"github.com/prometheus/client_golang/prometheus"
)

// Status is what the node knows at this moment.
func (n *Node) Status() kv.Status {
	id := &n.dir.Identity
	leader, term := n.shard.Leader()
	s := kv.Status{
		ClusterID: id.ClusterID, MemberID: id.MemberID, Name: id.Name, Replica: id.Replica,
		Leader: leader, Term: term, QuotaBytes: n.cfg.QuotaBytes, DiskFreeBytes: n.guard.free.Load(),
		InTouch: n.shard.Ready() == nil, LastLinearizable: n.shard.LastRound(), StartedAt: n.started,
	}
	// A store that is closing has no figures; the node is about to be gone.
	if stats, err := n.shard.Store().Stats(); err == nil {
		s.AppliedIndex, s.Revision, s.CompactRevision = stats.AppliedIndex, stats.Revision, stats.Compact
		s.Keys, s.Leases, s.IdempotencyRecords = stats.Keys, stats.Leases, stats.Idempotency
		s.ClockMillis, s.DiskBytes, s.ClusterVersion = stats.Clock, stats.DiskBytes, stats.ClusterVersion
	}
	if v, err := n.shard.Store().View(); err == nil {
		defer v.Close()
		if members, err := v.Members(); err == nil {
			s.Members = members
		}
		if alarms, err := v.Alarms(); err == nil {
			s.Alarms = alarms
		}
	}
	return s
}

// countRenewals counts the leases that a renewal found.
func (n *Node) countRenewals(r *kv.Result) {
	renewed := uint64(0)
	for i := range r.Leases {
		if r.Leases[i].Code == kv.OK {
			renewed++
		}
	}
	n.renewals.Add(renewed)
}

// statusMetrics shows the node's status. One look at it serves all figures.
type statusMetrics struct {
	n       *Node
	figures []statusFigure
}

// statusFigure is one gauge or counter of the status.
type statusFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(n *Node, s *kv.Status) float64
}

func newStatusMetrics(n *Node) statusMetrics {
	figure := func(kind prometheus.ValueType, name, help string, value func(*Node, *kv.Status) float64) statusFigure {
		return statusFigure{prometheus.NewDesc("cairn_"+name, help, nil, nil), kind, value}
	}
	gauge := func(name, help string, value func(*Node, *kv.Status) float64) statusFigure {
		return figure(prometheus.GaugeValue, name, help, value)
	}
	counter := func(name, help string, value func(*Node, *kv.Status) float64) statusFigure {
		return figure(prometheus.CounterValue, name, help, value)
	}
	build := prometheus.NewDesc("cairn_build_info", "1; the labels say what runs.", nil,
		prometheus.Labels{"version": n.cfg.Version, "go": runtime.Version(), "member": n.dir.Identity.Name})
	return statusMetrics{n, []statusFigure{
		{build, prometheus.GaugeValue, func(*Node, *kv.Status) float64 { return 1 }},
		gauge("revision", "Revision of this member's store.", func(_ *Node, s *kv.Status) float64 { return float64(s.Revision) }),
		gauge("compact_revision", "Revision at which history begins.", func(_ *Node, s *kv.Status) float64 { return float64(s.CompactRevision) }),
		gauge("applied_index", "Log index of the newest applied entry.", func(_ *Node, s *kv.Status) float64 { return float64(s.AppliedIndex) }),
		gauge("keys", "Keys that exist.", func(_ *Node, s *kv.Status) float64 { return float64(s.Keys) }),
		gauge("leases", "Leases that exist.", func(_ *Node, s *kv.Status) float64 { return float64(s.Leases) }),
		gauge("idempotency_records", "Remembered answers.", func(_ *Node, s *kv.Status) float64 { return float64(s.IdempotencyRecords) }),
		gauge("disk_bytes", "Bytes that the store takes on disk.", func(_ *Node, s *kv.Status) float64 { return float64(s.DiskBytes) }),
		gauge("quota_bytes", "Bytes that the store may take on disk.", func(_ *Node, s *kv.Status) float64 { return float64(s.QuotaBytes) }),
		gauge("disk_free_bytes", "Bytes that the file system has left, the least of those of the log and of the store.", func(_ *Node, s *kv.Status) float64 { return float64(s.DiskFreeBytes) }),
		gauge("term", "Raft term.", func(_ *Node, s *kv.Status) float64 { return float64(s.Term) }),
		gauge("has_leader", "1 if this member knows a leader.", func(_ *Node, s *kv.Status) float64 { return oneIf(s.Leader != 0) }),
		gauge("is_leader", "1 if this member leads.", func(_ *Node, s *kv.Status) float64 { return oneIf(s.Leader == s.Replica) }),
		gauge("restoring", "1 while this member's store is being filled from a backup.", func(n *Node, _ *kv.Status) float64 { return oneIf(!n.restored()) }),
		gauge("ready", "1 while linearizable rounds succeed.", func(n *Node, _ *kv.Status) float64 { return oneIf(n.Ready() == nil) }),
		gauge("alarms", "Active alarms of all members.", func(_ *Node, s *kv.Status) float64 { return float64(len(s.Alarms)) }),
		gauge("leases_held", "Leases that connections to this member hold.", func(n *Node, _ *kv.Status) float64 { return float64(n.holds.Held()) }),
		gauge("proposals_waiting", "Commands that wait on this member to be proposed.", func(n *Node, _ *kv.Status) float64 { return float64(n.shard.Waiting()) }),
		counter("lease_renewals_total", "Leases that were renewed through this member.", func(n *Node, _ *kv.Status) float64 { return float64(n.renewals.Load()) }),
		counter("leases_expired_total", "Leases that this member has ended as the leader.", func(n *Node, _ *kv.Status) float64 { return float64(n.clock.Expired()) }),
	}}
}

// Describe implements prometheus.Collector.
func (m statusMetrics) Describe(ch chan<- *prometheus.Desc) {
	for i := range m.figures {
		ch <- m.figures[i].desc
	}
}

// Collect implements prometheus.Collector.
func (m statusMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.n.Status()
	for i := range m.figures {
		f := &m.figures[i]
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(m.n, &s))
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
