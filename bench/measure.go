package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairnkv/cairn/bench/internal/proc"
)

// grace is what a measurement may take beyond its duration before everything
// that it still waits for is cut off.
const grace = 2 * time.Minute

// settings say how much is measured.
type settings struct {
	Dir           string          `json:"-"`
	Rounds        int             `json:"rounds"`
	Duration      time.Duration   `json:"duration_ns"`
	Keys          int             `json:"keys"`
	FootprintKeys int             `json:"footprint_keys"`
	Rest          time.Duration   `json:"rest_ns"` // before the footprint is looked at
	Watch         watchSettings   `json:"watch"`
	Lease         leaseSettings   `json:"lease"`
	Join          joinSettings    `json:"join"`
	Latency       latencySettings `json:"latency"`
	Scale         scaleSettings   `json:"scale"`
	Disk          diskSettings    `json:"disk"`
	Tuning        tuning          `json:"tuning"`
}

// loadColumns are what measure fills in, in this order.
var loadColumns = []column{
	{name: "ops/s", format: whole, ratio: true},
	{name: "p50 ms", format: three, ratio: true, latency: true},
	{name: "p99 ms", format: three, ratio: true, latency: true},
	{name: "server CPU s", format: three},
	{name: "client CPU s", format: three},
	{name: "server µs/op", format: three, ratio: true},
	{name: "client µs/op", format: three, ratio: true},
	{name: "peak MB", format: whole, ratio: true},
	{name: "errors", format: whole},
}

// measure runs one profile once against one target: a fresh server on an empty
// directory, loaded if the profile asks for it, warmed up with the same load for
// a fifth of the duration, and then measured.
func measure(ctx context.Context, set settings, data *dataset, t target, p profile) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, set.Duration+grace)
	defer cancel()
	srv, err := t.start(ctx, set.Dir)
	if err != nil {
		return sample{}, err
	}
	defer func() {
		if stopErr := srv.discard(); err == nil {
			err = stopErr
		}
	}()
	if p.reads {
		if err := srv.load(ctx, set.Keys); err != nil {
			return sample{}, err
		}
	}
	if p.leases {
		if err := srv.grantLeases(ctx, set.Lease.Leases, loadTTL); err != nil {
			return sample{}, err
		}
	}
	n := p.clients
	if n == 0 {
		n = t.loaders
	}
	c, err := t.dialFor(p.reads)(ctx, srv.addr, n)
	if err != nil {
		return sample{}, err
	}
	defer c.close()

	return underLoad(ctx, set, c, p.step(data, set), cluster{srv})
}

// underLoad warms servers up, and measures what clients do to them.
func underLoad(ctx context.Context, set settings, c *clients, do step, servers cluster) (sample, error) {
	if warm := drive(ctx, c.sessions, do, set.Duration/5); warm.errors > 0 {
		return sample{}, fmt.Errorf("warm-up: %d errors, the first: %w", warm.errors, warm.firstError)
	}
	if err := quiet(set.Dir); err != nil {
		return sample{}, err
	}
	before, err := servers.take(takeUsage)
	if err != nil {
		return sample{}, err
	}
	got := drive(ctx, c.sessions, do, set.Duration)
	after, err := servers.take(readUsage)
	if err != nil {
		return sample{}, err
	}
	return loadSample(got, after.since(before)), nil
}

// loadSample puts the numbers under their columns.
func loadSample(got *tally, used usage) sample {
	ops := float64(got.operations)
	s := sample{errors: got.errors, firstError: got.firstError, values: []float64{
		ops / got.elapsed.Seconds(),
		got.latency.Quantile(0.50).Seconds() * 1e3,
		got.latency.Quantile(0.99).Seconds() * 1e3,
		used.server.Seconds(),
		used.client.Seconds(),
		perOperation(used.server, ops),
		perOperation(used.client, ops),
		megabytes(used.memory.Peak),
		float64(got.errors),
	}}
	return s
}

func perOperation(cpu time.Duration, ops float64) float64 {
	if ops == 0 {
		return 0
	}
	return cpu.Seconds() * 1e6 / ops
}

// load writes keys through the target's own sessions, as fast as it can.
func (s *server) load(ctx context.Context, keys int) error {
	return loadInParts(ctx, keys, func(from, to int) error {
		c, err := s.target.dial(ctx, s.addr, s.target.loaders)
		if err != nil {
			return err
		}
		defer c.close()
		return fillPart(ctx, c.sessions, from, to, keys)
	})
}

// quiet takes what came before out of the measurement: pages of earlier files
// that the kernel has yet to write, and garbage of this program.
func quiet(dir string) error {
	runtime.GC()
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// usage is what was used up to a moment, or between two.
type usage struct {
	server, client time.Duration
	memory         proc.Memory
}

// takeUsage reads the usage and starts the peak of memory anew.
func takeUsage(pid int) (usage, error) {
	if err := proc.ResetPeak(pid); err != nil {
		return usage{}, err
	}
	return readUsage(pid)
}

func readUsage(pid int) (u usage, err error) {
	if u.server, err = proc.CPU(pid); err != nil {
		return u, err
	}
	if u.client, err = proc.OwnCPU(); err != nil {
		return u, err
	}
	u.memory, err = proc.ReadMemory(pid)
	return u, err
}

func (u usage) since(before usage) usage {
	u.server -= before.server
	u.client -= before.client
	return u
}
