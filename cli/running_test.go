package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/raftsm"
)

// TestEndIsBounded: nodes that don't come to an end are given up, and what is said is
// why they were to end, with the exit status of that.
func TestEndIsBounded(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		says   string
		status int
	}{
		{"told to end", nil, "did not end in time", statusOther},
		{"failed for good", raftsm.ErrDirectory, raftsm.ErrDirectory.Error(), statusHopeless},
	} {
		t.Run(c.name, func(t *testing.T) {
			gaveUp := make(chan error, 1)
			never := make(chan struct{})
			end := func() error { <-never; return nil }
			ended := make(chan error)
			go func() { ended <- within(time.Millisecond, end, c.err, func(err error) { gaveUp <- err }) }()
			err := <-gaveUp
			if said := explain(err, "cairn"); !strings.Contains(said, c.says) || !errors.Is(err, errStuck) {
				t.Errorf("it says %q", said)
			}
			if status := exitStatus(err); status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			close(never)
			if err := <-ended; !errors.Is(err, c.err) || errors.Is(err, errStuck) {
				t.Errorf("an end gave %v", err)
			}
		})
	}
}

// TestEndInTime: nobody gives up nodes that have ended, with or without an error.
func TestEndInTime(t *testing.T) {
	failed := errors.New("the store could not be closed")
	err := within(time.Hour, func() error { return failed }, nil, func(err error) { t.Errorf("given up: %v", err) })
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}
