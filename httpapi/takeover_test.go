package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/internal/testkit"
)

// watchRequest is what a client sends.
func watchRequest(query string) string {
	return "GET /v1/watch?" + query + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
}

// streams waits until so many watches are open.
func (k *kit) streams(n int) {
	k.t.Helper()
	testkit.Eventually(k.t, "so many watches are open", func() bool { return k.member.hub.Stats().Streams == n })
}

// A watch is the last request of its connection, and says so. What else the client
// sends is not answered, and does not end the watch.
func TestTakenConnection(t *testing.T) {
	k := newKit(t)
	conn := k.dial()
	get := "GET /v1/kv/none HTTP/1.1\r\nHost: localhost\r\n\r\n"
	conn.send(get + watchRequest("key=a&from_revision=2") + get)
	resp, err := http.ReadResponse(conn.r, nil)
	if err != nil || resp.StatusCode != 404 {
		t.Fatal(resp, err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	resp, err = http.ReadResponse(conn.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.send(strings.Repeat(get, 100))
	k.put("a", "2")
	w := &watching{t: t, resp: resp, events: sse.NewReader(resp.Body, 1<<20)}
	w.want("change 2 {events:[{key:a,type:put,value:2}]}")
	k.put("a", "3")
	w.want("change 3 {events:[{key:a,type:put,value:3}]}")
	if !resp.Close || len(resp.TransferEncoding) != 1 || resp.Header.Get("Date") == "" || resp.Header.Get("X-Request-Id") == "" ||
		resp.Header.Get("Cairn-Member") != testMember.String() || resp.Header.Get("Content-Type") != sse.ContentType {
		t.Errorf("close %v, %v, %v", resp.Close, resp.TransferEncoding, resp.Header)
	}
	shutdown := make(chan error, 1)
	go func() { shutdown <- k.server.Shutdown(t.Context()) }()
	w.want("draining 3 {resume_from:4}")
	if err := w.ended(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v", err)
	}
	if b, err := io.ReadAll(conn.r); len(b) > 0 {
		t.Errorf("behind the end: %q, %v", b, err)
	}
	_ = conn.conn.Close()
	if err := <-shutdown; err != nil {
		t.Error(err)
	}
	if n := k.counted("GET", "/v1/watch"); n != 1 {
		t.Errorf("%v requests were counted", n)
	}
}

// counted is how many requests of a route have ended, in whatever way.
func (k *kit) counted(method, pattern string) (n float64) {
	k.t.Helper()
	families, err := k.server.cfg.Gatherer.Gather()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "cairn_http_requests_total" && labels["method"] == method && labels["route"] == pattern {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// A client that speaks HTTP/1.0 knows no chunks.
func TestWatchOfOldClient(t *testing.T) {
	k := newKit(t)
	conn := k.dial()
	conn.send("GET /v1/watch?key=a&from_revision=2 HTTP/1.0\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(conn.r, nil)
	if err != nil || resp.StatusCode != 200 || len(resp.TransferEncoding) > 0 {
		t.Fatal(resp, err)
	}
	k.put("a", "2")
	w := &watching{t: t, resp: resp, events: sse.NewReader(resp.Body, 1<<20)}
	w.want("change 2 {events:[{key:a,type:put,value:2}]}")
}

// Shutdown waits for streams, and closes those whose clients hold them up.
func TestShutdownOfStalledWatch(t *testing.T) {
	k := newKit(t)
	conn := k.dial()
	conn.send(watchRequest("key=a"))
	k.streams(1)
	value := strings.Repeat("v", 1<<19)
	// Until the socket takes no more, and what follows waits.
	for k.member.hub.Stats().QueuedChanges < 2 && k.member.hub.Stats().Behind == 0 {
		k.put("a", value)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := k.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v while a stream waits for its client", err)
	}
	if err := k.server.taken.wait(t.Context()); err != nil {
		t.Error(err)
	}
	k.streams(0)
	if k.server.taken.add(&takenConn{}) {
		t.Error("a connection was taken over behind the end")
	}
}

// A client that takes nothing loses its connection after the time of a stall, and
// nothing else.
func TestStalledWatchIsClosed(t *testing.T) {
	k := newKit(t, func(c *Config) { c.WriteTimeout = 50 * time.Millisecond })
	conn := k.dial()
	conn.send(watchRequest("key=a"))
	k.streams(1)
	value := strings.Repeat("v", 1<<19)
	for k.member.hub.Stats().Streams > 0 {
		k.put("a", value)
	}
	k.stillServes()
}

// Who goes on to talk behind the request of a stream is not listened to for ever.
func TestTalkativeStream(t *testing.T) {
	k := newKit(t)
	conn := k.dial()
	conn.send("GET /v1/watch HTTP/1.1\r\n" + host + "\r\n")
	k.streams(1)
	// It is closed while the client goes on to talk, who may see that as a reset.
	for {
		if _, err := conn.conn.Write(make([]byte, 4<<10)); err != nil {
			break
		}
	}
	k.streams(0)
	k.stillServes()
}

// A panic breaks off its own stream, and the client does not take that for an end.
func TestPanicInStream(t *testing.T) {
	k := newKit(t)
	here, there := net.Pipe()
	c := &takenConn{s: k.server, conn: there, began: k.clock.Now(), requestID: "r1"}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.serve(func() error {
		if err := c.write([]byte("event")); err != nil {
			t.Error(err)
		}
		panic("planted")
	})
	got, err := io.ReadAll(here)
	if err != nil || string(got) != "5\r\nevent\r\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := k.server.taken.wait(t.Context()); err != nil {
		t.Error(err)
	}
	k.stillServes()
}

// TestIdleWatchMemory holds what a watch takes while nothing happens: everything of
// the process, with the client's end of the connection. The process is one of its
// own: what other tests leave, and what ends of it meanwhile, is megabytes.
func TestIdleWatchMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const alone = "CAIRN_TEST_ALONE"
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), alone+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const watches, most = 400, 16 << 10
	k := newKit(t)
	held := func() int64 {
		var m runtime.MemStats
		for range 3 { // each makes the stacks smaller that are mostly free
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	open := func(n int) {
		for i := range n {
			conn, err := net.Dial("tcp", k.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := io.WriteString(conn, watchRequest(fmt.Sprintf("key=key-%d", i))); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(conn)
			for line := ""; !strings.HasPrefix(line, "id: "); { // the last thing of the greeting
				if line, err = r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	open(10) // what is made once
	before := held()
	open(watches)
	if each := (held() - before) / watches; each > most || each <= 0 {
		t.Errorf("an idle watch takes %d bytes, want up to %d", each, most)
	} else {
		t.Logf("an idle watch takes %d bytes", each)
	}
}
