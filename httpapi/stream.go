package httpapi

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/internal/sse"
)

// pulse is the longest that a stream is silent: proxies take a connection on
// which nothing moves for dead.
const pulse = 15 * time.Second

var (
	valueEventStream = []string{sse.ContentType}
	// valueStreamed also keeps proxies from compressing, which would collect.
	valueStreamed = []string{"no-store, no-transform"}
	// valueNo keeps nginx from collecting what a stream says.
	valueNo = []string{"no"}
)

// A stream is an answer of server-sent events. Whatever is written leaves at
// once. It is used by the goroutine of its request alone, which ends it by
// returning; that must happen when the request's context is done, when the
// server is draining, and when writing fails.
type stream struct {
	x       *exchange
	out     []byte
	aborted atomic.Bool
}

// openStream answers 200 and says so.
func (x *exchange) openStream(revision uint64) (*stream, error) {
	s := x.startStream(valueEventStream, revision)
	return s, s.comment("connected")
}

// startStream answers 200; the headers leave with what is written first.
func (x *exchange) startStream(contentType []string, revision uint64) *stream {
	x.streamHeaders(contentType)
	x.writeHeader(http.StatusOK, revision)
	return &stream{x: x}
}

// streamHeaders sets what all streams have.
func (x *exchange) streamHeaders(contentType []string) {
	h := x.w.Header()
	h["Content-Type"] = contentType
	h["Cache-Control"] = valueStreamed
	h["X-Content-Type-Options"] = valueNosniff
	h["X-Accel-Buffering"] = valueNo
}

// event writes one event; id may be empty.
func (s *stream) event(id, name string, data []byte) error {
	s.out = sse.AppendEvent(s.out[:0], id, name, data)
	err := s.write(s.out)
	s.out = keepLittle(s.out)
	return err
}

// keepLittle is the buffer for what a stream says next, if it is not so large that it
// would have to be counted while the stream is open.
func keepLittle(b []byte) []byte {
	if cap(b) > freeBytes {
		return nil
	}
	return b[:0]
}

// comment writes a line that readers skip.
func (s *stream) comment(text string) error {
	s.out = sse.AppendComment(s.out[:0], text)
	return s.write(s.out)
}

// write writes whole events or comments. Its error means that the peer is gone,
// or takes nothing. It leaves no deadline behind: the next write may be long in
// coming.
func (s *stream) write(b []byte) error {
	if s.aborted.Load() {
		return errPeerGone
	}
	if err := s.x.writeBody(b); err != nil {
		return err
	}
	return s.x.flush()
}

// abort breaks the stream off. Another goroutine may call it, while the request is there.
func (s *stream) abort() {
	s.aborted.Store(true)
	_ = http.NewResponseController(s.x.w).SetWriteDeadline(time.Now())
}
