package raftlog_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/raftsm/raftlog"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
)

// stores are the log stores that can be chosen from, with the settings of a
// small install.
var stores = []storeChoice{
	{"cairn", ours},
	{"tan", plainTan},
	{"pebble", plainPebble},
}

type storeChoice struct {
	name      string
	configure func(*config.NodeHostConfig) *raftlog.Log
}

// plainTan is the store underneath ours, as it comes.
func plainTan(nhc *config.NodeHostConfig) *raftlog.Log {
	raftlog.Apply(nhc, nil, nil, nil)
	nhc.Expert.LogDBFactory = tan.Factory
	return nil
}

// plainPebble is Dragonboat's default store.
func plainPebble(nhc *config.NodeHostConfig) *raftlog.Log {
	raftlog.Apply(nhc, nil, nil, nil)
	nhc.Expert.LogDBFactory = nil
	nhc.Expert.LogDB.KVWriteBufferSize = 16 << 20
	nhc.Expert.LogDB.KVMaxWriteBufferNumber = 4
	return nil
}

// BenchmarkStores puts entries through one replica on a real disk. The stores
// take turns within one run, in rounds, so that their ratio means something
// where the disk is shared: the unit "rel" is a store's throughput divided by
// that of the first.
//
//	go test -run '^$' -bench Stores -benchtime 1x ./raftsm/raftlog
func BenchmarkStores(b *testing.B) {
	const (
		rounds = 4
		turn   = 500 * time.Millisecond
	)
	for _, size := range []int{300, 16 << 10, 200 << 10} {
		for _, flight := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("size=%d/flight=%d", size, flight), func(b *testing.B) {
				nodes := make([]*node, len(stores))
				done := make([]int, len(stores))
				spent := make([]time.Duration, len(stores))
				for i, s := range stores {
					nodes[i] = mustStart(b, b.TempDir(), &state{}, options{configure: s.configure, snapshotEntries: 10000, rtt: 20})
					nodes[i].mustPropose(b, size)
				}
				b.ResetTimer()
				for range b.N {
					for range rounds {
						for i, n := range nodes {
							count, took := n.load(b, size, flight, turn)
							done[i] += count
							spent[i] += took
						}
					}
				}
				b.StopTimer()
				base := float64(done[0]) / spent[0].Seconds()
				for i, s := range stores {
					rate := float64(done[i]) / spent[i].Seconds()
					b.ReportMetric(rate, s.name+"/s")
					b.ReportMetric(rate/base, s.name+"-rel")
					b.ReportMetric(float64(nodes[i].refused.Load()), s.name+"-refused")
					nodes[i].host.Close()
				}
			})
		}
	}
}

// load keeps flight proposals going for a while and counts them.
func (n *node) load(b *testing.B, size, flight int, turn time.Duration) (int, time.Duration) {
	start := time.Now()
	counts := make([]int, flight)
	var wg sync.WaitGroup
	for i := range flight {
		wg.Go(func() {
			for time.Since(start) < turn {
				if _, err := n.propose(size); err != nil {
					b.Error(err)
					return
				}
				counts[i]++
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	total := 0
	for _, c := range counts {
		total += c
	}
	return total, took
}
