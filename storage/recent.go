package storage

import (
	"github.com/cairnkv/cairn/kv"
	"github.com/cespare/xxhash/v2"
)

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
	young, old recentTable
	limit      int // of keys in a generation
	// revision is that of the last commit. youngSince and oldSince are the ones
	// at which the generations began.
	revision, youngSince, oldSince uint64
}

const (
	// recentKeys and recentKeyBytes bound a generation, of which there are two.
	recentKeys     = 128 << 10
	recentKeyBytes = 8 << 20
	// recentSlots are twice as many, so that half of them are free.
	recentSlots = 2 * recentKeys
	// recentProbes is how far from its place an entry may be. None is so far, unless
	// somebody chooses keys of one hash: then a generation ends early, and a lookup
	// costs no more than this.
	recentProbes = 256
)

// newRecent begins at the revision of the last commit.
func newRecent(revision uint64) *recent {
	return &recent{limit: recentKeys, revision: revision, youngSince: revision, oldSince: revision}
}

// since returns a revision behind which every key that was changed is
// remembered. What is not remembered was last changed at it or before.
func (r *recent) since() uint64 { return r.oldSince }

func (r *recent) get(key []byte) (version, bool) {
	hash := xxhash.Sum64(key)
	e := findRecent(&r.young, hash, key)
	if e == nil {
		if e = findRecent(&r.old, hash, key); e == nil {
			return version{}, false
		}
		v := e.version()
		putRecent(r, hash, key, &v)
		return v, true
	}
	return e.version(), true
}

// put remembers what the database has.
func (r *recent) put(key []byte, v *version) { putRecent(r, xxhash.Sum64(key), key, v) }

// commit remembers what a batch changed, or looked up, at a revision. Nothing
// before counts as remembered in a generation that begins meanwhile.
func (r *recent) commit(revision uint64, keys map[string]*version) {
	r.revision = revision
	for key, v := range keys { // lint:unordered what is remembered decides nothing
		putRecent(r, xxhash.Sum64String(key), key, v)
	}
}

func putRecent[K string | []byte](r *recent, hash uint64, key K, v *version) {
	e := findRecent(&r.young, hash, key)
	if e == nil {
		if t := &r.young; len(t.entries) < r.limit && len(t.keys) < recentKeyBytes {
			e = addRecent(t, hash, key)
		}
	}
	if e == nil {
		r.young, r.old = r.old, r.young
		r.oldSince, r.youngSince = r.youngSince, r.revision
		r.young.empty()
		e = addRecent(&r.young, hash, key)
	}
	e.set(v)
}

// recentTable is a hash table with open addressing and without pointers: many keys
// cost the garbage collector nothing.
type recentTable struct {
	slots   []uint32 // 1 + the place in entries
	entries []recentEntry
	keys    []byte
}

// recentEntry is a newest version, or that there is none.
type recentEntry struct {
	create, mod, number      uint64
	modifiedAt               int64
	lease                    kv.LeaseID
	contentTypeLen, valueLen uint32
	keyStart                 uint32 // in keys
	keyLen                   uint16
	exists                   bool
}

func (e *recentEntry) set(v *version) {
	e.exists = v.exists
	e.create, e.mod, e.number, e.modifiedAt, e.lease = v.create, v.mod, v.meta.version, v.modifiedAt, v.lease
	e.contentTypeLen, e.valueLen = uint32(v.contentTypeLen), uint32(v.valueLen)
}

func (e *recentEntry) version() version {
	if !e.exists {
		return version{}
	}
	return version{exists: true, meta: meta{
		create: e.create, mod: e.mod, version: e.number, modifiedAt: e.modifiedAt, lease: e.lease,
		contentTypeLen: int(e.contentTypeLen), valueLen: int(e.valueLen),
	}}
}

// empty forgets all keys and keeps the memory.
func (t *recentTable) empty() {
	clear(t.slots)
	t.entries, t.keys = t.entries[:0], t.keys[:0]
}

// findRecent returns the entry of a key, which lasts until the next is added, or nil.
func findRecent[K string | []byte](t *recentTable, hash uint64, key K) *recentEntry {
	if len(t.entries) == 0 {
		return nil
	}
	for probe := range uint64(recentProbes) {
		slot := *t.slot(hash + probe)
		if slot == 0 {
			break
		}
		if e := &t.entries[slot-1]; string(t.key(e)) == string(key) {
			return e
		}
	}
	return nil
}

// addRecent makes an entry for a key that has none. It returns nil if there is no slot
// for it, which an empty table always has.
func addRecent[K string | []byte](t *recentTable, hash uint64, key K) *recentEntry {
	if t.slots == nil {
		t.slots = make([]uint32, recentSlots)
	}
	for probe := range uint64(recentProbes) {
		slot := t.slot(hash + probe)
		if *slot != 0 {
			continue
		}
		t.entries = append(t.entries, recentEntry{keyStart: uint32(len(t.keys)), keyLen: uint16(len(key))})
		t.keys = append(t.keys, key...)
		*slot = uint32(len(t.entries))
		return &t.entries[len(t.entries)-1]
	}
	return nil
}

func (t *recentTable) slot(hash uint64) *uint32 { return &t.slots[hash%recentSlots] }

func (t *recentTable) key(e *recentEntry) []byte { return t.keys[e.keyStart:][:e.keyLen] }
