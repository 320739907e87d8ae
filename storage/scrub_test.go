package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// beginScrub applies a command that begins a step, in a batch with others before
// and behind it, and returns the store's part in it.
func beginScrub(t testing.TB, s *Store, members []uint64, part uint64, around ...*kv.Command) *Scrub {
	t.Helper()
	b, index := openBatch(t, s)
	defer b.Close()
	// All of one entry: the state in the midst of it is what is looked at.
	if !b.BeginEntry(index+1, kv.LeaseID{1}, index+1) {
		t.Fatal("the entry is taken for a repetition")
	}
	begin := &kv.Command{Kind: kv.KindScrub, Scrub: kv.Scrub{Members: members, Bytes: part}}
	for _, c := range append(slices.Clone(around), begin) {
		if _, err := b.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range around {
		if _, err := b.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	b.EndEntry()
	applied, err := b.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if applied.Scrub == nil {
		t.Fatal("no step began")
	}
	return applied.Scrub
}

func sumOf(t testing.TB, s *Scrub) kv.Scrubbed {
	t.Helper()
	defer s.Close()
	found, err := s.Sum(func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func scrubbed(replica uint64, found kv.Scrubbed) *kv.Command {
	found.Replica = replica
	return &kv.Command{Kind: kv.KindScrubbed, Scrubbed: found}
}

// scrubAll goes through two stores of the same log, step by step, and returns the
// steps in which they differ. Each store hears only of the find of the first.
func scrubAll(t testing.TB, a, b *Store, part uint64, around func() []*kv.Command) (steps int, differ []kv.Scrubbed) {
	t.Helper()
	for {
		commands := around()
		pa, pb := beginScrub(t, a, []uint64{1}, part, commands...), beginScrub(t, b, []uint64{1}, part, commands...)
		if pa.Step != pb.Step || !bytes.Equal(pa.from, pb.from) {
			t.Fatalf("step %d from %q, and step %d from %q", pa.Step, pa.from, pb.Step, pb.from)
		}
		fa, fb := sumOf(t, pa), sumOf(t, pb)
		steps++
		if !sameFind(&fa, &fb) {
			differ = append(differ, fb)
		}
		applyTo(t, a, scrubbed(1, fa))
		applyTo(t, b, scrubbed(1, fa))
		if len(fa.Next) == 0 {
			return steps, differ
		}
	}
}

// TestScrubAgrees: stores of the same log have the same sums, whatever the size
// of their batches, whatever they have swept, flushed or compacted, at any size of
// a part, while the log goes on.
func TestScrubAgrees(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			a := openStore(t, vfs.NewMem())
			defer closeStore(t, a)
			b := openStore(t, vfs.NewMem(), func(o *Options) { o.BatchBytes, o.SweepBatch, o.CacheBytes = 1, 1, 64<<10 })
			defer closeStore(t, b)
			maker := newLogMaker(seed, 15)
			more := func(n int) (commands []*kv.Command) {
				log, _ := maker.make(n)
				for i := range log {
					for _, encoded := range log[i].commands {
						c, err := kv.DecodeCommand(encoded)
						if err != nil {
							t.Fatal(err)
						}
						commands = append(commands, c)
					}
				}
				return commands
			}
			passes, most := 0, 0
			for _, part := range []uint64{1, 300, 5_000, 1 << 20} {
				commands := more(200)
				applyTo(t, a, commands...)
				for _, c := range commands {
					applyTo(t, b, c)
				}
				if part == 300 {
					awaitSwept(t, a)
				}
				if part == 5_000 {
					if err := a.current.Load().db.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				steps, differ := scrubAll(t, a, b, part, func() []*kv.Command {
					if passes++; part == 1 && passes > 200 {
						return nil // or the log grows faster than it is looked at
					}
					return more(1)
				})
				most = max(most, steps)
				if len(differ) > 0 {
					t.Errorf("parts of %d bytes: %d of %d steps differ", part, len(differ), steps)
				}
			}
			if most < 10 {
				t.Errorf("the longest pass had %d steps", most)
			}
		})
	}
}

// TestScrubFindsEachRecord changes the value of each record of a store, one at a
// time, takes it away, and adds one in its place. A pass finds each that any read
// could see, and says in which part it is.
func TestScrubFindsEachRecord(t *testing.T) {
	const history = `
		grant L 5000; @time=9 @id=k @print=f put "a\x00b" value type=text/plain lease=L; put c 1 own=2000 lease=O; put c 2 own=2000 lease=P
		put old 1; put old 2; put gone 1; delete gone; compact 6; put old 3; put new 1; delete new; put last 1; alarm 1 no-space on; member 2`
	a, b := openStore(t, vfs.NewMem()), openStore(t, vfs.NewMem())
	defer closeStore(t, a)
	defer closeStore(t, b)
	for _, s := range []*Store{a, b} {
		run(t, s, history)
		awaitSwept(t, s)
	}
	nothing := func() []*kv.Command { return nil }
	if steps, differ := scrubAll(t, a, b, 64, nothing); len(differ) > 0 || steps < 10 {
		t.Fatalf("%d of %d steps differ before anything was changed", len(differ), steps)
	}
	db := b.current.Load().db
	var records []recordSample
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for it.First(); it.Valid(); it.Next() {
		records = append(records, recordSample{string(it.Key()), bytes.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[byte]bool{}
	for _, r := range records {
		key := []byte(r.name)
		if key[0] == spaceState || key[0] == spaceScrub || key[0] == spaceMember || key[0] == spaceEntries {
			// The first two are not looked at. Of the last two, applying the steps
			// of the test itself reads one, or writes it anew.
			continue
		}
		_, compact := b.Revisions()
		if key[0] == spaceChange && changeRevision(key) <= compact {
			continue // nobody reads it any more
		}
		seen[key[0]] = true
		restore := func() {
			if err := db.Set(key, r.encoded, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		damage := func(what string, do func() error) {
			t.Helper()
			if err := do(); err != nil {
				t.Fatal(err)
			}
			if _, differ := scrubAll(t, a, b, 64, nothing); len(differ) == 0 {
				t.Errorf("record %q, %s: not found", key, what)
			}
		}
		damage("other value", func() error { return db.Set(key, append(bytes.Clone(r.encoded), 1), pebble.NoSync) })
		if key[0] != spaceDeadline { // is deleted by SingleDelete, which allows one write
			damage("gone", func() error { return db.Delete(key, pebble.NoSync) })
		}
		restore()
	}
	for _, space := range []byte{spaceAlarm, spaceLease, spaceNumber, spaceAttached, spaceDeadline, spaceIdempotency, spaceExpiry, spaceNewest, spaceVersion, spaceChange, spaceFormat} {
		if !seen[space] {
			t.Errorf("the history has no record of space %q", space)
		}
	}
	if _, differ := scrubAll(t, a, b, 64, nothing); len(differ) > 0 {
		t.Error("what was put back differs")
	}
}

// TestScrubVerdicts: who differs from the majority gets the alarm, whoever comes
// first and last; where there is no majority, nobody does, and all learn that.
func TestScrubVerdicts(t *testing.T) {
	right, wrong, third := kv.Scrubbed{Sum: [32]byte{1}}, kv.Scrubbed{Sum: [32]byte{2}}, kv.Scrubbed{Sum: [32]byte{1}, Next: []byte("v")}
	find := func(replica uint64, f kv.Scrubbed) kv.Scrubbed { f.Replica = replica; return f }
	for _, c := range []struct {
		name    string
		members []uint64
		finds   []kv.Scrubbed
		alarms  []uint64
		moves   bool // the next step goes on
	}{
		{"all agree", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, third), find(3, third), find(2, third)}, nil, true},
		{"a majority is enough", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, third), find(3, third)}, nil, true},
		{"one is not", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, third)}, nil, false},
		{"the first differs", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, wrong), find(3, third), find(2, third)}, []uint64{1}, true},
		{"the last differs", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, third), find(3, third), find(2, wrong)}, []uint64{2}, true},
		{"another end of the part", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, right), find(2, third), find(3, right)}, []uint64{2}, false},
		{"two of five", []uint64{1, 2, 3, 4, 5}, []kv.Scrubbed{find(1, third), find(2, wrong), find(3, right), find(4, third), find(5, third)}, []uint64{2, 3}, true},
		{"two of four against two", []uint64{1, 2, 3, 4}, []kv.Scrubbed{find(1, right), find(2, right), find(3, wrong), find(4, wrong)}, []uint64{NoMember}, false},
		{"one against one", []uint64{1, 2}, []kv.Scrubbed{find(1, right), find(2, wrong)}, []uint64{NoMember}, false},
		{"each for itself", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, right), find(2, wrong), find(3, third)}, []uint64{NoMember}, false},
		{"one that has no vote", []uint64{1, 2, 3}, []kv.Scrubbed{find(4, wrong), find(1, third), find(2, third)}, nil, true},
		{"one that speaks twice", []uint64{1, 2, 3}, []kv.Scrubbed{find(1, third), find(1, wrong), find(2, third)}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, vfs.NewMem())
			defer closeStore(t, s)
			beginScrub(t, s, c.members, 1).Close()
			stale := find(2, wrong)
			stale.Step = 7
			applyTo(t, s, &kv.Command{Kind: kv.KindScrubbed, Scrubbed: stale})
			for _, f := range c.finds {
				f.Step = 1
				applyTo(t, s, &kv.Command{Kind: kv.KindScrubbed, Scrubbed: f})
			}
			var raised []uint64
			mustView(t, s, func(v *View) {
				alarms, err := v.Alarms()
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range alarms {
					raised = append(raised, a.Replica)
				}
			})
			if !slices.Equal(raised, c.alarms) {
				t.Errorf("alarms of %v, want %v", raised, c.alarms)
			}
			for replica := range uint64(6) {
				it, all, err := s.Corrupt(replica)
				if err != nil || it != slices.Contains(c.alarms, replica) || all != slices.Contains(c.alarms, NoMember) {
					t.Errorf("replica %d is corrupt: %v; all are: %v, %v", replica, it, all, err)
				}
			}
			next := beginScrub(t, s, c.members, 1)
			defer next.Close()
			if moved := len(next.from) > 0; moved != c.moves {
				t.Errorf("the next step is from %q", next.from)
			}
		})
	}
}

// TestScrubEnds: a part that is no longer wanted ends where it is, and what it
// pinned is let go; a batch that is abandoned lets go as well.
func TestScrubEnds(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s) // hangs if anything is held
	for i := range 10 {
		applyTo(t, s, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
			{Type: kv.OpPut, Key: fmt.Append(nil, "k", i), Value: bytes.Repeat([]byte("v"), 100_000)},
		}}})
	}
	part := beginScrub(t, s, []uint64{1}, 1<<20)
	enough := errors.New("enough")
	calls := 0
	if _, err := part.Sum(func(int) error { calls++; return enough }); !errors.Is(err, enough) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
	part.Close()
	b, err := s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	begin := &kv.Command{Kind: kv.KindScrub, Scrub: kv.Scrub{Members: []uint64{1}, Bytes: 1}}
	for i := range uint64(2) {
		b.BeginEntry(1000+i, kv.LeaseID{2}, 1+i)
		if _, err := b.Apply(begin); err != nil {
			t.Fatal(err)
		}
		b.EndEntry()
	}
	b.Close()
}

// BenchmarkScrub adds up a store of 64 MiB, without a rest.
func BenchmarkScrub(b *testing.B) {
	for _, size := range []int{100, 4000} {
		b.Run(fmt.Sprint("values of ", size), func(b *testing.B) {
			s := openStore(b, vfs.NewMem())
			defer closeStore(b, s)
			var commands []*kv.Command
			for i := range (64 << 20) / (3*size + 200) {
				commands = append(commands, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{
					{Type: kv.OpPut, Key: fmt.Appendf(nil, "key-%08d", i), Value: bytes.Repeat([]byte{byte(i)}, size)},
				}}})
			}
			applyTo(b, s, commands...)
			b.ResetTimer()
			for range b.N {
				part := beginScrub(b, s, []uint64{1}, 1<<30)
				total := 0
				if _, err := part.Sum(func(n int) error { total += n; return nil }); err != nil {
					b.Fatal(err)
				}
				part.Close()
				b.SetBytes(int64(total))
			}
		})
	}
}
