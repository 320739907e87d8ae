package raftsm

import (
	"errors"
	"syscall"

	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/cairnkv/cairn/storage"
	"golang.org/x/sys/unix"
)

// ErrDirectory marks what is wrong with a data directory in a way that another
// start would find again: a file that is damaged or missing, or another member's.
var ErrDirectory = errors.New("the data directory can't be used")

// directoryError marks an error and says no more than it does.
type directoryError struct{ error }

func (e directoryError) Unwrap() error { return e.error }
func (directoryError) Is(target error) bool {
	return target == ErrDirectory
}

// marked marks an error, if there is one.
func marked(err error) error {
	if err == nil {
		return nil
	}
	return directoryError{err}
}

// markedUnlessDisk marks why a store can't be opened, unless the disk refused to do
// something: that may pass. A file that is missing is damage.
func markedUnlessDisk(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != unix.ENOENT {
		return err
	}
	return marked(err)
}

// Damaged reports whether an error says that what is on the disk is not what was
// written, or not what belongs there. To start again can't mend that, and ends in
// the same way.
func Damaged(err error) bool {
	for _, target := range []error{
		ErrDirectory, raftlog.ErrLogTruncated, raftlog.ErrLogCorrupt, raftlog.ErrRecordUnusable, raftlog.ErrStateBehind,
		raftlog.ErrEntryCorrupt,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return storage.Damaged(err)
}
