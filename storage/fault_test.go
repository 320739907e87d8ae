package storage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var errDisk = errors.New("the disk failed")

// lyingFS does what it is asked and then says that it failed, where errorfs says
// so and does nothing: after a failed write one can't know which it was.
type lyingFS struct {
	vfs.FS
	inject func(errorfs.OpKind) error
}

func (fs *lyingFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &lyingFile{f, fs.inject}, nil
}

func (fs *lyingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.file(fs.FS.Create(name, c))
}

func (fs *lyingFS) OpenDir(name string) (vfs.File, error) { return fs.file(fs.FS.OpenDir(name)) }

func (fs *lyingFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.file(fs.FS.ReuseForWrite(from, to, c))
}

func (fs *lyingFS) Rename(from, to string) error {
	return errors.Join(fs.FS.Rename(from, to), fs.inject(errorfs.OpRename))
}

func (fs *lyingFS) Link(from, to string) error {
	return errors.Join(fs.FS.Link(from, to), fs.inject(errorfs.OpLink))
}

type lyingFile struct {
	vfs.File
	inject func(errorfs.OpKind) error
}

func (f *lyingFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, errors.Join(err, f.inject(errorfs.OpFileWrite))
}

func (f *lyingFile) Sync() error { return errors.Join(f.File.Sync(), f.inject(errorfs.OpFileSync)) }

func (f *lyingFile) SyncData() error {
	return errors.Join(f.File.SyncData(), f.inject(errorfs.OpFileSyncData))
}

// The story that a store lives through while its disk fails once is told in a
// process of its own, since a failed write must end the process, by Fatal and
// never by a panic of Pebble's. What the process wrote before is on a real file
// system, where the test then looks.

// storyLog is the log of the story. Half of it is in the snapshot that the
// story loads on the way.
func storyLog() (log []logEntry) {
	add := func(format string, args ...any) {
		commands, err := parseCommands(fmt.Sprintf(format, args...), func() uint64 { return 0 })
		if err != nil {
			panic(err)
		}
		for _, c := range commands {
			index := uint64(len(log)) + 1
			log = append(log, logEntry{index: index, incarnation: kv.LeaseID{1}, seq: index, commands: [][]byte{kv.AppendCommand(nil, c)}})
		}
	}
	add("grant L 5000; put a 1 lease=L; put b 1; @id=k @print=f increment n 1")
	for i := range 30 { // enough for several memtables
		add("put k%d fill:%d:x; put a %d; delete b; put b 2", i%10, 4000+i*10, i)
	}
	add("compact 90; revoke L; put c 1; @id=k @print=f increment n 1")
	for i := range 90 {
		add("put k%d fill:%d:y; put d %d", i%10, 3000+i*10, i)
	}
	return log
}

// failingFS returns the operating system's files, whose operations of a mode
// fail at the at-th of them and never else. Nothing is synced: the process may
// end, but the machine goes on.
func failingFS(mode string, at int64) (fs vfs.FS, left *atomic.Int64) {
	left = &atomic.Int64{}
	left.Store(at)
	inject := func(kind errorfs.OpKind) error {
		isRead := kind.ReadOrWrite() == errorfs.OpIsRead
		if isRead == (mode == "not read") && left.Add(-1) == 0 {
			return errDisk
		}
		return nil
	}
	if mode == "written" {
		return &lyingFS{unsyncedFS{vfs.Default}, inject}, left
	}
	return errorfs.Wrap(unsyncedFS{vfs.Default}, errorfs.InjectorFunc(func(op errorfs.Op) error { return inject(op.Kind) })), left
}

// unsyncedFS spares the test the time of syncing.
type unsyncedFS struct{ vfs.FS }

func (fs unsyncedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsynced(fs.FS.Create(name, c))
}

func (fs unsyncedFS) OpenDir(name string) (vfs.File, error) { return unsynced(fs.FS.OpenDir(name)) }

func (fs unsyncedFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsynced(fs.FS.ReuseForWrite(from, to, c))
}

func unsynced(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ vfs.File }

func (unsyncedFile) Sync() error                { return nil }
func (unsyncedFile) SyncData() error            { return nil }
func (unsyncedFile) SyncTo(int64) (bool, error) { return false, nil }

// storyEnv tells a process to live the story: mode, operation, directory.
const storyEnv = "CAIRN_STORAGE_STORY"

// liveStory is the process. It says on its standard output what was durable
// when, and at the end whether all went well; it exits with 1 where the store
// reported an error, with 3 where it called Fatal.
func liveStory(env string) (code int) {
	var mode, dir string
	var at int64
	if _, err := fmt.Sscanf(env, "%q %d %q", &mode, &at, &dir); err != nil {
		panic(err)
	}
	fs, left := failingFS(mode, at)
	log := storyLog()
	half := len(log) / 2
	snapshot, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err != nil {
		panic(err)
	}
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	s, err := Open(filepath.Join(dir, "store"), Options{
		FS: fs, CacheBytes: 1 << 20, MemTableBytes: 64 << 10, SweepBatch: 7,
		Fatal: func(err error) { say("fatal %v", err); os.Exit(3) },
	})
	if err != nil {
		say("told open: %v", err)
		return 1
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"apply", func() error { return (&applier{store: s}).apply(log[:half]) }},
		{"sync", s.Sync},
		{"", func() error { say("durable %d", half); return nil }},
		{"apply", func() error { return (&applier{store: s}).apply(log) }},
		{"load", func() error { return s.Load(bytes.NewReader(snapshot), nil) }},
		{"", func() error { say("loaded"); return nil }},
		{"apply", func() error { return (&applier{store: s}).apply(log) }},
		{"sync", s.Sync},
		{"", func() error { say("durable %d", len(log)); return nil }},
		{"check", func() error { return CheckStore(s) }},
		{"close", s.Close},
	} {
		if err := step.do(); err != nil {
			say("told %s: %v", step.name, err)
			return 1
		}
	}
	if left.Load() > 0 {
		say("end") // the story has fewer operations
	}
	return 0
}

// A disk fails once, at one of its operations: without doing it, or after
// having done it, or while reading. Either it does not matter, or the store says
// so, by an error or by ending the process; it never goes on with a hole and
// never stands still. What it leaves is a store as sound as any.
func TestDiskFailsOnce(t *testing.T) {
	log := storyLog()
	source := openStore(t, vfs.NewMem())
	if err := (&applier{store: source}).apply(log[:len(log)/2]); err != nil {
		t.Fatal(err)
	}
	snapshot := saved(t, source)
	if err := (&applier{store: source}).apply(log); err != nil {
		t.Fatal(err)
	}
	want := mustHash(t, source)
	closeStore(t, source)

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	every := 40
	if long {
		every = 1
	}
	for _, mode := range []string{"not written", "written", "not read"} {
		t.Run(mode, func(t *testing.T) {
			outcomes := map[string]int{}
			for at := 1 + rng.IntN(every); ; at += every {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "snapshot"), snapshot, 0o600); err != nil {
					t.Fatal(err)
				}
				outcome, durable := tellStory(t, mode, at, dir)
				survives(t, fmt.Sprintf("%s, operation %d: %s", mode, at, outcome), filepath.Join(dir, "store"), durable, log, want)
				if outcome == "end" {
					break
				}
				outcomes[strings.SplitN(outcome, " ", 2)[0]]++
			}
			t.Logf("%v", outcomes)
			if outcomes["told"]+outcomes["ended"] == 0 {
				t.Error("no failure was told")
			}
		})
	}
}

// tellStory runs the process and returns how it ended and what was durable.
func tellStory(t *testing.T, mode string, at int, dir string) (outcome string, durable uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	process := exec.CommandContext(ctx, os.Args[0])
	process.Env = append(os.Environ(), fmt.Sprintf("%s=%q %d %q", storyEnv, mode, at, dir))
	var stderr bytes.Buffer
	process.Stderr = &stderr
	out, err := process.Output()
	if ctx.Err() != nil {
		t.Fatalf("%s, operation %d: the store stands still after\n%s", mode, at, out)
	}
	outcome = "silent"
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case "durable":
			if _, err := fmt.Sscan(rest, &durable); err != nil {
				t.Fatal(err)
			}
		case "loaded":
			durable = uint64(len(storyLog()) / 2)
		case "told", "end", "fatal":
			outcome = lines.Text()
		}
	}
	switch code := process.ProcessState.ExitCode(); {
	case code == 0 || code == 1:
	case code == 3:
		outcome = "ended by " + outcome
	default:
		t.Fatalf("%s, operation %d: %v\n%s\n%s", mode, at, err, out, stderr.String())
	}
	if strings.HasPrefix(outcome, "told check") && !strings.Contains(outcome, errDisk.Error()) {
		t.Fatalf("%s, operation %d: the store went on with a hole: %s", mode, at, outcome)
	}
	return outcome, durable
}

// survives opens what the process left, replays the log and compares.
func survives(t *testing.T, name, dir string, durable uint64, log []logEntry, want [32]byte) {
	t.Helper()
	s, err := Open(dir, Options{FS: unsyncedFS{vfs.Default}, CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatalf("%s: the store doesn't open again: %v", name, err)
	}
	defer closeStore(t, s)
	if err := CheckStore(s); err != nil {
		t.Fatalf("%s: the store is not sound: %v", name, err)
	}
	applied, err := s.Applied()
	if err != nil {
		t.Fatal(err)
	}
	if applied < durable {
		t.Fatalf("%s: entry %d was durable, %d is left", name, durable, applied)
	}
	if err := (&applier{store: s}).apply(log); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if mustHash(t, s) != want {
		t.Fatalf("%s: the log leads to another state", name)
	}
}
