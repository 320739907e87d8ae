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
	"github.com/cairnkv/cairn/kv"
)

// wantShed sends a request and holds the answer to what all have that refuse one
// too many.
func (k *kit) wantShed(reason shedReason, method, target string, body []byte, headers ...string) {
	t := k.t
	t.Helper()
	before := k.sheds(reason)
	a := k.do(method, target, body, headers...)
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
		if !a.answers.TryAcquire(maxHeldBytes) {
			return false
		}
		a.answers.Release(maxHeldBytes)
		return a.requests.Load() == 0 && a.streams.Load() == 0 && a.held.Load() == 0 && a.bodies.Load() == 0 && a.lines.Load() == 0 && len(a.pages) == 0
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
	k.wantShed(shedMemory, "POST", "/v1/txn", []byte(`{"then":[{"get":{"key":"large"}}]}`), "Content-Type: application/json")
	k.do("POST", "/v1/txn", []byte(`{"then":[{"get":{"key":"large"}},{"put":{"key":"small","value":"w"}}]}`), "Content-Type: application/json").want(t, 200, "")
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

// TestLargeWritesAreRefusedUnread announces large writes to a node on which too much waits
// already: they are refused before any of them has arrived. Small ones, which cost little,
// and what is wrong in any case, are answered as ever.
func TestLargeWritesAreRefusedUnread(t *testing.T) {
	k := newKit(t)
	k.member.full = func(bytes int) error {
		if bytes == 100<<10 {
			return &kv.Error{Code: kv.Busy, Detail: "too many", RetryAfterSeconds: 3}
		}
		return nil
	}
	for _, request := range []string{"PUT /v1/kv/k", "POST /v1/txn"} {
		w := k.dial()
		w.send(request + " HTTP/1.1\r\n" + host + "Content-Type: application/json\r\nContent-Length: 102400\r\n\r\n")
		r, body := w.answer()
		if r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "3" || !strings.Contains(body, `"code":"busy"`) {
			t.Errorf("%s: %s %v %s", request, r.Status, r.Header, body)
		}
	}
	k.do("PUT", "/v1/kv/k?lease=wrong", make([]byte, 100<<10)).want(t, 400, api.CodeInvalidArgument)
	k.do("GET", "/v1/kv/k", nil).want(t, 404, api.CodeKeyNotFound)
	k.put("k", strings.Repeat("v", 100<<10-1))
	k.idle(t)
	if n := k.sheds(shedCluster); n != 2 {
		t.Errorf("%d requests were counted as shed, want 2", n)
	}
}

// TestBulkMemoryIsBounded takes the memory for the lines of bulk writes away while
// they come: what was complete before is applied, and the answer says which lines
// were not.
func TestBulkMemoryIsBounded(t *testing.T) {
	k := newKit(t)
	a := k.server.admission
	a.lines.Store(maxHeldLineBytes - 2<<20)
	lines := manyLines(60, 64<<10) // about 4 MiB, five transactions
	blocked := make(chan struct{})
	k.member.proposing = func(*kv.Command) error { <-blocked; return nil }
	go func() {
		testkit.Eventually(t, "lines are counted", func() bool { return a.lines.Load() > maxHeldLineBytes-1<<20 })
		a.lines.Add(1 << 20)
		close(blocked)
	}()
	r := final(k.bulk(lines))
	if *r.Done || r.Applied == 0 || r.Applied >= 60 || r.Error == nil || r.Error.Code != api.CodeBusy ||
		!strings.Contains(r.Error.Detail, fmt.Sprintf("the lines from %d on", r.Applied+1)) {
		t.Errorf("%+v, %+v", r, r.Error)
	}
	a.lines.Store(0)
	k.member.proposing = nil
	if r := final(k.bulk(lines)); !*r.Done || r.Applied != 60 {
		t.Errorf("with room: %+v, %+v", r, r.Error)
	}
	k.idle(t)
}

// TestBodiesAreGivenBack: what waits for long holds no body any more, but what it
// still needs of it, also over HTTP/2, where the request goes on.
func TestBodiesAreGivenBack(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			k := newKit(t)
			client := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
			client.Transport.(*http.Transport).Protocols.SetHTTP1(protocol == "HTTP/1.1")
			client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(protocol != "HTTP/1.1")
			defer client.CloseIdleConnections()
			var keys, leaseIDs []string
			for i := range 1000 {
				keys = append(keys, fmt.Sprintf(`{"key":%q}`, fmt.Sprintf("%0100d", i)))
			}
			for range 2000 {
				var lease api.Lease
				k.do("POST", "/v1/leases", []byte(`{"ttl_seconds":60}`), "Content-Type: application/json").read(t, &lease)
				leaseIDs = append(leaseIDs, fmt.Sprintf("%q", lease.ID))
			}
			k.do("POST", "/v1/elections/e", []byte(`{"ttl_seconds":60,"value":"first"}`), "Content-Type: application/json").want(t, 200, "")
			watches := fmt.Sprintf(`"watches":[%s]`, strings.Join(keys, ","))
			value := strings.Repeat("v", 100<<10)
			for _, c := range []struct {
				name, path, body string
				held             int64
			}{
				{"a watch", "/v1/watch", "{" + watches + "}", 1000 * (201 + watchedBytes)},
				{"a long poll", "/v1/watch", `{"wait_seconds":60,` + watches + "}", 1000 * (201 + watchedBytes)},
				{"a campaign", "/v1/elections/e", fmt.Sprintf(`{"ttl_seconds":60,"wait_seconds":60,"value":%q}`, value), int64(len(value))},
				{"a hold", "/v1/leases/hold", fmt.Sprintf(`{"ids":[%s]}`, strings.Join(leaseIDs, ",")), 2000 * heldLeaseBytes},
			} {
				ctx, cancel := context.WithCancel(t.Context())
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+k.addr+c.path, strings.NewReader(c.body))
				must(t, err)
				r.Header.Set("Content-Type", api.TypeJSON)
				var wg sync.WaitGroup
				wg.Go(func() {
					if resp, err := client.Do(r); err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				})
				a := k.server.admission
				testkit.Eventually(t, c.name+" holds what it needs, and no body", func() bool {
					return a.held.Load() == c.held && a.bodies.Load() == 0
				})
				cancel()
				wg.Wait()
				k.idle(t)
			}
		})
	}
}

// A write whose answer may be large waits for memory for it before it is proposed, and
// holds it until its answer is written, whatever becomes of that.
func TestAnswersOfWritesAreBounded(t *testing.T) {
	k := newKit(t)
	k.put("a", "1")
	a := k.server.admission
	large := map[string]string{
		"POST /v1/txn":                `{"then":[{"get":{"prefix":"a"}}]}`,
		"POST /v1/txn ":               `{"if":[{"key":"a","exists":true}],"then":[{"txn":{"then":[{"get":{"key":"a"}}]}}]}`,
		"PUT /v1/kv/a?prev=true":      "2",
		"DELETE /v1/kv/a?prev=true":   "",
		"DELETE /v1/kv?prefix=a&prev": "",
	}
	small := map[string]string{
		"POST /v1/txn":    `{"then":[{"get":{"prefix":"a","count_only":true}},{"put":{"key":"b","value":"1"}},{"delete":{"prefix":"c"}}]}`,
		"PUT /v1/kv/b":    "2",
		"DELETE /v1/kv/c": "",
	}
	// A range that is limited to little may answer little.
	var first kv.Query
	first.Limit = 1
	if n := mostAnswered(&kv.Txn{Then: []kv.Op{{Type: kv.OpGet, Query: &first}}}); n != kv.MaxValueBytes+kv.MaxKeyBytes+kv.ResultEntryBytes {
		t.Errorf("one entry with its value takes %d", n)
	}
	first.KeysOnly = true
	if n := mostAnswered(&kv.Txn{Else: []kv.Op{{Type: kv.OpGet, Query: &first}}}); n != kv.MaxKeyBytes+kv.ResultEntryBytes {
		t.Errorf("one entry without takes %d", n)
	}
	do := func(what, body string) (method, target string, b []byte, headers []string) {
		method, target, _ = strings.Cut(strings.TrimSpace(what), " ")
		if method == "POST" {
			headers = []string{"Content-Type: application/json"}
		}
		return method, target, []byte(body), headers
	}
	must(t, a.answers.Acquire(t.Context(), maxHeldBytes))
	before, _ := k.member.Revisions()
	for what, body := range large {
		method, target, b, headers := do(what, body)
		k.wantShed(shedMemory, method, target, b, headers...)
	}
	if after, _ := k.member.Revisions(); after != before {
		t.Errorf("%d revisions were made", after-before)
	}
	for what, body := range small {
		method, target, b, headers := do(what, body)
		if answer := k.do(method, target, b, headers...); answer.StatusCode >= 300 {
			t.Errorf("%s: %d %s", what, answer.StatusCode, answer.body)
		}
	}
	a.answers.Release(maxHeldBytes)
	for what, body := range large {
		k.put("a", "1")
		method, target, b, headers := do(what, body)
		if answer := k.do(method, target, b, headers...); answer.StatusCode >= 300 {
			t.Errorf("%s: %d %s", what, answer.StatusCode, answer.body)
		}
	}
	k.do("POST", "/v1/txn", []byte(`{"then":[{"get":{"prefix":"a","revision":99}}]}`), "Content-Type: application/json").want(t, 400, api.CodeFutureRevision)
	k.idle(t)
}

// TestMetricsAreBounded takes all the places in which metrics are read.
func TestMetricsAreBounded(t *testing.T) {
	k := newKit(t)
	k.server.admission.scrapes.Store(maxScrapes)
	k.do("GET", "/metrics", nil).want(t, 429, api.CodeBusy)
	k.server.admission.scrapes.Store(maxScrapes - 1)
	k.do("GET", "/metrics", nil).want(t, 200, "")
}

// TestPagesAreBounded takes all the places in which lists are read.
func TestPagesAreBounded(t *testing.T) {
	k := newKit(t)
	k.put("k", "v")
	pages := k.server.admission.pages
	for range maxPagesRead {
		pages <- struct{}{}
	}
	k.do("POST", "/v1/leases", []byte(`{"ttl_seconds":60,"id":"5"}`), sendsJSON).want(t, 201, "")
	k.wantShed(shedPages, "GET", "/v1/kv", nil) // after a wait
	k.server.admission.pagesWaiting.Store(maxPagesWaiting)
	for _, target := range []string{
		"/v1/kv", "/v1/leases", "/v1/leases/5?keys=true", "/v1/services", "/v1/services/s", "/v1/services/s?tag=t",
		"/v1/locks/l", "/v1/elections/e",
	} {
		k.wantShed(shedPages, "GET", target, nil)
	}
	k.do("GET", "/v1/leases/5", nil).want(t, 200, "") // is no list
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

// Sorted lists and hashes have few places of their own, and take none of the others.
func TestSortsAndHashesAreBounded(t *testing.T) {
	k := newKit(t)
	k.put("k", "v")
	for target, reads := range map[string]chan struct{}{
		"/v1/kv?sort=mod": k.server.admission.sorts, "/v1/hash": k.server.admission.hashes,
	} {
		for range cap(reads) {
			reads <- struct{}{}
		}
		k.wantShed(shedPages, "GET", target, nil)
		k.do("GET", "/v1/kv", nil).want(t, 200, "")
		for range cap(reads) {
			<-reads
		}
		k.do("GET", target, nil).want(t, 200, "")
		if len(reads) != 0 {
			t.Errorf("%s keeps its place", target)
		}
	}
}

// Who reads a page slowly holds up nobody who wants one.
func TestPagesAreLetGoBeforeTheyAreSent(t *testing.T) {
	k := newKit(t)
	for i := range 6 {
		k.put("k", strings.Repeat("v", 1<<20-1)+fmt.Sprint(i))
	}
	for _, target := range []string{"/v1/history/k", "/v1/kv"} {
		w := k.dial()
		w.send("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if line, err := w.r.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
			t.Fatal(line, err)
		}
		if n := len(k.server.admission.pages); n != 0 {
			t.Errorf("%s: %d places are taken", target, n)
		}
		_ = w.conn.Close()
	}
}

// TestListsLetGoBeforeTheAnswer asks for lists that are larger than what a connection
// holds, and takes nothing of them: neither a view nor a place among those that read is
// held for it.
func TestListsLetGoBeforeTheAnswer(t *testing.T) {
	k := newKit(t)
	k.do("POST", "/v1/leases", []byte(`{"ttl_seconds":60,"id":"5"}`), sendsJSON).want(t, 201, "")
	v, err := k.member.View()
	must(t, err)
	id, _, err := v.LeaseByNumber(5)
	v.Close()
	must(t, err)
	address := strings.Repeat("a", 60_000)
	for i := range 1000 {
		ops := []kv.Op{{Type: kv.OpPut, Key: fmt.Appendf(nil, "%03d%s", i, address[:8000]), Lease: id}}
		if i < 400 {
			ops = append(ops, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "_cairn/services/s/%03d", i), Value: fmt.Appendf(nil, `{"address":%q,"tags":["t"]}`, address)})
		}
		k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: ops}})
	}
	for _, target := range []string{"/v1/services/s?limit=1000", "/v1/services/s?limit=1000&tag=t", "/v1/leases/5?keys=true&limit=1000"} {
		conn, err := net.Dial("tcp", k.addr)
		must(t, err)
		must(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target)
		must(t, err)
		line, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
		if err != nil || !strings.Contains(line, "200") {
			t.Errorf("%s is answered %q, %v", target, line, err)
		}
		if requests, views, pages := k.server.admission.requests.Load(), k.member.views.Load(), len(k.server.admission.pages); requests != 1 || views != 0 || pages != 0 {
			t.Errorf("%s: of %d requests, %d hold a view and %d a place", target, requests, views, pages)
		}
		must(t, conn.Close())
		k.idle(t)
	}
}

// TestReadsHaveTheirTime reads instances of which none has the tag.
func TestReadsHaveTheirTime(t *testing.T) {
	k := newKit(t, func(c *Config) { c.ReadTimeout = -1 })
	k.do("GET", "/v1/services/s?tag=t", nil).want(t, 503, api.CodeReadTimeout)
	k.do("GET", "/v1/services/s", nil).want(t, 503, api.CodeReadTimeout)
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
