package httpapi

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// watchedConn tells of the read deadlines that are set.
type watchedConn struct {
	net.Conn
	set chan time.Time
}

func (c watchedConn) SetReadDeadline(t time.Time) error {
	err := c.Conn.SetReadDeadline(t)
	c.set <- t
	return err
}

func nothingInstead([]byte) []byte { return nil }

func connPair(t *testing.T, stall time.Duration) (c *limitedConn, set chan time.Time, peer net.Conn) {
	t.Helper()
	ours, peer := net.Pipe()
	t.Cleanup(func() { _ = peer.Close(); _ = ours.Close() })
	set = make(chan time.Time, 16)
	return &limitedConn{Conn: watchedConn{ours, set}, l: &limitedListener{stall: stall, instead: nothingInstead}}, set, peer
}

// A peer that takes one answer and not the next is given up, though net/http lifts
// deadlines after each answer, and when a stream takes the connection over.
func TestStalledLaterWrite(t *testing.T) {
	for name, lift := range map[string]func(*limitedConn, time.Time) error{
		"after an answer": (*limitedConn).SetWriteDeadline, "taken over": (*limitedConn).SetDeadline,
	} {
		t.Run(name, func(t *testing.T) {
			c, _, peer := connPair(t, 200*time.Millisecond)
			go func() { _, _ = peer.Read(make([]byte, 3)) }()
			if _, err := c.Write([]byte("one")); err != nil {
				t.Fatal(err)
			}
			if err := lift(c, time.Time{}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("two")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A deadline that comes after the one that is set costs nothing, and a reader
// waits for it all the same.
func TestLaterReadDeadline(t *testing.T) {
	c, set, peer := connPair(t, time.Minute)
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	far := time.Now().Add(time.Hour)
	go func() {
		<-set // the reader waits
		for _, at := range []time.Time{{}, far} {
			if err := c.SetReadDeadline(at); err != nil {
				t.Error(err)
			}
		}
		if at := <-set; !at.Equal(far) { // the reader has met the first
			t.Errorf("then %s was set, not %s", at, far)
		}
		_, _ = io.WriteString(peer, "xy")
	}()
	if n, err := c.Read(make([]byte, 2)); n != 2 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if len(set) > 0 {
		t.Error("more was set")
	}
}

// A deadline before the one that is set interrupts a reader at once; lifted, it
// leaves no trace.
func TestEarlierReadDeadline(t *testing.T) {
	c, set, peer := connPair(t, time.Minute)
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() { _, err := c.Read(make([]byte, 2)); read <- err }()
	<-set
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(peer, "xy") }()
	if n, err := c.Read(make([]byte, 2)); n != 2 || err != nil {
		t.Errorf("afterwards: got %d, %v", n, err)
	}
}
