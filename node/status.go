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
		LastLinearizable: n.shard.LastRound(), StartedAt: n.started,
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

// registerMetrics makes the node's figures visible.
func registerMetrics(r prometheus.Registerer, n *Node) {
	gauge := func(name, help string, value func(*kv.Status) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "cairn", Name: name, Help: help}, func() float64 {
			s := n.Status()
			return value(&s)
		}))
	}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "cairn", Name: "build_info", Help: "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": n.cfg.Version, "go": runtime.Version(), "member": n.dir.Identity.Name},
	}, func() float64 { return 1 }))
	gauge("revision", "Revision of this member's store.", func(s *kv.Status) float64 { return float64(s.Revision) })
	gauge("compact_revision", "Revision at which history begins.", func(s *kv.Status) float64 { return float64(s.CompactRevision) })
	gauge("applied_index", "Log index of the newest applied entry.", func(s *kv.Status) float64 { return float64(s.AppliedIndex) })
	gauge("keys", "Keys that exist.", func(s *kv.Status) float64 { return float64(s.Keys) })
	gauge("leases", "Leases that exist.", func(s *kv.Status) float64 { return float64(s.Leases) })
	gauge("idempotency_records", "Remembered answers.", func(s *kv.Status) float64 { return float64(s.IdempotencyRecords) })
	gauge("disk_bytes", "Bytes that the store takes on disk.", func(s *kv.Status) float64 { return float64(s.DiskBytes) })
	gauge("quota_bytes", "Bytes that the store may take on disk.", func(s *kv.Status) float64 { return float64(s.QuotaBytes) })
	gauge("disk_free_bytes", "Bytes that the file system has left.", func(s *kv.Status) float64 { return float64(s.DiskFreeBytes) })
	gauge("term", "Raft term.", func(s *kv.Status) float64 { return float64(s.Term) })
	gauge("has_leader", "1 if this member knows a leader.", func(s *kv.Status) float64 { return oneIf(s.Leader != 0) })
	gauge("is_leader", "1 if this member leads.", func(s *kv.Status) float64 { return oneIf(s.Leader == s.Replica) })
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "cairn", Name: "leases_held", Help: "Leases that connections to this member hold.",
	}, func() float64 { return float64(n.holds.Held()) }))
	gauge("restoring", "1 while this member's store is being filled from a backup.", func(*kv.Status) float64 { return oneIf(n.serving() != nil) })
	gauge("ready", "1 while linearizable rounds succeed.", func(*kv.Status) float64 { return oneIf(n.Ready() == nil) })
	counter := func(name, help string, value func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "cairn", Name: name, Help: help}, func() float64 {
			return float64(value())
		}))
	}
	counter("lease_renewals_total", "Leases that were renewed through this member.", n.renewals.Load)
	counter("leases_expired_total", "Leases that this member has ended as the leader.", n.clock.Expired)
	gauge("alarms", "Active alarms of all members.", func(s *kv.Status) float64 { return float64(len(s.Alarms)) })
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
