package httpapi

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// An item is a line of a list: a key, or a common prefix.
type item struct {
	name   string
	folded bool
}

// expect is what a list of keys gives: the simple twin of the listing.
func expect(keys []string, prefix, start, end, delimiter string, descending bool) []item {
	var items []item
	sort.Strings(keys)
	for _, key := range keys {
		bare := prefix == "" && start == "" && end == ""
		switch {
		case bare && strings.HasPrefix(key, kv.ReservedPrefix):
			continue
		case !strings.HasPrefix(key, prefix), key < start, end != "" && key >= end:
			continue
		}
		it := item{name: key}
		if delimiter != "" {
			if at := strings.Index(key[len(prefix):], delimiter); at >= 0 {
				it = item{key[:len(prefix)+at+len(delimiter)], true}
			}
		}
		if n := len(items); n == 0 || items[n-1] != it {
			items = append(items, it)
		}
	}
	if descending {
		slices.Reverse(items)
	}
	return items
}

// merge puts entries and common prefixes of a page into one order.
func merge(l *api.List, descending bool) []item {
	var items []item
	for i := range l.Entries {
		items = append(items, item{name: string(l.Entries[i].Key)})
	}
	for _, p := range l.CommonPrefixes {
		items = append(items, item{string(p), true})
	}
	slices.SortFunc(items, func(a, b item) int {
		order := strings.Compare(a.name, b.name)
		if descending {
			return -order
		}
		return order
	})
	return items
}

// Whatever is listed, in pages of whatever size, is what the twin says; and
// while it is listed, writes don't show.
func TestListAgainstTwin(t *testing.T) {
	k := newKit(t)
	rapid.Check(t, func(rt *rapid.T) {
		k.do("DELETE", "/v1/kv?all", nil)
		reserved := kv.Range{Start: reservedRange.Start, End: reservedRange.End}
		k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpDelete, Range: reserved}}}})

		// Few letters, so that keys meet each other and the reserved prefix.
		word := rapid.StringMatching(`[_c/a0]{1,4}|_cairn/[a/]{0,2}|_cairn[0.]?|_`)
		keys := rapid.SliceOfNDistinct(word, 0, 25, rapid.ID).Draw(rt, "keys")
		var ops []kv.Op
		for _, key := range keys {
			ops = append(ops, kv.Op{Type: kv.OpPut, Key: []byte(key), Value: []byte("v")})
		}
		k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: ops}})

		bound := rapid.OneOf(rapid.Just(""), word)
		prefix, start, end := bound.Draw(rt, "prefix"), "", ""
		if prefix == "" {
			start, end = bound.Draw(rt, "start"), bound.Draw(rt, "end")
		}
		if start != "" && end != "" && start >= end {
			return
		}
		delimiter := rapid.SampledFrom([]string{"", "", "/", "_", "a", "ca", "_c"}).Draw(rt, "delimiter")
		descending := rapid.Bool().Draw(rt, "descending")
		limit := rapid.IntRange(1, 6).Draw(rt, "limit")

		q := url.Values{"keys_only": {"true"}}
		for name, value := range map[string]string{"prefix": prefix, "start": start, "end": end, "delimiter": delimiter} {
			if value != "" {
				q.Set(name, value)
			}
		}
		if descending {
			q.Set("order", "desc")
		}
		want := expect(keys, prefix, start, end, delimiter, descending)

		k.server.viewHold = viewHold
		if rapid.Bool().Draw(rt, "slowly") {
			k.server.viewHold = 0 // another view for each line
		}
		stream := k.do("GET", "/v1/kv?"+q.Encode(), nil, "Accept: application/x-ndjson")
		var streamed []item
		for line := range bytes.Lines(stream.body) {
			var l struct {
				Key    string `json:"key"`
				Prefix string `json:"common_prefix"`
			}
			(&answer{stream.Response, line}).read(t, &l)
			if l.Prefix != "" {
				streamed = append(streamed, item{l.Prefix, true})
			} else {
				streamed = append(streamed, item{name: l.Key})
			}
		}
		if !slices.Equal(streamed, want) {
			rt.Fatalf("%s streams\n%v, want\n%v", q.Encode(), streamed, want)
		}

		q.Set("limit", fmt.Sprint(limit))
		q.Set("count", "true")
		target := "/v1/kv?" + q.Encode()
		count := uint64(len(expect(keys, prefix, start, end, "", false)))
		var got []item
		for page := 0; ; page++ {
			var l api.List
			a := k.do("GET", target, nil)
			if a.StatusCode != 200 {
				rt.Fatalf("%s: %d %s", target, a.StatusCode, a.body)
			}
			a.read(t, &l)
			items := merge(&l, descending)
			if len(items) > limit || l.More != (l.NextCursor != "") || *l.Count != count {
				rt.Fatalf("%s: %d items, more %v, cursor %q, count %d of %d", target, len(items), l.More, l.NextCursor, *l.Count, count)
			}
			got = append(got, items...)
			if !l.More {
				break
			}
			// A write between the pages is not seen by them.
			k.put(fmt.Sprintf("a%d", page), "new")
			link := a.Header.Get("Link")
			next, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
			if !ok {
				rt.Fatalf("Link: %s", link)
			}
			target = next
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("%s lists\n%v, want\n%v", q.Encode(), got, want)
		}
	})
}

// listed is the keys of a list, and whether there are more.
func (k *kit) listed(query string) string {
	k.t.Helper()
	var l api.List
	k.do("GET", "/v1/kv?"+query, nil).read(k.t, &l)
	var keys []string
	for i := range l.Entries {
		keys = append(keys, string(l.Entries[i].Key))
	}
	return strings.Join(keys, " ") + fmt.Sprint(" ", l.More)
}

// Sorted by something else than the key, the two parts around the reserved keys
// are one list.
func TestSortedListHasNoSeam(t *testing.T) {
	k := newKit(t)
	for i, key := range []string{"z", "A", "y", "B", "x"} {
		k.put(key, fmt.Sprint(i))
	}
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("_cairn/q"), Value: []byte("2")}}}})
	for _, c := range []struct{ query, want string }{
		{"sort=value", "z A y B x false"},
		{"sort=mod&order=desc", "x B y A z false"},
		{"sort=create&limit=2", "z A true"},
		{"sort=version", "A B x y z false"},
		{"sort=version&order=desc&limit=3", "A B x true"},
	} {
		if got := k.listed(c.query); got != c.want {
			t.Errorf("%s: got %s, want %s", c.query, got, c.want)
		}
	}
}

// What is sorted by something else than the key is cut by its size as well, on both sides
// of the seam, and shows nothing behind what it does not show.
func TestSortedListIsCutByItsSize(t *testing.T) {
	k := newKit(t)
	large := strings.Repeat("v", 900<<10) // of which four fit a page
	var all []string
	for _, key := range []string{"A0", "A1", "A2", "A3", "A4", "A5", "a0", "a1", "a2", "a3", "a4", "a5"} {
		k.put(key, large)
		all = append(all, key)
	}
	for _, c := range []struct{ query, want string }{
		{"sort=mod", "A0 A1 A2 A3 true"},
		{"sort=mod&order=desc", "a5 a4 a3 a2 true"},
		{"sort=value&keys_only", strings.Join(all, " ") + " false"},
		{"sort=mod&keys_only", strings.Join(all, " ") + " false"},
	} {
		if got := k.listed(c.query); got != c.want {
			t.Errorf("%s: got %s, want %s", c.query, got, c.want)
		}
	}
	k.put("Z", "1")
	k.put("z", "0")
	var l api.List
	k.do("GET", "/v1/kv?sort=value&keys_only&limit=2", nil).read(t, &l)
	if len(l.Entries) != 2 || string(l.Entries[0].Key) != "z" || string(l.Entries[1].Key) != "Z" || l.Entries[0].Value != nil {
		t.Errorf("by value, keys only: %+v", l.Entries)
	}
}

// A page is cut by its size too, also at the seam, and at least one entry is
// given.
func TestPageBytes(t *testing.T) {
	k := newKit(t)
	large := strings.Repeat("v", kv.MaxValueBytes)
	for _, key := range []string{"A", "B", "C", "D", "x", "y"} {
		k.put(key, large)
	}
	target, pages, entries := "/v1/kv", 0, 0
	for {
		a := k.do("GET", target, nil)
		var l api.List
		a.read(t, &l)
		if len(l.Entries) == 0 || len(a.body) > maxPageBytes+maxPageBytes/8 {
			t.Fatalf("a page of %d entries and %d bytes", len(l.Entries), len(a.body))
		}
		pages, entries = pages+1, entries+len(l.Entries)
		if !l.More {
			break
		}
		target = "/v1/kv?cursor=" + l.NextCursor
	}
	if pages != 2 || entries != 6 {
		t.Errorf("%d entries on %d pages, want 6 on 2", entries, pages)
	}
}

// A page that takes too long is given up.
func TestListThatTakesTooLong(t *testing.T) {
	k := newKit(t, func(c *Config) { c.ReadTimeout = time.Nanosecond })
	k.bulk(manyLines(2000, 1))
	k.do("GET", "/v1/kv?count_only", nil).want(t, 503, api.CodeReadTimeout)
}

// A cursor belongs to the cluster that made it.
func TestCursorOfAnotherCluster(t *testing.T) {
	ours := newKit(t)
	theirs := newKit(t, func(c *Config) { c.CursorKey[0] ^= 1 })
	for _, k := range []*kit{ours, theirs} {
		k.put("a", "1")
		k.put("b", "2")
	}
	var l api.List
	theirs.do("GET", "/v1/kv?limit=1", nil).read(t, &l)
	ours.do("GET", "/v1/kv?limit=1&cursor="+l.NextCursor, nil).want(t, 400, api.CodeBadCursor)
}

// A cursor is continued on any node: on one that is behind only when it has
// caught up, and never on another state.
func TestCursorOnANodeThatIsBehind(t *testing.T) {
	ahead, behind := newKit(t), newKit(t)
	for _, key := range []string{"a", "b"} {
		ahead.put(key, "x")
	}
	behind.put("a", "x")
	var l api.List
	ahead.do("GET", "/v1/kv?limit=1", nil).read(t, &l)
	behind.do("GET", "/v1/kv?limit=1&cursor="+l.NextCursor, nil).want(t, 503, api.CodeNotCaughtUp)
	behind.put("b", "x")
	a := behind.do("GET", "/v1/kv?limit=1&cursor="+l.NextCursor, nil)
	var next api.List
	a.read(t, &next)
	if a.StatusCode != http.StatusOK || len(next.Entries) != 1 || string(next.Entries[0].Key) != "b" {
		t.Errorf("got %d %s", a.StatusCode, a.body)
	}
}

// A page whose state was compacted meanwhile is gone, not another state.
func TestCursorOfACompactedState(t *testing.T) {
	k := newKit(t)
	k.put("a", "1")
	k.put("b", "2")
	var l api.List
	k.do("GET", "/v1/kv?limit=1", nil).read(t, &l)
	current := k.put("c", "3")
	k.do("POST", "/v1/compact", fmt.Appendf(nil, `{"revision":%d}`, current), "Content-Type: application/json")
	k.do("GET", "/v1/kv?limit=1&cursor="+l.NextCursor, nil).want(t, 410, api.CodeCompacted)
}

// What is in a bare list, what a bare delete leaves: keys under _cairn/ are
// neither listed nor deleted without being named.
func TestReservedKeysAreLeftAlone(t *testing.T) {
	k := newKit(t)
	k.put("a", "1")
	k.put("_cairn", "2")
	k.put("_cairn0", "3")
	k.member.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("_cairn/locks/x/holder"), Value: []byte("h")}}}})
	var l api.List
	k.do("GET", "/v1/kv?count", nil).read(t, &l)
	if len(l.Entries) != 3 || *l.Count != 3 {
		t.Errorf("a bare list has %d entries and counts %d, want 3", len(l.Entries), *l.Count)
	}
	var d api.DeleteResult
	k.do("DELETE", "/v1/kv?all&prev", nil).read(t, &d)
	if d.Deleted != 3 || len(d.Prev) != 3 {
		t.Errorf("deleted %d and gave %d, want 3", d.Deleted, len(d.Prev))
	}
	if a := k.do("GET", "/v1/kv/_cairn/locks/x/holder", nil); a.StatusCode != 200 {
		t.Errorf("the reserved key: %d", a.StatusCode)
	}
	k.do("GET", "/v1/kv?prefix=_cairn/", nil).read(t, &l)
	if len(l.Entries) != 1 {
		t.Errorf("a list of the reserved keys has %d entries, want 1", len(l.Entries))
	}
}
