package rawhttp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// script is a stream that answers with prepared bytes, whatever is sent.
type script struct{ io.Reader }

func (script) Write(p []byte) (int, error) { return len(p), nil }
func (script) Close() error                { return nil }

func scripted(answers string) *Conn { return New(script{strings.NewReader(answers)}) }

func TestReceive(t *testing.T) {
	tests := []struct {
		name, answer string
		status       int
		body         string
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"},
		{"names in any case", "HTTP/1.1 201 Created\r\ncOnTeNt-LeNgTh:2\r\n\r\nhi", 201, "hi"},
		{"no reason", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, ""},
		{"other headers", "HTTP/1.1 200 OK\r\nContent-Lengths: 9\r\nX:\r\nContent-Length: 1\r\n\r\nx", 200, "x"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", 200, "abc0123456789"},
		{"trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSum: 1\r\n\r\n", 200, "a"},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Twice on one connection: the first answer ends where it should.
			c := scripted(tt.answer + tt.answer)
			for range 2 {
				got, err := c.Receive()
				if err != nil || got.Status != tt.status || string(got.Body) != tt.body {
					t.Fatalf("got %d %q, %v; want %d %q", got.Status, got.Body, err, tt.status, tt.body)
				}
			}
		})
	}
}

func TestReceiveRefuses(t *testing.T) {
	tests := []struct{ name, answer string }{
		{"old version", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"interim answer", "HTTP/1.1 100 Continue\r\n\r\n"},
		{"status of letters", "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"},
		{"long status", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"},
		{"no length", "HTTP/1.1 200 OK\r\n\r\n"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"},
		{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"signed length", "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx"},
		{"huge length", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"},
		{"huge chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n"},
		{"chunk without size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"},
		{"chunk beyond its size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"},
		{"bare newline", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"},
		{"empty line", "\n"},
		{"no colon", "HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n"},
		{"space in name", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"},
		{"endless line", "HTTP/1.1 200 " + strings.Repeat("x", 2*lineMax)},
		{"endless headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", 2*linesMax) + "\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := scripted(tt.answer).Receive(); !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %d %q, %v; want ErrMalformed", got.Status, got.Body, err)
			}
		})
	}
}

func TestCutOffAnswer(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for n := range len(whole) {
		if got, err := scripted(whole[:n]).Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d bytes: got %d %q, %v; want io.ErrUnexpectedEOF", n, got.Status, got.Body, err)
		}
	}
}

func TestConnectionEnds(t *testing.T) {
	c := scripted("HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusyrest")
	got, err := c.Receive()
	if err != nil || got.Status != 503 || string(got.Body) != "busy" {
		t.Fatalf("got %d %q, %v", got.Status, got.Body, err)
	}
	if err := c.Send(nil); !errors.Is(err, ErrClosing) {
		t.Fatalf("a request after the last answer: %v, want ErrClosing", err)
	}
	c = scripted("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy")
	if _, err := c.Receive(); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(nil); !errors.Is(err, ErrMalformed) {
		t.Fatalf("a request after an answer that was too long: %v, want ErrMalformed", err)
	}
}

// A real server: short answers with a length, long ones in chunks, and requests
// sent in parts, all on one connection.
func TestAgainstNetHTTP(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.Copy(w, r.Body)
			return
		}
		_, _ = io.WriteString(w, long)
	}))
	defer server.Close()
	c, err := Dial(server.Listener.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		got, err := c.Do([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err != nil || got.Status != 200 || string(got.Body) != long {
			t.Fatalf("long answer: %d, %d bytes, %v", got.Status, len(got.Body), err)
		}
		if err := c.Send([]byte("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")); err != nil {
			t.Fatal(err)
		}
		got, err = c.Do([]byte("llo"))
		if err != nil || got.Status != 201 || string(got.Body) != "hello" {
			t.Fatalf("short answer: %d %q, %v", got.Status, got.Body, err)
		}
	}
}

// FuzzReceive holds three things for any bytes: no panic, the same result
// however the bytes are cut into reads, and agreement with net/http about every
// answer that both accept.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		got, err := New(script{bytes.NewReader(answer)}).Receive()
		slow, slowErr := New(script{iotest.OneByteReader(bytes.NewReader(answer))}).Receive()
		if (err == nil) != (slowErr == nil) || got.Status != slow.Status || !bytes.Equal(got.Body, slow.Body) {
			t.Fatalf("at once: %d %q, %v; byte by byte: %d %q, %v", got.Status, got.Body, err, slow.Status, slow.Body, slowErr)
		}
		if err != nil {
			return
		}
		std, stdErr := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if stdErr != nil {
			return
		}
		body, stdErr := io.ReadAll(std.Body)
		if stdErr != nil {
			return
		}
		if std.StatusCode != got.Status || !bytes.Equal(body, got.Body) {
			t.Fatalf("net/http: %d %q; here: %d %q", std.StatusCode, body, got.Status, got.Body)
		}
	})
}
