package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
)

// Examined is what a store was found to be.
type Examined struct {
	// Database is the name of the database that is the store, Tables how many
	// tables it has, Bytes their size.
	Database string
	Tables   int
	Bytes    uint64
	// Leftovers are files of tables that the database does not have: a crash left
	// them, whole or not, and the next start removes them.
	Leftovers int
	// Stats are the store's figures, Hash what [View.Hash] says of the newest
	// revision.
	Stats  Stats
	Hash   [32]byte
	Alarms []kv.Alarm
}

// tableExtension is that of the file of a table.
const tableExtension = ".sst"

// Examine reads all of a store that no process has, checks every checksum in it,
// and changes nothing. A store that is not there yet is empty. The error says what
// is damaged; what was found before it is returned with it.
func Examine(ctx context.Context, dir string) (Examined, error) {
	return examine(ctx, vfs.Default, dir)
}

func examine(ctx context.Context, on vfs.FS, dir string) (x Examined, err error) {
	opts := Options{FS: on}.withDefaults()
	// Whatever the database wants to end the process over is an error here.
	var fatal error
	opts.Fatal = func(err error) { fatal = errors.Join(fatal, err) }
	defer func() { err = errors.Join(err, fatal) }()
	fs := readOnly{opts.FS}
	if x.Database, err = readPointer(fs, dir); err != nil {
		return x, err
	}
	fresh := x.Database == ""
	if fresh {
		// As Open has it: the first database may not have been named yet.
		x.Database = databaseName(1)
		others, err := otherDatabases(fs, dir, x.Database)
		if err != nil {
			return x, err
		}
		if len(others) > 0 {
			return x, fmt.Errorf("storage: there is %s, but no %s that says what the store is", others[0], pointerFile)
		}
		if _, err := fs.Stat(fs.PathJoin(dir, x.Database)); err != nil {
			return Examined{}, nil
		}
	}
	path := fs.PathJoin(dir, x.Database)
	o := pebbleOptions(&opts, &room{})
	defer o.Cache.Unref()
	o.FS, o.ReadOnly, o.ErrorIfNotExists = fs, true, true
	db, err := openExamined(path, o)
	if fresh && errors.Is(err, pebble.ErrDBDoesNotExist) {
		return Examined{}, nil // the first start had only begun to make it
	}
	if err != nil {
		return x, fmt.Errorf("storage: open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if format, err := getCopy(db, keyFormat); fresh && err == nil && format == nil {
		return Examined{}, nil // the next start goes on with it
	}
	if err := x.tables(ctx, db, fs, path, o.MakeReaderOptions()); err != nil {
		return x, err
	}
	h := &handle{db: db, opts: &opts, dir: path, windows: map[ulid.ULID]*window{}}
	h.refs.Store(2) // views come and go; the database is closed here
	if err := h.load(false); err != nil {
		return x, err
	}
	return x, x.content(ctx, h)
}

// openExamined makes an error of a panic: the database gives up at some kinds of
// damage.
func openExamined(path string, o *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if p := panicked(recover()); p != nil {
			db, err = nil, p
		}
	}()
	if err := checkManifest(o.FS, path); err != nil {
		return nil, err
	}
	return pebble.Open(path, o)
}

// tables checks the blocks of every table of the database, also those that no read
// would come by. It leaves out tables that a crash cut off while they were written:
// the database has none of them.
func (x *Examined) tables(ctx context.Context, db *pebble.DB, fs vfs.FS, path string, o sstable.ReaderOptions) error {
	levels, err := db.SSTables()
	if err != nil {
		return fmt.Errorf("storage: the tables of %s: %w", path, err)
	}
	has := map[string]bool{}
	for _, t := range slices.Concat(levels...) {
		has[t.BackingSSTNum.String()+tableExtension] = true // several may have one file
	}
	names, err := fs.List(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch {
		case !strings.HasSuffix(name, tableExtension):
			continue
		case !has[name]:
			x.Leftovers++
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		size, err := checkTable(ctx, fs, fs.PathJoin(path, name), o)
		if err != nil {
			return fmt.Errorf("storage: table %s: %w", fs.PathJoin(path, name), err)
		}
		x.Tables++
		x.Bytes += size
	}
	return nil
}

func checkTable(ctx context.Context, fs vfs.FS, name string, o sstable.ReaderOptions) (size uint64, err error) {
	defer func() {
		if p := panicked(recover()); p != nil {
			err = p
		}
	}()
	f, err := fs.Open(name)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, o)
	if err != nil {
		return 0, err // it has closed the file
	}
	return uint64(info.Size()), errors.Join(r.ValidateBlockChecksums(), r.Close())
}

// content reads every record, and what is made of them.
func (x *Examined) content(ctx context.Context, h *handle) (err error) {
	st := h.published.Load()
	x.Stats = Stats{
		AppliedIndex: st.applied, Revision: st.revision, Compact: st.compact, Keys: st.keys, Leases: st.leases,
		Idempotency: st.idempotent, Clock: st.clock, ClockIndex: st.clockIndex, NoSpaceAlarms: st.noSpace,
		CorruptAlarms: st.corrupt, ClusterVersion: uint32(st.clusterVersion), LastTime: st.lastTime,
		DiskBytes: h.db.Metrics().DiskSpaceUsage(),
	}
	h.refs.Add(1)
	v := &View{h: h, snap: h.db.NewSnapshot(), st: *st}
	defer v.Close()
	all := Scrub{bytes: 1 << 62, view: v}
	if _, err := all.Sum(func(int) error { return ctx.Err() }); err != nil {
		return err
	}
	if x.Alarms, err = v.Alarms(); err != nil {
		return err
	}
	x.Hash, err = v.Hash(ctx, 0)
	return err
}

// readOnly is a file system that a look changes nothing of. That no other process
// has the database is for the caller to know.
type readOnly struct{ vfs.FS }

func (readOnly) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func refused(name string) error {
	return fmt.Errorf("storage: %s was to be written while it is only looked at", name)
}

func (readOnly) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, refused(name)
}
func (readOnly) ReuseForWrite(_, name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, refused(name)
}
func (readOnly) OpenReadWrite(name string, _ vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	return nil, refused(name)
}
func (readOnly) Remove(name string) error    { return refused(name) }
func (readOnly) RemoveAll(name string) error { return refused(name) }
func (readOnly) Rename(_, name string) error { return refused(name) }
func (readOnly) Link(_, name string) error   { return refused(name) }

// Damaged reports whether an error says that what is on the disk is not what was
// written.
func Damaged(err error) bool {
	var record *CorruptError
	return errors.As(err, &record) || pebble.IsCorruptionError(err)
}
