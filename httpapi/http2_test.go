package httpapi

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/testkit"
)

// wire2 is a client of HTTP/2 that takes no byte of any answer.
type wire2 struct {
	t      testing.TB
	frames *http2.Framer
	next   uint32
}

func (k *kit) dial2() *wire2 {
	k.t.Helper()
	conn, err := net.Dial("tcp", k.addr)
	must(k.t, err)
	k.t.Cleanup(func() { _ = conn.Close() })
	must(k.t, conn.SetDeadline(time.Now().Add(testkit.Patience)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	must(k.t, err)
	w := &wire2{t: k.t, frames: http2.NewFramer(conn, conn), next: 1}
	must(k.t, w.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	return w
}

// send begins a stream with a request, and ends it with its body, if ended is set.
func (w *wire2) send(method, target, contentType, body string, ended bool) {
	w.t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	fields := [][2]string{{":method", method}, {":scheme", "http"}, {":authority", "localhost"}, {":path", target}}
	if contentType != "" {
		fields = append(fields, [2]string{"content-type", contentType})
	}
	for _, f := range fields {
		must(w.t, e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	must(w.t, w.frames.WriteHeaders(http2.HeadersFrameParam{
		StreamID: w.next, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: ended && body == "",
	}))
	if body != "" {
		must(w.t, w.frames.WriteData(w.next, ended, []byte(body)))
	}
	w.next += 2
}

// awaitReset reads until a stream was answered and reset.
func (w *wire2) awaitReset() {
	w.t.Helper()
	answered := false
	for {
		f, err := w.frames.ReadFrame()
		must(w.t, err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				must(w.t, w.frames.WriteSettingsAck())
			}
		case *http2.HeadersFrame:
			answered = true
		case *http2.DataFrame:
			w.t.Fatalf("%d bytes came for which there was no room", len(f.Data()))
		case *http2.RSTStreamFrame:
			if !answered {
				w.t.Error("the stream was reset without an answer")
			}
			return
		}
	}
}

// TestNoWindow: an answer for which a client of HTTP/2 opens no window ends after the
// time of a stall, however small it is and whatever wrote it, and nothing of it is
// left.
func TestNoWindow(t *testing.T) {
	k := newKit(t, func(c *Config) { c.WriteTimeout = 50 * time.Millisecond })
	k.put("k", "v")
	for _, c := range []struct{ name, method, target, contentType, body string }{
		{"a value", "GET", "/v1/kv/k", "", ""},
		{"a problem", "GET", "/v1/kv/none", "", ""},
		{"the metrics", "GET", "/metrics", "", ""},
		{"a list", "GET", "/v1/kv", "", ""},
		{"a bulk write", "POST", "/v1/kv", api.TypeNDJSON, `{"put":{"key":"l","value":"v"}}`},
		{"a long poll", "GET", "/v1/watch?from_revision=1&wait=60", "", ""},
		{"a watch", "GET", "/v1/watch", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := k.dial2()
			w.t = t
			w.send(c.method, c.target, c.contentType, c.body, true)
			w.awaitReset()
			k.idle(t)
		})
	}
	k.stillServes()
}

// What comes of the body of a request that takes none is not kept, as little as the
// request may be done: the connection has room for it at once.
func TestUnreadBodyIsNotKept(t *testing.T) {
	k := newKit(t)
	for _, target := range []string{"/v1/watch", "/v1/elections/e/observe", "/v1/watch?wait=60"} {
		w := k.dial2()
		w.send("GET", target, "", "x", false)
		const piece = 16 << 10 // the largest frame
		sent := 1
		for range maxUnread/piece - 1 {
			must(t, w.frames.WriteData(w.next-2, false, make([]byte, piece)))
			sent += piece
		}
		for given := 0; given < sent-piece; { // what is little more is given later
			f, err := w.frames.ReadFrame()
			must(t, err)
			switch f := f.(type) {
			case *http2.WindowUpdateFrame:
				if f.StreamID == 0 {
					given += int(f.Increment)
				}
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				t.Fatalf("%s: got %v", target, f)
			}
		}
	}
}
