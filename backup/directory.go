package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cairnkv/cairn/internal/durable"
	"golang.org/x/sys/unix"
)

// Directory keeps backups as files. Several members may share it.
type Directory struct {
	Path string
	// Owner marks the files that are being written, so that a member finds what it
	// left half done: the ULID of the member.
	Owner string
	// Reserve is how many bytes the file system must have left: a backup that would
	// take them fails, and leaves them to what else is on that disk.
	Reserve uint64
}

// partialSuffix ends the name of a file that is not complete.
const partialSuffix = ".partial"

// String is the path.
func (d Directory) String() string { return d.Path }

// List implements Place.
func (d Directory) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Open implements Place.
func (d Directory) Open(_ context.Context, name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(d.Path, name))
}

// Write implements Place. The directory is made when it is missing, for its owner
// alone, as the file is: a backup has all that is secret.
func (d Directory) Write(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := durable.MakeDir(d.Path); err != nil {
		return err
	}
	if err := d.removePartial(ctx); err != nil {
		return err
	}
	path := filepath.Join(d.Path, name)
	f, err := os.OpenFile(filepath.Join(d.Path, "."+name+"."+d.Owner+partialSuffix), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(write(&reserving{Writer: f, d: d}), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := durable.SyncDir(d.Path); err != nil {
		return errors.Join(err, os.Remove(path)) // nobody would check it
	}
	return nil
}

var errNoRoom = errors.New("there is no room for the backup")

// NoRoom reports whether a backup was not written because its place is full.
func NoRoom(err error) bool {
	return errors.Is(err, errNoRoom) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// reserveEvery is after how many bytes the free ones are counted again.
const reserveEvery = 8 << 20

// reserving is a file that leaves the reserve of its directory alone.
type reserving struct {
	io.Writer
	d    Directory
	left int // bytes until the next look
}

// Write implements io.Writer.
func (r *reserving) Write(p []byte) (int, error) {
	if r.left -= len(p); r.left <= 0 {
		r.left = reserveEvery
		var fs unix.Statfs_t
		if err := unix.Statfs(r.d.Path, &fs); err != nil {
			return 0, err
		}
		if free := fs.Bavail * uint64(fs.Bsize); free < r.d.Reserve+reserveEvery {
			return 0, fmt.Errorf("%w: %s has %d bytes left, and %d are to stay free", errNoRoom, r.d, free, r.d.Reserve)
		}
	}
	return r.Writer.Write(p)
}

// removePartial removes what a crash of this member left.
func (d Directory) removePartial(ctx context.Context) error {
	names, err := d.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") && strings.HasSuffix(name, "."+d.Owner+partialSuffix) {
			if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove a backup that was not finished: %w", err)
			}
		}
	}
	return nil
}

// Remove implements Place.
func (d Directory) Remove(_ context.Context, name string) error {
	return os.Remove(filepath.Join(d.Path, name))
}
