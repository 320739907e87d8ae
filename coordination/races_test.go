package coordination

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// What happens between a look and the transaction that acts on it, and what a
// transaction does that is applied late.

// takes reports whether a command puts a holder's key.
func (s site) takes(c *kv.Command) bool {
	if c.Kind != kv.KindTxn {
		return false
	}
	for i := range c.Txn.Then {
		if op := &c.Txn.Then[i]; op.Type == kv.OpPut && s.holds(op.Key) {
			return true
		}
	}
	return false
}

// onTake calls fn before the next command that puts a holder's key; its error is
// that of the proposal, which is then not applied.
func (l *log) onTake(s site, fn func(c *kv.Command) error) {
	l.fail(func(c *kv.Command) error {
		if !s.takes(c) {
			return nil
		}
		l.fail(nil, nil)
		return fn(c)
	}, nil)
}

// keep is a copy of a command, whose memory is its proposer's.
func keep(t *testing.T, c *kv.Command) *kv.Command {
	t.Helper()
	kept, err := kv.DecodeCommand(bytes.Clone(kv.AppendCommand(nil, c)))
	must(t, err)
	return kept
}

// TestOvertaken lets another take the lock after it was seen to be free: the store
// decides.
func TestOvertaken(t *testing.T) {
	ctx := context.Background()
	for _, mine := range []Kind{{}, {Read: true}, {Limit: 1}, {Limit: 2}} {
		for _, other := range []Kind{{}, {Read: true}, {Limit: 1}, {Limit: 2}} {
			l := newLog(t)
			r, s := l.recipes(), lockSite("l")
			var first Holder
			l.onTake(s, func(*kv.Command) (err error) {
				first, err = r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Kind: other})
				return err
			})
			second, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Kind: mine})
			together := mine == other && mine != (Kind{}) && mine.Limit != 1
			switch {
			case together && (err != nil || second.Token <= first.Token || second.Fence == first.Fence):
				t.Errorf("%s beside %s: %+v, %v", mine.segment(), other.segment(), second, err)
			case !together && !isHeld(err):
				t.Errorf("%s beside %s: %+v, %v", mine.segment(), other.segment(), second, err)
			}
			if !l.fenced(first.Fence, "k", "v") {
				t.Errorf("%s took it from %s", mine.segment(), other.segment())
			}
		}
	}
}

// TestOvertakenByQueue lets another begin to wait after nobody was seen to.
func TestOvertakenByQueue(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	l.onTake(s, func(*kv.Command) error {
		_, err := l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
			{Type: kv.OpPut, Key: s.waiter(Kind{}, r.newID()), Lease: r.newID(), OwnTTLMillis: waiterTTLMillis},
		}}})
		return err
	})
	if h, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000}); !isHeld(err) {
		t.Errorf("passed the queue: %+v, %v", h, err)
	}
}

// TestLateGrant gives a waiter up while the outcome of its grant is unknown, and
// applies the grant afterwards: without the place in the queue it grants nothing.
func TestLateGrant(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	h, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000})
	must(t, err)
	const wait = time.Second
	over, cancel := context.WithTimeout(ctx, 2*wait)
	defer cancel()
	outcomes := make(chan outcome, 1)
	race(ctx, r, "", Claim{Name: "l", TTLMillis: 60_000, Wait: wait}, outcomes)
	l.awaitQueue(s, 1)
	late := make(chan *kv.Command, 1)
	l.onTake(s, func(c *kv.Command) error {
		late <- keep(t, c)
		<-over.Done()
		return kv.Errorf(kv.OutcomeUnknown, "made to fail")
	})
	_, err = r.Release(ctx, "l", h.Token)
	must(t, err)
	if o := <-outcomes; o.err == nil {
		t.Fatalf("got %+v", o.holder)
	}
	result, err := l.apply(<-late)
	must(t, err)
	if result.Succeeded || len(l.state(s).Holders) > 0 {
		t.Errorf("a claim that was given up was granted: %+v", l.state(s))
	}
}

// TestGrantedAtTheEnd has a grant whose outcome becomes known only when the wait
// is over: it counts.
func TestGrantedAtTheEnd(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []Kind{{}, {Read: true}, {Limit: 2}} {
		l := newLog(t)
		r, s := l.recipes(), lockSite("l")
		h, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000})
		must(t, err)
		const wait = time.Second
		over, cancel := context.WithTimeout(ctx, 2*wait)
		defer cancel()
		outcomes := make(chan outcome, 1)
		race(ctx, r, "", Claim{Name: "l", TTLMillis: 60_000, Wait: wait, Kind: kind}, outcomes)
		l.awaitQueue(s, 1)
		l.onTake(s, func(c *kv.Command) error {
			if _, err := l.apply(keep(t, c)); err != nil {
				return err
			}
			<-over.Done()
			return kv.Errorf(kv.OutcomeUnknown, "made to fail")
		})
		_, err = r.Release(ctx, "l", h.Token)
		must(t, err)
		if o := <-outcomes; o.err != nil || !l.fenced(o.holder.Fence, "k", "v") {
			t.Errorf("%s: got %+v, %v", kind.segment(), o.holder, o.err)
		}
	}
}

// TestStrayGrant has a grant of unknown outcome that no place in the queue stands
// before. As long as it may yet be applied, nobody is told that it was not.
func TestStrayGrant(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	l.onTake(s, func(*kv.Command) error {
		if _, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000}); err != nil {
			return err
		}
		return kv.Errorf(kv.OutcomeUnknown, "made to fail")
	})
	_, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Wait: 2 * retryPause})
	if !errors.Is(err, &kv.Error{Code: kv.OutcomeUnknown}) {
		t.Errorf("got %v", err)
	}
	if n := l.state(s).Waiting; n > 0 {
		t.Errorf("%d are left in the queue", n)
	}
}

// TestOneSlotForALease applies a grant late whose claim has got another slot by
// then.
func TestOneSlotForALease(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r, s := l.recipes(), lockSite("l")
	ask := Claim{Name: "l", Lease: l.grant(time.Minute), Kind: Kind{Limit: 2}, Wait: patience}
	var late *kv.Command
	var other Holder
	l.onTake(s, func(c *kv.Command) (err error) {
		late = keep(t, c)
		if other, err = r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000, Kind: ask.Kind}); err != nil {
			return err
		}
		return kv.Errorf(kv.OutcomeUnknown, "made to fail")
	})
	_, err := r.Acquire(ctx, ask)
	must(t, err)
	_, err = r.Release(ctx, "l", other.Token)
	must(t, err)
	result, err := l.apply(late)
	must(t, err)
	if n := len(l.state(s).Holders); result.Code == kv.OK && result.Succeeded || n != 1 {
		t.Errorf("%d slots are held by one", n)
	}
}

// TestNoPlaceBehindAGrant has a grant of unknown outcome come while its claim takes a
// place in the queue, before or, as readers pass readers, after that: the claim is
// granted, and leaves no place at which nobody waits.
func TestNoPlaceBehindAGrant(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []Kind{{}, {Read: true}, {Limit: 2}} {
		for _, before := range []bool{true, false} {
			if !before && !kind.Read {
				continue
			}
			l := newLog(t)
			r, s := l.recipes(), lockSite("l")
			var grant *kv.Command
			come := func(c *kv.Command) error {
				if c.Kind != kv.KindTxn || len(c.Txn.Then) != 1 || c.Txn.Then[0].Type != kv.OpPut {
					return nil
				}
				l.fail(nil, nil)
				_, err := l.apply(&kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{remove(s.alone())}}})
				must(t, err)
				result, err := l.apply(grant)
				if err == nil && !result.Succeeded {
					t.Errorf("%s, before %v: the grant did not come", kind.segment(), before)
				}
				return err
			}
			l.onTake(s, func(c *kv.Command) error {
				grant = keep(t, c)
				if _, err := r.Acquire(ctx, Claim{Name: "l", TTLMillis: 60_000}); err != nil {
					return err
				}
				if before {
					l.fail(come, nil)
				} else {
					l.fail(nil, come)
				}
				return kv.Errorf(kv.OutcomeUnknown, "made to fail")
			})
			o, err := r.Acquire(ctx, Claim{Name: "l", Lease: l.grant(time.Minute), Wait: patience, Kind: kind})
			if err != nil || !l.fenced(o.Fence, "k", "v") {
				t.Errorf("%s, before %v: %+v, %v", kind.segment(), before, o, err)
			}
			if n := l.state(s).Waiting; n > 0 {
				t.Errorf("%s, before %v: %d are left in the queue", kind.segment(), before, n)
			}
		}
	}
}
