package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// profileScaleKeys measures servers with more and more keys.
const profileScaleKeys = "scale-keys"

// scaleSettings say how far it goes. Each is a flag.
type scaleSettings struct {
	Keys        []int `json:"keys"`
	Connections []int `json:"connections"`
	// EtcdKeys is the most keys that etcd is measured with: it holds all of them in
	// memory, and its database in the page cache.
	EtcdKeys int `json:"etcd_keys"`
}

var usualScaleSettings = scaleSettings{
	Keys:        []int{10_000, 100_000, 1_000_000},
	Connections: []int{1, 16, 256, 1000, 4000, 10_000},
	EtcdKeys:    2_000_000,
}

// shortScaleSettings show only that everything works.
var shortScaleSettings = scaleSettings{Keys: []int{2000, 10_000}, Connections: []int{1, 50}, EtcdKeys: 2_000_000}

func (s *scaleSettings) register(f *flag.FlagSet) {
	f.Var(listFlag{&s.Keys}, "scale-keys", "keys of scale-keys, separated by commas")
	f.IntVar(&s.EtcdKeys, "scale-etcd-keys", s.EtcdKeys, "most keys that etcd is measured with in scale-keys")
	f.Var(listFlag{&s.Connections}, "scale-connections", "connections of scale-connections, separated by commas")
}

var scaleKeysColumns = []column{
	{name: "put/s", format: whole, ratio: true},
	{name: "put p99 ms", format: three, ratio: true},
	{name: "get/s", format: whole, ratio: true},
	{name: "get p99 ms", format: three, ratio: true},
	{name: "load keys/s", format: whole, ratio: true},
	{name: "peak MB", format: whole, ratio: true},
	{name: "rested MB", format: whole, ratio: true},
	{name: "of it anon MB", format: whole, ratio: true},
	{name: "disk MB", format: whole, ratio: true},
	{name: "stop s", format: three, ratio: true},
	{name: "restart s", format: three, ratio: true},
	{name: "crash restart s", format: three, ratio: true},
	{name: "restarted MB", format: whole, ratio: true},
	{name: "keys", format: whole},
}

const (
	scaleClients = 64
	// scaleWithin bounds one measurement, however many keys there are.
	scaleWithin = 2 * time.Hour
	// diskBytesPerKey is what a key may take on the disk while keys are loaded, with
	// all that is yet to be merged.
	diskBytesPerKey = 1500
)

// scaleKeys measures servers with so many keys, and so many, and so on: loads, gets,
// puts, memory, disk and restarts.
func (b *bench) scaleKeys(ctx context.Context) (results []*result) {
	for _, keys := range b.set.Scale.Keys {
		targets := withoutGateway(b.targets)
		if keys > b.set.Scale.EtcdKeys {
			targets = slices.DeleteFunc(slices.Clone(targets), func(t target) bool { return t.name == nameGRPC })
		}
		r := &result{
			profile: fmt.Sprintf("%s %d", profileScaleKeys, keys),
			about:   fmt.Sprintf("%s keys loaded in bulk; gets, then puts of them by %d clients; a rest, and restarts", whole(float64(keys)), scaleClients),
			columns: scaleKeysColumns,
		}
		results = append(results, r)
		if err := enoughDisk(b.set.Dir, int64(keys)*diskBytesPerKey); err != nil {
			r.notes = append(r.notes, fmt.Sprintf("%s: %v", r.profile, err))
			continue
		}
		b.alternate(ctx, r, targets, func(t target) (sample, error) { return scaleKeys(ctx, b.set, b.data, t, keys) })
	}
	return results
}

// enoughDisk checks that files may grow by so much.
func enoughDisk(dir string, bytes int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < bytes {
		return fmt.Errorf("this may take %s MB on the disk, of which %s MB are free", whole(megabytes(bytes)), whole(megabytes(free)))
	}
	return nil
}

func scaleKeys(ctx context.Context, set settings, data *dataset, t target, keys int) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, scaleWithin)
	defer cancel()
	srv, err := t.start(ctx, set.Dir)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, srv.discard()) }()
	set.Keys, set.FootprintKeys = keys, keys
	f := &footprintRun{server: srv, set: set, data: data}
	if err := f.fill(ctx); err != nil {
		return sample{}, errors.Join(err, srv.alive())
	}
	gets, err := f.closedLoop(ctx, t.dialFor(true), getStep(false)(data, set))
	if err != nil {
		return sample{}, err
	}
	puts, err := f.closedLoop(ctx, t.dial, putAgainStep(data, set))
	if err != nil {
		return sample{}, err
	}
	if err := f.settle(ctx); err != nil {
		return sample{}, err
	}
	if err := f.comeBack(ctx); err != nil {
		return sample{}, err
	}
	return f.scaleSample(gets, puts), nil
}

// putAgainStep puts a key with the value that it has, so that it can be read and
// compared later.
func putAgainStep(data *dataset, set settings) step {
	return func(s session, rng *rand.Rand) (int, error) {
		key := rng.IntN(set.Keys)
		return 1, s.put(key, data.loaded(key))
	}
}

// closedLoop warms up and measures. The peak of memory goes on meanwhile.
func (f *footprintRun) closedLoop(ctx context.Context, dial dialer, do step) (*tally, error) {
	c, err := dial(ctx, f.addr, scaleClients)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if warm := drive(ctx, c.sessions, do, f.set.Duration/5); warm.errors > 0 {
		return nil, fmt.Errorf("warm-up: %d errors, the first: %w", warm.errors, warm.firstError)
	}
	if err := quiet(f.set.Dir); err != nil {
		return nil, err
	}
	return drive(ctx, c.sessions, do, f.set.Duration), f.alive()
}

// scaleSample puts the numbers under their columns.
func (f *footprintRun) scaleSample(gets, puts *tally) sample {
	s := sample{errors: gets.errors + puts.errors, firstError: gets.firstError}
	if s.firstError == nil {
		s.firstError = puts.firstError
	}
	s.values = []float64{
		float64(puts.operations) / puts.elapsed.Seconds(),
		milliseconds(puts.latency.Quantile(0.99)),
		float64(gets.operations) / gets.elapsed.Seconds(),
		milliseconds(gets.latency.Quantile(0.99)),
		float64(f.set.FootprintKeys) / f.loading.Seconds(),
		megabytes(max(f.used.memory.Peak, f.rested.Peak)),
		megabytes(f.rested.Resident),
		megabytes(f.rested.Anonymous),
		megabytes(f.disk),
		f.stopping.Seconds(),
		f.restarting.Seconds(),
		f.crashRestarting.Seconds(),
		megabytes(f.restarted.Resident),
		float64(f.set.FootprintKeys),
	}
	return s
}
