package cli

import (
	"fmt"
	"io"
	"time"
)

const (
	// tellerLines is how many lines wait for a reader that stands still; more are lost.
	tellerLines = 16
	// lastWords is how long the end of a command waits for them to be read.
	lastWords = time.Second
)

// A teller writes lines to people on behalf of somebody who has more urgent things to
// do than to wait until they are read: the standard error may be a pipe whose reader
// stands still.
type teller struct {
	lines chan string
	done  chan struct{}
}

// newTeller starts a teller. Its goroutine ends with end, or else with the process.
func newTeller(w io.Writer) *teller {
	t := &teller{lines: make(chan string, tellerLines), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		for line := range t.lines {
			fmt.Fprintln(w, line) // who doesn't read it misses it
		}
	}()
	return t
}

func (t *teller) say(format string, args ...any) {
	select {
	case t.lines <- "cairn: " + fmt.Sprintf(format, args...):
	default:
	}
}

// end waits for what was said, but not for long. Nothing may be said after it.
func (t *teller) end() {
	close(t.lines)
	select {
	case <-t.done:
	case <-time.After(lastWords):
	}
}
