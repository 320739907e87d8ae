package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairnkv/cairn/bench/internal/histogram"
)

// An openLoop sends requests when they are due, whether or not those before them
// were answered, as many clients do that know nothing of each other: the gaps
// between them are random, exponentially distributed, and the same for every target.
// A request is sent by whichever session is free. If none is, it is late, and since
// its latency counts from when it was due, what it waited for is not left out.
type openLoop struct {
	// rate is requests a second, for so long.
	rate     float64
	duration time.Duration
	// patience is how long after it was due a request that could not be sent yet is
	// given up.
	patience time.Duration
	do       step
}

// openTally is what came of an open loop.
type openTally struct {
	outcome
	elapsed time.Duration
	// late is how much after it was due the generator itself handed a request over,
	// of those that it waited for. It is a part of the latency that is not the server's.
	late histogram.Histogram
}

// run sends requests and waits for the answers to the last. An error is one after
// which a session is of no use; what a server refuses or fails is counted.
func (l *openLoop) run(ctx context.Context, sessions []session) (*openTally, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := &openTally{}
	var got outcomes
	queue := make(chan time.Time, len(sessions))
	var wg sync.WaitGroup
	for i, s := range sessions {
		rng := rand.New(rand.NewPCG(uint64(i), uint64(len(sessions))))
		wg.Go(func() {
			for due := range queue {
				if time.Since(due) > l.patience {
					got.note(i, func(o *outcome) { o.unsent++ })
					continue
				}
				_, err := l.do(s, rng)
				if got.answer(i, time.Since(due), err); broken(err) {
					cancel(err)
					return
				}
			}
		})
	}
	began := time.Now()
	wg.Go(func() {
		defer close(queue)
		// The thread sleeps by the kernel's clock and not by the runtime's timers,
		// which are late by up to a millisecond. It must not end with this goroutine: a
		// server dies with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // without it, sleeps are some 50 µs longer
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
		l.dispatch(ctx, began, queue, &total.late)
	})
	wg.Wait()
	total.elapsed = time.Since(began)
	total.outcome = got.sum()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%.0f requests a second: %w", l.rate, context.Cause(ctx))
	}
	return total, nil
}

// dispatch hands over when requests are due.
func (l *openLoop) dispatch(ctx context.Context, began time.Time, queue chan<- time.Time, late *histogram.Histogram) {
	rng := rand.New(rand.NewPCG(13, 17))
	var after time.Duration
	for {
		after += time.Duration(rng.ExpFloat64() / l.rate * float64(time.Second))
		if after >= l.duration {
			return
		}
		due := began.Add(after)
		if sleepUntil(due) {
			late.Record(time.Since(due))
		}
		select {
		case queue <- due:
		case <-ctx.Done():
			return
		}
	}
}

// sleepUntil blocks the thread, and says whether there was still time to.
func sleepUntil(t time.Time) (slept bool) {
	for left := time.Until(t); left > 0; left = time.Until(t) {
		slept = true
		ts := unix.NsecToTimespec(int64(left))
		_ = unix.Nanosleep(&ts, nil) // a signal only cuts it short
	}
	return slept
}
