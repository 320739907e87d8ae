package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/leases"
)

// A kit is a server over a member, and a client whose every exchange is held
// against the contract.
type kit struct {
	t      testing.TB
	member *member
	clock  *clock
	server *Server
	addr   string
	scheme string
	client *http.Client
	// contract holds an exchange against openapi.yaml.
	contract *contractRoundTripper
}

// newKit starts a server on the loopback. change, when given, adapts its
// configuration.
func newKit(t testing.TB, change ...func(*Config)) *kit {
	t.Helper()
	return newKitOn(t, newMember(t), change...)
}

func newKitOn(t testing.TB, m *member, change ...func(*Config)) *kit {
	t.Helper()
	k := &kit{t: t, member: m, clock: &clock{now: testStart}, scheme: "http"}
	holds := leases.StartRenewer(m, slog.New(slog.DiscardHandler))
	registry := prometheus.NewRegistry()
	cfg := Config{
		Store: m, Cluster: &fixedCluster{}, Watchers: m.hub, Holds: holds, MemberID: testMember.String(), ClusterID: testCluster.String(), Version: "0.0.0-test",
		OpenAPI: contractText(t), CursorKey: [32]byte{1, 2, 3}, Now: k.clock.Now,
		Registerer: registry, Gatherer: registry,
		ExtraMetrics: func(w io.Writer) { _, _ = io.WriteString(w, "extra_metric 1\n") },
	}
	for _, c := range change {
		c(&cfg)
	}
	k.server = New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- k.server.Serve(l) }()
	transport := &http.Transport{DisableCompression: true}
	k.contract = &contractRoundTripper{t, loadContract(t), transport}
	k.client = &http.Client{
		Transport:     k.contract,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := k.server.Shutdown(ctx); err != nil {
			t.Errorf("shutting down: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: got %v, want %v", err, http.ErrServerClosed)
		}
		if n := holds.Held(); n != 0 {
			t.Errorf("%d leases are held without a connection", n)
		}
		holds.Close()
		if n := m.views.Load(); n != 0 {
			t.Errorf("%d views were not closed", n)
		}
	})
	return k
}

// An answer is a response with its body read.
type answer struct {
	*http.Response
	body []byte
}

// do sends a request whose target goes out byte for byte. Headers are given as
// "Name: value".
func (k *kit) do(method, target string, body []byte, headers ...string) *answer {
	k.t.Helper()
	path, query, _ := strings.Cut(target, "?")
	req := &http.Request{
		Method: method, Host: k.addr, Header: http.Header{},
		URL: &url.URL{Scheme: k.scheme, Host: k.addr, Opaque: path, RawQuery: query},
	}
	if body != nil {
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.ContentLength = int64(len(body))
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		if value = strings.TrimSpace(value); strings.EqualFold(name, "Host") {
			req.Host = value
			continue
		}
		req.Header.Add(name, value)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		k.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatalf("%s %s: reading the answer: %v", method, target, err)
	}
	return &answer{resp, b}
}

// want checks the status, and the code of a problem.
func (a *answer) want(t testing.TB, status int, code api.Code) {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("got status %d, want %d; body: %.300s", a.StatusCode, status, a.body)
	}
	if got := a.problem(t).Code; got != code {
		t.Fatalf("got code %q, want %q; body: %.300s", got, code, a.body)
	}
}

// problem reads the body as a problem; of a success it is empty.
func (a *answer) problem(t testing.TB) (p api.Problem) {
	t.Helper()
	if a.StatusCode < 400 {
		return p
	}
	a.read(t, &p)
	return p
}

func (a *answer) read(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("reading %.300q: %v", a.body, err)
	}
}

// put writes a key and returns the revision.
func (k *kit) put(key, value string) uint64 {
	k.t.Helper()
	a := k.do("PUT", "/v1/key?key="+url.QueryEscape(key), []byte(value))
	var r api.PutResult
	if a.StatusCode > 201 {
		k.t.Fatalf("put %q: %d %s", key, a.StatusCode, a.body)
	}
	a.read(k.t, &r)
	return r.Revision
}

func contractText(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}
