package httpapi

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// byItsHead is what is wrong with a request before its body has come.
var byItsHead = []struct {
	name, target string
	headers      string
	status       int
	code         api.Code
}{
	{"foreign host", "PUT /v1/kv/a", "Host: evil.example\r\n", 421, api.CodeHostNotAllowed},
	{"foreign origin", "PUT /v1/kv/a", host + "Origin: http://evil.example\r\n", 403, api.CodeOriginNotAllowed},
	{"no route", "PUT /v2/kv/a", host, 404, api.CodeNotFound},
	{"no such method", "PATCH /v1/kv/a", host, 405, api.CodeMethodNotAllowed},
	{"compressed", "PUT /v1/kv/a", host + "Content-Encoding: gzip\r\n", 415, api.CodeUnsupportedMediaType},
	{"type of the body", "POST /v1/txn", host + "Content-Type: text/plain\r\n", 415, api.CodeUnsupportedMediaType},
	{"type of the lines", "POST /v1/kv", host + "Content-Type: application/json\r\n", 415, api.CodeUnsupportedMediaType},
	{"type of the answer", "PUT /v1/kv/a", host + "Accept: image/png\r\n", 406, api.CodeNotAcceptable},
	{"unknown parameter", "PUT /v1/kv/a?what=1", host, 400, api.CodeInvalidArgument},
	{"unknown parameter of JSON", "POST /v1/txn?what=1", host + "Content-Type: application/json\r\n", 400, api.CodeInvalidArgument},
	{"unknown parameter of lines", "POST /v1/kv?what=1", host + "Content-Type: application/x-ndjson\r\n", 400, api.CodeInvalidArgument},
	{"lease that is none", "PUT /v1/kv/a?lease=x", host, 400, api.CodeInvalidArgument},
	{"sequence that isn't said", "POST /v1/kv/a", host, 400, api.CodeInvalidArgument},
	{"value besides ignore_value", "PUT /v1/kv/a?ignore_value", host, 400, api.CodeInvalidArgument},
	{"condition that is none", "PUT /v1/kv/a", host + "If-Match: 7\r\n", 400, api.CodeInvalidArgument},
	{"idempotency key with a space", "PUT /v1/kv/a", host + "Idempotency-Key: a b\r\n", 400, api.CodeInvalidArgument},
	{"fence that is none", "PUT /v1/kv/a", host + "Cairn-Fencing: x\r\n", 400, api.CodeInvalidArgument},
	{"long content type", "PUT /v1/kv/a", host + "Content-Type: text/" + strings.Repeat("x", 300) + "\r\n", 400, api.CodeInvalidArgument},
	{"long key", "PUT /v1/kv/" + strings.Repeat("k", kv.MaxKeyBytes+1), host, 400, api.CodeKeyTooLarge},
	{"no key", "PUT /v1/key", host, 400, api.CodeInvalidArgument},
	{"reserved key", "PUT /v1/kv/_cairn/a", host, 403, api.CodeReserved},
}

// A request whose head is at fault is answered while its body has not come, and a
// client that asks first is not told to send it.
func TestRefusedByItsHead(t *testing.T) {
	k := newKit(t, func(c *Config) { c.BodyTimeout = time.Hour })
	lengths := map[string]string{
		"a large body":         "Content-Length: 1000000\r\n",
		"chunks":               "Transfer-Encoding: chunked\r\n",
		"a small body, asked":  "Content-Length: 10\r\nExpect: 100-continue\r\n",
		"a lot of chunks more": "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
	}
	refused := func(name, head string, status int, code api.Code) {
		t.Run(name, func(t *testing.T) {
			conn := k.dial()
			conn.t = t
			conn.send(head)
			resp, body := conn.answer()
			(&answer{resp, []byte(body)}).want(t, status, code)
			if !resp.Close {
				t.Error("the connection would stay open, with a body to come")
			}
			_ = conn.conn.Close()
		})
	}
	for name, length := range lengths {
		for _, c := range byItsHead {
			if c.code == api.CodeInvalidArgument && strings.Contains(c.target, "ignore_value") && strings.Contains(length, "chunked") {
				continue // may turn out to be empty
			}
			refused(name+", "+c.name, c.target+" HTTP/1.1\r\n"+c.headers+length+"\r\n", c.status, c.code)
		}
	}
	for _, asked := range []string{"", "Expect: 100-continue\r\n"} {
		put := "PUT /v1/kv/a HTTP/1.1\r\n" + host + asked
		refused("large value "+asked, put+fmt.Sprintf("Content-Length: %d\r\n\r\n", kv.MaxValueBytes+1), 413, api.CodeValueTooLarge)
		refused("large body "+asked, put+fmt.Sprintf("Content-Length: %d\r\n\r\n", maxBodyBytes+1), 413, api.CodeRequestTooLarge)
	}
	if revision, _ := k.member.Revisions(); revision != 1 {
		t.Errorf("something was written: revision %d", revision)
	}
	k.stillServes()
}

// A request that is well so far is asked for its body.
func TestContinue(t *testing.T) {
	k := newKit(t)
	conn := k.dial()
	conn.send("PUT /v1/kv/a HTTP/1.1\r\n" + host + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	const asked = "HTTP/1.1 100 Continue\r\n\r\n"
	b := make([]byte, len(asked))
	for n := 0; n < len(b); {
		m, err := conn.r.Read(b[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if string(b) != asked {
		t.Fatalf("got %q", b)
	}
	conn.send("value")
	if resp, body := conn.answer(); resp.StatusCode != 201 || resp.Close {
		t.Errorf("got %d %s, close %v", resp.StatusCode, body, resp.Close)
	}
	// The connection goes on.
	conn.send("GET /v1/kv/a HTTP/1.1\r\n" + host + "\r\n")
	if _, body := conn.answer(); body != "value" {
		t.Errorf("got %q", body)
	}
}

// The connection of a refused request with a small body goes on behind it; the body
// of another is never taken for a request.
func TestBehindRefused(t *testing.T) {
	k := newKit(t)
	conn := k.dial()
	next := "GET /livez HTTP/1.1\r\n" + host + "\r\n"
	for range 3 {
		conn.send("PUT /v1/kv/a?what=1 HTTP/1.1\r\n" + host + fmt.Sprintf("Content-Length: %d\r\n\r\n%s%s", len(next), next, next))
		if resp, body := conn.answer(); resp.StatusCode != 400 || resp.Close {
			t.Fatalf("got %d %s, close %v", resp.StatusCode, body, resp.Close)
		}
		if resp, body := conn.answer(); resp.StatusCode != 200 || body != "ok\n" {
			t.Fatalf("behind it: %d %q", resp.StatusCode, body)
		}
	}
	for _, size := range []int{maxAwaitedBody + 1, 100 << 10, 300 << 10} {
		conn := k.dial()
		inside := strings.Repeat(next, size/len(next)+1)[:size]
		conn.send("PUT /v1/kv/a?what=1 HTTP/1.1\r\n" + host + fmt.Sprintf("Content-Length: %d\r\n\r\n%s%s", size, inside, next))
		if resp, body := conn.answer(); resp.StatusCode != 400 || !resp.Close {
			t.Errorf("%d bytes: got %d %s, close %v", size, resp.StatusCode, body, resp.Close)
		}
		conn.closed()
	}
}

// What HTTP/1.0 sends without a length is not taken for an empty value, nor for requests.
func TestBodyOfHTTP10(t *testing.T) {
	k := newKit(t)
	k.put("a", "value")
	next := "PUT /v1/kv/b HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx"
	for _, request := range []string{
		"PUT /v1/kv/a HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + next,
		"PUT /v1/kv/a HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\n" + next,
		"POST /v1/kv HTTP/1.0\r\n" + host + "Content-Type: application/x-ndjson\r\n\r\n{}\n",
	} {
		conn := k.dial()
		conn.send(request)
		resp, body := conn.answer()
		(&answer{resp, []byte(body)}).want(t, 400, api.CodeMalformedRequest)
		conn.closed()
	}
	conn := k.dial()
	conn.send("PUT /v1/kv/a HTTP/1.0\r\n" + host + "Content-Length: 3\r\n\r\nnew")
	if resp, body := conn.answer(); resp.StatusCode != 200 {
		t.Errorf("with a length: %d %s", resp.StatusCode, body)
	}
	if revision, _ := k.member.Revisions(); revision != 3 {
		t.Errorf("revision %d after two writes", revision)
	}
}

// A client that sends its whole body before it reads has its answer. How long it is
// heard out is bounded, so that one of several that is too slow doesn't count.
func TestRefusedIsHeardOut(t *testing.T) {
	for _, asked := range []string{"", "Expect: 100-continue\r\n"} { // and sends it all the same
		t.Run(asked, func(t *testing.T) {
			k := newKit(t)
			body := strings.Repeat("v", 16<<20)
			for n := 0; ; n++ {
				conn := k.dial()
				_, err := conn.conn.Write([]byte("PUT /v1/kv/a HTTP/1.1\r\n" + host + asked + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)))
				if err == nil {
					resp, said := conn.answer()
					(&answer{resp, []byte(said)}).want(t, 413, api.CodeRequestTooLarge)
					return
				}
				if n == 10 {
					t.Fatalf("never heard out: %v", err)
				}
			}
		})
	}
}

// So has one whose body turns out to be too much on its way, since others took the room
// or nothing had said how large it would be.
func TestRefusedOnItsWayIsHeardOut(t *testing.T) {
	const begun, rest = 100 << 10, 900 << 10
	for _, c := range []struct {
		name, framing string
		left          int64 // of the memory for bodies
		status        int
		code          api.Code
	}{
		{"no room any more", fmt.Sprintf("Content-Length: %d\r\n\r\n", begun+rest), begun + rest, 429, api.CodeBusy},
		{"too large", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", 4*rest), maxHeldBodyBytes, 413, api.CodeRequestTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKit(t)
			k.server.admission.bodies.Store(maxHeldBodyBytes - c.left)
			for n := 0; ; n++ {
				conn := k.dial()
				must(t, conn.conn.(*net.TCPConn).SetWriteBuffer(16<<10)) // what is sent is on its way
				conn.send("PUT /v1/kv/a HTTP/1.1\r\n" + host + c.framing)
				_, err := conn.conn.Write(make([]byte, begun))
				for range 4 { // what there is room for is taken before the answer
					if err == nil && c.status == 413 {
						_, err = conn.conn.Write(make([]byte, rest/2))
					}
				}
				resp, said := conn.answer()
				(&answer{resp, []byte(said)}).want(t, c.status, c.code)
				if !resp.Close {
					t.Error("the connection would stay open, with a body to come")
				}
				if err == nil {
					_, err = conn.conn.Write(make([]byte, rest))
				}
				if err == nil {
					_, err = conn.r.ReadByte()
				}
				if err == io.EOF {
					return // it ended in order
				}
				if n == 10 {
					t.Fatalf("never heard out: %v", err)
				}
			}
		})
	}
}

// A body that nobody has use for holds nothing up for long.
func TestSlowBodyOfNoUse(t *testing.T) {
	k := newKit(t, func(c *Config) { c.BodyTimeout = 20 * time.Millisecond })
	for _, c := range []struct {
		request string
		status  int
	}{
		{"DELETE /v1/kv/a", 200}, {"GET /v1/kv/a", 404}, {"GET /livez", 200}, {"PUT /v1/kv/a?what=1", 400},
	} {
		conn := k.dial()
		conn.send(c.request + " HTTP/1.1\r\n" + host + "Content-Length: 10\r\n\r\nx")
		if resp, body := conn.answer(); resp.StatusCode != c.status || !resp.Close {
			t.Errorf("%s: got %d %s, close %v", c.request, resp.StatusCode, body, resp.Close)
		}
		conn.closed()
	}
}

// Over HTTP/2 the same is refused without the body.
func TestRefusedByItsHeadOverHTTP2(t *testing.T) {
	k := newKit(t)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	body := make(chan struct{})
	req, err := http.NewRequest(http.MethodPut, "http://"+k.addr+"/v1/kv/a?what=1", waitingReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 1_000_000
	resp, err := transport.RoundTrip(req)
	close(body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 400 || resp.ProtoMajor != 2 {
		t.Errorf("got %d over %s", resp.StatusCode, resp.Proto)
	}
}

// A waitingReader gives nothing until it is closed.
type waitingReader chan struct{}

func (r waitingReader) Read([]byte) (int, error) {
	<-r
	return 0, http.ErrBodyReadAfterClose
}
