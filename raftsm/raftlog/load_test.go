package raftlog_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
)

func init() {
	children["load"] = load
}

// load puts 2,000 entries of 300 bytes through a store, some of them in flight
// at a time, in a directory of its own, and prints what the node takes. It is
// what docs/parts-raftlog.md counts system calls of, with the test binary:
//
//	RAFTLOG_CHILD='load cairn 1 /some/dir' strace -f -c -e trace=fsync,fdatasync ./raftlog.test
func load(args []string) error {
	const entries = 2000
	flight, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	all := append(stores, storeChoice{"tan-defaults", func(nhc *config.NodeHostConfig) *raftlog.Log {
		nhc.Expert.LogDBFactory = tan.Factory
		return nil
	}}, storeChoice{"pebble-defaults", func(*config.NodeHostConfig) *raftlog.Log { return nil }})
	for _, s := range all {
		if s.name != args[0] {
			continue
		}
		n, err := startNode(args[2], &state{}, options{configure: s.configure, rtt: 20})
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		for range flight {
			wg.Go(func() {
				for range entries / flight {
					if _, err := n.propose(300); err != nil {
						panic(err)
					}
				}
			})
		}
		wg.Wait()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		var disk int64
		if err := walk(args[2], func(info os.FileInfo) { disk += info.Sys().(*syscall.Stat_t).Blocks * 512 }); err != nil {
			return err
		}
		_, rss, _ := strings.Cut(string(status), "VmRSS:")
		rss, _, _ = strings.Cut(rss, "\n")
		fmt.Printf("%s: heap %d KiB, resident %s, disk %d KiB, %d goroutines\n",
			s.name, m.HeapAlloc>>10, strings.TrimSpace(rss), disk>>10, runtime.NumGoroutine())
		n.host.Close()
		return nil
	}
	return fmt.Errorf("no store is called %s", args[0])
}

// TestLoad runs it once, for each store.
func TestLoad(t *testing.T) {
	for _, s := range stores {
		if out, ok := runChild(t, "load", s.name, "8", t.TempDir()); !ok {
			t.Error(out)
		} else {
			t.Log(strings.TrimSpace(out))
		}
	}
}
