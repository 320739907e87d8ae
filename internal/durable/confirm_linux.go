package durable

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Confirm is called after a sync of a file, or a directory, that has changed more than
// content in its place, and says whether what was called durable is.
//
// An ext4 that meets an error drops the transaction of its journal that is under way, and
// refuses all others. But until it has told everybody, 30 ms later or so, a sync of a file
// whose size or blocks were to be in that transaction succeeds, since there is none any
// more that it would have to wait for. Of some 360 errors under a load of writes, five at least
// lost what had been synced.
//
// So this puts something into the journal: the flags of the file, as they are. That waits
// for nothing, and fails where the journal has ended.
func Confirm(fd uintptr) error {
	flags, err := unix.IoctlGetInt(int(fd), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(fd), unix.FS_IOC_SETFLAGS, flags)
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("what was synced may not be on the disk: %w", err)
	}
	return nil // others have no flags, or let them be changed by somebody else alone
}
