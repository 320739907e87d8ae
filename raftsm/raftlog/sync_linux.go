package raftlog

import (
	"github.com/lni/vfs"
	"golang.org/x/sys/unix"

	"github.com/cairnkv/cairn/internal/durable"
)

// syncData makes the content and the size of f durable, and leaves out its
// times: where neither size nor allocation changed, that saves a commit of the
// file system's journal.
func syncData(f vfs.File) error {
	d, ok := f.(interface{ Fd() uintptr })
	if !ok {
		return f.Sync()
	}
	for {
		if err := unix.Fdatasync(int(d.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// confirm says whether a file that was synced, and is larger than before or has other
// blocks, is durable indeed.
func confirm(f vfs.File) error {
	if d, ok := f.(interface{ Fd() uintptr }); ok {
		return durable.Confirm(d.Fd())
	}
	return nil
}

// allocate reserves blocks for f from offset on without changing its size. It
// only saves time later: that there are no blocks is found by the write.
func allocate(f vfs.File, offset, length int64) {
	if d, ok := f.(interface{ Fd() uintptr }); ok {
		_ = unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_KEEP_SIZE, offset, length)
	}
}
