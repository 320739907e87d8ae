package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cairnkv/cairn/bench/internal/proc"
)

// footprintColumns are what footprint fills in, in this order.
var footprintColumns = []column{
	{name: "load keys/s", format: whole, ratio: true},
	{name: "load CPU s", format: three, ratio: true},
	{name: "peak MB", format: whole, ratio: true},
	{name: "loaded MB", format: whole, ratio: true},
	{name: "settled MB", format: whole, ratio: true},
	{name: "of it anon MB", format: whole, ratio: true},
	{name: "disk MB", format: whole, ratio: true},
	{name: "stop s", format: three, ratio: true},
	{name: "restart s", format: three, ratio: true},
	{name: "restarted MB", format: whole, ratio: true},
	{name: "errors", format: whole},
}

// footprint loads many keys, looks at memory and disk, stops the server in order,
// starts it again over its data, and takes the time from the start of the process
// to the first linearizable read that is answered. The kernel's page cache stays
// as it is, so this is the restart of a process, not of a machine.
func footprint(ctx context.Context, set settings, t target) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
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
	if err := quiet(set.Dir); err != nil {
		return sample{}, err
	}
	before, err := takeUsage(srv.pid())
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	if err := srv.load(ctx, set.FootprintKeys); err != nil {
		return sample{}, err
	}
	loading := time.Since(begin)
	loaded, err := readUsage(srv.pid())
	if err != nil {
		return sample{}, err
	}
	settled, err := settle(ctx, srv.pid(), set.SettleWithin)
	if err != nil {
		return sample{}, err
	}
	disk, err := proc.DiskUsage(srv.dir)
	if err != nil {
		return sample{}, err
	}

	begin = time.Now()
	if err := srv.stop(); err != nil {
		return sample{}, err
	}
	stopping := time.Since(begin)
	begin = time.Now()
	if err := srv.run(ctx, t.readBack); err != nil {
		return sample{}, err
	}
	restarting := time.Since(begin)
	restarted, err := proc.ReadMemory(srv.pid())
	if err != nil {
		return sample{}, err
	}
	if err := srv.spotCheck(ctx, set.FootprintKeys); err != nil {
		return sample{}, fmt.Errorf("after the restart: %w", err)
	}
	return sample{values: []float64{
		float64(set.FootprintKeys) / loading.Seconds(),
		loaded.since(before).server.Seconds(),
		float64(max(loaded.memory.Peak, settled.Peak)) / 1e6,
		float64(loaded.memory.Resident) / 1e6,
		float64(settled.Resident) / 1e6,
		float64(settled.Anonymous) / 1e6,
		float64(disk) / 1e6,
		stopping.Seconds(),
		restarting.Seconds(),
		float64(restarted.Resident) / 1e6,
		0,
	}}, nil
}

// settle waits until a server that is left alone no longer changes its memory: by
// less than a hundredth within a quarter of the given time, or until that is over.
func settle(ctx context.Context, pid int, within time.Duration) (proc.Memory, error) {
	const looks = 40
	ticker := time.NewTicker(within / looks)
	defer ticker.Stop()
	seen := make([]proc.Memory, 0, looks)
	for {
		select {
		case <-ctx.Done():
			return proc.Memory{}, ctx.Err()
		case <-ticker.C:
		}
		now, err := proc.ReadMemory(pid)
		if err != nil {
			return proc.Memory{}, err
		}
		seen = append(seen, now)
		if len(seen) == looks {
			return now, nil
		}
		if len(seen) > looks/4 {
			then := seen[len(seen)-1-looks/4]
			if change := now.Resident - then.Resident; max(change, -change) < then.Resident/100 {
				return now, nil
			}
		}
	}
}

// spotCheck reads keys at random and compares them with what was loaded.
func (s *server) spotCheck(ctx context.Context, keys int) error {
	const reads = 1000
	c, err := s.target.dial(ctx, s.addr, 1)
	if err != nil {
		return err
	}
	defer c.close()
	rng := rand.New(rand.NewPCG(7, 11))
	for range reads {
		if err := c.sessions[0].get(rng.IntN(keys), false); err != nil {
			return err
		}
	}
	return nil
}
