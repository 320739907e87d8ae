package leases

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/kv"
	"golang.org/x/sync/errgroup"
)

const (
	// Interval is the pace of the clock.
	Interval = 250 * time.Millisecond
	// lookEvery is how often each member looks where the clock stands. What
	// passes between a step and the next look is lost when the leader changes.
	lookEvery = 50 * time.Millisecond
	// expiriesPerLook bounds the leases that are looked up at once, and so the
	// renewed ones that one command queues anew.
	expiriesPerLook = 4_096
	// expiriesAtOnce is how many expiries are under way side by side. It is the
	// pace at which very many leases end: the log puts what is under way into an
	// entry or two, so a write of somebody else waits for the application of no
	// more than that, and not for the end of all of them.
	expiriesAtOnce = 64
	// looksAtOnce is how many looks for leases that are over are under way: what becomes
	// due while the ends that the last one proposed are being committed must not wait for
	// them, which takes long where a disk is slow.
	looksAtOnce = 2
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
	// DueLeases looks at up to limit leases that are queued by a deadline that the
	// clock has reached, and returns those whose own deadline that is, and those
	// that were renewed since.
	DueLeases(limit int) (due []kv.Lease, renewed []kv.LeaseID, err error)
}

// Keeper advances the replicated clock while its node leads, and proposes the
// end of the leases whose deadline the clock has reached.
type Keeper struct {
	log    Log
	logger *slog.Logger
	now    func() time.Time // monotonic
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// stepped has a token when the clock has moved since the last look for leases
	// that are over.
	stepped chan struct{}
	expired atomic.Uint64

	// underWay are the leases that a look has taken up, to be ended or queued anew.
	mu       sync.Mutex
	underWay map[kv.LeaseID]struct{}
	// expiries has a token for each expiry that is under way, of all looks.
	expiries chan struct{}

	// seen is the last step that counted, as far as this node knows, and since
	// the moment up to which that step has counted time: when this node
	// measured it, if it proposed it, else when it first saw it. A follower has
	// them, too, so that no time is lost when it becomes the leader.
	seen  uint64
	since time.Time
}

// Start starts a keeper. Close ends it.
func Start(log Log, logger *slog.Logger) *Keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := newKeeper(log, logger, time.Now)
	k.cancel = cancel
	k.wg.Go(func() { k.runClock(ctx) })
	k.wg.Go(func() { k.runExpiry(ctx) })
	return k
}

func newKeeper(log Log, logger *slog.Logger, now func() time.Time) *Keeper {
	return &Keeper{
		log: log, logger: logger, now: now, stepped: make(chan struct{}, 1),
		underWay: map[kv.LeaseID]struct{}{}, expiries: make(chan struct{}, expiriesAtOnce),
	}
}

// Close ends the keeper and waits for it.
func (k *Keeper) Close() {
	k.cancel()
	k.wg.Wait()
}

// Expired counts the leases that this keeper has ended.
func (k *Keeper) Expired() uint64 { return k.expired.Load() }

func (k *Keeper) runClock(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
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

// runExpiry ends leases beside the clock, which so keeps its pace while very many
// end.
func (k *Keeper) runExpiry(ctx context.Context) {
	var looks errgroup.Group
	looks.SetLimit(looksAtOnce)
	defer func() { _ = looks.Wait() }() // they end with ctx, and have no errors
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.stepped:
			// Where all are under way, the next step will do.
			looks.TryGo(func() error {
				k.expire(ctx)
				return nil
			})
		}
	}
}

// step looks where the clock stands, and proposes one advance if this node leads
// and the last one is an Interval ago.
func (k *Keeper) step(ctx context.Context) {
	needs, index := k.log.NeedsClock()
	now := k.now()
	if !needs {
		// Time in which nothing ages isn't ours to add.
		k.seen, k.since = 0, time.Time{}
		return
	}
	if k.since.IsZero() || index != k.seen {
		k.seen, k.since = index, now
		return
	}
	if !k.log.IsLeader() || now.Sub(k.since) < Interval-lookEvery/2 {
		return
	}
	advance := min(now.Sub(k.since), kv.MaxClockAdvanceMillis*time.Millisecond)
	result, err := k.log.Propose(ctx, &kv.Command{Kind: kv.KindClock, Clock: kv.Clock{
		Prev: k.seen, AdvanceMillis: advance.Milliseconds(),
	}})
	if err != nil {
		// Whether it counted shows at the next step, by the index.
		k.logger.Debug("advancing the lease clock", "err", err)
		return
	}
	select {
	case k.stepped <- struct{}{}:
	default: // it hasn't looked since the last step, and will see this one, too
	}
	if result.Succeeded {
		// If another leader's step has counted after it, the next look finds that one.
		k.seen, k.since = result.ClockIndex, now
		return
	}
	if _, index := k.log.NeedsClock(); index != k.seen {
		// Another leader's step counted in its place, with time up to we don't know when, but
		// before this.
		k.seen, k.since = index, k.now()
	}
}

// expire ends what is due, look after look, until nothing is.
func (k *Keeper) expire(ctx context.Context) {
	for ctx.Err() == nil && k.log.IsLeader() {
		due, renewed, err := k.log.DueLeases(expiriesPerLook)
		if err != nil {
			k.logger.Warn("looking for leases that are over", "err", err)
			return
		}
		due, renewed = k.take(due, renewed)
		if len(due)+len(renewed) == 0 {
			return
		}
		more := k.settle(ctx, due, renewed)
		k.leave(due, renewed)
		if !more {
			return
		}
	}
}

// settle queues anew what was renewed, and ends what is due, at the same time: neither
// has to wait for the other to be committed. It reports whether it is worth looking for more.
func (k *Keeper) settle(ctx context.Context, due []kv.Lease, renewed []kv.LeaseID) (more bool) {
	requeued := true
	var wg sync.WaitGroup
	if len(renewed) > 0 {
		wg.Go(func() { requeued = k.requeue(ctx, renewed) })
	}
	ended := len(due) == 0 || k.end(ctx, due)
	wg.Wait()
	return requeued && ended
}

// take leaves out what another look has taken up, and notes the rest.
func (k *Keeper) take(due []kv.Lease, renewed []kv.LeaseID) ([]kv.Lease, []kv.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	taken := func(id kv.LeaseID) bool {
		_, under := k.underWay[id]
		k.underWay[id] = struct{}{}
		return under
	}
	due = slices.DeleteFunc(due, func(l kv.Lease) bool { return taken(l.ID) })
	return due, slices.DeleteFunc(renewed, taken)
}

// leave forgets what was taken up.
func (k *Keeper) leave(due []kv.Lease, renewed []kv.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range due {
		delete(k.underWay, due[i].ID)
	}
	for _, id := range renewed {
		delete(k.underWay, id)
	}
}

// requeue queues leases by the deadlines that their renewals gave them, all in one
// command, so that very many live ones don't hold up the end of those that are
// over. It reports whether they are.
func (k *Keeper) requeue(ctx context.Context, renewed []kv.LeaseID) bool {
	_, err := k.log.Propose(ctx, &kv.Command{Kind: kv.KindLeaseRequeue, Time: k.now().UnixMilli(), Renew: renewed})
	if err != nil {
		k.logger.Debug("queueing renewed leases", "err", err)
	}
	return err == nil
}

// end proposes the end of leases and reports whether it is worth looking for
// more now. An expiry that is late, or repeated, or that names a lease which was
// renewed meanwhile, changes nothing: applying checks the clock and the
// generation. What failed stays due and is found again after the next step.
func (k *Keeper) end(ctx context.Context, due []kv.Lease) (more bool) {
	var ended atomic.Bool
	group, ctx := errgroup.WithContext(ctx)
	for _, lease := range due {
		if !k.enter(ctx) {
			break
		}
		group.Go(func() error {
			defer func() { <-k.expiries }()
			r, err := k.log.Propose(ctx, &kv.Command{Kind: kv.KindLeaseExpire, Time: k.now().UnixMilli(), Lease: lease})
			if err == nil && len(r.Leases) > 0 {
				ended.Store(true)
				k.expired.Add(1)
			}
			return err
		})
	}
	err := group.Wait()
	if err != nil {
		k.logger.Debug("ending leases", "err", err)
	}
	return err == nil && ended.Load()
}

// enter waits until one more expiry may be under way. It reports whether ctx has not ended.
func (k *Keeper) enter(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case k.expiries <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
