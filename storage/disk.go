package storage

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// diskFS is the file system that Pebble sees. It differs from the one underneath
// in three ways.
//
// A log that can't be made, written or synced is fatal here, once the database
// is open, and so is a directory that can't be synced, at any time. Pebble
// panics at some of these failures, without the lock that it unlocks on its way
// out, and a process that panics on two goroutines at once may never end.
//
// A table that is begun while background work lacks room waits: Pebble would
// try again at once, and again, for as long as that lasts.
type diskFS struct {
	vfs.FS
	opts   *Options
	room   *room
	opened atomic.Bool // errors of logs up to then are Open's
}

// fatal passes an error on, after the process was told to end.
func (fs *diskFS) fatal(what, name string, err error) error {
	if err != nil {
		fs.opts.Fatal(fmt.Errorf("storage: %s %s: %w", what, name, err))
	}
	return err
}

func (fs *diskFS) log(name string, file vfs.File, err error) (vfs.File, error) {
	f := &logFile{file, fs, name}
	if err != nil {
		return nil, f.fatal("make", err)
	}
	return f, nil
}

// Create implements vfs.FS.
func (fs *diskFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	switch {
	case strings.HasSuffix(name, ".log"):
		file, err := fs.FS.Create(name, category)
		return fs.log(name, file, err)
	case strings.HasSuffix(name, ".sst"):
		if fs.room.wanted.Load() != 0 {
			fs.opts.RetryPause()
		}
		file, err := fs.FS.Create(name, category)
		if err != nil {
			return nil, err
		}
		return newTableFile(file), nil
	}
	return fs.FS.Create(name, category)
}

// ReuseForWrite implements vfs.FS. Only logs are used again.
func (fs *diskFS) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.ReuseForWrite(from, to, category)
	return fs.log(to, file, err)
}

// OpenDir implements vfs.FS.
func (fs *diskFS) OpenDir(name string) (vfs.File, error) {
	file, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &directory{file, fs, name}, nil
}

// directory is synced after a log was made in it, or a table, or another
// manifest was chosen.
type directory struct {
	vfs.File
	fs   *diskFS
	name string
}

// Sync implements vfs.File.
func (d *directory) Sync() error { return d.fs.fatal("sync", d.name, d.File.Sync()) }

type logFile struct {
	vfs.File
	fs   *diskFS
	name string
}

func (f *logFile) fatal(what string, err error) error {
	if !f.fs.opened.Load() {
		return err
	}
	return f.fs.fatal(what, f.name, err)
}

// Write implements vfs.File.
func (f *logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fatal("write", err)
}

// Sync implements vfs.File.
func (f *logFile) Sync() error { return f.fatal("sync", f.File.Sync()) }

// SyncData implements vfs.File.
func (f *logFile) SyncData() error { return f.fatal("sync", f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f *logFile) SyncTo(length int64) (fullSync bool, err error) {
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.fatal("sync", err)
}

// Close implements vfs.File.
func (f *logFile) Close() error { return f.fatal("close", f.File.Close()) }
