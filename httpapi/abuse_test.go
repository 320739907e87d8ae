package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// The abuse list, as far as it is about this face. After each of them the server
// still serves.

func (k *kit) stillServes() {
	k.t.Helper()
	k.put("still", "serves")
	if a := k.do("GET", "/v1/kv/still", nil); a.StatusCode != 200 {
		k.t.Errorf("afterwards: %d %s", a.StatusCode, a.body)
	}
}

// depth and number.
func TestAbuseOfJSON(t *testing.T) {
	k := newKit(t)
	txn := func(body string) *answer {
		return k.do("POST", "/v1/txn", []byte(body), "Content-Type: application/json")
	}
	txn(`{"then":`+strings.Repeat("[", 100_000)).want(t, 400, api.CodeTooDeep)
	txn(`{"then":[`+strings.Repeat("{},", 400_000)+`{}]}`).want(t, 400, api.CodeTooManyOps)
	txn(`{"if":[`+strings.Repeat("{},", 400_000)+`{}]}`).want(t, 400, api.CodeTooManyOps)
	nested := strings.Repeat(`{"then":[{"txn":`, 9) + `{"then":[%s]}` + strings.Repeat(`}]}`, 9)
	get := `{"get":{"key":"a"}},`
	txn(fmt.Sprintf(nested, strings.Repeat(get, 119)+`{"get":{"key":"a"}}`)).want(t, 400, api.CodeTooManyOps)
	if a := txn(fmt.Sprintf(nested, strings.Repeat(get, 118)+`{"get":{"key":"a"}}`)); a.StatusCode != 200 {
		t.Errorf("128 operations on ten levels: %d %.300s", a.StatusCode, a.body)
	}
	for _, s := range []string{"\xff", "{\"then\":[]}\x00", "\ufeff{}", `{"then":[{"put":{"key":"\ud800","value":""}}]}`, "{\"then\":[{\"put\":{\"key\":\"\n\",\"value\":\"\"}}]}"} {
		txn(s).want(t, 400, api.CodeBadJSON)
	}
	k.stillServes()
}

// lengths that are claimed, and bodies without end.
func TestAbuseOfLength(t *testing.T) {
	k := newKit(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, target := range []string{"PUT /v1/kv/a", "PUT /v1/key?key=a", "POST /v1/txn", "POST /v1/compact"} {
		conn := k.dial()
		conn.send(target + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9223372036854775807\r\n\r\n")
		resp, body := conn.answer()
		if resp.StatusCode != 413 || !strings.Contains(body, `"request-too-large"`) || !resp.Close {
			t.Errorf("%s: %d %s, close %v", target, resp.StatusCode, body, resp.Close)
		}
		conn.closed()
	}
	// Ten gigabytes in chunks: the answer comes after the limit.
	pr, pw := io.Pipe()
	go func() {
		chunk := make([]byte, 1<<20)
		for range 10 << 10 {
			if _, err := pw.Write(chunk); err != nil {
				return
			}
		}
		_ = pw.Close()
	}()
	req, err := http.NewRequest(http.MethodPut, "http://"+k.addr+"/v1/kv/a", pr)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	_ = pr.Close()
	if resp.StatusCode != 413 || !bytes.Contains(body, []byte(`"request-too-large"`)) {
		t.Errorf("an endless body: %d %s", resp.StatusCode, body)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
		t.Errorf("all of it allocated %d bytes", grown)
	}
	k.stillServes()
}

// at the limit and one beyond.
func TestAbuseOfSize(t *testing.T) {
	k := newKit(t)
	value := make([]byte, kv.MaxValueBytes+1)
	if a := k.do("PUT", "/v1/kv/a", value[:kv.MaxValueBytes]); a.StatusCode != 201 {
		t.Errorf("the largest value: %d %.300s", a.StatusCode, a.body)
	}
	k.do("PUT", "/v1/kv/a", value).want(t, 413, api.CodeValueTooLarge)
	k.do("PUT", "/v1/key?key=a", value).want(t, 413, api.CodeValueTooLarge)
	k.do("PUT", "/v1/kv/a", make([]byte, maxBodyBytes+1)).want(t, 413, api.CodeRequestTooLarge)
	key := strings.Repeat("k", kv.MaxKeyBytes)
	if a := k.do("PUT", "/v1/kv/"+key, []byte("x")); a.StatusCode != 201 {
		t.Errorf("the largest key: %d %.300s", a.StatusCode, a.body)
	}
	k.do("PUT", "/v1/kv/"+key+"k", []byte("x")).want(t, 400, api.CodeKeyTooLarge)
	k.do("GET", "/v1/kv?prefix="+key+"kk", nil).want(t, 400, api.CodeKeyTooLarge)
	// The largest key in base64 in a cursor fits the headers, both ways.
	k.put(key+"", "y")
	k.put("z", "y")
	var l api.List
	k.do("GET", "/v1/kv?start=k&limit=1&keys_only", nil).read(t, &l)
	if a := k.do("GET", "/v1/kv?start=k&limit=1&keys_only&cursor="+l.NextCursor, nil); a.StatusCode != 200 {
		t.Errorf("a cursor at the largest key: %d %.300s", a.StatusCode, a.body)
	}
	k.do("PUT", "/v1/kv/a", []byte("x"), "Content-Type: "+strings.Repeat("t", kv.MaxContentTypeBytes+1)).want(t, 400, api.CodeInvalidArgument)
	k.do("PUT", "/v1/kv/a", []byte("x"), "Content-Type: text/\xff").want(t, 400, api.CodeInvalidArgument)
	k.stillServes()
}

// what is compressed is not taken apart.
func TestAbuseOfCompression(t *testing.T) {
	k := newKit(t)
	for _, coding := range []string{"gzip", "deflate", "br", "zstd", "identity, gzip"} {
		for _, target := range []string{"/v1/kv/a", "/v1/key?key=a"} {
			k.do("PUT", target, []byte("x"), "Content-Encoding: "+coding).want(t, 415, api.CodeUnsupportedMediaType)
		}
		k.do("POST", "/v1/kv", []byte("{}"), "Content-Type: application/x-ndjson", "Content-Encoding: "+coding).want(t, 415, api.CodeUnsupportedMediaType)
	}
	if a := k.do("PUT", "/v1/kv/a", []byte("x"), "Content-Encoding: identity"); a.StatusCode != 201 {
		t.Errorf("identity: %d %s", a.StatusCode, a.body)
	}
}

// what no client library sends. What is no request at all is in
// TestMalformedRequests.
func TestAbuseOfHTTP(t *testing.T) {
	k := newKit(t)
	put := "PUT /v1/kv/abused HTTP/1.1\r\nHost: localhost\r\n"
	for _, c := range []struct {
		name, request string
		status        int
		closes        bool
	}{
		{"no host in HTTP/1.0", "GET /v1/kv/a HTTP/1.0\r\n\r\n", 421, true},
		{"host of another in the target", "GET http://evil.example/v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 421, false},
		{"connect", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, false},
		{"options of everything", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, false},
		{"chunk of negative size", put + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n", 400, true},
		{"chunk size with 0x", put + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400, true},
		{"chunk size of 2^64", put + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nhello\r\n0\r\n\r\n", 400, true},
		{"chunk with a bare line feed", put + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400, true},
	} {
		conn := k.dial()
		conn.send(c.request)
		resp, body := conn.answer()
		if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != api.TypeProblem {
			t.Errorf("%s: got %d %s, want %d", c.name, resp.StatusCode, body, c.status)
		}
		if c.closes && !resp.Close {
			t.Errorf("%s: the connection stays open", c.name)
		}
	}
	if a := k.do("GET", "/v1/kv/abused", nil); a.StatusCode != 404 {
		t.Errorf("one of them wrote: %d %q", a.StatusCode, a.body)
	}
	k.stillServes()
}

// a request that has both a length and chunks could be read in two ways by
// two servers. It is read as chunks, as RFC 9112 demands; the library does not
// let this package see that there was a length, so it can't be refused.
func TestAbuseOfBothLengths(t *testing.T) {
	k := newKit(t)
	conn := k.dial()
	conn.send("PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, body := conn.answer()
	if resp.StatusCode != 201 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if a := k.do("GET", "/v1/kv/a", nil); string(a.body) != "x" {
		t.Errorf("the value is %q", a.body)
	}
	if resp, body := conn.answer(); resp.StatusCode != 200 || body != "ok\n" {
		t.Errorf("the request behind it: %d %q", resp.StatusCode, body)
	}
}

// headers that don't come.
func TestAbuseBySlowHeaders(t *testing.T) {
	k := newKit(t, func(c *Config) { c.HeaderTimeout = 20 * time.Millisecond })
	conn := k.dial()
	conn.send("GET /livez HTTP/1.1\r\nHo")
	// The library may say why before it closes.
	if said, err := io.ReadAll(conn.r); err != nil || bytes.Contains(said, []byte("200 OK")) {
		t.Errorf("got %q, %v", said, err)
	}
	k.stillServes()
}

// a body that doesn't come.
func TestAbuseBySlowBody(t *testing.T) {
	k := newKit(t, func(c *Config) { c.BodyTimeout = 20 * time.Millisecond })
	for _, request := range []string{
		"PUT /v1/kv/a", "PUT /v1/key?key=a", "POST /v1/kv/a?sequence=true", "POST /v1/key?key=a&sequence=true",
	} {
		method, target, _ := strings.Cut(request, " ")
		conn := k.dial()
		conn.send(request + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
		resp, body := conn.answer()
		if resp.StatusCode != 408 || !strings.Contains(body, `"request-timeout"`) {
			t.Errorf("%s: got %d %s", target, resp.StatusCode, body)
		}
		conn.closed()
		req, err := http.NewRequest(method, "http://localhost"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		path, _, _ := strings.Cut(target, "?")
		if err := k.contract.check(req, path, nil, resp, []byte(body)); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	if revision, _ := k.member.Revisions(); revision != 1 {
		t.Errorf("something was written: revision %d", revision)
	}
	k.stillServes()
}

// A deadlines is a ResponseWriter that notes the deadlines of reading.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// The deadline of a body does not outlive it: what the connection carries next
// has its own.
func TestBodyDeadlineIsLifted(t *testing.T) {
	k := newKit(t)
	d := &deadlines{ResponseWriter: httptest.NewRecorder()}
	req := httptest.NewRequest(http.MethodPut, "http://localhost/v1/kv/a", strings.NewReader("x"))
	k.server.ServeHTTP(d, req)
	if len(d.set) != 2 || d.set[0].IsZero() || !d.set[1].IsZero() {
		t.Errorf("deadlines %v", d.set)
	}
}

// a reader that takes nothing of a long stream does not hold the store's
// state for long.
func TestAbuseBySlowReader(t *testing.T) {
	k := newKit(t, func(c *Config) { c.WriteTimeout = 50 * time.Millisecond })
	for i := range 32 {
		k.put(fmt.Sprintf("k%02d", i), strings.Repeat("v", kv.MaxValueBytes))
	}
	k.member.closed = make(chan struct{}, 1)
	conn := k.dial()
	conn.send("GET /v1/kv HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n")
	<-k.member.closed
	k.member.closed = nil
	k.stillServes()
}

// connections beyond the limit are told so.
func TestAbuseByConnections(t *testing.T) {
	k := newKit(t, func(c *Config) { c.MaxConnections = 2 })
	first, second := k.dial(), k.dial()
	for _, conn := range []*wire{first, second} {
		conn.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if resp, _ := conn.answer(); resp.StatusCode != 200 {
			t.Errorf("within the limit: %d", resp.StatusCode)
		}
	}
	third := k.dial()
	resp, body := third.answer()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || resp.Header.Get(api.HeaderMember) == "" {
		t.Errorf("beyond the limit: %d %v", resp.StatusCode, resp.Header)
	}
	if !strings.Contains(body, `"code":"unavailable"`) || !strings.Contains(body, `"request_id":"`+resp.Header.Get(api.HeaderRequestID)) {
		t.Errorf("beyond the limit: %s", body)
	}
	third.closed()
	// One that ends makes room.
	_ = first.conn.Close()
	for {
		conn := k.dial()
		conn.send("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if resp, _ := conn.answer(); resp.StatusCode == 200 {
			break
		}
	}
	_ = second.conn.Close()
}

// A-78, and the limits of one transaction: very many keys.
func TestAbuseByNumber(t *testing.T) {
	k := newKit(t)
	const n = kv.BudgetKeysChanged + 1
	if last := final(k.bulk(manyLines(n, 1))); !*last.Done || last.Applied != n {
		t.Fatalf("%+v", last)
	}
	var l api.List
	k.do("GET", "/v1/kv", nil).read(t, &l)
	if len(l.Entries) != defaultPage || !l.More {
		t.Errorf("a list without limit has %d entries", len(l.Entries))
	}
	k.do("GET", "/v1/kv?limit=10000&keys_only", nil).read(t, &l)
	if len(l.Entries) != maxPage {
		t.Errorf("the largest page has %d entries", len(l.Entries))
	}
	stream := k.do("GET", "/v1/kv?keys_only", nil, "Accept: application/x-ndjson")
	if lines := bytes.Count(stream.body, []byte{'\n'}); lines != n {
		t.Errorf("the stream has %d lines, want %d", lines, n)
	}
	k.do("DELETE", "/v1/kv?all", nil).want(t, 413, api.CodeTransactionTooLarge)
	k.do("POST", "/v1/txn", []byte(`{"then":[{"delete":{"prefix":"k"}}]}`), "Content-Type: application/json").want(t, 413, api.CodeTransactionTooLarge)
	if a := k.do("DELETE", "/v1/kv?start=k000001", nil); a.StatusCode != 200 {
		t.Errorf("as many as one transaction may delete: %d %s", a.StatusCode, a.body)
	}
	for i := range 65 {
		k.put(fmt.Sprintf("large%d", i), strings.Repeat("v", kv.MaxValueBytes))
	}
	k.do("GET", "/v1/kv?sort=value&limit=10000", nil).want(t, 413, api.CodeTransactionTooLarge)
	k.stillServes()
}

// a client that is gone before the answer can ask again.
func TestAbuseByLeaving(t *testing.T) {
	k := newKit(t)
	proposed, proceed := make(chan struct{}), make(chan struct{})
	k.member.afterwards = true
	k.member.proposing = func(*kv.Command) error {
		close(proposed)
		<-proceed
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+k.addr+"/v1/kv/a", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(api.HeaderIdempotencyKey, "k")
	req.Header.Set("Content-Type", "text/plain")
	gone := make(chan error, 1)
	go func() {
		_, err := k.client.Do(req)
		gone <- err
	}()
	<-proposed
	cancel()
	if err := <-gone; err == nil {
		t.Error("the client did not leave")
	}
	close(proceed)
	k.member.mu.Lock()
	k.member.proposing = nil
	k.member.mu.Unlock()
	a := k.do("PUT", "/v1/kv/a", []byte("x"), "Idempotency-Key: k", "Content-Type: text/plain")
	if a.StatusCode != 201 || a.Header.Get(api.HeaderReplayed) != "true" || a.Header.Get(api.HeaderRevision) != "2" {
		t.Errorf("again: %d %v %s", a.StatusCode, a.Header, a.body)
	}
}
