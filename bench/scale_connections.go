package main

import (
	"context"
	"fmt"
	"time"
)

// profileScaleConnections measures a server with more and more connections.
const profileScaleConnections = "scale-connections"

var scaleConnectionsColumns = []column{
	{name: "put/s", format: whole, ratio: true},
	{name: "put p50 ms", format: three, ratio: true},
	{name: "put p99 ms", format: three, ratio: true},
	{name: "put % lost", format: three},
	{name: "get/s", format: whole, ratio: true},
	{name: "get p50 ms", format: three, ratio: true},
	{name: "get p99 ms", format: three, ratio: true},
	{name: "get % lost", format: three},
	{name: "server µs/put", format: three, ratio: true},
	{name: "server µs/get", format: three, ratio: true},
	{name: "KiB/connection", format: three, ratio: true},
	{name: "connected MB", format: whole, ratio: true},
	{name: "peak MB", format: whole, ratio: true},
	{name: "connections", format: whole},
}

// scaleConnections measures with one connection, and more, and so on, each of which
// sends its next request when its last was answered.
func (b *bench) scaleConnections(ctx context.Context) (results []*result) {
	for _, n := range b.set.Scale.Connections {
		r := &result{
			profile: fmt.Sprintf("%s %d", profileScaleConnections, n),
			about: fmt.Sprintf("%s connections, each with one request under way: gets, then puts of %s keys",
				whole(float64(n)), whole(float64(b.set.Keys))),
			columns: scaleConnectionsColumns,
		}
		results = append(results, r)
		if err := enoughFiles(n); err != nil {
			r.notes = append(r.notes, fmt.Sprintf("%s: %v", r.profile, err))
			continue
		}
		b.alternate(ctx, r, b.targets, func(t target) (sample, error) {
			within := 4*b.set.Duration + 2*grace
			return onFreshServer(ctx, b.set, b.data, t, within, func(ctx context.Context, run *watchRun) (sample, error) {
				return run.connections(ctx, n)
			})
		})
	}
	return results
}

func (r *watchRun) connections(ctx context.Context, n int) (sample, error) {
	if err := r.load(ctx, r.set.Keys); err != nil {
		return sample{}, err
	}
	if err := r.settle(ctx); err != nil {
		return sample{}, err
	}
	before, err := takeUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	dial := r.target.dial
	if r.target.dialOwn != nil {
		dial = r.target.dialOwn
	}
	c, err := dial(ctx, r.addr, n)
	if err != nil {
		return sample{}, err
	}
	defer c.close()
	if err := c.connect(ctx, r.set.Keys); err != nil {
		return sample{}, err
	}
	connected, err := readUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	gets, err := r.crowd(ctx, c.sessions, getStep(false)(r.data, r.set))
	if err != nil {
		return sample{}, err
	}
	puts, err := r.crowd(ctx, c.sessions, putStep(r.data, r.set))
	if err != nil {
		return sample{}, err
	}
	s := sample{errors: gets.failed + puts.failed, firstError: gets.firstError}
	if s.firstError == nil {
		s.firstError = puts.firstError
	}
	s.values = []float64{
		puts.rate(), milliseconds(puts.latency.Quantile(0.50)), milliseconds(puts.latency.Quantile(0.99)), 100 * puts.lost(),
		gets.rate(), milliseconds(gets.latency.Quantile(0.50)), milliseconds(gets.latency.Quantile(0.99)), 100 * gets.lost(),
		perOperation(puts.used.server, float64(puts.done)),
		perOperation(gets.used.server, float64(gets.done)),
		kibibytes(connected.memory.Resident-before.memory.Resident) / float64(n),
		megabytes(connected.memory.Resident),
		megabytes(max(gets.used.memory.Peak, puts.used.memory.Peak)),
		float64(n),
	}
	return s, nil
}

// crowdTally is what came of a crowd, and what the server used for it.
type crowdTally struct {
	outcome
	elapsed time.Duration
	used    usage
}

func (t *crowdTally) rate() float64 { return float64(t.done) / t.elapsed.Seconds() }

// crowd warms up and measures.
func (r *watchRun) crowd(ctx context.Context, sessions []session, do step) (t crowdTally, err error) {
	if _, _, err := crowd(ctx, sessions, do, r.set.Duration/5); err != nil {
		return t, fmt.Errorf("warm-up: %w", err)
	}
	if err := quiet(r.set.Dir); err != nil {
		return t, err
	}
	before, err := takeUsage(r.pid())
	if err != nil {
		return t, err
	}
	if t.outcome, t.elapsed, err = crowd(ctx, sessions, do, r.set.Duration); err != nil {
		return t, err
	}
	after, err := readUsage(r.pid())
	t.used = after.since(before)
	return t, err
}
