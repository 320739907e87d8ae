package raftlog

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/vfs"
)

// durableFS is the file system that the log store sees. It differs from the
// one underneath in two ways.
//
// Every file is durable before it is closed. When the store begins a new log
// file it closes the old one without a sync, although a record may just have
// been written to it, and answers for that record with a sync of the new file.
//
// The log files grow ahead of what is written to them, as zeros. A sync that
// finds a file of the same size, in the same blocks, has the data to write and
// no metadata, and doesn't wait for the file system's journal.
type durableFS struct {
	vfs.FS
	logs    *liveLogs
	failure *failure
}

// liveLogs are the log files that are being written to, by name. A reader of
// one must not see the zeros: the store takes them for damage.
type liveLogs struct {
	mu     sync.Mutex
	byName map[string]*durableFile
}

func newDurableFS(under vfs.FS, failure *failure) durableFS {
	return durableFS{FS: under, failure: failure, logs: &liveLogs{byName: make(map[string]*durableFile)}}
}

// Create implements vfs.FS.
func (d durableFS) Create(name string) (vfs.File, error) {
	under, err := d.FS.Create(name)
	if err != nil {
		return nil, err
	}
	f := &durableFile{File: under, failure: d.failure}
	if t, ok := under.(truncater); ok && strings.HasSuffix(name, ".log") {
		f.ahead = t
		f.forget = d.logs.add(name, f)
	}
	return f, nil
}

// Open implements vfs.FS.
func (d durableFS) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	size, live := d.logs.size(name)
	file, err := d.FS.Open(name, options...)
	if err != nil || !live {
		return file, err
	}
	return &prefix{File: file, SectionReader: io.NewSectionReader(file, 0, size)}, nil
}

func (l *liveLogs) add(name string, f *durableFile) (forget func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byName[name] = f
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.byName, name)
	}
}

func (l *liveLogs) size(name string) (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.byName[name]
	if !ok {
		return 0, false
	}
	return f.written.Load(), true
}

// truncater is a file that can grow ahead, since it can be cut again.
type truncater interface{ Truncate(size int64) error }

// growth is how far a log file grows ahead. Where half of that or more is
// written between two syncs, it doesn't: there is more to wait for than the
// journal. For such writes the file has its blocks reserved, reserve at a time.
const (
	growth  = 256 << 10
	reserve = 8 << 20
)

var zeros [growth]byte

// durableFile is a file that is written from its beginning to its end. Whoever
// writes and syncs it does one after the other (store.saving sees to that); a
// reader may come at any time.
type durableFile struct {
	vfs.File
	failure *failure
	dirty   atomic.Bool  // written to since the last sync
	written atomic.Int64 // what was written ends here
	synced  int64        // what written was at the last sync
	grown   int64        // zeros end here, if beyond written
	room    int64        // reserved blocks end here
	ahead   truncater    // the file, if it grows ahead
	forget  func()       // takes it out of the live logs, likewise
}

// Write implements vfs.File.
func (f *durableFile) Write(p []byte) (int, error) {
	n, err := f.write(p)
	return n, f.failure.of(err)
}

func (f *durableFile) write(p []byte) (int, error) {
	f.dirty.Store(true)
	if f.ahead == nil {
		return f.File.Write(p)
	}
	end := f.written.Load() + int64(len(p))
	if end+growth > f.room {
		allocate(f.File, f.room, end+reserve-f.room)
		f.room = end + reserve
	}
	n, err := f.File.Write(p)
	f.written.Add(int64(n))
	return n, err
}

// grow writes zeros where the next writes will go, if that is due. It reports whether the
// sync has more than content in its place to make durable.
func (f *durableFile) grow() (larger bool, err error) {
	end := f.written.Load()
	few := end-f.synced < growth/2
	f.synced = end
	if !few || f.grown-end >= growth/2 {
		return end > f.grown, nil
	}
	from := max(f.grown, end)
	f.grown = end + growth
	_, err = f.File.WriteAt(zeros[:f.grown-from], from)
	return true, err
}

// WriteAt implements vfs.File. The log store has no use for it.
func (f *durableFile) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// Sync implements vfs.File.
func (f *durableFile) Sync() error { return f.failure.of(f.sync()) }

func (f *durableFile) sync() error {
	f.dirty.Store(false)
	larger := true
	if f.ahead != nil {
		var err error
		if larger, err = f.grow(); err != nil {
			return err
		}
	}
	err := syncData(f.File)
	if err == nil && larger {
		err = confirm(f.File)
	}
	if err != nil {
		f.dirty.Store(true)
	}
	return err
}

// Close implements vfs.File.
func (f *durableFile) Close() error {
	if f.forget != nil {
		defer f.forget() // not before the zeros are gone
	}
	if f.room > 0 { // the zeros, and what was reserved
		if err := f.ahead.Truncate(f.written.Load()); err != nil {
			return errors.Join(err, f.File.Close())
		}
		f.dirty.Store(true)
	}
	if !f.dirty.Load() {
		return f.File.Close()
	}
	err := syncData(f.File)
	if err == nil {
		err = confirm(f.File)
	}
	return errors.Join(err, f.File.Close())
}

// prefix is the beginning of a file, for reading.
type prefix struct {
	vfs.File
	*io.SectionReader
}

// The methods that both parts have.

func (p *prefix) Read(b []byte) (int, error)                { return p.SectionReader.Read(b) }
func (p *prefix) ReadAt(b []byte, off int64) (int, error)   { return p.SectionReader.ReadAt(b, off) }
func (p *prefix) Seek(off int64, whence int) (int64, error) { return p.SectionReader.Seek(off, whence) }

// Stat implements vfs.File.
func (p *prefix) Stat() (os.FileInfo, error) {
	info, err := p.File.Stat()
	return sized{info, p.Size()}, err
}

type sized struct {
	os.FileInfo
	size int64
}

func (s sized) Size() int64 { return s.size }
