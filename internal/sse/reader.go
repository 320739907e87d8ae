package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// ErrTooLarge says that an event, or a line, is larger than the reader allows.
var ErrTooLarge = errors.New("sse: event too large")

// An Event is what a reader hands out.
type Event struct {
	// ID is the last event id as of this event, which an earlier one may have
	// set.
	ID string
	// Type is "message" if the stream didn't name one.
	Type string
	// Data is valid until the next call of Next.
	Data []byte
}

// A Reader parses a stream. It is not safe for concurrent use.
type Reader struct {
	r     *bufio.Reader
	max   int
	begun bool // the byte order mark, if any, is behind
	// skipLF says that the line before ended in CR, so that an LF now belongs to
	// it. It is looked at when the next line is read, not before: waiting for
	// the byte after a CR would hold back an event that is complete.
	skipLF bool

	line   []byte
	data   []byte
	event  string
	lastID string
	id     string // becomes lastID when the event is complete
	retry  time.Duration
}

// NewReader reads from r events whose data, and lines, have at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 32<<10), max: max}
}

// LastEventID is what to resume with.
func (r *Reader) LastEventID() string { return r.lastID }

// Retry is the pause before a new connection that the stream asked for last, 0
// if it asked for none.
func (r *Reader) Retry() time.Duration { return r.retry }

// Next returns the next event with data. An id without data is taken over
// silently. It returns io.EOF at the end of the stream, whatever was begun
// there.
func (r *Reader) Next() (Event, error) {
	r.data, r.event, r.id = r.data[:0], "", r.lastID
	hasData := false
	for {
		line, err := r.readLine()
		if err != nil {
			return Event{}, err
		}
		if len(line) == 0 {
			r.lastID = r.id
			if !hasData {
				r.event = ""
				continue
			}
			e := Event{ID: r.lastID, Type: r.event, Data: r.data[:len(r.data)-1]} // without the last LF
			if e.Type == "" {
				e.Type = "message"
			}
			return e, nil
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "data":
			if len(r.data)+len(value) >= r.max {
				return Event{}, fmt.Errorf("%w: data of more than %d bytes", ErrTooLarge, r.max)
			}
			r.data = append(append(r.data, value...), '\n')
			hasData = true
		case "event":
			r.event = string(value)
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				r.id = string(value)
			}
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 40); err == nil && value[0] != '+' {
				r.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}

// readLine returns the next line without its end, CR, LF or both. A last line
// without an end doesn't count.
func (r *Reader) readLine() ([]byte, error) {
	r.line = r.line[:0]
	for {
		chunk, err := r.peek()
		if err != nil {
			return nil, err
		}
		i := bytes.IndexAny(chunk, "\r\n")
		ended := i >= 0
		if !ended {
			i = len(chunk)
		}
		if len(r.line)+i > r.max+len("data: ") {
			return nil, fmt.Errorf("%w: a line of more than %d bytes", ErrTooLarge, r.max)
		}
		if !ended {
			r.line = append(r.line, chunk...)
			_, _ = r.r.Discard(len(chunk)) // they are buffered
			continue
		}
		r.line = append(r.line, chunk[:i]...)
		r.skipLF = chunk[i] == '\r'
		_, _ = r.r.Discard(i + 1)
		return r.line, nil
	}
}

// peek returns what is buffered, at least one byte, behind a byte order mark at
// the start and behind the LF of a CRLF.
func (r *Reader) peek() ([]byte, error) {
	if !r.begun {
		r.begun = true
		if mark, err := r.r.Peek(1); err == nil && mark[0] == 0xEF {
			if mark, err := r.r.Peek(3); err == nil && string(mark) == "\uFEFF" {
				_, _ = r.r.Discard(3)
			}
		}
	}
	if _, err := r.r.Peek(1); err != nil {
		return nil, err
	}
	chunk, _ := r.r.Peek(r.r.Buffered())
	if r.skipLF {
		r.skipLF = false
		if chunk[0] == '\n' {
			_, _ = r.r.Discard(1)
			return r.peek()
		}
	}
	return chunk, nil
}
