package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A watchProfile measures watches. Unlike a load it has a course of its own, so
// each is a function.
type watchProfile struct {
	name    string
	about   func(watchSettings) string
	columns []column
	measure func(ctx context.Context, set settings, data *dataset, t target) (sample, error)
	// watchers is how many connections it needs.
	watchers func(watchSettings) int
}

// profileWatch stands for all of them.
const profileWatch = "watch"

// watchSettings say how much is watched. Each is a flag.
type watchSettings struct {
	FanOut      int `json:"fan_out"`      // watchers of one prefix
	FanOutRate  int `json:"fan_out_rate"` // puts a second
	Watchers    int `json:"watchers"`     // of a key each, and idle ones
	KeyRate     int `json:"key_rate"`     // puts a second over those keys
	Events      int `json:"events"`       // that pass stalled readers, or that one reader catches up with
	Stalled     int `json:"stalled"`      // readers
	Finishers   int `json:"finishers"`    // of them that read on to the end
	StalledRate int `json:"stalled_rate"` // events a second while they are stalled
	// CatchUpLimit ends the reading of a history that is too slow to wait for.
	CatchUpLimit time.Duration `json:"catch_up_limit_ns"`
}

var usualWatchSettings = watchSettings{
	FanOut: 1000, FanOutRate: 500, Watchers: 10_000, KeyRate: 2000, Events: 1_000_000,
	Stalled: 100, Finishers: 10, StalledRate: 25_000, CatchUpLimit: time.Minute,
}

// shortWatchSettings show only that everything works.
var shortWatchSettings = watchSettings{
	FanOut: 20, FanOutRate: 200, Watchers: 100, KeyRate: 200, Events: 20_000,
	Stalled: 4, Finishers: 2, StalledRate: 20_000, CatchUpLimit: time.Minute,
}

func (s *watchSettings) register(f *flag.FlagSet) {
	f.IntVar(&s.FanOut, "fan-out", s.FanOut, "watchers of one prefix, in watch-fan-out")
	f.IntVar(&s.FanOutRate, "fan-out-rate", s.FanOutRate, "puts a second to that prefix")
	f.IntVar(&s.Watchers, "watchers", s.Watchers, "watchers of a key each, in watch-many-keys and watch-idle-memory")
	f.IntVar(&s.KeyRate, "key-rate", s.KeyRate, "puts a second over the watched keys, in watch-many-keys")
	f.IntVar(&s.Events, "events", s.Events, "events that pass in watch-stalled, and revisions to catch up with in watch-catch-up")
	f.IntVar(&s.Stalled, "stalled", s.Stalled, "readers that stop, in watch-stalled")
	f.IntVar(&s.Finishers, "finishers", s.Finishers, "of them, those that read on to the end")
	f.IntVar(&s.StalledRate, "stalled-rate", s.StalledRate, "events a second while they are stalled")
	f.DurationVar(&s.CatchUpLimit, "catch-up-limit", s.CatchUpLimit, "after which a reader in watch-catch-up is stopped")
}

var watchProfiles = []watchProfile{
	{
		name: "watch-fan-out",
		about: func(s watchSettings) string {
			return fmt.Sprintf("%s puts a second, %s watchers of their prefix", whole(float64(s.FanOutRate)), whole(float64(s.FanOut)))
		},
		columns: fanOutColumns, measure: fanOut,
		watchers: func(s watchSettings) int { return s.FanOut },
	},
	{
		name: "watch-many-keys",
		about: func(s watchSettings) string {
			return fmt.Sprintf("%s watchers of a key each; %s puts a second over those keys, then puts as fast as %d clients can, with and without the watchers",
				whole(float64(s.Watchers)), whole(float64(s.KeyRate)), closedPutters)
		},
		columns: manyKeysColumns, measure: manyKeys,
		watchers: func(s watchSettings) int { return s.Watchers },
	},
	{
		name: "watch-idle-memory",
		about: func(s watchSettings) string {
			return fmt.Sprintf("%s idle watchers of a key each", whole(float64(s.Watchers)))
		},
		columns: idleColumns, measure: idleMemory,
		watchers: func(s watchSettings) int { return s.Watchers },
	},
	{
		name: "watch-stalled",
		about: func(s watchSettings) string {
			return fmt.Sprintf("%d readers stop while %s events pass at %s a second; then %d of them read on to the end",
				s.Stalled, whole(float64(s.Events)), whole(float64(s.StalledRate)), min(s.Finishers, s.Stalled))
		},
		columns: stalledColumns, measure: stalledReaders,
		watchers: func(s watchSettings) int { return s.Stalled + probeWatchers },
	},
	{
		name: "watch-catch-up",
		about: func(s watchSettings) string {
			return fmt.Sprintf("one reader that begins %s revisions back, for %v at most", whole(float64(s.Events)), s.CatchUpLimit)
		},
		columns: catchUpColumns, measure: catchUp,
		watchers: func(watchSettings) int { return 1 },
	},
}

// watchNames are the profiles of watches.
func watchNames() (names []string) {
	for _, p := range watchProfiles {
		names = append(names, p.name)
	}
	return names
}

// watch measures one of them against the targets that have watches here.
func (b *bench) watch(ctx context.Context, p watchProfile) *result {
	targets := slices.DeleteFunc(slices.Clone(b.targets), func(t target) bool { return t.dialWatch == nil })
	r := &result{profile: p.name, about: p.about(b.set.Watch), columns: p.columns}
	if err := enoughFiles(p.watchers(b.set.Watch)); err != nil {
		r.notes = append(r.notes, fmt.Sprintf("%s: %v", p.name, err))
		return r
	}
	b.alternate(ctx, r, targets, func(t target) (sample, error) { return p.measure(ctx, b.set, b.data, t) })
	return r
}

// enoughFiles checks that this process and its servers, which get the same limit,
// may open so many connections and some files.
func enoughFiles(connections int) error {
	const others = 1000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	// Go raises the limit to the most that it may be, here and in the servers.
	if limit.Max < uint64(connections+others) {
		return fmt.Errorf("%d connections need more open files than the %d that are allowed here; see ulimit -Hn", connections, limit.Max)
	}
	return nil
}

// A watchRun is one measurement of watches on the way: a server, and what it used.
type watchRun struct {
	*server
	set  settings
	data *dataset
}

// onFreshServer measures watches against a server on an empty directory.
func onFreshServer(ctx context.Context, set settings, data *dataset, t target, within time.Duration,
	measure func(ctx context.Context, r *watchRun) (sample, error),
) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
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
	s, err := measure(ctx, &watchRun{server: srv, set: set, data: data})
	return s, errors.Join(err, srv.alive())
}

// watch begins watches.
func (r *watchRun) watch(ctx context.Context, subs []subscription) (watching, *receipts, error) {
	got := newReceipts(len(subs))
	w, err := r.target.dialWatch(ctx, r.addr, subs, got)
	return w, got, err
}

// settle collects what came before, here and on the disk, and lets the server come
// to rest for a moment.
func (r *watchRun) settle(ctx context.Context) error {
	if err := quiet(r.set.Dir); err != nil {
		return err
	}
	return r.pause(ctx, 500*time.Millisecond)
}

func (r *watchRun) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ended:
		return r.alive()
	case <-timer.C:
		return nil
	}
}

// awaitDelivery waits until watchers have got so many events in all, or until
// nothing has come for a while.
func (r *watchRun) awaitDelivery(ctx context.Context, got *receipts, events uint64) error {
	const patience = 20 * time.Second
	began := time.Now()
	for got.delivered() < events {
		last := time.Unix(0, got.last.Load())
		if last.Before(began) {
			last = began
		}
		if n, _ := got.failure(); n > 0 || time.Since(last) > patience {
			return nil // what is missing is counted
		}
		if err := r.pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// account adds what all watchers have not got, and their errors, to a sample.
func account(s *sample, got *receipts, want func(watcher int) *ledger) (lost uint64) {
	s.errors, s.firstError = got.failure()
	for i := range got.each {
		n, err := got.missing(i, want(i))
		if err == nil && n > 0 {
			err = fmt.Errorf("watcher %d did not get %d events", i, n)
		}
		lost += n
		if err != nil {
			s.errors++
			if s.firstError == nil {
				s.firstError = err
			}
		}
	}
	return lost
}

func kibibytes(bytes int64) float64 { return float64(bytes) / 1024 }

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }
