package storage

import (
	"math/bits"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// rowCache has the newest versions of keys that were read recently, as the records
// that the database has of them, so that reading them again needs no search. It
// decides nothing: what it has is what the database would say.
//
// Two rules make that so. A change takes its key out before anything of its batch can
// be seen in the database: so who has seen a revision finds no row that is older. And
// what was read from the database is put in only if no key of the same shard was
// changed behind the published revision that the reader saw before: so nobody puts
// back what a change has taken out.
//
// It is made of rings that overwrite their oldest rows, with no pointers inside, so
// its memory is bounded, taken only as it fills, and costs the garbage collector
// nothing.
type rowCache struct{ shards [rowShards]rowShard }

const (
	// rowShards is how many rings there are, so that readers seldom meet.
	rowShards = 32
	// rowBytes is what a row is expected to take: a ring has a slot for each, or up to
	// twice as many. Of smaller rows it finds fewer than it holds.
	rowBytes = 256
	// rowWays is how many slots a key may have.
	rowWays = 4
	// maxRowShare is the part of a ring that one row may take.
	maxRowShare = 16
)

type rowShard struct {
	mu sync.Mutex
	// changed is the revision of the newest change to a key of the shard.
	changed uint64
	size    uint64 // of the ring
	ring    []byte // made with the first row
	// head counts the bytes that were ever put in; the next row goes to head % size.
	head  uint64
	slots []rowSlot // a power of two

	hits, misses int64
}

// rowSlot says where a row is. The zero value is free.
type rowSlot struct {
	hash      uint64
	at        uint64 // as head was
	keyLen    uint32
	recordLen uint32
}

// newRowCache returns a cache of so many bytes, and up to a fifth as many for its
// slots, at the revision of the last commit.
func newRowCache(size int64, revision uint64) *rowCache {
	c := &rowCache{}
	for i := range c.shards {
		c.shards[i].size = uint64(size) / rowShards
		c.shards[i].changed = revision
	}
	return c
}

func (c *rowCache) shard(hash uint64) *rowShard { return &c.shards[hash>>32%rowShards] }

// requests returns how often get was asked for what the cache has, and for what not.
func (c *rowCache) requests() (hits, misses int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		hits, misses = hits+s.hits, misses+s.misses
		s.mu.Unlock()
	}
	return hits, misses
}

// get returns the record of the newest version of key, which is the caller's, or nil
// if the cache doesn't have it.
func (c *rowCache) get(key []byte) []byte {
	hash := xxhash.Sum64(key)
	return c.shard(hash).get(hash, key)
}

// put takes in what a reader found, who had seen a published revision before.
func (c *rowCache) put(seen uint64, key, record []byte) {
	hash := xxhash.Sum64(key)
	c.shard(hash).put(hash, seen, key, record)
}

// forget takes out what a batch is about to change, up to a revision that nobody can
// have seen yet.
func (c *rowCache) forget(revision uint64, keys map[string]*version) {
	for key, v := range keys { // lint:unordered each for itself
		if v.fetched {
			continue
		}
		hash := xxhash.Sum64String(key)
		s := c.shard(hash)
		s.mu.Lock()
		s.changed = revision
		if slot := findRow(s, hash, key); slot != nil {
			*slot = rowSlot{}
		}
		s.mu.Unlock()
	}
}

// reset takes out everything, at a revision that is not published yet.
func (c *rowCache) reset(revision uint64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.changed = revision
		clear(s.slots)
		s.mu.Unlock()
	}
}

func (s *rowShard) get(hash uint64, key []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := findRow(s, hash, key)
	if slot == nil {
		s.misses++
		return nil
	}
	s.hits++
	return append(make([]byte, 0, slot.recordLen), s.ring[slot.at%s.size+uint64(slot.keyLen):][:slot.recordLen]...)
}

func (s *rowShard) put(hash, seen uint64, key, record []byte) {
	n := uint64(len(key) + len(record))
	if n > s.size/maxRowShare {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed > seen {
		return
	}
	if s.ring == nil {
		s.ring = make([]byte, s.size)
		s.slots = make([]rowSlot, rowWays<<bits.Len64(s.size/rowBytes/rowWays))
	}
	if left := s.size - s.head%s.size; left < n {
		s.head += left // no row goes around the end
	}
	slot := findRow(s, hash, key)
	if slot == nil {
		slot = s.oldest(hash)
	}
	*slot = rowSlot{hash: hash, at: s.head, keyLen: uint32(len(key)), recordLen: uint32(len(record))}
	row := s.ring[s.head%s.size:]
	copy(row[copy(row, key):], record)
	s.head += n
}

// ways returns the slots that a hash may have.
func (s *rowShard) ways(hash uint64) []rowSlot {
	if s.slots == nil {
		return nil
	}
	first := hash % uint64(len(s.slots)) &^ (rowWays - 1)
	return s.slots[first : first+rowWays]
}

// findRow returns the slot of a row that is still there, or nil.
func findRow[K string | []byte](s *rowShard, hash uint64, key K) *rowSlot {
	ways := s.ways(hash)
	for i := range ways {
		if w := &ways[i]; w.hash == hash && s.holds(w) && string(s.ring[w.at%s.size:][:w.keyLen]) == string(key) {
			return w
		}
	}
	return nil
}

// holds reports whether nothing has been written over a slot's row.
func (s *rowShard) holds(w *rowSlot) bool { return w.at+s.size >= s.head && w.recordLen != 0 }

// oldest returns the slot of the row that is overwritten first, or was.
func (s *rowShard) oldest(hash uint64) *rowSlot {
	ways := s.ways(hash)
	oldest := &ways[0]
	for i := range ways {
		if ways[i].at < oldest.at {
			oldest = &ways[i]
		}
	}
	return oldest
}
