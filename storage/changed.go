package storage

import (
	"math"
	"math/bits"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// changed tells which keys were not changed recently: far more of them than recent
// can remember, in a Bloom filter, which may take a key for changed that wasn't.
// Of a key that was not, tables of later commits have nothing, and need not be
// asked; see unchangedOnly. New keys are such, as bulk writes bring them.
//
// Like recent it has two generations, decides nothing that is applied, and is used
// by the applying goroutine alone.
type changed struct {
	young, old generation
	limit      int    // of keys in a generation
	revision   uint64 // of the last commit
}

// generation has the keys that were changed behind a revision, which are those that
// Pebble gave a number from first on. Where nothing was committed yet, nobody knows
// that number, and it is one that none reaches.
type generation struct {
	since, first uint64
	filter
}

// newChanged begins at the revision of the last commit.
func newChanged(revision uint64) *changed {
	c := &changed{
		limit: filterKeys, revision: revision,
		young: generation{since: revision, first: math.MaxUint64}, old: generation{since: revision, first: math.MaxUint64},
	}
	c.young.empty()
	return c
}

// may reports whether a key may have been changed behind the revision old.since.
func (c *changed) may(key []byte) bool {
	h := xxhash.Sum64(key)
	return c.young.has(h) || c.old.has(h)
}

// commit adds what a batch changed, the first of it with the number first or below.
func (c *changed) commit(revision, first uint64, keys map[string]*version) {
	switch {
	case first == 0:
		panic("storage: a commit has no number") // which would hide every table
	case c.old.first == math.MaxUint64:
		c.old.first, c.young.first = first, first
	case c.young.keys >= c.limit:
		c.young, c.old = c.old, c.young
		c.young.empty()
		c.young.since, c.young.first = c.revision, first
	}
	c.revision = revision
	for key, v := range keys { // lint:unordered bits of a set
		if !v.fetched {
			c.young.add(xxhash.Sum64String(key))
		}
	}
}

const (
	// filterKeys is how many keys one generation is for: with two of them, what the
	// flushed tables have that wait for a compaction while bulk writes come as fast
	// as they may.
	filterKeys = 512 << 10
	// filterBits is what a key takes in it.
	filterBits = 16
	// filterProbes are the bits that a key sets, all in one line of the processor's
	// cache: some 3 of 1,000 keys are taken for changed that weren't.
	filterProbes = 6
	filterLine   = 512 // bits
)

// filter is a Bloom filter. The zero value has no keys, and takes none before empty.
type filter struct {
	lines [][filterLine / 64]uint64
	keys  int
}

// empty forgets all keys.
func (f *filter) empty() {
	if f.keys = 0; f.lines == nil {
		f.lines = make([][filterLine / 64]uint64, filterKeys*filterBits/filterLine)
	} else {
		clear(f.lines)
	}
}

// line returns where the bits of a hash are, and what they are made from.
func (f *filter) line(hash uint64) (line *[filterLine / 64]uint64, probes uint64) {
	at, probes := bits.Mul64(hash, uint64(len(f.lines)))
	return &f.lines[at], probes
}

func (f *filter) has(hash uint64) bool {
	if f.keys == 0 {
		return false
	}
	line, probes := f.line(hash)
	for range filterProbes {
		if line[probes%filterLine/64]&(1<<(probes%64)) == 0 {
			return false
		}
		probes /= filterLine
	}
	return true
}

func (f *filter) add(hash uint64) {
	line, probes := f.line(hash)
	fresh := uint64(0)
	for range filterProbes {
		word, bit := &line[probes%filterLine/64], uint64(1)<<(probes%64)
		fresh |= ^*word & bit
		*word |= bit
		probes /= filterLine
	}
	if fresh != 0 {
		f.keys++
	}
}

// commitProperty is a property of tables and of their blocks: the numbers that
// Pebble gave to their newest versions when they were committed, or 0 once nothing
// older is below them. Versions say in their records when they were made, but what
// writes a table needn't look at those.
const commitProperty = "cairn.newest.commits"

func collectCommits() pebble.BlockPropertyCollector {
	return sstable.NewBlockIntervalCollector(commitProperty, commitMapper{}, nil)
}

// unchangedOnly returns a filter that passes over tables and blocks which have
// only newest versions, and ends, of keys that were changed with first or later. An
// iterator with it may say anything of such keys, and is right about all others.
// Tables without the property are always asked.
func unchangedOnly(first uint64) pebble.BlockPropertyFilter {
	return sstable.NewBlockIntervalFilter(commitProperty, 0, first, nil)
}

type commitMapper struct{}

// MapPointKey implements sstable.IntervalMapper.
func (commitMapper) MapPointKey(key pebble.InternalKey, _ []byte) (none sstable.BlockInterval, err error) {
	if len(key.UserKey) == 0 || key.UserKey[0] != spaceNewest {
		return none, nil
	}
	number := uint64(key.SeqNum())
	return sstable.BlockInterval{Lower: number, Upper: number + 1}, nil
}

// MapRangeKeys implements sstable.IntervalMapper. There are none.
func (commitMapper) MapRangeKeys(sstable.Span) (none sstable.BlockInterval, err error) {
	return none, nil
}
