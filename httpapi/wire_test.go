package httpapi

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
)

// A wire is a bare connection, for what no client library sends.
type wire struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (k *kit) dial() *wire {
	k.t.Helper()
	conn, err := net.Dial("tcp", k.addr)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = conn.Close() })
	return &wire{k.t, conn, bufio.NewReader(conn)}
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w.conn, s); err != nil {
		w.t.Fatal(err)
	}
}

// answer reads one response.
func (w *wire) answer() (*http.Response, string) {
	w.t.Helper()
	resp, err := http.ReadResponse(w.r, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(body)
}

// closed waits until the server closes the connection.
func (w *wire) closed() {
	w.t.Helper()
	if rest, err := io.ReadAll(w.r); len(rest) > 0 {
		w.t.Errorf("more than one answer: %q, %v", rest, err)
	}
}
