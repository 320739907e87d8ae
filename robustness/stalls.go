package robustness

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookAtDisk is the pause between two looks at the disk, and slowSync from where
	// on the time of one is no time that a node could have used: a healthy disk takes
	// milliseconds.
	lookAtDisk = 250 * time.Millisecond
	slowSync   = 100 * time.Millisecond
)

// A DiskWatch counts for how long the disk of the machine stands still, under which no
// node can keep a promise about time: it needs several syncs, one after the other, to
// start and to elect a leader.
type DiskWatch struct {
	stood atomic.Int64 // nanoseconds, of the syncs that have ended
	since atomic.Int64 // when the one under way began, in nanoseconds since 1970; 0: there is none
	quit  chan struct{}
	wg    sync.WaitGroup
	err   error
}

// WatchDisk watches the disk of a file, which it makes. End ends that.
func WatchDisk(file string) *DiskWatch {
	w := &DiskWatch{quit: make(chan struct{})}
	w.wg.Go(func() { w.err = w.run(file) })
	return w
}

// Stood is for how long the disk stood still so far.
func (w *DiskWatch) Stood() time.Duration {
	stood := time.Duration(w.stood.Load())
	if since := w.since.Load(); since != 0 {
		if now := time.Since(time.Unix(0, since)); now > slowSync {
			stood += now
		}
	}
	return stood
}

// End removes the file. Its error is that of the watch.
func (w *DiskWatch) End() error {
	close(w.quit)
	w.wg.Wait()
	return w.err
}

func (w *DiskWatch) run(file string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(file)) }()
	block := make([]byte, 4<<10)
	tick := time.NewTicker(lookAtDisk)
	defer tick.Stop()
	for {
		began := time.Now()
		w.since.Store(began.UnixNano())
		_, err := f.WriteAt(block, 0)
		if err := errors.Join(err, f.Sync()); err != nil {
			return err
		}
		if took := time.Since(began); took > slowSync {
			w.stood.Add(int64(took))
		}
		w.since.Store(0)
		select {
		case <-w.quit:
			return nil
		case <-tick.C:
		}
	}
}
