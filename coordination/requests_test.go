package coordination

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// A cutoff is a log whose node finds no leader from a moment on.
type cutoff struct {
	*log
	lost atomic.Bool
}

func (c *cutoff) Wait(ctx context.Context, want kv.Consistency) error {
	if c.lost.Load() {
		return kv.Errorf(kv.NoLeader, "made to fail")
	}
	return c.log.Wait(ctx, want)
}

func isUnknown(err error) bool { return errors.Is(err, &kv.Error{Code: kv.OutcomeUnknown}) }

// freed frees the site as soon as somebody waits for it, and calls then after each
// command that puts a holder's key.
func (l *log) freed(s site, then func() error) {
	var once sync.Once
	l.fail(nil, func(c *kv.Command) error {
		if s.takes(c) {
			return then()
		}
		var err error
		if c.Kind == kv.KindTxn && len(c.Txn.Then) == 1 && c.Txn.Then[0].Type == kv.OpPut {
			once.Do(func() {
				_, err = l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{remove(s.alone())}}})
			})
		}
		return err
	})
}

// TestUnknownIsToldWithoutALeader takes a lock without learning of it, and finds no
// leader from then on. That there is none says nothing of the lock.
func TestUnknownIsToldWithoutALeader(t *testing.T) {
	for _, own := range []bool{true, false} {
		l := newLog(t)
		c := &cutoff{log: l}
		r, s := New(c, time.Now), lockSite("l")
		_, err := r.Acquire(context.Background(), Claim{Name: "l", TTLMillis: 60_000})
		must(t, err)
		l.freed(s, func() error {
			c.lost.Store(true)
			l.fail(func(*kv.Command) error { return kv.Errorf(kv.NoLeader, "made to fail") }, nil)
			return kv.Errorf(kv.OutcomeUnknown, "made to fail")
		})
		ask := Claim{Name: "l", TTLMillis: 60_000, Wait: time.Second}
		if !own {
			ask.TTLMillis, ask.Lease = 0, l.grant(time.Minute)
		}
		_, err = r.Acquire(context.Background(), ask)
		if n := len(l.state(s).Holders); n != 1 || !isUnknown(err) {
			t.Errorf("own lease %v: %d hold it, and the answer is %v", own, n, err)
		}
	}
}

// TestUnknownStray is the same of a grant that no place stands before, and that has
// not come when the claim is given up.
func TestUnknownStray(t *testing.T) {
	l := newLog(t)
	c := &cutoff{log: l}
	r, s := New(c, time.Now), lockSite("l")
	var late *kv.Command
	l.onTake(s, func(take *kv.Command) error {
		late = keep(t, take)
		c.lost.Store(true)
		return kv.Errorf(kv.OutcomeUnknown, "made to fail")
	})
	_, err := r.Acquire(context.Background(), Claim{Name: "l", TTLMillis: 60_000, Wait: time.Second})
	if !isUnknown(err) {
		t.Errorf("got %v", err)
	}
	if result, err := l.apply(late); err != nil || !result.Succeeded {
		t.Errorf("the grant did not come: %+v, %v", result, err)
	}
}

// TestUnknownWhileStopping has a node stop as soon as the lock was taken: whether
// that is known or not, nobody is told that nothing is held.
func TestUnknownWhileStopping(t *testing.T) {
	for _, own := range []bool{true, false} {
		for _, queued := range []bool{true, false} {
			for _, known := range []bool{true, false} {
				ctx, cancel := context.WithCancelCause(context.Background())
				l := newLog(t)
				r, s := l.recipes(), lockSite("l")
				if queued {
					_, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000})
					must(t, err)
				}
				l.freed(s, func() error {
					cancel(errStopping)
					if known {
						return nil
					}
					return kv.Errorf(kv.OutcomeUnknown, "made to fail")
				})
				ask := Claim{Name: "l", TTLMillis: 60_000, Wait: patience}
				if !own {
					ask.TTLMillis, ask.Lease = 0, l.grant(time.Minute)
				}
				_, err := r.Acquire(ctx, ask)
				if n := len(l.state(s).Holders); n != 1 || err != nil && (known || !isUnknown(err)) {
					t.Errorf("own lease %v, queued %v, known %v: %d hold it, and the answer is %v", own, queued, known, n, err)
				}
			}
		}
	}
}

// TestWaitsWithoutALeader has a claim tell that it goes on while nothing can be said of
// it.
func TestWaitsWithoutALeader(t *testing.T) {
	l := newLog(t)
	c := &cutoff{log: l}
	c.lost.Store(true)
	told := make(chan int, 1000)
	outcomes := make(chan outcome, 1)
	race(context.Background(), New(c, time.Now), "it", Claim{Name: "l", TTLMillis: 60_000, Wait: time.Hour, Progress: func(before int) { told <- before }}, outcomes)
	for range 3 {
		if before := <-told; before != -1 {
			t.Errorf("told of %d before it", before)
		}
	}
	c.lost.Store(false)
	if o := <-outcomes; o.err != nil {
		t.Errorf("got %v", o.err)
	}
}

// TestRenewsUnderOverload refuses all that a claim whose turn has come proposes, but
// for renewals: it keeps its place, and its lease, until it is granted.
func TestRenewsUnderOverload(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	_, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	lease := l.grant(time.Second)
	outcomes := make(chan outcome, 1)
	race(ctx, r, "it", Claim{Name: "l", Lease: lease, Wait: time.Hour}, outcomes)
	l.awaitQueue(s, 1)
	v, err := l.View()
	must(t, err)
	waiter, _, err := v.Get(s.waiter(Kind{}, lease), 0)
	v.Close()
	must(t, err)
	l.fail(func(c *kv.Command) error {
		if c.Kind == kv.KindTxn {
			return kv.Errorf(kv.Busy, "made to fail")
		}
		return nil
	}, nil)
	_, err = l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{remove(s.alone())}}})
	must(t, err)
	renewals := func(id kv.LeaseID) int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.renewed[id]
	}
	for range 4 {
		before, placeBefore := renewals(lease), renewals(waiter.Lease)
		l.await("it renews its leases", func() bool { return renewals(lease) > before && renewals(waiter.Lease) > placeBefore })
		l.pass(time.Second)
	}
	l.fail(nil, nil)
	o := <-outcomes
	must(t, o.err)
	if !l.fenced(o.holder.Fence, "k", "v") {
		t.Error("the lock was lost before its time")
	}
}

// TestPlaceIsTheNewerRequests sends the request of a lease again while the first one
// is under way, and ends the first, as a node does that notices late that its client
// has gone to another one: the place stays.
func TestPlaceIsTheNewerRequests(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	_, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	lease := l.grant(time.Minute)
	first, leave := context.WithCancel(ctx)
	defer leave()
	gone, outcomes := make(chan outcome, 1), make(chan outcome, 2)
	race(first, r, "first", Claim{Name: "l", Lease: lease, Wait: patience}, gone)
	l.awaitQueue(s, 1)
	since := l.state(s).Queue[0].Since
	race(ctx, r, "behind", Claim{Name: "l", TTLMillis: 60_000, Wait: patience}, outcomes)
	l.awaitQueue(s, 2)
	race(ctx, r, "again", Claim{Name: "l", Lease: lease, Wait: patience}, outcomes)
	l.await("three wait", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.waiting == 3 })
	leave()
	if o := <-gone; !errors.Is(o.err, context.Canceled) {
		t.Errorf("got %v", o.err)
	}
	// One that does not wait doesn't take it away either.
	if _, err := r.Acquire(ctx, Claim{Name: "l", Lease: lease}); !isHeld(err) {
		t.Errorf("got %v", err)
	}
	if q := l.state(s).Queue; len(q) != 2 || q[0].Lease != lease || q[0].Since != since {
		t.Errorf("the place was of %d, the queue is %+v", since, q)
	}
	cancel()
	<-outcomes
	<-outcomes
	if n := l.state(s).Waiting; n > 0 {
		t.Errorf("%d are left in the queue", n)
	}
}

// TestResumedPlaceHasItsTime finds a place whose node died some seconds ago: it is
// there for a whole time to live from then on.
func TestResumedPlaceHasItsTime(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	_, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	lease := l.grant(time.Minute)
	place, err := l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
		{Type: kv.OpPut, Key: s.waiter(Kind{}, lease), Lease: r.newID(), OwnTTLMillis: waiterTTLMillis},
	}}})
	must(t, err)
	l.pass(9 * time.Second)
	outcomes := make(chan outcome, 1)
	race(ctx, r, "again", Claim{Name: "l", Lease: lease, Wait: patience}, outcomes)
	l.awaitQueue(s, 1)
	l.pass(9 * time.Second)
	if q := l.state(s).Queue; len(q) != 1 || q[0].Since != place.Revision {
		t.Errorf("the place was of %d, the queue is %+v", place.Revision, q)
	}
	cancel()
	<-outcomes
}

// TestLockDelayWithClocksApart has a waiter whose clock is far behind that of the
// member that ended the lease: it does not wait until its clock gets there.
func TestLockDelayWithClocksApart(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r := l.recipes()
	_, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 1_000, Delay: time.Minute})
	must(t, err)
	l.pass(3 * time.Second)
	if _, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 1_000}); !isHeld(err) {
		t.Errorf("not closed: %v", err)
	}
	behind := New(l, func() time.Time { return time.Now().Add(-time.Hour) })
	if _, err := behind.Acquire(ctx, Claim{Name: "l", TTLMillis: 1_000}); err != nil {
		t.Errorf("an hour behind: %v", err)
	}
}

// A meter is a log that counts what is read of it.
type meter struct {
	*log
	mu    sync.Mutex
	lists int
	bytes int
}

type meterView struct {
	View
	m *meter
}

func (m *meter) View() (View, error) {
	v, err := m.log.View()
	return meterView{v, m}, err
}

func (v meterView) List(ctx context.Context, q *kv.Query) (*kv.List, error) {
	l, err := v.View.List(ctx, q)
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	v.m.lists++
	for i := range l.Entries {
		v.m.bytes += l.Entries[i].Size()
	}
	return l, err
}

func (v meterView) Get(key []byte, revision uint64) (kv.Entry, bool, error) {
	e, found, err := v.View.Get(key, revision)
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	v.m.bytes += e.Size()
	return e, found, err
}

func (m *meter) read() (lists, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lists, m.bytes
}

// TestIdleWaiterReadsNoQueue has a waiter renew its leases over and over: it does not
// read the queue for it, but notices when it or the one before it has lost its place.
func TestIdleWaiterReadsNoQueue(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	m := &meter{log: l}
	r, metered, s := l.recipes(), New(m, time.Now), lockSite("l")
	holder, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 600_000})
	must(t, err)
	first, leave := context.WithCancel(ctx)
	defer leave()
	gone, outcomes := make(chan outcome, 1), make(chan outcome, 1)
	race(first, r, "first", Claim{Name: "l", TTLMillis: 60_000, Wait: patience}, gone)
	l.awaitQueue(s, 1)
	lease := l.grant(time.Second)
	race(ctx, metered, "it", Claim{Name: "l", Lease: lease, Wait: patience}, outcomes)
	l.awaitQueue(s, 2)
	renewals := func(more int) {
		t.Helper()
		count := func() int { l.mu.Lock(); defer l.mu.Unlock(); return l.renewed[lease] }
		n := count()
		l.await("it renews its leases", func() bool { return count() >= n+more })
	}
	before, _ := m.read()
	renewals(4)
	if after, _ := m.read(); after != before {
		t.Errorf("the queue and the holders were read %d times", after-before)
	}

	// Its own place goes: it takes another.
	place := func() uint64 {
		q := l.state(s).Queue
		i := slices.IndexFunc(q, func(w Waiter) bool { return w.Lease == lease })
		if i < 0 {
			return 0
		}
		return q[i].Since
	}
	since := place()
	_, err = l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{remove(s.waiter(Kind{}, lease))}}})
	must(t, err)
	l.await("it is back", func() bool { return place() > since })

	leave()
	<-gone
	_, err = r.Release(ctx, "l", holder.Token)
	must(t, err)
	must(t, (<-outcomes).err)
}

// TestQuietObserverReadsNoValue observes a leader that proclaims much: it is read once.
func TestQuietObserverReadsNoValue(t *testing.T) {
	l := newLog(t)
	m := &meter{log: l}
	value := make([]byte, kv.MaxValueBytes)
	leader, err := l.recipes().Campaign(context.Background(), Claim{Name: "e", TTLMillis: 600_000, Value: value})
	must(t, err)
	looks, done := 0, errors.New("enough was seen")
	err = New(m, time.Now).Observe(context.Background(), "e", time.Millisecond, func(_ uint64, seen *Holder, changed bool) error {
		if first := looks == 0; changed != first || (seen != nil) != first || first && (seen.Token != leader.Token || len(seen.Value) != len(value)) {
			t.Errorf("at look %d it has changed: %v, with its leader: %v", looks, changed, seen != nil)
		}
		if looks++; looks == 10 {
			return done
		}
		return nil
	})
	if _, bytes := m.read(); !errors.Is(err, done) || bytes > 2*len(value) {
		t.Errorf("%d bytes were read in %d looks, %v", bytes, looks, err)
	}
}

// TestReadsWhatIsShown lists one registration out of many large ones, and an election
// with candidates that would proclaim much.
func TestReadsWhatIsShown(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	m := &meter{log: l}
	r := New(m, time.Now)
	large := make([]byte, 64<<10)
	for i := range 40 {
		ops := []kv.Op{
			{Type: kv.OpPut, Key: instanceKey("web", string(rune('A'+i))), Value: []byte(`{"tags":["t"],"address":"` + string(slices.Repeat([]byte{'a'}, len(large))) + `"}`)},
			{Type: kv.OpPut, Key: electionSite("e").waiter(Kind{}, r.newID()), Value: large},
		}
		_, err := l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: ops}})
		must(t, err)
	}
	v, err := m.View()
	must(t, err)
	defer v.Close()
	read := func(what string, limit int, fn func() error) {
		t.Helper()
		_, before := m.read()
		must(t, fn())
		if _, after := m.read(); after-before > limit {
			t.Errorf("%s: %d bytes were read", what, after-before)
		}
	}
	instances := func(tag string, limit int) func() error {
		return func() error {
			found, more, err := r.Instances(ctx, v, "web", tag, "", limit)
			if len(found) != min(limit, 40) || more != (limit < 40) {
				t.Errorf("%d found, more %v", len(found), more)
			}
			return err
		}
	}
	read("one registration", 3*len(large), instances("", 1))
	read("one with a tag", pageOfInstancesBytes, instances("t", 1))
	must(t, instances("", 50)())

	// More than there is room for on one page.
	for i := range 80 {
		_, err := l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
			{Type: kv.OpPut, Key: instanceKey("many", fmt.Sprintf("%02d", i)), Value: []byte(`{"address":"` + string(slices.Repeat([]byte{'a'}, len(large))) + `"}`)},
		}}})
		must(t, err)
	}
	now, err := m.View()
	must(t, err)
	defer now.Close()
	listed, pages := 0, 0
	for after, more := "", true; more; pages++ {
		var found []Instance
		found, more, err = r.Instances(ctx, now, "many", "", after, 1000)
		must(t, err)
		if size := len(found) * len(large); size > maxInstancesBytes+2*len(large) || more && len(found) == 0 {
			t.Fatalf("a page of %d instances, more %v", len(found), more)
		}
		listed, after = listed+len(found), found[len(found)-1].Name
	}
	if listed != 80 || pages != 2 {
		t.Errorf("%d instances on %d pages", listed, pages)
	}
	must(t, instances("t", 30)())
	read("an election", len(large), func() error {
		state, err := r.Election(ctx, v, "e")
		if state.Waiting != 40 || len(state.Queue) != 40 {
			t.Errorf("got %+v", state)
		}
		return err
	})
}

// A laggard is a log whose node has nothing new before it is asked for a round.
type laggard struct {
	*log
	caughtUp atomic.Bool
}

func (n *laggard) Wait(ctx context.Context, c kv.Consistency) error {
	n.caughtUp.Store(true)
	return n.log.Wait(ctx, c)
}

// emptyView is a view in which nothing exists yet.
type emptyView struct{ View }

func (emptyView) List(context.Context, *kv.Query) (*kv.List, error) { return &kv.List{}, nil }

func (n *laggard) View() (View, error) {
	v, err := n.log.View()
	if !n.caughtUp.Load() {
		v = emptyView{v}
	}
	return v, err
}

// TestReleaseNamesItsKey releases one of many holders, whose keys are not looked at while
// that is applied, on a node that is behind as well.
func TestReleaseNamesItsKey(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []Kind{{}, {Read: true}, {Limit: MaxSlots}} {
		for _, behind := range []bool{false, true} {
			l := newLog(t)
			n := &laggard{log: l}
			n.caughtUp.Store(!behind)
			var holders []Holder
			for range 5 {
				h, err := l.recipes().Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Kind: kind})
				if len(holders) == 0 || kind != (Kind{}) {
					must(t, err)
					holders = append(holders, h)
				}
			}
			l.fail(func(c *kv.Command) error {
				if len(c.Txn.If) != 1 || len(c.Txn.Then) != 1 || len(c.Txn.Else) > 0 {
					t.Errorf("%s: %d compares, %d operations and %d others", kind.segment(), len(c.Txn.If), len(c.Txn.Then), len(c.Txn.Else))
					return nil
				}
				for _, part := range []kv.Range{c.Txn.If[0].Range, c.Txn.Then[0].Range} {
					if _, single := part.Single(); !single {
						t.Errorf("%s: a release looks at %q", kind.segment(), part)
					}
				}
				return nil
			}, nil)
			last := holders[len(holders)-1]
			r := New(n, time.Now)
			_, err := r.Release(ctx, "l", last.Token)
			must(t, err)
			if left := len(l.state(lockSite("l")).Holders); left != len(holders)-1 || l.fenced(last.Fence, "k", "v") {
				t.Errorf("%s: of %d holders %d are left", kind.segment(), len(holders), left)
			}
			if _, err := r.Release(ctx, "l", last.Token); !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
				t.Errorf("released twice: %v", err)
			}
		}
	}
}

// TestReleaseOfOneThatEnds has another end the holder after it was found: nobody else is
// released in its place.
func TestReleaseOfOneThatEnds(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	first, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000})
	must(t, err)
	var second Holder
	l.fail(func(*kv.Command) error {
		l.fail(nil, nil)
		_, err := l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{remove(s.alone())}}})
		must(t, err)
		second, err = r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000})
		return err
	}, nil)
	if _, err := r.Release(ctx, "l", first.Token); !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
		t.Errorf("got %v", err)
	}
	if !l.fenced(second.Fence, "k", "v") {
		t.Error("another holder was released")
	}
}
