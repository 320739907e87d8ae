package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/api"
)

// Bulk writes what is too much for one transaction: each operation, an [OpPut] or
// the Delete of a [Key], in order, in large transactions. It is streamed as ops
// yields it; an error that ops yields ends it.
//
// It returns how much was applied, also beside an error. Progress, when not nil,
// is called with it about once a second. It returns when ops does: what ops waits for
// must end with ctx.
func (c *Client) Bulk(ctx context.Context, ops iter.Seq2[api.Op, error], progress func(api.BulkReport), opts ...WriteOption) (*api.BulkReport, error) {
	pr, pw := io.Pipe()
	// The goroutine ends with ops, or when the reader is closed below.
	encoded := make(chan struct{})
	var answered atomic.Bool
	go func() {
		defer close(encoded)
		w := bufio.NewWriterSize(pw, 64<<10)
		_ = pw.CloseWithError(encodeLines(w, ops, &answered))
	}()
	report, err := c.BulkLines(ctx, pr, progress, opts...)
	answered.Store(true)
	_ = pr.CloseWithError(io.ErrClosedPipe)
	<-encoded
	return report, err
}

// heldBack is how long a line may wait for others to be sent with. Nodes want to hear
// something of a slow source now and then.
const heldBack = 100 * time.Millisecond

func encodeLines(w *bufio.Writer, ops iter.Seq2[api.Op, error], answered *atomic.Bool) error {
	flushed := time.Now()
	for op, err := range ops {
		if answered.Load() {
			return io.ErrClosedPipe
		}
		if err != nil {
			return err
		}
		line, err := api.Marshal(op)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
		if time.Since(flushed) > heldBack {
			if err := w.Flush(); err != nil {
				return err
			}
			flushed = time.Now()
		}
	}
	return w.Flush()
}

// BulkLines is [Client.Bulk] with lines of JSON as POST /v1/kv takes them:
//
//	{"put":{"key":"a","value":"1"}}
//	{"delete":{"key":"b"}}
//
// A bulk write that broke off is not begun again, unless lines is an io.Seeker,
// which is then read again from where it stood, and there is an Idempotency-Key:
// the cluster passes over what it has applied. That holds for ten minutes, so it is
// not begun again later than five minutes after it began. When the cluster refuses a line, a
// Read of lines that waits may still be under way after the return.
func (c *Client) BulkLines(ctx context.Context, lines io.Reader, progress func(api.BulkReport), opts ...WriteOption) (*api.BulkReport, error) {
	r := newRequest(http.MethodPost, "/v1/kv")
	r.stream = true
	r.header.Set("Accept", api.TypeNDJSON)
	r.header.Set("Content-Type", api.TypeNDJSON)
	for _, o := range opts {
		o.write(r)
	}
	b := &bulk{c: c, r: r, source: lines, progress: progress}
	if seeker, ok := lines.(io.Seeker); ok {
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil {
			b.rewind = func() error { _, err := seeker.Seek(start, io.SeekStart); return err }
		}
	}
	return b.run(ctx)
}

// A bulk is a bulk write under way.
type bulk struct {
	c        *Client
	r        *request
	source   io.Reader
	rewind   func() error // nil if the source can't be read again
	progress func(api.BulkReport)

	// Of the attempt under way.
	body   *sourceReader
	report api.BulkReport
}

func (b *bulk) run(ctx context.Context) (*api.BulkReport, error) {
	c := b.c
	first, began := c.preferred.Load(), time.Now()
	var best api.BulkReport
	// doubt is the last attempt of which more may have been applied than it told.
	var doubt *Error
	for n := 1; ; n++ {
		i := (first + uint32(n-1)) % uint32(len(c.endpoints))
		b.report = api.BulkReport{}
		what, err := b.attemptAwake(ctx, c.endpoints[i])
		touched := b.body != nil && b.body.end()
		if b.report.Applied >= best.Applied {
			best = b.report
		}
		if err == nil {
			c.preferred.Store(i)
			return &best, nil
		}
		if what == inDoubt {
			doubt = err
		} else if doubt != nil && (what != decided || b.report.Done == nil) {
			// This attempt did not get as far as to say what became of that one.
			err = doubt
		}
		err.Attempts = n
		// What was read of the source is gone, unless it can be read again; and
		// to send it again is safe only if the cluster knows it again.
		again := !touched || b.rewind != nil && b.r.repeatable()
		if what == decided || !again || n == c.attempts || !pause(ctx, n, n < len(c.endpoints), err.Problem.RetryAfterSeconds) ||
			touched && time.Since(began) > repeatWindow {
			return &best, err
		}
		if touched {
			// A Read may be under way; a source that can be read again does not
			// make it wait.
			b.body.wait()
			if failed := b.rewind(); failed != nil {
				err.Cause = failed
				return &best, err
			}
		}
	}
}

// attemptAwake is attempt, on a node that answers at all. A bulk write is answered when its
// first lines are applied, for which there is no limit; so where there are other nodes, one
// that stands still is found by a question that has one.
func (b *bulk) attemptAwake(ctx context.Context, endpoint string) (verdict, *Error) {
	b.body = nil
	if len(b.c.endpoints) > 1 {
		ask := newRequest(http.MethodGet, "/livez")
		ask.stream = true // its limit is that for the opening of a stream
		what, err := b.c.limited(ctx, endpoint, ask, func(resp *http.Response) error {
			drain(resp)
			return nil
		})
		if err != nil && what != decided { // a refusal is an answer, too
			return notApplied, unavailable(endpoint, err)
		}
	}
	return b.attempt(ctx, endpoint)
}

// attempt sends the lines once and follows the reports.
func (b *bulk) attempt(ctx context.Context, endpoint string) (verdict, *Error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := &sourceReader{source: b.source}
	b.body = body
	var conn connection
	hr, err := b.r.new(conn.trace(ctx), b.c, endpoint, body)
	if err != nil {
		return decided, invalid(endpoint, "The request can't be sent", err)
	}
	resp, err := b.c.send(hr)
	if err != nil {
		if failed := body.failure(); failed != nil {
			return decided, unknown(endpoint, failed)
		}
		return conn.judge(endpoint, true, err)
	}
	defer resp.Body.Close()
	b.c.noteRevision(resp)
	if resp.StatusCode != http.StatusOK {
		return refusal(endpoint, true, resp)
	}
	err = b.follow(resp.Body)
	switch {
	case body.failure() != nil:
		return decided, unknown(endpoint, body.failure())
	case err != nil:
		return inDoubt, unknown(endpoint, err)
	case b.report.Error != nil:
		e := &Error{Problem: *b.report.Error, Endpoint: endpoint}
		switch e.Class() {
		case api.ClassUnavailable:
			return notApplied, e
		case api.ClassUnknown:
			return inDoubt, e
		}
		return decided, e
	}
	return decided, nil
}

// follow reads the reports until the last one. An answer without a last one broke
// off.
func (b *bulk) follow(answer io.Reader) error {
	lines := bufio.NewReader(answer)
	for {
		line, err := readLine(lines)
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var report api.BulkReport
		if err := json.Unmarshal(line, &report); err != nil {
			return err
		}
		b.report = report
		b.c.saw(report.Revision)
		if b.progress != nil {
			b.progress(report)
		}
		if report.Done != nil {
			return nil
		}
	}
}

// A sourceReader is the source as the body of one attempt. The transport may read
// it when the attempt is over: it must not take then what the next one will send.
type sourceReader struct {
	source io.Reader
	failed atomic.Pointer[error]
	// reading is held by a Read of the source, which may take long.
	reading sync.Mutex

	mu      sync.Mutex
	over    bool
	touched bool // something of the source was read
}

// errAttemptOver is what the transport reads when nobody listens any more.
var errAttemptOver = errors.New("the attempt is over")

// Read reads the source, and keeps an error of it apart from errors of the
// connection.
func (s *sourceReader) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if !s.begin() {
		return 0, errAttemptOver
	}
	n, err := s.source.Read(p)
	if err != nil && err != io.EOF {
		s.failed.Store(&err)
	}
	return n, err
}

// begin notes that the source is read. It returns false if the attempt is over.
func (s *sourceReader) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.touched = true
	}
	return !s.over
}

// end ends the attempt: no Read of the source begins any more. It says whether one
// did before.
func (s *sourceReader) end() (touched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return s.touched
}

// wait waits, after end, for the Read of the source that is under way.
func (s *sourceReader) wait() {
	s.reading.Lock()
	defer s.reading.Unlock()
}

func (s *sourceReader) failure() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}
