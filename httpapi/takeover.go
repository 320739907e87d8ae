package httpapi

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A takenConn is a connection of HTTP/1.1 that a stream has taken out of
// net/http's hands.
//
// net/http would keep for as long as the stream lives what one request needs: its
// deep stack, three buffers, the request and the headers both ways, and the
// exchange. That is more than all else that an idle watch takes, and there are
// many of them. Here are two small stacks: one that waits for something to write,
// and one that waits for the end of the client.
//
// In return this has to do by itself what net/http does: the head of the answer,
// chunks, an end that the client can tell from a failure, a part in Shutdown, and
// what becomes of a panic. The deadline of a write is that of limitedConn, as
// before.
type takenConn struct {
	s    *Server
	conn net.Conn
	// ctx is done when the client is gone, or nothing comes from it any more,
	// which is the same to net/http.
	ctx    context.Context
	cancel context.CancelFunc
	// head is the status line and the headers, until they are sent.
	head []byte

	route     *route
	requestID string
	began     time.Time
	// share is that of the exchange, but for its body.
	share share
}

// lastChunk ends a body of chunks.
const lastChunk = "0\r\n\r\n"

// maxTalk is how many bytes may come behind the request of a stream, which nobody reads:
// to throw away what somebody sends without end would be a load.
const maxTalk = 64 << 10

// linger is how long an ended connection may take to be closed by the client, who
// would miss the end if it were closed before that by this side.
const linger = 500 * time.Millisecond

// takeOver answers 200 over a connection of its own, if the request has one: a
// stream of HTTP/2 has none, and HTTP/1.0 has no chunks. The head leaves with what
// is written first. The caller then calls serve, and may not use the exchange.
func (x *exchange) takeOver(contentType []string, revision uint64) (*takenConn, bool) {
	hijacker, ok := x.w.(http.Hijacker)
	if !ok || x.r.ProtoMajor != 1 || x.r.ProtoMinor < 1 {
		return nil, false
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return nil, false
	}
	// What else the client has sent is none of this request's, and no other will
	// be answered.
	c := &takenConn{s: x.s, conn: conn, route: x.route, began: x.began}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	x.streamHeaders(contentType)
	x.putHeaders(revision)
	c.requestID = strings.Clone(x.requestID)
	h := x.w.Header()
	h.Set("Transfer-Encoding", "chunked")
	h.Set("Connection", "close")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&head) // a buffer takes all
	head.WriteString("\r\n")
	c.head = head.Bytes()
	x.taken = true
	c.share, x.share = x.share, share{body: x.share.body}
	c.share.body = 0
	return c, true
}

// serve lets run write the stream, and returns at once. An error of run breaks
// the connection off.
func (c *takenConn) serve(run func() error) {
	if !c.s.taken.add(c) {
		c.cancel()
		_ = c.conn.Close()
		c.s.admission.leave(&c.share)
		return
	}
	go c.listen()
	go c.run(run)
}

func (c *takenConn) run(run func() error) {
	defer c.release()
	if c.attempt(run) && c.ctx.Err() == nil {
		c.finish()
	}
}

// attempt reports whether run came to an end that was meant.
func (c *takenConn) attempt(run func() error) (ended bool) {
	defer func() {
		if failure := recover(); failure != nil {
			ended = false
			if failure != http.ErrAbortHandler {
				c.s.cfg.Logger.Error("A stream panicked.", "request_id", c.requestID, "panic", failure, "stack", string(debug.Stack()))
			}
		}
	}()
	return run() == nil
}

// listen waits for the end of what the client sends.
func (c *takenConn) listen() {
	defer c.cancel()
	b := make([]byte, 16) // a client that goes on to talk is not heard
	for heard := 0; heard <= maxTalk; {
		n, err := c.conn.Read(b)
		if err != nil {
			return
		}
		heard += n
	}
}

// write sends a part of the answer, in chunks of a bounded size: for as long as a
// client takes nothing, what is framed here is held besides b. Its error means that
// the client is gone, or takes nothing.
func (c *takenConn) write(b []byte) error {
	lent := c.s.lend()
	defer c.s.giveBack(lent)
	for first := true; first || len(b) > 0; first = false {
		part := b[:min(len(b), streamBytes)]
		b = b[len(part):]
		frame := append(lent.out[:0], c.head...)
		c.head = nil
		if len(part) > 0 { // an empty chunk would be the last one
			frame = strconv.AppendUint(frame, uint64(len(part)), 16)
			frame = append(frame, '\r', '\n')
			frame = append(frame, part...)
			frame = append(frame, '\r', '\n')
		}
		lent.out = frame
		if _, err := c.conn.Write(frame); err != nil {
			return err
		}
	}
	return nil
}

// abort breaks the stream off, as if the client had. Under TLS, a word of parting could wait.
func (c *takenConn) abort() {
	conn := c.conn
	if under, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = under.NetConn()
	}
	_ = conn.Close()
}

// finish says that the answer is complete, and waits for the client to close.
func (c *takenConn) finish() {
	if _, err := io.WriteString(c.conn, lastChunk); err != nil {
		return
	}
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(linger))
	<-c.ctx.Done()
}

func (c *takenConn) release() {
	_ = c.conn.Close() // ends listen
	c.s.admission.leave(&c.share)
	c.s.meters.observe(c.route, http.StatusOK, c.s.cfg.Now().Sub(c.began))
	c.s.taken.remove(c)
}

// takenConns are those that are open. They count for Shutdown as requests in
// flight, which net/http doesn't know of.
type takenConns struct {
	mu     sync.Mutex
	open   map[*takenConn]struct{}
	closed bool
	none   chan struct{} // closed once there is none; nil while nobody waits
}

func (t *takenConns) add(c *takenConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.open == nil {
		t.open = map[*takenConn]struct{}{}
	}
	t.open[c] = struct{}{}
	return true
}

func (t *takenConns) remove(c *takenConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
	if len(t.open) == 0 && t.none != nil {
		close(t.none)
		t.none = nil
	}
}

// wait returns when there is none, or when ctx ends.
func (t *takenConns) wait(ctx context.Context) error {
	t.mu.Lock()
	if len(t.open) == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.none == nil {
		t.none = make(chan struct{})
	}
	none := t.none
	t.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close closes all, and those that would come.
func (t *takenConns) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.open {
		_ = c.conn.Close()
	}
}

// streamBuffers are lent to a stream while it has something to say: what waits
// holds none.
type streamBuffers struct{ out, scratch []byte }

func (s *Server) lend() *streamBuffers { return s.buffers.Get().(*streamBuffers) }

func (s *Server) giveBack(b *streamBuffers) {
	b.out, b.scratch = keep(b.out), keep(b.scratch)
	s.buffers.Put(b)
}
