package leases

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cairnkv/cairn/kv"
)

const (
	// renewalsPerCommand bounds the leases that one command renews: applying is
	// serial, and some milliseconds of it are in nobody's way.
	renewalsPerCommand = 1_000
	// renewalsAtOnce is how many commands are under way side by side. While a
	// commit is slow, others gather behind them and go in fewer, fuller ones.
	renewalsAtOnce = 4
	// gather is the time in which leases that are due collect for one command.
	gather = 50 * time.Millisecond
	// longestRest is how long a lease that lives long is left alone: its holder
	// learns of a revocation within that time.
	longestRest = time.Minute
	// After a failure nothing is renewed for shortPause, and twice as long after
	// each that follows, up to longPause. A renewal waits for a leader by itself;
	// this is for what is refused at once, such as by a node that has no room for
	// more writes.
	shortPause, longPause = 100 * time.Millisecond, time.Second
	// doubtEvery is the pace at which is looked for leases that could not be
	// renewed, while renewals are slow or fail.
	doubtEvery = 250 * time.Millisecond
)

// Proposer is what a Renewer needs of the node that it serves.
type Proposer interface {
	// Propose replicates a command; see kv.Error for its errors.
	Propose(ctx context.Context, c *kv.Command) (*kv.Result, error)
}

// A Standing is how it stands with a lease that is held.
type Standing int

const (
	// Renewed follows Doubtful: the lease was renewed after all.
	Renewed Standing = iota + 1
	// Doubtful says that no renewal was answered for the time to live, so that the
	// lease may have ended. It has not where there is no leader, which this node
	// can't tell from being cut off. The renewer keeps trying.
	Doubtful
	// Lost says that the lease has ended or was revoked. It is the last.
	Lost
	// Refused says that this node renews nothing any more, and another may. It is
	// the last.
	Refused
)

// A Renewer renews the leases that connections to this node hold: those that are
// due at about the same time with one command, whosesoever they are.
//
// A lease is due at a third of its time to live, so that two renewals may fail
// before it could end. The moment is spread at random, so that holds that began
// together, or that all waited for a leader, don't come together again.
type Renewer struct {
	log    Proposer
	logger *slog.Logger
	cancel context.CancelFunc
	wg     sync.WaitGroup // run, and the renewals under way
	wake   chan struct{}  // has a token when run is to look before its time

	mu     sync.Mutex
	closed bool
	holds  int                   // that were not released
	wheel  dueWheel              // those of them without a renewal under way
	flying map[*renewal]struct{} // renewals under way
	behind bool                  // more is due, and waits for one of them to end
	looks  time.Time             // when run looks next
	// pause is how long nothing was started after the last failure, 0 after a
	// success; resume is when that is over.
	pause   time.Duration
	resume  time.Time
	doubted time.Time // when doubt was last looked for
}

// A Hold is a lease in the hands of a Renewer.
type Hold struct {
	r     *Renewer
	id    kv.LeaseID
	ttl   time.Duration
	open  func() bool   // nil of a lease of a group
	news  chan Standing // likewise
	group *Group        // nil of a lease that is held by itself

	// Guarded by the mutex of r.
	sent     time.Time // when the last renewal that was answered was sent
	due      time.Time
	slot     int64 // of the wheel
	place    int   // in the slot, or -1
	released bool
	doubtful bool
}

// StartRenewer starts a renewer. Close ends it.
func StartRenewer(log Proposer, logger *slog.Logger) *Renewer {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Renewer{log: log, logger: logger, cancel: cancel, wake: make(chan struct{}, 1), flying: map[*renewal]struct{}{}}
	r.wheel.began = time.Now()
	r.wg.Go(func() { r.run(ctx) })
	return r
}

// Close ends the renewer and waits for what it has under way. What is held is not
// renewed any more; what would be held from now on is Refused.
func (r *Renewer) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
}

// Held counts the holds.
func (r *Renewer) Held() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holds
}

// Hold keeps a lease alive whose last renewal, or grant, was sent at a moment and
// answered. Release ends that.
//
// open is asked before each renewal, from another goroutine, whether the one who
// holds the lease is still there. If not, the lease is let go.
func (r *Renewer) Hold(id kv.LeaseID, ttl time.Duration, sent time.Time, open func() bool) *Hold {
	h := &Hold{r: r, id: id, ttl: ttl, open: open, news: make(chan Standing, 1), place: -1}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(h, sent)
	return h
}

// begin takes a lease into the queue. The mutex is held.
func (r *Renewer) begin(h *Hold, sent time.Time) {
	r.holds++
	if r.closed {
		h.end(Refused)
		return
	}
	h.renewed(sent, true)
	if h.due.Before(r.looks) {
		r.rouse()
	}
}

// News says how it stands with the lease whenever that changes. Of several changes
// that nobody has received, it is the last one.
func (h *Hold) News() <-chan Standing { return h.news }

// Release lets the lease go: no renewal that begins after it returns names it. One
// that is under way counts from when it was sent, as any.
func (h *Hold) Release() {
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	h.release()
}

func (h *Hold) release() {
	if h.released {
		return
	}
	h.released = true
	h.r.holds--
	if h.place >= 0 {
		h.r.wheel.remove(h)
	}
}

// end tells the last news and lets go.
func (h *Hold) end(last Standing) {
	h.tell(last)
	h.release()
}

func (h *Hold) tell(s Standing) {
	if h.group != nil {
		h.group.note(h, s)
		return
	}
	select {
	case <-h.news: // it is out of date
	default:
	}
	h.news <- s // the only place that sends, under the mutex
}

// renewed notes a renewal that was answered and queues the next one, anywhere in
// the time until it is due when many others may have been renewed in the same
// moment, else a little before the end of it.
func (h *Hold) renewed(sent time.Time, together bool) {
	rest := min(h.ttl/3, longestRest)
	spread := rest / 8
	if together {
		spread = rest
	}
	h.sent, h.due = sent, sent.Add(rest-rand.N(spread))
	h.r.wheel.add(h)
	if h.doubtful {
		h.doubtful = false
		h.tell(Renewed)
	}
}

// rouse has run look at once. The mutex is held.
func (r *Renewer) rouse() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look, and see this, too
	}
}

// run starts what is due. A process that was stopped finds it late, when it goes
// on: what has ended meanwhile is not found by its renewal, which the holder is
// told, and a connection that has ended meanwhile is seen before it.
func (r *Renewer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		timer.Reset(r.look(ctx))
	}
}

// look starts renewals of what is due, and returns how long it is until there may
// be more to do.
func (r *Renewer) look(ctx context.Context) (rest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if len(r.flying) > 0 || r.pause > 0 {
		r.doubt(now)
	} else {
		r.doubted = now // nothing that is due has been tried yet
	}
	for len(r.flying) < renewalsAtOnce && !now.Before(r.resume) {
		batch := r.wheel.take(now, renewalsPerCommand)
		if len(batch) == 0 {
			break
		}
		renewal := &renewal{batch}
		r.flying[renewal] = struct{}{}
		r.wg.Go(func() { r.renew(ctx, renewal) })
	}
	if r.holds == 0 {
		r.pause = 0 // nothing that failed is left
	}
	rest = time.Hour
	first, waiting := r.wheel.first()
	if waiting {
		rest = max(first.Sub(now), r.resume.Sub(now), gather)
	}
	r.behind = len(r.flying) == renewalsAtOnce && waiting && !first.After(now)
	if len(r.flying) > 0 || r.pause > 0 {
		rest = min(rest, r.doubted.Add(doubtEvery).Sub(now))
	}
	r.looks = now.Add(rest)
	return rest
}

// doubt finds the leases of which nobody can say any more that they live: among
// those that are due, for no other has been left alone for so long.
func (r *Renewer) doubt(now time.Time) {
	if now.Sub(r.doubted) < doubtEvery {
		return
	}
	r.doubted = now
	look := func(h *Hold) {
		if !h.released && !h.doubtful && now.Sub(h.sent) >= h.ttl {
			h.doubtful = true
			h.tell(Doubtful)
		}
	}
	r.wheel.due(now, look)
	for renewal := range r.flying {
		for _, h := range renewal.batch {
			look(h)
		}
	}
}

// A renewal is leases that one command renews.
type renewal struct {
	batch []*Hold
}

// renew renews leases with one command.
//
// A crash, of this node or the leader, leaves the leases as the last renewal that
// was applied did. Whether one whose outcome is unknown was applied is of no
// matter: it is made again, and what counts as answered is only that one.
func (r *Renewer) renew(ctx context.Context, own *renewal) {
	letGo(own.batch)
	r.mu.Lock()
	own.batch = slices.DeleteFunc(own.batch, func(h *Hold) bool { return h.released })
	if len(own.batch) == 0 {
		delete(r.flying, own)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	renewing := slices.Clone(own.batch) // which doubt looks at
	// Applying wants them in the order of their ids, and others wait for it.
	slices.SortFunc(renewing, func(a, b *Hold) int { return bytes.Compare(a.id[:], b.id[:]) })
	sent := time.Now()
	result, err := r.propose(ctx, renewing, sent)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flying, own)
	now := time.Now()
	if err != nil {
		r.failed(renewing, now, err)
	} else {
		r.pause = 0
	}
	for i, h := range renewing {
		switch {
		case h.released:
		case err != nil:
			r.wheel.add(h) // it is due still
		case result.Leases[i].Code != kv.OK:
			h.end(Lost)
		default:
			h.renewed(sent, sent.Sub(h.due) > 4*gather)
		}
	}
	if r.behind {
		r.rouse()
	}
}

// letGo releases what nobody holds any more. Each holder is asked once.
func letGo(batch []*Hold) {
	var groups map[*Group]bool // whether it is there
	for _, h := range batch {
		if h.group == nil {
			if !h.open() {
				h.Release()
			}
			continue
		}
		if _, asked := groups[h.group]; asked {
			continue
		}
		if groups == nil {
			groups = map[*Group]bool{}
		}
		if groups[h.group] = h.group.open(); !groups[h.group] {
			h.group.Release()
		}
	}
}

func (r *Renewer) propose(ctx context.Context, renewing []*Hold, sent time.Time) (*kv.Result, error) {
	ids := make([]kv.LeaseID, len(renewing))
	for i, h := range renewing {
		ids[i] = h.id
	}
	result, err := r.log.Propose(ctx, &kv.Command{Kind: kv.KindLeaseRenew, Time: sent.UnixMilli(), Renew: ids})
	if err == nil {
		err = result.Err()
	}
	if err == nil && len(result.Leases) != len(ids) {
		err = fmt.Errorf("the renewal of %d leases has results for %d", len(ids), len(result.Leases))
	}
	return result, err
}

// failed decides what becomes of a renewal that was not made.
func (r *Renewer) failed(renewing []*Hold, now time.Time, err error) {
	if errors.Is(err, &kv.Error{Code: kv.CorruptContent}) || errors.Is(err, &kv.Error{Code: kv.ShuttingDown}) {
		for _, h := range renewing {
			if !h.released {
				h.end(Refused)
			}
		}
		return
	}
	r.pause = min(cmp.Or(2*r.pause, shortPause), longPause)
	r.resume = now.Add(r.pause)
	r.logger.Debug("renewing the leases that are held", "leases", len(renewing), "err", err)
}
