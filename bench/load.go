package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/bench/internal/histogram"
)

const (
	// stepsMax bounds a measurement whatever its duration.
	stepsMax = 50_000_000
	// faultsMax is how many errors a worker counts before it gives up.
	faultsMax = 10
)

// A step is one request of one worker. It says how many operations that was.
type step func(s session, rng *rand.Rand) (int, error)

// tally is what came of a load.
type tally struct {
	operations int
	errors     int
	firstError error
	elapsed    time.Duration
	latency    histogram.Histogram // of the requests that succeeded
}

// drive runs a closed loop: each session sends its next request as soon as the
// last one is answered, until the time is over. Requests that are on the way
// then are waited for and count, as does the time that they take.
func drive(ctx context.Context, sessions []session, do step, duration time.Duration) *tally {
	workers := make([]worker, len(sessions))
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range workers {
		w := &workers[i]
		w.begin, w.end = begin, begin.Add(duration)
		w.stepsMax = max(1, stepsMax/len(sessions))
		// The same numbers for the same worker of every target.
		rng := rand.New(rand.NewPCG(uint64(i), uint64(len(sessions))))
		wg.Go(func() { w.run(ctx, sessions[i], do, rng) })
	}
	wg.Wait()
	total := &tally{elapsed: time.Since(begin)}
	for i := range workers {
		total.add(&workers[i].tally)
	}
	if err := ctx.Err(); err != nil && total.firstError == nil {
		total.errors++
		total.firstError = err
	}
	return total
}

// worker is one goroutine of a load, which alone touches it.
type worker struct {
	tally
	begin, end time.Time
	stepsMax   int
}

func (w *worker) run(ctx context.Context, s session, do step, rng *rand.Rand) {
	last := w.begin
	for range w.stepsMax {
		n, err := do(s, rng)
		now := time.Now() // the end of this request and the start of the next: one look at the clock
		if err != nil {
			w.errors++
			if w.firstError == nil {
				w.firstError = err
			}
			if w.errors == faultsMax {
				return
			}
		} else {
			w.operations += n
			w.latency.Record(now.Sub(last))
		}
		last = now
		if !now.Before(w.end) || ctx.Err() != nil {
			return
		}
	}
}

func (t *tally) add(o *tally) {
	t.operations += o.operations
	t.errors += o.errors
	if t.firstError == nil {
		t.firstError = o.firstError
	}
	t.latency.Merge(&o.latency)
}

// fill loads keys 0 to n-1 through all sessions at once. A request that was answered
// with an error is repeated, which writes the same again; it takes its time, and is
// told of. The first one that stays an error ends it.
func fill(ctx context.Context, sessions []session, n int) error {
	const attempts = 5
	return shareOut(ctx, sessions, n, sessions[0].batch(), func(s session, keys []int) (err error) {
		for range attempts {
			if err = s.load(keys); err == nil || broken(err) || ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "bench: a bulk request is repeated: %v\n", err)
		}
		return err
	})
}

// overwrite puts each of the keys 0 to n-1 by itself, with the value that it has.
func overwrite(ctx context.Context, data *dataset, sessions []session, n int) error {
	return shareOut(ctx, sessions, n, 1, func(s session, keys []int) error {
		return s.put(keys[0], data.loaded(keys[0]))
	})
}

// shareOut hands the keys 0 to n-1, scattered and so many at a time, to whichever
// session is free.
func shareOut(ctx context.Context, sessions []session, n, batch int, do func(session, []int) error) error {
	var next atomic.Int64
	failed := make([]error, len(sessions))
	var wg sync.WaitGroup
	for i, s := range sessions {
		wg.Go(func() {
			keys := make([]int, 0, batch)
			for ctx.Err() == nil {
				to := int(next.Add(int64(batch)))
				keys = keys[:0]
				for at := to - batch; at < min(to, n); at++ {
					keys = append(keys, scatter(at, n))
				}
				if len(keys) == 0 {
					return
				}
				if failed[i] = do(s, keys); failed[i] != nil {
					next.Store(int64(n)) // the others need not go on
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil { // the others say the same
			return fmt.Errorf("loading: %w", err)
		}
	}
	return ctx.Err()
}
