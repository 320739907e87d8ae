package httpapi

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
)

const host = "Host: localhost\r\n"

// malformed is what net/http can't make a request of, or does not want to.
var malformed = []struct {
	name, request string
	status        int
	code          api.Code
	detail        string // a part of it
}{
	{"not HTTP", "hello, is anybody there?\r\n\r\n", 400, api.CodeMalformedRequest, "request line"},
	{"no version", "GET /v1/kv/a or so\r\n" + host + "\r\n", 400, api.CodeMalformedRequest, ""},
	{"method that is none", "G(T /v1/kv/a HTTP/1.1\r\n" + host + "\r\n", 400, api.CodeMalformedRequest, ""},
	{"target that is none", "GET v1 HTTP/1.1\r\n" + host + "\r\n", 400, api.CodeMalformedRequest, ""},
	{"percent without digits", "GET /v1/kv/%zz HTTP/1.1\r\n" + host + "\r\n", 400, api.CodeMalformedRequest, "percent-encode"},
	{"percent at the end", "GET /v1/kv/a% HTTP/1.1\r\n" + host + "\r\n", 400, api.CodeMalformedRequest, "percent-encode"},
	{"byte 0 in the target", "GET /v1/kv/a\x00 HTTP/1.1\r\n" + host + "\r\n", 400, api.CodeMalformedRequest, ""},
	{"version 3", "GET /v1/kv/a HTTP/3.0\r\n" + host + "\r\n", 505, api.CodeUnsupportedHTTPVersion, "HTTP/1.1 or HTTP/2"},
	{"version 0.9", "GET /v1/kv/a HTTP/0.9\r\n" + host + "\r\n", 505, api.CodeUnsupportedHTTPVersion, ""},
	{"no host", "GET /v1/kv/a HTTP/1.1\r\n\r\n", 400, api.CodeMalformedRequest, "missing required Host header"},
	{"two hosts", "GET /v1/kv/a HTTP/1.1\r\n" + host + host + "\r\n", 400, api.CodeMalformedRequest, "one Host"},
	{"host that is none", "GET /v1/kv/a HTTP/1.1\r\nHost: a b\r\n\r\n", 400, api.CodeMalformedRequest, "malformed Host header"},
	{"header without a colon", "GET /livez HTTP/1.1\r\n" + host + "X-A\r\n\r\n", 400, api.CodeMalformedRequest, "each header on one line"},
	{"space in a header name", "GET /livez HTTP/1.1\r\n" + host + "X A: b\r\n\r\n", 400, api.CodeMalformedRequest, "invalid header name"},
	{"carriage return in a header", "GET /livez HTTP/1.1\r\n" + host + "X-A: a\rb\r\n\r\n", 400, api.CodeMalformedRequest, "a header"},
	{"header of 64 KiB", "GET /livez HTTP/1.1\r\n" + host + "X-Long: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431, api.CodeHeaderTooLarge, "32768 bytes"},
	{"10,000 headers", "GET /livez HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 10_000) + "\r\n", 431, api.CodeHeaderTooLarge, ""},
	{"target of 64 KiB", "GET /v1/kv/" + strings.Repeat("k", 64<<10) + " HTTP/1.1\r\n" + host + "\r\n", 431, api.CodeHeaderTooLarge, ""},
	{"two lengths", "PUT /v1/kv/abused HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400, api.CodeMalformedRequest, "one Content-Length"},
	{"negative length", "PUT /v1/kv/abused HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400, api.CodeMalformedRequest, ""},
	{"length of 2^64", "PUT /v1/kv/abused HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551616\r\n\r\nx", 400, api.CodeMalformedRequest, ""},
	{"two transfer codings", "PUT /v1/kv/abused HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501, api.CodeUnsupportedTransferCoding, "chunked"},
	{"transfer coding gzip", "PUT /v1/kv/abused HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\nx", 501, api.CodeUnsupportedTransferCoding, ""},
	{"another expectation", "PUT /v1/kv/abused HTTP/1.1\r\n" + host + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", 417, api.CodeExpectationFailed, "without the header"},
	{"another expectation of HEAD", "HEAD /v1/kv/abused HTTP/1.1\r\n" + host + "Expect: the best\r\n\r\n", 417, api.CodeExpectationFailed, ""},
}

// Every kind of request that no handler sees is answered as those that one refuses,
// and ends its connection.
func TestMalformedRequests(t *testing.T) {
	for _, secured := range []bool{false, true} {
		k, config := newKit(t), (*tls.Config)(nil)
		if secured {
			k, config = newTLSKit(t)
		}
		for _, m := range malformed {
			t.Run(fmt.Sprintf("%s, TLS %v", m.name, secured), func(t *testing.T) {
				conn := k.dial()
				conn.t = t
				if secured {
					conn = secure(t, conn, config)
				}
				// Behind a request that is well-formed, on the same connection.
				conn.send("GET /livez HTTP/1.1\r\n" + host + "\r\n" + m.request)
				if resp, body := conn.answer(); resp.StatusCode != 200 || body != "ok\n" {
					t.Fatalf("before: %d %q", resp.StatusCode, body)
				}
				resp, body := conn.answer()
				checkMalformed(t, k, resp, body, m.status, m.code)
				if !strings.Contains(body, m.detail) {
					t.Errorf("the detail does not say %q: %s", m.detail, body)
				}
				conn.closed()
			})
		}
		if a := k.do("GET", "/v1/kv/abused", nil); a.StatusCode != 404 {
			t.Errorf("one of them wrote: %d %q", a.StatusCode, a.body)
		}
		k.stillServes()
	}
}

// checkMalformed holds an answer to a request that no handler has seen against the
// contract.
func checkMalformed(t *testing.T, k *kit, resp *http.Response, body string, status int, code api.Code) {
	t.Helper()
	a := &answer{resp, []byte(body)}
	a.want(t, status, code)
	if !resp.Close || resp.ContentLength != int64(len(body)) || resp.Header.Get("Date") == "" {
		t.Errorf("close %v, length %d, headers %v", resp.Close, resp.ContentLength, resp.Header)
	}
	req, err := http.NewRequest(http.MethodGet, "http://localhost/v1/kv/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.contract.check(req, "/v1/kv/a", nil, resp, a.body); err != nil {
		t.Errorf("the contract does not allow this answer: %v\n%s", err, body)
	}
}

func newTLSKit(t testing.TB) (*kit, *tls.Config) {
	t.Helper()
	certificate := selfSigned(t)
	k := newKit(t, func(cfg *Config) {
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	})
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	transport := &http.Transport{DisableCompression: true, TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	k.scheme, k.contract.next = "https", transport
	return k, config
}

func secure(t *testing.T, w *wire, config *tls.Config) *wire {
	conn := tls.Client(w.conn, config)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return &wire{t, conn, bufio.NewReader(conn)}
}

// A client that goes on to send is heard out, so that it is not cut off before it
// reads its answer.
func TestLastAnswerIsHeardOut(t *testing.T) {
	ours, peer := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- sayAndEnd(ours, []byte("answer")) }()
	b := make([]byte, 16)
	if n, err := peer.Read(b); string(b[:n]) != "answer" {
		t.Fatalf("got %q, %v", b[:n], err)
	}
	if _, err := io.WriteString(peer, "and more"); err != nil {
		t.Errorf("nobody listens: %v", err)
	}
	_ = peer.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = ours.Close()
}

// Plain HTTP on a port that speaks TLS is told so; what is neither is cut off.
func TestPlainOnTLS(t *testing.T) {
	k, config := newTLSKit(t)
	for _, request := range []string{"GET /livez HTTP/1.1\r\n" + host + "\r\n", "PUT /v1/kv/a HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx"} {
		conn := k.dial()
		conn.send(request)
		resp, body := conn.answer()
		checkMalformed(t, k, resp, body, 400, api.CodeMalformedRequest)
		if !strings.Contains(body, "https") {
			t.Errorf("got %s", body)
		}
		conn.closed()
	}
	conn := k.dial()
	conn.send("\x00\x01\x02\x03\x04\x05\x06")
	if said, err := io.ReadAll(conn.r); bytes.Contains(said, []byte("HTTP")) {
		t.Errorf("to no HTTP: %q, %v", said, err)
	}
	old := config.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := tls.Client(k.dial().conn, old).Handshake(); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	k.stillServes()
}

// What only looks like an answer of net/http's own is left alone, wherever the
// writes of a connection part a value.
func TestValueLikeAnAnswer(t *testing.T) {
	k := newKit(t)
	own := "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
	conn := k.dial()
	for pad := 3 << 10; pad < 4<<10; pad++ {
		value := strings.Repeat("p", pad) + own
		k.put("v", value)
		conn.send("GET /v1/kv/v HTTP/1.1\r\n" + host + "\r\n")
		if resp, body := conn.answer(); resp.StatusCode != 200 || body != value || resp.Close {
			t.Fatalf("a value with %d bytes before: %d %q", pad, resp.StatusCode, body)
		}
	}
}

// The same for the connection itself: a write is replaced if it is the first one
// after a head, has the form, and is not of ours.
func TestOwnAnswerIsRecognised(t *testing.T) {
	own := "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n431"
	ours := "HTTP/1.1 404 Not Found\r\nCairn-Member: 01K\r\nConnection: close\r\n\r\n"
	for _, c := range []struct {
		name   string
		before []string // writes after the deadline
		write  string
		want   bool
	}{
		{"first", nil, own, true},
		{"second", []string{"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n"}, own, false},
		{"second of a stream", []string{"HTTP/1.1 100 Continue\r\n\r\n", "a"}, own, false},
		{"of ours", nil, ours, false},
		{"that goes on", nil, strings.Replace(own, "Connection: close", "X: y", 1), false},
		{"half a head", nil, own[:60], false},
		{"a success", nil, strings.Replace(own, "431", "200", 1), false},
		{"a status that is not known", nil, strings.Replace(own, "431", "499", 1), false},
		{"a status that is none", nil, strings.Replace(own, "431", "4x1", 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, _, peer := connPair(t, time.Minute)
			conn.l.instead = newKit(t).server.instead
			if err := conn.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			went := make(chan string, 1)
			go func() {
				b, _ := io.ReadAll(peer)
				went <- string(b)
			}()
			for _, b := range append(c.before, c.write) {
				if n, err := io.WriteString(conn, b); n != len(b) || err != nil {
					t.Fatalf("got %d, %v", n, err)
				}
			}
			_ = conn.Conn.Close()
			if got := <-went; strings.HasSuffix(got, c.write) == c.want || strings.Contains(got, "header-too-large") != c.want {
				t.Errorf("%q became %q", c.write, got)
			}
		})
	}
}

var plainError = regexp.MustCompile(`(?m)^HTTP/1\.1 [45]\d\d [^\r]*\r\n(?:Content-Type: text/plain|Connection: close)`)

// Whatever a client sends, an error is a problem, and the server goes on.
func FuzzMalformed(f *testing.F) {
	for _, m := range malformed {
		if len(m.request) < 4<<10 {
			f.Add([]byte(m.request))
		}
	}
	f.Add([]byte("GET /livez HTTP/1.1\r\n" + host + "\r\nGET /v1/kv/%z HTTP/1.1\r\n\r\n"))
	f.Add([]byte("PUT /v1/kv/a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n"))
	f.Add([]byte(h2Preface))
	k := newKit(f)
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn, err := net.Dial("tcp", k.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write(sent) // the server may have ended it by now
		_ = conn.(*net.TCPConn).CloseWrite()
		said, _ := io.ReadAll(conn)
		if plain := plainError.Find(said); plain != nil {
			t.Errorf("%q is answered %q", sent, said)
		}
		k.t = t
		k.stillServes()
	})
}
