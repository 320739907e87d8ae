package client_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/client"
)

// Whatever names a key takes the longest ones, also where a URL must escape every byte,
// and where it has two of them.
func TestLongestKeys(t *testing.T) {
	ctx := patient(t)
	c := newClient(t, newNode(t))
	for name, key := range map[string]string{
		"binary": strings.Repeat("\xff", 8<<10),
		"text":   strings.Repeat("ж", 4<<10),
		"dots":   strings.Repeat("../", 8<<10/3),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Put(ctx, key, []byte("1"))
			noError(t, err)
			if e := must(c.Get(ctx, key)); string(e.Key) != key || string(e.Value) != "1" {
				t.Errorf("got %d bytes: %q", len(e.Key), e.Value)
			}
			if h := must(c.History(ctx, key)); len(h.Versions) != 1 {
				t.Errorf("%d versions", len(h.Versions))
			}
			for what, keys := range map[string]client.Keys{"key": client.Key(key), "prefix": client.Prefix(key), "range": client.Range(key, key+"a")} {
				if l := must(c.List(ctx, keys)); len(l.Entries) != 1 || string(l.Entries[0].Key) != key {
					t.Errorf("%s: a list of %d", what, len(l.Entries))
				}
				n, _, err := c.Count(ctx, keys)
				noError(t, err)
				var scanned []string
				for e, err := range c.Scan(ctx, keys) {
					noError(t, err)
					scanned = append(scanned, string(e.Key))
				}
				if n != 1 || !slices.Equal(scanned, []string{key}) {
					t.Errorf("%s: counted %d, scanned %d", what, n, len(scanned))
				}
			}
			if d := must(c.DeleteRange(ctx, client.Key(key))); d.Deleted != 1 {
				t.Errorf("deleted %d of the range", d.Deleted)
			}
			_, err = c.Put(ctx, key, []byte("2"))
			noError(t, err)
			if d := must(c.Delete(ctx, key)); d.Deleted != 1 {
				t.Errorf("deleted %d", d.Deleted)
			}
		})
	}
	prefix := strings.Repeat("\xff", 8<<10-20)
	r := must(c.PutNext(ctx, prefix, []byte("1")))
	if !strings.HasPrefix(string(r.Key), prefix) {
		t.Errorf("got the key %q", r.Key)
	}
}

// What is shorter as it is stays as it is.
func TestKeysInAQuery(t *testing.T) {
	s := newScript(t)
	c := newClient(t, s.url)
	for _, test := range []struct {
		keys   client.Keys
		target string
	}{
		{client.Key("a/b"), "/v1/kv?end=a%2Fb%00&start=a%2Fb"},
		{client.Prefix("\xff\xff\xff"), "/v1/kv?prefix=%FF%FF%FF"},
		{client.Range("a", "\xff\xff\xff\xff\xff\xff"), "/v1/kv?end_base64=________&start=a"},
	} {
		s.steps = []step{answers(`{"revision":12,"entries":[]}`)}
		_, err := c.List(patient(t), test.keys)
		noError(t, err)
		if got := s.requests(); got[len(got)-1].target != test.target {
			t.Errorf("got %s, want %s", got[len(got)-1].target, test.target)
		}
	}
}
