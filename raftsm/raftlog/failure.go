package raftlog

import (
	"fmt"
	"sync/atomic"
)

// failure passes on that the log can't be written. Before the log is open that is
// the opener's error and nobody else's.
type failure struct {
	tell  func(error) // may be nil
	armed atomic.Bool
}

// of returns err, after it told of it.
func (f *failure) of(err error) error {
	if err != nil && f.tell != nil && f.armed.Load() {
		f.tell(fmt.Errorf("raftlog: %w", err))
	}
	return err
}
