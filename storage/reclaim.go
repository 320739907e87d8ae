package storage

import (
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// reclaimPiece is how much of the store is rewritten at a time to give space back.
// While it is, the old tables and the new ones are on the disk.
const reclaimPiece = 64 << 20

// Reclaim gives the disk space of what was deleted, and swept, back now instead of
// when Pebble's own compactions come by: without writes they don't. It is for a store
// that is full, so it goes piece by piece, each of which needs the room of its tables
// for a while. room says, before each, how many bytes it may take. What needs more is
// left as it is, which is then the error; so is the rest when ctx ends.
func (s *Store) Reclaim(ctx context.Context, room func() uint64) error {
	return s.reclaim(ctx, room, reclaimPiece)
}

func (s *Store) reclaim(ctx context.Context, room func() uint64, piece uint64) error {
	// The tombstones of what was deleted last are in memory.
	if err := s.Flush(ctx); err != nil {
		return err
	}
	h, err := s.acquire()
	if err != nil {
		return err
	}
	defer h.release()
	tables, err := h.db.SSTables()
	if err != nil {
		return err
	}
	var left error
	for _, p := range cutTables(tables, piece) {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The tables are others by now, where pieces before were rewritten.
		if tables, err = h.db.SSTables(); err != nil {
			return err
		}
		switch need, rewrites := costOf(tables, p); {
		case !rewrites:
		case need > room():
			left = fmt.Errorf("storage: giving space back takes %d bytes for a while, which the disk does not have", need)
		default:
			if err := h.db.Compact(ctx, p.start, p.end, false); err != nil {
				return err
			}
		}
	}
	return left
}

// A keySpan is the keys of the database from start to end, both included.
type keySpan struct{ start, end []byte }

func (k keySpan) has(t *pebble.SSTableInfo) bool {
	return comparer.Compare(t.Smallest.UserKey, k.end) <= 0 && comparer.Compare(t.Largest.UserKey, k.start) >= 0
}

// with is the span and what a table reaches beyond it.
func (k keySpan) with(t *pebble.SSTableInfo) keySpan {
	if comparer.Compare(t.Smallest.UserKey, k.start) < 0 {
		k.start = t.Smallest.UserKey
	}
	if comparer.Compare(t.Largest.UserKey, k.end) > 0 {
		k.end = t.Largest.UserKey
	}
	return k
}

// cutTables cuts the keys into spans into which tables of about size bytes reach, or
// one. Pebble takes tables as a whole, so a span ends where its last table begins.
func cutTables(levels [][]pebble.SSTableInfo, size uint64) (spans []keySpan) {
	var all []*pebble.SSTableInfo
	for _, level := range levels {
		for i := range level {
			all = append(all, &level[i])
		}
	}
	slices.SortFunc(all, func(a, b *pebble.SSTableInfo) int { return comparer.Compare(a.Smallest.UserKey, b.Smallest.UserKey) })
	for len(all) > 0 {
		n, bytes := 1, all[0].Size
		for n < len(all) && (bytes < size || comparer.Equal(all[n].Smallest.UserKey, all[n-1].Smallest.UserKey)) {
			bytes += all[n].Size
			n++
		}
		span := keySpan{all[0].Smallest.UserKey, all[n-1].Smallest.UserKey}
		for i := 0; i < n && comparer.Equal(span.start, span.end); i++ {
			span.end = all[i].Largest.UserKey
		}
		if comparer.Compare(span.start, span.end) < 0 { // else tables of one key
			spans = append(spans, span)
		}
		all = all[n:]
	}
	return spans
}

// costOf is how many bytes the tables have, at most, that the compaction of a span
// rewrites at once, and whether there is anything to rewrite. Level by level, Pebble
// takes the tables that reach into the span and those of the next level that these
// reach into.
func costOf(levels [][]pebble.SSTableInfo, span keySpan) (most uint64, rewrites bool) {
	above := uint64(0)
	for i, level := range levels {
		bytes, reach := reachInto(level, span, i == 0)
		most = max(most, above+bytes)
		if bytes > 0 {
			above, span = bytes, reach
			rewrites = rewrites || i < len(levels)-1
		}
	}
	return most, rewrites
}

// reachInto is how many bytes the tables have that reach into a span, and how far they
// reach. Those of the first level overlap each other, and all that do are taken.
func reachInto(level []pebble.SSTableInfo, span keySpan, overlapping bool) (bytes uint64, reach keySpan) {
	for {
		bytes, reach = 0, span
		for i := range level {
			if t := &level[i]; span.has(t) {
				bytes += t.Size
				reach = reach.with(t)
			}
		}
		if !overlapping || comparer.Equal(reach.start, span.start) && comparer.Equal(reach.end, span.end) {
			return bytes, reach
		}
		span = reach
	}
}
