package node

import (
	"github.com/cairnkv/cairn/storage"
	"github.com/prometheus/client_golang/prometheus"
)

// storageMetrics shows the work of the store on the disk. One account of it
// serves all of them.
type storageMetrics struct{ store *storage.Store }

var (
	storageCompactions = prometheus.NewDesc("cairn_storage_compactions_total", "Compactions of the store's tables since this member started.",
		nil, nil)
	storageFlushes = prometheus.NewDesc("cairn_storage_flushes_total", "Memtables that became tables since this member started.",
		nil, nil)
	storageDebt = prometheus.NewDesc("cairn_storage_compaction_debt_bytes", "Bytes that compactions have to rewrite before the store is in shape.",
		nil, nil)
	storageSublevels = prometheus.NewDesc("cairn_storage_l0_sublevels", "Layers of tables that were flushed and not yet compacted. Writes wait when they are too many.",
		nil, nil)
	storageMemtables = prometheus.NewDesc("cairn_storage_memtable_bytes", "Memory of memtables.",
		nil, nil)
	storageCache = prometheus.NewDesc("cairn_storage_cache_requests_total", "Blocks that reads looked for in the cache.",
		[]string{"result"}, nil)
	storageRows = prometheus.NewDesc("cairn_storage_row_cache_requests_total", "Keys that reads of a single key looked for among those that were read recently.",
		[]string{"result"}, nil)
)

func (m storageMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storageCompactions, storageFlushes, storageDebt, storageSublevels, storageMemtables, storageCache, storageRows} {
		ch <- d
	}
}

func (m storageMetrics) Collect(ch chan<- prometheus.Metric) {
	s, err := m.store.Metrics()
	if err != nil {
		return // a store that is closing has no figures
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(storageCompactions, s.Compact.Count)
	count(storageFlushes, s.Flush.Count)
	gauge(storageDebt, float64(s.Compact.EstimatedDebt))
	gauge(storageSublevels, float64(s.Levels[0].Sublevels))
	gauge(storageMemtables, float64(s.MemTable.Size))
	count(storageCache, s.BlockCache.Hits, "hit")
	count(storageCache, s.BlockCache.Misses, "miss")
	count(storageRows, s.RowHits, "hit")
	count(storageRows, s.RowMisses, "miss")
}
