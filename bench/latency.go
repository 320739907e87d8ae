package main

import (
	"context"
	"flag"
	"fmt"
	"time"
)

// profileLatency is an open loop at several rates.
const profileLatency = "latency"

// latencySettings say at which rates, and how. Each is a flag.
type latencySettings struct {
	// Percents of the capacity of the first target, at which all are measured.
	Percents []int `json:"percents"`
	Clients  int   `json:"clients"`
	// Patience is how long after it was due a request is given up that no client was
	// free to send.
	Patience time.Duration `json:"patience_ns"`
}

var usualLatencySettings = latencySettings{
	Percents: []int{10, 25, 40, 50, 60, 75, 90, 100, 110, 125, 150},
	Clients:  1024, Patience: 2 * time.Second,
}

// shortLatencySettings show only that everything works.
var shortLatencySettings = latencySettings{Percents: []int{10, 50, 150}, Clients: 64, Patience: 2 * time.Second}

func (s *latencySettings) register(f *flag.FlagSet) {
	f.Var(listFlag{&s.Percents}, "latency-percents", "rates of latency, in percent of what the first target can do, separated by commas")
	f.IntVar(&s.Clients, "latency-clients", s.Clients, "requests that may be under way at once, in latency")
	f.DurationVar(&s.Patience, "latency-patience", s.Patience, "after which a request that could not be sent is given up, in latency")
}

// beyondCapacity is the greatest part of its own capacity at which a target is
// measured.
const beyondCapacity = 1.5

var latencyColumns = []column{
	{name: "p99 ms", format: three, ratio: true},
	{name: "p50 ms", format: three, ratio: true},
	{name: "p99.9 ms", format: three, ratio: true},
	{name: "due/s", format: whole},
	{name: "% of capacity", format: whole},
	{name: "done/s", format: whole, ratio: true},
	{name: "% lost", format: three},
	{name: "refused", format: whole},
	{name: "unsent", format: whole},
	{name: "failed", format: whole},
	{name: "server µs/op", format: three, ratio: true},
	{name: "late p99 ms", format: three},
}

// latencyLoads are what is sent. The usual profile of the same load with so many
// clients tells the capacity.
var latencyLoads = []string{"put", "get"}

const capacityClients = "-256"

// latency finds out what each target can do, in a closed loop, and then sends
// requests at parts of what the first can do: the same rates for all, up to half as
// much again as a target's own capacity.
func (b *bench) latency(ctx context.Context) []*result {
	var results []*result
	for _, load := range latencyLoads {
		p := usualProfile(load + capacityClients)
		capacity := b.load(ctx, p, b.targets)
		capacity.profile = profileLatency + " " + load + " capacity"
		results = append(results, capacity)
		reference, ok := capacity.rows[0].median(0)
		if !ok || ctx.Err() != nil {
			return results // its notes say why
		}
		var atRates []*result
		for _, percent := range b.set.Latency.Percents {
			atRates = append(atRates, b.emptyResult(latencyColumns, fmt.Sprintf("%s %s %d", profileLatency, load, percent),
				fmt.Sprintf("%ss at %d %% of what %s can do, due at random times whether or not others were answered; times count from when they were due",
					load, percent, capacity.rows[0].name)))
		}
		b.atRates(ctx, p, capacity, reference, atRates)
		results = append(results, atRates...)
	}
	return results
}

// usualProfile finds a profile by its name, which must be there.
func usualProfile(name string) profile {
	for _, p := range profiles {
		if p.name == name {
			return p
		}
	}
	panic("there is no profile " + name)
}

// emptyResult has a row for each target.
func (b *bench) emptyResult(columns []column, profile, about string) *result {
	r := &result{profile: profile, about: about, columns: columns}
	for _, t := range b.targets {
		r.rows = append(r.rows, row{name: t.name, samples: make([]*sample, b.set.Rounds)})
	}
	return r
}

// atRates measures all rates, one after another, against one server of each target
// a round. There is a result for each rate.
func (b *bench) atRates(ctx context.Context, p profile, capacity *result, reference float64, results []*result) {
	do := p.step(b.data, b.set)
	for round := range b.set.Rounds {
		for i := range b.targets {
			i = (i + round) % len(b.targets)
			own, ok := capacity.rows[i].median(0)
			if !ok || ctx.Err() != nil {
				continue
			}
			err := b.onLoaded(ctx, b.targets[i], p.reads, func(ctx context.Context, srv *server, c *clients) {
				for at, percent := range b.set.Latency.Percents {
					rate := reference * float64(percent) / 100
					if rate > beyondCapacity*own*1.001 {
						continue
					}
					b.take(results[at], &results[at].rows[i], round, func() (sample, error) {
						return b.atRate(ctx, srv, c, do, rate, own)
					})
				}
			})
			if err != nil {
				results[0].notes = append(results[0].notes, fmt.Sprintf("%s, round %d, %s: %v", results[0].profile, round+1, b.targets[i].name, err))
			}
		}
	}
}

// onLoaded calls measure with a server that has the usual keys, and connected
// clients.
func (b *bench) onLoaded(ctx context.Context, t target, reads bool, measure func(context.Context, *server, *clients)) (err error) {
	within := time.Duration(len(b.set.Latency.Percents))*2*(b.set.Duration+b.set.Latency.Patience) + grace
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	srv, err := t.start(ctx, b.set.Dir)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := srv.discard(); err == nil {
			err = stopErr
		}
	}()
	if err := srv.load(ctx, b.set.Keys); err != nil {
		return err
	}
	c, err := t.dialFor(reads)(ctx, srv.addr, b.set.Latency.Clients)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.connect(ctx, b.set.Keys); err != nil {
		return err
	}
	measure(ctx, srv, c)
	return srv.alive()
}

// atRate measures one rate, after a fifth of it to warm up and for what came before
// to be over.
func (b *bench) atRate(ctx context.Context, srv *server, c *clients, do step, rate, capacity float64) (sample, error) {
	loop := openLoop{rate: rate, duration: b.set.Duration / 5, patience: b.set.Latency.Patience, do: do}
	if _, err := loop.run(ctx, c.sessions); err != nil {
		return sample{}, err
	}
	if err := quiet(b.set.Dir); err != nil {
		return sample{}, err
	}
	before, err := takeUsage(srv.pid())
	if err != nil {
		return sample{}, err
	}
	loop.duration = b.set.Duration
	got, err := loop.run(ctx, c.sessions)
	if err != nil {
		return sample{}, err
	}
	after, err := readUsage(srv.pid())
	if err != nil {
		return sample{}, err
	}
	return sample{errors: got.failed, firstError: got.firstError, values: []float64{
		milliseconds(got.latency.Quantile(0.99)),
		milliseconds(got.latency.Quantile(0.50)),
		milliseconds(got.latency.Quantile(0.999)),
		rate,
		100 * rate / capacity,
		float64(got.done) / got.elapsed.Seconds(),
		100 * got.lost(),
		float64(got.refused),
		float64(got.unsent),
		float64(got.failed),
		perOperation(after.since(before).server, float64(got.done)),
		milliseconds(got.late.Quantile(0.99)),
	}}, nil
}
