package raftlog

import (
	"maps"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
)

// recorder keeps the record of how far the log is durable, in memory at once
// and on disk a little later. One goroutine writes it, from newRecorder to
// close.
type recorder struct {
	interval time.Duration

	mu      sync.Mutex
	now     marks // what is durable in the log
	onDisk  marks // what the record says, or will say if a write is under way
	changed bool  // now holds something that onDisk does not
	err     error // the first failed write; nothing is written after it

	writing sync.Mutex // held while file is written; taken before mu
	file    *recordFile

	wake chan struct{} // has one token while changed, from note
	stop chan struct{} // closed by close
	done chan struct{} // closed by run
}

func newRecorder(file *recordFile, ms marks, interval time.Duration) *recorder {
	r := &recorder{
		interval: interval,
		now:      ms,
		onDisk:   maps.Clone(ms),
		file:     file,
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	go r.run()
	return r
}

// run writes what was noted, at most once an interval. It sleeps while nothing
// changes.
func (r *recorder) run() {
	defer close(r.done)
	pause := time.NewTimer(r.interval)
	defer pause.Stop()
	for {
		select {
		case <-r.wake:
		case <-r.stop:
			return
		}
		if r.write() != nil {
			return // note and lower report it from now on
		}
		pause.Reset(r.interval)
		select {
		case <-pause.C:
		case <-r.stop:
			return
		}
	}
}

// get gives the mark of a replica, and whether there is one.
func (r *recorder) get(id raftio.NodeInfo) (mark, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.now[id]
	return m, ok
}

// note takes over what has become durable. It doesn't wait for the disk. Its
// error is that of an earlier write of the record.
func (r *recorder) note(id raftio.NodeInfo, m mark) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now[id] != m {
		r.now[id] = m
		r.changed = true
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	return r.err
}

// lower must be called before the log of id is cut back to what m says. From
// its return on, the record claims no more than that, whenever it is written.
// It is the caller that waits for the disk here, and only if the record did
// claim more.
func (r *recorder) lower(id raftio.NodeInfo, m mark) error {
	r.mu.Lock()
	if now := r.now[id]; now.held(m) != now {
		r.now[id] = now.held(m) // or the goroutine writes the old one a moment later
		r.changed = true
	}
	recorded := r.onDisk[id]
	err := r.err
	r.mu.Unlock()
	if err != nil || recorded.held(m) == recorded {
		return err
	}
	return r.write()
}

// forget must be called before the log of id is removed.
func (r *recorder) forget(id raftio.NodeInfo) error {
	r.mu.Lock()
	_, ok := r.onDisk[id]
	delete(r.now, id)
	r.changed = r.changed || ok
	r.mu.Unlock()
	return r.write()
}

// write brings the record up to date. A write that failed is never tried
// again: what the disk holds after a failed sync is anyone's guess.
func (r *recorder) write() error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	if r.err != nil || !r.changed {
		err := r.err
		r.mu.Unlock()
		return err
	}
	r.onDisk = maps.Clone(r.now)
	r.changed = false
	next := r.onDisk
	r.mu.Unlock()

	if err := r.file.write(next); err != nil {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		return err
	}
	return nil
}

// close ends the goroutine, writes what is left and closes the file.
func (r *recorder) close() error {
	close(r.stop)
	<-r.done
	err := r.write()
	if cerr := r.file.close(); err == nil {
		err = cerr
	}
	return err
}
