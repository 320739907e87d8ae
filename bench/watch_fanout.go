package main

import (
	"context"
	"sync/atomic"
	"time"
)

var fanOutColumns = []column{
	{name: "events/s", format: whole, ratio: true},
	{name: "p50 ms", format: three, ratio: true},
	{name: "p99 ms", format: three, ratio: true},
	{name: "lost", format: whole},
	{name: "puts/s", format: whole},
	{name: "put p99 ms", format: three},
	{name: "behind s", format: three},
	{name: "server CPU s", format: three},
	{name: "client CPU s", format: three},
	{name: "server µs/event", format: three, ratio: true},
	{name: "peak MB", format: whole, ratio: true},
}

// fanOutWriters is how many puts may be under way at once. They are one writer:
// its puts are due one after another.
const fanOutWriters = 64

// fanOut puts keys of a prefix at a fixed rate while many watch it. The rate of
// delivery is that until the last watcher has got the last event: of a server that
// can't keep up it is what it can do.
func fanOut(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	return onFreshServer(ctx, set, data, t, set.Duration*10+grace, func(ctx context.Context, r *watchRun) (sample, error) {
		subs := make([]subscription, set.Watch.FanOut)
		for i := range subs {
			subs[i].prefix = keyName(0)[:prefixSize]
		}
		w, got, err := r.watch(ctx, subs)
		if err != nil {
			return sample{}, err
		}
		s, err := r.fanOut(ctx, got)
		if closeErr := w.close(); err == nil {
			err = closeErr
		}
		return s, err
	})
}

func (r *watchRun) fanOut(ctx context.Context, got *receipts) (sample, error) {
	c, err := r.target.dial(ctx, r.addr, fanOutWriters)
	if err != nil {
		return sample{}, err
	}
	defer c.close()
	var put ledger
	load := &paced{
		data: r.data, rate: r.set.Watch.FanOutRate, numbers: new(atomic.Uint64),
		key: func(n int) int { return n % groupSize },
		put: func(_ int, number uint64) { put.add(number) },
	}
	watchers := uint64(len(got.each))
	// The warm-up; all of it arrives before the measurement.
	if _, err := load.drive(ctx, c.sessions, r.set.Duration/5); err != nil {
		return sample{}, err
	}
	if err := r.awaitDelivery(ctx, got, put.events.Load()*watchers); err != nil {
		return sample{}, err
	}
	if err := r.settle(ctx); err != nil {
		return sample{}, err
	}
	before, err := takeUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	delivered := got.delivered()
	got.restart(time.Now())
	puts, err := load.drive(ctx, c.sessions, r.set.Duration)
	if err != nil {
		return sample{}, err
	}
	if err := r.awaitDelivery(ctx, got, put.events.Load()*watchers); err != nil {
		return sample{}, err
	}
	after, err := readUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	used := after.since(before)
	events := float64(got.delivered() - delivered)
	took := time.Unix(0, got.last.Load()).Sub(puts.began)
	delays := got.delays()
	var s sample
	lost := account(&s, got, func(int) *ledger { return &put })
	s.values = []float64{
		events / took.Seconds(),
		milliseconds(delays.Quantile(0.50)),
		milliseconds(delays.Quantile(0.99)),
		float64(lost),
		float64(puts.puts) / puts.elapsed.Seconds(),
		milliseconds(puts.latency.Quantile(0.99)),
		max(0, took-puts.elapsed).Seconds(),
		used.server.Seconds(),
		used.client.Seconds(),
		perOperation(used.server, events),
		megabytes(used.memory.Peak),
	}
	return s, nil
}
