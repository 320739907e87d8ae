package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFirstStartOnMounts is TestFirstStartOnVolumes on file systems that are mounted there.
func TestFirstStartOnMounts(t *testing.T) {
	firstStarts(t, 3, func(t *testing.T, volume string) {
		must(t, os.Mkdir(volume, 0o700))
		// It takes no more memory than what lies in it.
		switch err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=4g,mode=0755"); {
		case errors.Is(err, os.ErrPermission):
			t.Skipf("SKIPPED: nothing can be mounted here: %v", err)
		case err != nil:
			t.Fatal(err)
		}
		t.Cleanup(func() { must(t, unix.Unmount(volume, unix.MNT_DETACH)) })
		must(t, os.Mkdir(filepath.Join(volume, "lost+found"), 0o700))
	})
}
