package leases

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
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
	// renewed lie in the queue before due; requeued counts the commands that moved
	// some.
	renewed  []kv.LeaseID
	requeued int
	// flying are the expiries under way, most the most that there were.
	flying, most int
	// failAfter makes expiries fail after so many; stubborn ones change nothing.
	failAfter int
	stubborn  bool
	// applied, if set, is called when a step was applied, before its result is known.
	applied func()
}

func (s *clockState) IsLeader() bool             { return s.leads }
func (s *clockState) NeedsClock() (bool, uint64) { return true, s.index }
func (s *clockState) DueLeases(limit int) ([]kv.Lease, []kv.LeaseID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	renewed := slices.Clone(s.renewed[:min(limit, len(s.renewed))])
	return slices.Clone(s.due[:min(limit-len(renewed), len(s.due))]), renewed, nil
}
func (s *clockState) Propose(_ context.Context, c *kv.Command) (*kv.Result, error) {
	if c.Kind == kv.KindLeaseExpire {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flying++
		s.most = max(s.most, s.flying)
		s.mu.Unlock()
		runtime.Gosched() // others join
		s.mu.Lock()
		s.flying--
		if s.failAfter > 0 && len(s.ended) >= s.failAfter {
			return nil, kv.Errorf(kv.NoLeader, "made to fail")
		}
		s.ended = append(s.ended, c.Lease)
		if i := slices.Index(s.due, c.Lease); i >= 0 && !s.stubborn {
			s.due = slices.Delete(s.due, i, i+1)
			return &kv.Result{Leases: []kv.LeaseResult{{ID: c.Lease.ID}}}, nil
		}
		return &kv.Result{}, nil
	}
	if s.fail != nil {
		return nil, s.fail
	}
	if c.Kind == kv.KindLeaseRequeue {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requeued++
		s.renewed = slices.DeleteFunc(s.renewed, func(id kv.LeaseID) bool { return slices.Contains(c.Renew, id) })
		return &kv.Result{}, nil
	}
	if c.Clock.Prev == s.index {
		s.millis += min(c.Clock.AdvanceMillis, kv.MaxClockAdvanceMillis)
		s.index += 3
		result := &kv.Result{Succeeded: true, ClockIndex: s.index}
		if s.applied != nil {
			s.applied()
		}
		return result, nil
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

// TestChangesOfLeaderLoseLittle hands the office round and round, as rolling
// restarts do. Each hand-over may cost a look, and the clock never runs ahead.
func TestChangesOfLeaderLoseLittle(t *testing.T) {
	start := time.Now()
	var elapsed time.Duration
	state := &clockState{}
	var keepers [3]*Keeper
	for i := range keepers {
		keepers[i] = newKeeper(state, slog.New(slog.DiscardHandler), func() time.Time { return start.Add(elapsed) })
	}
	const changes = 30
	for turn := range changes {
		// An odd number of looks, so that the leader goes at any time of a step.
		for range 13 + turn%7 {
			elapsed += lookEvery
			for i, k := range keepers {
				state.leads = i == turn%len(keepers)
				k.step(context.Background())
			}
			if millis := time.Duration(state.millis) * time.Millisecond; millis > elapsed {
				t.Fatalf("after %v the clock shows %v", elapsed, millis)
			}
		}
	}
	lost := elapsed - time.Duration(state.millis)*time.Millisecond
	if most := changes*lookEvery + Interval + lookEvery; lost > most {
		t.Errorf("%d changes of leader lost %v of %v, want no more than %v", changes, lost, elapsed, most)
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

// TestSlowStepsLoseNothing: where a commit takes almost as long as the guarantee allows, the
// clock keeps the pace of time.
func TestSlowStepsLoseNothing(t *testing.T) {
	for _, commit := range []time.Duration{50 * time.Millisecond, 220 * time.Millisecond, 400 * time.Millisecond} {
		start := time.Now()
		var elapsed time.Duration
		state := &clockState{leads: true, applied: func() { elapsed += commit }}
		k := newKeeper(state, slog.New(slog.DiscardHandler), func() time.Time { return start.Add(elapsed) })
		for elapsed < 20*time.Second {
			elapsed += lookEvery
			k.step(context.Background())
		}
		clock := time.Duration(state.millis) * time.Millisecond
		if lost := elapsed - clock; lost < 0 || lost > Interval+commit+2*lookEvery {
			t.Errorf("with commits of %v the clock shows %v after %v", commit, clock, elapsed)
		}
	}
}

// TestLateResultOfAStep: another leader's steps are applied before the result of a step is
// known. Their time is not added again.
func TestLateResultOfAStep(t *testing.T) {
	start := time.Now()
	var elapsed time.Duration
	now := func() time.Time { return start.Add(elapsed) }
	state := &clockState{leads: true}
	a := newKeeper(state, slog.New(slog.DiscardHandler), now)
	b := newKeeper(state, slog.New(slog.DiscardHandler), now)
	a.step(context.Background())
	b.step(context.Background())
	elapsed += Interval
	state.applied = func() {
		state.applied = nil
		for range 20 { // b has seen a's step, and leads
			elapsed += lookEvery
			b.step(context.Background())
		}
	}
	a.step(context.Background())
	if clock := time.Duration(state.millis) * time.Millisecond; clock < 3*Interval {
		t.Fatalf("b has not stepped: the clock shows %v", clock)
	}
	for range 20 {
		elapsed += lookEvery
		a.step(context.Background())
		if clock := time.Duration(state.millis) * time.Millisecond; clock > elapsed {
			t.Fatalf("after %v the clock shows %v", elapsed, clock)
		}
	}
}

func dueLeases(n int) (due []kv.Lease) {
	for i := range n {
		due = append(due, kv.Lease{ID: kv.LeaseID{1, byte(i >> 8), byte(i)}, Generation: uint64(i)})
	}
	return due
}

// TestLeaderEndsWhatIsDue: each due lease is named once, with its generation, and
// by the leader alone; however many there are, few are under way at once.
func TestLeaderEndsWhatIsDue(t *testing.T) {
	const n = 2*expiriesPerLook + 100
	due := dueLeases(n)
	state := &clockState{due: slices.Clone(due)}
	k := newKeeper(state, slog.New(slog.DiscardHandler), time.Now)
	k.expire(context.Background())
	if len(state.ended) != 0 {
		t.Fatal("a follower ended leases")
	}
	state.leads = true
	k.expire(context.Background())
	seen := map[kv.Lease]bool{}
	for _, l := range state.ended {
		seen[l] = true
	}
	if len(state.ended) != n || len(seen) != n || k.Expired() != n {
		t.Errorf("%d expiries of %d leases were proposed for %d due ones, and %d counted", len(state.ended), len(seen), n, k.Expired())
	}
	for _, l := range due {
		if !seen[l] {
			t.Fatalf("%v was not ended", l)
		}
	}
	if state.most > expiriesAtOnce {
		t.Errorf("%d expiries were under way at once", state.most)
	}
}

// TestRenewedDoNotHoldUpTheEndOfOthers: however many renewed leases lie in the
// queue before one that is over, they are moved by few commands, and it ends in
// the same step.
func TestRenewedDoNotHoldUpTheEndOfOthers(t *testing.T) {
	state := &clockState{leads: true, due: dueLeases(10)}
	for i := range 2*expiriesPerLook + 5 {
		state.renewed = append(state.renewed, kv.LeaseID{2, byte(i >> 8), byte(i)})
	}
	k := newKeeper(state, slog.New(slog.DiscardHandler), time.Now)
	k.expire(context.Background())
	if len(state.renewed) != 0 || state.requeued != 3 || k.Expired() != 10 {
		t.Errorf("%d renewed leases are left after %d commands; %d of 10 leases ended", len(state.renewed), state.requeued, k.Expired())
	}
}

// TestExpiryGivesUpUntilTheNextStep: neither a log that refuses nor leases that
// somebody renews make the keeper turn round and round.
func TestExpiryGivesUpUntilTheNextStep(t *testing.T) {
	for _, c := range []struct {
		name  string
		state *clockState
		most  int
	}{
		{"refused", &clockState{leads: true, due: dueLeases(5000), failAfter: 100}, 100},
		{"moves refused", &clockState{leads: true, renewed: []kv.LeaseID{{2}}, due: dueLeases(500), fail: kv.Errorf(kv.NoLeader, "made to fail")}, 500},
		{"renewed meanwhile", &clockState{leads: true, due: dueLeases(500), stubborn: true}, 500},
	} {
		k := newKeeper(c.state, slog.New(slog.DiscardHandler), time.Now)
		k.expire(context.Background())
		if n := len(c.state.ended); n > c.most {
			t.Errorf("%s: %d expiries", c.name, n)
		}
	}
}

// slowLog holds up the end of one lease.
type slowLog struct {
	*clockState
	slow           kv.LeaseID
	began, release chan struct{} // began has room for one
}

func (s *slowLog) Propose(ctx context.Context, c *kv.Command) (*kv.Result, error) {
	if c.Kind == kv.KindLeaseExpire && c.Lease.ID == s.slow {
		s.began <- struct{}{}
		<-s.release
	}
	return s.clockState.Propose(ctx, c)
}

// TestSlowEndsHoldUpNobody: what becomes due while the end of another lease is being
// committed ends with the next step, and nothing is ended twice.
func TestSlowEndsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := dueLeases(2)
		state := &clockState{leads: true, due: leases[:1:1]}
		log := &slowLog{state, leases[0].ID, make(chan struct{}, 1), make(chan struct{})}
		k := newKeeper(log, slog.New(slog.DiscardHandler), time.Now)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); k.runExpiry(ctx) }()
		k.stepped <- struct{}{}
		synctest.Wait()
		state.mu.Lock()
		state.due = append(state.due, leases[1])
		state.mu.Unlock()
		k.stepped <- struct{}{}
		synctest.Wait()
		if k.Expired() != 1 || len(log.began) != 1 {
			t.Errorf("%d leases have ended while another one is about to, of which the end is proposed %d times", k.Expired(), len(log.began))
		}
		close(log.release)
		synctest.Wait()
		if k.Expired() != 2 || len(state.ended) != 2 || len(k.underWay) != 0 {
			t.Errorf("%d leases have ended, by %d proposals; %d are under way", k.Expired(), len(state.ended), len(k.underWay))
		}
		cancel()
		<-done
	})
}

// TestStepWakesExpiry: after a step of the clock that counted, what is due is
// ended, without another step.
func TestStepWakesExpiry(t *testing.T) {
	start := time.Now()
	var elapsed time.Duration
	state := &clockState{leads: true, due: dueLeases(3)}
	k := newKeeper(state, slog.New(slog.DiscardHandler), func() time.Time { return start.Add(elapsed) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.runExpiry(ctx) }()
	k.step(ctx) // sees where the clock stands
	elapsed += Interval
	k.step(ctx)
	for deadline := time.Now().Add(time.Minute); k.Expired() != 3 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if len(state.ended) != 3 {
		t.Errorf("%d of 3 leases were ended", len(state.ended))
	}
}
