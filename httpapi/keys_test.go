package httpapi

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/go-chi/chi/v5"
	"pgregory.net/rapid"

	"github.com/cairnkv/cairn/api"
)

// Where chi's parameter, or unescaping it, gives another key than the client
// meant, the key is still the right one.
func TestKeysThatChiGetsWrong(t *testing.T) {
	k := newKit(t)
	for _, c := range []struct{ tail, chi, key string }{
		{"a%20b", "a b", "a b"},
		{"a%2Fb", "a%2Fb", "a/b"},
		{"a%2520b", "a%20b", "a%20b"},
		{"100%25", "100%", "100%"},
		{"%41", "%41", "A"},
		{"a+b", "a+b", "a+b"},
		{"a//b/", "a//b/", "a//b/"},
		{"/a", "/a", "/a"},
		{"a/../b", "a/../b", "a/../b"},
		{".", ".", "."},
		{"%2e%2e/x", "%2e%2e/x", "../x"},
		{"a;b", "a;b", "a;b"},
		{"x.json", "x.json", "x.json"},
		{"a%3Fb%23c", "a?b#c", "a?b#c"},
		{"%00%ff", "%00%ff", "\x00\xff"},
		{"a%7Cb", "a|b", "a|b"},
		{"a|b", "a|b", "a|b"},
		{"%E2%82%AC", "€", "€"},
	} {
		// What chi says is why this package does not ask it.
		mux := chi.NewRouter()
		mux.Get(keyPath+"*", func(_ http.ResponseWriter, r *http.Request) {
			if got := chi.URLParam(r, "*"); got != c.chi {
				t.Errorf("%s: chi says %q, this test says %q", c.tail, got, c.chi)
			}
		})
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, keyPath+c.tail, nil))

		put := k.do("PUT", keyPath+c.tail, []byte("value of "+c.tail))
		if put.StatusCode != 201 {
			t.Fatalf("%s: put answers %d %s", c.tail, put.StatusCode, put.body)
		}
		got := k.do("GET", "/v1/key?key="+url.QueryEscape(c.key), nil)
		if got.StatusCode != 200 || string(got.body) != "value of "+c.tail {
			t.Errorf("%s: the key %q has %d %q", c.tail, c.key, got.StatusCode, got.body)
		}
		if del := k.do("DELETE", keyPath+c.tail, nil); !bytes.Contains(del.body, []byte(`"deleted":1`)) {
			t.Errorf("%s: delete answers %s", c.tail, del.body)
		}
	}
}

// A path never becomes a list: what has no key is refused.
func TestPathsWithoutKey(t *testing.T) {
	k := newKit(t)
	k.do("GET", "/v1/kv/", nil).want(t, 400, api.CodeKeyEmpty)
	k.do("DELETE", "/v1/kv/", nil).want(t, 400, api.CodeKeyEmpty)
	k.do("DELETE", "/v1/kv/?prefix=a", nil).want(t, 400, api.CodeKeyEmpty)
	k.do("PUT", "/v1/kv", []byte("x")).want(t, 405, api.CodeMethodNotAllowed)
	k.do("GET", "/v1%2Fkv/a", nil).want(t, 404, api.CodeNotFound)
	k.do("FOO", "/nothing", nil).want(t, 404, api.CodeNotFound)
	if a := k.do("FOO", "/v1/kv", nil); a.StatusCode != 405 || a.Header.Get("Allow") != "GET, DELETE, POST" {
		t.Errorf("got %d, Allow: %s", a.StatusCode, a.Header.Get("Allow"))
	}
	k.do("GET", "/v1/kv%2Fa", nil).want(t, 404, api.CodeNotFound)
	k.do("GET", "/%761/kv/a", nil).want(t, 404, api.CodeNotFound)
}

// However a key is spelled in a path, it is that key.
func TestEverySpellingOfAKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 24).Draw(t, "key")
		var tail []byte
		for i, c := range key {
			plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte("/-._~!$&'()*+,;=:@"), c) >= 0
			if plain && rapid.Bool().Draw(t, fmt.Sprint("plain ", i)) {
				tail = append(tail, c)
			} else {
				tail = fmt.Appendf(tail, rapid.SampledFrom([]string{"%%%02x", "%%%02X"}).Draw(t, "case"), c)
			}
		}
		u, err := url.ParseRequestURI(keyPath + string(tail))
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := pathKey(u, keyPath); !ok || got != string(key) {
			t.Fatalf("%q: got %q %v, want %q", tail, got, ok, key)
		}
	})
}
