package httpapi

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/api"
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
