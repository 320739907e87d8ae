package raftlog

import (
	"github.com/lni/vfs"
	"golang.org/x/sys/unix"
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
