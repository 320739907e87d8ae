package leases

import (
	"context"
	"log/slog"
	"time"

	"github.com/cairnkv/cairn/kv"
	"golang.org/x/sync/errgroup"
)

const (
	// Interval is the pace of the clock.
	Interval = 250 * time.Millisecond
	// expiriesPerStep bounds the leases that one step ends, so that the end of
	// very many at once leaves room for other writes.
	expiriesPerStep = 10_000
	// expiriesAtOnce is how many expiries are proposed side by side. The log
	// puts them into few entries.
	expiriesAtOnce = 256
)

// Log is what a Keeper needs of the replica that it serves.
type Log interface {
	// Propose replicates a command; see kv.Error for its errors.
	Propose(ctx context.Context, c *kv.Command) (*kv.Result, error)
	// IsLeader reports whether this replica believes that it leads.
	IsLeader() bool
	// NeedsClock reports whether something ages, and the log index of the last
	// step that counted.
	NeedsClock() (needs bool, clockIndex uint64)
	// DueLeases returns up to limit leases whose deadline the clock has reached.
	DueLeases(limit int) ([]kv.Lease, error)
}

// Keeper advances the replicated clock while its node leads, and proposes the
// end of the leases whose deadline the clock has reached.
type Keeper struct {
	log    Log
	logger *slog.Logger
	now    func() time.Time // monotonic
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	// seen is the last step that counted, as far as this node knows, and since
	// the moment up to which that step has counted time: when this node
	// measured it, if it proposed it, else when it first saw it.
	seen  uint64
	since time.Time
}

// Start starts a keeper. Close ends it.
func Start(log Log, logger *slog.Logger) *Keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := newKeeper(log, logger, time.Now)
	k.cancel = cancel
	go k.run(ctx)
	return k
}

func newKeeper(log Log, logger *slog.Logger, now func() time.Time) *Keeper {
	return &Keeper{log: log, logger: logger, now: now, done: make(chan struct{})}
}

// Close ends the keeper and waits for it.
func (k *Keeper) Close() {
	k.cancel()
	<-k.done
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.step(ctx)
		}
	}
}

// step proposes one advance of the clock, if this node is to.
func (k *Keeper) step(ctx context.Context) {
	needs, index := k.log.NeedsClock()
	now := k.now()
	if !needs || !k.log.IsLeader() {
		// Time in which nothing ages, or in which another leads, isn't ours to
		// add.
		k.seen, k.since = 0, time.Time{}
		return
	}
	if k.since.IsZero() || index != k.seen {
		k.seen, k.since = index, now
		return
	}
	advance := min(now.Sub(k.since), kv.MaxClockAdvanceMillis*time.Millisecond)
	_, err := k.log.Propose(ctx, &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{
		Prev: k.seen, AdvanceMillis: advance.Milliseconds(),
	}})
	if err != nil {
		// Whether it counted shows at the next step, by the index.
		k.logger.Debug("advancing the lease clock", "err", err)
		return
	}
	k.expire(ctx)
	if _, index := k.log.NeedsClock(); index != k.seen {
		// A step that named k.seen counted, and only the leader proposes them:
		// it was this one, or a rival's of which the next step will tell by
		// another index.
		k.seen, k.since = index, now
	}
}

// expire proposes the end of what is due. An expiry that is late, or repeated,
// or that names a lease which was renewed meanwhile, changes nothing: applying
// checks the clock and the generation.
func (k *Keeper) expire(ctx context.Context) {
	due, err := k.log.DueLeases(expiriesPerStep)
	if err != nil {
		k.logger.Warn("looking for leases that are over", "err", err)
		return
	}
	var group errgroup.Group
	group.SetLimit(expiriesAtOnce)
	for _, lease := range due {
		group.Go(func() error {
			_, err := k.log.Propose(ctx, &kv.Command{Kind: kv.KindLeaseExpire, Time: k.now().UnixMilli(), Lease: lease})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		// They stay due; the next step proposes them again.
		k.logger.Debug("ending leases", "err", err)
	}
}
