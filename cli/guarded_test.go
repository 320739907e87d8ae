package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
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
	for _, s := range append([]os.Signal{syscall.SIGHUP}, passedOn...) {
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
