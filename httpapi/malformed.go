package httpapi

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/api"
)

// What net/http can't make a request of, it answers by itself: in plain text,
// without the headers of all other answers, before a handler is asked. Such an
// answer is recognised on its way to the connection, and a problem goes out in its
// place.

// A headDue tells of a write whether it is the first one since net/http set out to
// read a head.
//
// This is what makes the recognition safe: a value that a client has stored may
// look like an answer, and a write may begin anywhere in it. But what is written
// first after a head was read begins with the head of an answer. net/http sets a
// deadline of reads before it reads a head and when it has read one.
type headDue struct{ atomic.Bool }

func (d *headDue) deadlineSet() {
	if !d.Load() {
		d.Store(true)
	}
}

func (d *headDue) written() (first bool) {
	if !d.Load() {
		return false
	}
	d.Store(false)
	return true
}

// ownAnswer recognises an answer of net/http's own: an error that has a head
// without the Cairn-Member of all of ours, and ends its connection. It returns the
// status and what net/http says of the reason, which may be nothing.
func ownAnswer(b []byte) (status int, reason string, ok bool) {
	const version = "HTTP/1.1 "
	// No answer but an error has a 4 or a 5 here.
	if len(b) < len(version)+3 || b[len(version)] != '4' && b[len(version)] != '5' || !bytes.HasPrefix(b, []byte(version)) {
		return 0, "", false
	}
	head, _, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok || bytes.Contains(head, []byte("\r\n"+api.HeaderMember+": ")) || !bytes.Contains(head, []byte("\r\nConnection: close")) {
		return 0, "", false
	}
	line, _, _ := bytes.Cut(head[len(version):], []byte("\r\n"))
	code, text, _ := strings.Cut(string(line), " ")
	status, err := strconv.Atoi(code)
	_, reason, _ = strings.Cut(text, ": ")
	return status, reason, err == nil
}

// malformedFault is what net/http answers with a status, as a fault of ours that
// says what to do.
func malformedFault(status int, reason string) (f fault, ok bool) {
	switch status {
	case http.StatusBadRequest:
		if reason == "" {
			reason = "the request line, a header or the length of the body is not what HTTP/1.1 allows: percent-encode what stands in " +
				"the path and the query, send one Host, each header on one line, and one Content-Length or Transfer-Encoding: chunked"
		}
		return newFault(api.CodeMalformedRequest, reason), true
	case http.StatusExpectationFailed:
		return newFault(api.CodeExpectationFailed, "Expect: 100-continue is the only one that is met; send the request without the header"), true
	case http.StatusRequestHeaderFieldsTooLarge:
		f = newFault(api.CodeHeaderTooLarge, fmt.Sprintf(
			"the request line and the headers have at most %d bytes together; what is longer, as many keys, goes into the body of POST /v1/txn or /v1/watch", maxHeaderBytes))
		f.limit = maxHeaderBytes
		return f, true
	case http.StatusNotImplemented:
		return newFault(api.CodeUnsupportedTransferCoding, "the only transfer coding is chunked; send the body with that or with a Content-Length"), true
	case http.StatusHTTPVersionNotSupported:
		return newFault(api.CodeUnsupportedHTTPVersion, "send the request as HTTP/1.1 or HTTP/2"), true
	}
	return fault{}, false
}

// instead returns the answer that goes out in place of what net/http says by
// itself, or nil if b isn't that.
func (s *Server) instead(b []byte) []byte {
	status, reason, ok := ownAnswer(b)
	if !ok {
		return nil
	}
	f, ok := malformedFault(status, reason)
	if !ok {
		return nil
	}
	return s.wholeProblem(&f)
}

// wholeProblem is an answer, from its status line on, that ends its connection.
func (s *Server) wholeProblem(f *fault) []byte {
	info, _ := f.code.Info()
	now := s.cfg.Now()
	id := newULID(now).String()
	body := append(appendProblem(nil, f, info, id), '\n')
	revision, _ := s.cfg.Store.Revisions()
	s.meters.observe(nil, info.Status, 0)
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n", info.Status, http.StatusText(info.Status))
	if after := f.pause(info); after > 0 {
		b = fmt.Appendf(b, "Retry-After: %d\r\n", after)
	}
	for _, h := range [...]struct{ name, value string }{
		{"Cache-Control", valueNoStore[0]},
		{api.HeaderMember, s.cfg.MemberID},
		{api.HeaderRevision, strconv.FormatUint(revision, 10)},
		{"Connection", "close"},
		{"Content-Length", strconv.Itoa(len(body))},
		{"Content-Type", api.TypeProblem},
		{"Date", s.date.values(time.Now())[0]},
		{"X-Content-Type-Options", valueNosniff[0]},
		{api.HeaderRequestID, id},
	} {
		b = fmt.Appendf(b, "%s: %s\r\n", h.name, h.value)
	}
	return append(append(b, "\r\n"...), body...)
}

// sayAndEnd writes an answer that is the last on its connection, and waits until the
// client has closed, for the time of a linger: what it had sent and nobody has
// read would otherwise reset the connection before the answer is read.
func sayAndEnd(conn net.Conn, answer []byte) error {
	if _, err := conn.Write(answer); err != nil {
		return err
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.Copy(io.Discard, conn)
	return nil
}
