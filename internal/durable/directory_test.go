package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMakeDir makes a directory below others that are missing, twice, and below a file.
func TestMakeDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		must(t, MakeDir(path))
	}
	for dir := path; filepath.Base(dir) != "001"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		must(t, err)
		if !info.IsDir() || info.Mode().Perm() != 0o700 {
			t.Errorf("%s is %v", dir, info.Mode())
		}
	}
	file := filepath.Join(path, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if err := MakeDir(filepath.Join(file, "below")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}

// TestSyncDir: what is written where directories can't be synced counts all the same.
func TestSyncDir(t *testing.T) {
	if err := SyncDir(filepath.Join(t.TempDir(), "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that is not there: %v", err)
	}
	must(t, SyncDir(t.TempDir()))
	const unable = "/proc"
	f, err := os.Open(unable)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if err := f.Sync(); !errors.Is(err, unix.EINVAL) {
		t.Skipf("%s syncs its directories: %v", unable, err)
	}
	must(t, SyncDir(unable))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestConfirm confirms what there is no doubt of, and what can't be asked.
func TestConfirm(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, err := range []error{Confirm(f.Fd()), Confirm(w.Fd()), ConfirmDir(dir), SyncDir(dir)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := ConfirmDir(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a directory that is not there: %v", err)
	}
}
