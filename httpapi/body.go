package httpapi

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A bodyKind is what a route takes as its body.
type bodyKind uint8

const (
	noBody     bodyKind = iota
	rawBody             // any type: the body is the value
	jsonBody            // application/json
	ndjsonBody          // application/x-ndjson, read line by line
)

// checkMediaType reports whether the body is of a type that the route takes. A
// body that is compressed is never one: what it would grow to is unknown.
func (x *exchange) checkMediaType(kind bodyKind) bool {
	if kind == noBody {
		return true
	}
	for _, coding := range x.r.Header["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			x.refuse(api.CodeUnsupportedMediaType, "Content-Encoding %.40q: send the body as it is", coding)
			return false
		}
	}
	want := ""
	switch kind {
	case jsonBody:
		want = api.TypeJSON
	case ndjsonBody:
		want = api.TypeNDJSON
	default:
		return true
	}
	given := x.r.Header["Content-Type"]
	if len(given) == 1 && isMediaType(given[0], want) {
		return true
	}
	x.refuse(api.CodeUnsupportedMediaType, "want Content-Type: %s", want)
	return false
}

// isMediaType reports whether a Content-Type is want, which may have a charset
// of UTF-8 and no other parameter.
func isMediaType(given, want string) bool {
	name, rest, _ := strings.Cut(given, ";")
	if !strings.EqualFold(strings.TrimSpace(name), want) {
		return false
	}
	for rest != "" {
		var parameter string
		parameter, rest, _ = strings.Cut(rest, ";")
		parameter = strings.TrimSpace(parameter)
		if parameter == "" {
			continue
		}
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(name, "charset") || !strings.EqualFold(strings.Trim(value, `"`), "utf-8") {
			return false
		}
	}
	return true
}

// checkContentType reports a content type that can't be stored: it goes back out
// in a header.
func (x *exchange) checkContentType(s string) {
	if len(s) > kv.MaxContentTypeBytes {
		x.failLimit(api.CodeInvalidArgument, kv.MaxContentTypeBytes, "a content type has at most %d bytes", kv.MaxContentTypeBytes)
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			x.fail(api.CodeInvalidArgument, "a content type has printable ASCII alone")
			return
		}
	}
}

// isForm reports whether a content type is what a form or curl -d sends, which
// says nothing of the value.
func isForm(contentType string) bool {
	name, _, _ := strings.Cut(contentType, ";")
	name = strings.TrimSpace(name)
	return strings.EqualFold(name, "application/x-www-form-urlencoded") || strings.EqualFold(name, "multipart/form-data")
}

// readWrite reads the body of a write. One that is large is not received while the write
// would be refused in any case: under overload with large values that would be most of
// what there is to do.
func (x *exchange) readWrite() []byte {
	if n := x.r.ContentLength; n > freeBytes && x.fault.code == "" {
		if err := x.s.cfg.Store.Room(int(min(n, maxBodyBytes))); err != nil {
			x.fault = writeFault(err)
		}
	}
	body, _ := x.readBody(maxBodyBytes)
	return body
}

// earnestBytes is how much of a body must have arrived before its buffer gets the size
// that was announced: until then it grows with what arrives.
const earnestBytes = 64 << 10

// readBody reads the whole body into the exchange's buffer, or reports why not, and gives
// the buffer back: who waits for room for another body does not wait for this client. A
// request whose head is at fault has its answer without its body, and so has one for
// whose body there is no room: to read it first would leave less time for those that
// there is room for.
func (x *exchange) readBody(limit int64) ([]byte, bool) {
	r := x.r
	if r.ContentLength > limit {
		x.failLimit(api.CodeRequestTooLarge, limit, "a body has at most %d bytes, this one announces %d", limit, r.ContentLength)
	}
	if r.ContentLength > freeBytes && x.s.admission.bodies.Load()+r.ContentLength > maxHeldBodyBytes {
		x.failBodies()
	}
	if x.fault.code != "" {
		x.bodyFailed = true
		return nil, false
	}
	x.bodyBegun = true
	if r.ContentLength == 0 {
		return nil, true
	}
	body := r.Body
	if r.ContentLength < 0 {
		body = http.MaxBytesReader(x.w, r.Body, limit)
	}
	x.readDeadline(x.s.cfg.BodyTimeout)
	b := x.body[:0]
	if cap(b) == 0 {
		b = make([]byte, 0, 1024)
	}
	for {
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil {
			x.body = b
			if err != io.EOF {
				x.bodyFailed = true
				x.dropBody()
				x.failBody(err)
				return nil, false
			}
			x.readDeadline(0)
			return b, true
		}
		if len(b) == cap(b) && !x.moreBody(&b) {
			x.body, x.bodyFailed, x.bodyLeft = b, true, true
			x.dropBody()
			x.failBodies()
			return nil, false
		}
	}
}

// moreBody gives the buffer of a body more room, or reports that there is none.
func (x *exchange) moreBody(b *[]byte) bool {
	n := 2 * cap(*b)
	if len(*b) >= earnestBytes {
		n = max(n, int(x.r.ContentLength)+1) // and one, to read the end
	}
	if !x.reserveBody(n) {
		return false
	}
	*b = append(x.s.buffer(n), *b...)
	return true
}

// failBody reports why a body couldn't be read.
func (x *exchange) failBody(err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		x.bodyLeft = true
		x.failLimit(api.CodeRequestTooLarge, tooLarge.Limit, "a body has at most %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.fail(api.CodeRequestTimeout, "the body did not arrive within %s s", seconds(x.s.cfg.BodyTimeout.Milliseconds()))
	default:
		x.fail(api.CodeInvalidArgument, "the body ended before it was complete, or its framing is not HTTP")
	}
}

// maxAwaitedBody is how large the body of a request that is refused without it may
// be for its connection to be used again: the answer waits for such a body.
const maxAwaitedBody = 16 << 10

// leaveBody prepares the answer to a request that is refused without its body, or with
// one that there was no room for all of. It reports whether the answer is to go out at
// once, before a body that is large or of an unknown size; hearOut is called behind it.
//
// net/http by itself would let the answer wait for up to 256 KiB of the body, as
// slow as that may come. A client that expects 100 Continue is told no, and its connection
// ends as well, once it has closed it or had the time to. It may have sent a body all the
// same, where it waits for a second at the most, or a proxy for nothing: of one that is
// small net/http hears the rest.
func (x *exchange) leaveBody() (atOnce bool) {
	n := x.r.ContentLength
	if n == 0 || x.bodyBegun && !x.bodyLeft || x.r.ProtoMajor != 1 {
		return false
	}
	if !x.bodyBegun && len(x.r.Header["Expect"]) > 0 && n > 0 && n <= maxAwaitedBody {
		x.readDeadline(linger)
		return false
	}
	x.readDeadline(x.s.cfg.BodyTimeout)
	if n > 0 && n <= maxAwaitedBody || http.NewResponseController(x.w).EnableFullDuplex() != nil {
		return false
	}
	x.w.Header()["Connection"] = valueClose
	return true
}

// hearOut lets a client that reads no answer before it has sent its body do so, for
// the time of a linger. It reports whether that was all of the body; else the
// connection must end.
func (x *exchange) hearOut() (all bool) {
	if http.NewResponseController(x.w).Flush() != nil {
		return false
	}
	x.readDeadline(linger)
	hearing := &x.s.admission.hearing
	defer hearing.Add(-1)
	if hearing.Add(1) > maxHearing {
		_, err := io.Copy(io.Discard, x.r.Body)
		return err == nil
	}
	// In large pieces, for under overload this is most of what there is to do.
	b := x.s.buffer(heardAtOnce)
	defer x.s.keepPage(b)
	for {
		if _, err := x.r.Body.Read(b[:cap(b)]); err != nil {
			return err == io.EOF
		}
	}
}

// readDeadline bounds the reading of the body from now on; 0 lifts the bound.
func (x *exchange) readDeadline(d time.Duration) {
	conn, ok := x.w.(interface{ SetReadDeadline(time.Time) error })
	if !ok {
		return
	}
	var t time.Time
	if d > 0 {
		// The deadline is the operating system's affair, not the wall clock's of
		// the configuration.
		t = time.Now().Add(d)
	}
	_ = conn.SetReadDeadline(t)
}
