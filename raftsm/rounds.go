package raftsm

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/lni/dragonboat/v4"
)

const (
	// idleRound is how often a round is made that nobody waits for.
	idleRound = 500 * time.Millisecond
	// maxWaitingReads is how many readers may wait for the next round. They cost
	// little, but when the round is over all of them run, and while there is no
	// leader they pile up.
	maxWaitingReads = 4096
	// firstTry is how long the first try of a round is waited for, each further one twice
	// as long: what a dying leader swallowed ends by its timeout alone. But each try waits
	// for a newer entry to be applied, and where applying lags by more than a try, tries
	// that are all short would never succeed.
	firstTry = time.Second
	// tryGrace is how long after its time a try may be without an answer. While the disk
	// of the log hangs, Dragonboat counts no time, and where a replica is stopped at the
	// wrong moment it forgets who waits.
	tryGrace = 250 * time.Millisecond
	// readyWithin is how old the beginning of the last completed round may be
	// on a node that calls itself ready.
	readyWithin = 3 * time.Second
)

// rounds makes linearizable rounds, each for all readers that wait when it
// begins.
type rounds struct {
	timeout   time.Duration
	readIndex func(timeout time.Duration) (*dragonboat.RequestState, error)
	// elected returns a channel that is closed at the next election.
	elected func() <-chan struct{}
	// confirmed is told how long each completed round took.
	confirmed func(took time.Duration)

	// lastBegan is when the last completed round began, in Unix nanoseconds of
	// a clock that is monotonic in this process; 0 if none was completed.
	lastBegan atomic.Int64
	started   time.Time

	kick chan struct{} // level trigger, capacity 1
	quit chan struct{} // closed by close
	done chan struct{} // closed when run has returned

	mu struct {
		sync.Mutex
		// next collects the readers of the round that has not begun.
		next   *round
		closed bool
	}
}

// round is one ReadIndex and those who wait for it.
type round struct {
	over chan struct{} // closed when err is set
	err  error
	// since is when its first reader came, readers how many there are. The rounds'
	// mutex guards the number.
	since   time.Time
	readers int
}

func newRounds(timeout time.Duration) *rounds {
	return &rounds{
		timeout: timeout, started: time.Now(), elected: never, confirmed: func(time.Duration) {},
		kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
}

// wait returns once a round that began after the call has completed.
func (r *rounds) wait(ctx context.Context) error {
	r.mu.Lock()
	if r.mu.closed {
		r.mu.Unlock()
		return kv.Errorf(kv.ShuttingDown, "this node is shutting down")
	}
	n := r.mu.next
	if n == nil {
		n = &round{over: make(chan struct{}), since: time.Now()}
		r.mu.next = n
		select {
		case r.kick <- struct{}{}:
		default:
		}
	}
	if n.readers == maxWaitingReads {
		r.mu.Unlock()
		return &kv.Error{Code: kv.Busy, Detail: "too many linearizable reads wait on this node", RetryAfterSeconds: 1}
	}
	n.readers++
	r.mu.Unlock()
	select {
	case <-n.over:
		return n.err
	case <-ctx.Done():
		r.mu.Lock()
		n.readers-- // its place is for others; in a round that has begun nobody asks
		r.mu.Unlock()
		return kv.Errorf(kv.ReadTimeout, "the request ended before the read could begin")
	}
}

// run makes rounds until close. It is the only goroutine of rounds.
func (r *rounds) run() {
	defer close(r.done)
	idle := time.NewTicker(idleRound)
	defer idle.Stop()
	for {
		select {
		case <-r.quit:
			return
		case <-r.kick:
		case <-idle.C:
			if r.age() < idleRound {
				continue
			}
		}
		r.mu.Lock()
		n := r.mu.next
		r.mu.next = nil
		r.mu.Unlock()
		if n == nil {
			n = &round{over: make(chan struct{}), since: time.Now()}
		}
		// Those who came late in a round that failed get a try as well.
		deadline := n.since.Add(r.timeout)
		if least := time.Now().Add(firstTry); deadline.Before(least) {
			deadline = least
		}
		n.err = r.make(deadline)
		close(n.over)
	}
}

// make completes one round, trying again while there is time: a new leader
// answers none before it has committed an entry of its own.
func (r *rounds) make(deadline time.Time) error {
	for wait := firstTry; ; {
		began := time.Now()
		left := deadline.Sub(began)
		if left <= 0 {
			return &kv.Error{Code: kv.NoLeader, Detail: "no majority confirmed that this read would be current", RetryAfterSeconds: 1}
		}
		switch r.try(min(left, wait)) {
		case tryCompleted:
			r.lastBegan.Store(int64(began.Sub(r.started)) + 1)
			r.confirmed(time.Since(began))
			return nil
		case tryOutvoted:
			continue // who leads now may answer at once
		case tryTimedOut:
			wait *= 2
		case tryRefused:
		}
		select {
		case <-time.After(retryPause):
		case <-r.quit:
			return kv.Errorf(kv.ShuttingDown, "this node is shutting down")
		}
	}
}

// tried is what became of one try of a round.
type tried int

const (
	tryCompleted tried = iota
	tryRefused         // or dropped, or ended by the end of the replica
	tryTimedOut
	tryOutvoted // another leader was elected, and what the last one was asked may be lost
)

// try asks the leader once. A try that was given up may still come to its end; nobody
// looks at it then, and another one is safe.
func (r *rounds) try(wait time.Duration) tried {
	elected := r.elected()
	rs, err := r.readIndex(wait)
	if err != nil {
		return tryRefused
	}
	late := time.NewTimer(wait + tryGrace)
	defer late.Stop()
	select {
	case outcome := <-rs.ResultC():
		rs.Release()
		switch {
		case outcome.Completed():
			return tryCompleted
		case outcome.Timeout():
			return tryTimedOut
		}
		return tryRefused
	case <-elected:
		return tryOutvoted
	case <-late.C:
		return tryTimedOut
	case <-r.quit:
		return tryRefused
	}
}

// age is how long ago the last completed round began.
func (r *rounds) age() time.Duration {
	began := r.lastBegan.Load()
	if began == 0 {
		return math.MaxInt64
	}
	return time.Since(r.started) - time.Duration(began)
}

// last is when the last completed round began; zero if none was completed.
func (r *rounds) last() time.Time {
	began := r.lastBegan.Load()
	if began == 0 {
		return time.Time{}
	}
	return r.started.Add(time.Duration(began))
}

// close ends run, which fails the readers of the round under way, and fails
// those who wait for the next.
func (r *rounds) close() {
	r.mu.Lock()
	r.mu.closed = true
	n := r.mu.next
	r.mu.next = nil
	r.mu.Unlock()
	close(r.quit)
	<-r.done
	if n != nil {
		n.err = kv.Errorf(kv.ShuttingDown, "this node is shutting down")
		close(n.over)
	}
}
