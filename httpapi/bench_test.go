package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/cairnkv/cairn/kv"
)

// A fixedStore answers at once, so that what is measured is this package.
type fixedStore struct {
	Store
	entry  kv.Entry
	result kv.Result
}

func (s *fixedStore) Propose(context.Context, *kv.Command) (*kv.Result, error) { return &s.result, nil }
func (s *fixedStore) Wait(context.Context, kv.Consistency) error               { return nil }
func (s *fixedStore) Revisions() (uint64, uint64)                              { return 9, 1 }
func (s *fixedStore) Serving() error                                           { return nil }
func (s *fixedStore) Get(key []byte) (kv.Entry, bool, uint64, error) {
	e := s.entry
	e.Key = key
	return e, true, 9, nil
}

// A discard is a ResponseWriter that keeps its headers, as that of a connection
// does not: it is cleared before each request.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// A body that is read again and again.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.at == len(r.text) {
		return 0, io.EOF
	}
	n := copy(b, r.text[r.at:])
	r.at += n
	return n, nil
}

func (r *repeated) Close() error { return nil }

// hotRequest returns a function that serves one request of a hot route.
func hotRequest(method, target, body string) func() {
	s := New(Config{
		Store: &fixedStore{
			entry:  kv.Entry{Value: []byte("value"), ContentType: "text/plain", CreateRevision: 7, ModRevision: 9, Version: 2},
			result: kv.Result{Succeeded: true, Revision: 9, Ops: []kv.OpResult{{Type: kv.OpPut, Created: true, Deleted: 1}}},
		},
		MemberID: testMember.String(),
	})
	u, err := url.ParseRequestURI(target)
	if err != nil {
		panic(err)
	}
	content := &repeated{text: body}
	r := &http.Request{
		Method: method, URL: u, Host: "127.0.0.1:7480", Header: http.Header{"Content-Type": {"text/plain"}},
		Body: content, ContentLength: int64(len(body)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	w := &discard{http.Header{}}
	return func() {
		clear(w.header)
		content.at = 0
		s.ServeHTTP(w, r)
	}
}

var hotRequests = []struct {
	name, method, target, body string
	allocations                float64
}{
	{"get", "GET", "/v1/kv/app/config", "", 2},
	{"get by query", "GET", "/v1/key?key=app%2Fconfig", "", 7},
	{"get stale", "GET", "/v1/kv/app/config?consistency=stale", "", 2},
	{"put", "PUT", "/v1/kv/app/config", "value", 2},
	{"delete", "DELETE", "/v1/kv/app/config", "", 2},
}

// TestAllocations holds the hot routes to what they allocate: the values of the
// headers, which net/http keeps beyond the request, and the content type.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not what they are under the race detector")
	}
	for _, c := range hotRequests {
		serve := hotRequest(c.method, c.target, c.body)
		serve()
		if got := testing.AllocsPerRun(200, serve); got > c.allocations {
			t.Errorf("%s: %v allocations, want at most %v", c.name, got, c.allocations)
		}
	}
}

func BenchmarkHandler(b *testing.B) {
	for _, c := range hotRequests {
		b.Run(c.name, func(b *testing.B) {
			serve := hotRequest(c.method, c.target, c.body)
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}
