package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

var catchUpColumns = []column{
	{name: "events/s", format: whole, ratio: true},
	{name: "seconds", format: three},
	{name: "read", format: three},
	{name: "first ms", format: three, ratio: true},
	{name: "server CPU s", format: three, ratio: true},
	{name: "client CPU s", format: three},
	{name: "server µs/event", format: three, ratio: true},
	{name: "lost", format: whole},
	{name: "peak MB", format: whole, ratio: true},
}

const (
	// firstRevision is that of the first change of an empty store, of etcd's too.
	firstRevision = 2
	// historyPutters make a history of single puts, as fast as they can.
	historyPutters = 256
	catchUpWithin  = 30 * time.Minute
)

// catchUp makes a history of single puts and then reads it with one watcher. Of a
// server that is too slow to wait for, the rate is that up to the limit; "read" is
// the part of the history that came.
func catchUp(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	return onFreshServer(ctx, set, data, t, catchUpWithin, func(ctx context.Context, r *watchRun) (sample, error) {
		var put ledger
		if err := r.makeHistory(ctx, &put); err != nil {
			return sample{}, err
		}
		if err := r.settle(ctx); err != nil {
			return sample{}, err
		}
		before, err := takeUsage(r.pid())
		if err != nil {
			return sample{}, err
		}
		began := time.Now()
		w, got, err := r.watch(ctx, []subscription{{prefix: "bench/", from: firstRevision}})
		if err != nil {
			return sample{}, err
		}
		s, err := r.catchUp(ctx, began, before, &put, got)
		return s, errors.Join(err, w.close())
	})
}

func (r *watchRun) catchUp(ctx context.Context, began time.Time, before usage, put *ledger, got *receipts) (s sample, err error) {
	if err := r.awaitDelivery(ctx, got, 1); err != nil {
		return s, err
	}
	first := time.Since(began)
	limited, cancel := context.WithTimeout(ctx, r.set.Watch.CatchUpLimit)
	defer cancel()
	err = r.awaitDelivery(limited, got, put.events.Load())
	stopped := limited.Err() != nil && ctx.Err() == nil
	if err != nil && !stopped {
		return s, err
	}
	after, err := readUsage(r.pid())
	if err != nil {
		return s, err
	}
	took := time.Unix(0, got.last.Load()).Sub(began)
	used := after.since(before)
	events := float64(got.delivered())
	lost := uint64(0)
	if !stopped {
		lost = account(&s, got, func(int) *ledger { return put })
	}
	s.values = []float64{
		events / took.Seconds(),
		took.Seconds(),
		events / float64(put.events.Load()),
		milliseconds(first),
		used.server.Seconds(),
		used.client.Seconds(),
		perOperation(used.server, events),
		float64(lost),
		megabytes(used.memory.Peak),
	}
	return s, nil
}

// makeHistory puts keys at random, one put a revision.
func (r *watchRun) makeHistory(ctx context.Context, put *ledger) error {
	c, err := r.target.dial(ctx, r.addr, historyPutters)
	if err != nil {
		return err
	}
	defer c.close()
	rng := rand.New(rand.NewPCG(13, 17))
	var mu sync.Mutex
	return shareOut(ctx, c.sessions, r.set.Watch.Events, 1, func(s session, numbers []int) error {
		mu.Lock()
		key := rng.IntN(r.set.Keys)
		mu.Unlock()
		number := uint64(numbers[0])
		value := make([]byte, valueSize)
		copy(value, r.data.value(number))
		stamp(value, time.Now(), number)
		if err := s.put(key, value); err != nil {
			return err
		}
		put.add(number)
		return nil
	})
}
