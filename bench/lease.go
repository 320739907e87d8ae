package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// profileLease stands for all profiles of leases.
const profileLease = "lease"

// leaseSettings say how many leases there are. Each is a flag.
type leaseSettings struct {
	Leases  int           `json:"leases"`      // that renewals choose from
	Batch   int           `json:"batch"`       // leases in a request, or in a burst on a stream
	Holds   int           `json:"holds"`       // leases that are kept by a connection or a stream each
	Memory  int           `json:"memory"`      // leases that live at once
	Ends    int           `json:"ends"`        // leases that end together, with a key each
	EndsTTL time.Duration `json:"ends_ttl_ns"` // their time to live
	// EndsLimit ends the wait for them.
	EndsLimit time.Duration `json:"ends_limit_ns"`
}

var usualLeaseSettings = leaseSettings{
	Leases: 100_000, Batch: 1000, Holds: 5000, Memory: 1_000_000,
	Ends: 100_000, EndsTTL: time.Minute, EndsLimit: 10 * time.Minute,
}

// shortLeaseSettings show only that everything works.
var shortLeaseSettings = leaseSettings{
	Leases: 2000, Batch: 200, Holds: 50, Memory: 5000, Ends: 500, EndsTTL: 5 * time.Second, EndsLimit: time.Minute,
}

func (s *leaseSettings) register(f *flag.FlagSet) {
	f.IntVar(&s.Leases, "leases", s.Leases, "leases that renewals choose from")
	f.IntVar(&s.Batch, "lease-batch", s.Batch, "leases in a request to cairn, or in a burst on a stream to etcd, in lease-renew-bulk")
	f.IntVar(&s.Holds, "holds", s.Holds, "leases that are held, in lease-hold")
	f.IntVar(&s.Memory, "live-leases", s.Memory, "leases that live at once, in lease-memory")
	f.IntVar(&s.Ends, "ends", s.Ends, "leases that end together, in lease-end")
	f.DurationVar(&s.EndsTTL, "ends-ttl", s.EndsTTL, "their time to live, within which they must have got their keys")
	f.DurationVar(&s.EndsLimit, "ends-limit", s.EndsLimit, "after which their end is no longer waited for")
}

// loadTTL is the time to live of leases that outlive every measurement.
const loadTTL = 24 * time.Hour

// leaseLoads are closed loops, as the usual profiles are.
var leaseLoads = []profile{
	{name: "lease-grant-64", about: "grant of a lease, whose id the server chooses, 64 clients", clients: 64, step: grantStep},
	{name: "lease-grant-256", about: "grant of a lease, whose id the server chooses, 256 clients", clients: 256, step: grantStep},
	{name: "lease-renew-64", about: "renewal of one of the leases at random, 64 clients", clients: 64, leases: true, step: renewStep},
	{name: "lease-renew-256", about: "renewal of one of the leases at random, 256 clients", clients: 256, leases: true, step: renewStep},
	{name: "lease-renew-bulk", about: "renewal of leases at random, many in a request (Cairn) or in a burst on a stream (etcd), with the best concurrency for each", leases: true, batched: true, step: renewManyStep},
}

// leaseCourses have a course of their own. They look at servers, not at faces:
// etcd is asked over gRPC alone.
var leaseCourses = []leaseCourse{
	{
		name: "lease-hold",
		about: func(s leaseSettings) string {
			return fmt.Sprintf("%s leases of %v, each kept by a connection (Cairn) or a stream (etcd), which renews it every third of that",
				whole(float64(s.Holds)), holdTTL)
		},
		columns: holdColumns, measure: holdLeases,
		connections: func(s settings) int { return (s.Lease.Holds + s.Tuning.CairnHolds - 1) / s.Tuning.CairnHolds },
	},
	{
		name:    "lease-memory",
		about:   func(s leaseSettings) string { return fmt.Sprintf("%s leases live at once", whole(float64(s.Memory))) },
		columns: leaseMemoryColumns, measure: leaseMemory,
	},
	{
		name: "lease-end",
		about: func(s leaseSettings) string {
			return fmt.Sprintf("%s leases of %v with a key each, which end together, beside %d puts a second", whole(float64(s.Ends)), s.EndsTTL, endsPutRate)
		},
		columns: leaseEndColumns, measure: leaseEnd,
	},
}

type leaseCourse struct {
	name        string
	about       func(leaseSettings) string
	columns     []column
	measure     func(ctx context.Context, set settings, data *dataset, t target) (sample, error)
	connections func(settings) int
}

// leaseNames are the profiles of leases.
func leaseNames() (names []string) {
	for _, p := range leaseLoads {
		names = append(names, p.name)
	}
	for _, p := range leaseCourses {
		names = append(names, p.name)
	}
	return names
}

// leases measures one of them; ok is false if there is none of that name.
func (b *bench) leases(ctx context.Context, name string) (_ *result, ok bool) {
	for _, p := range leaseLoads {
		if p.name == name {
			targets := b.targets
			if p.batched { // the gateway has nothing but one at a time
				targets = withoutGateway(targets)
			}
			return b.load(ctx, p, targets), true
		}
	}
	for _, p := range leaseCourses {
		if p.name != name {
			continue
		}
		r := &result{profile: p.name, about: p.about(b.set.Lease), columns: p.columns}
		if p.connections != nil {
			if err := enoughFiles(p.connections(b.set)); err != nil {
				r.notes = append(r.notes, fmt.Sprintf("%s: %v", p.name, err))
				return r, true
			}
		}
		b.alternate(ctx, r, withoutGateway(b.targets), func(t target) (sample, error) { return p.measure(ctx, b.set, b.data, t) })
		return r, true
	}
	return nil, false
}

func withoutGateway(targets []target) []target {
	return slices.DeleteFunc(slices.Clone(targets), func(t target) bool { return t.name == nameGateway })
}

// A leaser is a session that has leases. Leases are numbered from 0, as keys are;
// what a server calls them follows from the number.
type leaser interface {
	// grant grants the lease of that number, or, for serverChooses, one of which
	// only the server knows the id.
	grant(lease int, ttl time.Duration) error
	// renew renews a lease that exists.
	renew(lease int) error
}

const serverChooses = -1

// A leaseOwner is a leaser that can do what only Cairn's API and gRPC have in a
// form worth comparing.
type leaseOwner interface {
	leaser
	// renewMany renews leases that exist, as fast as one session can.
	renewMany(leases []int) error
	// putLeased writes a key and attaches it to a lease.
	putLeased(key, lease int) error
}

func grantStep(*dataset, settings) step {
	return func(s session, _ *rand.Rand) (int, error) {
		return 1, s.(leaser).grant(serverChooses, loadTTL)
	}
}

func renewStep(_ *dataset, set settings) step {
	return func(s session, rng *rand.Rand) (int, error) {
		return 1, s.(leaser).renew(rng.IntN(set.Lease.Leases))
	}
}

func renewManyStep(_ *dataset, set settings) step {
	return func(s session, rng *rand.Rand) (int, error) {
		leases := make([]int, set.Lease.Batch)
		for i := range leases {
			leases[i] = rng.IntN(set.Lease.Leases)
		}
		return len(leases), s.(leaseOwner).renewMany(leases)
	}
}

// leaseClients are how many sessions prepare leases at once.
const leaseClients = 256

// withLeasers calls do with sessions that prepare leases.
func (s *server) withLeasers(ctx context.Context, do func([]session) error) error {
	c, err := s.target.dial(ctx, s.addr, leaseClients)
	if err != nil {
		return err
	}
	defer c.close()
	return do(c.sessions)
}

// grantLeases grants the leases 0 to n-1.
func (s *server) grantLeases(ctx context.Context, n int, ttl time.Duration) error {
	return s.withLeasers(ctx, func(sessions []session) error {
		return shareOut(ctx, sessions, n, 1, func(s session, leases []int) error {
			return s.(leaser).grant(leases[0], ttl)
		})
	})
}
