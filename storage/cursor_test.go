package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCursorsAgree: whatever was deleted, in runs longer and shorter than those that
// are walked past, a list with values has the keys of one without, and so has one in
// the past, forwards and backwards, from any key on, over any range.
func TestCursorsAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 30 {
		s := openStore(t, vfs.NewMem())
		var keys [][]byte
		for i := range 120 {
			keys = append(keys, fmt.Appendf(nil, "k%03d%s", i, []string{"", "\x00", "\x00\x01", "\xff"}[random.IntN(4)]))
		}
		var ops []kv.Op
		for _, k := range keys {
			ops = append(ops, put(string(k), "v"))
		}
		applyTo(t, s, txn(ops...))
		for range random.IntN(8) {
			from := random.IntN(len(keys))
			to := min(from+random.IntN(60), len(keys)-1)
			applyTo(t, s, txn(kv.Op{Type: kv.OpDelete, Range: kv.Range{Start: keys[from], End: keys[to]}}))
			if random.IntN(2) == 0 {
				applyTo(t, s, txn(put(string(keys[random.IntN(len(keys))]), "again")))
			}
		}
		past, _ := s.Revisions()
		applyTo(t, s, txn(put("z", "1")))
		if random.IntN(2) == 0 {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		mustView(t, s, func(v *View) {
			for range 50 {
				a, b := keys[random.IntN(len(keys))], keys[random.IntN(len(keys))]
				q := kv.Query{Range: kv.Range{Start: a, End: b}, Descending: random.IntN(2) == 0, Limit: random.IntN(20)}
				if random.IntN(3) == 0 {
					q.After = keys[random.IntN(len(keys))]
				}
				list := func(keysOnly bool, revision uint64) (found []string) {
					q.KeysOnly, q.Revision = keysOnly, revision
					l, err := v.List(context.Background(), &q)
					if err != nil {
						t.Fatal(err)
					}
					for i := range l.Entries {
						found = append(found, string(l.Entries[i].Key))
					}
					return found
				}
				want := list(true, 0)
				if got := list(false, 0); !slices.Equal(got, want) {
					t.Fatalf("round %d: %+v: %q with values, %q without", round, q, got, want)
				}
				if got := list(false, past); !slices.Equal(got, want) {
					t.Fatalf("round %d: %+v: %q in the past, %q now", round, q, got, want)
				}
			}
		})
		closeStore(t, s)
	}
}

// TestPassedKeysAreTheSame: of the keys that a read of the past passes, those that
// count towards a budget are the same on a member that has swept and on one that has
// not, forwards and backwards: else one of them would refuse what the other does.
func TestPassedKeysAreTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 30 {
		s := openStore(t, vfs.NewMem())
		key := func() []byte { return fmt.Appendf(nil, "k%02d", random.IntN(40)) }
		for range 150 {
			if random.IntN(2) == 0 {
				applyTo(t, s, txn(put(string(key()), "v")))
			} else {
				applyTo(t, s, txn(kv.Op{Type: kv.OpDelete, Range: kv.SingleKey(key())}))
			}
		}
		newest, _ := s.Revisions()
		compact := newest/4 + random.Uint64N(newest/4)
		counted := func() (counts []int) {
			mustView(t, s, func(v *View) {
				for revision := compact; revision < newest; revision += 1 + newest/16 {
					n := 0
					pass := func(revision uint64, keys int) error {
						if revision > compact {
							n += keys
						}
						return nil
					}
					for _, backwards := range []bool{false, true} {
						c, err := newPastCursor(v.snap, kv.Range{}, revision, pass)
						if err != nil {
							t.Fatal(err)
						}
						if n = 0; backwards {
							for ok := c.last(); ok; ok = c.prev() {
							}
						} else {
							for ok := c.first(); ok; ok = c.next() {
							}
						}
						c.close()
						counts = append(counts, n)
					}
				}
			})
			return counts
		}
		before := counted()
		run(t, s, fmt.Sprintf("compact %d", compact))
		awaitSwept(t, s)
		if after := counted(); !slices.Equal(before, after) {
			t.Fatalf("round %d: %v keys are counted before the sweep, %v after it", round, before, after)
		}
		for i := 0; i < len(before); i += 2 {
			if before[i] != before[i+1] {
				t.Fatalf("round %d: forwards and backwards %v", round, before)
			}
		}
		closeStore(t, s)
	}
}
