package httpapi

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/testkit"
)

// countedConn counts the reads that reach it.
type countedConn struct {
	net.Conn
	reads *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(b)
}

// deferredPair returns a connection whose peer writes, with the number of reads
// that were not deferred.
func deferredPair(t *testing.T) (c *limitedConn, reads *atomic.Int64, peer net.Conn) {
	t.Helper()
	ours, peer := net.Pipe()
	t.Cleanup(func() { _ = peer.Close(); _ = ours.Close() })
	reads = new(atomic.Int64)
	l := &limitedListener{stall: time.Minute, instead: nothingInstead, count: func(int64) {}}
	return &limitedConn{Conn: countedConn{ours, reads}, l: l}, reads, peer
}

// startBehind begins the read that net/http has behind a request, and returns
// when it waits.
func startBehind(t *testing.T, c *limitedConn) (ended chan error) {
	t.Helper()
	ended = make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	testkit.Eventually(t, "the read began", func() bool {
		c.reads.Lock()
		defer c.reads.Unlock()
		return c.reads.deferred.waits || c.reads.under > 0 || len(ended) > 0
	})
	return ended
}

// A read behind a request that is answered soon never takes place, and the next
// request is read as ever.
func TestDeferredReadInterrupted(t *testing.T) {
	c, reads, peer := deferredPair(t)
	for range 100 {
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		ended := startBehind(t, c)
		if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("an interrupted read returned %v", err)
		}
	}
	// Some may have been seen twice by the timer on a slow machine, not most.
	if n := reads.Load(); n > 50 {
		t.Errorf("%d of 100 reads took place", n)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(peer, "GET ") }()
	if n, err := c.Read(make([]byte, 4)); n != 4 || err != nil {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

// Over HTTP/2 a read of one byte is the payload of a frame, which all requests of the
// connection wait for: it is never deferred.
func TestFramesAreNotDeferred(t *testing.T) {
	c, _, peer := deferredPair(t)
	go func() { _, _ = io.WriteString(peer, "PRI * HTTP/2.0\r\n1") }()
	if _, err := io.ReadFull(c, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	c.reads.Lock()
	defer c.reads.Unlock()
	if n := c.reads.deferred.n; n != 0 {
		t.Errorf("%d reads were deferred", n)
	}
}

// A read behind a request may be interrupted before it has begun.
func TestDeferredReadInterruptedBefore(t *testing.T) {
	c, reads, _ := deferredPair(t)
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || reads.Load() != 0 {
		t.Errorf("got %v after %d reads", err, reads.Load())
	}
}

// A read behind a request that takes long takes place, and sees what comes and
// who goes; each time, for the timer begins anew.
func TestDeferredReadTakesPlace(t *testing.T) {
	c, reads, peer := deferredPair(t)
	for n := range int64(3) {
		ended := startBehind(t, c)
		if _, err := io.WriteString(peer, "x"); err != nil { // which waits for its reader
			t.Fatal(err)
		}
		if err := <-ended; err != nil || reads.Load() != n+1 {
			t.Fatalf("got %v, %d reads took place", err, reads.Load())
		}
	}
	ended := startBehind(t, c)
	_ = peer.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("who left was seen as %v", err)
	}
}

// A deadline that is set while a read is deferred is met by it.
func TestDeferredReadMeetsLaterDeadline(t *testing.T) {
	c, _, _ := deferredPair(t)
	ended := startBehind(t, c)
	if err := c.SetReadDeadline(time.Now().Add(deferral / 2)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Who closes a connection ends its deferred read.
func TestDeferredReadClosed(t *testing.T) {
	c, _, _ := deferredPair(t)
	ended := startBehind(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a closed connection was read")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a closed connection was read later")
	}
}
