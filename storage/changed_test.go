package storage

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairnkv/cairn/kv"
)

// TestChanged: a key that was changed is known for as long as the generations say,
// and few others are taken for it.
func TestChanged(t *testing.T) {
	c := newChanged(7)
	c.limit = 1000
	at := map[string]uint64{} // the revision that changed a key
	for revision := uint64(8); revision < 500; revision++ {
		batch := map[string]*version{fmt.Sprint("read/", revision): {fetched: true}}
		for i := range revision % 40 {
			key := fmt.Sprintf("%d/%d", revision, i)
			batch[key], at[key] = &version{}, revision
		}
		c.commit(revision, 10*revision, batch)
		if want := c.old.since*10 + 10; c.old.first != want && c.old.since != 7 {
			t.Fatalf("what was changed behind %d has numbers from %d on, want %d", c.old.since, c.old.first, want)
		}
	}
	if c.old.since == 7 || len(at) < 5*c.limit {
		t.Fatalf("the generations did not change: %+v", c.old.since)
	}
	known := 0
	for key, revision := range at {
		if may := c.may([]byte(key)); may {
			known++
		} else if revision > c.old.since {
			t.Errorf("%s was changed at %d and is not known to be; generations begin at %d and %d", key, revision, c.old.since, c.young.since)
		}
	}
	if known > 2*c.limit+40+len(at)/20 {
		t.Errorf("%d keys of %d are known, with generations of %d", known, len(at), c.limit)
	}
}

// TestFilterIsSharp: a filter that holds what it is made for takes few other keys for
// one of its own.
func TestFilterIsSharp(t *testing.T) {
	c := newChanged(1)
	batch := map[string]*version{}
	for i := range filterKeys {
		batch[fmt.Sprint(i)] = &version{}
	}
	c.commit(2, 1, batch)
	wrong := 0
	const others = 100_000
	for i := range others {
		if c.may(fmt.Append(nil, "other/", i)) {
			wrong++
		}
	}
	t.Logf("%d of %d", wrong, others)
	if wrong == 0 || wrong > others/150 {
		t.Errorf("%d of %d keys are taken for changed", wrong, others)
	}
}

// TestChangedByLargeBatch: a batch that Pebble makes a table of by itself, in place
// of putting it into a memtable, doesn't hide what is in tables already: not when it
// is the first one of a store that is opened again, and not when it begins a
// generation.
func TestChangedByLargeBatch(t *testing.T) {
	fs := vfs.NewMem()
	small := func(o *Options) { o.MemTableBytes = 64 << 10 }
	s := openStore(t, fs, small)
	run(t, s, "put k 1")
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)

	for _, limit := range []int{filterKeys, 10} {
		s := openStore(t, fs, small)
		revision := func() uint64 { r, _ := s.Revisions(); return r }
		value := strings.Repeat("v", 1<<10)
		for round := range 6 {
			s.current.Load().changed.limit = limit
			var large []*kv.Command
			for i := range 40 {
				large = append(large, txn(put(fmt.Sprintf("%d/%d/%d/%d", limit, round, i, revision()), value)))
			}
			applyTo(t, s, large...)
			k := txn(put("k", "x"))
			before, found, _, err := s.Get([]byte("k"))
			if err != nil || !found {
				t.Fatal(found, err)
			}
			b, err := s.NewBatch()
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Fetch([]*kv.Command{k}); err != nil {
				t.Fatal(err)
			}
			v, err := b.lookup([]byte("k"))
			b.Close()
			if err != nil || !v.exists || v.mod != before.ModRevision {
				t.Fatalf("generations of %d keys, after %d large batches: found %+v, %v; want the one of revision %d",
					limit, round+1, v, err, before.ModRevision)
			}
		}
		closeStore(t, s)
	}
}
