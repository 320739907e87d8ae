package storage

import (
	"math/rand/v2"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// An id that was granted is never taken for a new one, whether it is the largest
// or not, and also after a restart, when none is remembered.
func TestGrantedIsNotNew(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, fs)
	grant := func(id byte) kv.Code {
		return applyTo(t, s, &kv.Command{Kind: kv.KindLeaseGrant, Lease: kv.Lease{ID: kv.LeaseID{id}, TTLMillis: 60_000}})[0].Code
	}
	defer func() { closeStore(t, s) }()
	for _, step := range []struct {
		id      byte
		restart bool
		want    kv.Code
	}{
		{id: 5}, {id: 5, want: kv.LeaseExists}, {id: 3}, {id: 3, want: kv.LeaseExists},
		{id: 5, restart: true, want: kv.LeaseExists}, {id: 3, want: kv.LeaseExists}, {id: 4}, {id: 6}, {id: 6, restart: true, want: kv.LeaseExists},
	} {
		if step.restart {
			closeStore(t, s)
			s = openStore(t, fs)
		}
		if got := grant(step.id); got != step.want {
			t.Errorf("lease %d, after a restart %v: %v, not %v", step.id, step.restart, got, step.want)
		}
	}
}

// TestRecentLeases: what is remembered is what was put last, never more of it than
// fits, and where all fit none is forgotten. The ones that are used stay.
func TestRecentLeases(t *testing.T) {
	for _, c := range []struct{ ids, limit int }{{3, 1}, {20, 7}, {20, 20}, {20, 30}} {
		random := rand.New(rand.NewPCG(uint64(c.ids), uint64(c.limit)))
		r, put := newRecentLeases(kv.LeaseID{}), map[kv.LeaseID]uint64{}
		r.limit = c.limit
		for step := range uint64(20_000) {
			id := kv.LeaseID{byte(random.IntN(c.ids))}
			switch random.IntN(6) {
			case 0:
				r.forget(id)
				delete(put, id)
			case 1, 2:
				r.put(id, &lease{generation: step})
				put[id] = step
			default:
				l, ok := r.get(id)
				want, known := put[id]
				if ok && (!known || l.generation != want) {
					t.Fatalf("%+v, step %d: found generation %d, not %d (%v)", c, step, l.generation, want, known)
				}
				if !ok && known && c.limit >= c.ids {
					t.Fatalf("%+v, step %d: forgotten", c, step)
				}
			}
			if len(r.kept) > c.limit || len(r.kept) != len(r.places) {
				t.Fatalf("%+v, step %d: %d kept in %d places", c, step, len(r.kept), len(r.places))
			}
		}
	}

	r := newRecentLeases(kv.LeaseID{})
	r.limit = 100
	for i := range 1000 {
		r.put(kv.LeaseID{1, byte(i >> 8), byte(i)}, &lease{})
		for used := range 10 {
			id := kv.LeaseID{2, byte(used)}
			if _, ok := r.get(id); !ok {
				if i > 0 {
					t.Fatalf("one that is used all the time was forgotten after %d others", i)
				}
				r.put(id, &lease{})
			}
		}
	}
}
