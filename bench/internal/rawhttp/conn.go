// Package rawhttp is an HTTP/1.1 client that costs as little as it can: one
// keep-alive connection, requests that the caller has built as bytes, and a
// parser that looks at the status, the framing and nothing else.
//
// It exists so that the load generator takes as little as possible of the
// processors that it shares with the server under test. It is strict where
// net/http is lenient: what it doesn't understand completely is an error, since
// a benchmark that misreads an answer measures nothing.
package rawhttp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// bodyMax bounds the memory that one answer can take.
const bodyMax = 64 << 20

// lineMax bounds the status line, a header line and a chunk's size line;
// linesMax how many of them an answer may have.
const (
	lineMax  = 16 << 10
	linesMax = 256
)

// ErrMalformed is returned, wrapped, for an answer that is not HTTP/1.1 with a
// length that is known in advance or chunk by chunk.
var ErrMalformed = errors.New("malformed HTTP answer")

// ErrClosing is returned for a request after an answer with which the server
// announced that it closes the connection.
var ErrClosing = errors.New("the server has closed the connection")

// Conn is a connection on which requests follow one another. It is not safe for
// concurrent use, and after any error it is of no use at all.
type Conn struct {
	stream io.ReadWriteCloser

	// buf[r:w] was received and not yet consumed.
	buf  []byte
	r, w int

	chunked []byte // the joined body of a chunked answer
	closing bool   // the last answer said that no other will follow
}

// Dial connects to a TCP address.
func Dial(addr string, timeout time.Duration) (*Conn, error) {
	tcp, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	return New(tcp), nil
}

// New speaks over a stream that is already open.
func New(stream io.ReadWriteCloser) *Conn {
	return &Conn{stream: stream, buf: make([]byte, 4<<10)}
}

// Close may be called at any time, also while another goroutine waits for an
// answer, which then fails.
func (c *Conn) Close() error { return c.stream.Close() }

// Do sends a complete request and waits for its answer.
func (c *Conn) Do(request []byte) (Response, error) {
	if err := c.Send(request); err != nil {
		return Response{}, err
	}
	return c.Receive()
}

// Send sends a part of a request. After the last part comes one Receive.
func (c *Conn) Send(part []byte) error {
	if c.closing {
		return ErrClosing
	}
	if c.r != c.w {
		return fmt.Errorf("%w: %d bytes before the request", ErrMalformed, c.w-c.r)
	}
	_, err := c.stream.Write(part)
	return err
}

// fill receives at least one more byte. It may move what is in the buffer:
// slices of it are valid until the next call.
func (c *Conn) fill() error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.buf) {
		if len(c.buf) >= bodyMax+lineMax {
			return fmt.Errorf("%w: too large", ErrMalformed)
		}
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.stream.Read(c.buf[c.w:])
	c.w += n
	switch {
	case n > 0:
		return nil
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}
