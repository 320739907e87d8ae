package rawhttp

import (
	"bytes"
	"fmt"
	"math"
)

// Response is what an answer said. Body is valid until the connection is used
// again.
type Response struct {
	Status int
	Body   []byte
}

// framing says where the body of an answer ends.
type framing struct {
	length  int // bytes, or lengthUnknown
	chunked bool
	last    bool // the server closes the connection after this answer
}

const lengthUnknown = -1

// Receive reads one answer.
func (c *Conn) Receive() (Response, error) {
	line, err := c.line()
	if err != nil {
		return Response{}, err
	}
	status, ok := parseStatus(line)
	if !ok {
		return Response{}, fmt.Errorf("%w: status line %q", ErrMalformed, line)
	}
	f, err := c.headers()
	if err != nil {
		return Response{}, err
	}
	body, err := c.body(status, f)
	if err != nil {
		return Response{}, err
	}
	c.closing = f.last
	return Response{Status: status, Body: body}, nil
}

// parseStatus understands HTTP/1.1 and a final status. Interim answers (1xx)
// are only sent to clients that ask for them, and this one never does.
func parseStatus(line []byte) (int, bool) {
	const prefix = "HTTP/1.1 "
	if len(line) < len(prefix)+3 || string(line[:len(prefix)]) != prefix {
		return 0, false
	}
	digits, rest := line[len(prefix):len(prefix)+3], line[len(prefix)+3:]
	if len(rest) > 0 && rest[0] != ' ' {
		return 0, false
	}
	status, ok := parseNumber(digits, 10)
	return status, ok && status >= 200
}

// headers reads up to the empty line and keeps what tells the body's length.
func (c *Conn) headers() (framing, error) {
	f := framing{length: lengthUnknown}
	for range linesMax {
		line, err := c.line()
		if err != nil {
			return f, err
		}
		if len(line) == 0 {
			return f, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
			return f, fmt.Errorf("%w: header %q", ErrMalformed, line)
		}
		if err := f.note(name, bytes.Trim(value, " \t")); err != nil {
			return f, err
		}
	}
	return f, fmt.Errorf("%w: too many headers", ErrMalformed)
}

// note takes one header in. The lengths of the names choose, so that nearly all
// headers cost one comparison of numbers.
func (f *framing) note(name, value []byte) error {
	switch len(name) {
	case len("Content-Length"):
		if !bytes.EqualFold(name, []byte("Content-Length")) {
			return nil
		}
		n, ok := parseNumber(value, 10)
		if !ok || n > bodyMax || f.length != lengthUnknown || f.chunked {
			return fmt.Errorf("%w: content length %q", ErrMalformed, value)
		}
		f.length = n
	case len("Transfer-Encoding"):
		if !bytes.EqualFold(name, []byte("Transfer-Encoding")) {
			return nil
		}
		if !bytes.EqualFold(value, []byte("chunked")) || f.length != lengthUnknown || f.chunked {
			return fmt.Errorf("%w: transfer encoding %q", ErrMalformed, value)
		}
		f.chunked = true
	case len("Connection"):
		if bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")) {
			f.last = true
		}
	}
	return nil
}

func (c *Conn) body(status int, f framing) ([]byte, error) {
	switch {
	case status == 204 || status == 304:
		if f.chunked || f.length > 0 {
			return nil, fmt.Errorf("%w: status %d with a body", ErrMalformed, status)
		}
		return nil, nil
	case f.chunked:
		return c.chunks()
	case f.length == lengthUnknown:
		return nil, fmt.Errorf("%w: a body without a length", ErrMalformed)
	}
	return c.take(f.length)
}

// chunks joins the chunks of a body and skips the trailer.
func (c *Conn) chunks() ([]byte, error) {
	c.chunked = c.chunked[:0]
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, ok := parseNumber(digits, 16)
		if !ok || len(c.chunked)+size > bodyMax {
			return nil, fmt.Errorf("%w: chunk size %q", ErrMalformed, line)
		}
		if size == 0 {
			break
		}
		data, err := c.take(size)
		if err != nil {
			return nil, err
		}
		c.chunked = append(c.chunked, data...)
		if end, err := c.line(); err != nil || len(end) > 0 {
			return nil, orMalformed(err, "chunk longer than its size")
		}
	}
	if _, err := c.headers(); err != nil {
		return nil, err
	}
	return c.chunked, nil
}

// take consumes n bytes.
func (c *Conn) take(n int) ([]byte, error) {
	for c.w-c.r < n {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	data := c.buf[c.r : c.r+n]
	c.r += n
	return data, nil
}

// line consumes a line and returns it without its end, which is CR LF and
// nothing less.
func (c *Conn) line() ([]byte, error) {
	for scanned := 0; ; {
		if i := bytes.IndexByte(c.buf[c.r+scanned:c.w], '\n'); i >= 0 {
			line := c.buf[c.r : c.r+scanned+i]
			c.r += len(line) + 1
			if len(line) == 0 || bytes.IndexByte(line, '\r') != len(line)-1 {
				return nil, fmt.Errorf("%w: line %q", ErrMalformed, line)
			}
			return line[:len(line)-1], nil
		}
		if scanned = c.w - c.r; scanned > lineMax {
			return nil, fmt.Errorf("%w: line too long", ErrMalformed)
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// parseNumber reads digits alone: no sign, no space, not empty, no overflow.
func parseNumber(digits []byte, base int) (int, bool) {
	if len(digits) == 0 {
		return 0, false
	}
	n := 0
	for _, d := range digits {
		var v int
		switch {
		case d >= '0' && d <= '9':
			v = int(d - '0')
		case base == 16 && d >= 'a' && d <= 'f':
			v = int(d-'a') + 10
		case base == 16 && d >= 'A' && d <= 'F':
			v = int(d-'A') + 10
		default:
			return 0, false
		}
		if n > (math.MaxInt32-v)/base {
			return 0, false
		}
		n = n*base + v
	}
	return n, true
}

func orMalformed(err error, what string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrMalformed, what)
}
