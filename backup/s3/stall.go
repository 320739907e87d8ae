package s3

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// stallTimeout is how long nothing may move on a connection with the service. A
	// service, or a network, that stands still in the middle of an object would hold
	// the schedule of the backups for ever.
	stallTimeout = 2 * time.Minute
	// maxTries is how often a request is made.
	maxTries = 4
)

// newTransport is the library's, with an end to stalls.
func newTransport(secure bool, stall time.Duration) (*http.Transport, error) {
	t, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &movingConn{conn, stall}, nil
	}
	return t, nil
}

// movingConn ends when nothing has moved on it for a while. What is written puts off
// the deadline of a read that waits meanwhile, and the other way round: a large object
// takes its time, in one direction.
type movingConn struct {
	net.Conn
	stall time.Duration
}

func (c *movingConn) Read(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// writePiece is how much is written under one deadline.
const writePiece = 64 << 10

func (c *movingConn) Write(b []byte) (n int, err error) {
	for first := true; first || n < len(b); first = false {
		if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(b[n:min(len(b), n+writePiece)])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
