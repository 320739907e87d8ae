package rawsse

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

const answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
	"c\r\n: connected\n\r\n1;a=b\r\n\n\r\n" + // the empty line in a chunk of its own
	"2e\r\nid: 7\nevent: change\ndata: {\"revision\":7,\"x\":1}\r\n" + "7\r\n\n\n: a\n\n\r\n" +
	"9\r\nid: 8\n\nno\r\n0\r\nTrailer: x\r\n\r\n"

var messages = []string{": connected", "id: 7\nevent: change\ndata: {\"revision\":7,\"x\":1}", ": a", "id: 8"}

// TestScan cuts the answer at every place.
func TestScan(t *testing.T) {
	for size := 1; size <= len(answer); size++ {
		var s Scanner
		var got []string
		var err error
		for part := range slices.Chunk([]byte(answer), size) {
			if err = s.Scan(part, func(m []byte) { got = append(got, string(m)) }); err != nil {
				break
			}
		}
		if !slices.Equal(got, messages) || !errors.Is(err, io.EOF) {
			t.Fatalf("in parts of %d: %q, %v", size, got, err)
		}
	}
}

func TestScanRefuses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, text := range map[string]string{
		"status":        "HTTP/1.1 410 Gone\r\n",
		"type":          "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
		"length":        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\n",
		"bare newline":  "HTTP/1.1 200 OK\n",
		"chunk size":    ok + "x\r\n",
		"huge chunk":    ok + "ffffffff\r\n",
		"behind chunk":  ok + "1\r\nab\r\n",
		"no chunk size": ok + "\r\n",
	} {
		var s Scanner
		if err := s.Scan([]byte(text), func([]byte) {}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	if id, ok := ID([]byte(messages[1])); id != 7 || !ok {
		t.Error(id, ok)
	}
	for _, m := range []string{"event: change\nid: 7", "id: x", "id: ", ": a"} {
		if id, ok := ID([]byte(m)); ok {
			t.Errorf("%q has the id %d", m, id)
		}
	}
}

// TestPoller reads many streams of a real server to their end.
func TestPoller(t *testing.T) {
	const streams, each = 50, 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range each {
			fmt.Fprintf(w, "id: %d\nevent: change\ndata: {}\n\n", i)
			if i%3 == 0 {
				w.(http.Flusher).Flush()
			}
		}
	}))
	defer server.Close()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	next, ends := make([]uint64, streams), 0
	for i := range next {
		next[i] = 1 // Open takes the first
	}
	message := func(c *Conn, m []byte) {
		mu.Lock()
		defer mu.Unlock()
		if id, ok := ID(m); !ok || id != next[c.Tag] {
			t.Errorf("stream %d: %q, want id %d", c.Tag, m, next[c.Tag])
		}
		next[c.Tag]++
	}
	done := make(chan error, 1)
	go func() {
		done <- p.Run(func() {}, message, func(_ *Conn, err error) {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if ends++; ends == streams {
				p.Stop()
			}
		})
	}()
	for i := range streams {
		c, err := Open(server.Listener.Addr().String(), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), i, message)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i, n := range next {
		if n != each {
			t.Errorf("stream %d ended after %d messages", i, n)
		}
	}
}
