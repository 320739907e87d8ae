package raftlog_test

import (
	"os"
	"strconv"
	"sync"
	"testing"
)

// TestSyncCountLoad is what docs/parts-raftlog.md counts system calls of:
//
//	RAFTLOG_COUNT=cairn,1,2000 strace -f -c -e trace=fsync,fdatasync …
func TestSyncCountLoad(t *testing.T) {
	store, n, flight := os.Getenv("RAFTLOG_STORE"), 2000, 1
	if store == "" {
		t.Skip("RAFTLOG_STORE is not set")
	}
	flight, _ = strconv.Atoi(os.Getenv("RAFTLOG_FLIGHT"))
	for _, s := range stores {
		if s.name != store {
			continue
		}
		node := mustStart(t, t.TempDir(), &state{}, options{configure: s.configure, rtt: 20})
		var wg sync.WaitGroup
		for range flight {
			wg.Go(func() {
				for range n / flight {
					if _, err := node.propose(300); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		node.host.Close()
	}
}
