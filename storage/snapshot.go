package storage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A snapshot is a stream of all records in key order:
//
//	magic
//	block*    length u32 · CRC-32C of the payload u32 · payload
//	end       0 u32 · records u64 · SHA-256 of all payloads
//
// A payload is records, each with the lengths of its key and value before it.
// Every block is checked before its records are used, the end before the store
// is switched, so a stream that was cut or altered changes nothing.
const snapshotMagic = "cairn-snapshot 1\n"

const (
	// snapshotBlockBytes is where a block is closed; one record more may be in
	// it.
	snapshotBlockBytes = 256 << 10
	// maxSnapshotBlockBytes bounds what a reader allocates for a block.
	maxSnapshotBlockBytes = 8 << 20
	// snapshotTableBytes is the size of the tables that a snapshot is loaded
	// into.
	snapshotTableBytes = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrStopped is returned when a stream was stopped from outside.
var ErrStopped = errors.New("storage: stopped")

// ErrSnapshotCorrupt is returned, wrapped, for a stream that Save can't have
// written.
var ErrSnapshotCorrupt = errors.New("storage: snapshot is corrupt")

// Save writes the view as a snapshot. It ends with ErrStopped once stop is
// closed; an error of w is returned as it is.
func (v *View) Save(w io.Writer, stop <-chan struct{}) (err error) {
	it, err := v.snap.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if _, err := io.WriteString(w, snapshotMagic); err != nil {
		return err
	}
	sum := sha256.New()
	count := uint64(0)
	block := make([]byte, 8, snapshotBlockBytes+64<<10)
	flush := func() error {
		payload := block[8:]
		binary.BigEndian.PutUint32(block, uint32(len(payload)))
		binary.BigEndian.PutUint32(block[4:], crc32.Checksum(payload, castagnoli))
		sum.Write(payload)
		_, err := w.Write(block)
		block = block[:8]
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		block = binary.AppendUvarint(block, uint64(len(it.Key())))
		block = binary.AppendUvarint(block, uint64(len(value)))
		block = append(append(block, it.Key()...), value...)
		count++
		if len(block) < snapshotBlockBytes {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		select {
		case <-stop:
			return ErrStopped
		default:
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	if len(block) > 8 {
		if err := flush(); err != nil {
			return err
		}
	}
	end := binary.BigEndian.AppendUint64(make([]byte, 4), count)
	_, err = w.Write(sum.Sum(end))
	return err
}

// readSnapshot calls fn for each record of a snapshot. The record is valid
// during the call only. When it returns nil the whole stream was right.
func readSnapshot(r io.Reader, stop <-chan struct{}, fn func(key, value []byte) error) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrSnapshotCorrupt, fmt.Sprintf(format, args...))
	}
	full := func(b []byte) error {
		_, err := io.ReadFull(r, b)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return bad("it ends too early")
		}
		return err
	}
	magic := make([]byte, len(snapshotMagic))
	if err := full(magic); err != nil {
		return err
	}
	if string(magic) != snapshotMagic {
		return bad("it does not begin as one of this version")
	}
	sum := sha256.New()
	count := uint64(0)
	var payload []byte
	for {
		select {
		case <-stop:
			return ErrStopped
		default:
		}
		var head [8]byte
		if err := full(head[:4]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:4])
		if n == 0 {
			break
		}
		if n > maxSnapshotBlockBytes {
			return bad("a block of %d bytes", n)
		}
		if err := full(head[4:]); err != nil {
			return err
		}
		if uint32(cap(payload)) < n {
			payload = make([]byte, n)
		}
		payload = payload[:n]
		if err := full(payload); err != nil {
			return err
		}
		if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
			return bad("a block's checksum is wrong")
		}
		sum.Write(payload)
		rec := reader{b: payload}
		for len(rec.b) > 0 {
			keyLen, valueLen := rec.uvarint(), rec.uvarint()
			key, value := rec.take(keyLen), rec.take(valueLen)
			if rec.bad || len(key) == 0 {
				return bad("a record is cut")
			}
			if err := fn(key, value); err != nil {
				return err
			}
			count++
		}
	}
	end := make([]byte, 8+sha256.Size)
	if err := full(end); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(end) != count {
		return bad("%d records, %d announced", count, binary.BigEndian.Uint64(end))
	}
	if !bytes.Equal(end[8:], sum.Sum(nil)) {
		return bad("its checksum is wrong")
	}
	return nil
}

// Load replaces the store's content by a snapshot. It is built in a directory
// of its own, checked as a whole, made durable, and then takes the place of the
// old one; a crash or an error at any earlier moment leaves the old content.
// Views that are open keep the old content until they are closed.
//
// Nothing is applied while Load runs.
func (s *Store) Load(r io.Reader, stop <-chan struct{}) error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	old := s.current.Load()
	if old == nil {
		return ErrClosed
	}
	var n int
	if _, err := fmt.Sscanf(old.name, "db-%06d", &n); err != nil {
		return err
	}
	fs, name := s.opts.FS, databaseName(n+1)
	dir := fs.PathJoin(s.dir, name)
	if err := fs.RemoveAll(dir); err != nil {
		return err
	}
	if err := s.build(dir, bufio.NewReaderSize(r, 1<<20), stop); err != nil {
		return errors.Join(err, fs.RemoveAll(dir))
	}
	h, err := openHandle(fs, dir, name, false, &s.opts)
	if err != nil {
		return errors.Join(err, fs.RemoveAll(dir))
	}
	// At this point the new database is complete and on disk beside the old
	// one, which is still the store.
	if err := writePointer(fs, s.dir, name); err != nil {
		// Which of the two a restart finds is unknown, so neither may go on.
		h.release()
		err = fmt.Errorf("storage: switch to %s: %w", name, err)
		s.opts.Fatal(err)
		return err
	}
	// At this point the new one is the store, whatever happens.
	s.current.Store(h)
	old.obsolete.Store(true)
	old.release()
	return nil
}

// build makes a database in dir from a snapshot: tables of sorted records,
// which the database then takes over as they are.
func (s *Store) build(dir string, r io.Reader, stop <-chan struct{}) (err error) {
	room := &room{}
	db, err := openPebble(s.opts.FS, dir, true, &s.opts, room)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	o := pebbleOptions(&s.opts, room)
	defer o.Cache.Unref()
	b := builder{
		fs: s.opts.FS, dir: dir, bytesPerSync: o.BytesPerSync, opts: o.MakeWriterOptions(len(o.Levels)-1, db.TableFormat()),
	}
	sawState, sawFormat := false, false
	err = readSnapshot(r, stop, func(key, value []byte) error {
		switch {
		case bytes.Equal(key, keyState):
			sawState = true
			if _, err := decodeState(value); err != nil {
				return err
			}
		case bytes.Equal(key, keyFormat):
			sawFormat = true
			if err := checkFormat(value); err != nil {
				return err
			}
		}
		return b.add(key, value)
	})
	if err = errors.Join(err, b.finish()); err != nil {
		return err
	}
	if !sawState || !sawFormat {
		return fmt.Errorf("%w: it has no state", ErrSnapshotCorrupt)
	}
	if len(b.tables) > 0 {
		// Ingesting syncs the tables and the manifest.
		if err := db.Ingest(context.Background(), b.tables); err != nil {
			return err
		}
	}
	return errors.Join(db.LogData(nil, pebble.Sync), syncDir(s.opts.FS, dir), syncDir(s.opts.FS, s.dir))
}

// builder writes records, which come in order, into tables.
type builder struct {
	fs           vfs.FS
	dir          string
	bytesPerSync int
	opts         sstable.WriterOptions
	w            *sstable.Writer
	size         int
	last         []byte
	tables       []string
}

func (b *builder) add(key, value []byte) error {
	if bytes.Compare(key, b.last) <= 0 {
		return fmt.Errorf("%w: its records are out of order", ErrSnapshotCorrupt)
	}
	b.last = append(b.last[:0], key...)
	if b.w == nil {
		path := b.fs.PathJoin(b.dir, fmt.Sprintf("load-%06d.sst", len(b.tables)))
		f, err := b.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		b.tables = append(b.tables, path)
		// Written as it comes: a sync of a whole table would hold up all others on the
		// disk.
		f = vfs.NewSyncingFile(newTableFile(f), vfs.SyncingFileOptions{BytesPerSync: b.bytesPerSync})
		b.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), b.opts)
	}
	if err := b.w.Set(key, value); err != nil {
		return err
	}
	if b.size += len(key) + len(value); b.size >= snapshotTableBytes {
		return b.finish()
	}
	return nil
}

func (b *builder) finish() error {
	if b.w == nil {
		return nil
	}
	err := b.w.Close()
	b.w, b.size = nil, 0
	return err
}
