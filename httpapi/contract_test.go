package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"go.uber.org/goleak"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
)

// The contract is openapi.yaml. Every exchange of every test goes through
// contractRoundTripper, which holds it against the contract; what it has seen is
// checked for completeness when all tests are done.

// contract is loaded once. Its objects are closed: a member that the contract
// doesn't name is a fault here, while it is none to a client.
var contract = sync.OnceValues(func() (*openapi3.T, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromFile("../openapi.yaml")
	if err != nil {
		return nil, err
	}
	for _, s := range doc.Components.Schemas {
		if v := s.Value; len(v.Properties) > 0 && v.AdditionalProperties.Has == nil && v.AdditionalProperties.Schema == nil {
			closed := false
			v.AdditionalProperties.Has = &closed
		}
	}
	for _, name := range []string{api.TypeNDJSON, "application/yaml"} {
		openapi3filter.RegisterBodyDecoder(name, plainBody)
	}
	return doc, nil
})

// plainBody gives a body as it is. Lines of NDJSON are checked one by one.
func plainBody(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
	b, err := io.ReadAll(body)
	return string(b), err
}

func loadContract(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// contractPath is the path of the contract that a path of a request belongs to,
// with what stands in it for the names in braces.
func contractPath(doc *openapi3.T, escaped string) (path string, params map[string]string, ok bool) {
	for _, prefix := range []string{keyPath, historyPath} {
		if tail, found := strings.CutPrefix(escaped, prefix); found {
			key, err := url.PathUnescape(tail)
			return prefix + "{key}", map[string]string{"key": key}, err == nil
		}
	}
	if doc.Paths.Value(escaped) != nil {
		return escaped, nil, true
	}
	given := strings.Split(escaped, "/")
	for path := range doc.Paths.Map() {
		segments := strings.Split(path, "/")
		if len(segments) != len(given) {
			continue
		}
		params, fits := map[string]string{}, true
		for i, segment := range segments {
			if name, ok := strings.CutPrefix(segment, "{"); ok {
				value, err := url.PathUnescape(given[i])
				params[strings.TrimSuffix(name, "}")] = value
				fits = fits && err == nil && value != ""
			} else {
				fits = fits && segment == given[i]
			}
		}
		if fits {
			return path, params, true
		}
	}
	return escaped, nil, true
}

// seen is what the exchanges of all tests covered.
var seen = struct {
	sync.Mutex
	responses map[string]bool // "GET /v1/kv 200"
	params    map[string]bool // "GET /v1/kv limit"
	codes     map[api.Code]bool
}{responses: map[string]bool{}, params: map[string]bool{}, codes: map[api.Code]bool{}}

type contractRoundTripper struct {
	t    testing.TB
	doc  *openapi3.T
	next http.RoundTripper
}

// plainHeaders may be on any answer; the contract says so once, in its
// description.
var plainHeaders = []string{
	"Date", "Content-Type", "Content-Length", "Connection", "Transfer-Encoding",
	"Cache-Control", "Vary", "X-Content-Type-Options", "Content-Security-Policy", "X-Accel-Buffering",
}

// RoundTrip sends a request and holds what happened against the contract.
func (c *contractRoundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if r.URL.Path == "/v1/watch" && resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Type") != api.TypeJSON {
		resp.Body = &watchedBody{ReadCloser: resp.Body, c: c, r: r, sent: sent, resp: resp}
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		// Broken off on purpose; there is no complete answer to look at.
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failingReader{err}))
		return resp, nil
	}
	escaped := r.URL.Opaque
	if escaped == "" {
		escaped = r.URL.EscapedPath()
	}
	if err := c.check(r, escaped, sent, resp, body); err != nil {
		c.t.Errorf("%s %s: the contract does not allow this exchange: %v\nanswer: %d %.400s", r.Method, escaped, err, resp.StatusCode, body)
	}
	return resp, nil
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func (c *contractRoundTripper) check(r *http.Request, escaped string, sent []byte, resp *http.Response, body []byte) error {
	for _, name := range []string{api.HeaderRevision, api.HeaderMember, api.HeaderRequestID} {
		if len(resp.Header[name]) != 1 {
			return fmt.Errorf("the answer has no %s", name)
		}
	}
	path, inPath, ok := contractPath(c.doc, escaped)
	item := c.doc.Paths.Value(path)
	if !ok || item == nil || item.GetOperation(r.Method) == nil {
		// Outside of the contract there are problems alone.
		if resp.StatusCode < 400 {
			return fmt.Errorf("a route that the contract does not have answers %d", resp.StatusCode)
		}
		if r.Method == http.MethodHead {
			return nil
		}
		return c.checkProblem(c.doc.Components.Schemas["Problem"].Value, resp, body)
	}
	op := item.GetOperation(r.Method)

	response := op.Responses.Value(fmt.Sprint(resp.StatusCode))
	if response == nil && resp.StatusCode >= 400 {
		response = op.Responses.Default()
	}
	if response == nil {
		return fmt.Errorf("status %d is not documented", resp.StatusCode)
	}
	documented := op.Responses.Value(fmt.Sprint(resp.StatusCode)) != nil
	for name, values := range resp.Header {
		h, ok := header(response.Value.Headers, name)
		switch {
		case slices.Contains(plainHeaders, name):
		case !ok && documented && !slices.Contains([]string{"Retry-After", "Allow"}, name):
			return fmt.Errorf("header %s is not documented for status %d", name, resp.StatusCode)
		case ok && h.Schema != nil:
			if err := c.checkText(h.Schema.Value, values[0]); err != nil {
				return fmt.Errorf("header %s: %v", name, err)
			}
		}
	}
	if err := c.checkBody(r, response.Value, resp, body); err != nil {
		return err
	}

	query, err := url.ParseQuery(r.URL.RawQuery)
	if resp.StatusCode < 400 || resp.StatusCode == 404 || resp.StatusCode == 412 {
		// What the server takes, the contract must allow.
		if err != nil {
			return err
		}
		if err := c.checkRequest(r, op, item, path, inPath, query, sent); err != nil {
			return fmt.Errorf("the server took what the contract forbids: %v", err)
		}
	}

	seen.Lock()
	defer seen.Unlock()
	seen.responses[fmt.Sprintf("%s %s %d", r.Method, path, resp.StatusCode)] = true
	if resp.StatusCode < 400 {
		for name := range query {
			seen.params[r.Method+" "+path+" "+name] = true
		}
		for name := range r.Header {
			seen.params[r.Method+" "+path+" "+http.CanonicalHeaderKey(name)] = true
		}
		for name := range inPath {
			seen.params[r.Method+" "+path+" path "+name] = true
		}
	}
	return nil
}

// A watchedBody is the stream of a watch. What was read of it is held against the
// contract when it is closed.
type watchedBody struct {
	io.ReadCloser
	c    *contractRoundTripper
	r    *http.Request
	sent []byte
	resp *http.Response
	read bytes.Buffer
	once sync.Once
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Write(p[:n])
	return n, err
}

func (b *watchedBody) Close() error {
	b.once.Do(func() {
		// Without what was cut off.
		body := b.read.Bytes()
		end := "\n\n"
		if b.resp.Header.Get("Content-Type") == api.TypeNDJSON {
			end = "\n"
		}
		body = body[:bytes.LastIndex(body, []byte(end))+1]
		if err := b.c.check(b.r, "/v1/watch", b.sent, b.resp, body); err != nil {
			b.c.t.Errorf("%s /v1/watch: the contract does not allow this stream: %v\n%.2000s", b.r.Method, err, body)
		}
	})
	return b.ReadCloser.Close()
}

// messages are the schemas of what the events of a watch carry.
var messages = map[string]string{
	"change": "WatchChange", "initial": "WatchInitial", "synced": "WatchMark", "bookmark": "WatchMark",
	"compacted": "WatchEnd", "draining": "WatchEnd",
	"doubtful": "WatchEnd", "certain": "WatchEnd",
}

func (c *contractRoundTripper) checkEvents(body []byte) error {
	r := sse.NewReader(bytes.NewReader(body), 64<<20)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		schema := c.doc.Components.Schemas[messages[e.Type]]
		if schema == nil {
			return fmt.Errorf("event %q is not documented", e.Type)
		}
		if err := c.checkJSON(schema.Value, e.Data); err != nil {
			return fmt.Errorf("event %s: %v", e.Type, err)
		}
	}
}

// maxCheckedLines bounds the work on a long stream.
const maxCheckedLines = 1000

func header(headers openapi3.Headers, name string) (*openapi3.Header, bool) {
	for documented, h := range headers {
		if http.CanonicalHeaderKey(documented) == name {
			return h.Value, true
		}
	}
	return nil, false
}

func (c *contractRoundTripper) checkBody(r *http.Request, response *openapi3.Response, resp *http.Response, body []byte) error {
	if r.Method == http.MethodHead || resp.StatusCode == 304 {
		if len(body) > 0 {
			return fmt.Errorf("a body of %d bytes where there is none", len(body))
		}
		return nil
	}
	given, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	media := response.Content[given]
	if media == nil {
		media = response.Content["*/*"]
		if media == nil {
			return fmt.Errorf("content type %q is not documented for status %d", given, resp.StatusCode)
		}
		return nil
	}
	switch given {
	case api.TypeJSON:
		return c.checkJSON(media.Schema.Value, body)
	case api.TypeProblem:
		return c.checkProblem(media.Schema.Value, resp, body)
	case sse.ContentType:
		if r.URL.Path == "/v1/watch" {
			return c.checkEvents(body)
		}
	case api.TypeNDJSON:
		n := 0
		for line := range bytes.Lines(body) {
			if n++; n > maxCheckedLines {
				break
			}
			if len(line) == 1 && r.URL.Path == "/v1/watch" {
				continue // a sign of life
			}
			if err := c.checkJSON(media.Schema.Value, line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *contractRoundTripper) checkProblem(schema *openapi3.Schema, resp *http.Response, body []byte) error {
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	if p.Status != resp.StatusCode || p.RequestID != resp.Header.Get(api.HeaderRequestID) || p.Type != api.ProblemType+string(p.Code) {
		return fmt.Errorf("the problem does not fit its answer")
	}
	seen.Lock()
	seen.codes[p.Code] = true
	seen.Unlock()
	return c.checkJSON(schema, body)
}

func (c *contractRoundTripper) checkJSON(schema *openapi3.Schema, body []byte) error {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	return c.doc.ValidateSchemaJSON(schema, v)
}

// checkText checks a header, which is a number where its schema says so.
func (c *contractRoundTripper) checkText(schema *openapi3.Schema, text string) error {
	if schema.Type.Is("integer") {
		return c.checkJSON(schema, []byte(text))
	}
	return c.doc.ValidateSchemaJSON(schema, text)
}

func (c *contractRoundTripper) checkRequest(r *http.Request, op *openapi3.Operation, item *openapi3.PathItem, path string, inPath map[string]string, query url.Values, sent []byte) error {
	for name := range query {
		if op.Parameters.GetByInAndName("query", name) == nil {
			return fmt.Errorf("parameter %s is not documented", name)
		}
	}
	// A switch may stand without a value, which the schema can't say.
	for name, values := range query {
		if p := op.Parameters.GetByInAndName("query", name); p.Schema.Value.Type.Is("boolean") && values[0] == "" {
			query.Set(name, "true")
		}
	}
	copied := r.Clone(context.Background())
	copied.URL = &url.URL{Path: "/", RawQuery: query.Encode()}
	copied.Body = io.NopCloser(bytes.NewReader(sent))
	input := &openapi3filter.RequestValidationInput{
		Request: copied, PathParams: inPath, QueryParams: query,
		Route: &routers.Route{Spec: c.doc, Path: path, PathItem: item, Method: r.Method, Operation: op},
		Options: &openapi3filter.Options{
			SkipSettingDefaults: true,
			// A value is not to be decoded, and of a bulk write some lines may be
			// refused with a 200.
			ExcludeRequestBody: op.RequestBody != nil && op.RequestBody.Value.Content[api.TypeJSON] == nil,
		},
	}
	return openapi3filter.ValidateRequest(context.Background(), input)
}

// TestMain runs the tests and then checks that together they have seen all of
// the contract. A part of the tests can't be expected to.
func TestMain(m *testing.M) {
	status := m.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	if status == 0 && wholeRun() {
		for _, gap := range gaps() {
			fmt.Fprintln(os.Stderr, "not seen by any test:", gap)
			status = 1
		}
	}
	os.Exit(status)
}
