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
//
// A generation has every key that was changed after it began, so recent also
// tells which keys were not: see since.
type recent struct {
	young, old map[string]recentVersion
	bytes      int // of young
	limit      int // of a generation
	// revision is that of the last commit. youngSince and oldSince are the ones
	// at which the generations began.
	revision, youngSince, oldSince uint64
}

// recentVersion is a newest version, or that there is none.
type recentVersion struct {
	exists bool
	meta
}

const (
	// recentBytes bounds a generation, of which there are two. Together they have
	// what a few memtables hold.
	recentBytes = 8 << 20
	// recentVersionBytes is what a version takes besides its key.
	recentVersionBytes = 112
)

// newRecent begins at the revision of the last commit.
func newRecent(revision uint64) *recent {
	return &recent{
		young: map[string]recentVersion{}, limit: recentBytes,
		revision: revision, youngSince: revision, oldSince: revision,
	}
}

// since returns a revision behind which every key that was changed is
// remembered. What is not remembered was last changed at it or before.
func (r *recent) since() uint64 { return r.oldSince }

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

// commit remembers what a batch changed, or looked up, at a revision. Nothing
// before counts as remembered in a generation that begins meanwhile.
func (r *recent) commit(revision uint64, keys map[string]*version) {
	r.revision = revision
	for key, v := range keys { // lint:unordered what is remembered decides nothing
		r.put(key, v)
	}
}

func (r *recent) put(key string, v *version) {
	known := len(r.young)
	r.young[key] = recentVersion{v.exists, v.meta}
	if len(r.young) == known {
		return
	}
	if r.bytes += len(key) + recentVersionBytes; r.bytes >= r.limit {
		r.old, r.oldSince = r.young, r.youngSince
		r.young, r.youngSince, r.bytes = make(map[string]recentVersion, known), r.revision, 0
	}
}
