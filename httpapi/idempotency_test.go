package httpapi

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// An answer that is too large to be remembered is given again without its
// entries, and says so; what was decided is the same.
func TestRememberedAnswersWithoutEntries(t *testing.T) {
	k := newKit(t)
	large := strings.Repeat("v", 20<<10)
	k.put("a", large)
	k.put("b", large)
	k.put("c", large)
	for i, c := range []struct {
		method, target, body, elided string
		headers                      []string
	}{
		{"PUT", "/v1/kv/a?prev", "x", `{"revision":5,"created":false}`, nil},
		{"DELETE", "/v1/kv/b?prev", "", `{"revision":6,"deleted":1,"prev":[]}`, nil},
		{"POST", "/v1/txn", `{"then":[{"get":{"key":"c"}},{"put":{"key":"d","value":"1"}}]}`,
			`{"revision":7,"succeeded":true,"results":[{"get":{"revision":7,"entries":[],"more":false}},{"put":{"revision":7,"created":true}}]}`,
			[]string{"Content-Type: application/json"}},
		{"DELETE", "/v1/kv?all=true&prev", "", `{"revision":8,"deleted":3,"prev":[]}`, nil},
	} {
		headers := append(c.headers, "Idempotency-Key: "+strconv.Itoa(i))
		first := k.do(c.method, c.target, []byte(c.body), headers...)
		if first.StatusCode != 200 || !strings.Contains(string(first.body), large) || first.Header.Get(api.HeaderElided) != "" {
			t.Errorf("%s %s: at first %d %v %.200s", c.method, c.target, first.StatusCode, first.Header, first.body)
		}
		again := k.do(c.method, c.target, []byte(c.body), headers...)
		if again.StatusCode != 200 || again.Header.Get(api.HeaderReplayed) != "true" || again.Header.Get(api.HeaderElided) != "true" {
			t.Errorf("%s %s: again %d %v", c.method, c.target, again.StatusCode, again.Header)
		}
		if got := string(bytes.TrimSpace(again.body)); got != c.elided {
			t.Errorf("%s %s: again %.300s, want %s", c.method, c.target, got, c.elided)
		}
	}
}

// What is to be kept is kept, whoever has compacted more meanwhile.
func TestCompactBehindAnother(t *testing.T) {
	k := newKit(t)
	for i := range 20 {
		k.put("a", fmt.Sprint(i))
	}
	if r := k.member.apply(t, &kv.Command{Kind: kv.KindCompact, Compact: 10}); r.Code != kv.OK {
		t.Fatal(r.Code)
	}
	k.member.proposing = func(c *kv.Command) error {
		if c.Kind == kv.KindCompact {
			c.Compact = 5 // as if it had been decided before the other came
		}
		return nil
	}
	for _, headers := range [][]string{nil, {"Idempotency-Key: k"}, {"Idempotency-Key: k"}} {
		a := k.do("POST", "/v1/compact", []byte(`{"keep_revisions":5}`), append(headers, "Content-Type: application/json")...)
		a.want(t, 200, "")
		if want := `{"revision":21,"compact_revision":10}`; strings.TrimSpace(string(a.body)) != want {
			t.Errorf("got %s", a.body)
		}
	}
	k.do("POST", "/v1/compact", []byte(`{"revision":5}`), "Content-Type: application/json").want(t, 410, api.CodeCompacted)
}
