package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairnkv/cairn/bench/internal/histogram"
)

// An outcome is what came of requests to a server that may have too much to do.
type outcome struct {
	done    int
	refused int // 429, 503, or what gRPC has for them
	failed  int // any other answer that is not the right one
	unsent  int // given up before it was sent
	// firstError is of those that failed.
	firstError error
	latency    histogram.Histogram // of those that were done
}

// lost is the part of all requests that was not done, from 0 to 1.
func (o *outcome) lost() float64 {
	lost := o.refused + o.failed + o.unsent
	return float64(lost) / float64(max(1, lost+o.done))
}

// outcomes count for very many sessions, of which several share a counter: a
// histogram each would take more memory than the connections.
type outcomes struct {
	shards [16]struct {
		sync.Mutex
		outcome
	}
}

// note changes the counters of a session.
func (all *outcomes) note(session int, change func(*outcome)) {
	s := &all.shards[session%len(all.shards)]
	s.Lock()
	defer s.Unlock()
	change(&s.outcome)
}

// answer counts an answer, or its absence, that took so long.
func (all *outcomes) answer(session int, took time.Duration, err error) {
	all.note(session, func(o *outcome) {
		switch {
		case err == nil:
			o.done++
			o.latency.Record(took)
		case refused(err):
			o.refused++
		default:
			o.failed++
			if o.firstError == nil {
				o.firstError = err
			}
		}
	})
}

func (all *outcomes) sum() (total outcome) {
	for i := range all.shards {
		s := &all.shards[i].outcome
		total.done += s.done
		total.refused += s.refused
		total.failed += s.failed
		total.unsent += s.unsent
		if total.firstError == nil {
			total.firstError = s.firstError
		}
		total.latency.Merge(&s.latency)
	}
	return total
}

// broken says whether a session is of no use any more.
func broken(err error) bool {
	var answer *answerError
	if err == nil || errors.As(err, &answer) {
		return false
	}
	s, answered := status.FromError(err)
	return !answered || s.Code() == codes.Canceled
}

// crowd is a closed loop, as drive is, of very many sessions: some of them may be
// refused, and come again after a second, as they are told to.
func crowd(ctx context.Context, sessions []session, do step, duration time.Duration) (outcome, time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var got outcomes
	var wg sync.WaitGroup
	began := time.Now()
	for i, s := range sessions {
		rng := rand.New(rand.NewPCG(uint64(i), uint64(len(sessions))))
		wg.Go(func() {
			for last := began; time.Since(began) < duration && ctx.Err() == nil; {
				_, err := do(s, rng)
				now := time.Now()
				got.answer(i, now.Sub(last), err)
				switch {
				case broken(err):
					cancel(err)
					return
				case err != nil:
					select {
					case <-ctx.Done():
					case <-time.After(min(time.Second, duration-now.Sub(began))):
					}
					now = time.Now()
				}
				last = now
			}
		})
	}
	wg.Wait()
	return got.sum(), time.Since(began), context.Cause(ctx)
}
