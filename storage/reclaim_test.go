package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairnkv/cairn/kv"
)

// TestReclaim gives the space of deleted keys back piece by piece, in less room than
// the store has, and does not begin what it has no room for.
func TestReclaim(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	random := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 4<<10)
	const keys, each = 6_000, 60
	for i := range keys / each {
		var ops []kv.Op
		for j := range each {
			for k := range value {
				value[k] = byte(random.Uint32())
			}
			ops = append(ops, kv.Op{Type: kv.OpPut, Key: fmt.Appendf(nil, "k%05d", i*each+j), Value: append([]byte(nil), value...)})
		}
		applyTo(t, s, txn(ops...))
	}
	ctx := context.Background()
	plenty := func() uint64 { return 1 << 40 }
	if err := s.Reclaim(ctx, plenty); err != nil {
		t.Fatal(err)
	}
	size := func() uint64 {
		stats, err := s.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return stats.DiskBytes
	}
	full := size()
	for i := 0; i < keys; i += keys / 10 {
		applyTo(t, s, txn(kv.Op{Type: kv.OpDelete, Range: kv.Range{Start: fmt.Appendf(nil, "k%05d", i), End: fmt.Appendf(nil, "k%05d", i+keys/13)}}))
	}
	newest, _ := s.Revisions()
	run(t, s, fmt.Sprintf("compact %d", newest))
	awaitSwept(t, s)

	if err := s.Reclaim(ctx, func() uint64 { return 0 }); err == nil {
		t.Error("without room nothing is missing")
	}
	h, err := s.acquire()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := h.db.SSTables()
	h.release()
	if err != nil {
		t.Fatal(err)
	}
	most := uint64(0) // that any table has
	for _, level := range tables {
		for i := range level {
			most = max(most, level[i].Size)
		}
	}
	const piece = 1 << 20
	if err := s.reclaim(ctx, func() uint64 { return full / 2 }, piece); err != nil {
		t.Errorf("in half of the room of the store, whose largest table has %d bytes: %v", most, err)
	}
	if left := size(); left > full/2 {
		t.Errorf("%d of %d bytes are left, where three of four keys are gone", left, full)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Reclaim(canceled, plenty); err == nil {
		t.Error("a reclaim that is over goes on")
	}
}

// TestSpansOfTables cuts tables into spans, and adds up what their compaction takes.
func TestSpansOfTables(t *testing.T) {
	table := func(from, to string, size uint64) (info pebble.SSTableInfo) {
		info.Smallest.UserKey, info.Largest.UserKey, info.Size = []byte(from), []byte(to), size
		return info
	}
	levels := [][]pebble.SSTableInfo{
		{table("c", "f", 1), table("e", "k", 2)}, // overlap: both, or none
		nil,
		{table("a", "d", 10), table("e", "g", 20), table("h", "m", 40)},
		{table("a", "b", 100), table("b0", "f", 200), table("g", "l", 400), table("n", "z", 800)},
	}
	spans := cutTables(levels, 300)
	got := ""
	for _, k := range spans {
		got += fmt.Sprintf("%s-%s ", k.start, k.end)
	}
	if got != "a-b0 c-g h-n " {
		t.Errorf("got %s", got)
	}
	for _, c := range []struct {
		span     keySpan
		most     uint64
		rewrites bool
	}{
		{keySpan{[]byte("n"), []byte("z")}, 0, false},
		{keySpan{[]byte("l0"), []byte("m")}, 440, true},
		{keySpan{[]byte("a"), []byte("a0")}, 310, true},
		// The first level goes into all of the third; of that, what reaches into the span
		// goes on, with a table's worth of the first.
		{keySpan{[]byte("c"), []byte("c0")}, 3 + 10 + 300, true},
		{keySpan{[]byte("e1"), []byte("e2")}, 3 + 20 + 600, true},
		{keySpan{[]byte("z0"), []byte("z1")}, 0, false},
	} {
		if most, rewrites := costOf(levels, c.span); most != c.most || rewrites != c.rewrites {
			t.Errorf("%s-%s: %d bytes, rewrites %v; want %d, %v", c.span.start, c.span.end, most, rewrites, c.most, c.rewrites)
		}
	}
}
