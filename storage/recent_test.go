package storage

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestRecent: what is remembered is what the database has, and each key that was
// changed behind since is remembered.
func TestRecent(t *testing.T) {
	for _, limit := range []int{0, 1, 7, 600, 5000} {
		random := rand.New(rand.NewPCG(1, uint64(limit)))
		r := newRecent(0)
		r.limit = limit
		database, remembered := map[string]version{}, 0
		for revision := uint64(1); revision < 2000; revision++ {
			batch := map[string]*version{}
			for range 1 + random.IntN(3) {
				key := fmt.Sprint("key/", random.IntN(2000))
				v := version{exists: random.IntN(4) > 0}
				if v.exists {
					v.meta = meta{create: revision / 2, mod: revision, version: 3, modifiedAt: -int64(revision), contentTypeLen: 255, valueLen: 1 << 20}
					v.lease[3] = byte(revision)
				}
				batch[key], database[key] = &v, v
			}
			r.commit(revision, batch)
			for range 3 { // some are looked up
				key := fmt.Sprint("key/", random.IntN(2000))
				want := database[key]
				got, known := r.get([]byte(key))
				switch {
				case known:
					remembered++
					if got.exists != want.exists || got.meta != want.meta {
						t.Fatalf("of %d: %s is remembered as %+v, and is %+v", limit, key, got, want)
					}
				case want.exists && want.mod > r.since():
					t.Fatalf("of %d: %s was changed at %d and is not remembered; since is %d", limit, key, want.mod, r.since())
				default:
					r.put([]byte(key), &want)
				}
			}
			if len(r.young.entries) > max(limit, 1) || len(r.old.entries) > max(limit, 1) {
				t.Fatalf("of %d: %d and %d are remembered", limit, len(r.young.entries), len(r.old.entries))
			}
		}
		if wraps := r.since() > 0; wraps != (limit < 5000) || remembered == 0 && limit > 1 {
			t.Errorf("of %d: since is %d, %d were found", limit, r.since(), remembered)
		}
	}
}

// TestRecentFlooded: keys that were chosen to have one hash, or hashes side by side,
// cost no more than others, and what is remembered stays right.
func TestRecentFlooded(t *testing.T) {
	for _, hashes := range []int{1, 3000} {
		r := newRecent(0)
		hash := func(i int) uint64 { return uint64(7 + i%hashes) }
		const keys = 20_000
		for i := range keys {
			r.revision = uint64(i + 1)
			putRecent(r, hash(i), fmt.Sprint(i), &version{exists: true, meta: meta{mod: uint64(i + 1)}})
		}
		known := 0
		for i := range keys {
			e := findRecent(&r.young, hash(i), fmt.Sprint(i))
			if e == nil {
				e = findRecent(&r.old, hash(i), fmt.Sprint(i))
			}
			switch mod := uint64(i + 1); {
			case e == nil && mod > r.since():
				t.Fatalf("of %d hashes: key %d was changed behind %d and is not remembered", hashes, i, r.since())
			case e != nil && e.mod != mod:
				t.Fatalf("of %d hashes: key %d is remembered as of %d", hashes, i, e.mod)
			case e != nil:
				known++
			}
		}
		if known == 0 || hashes == 1 && known > 2*recentProbes {
			t.Errorf("of %d hashes: %d keys are remembered", hashes, known)
		}
	}
}
