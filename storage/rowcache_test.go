package storage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRowCache: whatever is put in, overwritten, changed and forgotten, the cache has of
// a key what was put in last, unless the key was changed since, or nothing.
func TestRowCache(t *testing.T) {
	const size = 64 << 10
	r := rand.New(rand.NewPCG(1, 2))
	c := newRowCache(size, 1)
	model := map[string][]byte{}
	hits := 0
	for revision := uint64(1); revision < 20_000; {
		key := fmt.Sprint("key/", r.IntN(400))
		switch r.IntN(8) {
		case 0:
			revision++
			c.forget(revision, map[string]*version{key: {}, "key/read": {fetched: true}})
			delete(model, key)
		case 1, 2, 3:
			record := bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(size/rowShards/maxRowShare-len(key)))
			c.put(revision, []byte(key), record)
			model[key] = record
		default:
			got := c.get([]byte(key))
			if want := model[key]; got != nil && !bytes.Equal(got, want) {
				t.Fatalf("%s is %q, want %q or nothing", key, got, want)
			}
			if got != nil {
				hits++
				got[0]++ // it is the caller's
			}
		}
	}
	if got, missed := c.requests(); got != int64(hits) || hits < 1_000 || missed < 1_000 {
		t.Errorf("%d were found, %d of them counted, and %d were not: this tested little", hits, got, missed)
	}
	c.reset(20_000)
	for key := range model {
		if got := c.get([]byte(key)); got != nil {
			t.Fatalf("%s is %q after all were forgotten", key, got)
		}
	}
}

// TestRowCacheLate: what a reader found before a change is not put in after it.
func TestRowCacheLate(t *testing.T) {
	c := newRowCache(1<<20, 7)
	key, old, now := []byte("k"), []byte("old"), []byte("now")
	for _, step := range []struct {
		name string
		do   func()
		want []byte
	}{
		{"before the store was opened", func() { c.put(6, key, old) }, nil},
		{"as it was opened", func() { c.put(7, key, old) }, old},
		{"changed", func() { c.forget(9, map[string]*version{"k": {}}) }, nil},
		{"read before the change", func() { c.put(8, key, old) }, nil},
		{"read after it", func() { c.put(9, key, now) }, now},
		{"filled from a backup", func() { c.reset(50) }, nil},
		{"read before that", func() { c.put(49, key, now) }, nil},
	} {
		step.do()
		if got := c.get(key); !bytes.Equal(got, step.want) {
			t.Errorf("%s: found %q, want %q", step.name, got, step.want)
		}
	}
}

// TestRowCacheFlooded: of keys that were chosen to have one hash, none is taken for
// another.
func TestRowCacheFlooded(t *testing.T) {
	c := newRowCache(1<<20, 1)
	s := c.shard(5)
	const keys = 2 * rowWays
	for i := range keys {
		s.put(5, 1, fmt.Append(nil, i), fmt.Append(nil, "record ", i))
	}
	found := 0
	for i := range keys {
		if got := s.get(5, fmt.Append(nil, i)); got != nil {
			found++
			if want := fmt.Sprint("record ", i); string(got) != want {
				t.Errorf("found %q, want %q", got, want)
			}
		}
	}
	if found != rowWays {
		t.Errorf("%d are found, want %d", found, rowWays)
	}
}

// TestRowCacheKeeps: of rows that fit, nearly all are found again; of more, the newest.
// Rows that are too large are not taken, and neither is more memory than was given.
func TestRowCacheKeeps(t *testing.T) {
	const size, row = 1 << 20, 256
	c := newRowCache(size, 1)
	record := make([]byte, row-len("key/00000"))
	key := func(i int) []byte { return fmt.Appendf(nil, "key/%05d", i) }
	found := func(from, to int) (n int) {
		for i := from; i < to; i++ {
			if c.get(key(i)) != nil {
				n++
			}
		}
		return n
	}
	const fit = size / row * 3 / 4 // shards don't get the same
	for i := range fit {
		c.put(1, key(i), record)
	}
	if n := found(0, fit); n < fit*95/100 {
		t.Errorf("%d of %d rows that fit are found again", n, fit)
	}
	for i := fit; i < 10*fit; i++ {
		c.put(1, key(i), record)
	}
	if n := found(9*fit, 10*fit); n < fit*95/100 {
		t.Errorf("%d of the newest %d rows are found", n, fit)
	}
	if n := found(0, 8*fit); n != 0 {
		t.Errorf("%d rows are found that there is no room for", n)
	}
	rings := 0
	for i := range c.shards {
		rings += len(c.shards[i].ring)
	}
	if rings > size {
		t.Errorf("the rings have %d bytes, of %d", rings, size)
	}
	c.put(1, key(0), make([]byte, size/rowShards/maxRowShare))
	if c.get(key(0)) != nil {
		t.Error("a row is found that is too large")
	}
}

// TestRowCacheServes: a key that is read again comes from the cache, with all that it
// had, until it is changed.
func TestRowCacheServes(t *testing.T) {
	s := openStore(t, vfs.NewMem(), func(o *Options) { o.CacheBytes = 3 << 20 })
	defer closeStore(t, s)
	read := func() (e kv.Entry, revision uint64) {
		t.Helper()
		e, found, revision, err := s.Get([]byte("k"))
		if err != nil || !found {
			t.Fatal(found, err)
		}
		return e, revision
	}
	run(t, s, "put k 1")
	first, _ := read()
	run(t, s, "put other 1")
	again, revision := read()
	m, err := s.Metrics()
	if err != nil || m.RowHits != 1 || m.RowMisses != 1 {
		t.Errorf("%d reads found the key in the cache and %d did not, %v; want one and one", m.RowHits, m.RowMisses, err)
	}
	if fmt.Sprint(first) != fmt.Sprint(again) || revision != again.ModRevision+1 {
		t.Errorf("read %v, and then %v at revision %d", first, again, revision)
	}
	run(t, s, "put k 2")
	if e, _ := read(); string(e.Value) != "2" {
		t.Errorf("read %q, which was changed", e.Value)
	}
	run(t, s, "delete k")
	if _, found, _, err := s.Get([]byte("k")); found || err != nil {
		t.Errorf("read what was deleted: %v, %v", found, err)
	}
}
