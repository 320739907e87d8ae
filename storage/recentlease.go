package storage

import (
	"bytes"
	"errors"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// recentLeases remembers leases that were written or looked up recently, so that a
// renewal finds what it renews without a search. It is what the database says,
// and nothing that is applied depends on whether it remembers. Only the applying
// goroutine uses it.
//
// What is kept lies in one slice without pointers. When that is full, a hand goes
// around it: a lease that was used since the hand was there stays, the first one
// that was not gives its place to the new one. Leases are renewed in rounds, each of
// them once in a while that is about the same for many; where they fit, all are
// found, which generations of half of them, as [recent] has, would not do.
type recentLeases struct {
	places map[kv.LeaseID]uint32 // in kept
	kept   []keptLease
	hand   int
	limit  int // of kept
	// last is no smaller than the id of any lease. The ids that the server makes
	// grow, so that a new one needs no search to be known as new.
	last kv.LeaseID
}

type keptLease struct {
	lease
	id   kv.LeaseID
	used bool // since the hand was here
}

// recentLeasesKept bounds what is remembered. Some 30 MiB when all of it is used:
// what a node can renew in three seconds at the least.
const recentLeasesKept = 1 << 18

func newRecentLeases(last kv.LeaseID) *recentLeases {
	return &recentLeases{places: map[kv.LeaseID]uint32{}, limit: recentLeasesKept, last: last}
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
	place, ok := r.places[id]
	if !ok {
		return lease{}, false
	}
	k := &r.kept[place]
	k.used = true
	return k.lease, true
}

func (r *recentLeases) put(id kv.LeaseID, l *lease) {
	place, known := r.places[id]
	switch {
	case known:
	case len(r.kept) < r.limit:
		place = uint32(len(r.kept))
		r.kept = append(r.kept, keptLease{})
		r.places[id] = place
	default:
		place = r.free()
		delete(r.places, r.kept[place].id)
		r.places[id] = place
	}
	r.kept[place] = keptLease{lease: *l, id: id, used: known}
}

// free returns the place of the lease that is forgotten next.
func (r *recentLeases) free() uint32 {
	for {
		if r.hand++; r.hand >= len(r.kept) {
			r.hand = 0
		}
		k := &r.kept[r.hand]
		if !k.used {
			return uint32(r.hand)
		}
		k.used = false
	}
}

// forget is for a lease that has ended. The last one takes its place.
func (r *recentLeases) forget(id kv.LeaseID) {
	place, known := r.places[id]
	if !known {
		return
	}
	delete(r.places, id)
	last := len(r.kept) - 1
	if int(place) != last {
		r.kept[place] = r.kept[last]
		r.places[r.kept[place].id] = place
	}
	r.kept = r.kept[:last]
	if last == 0 {
		// No lease is left, and what a million of them took is given back.
		r.kept, r.places = nil, map[kv.LeaseID]uint32{}
	}
}
