package leases

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// renewalLog answers renewals, and notes them. Its time is that of a bubble.
type renewalLog struct {
	mu       sync.Mutex
	commands int
	largest  int
	renewals map[kv.LeaseID][]time.Time
	// commit is how long a command takes, answer what is answered then. The first
	// ones, as many as are stuck, take for ever.
	commit time.Duration
	stuck  int
	answer func(*kv.Result) error
}

func (l *renewalLog) Propose(ctx context.Context, c *kv.Command) (*kv.Result, error) {
	l.mu.Lock()
	l.commands++
	l.largest = max(l.largest, len(c.Renew))
	commit, answer := l.commit, l.answer
	if l.commands <= l.stuck {
		commit = time.Hour
	}
	result := &kv.Result{}
	for _, id := range c.Renew {
		l.renewals[id] = append(l.renewals[id], time.Now())
		result.Leases = append(result.Leases, kv.LeaseResult{ID: id})
	}
	l.mu.Unlock()
	timer := time.NewTimer(commit)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, kv.Errorf(kv.OutcomeUnknown, "the request ended before the write did")
	}
	if answer != nil {
		if err := answer(result); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (l *renewalLog) set(commit time.Duration, answer func(*kv.Result) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commit, l.answer = commit, answer
}

func (l *renewalLog) proposed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commands
}

func (l *renewalLog) of(i int) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.renewals[held(i)])
}

func held(i int) (id kv.LeaseID) {
	binary.BigEndian.PutUint32(id[:], uint32(i)+1)
	return id
}

func always() bool { return true }

// renewing runs a test in a bubble, with a renewer over a log that commits within
// some milliseconds.
func renewing(t *testing.T, test func(*testing.T, *Renewer, *renewalLog)) {
	synctest.Test(t, func(t *testing.T) {
		log := &renewalLog{renewals: map[kv.LeaseID][]time.Time{}, commit: 5 * time.Millisecond}
		r := StartRenewer(log, slog.New(slog.DiscardHandler))
		test(t, r, log)
		r.Close()
	})
}

// standing is the newest news of a hold, or 0.
func standing(h *Hold) Standing {
	synctest.Wait()
	select {
	case s := <-h.News():
		return s
	default:
		return 0
	}
}

// TestHeldLeasesAreRenewedTogether: each lease is renewed well before its end, by
// few commands, and those that began in the same moment don't come in the same one
// again and again.
func TestHeldLeasesAreRenewedTogether(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		const n, ttl, lasts = 5000, 3 * time.Second, time.Minute
		began := time.Now()
		var holds []*Hold
		for i := range n {
			holds = append(holds, r.Hold(held(i), ttl, began, always))
		}
		time.Sleep(lasts)
		if got := r.Held(); got != n {
			t.Errorf("%d leases are held", got)
		}
		slots := map[time.Duration]int{} // by tenth of a second
		renewals := 0
		for i := range n {
			last := began
			for _, at := range append(log.of(i), began.Add(lasts)) {
				if gap := at.Sub(last); gap > ttl/3+2*gather {
					t.Fatalf("lease %d was left alone for %v", i, gap)
				}
				last = at
				slots[at.Sub(began)/(100*time.Millisecond)]++
				renewals++
			}
			if s := standing(holds[i]); s != 0 {
				t.Fatalf("of lease %d was told %v", i, s)
			}
		}
		if most := int(lasts/gather) * 5 / 4; log.proposed() > most || log.largest > renewalsPerCommand {
			t.Errorf("%d commands, more than %d, of up to %d leases", log.proposed(), most, log.largest)
		}
		if most := n * int(lasts/(ttl/3)) * 5 / 4; renewals > most {
			t.Errorf("%d renewals, more than %d", renewals, most)
		}
		for slot, count := range slots {
			if most := n / 10 * 2; count > most && slot != lasts/(100*time.Millisecond) {
				t.Errorf("%d renewals in the same tenth of a second, after %v", count, slot*100*time.Millisecond)
			}
		}
	})
}

// TestReleasedIsNotRenewed: neither what was released, nor what nobody holds any
// more by the word of its connection.
func TestReleasedIsNotRenewed(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		log.set(300*time.Millisecond, nil) // so that much is under way when something is released
		var holds []*Hold
		var gone [100]time.Time
		var closed [len(gone)]atomic.Bool
		for i := range gone {
			open := func() bool { return !closed[i].Load() }
			holds = append(holds, r.Hold(held(i), time.Second, time.Now(), open))
		}
		for i, h := range holds {
			time.Sleep(37 * time.Millisecond)
			synctest.Wait()
			gone[i] = time.Now()
			if i%2 == 0 {
				h.Release()
			} else {
				closed[i].Store(true)
			}
		}
		time.Sleep(5 * time.Second)
		for i := range holds {
			for _, at := range log.of(i) {
				if at.After(gone[i]) {
					t.Errorf("lease %d was renewed %v after it was let go", i, at.Sub(gone[i]))
				}
			}
		}
		if r.Held() != 0 || log.proposed() == 0 {
			t.Errorf("%d leases are held, after %d commands", r.Held(), log.proposed())
		}
		holds[0].Release() // once more
	})
}

// TestWithoutALeader: few tries are made, however many leases wait; their holders
// learn that they may be lost, and then that they were not.
func TestWithoutALeader(t *testing.T) {
	for _, c := range []struct {
		name   string
		commit time.Duration
		err    error
		most   int           // tries in 20 s
		settle time.Duration // what is under way, and a pause
	}{
		{"refused at once", 0, kv.Errorf(kv.Busy, "made to fail"), 100, 1500 * time.Millisecond},
		{"refused in the end", 5 * time.Second, kv.Errorf(kv.NoLeader, "made to fail"), 20, 6500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
				const n, ttl = 10_000, 3 * time.Second
				var holds []*Hold
				for i := range n {
					holds = append(holds, r.Hold(held(i), ttl, time.Now(), always))
				}
				time.Sleep(10 * time.Second)
				before := log.proposed()
				log.set(c.commit, func(*kv.Result) error { return c.err })
				time.Sleep(ttl / 2)
				for i, h := range holds {
					if s := standing(h); s != 0 {
						t.Fatalf("lease %d can't have ended, and its holder was told %v", i, s)
					}
				}
				time.Sleep(20*time.Second - ttl/2)
				if tries := log.proposed() - before; tries > c.most {
					t.Errorf("%d tries, more than %d", tries, c.most)
				}
				for i, h := range holds {
					if s := standing(h); s != Doubtful {
						t.Fatalf("lease %d was not renewed for 20 s, and its holder was told %v", i, s)
					}
				}
				log.set(5*time.Millisecond, nil)
				time.Sleep(c.settle)
				for i, h := range holds {
					if s := standing(h); s != Renewed {
						t.Fatalf("lease %d was renewed, and its holder was told %v", i, s)
					}
				}
				// What came at once, for all had waited, is spread again.
				from := log.proposed()
				time.Sleep(time.Second)
				if got := log.proposed() - from; got < 15 {
					t.Errorf("%d leases are renewed by %d commands a second", n, got)
				}
				if log.largest > renewalsPerCommand {
					t.Errorf("a command renews %d leases", log.largest)
				}
			})
		})
	}
}

// TestDoubtComesInTime: with renewals that hang.
func TestDoubtComesInTime(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		log.set(time.Hour, nil)
		began := time.Now()
		h := r.Hold(held(1), 2*time.Second, began, always)
		if s := <-h.News(); s != Doubtful {
			t.Errorf("was told %v", s)
		}
		if after := time.Since(began); after < 2*time.Second || after > 2*time.Second+doubtEvery {
			t.Errorf("was told after %v", after)
		}
	})
}

// TestDoubtComesInTimeUnderWay: the pace is kept by the clock, however often others make
// the renewer look in between.
func TestDoubtComesInTimeUnderWay(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		log.set(time.Hour, nil)
		for offset := range 20 {
			ttl := 2*time.Second + time.Duration(offset)*17*time.Millisecond
			began := time.Now()
			h := r.Hold(held(offset), ttl, began, always)
			told := make(chan time.Duration, 1)
			go func() {
				if s := <-h.News(); s == Doubtful {
					told <- time.Since(began)
				}
				close(told)
			}()
			for i := 0; ; i++ {
				// Leases that are due at once, so that each makes it look.
				other := r.Hold(held(1000+i), time.Second, began.Add(-time.Second/3), always)
				time.Sleep(60 * time.Millisecond)
				other.Release()
				synctest.Wait()
				if time.Since(began) > ttl+3*doubtEvery {
					break
				}
			}
			if after, ok := <-told; !ok || after < ttl || after > ttl+doubtEvery {
				t.Errorf("a lease of %v: its holder was told after %v, %v", ttl, after, ok)
			}
			h.Release()
		}
	})
}

// TestStuckRenewal: a command that takes for ever holds up no other.
func TestStuckRenewal(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		log.stuck = renewalsAtOnce - 1
		for i := range log.stuck {
			r.Hold(held(i), time.Second, time.Now(), always)
			time.Sleep(time.Second)
		}
		other := r.Hold(held(log.stuck), time.Second, time.Now(), always)
		time.Sleep(10 * time.Second)
		if s := standing(other); s != 0 || len(log.of(log.stuck)) < 20 {
			t.Errorf("it was renewed %d times, and told %v", len(log.of(log.stuck)), s)
		}
	})
}

// TestSlowCommits: while commands take longer than the leases of others rest, these
// go beside them, and in fuller commands.
func TestSlowCommits(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		log.set(600*time.Millisecond, nil)
		var holds []*Hold
		for i := range 2000 {
			holds = append(holds, r.Hold(held(i), 3*time.Second, time.Now(), always))
		}
		time.Sleep(30 * time.Second)
		for i, h := range holds {
			if s := standing(h); s != 0 {
				t.Fatalf("of lease %d was told %v", i, s)
			}
		}
		if most := 30*1000/600*renewalsAtOnce + renewalsAtOnce; log.proposed() > most {
			t.Errorf("%d commands", log.proposed())
		}
	})
}

// TestLostAndRefused are the last news of a lease, which is not renewed any more.
func TestLostAndRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*kv.Result) error
		want   Standing
	}{
		{"gone", func(r *kv.Result) error {
			for i := range r.Leases {
				if r.Leases[i].ID == held(1) {
					r.Leases[i].Code = kv.LeaseNotFound
				}
			}
			return nil
		}, Lost},
		{"corrupt", func(*kv.Result) error { return kv.Errorf(kv.CorruptContent, "made to fail") }, Refused},
		{"shutting down", func(*kv.Result) error { return kv.Errorf(kv.ShuttingDown, "made to fail") }, Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
				log.set(5*time.Millisecond, c.answer)
				h := r.Hold(held(1), time.Second, time.Now(), always)
				other := r.Hold(held(2), time.Second, time.Now(), always)
				if s := <-h.News(); s != c.want {
					t.Errorf("was told %v, want %v", s, c.want)
				}
				time.Sleep(10 * time.Second)
				if got := len(log.of(1)); got != 1 {
					t.Errorf("it was renewed %d times", got)
				}
				if c.want == Lost && (len(log.of(2)) < 10 || standing(other) != 0) {
					t.Errorf("another lease was renewed %d times", len(log.of(2)))
				}
			})
		})
	}
}

// TestOddResult: a result that doesn't fit its command, or is a refusal, tells
// nothing of the leases.
func TestOddResult(t *testing.T) {
	for name, answer := range map[string]func(*kv.Result) error{
		"too few": func(r *kv.Result) error { r.Leases = nil; return nil },
		"refused": func(r *kv.Result) error { r.Code = kv.NoSpace; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
				log.set(time.Millisecond, answer)
				h := r.Hold(held(1), time.Second, time.Now(), always)
				if s := <-h.News(); s != Doubtful {
					t.Errorf("was told %v", s)
				}
			})
		})
	}
}

// TestRenewerCloses with something under way, and holds nothing afterwards.
func TestRenewerCloses(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		log.set(time.Hour, nil)
		r.Hold(held(1), time.Second, time.Now(), always)
		time.Sleep(time.Second)
		if log.proposed() != 1 {
			t.Fatalf("%d commands are under way", log.proposed())
		}
		began := time.Now()
		r.Close()
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it took %v", waited)
		}
		if s := standing(r.Hold(held(2), time.Second, time.Now(), always)); s != Refused {
			t.Errorf("what was held afterwards was told %v", s)
		}
		time.Sleep(time.Minute)
		if log.proposed() != 1 {
			t.Errorf("%d commands", log.proposed())
		}
	})
}

// TestLongLives: a lease that lives for a week is renewed, so that its holder learns
// of its end.
func TestLongLives(t *testing.T) {
	renewing(t, func(t *testing.T, r *Renewer, log *renewalLog) {
		h := r.Hold(held(1), 7*24*time.Hour, time.Now(), always)
		time.Sleep(time.Hour)
		if n := len(log.of(1)); n < 60 || n > 72 {
			t.Errorf("it was renewed %d times in an hour", n)
		}
		log.set(0, func(r *kv.Result) error { r.Leases[0].Code = kv.LeaseNotFound; return nil })
		time.Sleep(longestRest + 2*gather)
		if s := standing(h); s != Lost {
			t.Errorf("was told %v", s)
		}
	})
}
