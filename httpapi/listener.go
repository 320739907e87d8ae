package httpapi

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/api"
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
func limitListener(l net.Listener, limit int, stall time.Duration, count func(open int64), refused func(), instead func([]byte) []byte) net.Listener {
	return &limitedListener{Listener: l, limit: int64(limit), stall: stall, count: count, refused: refused, instead: instead}
}

type limitedListener struct {
	net.Listener
	limit int64
	stall time.Duration
	open  atomic.Int64
	count func(open int64)
	// refused is called for each connection too many.
	refused func()
	// instead returns what is written in place of an answer, or nil.
	instead func(head []byte) []byte
}

// refusal is the whole answer on a connection too many. It says, as other
// problems do, that nothing was applied.
var refusal = func() string {
	body := `{"type":"urn:cairn:problem:unavailable","title":"The node can't serve this now","status":503,"code":"unavailable","detail":"this node has no connection left","retry_after_seconds":1}` + "\n"
	return "HTTP/1.1 503 Service Unavailable\r\nContent-Type: " + api.TypeProblem + "\r\nRetry-After: 1\r\nConnection: close\r\n" +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}()

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
		l.refused()
		// The buffers of a fresh connection take this without waiting. To a
		// client of TLS it is noise, and the connection fails as it must.
		_ = conn.SetWriteDeadline(time.Now().Add(l.stall))
		_, _ = io.WriteString(conn, refusal)
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
