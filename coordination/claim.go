package coordination

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// A claim is somebody's wish to hold a site, from the first look to the answer.
// It is what a lock and an election have in common.
type claim struct {
	site
	kind Kind
	// lease is whose claim it is. With ttl, in milliseconds, it is a lease that
	// comes into being and ends with the holder's key.
	lease kv.LeaseID
	ttl   int64
	// value is what the keys of the waiter and of the holder have.
	value       []byte
	contentType string
	// wait is how long to wait for the turn; 0 is not at all.
	wait time.Duration
	// progress, when set, is called at each look that ends in waiting, with how
	// many wait before it, and now and then in between; before is what it was last
	// told, or -1.
	progress func(before int)
	before   int
	// there, when set, says whether whoever claims is still there, leave ends the
	// claim when it is not.
	there func() bool
	leave context.CancelCauseFunc

	// queued is the create revision of the waiter's key, as far as it is known,
	// 0 before there is one; waiter is the lease of that key. It is own where this
	// claim put the key, and another one where another request of c.lease did.
	queued      uint64
	waiter, own kv.LeaseID
	// placed says that this claim has had a place of its own or made one its own.
	placed bool
	// front is the place that nobody stands before, and so nobody ever will.
	front uint64
	// doubt says that a waiter's key may be there, or come, that was not seen;
	// stray the same of a holder's key that no waiter's key stands before. loose
	// is the place through which a holder's key may be there, or come: as long as
	// that place may be there.
	doubt, stray bool
	loose        uint64
	// renewAt is when the leases of a waiter are renewed next, renewEvery how
	// often.
	renewAt    time.Time
	renewEvery time.Duration
}

const (
	// waiterTTLMillis is the time to live of a waiter's key, which the node renews
	// while the request waits: how long a queue stands still behind a waiter whose
	// node was killed.
	waiterTTLMillis = 10_000
	// retryPause is the pause before a waiting claim tries again what the node
	// could not do, such as without a leader.
	retryPause = 200 * time.Millisecond
	// countPause is the pause between two counts of the waiters ahead, for each of
	// them: many that wait must not do nothing but count each other.
	countPause = 20 * time.Millisecond
	// maxClockGap is how far the clocks of members may lie apart for a lock delay to
	// count.
	maxClockGap = 5 * time.Second
)

// errStopping says that the node is about to stop. Its store may say so before the
// request ends.
var errStopping = kv.Errorf(kv.ShuttingDown, "the node is about to stop; ask another one")

// ErrGone is the error of a claim of which [Claim].There said that nobody is there to
// be told.
var ErrGone = errors.New("coordination: whoever claimed is gone")

// errHeld says that a claim that does not wait, or no longer, is not granted.
var errHeld = errors.New("coordination: held")

// acquire sees a claim through. On success it returns the holder's key. The error
// is errHeld, a *kv.Error, or the end of ctx.
func (r *Recipes) acquire(ctx context.Context, c *claim) (kv.Entry, error) {
	deadline := time.Now().Add(c.wait)
	ctx, c.leave = context.WithCancelCause(ctx)
	defer c.leave(nil)
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	holder, err := r.pursue(ctx, waiting, c)
	// When the node is about to stop, the client is still there to be told.
	drained := errors.Is(context.Cause(ctx), errStopping)
	stopping := drained || errors.Is(err, errStopping)
	gone := ctx.Err() != nil && !drained
	switch {
	case err == nil && gone:
		// Nobody is there to be told. What the next request of the same lease
		// would be told stays.
		r.abandon(ctx, c, holder)
		return kv.Entry{}, context.Cause(ctx)
	case err == nil:
		return holder, nil
	case c.queued == 0 && !c.doubt && !c.unsure():
		return kv.Entry{}, err // nothing was written
	case c.ttl == 0 && stopping && c.unsure():
		return kv.Entry{}, unknown(c, err)
	case c.ttl == 0 && stopping:
		// The client asks another node with the same lease, and finds its place.
		return kv.Entry{}, errStopping
	}
	held, werr := r.withdraw(ctx, c)
	switch {
	case werr != nil:
		// What was meant to end may stay until its lease ends.
		if errors.Is(err, errHeld) || ctx.Err() != nil {
			err = werr
		}
	case held != nil && gone:
		r.abandon(ctx, c, *held)
	case held != nil:
		return *held, nil
	}
	switch {
	case gone:
		err = context.Cause(ctx)
	case c.unsure() && !errors.Is(err, &kv.Error{Code: kv.LeaseNotFound}): // without its lease nothing is held
		err = unknown(c, err)
	case stopping:
		err = errStopping
	}
	return kv.Entry{}, err
}

// present reports whether whoever claims is still there. If not, the claim ends as it
// does with its context.
func (c *claim) present() bool {
	if c.there == nil || c.there() {
		return true
	}
	c.leave(ErrGone)
	return false
}

// unsure reports whether the claim may hold its site, or come to, without anybody
// having seen it.
func (c *claim) unsure() bool { return c.stray || c.loose != 0 }

// unknown is the error of an unsure claim that ended with another one.
func unknown(c *claim, err error) error {
	if errors.Is(err, &kv.Error{Code: kv.OutcomeUnknown}) {
		return err
	}
	return kv.Errorf(kv.OutcomeUnknown, "whether %.100q was taken is not known; ask again with the same lease, or look who holds it", c.name)
}

// pursue looks and acts until the claim is granted, refused, or its wait over.
func (r *Recipes) pursue(ctx, waiting context.Context, c *claim) (kv.Entry, error) {
	if c.wait > 0 && c.ttl == 0 {
		// The node keeps a client's own lease alive while the client waits.
		if err := r.keepAlive(ctx, c); err != nil {
			return kv.Entry{}, err
		}
	}
	local := false // the next look is at what this node has, without a round
	for {
		if !local {
			if err := r.store.Wait(ctx, kv.Consistency{}); err != nil {
				if err := r.pause(ctx, waiting, c, err); err != nil {
					return kv.Entry{}, err
				}
				continue
			}
		}
		s, err := r.look(ctx, c)
		if err != nil {
			return kv.Entry{}, err
		}
		var revision uint64
		switch {
		case s.mine != nil && !local:
			r.vacate(ctx, c)
			return *s.mine, r.settle(ctx, c)
		case s.mine != nil:
			// Seen on this node alone: it may be over already.
			local = false
			continue
		case s.conflict:
			return kv.Entry{}, errHeld
		case s.free && !c.present():
			return kv.Entry{}, ErrGone
		case s.free:
			var holder *kv.Entry
			holder, revision, err = r.take(ctx, c, &s)
			if holder != nil {
				return *holder, r.settle(ctx, c)
			}
		case c.wait == 0 || waiting.Err() != nil:
			return kv.Entry{}, errHeld
		case c.queued == 0:
			revision, err = r.enqueue(ctx, c)
		case !c.placed:
			revision, err = r.resume(ctx, c)
		default:
			revision, err = r.idle(ctx, waiting, c, &s)
		}
		if err != nil {
			if err := r.pause(ctx, waiting, c, err); err != nil {
				return kv.Entry{}, err
			}
			local = false
			continue
		}
		// What was just answered is looked at next.
		local = r.store.Wait(ctx, kv.Consistency{MinRevision: revision}) == nil
	}
}

// A sight is what one look at the store shows a claim.
type sight struct {
	revision uint64
	// mine is the holder's key of this claim's lease; conflict says that the lease
	// holds the site in another way, so that waiting would be for itself.
	mine     *kv.Entry
	conflict bool
	// free says that the claim may be granted, with that slot of a semaphore.
	free bool
	slot int
	// watch is what must change before it can be, opens when else that may be;
	// ahead is the waiter whose key that is, without one it is the holders.
	watch kv.Range
	opens time.Time
	ahead *kv.Entry
	// before counts the waiters ahead, if that is wanted.
	before int
}

// look reads what decides about the claim.
func (r *Recipes) look(ctx context.Context, c *claim) (s sight, err error) {
	v, err := r.store.View()
	if err != nil {
		return s, err
	}
	defer v.Close()
	s.revision = v.Revision()
	h, err := readHolders(ctx, v, c)
	if err != nil {
		return s, err
	}
	if s.mine, s.conflict = h.of(c); s.mine != nil || s.conflict {
		return s, nil
	}

	// The place in the queue. A waiter that is gone has lost it.
	own, found, err := v.Get(c.site.waiter(c.kind, c.lease), 0)
	if err != nil {
		return s, err
	}
	if c.queued = 0; found {
		c.queued, c.waiter = own.CreateRevision, own.Lease
		c.placed = c.placed || c.waiter == c.own
	}
	if c.loose != c.queued {
		c.loose = 0 // the place is gone: it was granted, and that is over, or will never be
	}
	if c.queued == 0 || c.queued != c.front {
		if s.ahead, err = lastAhead(ctx, v, c); err != nil {
			return s, err
		}
	}
	if s.ahead != nil {
		s.watch = kv.SingleKey(s.ahead.Key)
		if c.progress != nil {
			s.before, err = countAhead(ctx, v, c)
		}
		return s, err
	}
	c.front = c.queued
	s.watch = c.site.held()
	if s.slot, s.free = h.room(c.kind); !s.free {
		return s, nil
	}
	if s.opens, err = delayedUntil(v, c.site, r.now()); err == nil && s.opens.After(r.now()) {
		s.free = false
	}
	return s, err
}

// holders are the keys of a site's holders, as far as they matter to a claim.
type holders struct {
	site
	alone   *kv.Entry
	reading *kv.Entry // the claim's own
	readers bool      // there is one
	slots   []kv.Entry
}

func readHolders(ctx context.Context, v View, c *claim) (h holders, err error) {
	h.site = c.site
	single := func(key []byte) *kv.Entry {
		if err != nil {
			return nil
		}
		e, found, failure := v.Get(key, 0)
		if err = failure; err != nil || !found {
			return nil
		}
		return &e
	}
	list := func(keys kv.Range, limit int) []kv.Entry {
		if err != nil {
			return nil
		}
		l, failure := v.List(ctx, &kv.Query{Range: keys, KeysOnly: true, Limit: limit})
		if err = failure; err != nil {
			return nil
		}
		return l.Entries
	}
	h.alone = single(c.site.alone())
	h.reading = single(c.seat(Kind{Read: true}, c.lease, 0))
	h.readers = len(list(c.site.readers(), 1)) > 0
	h.slots = list(c.site.slots(), MaxSlots)
	return h, err
}

// of finds what the claim's lease holds already.
func (h *holders) of(c *claim) (mine *kv.Entry, conflict bool) {
	var kind Kind
	switch {
	case h.alone != nil && h.alone.Lease == c.lease:
		mine = h.alone
	case h.reading != nil:
		mine, kind = h.reading, Kind{Read: true}
	default:
		i := slices.IndexFunc(h.slots, func(e kv.Entry) bool { return e.Lease == c.lease })
		if i < 0 {
			return nil, false
		}
		mine = &h.slots[i]
		kind, _ = h.kindOf(mine.Key)
	}
	if kind != c.kind {
		return nil, true
	}
	return mine, false
}

// room says whether one more of a kind can hold the site, and the slot that is
// free.
func (h *holders) room(k Kind) (slot int, free bool) {
	switch {
	case h.alone != nil:
		return 0, false
	case k.Read:
		return 0, len(h.slots) == 0
	case k.Limit == 0:
		return 0, !h.readers && len(h.slots) == 0
	case h.readers:
		return 0, false
	}
	taken := map[int]bool{}
	for i := range h.slots {
		kind, rest := h.kindOf(h.slots[i].Key)
		if kind != k {
			return 0, false
		}
		n, _ := strconv.Atoi(rest) // slots are numbers, as seat writes them
		taken[n] = true
	}
	for slot = 1; slot <= k.Limit; slot++ {
		if !taken[slot] {
			return slot, true
		}
	}
	return 0, false
}

// lastAhead finds the waiter that the claim waits for: of those that it must not
// pass, the one that came last before it. Waiters that come later never pass it,
// so once there is none there will be none.
func lastAhead(ctx context.Context, v View, c *claim) (last *kv.Entry, err error) {
	for _, part := range c.site.ahead(c.kind) {
		q := &kv.Query{Range: part, KeysOnly: true, Limit: 1}
		if c.queued > 0 {
			q.MaxCreateRevision, q.Sort, q.Descending = c.queued-1, kv.SortByCreate, true
		}
		l, err := v.List(ctx, q)
		if err != nil {
			return nil, err
		}
		if len(l.Entries) > 0 && (last == nil || l.Entries[0].CreateRevision > last.CreateRevision) {
			last = &l.Entries[0]
		}
	}
	return last, nil
}

// countAhead counts the waiters before the claim.
func countAhead(ctx context.Context, v View, c *claim) (int, error) {
	q := &kv.Query{Range: kv.Prefix([]byte(c.site.queue())), KeysOnly: true}
	if c.queued > 0 {
		q.MaxCreateRevision = c.queued - 1
	}
	l, err := v.List(ctx, q)
	if err != nil {
		return 0, err
	}
	return len(l.Entries), nil
}

// take tries to make the claim the holder. The store decides whether what was
// seen still holds. Without a holder it returns the revision at which it did not.
//
// A crash before the transaction leaves the waiter in the queue, one after it
// leaves the holder; both have leases.
func (r *Recipes) take(ctx context.Context, c *claim, s *sight) (holder *kv.Entry, revision uint64, err error) {
	key := c.seat(c.kind, c.lease, s.slot)
	txn := &kv.Txn{If: []kv.Compare{missing(kv.SingleKey(c.site.alone()))}}
	for _, part := range c.site.excluding(c.kind) {
		txn.If = append(txn.If, missing(part))
	}
	if c.kind != (Kind{}) {
		txn.If = append(txn.If, missing(kv.SingleKey(key)))
	}
	if c.kind.Limit > 0 {
		// Once is enough for a lease, whatever became of an earlier try.
		txn.If = append(txn.If, kv.Compare{Range: c.site.slots(), Target: kv.TargetLease, Operator: kv.NotEqual, Lease: c.lease})
	}
	if c.queued > 0 {
		waiter := c.site.waiter(c.kind, c.lease)
		txn.If = append(txn.If, created(waiter, c.queued))
		txn.Then = append(txn.Then, remove(waiter))
	} else {
		for _, part := range c.site.ahead(c.kind) {
			txn.If = append(txn.If, missing(part))
		}
	}
	put := kv.Op{Type: kv.OpPut, Key: key, Value: c.value, ContentType: c.contentType, Lease: c.lease, OwnTTLMillis: c.ttl}
	txn.Then = append(txn.Then, put)
	result, err := r.transact(ctx, txn)
	if err != nil {
		if errors.Is(err, &kv.Error{Code: kv.OutcomeUnknown}) {
			c.stray, c.loose = c.stray || c.queued == 0, c.queued
		}
		return nil, 0, err
	}
	if !result.Succeeded {
		return nil, result.Revision, nil
	}
	return &kv.Entry{
		Key: key, Value: c.value, ContentType: c.contentType, Lease: c.lease, Version: 1,
		CreateRevision: result.Revision, ModRevision: result.Revision,
	}, result.Revision, nil
}

// enqueue puts the waiter's key. One that the same lease has already, from an
// earlier request, is found at the next look, and so is what the lease holds: a grant
// of unknown outcome may have come since the last look, and nobody would wait at the
// place.
func (r *Recipes) enqueue(ctx context.Context, c *claim) (revision uint64, err error) {
	key := c.site.waiter(c.kind, c.lease)
	c.own = cmp.Or(c.own, r.newID())
	seats := kv.SingleKey(c.seat(c.kind, c.lease, 0))
	if c.kind.Limit > 0 {
		seats = c.site.slots()
	}
	result, err := r.putWaiter(ctx, c, key, missing(kv.SingleKey(key)),
		kv.Compare{Range: seats, Target: kv.TargetLease, Operator: kv.NotEqual, Lease: c.lease})
	if err != nil {
		return 0, err
	}
	c.queued = result.Revision // until the next look says it exactly
	if c.renewEvery == 0 {
		c.renewEvery = waiterTTLMillis * time.Millisecond / 3
	}
	c.renewAt = time.Now().Add(c.renewEvery)
	return result.Revision, nil
}

// resume makes the place its own that an earlier request of the same lease has
// left: the place stays, its whole time to live begins, and when the earlier
// request ends it does not take the place away.
func (r *Recipes) resume(ctx context.Context, c *claim) (revision uint64, err error) {
	key := c.site.waiter(c.kind, c.lease)
	c.own = cmp.Or(c.own, r.newID())
	result, err := r.putWaiter(ctx, c, key, created(key, c.queued), // and an earlier try was not applied
		kv.Compare{Range: kv.SingleKey(key), Target: kv.TargetLease, Operator: kv.NotEqual, Lease: c.own})
	if err != nil {
		return 0, err
	}
	return result.Revision, nil
}

// putWaiter puts the waiter's key with a lease of this claim, always the same: so
// it is known by its lease, whichever of several tries was applied.
func (r *Recipes) putWaiter(ctx context.Context, c *claim, key []byte, conditions ...kv.Compare) (*kv.Result, error) {
	result, err := r.transact(ctx, &kv.Txn{
		If: conditions,
		Then: []kv.Op{{
			Type: kv.OpPut, Key: key, Value: c.value, ContentType: c.contentType,
			Lease: c.own, OwnTTLMillis: waiterTTLMillis,
		}},
	})
	if err != nil {
		// If it was applied nevertheless, the key is found at the next look.
		c.doubt = c.doubt || errors.Is(err, &kv.Error{Code: kv.OutcomeUnknown})
		return nil, err
	}
	if result.Succeeded {
		c.placed, c.waiter = true, c.own
	}
	return result, nil
}

// idle waits for what must change, and renews the leases meanwhile. It returns
// the revision to look at next.
//
// A whole look costs as much as there are waiters, so it is not for each renewal of
// each of them: until the wait ends, one who waits behind another looks only whether
// both are still there.
func (r *Recipes) idle(ctx, waiting context.Context, c *claim, s *sight) (revision uint64, err error) {
	counted := time.Now()
	for {
		c.tell(s.before)
		until := c.renewAt
		if !s.opens.IsZero() {
			if opens := time.Now().Add(s.opens.Sub(r.now())); opens.Before(until) {
				until = opens
			}
		}
		changed, cancel := context.WithDeadline(waiting, until)
		revision, err = r.store.WaitChange(changed, s.watch, s.revision)
		over := changed.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err != nil && !over:
			return 0, err
		}
		if !time.Now().Before(c.renewAt) {
			if err := r.keepAlive(ctx, c); err != nil {
				return 0, err
			}
		}
		if err == nil {
			return revision, nil
		}
		if s.ahead == nil || waiting.Err() != nil {
			return s.revision, nil // it is time for something else
		}
		count := c.progress != nil && time.Since(counted) >= time.Duration(s.before)*countPause
		if same, err := r.still(ctx, c, s, count); err != nil || !same {
			return s.revision, err
		}
		if count {
			counted = time.Now()
		}
	}
}

// still reports whether a claim waits at its place and behind the waiter it was seen
// to wait behind; nobody can come between the two. It brings the sight up to now,
// for the next wait would read all history since.
func (r *Recipes) still(ctx context.Context, c *claim, s *sight, count bool) (bool, error) {
	v, err := r.store.View()
	if err != nil {
		return false, err
	}
	defer v.Close()
	own, found, err := v.Get(c.site.waiter(c.kind, c.lease), 0)
	if err != nil || !found || own.CreateRevision != c.queued {
		return false, err
	}
	ahead, found, err := v.Get(s.ahead.Key, 0)
	if err != nil || !found || ahead.CreateRevision != s.ahead.CreateRevision {
		return false, err
	}
	c.waiter, s.revision = own.Lease, v.Revision()
	if count {
		s.before, err = countAhead(ctx, v, c)
	}
	return true, err
}

// keepAlive renews the lease of the waiter's key, and a client's own, for one who is
// there.
func (r *Recipes) keepAlive(ctx context.Context, c *claim) error {
	if !c.present() {
		return ErrGone
	}
	var ids []kv.LeaseID
	// A place that was not seen yet may be there.
	if place := cmp.Or(c.waiter, c.own); place != (kv.LeaseID{}) {
		ids = append(ids, place)
	}
	if c.ttl == 0 {
		ids = append(ids, c.lease)
	}
	c.renewEvery = waiterTTLMillis * time.Millisecond / 3
	if len(ids) > 0 {
		leases, err := r.renew(ctx, ids...)
		if err != nil {
			return err
		}
		for i := range leases {
			switch l := &leases[i]; {
			case l.ID != c.lease: // the waiter's; if it is gone, the next look says so
			case l.Code != kv.OK:
				return kv.Errorf(kv.LeaseNotFound, "there is no lease %s", c.lease)
			default:
				c.renewEvery = min(c.renewEvery, time.Duration(l.TTLMillis)*time.Millisecond/3)
			}
		}
	}
	c.renewAt = time.Now().Add(c.renewEvery)
	return nil
}

// settle renews a client's own lease before the answer to a claim that has
// waited: the time to live of what it got starts with the answer.
func (r *Recipes) settle(ctx context.Context, c *claim) error {
	if c.ttl > 0 || c.wait == 0 {
		return nil
	}
	if err := r.keepAlive(ctx, c); errors.Is(err, &kv.Error{Code: kv.LeaseNotFound}) {
		return err
	}
	return nil // what was renewed last counts
}

// tell says how many wait before the claim, or once more what it said last.
func (c *claim) tell(before int) {
	if c.before = before; c.progress != nil {
		c.progress(before)
	}
}

// pause waits a moment before a claim tries again what failed, if that may
// succeed within its wait; else it returns the failure. An unknown outcome shows
// at the next look.
//
// What failed may have taken seconds, and may fail for long, while renewals, for which
// there is more room, succeed: the client is told that the claim goes on, and the
// leases are renewed when it is time.
func (r *Recipes) pause(ctx, waiting context.Context, c *claim, failure error) error {
	var e *kv.Error
	if c.wait == 0 || !errors.As(failure, &e) {
		return failure
	}
	switch e.Code {
	case kv.NoLeader, kv.Busy, kv.Unavailable, kv.NotCaughtUp, kv.ReadTimeout, kv.OutcomeUnknown:
	default:
		return failure
	}
	c.tell(c.before)
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-waiting.Done():
		return failure
	}
	if time.Now().Before(c.renewAt) {
		return nil
	}
	err := r.keepAlive(ctx, c)
	c.tell(c.before)
	if errors.Is(err, ErrGone) || errors.Is(err, &kv.Error{Code: kv.LeaseNotFound}) {
		return err
	}
	return nil // what was renewed last counts
}

// vacate gives back a place that this claim may have although it was granted without
// it: those behind would wait for nobody. If it fails, the place's lease ends it.
func (r *Recipes) vacate(ctx context.Context, c *claim) {
	if c.own == (kv.LeaseID{}) {
		return
	}
	key := c.site.waiter(c.kind, c.lease)
	_, _ = r.transact(ctx, &kv.Txn{
		If:   []kv.Compare{{Range: kv.SingleKey(key), Target: kv.TargetLease, Operator: kv.Equal, Lease: c.own}},
		Then: []kv.Op{remove(key)},
	})
}

// withdraw ends a claim that was not granted: its place in the queue goes, and
// with it whatever might have been granted through it later. A place that another
// request of the same lease made its own is that one's. It returns the holder's key
// if the claim was granted before.
func (r *Recipes) withdraw(ctx context.Context, c *claim) (*kv.Entry, error) {
	waiter := kv.SingleKey(c.site.waiter(c.kind, c.lease))
	reads := []kv.Op{
		get(&kv.Query{Range: waiter, KeysOnly: true}),
		get(&kv.Query{Range: kv.SingleKey(c.site.alone())}),
		get(&kv.Query{Range: kv.SingleKey(c.seat(Kind{Read: true}, c.lease, 0))}),
		get(&kv.Query{Range: c.site.slots(), Limit: MaxSlots}),
	}
	txn := &kv.Txn{Then: reads}
	if c.own != (kv.LeaseID{}) {
		txn = &kv.Txn{
			If:   []kv.Compare{{Range: waiter, Target: kv.TargetLease, Operator: kv.Equal, Lease: c.own}},
			Then: append([]kv.Op{{Type: kv.OpDelete, Range: waiter}}, reads...),
			Else: reads,
		}
	}
	result, err := r.transact(ctx, txn)
	if err != nil {
		return nil, err
	}
	read := result.Ops[len(result.Ops)-len(reads):]
	if place := entries(&read[0]); len(place) == 0 || place[0].CreateRevision != c.loose {
		c.loose = 0
	}
	for i := range read[1:] {
		for _, e := range entries(&read[1+i]) {
			if kind, _ := c.kindOf(e.Key); e.Lease == c.lease && kind == c.kind {
				return &e, nil
			}
		}
	}
	return nil, nil
}

// abandon gives up what was granted to a client that is gone, unless that client
// has a lease by which it can ask again.
func (r *Recipes) abandon(ctx context.Context, c *claim, holder kv.Entry) {
	if c.ttl == 0 {
		return
	}
	// If it fails, the lease ends it.
	_, _ = r.transact(ctx, &kv.Txn{
		If:   []kv.Compare{created(holder.Key, holder.CreateRevision)},
		Then: []kv.Op{remove(holder.Key)},
	})
}

// release ends a holder by its token. Which of the holders that is, is read beforehand:
// applying is serial, and they may be very many.
func (r *Recipes) release(ctx context.Context, s site, token uint64) (revision uint64, err error) {
	key, err := r.holding(ctx, s, token)
	if err == nil && key == nil {
		// Nobody has the token, or this node is behind.
		if err = r.store.Wait(ctx, kv.Consistency{}); err == nil {
			key, err = r.holding(ctx, s, token)
		}
	}
	switch {
	case err != nil:
		return 0, err
	case key == nil:
		return 0, notHolder(s, token)
	}
	result, err := r.transact(ctx, &kv.Txn{If: []kv.Compare{created(key, token)}, Then: []kv.Op{remove(key)}})
	switch {
	case err != nil:
		return 0, err
	case !result.Succeeded:
		return 0, notHolder(s, token) // any more
	}
	return result.Revision, nil
}

// holding finds the key of the holder that has a token in what this node has.
func (r *Recipes) holding(ctx context.Context, s site, token uint64) (key []byte, err error) {
	v, err := r.store.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	for _, part := range []kv.Range{kv.SingleKey(s.alone()), kv.Prefix([]byte(s.shared()))} {
		l, err := v.List(ctx, &kv.Query{Range: part, MinCreateRevision: token, MaxCreateRevision: token, KeysOnly: true, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(l.Entries) > 0 {
			return l.Entries[0].Key, nil
		}
	}
	return nil, nil
}

func notHolder(s site, token uint64) error {
	return kv.Errorf(kv.NotHolder, "nobody holds %.100q with the token %d", s.name, token)
}

// delayedUntil is when a lock opens again that was lost: its holder's lease ended
// and it had asked for a delay. It is measured by wall clocks, from when the store
// ended the lease; what must not happen meanwhile is for the fence to prevent. Where
// more is left than the whole delay the clocks disagree, maybe by a day, and it is
// open: the delay is a courtesy, and nobody can shorten it.
func delayedUntil(v View, s site, now time.Time) (time.Time, error) {
	events, _, err := v.History(s.alone(), 0, 2)
	if err != nil || len(events) < 2 {
		return time.Time{}, err
	}
	lost, held := &events[0], &events[1]
	if lost.Type != kv.EventDelete || lost.Reason != kv.ReasonExpired || held.Entry.ContentType != contentTypeJSON {
		return time.Time{}, nil
	}
	var value lockValue
	if err := json.Unmarshal(held.Entry.Value, &value); err != nil || value.LockDelaySeconds <= 0 {
		return time.Time{}, nil
	}
	delay := time.Duration(value.LockDelaySeconds * float64(time.Second))
	opens := time.UnixMilli(lost.Entry.ModifiedAt).Add(delay)
	if opens.Sub(now) > delay+maxClockGap {
		return time.Time{}, nil
	}
	return opens, nil
}
