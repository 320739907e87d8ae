package storage

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
)

// logEntry is a Raft entry as the tests keep it. Its commands are encoded, as
// they travel: applying decodes them again each time.
type logEntry struct {
	index       uint64
	incarnation ulid.ULID
	seq         uint64
	commands    [][]byte
}

func (e *logEntry) String() string {
	s := fmt.Sprintf("entry %d, %s %d:", e.index, sayLease(e.incarnation), e.seq)
	for _, raw := range e.commands {
		c, err := kv.DecodeCommand(raw)
		if err != nil {
			return err.Error()
		}
		s += "\n\t" + sayCommand(c)
	}
	return s
}

// applier applies the entries of a log to a store, in batches that it cuts
// where it is told to.
type applier struct {
	store *Store
	// cut says, before each entry, whether the batch ends; nil: every entry has
	// a batch of its own.
	cut func() bool
	// after is called after each command, while the batch is open.
	after func()
	// results and events are what the commands gave, by the index of their
	// entry. An entry that was a repetition has none.
	results map[uint64][]*kv.Result
	events  []kv.Event
}

// apply applies the entries that the store has not applied yet.
func (a *applier) apply(log []logEntry) (err error) {
	done, err := a.store.Applied()
	if err != nil {
		return err
	}
	var b *Batch
	var buffers [][]byte
	commit := func() error {
		applied, err := b.Commit()
		b = nil
		// Answers and events may not share memory with the commands: overwrite
		// it before anybody looks.
		for _, raw := range buffers {
			for i := range raw {
				raw[i] = 0xdb
			}
		}
		buffers = nil
		a.events = append(a.events, applied.Events...)
		return err
	}
	defer func() {
		if b != nil {
			b.Close()
		}
	}()
	for i := range log {
		e := &log[i]
		if e.index <= done {
			continue
		}
		if b != nil && (a.cut == nil || a.cut()) {
			if err := commit(); err != nil {
				return err
			}
		}
		if b == nil {
			if b, err = a.store.NewBatch(); err != nil {
				return err
			}
			b.WantEvents = true
		}
		var results []*kv.Result
		if b.BeginEntry(e.index, e.incarnation, e.seq) {
			var commands []*kv.Command
			for _, raw := range e.commands {
				raw = bytes.Clone(raw)
				buffers = append(buffers, raw)
				c, err := kv.DecodeCommand(raw)
				if err != nil {
					return err
				}
				commands = append(commands, c)
			}
			if e.index%2 == 0 { // reading ahead changes nothing
				b.fetchAtOnce, b.manyPending = 1, int(e.index%32)
				// From nothing that is remembered to a few keys.
				b.h.recentLeases.limit = 1 + int(e.index%4)
				b.h.recent.limit = int(e.index%5) * 4
				b.h.changed.limit = 8 << (e.index % 4)
				if e.index%128 == 0 {
					if _, err := b.h.db.AsyncFlush(); err != nil { // not waited for: the disk may be full
						return err
					}
				}
				if err := b.Fetch(commands); err != nil {
					return err
				}
			}
			for _, c := range commands {
				r, err := b.Apply(c)
				if err != nil {
					return fmt.Errorf("%v: %w", e, err)
				}
				results = append(results, r)
				if a.after != nil {
					a.after()
				}
			}
		}
		b.EndEntry()
		if a.results != nil {
			a.results[e.index] = results
		}
	}
	if b == nil {
		return nil
	}
	return commit()
}

// openStore opens a store in fs with options that make it small.
func openStore(t testing.TB, fs vfs.FS, options ...func(*Options)) *Store {
	t.Helper()
	s, err := tryOpen(fs, options...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// storeDir is below a directory that the store has to make, too.
const storeDir = "data/shard-1"

func tryOpen(fs vfs.FS, options ...func(*Options)) (*Store, error) {
	o := Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 256 << 10}
	for _, set := range options {
		set(&o)
	}
	return Open(storeDir, o)
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// mustView calls fn with a view of s.
func mustView(t testing.TB, s *Store, fn func(*View)) {
	t.Helper()
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	fn(v)
}

func stateHash(s *Store) (sum [32]byte, err error) {
	v, err := s.View()
	if err != nil {
		return sum, err
	}
	defer v.Close()
	return v.StateHash(context.Background())
}

func mustHash(t testing.TB, s *Store) [32]byte {
	t.Helper()
	sum, err := stateHash(s)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// awaitSwept waits until the sweep has nothing left to do.
func awaitSwept(t testing.TB, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
		swept, err := s.Swept()
		if err != nil {
			t.Fatal(err)
		}
		if swept {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the sweep does not end")
		}
	}
}

// openBatch begins a batch, and tells the index of the last entry before it.
func openBatch(t testing.TB, s *Store) (b *Batch, index uint64) {
	t.Helper()
	index, err := s.Applied()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = s.NewBatch(); err != nil {
		t.Fatal(err)
	}
	return b, index
}

// applyTo applies commands to s, an entry each, all in one batch, and returns
// their results.
func applyTo(t testing.TB, s *Store, commands ...*kv.Command) []*kv.Result {
	t.Helper()
	b, index := openBatch(t, s)
	defer b.Close()
	var results []*kv.Result
	for _, c := range commands {
		index++
		if !b.BeginEntry(index, kv.LeaseID{1}, index) {
			t.Fatalf("entry %d is taken for a repetition", index)
		}
		r, err := b.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
		b.EndEntry()
	}
	if _, err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return results
}

// run applies commands in the language of the scenarios, each of which must
// succeed.
func run(t testing.TB, s *Store, text string) []*kv.Result {
	t.Helper()
	commands, err := parseCommands(text, func() uint64 {
		_, index := s.NeedsClock()
		return index
	})
	if err != nil {
		t.Fatal(err)
	}
	results := applyTo(t, s, commands...)
	for i, r := range results {
		if r.Code != kv.OK {
			t.Fatalf("%s: %v", sayCommand(commands[i]), r.Err())
		}
	}
	return results
}

// txn is a command of these operations.
func txn(ops ...kv.Op) *kv.Command {
	return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: ops}}
}

func put(key, value string) kv.Op {
	return kv.Op{Type: kv.OpPut, Key: []byte(key), Value: []byte(value)}
}

// sameResult compares two answers in all that is part of them. Where one has
// no entries, or an empty value, nil and empty are the same.
func sameResult(a, b *kv.Result) bool {
	return a.Replayed == b.Replayed && slices.Equal(kv.AppendResult(nil, a), kv.AppendResult(nil, b))
}
