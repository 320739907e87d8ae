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

var leaseEndColumns = []column{
	{name: "gone in s", format: three, ratio: true},
	{name: "p50 s", format: three, ratio: true},
	{name: "p99 s", format: three, ratio: true},
	{name: "first after s", format: three},
	{name: "last after s", format: three, ratio: true},
	{name: "renewed within s", format: three},
	{name: "CPU s", format: three, ratio: true},
	{name: "put p99 without ms", format: three},
	{name: "put p99 beside ms", format: three, ratio: true},
	{name: "peak MB", format: whole, ratio: true},
	{name: "early", format: whole},
	{name: "lost", format: whole},
}

const (
	// Puts of other keys, at a fixed rate, show what the ends do to others.
	endsPutRate = 200
	endsPutters = 64
	endsPutKey  = 9000 * groupSize // the first of those keys
	// endsRenewers renew all leases just before they are left alone.
	endsRenewers = 4
)

// endings takes in when leases ended, as the deletes of their keys tell.
type endings struct {
	mu     sync.Mutex
	at     []time.Time // of each delete, in order
	failed error
	all    chan struct{} // closed when as many as expected have ended, or the watch has
	want   int
}

func newEndings(want int) *endings {
	return &endings{want: want, at: make([]time.Time, 0, want), all: make(chan struct{})}
}

// deleted notes deletes that arrived together.
func (e *endings) deleted(n int, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for range n {
		e.at = append(e.at, now)
	}
	if n > 0 && len(e.at) >= e.want && len(e.at)-n < e.want && e.failed == nil {
		close(e.all)
	}
}

// fail ends the wait: the watch is over.
func (e *endings) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed == nil && len(e.at) < e.want {
		e.failed = err
		close(e.all)
	}
}

func (e *endings) times() ([]time.Time, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at, e.failed
}

// leaseEnd lets very many leases end together. They have a key each, are renewed
// all at once and then left alone; a watch of the keys tells when each ended.
func leaseEnd(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	within := set.Lease.EndsTTL*2 + set.Lease.EndsLimit + 2*grace
	return onFreshServer(ctx, set, data, t, within, func(ctx context.Context, r *watchRun) (sample, error) {
		run := &leaseEndRun{watchRun: r, got: newEndings(set.Lease.Ends)}
		return run.run(ctx)
	})
}

type leaseEndRun struct {
	*watchRun
	got     *endings
	numbers atomic.Uint64

	began, renewed time.Time // the renewals
}

func (r *leaseEndRun) run(ctx context.Context) (_ sample, err error) {
	n := r.set.Lease.Ends
	// Long enough for the keys, however slow the machine is.
	if err := r.grantLeases(ctx, n, r.set.Lease.EndsTTL); err != nil {
		return sample{}, err
	}
	if err := r.attach(ctx); err != nil {
		return sample{}, fmt.Errorf("%w; were %v enough to attach the keys?", err, r.set.Lease.EndsTTL)
	}
	stop, err := r.target.dialEnds(ctx, r.addr, r.got)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := r.renew(ctx); err != nil {
		return sample{}, fmt.Errorf("%w; were %v enough to attach the keys?", err, r.set.Lease.EndsTTL)
	}
	puts, err := r.target.dial(ctx, r.addr, endsPutters)
	if err != nil {
		return sample{}, err
	}
	defer puts.close()
	without, err := r.put(ctx, puts.sessions, min(5*time.Second, r.set.Lease.EndsTTL/2))
	if err != nil {
		return sample{}, err
	}
	if err := r.pause(ctx, time.Until(r.began.Add(r.set.Lease.EndsTTL))); err != nil {
		return sample{}, err
	}
	before, err := takeUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	beside, err := r.putUntilGone(ctx, puts.sessions)
	if err != nil {
		return sample{}, err
	}
	after, err := readUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	return r.sample(after.since(before), without, beside)
}

func (r *leaseEndRun) attach(ctx context.Context) error {
	return r.withLeasers(ctx, func(sessions []session) error {
		return shareOut(ctx, sessions, r.set.Lease.Ends, 1, func(s session, keys []int) error {
			return s.(leaseOwner).putLeased(keys[0], keys[0])
		})
	})
}

// renew renews all leases as fast as can be, so that they end together.
func (r *leaseEndRun) renew(ctx context.Context) error {
	c, err := r.target.dial(ctx, r.addr, endsRenewers)
	if err != nil {
		return err
	}
	defer c.close()
	r.began = time.Now()
	err = shareOut(ctx, c.sessions, r.set.Lease.Ends, min(renewMost, r.set.Lease.Ends/endsRenewers+1), func(s session, leases []int) error {
		return s.(leaseOwner).renewMany(leases)
	})
	r.renewed = time.Now()
	return err
}

func (r *leaseEndRun) put(ctx context.Context, sessions []session, d time.Duration) (*pacedTally, error) {
	load := &paced{
		data: r.data, rate: endsPutRate, numbers: &r.numbers,
		key: func(n int) int { return endsPutKey + n%groupSize },
	}
	return load.drive(ctx, sessions, d)
}

// putUntilGone puts at the fixed rate until all leases have ended, or the limit.
func (r *leaseEndRun) putUntilGone(ctx context.Context, sessions []session) (*histogram.Histogram, error) {
	limit := time.Now().Add(r.set.Lease.EndsLimit)
	latency := &histogram.Histogram{}
	for {
		t, err := r.put(ctx, sessions, 500*time.Millisecond)
		if err != nil {
			return nil, err
		}
		latency.Merge(&t.latency)
		select {
		case <-r.got.all:
			return latency, nil
		default:
		}
		if time.Now().After(limit) {
			return latency, nil // what is missing is counted
		}
	}
}

func (r *leaseEndRun) sample(used usage, without *pacedTally, beside *histogram.Histogram) (sample, error) {
	at, failed := r.got.times()
	if len(at) == 0 {
		return sample{}, errors.Join(errors.New("no lease ended"), failed)
	}
	ttl := r.set.Lease.EndsTTL
	early := 0
	for _, end := range at {
		// A lease may end when its time has passed since its renewal was sent, and
		// none was sent before they began.
		if end.Before(r.began.Add(ttl)) {
			early++
		}
	}
	since := func(q float64) float64 { return at[int(q*float64(len(at)-1))].Sub(at[0]).Seconds() }
	lost := r.set.Lease.Ends - len(at)
	s := sample{values: []float64{
		since(1), since(0.5), since(0.99),
		at[0].Sub(r.began.Add(ttl)).Seconds(),
		at[len(at)-1].Sub(r.renewed.Add(ttl)).Seconds(),
		r.renewed.Sub(r.began).Seconds(),
		used.server.Seconds(),
		milliseconds(without.latency.Quantile(0.99)),
		milliseconds(beside.Quantile(0.99)),
		megabytes(used.memory.Peak),
		float64(early), float64(lost),
	}}
	switch {
	case failed != nil:
		s.errors, s.firstError = 1, failed
	case early > 0:
		s.errors, s.firstError = early, fmt.Errorf("%d leases ended early", early)
	case lost != 0:
		s.errors, s.firstError = 1, fmt.Errorf("%d of %d leases have not ended within %v", lost, r.set.Lease.Ends, r.set.Lease.EndsLimit)
	}
	return s, nil
}
