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
	{name: "rested MB", format: whole, ratio: true},
	{name: "of it anon MB", format: whole, ratio: true},
	{name: "disk MB", format: whole, ratio: true},
	{name: "stop s", format: three, ratio: true},
	{name: "restart s", format: three, ratio: true},
	{name: "crash restart s", format: three, ratio: true},
	{name: "restarted MB", format: whole, ratio: true},
}

// footprintWithin bounds one measurement of the footprint.
const footprintWithin = 30 * time.Minute

// A footprintRun is one measurement of the footprint on the way.
type footprintRun struct {
	*server
	set  settings
	data *dataset

	loading         time.Duration
	used            usage       // by the load
	rested          proc.Memory // after the rest
	disk            int64
	stopping        time.Duration
	restarting      time.Duration // after an orderly stop
	restarted       proc.Memory
	crashRestarting time.Duration // after a kill
}

// footprint loads many keys, puts some of them again one by one, looks at memory
// and disk, stops the server in order, starts it again over its data, and takes the
// time from the start of the process to the first linearizable read that is answered.
// Then it does so once more after killing the server. The kernel's page cache stays
// as it is, so this is the restart of a process, not of a machine.
func footprint(ctx context.Context, set settings, data *dataset, t target) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, footprintWithin)
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
	f := &footprintRun{server: srv, set: set, data: data}
	if err := f.grow(ctx); err != nil {
		return sample{}, err
	}
	if err := f.comeBack(ctx); err != nil {
		return sample{}, err
	}
	return f.sample(), nil
}

// grow loads the keys and lets the server rest.
func (f *footprintRun) grow(ctx context.Context) error {
	if err := f.fill(ctx); err != nil {
		return err
	}
	if err := f.roll(ctx); err != nil {
		return err
	}
	return f.settle(ctx)
}

// fill loads the keys.
func (f *footprintRun) fill(ctx context.Context) error {
	if err := quiet(f.set.Dir); err != nil {
		return err
	}
	before, err := takeUsage(f.pid())
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := f.load(ctx, f.set.FootprintKeys); err != nil {
		return err
	}
	f.loading = time.Since(begin)
	after, err := readUsage(f.pid())
	if err != nil {
		return err
	}
	f.used = after.since(before)
	return nil
}

// settle looks at memory after a rest, and at the disk.
func (f *footprintRun) settle(ctx context.Context) (err error) {
	if f.rested, err = f.rest(ctx); err != nil {
		return err
	}
	f.disk, err = proc.DiskUsage(f.dir)
	return err
}

// roll puts a fiftieth of the keys once more, one at a time. Servers hold the end of
// their log in memory by the number of its entries, and those of a bulk load are very
// large; what is looked at next is a server that has gone on with its usual work.
func (f *footprintRun) roll(ctx context.Context) error {
	const putters = 64
	c, err := f.target.dial(ctx, f.addr, putters)
	if err != nil {
		return err
	}
	defer c.close()
	return overwrite(ctx, f.data, c.sessions, f.set.FootprintKeys/50)
}

// comeBack restarts the server twice and finds its keys each time.
func (f *footprintRun) comeBack(ctx context.Context) (err error) {
	begin := time.Now()
	if err := f.stop(); err != nil {
		return err
	}
	f.stopping = time.Since(begin)
	if f.err != nil {
		return fmt.Errorf("an orderly stop ended with: %w\n%s", f.err, f.logTail())
	}
	if f.restarting, err = f.rerun(ctx); err != nil {
		return err
	}
	if f.restarted, err = proc.ReadMemory(f.pid()); err != nil {
		return err
	}
	if err := f.spotCheck(ctx, f.set.FootprintKeys); err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	f.kill()
	if f.crashRestarting, err = f.rerun(ctx); err != nil {
		return err
	}
	if err := f.spotCheck(ctx, f.set.FootprintKeys); err != nil {
		return fmt.Errorf("after the crash: %w", err)
	}
	return nil
}

// sample puts the numbers under their columns. The errors of this profile fail it,
// so that there is none to count.
func (f *footprintRun) sample() sample {
	return sample{values: []float64{
		float64(f.set.FootprintKeys) / f.loading.Seconds(),
		f.used.server.Seconds(),
		megabytes(max(f.used.memory.Peak, f.rested.Peak)),
		megabytes(f.used.memory.Resident),
		megabytes(f.rested.Resident),
		megabytes(f.rested.Anonymous),
		megabytes(f.disk),
		f.stopping.Seconds(),
		f.restarting.Seconds(),
		f.crashRestarting.Seconds(),
		megabytes(f.restarted.Resident),
	}}
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }

// rerun starts a stopped server over its data and says how long it took until a
// key could be read.
func (s *server) rerun(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	err := s.run(ctx, s.target.readBack)
	return time.Since(begin), err
}

// rest leaves the server alone for a time and looks at its memory then. The time is
// fixed, and the same for all: what a server in Go gives back, it gives back up to
// two minutes later, with the collection of garbage that the runtime makes by itself.
func (f *footprintRun) rest(ctx context.Context) (proc.Memory, error) {
	timer := time.NewTimer(f.set.Rest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return proc.Memory{}, ctx.Err()
	case <-f.ended:
		return proc.Memory{}, f.alive()
	case <-timer.C:
		return proc.ReadMemory(f.pid())
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
