package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/api"
)

// TestEncodedSlashInName: a name with an encoded slash is refused, whatever stands
// beside it, and is no other name.
func TestEncodedSlashInName(t *testing.T) {
	k := newKit(t)
	k.do("POST", "/v1/locks/a", []byte(`{"ttl_seconds":60}`), "Content-Type: application/json")
	for _, target := range []string{
		"GET /v1/locks/a%2Fb", "GET /v1/locks/a%2F\xc3\xa9", "GET /v1/locks/a%2f\"", "DELETE /v1/services/a%2F\xc3\xa9/x", "GET /v1/elections/a%2F<",
	} {
		w := k.dial()
		w.send(target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if resp, body := w.answer(); resp.StatusCode != 400 {
			t.Errorf("%s: %d %s", target, resp.StatusCode, body)
		}
	}
}

// TestConditionsAreNotIgnored: a write that has no conditions refuses them, and does
// nothing.
func TestConditionsAreNotIgnored(t *testing.T) {
	k := newKit(t)
	k.put("app/a", "1")
	before, _ := k.server.cfg.Store.Revisions()
	for _, c := range []struct{ method, target, body, contentType string }{
		{"DELETE", "/v1/kv?prefix=app/", "", ""},
		{"POST", "/v1/kv/q/?sequence=true", "v", "text/plain"},
		{"POST", "/v1/kv", `{"put":{"key":"b","value":"1"}}` + "\n", api.TypeNDJSON},
		{"POST", "/v1/txn", `{"then":[{"put":{"key":"b","value":"1"}}]}`, api.TypeJSON},
		{"PUT", "/v1/services/s/i", `{"address":"a"}`, api.TypeJSON},
		{"POST", "/v1/leases", `{"ttl_seconds":5}`, api.TypeJSON},
		{"POST", "/v1/compact", `{"revision":1}`, api.TypeJSON},
	} {
		for _, condition := range []string{`If-Match: "42"`, "If-None-Match: *"} {
			headers := []string{condition}
			var body []byte
			if c.body != "" {
				body, headers = []byte(c.body), append(headers, "Content-Type: "+c.contentType)
			}
			if a := k.do(c.method, c.target, body, headers...); a.StatusCode != 400 || a.problem(t).Code != api.CodeInvalidArgument {
				t.Errorf("%s %s with %s: %d %s", c.method, c.target, condition, a.StatusCode, a.body)
			}
		}
	}
	if after, _ := k.server.cfg.Store.Revisions(); after != before {
		t.Errorf("something was written: revision %d after %d", after, before)
	}
}

// TestManyFields: an object with very many fields is refused without a look at all of
// them beside all others.
func TestManyFields(t *testing.T) {
	k := newKit(t)
	var b strings.Builder
	b.WriteString(`{"address":"a","metadata":{`)
	for i := range 5_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%d":"v"`, i)
	}
	b.WriteString("}}")
	a := k.do("PUT", "/v1/services/s/i", []byte(b.String()), "Content-Type: application/json")
	if a.StatusCode != 400 || !strings.Contains(string(a.body), "at most 256 fields") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestStreamAcrossViews: a stream that goes on with another view has the entries of the
// revision at which it began.
func TestStreamAcrossViews(t *testing.T) {
	k := newKit(t)
	for _, key := range []string{"a", "b", "c"} {
		k.put(key, "1")
	}
	k.server.viewHold = 0
	revision, _ := k.server.cfg.Store.Revisions()
	k.put("b", "2")
	k.do("DELETE", "/v1/kv/c", nil)
	k.put("d", "1")
	target := fmt.Sprintf("/v1/kv?revision=%d", revision)
	a := k.do("GET", target, nil, "Accept: application/x-ndjson")
	var keys []string
	for line := range strings.Lines(string(a.body)) {
		var e api.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(e.Key)+"="+string(e.Value))
	}
	if got := strings.Join(keys, " "); got != "a=1 b=1 c=1" {
		t.Errorf("the stream has %s", got)
	}
	if n := k.member.views.Load(); n != 0 {
		t.Errorf("%d views are open", n)
	}
}

// TestHistoryOfLargeValues: a page of a history ends soon after its size, and the pages
// have all versions.
func TestHistoryOfLargeValues(t *testing.T) {
	k := newKit(t)
	value := strings.Repeat("\x01", 1<<20) // six times as long in JSON
	for range 5 {
		k.put("k", value)
	}
	target, versions := "/v1/history/k?limit=5", 0
	for pages := 1; ; pages++ {
		a := k.do("GET", target, nil)
		var got api.History
		if err := json.Unmarshal(a.body, &got); err != nil {
			t.Fatal(err)
		}
		if versions += len(got.Versions); len(got.Versions) != 1 {
			t.Errorf("a page has %d bytes and %d versions", len(a.body), len(got.Versions))
		}
		if got.NextCursor == "" {
			if pages != 5 || versions != 5 {
				t.Errorf("%d versions on %d pages", versions, pages)
			}
			return
		}
		target = "/v1/history/k?limit=5&cursor=" + got.NextCursor
	}
}
