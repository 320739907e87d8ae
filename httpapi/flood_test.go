package httpapi

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Frames of HTTP/2, written by hand: no client would send them.
const (
	h2Headers      = 0x1
	h2Reset        = 0x3
	h2Settings     = 0x4
	h2Ping         = 0x6
	h2Continuation = 0x9

	h2EndStream  = 0x1
	h2EndHeaders = 0x4
)

const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// h2Get is the header block of a GET, without an entry in the table.
func h2Get(path string) []byte {
	b := []byte{0x82, 0x86, 0x04, byte(len(path))} // GET, http, a path
	b = append(b, path...)
	return append(append(b, 0x01, byte(len("localhost"))), "localhost"...)
}

// flood writes what next gives until the server ends the connection, or until
// next gives nothing more and the server has come as far: it answers a last ping.
// It reads nothing before, unless drain says so.
func flood(conn net.Conn, drain bool, next func(i int) []byte) (ended bool) {
	last := []byte("thatsall")
	arrived := make(chan bool, 1)
	read := func() {
		r := bufio.NewReader(conn)
		for {
			var head [9]byte
			if _, err := io.ReadFull(r, head[:]); err != nil {
				arrived <- false
				return
			}
			payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
			if _, err := io.ReadFull(r, payload); err != nil {
				arrived <- false
				return
			}
			if head[3] == h2Ping && bytes.Equal(payload, last) {
				arrived <- true
				return
			}
		}
	}
	defer conn.Close()
	if drain {
		go read()
	}
	for i := 0; ; i++ {
		b := next(i)
		if b == nil {
			break
		}
		if _, err := conn.Write(b); err != nil {
			return true
		}
	}
	if !drain {
		go read()
	}
	if _, err := conn.Write(appendFrame(nil, h2Ping, 0, 0, last)); err != nil {
		return true
	}
	return !<-arrived
}

// floods of HTTP/2 frames. The server ends the connection, or takes it; in
// no case does it grow, and the others are served all the while.
func TestAbuseByFloods(t *testing.T) {
	k := newKit(t, func(c *Config) { c.WriteTimeout = 200 * time.Millisecond })
	k.put("a", "x")
	// Header fields that are not indexed: 1 KiB each
	field := append([]byte{0x00, 0x01, 'x', 0x7f, 0x81, 0x07}, bytes.Repeat([]byte("v"), 1024)...)
	for _, c := range []struct {
		name  string
		drain bool
		ends  bool // whether the server has to end it
		next  func(i int) []byte
	}{
		{"rapid reset", true, false, func(i int) []byte {
			if i == 200 {
				return nil
			}
			var b []byte
			for n := range 100 {
				stream := uint32(i*100+n)*2 + 1
				b = appendFrame(b, h2Headers, h2EndStream|h2EndHeaders, stream, h2Get("/v1/kv/a"))
				b = appendFrame(b, h2Reset, 0, stream, []byte{0, 0, 0, 8})
			}
			return b
		}},
		{"continuations", true, true, func(i int) []byte {
			if i == 0 {
				return appendFrame(nil, h2Headers, h2EndStream, 1, h2Get("/livez"))
			}
			return appendFrame(nil, h2Continuation, 0, 1, bytes.Repeat(field, 8))
		}},
		{"empty continuations", true, false, func(i int) []byte {
			switch i {
			case 0:
				return appendFrame(nil, h2Headers, h2EndStream, 1, h2Get("/livez"))
			case 2000:
				return appendFrame(nil, h2Continuation, h2EndHeaders, 1, nil)
			case 2001:
				return nil
			}
			return bytes.Repeat(appendFrame(nil, h2Continuation, 0, 1, nil), 100)
		}},
		{"settings whose answers nobody reads", false, false, func(i int) []byte {
			if i == 2000 {
				return nil
			}
			return bytes.Repeat(appendFrame(nil, h2Settings, 0, 0, nil), 100)
		}},
		{"pings whose answers nobody reads", false, true, func(int) []byte {
			return bytes.Repeat(appendFrame(nil, h2Ping, 0, 0, make([]byte, 8)), 100)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtime.GC()
			var before, now runtime.MemStats
			runtime.ReadMemStats(&before)
			conn := k.dial()
			conn.send(h2Preface + string(appendFrame(nil, h2Settings, 0, 0, nil)))
			over := make(chan bool, 1)
			go func() { over <- flood(conn.conn, c.drain, c.next) }()
			served, most := 0, uint64(0)
			var ended bool
			for running := true; running; {
				select {
				case ended = <-over:
					running = false
				default:
				}
				if a := k.do("GET", "/v1/kv/a", nil); a.StatusCode != 200 || string(a.body) != "x" {
					t.Fatalf("another client got %d %s", a.StatusCode, a.body)
				}
				served++
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
			t.Logf("ended by the server: %v; %d requests of another client meanwhile; %d KiB at most, %d before",
				ended, served, most>>10, before.HeapAlloc>>10)
			if c.ends && !ended {
				t.Error("the server took all of it")
			}
			if most > before.HeapAlloc+96<<20 {
				t.Errorf("the heap grew from %d to %d bytes", before.HeapAlloc, most)
			}
		})
	}
	k.stillServes()
}

// a peer that opens no window for its answers, and goes on speaking
// otherwise, does not hold them for ever. Each is given up by itself.
func TestAbuseByClosedWindows(t *testing.T) {
	k := newKit(t, func(c *Config) { c.WriteTimeout = 50 * time.Millisecond })
	for i := range 4 {
		k.put(fmt.Sprint("large", i), strings.Repeat("v", 64<<10))
	}
	for _, c := range []struct{ name, path, accept string }{
		{"a value", "/v1/kv/large0", ""},
		{"a page", "/v1/kv?prefix=large", ""},
		{"a stream", "/v1/kv?prefix=large", "application/x-ndjson"},
	} {
		conn := k.dial()
		conn.send(h2Preface + string(appendFrame(nil, h2Settings, 0, 0, []byte{0, 4, 0, 0, 0, 0}))) // INITIAL_WINDOW_SIZE 0
		for n := range uint32(maxStreams) {
			block := h2Get(c.path)
			if c.accept != "" {
				block = append(append(append(block, 0x00, 6), "accept"...), byte(len(c.accept)))
				block = append(block, c.accept...)
			}
			conn.send(string(appendFrame(nil, h2Headers, h2EndStream|h2EndHeaders, 2*n+1, block)))
		}
		for given := 0; given < maxStreams; {
			var head [9]byte
			if _, err := io.ReadFull(conn.r, head[:]); err != nil {
				t.Fatalf("%s: after %d: %v", c.name, given, err)
			}
			size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
			if _, err := io.CopyN(io.Discard, conn.r, size); err != nil {
				t.Fatal(err)
			}
			switch head[3] {
			case h2Reset:
				given++
			case h2Ping:
				conn.send(string(appendFrame(nil, h2Ping, 1, 0, make([]byte, size))))
			}
		}
	}
	k.stillServes()
}
