package client_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/node"
)

// A script is a node that answers as it is told, one step a request. It counts
// what it got.
type script struct {
	t   testing.TB
	url string

	mu    sync.Mutex
	steps []step
	got   []received
}

// A step answers one request.
type step func(http.ResponseWriter, *http.Request)

type received struct {
	method, target, idempotencyKey, lastEventID, body string
}

func newScript(t testing.TB, steps ...step) *script {
	t.Helper()
	s := &script{t: t, steps: steps}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.got = append(s.got, received{r.Method, r.URL.RequestURI(), r.Header.Get("Idempotency-Key"), r.Header.Get("Last-Event-ID"), string(body)})
	var next step
	if len(s.steps) > 0 {
		next, s.steps = s.steps[0], s.steps[1:]
	}
	s.mu.Unlock()
	if next == nil {
		s.t.Errorf("a request that the script has no answer for: %s %s", r.Method, r.URL)
		next = breaks
	}
	next(w, r)
}

// requests is what arrived so far.
func (s *script) requests() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// answers is a success with JSON.
func answers(body string) step {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cairn-Revision", "12")
		_, _ = io.WriteString(w, body)
	}
}

// refuses is a problem of Cairn.
func refuses(code api.Code) step {
	return func(w http.ResponseWriter, _ *http.Request) {
		info, ok := code.Info()
		if !ok {
			panic("no such code: " + code)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(info.Status)
		_ = json.NewEncoder(w).Encode(api.Problem{Code: code, Status: info.Status, Title: info.Title})
	}
}

// breaks closes the connection after the request has arrived.
func breaks(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// says is an answer that is not Cairn's.
func says(status int, text string) step {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// deadEndpoint is an address at which nothing listens.
func deadEndpoint(t testing.TB) string {
	t.Helper()
	return "http://" + testkit.FreeAddress(t)
}

func newClient(t testing.TB, endpoints ...string) *client.Client {
	t.Helper()
	return newClientOf(t, client.Config{Endpoints: endpoints, Timeout: time.Minute})
}

func newClientOf(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// newNode starts a real node, a cluster of one, and returns its URL.
func newNode(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var n *node.Node
	var err error
	// Somebody else may take the port between the choice and its use.
	for range 5 {
		n, err = node.Open(ctx, node.Config{
			DataDir: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", PeerAdvertise: deadEndpoint(t)[len("http://"):], Version: "0.0.0-test",
		})
		if err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	awaitReady(ctx, t, newClient(t, n.URL()))
	return n.URL()
}
