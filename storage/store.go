package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
)

// ErrClosed is returned by every operation on a store that was closed.
var ErrClosed = errors.New("storage: closed")

const (
	// DefaultCacheBytes is Options.CacheBytes by default: what 20,000,000 keys need of
	// indexes and filters, and a few memtables, with some room left.
	DefaultCacheBytes = 96 << 20
	// maxOpenFiles bounds the tables that are open at once.
	maxOpenFiles = 1000
)

// Options configure one store. The zero value is usable. None of them can
// influence what applying a command gives.
type Options struct {
	// FS is where the store lives; nil means the operating system's files.
	FS vfs.FS
	// CacheBytes is the memory for blocks of the tables, from which Pebble takes what
	// memtables have, and for rows that were read recently. Default DefaultCacheBytes.
	CacheBytes int64
	// MemTableBytes is the size of a memtable, of which up to four exist while
	// flushing lags. Default 16 MiB.
	MemTableBytes uint64
	// BatchBytes is where a batch is cut between two commands: a batch is held
	// in memory and in Pebble's log as one piece. Default 16 MiB.
	BatchBytes int
	// SweepBatch is how many changes one step of the background compaction
	// looks at. Default 1,000.
	SweepBatch int
	// Logger receives what the store has to say. Default: nothing.
	Logger *slog.Logger
	// Fatal is called, from any goroutine, when the disk failed in a way after
	// which the store must not be used: a failed write or sync is never
	// retried. It must end the process. Default: panic.
	Fatal func(error)
	// RetryPause is called, by the store's background work, before it is tried
	// again on a full disk. It returns when it is time. Default: at once.
	RetryPause func()
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 16 << 20
	}
	if o.SweepBatch == 0 {
		o.SweepBatch = 1000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
	if o.RetryPause == nil {
		o.RetryPause = func() {}
	}
	return o
}

// Store is one shard's store. See the package comment for who may call what.
type Store struct {
	dir  string
	opts Options

	// current is the open database, or nil after Close. Load switches it.
	current atomic.Pointer[handle]
	// lifecycle serialises Load and Close.
	lifecycle sync.Mutex
}

// handle is an open database with the number of its users. The database is
// closed by the last one, after the store let go of it.
type handle struct {
	db   *pebble.DB
	room *room
	name string
	refs atomic.Int64
	// published is the state as of the last committed batch.
	published atomic.Pointer[state]
	// windows is the content of space q. Only the applying goroutine uses it.
	windows map[ulid.ULID]*window
	// rows has what was read recently. Anybody uses it.
	rows *rowCache
	// recent is what the newest versions are, and recentLeases what leases are, as
	// far as it is remembered; changed has the keys that were changed recently. Only the
	// applying goroutine uses them.
	recent       *recent
	changed      *changed
	recentLeases *recentLeases
	// forgetFrom is a key that no answer is to be forgotten before, or nil. Only the
	// applying goroutine uses it.
	forgetFrom []byte
	// flushed is a revision up to which the database's tables have everything; there
	// may be a later one. Only the applying goroutine uses it.
	flushed uint64
	// due is a key that no lease is queued before. Only DueLeases needs
	// it, and nothing that is applied depends on it.
	due     atomic.Pointer[dueKey]
	sweeper *sweeper
	opts    *Options
	closed  chan struct{} // closed when the database is
	// obsolete says that another database took this one's place: its directory
	// is removed when its last user is gone.
	obsolete atomic.Bool
	dir      string
}

// Open opens the store in dir, which it creates when it is missing.
func Open(dir string, opts Options) (*Store, error) {
	s := &Store{dir: dir, opts: opts.withDefaults()}
	fs := s.opts.FS
	if err := makeDir(fs, dir); err != nil {
		return nil, fmt.Errorf("storage: create %s: %w", dir, err)
	}
	name, err := readPointer(fs, dir)
	if err != nil {
		return nil, err
	}
	fresh := name == ""
	if fresh {
		name = databaseName(1)
	}
	others, err := otherDatabases(fs, dir, name)
	if err != nil {
		return nil, err
	}
	if fresh && len(others) > 0 {
		return nil, fmt.Errorf("storage: there is %s, but no %s that says what the store is; restore the file or replace this member", others[0], pointerFile)
	}
	h, err := openHandle(fs, fs.PathJoin(dir, name), name, fresh, &s.opts)
	if err != nil {
		return nil, err
	}
	// At this point the store is open, so the others are what interrupted
	// switches left.
	for _, other := range others {
		if err := fs.RemoveAll(fs.PathJoin(dir, other)); err != nil {
			h.release()
			return nil, err
		}
	}
	if fresh {
		// A crash before this line leaves a database without a pointer, which
		// the next Open takes for a fresh one and finds empty or complete.
		if err := writePointer(fs, dir, name); err != nil {
			h.release()
			return nil, err
		}
	}
	s.current.Store(h)
	return s, nil
}

// openHandle opens the database in dir. Only a fresh one may be missing, or have
// nothing in it: another is made complete before anything points to it.
func openHandle(fs vfs.FS, dir, name string, fresh bool, opts *Options) (*handle, error) {
	room := &room{}
	db, err := openPebble(fs, dir, fresh, opts, room)
	if err != nil {
		return nil, err
	}
	h := &handle{db: db, room: room, name: name, windows: map[ulid.ULID]*window{}, opts: opts, dir: dir, closed: make(chan struct{})}
	h.refs.Store(1)
	if err := h.load(fresh); err != nil {
		return nil, errors.Join(fmt.Errorf("storage: open %s: %w", dir, err), db.Close())
	}
	h.recent, h.changed = newRecent(h.published.Load().revision), newChanged(h.published.Load().revision)
	h.rows = newRowCache(opts.CacheBytes/rowShare, h.published.Load().revision)
	h.sweeper = startSweeper(h)
	h.sweeper.wake()
	return h, nil
}

func openPebble(fs vfs.FS, dir string, create bool, opts *Options, room *room) (db *pebble.DB, err error) {
	o := pebbleOptions(opts, room)
	disk := &diskFS{FS: fs, opts: opts, room: room}
	o.FS = disk
	o.ErrorIfNotExists = !create
	defer o.Cache.Unref()
	defer func() {
		if err = errors.Join(err, panicked(recover())); err != nil {
			db, err = nil, fmt.Errorf("storage: open %s: %w", dir, err)
		}
	}()
	if !create {
		if err := checkManifest(fs, dir); err != nil {
			return nil, err
		}
	}
	if db, err = pebble.Open(dir, o); err == nil {
		disk.opened.Store(true)
	}
	return db, err
}

// panicked is the error that Pebble panicked with, as it does while it opens a
// database and a file can't be made. Panics over a mistake in the code go on.
func panicked(p any) error {
	if p == nil {
		return nil
	}
	err, ok := p.(error)
	var mistake runtime.Error
	if !ok || errors.As(err, &mistake) {
		panic(p)
	}
	return err
}

// pebbleOptions returns complete options. The caller releases their cache.
func pebbleOptions(opts *Options, room *room) *pebble.Options {
	o := &pebble.Options{
		FS:                          opts.FS,
		Comparer:                    comparer,
		Cache:                       pebble.NewCache(opts.CacheBytes - opts.CacheBytes/rowShare),
		MemTableSize:                opts.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                maxOpenFiles,
		// Writes look at few tables, since applying remembers recent versions, and
		// reads ask each table's filter first. So L0 may have some, and each
		// compaction takes more of them down at once.
		L0CompactionThreshold:     sublevelsCompacted,
		L0CompactionFileThreshold: filesCompacted,
		L0StopWritesThreshold:     sublevelsMost,
		LBaseMaxBytes:             64 << 20,
		// A second compaction at a time where one falls behind.
		CompactionConcurrencyRange: func() (lower, upper int) { return 1, 2 },
		BytesPerSync:               1 << 20,
		BlockPropertyCollectors:    []func() pebble.BlockPropertyCollector{collectCommits},
		FormatMajorVersion:         pebble.FormatTableFormatV6,
		Logger:                     pebbleLogger{opts},
		EventListener:              eventListener(opts, room),
	}
	o.EnsureDefaults()
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = blockBytes
		o.Levels[i].IndexBlockSize = indexBlockBytes
	}
	o.Experimental.EnableValueBlocks = func() bool { return true }
	o.Experimental.SpanPolicyFunc = spacesApart
	return o
}

const (
	// rowShare is the part of the caches' memory that rows take.
	rowShare = 3
	// How many layers of flushed tables there are when compactions begin, when bulk
	// writes wait for them, and when all writes do.
	sublevelsCompacted = 8
	sublevelsBehind    = 14
	sublevelsMost      = 24
	// filesCompacted is how many flushed tables make compactions begin where they are
	// not above each other, so that a reader does not have to look at very many.
	filesCompacted = 150
	// blockBytes is the size of a block before compression: larger ones are written
	// and merged with less work, smaller ones take less of the cache for a record.
	blockBytes = 8 << 10
	// indexBlockBytes lets the index of a table be one block.
	indexBlockBytes = 256 << 10
)

// spacesApart has flushes and compactions end a table where the newest versions, the
// log of changes and the versions begin and end. The log only grows at its end, so
// tables of it alone don't overlap, and stay out of the compactions that merge
// versions of keys. And who looks whether a key exists asks the filters of few small
// tables.
func spacesApart(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	for _, space := range []byte{spaceNewest, spaceChange, spaceVersion} {
		bounds := spaceBounds(space)
		for _, end := range [][]byte{bounds.LowerBound, bounds.UpperBound} {
			if comparer.Compare(start, end) < 0 {
				return pebble.SpanPolicy{}, end, nil
			}
		}
	}
	return pebble.SpanPolicy{}, nil, nil
}

// load checks the format and reads the state.
func (h *handle) load(fresh bool) error {
	format, closer, err := h.db.Get(keyFormat)
	switch {
	case errors.Is(err, pebble.ErrNotFound) && fresh:
		return h.initialise()
	case errors.Is(err, pebble.ErrNotFound):
		return corrupt(keyFormat, "the format is missing")
	case err != nil:
		return err
	}
	err = checkFormat(format)
	if err := errors.Join(err, closer.Close()); err != nil {
		return err
	}
	value, closer, err := h.db.Get(keyState)
	if err != nil {
		return fmt.Errorf("storage: read state: %w", err)
	}
	st, err := decodeState(value)
	if err := errors.Join(err, closer.Close()); err != nil {
		return err
	}
	h.published.Store(&st)

	last, err := lastLease(h.db)
	if err != nil {
		return err
	}
	h.recentLeases = newRecentLeases(last)

	it, err := h.db.NewIter(spaceBounds(spaceEntries))
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		w, err := decodeWindow(it.Key(), value)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		h.windows[ulid.ULID(it.Key()[1:])] = w
	}
	return errors.Join(it.Error(), it.Close())
}

func (h *handle) initialise() error {
	st := emptyState()
	b := h.db.NewBatch()
	defer b.Close()
	if err := errors.Join(
		b.Set(keyFormat, []byte(format), nil),
		b.Set(keyState, appendState(nil, &st), nil),
		b.Commit(pebble.Sync),
	); err != nil {
		return fmt.Errorf("storage: initialise: %w", err)
	}
	h.published.Store(&st)
	h.recentLeases = newRecentLeases(kv.LeaseID{})
	return nil
}

// acquire returns the open database and counts its user, who must release it.
func (s *Store) acquire() (*handle, error) {
	for {
		h := s.current.Load()
		if h == nil {
			return nil, ErrClosed
		}
		for n := h.refs.Load(); n > 0; n = h.refs.Load() {
			if h.refs.CompareAndSwap(n, n+1) {
				return h, nil
			}
		}
		// The handle was let go between the two loads; there is another, or
		// none.
	}
}

// release ends a use. The last one closes the database, after the sweep has
// ended.
func (h *handle) release() {
	if h.refs.Add(-1) > 0 {
		return
	}
	h.sweeper.stop()
	if err := h.db.Close(); err != nil {
		h.opts.Logger.Error("closing the store", "err", err)
	}
	if h.obsolete.Load() {
		if err := h.opts.FS.RemoveAll(h.dir); err != nil {
			// Open removes it at the next start.
			h.opts.Logger.Warn("removing a replaced database", "err", err)
		}
	}
	close(h.closed)
}

// Close closes the store and waits until its last user is gone.
func (s *Store) Close() error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	h := s.current.Swap(nil)
	if h == nil {
		return nil
	}
	h.release()
	<-h.closed
	return nil
}

// Applied returns the index of the last Raft entry that is applied whole.
func (s *Store) Applied() (uint64, error) {
	h, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer h.release()
	return h.published.Load().applied, nil
}

// Sync makes everything that was applied survive a loss of power.
func (s *Store) Sync() error {
	h, err := s.acquire()
	if err != nil {
		return err
	}
	defer h.release()
	return h.db.LogData(nil, pebble.Sync)
}

// Flush makes tables of what is in memtables. It is for an orderly end: the next start
// has nothing to replay then before it can serve. It returns when that is done, or ctx
// ends, as it must where the disk is full and a flush never succeeds. Nothing depends
// on it, for the log of the database has it all.
func (s *Store) Flush(ctx context.Context) error {
	h, err := s.acquire()
	if err != nil {
		return err
	}
	defer h.release()
	flushed, err := h.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("storage: flush: %w", err)
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats are figures of a store. Taking them costs no input or output.
type Stats struct {
	AppliedIndex              uint64
	Revision, Compact         uint64
	Keys, Leases, Idempotency uint64
	Clock, ClockIndex         uint64
	NoSpaceAlarms             uint64
	CorruptAlarms             uint64
	ClusterVersion            uint32
	LastTime                  int64
	// DiskBytes is what the database takes on disk.
	DiskBytes uint64
}

// Stats returns the store's figures as of the last committed batch.
func (s *Store) Stats() (Stats, error) {
	h, err := s.acquire()
	if err != nil {
		return Stats{}, err
	}
	defer h.release()
	st := h.published.Load()
	return Stats{
		AppliedIndex: st.applied, Revision: st.revision, Compact: st.compact, Keys: st.keys, Leases: st.leases,
		Idempotency: st.idempotent, Clock: st.clock, ClockIndex: st.clockIndex, NoSpaceAlarms: st.noSpace,
		CorruptAlarms: st.corrupt, ClusterVersion: uint32(st.clusterVersion), LastTime: st.lastTime,
		DiskBytes: h.db.Metrics().DiskSpaceUsage(),
	}, nil
}

// Revisions returns the newest revision and the compacted one. It is cheap.
func (s *Store) Revisions() (current, compact uint64) {
	h := s.current.Load()
	if h == nil {
		return 0, 0
	}
	st := h.published.Load()
	return st.revision, st.compact
}

// NeedsClock reports whether something in the store ages.
func (s *Store) NeedsClock() (needs bool, clockIndex uint64) {
	h := s.current.Load()
	if h == nil {
		return false, 0
	}
	st := h.published.Load()
	return st.leases+st.idempotent > 0 && st.restoring == 0, st.clockIndex
}

// IdempotencyRecords is the number of remembered answers. It is cheap.
func (s *Store) IdempotencyRecords() uint64 {
	h := s.current.Load()
	if h == nil {
		return 0
	}
	return h.published.Load().idempotent
}

// Remembers reports whether an answer is remembered under an idempotency key, of which
// a repetition gets it. It may be over, and be forgotten a moment later.
func (s *Store) Remembers(principal, key string) (bool, error) {
	h, err := s.acquire()
	if err != nil {
		return false, err
	}
	defer h.release()
	record, err := getCopy(h.db, idempotencyKey(idempotencyScope(principal, key)))
	return record != nil, err
}

// Metrics are Pebble's own account of itself, and how many reads of a key found it in
// the cache of rows, since the store was opened or a snapshot took its place.
type Metrics struct {
	*pebble.Metrics
	RowHits, RowMisses int64
}

// Metrics returns figures for people.
func (s *Store) Metrics() (Metrics, error) {
	h, err := s.acquire()
	if err != nil {
		return Metrics{}, err
	}
	defer h.release()
	m := Metrics{Metrics: h.db.Metrics()}
	m.RowHits, m.RowMisses = h.rows.requests()
	return m, nil
}

// Behind reports that compactions are behind the writes, so far that who has many
// more should wait. Without that the layers of flushed tables pile up until no write
// at all is taken, for as long as one compaction lasts. It gathers all metrics of the
// database, so it is for who is about to write much.
//
// Many layers alone say nothing: where each has a key or two of the next one, as those
// of a log have, they are many, a key is in few of them, and none is compacted.
func (s *Store) Behind() bool {
	m, err := s.Metrics()
	if err != nil || m.Levels[0].Sublevels < sublevelsBehind {
		return false
	}
	return m.Levels[0].FillFactor >= 1 || m.Compact.NumInProgress > 0
}

// format names the layout that doc.go describes.
const format = "cairn-store 1"

// UnknownFormatError says that a data directory was written by a version of
// Cairn that this one does not know.
type UnknownFormatError struct{ Found string }

func (e *UnknownFormatError) Error() string {
	return fmt.Sprintf("storage: the data has format %q, this version of Cairn knows %q; run the version that wrote it", e.Found, format)
}

func checkFormat(found []byte) error {
	if !bytes.Equal(found, []byte(format)) {
		return &UnknownFormatError{Found: string(found)}
	}
	return nil
}

// pointerFile names the directory of the database that is the store.
const pointerFile = "CURRENT"

func databaseName(n int) string { return fmt.Sprintf("db-%06d", n) }

func readPointer(fs vfs.FS, dir string) (string, error) {
	b, err := readFile(fs, fs.PathJoin(dir, pointerFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("storage: read %s: %w", pointerFile, err)
	}
	name := strings.TrimSuffix(string(b), "\n")
	var n int
	if _, err := fmt.Sscanf(name, "db-%06d", &n); err != nil || databaseName(n) != name {
		return "", fmt.Errorf("storage: %s names %q, which is no database; restore the file or replace this member", pointerFile, name)
	}
	return name, nil
}

// writePointer makes name the store. It is the only step of a switch that
// counts: before the rename the old database is the store, after it the new
// one, and the syncs make sure that the new one is there by then.
func writePointer(fs vfs.FS, dir, name string) error {
	tmp := fs.PathJoin(dir, pointerFile+".new")
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(name + "\n"))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(tmp, fs.PathJoin(dir, pointerFile)); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes dir and what is missing above it, and makes that durable: a
// directory that a loss of power takes away takes the store with it.
func makeDir(fs vfs.FS, dir string) error {
	var above []string
	for d := dir; ; {
		if _, err := fs.Stat(d); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		parent := fs.PathDir(d)
		above = append(above, parent)
		if parent == d {
			break
		}
		d = parent
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range above {
		if err := syncDir(fs, d); err != nil {
			return err
		}
	}
	return nil
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b := make([]byte, info.Size())
	if len(b) > 0 {
		_, err = f.ReadAt(b, 0)
	}
	return b, errors.Join(err, f.Close())
}

// otherDatabases returns the databases in dir besides one.
func otherDatabases(fs vfs.FS, dir, but string) (others []string, err error) {
	names, err := fs.List(dir)
	for _, name := range names {
		if strings.HasPrefix(name, "db-") && name != but {
			others = append(others, name)
		}
	}
	return others, err
}
