package cli

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/raftsm"
)

// TestEndIsBounded: what does not come to its end is given up, once it was told to end.
func TestEndIsBounded(t *testing.T) {
	ctx, tell := context.WithCancel(context.Background())
	gaveUp, returned := make(chan struct{}), make(chan error)
	running := make(chan struct{})
	go func() {
		returned <- until(ctx, time.Millisecond, func() error {
			close(running)
			<-gaveUp
			return nil
		}, func() { close(gaveUp) })
	}()
	<-running
	select {
	case <-gaveUp:
		t.Error("it was given up before it was told to end")
	default:
	}
	tell()
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

// TestEndInTime: nobody gives up what has ended, with or without an error.
func TestEndInTime(t *testing.T) {
	ctx, tell := context.WithCancel(context.Background())
	tell()
	failed := errors.New("the store could not be closed")
	err := until(ctx, time.Hour, func() error { return failed }, func() { t.Error("given up") })
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

// TestWhyItIsGivenUp: what is said, and the exit status, are those of why it was to end.
func TestWhyItIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		err    error
		says   string
		status int
	}{
		{errStuck, "did not end in time", statusOther},
		{errors.Join(raftsm.ErrDirectory, errStuck), raftsm.ErrDirectory.Error(), statusHopeless},
	} {
		if said := explain(c.err, "cairn"); !strings.Contains(said, c.says) || !strings.Contains(said, errStuck.Error()) || strings.Contains(said, "\n") {
			t.Errorf("it says %q", said)
		}
		if status := exitStatus(c.err); status != c.status {
			t.Errorf("%v: exit status %d, want %d", c.err, status, c.status)
		}
	}
}
