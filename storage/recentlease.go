package storage

import "github.com/cairnkv/cairn/kv"

// recentLeases remembers leases that were written or looked up of late, so that a
// renewal finds what it renews without a search. It is what the database says,
// and nothing that is applied depends on whether it remembers. Only the applying
// goroutine uses it. It forgets by generations, as [recent] does.
type recentLeases struct {
	young, old map[kv.LeaseID]lease
	limit      int // of a generation
}

// recentLeasesKept bounds a generation, of which there are two, each of some 10 MiB
// when it is full.
const recentLeasesKept = 1 << 16

func newRecentLeases() *recentLeases {
	return &recentLeases{young: map[kv.LeaseID]lease{}, limit: recentLeasesKept}
}

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
