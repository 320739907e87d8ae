package raftlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"
)

// logStore is a log store without a NodeHost, in a directory of its own.
type logStore struct {
	raftio.ILogDB
	log *raftlog.Log // nil if it is the plain store
}

func openOurs(fsys vfs.FS, dir string) (*logStore, error) {
	nhc := config.NodeHostConfig{}
	nhc.Expert.FS = fsys
	log := raftlog.Apply(&nhc, nil, nil, nil)
	db, err := nhc.Expert.LogDBFactory.Create(nhc, nil, []string{dir}, []string{dir})
	if err != nil {
		return nil, err
	}
	return &logStore{ILogDB: db, log: log}, nil
}

func openPlain(fsys vfs.FS, dir string) (*logStore, error) {
	nhc := config.NodeHostConfig{}
	nhc.Expert.FS = fsys
	raftlog.Apply(&nhc, nil, nil, nil)
	db, err := tan.Factory.Create(nhc, nil, []string{dir}, []string{dir})
	if err != nil {
		return nil, err
	}
	return &logStore{ILogDB: db}, nil
}

// verify is what a node does before it starts the replica; the plain store has
// nothing of the kind.
func (s *logStore) verify(applied uint64) error {
	if s.log == nil {
		return nil
	}
	_, err := s.log.Verify(shard, replica, applied)
	return err
}

// entry gives the entry with an index: its content says which it is.
func entry(index, term uint64, size int) pb.Entry {
	cmd := bytes.Repeat([]byte(fmt.Sprintf("%d/%d;", index, term)), 1+size/4)[:size]
	return pb.Entry{Index: index, Term: term, Cmd: cmd}
}

// update is a save of entries [from, to] with the state that goes with them.
func update(from, to, term uint64, size int) pb.Update {
	u := pb.Update{ShardID: shard, ReplicaID: replica}
	u.State = pb.State{Term: term, Vote: replica, Commit: from - 1}
	for i := from; i <= to; i++ {
		u.EntriesToSave = append(u.EntriesToSave, entry(i, term, size))
	}
	return u
}

func (s *logStore) save(u pb.Update) error { return s.SaveRaftState([]pb.Update{u}, 1) }

// bootstrap is the first thing that a NodeHost saves for a replica.
func (s *logStore) bootstrap() error {
	return s.SaveBootstrapInfo(shard, replica, pb.Bootstrap{Addresses: map[uint64]string{replica: "nobody:1"}})
}

// read gives all the entries after the newest snapshot, as a start would, and
// the hard state.
func (s *logStore) read() (entries []pb.Entry, state pb.State, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	snapshot, err := s.GetSnapshot(shard, replica)
	if err != nil {
		return nil, pb.State{}, err
	}
	rs, err := s.ReadRaftState(shard, replica, snapshot.Index)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		return nil, pb.State{}, nil // to Dragonboat, a new replica
	}
	if err != nil {
		return nil, pb.State{}, err
	}
	end := rs.FirstIndex + rs.EntryCount
	entries, _, err = s.IterateEntries(nil, 0, shard, replica, rs.FirstIndex, end, math.MaxUint64)
	return entries, rs.State, err
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyDir copies a directory, even of a store that is open: what a crash of
// the process would leave.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	must(t, os.RemoveAll(to))
	must(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if filepath.Ext(path) == ".tmp" {
			return nil // it is about to take the place of another, and may be gone
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content, 0o644)
	}))
}

// glob gives the only file that matches, below dir.
func glob(t testing.TB, dir, pattern string) string {
	t.Helper()
	var found []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ok, _ := filepath.Match(pattern, filepath.Base(path)); ok && !d.IsDir() {
			found = append(found, path)
		}
		return err
	}))
	if len(found) != 1 {
		t.Fatalf("%d files match %s: %v", len(found), pattern, found)
	}
	return found[0]
}

// walk calls visit with each file below dir.
func walk(dir string, visit func(os.FileInfo)) error {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			visit(info)
		}
		return err
	})
}
