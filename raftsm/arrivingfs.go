package raftsm

import (
	"errors"

	"github.com/lni/vfs"
)

// arrivingFS is the file system that Dragonboat sees. It differs from the one
// underneath in one way: what arrives of a snapshot goes to the disk as it comes.
// Dragonboat appends chunk after chunk to a file and syncs it once, at the end. By
// then all of it would lie in memory, and that one sync would hold up every other
// one on the disk: those of this node's log, and of whoever else is on it. A chunk
// that waits for the disk also slows its sender down to what the disk takes.
type arrivingFS struct{ vfs.FS }

// OpenForAppend implements vfs.FS. Only chunks are appended, one each time.
func (fs arrivingFS) OpenForAppend(name string) (vfs.File, error) {
	f, err := fs.FS.OpenForAppend(name)
	if err != nil {
		return nil, err
	}
	return arrivingFile{f}, nil
}

type arrivingFile struct{ vfs.File }

// Close implements vfs.File. It makes nothing durable, but an error of the disk
// that it learns of is told here and to nobody else.
func (f arrivingFile) Close() error { return errors.Join(writeBack(f.File), f.File.Close()) }
