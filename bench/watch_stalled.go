package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/bench/internal/histogram"
)

var stalledColumns = []column{
	{name: "p50 without ms", format: three},
	{name: "p50 stalled ms", format: three, ratio: true},
	{name: "p99 without ms", format: three},
	{name: "p99 stalled ms", format: three, ratio: true},
	{name: "before MB", format: whole},
	{name: "peak without MB", format: whole},
	{name: "peak stalled MB", format: whole, ratio: true},
	{name: "after MB", format: whole, ratio: true},
	{name: "events/s without", format: whole},
	{name: "events/s stalled", format: whole},
	{name: "read on events/s", format: whole, ratio: true},
	{name: "peak then MB", format: whole, ratio: true},
	{name: "resumed", format: whole},
	{name: "lost", format: whole},
}

const (
	// probeWatchers watch keys of their own, to which a little is put all the time.
	probeWatchers = 10
	probeRate     = 100
	probeWriters  = 16
	probeGroup    = 9000
	// The events are written in requests of at most so many keys, by so many
	// clients, over so many keys.
	passingBatch   = 500
	passingWriters = 8
	passingKeys    = 100 * groupSize
	stalledWithin  = 30 * time.Minute
)

// stalledReaders lets events pass twice: first without readers of them, then while
// many readers have stopped reading. Other watchers are measured both times. In
// the end some of the stalled ones read on, and must get every event.
func stalledReaders(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	return onFreshServer(ctx, set, data, t, stalledWithin, func(ctx context.Context, r *watchRun) (sample, error) {
		subs := make([]subscription, probeWatchers)
		for i := range subs {
			subs[i].prefix = keyName(probeGroup * groupSize)[:prefixSize]
		}
		w, probes, err := r.watch(ctx, subs)
		if err != nil {
			return sample{}, err
		}
		s, err := (&stalledRun{watchRun: r, probes: probes}).run(ctx)
		return s, errors.Join(err, w.close())
	})
}

type stalledRun struct {
	*watchRun
	probes  *receipts
	numbers atomic.Uint64
	probed  ledger // what was put for the probes
}

// passing is what was seen while events passed.
type passing struct {
	delays     *histogram.Histogram
	perSecond  float64
	start, end usage
}

func (m *stalledRun) run(ctx context.Context) (sample, error) {
	var unread, read ledger
	without, err := m.pass(ctx, &unread)
	if err != nil {
		return sample{}, err
	}
	subs := make([]subscription, m.set.Watch.Stalled)
	for i := range subs {
		subs[i] = subscription{prefix: "bench/0", stalled: true}
	}
	w, got, err := m.watch(ctx, subs)
	if err != nil {
		return sample{}, err
	}
	s, err := m.stall(ctx, without, w, got, &read)
	return s, errors.Join(err, w.close())
}

// stall lets events pass the stalled readers, and then some of them read on.
func (m *stalledRun) stall(ctx context.Context, without passing, w watching, got *receipts, read *ledger) (s sample, err error) {
	stalled, err := m.pass(ctx, read)
	if err != nil {
		return s, err
	}
	if _, err := takeUsage(m.pid()); err != nil {
		return s, err
	}
	finishers := min(m.set.Watch.Finishers, len(got.each))
	began := time.Now()
	for i := range finishers {
		if err := w.readOn(i); err != nil {
			return s, err
		}
	}
	if err := m.awaitDelivery(ctx, got, uint64(finishers)*read.events.Load()); err != nil {
		return s, err
	}
	took := time.Unix(0, got.last.Load()).Sub(began)
	reading, err := readUsage(m.pid())
	if err != nil {
		return s, err
	}
	if err := m.awaitDelivery(ctx, m.probes, probeWatchers*m.probed.events.Load()); err != nil {
		return s, err
	}
	lost := account(&s, &receipts{each: got.each[:finishers]}, func(int) *ledger { return read })
	if n, err := got.failure(); n > 0 {
		s.errors, s.firstError = s.errors+n, err
	}
	var others sample
	lost += account(&others, m.probes, func(int) *ledger { return &m.probed })
	if s.errors += others.errors; s.firstError == nil {
		s.firstError = others.firstError
	}
	s.values = []float64{
		milliseconds(without.delays.Quantile(0.50)),
		milliseconds(stalled.delays.Quantile(0.50)),
		milliseconds(without.delays.Quantile(0.99)),
		milliseconds(stalled.delays.Quantile(0.99)),
		megabytes(stalled.start.memory.Resident),
		megabytes(without.end.memory.Peak),
		megabytes(stalled.end.memory.Peak),
		megabytes(stalled.end.memory.Resident),
		without.perSecond,
		stalled.perSecond,
		float64(got.delivered()) / took.Seconds(),
		megabytes(reading.memory.Peak),
		float64(got.resumed.Load()),
		float64(lost),
	}
	return s, nil
}

// pass writes the events at their rate, while the probes are put and watched.
func (m *stalledRun) pass(ctx context.Context, written *ledger) (p passing, err error) {
	if err := m.settle(ctx); err != nil {
		return p, err
	}
	if p.start, err = takeUsage(m.pid()); err != nil {
		return p, err
	}
	m.probes.restart(time.Now())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{}) // the events are written
	var writing sync.WaitGroup
	var writeErr error
	began := time.Now()
	writing.Go(func() {
		defer close(over)
		if writeErr = m.write(ctx, written); writeErr != nil {
			cancel()
		}
	})
	probeErr := m.probe(ctx, over)
	if probeErr != nil {
		cancel()
	}
	writing.Wait()
	if writeErr != nil || probeErr != nil {
		return p, errors.Join(writeErr, probeErr)
	}
	p.perSecond = float64(written.events.Load()) / time.Since(began).Seconds()
	if err := m.awaitDelivery(ctx, m.probes, probeWatchers*m.probed.events.Load()); err != nil {
		return p, err
	}
	p.delays = m.probes.delays()
	p.end, err = readUsage(m.pid())
	return p, err
}

// probe puts at the probes' rate until the events are written.
func (m *stalledRun) probe(ctx context.Context, over <-chan struct{}) error {
	c, err := m.target.dial(ctx, m.addr, probeWriters)
	if err != nil {
		return err
	}
	defer c.close()
	load := &paced{
		data: m.data, rate: probeRate, numbers: &m.numbers,
		key: func(n int) int { return probeGroup*groupSize + n%groupSize },
		put: func(_ int, number uint64) { m.probed.add(number) },
	}
	for {
		select {
		case <-over:
			return nil
		default:
		}
		if _, err := load.drive(ctx, c.sessions, time.Second); err != nil {
			return err
		}
	}
}

// write writes the events in requests of several keys, each request when it is
// due.
func (m *stalledRun) write(ctx context.Context, written *ledger) error {
	c, err := m.target.dial(ctx, m.addr, passingWriters)
	if err != nil {
		return err
	}
	defer c.close()
	batch := min(passingBatch, c.sessions[0].batch())
	began := time.Now()
	return shareOut(ctx, c.sessions, m.set.Watch.Events, batch, func(s session, share []int) error {
		// shareOut hands out as many as are left; which ones is of no interest.
		first := int(m.numbers.Add(uint64(len(share)))) - len(share)
		at := began.Add(time.Duration(float64(written.events.Load()) / float64(m.set.Watch.StalledRate) * float64(time.Second)))
		time.Sleep(time.Until(at))
		for i := range share {
			share[i] = (first + i) % passingKeys
		}
		sent := time.Now()
		value := make([]byte, valueSize)
		n := first
		err := s.loadValues(share, func(int) []byte {
			copy(value, m.data.value(uint64(n)))
			stamp(value, sent, uint64(n))
			n++
			return value
		})
		if err != nil {
			return fmt.Errorf("events that pass: %w", err)
		}
		for i := range share {
			written.add(uint64(first + i))
		}
		return nil
	})
}
