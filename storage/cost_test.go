package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The costs that the layout promises, shown by counting and not by the clock:
// the bytes that are read from a disk under a cache that holds nothing, the
// steps of an iterator, the records of a batch.

// countingFS counts what is read.
type countingFS struct {
	vfs.FS
	bytes atomic.Int64
}

func (fs *countingFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	return countingFile{f, fs}, err
}

func (fs *countingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, opts...)
	return countingFile{f, fs}, err
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (f countingFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.fs.bytes.Add(int64(n))
	return n, err
}

func (f countingFile) ReadAt(p []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(p, at)
	f.fs.bytes.Add(int64(n))
	return n, err
}

// reads returns the bytes that fn read.
func (fs *countingFS) reads(t *testing.T, fn func() error) int64 {
	t.Helper()
	before := fs.bytes.Load()
	if err := fn(); err != nil {
		t.Fatal(err)
	}
	return fs.bytes.Load() - before
}

// settled returns a store that fill filled, with everything in tables and
// nothing in caches, and nothing going on in the background that reads.
func settled(t *testing.T, fill func(s *Store)) (*Store, *countingFS) {
	t.Helper()
	fs := &countingFS{FS: vfs.NewMem()}
	s := openStore(t, fs, roomy)
	fill(s)
	h := s.current.Load()
	if err := h.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := h.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, fs, func(o *Options) { o.CacheBytes = 1 })
	// Pebble looks at its tables once after each start.
	resting := func() bool {
		m := s.current.Load().db.Metrics()
		return m.Table.InitialStatsCollectionComplete && m.Compact.NumInProgress == 0
	}
	for deadline := time.Now().Add(time.Minute); !resting(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the background work of the store does not come to rest")
		}
	}
	return s, fs
}

// versions puts some keys many times.
func versions(t *testing.T, s *Store, keys, versions int) {
	for v := 0; v < versions; {
		var commands []*kv.Command
		for ; v < versions && len(commands) < 5_000; v++ {
			for k := range keys {
				commands = append(commands, txn(put(plainKey(k), strings.Repeat("v", 100))))
			}
		}
		applyTo(t, s, commands...)
	}
}

func atMost(t *testing.T, what string, got, limit int64) {
	t.Helper()
	t.Logf("%s: %d, at most %d", what, got, limit)
	if got > limit {
		t.Errorf("%s: %d, at most %d", what, got, limit)
	}
}

const block = 32 << 10 // the size of a table's block, about

// Reads don't get dearer by old versions.
func TestCostOfReadsUnderManyVersions(t *testing.T) {
	const keys, many = 4, 10_000
	few, fewFS := settled(t, func(s *Store) { versions(t, s, keys, 1) })
	defer closeStore(t, few)
	old, oldFS := settled(t, func(s *Store) { versions(t, s, keys, many) })
	defer closeStore(t, old)

	get := func(s *Store) func() error {
		return func() error { _, _, _, err := s.Get([]byte(plainKey(2))); return err }
	}
	list := func(s *Store, revision uint64) func() error {
		return func() error {
			v, err := s.View()
			if err != nil {
				return err
			}
			defer v.Close()
			l, err := v.List(context.Background(), &kv.Query{Revision: revision})
			if err == nil && len(l.Entries) != keys {
				err = fmt.Errorf("%d entries", len(l.Entries))
			}
			return err
		}
	}
	atMost(t, "bytes of a get", oldFS.reads(t, get(old)), fewFS.reads(t, get(few))+4*block)
	atMost(t, "bytes of a list", oldFS.reads(t, list(old, 0)), fewFS.reads(t, list(few, 0))+(keys+2)*4*block)
	atMost(t, "bytes of a list in the middle of history", oldFS.reads(t, list(old, keys*many/2)), (keys+2)*6*block)

	// The same in steps of the iterator: a constant number a key.
	mustView(t, old, func(v *View) {
		for _, revision := range []uint64{newestRevision, keys * many / 2, keys + 1} {
			c, err := newPastCursor(v.snap, kv.Range{}, revision, nil)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for ok := c.first(); ok; ok = c.next() {
				n++
			}
			st := c.it.Stats()
			c.close()
			steps := st.ForwardSeekCount[pebble.InternalIterCall] + st.ForwardStepCount[pebble.InternalIterCall]
			atMost(t, fmt.Sprintf("steps for %d keys at %d", n, revision), int64(steps), int64(10*(n+1)))
		}
	})
}

// Counting, listing keys, and everything else that needs no value reads none.
func TestCostWithoutValues(t *testing.T) {
	const keys, size = 2_000, 4 << 10
	s, fs := settled(t, func(s *Store) {
		for i := range keys {
			applyTo(t, s, txn(put(plainKey(i), strings.Repeat(fmt.Sprintf("%d", i), size)[:size])))
		}
	})
	defer closeStore(t, s)
	// Who names the newest revision, as pages do that are one snapshot, asks the same.
	list := func(q kv.Query, named bool) func() error {
		return func() (err error) {
			mustView(t, s, func(v *View) {
				if named {
					q.Revision = v.Revision()
				}
				_, err = v.List(context.Background(), &q)
			})
			return err
		}
	}
	budget := int64(keys * 100)
	for _, named := range []bool{false, true} {
		atMost(t, "bytes of a count", fs.reads(t, list(kv.Query{CountOnly: true}, named)), budget)
		atMost(t, "bytes of a list of keys", fs.reads(t, list(kv.Query{KeysOnly: true, Count: true}, named)), 2*budget)
		atMost(t, "bytes of a list of keys by version", fs.reads(t, list(kv.Query{KeysOnly: true, Sort: kv.SortByVersion}, named)), budget)
	}
	remove := &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{
		If:   []kv.Compare{{Target: kv.TargetVers, Operator: kv.Equal, Number: 1}},
		Then: []kv.Op{{Type: kv.OpDelete}},
	}}
	atMost(t, "bytes of a condition on all keys and a delete of all", fs.reads(t, func() error {
		return applyTo(t, s, remove)[0].Err()
	}), 3*budget)
}

// The keys that a queue has left behind cost its next reader nothing, and a read of
// the past that has to walk over them can be ended.
func TestCostOfDeletedKeys(t *testing.T) {
	const gone = 50_000
	s, _ := settled(t, func(s *Store) {
		bulk(t, s, gone, func(i int) string { return fmt.Sprintf("q/%07d", i) }, "v", kv.LeaseID{})
		run(t, s, "put p 1; put q/0030000x 2; put r 3; delete q/0000000..q/0030000; delete q/0030001..q0; put r 4")
	})
	defer closeStore(t, s)
	q := kv.Range{Start: []byte("q/"), End: []byte("q0")}
	mustView(t, s, func(v *View) {
		for _, move := range []struct {
			name         string
			first, after func(*pastCursor) bool
			want         string
		}{
			{"forwards", (*pastCursor).first, (*pastCursor).next, "[q/0030000 q/0030000x]"},
			{"backwards", (*pastCursor).last, (*pastCursor).prev, "[q/0030000x q/0030000]"},
		} {
			c, err := newPastCursor(v.snap, q, newestRevision, nil)
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for ok := move.first(c); ok; ok = move.after(c) {
				keys = append(keys, string(c.key()))
			}
			if err := c.err(); err != nil || fmt.Sprint(keys) != move.want {
				t.Errorf("%s: %q, %v", move.name, keys, err)
			}
			steps := 0
			const kind = pebble.InternalIterCall
			for _, it := range []*pebble.Iterator{c.it, c.live.it} {
				st := it.Stats()
				steps += st.ForwardSeekCount[kind] + st.ForwardStepCount[kind] + st.ReverseSeekCount[kind] + st.ReverseStepCount[kind]
			}
			c.close()
			atMost(t, "steps past deleted keys "+move.name, int64(steps), 200)
		}
	})

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mustView(t, s, func(v *View) {
		for _, descending := range []bool{false, true} {
			// Everything in it was deleted.
			_, err := v.List(ctx, &kv.Query{Range: kv.Range{Start: []byte("q/003000x"), End: []byte("q0")}, Revision: v.Revision() - 1, Descending: descending})
			if e := new(kv.Error); !errors.As(err, &e) || e.Code != kv.ReadTimeout {
				t.Errorf("a read of the past whose client is gone: %v", err)
			}
		}
	})
}

// A list with a delimiter costs what it answers, not what is under the
// prefixes.
func TestCostOfDelimiter(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	bulk(t, s, 30_000, func(i int) string { return fmt.Sprintf("dir-%d/%05d", i%3, i) }, "v", kv.LeaseID{})
	mustView(t, s, func(v *View) {
		for _, descending := range []bool{false, true} {
			visits := 0
			q := &kv.Query{Delimiter: []byte("/"), Descending: descending}
			l, err := runQuery(q, func(values bool) (cursor, error) { return v.cursor(q.Range, v.st.revision, values, unbounded) },
				func(n int) error { visits += n; return nil }, unbounded)
			if err != nil || len(l.CommonPrefixes) != 3 || visits != 3 {
				t.Errorf("%d prefixes at the cost of %d keys, %v", len(l.CommonPrefixes), visits, err)
			}
		}
	})
}

// A put writes the same few records, whatever the store holds.
func TestCostOfAPut(t *testing.T) {
	s := openStore(t, vfs.NewMem(), roomy)
	defer closeStore(t, s)
	run(t, s, "grant L 5000; put leased 1 lease=L; put own 1 lease=O own=5000; put key 1")
	records := func(c *kv.Command) int {
		b, err := s.NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close() // abandoned: the next one finds the same
		b.BeginEntry(b.st.applied+1, kv.LeaseID{9}, 1)
		if r, err := b.Apply(c); err != nil || r.Code != kv.OK {
			t.Fatal(r, err)
		}
		delete(b.h.windows, kv.LeaseID{9})
		return int(b.wb.Count() + b.newest.Count() + b.versions.Count() + b.changes.Count() + b.queue.Count())
	}
	leased := put("new", "v")
	leased.Lease = leaseName("L")
	own := put("new", "v")
	own.Lease, own.OwnTTLMillis = leaseName("P"), 1000
	for _, size := range []int{0, 1, 30_000} {
		versions(t, s, 1, size)
		bulk(t, s, size, func(i int) string { return fmt.Sprint("more", i) }, "v", kv.LeaseID{})
		for _, c := range []struct {
			name string
			op   kv.Op
			want int
		}{
			{"new key", put("new", "v"), 3},
			{"key with versions", put(plainKey(0), "v"), 3},
			{"large value", put("new", strings.Repeat("v", 1<<20)), 3},
			{"key that gets a lease", leased, 5},
			{"key that leaves a lease", put("leased", "v"), 5},
			{"key that gets a lease of its own", own, 7},
			{"key that loses a lease of its own", put("own", "v"), 7},
			{"increment", kv.Op{Type: kv.OpIncrement, Key: []byte("new"), By: 1}, 3},
			{"delete", kv.Op{Type: kv.OpDelete, Range: kv.SingleKey([]byte("key"))}, 3},
		} {
			if got := records(txn(c.op)); got != c.want {
				t.Errorf("with %d keys more, %s: %d records, want %d", size, c.name, got, c.want)
			}
		}
	}
}

// A compaction writes by what has changed, and not by what is stored.
func TestCostOfCompaction(t *testing.T) {
	written := func(keys int) int64 {
		s := openStore(t, vfs.NewMem(), roomy)
		defer closeStore(t, s)
		bulk(t, s, keys, plainKey, "v", kv.LeaseID{})
		compact := func() {
			current, _ := s.Revisions()
			run(t, s, fmt.Sprintf("compact %d", current))
			awaitSwept(t, s)
		}
		// The changes of the compacted revision itself stay for the next time.
		run(t, s, "put one 1")
		compact()
		for i := range 100 {
			run(t, s, fmt.Sprintf("put key-%07d w", i))
		}
		h := s.current.Load()
		before := h.db.Metrics().WAL.BytesIn
		compact()
		return int64(h.db.Metrics().WAL.BytesIn - before)
	}
	small, large := written(200), written(40_000)
	atMost(t, "bytes that 100 changes cost a small store", small, 20_000)
	atMost(t, "and a large one", large, small+small/10)
}

// Opening, and the start of a snapshot, read the same few blocks, whatever the
// store holds.
func TestCostOfOpening(t *testing.T) {
	sizes := [2]int{1_000, 60_000}
	if long {
		sizes = [2]int{10_000, 1_000_000}
	}
	var opening, starting [2]int64
	for i, n := range sizes {
		s, fs := settled(t, func(s *Store) { bulk(t, s, n, plainKey, strings.Repeat("v", 100), kv.LeaseID{}) })
		closeStore(t, s)
		opening[i] = fs.reads(t, func() (err error) {
			s, err = tryOpen(fs, func(o *Options) { o.CacheBytes = 1 })
			return err
		})
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		// With its first block a snapshot has begun.
		r, w := io.Pipe()
		done := make(chan error)
		go func() { done <- v.Save(w, nil) }()
		starting[i] = fs.reads(t, func() error { _, err := io.ReadFull(r, make([]byte, len(snapshotMagic)+9)); return err })
		r.Close()
		<-done
		v.Close()
		closeStore(t, s)
	}
	atMost(t, "bytes to open", opening[1], opening[0]+4*block)
	atMost(t, "bytes to start a snapshot", starting[1], starting[0]+4*block)
}

// A watcher that catches up reads what it has missed, and not what came before.
func TestCostOfCatchingUp(t *testing.T) {
	const n = 20_000
	s, fs := settled(t, func(s *Store) { versions(t, s, 1, n) })
	defer closeStore(t, s)
	events := 0
	catchUp := func(missed uint64) func() error {
		return func() (err error) {
			mustView(t, s, func(v *View) {
				events = 0
				err = v.Changes(context.Background(), kv.Place{Revision: v.Revision() - missed + 1}, nil, func(uint32, *kv.Event) (bool, error) {
					events++
					return true, nil
				})
			})
			if err == nil && events != int(missed) {
				err = fmt.Errorf("%d events", events)
			}
			return err
		}
	}
	atMost(t, "bytes of the last 100 changes", fs.reads(t, catchUp(100)), 8*block)
	atMost(t, "bytes of all changes", fs.reads(t, catchUp(n)), n*150)
	atMost(t, "bytes to find the revision of a time", fs.reads(t, func() (err error) {
		mustView(t, s, func(v *View) { _, err = v.RevisionAt(0) })
		return err
	}), 20*4*block)
}

// TestSpacesApart: tables of the newest versions, of the log of changes and of versions
// hold nothing else, whatever flushes and compactions have made of them.
func TestSpacesApart(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	db := s.current.Load().db
	for range 4 {
		versions(t, s, 20, 100)
		must(db.Flush())
	}
	must(db.Compact(context.Background(), []byte{0}, []byte{0xff}, false))
	versions(t, s, 20, 100)
	must(db.Flush())
	tables, err := db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	found := map[byte]int{}
	for level := range tables {
		for i := range tables[level] {
			first, last := tables[level][i].Smallest.UserKey[0], tables[level][i].Largest.UserKey[0]
			for _, space := range []byte{spaceNewest, spaceChange, spaceVersion} {
				if first <= space && space <= last {
					found[space]++
					if first != last {
						t.Errorf("a table of level %d holds %c to %c", level, first, last)
					}
				}
			}
		}
	}
	for _, space := range []byte{spaceNewest, spaceChange, spaceVersion} {
		if found[space] < 2 {
			t.Errorf("there are %d tables of %c: too few to tell", found[space], space)
		}
	}
}
