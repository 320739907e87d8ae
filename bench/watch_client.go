package main

import (
	"context"
	"sync"
)

// A subscription is what one watcher asks for.
type subscription struct {
	key    int    // the number of a key, unless there is a prefix
	prefix string // of the keys
	from   uint64 // the first revision; 0 means from now on
	// stalled begins the watch and reads nothing of it until it is told to.
	stalled bool
}

// span is the keys as etcd wants them: the first and the one behind the last.
func (s subscription) span() (key, end []byte) {
	if s.prefix == "" {
		return []byte(keyName(s.key)), nil
	}
	end = []byte(s.prefix)
	end[len(end)-1]++
	return []byte(s.prefix), end
}

// watching are watchers that are connected, each over a connection of its own.
type watching interface {
	// readOn lets a stalled watcher read.
	readOn(watcher int) error
	// close ends all and waits for that.
	close() error
}

// A watchDialer begins watches and returns once all of them are known to the
// server.
type watchDialer func(ctx context.Context, addr string, subs []subscription, got *receipts) (watching, error)

// dialsAtOnce is how many watches are begun at a time.
const dialsAtOnce = 64

// eachAtOnce calls do for 0 to n-1, some at a time, and stops at the first error.
func eachAtOnce(ctx context.Context, n int, do func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, dialsAtOnce)
	var wg sync.WaitGroup
	for i := 0; i < n && ctx.Err() == nil; i++ {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
