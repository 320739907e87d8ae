package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/testkit"
)

// wantShed sends a request and holds the answer to what all have that refuse one
// too many.
func (k *kit) wantShed(reason shedReason, method, target string, body []byte) {
	t := k.t
	t.Helper()
	before := k.sheds(reason)
	a := k.do(method, target, body)
	a.want(t, 429, api.CodeBusy)
	if a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
	}
	if p := a.problem(t); p.RetryAfterSeconds != 1 || p.Limit == 0 {
		t.Errorf("the problem tells neither when to come again nor the limit: %+v", p)
	}
	if n := k.sheds(reason) - before; n != 1 {
		t.Errorf("%d requests were counted as refused for %s, want 1", n, reason)
	}
}

// sheds is how many requests were refused for a reason, as the metrics say.
func (k *kit) sheds(reason shedReason) (n int) {
	k.t.Helper()
	_, rest, found := strings.Cut(string(k.do("GET", "/metrics", nil).body), fmt.Sprintf("cairn_http_shed_total{reason=%q} ", string(reason)))
	if !found {
		k.t.Fatalf("no metric counts what is refused for %s", reason)
	}
	_, err := fmt.Sscan(rest, &n)
	must(k.t, err)
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// idle waits until nothing of a request is left.
func (k *kit) idle(t *testing.T) {
	t.Helper()
	a := k.server.admission
	testkit.Eventually(t, "all that was taken on is given back", func() bool {
		return a.requests.Load() == 0 && a.streams.Load() == 0 && a.held.Load() == 0 && a.bodies.Load() == 0 && len(a.pages) == 0
	})
}

// TestStreamsAreBounded opens watches until the next one is refused. Requests are
// served beside them, and there is room again when one ends, over HTTP/1.1, where
// watches take their connection over, as over HTTP/2.
func TestStreamsAreBounded(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			k := newKit(t, func(c *Config) { c.MaxConnections = 10 })
			client := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
			client.Transport.(*http.Transport).Protocols.SetHTTP1(protocol == "HTTP/1.1")
			client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(protocol != "HTTP/1.1")
			defer client.CloseIdleConnections()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			open := func() *http.Response {
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.addr+"/v1/watch", nil)
				must(t, err)
				answer, err := client.Do(r)
				must(t, err)
				if answer.Proto != protocol {
					t.Fatalf("the answer is %s", answer.Proto)
				}
				return answer
			}
			var watches []*http.Response
			for range 8 { // streamsPercent of ten
				w := open()
				if w.StatusCode != 200 {
					t.Fatalf("watch %d is answered %s", len(watches)+1, w.Status)
				}
				watches = append(watches, w)
			}
			k.wantShed(shedStreams, "GET", "/v1/watch", nil)
			k.put("k", "v")
			k.do("GET", "/livez", nil).want(t, 200, "")
			must(t, watches[0].Body.Close())
			testkit.Eventually(t, "there is room for another watch", func() bool {
				w := open()
				defer w.Body.Close()
				return w.StatusCode == 200
			})
			cancel()
			k.idle(t)
		})
	}
}

// TestRequestsAreBounded lets bodies hang until the next request is refused, over
// one connection of HTTP/2. Probes are answered, and all is given back.
func TestRequestsAreBounded(t *testing.T) {
	k := newKit(t, func(c *Config) { c.MaxConnections = 10 })
	client := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	var hanging []*io.PipeWriter
	for range 10 {
		body, w := io.Pipe()
		hanging = append(hanging, w)
		r, err := http.NewRequest(http.MethodPut, "http://"+k.addr+"/v1/kv/hangs", body)
		must(t, err)
		wg.Go(func() {
			answer, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if answer.StatusCode > 201 {
				t.Errorf("a slow body is answered %s", answer.Status)
			}
		})
	}
	testkit.Eventually(t, "ten requests are under way", func() bool { return k.server.admission.requests.Load() == 10 })
	k.wantShed(shedRequests, "GET", "/v1/kv/hangs", nil)
	for _, probe := range []string{"/livez", "/readyz", "/metrics", "/v1/status"} {
		k.do("GET", probe, nil).want(t, 200, "")
	}
	for _, w := range hanging {
		must(t, w.Close())
	}
	wg.Wait()
	k.idle(t)
}

// TestMemoryIsBounded takes the memory for large bodies and answers away. What is
// large is refused, and nothing of it applied; what is small is not; a write that
// was applied is answered whatever its size.
func TestMemoryIsBounded(t *testing.T) {
	k := newKit(t)
	large := strings.Repeat("x", 100<<10)
	k.put("large", large)
	a := k.server.admission
	a.held.Store(maxHeldBytes)
	k.wantShed(shedMemory, "GET", "/v1/kv/large", nil)
	k.wantShed(shedMemory, "GET", "/v1/kv?prefix=large", nil)
	k.put("small", "v")
	k.do("DELETE", "/v1/kv/large?prev=true", nil).want(t, 200, "")
	a.held.Add(-maxHeldBytes)

	for name, left := range map[string]int64{"what is announced has no room": 1, "what is announced has, its buffer not": int64(len(large))} {
		a.bodies.Store(maxHeldBodyBytes - left)
		k.wantShed(shedMemory, "PUT", "/v1/kv/new", []byte(large))
		testkit.Eventually(t, name+": what was counted is given back", func() bool { return a.bodies.Load() == maxHeldBodyBytes-left })
		k.do("GET", "/v1/kv/new", nil).want(t, 404, api.CodeKeyNotFound)
		k.put("small", "w")
	}
	a.bodies.Store(0)
	k.put("new", large)
	k.idle(t)
}

// TestPagesAreBounded takes all the places in which lists are read.
func TestPagesAreBounded(t *testing.T) {
	k := newKit(t)
	k.put("k", "v")
	pages := k.server.admission.pages
	for range maxPagesRead {
		pages <- struct{}{}
	}
	k.wantShed(shedPages, "GET", "/v1/kv", nil) // after a wait
	k.server.admission.pagesWaiting.Store(maxPagesWaiting)
	k.wantShed(shedPages, "GET", "/v1/kv", nil)
	k.server.admission.pagesWaiting.Store(0)
	var wg sync.WaitGroup
	wg.Go(func() { <-pages })
	k.do("GET", "/v1/kv", nil).want(t, 200, "")
	wg.Wait()
	for len(pages) > 0 {
		<-pages
	}
	k.idle(t)
}

// TestBrokenStreamsAreGivenBack breaks requests off in all the ways that leave a
// handler early, and wants nothing of them counted afterwards.
func TestBrokenStreamsAreGivenBack(t *testing.T) {
	k := newKit(t)
	var lease api.Lease
	k.do("POST", "/v1/leases", []byte(`{"ttl_seconds":60}`), "Content-Type: application/json").read(t, &lease)
	for _, request := range []string{
		"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n",
		fmt.Sprintf("POST /v1/leases/%s/hold HTTP/1.1\r\nHost: localhost\r\n\r\n", lease.ID),
		"GET /v1/elections/e/observe HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /v1/kv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"put\r\n",
	} {
		conn, err := net.Dial("tcp", k.addr)
		must(t, err)
		_, err = io.WriteString(conn, request)
		must(t, err)
		if !strings.HasPrefix(request, "POST /v1/kv") {
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.Contains(line, "200") {
				t.Errorf("%.30q is answered %q, %v", request, line, err)
			}
		}
		testkit.Eventually(t, "the stream is counted", func() bool { return k.server.admission.streams.Load() == 1 })
		must(t, conn.Close())
		k.idle(t)
	}
}
