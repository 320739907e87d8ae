package raftlog_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
)

// longLog is a log of so many entries, each saved by itself.
func longLog(t testing.TB, entries uint64) *logStore {
	t.Helper()
	s, err := openOurs(vfs.Default, t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.bootstrap())
	for i := uint64(1); i <= entries; i++ {
		must(t, s.save(update(i, i, 1, 300)))
	}
	return s
}

// TestReadInPieces reads a long log as a replica does that sends it to another: in
// pieces, each of which says that it is one.
func TestReadInPieces(t *testing.T) {
	const end, limit = 1_000, 64 << 20
	s := longLog(t, end-1)
	// So large that it drives the others out of the memory.
	must(t, s.save(update(end, end, 1, 8<<20)))
	whole, size, err := s.IterateEntries(nil, 0, shard, replica, 1, end, math.MaxUint64)
	if err != nil || len(whole) != end-1 {
		t.Fatal(len(whole), size, err)
	}
	var read []pb.Entry
	pieces := 0
	for next := uint64(1); next < end; next = uint64(len(read)) + 1 {
		piece, size, err := s.IterateEntries(nil, 0, shard, replica, next, end, limit)
		if err != nil || len(piece) == 0 {
			t.Fatal(len(piece), size, err)
		}
		if whole := next+uint64(len(piece)) == end; whole != (size <= limit) {
			t.Fatalf("%d entries from %d on, of size %d: to the caller this is not as far as it may go", len(piece), next, size)
		}
		read = append(read, piece...)
		pieces++
	}
	if pieces < 3 || !slices.EqualFunc(read, whole, func(a, b pb.Entry) bool { return a.Index == b.Index && string(a.Cmd) == string(b.Cmd) }) {
		t.Errorf("%d pieces, %d entries", pieces, len(read))
	}
	// The caller's own limit holds too.
	if piece, size, err := s.IterateEntries(nil, 0, shard, replica, 1, end, 4<<10); err != nil || size <= 4<<10 || len(piece) > 20 {
		t.Errorf("%d entries, size %d, %v", len(piece), size, err)
	}
}

// TestRecentTwin gives the same random saves to our store and to the one underneath,
// and reads the same ranges: what is held in memory is what is in the log.
func TestRecentTwin(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			ours, err := openOurs(vfs.Default, t.TempDir())
			must(t, err)
			defer func() { must(t, ours.Close()) }()
			plain, err := openPlain(vfs.Default, t.TempDir())
			must(t, err)
			defer func() { must(t, plain.Close()) }()
			must(t, ours.bootstrap())
			must(t, plain.bootstrap())
			first, end, term := uint64(1), uint64(1), uint64(1)
			save := func(u pb.Update) {
				must(t, ours.save(u))
				must(t, plain.save(u))
			}
			for range 300 {
				switch r.IntN(20) {
				case 0: // a new leader replaces the end
					term++
					end -= r.Uint64N(min(30, end-first) + 1)
				case 1: // a snapshot replaces the log
					end += r.Uint64N(50)
					first = end + 1
					u := pb.Update{ShardID: shard, ReplicaID: replica, State: pb.State{Term: term, Vote: replica, Commit: end}}
					u.Snapshot = pb.Snapshot{ShardID: shard, Index: end, Term: term}
					save(u)
					end = first
				case 2: // the beginning is cut off
					if end > first {
						first += r.Uint64N(end - first)
						must(t, ours.RemoveEntriesTo(shard, replica, first-1))
						must(t, plain.RemoveEntriesTo(shard, replica, first-1))
					}
				default:
					size := []int{10, 300, 100_000}[r.IntN(3)]
					to := end + r.Uint64N(20)
					save(update(end, to, term, size))
					end = to + 1
				}
				if first == end {
					continue
				}
				low := first + r.Uint64N(end-first)
				high := low + 1 + r.Uint64N(end-low)
				limit := []uint64{1 << 10, 1 << 20, math.MaxUint64}[r.IntN(3)]
				want, wantSize, err := plain.IterateEntries(nil, 0, shard, replica, low, high, limit)
				must(t, err)
				got, gotSize, err := ours.IterateEntries(nil, 0, shard, replica, low, high, limit)
				must(t, err)
				again := gotSize > limit && len(got) == 1 // perhaps
				if gotSize > limit && wantSize > limit || gotSize == wantSize || again {
					if len(want) > len(got) { // ours stopped earlier, and said so
						want = want[:max(1, len(got))]
					}
				} else {
					t.Fatalf("[%d, %d): size %d, want %d", low, high, gotSize, wantSize)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("[%d, %d) of [%d, %d): %d entries are not the %d of the log", low, high, first, end, len(got), len(want))
				}
			}
		})
	}
}

// BenchmarkRead reads what a leader sends to a replica that catches up.
//
//	go test -run '^$' -bench Read ./raftsm/raftlog
func BenchmarkRead(b *testing.B) {
	const end, piece = 20_001, 200
	s := longLog(b, end-1)
	must(b, s.save(update(end, end, 1, 8<<20))) // the others are read from the files
	next := uint64(1)
	for b.Loop() {
		read, _, err := s.IterateEntries(nil, 0, shard, replica, next, next+piece, 64<<20)
		if err != nil || len(read) != piece {
			b.Fatal(len(read), err)
		}
		if next += piece; next+piece > end {
			next = 1 + next%piece // not from a place that was read a moment ago
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/piece, "ns/entry")
}

// TestReadAgain: a replica that does not take entries is sent the same ones after each of
// its answers. All but the first read from a place gets one entry, for a moment; those from
// other places, as of one that takes the entry, get all.
func TestReadAgain(t *testing.T) {
	const end, limit = 600, 64 << 20
	s := longLog(t, end-1)
	read := func(low uint64) int {
		t.Helper()
		got, size, err := s.IterateEntries(nil, 0, shard, replica, low, end, limit)
		if err != nil || len(got) == 0 || got[0].Index != low || uint64(len(got)) < end-low && size <= limit {
			t.Fatal(len(got), size, err)
		}
		return len(got)
	}
	if n := read(100); n < 100 {
		t.Errorf("the first read has %d entries", n)
	}
	for read(100) > 1 { // until two follow each other within that moment
	}
	for _, low := range []uint64{101, 300} {
		if n := read(low); n < 100 {
			t.Errorf("another read, from %d on, has %d entries", low, n)
		}
	}
}
