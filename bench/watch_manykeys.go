package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

var manyKeysColumns = []column{
	{name: "puts/s beside / without", format: three},
	{name: "watched / without", format: three},
	{name: "puts/s without", format: whole, ratio: true},
	{name: "puts/s beside", format: whole, ratio: true},
	{name: "puts/s watched", format: whole, ratio: true},
	{name: "server µs/put without", format: three, ratio: true},
	{name: "server µs/put beside", format: three, ratio: true},
	{name: "paced puts/s", format: whole},
	{name: "its put p99 ms", format: three, ratio: true},
	{name: "without p99 ms", format: three},
	{name: "delay p50 ms", format: three, ratio: true},
	{name: "delay p99 ms", format: three, ratio: true},
	{name: "lost", format: whole},
	{name: "peak MB", format: whole, ratio: true},
}

const (
	// closedPutters put as fast as they can.
	closedPutters = 64
	// pacedPutters is how many of the paced puts may be under way at once.
	pacedPutters = 256
)

// manyKeys watches many keys, one each, and looks at what that costs the puts: of
// those keys, and of others. The loads without watchers are made before and after,
// since a server that has written more may be slower; what is shown is their mean.
func manyKeys(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	return onFreshServer(ctx, set, data, t, set.Duration*20+2*grace, func(ctx context.Context, r *watchRun) (sample, error) {
		m := &manyKeysRun{watchRun: r, put: make([]ledger, set.Watch.Watchers)}
		return m.run(ctx)
	})
}

type manyKeysRun struct {
	*watchRun
	numbers atomic.Uint64
	put     []ledger // by watched key
}

// closedLoad is what came of puts as fast as they can: how many a second, and what
// processor time each cost the server, in microseconds.
type closedLoad struct{ perSecond, cost float64 }

func (m *manyKeysRun) run(ctx context.Context) (sample, error) {
	n := m.set.Watch.Watchers
	slow, err := m.paced(ctx)
	if err != nil {
		return sample{}, err
	}
	first, err := m.closed(ctx, n)
	if err != nil {
		return sample{}, err
	}
	subs := make([]subscription, n)
	for i := range subs {
		subs[i].key = i
	}
	// The load so far is none of the watchers'.
	m.put = make([]ledger, n)
	w, got, err := m.watch(ctx, subs)
	if err != nil {
		return sample{}, err
	}
	s, beside, watched, err := m.beside(ctx, got)
	if err = errors.Join(err, w.close()); err != nil {
		return sample{}, err
	}
	second, err := m.closed(ctx, n)
	if err != nil {
		return sample{}, err
	}
	without := (first.perSecond + second.perSecond) / 2
	s.values = append([]float64{
		beside.perSecond / without, watched.perSecond / without, without, beside.perSecond, watched.perSecond,
		(first.cost + second.cost) / 2, beside.cost,
	}, s.values...)
	const withoutP99 = 9
	s.values[withoutP99] = milliseconds(slow.latency.Quantile(0.99))
	return s, nil
}

// beside makes the loads while all are watching.
func (m *manyKeysRun) beside(ctx context.Context, got *receipts) (s sample, beside, watched closedLoad, err error) {
	if _, err = takeUsage(m.pid()); err != nil {
		return s, beside, watched, err
	}
	got.restart(time.Now())
	paced, err := m.paced(ctx)
	if err != nil {
		return s, beside, watched, err
	}
	if err := m.awaitDelivery(ctx, got, m.events()); err != nil {
		return s, beside, watched, err
	}
	delays := got.delays()
	if beside, err = m.closed(ctx, len(got.each)); err != nil {
		return s, beside, watched, err
	}
	if watched, err = m.closed(ctx, 0); err != nil {
		return s, beside, watched, err
	}
	if err := m.awaitDelivery(ctx, got, m.events()); err != nil {
		return s, beside, watched, err
	}
	used, err := readUsage(m.pid())
	if err != nil {
		return s, beside, watched, err
	}
	lost := account(&s, got, func(i int) *ledger { return &m.put[i] })
	s.values = []float64{
		float64(paced.puts) / paced.elapsed.Seconds(),
		milliseconds(paced.latency.Quantile(0.99)),
		0, // without: by whoever has it
		milliseconds(delays.Quantile(0.50)),
		milliseconds(delays.Quantile(0.99)),
		float64(lost),
		megabytes(used.memory.Peak),
	}
	return s, beside, watched, nil
}

// events is how many all watchers together are to get.
func (m *manyKeysRun) events() (n uint64) {
	for i := range m.put {
		n += m.put[i].events.Load()
	}
	return n
}

// paced puts the watched keys at the fixed rate.
func (m *manyKeysRun) paced(ctx context.Context) (*pacedTally, error) {
	c, err := m.target.dial(ctx, m.addr, pacedPutters)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := m.settle(ctx); err != nil {
		return nil, err
	}
	n := len(m.put)
	load := &paced{
		data: m.data, rate: m.set.Watch.KeyRate, numbers: &m.numbers,
		key: func(i int) int { return scatter(i%n, n) },
		put: func(key int, number uint64) { m.put[key].add(number) },
	}
	return load.drive(ctx, c.sessions, m.set.Duration)
}

// closed puts as fast as it can: one of as many keys as are watched, of which the
// first has a number.
func (m *manyKeysRun) closed(ctx context.Context, from int) (_ closedLoad, err error) {
	c, err := m.target.dial(ctx, m.addr, closedPutters)
	if err != nil {
		return closedLoad{}, err
	}
	defer c.close()
	n := len(m.put)
	do := func(s session, rng *rand.Rand) (int, error) {
		key, number := from+rng.IntN(n), m.numbers.Add(1)
		value := make([]byte, valueSize)
		copy(value, m.data.value(number))
		stamp(value, time.Now(), number)
		err := s.put(key, value)
		if err == nil && key < n {
			m.put[key].add(number)
		}
		return 1, err
	}
	if warm := drive(ctx, c.sessions, do, m.set.Duration/5); warm.errors > 0 {
		return closedLoad{}, warm.firstError
	}
	if err := m.settle(ctx); err != nil {
		return closedLoad{}, err
	}
	before, err := readUsage(m.pid())
	if err != nil {
		return closedLoad{}, err
	}
	got := drive(ctx, c.sessions, do, m.set.Duration)
	after, err := readUsage(m.pid())
	if err != nil {
		return closedLoad{}, err
	}
	puts := float64(got.operations)
	return closedLoad{puts / got.elapsed.Seconds(), perOperation(after.since(before).server, puts)}, got.firstError
}
