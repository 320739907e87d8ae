package main

import (
	"context"
	"errors"
	"time"

	"github.com/cairnkv/cairn/bench/internal/proc"
)

var idleColumns = []column{
	{name: "KiB/watcher", format: three, ratio: true},
	{name: "of it anon", format: three, ratio: true},
	{name: "rested KiB/watcher", format: three, ratio: true},
	{name: "before MB", format: whole},
	{name: "connected MB", format: whole, ratio: true},
	{name: "rested MB", format: whole, ratio: true},
	{name: "connect CPU s", format: three, ratio: true},
	{name: "idle CPU ms/s", format: three, ratio: true},
}

// idleMemory looks at what a server holds for each watcher to which nothing ever
// happens: as soon as all are connected, and after a rest, within which a server
// in Go gives back what it can. It looks at the processor time of the rest, too,
// with its heartbeats.
func idleMemory(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	return onFreshServer(ctx, set, data, t, set.Rest*2+2*grace, func(ctx context.Context, r *watchRun) (sample, error) {
		// The server comes to rest, too.
		if err := r.pause(ctx, min(set.Rest, 5*time.Second)); err != nil {
			return sample{}, err
		}
		before, err := readUsage(r.pid())
		if err != nil {
			return sample{}, err
		}
		subs := make([]subscription, set.Watch.Watchers)
		for i := range subs {
			subs[i].key = i
		}
		w, got, err := r.watch(ctx, subs)
		if err != nil {
			return sample{}, err
		}
		s, err := r.idle(ctx, before, len(subs))
		s.errors, s.firstError = got.failure()
		return s, errors.Join(err, w.close())
	})
}

func (r *watchRun) idle(ctx context.Context, before usage, watchers int) (sample, error) {
	if err := r.pause(ctx, min(r.set.Rest, 2*time.Second)); err != nil {
		return sample{}, err
	}
	connected, err := readUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if err := r.pause(ctx, r.set.Rest); err != nil {
		return sample{}, err
	}
	rested, err := readUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	each := func(of func(proc.Memory) int64, then usage) float64 {
		return kibibytes(of(then.memory)-of(before.memory)) / float64(watchers)
	}
	resident := func(m proc.Memory) int64 { return m.Resident }
	anonymous := func(m proc.Memory) int64 { return m.Anonymous }
	return sample{values: []float64{
		each(resident, connected),
		each(anonymous, connected),
		each(resident, rested),
		megabytes(before.memory.Resident),
		megabytes(connected.memory.Resident),
		megabytes(rested.memory.Resident),
		connected.since(before).server.Seconds(),
		milliseconds(rested.since(connected).server) / max(time.Since(began).Seconds(), 1e-3),
	}}, nil
}
