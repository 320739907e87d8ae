package sse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// readAll renders what a reader hands out: type, id and data of each event.
func readAll(r io.Reader, max int) (string, *Reader, error) {
	var out strings.Builder
	reader := NewReader(r, max)
	for {
		e, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return out.String(), reader, nil
		}
		if err != nil {
			return out.String(), reader, err
		}
		fmt.Fprintf(&out, "%s|%s|%q\n", e.Type, e.ID, e.Data)
	}
}

func TestReader(t *testing.T) {
	for _, c := range []struct{ name, stream, want, lastID string }{
		{"plain", "data: a\n\n", "message||\"a\"\n", ""},
		{"no space", "data:a\n\n", "message||\"a\"\n", ""},
		{"one space only is taken off", "data:  a\n\n", "message||\" a\"\n", ""},
		{"lines join", "data: a\ndata: b\n\n", "message||\"a\\nb\"\n", ""},
		{"empty data field dispatches", "data\n\n", "message||\"\"\n", ""},
		{"typed with id", "id: 7\nevent: change\ndata: x\n\n", "change|7|\"x\"\n", "7"},
		{"id stays", "id: 7\ndata: x\n\ndata: y\n\n", "message|7|\"x\"\nmessage|7|\"y\"\n", "7"},
		{"id without data", "id: 9\n\n", "", "9"},
		{"type without data is forgotten", "event: a\n\ndata: x\n\n", "message||\"x\"\n", ""},
		{"empty id resets", "id: 7\ndata: x\n\nid\ndata: y\n\n", "message|7|\"x\"\nmessage||\"y\"\n", ""},
		{"NUL in id", "id: 1\n\nid: a\x00b\ndata: x\n\n", "message|1|\"x\"\n", "1"},
		{"comment", ": connected\n\n:\ndata: x\n\n", "message||\"x\"\n", ""},
		{"unknown field", "foo: bar\ndata: x\n\n", "message||\"x\"\n", ""},
		{"cut off", "data: x\n\nid: 8\ndata: y\n", "message||\"x\"\n", ""},
		{"carriage returns", "data: a\r\rdata: b\r\n\r\ndata: c\n\n", "message||\"a\"\nmessage||\"b\"\nmessage||\"c\"\n", ""},
		{"byte order mark", "\uFEFFdata: a\n\n", "message||\"a\"\n", ""},
		{"colon in the value", "data: {\"a\":1}\n\n", "message||\"{\\\"a\\\":1}\"\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for split, r := range map[string]io.Reader{
				"whole": strings.NewReader(c.stream), "bytes": iotest.OneByteReader(strings.NewReader(c.stream)),
			} {
				got, reader, err := readAll(r, 1<<20)
				if err != nil || got != c.want || reader.LastEventID() != c.lastID {
					t.Errorf("%s: got %q, id %q, %v; want %q, id %q", split, got, reader.LastEventID(), err, c.want, c.lastID)
				}
			}
		})
	}
}

func TestReaderRetry(t *testing.T) {
	_, r, _ := readAll(strings.NewReader("retry: 2740\n\nretry: +5\n\nretry: x\n\nretry:\n\n"), 100)
	if r.Retry() != 2740*time.Millisecond {
		t.Errorf("retry is %v", r.Retry())
	}
}

// A complete event is handed out before the byte after its last CR has come.
func TestReaderDoesNotWaitBehindCR(t *testing.T) {
	r, w := io.Pipe()
	go func() { _, _ = w.Write([]byte("data: x\r\r")) }()
	e, err := NewReader(r, 100).Next()
	if err != nil || string(e.Data) != "x" {
		t.Fatalf("got %q, %v", e.Data, err)
	}
}

func TestReaderBound(t *testing.T) {
	for name, stream := range map[string]string{
		"line":  "data: " + strings.Repeat("x", 100000) + "\n\n",
		"lines": strings.Repeat("data: xxxxxxxxxx\n", 200) + "\n",
		"other": strings.Repeat("y", 100000),
	} {
		if _, _, err := readAll(strings.NewReader(stream), 1000); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAppend(t *testing.T) {
	b := AppendComment(nil, "connected")
	b = AppendRetry(b, 2740*time.Millisecond)
	b = AppendEvent(b, "813", "change", []byte(`{"revision":813}`))
	b = AppendEvent(b, "", "", []byte("a\r\nb\rc\n"))
	want := ": connected\n\nretry: 2740\n\nid: 813\nevent: change\ndata: {\"revision\":813}\n\ndata: a\ndata: b\ndata: c\ndata: \n\n"
	if string(b) != want {
		t.Errorf("got  %q\nwant %q", b, want)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("1", "change", []byte("a\nb"))
	f.Add("", "", []byte{})
	f.Fuzz(func(t *testing.T, id, event string, data []byte) {
		if strings.ContainsAny(id, "\r\n\x00") || strings.ContainsAny(event, "\r\n") {
			return
		}
		stream := AppendEvent(AppendComment(nil, "x"), id, event, data)
		e, err := NewReader(bytes.NewReader(stream), 1<<20).Next()
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
		if event == "" {
			event = "message"
		}
		if e.ID != id || e.Type != event || !bytes.Equal(e.Data, want) {
			t.Fatalf("got %+v, want id %q type %q data %q", e, id, event, want)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("id: 1\ndata: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		// However it is cut into reads, a stream says the same.
		whole, _, err1 := readAll(bytes.NewReader(stream), 64)
		bytewise, _, err2 := readAll(iotest.OneByteReader(bytes.NewReader(stream)), 64)
		if whole != bytewise || errors.Is(err1, ErrTooLarge) != errors.Is(err2, ErrTooLarge) {
			t.Fatalf("%q, %v\n%q, %v", whole, err1, bytewise, err2)
		}
	})
}
