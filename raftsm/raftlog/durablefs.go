package raftlog

import (
	"errors"
	"sync/atomic"

	"github.com/lni/vfs"
)

// durableFS makes every file durable before it is closed. When the log store
// begins a new log file it closes the old one without a sync, although a
// record may just have been written to it, and answers for that record with a
// sync of the new file.
type durableFS struct{ vfs.FS }

// Create implements vfs.FS.
func (d durableFS) Create(name string) (vfs.File, error) {
	return wrapped(d.FS.Create(name))
}

// OpenForAppend implements vfs.FS.
func (d durableFS) OpenForAppend(name string) (vfs.File, error) {
	return wrapped(d.FS.OpenForAppend(name))
}

// ReuseForWrite implements vfs.FS.
func (d durableFS) ReuseForWrite(from, to string) (vfs.File, error) {
	return wrapped(d.FS.ReuseForWrite(from, to))
}

func wrapped(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &durableFile{File: f}, nil
}

type durableFile struct {
	vfs.File
	dirty atomic.Bool // written to since the last sync
}

// Write implements vfs.File.
func (f *durableFile) Write(p []byte) (int, error) {
	f.dirty.Store(true)
	return f.File.Write(p)
}

// WriteAt implements vfs.File.
func (f *durableFile) WriteAt(p []byte, offset int64) (int, error) {
	f.dirty.Store(true)
	return f.File.WriteAt(p, offset)
}

// Sync implements vfs.File. A write that comes during the sync keeps the file
// dirty.
func (f *durableFile) Sync() error {
	f.dirty.Store(false)
	if err := syncData(f.File); err != nil {
		f.dirty.Store(true)
		return err
	}
	return nil
}

// Close implements vfs.File.
func (f *durableFile) Close() error {
	if !f.dirty.Load() {
		return f.File.Close()
	}
	return errors.Join(f.Sync(), f.File.Close())
}
