package raftlog_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
)

// The tests of this file run the store on a file system in memory that forgets
// what was not synced, file by file and name by name, when the power goes.

// bulk is the payload that fills a log file of 64 MiB in a few saves.
const bulk = 12 << 20

// cutPower gives the store again as it is after a power loss: all that was
// synced, and nothing else. sync says when the loss happened: before s was
// closed.
func cutPower(t testing.TB, mem *vfs.MemFS, s *logStore, open opener) *logStore {
	t.Helper()
	mem.SetIgnoreSyncs(true)
	_ = s.Close()
	mem.ResetToSyncedState()
	mem.SetIgnoreSyncs(false)
	again, err := open(mem, "/log")
	must(t, err)
	return again
}

func newMem(t testing.TB) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewStrictMem()
	must(t, mem.MkdirAll("/log", 0o755))
	root, err := mem.OpenDir("/")
	must(t, err)
	must(t, root.Sync())
	must(t, root.Close())
	return mem
}

// logSize gives the size of the newest log file in mem.
func logSize(t testing.TB, mem *vfs.MemFS) (size int64) {
	t.Helper()
	dir := "/log/tandb/node-1-1"
	names, err := mem.List(dir)
	must(t, err)
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			info, err := mem.Stat(dir + "/" + name)
			must(t, err)
			size = info.Size()
		}
	}
	return size
}

// TestL2StateAtRollover saves a new commit index, which the store doesn't sync,
// as the last record of a log file; lets the next save begin a new one; and
// cuts the power.
//
// Found by running: the plain store has lost term and vote then, which were
// durable long before: its index says that the newest state is at a place of
// the old file that was never synced. A replica that has forgotten its vote can
// vote twice in a term. Ours syncs a file before it is closed.
func TestL2StateAtRollover(t *testing.T) {
	const (
		full   = 64 << 20 // the size at which a log file is finished
		block  = 32 << 10
		header = 7
	)
	// fill gives the payload that makes a record end at end.
	fill := func(start, end int64) int { return int(end - start - header*((end-1)/block-start/block+1)) }
	run := func(open opener) (pb.State, uint64, error) {
		mem := newMem(t)
		s, err := open(mem, "/log")
		must(t, err)
		must(t, s.bootstrap())
		var last, entries uint64
		save := func(size int) {
			last, entries = last+1, entries+1
			must(t, s.save(update(last, last, 3, size)))
		}
		save(bulk)
		around := fill(0, logSize(t, mem)) - bulk // what is saved besides an entry's payload
		for range 3 {
			save(bulk)
		}
		save(fill(logSize(t, mem), full-20) - around)
		if size := logSize(t, mem); size < full-40 || size >= full {
			t.Fatalf("the log file has %d bytes", size)
		}
		must(t, s.save(pb.Update{ShardID: shard, ReplicaID: replica, State: pb.State{Term: 3, Vote: replica, Commit: last}}))
		last, entries = last+1, entries+1
		beyond := update(last, last, 3, 100)
		beyond.State = pb.State{} // unchanged
		must(t, s.save(beyond))

		s = cutPower(t, mem, s, open)
		defer func() { _ = s.Close() }()
		if err := s.verify(last); err != nil {
			return pb.State{}, 0, err
		}
		have, state, err := s.read()
		return state, entries - uint64(len(have)), err
	}

	state, missing, err := run(openPlain)
	t.Logf("plain store: state %+v, %d entries missing, error %v", state, missing, err)
	if err == nil && state.Term == 3 {
		t.Error("the plain store has kept the term: what is ours for?")
	}
	state, missing, err = run(openOurs)
	if err != nil || state.Term != 3 || state.Vote != replica || missing != 0 {
		t.Errorf("ours: state %+v, %d entries missing, error %v", state, missing, err)
	}
}

// TestL2RolloverRace saves entries while snapshots are saved beside it, each of
// which may begin a new log file between the write of an entry and its sync,
// and cuts the power at some moment.
//
// Found by running: with the plain store this test doesn't come to its end. It
// syncs "its current file" without a lock, and so a file that the other has
// just closed: the process dies, in the better case. Ours lets only one of the
// two in at a time.
func TestL2RolloverRace(t *testing.T) {
	sampled(t)
	rounds := 4
	if sweep {
		rounds = 40
	}
	if lost := rolloverRace(t, openOurs, rounds); lost != 0 {
		t.Errorf("acknowledged entries were lost in %d of %d rounds", lost, rounds)
	}
}

func rolloverRace(t *testing.T, open opener, rounds int) (lost int) {
	for round := range rounds {
		mem := newMem(t)
		s, err := open(mem, "/log")
		must(t, err)
		must(t, s.bootstrap())
		var (
			mu    sync.Mutex
			cut   bool
			acked uint64
			wg    sync.WaitGroup
			stop  = make(chan struct{})
		)
		wg.Go(func() {
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				_ = s.SaveSnapshots([]pb.Update{{ShardID: shard, ReplicaID: replica,
					Snapshot: pb.Snapshot{ShardID: shard, Index: i % 3, Term: 3, Filepath: "none"}}})
			}
		})
		// The power goes after some saves beyond the first new file.
		end := uint64(64<<20/bulk + 1 + round%3)
		for i := uint64(1); i <= end; i++ {
			must(t, s.save(update(i, i, 3, bulk)))
			mu.Lock()
			if !cut {
				acked = i
			}
			if i == end {
				mem.SetIgnoreSyncs(true)
				cut = true
			}
			mu.Unlock()
		}
		close(stop)
		wg.Wait()

		s = cutPower(t, mem, s, open)
		rs, err := s.ReadRaftState(shard, replica, 0)
		if err != nil || rs.FirstIndex+rs.EntryCount-1 < acked || s.verify(0) != nil {
			lost++
		}
		_ = s.Close()
	}
	return lost
}

// TestPowerLossIsNeverRefused cuts the power again and again, under a replica
// that saves entries, takes them back, compacts and gets snapshots. Each time
// the log must hold what was acknowledged, and must be accepted: a record that
// claimed more than the log holds would refuse a whole log.
func TestPowerLossIsNeverRefused(t *testing.T) {
	sampled(t)
	cycles := 150
	if sweep {
		cycles = 5000
	}
	r := rand.New(rand.NewPCG(7, 9))
	mem := newMem(t)
	s, err := openOurs(mem, "/log")
	must(t, err)
	must(t, s.bootstrap())

	// What a reader must find: the model of the log.
	var (
		term     uint64 = 1
		snapshot uint64
		snapTerm uint64
		terms    []uint64 // of the entries after snapshot
	)
	last := func() uint64 { return snapshot + uint64(len(terms)) }
	for range cycles {
		for range r.IntN(6) {
			u := pb.Update{ShardID: shard, ReplicaID: replica}
			switch r.IntN(8) {
			case 0: // a new leader takes entries back
				term++
				keep := r.IntN(len(terms) + 1)
				terms = terms[:keep]
				fallthrough
			default:
				n := 1 + r.IntN(3)
				for range n {
					terms = append(terms, term)
					u.EntriesToSave = append(u.EntriesToSave, entry(last(), term, r.IntN(300)))
				}
				u.State = pb.State{Term: term, Vote: 1 + term%3, Commit: snapshot}
				must(t, s.save(u))
			case 1: // nothing to save
				must(t, s.save(u))
			case 2: // a vote
				term++
				u.State = pb.State{Term: term, Vote: 1 + term%3, Commit: snapshot}
				must(t, s.save(u))
			case 3: // a snapshot from the leader, in place of the log or of a part of it
				term++
				snapshot, snapTerm, terms = snapshot+1+uint64(r.IntN(len(terms)+20)), term, nil
				u.Snapshot = pb.Snapshot{ShardID: shard, Index: snapshot, Term: snapTerm, Filepath: "none"}
				u.State = pb.State{Term: term, Vote: 1 + term%3, Commit: snapshot}
				must(t, s.save(u))
			case 4: // a snapshot of its own, and compaction
				if len(terms) == 0 {
					break
				}
				n := 1 + r.IntN(len(terms))
				snapTerm = terms[n-1]
				snapshot += uint64(n)
				terms = terms[n:]
				u.Snapshot = pb.Snapshot{ShardID: shard, Index: snapshot, Term: snapTerm, Filepath: "none"}
				must(t, s.SaveSnapshots([]pb.Update{u}))
				must(t, s.RemoveEntriesTo(shard, replica, snapshot))
			}
		}
		if r.IntN(3) == 0 {
			must(t, s.Close()) // a clean stop
			s, err = openOurs(mem, "/log")
			must(t, err)
		} else {
			s = cutPower(t, mem, s, openOurs)
		}
		if err := s.verify(last()); err != nil {
			t.Fatal(err)
		}
		entries, _, err := s.read()
		if err != nil && !errors.Is(err, raftio.ErrNoSavedLog) {
			t.Fatal(err)
		}
		if len(entries) != len(terms) {
			t.Fatalf("%d entries after snapshot %d, saved were %d", len(entries), snapshot, len(terms))
		}
		for i, e := range entries {
			if want := entry(snapshot+1+uint64(i), terms[i], len(e.Cmd)); e.Term != want.Term || e.Index != want.Index || !bytes.Equal(e.Cmd, want.Cmd) {
				t.Fatalf("entry %d of term %d, want %d of term %d", e.Index, e.Term, want.Index, want.Term)
			}
		}
	}
	must(t, s.Close())
}

// TestSnapshotReplacesLog installs a snapshot over a log that goes on beyond
// it, with entries that were never committed, and starts again.
//
// Found by running: the plain store gives those entries as if they followed
// the snapshot. The replica's newest term is then an old one, and it would vote
// for a candidate that lacks what the snapshot holds.
func TestSnapshotReplacesLog(t *testing.T) {
	beyond := func(open opener) (count uint64) {
		dir := t.TempDir()
		s, err := open(vfs.Default, dir)
		must(t, err)
		must(t, s.bootstrap())
		must(t, s.save(update(1, 110, 1, 50)))
		must(t, s.save(pb.Update{ShardID: shard, ReplicaID: replica,
			State:    pb.State{Term: 2, Commit: 105},
			Snapshot: pb.Snapshot{ShardID: shard, Index: 105, Term: 2, Filepath: "none"}}))
		must(t, s.Close())
		s, err = open(vfs.Default, dir)
		must(t, err)
		must(t, s.verify(105))
		rs, err := s.ReadRaftState(shard, replica, 105)
		must(t, err)
		count = rs.EntryCount

		// What comes after the snapshot is the next leader's.
		must(t, s.save(update(106, 107, 2, 50)))
		got, _, err := s.read()
		must(t, err)
		if len(got) != 2 || got[0].Index != 106 || got[1].Term != 2 {
			t.Errorf("after the snapshot: %+v", got)
		}
		must(t, s.Close())
		return count
	}
	if n := beyond(openPlain); n != 5 {
		t.Errorf("the plain store gives %d entries beyond the snapshot: is this still needed?", n)
	}
	if n := beyond(openOurs); n != 0 {
		t.Errorf("%d entries beyond the snapshot", n)
	}
}

// TestKilledProcess writes an entry that isn't synced, as a process does that
// is killed between the two, starts the store again, which finds the entry in
// the page cache, and then cuts the power.
//
// Found by running: the plain store gives the entry to Dragonboat at the
// restart, which answers for it from then on, and loses it. Ours syncs what it
// finds before it gives it.
func TestKilledProcess(t *testing.T) {
	run := func(open opener) (found, kept uint64) {
		mem := newMem(t)
		killed, err := open(mem, "/log")
		must(t, err)
		must(t, killed.bootstrap())
		must(t, killed.save(update(1, 4, 3, 100)))
		mem.SetIgnoreSyncs(true)
		must(t, killed.save(update(5, 5, 3, 100)))
		mem.SetIgnoreSyncs(false)

		s, err := open(mem, "/log")
		must(t, err)
		got, _, err := s.read()
		must(t, err)
		found = uint64(len(got))
		mem.SetIgnoreSyncs(true)
		_ = killed.Close() // only so that nothing of it is left running
		s = cutPower(t, mem, s, open)
		must(t, s.verify(0))
		got, _, err = s.read()
		must(t, err)
		must(t, s.Close())
		return found, uint64(len(got))
	}
	if found, kept := run(openPlain); found != 5 || kept != 4 {
		t.Errorf("plain store: found %d, kept %d: is this still needed?", found, kept)
	}
	if found, kept := run(openOurs); found != 5 || kept != 5 {
		t.Errorf("found %d, kept %d", found, kept)
	}
}
