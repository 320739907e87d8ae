package leases

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// results are leases as a renewal answers them.
func results(from, to int, ttl time.Duration) (all []kv.LeaseResult) {
	for i := from; i < to; i++ {
		all = append(all, kv.LeaseResult{ID: held(i), TTLMillis: ttl.Milliseconds()})
	}
	return all
}

// changes waits for news of a group, and gives them by lease.
func changes(g *Group) map[kv.LeaseID]Standing {
	<-g.News()
	all := map[kv.LeaseID]Standing{}
	for _, c := range g.Changes() {
		all[c.Lease] = c.Standing
	}
	return all
}

// TestGroupIsRenewed: each lease of a group at its time, with those of others, and
// none after the group was released.
func TestGroupIsRenewed(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		const n = 1500
		all := append(results(0, n, time.Second), results(n, n+10, time.Minute)...)
		g := r.HoldAll(all, time.Now(), always)
		r.Hold(held(n+10), time.Second, time.Now(), always)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i := range n {
			last := time.Now()
			times := log.of(i)
			for _, at := range slices.Backward(times) {
				if last.Sub(at) > time.Second/2 {
					t.Fatalf("lease %d was not renewed for %v", i, last.Sub(at))
				}
				last = at
			}
			if len(times) < 25 {
				t.Fatalf("lease %d was renewed %d times", i, len(times))
			}
		}
		if times := log.of(n); len(times) > 1 {
			t.Errorf("a lease that lives a minute was renewed %d times in 10 s", len(times))
		}
		if r.Held() != n+11 {
			t.Errorf("%d leases are held", r.Held())
		}
		g.Release()
		released := time.Now()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if times := log.of(0); times[len(times)-1].After(released) || r.Held() != 1 {
			t.Errorf("%d leases are held after the release, the last renewal was %v after it", r.Held(), times[len(times)-1].Sub(released))
		}
		g.Release() // once more
	})
}

// TestGroupIsLetGo: its holder is asked once for each command, and not renewed for
// when it is gone.
func TestGroupIsLetGo(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		var asked atomic.Int64
		var gone atomic.Bool
		r.HoldAll(results(0, 800, time.Second), time.Now(), func() bool { asked.Add(1); return !gone.Load() })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := int(asked.Load()); n == 0 || n > log.proposed() {
			t.Errorf("asked %d times for %d commands", n, log.proposed())
		}
		gone.Store(true)
		left := time.Now()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if times := log.of(0); times[len(times)-1].After(left) || r.Held() != 0 {
			t.Errorf("%d leases are held of a holder that is gone", r.Held())
		}
	})
}

// TestGroupNews: what is lost is told of and the others are held on; doubt comes for
// all of them, and goes.
func TestGroupNews(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		g := r.HoldAll(results(0, 3, time.Second), time.Now(), always)
		log.set(time.Millisecond, func(result *kv.Result) error {
			for i := range result.Leases {
				if result.Leases[i].ID == held(1) {
					result.Leases[i].Code = kv.LeaseNotFound
				}
			}
			return nil
		})
		if got := changes(g); !maps.Equal(got, map[kv.LeaseID]Standing{held(1): Lost}) || r.Held() != 2 {
			t.Errorf("told %v, %d are held", got, r.Held())
		}
		both := func(s Standing) map[kv.LeaseID]Standing { return map[kv.LeaseID]Standing{held(0): s, held(2): s} }
		fails := func(code kv.Code) {
			log.set(time.Millisecond, func(*kv.Result) error { return kv.Errorf(code, "made to fail") })
		}
		fails(kv.NoLeader)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := changes(g); !maps.Equal(got, both(Doubtful)) {
			t.Errorf("without a leader: %v", got)
		}
		log.set(time.Millisecond, nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := changes(g); !maps.Equal(got, both(Renewed)) {
			t.Errorf("with a leader again: %v", got)
		}
		fails(kv.CorruptContent)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := changes(g); !maps.Equal(got, both(Refused)) || r.Held() != 0 {
			t.Errorf("of a node that may not: %v, %d are held", got, r.Held())
		}
		if got := g.Changes(); len(got) != 0 {
			t.Errorf("told twice: %v", got)
		}
	})
}
