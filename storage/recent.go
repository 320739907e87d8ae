package storage

// recent remembers the newest versions of keys that were written or looked up of
// late, without their payloads, so that applying finds them without a search.
// It is what the database says, and nothing that is applied depends on whether
// it remembers. Only the applying goroutine uses it.
//
// Keys are forgotten by generations: when the young one is full it becomes the
// old one, whose keys come back into the young one as they are used, and the
// one before is dropped. That needs no list and no clock, and its memory is
// bounded.
type recent struct {
	young, old map[string]recentVersion
	bytes      int // of young
	limit      int // of a generation
}

// recentVersion is a newest version, or that there is none.
type recentVersion struct {
	exists bool
	meta
}

const (
	// recentBytes bounds a generation, of which there are two.
	recentBytes = 4 << 20
	// recentVersionBytes is what a version takes besides its key.
	recentVersionBytes = 112
)

func newRecent() *recent { return &recent{young: map[string]recentVersion{}, limit: recentBytes} }

func (r *recent) get(key []byte) (version, bool) {
	v, ok := r.young[string(key)]
	if !ok {
		if v, ok = r.old[string(key)]; !ok {
			return version{}, false
		}
		r.put(string(key), &version{exists: v.exists, meta: v.meta})
	}
	if !v.exists {
		return version{}, true
	}
	return version{exists: true, meta: v.meta}, true
}

func (r *recent) put(key string, v *version) {
	known := len(r.young)
	r.young[key] = recentVersion{v.exists, v.meta}
	if len(r.young) == known {
		return
	}
	if r.bytes += len(key) + recentVersionBytes; r.bytes >= r.limit {
		r.old, r.young, r.bytes = r.young, make(map[string]recentVersion, known), 0
	}
}
