package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// An exchange is one request and its answer, with the memory that both need.
// Exchanges are pooled: nothing in one outlives its request, except for what is
// handed to net/http, which is allocated fresh.
//
// It is also an http.ResponseWriter, so that it finds its way through chi and
// back.
type exchange struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	route *route
	began time.Time

	q     paramValues
	fault fault
	// requestID is empty until it is needed; sent is the status of the answer, 0
	// while there is none.
	requestID string
	sent      int
	// taken says that a stream has taken over the connection, and counts the
	// request when it ends.
	taken bool
	// share is what finish gives back to the admission.
	share share
	// idempotency is the Idempotency-Key of a write, or empty.
	idempotency string
	// fences are those of the Cairn-Fencing header of a write.
	fences fences
	// unchanged says of a request that could change something that it did not.
	unchanged bool
	// bodyFailed says that the body could not be read, so that there is nothing
	// to say about its content.
	bodyFailed bool
	// bodyBegun says that the body, if there is one, was read, or a part of it.
	bodyBegun bool
	// bodyLeft says that there is more of it, for which there was no room.
	bodyLeft bool
	// unsent says that an answer could not be written whole. HTTP/2 may then still
	// read from the buffer when the handler has returned.
	unsent bool

	// text collects the values of headers, lines says which header each is.
	text  []byte
	lines []headerLine

	// Memory of bodies, keys and commands.
	body    []byte
	out     []byte
	keyBuf  []byte
	single  []byte
	command kv.Command
	txn     kv.Txn
	ops     [2]kv.Op
	ifs     []kv.Compare
	leases  []kv.LeaseID
	query   kv.Query
	entry   kv.Entry
}

type headerLine struct {
	name       string
	start, end int
}

// keepBytes bounds the buffers that a pooled exchange keeps.
const keepBytes = 64 << 10

// keepLeases bounds the list of leases likewise.
const keepLeases = keepBytes / len(kv.LeaseID{})

func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := s.exchanges.Get().(*exchange)
	x.s, x.w, x.r = s, w, r
	x.began = s.cfg.Now()
	return x
}

// end puts the exchange back. Nobody may use it afterwards.
func (x *exchange) end() {
	s := x.s
	x.q.reset()
	x.s, x.w, x.r, x.route = nil, nil, nil, nil
	x.fault = fault{}
	x.requestID, x.sent, x.taken, x.idempotency, x.fences = "", 0, false, "", nil
	x.unchanged, x.bodyFailed, x.bodyBegun, x.bodyLeft = false, false, false, false
	if x.unsent {
		x.out, x.unsent = nil, false
	}
	s.keepPage(x.out)
	s.keepPage(x.body)
	x.text, x.lines = keep(x.text), x.lines[:0]
	x.body, x.out, x.keyBuf, x.single = keep(x.body), keep(x.out), keep(x.keyBuf), keep(x.single)
	x.command, x.txn, x.query, x.entry = kv.Command{}, kv.Txn{}, kv.Query{}, kv.Entry{}
	x.ops = [2]kv.Op{}
	clear(x.ifs)
	x.ifs = x.ifs[:0]
	if cap(x.leases) > keepLeases {
		x.leases = nil
	}
	s.exchanges.Put(x)
}

func keep(b []byte) []byte {
	if cap(b) > keepBytes {
		return nil
	}
	return b[:0]
}

// keepPageBytes bounds the buffers that are kept for the next large answer or body.
const keepPageBytes = 2 << 20

// room makes x.out ready for an answer of about n bytes. Large ones share buffers
// of their own: to let one grow for each takes as long as to fill it.
func (x *exchange) room(n int) {
	if n > cap(x.out) {
		x.out = x.s.buffer(n)
	}
}

// buffer is an empty buffer for n bytes.
func (s *Server) buffer(n int) []byte {
	if n > keepBytes && n <= keepPageBytes {
		if p, ok := s.pages.Get().(*[]byte); ok && cap(*p) >= n {
			return *p
		}
	}
	return make([]byte, 0, n)
}

// keepPage keeps a buffer that is too large for an exchange.
func (s *Server) keepPage(b []byte) {
	if cap(b) > keepBytes && cap(b) <= keepPageBytes {
		kept := b[:0]
		s.pages.Put(&kept)
	}
}

// Header, Write and WriteHeader pass through to net/http.
func (x *exchange) Header() http.Header { return x.w.Header() }

func (x *exchange) Write(b []byte) (int, error) {
	if x.sent == 0 {
		x.sent = http.StatusOK
	}
	n, err := x.w.Write(b)
	x.unsent = x.unsent || err != nil
	return n, err
}

func (x *exchange) WriteHeader(status int) {
	if x.sent == 0 {
		x.sent = status
	}
	x.w.WriteHeader(status)
}

// Header values that never change. They are shared by all answers and nobody
// writes to them.
var (
	valueJSON      = []string{api.TypeJSON}
	valueNDJSON    = []string{api.TypeNDJSON}
	valueProblem   = []string{api.TypeProblem}
	valueYAML      = []string{"application/yaml"}
	valueText      = []string{api.TypeText}
	valueNosniff   = []string{"nosniff"}
	valueSandbox   = []string{"default-src 'none'; sandbox"}
	valueAccept    = []string{"Accept"}
	valueNoStore   = []string{"no-store"}
	valueNoCache   = []string{"private, no-cache"}
	valueClose     = []string{"close"}
	valueTrue      = []string{"true"}
	valueOneSecond = []string{"1"}
)

// setHeader sets a header to a value that is made for this answer. The name is
// in canonical form.
func (x *exchange) setHeader(name, value string) {
	start := len(x.text)
	x.text = append(x.text, value...)
	x.lines = append(x.lines, headerLine{name, start, len(x.text)})
}

func (x *exchange) setNumber(name string, n uint64) {
	start := len(x.text)
	x.text = strconv.AppendUint(x.text, n, 10)
	x.lines = append(x.lines, headerLine{name, start, len(x.text)})
}

// setTag sets the entity tag of a version: of the raw form, or of the JSON form.
func (x *exchange) setTag(modRevision uint64, asJSON bool) {
	start := len(x.text)
	x.text = append(x.text, '"')
	x.text = strconv.AppendUint(x.text, modRevision, 10)
	if asJSON {
		x.text = append(x.text, "-json"...)
	}
	x.text = append(x.text, '"')
	x.lines = append(x.lines, headerLine{"Etag", start, len(x.text)})
}

func (x *exchange) setLease(id kv.LeaseID) {
	if id == (kv.LeaseID{}) {
		return
	}
	start := len(x.text)
	x.text = appendLease(x.text, id)
	x.lines = append(x.lines, headerLine{api.HeaderLease, start, len(x.text)})
}

// id is the request id: the client's if it is well-formed, else a new one.
func (x *exchange) id() string {
	if x.requestID == "" {
		if given := x.r.Header[api.HeaderRequestID]; len(given) == 1 && validRequestID(given[0]) {
			x.requestID = given[0]
		} else {
			x.requestID = newULID(x.began).String()
		}
	}
	return x.requestID
}

// setRequestID sets the header of the request id. Most ids are made here and not
// wanted before, so that they need no string of their own.
func (x *exchange) setRequestID() {
	if x.requestID != "" || len(x.r.Header[api.HeaderRequestID]) > 0 {
		x.setHeader(api.HeaderRequestID, x.id())
		return
	}
	start := len(x.text)
	x.text = appendLease(x.text, newULID(x.began))
	x.lines = append(x.lines, headerLine{api.HeaderRequestID, start, len(x.text)})
}

// writeHeader sends the status line and the headers, with the three that every
// answer has.
func (x *exchange) writeHeader(status int, revision uint64) {
	x.putHeaders(revision)
	x.WriteHeader(status)
}

// putHeaders hands the headers to net/http. The two small allocations are
// net/http's now: it may read the headers after the handler has returned.
func (x *exchange) putHeaders(revision uint64) {
	h := x.w.Header()
	h["Date"] = x.s.date.values(time.Now())
	h[api.HeaderMember] = x.s.valueMember
	x.setRequestID()
	x.setNumber(api.HeaderRevision, revision)
	text := string(x.text)
	values := make([]string, len(x.lines))
	for i, l := range x.lines {
		values[i] = text[l.start:l.end]
		h[l.name] = values[i : i+1 : i+1]
		if l.name == api.HeaderRequestID {
			x.requestID = values[i]
		}
	}
}

// send answers with a whole body. A content type that is not shared by many
// answers is nil here and was set before.
func (x *exchange) send(status int, contentType []string, body []byte, revision uint64) {
	x.answered()
	if !x.reserve(len(body)) && (x.r.Method == http.MethodGet || x.unchanged) && status == http.StatusOK {
		// What has changed something must have its answer.
		x.dropAnswer()
		x.fault = fault{}
		x.failAnswer()
		x.refused()
		return
	}
	if contentType != nil {
		x.w.Header()["Content-Type"] = contentType
	}
	x.setNumber("Content-Length", uint64(len(body)))
	x.writeHeader(status, revision)
	if x.r.Method != http.MethodHead {
		// An error means that the peer is gone; there is nobody to tell.
		_ = x.writeBody(body)
	}
}

// dropAnswer forgets what was set for an answer that won't be given.
func (x *exchange) dropAnswer() {
	clear(x.w.Header())
	x.text, x.lines, x.out = x.text[:0], x.lines[:0], x.out[:0]
}

// stallPiece is how much of an answer a peer has WriteTimeout to take.
const stallPiece = 64 << 10

// writeBody writes a part of an answer, to a peer that takes it. A stream of
// HTTP/2 stalls by itself, while its connection goes on, and would hold the
// answer for ever; with HTTP/1 the connection has a deadline for each write.
// What fits net/http's own buffer does not wait here.
func (x *exchange) writeBody(b []byte) error {
	if x.r.ProtoMajor < 2 || len(b) <= 4<<10 {
		_, err := x.Write(b)
		return err
	}
	control := http.NewResponseController(x.w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }() // the next part may be long in coming
	for part := range slices.Chunk(b, stallPiece) {
		_ = control.SetWriteDeadline(time.Now().Add(x.s.cfg.WriteTimeout))
		if _, err := x.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// flush sends what was written, to a peer that takes it.
func (x *exchange) flush() error {
	control := http.NewResponseController(x.w)
	if x.r.ProtoMajor > 1 {
		_ = control.SetWriteDeadline(time.Now().Add(x.s.cfg.WriteTimeout))
		defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	}
	return control.Flush()
}

// sendJSON answers with what is in x.out.
func (x *exchange) sendJSON(status int, revision uint64) {
	h := x.w.Header()
	if x.r.Method != http.MethodPut && x.r.Method != http.MethodDelete {
		h["Cache-Control"] = valueNoStore // answers to these two are never kept
	}
	h["X-Content-Type-Options"] = valueNosniff
	x.out = append(x.out, '\n')
	x.send(status, valueJSON, x.out, revision)
}
