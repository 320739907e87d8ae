package robustness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"
)

// requestTimeout is longer than any time that a node takes for an answer.
const requestTimeout = 8 * time.Second

// An HTTP speaks to the nodes, one request at a time. It sends nothing twice:
// a connection that breaks is an unknown outcome, as it is for a user.
type HTTP struct{ client http.Client }

// NewHTTP makes a client with connections of its own.
func NewHTTP() *HTTP {
	dialer := net.Dialer{Timeout: time.Second}
	return &HTTP{client: http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 1},
	}}
}

// Close gives the connections back.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// A Request is what is sent.
type Request struct {
	Method, Path string
	Body         []byte
	Header       map[string]string
}

// An Answer is what came back: a status, or the error for which none did.
type Answer struct {
	Status   int
	Header   http.Header
	Body     []byte
	Err      error
	Revision uint64 // Cairn-Revision
	Problem  Problem
	// NeverSent says that no node can have got the request.
	NeverSent bool
}

// A Problem is how the API says no.
type Problem struct {
	Code    string `json:"code"`
	Detail  string `json:"detail"`
	Current uint64 `json:"current_revision"`
	Compact uint64 `json:"compact_revision"`
}

// Do sends a request to a node and reads the whole answer.
func (h *HTTP) Do(n *Node, q Request) (a Answer) {
	// Written by the transport before it sends anything, and not by a dial that
	// fails.
	connected := false
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected = true },
	})
	r, err := http.NewRequestWithContext(ctx, q.Method, n.URL()+q.Path, nil)
	if err != nil {
		return Answer{Err: err}
	}
	if q.Method != http.MethodGet {
		// A body of which nobody knows how to get another one: the transport
		// sends a request with an idempotency key again when its connection
		// breaks, and what came of the first one would be forgotten.
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(q.Body)), int64(len(q.Body))
	}
	r.Header.Set("Accept", "application/json")
	for name, value := range q.Header {
		r.Header.Set(name, value)
	}
	response, err := h.client.Do(r)
	if err != nil {
		return Answer{Err: err, NeverSent: !connected}
	}
	defer response.Body.Close()
	a.Status, a.Header = response.StatusCode, response.Header
	a.Revision, _ = strconv.ParseUint(response.Header.Get("Cairn-Revision"), 10, 64)
	if a.Body, err = io.ReadAll(response.Body); err != nil {
		a.Err = err
	} else if a.Status >= 400 && len(a.Body) > 0 {
		a.Err = json.Unmarshal(a.Body, &a.Problem)
	}
	return a
}

// outcome is what an answer promises about a write.
func (a *Answer) outcome() Outcome {
	switch {
	case a.NeverSent:
		return NotApplied
	case a.Err != nil && a.Status == 0, a.Err != nil && a.Status < 300, a.Status == http.StatusGatewayTimeout:
		return Unknown
	case a.Status < 300:
		return Done
	case a.Status == http.StatusPreconditionFailed:
		return Refused
	}
	return NotApplied
}

// explain says why there was no good answer.
func (a *Answer) explain() error {
	if a.Err != nil {
		return a.Err
	}
	if a.Status >= 400 {
		return fmt.Errorf("status %d, code %q: %s", a.Status, a.Problem.Code, a.Problem.Detail)
	}
	return nil
}

// forbidden says what is wrong with an answer that no request may get; nothing if it is not
// one.
func forbidden(n *Node, q Request, a *Answer) string {
	if a.Status == http.StatusInternalServerError || a.Status >= 400 && a.Problem.Code == "" {
		return fmt.Sprintf("%s answered %d (code %q) to %s %s: %v", n.Name, a.Status, a.Problem.Code, q.Method, q.Path, a.Err)
	}
	return ""
}

// Perform does an operation on a node and records what came of it in o.
func (h *HTTP) Perform(n *Node, o *Operation, idempotencyKey string) {
	a := h.Do(n, o.request(idempotencyKey))
	o.Node, o.Status, o.Code, o.Error = n.Index, a.Status, a.Problem.Code, ""
	if a.Err != nil {
		o.Error = a.Err.Error()
	}
	o.Outcome, o.Revision = a.outcome(), a.Revision
	if !o.Kind.writes() && o.Outcome == Unknown {
		o.Outcome = NotApplied // a read that was not answered says nothing
	}
	if err := o.observe(&a); err != nil {
		o.Outcome, o.Error = Unknown, "the answer can't be read: "+err.Error()
	}
}

func (o *Operation) request(idempotencyKey string) Request {
	q := Request{Method: http.MethodGet, Path: "/v1/kv/" + o.Key, Header: map[string]string{}}
	if idempotencyKey != "" {
		q.Header["Idempotency-Key"] = idempotencyKey
	}
	switch o.Kind {
	case Put, PutIf:
		q.Method, q.Body = http.MethodPut, []byte(o.Value)
		if o.Kind == PutIf {
			q.Path += fmt.Sprintf("?if_revision=%d", o.If)
		}
	case Delete:
		q.Method = http.MethodDelete
	case GetStale:
		q.Path += "?consistency=stale"
	case List:
		q.Path = "/v1/kv?prefix=" + keyPrefix
	case ListStale:
		q.Path = "/v1/kv?consistency=stale&prefix=" + keyPrefix
	case Txn:
		q.Method, q.Path = http.MethodPost, "/v1/txn"
		q.Header["Content-Type"] = "application/json"
		q.Body = fmt.Appendf(nil, `{"if":[{"key":%q,"mod_revision":{"eq":%d}}],`+
			`"then":[{"put":{"key":%q,"value":%q}},{"put":{"key":%q,"value":%q}}],"else":[{"get":{"key":%q}},{"get":{"key":%q}}]}`,
			o.Key, o.If, o.Key, o.Value, o.Other, o.Value, o.Key, o.Other)
	}
	return q
}

// observe takes over what the answer tells of the state.
func (o *Operation) observe(a *Answer) error {
	o.Seen, o.Created, o.Deleted, o.Current = nil, false, 0, 0
	if o.Outcome == Refused {
		o.Current = a.Problem.Current
		return nil
	}
	// That a key does not exist is an answer, too.
	if (o.Kind == Get || o.Kind == GetStale) && a.Status == http.StatusNotFound && a.Problem.Code == "key-not-found" {
		o.Outcome = Done
		return nil
	}
	if o.Outcome != Done {
		return nil
	}
	var body struct {
		Created   bool      `json:"created"`
		Deleted   int       `json:"deleted"`
		Entries   []Version `json:"entries"`
		More      bool      `json:"more"`
		Succeeded bool      `json:"succeeded"`
		Results   []struct {
			Get *struct {
				Entries []Version `json:"entries"`
			} `json:"get"`
		} `json:"results"`
		Version
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		return err
	}
	switch o.Kind {
	case Put, PutIf:
		o.Created = body.Created
	case Delete:
		o.Deleted = body.Deleted
	case Get, GetStale:
		o.Seen = []Version{body.Version}
	case List, ListStale:
		if o.Seen = body.Entries; body.More {
			return errors.New("a list of few keys has more than one page")
		}
	case Txn:
		if body.Succeeded {
			return nil
		}
		o.Outcome = Refused
		for _, result := range body.Results {
			if result.Get == nil {
				return fmt.Errorf("a branch that only reads answered %s", strings.TrimSpace(string(a.Body)))
			}
			o.Seen = append(o.Seen, result.Get.Entries...)
		}
	}
	return nil
}
