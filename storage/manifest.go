package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble takes damage in its manifest for the place where the power went, and
// forgets what follows. What follows may be that logs were written to a table: it
// would then replay what is left of these logs, some of which are deleted by now,
// and lose what was in them, without a word. A torn write, though, leaves all the
// logs, since they are deleted only after it was synced. So where the manifest
// does not end well, the batches in the logs must follow each other.

// The tags of a manifest's records that come first in them.
const (
	manifestComparer  = 1
	manifestLogNumber = 2
)

// firstBatch is the number of the first batch of a database.
const firstBatch = 10

// checkManifest refuses a database that has lost the end of its manifest and, with
// it, what was in logs that are deleted.
func checkManifest(fs vfs.FS, dir string) error {
	found, err := pebble.Peek(dir, fs)
	if err != nil || !found.Exists {
		return err
	}
	log, clean, err := readManifest(fs, found.ManifestFilename)
	if err != nil || clean {
		return err
	}
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	var logs []uint64
	for _, name := range names {
		var n uint64
		if _, err := fmt.Sscanf(name, "%d.log", &n); err == nil && fmt.Sprintf("%06d.log", n) == name && n >= log {
			logs = append(logs, n)
		}
	}
	slices.Sort(logs)
	next := uint64(0) // not known
	switch {
	case log == 0:
		next = firstBatch
	case !slices.Contains(logs, log):
		return &CorruptError{Reason: fmt.Sprintf("%s has lost its end, and with it log %06d.log", found.ManifestFilename, log)}
	}
	for _, n := range logs {
		name := fs.PathJoin(dir, fmt.Sprintf("%06d.log", n))
		if next, err = followBatches(fs, name, n, next); err != nil {
			return fmt.Errorf("%s has lost its end: %w", found.ManifestFilename, err)
		}
	}
	return nil
}

// readManifest returns the oldest log that the manifest wants to be replayed, as
// far as it can be read, and whether that is all of it.
func readManifest(fs vfs.FS, name string) (log uint64, clean bool, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	for r := record.NewReader(f, 0); ; {
		edit, err := r.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return log, true, nil
		}
		if err != nil {
			return log, false, nil
		}
		b, err := io.ReadAll(edit)
		if err != nil {
			return log, false, nil
		}
		fields := reader{b: b}
		tag := fields.uvarint()
		if tag == manifestComparer {
			fields.take(fields.uvarint())
			tag = fields.uvarint()
		}
		if n := fields.uvarint(); tag == manifestLogNumber && !fields.bad {
			log = n
		}
	}
}

// logReader makes a reader of a log. The type of its number has a name inside
// Pebble alone.
func logReader[N ~uint64](of func(io.Reader, N) *record.Reader, f io.Reader, number uint64) *record.Reader {
	return of(f, N(number))
}

// followBatches reads the batches of a log, of which the first must be number next
// unless that is 0, and returns the number of the one that must follow.
func followBatches(fs vfs.FS, name string, number, next uint64) (uint64, error) {
	f, err := fs.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for r := logReader(record.NewReader, f, number); ; {
		batch, err := r.Next()
		if err != nil {
			return next, nil // its end; damage in it is for the database to find
		}
		var head [12]byte
		if _, err := io.ReadFull(batch, head[:]); err != nil {
			return next, nil
		}
		seq, count := binary.LittleEndian.Uint64(head[:]), binary.LittleEndian.Uint32(head[8:])
		if next != 0 && seq > next {
			return 0, &CorruptError{Reason: fmt.Sprintf("%s goes on at batch %d, and %d to %d are nowhere", name, seq, next, seq-1)}
		}
		next = max(next, seq+uint64(count))
	}
}
