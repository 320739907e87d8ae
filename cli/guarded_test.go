package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestPlaceIsSaid: a place that becomes known while the others are asked for is said
// behind them, since the answer may not count this one.
func TestPlaceIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, placed, over := make(chan struct{}), make(chan struct{}), errors.New("over")
		take := func(_ context.Context, before func(int)) (*held, error) {
			<-asked
			before(1)
			close(placed)
			synctest.Wait() // what there is to say is on its way
			before(0)
			return nil, over
		}
		waits := func(context.Context) string {
			close(asked)
			<-placed
			return "waiting for it; nobody else waits"
		}
		var said bytes.Buffer
		tell := newTeller(&said)
		_, err := new(app).await(t.Context(), take, waits, make(chan os.Signal), tell)
		tell.end()
		const want = "cairn: waiting for it; nobody else waits\n" +
			"cairn: still waiting; 1 before this\n" +
			"cairn: still waiting; nobody else waits before this\n"
		if !errors.Is(err, over) || said.String() != want {
			t.Errorf("got %v, and said %q", err, said.String())
		}
	})
}

// TestSignalsOfTheWait: what says nothing of the end of a process does not end its wait.
func TestSignalsOfTheWait(t *testing.T) {
	for _, s := range passedOn {
		synctest.Test(t, func(t *testing.T) {
			begun := make(chan struct{})
			take := func(ctx context.Context, _ func(int)) (*held, error) {
				close(begun)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			signals := make(chan os.Signal)
			go func() {
				<-begun
				signals <- s
				if !ends(s) && s != syscall.SIGHUP {
					signals <- syscall.SIGTERM
				}
			}()
			_, err := new(app).await(t.Context(), take, nil, signals, nil)
			want := 128 + int(syscall.SIGTERM)
			switch s {
			case os.Interrupt, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGHUP:
				want = 128 + int(s.(syscall.Signal))
			}
			var exited *exitedError
			if !errors.As(err, &exited) || exited.status != want {
				t.Errorf("%v: got %v, want status %d", s, err, want)
			}
		})
	}
}

// TestOrder: what signals, the loss of a lock and time make of what a command leaves behind.
func TestOrder(t *testing.T) {
	const grace = 10 * time.Second
	lost := os.Signal(nil) // stands for the loss
	type sent struct {
		s  os.Signal
		at time.Duration
	}
	for name, test := range map[string]struct {
		sent           []sent
		ended          time.Duration
		stands, repeat bool
		until          time.Duration
	}{
		"none":                    {nil, 1, false, false, 0},
		"SIGHUP":                  {[]sent{{syscall.SIGHUP, 0}}, 1, false, false, 0},
		"SIGTERM":                 {[]sent{{syscall.SIGTERM, 0}}, grace, true, false, grace},
		"SIGTERM long ago":        {[]sent{{syscall.SIGTERM, 0}}, grace + 1, true, true, grace},
		"SIGINT":                  {[]sent{{os.Interrupt, 0}}, 1, true, true, grace},
		"SIGINT long ago":         {[]sent{{os.Interrupt, 0}}, grace + 1, true, true, grace},
		"SIGTERM again":           {[]sent{{syscall.SIGTERM, 0}, {syscall.SIGTERM, 5}}, grace + 5, true, false, grace + 5},
		"SIGQUIT":                 {[]sent{{syscall.SIGQUIT, 0}}, grace, true, true, grace},
		"SIGQUIT long ago":        {[]sent{{syscall.SIGQUIT, 0}}, grace + 1, false, false, 0},
		"SIGQUIT again":           {[]sent{{syscall.SIGQUIT, 0}, {syscall.SIGQUIT, 5}}, grace + 5, true, true, grace + 5},
		"SIGQUIT after SIGTERM":   {[]sent{{syscall.SIGTERM, 0}, {syscall.SIGQUIT, 5}}, grace + 6, true, true, grace},
		"SIGTERM after SIGQUIT":   {[]sent{{syscall.SIGQUIT, 0}, {syscall.SIGTERM, 5}}, 6, true, false, grace + 5},
		"loss":                    {[]sent{{lost, 0}}, grace + 1, true, false, grace},
		"SIGTERM after the loss":  {[]sent{{lost, 0}, {syscall.SIGTERM, 5}}, 6, true, false, grace},
		"SIGINT after the loss":   {[]sent{{lost, 0}, {os.Interrupt, 5}}, 6, true, false, grace},
		"SIGQUIT after the loss":  {[]sent{{lost, 0}, {syscall.SIGQUIT, 5}}, grace + 1, true, false, grace},
		"SIGQUIT before the loss": {[]sent{{syscall.SIGQUIT, 0}, {lost, 5}}, grace + 6, true, false, grace + 5},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			var o order
			for _, sent := range test.sent {
				if now := begin.Add(sent.at); sent.s == lost {
					o.end(now, grace)
				} else {
					o.note(sent.s, now, grace)
				}
			}
			ended := begin.Add(test.ended)
			if o.stands(ended) != test.stands {
				t.Fatalf("it stands: %v", !test.stands)
			}
			if !test.stands {
				return
			}
			if o.repeat(ended) != test.repeat || !o.until.Equal(begin.Add(test.until)) {
				t.Errorf("it is repeated: %v, and gives time for %v", o.repeat(ended), o.until.Sub(begin))
			}
		})
	}
}

// TestSignalBeforeTheStart: a signal that has come before the command is for this process,
// whatever the terminal tells others, and the command is not begun.
func TestSignalBeforeTheStart(t *testing.T) {
	for _, s := range passedOn {
		signals := make(chan os.Signal, 2)
		signals <- syscall.SIGUSR1
		signals <- s
		err := new(app).runUnder(&held{}, []string{"no-such-command-anywhere"}, signals, time.Second, nil)
		var (
			exited *exitedError
			usage  *usageError
		)
		switch {
		case endsWait(s) && (!errors.As(err, &exited) || exited.status != 128+int(s.(syscall.Signal))):
			t.Errorf("%v: got %v", s, err)
		case !endsWait(s) && !errors.As(err, &usage):
			t.Errorf("%v: the command is not tried: %v", s, err)
		}
	}
}

// A group is what a command that has ended has left behind, as the system shows it.
type group struct {
	there bool
	told  []syscall.Signal
	ends  time.Time            // unless it is zero
	on    func(syscall.Signal) // what comes of a signal
}

func (g *group) kill(_ int, s syscall.Signal) error {
	if !g.ends.IsZero() && !time.Now().Before(g.ends) {
		g.there = false
	}
	switch {
	case !g.there:
		if s != 0 {
			g.told = append(g.told, s)
		}
		return syscall.ESRCH
	case s == 0:
		return nil
	}
	g.told = append(g.told, s)
	g.on(s)
	return nil
}

// noGroup is the number of no group of processes.
const noGroup = 1 << 30

func (g *group) run(grace time.Duration) *run {
	return &run{child: &child{pid: noGroup, group: true, kill: g.kill}, grace: grace}
}

// TestSignalBesideTheEnd: a signal that comes in the moment in which the command ends is for
// what that leaves behind.
func TestSignalBesideTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &group{there: true}
		g.on = func(s syscall.Signal) { g.there = s != syscall.SIGTERM }
		signals := make(chan os.Signal, 2)
		signals <- os.Interrupt
		g.run(time.Hour).leftBehind(signals)
		if want := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}; !slices.Equal(g.told, want) {
			t.Errorf("it was told %v, want %v", g.told, want)
		}
	})
}

// TestSignalsToWhatIsLeft: what a command leaves behind gets the signals that come while it
// is waited for.
func TestSignalsToWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &group{there: true}
		g.on = func(s syscall.Signal) { g.there = s != syscall.SIGUSR1 }
		r := g.run(time.Hour)
		r.told.note(syscall.SIGTERM, time.Now(), r.grace)
		signals, over := make(chan os.Signal), make(chan struct{})
		go func() {
			r.leftBehind(signals)
			close(over)
		}()
		synctest.Wait() // it waits
		select {
		case signals <- syscall.SIGUSR1:
			<-over
		case <-over:
		}
		if want := []syscall.Signal{syscall.SIGUSR1}; !slices.Equal(g.told, want) {
			t.Errorf("it was told %v, want %v", g.told, want)
		}
	})
}

// TestNothingIsLeft: a group that is gone is told nothing, since its number may be another's.
func TestNothingIsLeft(t *testing.T) {
	for name, test := range map[string]struct {
		there bool
		want  []syscall.Signal
	}{
		"at once": {false, nil},
		"later":   {true, []syscall.Signal{syscall.SIGTERM}},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := &group{there: test.there}
			g.on = func(syscall.Signal) { g.ends = time.Now().Add(time.Second) }
			r := g.run(time.Hour)
			r.told.note(os.Interrupt, time.Now(), r.grace)
			r.leftBehind(make(chan os.Signal))
			if !slices.Equal(g.told, test.want) {
				t.Errorf("%s: it was told %v, want %v", name, g.told, test.want)
			}
		})
	}
}

// TestWhatIsLeftIsKilled: it has the time to end that there is, and no more.
func TestWhatIsLeftIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &group{there: true, on: func(syscall.Signal) {}}
		r := g.run(time.Hour)
		begin := time.Now()
		r.told.note(os.Interrupt, begin, r.grace)
		r.leftBehind(make(chan os.Signal))
		want := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}
		if took := time.Since(begin); !slices.Equal(g.told, want) || took < r.grace || took > r.grace+time.Minute {
			t.Errorf("after %v it was told %v, want %v", took, g.told, want)
		}
	})
}

// TestNoRightToTell: that no signal reaches a command is said once, and once more where it
// goes on though what it ran under is lost.
func TestNoRightToTell(t *testing.T) {
	var said bytes.Buffer
	r := &run{
		child: &child{pid: noGroup, group: true, kill: func(int, syscall.Signal) error { return syscall.EPERM }},
		what:  `the lock "l"`, grace: time.Hour, tell: newTeller(&said),
	}
	for _, s := range []syscall.Signal{syscall.SIGWINCH, syscall.SIGTERM, syscall.SIGTERM, syscall.SIGUSR1} {
		r.pass(s)
	}
	r.told.end(time.Now(), r.grace)
	r.send(syscall.SIGTERM)
	r.send(syscall.SIGKILL)
	r.over = true
	r.send(syscall.SIGKILL)
	r.tell.end()
	const want = "cairn: no signal reaches the command, which runs under another user\n" +
		"cairn: no signal reaches the command, which runs under another user: it goes on without the lock \"l\"\n" +
		"cairn: no signal reaches what the command has left behind, which runs under another user: it goes on without the lock \"l\"\n"
	if said.String() != want {
		t.Errorf("it said %q", said.String())
	}
}
