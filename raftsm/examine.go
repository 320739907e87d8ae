package raftsm

import (
	"bytes"
	"context"
	"crypto/md5"
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

// ErrNotCopied says that the Raft log could not be copied, so that nothing is known of
// it.
var ErrNotCopied = errors.New("the log could not be copied to look at it")

// ForeignHostError says that a data directory belongs to a host of another name, on
// which alone Dragonboat starts. It is no damage: directories are copied to be looked
// at.
type ForeignHostError struct{ Of, Here string }

func (e *ForeignHostError) Error() string {
	return fmt.Sprintf("it belongs to a host of the name %q, and this one is called %q: Dragonboat starts on the former alone", e.Of, e.Here)
}

// ExamineLog does with a copy of the Raft log, in the directory for temporary
// files, what a start does before it starts a replica: opening a log repairs what
// a crash has left. has says whether there is a log; applied is how far the store
// has applied it. A [ForeignHostError] says that nothing else is wrong.
func (d *Dir) ExamineLog(ctx context.Context, shard, applied uint64) (has bool, err error) {
	dir, err := d.logDir()
	if err != nil {
		return false, err
	}
	if dir == "" {
		if applied > 0 {
			return false, errors.New("there is none, but the store has applied entries of one")
		}
		return false, d.mayBegin(shard)
	}
	scratch, err := os.MkdirTemp("", "cairn-doctor-")
	if err != nil {
		return true, fmt.Errorf("%w: %w", ErrNotCopied, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	copied := filepath.Join(scratch, "log")
	if err := os.CopyFS(copied, untilDone{os.DirFS(dir), ctx}); err != nil {
		return true, fmt.Errorf("%w: %w", ErrNotCopied, err)
	}
	if has, err = raftlog.Examine(copied, shard, d.Identity.Replica, applied); err != nil {
		return has, &copyError{err, copied, dir}
	}
	if !has {
		return false, d.mayBegin(shard)
	}
	return has, ofThisHost(dir)
}

// hostFiles are those that Dragonboat keeps of its host: for whom it made the directory,
// and a name that nothing here uses. It makes them where they are missing, and does not
// start where one is damaged.
var hostFiles = []string{"dragonboat.ds", "NODEHOST.ID"}

// ExamineHostFiles looks at the small files of Dragonboat's as it does itself.
func (d *Dir) ExamineHostFiles() error {
	var damaged error
	for _, name := range hostFiles {
		path := filepath.Join(d.Path, raftDir, name)
		b, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !isHostFile(b):
			damaged = errors.Join(damaged, fmt.Errorf("%s is damaged", path))
		}
	}
	return damaged
}

// isHostFile reports whether the bytes of such a file begin with their checksum.
func isHostFile(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	sum := md5.Sum(b[8:])
	return bytes.Equal(b[:8], sum[8:])
}

// logDir finds where the Raft log is; empty, there is none.
func (d *Dir) logDir() (string, error) {
	raft := filepath.Join(d.Path, raftDir)
	found, err := fs.Glob(os.DirFS(raft), "*/*/tandb") // the path of the directory is no pattern
	// What the repair of a file system found is nobody's log.
	found = slices.DeleteFunc(found, func(path string) bool { return strings.HasPrefix(path, lostAndFound+"/") })
	switch {
	case err != nil || len(found) == 0:
		return "", err
	case len(found) > 1:
		return "", fmt.Errorf("there are %d in %s: %s", len(found), raft, strings.Join(found, ", "))
	}
	return filepath.Join(raft, filepath.FromSlash(filepath.Dir(found[0]))), nil
}

// ofThisHost is an error if a log is another host's.
func ofThisHost(dir string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if of := filepath.Base(filepath.Dir(dir)); of != strings.ToLower(host) && of != host {
		return &ForeignHostError{of, host}
	}
	return nil
}

// untilDone is a file system from which nothing is read once its context is done.
type untilDone struct {
	fs.FS
	ctx context.Context
}

// Open implements fs.FS.
func (f untilDone) Open(name string) (fs.File, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	return f.FS.Open(name)
}

// copyError is an error about a copy that speaks of what was copied.
type copyError struct {
	err        error
	copied, of string
}

func (e *copyError) Error() string { return strings.ReplaceAll(e.err.Error(), e.copied, e.of) }
func (e *copyError) Unwrap() error { return e.err }
