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

// reclaimPasses is how often the store is gone through, at most: what one piece wrote
// can lie between two others.
const reclaimPasses = 3

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
	for range reclaimPasses {
		tables, err := h.db.SSTables()
		if err != nil {
			return err
		}
		rewritten, left := 0, error(nil)
		for _, span := range append(firstLevel(tables), cutTables(tables, piece)...) {
			if err := ctx.Err(); err != nil {
				return err
			}
			// The tables are others by now, where spans before were rewritten.
			if tables, err = h.db.SSTables(); err != nil {
				return err
			}
			switch need, rewrites := costOf(tables, span); {
			case !rewrites:
			case need > room():
				left = fmt.Errorf("storage: giving space back takes %d bytes for a while, which the disk does not have", need)
			default:
				if err := h.db.Compact(ctx, span.start, span.end, false); err != nil {
					return err
				}
				rewritten++
			}
		}
		if rewritten == 0 {
			return left
		}
	}
	return nil
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

// firstLevel has a span of one key in each table of the first level. These overlap each
// other and reach far, so that any span would take all of them; alone they go down into
// the next level, and nearly nothing else does.
func firstLevel(levels [][]pebble.SSTableInfo) (spans []keySpan) {
	for i := range levels[0] {
		key := levels[0][i].Smallest.UserKey
		spans = append(spans, keySpan{key, append(slices.Clip(key), 0)})
	}
	return spans
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

// costOf is about how many bytes the tables have, at most, that the compaction of a span
// rewrites at once, and whether there is anything to rewrite. From level to level, Pebble
// takes the tables that reach into the span, and of the next level that has any those
// that these reach into; what it writes for the span goes on.
func costOf(levels [][]pebble.SSTableInfo, span keySpan) (most uint64, rewrites bool) {
	carried, largest := uint64(0), uint64(0)
	for _, level := range levels {
		for i := range level {
			largest = max(largest, level[i].Size)
		}
	}
	for i := range len(levels) - 1 {
		bytes, reach := reachInto(levels[i], span, i == 0)
		if bytes == 0 {
			continue
		}
		rewrites = true
		next := i + 1
		for i == 0 && next < len(levels)-1 && len(levels[next]) == 0 {
			next++
		}
		below, _ := reachInto(levels[next], reach, false)
		most = max(most, carried+bytes+below)
		if i == 0 {
			bytes = min(bytes, largest) // of what reaches far, the span has little
		}
		carried += bytes
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
