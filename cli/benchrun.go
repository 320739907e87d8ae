package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cairnkv/cairn/client"
)

// benchOperations are what can be measured.
var benchOperations = []string{"put", "get", "stale-get"}

// benchResult is one operation as it was measured.
type benchResult struct {
	Operation string  `json:"operation"`
	Clients   int     `json:"clients"`
	Seconds   float64 `json:"seconds"`
	// Done and Failed are the requests that were answered with success, and others.
	Done      uint64  `json:"done"`
	Failed    uint64  `json:"failed"`
	PerSecond float64 `json:"per_second"`
	// Latency is that of the successful ones, in milliseconds.
	Latency benchLatency `json:"latency_ms"`

	failure error // what the first of the others says
}

type benchLatency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// benchRun is what all operations of a run share.
type benchRun struct {
	*benchFlags
	clients []*client.Client
	keys    *heldKeys
	value   []byte
}

// request sends one request.
func (b *benchRun) request(ctx context.Context, c *client.Client, operation string) (err error) {
	key := b.keys.key(rand.IntN(b.benchFlags.keys))
	switch operation {
	case "put":
		_, err = c.Put(ctx, key, b.value, client.WithLease(b.keys.lease))
	case "get":
		_, err = c.Get(ctx, key)
	case "stale-get":
		_, err = c.Get(ctx, key, client.Stale())
	}
	return err
}

// Latencies are counted in microseconds, to three digits, up to ten minutes; what took
// longer counts as that.
const (
	longestLatency = 10 * time.Minute
	latencyDigits  = 3
)

// measure lets all clients send requests of one operation until the time is over. The
// ones that are under way then are waited for and count.
func (b *benchRun) measure(ctx context.Context, operation string) *benchResult {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards all and r
		all   = hdrhistogram.New(1, longestLatency.Microseconds(), latencyDigits)
		r     = &benchResult{Operation: operation, Clients: len(b.clients)}
		due   = schedule{rate: b.rate, began: time.Now()}
		until = due.began.Add(b.duration)
	)
	for _, c := range b.clients {
		wg.Go(func() {
			for {
				from, ok := due.next(ctx, until)
				if !ok {
					break
				}
				err := b.request(ctx, c, operation)
				took := min(max(time.Since(from), time.Microsecond), longestLatency)
				mu.Lock()
				switch {
				case err == nil:
					_ = all.RecordValue(took.Microseconds()) // it is within the bounds
				case ctx.Err() == nil:
					if r.Failed++; r.failure == nil {
						r.failure = err
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	r.finish(all, time.Since(due.began))
	return r
}

func (r *benchResult) finish(h *hdrhistogram.Histogram, took time.Duration) {
	at := func(quantile float64) float64 { return float64(h.ValueAtQuantile(quantile)) / 1000 }
	r.Seconds = took.Seconds()
	r.Done = uint64(h.TotalCount())
	r.PerSecond = float64(r.Done) / r.Seconds
	r.Latency = benchLatency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: at(100)}
	if r.failure != nil {
		r.failure = fmt.Errorf("%s: %d of %d requests failed; the first: %w", r.Operation, r.Failed, r.Done+r.Failed, r.failure)
	}
}

// schedule says when requests are due: at once, or at a rate.
type schedule struct {
	rate  float64 // a second; 0: at once
	began time.Time
	given atomic.Int64
}

// next waits until the next request is due, and says when that was, or that there is
// none before the end.
func (s *schedule) next(ctx context.Context, end time.Time) (time.Time, bool) {
	now := time.Now()
	if s.rate == 0 {
		return now, now.Before(end) && ctx.Err() == nil
	}
	due := s.began.Add(time.Duration(float64(s.given.Add(1)-1) / s.rate * float64(time.Second)))
	if !due.Before(end) {
		return due, false
	}
	if early := due.Sub(now); early > 0 {
		select {
		case <-time.After(early):
		case <-ctx.Done():
			return due, false
		}
	}
	return due, ctx.Err() == nil
}
