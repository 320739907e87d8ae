package raftsm

import (
	"errors"

	"github.com/lni/vfs"
	"golang.org/x/sys/unix"
)

// writeBack writes what the kernel has yet to write of a file, and waits for it.
// There is no commit of the file system's journal in it.
func writeBack(f vfs.File) error {
	d, ok := f.(interface{ Fd() uintptr })
	if !ok {
		return nil
	}
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for {
		switch err := unix.SyncFileRange(int(d.Fd()), 0, 0, all); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ESPIPE), errors.Is(err, unix.EINVAL):
			return nil // not on this file system
		default:
			return err
		}
	}
}
