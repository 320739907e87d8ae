package raftsm

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/cairnkv/cairn/storage"
	sm "github.com/lni/dragonboat/v4/statemachine"
)

// goneWriter is a connection whose other side went away.
type goneWriter struct{}

func (goneWriter) Write([]byte) (int, error) { return 0, syscall.ECONNRESET }

// TestSaveSnapshotFails: that the member which gets a snapshot went away ends the
// stream; that the store can't be read ends the process, which is not to try it
// again and again.
func TestSaveSnapshotFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	open := func() *storage.Store {
		t.Helper()
		s, err := storage.Open(dir, storage.Options{CacheBytes: 1 << 20, MemTableBytes: 1 << 20, Fatal: func(error) {}})
		must(t, err)
		return s
	}
	s := open()
	must(t, s.Flush(t.Context())) // the store's own records are in a table then
	must(t, s.Close())

	s = open()
	var told error
	m := &machine{store: s, fatal: func(err error) { told = err }, log: newLogCut(defaultSnapshotEntries, raftlog.Length{})}
	pinned, err := m.PrepareSnapshot()
	must(t, err)
	if err := m.SaveSnapshot(pinned, goneWriter{}, nil); !errors.Is(err, sm.ErrSnapshotStreaming) || told != nil {
		t.Errorf("a member that went away: %v, told %v", err, told)
	}

	must(t, s.Close())
	s = open() // with nothing in its caches
	m.store = s
	pinned, err = m.PrepareSnapshot()
	must(t, err)
	tables, err := filepath.Glob(filepath.Join(dir, "db-*", "*.sst"))
	must(t, err)
	for _, table := range tables {
		must(t, os.Truncate(table, 0))
	}
	if err := m.SaveSnapshot(pinned, io.Discard, nil); len(tables) == 0 || errors.Is(err, sm.ErrSnapshotStreaming) || told == nil {
		t.Errorf("a broken disk with %d tables: %v, told %v", len(tables), err, told)
	}
	_ = s.Close() // as it may, with such a disk
}
