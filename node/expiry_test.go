package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// TestManyLeasesEndTogether lets very many leases, with a key each, end in the
// same moment, while somebody puts other keys. All of them end, each with a
// revision of its own, and no put waits for the end of them. With CAIRN_LONG they
// are 100,000; the figures are logged, not judged.
func TestManyLeasesEndTogether(t *testing.T) {
	many, ttl := 5_000, int64(3_000)
	if os.Getenv("CAIRN_LONG") != "" {
		many, ttl = 100_000, 20_000
	}
	n := ready(t, config(t))
	u := newUser(t, n)
	ctx := context.Background()
	id := func(i int) (id kv.LeaseID) {
		id[0] = 1
		binary.BigEndian.PutUint64(id[8:], uint64(i))
		return id
	}
	// Grants and puts in few commands, and one renewal of all at the end, so that
	// their deadlines are the same.
	var wg sync.WaitGroup
	propose := func(c *kv.Command) {
		r, err := n.shard.Propose(ctx, c)
		if err != nil || r.Code != kv.OK {
			t.Errorf("%v %v", r, err)
		}
	}
	work := make(chan int)
	for range 256 {
		wg.Go(func() {
			for i := range work {
				propose(&kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: id(i), TTLMillis: ttl}})
			}
		})
	}
	for i := range many {
		work <- i
	}
	close(work)
	wg.Wait()
	for from := 0; from < many; from += kv.MaxBulkOps {
		txn := &kv.Txn{}
		for i := from; i < min(from+kv.MaxBulkOps, many); i++ {
			txn.Then = append(txn.Then, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "leased/%06d", i), Value: []byte("v"), Lease: id(i)})
		}
		propose(&kv.Command{Kind: kv.KindTxn, Txn: txn})
	}
	var all []kv.LeaseID
	for i := range many {
		all = append(all, id(i))
	}
	renewed := time.Now()
	for part := range slices.Chunk(all, kv.MaxRenewals) {
		propose(&kv.Command{Kind: kv.KindLeaseRenew, Renew: part})
	}
	allRenewed := time.Now()
	before := n.Status()
	if before.Leases != uint64(many) {
		t.Fatalf("there are %d leases", before.Leases)
	}

	// A put after the other, from now until all have ended.
	var calm, busy []time.Duration
	var first, last time.Time
	puts := 0
	for last.IsZero() {
		began := time.Now()
		u.want([]int{201, 200}[min(puts, 1)], "", "PUT", "/v1/kv/other", "v")
		took := time.Since(began)
		puts++
		s := n.Status()
		switch {
		case s.Leases == uint64(many):
			calm = append(calm, took)
		default:
			if first.IsZero() {
				first = began
			}
			busy = append(busy, took)
		}
		if s.Leases == 0 {
			last = time.Now()
		}
		if time.Since(renewed) > patience {
			t.Fatalf("%d leases are left", s.Leases)
		}
	}
	if first.Before(renewed.Add(time.Duration(ttl) * time.Millisecond)) {
		t.Errorf("the first lease had ended after %v", first.Sub(renewed))
	}
	after := n.Status()
	if got := after.Revision - before.Revision; got != uint64(many+puts) || after.Keys != 1 {
		t.Errorf("%d revisions for %d leases and %d puts; %d keys are left", got, many, puts, after.Keys)
	}
	eventually(t, "each end is counted", func() bool { return n.clock.Expired() == uint64(many) })
	t.Logf("%d leases: the first had ended %v after the first renewal, the last %v after the last; puts before: %s, meanwhile: %s",
		many, first.Sub(renewed).Round(time.Millisecond), last.Sub(allRenewed).Round(time.Millisecond), say(calm), say(busy))
}

// say describes times by their median, 99th percentile and maximum.
func say(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	slices.Sort(times)
	at := func(p int) time.Duration {
		return times[min(len(times)*p/100, len(times)-1)].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%d, median %v, 99 %% under %v, at most %v", len(times), at(50), at(99), at(100))
}
