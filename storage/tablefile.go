package storage

import (
	"bufio"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tableBuffer is how much of a table is written at once, in bytes, at offsets that
// are multiples of it. There is one for each table that is being written: by the
// flush, by each compaction, and by the snapshot that arrives.
const tableBuffer = 256 << 10

var tableBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, tableBuffer) }}

// tableFile gathers what is written of a table. Pebble writes block by block, some
// KiB each, and the kernel then fills the file's pages one by one and blanks the
// rest of each that a write begins or ends in.
//
// What is gathered is in nobody's way: a table is read once it was synced and
// closed, and what a crash leaves of one that wasn't is removed. An error of the
// disk comes with a later write, or with the sync.
type tableFile struct {
	vfs.File
	buffer *bufio.Writer // nil once the file is closed
}

func newTableFile(file vfs.File) *tableFile {
	f := &tableFile{file, tableBuffers.Get().(*bufio.Writer)}
	f.buffer.Reset(file)
	return f
}

// Write implements vfs.File.
func (f *tableFile) Write(p []byte) (int, error) { return f.buffer.Write(p) }

// Sync implements vfs.File.
func (f *tableFile) Sync() error {
	if err := f.buffer.Flush(); err != nil {
		return err
	}
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f *tableFile) SyncData() error {
	if err := f.buffer.Flush(); err != nil {
		return err
	}
	return f.File.SyncData()
}

// SyncTo implements vfs.File. It promises nothing and only has the disk begin with
// what it has got: what is gathered is not in it.
func (f *tableFile) SyncTo(length int64) (fullSync bool, err error) {
	_, err = f.File.SyncTo(length)
	return false, err
}

// Close implements vfs.File.
func (f *tableFile) Close() error {
	err := f.buffer.Flush() // nothing, but for a table that is given up
	if cerr := f.File.Close(); err == nil {
		err = cerr
	}
	f.buffer.Reset(nil)
	tableBuffers.Put(f.buffer)
	f.buffer = nil
	return err
}
