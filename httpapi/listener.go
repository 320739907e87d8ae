package httpapi

import (
	"context"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// Listen announces an address of TCP, as net.Listen does, for clients some of
// which are slow: what they don't take waits here, in what wrote it, where it has
// its bounds, and not by the megabyte in the kernel.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	c := net.ListenConfig{Control: boundUnsent}
	c.SetMultipathTCP(false) // whose sockets do not pass the option on
	return c.Listen(ctx, "tcp", address)
}

// limitListener bounds the open connections of l. One beyond the limit gets a
// short answer and is closed, so that its peer knows why.
//
// It also bounds how long a write may wait for a peer that takes nothing, and has
// instead look at the heads of answers: see limitedConn.
func limitListener(l net.Listener, limit int, stall time.Duration, count func(open int64), refusal func() []byte, instead func([]byte) []byte) net.Listener {
	return &limitedListener{Listener: l, limit: int64(limit), stall: stall, before: time.Now().Add(-stall), count: count, refusal: refusal, instead: instead}
}

type limitedListener struct {
	net.Listener
	limit int64
	stall time.Duration
	// before is a stall before this began: deadlines of writes are told apart by how long
	// after it they were set.
	before time.Time
	open   atomic.Int64
	count  func(open int64)
	// refusal counts a connection too many and returns its whole answer.
	refusal func() []byte
	// instead returns what is written in place of an answer, or nil.
	instead func(head []byte) []byte
}

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
		_, _ = conn.Write(l.refusal())
		_ = conn.Close()
	}
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
