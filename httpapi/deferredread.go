package httpapi

import "time"

// deferral is how long the read behind a request is deferred, at least; at most
// it is twice as long.
const deferral = 100 * time.Millisecond

// A deferredRead is what a connection keeps for the read behind a request.
//
// While a handler runs, net/http reads one byte, to notice a client that goes
// away, and interrupts that read when the handler is done. Almost all handlers are
// done long before anything comes, and the read and its end cost more than to
// parse the request. So the read is deferred for a moment, and most often it is
// interrupted before it has begun. A request that waits, a watch for instance,
// has its read after that moment.
//
// The read is known by its length of one byte. One of that length which net/http
// makes for another reason, when its buffer has one byte of room left, is late by
// the same moment, and nothing else.
type deferredRead struct {
	waits bool
	// gate tells the read that is deferred whether it shall take place.
	gate chan bool
	// timer runs while reads come one after the other, and looks at them each
	// deferral: one that it sees twice has waited long enough.
	timer    *time.Timer
	timing   bool
	n, seenN uint64 // reads deferred so far, and when the timer looked
}

// deferRead returns when a read behind a request shall take place, or reports that
// its deadline passed before.
func (c *limitedConn) deferRead() bool {
	c.reads.Lock()
	d := &c.reads.deferred
	if passed(c.reads.wanted) {
		c.reads.Unlock()
		return false
	}
	if c.closed.Load() {
		c.reads.Unlock()
		return true
	}
	if d.gate == nil {
		d.gate = make(chan bool, 1)
	}
	d.waits = true
	d.n++
	if !d.timing {
		d.timing, d.seenN = true, d.n
		if d.timer == nil {
			d.timer = time.AfterFunc(deferral, c.lookAtDeferred)
		} else {
			d.timer.Reset(deferral)
		}
	}
	c.reads.Unlock()
	return <-d.gate
}

// letGo ends the wait of the read that is deferred. The lock is held.
func (c *limitedConn) letGo(read bool) {
	c.reads.deferred.waits = false
	c.reads.deferred.gate <- read
}

// lookAtDeferred lets a read go that has been deferred for a turn of the timer. The
// timer ends itself once there is nothing to look at.
func (c *limitedConn) lookAtDeferred() {
	c.reads.Lock()
	defer c.reads.Unlock()
	d := &c.reads.deferred
	switch {
	case !d.waits:
		d.timing = false
	case d.n == d.seenN:
		d.timing = false
		c.letGo(true)
	default:
		d.seenN = d.n
		d.timer.Reset(deferral)
	}
}
