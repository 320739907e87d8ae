package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	raft "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/vfs"

	"github.com/cairnkv/cairn/bench/internal/histogram"
	"github.com/cairnkv/cairn/bench/internal/proc"
)

// The floor of bulk writes is what the parts that Cairn is made of do with the same
// bytes when nothing is around them: Dragonboat's log, in which each entry is durable
// before the next, and Pebble, which gets it after that and syncs nothing.

const nameParts = "tan+pebble"

// floorParts are what is measured: either part, and both, one behind the other.
var floorParts = []struct {
	name       string
	log, store bool
}{{"tan", true, false}, {"pebble", false, true}, {nameParts, true, true}}

const (
	// floorBulkKeys is how many keys an entry of the log has: Cairn's has 1 MiB.
	floorBulkKeys = (1 << 20) / (keySize + valueSize + 16)
	// floorAhead is how many entries the log may be ahead of the store.
	floorAhead = 4
)

var floorBulkColumns = []column{
	{name: "keys/s", format: whole, ratio: true},
	{name: "entry p50 ms", format: three},
	{name: "entry p99 ms", format: three},
	{name: "CPU µs/key", format: three, ratio: true},
}

// floorBulk measures the parts, and beside them, in the same rounds, the bulk writes of
// the targets.
func (b *bench) floorBulk(ctx context.Context) *result {
	r := &result{
		profile: profileFloorBulk,
		about:   fmt.Sprintf("new keys: the log and the store that Cairn has, alone, with entries of %d keys, and the targets as in bulk", floorBulkKeys),
		columns: floorBulkColumns,
	}
	var each []func() (sample, error)
	for _, t := range b.targets {
		r.rows = append(r.rows, row{name: t.name})
		each = append(each, func() (sample, error) { return b.targetBulk(ctx, t) })
	}
	for _, parts := range floorParts {
		r.rows = append(r.rows, row{name: parts.name})
		each = append(each, func() (sample, error) {
			return floorBulk(ctx, b.set, b.data, parts.log, parts.store)
		})
	}
	for i := range r.rows {
		r.rows[i].samples = make([]*sample, b.set.Rounds)
	}
	for round := range b.set.Rounds {
		for i := range each {
			i = (i + round) % len(each)
			if ctx.Err() == nil {
				b.take(r, &r.rows[i], round, each[i])
			}
		}
	}
	return r
}

// targetBulk is the usual profile. Its requests have other sizes than the entries of
// the parts, so that only the keys compare; its processor time is the server's.
func (b *bench) targetBulk(ctx context.Context, t target) (sample, error) {
	s, err := measure(ctx, b.set, b.data, t, usualProfile("bulk"))
	if err != nil {
		return s, err
	}
	var picked []float64
	for _, name := range []string{"ops/s", "p50 ms", "p99 ms", "server µs/op"} {
		picked = append(picked, s.values[columnNamed(loadColumns, name)])
	}
	s.values = picked
	return s, nil
}

// columnNamed is where a column is, which must be there.
func columnNamed(columns []column, name string) int {
	for i, c := range columns {
		if c.name == name {
			return i
		}
	}
	panic("there is no column " + name)
}

// floorBulk writes new keys, in the order in which a bulk load has them, through the
// parts: an entry is applied while the next is being made durable.
func floorBulk(ctx context.Context, set settings, data *dataset, log, store bool) (_ sample, err error) {
	dir, err := os.MkdirTemp(set.Dir, "floor-")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := &floorPipeline{data: data, entries: make(chan []int, floorAhead), failed: make(chan error, 1)}
	if log {
		if f.log, err = openFloorLog(filepath.Join(dir, "log")); err != nil {
			return sample{}, err
		}
		defer func() { err = errors.Join(err, f.log.close()) }()
	}
	if store {
		if f.store, err = openFloorStore(filepath.Join(dir, "store")); err != nil {
			return sample{}, err
		}
		defer func() { err = errors.Join(err, f.store.close()) }()
	}
	go f.apply()
	if _, err := f.write(ctx, set.Duration/5); err != nil {
		return sample{}, errors.Join(err, f.end())
	}
	if err := quiet(set.Dir); err != nil {
		return sample{}, errors.Join(err, f.end())
	}
	before, err := proc.OwnCPU()
	if err != nil {
		return sample{}, errors.Join(err, f.end())
	}
	f.latency = histogram.Histogram{}
	began := time.Now()
	keys, err := f.write(ctx, set.Duration)
	if err := errors.Join(err, f.end()); err != nil { // what is on its way counts, as does its time
		return sample{}, err
	}
	elapsed := time.Since(began)
	after, err := proc.OwnCPU()
	if err != nil {
		return sample{}, err
	}
	return sample{values: []float64{
		float64(keys) / elapsed.Seconds(),
		milliseconds(f.latency.Quantile(0.50)),
		milliseconds(f.latency.Quantile(0.99)),
		perOperation(after-before, float64(keys)),
	}}, nil
}

// A floorPipeline is the parts that an entry goes through, of which either may be
// missing.
type floorPipeline struct {
	data    *dataset
	log     *floorLog
	store   *floorStore
	written int // keys
	latency histogram.Histogram
	entries chan []int // to be applied
	failed  chan error // one, when apply has ended
}

// write makes entries durable and hands them over, for so long.
func (f *floorPipeline) write(ctx context.Context, duration time.Duration) (keys int, err error) {
	var entry []byte
	for began := time.Now(); time.Since(began) < duration; keys += floorBulkKeys {
		last := time.Now()
		numbers := make([]int, floorBulkKeys)
		entry = entry[:0]
		for i := range numbers {
			numbers[i] = scatter((f.written+i)%keysMax, keysMax)
			at := len(entry)
			entry = append(entry, make([]byte, keySize+16)...)
			putKey(entry[at:], numbers[i])
			entry = append(entry, f.data.loaded(numbers[i])...)
		}
		f.written += floorBulkKeys
		if f.log != nil {
			if err := f.log.append(entry); err != nil {
				return keys, err
			}
		}
		select {
		case f.entries <- numbers:
		case err := <-f.failed:
			f.failed <- err // end hears of it, too
			return keys, err
		case <-ctx.Done():
			return keys, ctx.Err()
		}
		f.latency.Record(time.Since(last))
	}
	return keys, nil
}

// apply gives entries to the store until there are no more.
func (f *floorPipeline) apply() {
	var err error
	for numbers := range f.entries {
		if f.store == nil || err != nil {
			continue
		}
		if err = f.store.apply(f.data, numbers); err != nil {
			f.failed <- err
		}
	}
	if err == nil {
		f.failed <- nil
	}
}

// end waits until everything that was written is applied.
func (f *floorPipeline) end() error {
	close(f.entries)
	return <-f.failed
}

// floorLog is Dragonboat's log of one replica.
type floorLog struct {
	db    raftio.ILogDB
	index uint64
}

const (
	floorShard   = 1
	floorReplica = 1
	floorWorker  = 1
)

func openFloorLog(dir string) (*floorLog, error) {
	logger.GetLogger("tan").SetLevel(logger.ERROR)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	var host config.NodeHostConfig
	host.Expert.FS = vfs.Default
	host.Expert.LogDB = config.GetTinyMemLogDBConfig()
	db, err := tan.Factory.Create(host, func(config.LogDBInfo) {}, []string{dir}, []string{dir})
	if err != nil {
		return nil, err
	}
	return &floorLog{db: db}, nil
}

// append makes an entry durable.
func (l *floorLog) append(entry []byte) error {
	l.index++
	return l.db.SaveRaftState([]raft.Update{{
		ShardID: floorShard, ReplicaID: floorReplica,
		State:         raft.State{Term: 1, Vote: floorReplica, Commit: l.index - 1},
		EntriesToSave: []raft.Entry{{Term: 1, Index: l.index, Type: raft.EncodedEntry, Cmd: entry}},
	}}, floorWorker)
}

func (l *floorLog) close() error { return l.db.Close() }

// floorStore is Pebble, with what Cairn sets of its options.
type floorStore struct {
	db       *pebble.DB
	revision uint64
}

func openFloorStore(dir string) (*floorStore, error) {
	o := &pebble.Options{
		Cache:                       pebble.NewCache(64 << 20),
		MemTableSize:                16 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               64 << 20,
		BytesPerSync:                1 << 20,
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		Logger:                      floorLogger{},
	}
	defer o.Cache.Unref()
	o.EnsureDefaults()
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 8 << 10
		o.Levels[i].IndexBlockSize = 256 << 10
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, err
	}
	return &floorStore{db: db}, nil
}

// apply writes what a put is in Cairn's store: that the key is there, its version
// with the value, and the change with the value again.
func (s *floorStore) apply(data *dataset, numbers []int) error {
	b := s.db.NewBatch()
	defer b.Close()
	var name [keySize]byte
	var key []byte
	meta := make([]byte, 20)
	for _, number := range numbers {
		s.revision++
		putKey(name[:], number)
		value := data.loaded(number)
		key = append(append(key[:0], 'm'), name[:]...)
		if err := b.Set(key, meta, nil); err != nil {
			return err
		}
		key = append(append(key[:0], 'v'), name[:]...)
		key = binary.BigEndian.AppendUint64(key, ^s.revision)
		if err := setParts(b, key, meta, value); err != nil {
			return err
		}
		key = binary.BigEndian.AppendUint64(append(key[:0], 'r'), s.revision)
		if err := setParts(b, key, meta, name[:], value); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

// setParts sets a key to parts one behind the other.
func setParts(b *pebble.Batch, key []byte, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	op := b.SetDeferred(len(key), size)
	copy(op.Key, key)
	at := 0
	for _, p := range parts {
		at += copy(op.Value[at:], p)
	}
	return op.Finish()
}

func (s *floorStore) close() error { return s.db.Close() }

// floorLogger says what goes wrong and nothing else.
type floorLogger struct{}

func (floorLogger) Infof(string, ...any) {}
func (floorLogger) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: pebble: "+format+"\n", args...)
}
func (floorLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf("pebble: "+format, args...)) }
