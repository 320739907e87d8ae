package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// A bench is one run of this program.
type bench struct {
	set     settings
	data    *dataset
	self    string // the path of this program
	targets []target
	// cairnBinary is started with cairnArgs behind what every start needs.
	cairnBinary string
	cairnArgs   []string
	progress    io.Writer // a line for each measurement
	table       io.Writer
}

// cairn is the server that this is all about.
func (b *bench) cairn(tune tuning) target {
	return cairnTarget(b.cairnBinary, b.cairnArgs, b.data, tune)
}

// run measures profiles one after another and shows each as soon as it is done.
// A measurement that fails is noted and the others go on; an interrupt ends all.
func (b *bench) run(ctx context.Context, names []string) ([]*result, error) {
	var results []*result
	for _, name := range names {
		for _, r := range b.profile(ctx, name) {
			if ctx.Err() != nil {
				return results, ctx.Err()
			}
			r.print(b.table)
			results = append(results, r)
		}
	}
	printSummary(b.table, results)
	return results, nil
}

// profile measures one profile by name. The floor is several.
func (b *bench) profile(ctx context.Context, name string) []*result {
	switch name {
	case profileFootprint:
		return []*result{b.footprint(ctx)}
	case profileFloor:
		return b.floor(ctx)
	case profileFloorBulk:
		return []*result{b.floorBulk(ctx)}
	}
	for _, p := range profiles {
		if p.name == name {
			return []*result{b.load(ctx, p, b.targets)}
		}
	}
	for _, p := range watchProfiles {
		if p.name == name {
			return []*result{b.watch(ctx, p)}
		}
	}
	switch name {
	case profileLatency:
		return b.latency(ctx)
	case profileScaleKeys:
		return b.scaleKeys(ctx)
	case profileScaleConnections:
		return b.scaleConnections(ctx)
	case profileDisk:
		return []*result{b.disk(ctx)}
	}
	if r, ok := b.cluster(ctx, name); ok {
		return []*result{r}
	}
	if r, ok := b.join(ctx, name); ok {
		return []*result{r}
	}
	if r, ok := b.leases(ctx, name); ok {
		return []*result{r}
	}
	panic("the command line let through the profile " + name)
}

func (b *bench) load(ctx context.Context, p profile, targets []target) *result {
	r := &result{profile: p.name, about: p.about, columns: loadColumns, batched: p.batched}
	b.alternate(ctx, r, targets, func(t target) (sample, error) {
		return measure(ctx, b.set, b.data, t, p)
	})
	return r
}

// footprint looks at servers, not at faces: etcd is measured once a round, loaded
// through gRPC when that is among the targets.
func (b *bench) footprint(ctx context.Context) *result {
	targets := b.targets
	if slices.ContainsFunc(targets, func(t target) bool { return t.name == nameGRPC }) {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t target) bool { return t.name == nameGateway })
	}
	r := &result{
		profile: profileFootprint,
		about:   fmt.Sprintf("%s keys loaded in bulk, a fiftieth of them put once more one by one, then restarts", whole(float64(b.set.FootprintKeys))),
		columns: footprintColumns,
	}
	b.alternate(ctx, r, targets, func(t target) (sample, error) { return footprint(ctx, b.set, b.data, t) })
	return r
}

// alternate measures all targets in each round, beginning with another one each
// time, so that a machine that becomes slower or faster does so for all of them.
func (b *bench) alternate(ctx context.Context, r *result, targets []target, one func(target) (sample, error)) {
	for _, t := range targets {
		r.rows = append(r.rows, row{name: t.name, samples: make([]*sample, b.set.Rounds)})
	}
	for round := range b.set.Rounds {
		for i := range targets {
			i = (i + round) % len(targets)
			if ctx.Err() != nil {
				return
			}
			b.take(r, &r.rows[i], round, func() (sample, error) { return one(targets[i]) })
		}
	}
}

// take makes one measurement and files it under its row and round.
func (b *bench) take(r *result, to *row, round int, one func() (sample, error)) {
	begin := time.Now()
	s, err := one()
	title := fmt.Sprintf("%s, round %d, %s", r.profile, round+1, to.name)
	if err != nil {
		r.notes = append(r.notes, fmt.Sprintf("%s failed: %v", title, err))
		fmt.Fprintf(b.progress, "%s: failed: %v\n", title, err)
		return
	}
	if s.errors > 0 {
		r.notes = append(r.notes, fmt.Sprintf("%s: %d errors, the first: %v", title, s.errors, s.firstError))
	}
	to.samples[round] = &s
	fmt.Fprintf(b.progress, "%s: %s %s (%.1fs)\n", title, r.columns[0].format(s.values[0]), r.columns[0].name, time.Since(begin).Seconds())
}

// floor measures what the machine can do at all: HTTP without a store, and a log
// without a server.
func (b *bench) floor(ctx context.Context) []*result {
	var results []*result
	for _, p := range profiles {
		if !p.bare() {
			continue
		}
		p.name = "floor " + p.name
		results = append(results, b.load(ctx, p, []target{floorTarget(b.self, b.data)}))
	}
	r := &result{
		profile: "floor fdatasync",
		about:   fmt.Sprintf("records of %d bytes, so many made durable by one fdatasync", recordSize),
		columns: diskColumns,
	}
	for _, loop := range diskLoops {
		r.rows = append(r.rows, row{name: loop.name, samples: make([]*sample, b.set.Rounds)})
	}
	for round := range b.set.Rounds {
		for i, loop := range diskLoops {
			b.take(r, &r.rows[i], round, func() (sample, error) {
				return diskFloor(ctx, b.set.Dir, loop.records, loop.overwrite, b.set.Duration/2)
			})
		}
	}
	return append(results, r, b.floorBulk(ctx))
}

// failed says whether something went wrong that a script should hear of.
func failed(results []*result) bool {
	return slices.ContainsFunc(results, func(r *result) bool { return len(r.notes) > 0 })
}
