package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/api"
)

// A request is what a call asks for; it may be sent several times.
type request struct {
	method string
	path   string // escaped
	query  url.Values
	header http.Header
	body   []byte
	// write says that it changes state.
	write bool
	// harmless says of a write that it does no harm if it is done twice, the second
	// time perhaps long after the call, and after calls that came later.
	harmless bool
	// stream says that the answer is read after the call that opened it, under
	// the context of the caller alone.
	stream bool
	// attempt, if it is not 0, is how long an attempt may take at most where there are
	// other nodes to try.
	attempt time.Duration
	// waits says of a claim that the node that was asked last has told its place in the
	// queue: it works, however long the wait is.
	waits bool
	// unasked says that a large body is sent without asking first.
	unasked bool
}

func newRequest(method, path string) *request {
	return &request{
		method: method, path: path, query: url.Values{}, header: http.Header{"Accept": {api.TypeJSON}},
		write: method != http.MethodGet && method != http.MethodHead,
	}
}

// newRead makes a request that reads.
func newRead(path string, opts []ReadOption) *request {
	r := newRequest(http.MethodGet, path)
	for _, o := range opts {
		o.get(r)
	}
	return r
}

// between sets the bounds that are not 0.
func (r *request) between(min string, lo uint64, max string, hi uint64) {
	if lo > 0 {
		r.query.Set(min, number(lo))
	}
	if hi > 0 {
		r.query.Set(max, number(hi))
	}
}

// setJSON puts v into the body of the request.
func (r *request) setJSON(v any) *Error {
	body, err := api.Marshal(v)
	if err != nil {
		return invalid("", "The request can't be written as JSON", err)
	}
	r.body = body
	r.header.Set("Content-Type", api.TypeJSON)
	return nil
}

// repeatable says that the request may be sent again when it is not known what
// became of it.
func (r *request) repeatable() bool {
	return !r.write || r.harmless || r.header.Get(api.HeaderIdempotencyKey) != ""
}

// harmless makes a write one that does no harm if it is done twice.
var harmless = writeOption(func(r *request) { r.harmless = true })

// new makes an HTTP request to an endpoint.
func (r *request) new(ctx context.Context, c *Client, endpoint string, body io.Reader) (*http.Request, error) {
	target := endpoint + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	hr, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	hr.Header = r.header.Clone()
	hr.Header.Set("User-Agent", c.userAgent)
	if c.token != "" {
		hr.Header.Set("Authorization", "Bearer "+c.token)
	}
	for name, values := range hr.Header {
		if slices.ContainsFunc(values, unprintable) {
			return nil, fmt.Errorf("the value of %s has a control character", name)
		}
	}
	return hr, nil
}

// unprintable reports whether a text can't be the value of a header.
func unprintable(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// A verdict says what an attempt that failed leaves behind.
type verdict uint8

const (
	// decided: the request was answered, and another attempt would be as well.
	decided verdict = iota
	// notApplied: nothing was applied, and another attempt may succeed.
	notApplied
	// inDoubt: the request may have been applied.
	inDoubt
)

// askFirstBytes is the size of a body from which on a node is asked before it is sent, with
// Expect: 100-continue. One that would refuse it is not sent it, so that nodes and wires
// are spared where there is too much to do; else a round trip is added to what takes
// several in any case. A transport without an ExpectContinueTimeout does not wait.
const askFirstBytes = 256 << 10

// attempt sends the request once. A successful answer is given to consume, whose
// error means that the answer broke off.
func (c *Client) attempt(ctx context.Context, endpoint string, r *request, consume func(*http.Response) error) (verdict, *Error) {
	r.waits = false
	var conn connection
	hr, err := r.new(conn.trace(ctx), c, endpoint, bytes.NewReader(r.body))
	if err != nil {
		return decided, invalid(endpoint, "The request can't be sent", err)
	}
	if len(r.body) >= askFirstBytes && !r.unasked {
		hr.Header.Set("Expect", "100-continue")
	}
	resp, err := c.send(hr)
	if err != nil {
		return conn.judge(endpoint, r.write, err)
	}
	c.noteRevision(resp)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer drain(resp)
		if resp.StatusCode == http.StatusExpectationFailed && hr.Header.Get("Expect") != "" {
			r.unasked = true // a proxy that can't ask has passed nothing on
			return c.attempt(ctx, endpoint, r, consume)
		}
		what, err := refusal(endpoint, r.write, resp)
		if r.write && r.repeatable() && conn.resent() && what != inDoubt && !(what == decided && remembered(&err.Problem)) {
			return inDoubt, unknown(endpoint, err) // this answers the second sending alone
		}
		return what, err
	}
	if !r.stream {
		defer drain(resp)
	}
	err = consume(resp)
	var own *Error
	switch {
	case err == nil:
		return decided, nil
	case errors.As(err, &own) && (own.Problem.Code != "" || !r.write):
		own.Endpoint = endpoint
		return decided, own
	case r.write:
		return inDoubt, unknown(endpoint, err)
	}
	return inDoubt, unavailable(endpoint, err)
}

// errNotSent says that a request was not even begun.
var errNotSent = errors.New("not sent")

// send sends a request, unless nobody waits for its answer any more.
func (c *Client) send(hr *http.Request) (*http.Response, error) {
	if err := hr.Context().Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	return c.http.Do(hr)
}

// drain leaves the connection of an answer usable for the next request.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

func (c *Client) noteRevision(resp *http.Response) {
	if n, err := strconv.ParseUint(resp.Header.Get(api.HeaderRevision), 10, 64); err == nil {
		c.saw(n)
	}
}

// A connection watches how far a request gets.
type connection struct {
	// wanted and got say that the transport looked for a connection, and how
	// often it had one. A transport that reports neither leaves the matter open.
	wanted atomic.Bool
	got    atomic.Int32
}

func (s *connection) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { s.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { s.got.Add(1) },
	})
}

// neverSent reports whether it is certain that no byte of the request left.
func (s *connection) neverSent(err error) bool {
	var op *net.OpError
	return errors.Is(err, errNotSent) || s.got.Load() == 0 && (s.wanted.Load() || errors.As(err, &op) && op.Op == "dial")
}

// resent reports whether the transport sent the request more than once. net/http
// does so by itself when a connection that it uses again turns out to be closed:
// if nothing was written yet, and else only reads and what carries an
// Idempotency-Key. The first sending of such a write may have been applied.
func (s *connection) resent() bool { return s.got.Load() > 1 }

// judge says what an error of the transport leaves behind.
func (s *connection) judge(endpoint string, write bool, err error) (verdict, *Error) {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	switch {
	case s.neverSent(err):
		return notApplied, unavailable(endpoint, err)
	case write:
		return inDoubt, unknown(endpoint, err)
	}
	return inDoubt, unavailable(endpoint, err)
}

// problemBytes bounds what is read of an answer that is a problem.
const problemBytes = 256 << 10

// refusal reads an answer that is not a success.
func refusal(endpoint string, write bool, resp *http.Response) (verdict, *Error) {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, problemBytes))
	e := &Error{Endpoint: endpoint}
	if !isType(resp, api.TypeProblem) || json.Unmarshal(body, &e.Problem) != nil || e.Problem.Code == "" {
		e = foreign(endpoint, resp.StatusCode, string(body))
		switch {
		case resp.StatusCode == http.StatusTooManyRequests:
			e.Problem.Code = api.CodeBusy
			e.Problem.RetryAfterSeconds = retryAfter(resp)
			return notApplied, e
		case resp.StatusCode < 500:
			return decided, e
		case write:
			// What stands between us and the node may have passed the write on
			// before it gave up.
			return inDoubt, unknown(endpoint, e)
		}
		e.Problem.Code = api.CodeUnavailable
		return inDoubt, e
	}
	e.Problem.Status = resp.StatusCode
	if e.Problem.RetryAfterSeconds == 0 {
		e.Problem.RetryAfterSeconds = retryAfter(resp)
	}
	switch e.Class() {
	case api.ClassUnavailable:
		return notApplied, e
	case api.ClassUnknown:
		return inDoubt, e
	case api.ClassInternal:
		if write {
			// What went wrong may have gone wrong behind the write.
			return inDoubt, unknown(endpoint, e)
		}
		return inDoubt, e
	}
	return decided, e
}

func retryAfter(resp *http.Response) int {
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func isType(resp *http.Response, want string) bool {
	given, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && given == want
}

// call sends a request and returns its answer, which is JSON.
func call[T any](ctx context.Context, c *Client, r *request) (*T, error) {
	var answer T
	if err := c.do(ctx, r, into(&answer)); err != nil {
		return nil, err
	}
	return &answer, nil
}

// into reads an answer of JSON into v.
func into(v any) func(*http.Response) error {
	return func(resp *http.Response) error {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if !isType(resp, api.TypeJSON) {
			return foreign(endpointOf(resp), resp.StatusCode, string(body))
		}
		if err := json.Unmarshal(body, v); err != nil {
			e := foreign(endpointOf(resp), resp.StatusCode, "")
			e.Cause = err
			return e
		}
		return nil
	}
}
