package raftlog_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"

	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
	"go.uber.org/goleak"
)

// TestVerify goes through what a log can be like when a node starts.
func TestVerify(t *testing.T) {
	remove := func(pattern string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			must(t, err)
			if len(found) == 0 {
				t.Fatalf("nothing matches %s", pattern)
			}
			for _, name := range found {
				must(t, os.RemoveAll(name))
			}
		}
	}
	for _, c := range []struct {
		name    string
		damage  func(t *testing.T, dir string)
		applied uint64
		want    error
	}{
		{name: "whole", applied: 12},
		{name: "whole, behind", applied: 3},
		{name: "state machine is ahead", applied: 13, want: raftlog.ErrLogTruncated},
		{name: "log is gone", damage: remove("tandb"), want: raftlog.ErrLogTruncated},
		{name: "replica's log is gone", damage: remove("tandb/node-*"), want: raftlog.ErrLogTruncated},
		{name: "bootstrap record is gone", damage: remove("tandb/bootstrap/*"), want: raftlog.ErrLogTruncated},
		{name: "manifest is gone", damage: remove("tandb/node-*/MANIFEST-*"), want: raftlog.ErrLogCorrupt},
		{name: "index is gone", damage: remove("tandb/node-*/*.index")}, // made again from the log
		{name: "record is gone", damage: remove(raftlog.RecordFile), want: raftlog.ErrRecordUnusable},
		{name: "everything is gone", damage: remove("*")}, // a new node, as far as this can be known
		{name: "everything but the state machine is gone", damage: remove("*"), applied: 1, want: raftlog.ErrLogTruncated},
	} {
		t.Run(c.name, func(t *testing.T) {
			im := makeImage(t, openOurs, 12, 100, false)
			if c.damage != nil {
				c.damage(t, im.dir)
			}
			s, err := openOurs(vfs.Default, im.dir)
			if err == nil {
				err = s.verify(c.applied)
				must(t, s.Close())
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			t.Log(err)
		})
	}
}

// TestRolledBackLog puts an old copy of the log under a newer record: each of
// what is behind must be found, entries, term and vote alike.
func TestRolledBackLog(t *testing.T) {
	for _, c := range []struct {
		lost  string
		later pb.Update
	}{
		{"entries", update(5, 6, 3, 100)},
		{"term", pb.Update{ShardID: shard, ReplicaID: replica, State: pb.State{Term: 4}}},
		{"vote", pb.Update{ShardID: shard, ReplicaID: replica, State: pb.State{Term: 3, Vote: 2}}},
	} {
		live, old := t.TempDir(), t.TempDir()
		s, err := openOurs(vfs.Default, live)
		must(t, err)
		must(t, s.bootstrap())
		must(t, s.save(update(1, 4, 3, 100)))
		copyDir(t, live, old)
		must(t, s.save(c.later))
		must(t, s.Close())
		record, err := os.ReadFile(filepath.Join(live, raftlog.RecordFile))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(old, raftlog.RecordFile), record, 0o600))

		s, err = openOurs(vfs.Default, old)
		must(t, err)
		var truncated *raftlog.TruncatedError
		if err := s.verify(0); !errors.As(err, &truncated) || truncated.Lost != c.lost {
			t.Errorf("lost %s: %v", c.lost, err)
		}
		must(t, s.Close())
	}
}

// TestUnverifiedStart forgets to verify: reading the state, which is the first
// thing that Dragonboat does with a replica, refuses, too.
func TestUnverifiedStart(t *testing.T) {
	im := makeImage(t, openOurs, 12, 100, true)
	must(t, os.Truncate(glob(t, im.dir, "*.log"), 700))
	s, err := openOurs(vfs.Default, im.dir)
	must(t, err)
	if _, err := s.ReadRaftState(shard, replica, 0); !errors.Is(err, raftlog.ErrLogTruncated) {
		t.Error(err)
	}
	must(t, s.Close())
}

// TestRemovedReplica removes a replica's log: its record goes first, and a new
// one may begin under its name. Nothing goes on after the log was closed.
func TestRemovedReplica(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	s, err := openOurs(vfs.Default, dir)
	must(t, err)
	must(t, s.bootstrap())
	must(t, s.save(update(1, 9, 3, 100)))
	must(t, s.RemoveNodeData(shard, replica))
	must(t, s.Close())
	s, err = openOurs(vfs.Default, dir)
	must(t, err)
	must(t, s.verify(0))
	must(t, s.Close())
}

// failingWrites fails one write, and all after it.
type failingWrites struct{ left atomic.Int64 }

func (f *failingWrites) MaybeError(op vfs.Op) error {
	if op == vfs.OpWrite {
		if f.left.Add(-1) < 0 {
			return vfs.ErrInjected
		}
	}
	return nil
}

// TestSavedMeansDurable fails each write in turn, then cuts the power: what was
// answered without an error must be there.
func TestSavedMeansDurable(t *testing.T) {
	failed := 0
	for n := 0; ; n++ {
		mem := newMem(t)
		inject := &failingWrites{}
		inject.left.Store(int64(n))
		s, err := openOurs(vfs.Wrap(mem, inject), "/log")
		acked, done := uint64(0), false
		if err == nil {
			acked, done = saveUntilError(s)
			mem.SetIgnoreSyncs(true)
			_ = s.Close()
		}
		mem.ResetToSyncedState()
		mem.SetIgnoreSyncs(false)
		s, err = openOurs(mem, "/log")
		must(t, err)
		if err := s.verify(acked); err != nil {
			t.Fatalf("write %d failed: %v", n, err)
		}
		must(t, s.Close())
		if done {
			break
		}
		failed++
	}
	if failed < 10 {
		t.Errorf("only %d writes could fail", failed)
	}
}

// saveUntilError saves entries and snapshots up to the first error.
func saveUntilError(s *logStore) (acked uint64, done bool) {
	if s.bootstrap() != nil {
		return 0, false
	}
	for i := uint64(1); i <= 8; i++ {
		if s.save(update(i, i, 3, 40_000)) != nil {
			return acked, false
		}
		acked = i
		if i%3 == 0 {
			u := pb.Update{ShardID: shard, ReplicaID: replica, Snapshot: pb.Snapshot{ShardID: shard, Index: i - 1, Term: 3, Filepath: "none"}}
			if s.SaveSnapshots([]pb.Update{u}) != nil || s.RemoveEntriesTo(shard, replica, i-2) != nil {
				return acked, false
			}
		}
	}
	return acked, true
}
