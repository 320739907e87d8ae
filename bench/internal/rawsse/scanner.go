// Package rawsse receives server-sent events over HTTP/1.1 at as little cost as
// it can: many connections are read by one goroutine into one buffer, and a
// message is found by looking for the empty line behind it. It reads no JSON.
//
// It exists for the same reason as package rawhttp, and is as strict: what it
// doesn't understand completely is an error.
package rawsse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ErrMalformed is returned, wrapped, for an answer that is not a stream of events
// in chunks.
var ErrMalformed = errors.New("malformed event stream")

const (
	// lineMax bounds a line of headers or of a chunk's size, messageMax a message.
	lineMax    = 16 << 10
	messageMax = 64 << 20
)

// A Scanner takes apart the answer to one request. Its zero value is ready for
// the first byte.
type Scanner struct {
	state state
	left  int    // bytes of the chunk that are still to come
	line  []byte // the beginning of a line of framing
	text  []byte // the beginning of a message
	seen  int    // how much of it was searched for its end
	typed bool   // the headers said that these are events
	cut   bool   // and that they come in chunks
}

type state uint8

const (
	inStatus state = iota
	inHeaders
	inSize
	inChunk
	behindChunk
	inTrailer
	atEnd
)

// Scan takes the next bytes in and calls fn for each message that they complete,
// without the empty line at its end, and valid during the call only. At the end of
// the answer it returns io.EOF.
func (s *Scanner) Scan(b []byte, fn func(message []byte)) error {
	for {
		switch s.state {
		case atEnd:
			return io.EOF
		case inChunk:
			n := min(s.left, len(b))
			if err := s.take(b[:n], fn); err != nil {
				return err
			}
			b = b[n:]
			if s.left -= n; s.left > 0 {
				return nil
			}
			s.state = behindChunk
		default:
			line, rest, err := s.nextLine(b)
			if err != nil || line == nil {
				return err
			}
			b = rest
			if err := s.frame(line); err != nil {
				return err
			}
			s.line = s.line[:0]
		}
	}
}

// nextLine returns the next line of framing without its end, or nil when that is
// still to come.
func (s *Scanner) nextLine(b []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		s.line = append(s.line, b...)
		if len(s.line) > lineMax {
			return nil, nil, fmt.Errorf("%w: line too long", ErrMalformed)
		}
		return nil, nil, nil
	}
	line = b[:i]
	if len(s.line) > 0 {
		s.line = append(s.line, line...)
		line = s.line
	}
	if len(line) == 0 || line[len(line)-1] != '\r' {
		return nil, nil, fmt.Errorf("%w: line %q", ErrMalformed, line)
	}
	return line[:len(line)-1], b[i+1:], nil
}

// frame takes a line of framing in.
func (s *Scanner) frame(line []byte) error {
	switch s.state {
	case inStatus:
		if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("%w: status line %q", ErrMalformed, line)
		}
		s.state = inHeaders
	case inHeaders:
		if len(line) > 0 {
			name, value, _ := bytes.Cut(line, []byte(":"))
			value = bytes.TrimSpace(value)
			s.typed = s.typed || bytes.EqualFold(name, []byte("Content-Type")) && bytes.HasPrefix(value, []byte("text/event-stream"))
			s.cut = s.cut || bytes.EqualFold(name, []byte("Transfer-Encoding")) && bytes.EqualFold(value, []byte("chunked"))
			return nil
		}
		if !s.typed || !s.cut {
			return fmt.Errorf("%w: the answer is not events in chunks", ErrMalformed)
		}
		s.state = inSize
	case inSize:
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseUint(string(digits), 16, 31)
		if err != nil {
			return fmt.Errorf("%w: chunk size %q", ErrMalformed, line)
		}
		s.left, s.state = int(size), inChunk
		if size == 0 {
			s.state = inTrailer
		}
	case behindChunk:
		if len(line) > 0 {
			return fmt.Errorf("%w: chunk longer than its size", ErrMalformed)
		}
		s.state = inSize
	case inTrailer:
		if len(line) == 0 {
			s.state = atEnd
		}
	}
	return nil
}

// take finds the messages in a part of the body.
func (s *Scanner) take(b []byte, fn func([]byte)) error {
	whole := b
	if len(s.text) > 0 {
		s.text = append(s.text, b...)
		whole = s.text
	}
	from := s.seen
	for {
		i := bytes.Index(whole[from:], []byte("\n\n"))
		if i < 0 {
			break
		}
		if end := from + i; end > 0 {
			fn(whole[:end])
		}
		whole, from = whole[from+i+2:], 0
	}
	if len(whole) > messageMax {
		return fmt.Errorf("%w: message too long", ErrMalformed)
	}
	s.text = append(s.text[:0], whole...) // the same memory or an earlier part of it
	s.seen = max(0, len(s.text)-1)        // the last byte may be half of an end
	return nil
}

// ID returns the id that a message begins with.
func ID(message []byte) (uint64, bool) {
	digits, ok := bytes.CutPrefix(message, []byte("id: "))
	if !ok {
		return 0, false
	}
	digits, _, _ = bytes.Cut(digits, []byte("\n"))
	return number(digits)
}

func number(digits []byte) (n uint64, ok bool) {
	for _, d := range digits {
		if d < '0' || d > '9' || n > 1<<60 {
			return 0, false
		}
		n = n*10 + uint64(d-'0')
	}
	return n, len(digits) > 0
}
