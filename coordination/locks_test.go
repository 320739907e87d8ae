package coordination

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/kv"
)

// TestLock goes once through what a lock does.
func TestLock(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r := l.recipes()
	a, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 10_000, Owner: "a"})
	must(t, err)
	if a.Fence != fmt.Sprintf("l:%d", a.Token) || a.Owner != "a" || a.Token != 2 {
		t.Errorf("got %+v", a)
	}
	if !l.fenced(a.Fence, "k", "1") {
		t.Error("the holder's write was refused")
	}
	_, err = r.Acquire(ctx, Claim{Name: "l", TTLMillis: 10_000, Owner: "b"})
	var held *Held
	if !errors.As(err, &held) || held.Code != kv.LockHeld || len(held.State.Holders) != 1 || held.State.Holders[0].Owner != "a" {
		t.Fatalf("got %v", err)
	}
	if _, err := r.Release(ctx, "l", a.Token+1); !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
		t.Errorf("another token: %v", err)
	}
	_, err = r.Release(ctx, "l", a.Token)
	must(t, err)
	if _, err := r.Release(ctx, "l", a.Token); !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
		t.Errorf("released twice: %v", err)
	}
	if l.fenced(a.Fence, "k", "2") {
		t.Error("a write after the release was applied")
	}
	b, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 10_000, Owner: "b"})
	must(t, err)
	if b.Token <= a.Token {
		t.Errorf("token %d after %d", b.Token, a.Token)
	}
	if n, err := l.store.Stats(); err != nil || n.Leases != 1 {
		t.Errorf("%d leases, %v; the first one's has ended with its key", n.Leases, err)
	}
}

// holdersOf replays what was applied and calls fn with the keys of the holders
// after each change of them.
func (l *log) holdersOf(s site, fn func(holders map[string]uint64, put *kv.Entry)) {
	holders := map[string]uint64{}
	for _, e := range l.history() {
		key := string(e.Entry.Key)
		if !s.holds([]byte(key)) {
			continue
		}
		if e.Type == kv.EventPut {
			holders[key] = e.Entry.CreateRevision
			fn(holders, &e.Entry)
		} else {
			delete(holders, key)
			fn(holders, nil)
		}
	}
}

// TestExclusion has many take the lock over and over, some of whom are too slow
// and lose it. Exclusion is judged by the tokens: they strictly increase, and a
// write with an older one than the last is never applied.
func TestExclusion(t *testing.T) {
	const workers, rounds = 8, 20
	l := newLog(t)
	r := l.recipes()
	var lost sync.Map
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for range rounds {
				h, err := r.Acquire(context.Background(), Claim{Name: "l", TTLMillis: 1_000, Wait: patience})
				if err != nil {
					t.Error(err)
					return
				}
				wrote := l.fenced(h.Fence, "k", fmt.Sprint(h.Token))
				if random.IntN(4) == 0 {
					l.pass(3 * time.Second) // and those who wait are not kept alive meanwhile
					lost.Store(h.Token, true)
					wrote = l.fenced(h.Fence, "k", fmt.Sprint(h.Token))
					if wrote {
						t.Errorf("token %d was lost, and its write applied", h.Token)
					}
					continue
				}
				_, err = r.Release(context.Background(), "l", h.Token)
				if err != nil && !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	last, grants, written := uint64(0), 0, uint64(0)
	l.holdersOf(lockSite("l"), func(holders map[string]uint64, put *kv.Entry) {
		if len(holders) > 1 {
			t.Errorf("two holders: %v", holders)
		}
		if put != nil {
			if grants++; put.CreateRevision <= last {
				t.Errorf("token %d after %d", put.CreateRevision, last)
			}
			last = put.CreateRevision
		}
	})
	for _, e := range l.history() {
		if string(e.Entry.Key) == "k" {
			var token uint64
			if _, err := fmt.Sscan(string(e.Entry.Value), &token); err != nil || token < written {
				t.Errorf("a write with %d after one with %d, %v", token, written, err)
			}
			written = token
		}
	}
	if grants != workers*rounds {
		t.Errorf("%d grants, want %d", grants, workers*rounds)
	}
}

// TestFairness wants the lock to go round in the order in which it was asked for.
func TestFairness(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	h, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 10_000})
	must(t, err)
	outcomes := make(chan outcome, 10)
	for i := range 10 {
		race(ctx, r, fmt.Sprint(i), Claim{Name: "l", TTLMillis: 10_000, Wait: patience, Owner: fmt.Sprint(i)}, outcomes)
		l.awaitQueue(s, i+1)
	}
	for i, w := range l.state(s).Queue {
		if w.Owner != fmt.Sprint(i) {
			t.Errorf("place %d is %s's", i, w.Owner)
		}
	}
	// Who asks without waiting passes nobody, not even for a moment.
	_, err = r.Release(ctx, "l", h.Token)
	must(t, err)
	if _, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 10_000}); !isHeld(err) {
		t.Errorf("passed the queue: %v", err)
	}
	for i := range 10 {
		o := <-outcomes
		must(t, o.err)
		if o.name != fmt.Sprint(i) {
			t.Fatalf("turn %d is %s's", i, o.name)
		}
		_, err = r.Release(ctx, "l", o.holder.Token)
		must(t, err)
	}
	if s := l.state(s); len(s.Holders) > 0 || s.Waiting > 0 {
		t.Errorf("left behind: %+v", s)
	}
}

// TestExpiry lets a holder's lease end: the next waiter has the lock, and the old
// fence holds nothing.
func TestExpiry(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r := l.recipes()
	old, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 2_000})
	must(t, err)
	outcomes := make(chan outcome, 1)
	race(ctx, r, "next", Claim{Name: "l", TTLMillis: 2_000, Wait: patience}, outcomes)
	l.awaitQueue(lockSite("l"), 1)
	l.pass(2 * time.Second)
	if !l.fenced(old.Fence, "k", "in time") {
		t.Error("the lock was lost before its time")
	}
	l.pass(1500 * time.Millisecond)
	o := <-outcomes
	must(t, o.err)
	if o.holder.Token <= old.Token || l.fenced(old.Fence, "k", "late") || !l.fenced(o.holder.Fence, "k", "new") {
		t.Errorf("after the loss: %+v, before %+v", o.holder, old)
	}
}

// TestReentry asks again with the same lease.
func TestReentry(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []Kind{{}, {Read: true}, {Limit: 3}} {
		t.Run(kind.segment(), func(t *testing.T) {
			l := newLog(t)
			r := l.recipes()
			lease := l.grant(5 * time.Second)
			ask := Claim{Name: "l", Lease: lease, Kind: kind, Owner: "me"}
			first, err := r.Acquire(ctx, ask)
			must(t, err)
			for _, wait := range []time.Duration{0, patience} {
				ask.Wait = wait
				again, err := r.Acquire(ctx, ask)
				must(t, err)
				if again.Token != first.Token || again.Fence != first.Fence {
					t.Errorf("got %+v, then %+v", first, again)
				}
			}
			// The same lease in another way would wait for itself.
			for _, other := range []Kind{{}, {Read: true}, {Limit: 2}, {Limit: 3}} {
				if other == kind {
					continue
				}
				if _, err := r.Acquire(ctx, Claim{Name: "l", Lease: lease, Kind: other, Wait: patience}); !isHeld(err) {
					t.Errorf("%s: %v", other.segment(), err)
				}
			}
			// The answer is what the store has, not what was said before.
			l.pass(7 * time.Second)
			if _, err := r.Acquire(ctx, ask); !errors.Is(err, &kv.Error{Code: kv.LeaseNotFound}) {
				t.Errorf("with a lease that is over: %v", err)
			}
			if s := l.state(lockSite("l")); len(s.Holders) > 0 || s.Waiting > 0 {
				t.Errorf("left behind: %+v", s)
			}
			ask.Lease = l.grant(5 * time.Second)
			if next, err := r.Acquire(ctx, ask); err != nil || next.Token <= first.Token {
				t.Errorf("after the loss: %+v, %v", next, err)
			}
		})
	}
}

// TestSharing runs readers, writers and two semaphores on one lock and looks at
// every state that the store was in.
func TestSharing(t *testing.T) {
	kinds := []Kind{{}, {Read: true}, {Read: true}, {Limit: 3}, {Limit: 3}, {Limit: 3}, {Limit: 2}}
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	var wg sync.WaitGroup
	for w := range 3 * len(kinds) {
		wg.Go(func() {
			for range 6 {
				h, err := r.Acquire(context.Background(), Claim{Name: "l", TTLMillis: 60_000, Wait: patience, Kind: kinds[w%len(kinds)]})
				if err != nil {
					t.Error(err)
					return
				}
				if !l.fenced(h.Fence, "k", "v") {
					t.Errorf("%s does not hold", h.Fence)
				}
				if _, err := r.Release(context.Background(), "l", h.Token); err != nil {
					t.Error(err)
				}
				if l.fenced(h.Fence, "k", "v") {
					t.Errorf("%s holds after its release", h.Fence)
				}
			}
		})
	}
	wg.Wait()
	l.holdersOf(s, func(holders map[string]uint64, _ *kv.Entry) {
		count := map[Kind]int{}
		for key := range holders {
			k, _ := s.kindOf([]byte(key))
			count[k]++
		}
		switch {
		case len(count) > 1, count[Kind{}] > 1, count[Kind{Limit: 2}] > 2, count[Kind{Limit: 3}] > 3:
			t.Errorf("together: %v", holders)
		}
	})
}

// TestShared says how many of each kind are let in at the same time, and whom they
// keep out.
func TestShared(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		kind Kind
		room int
	}{{Kind{}, 1}, {Kind{Read: true}, 5}, {Kind{Limit: 1}, 1}, {Kind{Limit: 3}, 3}, {Kind{Limit: 12}, 12}} {
		l := newLog(t)
		r := l.recipes()
		var last Holder
		fences := map[string]bool{}
		for range c.room {
			h, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 5_000, Kind: c.kind})
			must(t, err)
			last, fences[h.Fence] = h, true
		}
		if !c.kind.Read {
			if _, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 5_000, Kind: c.kind}); !isHeld(err) {
				t.Errorf("%s: one too many: %v", c.kind.segment(), err)
			}
		}
		for _, other := range []Kind{{}, {Read: true}, {Limit: 2}, {Limit: 3}, {Limit: 33}} {
			if other == c.kind {
				continue
			}
			if _, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 5_000, Kind: other}); !isHeld(err) {
				t.Errorf("%s beside %s: %v", other.segment(), c.kind.segment(), err)
			}
		}
		if len(fences) != c.room {
			t.Errorf("%s: fences %v", c.kind.segment(), fences)
		}
		_, err := r.Release(ctx, "l", last.Token)
		must(t, err)
		for fence := range fences {
			if held := l.fenced(fence, "k", "v"); held != (fence != last.Fence) {
				t.Errorf("%s holds: %v", fence, held)
			}
		}
		again, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 5_000, Kind: c.kind})
		must(t, err)
		if again.Token <= last.Token {
			t.Errorf("token %d after %d", again.Token, last.Token)
		}
	}
}

// TestReadersPassNoWriter has a writer wait behind a reader, and a reader behind
// the writer.
func TestReadersPassNoWriter(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	reader, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Kind: Kind{Read: true}})
	must(t, err)
	outcomes := make(chan outcome, 3)
	race(ctx, r, "writer", Claim{Name: "l", TTLMillis: 60_000, Wait: patience}, outcomes)
	l.awaitQueue(s, 1)
	if _, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Kind: Kind{Read: true}}); !isHeld(err) {
		t.Errorf("a reader passed the writer: %v", err)
	}
	race(ctx, r, "reader", Claim{Name: "l", TTLMillis: 60_000, Wait: patience, Kind: Kind{Read: true}}, outcomes)
	l.awaitQueue(s, 2)
	race(ctx, r, "reader", Claim{Name: "l", TTLMillis: 60_000, Wait: patience, Kind: Kind{Read: true}}, outcomes)
	l.awaitQueue(s, 3)
	_, err = r.Release(ctx, "l", reader.Token)
	must(t, err)
	o := <-outcomes
	must(t, o.err)
	if o.name != "writer" {
		t.Fatal("a reader came before the writer")
	}
	_, err = r.Release(ctx, "l", o.holder.Token)
	must(t, err)
	for range 2 { // at the same time
		must(t, (<-outcomes).err)
	}
}

// TestWaitOver ends a wait without the lock, and leaves nothing.
func TestWaitOver(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	_, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Owner: "a"})
	must(t, err)
	var told []int
	_, err = r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Wait: 50 * time.Millisecond, Progress: func(before int) { told = append(told, before) }})
	if !isHeld(err) || len(told) == 0 || told[0] != 0 {
		t.Errorf("got %v, told %v", err, told)
	}
	if s := l.state(s); len(s.Holders) != 1 || s.Waiting > 0 {
		t.Errorf("left behind: %+v", s)
	}
	// The client goes away.
	gone, cancel := context.WithCancel(ctx)
	outcomes := make(chan outcome, 1)
	race(gone, r, "gone", Claim{Name: "l", TTLMillis: 60_000, Wait: patience}, outcomes)
	l.awaitQueue(s, 1)
	cancel()
	if o := <-outcomes; !errors.Is(o.err, context.Canceled) {
		t.Errorf("got %v", o.err)
	}
	if s := l.state(s); len(s.Holders) != 1 || s.Waiting > 0 {
		t.Errorf("left behind: %+v", s)
	}
}

// TestKeptAlive renews the leases of a waiter while it waits, so that a client's
// own lease has all its time when the lock is answered.
func TestKeptAlive(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	holder, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	lease := l.grant(time.Second)
	outcomes := make(chan outcome, 1)
	race(ctx, r, "waiter", Claim{Name: "l", Lease: lease, Wait: patience}, outcomes)
	l.awaitQueue(s, 1)
	renewals := func(id kv.LeaseID) int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.renewed[id]
	}
	for range 5 {
		n := renewals(lease)
		l.await("the lease is renewed", func() bool { return renewals(lease) > n })
		l.pass(time.Second)
	}
	l.pass(500 * time.Millisecond)
	n := renewals(lease)
	_, err = r.Release(ctx, "l", holder.Token)
	must(t, err)
	o := <-outcomes
	must(t, o.err)
	if renewals(lease) <= n {
		t.Error("the time to live did not start with the answer")
	}
	l.pass(1500 * time.Millisecond)
	if !l.fenced(o.holder.Fence, "k", "v") {
		t.Error("the lock was lost before its time")
	}

	// A client's lease that ends while it waits ends the wait.
	lease = l.grant(time.Second)
	race(ctx, r, "ends", Claim{Name: "m", Lease: lease, Wait: patience}, outcomes)
	must(t, (<-outcomes).err)
	other := l.grant(time.Second)
	race(ctx, r, "ends", Claim{Name: "m", Lease: other, Wait: patience}, outcomes)
	l.awaitQueue(lockSite("m"), 1)
	_, err = l.apply(&kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: other}})
	must(t, err)
	if o := <-outcomes; !errors.Is(o.err, &kv.Error{Code: kv.LeaseNotFound}) {
		t.Errorf("got %v", o.err)
	}
	if s := l.state(lockSite("m")); s.Waiting > 0 {
		t.Errorf("left behind: %+v", s)
	}
}

// TestLostPlace lets the node of a waiter stand still for so long that the
// waiter's key ends. It goes on at the end of the queue.
func TestLostPlace(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	holder, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	outcomes := make(chan outcome, 1)
	race(ctx, r, "waiter", Claim{Name: "l", TTLMillis: 600_000, Wait: patience}, outcomes)
	l.awaitQueue(s, 1)
	since := l.state(s).Queue[0].Since
	l.pass(12 * time.Second)
	l.await("the waiter is back", func() bool { q := l.state(s).Queue; return len(q) == 1 && q[0].Since > since })
	_, err = r.Release(ctx, "l", holder.Token)
	must(t, err)
	must(t, (<-outcomes).err)
}

// TestResumedPlace sends the request of a lease again, as a client does whose node
// has died: it keeps its place.
func TestResumedPlace(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	holder, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	lease := l.grant(time.Minute)
	outcomes := make(chan outcome, 3)
	race(ctx, r, "first", Claim{Name: "l", Lease: lease, Wait: patience}, outcomes)
	l.awaitQueue(s, 1)
	race(ctx, r, "second", Claim{Name: "l", TTLMillis: 60_000, Wait: patience}, outcomes)
	l.awaitQueue(s, 2)
	race(ctx, r, "first", Claim{Name: "l", Lease: lease, Wait: patience}, outcomes)
	l.await("three wait", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.waiting == 3 })
	if q := l.state(s).Queue; len(q) != 2 || q[0].Lease != lease {
		t.Fatalf("queue %+v", q)
	}
	_, err = r.Release(ctx, "l", holder.Token)
	must(t, err)
	a, b := <-outcomes, <-outcomes
	must(t, a.err)
	must(t, b.err)
	if a.name != "first" || b.name != "first" || a.holder.Token != b.holder.Token {
		t.Errorf("got %+v and %+v", a, b)
	}
	_, err = r.Release(ctx, "l", a.holder.Token)
	must(t, err)
	must(t, (<-outcomes).err)
}

// TestCrashPoints breaks a claim off at each of its proposals: before it, after
// it, and without its outcome; by the end of the request, and by the death of the
// node that serves it. Whatever is left ends with its leases, and whoever comes
// next gets the lock.
func TestCrashPoints(t *testing.T) {
	unknown := kv.Errorf(kv.OutcomeUnknown, "made to fail")
	refused := kv.Errorf(kv.NoLeader, "made to fail")
	type breakage struct {
		name          string
		before, after error
		lasting, gone bool
	}
	for _, b := range []breakage{
		{name: "the client goes before", gone: true, before: refused},
		{name: "the client goes after", gone: true},
		{name: "refused once", before: refused},
		{name: "refused from then on", before: refused, lasting: true},
		{name: "unknown, and not applied", before: unknown},
		{name: "unknown, and applied", after: unknown},
		{name: "unknown from then on, and not applied", before: unknown, lasting: true},
		{name: "unknown from then on, and applied", after: unknown, lasting: true},
	} {
		for _, own := range []bool{true, false} {
			for at := range 5 {
				t.Run(fmt.Sprintf("%s/own %v/%d", b.name, own, at), func(t *testing.T) {
					t.Parallel()
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					l := newLog(t)
					r, s := l.recipes(), lockSite("l")
					held, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
					must(t, err)
					ask := Claim{Name: "l", TTLMillis: 5_000, Wait: 2 * time.Second}
					if !own {
						ask.TTLMillis, ask.Lease = 0, l.grant(5*time.Second)
					}
					var mu sync.Mutex
					count := -1
					hit := func(failure error, counts bool) func(*kv.Command) error {
						return func(*kv.Command) error {
							mu.Lock()
							defer mu.Unlock()
							if counts {
								count++
							}
							if count != at && (!b.lasting || count < at) {
								return nil
							}
							if b.gone && !counts {
								cancel()
							}
							if failure == nil {
								return nil
							}
							return failure
						}
					}
					l.fail(hit(b.before, true), hit(b.after, false))
					outcomes := make(chan outcome, 1)
					race(ctx, r, "it", ask, outcomes)
					l.await("it waits, or is done", func() bool {
						l.mu.Lock()
						defer l.mu.Unlock()
						return l.waiting > 0 || len(outcomes) > 0
					})
					_, err = l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{remove(s.alone())}}})
					must(t, err)
					o := <-outcomes
					l.fail(nil, nil)
					state := l.state(s)
					var kverr *kv.Error
					switch {
					case o.err == nil:
						if len(state.Holders) != 1 || state.Holders[0].Token != o.holder.Token || o.holder.Token <= held.Token {
							t.Errorf("the answer is %+v, the store has %+v", o.holder, state.Holders)
						}
					case isHeld(o.err):
						if len(state.Holders) > 0 {
							t.Errorf("refused, and held by %+v", state.Holders)
						}
					case errors.Is(o.err, context.Canceled):
						if own && (len(state.Holders) > 0 || state.Waiting > 0) && b.before == nil {
							t.Errorf("the client is gone and left %+v", state)
						}
					case errors.As(o.err, &kverr) && kverr.Code == kv.NoLeader:
						if len(state.Holders) > 0 {
							t.Errorf("nothing was applied, and held by %+v", state.Holders)
						}
					case !errors.As(o.err, &kverr) || kverr.Code != kv.OutcomeUnknown:
						t.Errorf("got %v", o.err)
					}
					// Without the client, time ends all of it.
					l.pass(20 * time.Second)
					if s := l.state(s); len(s.Holders) > 0 || s.Waiting > 0 {
						t.Errorf("left behind: %+v", s)
					}
					_, err = r.Acquire(context.Background(), Claim{Name: "l", TTLMillis: 5_000})
					must(t, err)
				})
			}
		}
	}
}

// TestLockDelay keeps a lock closed that was lost, and opens one at once that was
// released or whose lease was revoked.
func TestLockDelay(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	var mu sync.Mutex
	now := time.Now()
	r := New(l, func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	ask := Claim{Name: "l", TTLMillis: 1_000, Delay: time.Hour}
	h, err := r.Acquire(ctx, ask)
	must(t, err)
	_, err = r.Release(ctx, "l", h.Token)
	must(t, err)
	ask.Lease, ask.TTLMillis = l.grant(time.Second), 0
	_, err = r.Acquire(ctx, ask)
	must(t, err)
	_, err = l.apply(&kv.Command{Kind: kv.KindLeaseRevoke, Lease: kv.Lease{ID: ask.Lease}})
	must(t, err)

	ask.Lease, ask.TTLMillis = kv.LeaseID{}, 1_000
	_, err = r.Acquire(ctx, ask)
	must(t, err)
	l.pass(3 * time.Second)
	for _, kind := range []Kind{{}, {Read: true}} {
		ask := Claim{Name: "l", TTLMillis: 1_000, Kind: kind}
		if _, err := r.Acquire(ctx, ask); !isHeld(err) || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s: got %v", kind.segment(), err)
		}
		ask.Wait = 20 * time.Millisecond
		if _, err := r.Acquire(ctx, ask); !isHeld(err) {
			t.Errorf("%s, waiting: got %v", kind.segment(), err)
		}
	}
	mu.Lock()
	now = now.Add(time.Hour - 50*time.Millisecond)
	mu.Unlock()
	outcomes := make(chan outcome, 1)
	race(ctx, r, "next", Claim{Name: "l", TTLMillis: 1_000, Wait: patience}, outcomes)
	l.awaitQueue(lockSite("l"), 1)
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	must(t, (<-outcomes).err)
}

// TestHerd releases a lock for which a thousand wait, and counts how many are
// woken: the one whose turn it is, and the one behind.
func TestHerd(t *testing.T) {
	const turns = 20
	waiters := 1000
	if testing.Short() {
		waiters = 200 // each looks at all before it, and the race detector at each of them
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	h, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	outcomes := make(chan outcome, waiters)
	for range waiters {
		race(ctx, r, "", Claim{Name: "l", TTLMillis: 600_000, Wait: time.Hour}, outcomes)
	}
	l.awaitQueue(s, waiters)
	l.mu.Lock()
	before := l.wakes
	l.mu.Unlock()
	for range turns {
		_, err = r.Release(ctx, "l", h.Token)
		must(t, err)
		o := <-outcomes
		must(t, o.err)
		h = o.holder
	}
	l.mu.Lock()
	woken := l.wakes - before
	l.mu.Unlock()
	if woken > 2*turns {
		t.Errorf("%d were woken by %d releases", woken, turns)
	}
	cancel()
	for range waiters - turns {
		<-outcomes
	}
	if s := l.state(s); s.Waiting > 0 {
		t.Errorf("%d are left in the queue", s.Waiting)
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "ü", "a b", "a:1", "election", ".", "%", strings.Repeat("n", 255)} {
		must(t, CheckName(good))
		for _, s := range []site{lockSite(good), electionSite(good)} {
			for _, k := range []Kind{{}, {Read: true}, {Limit: 3}} {
				key := s.seat(k, ulid.Make(), 2)
				if k != (Kind{}) && s.holder != "holder" {
					continue
				}
				fence := s.fence(key, 812)
				c, err := ParseFence(fence)
				must(t, err)
				if got, single := c.Range.Single(); !single || !bytes.Equal(got, key) || c.Number != 812 || c.Target != kv.TargetCreate || c.Operator != kv.Equal {
					t.Errorf("%q is %+v", fence, c)
				}
				if strings.ContainsAny(fence, ", ") {
					t.Errorf("%q does not fit a list", fence)
				}
			}
		}
	}
	for _, bad := range []string{"", "a/b", "/", "a\x00", "\n", "\xff", "\x7f", strings.Repeat("n", 256)} {
		if CheckName(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
	for _, bad := range []string{
		"", "l", "l:", ":5", "l:0", "l:-1", "l:+1", "l:05", "l:x", "l:18446744073709551616", "a/b:5", "election/:5", "election/a/b:5",
		"a%2Fb:5", "a%zz:5", "a%00:5", "l:5/", "l:5/read", "l:5/read/x", "l:5/write/1", "l:5/limit-3/4", "l:5/limit-3/0", "l:5/limit-3/01",
		"l:5/limit-03/1", "l:5/limit-0/1", "l:5/limit-1001/1", "l:5/limit-3/1/1", "election/l:5/limit-3/1", "l:5/read/01kb0000000000000000000000", "l:5 ",
	} {
		if c, err := ParseFence(bad); err == nil {
			t.Errorf("%q is a fence: %+v", bad, c)
		}
	}
}
