package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
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
