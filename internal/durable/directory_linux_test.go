package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMakeDirBelowReadOnly: a directory that is there, and can be written, is as good as
// any below one that can't be, as where a service sees nothing writable but its own
// directories. One that can't be written itself, or would have to be made, is an error.
func TestMakeDirBelowReadOnly(t *testing.T) {
	outer := t.TempDir()
	for _, name := range []string{"own", "other"} {
		must(t, os.Mkdir(filepath.Join(outer, name), 0o700))
	}
	withMounts(t, func(bind func(path string, flags uintptr) error) error {
		own, other := filepath.Join(outer, "own"), filepath.Join(outer, "other")
		if err := errors.Join(bind(outer, unix.MS_RDONLY), bind(own, 0)); err != nil {
			return err
		}
		if err := SyncDir(outer); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("%w: the files here have no flags to confirm by: %w", errors.ErrUnsupported, err)
		}
		for range 2 {
			if err := MakeDir(own); err != nil {
				t.Errorf("one that can be written: %v", err)
			}
		}
		if err := MakeDir(filepath.Join(own, "a", "b")); err != nil {
			t.Errorf("below one that can be written: %v", err)
		}
		for name, path := range map[string]string{"can't be written": other, "would have to be made": filepath.Join(outer, "none")} {
			if err := MakeDir(path); !errors.Is(err, unix.EROFS) {
				t.Errorf("one that %s: %v", name, err)
			}
		}
		return nil
	})
}

// withMounts calls fn on a thread with mounts of its own, which end with it. bind mounts a
// directory on itself with some flags.
func withMounts(t *testing.T, fn func(bind func(path string, flags uintptr) error) error) {
	t.Helper()
	bind := func(path string, flags uintptr) error {
		return errors.Join(
			unix.Mount(path, path, "", unix.MS_BIND, ""),
			unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""))
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = fn(bind)
		}
		done <- err
	}()
	switch err := <-done; {
	case errors.Is(err, os.ErrPermission), errors.Is(err, errors.ErrUnsupported):
		t.Skipf("SKIPPED: nothing can be mounted read-only here: %v", err)
	case err != nil:
		t.Fatal(err)
	}
}
