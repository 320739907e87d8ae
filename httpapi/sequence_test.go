package httpapi

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// Writers put into a queue while claimers take out of it, the oldest first, by a
// transaction: delete it if it is still there. Each item is taken exactly once,
// and what one writer put is taken in the order in which it was put.
func TestQueue(t *testing.T) {
	const writers, items, claimers = 4, 40, 6
	k := newKit(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range items {
				a := k.do("POST", "/v1/kv/queue/?sequence=true", fmt.Appendf(nil, "%d/%d", w, i))
				if a.StatusCode != 201 {
					t.Errorf("put: %d %s", a.StatusCode, a.body)
				}
			}
		})
	}
	var mu sync.Mutex
	taken := map[string]uint64{} // by value: the revision at which it was put
	for range claimers {
		wg.Go(func() {
			for {
				mu.Lock()
				all := len(taken) == writers*items
				mu.Unlock()
				if all {
					return
				}
				e, ok := k.claim("queue/")
				if !ok {
					continue
				}
				mu.Lock()
				if taken[string(e.Value)] != 0 {
					t.Errorf("%q is taken a second time", e.Value)
				}
				taken[string(e.Value)] = e.CreateRevision
				mu.Unlock()
				if want := fmt.Sprintf("queue/%020d", e.CreateRevision); string(e.Key) != want {
					t.Errorf("the key %q came into being at %d", e.Key, e.CreateRevision)
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		for i := 1; i < items; i++ {
			if before, after := taken[fmt.Sprint(w, "/", i-1)], taken[fmt.Sprint(w, "/", i)]; before >= after {
				t.Errorf("writer %d: item %d was put at %d, item %d at %d", w, i-1, before, i, after)
			}
		}
	}
}

// claim takes the oldest item of a queue. It returns false if there is none, or
// if another claimer was faster.
func (k *kit) claim(prefix string) (e api.Entry, ok bool) {
	var list api.List
	k.do("GET", "/v1/kv?limit=1&prefix="+url.QueryEscape(prefix), nil).read(k.t, &list)
	if len(list.Entries) == 0 {
		return e, false
	}
	e = list.Entries[0]
	key, _ := json.Marshal(string(e.Key))
	a := k.do("POST", "/v1/txn", fmt.Appendf(nil,
		`{"if":[{"key":%s,"mod_revision":{"eq":%d}}],"then":[{"delete":{"key":%s}}]}`, key, e.ModRevision, key), "Content-Type: application/json")
	var r api.TxnResult
	a.read(k.t, &r)
	return e, r.Succeeded
}

// The key that is made of the longest prefix is as long as a key may be.
func TestLongestSequence(t *testing.T) {
	k := newKit(t)
	prefix := strings.Repeat("p", kv.MaxKeyBytes-kv.SequenceDigits)
	a := k.do("POST", "/v1/key?sequence=true&key="+prefix, []byte("v"))
	a.want(t, 201, "")
	var r api.SequenceResult
	a.read(t, &r)
	if len(r.Key) != kv.MaxKeyBytes {
		t.Errorf("the key has %d bytes", len(r.Key))
	}
	a = k.do("POST", "/v1/key?sequence=true&key="+prefix+"p", []byte("v"))
	a.want(t, 400, api.CodeKeyTooLarge)
	if limit := a.problem(t).Limit; limit != int64(len(prefix)) {
		t.Errorf("the limit is said to be %d", limit)
	}
	large := make([]byte, kv.MaxValueBytes+1)
	k.do("POST", "/v1/kv/q?sequence=true", large).want(t, 413, api.CodeValueTooLarge)
	k.do("POST", "/v1/key?key=q&sequence=true", large).want(t, 413, api.CodeValueTooLarge)
}

// The Location of a new key leads to it, whatever bytes it has.
func TestLocationOfASequenceKey(t *testing.T) {
	k := newKit(t)
	for i, prefix := range []string{"a", "a/b/", "//", "/", "%", "%2F", "?", "#", "a b", "ä", "\x00\xff", "+", ";", "..", `"`} {
		value := fmt.Sprint("value ", i)
		a := k.do("POST", "/v1/key?sequence=true&key="+url.QueryEscape(prefix), []byte(value))
		a.want(t, 201, "")
		if got := k.do("GET", a.Header.Get("Location"), nil); string(got.body) != value {
			t.Errorf("%q: %s leads to %d %s", prefix, a.Header.Get("Location"), got.StatusCode, got.body)
		}
	}
	if got := string(appendPathEscaped(nil, []byte("a/b c~\xff"))); got != "a/b%20c~%FF" {
		t.Errorf("escaped: %s", got)
	}
}
