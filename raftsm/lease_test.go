package raftsm

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/kv"
)

// TestLeaseThroughSnapshot grants a lease and lets time pass, with a member away
// until the others have cut the log behind it. By its snapshot it gets what is
// left of the lease and not a new beginning, and keeps it over a restart.
func TestLeaseThroughSnapshot(t *testing.T) {
	const cut = 50
	members := cluster(t, func(_ int, m *member) { m.cfg.SnapshotEntries = cut })
	leader(t, members)
	propose := func(c *kv.Command) {
		t.Helper()
		r, err := members[0].shard.Propose(context.Background(), c)
		must(t, err)
		must(t, r.Err())
	}
	id := kv.LeaseID{1}
	propose(&kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: id, Number: 7, TTLMillis: 60_000}})
	propose(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("k"), Value: []byte("v"), Lease: id}}}})
	step := func(n int) {
		t.Helper()
		for range n {
			_, prev := members[0].shard.Store().NeedsClock()
			propose(&kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: prev, AdvanceMillis: 500}})
		}
	}
	wantLeft := func(m *member, millis int64) {
		t.Helper()
		v, err := m.shard.Store().View()
		must(t, err)
		defer v.Close()
		l, found, err := v.Lease(id)
		must(t, err)
		if want := (kv.LeaseState{ID: id, Number: 7, TTLMillis: 60_000, RemainingMillis: millis, Keys: 1}); !found || l != want {
			t.Errorf("member %d has %+v %v, want %+v", m.shard.Replica(), l, found, want)
		}
	}
	step(4)
	agree(t, members)
	away := members[2]
	wantLeft(away, 58_000)
	away.close(t)
	leader(t, members[:2])
	propose(&kv.Command{Kind: kv.KindLeaseRenew, Renew: []kv.LeaseID{id}})
	step(20)
	value := strings.Repeat("x", 2000)
	for i := range 4 * cut {
		members[0].mustPut(t, fmt.Sprint("k", i), value)
	}
	wantLeft(members[0], 50_000)
	away.open(t)
	agree(t, members)
	for _, m := range members {
		wantLeft(m, 50_000)
	}
	for _, m := range members {
		m.close(t)
		m.open(t)
	}
	leader(t, members)
	agree(t, members)
	step(2)
	agree(t, members)
	for _, m := range members {
		wantLeft(m, 49_000)
	}
}
