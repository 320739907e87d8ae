package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairnkv/cairn/raftsm"
	"golang.org/x/sys/unix"
)

// fullDisk is a file system that never has room.
const fullDisk = "/proc"

// elsewhere makes a data directory of which one part lies on another file system.
func elsewhere(t testing.TB, part, on string) *raftsm.Dir {
	t.Helper()
	d := &raftsm.Dir{Path: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(d.Path, filepath.Dir(part)), 0o700))
	must(t, os.Symlink(on, filepath.Join(d.Path, part)))
	return d
}

// TestFullVolume: the log and the store may lie on file systems of their own. The one that
// has the least room counts.
func TestFullVolume(t *testing.T) {
	var fs unix.Statfs_t
	if err := unix.Statfs(fullDisk, &fs); err != nil || fs.Bavail != 0 {
		t.Skipf("SKIPPED: %s is no file system without room: %v", fullDisk, err)
	}
	running := ready(t, config(t))
	defer running.Close()
	for _, part := range []string{"raft", "store", "store/shard-1"} {
		n := &Node{cfg: running.cfg, shard: running.shard, dir: elsewhere(t, part, fullDisk)}
		g := newGuard(n)
		must(t, g.look())
		if free := g.free.Load(); free != 0 || !g.full.Load() || g.spare() != 0 {
			t.Errorf("%s is full: %d bytes are free, of which %d may be taken", part, free, g.spare())
		}
		if err := n.snapshotRoom(1); err == nil {
			t.Errorf("%s is full, and a snapshot is taken", part)
		}
	}
	// What is not there yet takes no room.
	n := &Node{dir: &raftsm.Dir{Path: t.TempDir()}}
	if free, err := n.freeBytes(); err != nil || free == 0 {
		t.Errorf("an empty directory has %d bytes left, %v", free, err)
	}
	n.dir.Path = filepath.Join(n.dir.Path, "none")
	if free, err := n.freeBytes(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that is not there has %d bytes left, %v", free, err)
	}
}

// TestFirstStartOnVolumes: what is to be a file system of its own has to be there before
// the first start, with what a new file system has in it, or as a link to somewhere on one.
func TestFirstStartOnVolumes(t *testing.T) {
	firstStarts(t, 1, func(t *testing.T, volume string) {
		must(t, os.Mkdir(volume, 0o755))
		must(t, os.Mkdir(filepath.Join(volume, "lost+found"), 0o700))
	})
	firstStarts(t, 1, func(t *testing.T, volume string) {
		on := t.TempDir()
		must(t, os.Mkdir(filepath.Join(on, "lost+found"), 0o700))
		must(t, os.Symlink(on, volume))
	})
}

// firstStarts makes volumes for the log and the store, has nodes begin on them in each way
// that there is, and starts them again. The doctor finds so many disks.
func firstStarts(t *testing.T, disks int, makeVolume func(t *testing.T, volume string)) {
	t.Helper()
	old := ready(t, config(t))
	fillNode(t, old, 10)
	file := filepath.Join(t.TempDir(), "backup")
	save(t, old, file)
	for name, begin := range map[string]func(cfg *Config) error{
		"serve":                func(*Config) error { return nil },
		"serve --restore-from": func(cfg *Config) error { cfg.RestoreFrom = file; return nil },
		"snapshot restore": func(cfg *Config) error {
			restoring := *cfg
			restoring.RestoreFrom = file
			_, err := Restore(t.Context(), restoring)
			return err
		},
	} {
		cfg := config(t)
		must(t, os.Mkdir(cfg.DataDir, 0o700))
		volumes := []string{filepath.Join(cfg.DataDir, "raft"), filepath.Join(cfg.DataDir, "store")}
		var before []os.FileInfo
		for _, volume := range volumes {
			makeVolume(t, volume)
			info, err := os.Stat(volume)
			must(t, err)
			before = append(before, info)
		}
		must(t, begin(&cfg))
		for start := range 2 {
			n := ready(t, cfg)
			if start > 0 {
				newUser(t, n).want(200, "written before", "GET", "/v1/kv/k", "")
			}
			r, err := n.shard.Propose(t.Context(), put("k", "written before"))
			must(t, err)
			must(t, r.Err())
			must(t, n.Close())
		}
		found := 0
		for _, f := range Examine(t.Context(), cfg.DataDir) {
			if f.Check == "disk" {
				found++
			}
			if f.Verdict != Healthy {
				t.Errorf("%s: the doctor finds %+v", name, f)
			}
		}
		if found != disks {
			t.Errorf("%s: the doctor finds %d disks, want %d", name, found, disks)
		}
		for i, volume := range volumes {
			after, err := os.Stat(volume)
			must(t, err)
			if !os.SameFile(before[i], after) {
				t.Errorf("%s: %s was made anew", name, volume)
			}
			if _, err := os.Stat(filepath.Join(volume, "lost+found")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestDoctorLooksAtEachDisk: a finding for each file system of a data directory.
func TestDoctorLooksAtEachDisk(t *testing.T) {
	cfg := config(t)
	n := ready(t, cfg)
	must(t, n.Close())
	disks := func() (n int) {
		for _, f := range Examine(context.Background(), cfg.DataDir) {
			if f.Check == "disk" {
				n++
			}
		}
		return n
	}
	if n := disks(); n != 1 {
		t.Errorf("%d disks are found, where there is one", n)
	}
	must(t, os.RemoveAll(filepath.Join(cfg.DataDir, "raft")))
	must(t, os.Symlink(fullDisk, filepath.Join(cfg.DataDir, "raft")))
	wantFinding(t, Examine(context.Background(), cfg.DataDir), "disk", Questionable, "0 bytes are free in "+filepath.Join(cfg.DataDir, "raft"))
	if n := disks(); n != 2 {
		t.Errorf("%d disks are found, where there are two", n)
	}
}
