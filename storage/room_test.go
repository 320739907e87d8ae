package storage

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// faultyTables fails each write of a table with an error, while there is one:
// the logs and the manifest have room longer, since they use files again.
type faultyTables struct {
	err      atomic.Pointer[error]
	failures atomic.Int64
}

func (f *faultyTables) MaybeError(op errorfs.Op) error {
	err := f.err.Load()
	if err == nil || !strings.HasSuffix(op.Path, ".sst") || op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	f.failures.Add(1)
	return *err
}

func (f *faultyTables) String() string { return "faulty tables" }

func (f *faultyTables) set(err error) {
	if err == nil {
		f.err.Store(nil)
		return
	}
	f.err.Store(&err)
}

// eventually waits until something holds.
var eventually = testkit.Eventually

// putsFrom makes n entries, from an index on, that put 4,000 bytes each.
func putsFrom(index, n int) (log []logEntry) {
	for i := index; i < index+n; i++ {
		c := &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: fmt.Append(nil, "k", i), Value: make([]byte, 4000)}}}}
		log = append(log, logEntry{index: uint64(i), incarnation: kv.LeaseID{1}, seq: uint64(i), commands: [][]byte{kv.AppendCommand(nil, c)}})
	}
	return log
}

// A full disk stops flushes. The store says so, paces itself, serves what it
// has, and goes on by itself when there is room, with nothing lost.
func TestFullDiskPasses(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		faults := &faultyTables{}
		mem := vfs.NewMem()
		pauses := make(chan struct{})
		opts := Options{
			FS: errorfs.Wrap(mem, faults), MemTableBytes: 256 << 10,
			Fatal:      func(err error) { t.Errorf("the store gave up: %v", err) },
			RetryPause: func() { <-pauses },
		}
		s, err := Open("store", opts)
		if err != nil {
			t.Fatal(err)
		}
		// Some 8 KiB each: a put is in the change log, too.
		log := putsFrom(1, 20)
		a := &applier{store: s}
		if err := a.apply(log); err != nil {
			t.Fatal(err)
		}
		faults.set(errno)
		// What fills a memtable makes a flush fail; there is room for more in
		// memory.
		log = append(log, putsFrom(21, 30)...)
		if err := a.apply(log); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the store wants room", s.WantsRoom)
		// Not without a pause: each try fails at its table.
		pauses <- struct{}{}
		failed := faults.failures.Load()
		pauses <- struct{}{}
		if tried := faults.failures.Load() - failed; tried > 10 {
			t.Errorf("%d failures between two pauses", tried)
		}
		for _, k := range []string{"k1", "k50"} {
			if _, found, _, err := s.Get([]byte(k)); err != nil || !found {
				t.Errorf("%s: %v, %v", k, found, err)
			}
		}
		if err := s.Sync(); err != nil {
			t.Error(err)
		}
		faults.set(nil)
		close(pauses)
		eventually(t, "the store goes on by itself", func() bool { return !s.WantsRoom() })
		log = append(log, putsFrom(51, 200)...)
		if err := a.apply(log); err != nil {
			t.Fatal(err)
		}
		want := mustHash(t, s)
		closeStore(t, s)
		if s, err = Open("store", Options{FS: mem}); err != nil {
			t.Fatal(err)
		}
		if applied, err := s.Applied(); err != nil || applied != 250 {
			t.Errorf("%d applied, %v", applied, err)
		}
		if mustHash(t, s) != want {
			t.Error("something was lost")
		}
		closeStore(t, s)
	}
}

// A broken disk ends the process, with what it said.
func TestBrokenDiskIsFatal(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.EROFS} {
		faults := &faultyTables{}
		fatal := make(chan error, 1)
		var once sync.Once
		s, err := Open("store", Options{
			FS: errorfs.Wrap(vfs.NewMem(), faults), MemTableBytes: 64 << 10,
			Fatal: func(err error) {
				once.Do(func() { fatal <- err })
				faults.set(nil) // the process would have ended
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		faults.set(errno)
		if err := (&applier{store: s}).apply(putsFrom(1, 40)); err != nil {
			t.Fatal(err)
		}
		if err := <-fatal; !errors.Is(err, errno) || !strings.Contains(err.Error(), "background work") {
			t.Errorf("got %v", err)
		}
		closeStore(t, s)
	}
}
