package httpapi

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// limitListener bounds the open connections of l. One beyond the limit gets a
// short answer and is closed, so that its peer knows why.
//
// It also bounds how long a write may wait for a peer that takes nothing: a
// handler doesn't know when what it wrote leaves the buffers of net/http, while
// a connection does.
func limitListener(l net.Listener, limit int, stall time.Duration, count func(open int64)) net.Listener {
	return &limitedListener{Listener: l, limit: int64(limit), stall: stall, count: count}
}

type limitedListener struct {
	net.Listener
	limit int64
	stall time.Duration
	open  atomic.Int64
	count func(open int64)
}

const refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 32\r\n\r\nThis node has no connection left"

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if open := l.open.Add(1); open <= l.limit {
			l.count(open)
			return &limitedConn{Conn: conn, l: l}, nil
		}
		l.open.Add(-1)
		// The buffers of a fresh connection take this without waiting. To a
		// client of TLS it is noise, and the connection fails as it must.
		_ = conn.SetWriteDeadline(time.Now().Add(l.stall))
		_, _ = io.WriteString(conn, refusal)
		_ = conn.Close()
	}
}

type limitedConn struct {
	net.Conn
	l      *limitedListener
	closed atomic.Bool
}

// Write gives the peer the time of a stall for each piece.
func (c *limitedConn) Write(b []byte) (written int, err error) {
	const piece = 64 << 10
	for {
		part := b[written:min(len(b), written+piece)]
		_ = c.Conn.SetWriteDeadline(time.Now().Add(c.l.stall))
		n, err := c.Conn.Write(part)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

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
	}
	return c.Conn.Close()
}

// netHTTPLog passes what net/http complains about to the structured log. It is
// what peers do wrong, so it is of interest when one looks for it.
func netHTTPLog(logger *slog.Logger) *log.Logger {
	return log.New(logWriter{logger}, "", 0)
}

type logWriter struct{ logger *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.logger.Log(context.Background(), slog.LevelDebug, "A connection failed.", "error", strings.TrimSpace(string(b)))
	return len(b), nil
}
