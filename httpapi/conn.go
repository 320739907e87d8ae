package httpapi

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A limitedConn is a connection of a client.
//
// It bounds each write by itself: a handler doesn't know when what it wrote leaves
// the buffers of net/http, while a connection does.
//
// And it makes deadlines cheap. net/http sets half a dozen for each request, almost
// all of them later than the one before, and none is ever met but by a peer that
// is gone. Each costs about as much as a small read. So a deadline is set when it
// comes before the one that is set, and else when that one is met: whoever reads
// then waits on for the true one.
type limitedConn struct {
	net.Conn
	l      *limitedListener
	closed atomic.Bool
	// heard says that something was read, framed that it began as HTTP/2 does, whose
	// frames are read in pieces of any length.
	heard, framed atomic.Bool
	// armed is when the deadline of writes was last set, in nanoseconds since the
	// listener's before, by a clock that only goes forward; 0 if it is to be set.
	armed atomic.Int64

	reads struct {
		sync.Mutex
		wanted, set time.Time // zero: none; set is what the kernel's side has
		under       int       // reads that wait for the peer
		deferred    deferredRead
	}
	// due is of the head of an answer; see sayAndEnd for what becomes of some.
	due    headDue
	probes struct {
		sync.Mutex
		silent time.Duration // after which a silent peer is given up, or 0; see probePeer
	}
}

// Write gives the peer the time of a stall for each piece, or a little less: the
// deadline is not set anew while it is fresh.
func (c *limitedConn) Write(b []byte) (written int, err error) {
	if c.due.written() {
		if problem := c.l.instead(b); problem != nil {
			return len(b), sayAndEnd(c, problem)
		}
	}
	const piece = 64 << 10
	for {
		part := b[written:min(len(b), written+piece)]
		now := time.Now()
		if age := int64(now.Sub(c.l.before)); age-c.armed.Load() > int64(c.l.stall/16) {
			_ = c.Conn.SetWriteDeadline(now.Add(c.l.stall))
			c.armed.Store(age)
		}
		n, err := c.Conn.Write(part)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// SetWriteDeadline sets a deadline for the writes that are under way. The next one
// sets its own. To lift a deadline does nothing: net/http does it after each
// answer, and a write that came soon after would have none.
func (c *limitedConn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	c.armed.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

// SetReadDeadline interrupts a read that is under way where it must; else the next
// one looks.
func (c *limitedConn) SetReadDeadline(t time.Time) error {
	c.reads.Lock()
	defer c.reads.Unlock()
	c.reads.wanted = t
	c.due.deadlineSet()
	if c.reads.deferred.waits && passed(t) {
		c.letGo(false)
	}
	if c.reads.under == 0 {
		return nil
	}
	return c.setRead()
}

// setRead sets the wanted deadline if it comes before the one that is set. The
// lock is held.
func (c *limitedConn) setRead() error {
	t := c.reads.wanted
	if t.IsZero() || !c.reads.set.IsZero() && !t.Before(c.reads.set) {
		return nil
	}
	c.reads.set = t
	return c.Conn.SetReadDeadline(t)
}

func (c *limitedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *limitedConn) Read(b []byte) (int, error) {
	if len(b) == 1 && !c.framed.Load() && !c.deferRead() {
		return 0, os.ErrDeadlineExceeded
	}
	for {
		if err := c.begin(); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(b)
		if n > 0 && !c.heard.Load() {
			c.heard.Store(true)
			c.framed.Store(bytes.HasPrefix(b[:n], []byte("PRI ")))
		}
		if late := c.end(err); n > 0 || late || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// begin and end enclose a read that waits for the peer.
func (c *limitedConn) begin() error {
	c.reads.Lock()
	defer c.reads.Unlock()
	c.reads.under++
	return c.setRead()
}

// end reports whether a deadline that was met, if one was, is the wanted one. If
// it isn't, the wanted one is set.
func (c *limitedConn) end(err error) (late bool) {
	c.reads.Lock()
	defer c.reads.Unlock()
	c.reads.under--
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if passed(c.reads.wanted) {
		return true
	}
	c.reads.set = c.reads.wanted
	return c.Conn.SetReadDeadline(c.reads.wanted) != nil
}

// passed reports whether t is a time, and one that has come.
func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// CloseWrite lets net/http say why it ends a connection: without it what the peer
// still sends would reset the connection before the answer is read.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *limitedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.l.count(c.l.open.Add(-1))
		c.reads.Lock()
		if c.reads.deferred.waits {
			c.letGo(true) // to find it closed
		}
		c.reads.Unlock()
	}
	return c.Conn.Close()
}
