package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm"
	"github.com/cairnkv/cairn/storage"
	"golang.org/x/sys/unix"
)

// Verdict is what was found of one thing.
type Verdict string

const (
	// Healthy: as it should be.
	Healthy Verdict = "ok"
	// Questionable: a node starts with it, and should not have to.
	Questionable Verdict = "warning"
	// Sick: a node does not start with it, or must not.
	Sick Verdict = "problem"
	// NotExamined: something else stood in the way.
	NotExamined Verdict = "skipped"
)

// Finding is what was found of one thing in a data directory.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	// Next is what to do about it, if anything.
	Next string `json:"next,omitempty"`
}

// What an operator does about a member whose disk can't be trusted.
const (
	nextReplace = "keep a copy of the directory, remove this member from the cluster, and start it anew in an empty directory under a new replica id; a cluster of one is restored from its newest backup"
	nextOnline  = "stop it first, or ask it: cairn status, cairn hash"
)

// Examine looks at the data directory of a node that does not run, and changes
// nothing in it: whose it is, whether every checksum in it is right, whether log
// and store belong together and nothing that was acknowledged is missing, and
// whether there is room. It reads all of it.
func Examine(ctx context.Context, path string) []Finding {
	e := examination{ctx: ctx, path: path}
	e.run()
	return e.findings
}

// Sound reports whether there is nothing wrong.
func Sound(findings []Finding) bool {
	for _, f := range findings {
		if f.Verdict == Sick || f.Verdict == NotExamined {
			return false
		}
	}
	return true
}

type examination struct {
	ctx      context.Context
	path     string
	findings []Finding
}

func (e *examination) add(check string, verdict Verdict, next, format string, args ...any) {
	e.findings = append(e.findings, Finding{check, verdict, fmt.Sprintf(format, args...), next})
}

func (e *examination) run() {
	raftsm.Quiet(slog.New(slog.DiscardHandler))
	dir, unreadable, err := raftsm.LookAt(e.path)
	switch {
	case errors.Is(err, raftsm.ErrInUse):
		e.add("directory", NotExamined, nextOnline, "a running node has %s", e.path)
		return
	case err != nil:
		e.failed("directory", "name the directory that the node is started with: --data-dir", err)
		return
	}
	defer dir.Close()
	switch exposed, err := dir.Exposed(); {
	case err != nil:
		e.add("directory", Sick, "", "%v", err)
	case exposed:
		e.add("directory", Sick, "chmod 0700 "+e.path, "others may write %s; a node does not start on it", e.path)
	default:
		e.add("directory", Healthy, "", "%s, and no process has it", e.path)
	}
	seen := map[disk]bool{}
	for _, path := range dir.Volumes(shardID) {
		e.disk(path, seen)
	}
	if unreadable != nil {
		next := nextReplace
		if errors.Is(unreadable, fs.ErrNotExist) {
			next = "restore the file from a copy of this directory, or " + nextReplace
		}
		e.failed("identity", next, unreadable)
		e.add("store", NotExamined, "", "nobody knows whose it must be")
		e.add("log", NotExamined, "", "nobody knows whose it must be")
		return
	}
	id := &dir.Identity
	e.add("identity", Healthy, "", "member %s (%s), replica %d of cluster %s, at %s", id.MemberID, id.Name, id.Replica, id.ClusterID, id.PeerAddress)
	if err := dir.ExamineHostFiles(); err != nil {
		e.failed("host files", "remove dragonboat.ds and NODEHOST.ID in its raft directory, both of them; they are made again", err)
	}
	store, err := dir.ExamineStore(e.ctx, shardID)
	if err != nil {
		e.failed("store", nextReplace, err)
		e.add("log", NotExamined, "", "how far the store has applied it is not known")
		return
	}
	if store.Database == "" {
		e.add("store", Healthy, "", "there is none yet")
	} else {
		e.add("store", Healthy, "", "all checksums of %d tables (%d bytes) and the log of it are right; entry %d is applied, %d keys at revision %d, history from %d",
			store.Tables, store.Bytes, store.Stats.AppliedIndex, store.Stats.Keys, store.Stats.Revision, store.Stats.Compact)
		e.add("content", Healthy, "", "hash %s at revision %d; sound members that are compacted to the same revision have the same (cairn hash --revision %d)",
			hex.EncodeToString(store.Hash[:]), store.Stats.Revision, store.Stats.Revision)
	}
	if store.Leftovers > 0 {
		e.add("leftovers", Healthy, "", "a crash left %d files of tables that the store does not have; the next start removes them", store.Leftovers)
	}
	for _, a := range store.Alarms {
		switch {
		case a.Type == kv.AlarmCorrupt && a.Replica == id.Replica:
			e.add("alarm", Sick, nextReplace, "the content of this member differs from the majority's")
		case a.Type == kv.AlarmCorrupt && a.Replica == 0:
			e.add("alarm", Sick, "compare the hashes of all members by cairn doctor, replace the wrong ones, then clear the alarm", "the members' contents differ, and no majority is of one mind")
		case a.Type == kv.AlarmNoSpace && a.Replica == id.Replica:
			e.add("alarm", Questionable, "delete and compact, raise --quota, or grow the disk", "the quota or the reserve of this member is used up")
		default:
			e.add("alarm", Questionable, "look at that member", "replica %d: %s", a.Replica, a.Type)
		}
	}
	has, err := dir.ExamineLog(e.ctx, shardID, store.Stats.AppliedIndex)
	var host *raftsm.ForeignHostError
	foreign := errors.As(err, &host)
	switch {
	case err != nil && !foreign:
		e.failed("log", nextReplace, err)
	case !has:
		e.add("log", Healthy, "", "there is none yet")
	default:
		e.add("log", Healthy, "", "it can be read to its end, reaches as far as it was known to be durable, and goes on from what the store has applied")
	}
	if foreign {
		e.add("host", Sick, fmt.Sprintf("give this machine or container the host name %q, if the member is to be started here; a copy that is only looked at needs nothing", host.Of), "%v", err)
	}
}

// failed notes why a look at something ended: next is for damage, of which an error
// speaks unless it says that there was no look.
func (e *examination) failed(check, next string, err error) {
	if advice := unseen(err); advice != "" {
		e.add(check, NotExamined, advice, "it could not be looked at: %v", err)
		return
	}
	e.add(check, Sick, next, "%v", err)
}

// unseen is what to do about an error that says nothing of what is on the disk, only
// that it could not be read or copied, and empty for any other. What is missing is
// damage.
func unseen(err error) string {
	var format *storage.UnknownFormatError
	var errno syscall.Errno
	refused := errors.As(err, &errno) && errno != unix.ENOENT && errno != unix.ENOTDIR
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "look again, and to the end"
	case errors.As(err, &format):
		return "look with the version of Cairn that the node runs"
	case refused && (errno == unix.ENOSPC || errno == unix.EDQUOT):
		return "make room in the directory for temporary files, where the log is copied to, or name another one in TMPDIR"
	case refused && (errno == unix.EACCES || errno == unix.EPERM):
		return "look as the user that the node runs as, with a directory for temporary files (TMPDIR) that this user may write"
	case refused && (errno == unix.EMFILE || errno == unix.ENFILE):
		return "raise the limit of open files (ulimit -n), and look again"
	case refused:
		return "look into the kernel's log and at the disk, and look again; a disk that can't be read any more takes its member with it: replace both"
	case errors.Is(err, raftsm.ErrNotCopied):
		return "name a directory for temporary files in TMPDIR that is there and has room for the log"
	}
	return ""
}

// mountedReadOnly is ST_RDONLY of Linux, and MNT_RDONLY of the others.
const mountedReadOnly = 1

// disk is a file system as it is mounted somewhere.
type disk struct {
	device uint64
	flags  int64
}

// disk looks at the file system of a directory, if that is there, and not yet among those
// that were seen.
func (e *examination) disk(path string, seen map[disk]bool) {
	var s unix.Statfs_t
	var of unix.Stat_t
	if err := errors.Join(unix.Statfs(path, &s), unix.Stat(path, &of)); err != nil {
		if path == e.path || !errors.Is(err, fs.ErrNotExist) {
			e.add("disk", Sick, "", "measure the disk of %s: %v", path, err)
		}
		return
	}
	d := disk{uint64(of.Dev), int64(s.Flags)}
	if seen[d] {
		return
	}
	seen[d] = true
	free := s.Bavail * uint64(s.Bsize)
	switch {
	case s.Flags&mountedReadOnly != 0:
		e.add("disk", Sick, "look into the kernel's log, repair the file system, and mount it for writing", "the file system of %s is read-only", path)
	case free < reserveBytes:
		e.add("disk", Questionable, "make room", "%d bytes are free in %s; below %d the member refuses what grows the store", free, path, reserveBytes)
	case s.Files > 0 && s.Ffree == 0:
		e.add("disk", Sick, "remove files", "the file system of %s has no inodes left", path)
	default:
		e.add("disk", Healthy, "", "%d bytes are free in %s", free, path)
	}
}
