package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/bench/internal/histogram"
)

// A paced load is an open loop: puts are due at fixed times, whether or not those
// before them were answered. Each is sent by whichever session is free; if none
// is, it is late, and what is measured from its stamp, when it was due, tells.
type paced struct {
	data *dataset
	// rate is puts a second; key says which key a put is of.
	rate int
	key  func(n int) int
	// until, when set, ends the load before its time once it is closed.
	until <-chan struct{}
	// put, when set, is told of each put that was answered.
	put func(key int, number uint64)
	// numbers go on from load to load of one measurement.
	numbers *atomic.Uint64
}

// pacedTally is what came of a paced load.
type pacedTally struct {
	puts    int
	began   time.Time
	elapsed time.Duration
	latency histogram.Histogram // from when a put was due to its answer
}

// drive runs the load for a time. It ends at the first error.
func (p *paced) drive(ctx context.Context, sessions []session, duration time.Duration) (*pacedTally, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	due := int64(duration.Seconds() * float64(p.rate))
	tallies := make([]pacedTally, len(sessions))
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for i, s := range sessions {
		t := &tallies[i]
		wg.Go(func() {
			value := make([]byte, valueSize)
			for {
				n := next.Add(1) - 1
				if n >= due || ctx.Err() != nil || closed(p.until) {
					return
				}
				at := began.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
				time.Sleep(time.Until(at))
				if err := p.one(s, int(n), at, value); err != nil {
					cancel(err)
					return
				}
				t.puts++
				t.latency.Record(time.Since(at))
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("puts at a fixed rate: %w", context.Cause(ctx))
	}
	total := &pacedTally{began: began, elapsed: time.Since(began)}
	for i := range tallies {
		total.puts += tallies[i].puts
		total.latency.Merge(&tallies[i].latency)
	}
	return total, nil
}

// closed tells of a channel that nothing is sent on; nil is open for ever.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (p *paced) one(s session, n int, at time.Time, value []byte) error {
	number := p.numbers.Add(1)
	copy(value, p.data.value(number))
	stamp(value, at, number)
	key := p.key(n)
	if err := s.put(key, value); err != nil {
		return err
	}
	if p.put != nil {
		p.put(key, number)
	}
	return nil
}
