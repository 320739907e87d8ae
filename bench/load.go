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

// fill loads keys 0 to n-1 through all sessions at once and stops at the first
// error.
func fill(ctx context.Context, sessions []session, n int) error {
	return fillPart(ctx, sessions, 0, n, n)
}

// fillPart loads a part of n keys.
func fillPart(ctx context.Context, sessions []session, from, to, n int) error {
	return share(ctx, sessions, from, to, n, sessions[0].batch(), session.load)
}

// loadInParts loads n keys, many of them in parts: one that fails, as it may when a
// server is behind with its work on the disk, is loaded again, from its start and
// over new connections, which writes the same once more. That counts as time of the
// load, and a line says so.
func loadInParts(ctx context.Context, n int, part func(from, to int) error) error {
	const (
		size     = 1_000_000
		attempts = 5
	)
	for from := 0; from < n; from += size {
		for attempt := 1; ; attempt++ {
			err := part(from, min(from+size, n))
			if err == nil {
				break
			}
			if attempt == attempts || n <= size || ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "bench: keys from %d on are loaded again: %v\n", from, err)
		}
	}
	return nil
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
	return share(ctx, sessions, 0, n, n, batch, do)
}

// share hands out a part of them.
func share(ctx context.Context, sessions []session, from, to, n, batch int, do func(session, []int) error) error {
	var next atomic.Int64
	next.Store(int64(from))
	failed := make([]error, len(sessions))
	var wg sync.WaitGroup
	for i, s := range sessions {
		wg.Go(func() {
			keys := make([]int, 0, batch)
			for ctx.Err() == nil {
				end := int(next.Add(int64(batch)))
				keys = keys[:0]
				for at := end - batch; at < min(end, to); at++ {
					keys = append(keys, scatter(at, n))
				}
				if len(keys) == 0 {
					return
				}
				if failed[i] = do(s, keys); failed[i] != nil {
					next.Store(int64(to)) // the others need not go on
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
