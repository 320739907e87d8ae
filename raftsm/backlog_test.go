package raftsm

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// TestAppliedOfEachShard: what the transport is told of a shard is that shard's.
func TestAppliedOfEachShard(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "k", "v")
	r := roster{m.host, m.shard.Store()}
	if first, other := r.Applied(1), r.Applied(2); first == 0 || other != 0 || r.HasShard(2) {
		t.Errorf("entry %d of the shard is applied, and %d of one that is not there", first, other)
	}
}

// TestLeaderThatAppliesNothing: a leader whose store stands still takes so much from the
// others as it may hold, and no more; when it goes on, so do they.
func TestLeaderThatAppliesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: writes 128 MiB to each of three members; scripts/test.sh runs it without the race detector")
	}
	var stuck atomic.Pointer[member]
	release := make(chan struct{})
	members := cluster(t, func(_ int, m *member) {
		m.cfg.Timeout = 2 * time.Second
		m.cfg.Callbacks.Applied = func(uint64, uint64, []kv.Event) {
			if stuck.Load() == m {
				<-release
			}
		}
	})
	lead, follow := leader(t, members)
	stuck.Store(lead)
	value := strings.Repeat("v", 1<<20)
	postponed := func() bool { return lead.host.PeerStats().PostponedMessages > 0 }
	for i := 0; !postponed(); i++ {
		if i > 2*maxInMemoryLogBytes/len(value) {
			t.Error("the leader takes whatever comes")
			break
		}
		// Some may not be confirmed in time; they are in its log for all that.
		_, _ = follow[0].shard.Propose(context.Background(), put(fmt.Sprint(i%8), value))
	}
	close(release)
	eventually(t, "writes go on", func() bool {
		_, err := follow[0].shard.Propose(context.Background(), put("k", "v"))
		return err == nil
	})
	agree(t, members)
}
