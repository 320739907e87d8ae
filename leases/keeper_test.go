package leases

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// clockState applies steps as the state machine does.
type clockState struct {
	mu     sync.Mutex
	millis int64
	index  uint64
	leads  bool
	fail   error
	due    []kv.Lease
	ended  []kv.Lease
}

func (s *clockState) IsLeader() bool             { return s.leads }
func (s *clockState) NeedsClock() (bool, uint64) { return true, s.index }
func (s *clockState) DueLeases(int) ([]kv.Lease, error) {
	return s.due, nil
}
func (s *clockState) Propose(_ context.Context, c *kv.Command) (*kv.Result, error) {
	if c.Kind == kv.KindLeaseExpire {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = append(s.ended, c.Lease)
		return &kv.Result{}, nil
	}
	if s.fail != nil {
		return nil, s.fail
	}
	if c.Clock.Prev == s.index {
		s.millis += min(c.Clock.AdvanceMillis, kv.MaxClockAdvanceMillis)
		s.index += 3
	}
	return &kv.Result{}, nil
}

// TestClockNeverRunsAhead drives two keepers by hand through paces, pauses and
// changes of leader, and compares the clock with the time that passed.
func TestClockNeverRunsAhead(t *testing.T) {
	start := time.Now()
	var elapsed time.Duration
	now := func() time.Time { return start.Add(elapsed) }
	state := &clockState{}
	a := newKeeper(state, slog.New(slog.DiscardHandler), now)
	b := newKeeper(state, slog.New(slog.DiscardHandler), now)
	step := func(k *Keeper, d time.Duration) {
		elapsed += d
		state.leads = true
		k.step(context.Background())
		state.leads = false
		if millis := time.Duration(state.millis) * time.Millisecond; millis > elapsed {
			t.Fatalf("after %v the clock shows %v", elapsed, millis)
		}
	}
	for range 40 {
		step(a, Interval)
	}
	if got := state.millis; got < 9_500 {
		t.Errorf("a steady leader of 10 s advanced the clock by %d ms", got)
	}
	before := state.millis
	step(a, time.Hour) // the process slept
	if got := state.millis - before; got > kv.MaxClockAdvanceMillis {
		t.Errorf("an hour of sleep added %d ms", got)
	}
	// b takes over; then a, which has missed that, goes on with an old step.
	for range 4 {
		step(b, Interval)
	}
	before = state.millis
	step(a, Interval)
	if state.millis != before {
		t.Errorf("a former leader's first step added %d ms", state.millis-before)
	}
}

// TestUnknownStepIsNotCountedTwice: a step whose fate is unknown and that did
// count is seen by its index, and its time isn't added again.
func TestUnknownStepIsNotCountedTwice(t *testing.T) {
	start := time.Now()
	var elapsed time.Duration
	state := &clockState{leads: true}
	k := newKeeper(state, slog.New(slog.DiscardHandler), func() time.Time { return start.Add(elapsed) })
	k.step(context.Background())
	elapsed += Interval
	state.fail = kv.Errorf(kv.OutcomeUnknown, "lost")
	k.step(context.Background())
	state.millis, state.index, state.fail = state.millis+Interval.Milliseconds(), state.index+3, nil // it counted after all
	elapsed += Interval
	k.step(context.Background()) // sees the index
	elapsed += Interval
	k.step(context.Background())
	if got := time.Duration(state.millis) * time.Millisecond; got > elapsed {
		t.Errorf("after %v the clock shows %v", elapsed, got)
	}
}

// TestLeaderEndsWhatIsDue: each due lease is named once a step, with its
// generation, and by the leader alone.
func TestLeaderEndsWhatIsDue(t *testing.T) {
	start := time.Now()
	var elapsed time.Duration
	state := &clockState{}
	for i := range 1000 {
		state.due = append(state.due, kv.Lease{ID: kv.LeaseID{1, byte(i >> 8), byte(i)}, Generation: uint64(i)})
	}
	k := newKeeper(state, slog.New(slog.DiscardHandler), func() time.Time { return start.Add(elapsed) })
	k.step(context.Background())
	if len(state.ended) != 0 {
		t.Fatal("a follower ended leases")
	}
	state.leads = true
	k.step(context.Background()) // sees where the clock stands
	elapsed += Interval
	k.step(context.Background())
	seen := map[kv.Lease]bool{}
	for _, l := range state.ended {
		seen[l] = true
	}
	if len(state.ended) != len(state.due) || len(seen) != len(state.due) {
		t.Errorf("%d expiries of %d leases were proposed for %d due ones", len(state.ended), len(seen), len(state.due))
	}
}
