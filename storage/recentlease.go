package storage

import (
	"bytes"
	"errors"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// recentLeases remembers leases that were written or looked up of late, so that a
// renewal finds what it renews without a search. It is what the database says,
// and nothing that is applied depends on whether it remembers. Only the applying
// goroutine uses it. It forgets by generations, as [recent] does.
type recentLeases struct {
	young, old map[kv.LeaseID]lease
	limit      int // of a generation
	// last is no smaller than the id of any lease. The ids that the server makes
	// grow, so that a new one needs no search to be known as new.
	last kv.LeaseID
}

// recentLeasesKept bounds a generation, of which there are two, each of some 10 MiB
// when it is full.
const recentLeasesKept = 1 << 16

func newRecentLeases(last kv.LeaseID) *recentLeases {
	return &recentLeases{young: map[kv.LeaseID]lease{}, limit: recentLeasesKept, last: last}
}

// lastLease returns the largest id of a lease that the database has, or zero.
func lastLease(r pebble.Reader) (id kv.LeaseID, err error) {
	it, err := r.NewIter(spaceBounds(spaceLease))
	if err != nil {
		return id, err
	}
	if it.Last() {
		copy(id[:], it.Key()[1:])
	}
	return id, errors.Join(it.Error(), it.Close())
}

// granted is told of each lease before it may be looked for.
func (r *recentLeases) granted(id kv.LeaseID) {
	if bytes.Compare(id[:], r.last[:]) > 0 {
		r.last = id
	}
}

// isNew reports whether no lease can have the id.
func (r *recentLeases) isNew(id kv.LeaseID) bool { return bytes.Compare(id[:], r.last[:]) > 0 }

func (r *recentLeases) get(id kv.LeaseID) (lease, bool) {
	l, ok := r.young[id]
	if !ok {
		if l, ok = r.old[id]; ok {
			r.put(id, &l)
		}
	}
	return l, ok
}

func (r *recentLeases) put(id kv.LeaseID, l *lease) {
	r.young[id] = *l
	if len(r.young) >= r.limit {
		r.old, r.young = r.young, make(map[kv.LeaseID]lease, len(r.young))
	}
}

// forget is for a lease that has ended.
func (r *recentLeases) forget(id kv.LeaseID) {
	delete(r.young, id)
	delete(r.old, id)
}
