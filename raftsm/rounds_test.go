package raftsm

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/lni/dragonboat/v4"
)

// watchedRounds are rounds of their own over a real shard. gate is called
// before each ReadIndex.
func watchedRounds(t *testing.T, m *member, gate func()) (r *rounds, made *atomic.Int64) {
	r, made = newRounds(patience), new(atomic.Int64)
	r.readIndex = func(timeout time.Duration) (*dragonboat.RequestState, error) {
		gate()
		made.Add(1)
		return m.host.nh.ReadIndex(1, timeout)
	}
	go r.run()
	return r, made
}

// hasNext reports whether somebody waits for a round that has not begun.
func (r *rounds) hasNext() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.next != nil
}

// TestSharedRound lets two hundred readers come while a round is under way. One
// round serves them all, and it began after each of them came.
func TestSharedRound(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "k", "v")
	gate := make(chan struct{})
	r, made := watchedRounds(t, m, func() { <-gate })
	defer r.close()
	ctx := context.Background()

	var first sync.WaitGroup
	first.Go(func() {
		if err := r.wait(ctx); err != nil {
			t.Error(err)
		}
	})
	// The first reader's round has been taken, and stands at the gate.
	eventually(t, "the first round began", func() bool { return len(r.kick) == 0 && !r.hasNext() })

	const readers = 200
	var rest sync.WaitGroup
	var here atomic.Int64
	for range readers {
		rest.Go(func() {
			r.mu.Lock() // as wait does; whoever has been here is in front of it
			here.Add(1)
			r.mu.Unlock()
			if err := r.wait(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all readers came", func() bool { return here.Load() == readers && r.hasNext() })
	close(gate)
	first.Wait()
	rest.Wait()
	// A reader that was held up between the two may have come to a third round,
	// and the idle round may have come between; two hundred would be the fault.
	if n := made.Load(); n < 2 || n > 10 {
		t.Errorf("%d rounds for %d readers", n, readers+1)
	}
}

// TestRoundBeginsAfterItsReaders is what makes a read linearizable: a reader
// that comes while a round is under way is not served by it.
func TestRoundBeginsAfterItsReaders(t *testing.T) {
	m := lone(t)
	m.open(t)
	m.mustPut(t, "k", "v")
	enter, leave := make(chan struct{}), make(chan struct{})
	r, _ := watchedRounds(t, m, func() { enter <- struct{}{}; <-leave })
	early, late := make(chan error, 1), make(chan error, 1)
	go func() { early <- r.wait(context.Background()) }()
	<-enter
	go func() { late <- r.wait(context.Background()) }()
	eventually(t, "the late reader waits", r.hasNext)
	leave <- struct{}{}
	must(t, <-early)
	<-enter // the second round
	select {
	case err := <-late:
		t.Errorf("a reader was served by a round that had begun before it came: %v", err)
	default:
	}
	leave <- struct{}{}
	must(t, <-late)
	drained := make(chan struct{})
	go func() { // idle rounds until the end
		for {
			select {
			case <-enter:
				leave <- struct{}{}
			case <-drained:
				return
			}
		}
	}()
	r.close()
	close(drained)
}

// TestRoundsFail goes through what can become of a reader.
func TestRoundsFail(t *testing.T) {
	refuse := func(time.Duration) (*dragonboat.RequestState, error) { return nil, dragonboat.ErrShardNotReady }

	t.Run("no leader", func(t *testing.T) {
		r := newRounds(2 * retryPause)
		r.readIndex = refuse
		go r.run()
		defer r.close()
		wantCode(t, r.wait(context.Background()), kv.NoLeader)
		if r.age() < time.Hour || !r.last().IsZero() {
			t.Error("a failed round counts as one")
		}
	})
	t.Run("the reader leaves", func(t *testing.T) {
		r := newRounds(patience)
		r.readIndex = refuse
		go r.run()
		defer r.close()
		ctx, cancel := context.WithCancel(context.Background())
		left := make(chan error, 1)
		go func() { left <- r.wait(ctx) }()
		eventually(t, "the round began", func() bool { return !r.hasNext() })
		cancel()
		wantCode(t, <-left, kv.ReadTimeout)
	})
	t.Run("closed", func(t *testing.T) {
		r := newRounds(patience)
		gate := make(chan struct{})
		began := make(chan struct{}, 100)
		r.readIndex = func(d time.Duration) (*dragonboat.RequestState, error) {
			began <- struct{}{}
			<-gate
			return refuse(d)
		}
		go r.run()
		underWay, next := make(chan error, 1), make(chan error, 1)
		go func() { underWay <- r.wait(context.Background()) }()
		<-began
		go func() { next <- r.wait(context.Background()) }()
		eventually(t, "one waits for the next", r.hasNext)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			r.close()
		}()
		eventually(t, "it is closing", func() bool { return !r.hasNext() })
		close(gate)
		wantCode(t, <-underWay, kv.ShuttingDown)
		wantCode(t, <-next, kv.ShuttingDown)
		<-closed
		wantCode(t, r.wait(context.Background()), kv.ShuttingDown)
	})
}

// TestRoundsTryLonger: each try of a round that times out is followed by one of twice
// its time, until it has all that is left. One that is refused at once is not.
func TestRoundsTryLonger(t *testing.T) {
	const timeout = time.Minute
	tries, refusals := make(chan time.Duration), 3
	r := newRounds(timeout)
	r.readIndex = func(wait time.Duration) (*dragonboat.RequestState, error) {
		if refusals > 0 {
			refusals--
			return nil, dragonboat.ErrShardNotReady
		}
		select {
		case tries <- wait:
		case <-r.quit:
		}
		timedOut := make(chan dragonboat.RequestResult, 1)
		timedOut <- dragonboat.RequestResult{}
		return &dragonboat.RequestState{CompletedC: timedOut}, nil
	}
	go r.run()
	defer r.close()
	go func() { _ = r.wait(context.Background()) }() // the end of the rounds ends it
	for want := firstTry; want < timeout/2; want *= 2 {
		if got := <-tries; got != want {
			t.Errorf("a try has %s, want %s", got, want)
		}
	}
	if a, b := <-tries, <-tries; a > timeout || b >= timeout || b <= timeout/2 {
		t.Errorf("the last tries have %s and %s, want what is left of %s", a, b, timeout)
	}
}

// TestRevisionWaiters wakes those whose revision has come, and nobody else.
func TestRevisionWaiters(t *testing.T) {
	w := newRevisionWaiters()
	var current atomic.Uint64
	wait := func(revision uint64, timeout time.Duration, quit chan struct{}) chan error {
		done := make(chan error, 1)
		go func() {
			done <- w.wait(context.Background(), quit, timeout, revision, current.Load)
		}()
		return done
	}
	waiting := func(n int) func() bool {
		return func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.queue) == n
		}
	}
	advance := func(to uint64) {
		current.Store(to)
		w.advance(to)
	}
	quit := make(chan struct{})
	advance(5)
	must(t, <-wait(5, patience, quit)) // has come already
	six, eight, ten := wait(6, patience, quit), wait(8, patience, quit), wait(10, patience, quit)
	eventually(t, "three wait", waiting(3))
	if w.lowest.Load() != 6 {
		t.Errorf("the lowest is %d", w.lowest.Load())
	}
	advance(5)
	eventually(t, "nobody was woken", waiting(3))
	advance(9) // several steps at once
	must(t, <-six)
	must(t, <-eight)
	eventually(t, "one waits", waiting(1))
	if w.lowest.Load() != 10 {
		t.Errorf("the lowest is %d", w.lowest.Load())
	}
	late := <-wait(11, time.Millisecond, quit)
	wantCode(t, late, kv.NotCaughtUp)
	if late.(*kv.Error).CurrentRevision != 9 {
		t.Errorf("it says %+v", late)
	}
	close(quit)
	wantCode(t, <-ten, kv.ShuttingDown)
	eventually(t, "nobody waits", waiting(0))
	if w.lowest.Load() != nobody {
		t.Errorf("the lowest is %d", w.lowest.Load())
	}
}

// heldRounds has begun a round that nobody waits for, and that ends, as do those after it,
// when open is called.
func heldRounds(t *testing.T) (r *rounds, open func()) {
	m := lone(t)
	m.open(t)
	began, gate := make(chan struct{}, 1), make(chan struct{})
	r, _ = watchedRounds(t, m, func() {
		select {
		case began <- struct{}{}:
		default:
		}
		<-gate
	})
	<-began
	return r, sync.OnceFunc(func() { close(gate) })
}

// TestWaitingReads fills a round that can't begin. One more reader is refused at
// once; those that wait get their answer.
func TestWaitingReads(t *testing.T) {
	r, open := heldRounds(t)
	defer r.close()
	defer open() // before, whatever went wrong
	var readers sync.WaitGroup
	read := func() {
		if err := r.wait(context.Background()); err != nil {
			t.Error(err)
		}
	}
	for range maxWaitingReads {
		readers.Go(read)
	}
	eventually(t, "the next round is full", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.mu.next != nil && r.mu.next.readers == maxWaitingReads
	})
	wantCode(t, r.wait(context.Background()), kv.Busy)
	open()
	readers.Wait()
}

// TestReadersThatAreGone fills a round that can't begin with readers who give up. There is
// room for another one then.
func TestReadersThatAreGone(t *testing.T) {
	r, open := heldRounds(t)
	defer r.close()
	defer open()
	impatient, giveUp := context.WithCancel(context.Background())
	giveUp()
	for range maxWaitingReads {
		wantCode(t, r.wait(impatient), kv.ReadTimeout)
	}
	patient := make(chan error, 1)
	go func() { patient <- r.wait(context.Background()) }()
	eventually(t, "the last one waits alone", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.mu.next.readers == 1 || len(patient) > 0
	})
	open()
	must(t, <-patient)
}
