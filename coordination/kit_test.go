package coordination

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = time.Minute

// A log is a Store without a network: a real storage.Store in memory, to which
// commands are applied as they come. Its lease clock moves when a test says so.
type log struct {
	t     testing.TB
	store *storage.Store

	mu      sync.Mutex
	index   uint64
	clock   uint64 // the index of the last step of the lease clock
	events  []kv.Event
	changed chan struct{} // closed at each commit, and replaced
	wakes   int           // how often a WaitChange ended by a change
	waiting int
	renewed map[kv.LeaseID]int

	// before, when set, may fail a proposal instead of applying it, after one that
	// was applied.
	before, after func(*kv.Command) error
}

func newLog(t testing.TB) *log {
	t.Helper()
	store, err := storage.Open("/log", storage.Options{FS: vfs.NewMem(), Fatal: func(err error) { t.Error(err) }})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return &log{t: t, store: store, changed: make(chan struct{}), renewed: map[kv.LeaseID]int{}}
}

func (l *log) recipes() *Recipes { return New(l, time.Now) }

func (l *log) Propose(_ context.Context, c *kv.Command) (*kv.Result, error) {
	l.mu.Lock()
	before, after := l.before, l.after
	l.mu.Unlock()
	if before != nil {
		if err := before(c); err != nil {
			return nil, err
		}
	}
	r, err := l.apply(c)
	if err == nil && after != nil {
		if err := after(c); err != nil {
			return nil, err
		}
	}
	return r, err
}

func (l *log) apply(c *kv.Command) (*kv.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	decoded, err := kv.DecodeCommand(kv.AppendCommand(nil, c))
	if err != nil {
		return nil, err
	}
	b, err := l.store.NewBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	b.WantEvents = true
	l.index++
	b.BeginEntry(l.index, ulid.ULID{1}, l.index)
	result, err := b.Apply(decoded)
	if err != nil {
		return nil, err
	}
	b.EndEntry()
	applied, err := b.Commit()
	if err != nil {
		return nil, err
	}
	l.events = append(l.events, applied.Events...)
	for _, id := range c.Renew {
		l.renewed[id]++
	}
	if len(applied.Events) > 0 {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return result, nil
}

func (l *log) Wait(ctx context.Context, c kv.Consistency) error {
	if current, _ := l.store.Revisions(); c.MinRevision > current {
		return kv.Errorf(kv.NotCaughtUp, "revision %d is not applied", c.MinRevision)
	}
	return ctx.Err()
}

func (l *log) View() (View, error) {
	v, err := l.store.View()
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (l *log) WaitChange(ctx context.Context, r kv.Range, after uint64) (uint64, error) {
	l.mu.Lock()
	l.waiting++
	defer func() {
		l.waiting--
		l.mu.Unlock()
	}()
	for {
		for i := len(l.events) - 1; i >= 0 && l.events[i].Entry.ModRevision > after; i-- {
			if r.Contains(l.events[i].Entry.Key) {
				l.wakes++
				revision, _ := l.store.Revisions()
				return revision, nil
			}
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return 0, ctx.Err()
		}
	}
}

// pass moves the lease clock and ends what is over, as a leader does.
func (l *log) pass(d time.Duration) {
	l.t.Helper()
	for ; d > 0; d -= kv.MaxClockAdvanceMillis * time.Millisecond {
		l.mu.Lock()
		prev := l.clock
		l.mu.Unlock()
		_, err := l.apply(&kv.Command{Kind: kv.KindClock, Clock: kv.Clock{Prev: prev, AdvanceMillis: min(d.Milliseconds(), kv.MaxClockAdvanceMillis)}})
		must(l.t, err)
		l.mu.Lock()
		_, l.clock = l.store.NeedsClock()
		l.mu.Unlock()
		due, renewed, err := l.store.DueLeases(1000)
		must(l.t, err)
		if len(renewed) > 0 {
			_, err := l.apply(&kv.Command{Kind: kv.KindLeaseRequeue, Renew: renewed})
			must(l.t, err)
		}
		for _, lease := range due {
			_, err := l.apply(&kv.Command{Kind: kv.KindLeaseExpire, Time: time.Now().UnixMilli(), Lease: lease})
			must(l.t, err)
		}
	}
}

// grant grants a lease.
func (l *log) grant(ttl time.Duration) kv.LeaseID {
	l.t.Helper()
	id := ulid.Make()
	r, err := l.apply(&kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: id, TTLMillis: ttl.Milliseconds()}})
	must(l.t, err)
	must(l.t, refusal(r))
	return id
}

// fenced makes a write that carries a fence and says whether it was applied.
func (l *log) fenced(fence, key, value string) bool {
	l.t.Helper()
	c, err := ParseFence(fence)
	must(l.t, err)
	r, err := l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{
		If: []kv.Compare{c}, Then: []kv.Op{{Type: kv.OpPut, Key: []byte(key), Value: []byte(value)}},
	}})
	must(l.t, err)
	must(l.t, refusal(r))
	return r.Succeeded
}

func (l *log) fail(before, after func(*kv.Command) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before, l.after = before, after
}

func (l *log) history() []kv.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

func (l *log) state(s site) State {
	l.t.Helper()
	v, err := l.View()
	must(l.t, err)
	defer v.Close()
	state, err := readState(context.Background(), v, s)
	must(l.t, err)
	return state
}

// await waits until what a test wants to see is there.
func (l *log) await(what string, holds func() bool) {
	l.t.Helper()
	testkit.Eventually(l.t, what, holds)
}

func (l *log) awaitQueue(s site, n int) {
	l.t.Helper()
	l.await("the waiters are in the queue, and wait", func() bool {
		l.mu.Lock()
		waiting := l.waiting
		l.mu.Unlock()
		return l.state(s).Waiting == n && waiting >= n
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// isHeld reports whether a claim was refused because of others.
func isHeld(err error) bool {
	var held *Held
	return errors.As(err, &held)
}

// An outcome is what a claim in the background came to.
type outcome struct {
	name   string
	holder Holder
	err    error
}

// race begins a claim whose outcome arrives at the channel.
func race(ctx context.Context, r *Recipes, name string, ask Claim, outcomes chan<- outcome) {
	go func() {
		h, err := r.Acquire(ctx, ask)
		outcomes <- outcome{name, h, err}
	}()
}
