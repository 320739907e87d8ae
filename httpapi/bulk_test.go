package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
)

// bulk sends lines and returns the reports.
func (k *kit) bulk(body []byte, headers ...string) (reports []api.BulkReport) {
	k.t.Helper()
	a := k.do("POST", "/v1/kv", body, append(headers, "Content-Type: application/x-ndjson")...)
	if a.StatusCode != 200 {
		k.t.Fatalf("bulk: %d %s", a.StatusCode, a.body)
	}
	for line := range bytes.Lines(a.body) {
		var r api.BulkReport
		(&answer{a.Response, line}).read(k.t, &r)
		reports = append(reports, r)
	}
	for i, r := range reports {
		if last := i == len(reports)-1; (r.Done != nil) != last {
			k.t.Fatalf("report %d of %d: %+v", i+1, len(reports), r)
		}
	}
	return reports
}

func final(reports []api.BulkReport) api.BulkReport { return reports[len(reports)-1] }

// A bulk write waits while the disk is behind, and other writes don't. If that
// lasts, it says what was not applied.
func TestBulkWaitsForTheDisk(t *testing.T) {
	m := newMember(t)
	k := newKitOn(t, m)
	line := []byte(`{"put":{"key":"many","value":"1"}}`)
	m.behind.Store(true)
	answer := make(chan api.BulkReport)
	go func() { answer <- final(k.bulk(line)) }()
	testkit.Eventually(t, "the bulk write waits", func() bool { return m.asked.Load() > 2 })
	k.put("one", "1")
	k.do("GET", "/v1/kv/many", nil).want(t, 404, api.CodeKeyNotFound)
	m.behind.Store(false)
	if r := <-answer; r.Applied != 1 || !*r.Done {
		t.Errorf("got %+v", r)
	}

	m.behind.Store(true)
	k.server.bulkPatience = time.Millisecond
	r := final(k.bulk([]byte(`{"put":{"key":"never","value":"1"}}`)))
	if r.Applied != 0 || *r.Done || r.Error == nil || r.Error.Code != api.CodeBusy {
		t.Errorf("got %+v", r)
	}
	k.do("GET", "/v1/kv/never", nil).want(t, 404, api.CodeKeyNotFound)
	// Also where a line behind them is wrong.
	r = final(k.bulk([]byte("{\"put\":{\"key\":\"never\",\"value\":\"1\"}}\nno JSON\n")))
	if r.Applied != 0 || *r.Done || r.Error == nil || r.Error.Code != api.CodeBusy || !strings.Contains(r.Error.Detail, "the lines from 1 on") {
		t.Errorf("got %+v", r)
	}
}

// A bulk write is told of the end of the node, whatever it waits for, and says what
// was applied.
func TestBulkOfANodeThatStops(t *testing.T) {
	for name, transport := range transports(t) {
		t.Run(name, func(t *testing.T) {
			m := newMember(t)
			k := newKitOn(t, m)
			body, lines := io.Pipe()
			defer lines.Close()
			answer := make(chan api.BulkReport, 1)
			go func() {
				r, err := http.NewRequest("POST", "http://"+k.addr+"/v1/kv", body)
				if err != nil {
					t.Error(err)
				}
				r.Header.Set("Content-Type", api.TypeNDJSON)
				resp, err := transport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					answer <- api.BulkReport{}
					return
				}
				defer resp.Body.Close()
				var last api.BulkReport
				for d := json.NewDecoder(resp.Body); d.Decode(&last) == nil; {
				}
				answer <- last
			}()
			// The second line of the key is one of the next transaction.
			for i := range 2 {
				if _, err := fmt.Fprintf(lines, "{\"put\":{\"key\":\"a\",\"value\":\"%d\"}}\n", i); err != nil {
					t.Fatal(err)
				}
			}
			testkit.Eventually(t, "the first line is applied", func() bool { return k.do("GET", "/v1/kv/a", nil).StatusCode == 200 })
			k.server.drain()
			r := <-answer
			if r.Applied != 1 || r.Done == nil || *r.Done || r.Error == nil || r.Error.Code != api.CodeShuttingDown || !strings.Contains(r.Error.Detail, "the lines from 2 on") {
				t.Errorf("got %+v, %+v", r, r.Error)
			}
		})
	}
}

// Lines are applied in their order, also those that write a key again, and the
// same body under the same key is applied once.
func TestBulkAgainstTwin(t *testing.T) {
	k := newKit(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		k.do("DELETE", "/v1/kv?all", nil)
		twin := map[string]string{}
		var body strings.Builder
		lines := rapid.IntRange(0, 60).Draw(rt, "lines")
		for i := range lines {
			key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}).Draw(rt, "key")
			if rapid.IntRange(0, 3).Draw(rt, "what") == 0 {
				fmt.Fprintf(&body, "{\"delete\":{\"key\":%q}}\n", key)
				delete(twin, key)
			} else {
				fmt.Fprintf(&body, "{\"put\":{\"key\":%q,\"value\":\"%d\"}}\n", key, i)
				twin[key] = fmt.Sprint(i)
			}
		}
		text := strings.TrimSuffix(body.String(), rapid.SampledFrom([]string{"", "\n"}).Draw(rt, "end"))
		header := fmt.Sprintf("Idempotency-Key: round-%d", round)
		for range 2 {
			reports := k.bulk([]byte(text), header)
			if last := final(reports); !*last.Done || last.Applied != uint64(lines) {
				rt.Fatalf("%d lines: %+v", lines, last)
			}
		}
		var l api.List
		k.do("GET", "/v1/kv", nil).read(t, &l)
		if len(l.Entries) != len(twin) {
			rt.Fatalf("%d keys, want %d", len(l.Entries), len(twin))
		}
		for i := range l.Entries {
			if e := &l.Entries[i]; twin[string(e.Key)] != string(e.Value) {
				rt.Fatalf("%q is %q, want %q", e.Key, e.Value, twin[string(e.Key)])
			}
		}
	})
}

// manyLines is a body of n lines of about size bytes with keys of their own.
func manyLines(n, size int) []byte {
	var b bytes.Buffer
	value := strings.Repeat("v", size)
	for i := range n {
		fmt.Fprintf(&b, "{\"put\":{\"key\":\"k%06d\",\"value\":%q}}\n", i, value)
	}
	return b.Bytes()
}

// A long body becomes transactions of bounded size, and the answer says now and
// then how far it is.
func TestBulkIsCutIntoTransactions(t *testing.T) {
	k := newKit(t)
	var chunks []int
	k.member.proposing = func(c *kv.Command) error {
		chunks = append(chunks, len(c.Txn.Then))
		if n := len(kv.AppendCommand(nil, c)); n > kv.MaxCommandBytes {
			t.Errorf("a command of %d bytes", n)
		}
		k.clock.advance(2 * reportEvery)
		return nil
	}
	reports := k.bulk(manyLines(2*kv.MaxBulkOps+1, 1))
	if fmt.Sprint(chunks) != "[4096 4096 1]" {
		t.Errorf("transactions of %v lines", chunks)
	}
	if len(reports) != 4 || reports[0].Applied != 4096 || reports[1].Applied != 8192 || reports[3].Applied != 8193 || reports[3].Revision != 4 {
		t.Errorf("reports %+v", reports)
	}
	chunks = nil
	k.bulk(manyLines(20, 100<<10))
	for _, n := range chunks {
		if n > 7 {
			t.Errorf("transactions of %v lines of 100 KiB", chunks)
		}
	}
	// A line of the largest value fits, with others before it.
	chunks = nil
	body := append(manyLines(7, 100<<10), fmt.Appendf(nil, "{\"put\":{\"key\":\"big\",\"value\":%q}}", strings.Repeat("v", kv.MaxValueBytes))...)
	if last := final(k.bulk(body)); !*last.Done || last.Applied != 8 || len(chunks) != 2 {
		t.Errorf("%+v in transactions of %v lines", last, chunks)
	}
}

// When a transaction fails, what is reported is exactly what was applied.
func TestBulkStopsWhereItFails(t *testing.T) {
	for _, c := range []struct {
		code       kv.Code
		afterwards bool
		unknown    uint64
	}{
		{kv.NoLeader, false, 0},
		{kv.OutcomeUnknown, false, 4096},
		{kv.OutcomeUnknown, true, 4096},
	} {
		k := newKit(t)
		n := 0
		k.member.afterwards = c.afterwards
		k.member.proposing = func(*kv.Command) error {
			if n++; n == 2 {
				return kv.Errorf(c.code, "made to fail")
			}
			return nil
		}
		body := manyLines(3*kv.MaxBulkOps, 1)
		reports := k.bulk(body, "Idempotency-Key: k")
		last := final(reports)
		if *last.Done || last.Applied != 4096 || last.OutcomeUnknownLines != c.unknown || last.Error == nil || string(last.Error.Code) != c.code.String() {
			t.Errorf("%v: %+v", c.code, last)
		}
		if n != 2 {
			t.Errorf("%v: %d transactions were proposed, want 2", c.code, n)
		}
		// The same body again goes on where it stopped, and nothing is written
		// twice.
		reports = k.bulk(body, "Idempotency-Key: k")
		if last := final(reports); !*last.Done || last.Applied != 3*4096 || last.Revision != 4 {
			t.Errorf("%v: again: %+v", c.code, last)
		}
	}
}

// A line that is too long, and a body that ends in the middle.
func TestBulkLinesThatCantBeRead(t *testing.T) {
	k := newKit(t)
	long := append([]byte(`{"put":{"key":"a","value":"x"}}`+"\n"), bytes.Repeat([]byte{' '}, maxBodyBytes+1)...)
	for _, body := range [][]byte{long, append(bytes.Clone(long), '\n')} {
		last := final(k.bulk(body))
		if *last.Done || last.Applied != 1 || last.Error.Code != api.CodeRequestTooLarge || last.Error.Limit != maxBodyBytes {
			t.Errorf("a line of %d bytes: %+v, %+v", maxBodyBytes+1, last, last.Error)
		}
	}
	if last := final(k.bulk([]byte("{\"put\":{\"key\":\"a\",\"value\":\"x\"}}\r\n{\"put\":{\"key\":\"b\",\"val"))); last.Applied != 1 || last.Error.Code != api.CodeBadJSON {
		t.Errorf("a body that ends in the middle: %+v", last)
	}
}

// Blank lines are no fault, wherever they are, and count as lines.
func TestBulkPassesOverBlankLines(t *testing.T) {
	const a, b, no = `{"put":{"key":"a","value":"x"}}`, `{"put":{"key":"b","value":"x"}}`, "none"
	long := strings.Repeat(" ", maxBodyBytes)
	fails := func(code kv.Code) func(*kv.Command) error {
		return func(*kv.Command) error { return kv.Errorf(code, "made to fail") }
	}
	for _, c := range []struct {
		body             string
		proposing        func(*kv.Command) error
		applied, unknown uint64
		detail           string // of the error
	}{
		{body: a + "\n\n", applied: 1},
		{body: a + "\r\n\r\n", applied: 1},
		{body: a + "\n \t", applied: 1},
		{body: "\n" + a + "\r\n \t\r\n\n" + b + "\n\n\r", applied: 5},
		{body: a + "\n\n" + a + "\n\n" + a + "\n\n", applied: 5}, // a transaction each
		{body: long + "\n" + a + "\n" + long + "\n" + b + "\n" + long, applied: 4},
		{body: "\n"},
		{body: " \n\t\r\n  "},
		{body: "\n\n" + a + "\n\n" + no + "\n", applied: 3, detail: "line 5: "},
		{body: a + "\n\n" + a + "\n\n" + no + "\n", applied: 3, detail: "line 5: "},
		{body: a + "\n" + long + " \n", applied: 1, detail: "line 2: "},
		{body: a + "\n\u00a0\n", applied: 1, detail: "line 2: "},
		{body: a + "\n\v\n", applied: 1, detail: "line 2: "},
		{body: "\n" + a + "\n\n" + b + "\n\n", proposing: fails(kv.NoLeader), detail: "lines 1 to 4: "},
		{body: "\n" + a + "\n\n" + b + "\n\n", proposing: fails(kv.OutcomeUnknown), unknown: 4, detail: "lines 1 to 4: "},
	} {
		k := newKit(t)
		k.member.proposing = c.proposing
		for range 2 { // under the key, the second time is the first
			last := final(k.bulk([]byte(c.body), "Idempotency-Key: k"))
			detail := ""
			if last.Error != nil {
				detail = last.Error.Detail
			}
			if last.Applied != c.applied || last.OutcomeUnknownLines != c.unknown || *last.Done != (c.detail == "") || !strings.HasPrefix(detail, c.detail) {
				t.Errorf("%.80q: %+v %q", c.body, last, detail)
			}
		}
	}
}

// Lines that say nothing give a client no more time, however many come and however fast:
// all of them have that of the next line.
func TestBulkOfBlankLinesWithoutEnd(t *testing.T) {
	k := newKit(t)
	d := &deadlines{ResponseWriter: httptest.NewRecorder()}
	body := append(bytes.Repeat([]byte(" \n"), 1<<20), `{"put":{"key":"a","value":"x"}}`...)
	req := httptest.NewRequest(http.MethodPost, "http://localhost/v1/kv", bytes.NewReader(body))
	req.Header.Set("Content-Type", api.TypeNDJSON)
	k.server.ServeHTTP(d, req)
	if len(d.set) != 2 || d.set[0].IsZero() || !d.set[1].IsZero() {
		t.Errorf("%d deadlines", len(d.set))
	}

	for name, transport := range transports(t) {
		t.Run(name, func(t *testing.T) {
			k := newKit(t, func(c *Config) { c.BodyTimeout = 50 * time.Millisecond })
			ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
			defer cancel()
			body, lines := io.Pipe()
			go func() {
				// Until the client has its answer.
				for _, err := lines.Write([]byte("{\"put\":{\"key\":\"a\",\"value\":\"x\"}}\n")); err == nil; _, err = lines.Write([]byte("\n\r\n")) {
				}
			}()
			defer body.Close()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+k.addr+"/v1/kv", body)
			must(t, err)
			r.Header.Set("Content-Type", api.TypeNDJSON)
			resp, err := transport.RoundTrip(r)
			must(t, err)
			defer resp.Body.Close()
			var last api.BulkReport
			for d := json.NewDecoder(resp.Body); d.Decode(&last) == nil; {
			}
			if last.Applied != 1 || last.Error == nil || last.Error.Code != api.CodeRequestTimeout {
				t.Errorf("got %+v, %+v", last, last.Error)
			}
		})
	}
}

// While one transaction is on its way the lines of the next are read, and the
// answer begins before the request has ended.
func TestBulkReadsAhead(t *testing.T) {
	k := newKit(t)
	pr, pw := io.Pipe()
	var proposed atomic.Int32
	arrived := make(chan struct{}, 8)
	k.member.proposing = func(*kv.Command) error {
		proposed.Add(1)
		k.clock.advance(2 * reportEvery)
		arrived <- struct{}{}
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+k.addr+"/v1/kv", pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", api.TypeNDJSON)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	type outcome struct {
		resp *http.Response
		err  error
	}
	answered := make(chan outcome, 1)
	go func() {
		resp, err := transport.RoundTrip(req)
		answered <- outcome{resp, err}
	}()
	if _, err := pw.Write(manyLines(kv.MaxBulkOps, 1)); err != nil {
		t.Fatal(err)
	}
	<-arrived
	// The first transaction is settled when the second one is read.
	if _, err := pw.Write(bytes.ReplaceAll(manyLines(kv.MaxBulkOps, 1), []byte(`"k0`), []byte(`"l0`))); err != nil {
		t.Fatal(err)
	}
	o := <-answered
	if o.err != nil {
		t.Fatal(o.err)
	}
	defer func() { _ = o.resp.Body.Close() }()
	line := make([]byte, len(`{"applied":4096,"revision":2}`))
	if _, err := io.ReadFull(o.resp.Body, line); err != nil || string(line) != `{"applied":4096,"revision":2}` {
		t.Fatalf("the first report is %q, %v", line, err)
	}
	if err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(o.resp.Body)
	if err != nil || !strings.HasSuffix(string(rest), "{\"applied\":8192,\"revision\":3,\"done\":true}\n") {
		t.Errorf("the last report is %q, %v", rest, err)
	}
}

// Under an Idempotency-Key, a transaction whose lines did not all come is not applied:
// the same body sent again would make another one of it.
func TestBulkThatStallsAndComesAgain(t *testing.T) {
	k := newKit(t, func(c *Config) { c.BodyTimeout = time.Second })
	body := manyLines(kv.MaxBulkOps+2, 1)
	conn := k.dial()
	conn.send("POST /v1/kv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nIdempotency-Key: k\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + string(body[:len(body)-20]))
	_, answer := conn.answer()
	if !strings.Contains(answer, `"applied":4096,"revision":2,"done":false`) || !strings.Contains(answer, "request-timeout") {
		t.Errorf("got %s", answer)
	}
	if last := final(k.bulk(body, "Idempotency-Key: k")); !*last.Done || last.Applied != kv.MaxBulkOps+2 || last.Revision != 3 {
		t.Errorf("again: %+v, %+v", last, last.Error)
	}
}

// A bulk write that ends before its body does answers whole, and its connection ends:
// what the client sends later is no request.
func TestBulkThatEndsBeforeItsBody(t *testing.T) {
	k := newKit(t, func(c *Config) { c.BodyTimeout = 50 * time.Millisecond })
	chunked := func(chunks string) string {
		return "POST /v1/kv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
	}
	later := "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, request := range map[string]string{
		"a body that stalls":             "POST /v1/kv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n{\"put\"",
		"a chunk that stalls":            chunked("400\r\n{\"put\""),
		"a line that is wrong":           chunked("5\r\nnone\n\r\n"),
		"chunks that are none":           chunked("zz\r\n" + later),
		"a stall, and a request":         chunked("5\r\nnone\n\r\nzz\r\n" + later),
		"a line that is wrong, HTTP/1.0": "POST /v1/kv HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\nnone\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := k.dial()
			conn.t = t
			conn.send(request)
			resp, body := conn.answer()
			if resp.StatusCode != 200 || !strings.HasSuffix(body, "}\n") || !strings.Contains(body, `"done":false`) {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
			conn.closed()
			k.idle(t)
		})
	}
	// One whose client sends the rest soon is used again.
	conn := k.dial()
	conn.send(chunked("5\r\nnone\n\r\n0\r\n\r\n"))
	if _, body := conn.answer(); !strings.Contains(body, `"done":false`) {
		t.Errorf("got %s", body)
	}
	conn.send(later)
	if resp, _ := conn.answer(); resp.StatusCode != 200 {
		t.Errorf("the next request: %d", resp.StatusCode)
	}
}

// What becomes of lines may take longer than the lines may take to come: the deadline
// is lifted once they are there.
func TestDeadlineOfALineIsLifted(t *testing.T) {
	k := newKit(t)
	d := &deadlines{ResponseWriter: httptest.NewRecorder()}
	req := httptest.NewRequest(http.MethodPost, "http://localhost/v1/kv", bytes.NewReader(manyLines(2*kv.MaxBulkOps, 1)))
	req.Header.Set("Content-Type", api.TypeNDJSON)
	k.server.ServeHTTP(d, req)
	if len(d.set) < 2 {
		t.Errorf("deadlines %v", d.set)
	}
	for i, at := range d.set {
		if at.IsZero() != (i%2 == 1) {
			t.Errorf("deadlines %v", d.set)
		}
	}
}

// A line that does not arrive in time ends the bulk write; what came is applied.
func TestBulkThatStalls(t *testing.T) {
	k := newKit(t, func(c *Config) { c.BodyTimeout = 50 * time.Millisecond })
	conn := k.dial()
	conn.send("POST /v1/kv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n{\"put\":{\"key\":\"a\",\"value\":\"x\"}}\n{\"put\"")
	resp, body := conn.answer()
	if resp.StatusCode != 200 || !strings.Contains(body, `"applied":1,"revision":2,"done":false`) || !strings.Contains(body, "request-timeout") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}
