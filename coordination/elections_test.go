package coordination

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// TestElection has a leader that proclaims, is followed, dies, and is taken over
// from; the next resigns.
func TestElection(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := newLog(t)
	r, s := l.recipes(), electionSite("e")

	var mu sync.Mutex
	var seen []string
	quiet := 0
	observed := make(chan error, 1)
	go func() {
		observed <- r.Observe(ctx, "e", time.Millisecond, func(_ uint64, leader *Holder, changed bool) error {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !changed:
				quiet++
			case leader == nil:
				seen = append(seen, "nobody")
			default:
				seen = append(seen, string(leader.Value))
			}
			return nil
		})
	}()
	saw := func(value string) {
		t.Helper()
		l.await("the observer has seen "+value, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(seen) > 0 && seen[len(seen)-1] == value
		})
	}
	saw("nobody")

	first, err := r.Campaign(ctx, Claim{Name: "e", TTLMillis: 2_000, Value: []byte("a"), ContentType: "text/plain"})
	must(t, err)
	if first.Fence != "election/e:2" || first.Token != 2 || string(first.Value) != "a" {
		t.Errorf("got %+v", first)
	}
	saw("a")
	var held *Held
	if _, err := r.Campaign(ctx, Claim{Name: "e", TTLMillis: 2_000}); !errors.As(err, &held) || held.Code != kv.NotElected {
		t.Errorf("a second leader: %v", err)
	}
	_, err = r.Proclaim(ctx, "e", first.Token, []byte("a2"), "text/plain")
	must(t, err)
	saw("a2")
	if !l.fenced(first.Fence, "k", "v") {
		t.Error("proclaiming ended the lead")
	}
	if _, err := r.Proclaim(ctx, "e", first.Token+1, nil, ""); !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
		t.Errorf("another token: %v", err)
	}

	outcomes := make(chan outcome, 1)
	go func() {
		h, err := r.Campaign(ctx, Claim{Name: "e", TTLMillis: 60_000, Value: []byte("b"), Wait: patience})
		outcomes <- outcome{"b", h, err}
	}()
	l.await("b waits", func() bool { return l.state(s).Waiting == 1 })
	l.pass(4 * time.Second) // a dies
	o := <-outcomes
	must(t, o.err)
	saw("b")
	if o.holder.Token <= first.Token || l.fenced(first.Fence, "k", "late") || !l.fenced(o.holder.Fence, "k", "new") {
		t.Errorf("after the takeover: %+v", o.holder)
	}
	if _, err := r.Proclaim(ctx, "e", first.Token, []byte("a3"), ""); !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
		t.Errorf("the dead proclaim: %v", err)
	}
	_, err = r.Resign(ctx, "e", o.holder.Token)
	must(t, err)
	saw("nobody")
	if _, err := r.Resign(ctx, "e", o.holder.Token); !errors.Is(err, &kv.Error{Code: kv.NotHolder}) {
		t.Errorf("resigned twice: %v", err)
	}
	l.await("it is told of quiet, too", func() bool { mu.Lock(); defer mu.Unlock(); return quiet > 0 })
	cancel()
	if err := <-observed; !errors.Is(err, context.Canceled) {
		t.Errorf("Observe: %v", err)
	}
	if slices.Contains(seen, "a3") {
		t.Errorf("seen %q", seen)
	}
}

// A lock and an election of the same name have nothing to do with each other, and
// neither has the fence of one with the other.
func TestElectionIsNoLock(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r := l.recipes()
	lock, err := r.Acquire(ctx, Claim{Name: "x", TTLMillis: 60_000})
	must(t, err)
	leader, err := r.Campaign(ctx, Claim{Name: "x", TTLMillis: 60_000})
	must(t, err)
	_, err = r.Release(ctx, "x", lock.Token)
	must(t, err)
	if l.fenced(lock.Fence, "k", "v") || !l.fenced(leader.Fence, "k", "v") {
		t.Error("the fences are mixed up")
	}
}
