package main

import (
	"context"
	"time"
)

var leaseMemoryColumns = []column{
	{name: "grants/s", format: whole, ratio: true},
	{name: "grant CPU s", format: three, ratio: true},
	{name: "before MB", format: whole},
	{name: "peak MB", format: whole, ratio: true},
	{name: "granted MB", format: whole, ratio: true},
	{name: "rested MB", format: whole, ratio: true},
	{name: "of it anon MB", format: whole, ratio: true},
	{name: "idle CPU ms/s", format: three, ratio: true},
}

const leaseMemoryWithin = 30 * time.Minute

// leaseMemory looks at what a server holds for many leases that nobody renews
// meanwhile: when the last one was granted, and after a rest.
func leaseMemory(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	return onFreshServer(ctx, set, data, t, leaseMemoryWithin, func(ctx context.Context, r *watchRun) (sample, error) {
		if err := r.settle(ctx); err != nil {
			return sample{}, err
		}
		before, err := takeUsage(r.pid())
		if err != nil {
			return sample{}, err
		}
		began := time.Now()
		if err := r.grantLeases(ctx, set.Lease.Memory, loadTTL); err != nil {
			return sample{}, err
		}
		granting := time.Since(began)
		granted, err := readUsage(r.pid())
		if err != nil {
			return sample{}, err
		}
		began = time.Now()
		if err := r.pause(ctx, set.Rest); err != nil {
			return sample{}, err
		}
		resting := time.Since(began)
		rested, err := readUsage(r.pid())
		if err != nil {
			return sample{}, err
		}
		return sample{values: []float64{
			float64(set.Lease.Memory) / granting.Seconds(),
			granted.since(before).server.Seconds(),
			megabytes(before.memory.Resident),
			megabytes(granted.memory.Peak),
			megabytes(granted.memory.Resident),
			megabytes(rested.memory.Resident),
			megabytes(rested.memory.Anonymous),
			milliseconds(rested.since(granted).server) / max(resting.Seconds(), 1e-3),
		}}, nil
	})
}
