package raftsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/cairnkv/cairn/storage"
	"golang.org/x/sys/unix"
)

// ErrInUse says that a process has the data directory.
var ErrInUse = errors.New("a running node has it")

// LookAt locks a data directory, so that no node starts on it meanwhile, and reads
// its identity. It makes and changes nothing. The identity is that of nobody where
// it can't be read, which the second error says.
func LookAt(path string) (d *Dir, unreadable, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		return nil, nil, fmt.Errorf("%s is not a directory; links are not followed", path)
	}
	lock, err := os.Open(filepath.Join(path, lockFile))
	if err != nil {
		return nil, nil, fmt.Errorf("%s is no data directory: %w", path, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errors.Join(ErrInUse, lock.Close())
	}
	d = &Dir{Path: path, lock: lock}
	d.Identity, unreadable = readIdentity(filepath.Join(path, identityFile))
	return d, unreadable, nil
}

// Exposed reports whether others may write the directory, which keeps a node from
// starting.
func (d *Dir) Exposed() (bool, error) {
	info, err := os.Lstat(d.Path)
	return err == nil && info.Mode().Perm()&0o022 != 0, err
}

// ExamineStore reads all of a shard's store; see storage.Examine.
func (d *Dir) ExamineStore(ctx context.Context, shard uint64) (storage.Examined, error) {
	dir := d.shardDir(shard)
	have, err := readIdentity(filepath.Join(dir, identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		entries, err := os.ReadDir(dir)
		// What a first start wrote of the identity before it was killed is no data.
		unfinished := func(e os.DirEntry) bool { return e.Name() == identityFile+newSuffix }
		if err == nil && len(slices.DeleteFunc(entries, unfinished)) > 0 {
			return storage.Examined{}, fmt.Errorf("the store %s has data but no identity", dir)
		}
		return storage.Examined{}, nil
	case err != nil:
		return storage.Examined{}, err
	case have.MemberID != d.Identity.MemberID || have.ClusterID != d.Identity.ClusterID || have.Replica != d.Identity.Replica:
		return storage.Examined{}, fmt.Errorf("the store %s belongs to member %s (replica %d of cluster %s)", dir, have.MemberID, have.Replica, have.ClusterID)
	}
	return storage.Examine(ctx, dir)
}

// ExamineLog does with a copy of the Raft log, in the directory for temporary
// files, what a start does before it starts a replica: opening a log repairs what
// a crash has left. has says whether there is a log; applied is how far the store
// has applied it.
func (d *Dir) ExamineLog(shard, applied uint64) (has bool, err error) {
	host, err := os.Hostname()
	if err != nil {
		return false, err
	}
	found, err := filepath.Glob(filepath.Join(d.Path, raftDir, "*", "*", "tandb"))
	if err != nil {
		return false, err
	}
	if len(found) == 0 {
		if applied > 0 {
			return false, errors.New("there is none, but the store has applied entries of one")
		}
		return false, d.mayBegin(shard)
	}
	if len(found) > 1 {
		return false, fmt.Errorf("there are %d: %s", len(found), strings.Join(found, ", "))
	}
	dir := filepath.Dir(found[0])
	if of := filepath.Base(filepath.Dir(dir)); of != strings.ToLower(host) && of != host {
		return true, fmt.Errorf("it belongs to a host of the name %q, and this one is called %q: Dragonboat starts on the former alone", of, host)
	}
	scratch, err := os.MkdirTemp("", "cairn-doctor-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	copied := filepath.Join(scratch, "log")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		return false, fmt.Errorf("copy the log to look at it: %w", err)
	}
	has, err = raftlog.Examine(copied, shard, d.Identity.Replica, applied)
	switch {
	case err != nil:
		err = errors.New(strings.ReplaceAll(err.Error(), copied, dir))
	case !has:
		err = d.mayBegin(shard)
	}
	return has, err
}
