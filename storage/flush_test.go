package storage

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestFlush: after a flush, tables have everything that was applied, and where the disk
// is full it ends with its context, as the store does after it, and nothing is lost.
func TestFlush(t *testing.T) {
	faults, mem := &faultyTables{}, vfs.NewMem()
	s, err := Open("store", Options{FS: errorfs.Wrap(mem, faults), RetryPause: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	a := &applier{store: s}
	if err := a.apply(putsFrom(1, 20)); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	revision, _ := s.Revisions()
	for at, want := range map[uint64]bool{revision - 1: true, revision: true, revision + 1: false} {
		if flushed, err := b.flushed(at); err != nil || flushed != want {
			t.Errorf("at revision %d: do tables have everything up to %d? %v, %v", revision, at, flushed, err)
		}
	}
	b.Close()

	if err := a.apply(putsFrom(21, 20)); err != nil {
		t.Fatal(err)
	}
	want := mustHash(t, s)
	faults.set(syscall.ENOSPC)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Flush(ctx) }()
	eventually(t, "the flush fails", s.WantsRoom)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a flush without room ended with %v", err)
	}
	closeStore(t, s)
	if err := s.Flush(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a flush of a closed store: %v", err)
	}
	if s, err = Open("store", Options{FS: mem}); err != nil {
		t.Fatal(err)
	}
	if mustHash(t, s) != want {
		t.Error("something was lost")
	}
	closeStore(t, s)
}

// TestBehind: a store whose compactions stand still says so before it takes no writes
// any more, and no longer once they go on.
func TestBehind(t *testing.T) {
	fs := &heldCompactions{vfs.NewMem(), make(chan struct{})}
	s, err := Open("store", Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	a := &applier{store: s}
	layers := 0
	for !s.Behind() {
		if layers++; layers == sublevelsMost {
			t.Fatalf("%d layers were flushed, and the store is not behind", layers)
		}
		// Each layer is above the one before, since both have the same keys.
		if err := a.apply(putsFrom(layers, 1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if layers != sublevelsBehind {
		t.Errorf("the store is behind with %d layers, want %d", layers, sublevelsBehind)
	}
	close(fs.goOn)
	eventually(t, "the compaction ends", func() bool { return !s.Behind() })
	closeStore(t, s)
}

// TestNotBehind: very many layers, each of which has a key of the next one, are not
// what a write would have to wait for: no compaction would make them fewer. Nor do
// they become more and more.
func TestNotBehind(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	most := int32(0)
	for i := range 120 {
		applyTo(t, s, txn(put(fmt.Sprintf("k%03d", i), "v"), put(fmt.Sprintf("k%03d", i+1), "v")))
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		m, err := s.Metrics()
		if err != nil {
			t.Fatal(err)
		}
		if most = max(most, m.Levels[0].Sublevels); m.Levels[0].Sublevels > sublevelsMost {
			eventually(t, "the store is not behind", func() bool { return !s.Behind() })
		}
	}
	if most < sublevelsMost {
		t.Errorf("there were %d layers at the most: too few to show anything", most)
	}
	eventually(t, "the tables are compacted", func() bool {
		m, err := s.Metrics()
		return err == nil && m.Levels[0].TablesCount <= filesCompacted
	})
}

// heldCompactions lets no compaction begin a table before it may go on.
type heldCompactions struct {
	vfs.FS
	goOn chan struct{}
}

func (fs *heldCompactions) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if category == "pebble-compaction" {
		<-fs.goOn
	}
	return fs.FS.Create(name, category)
}
