package raftsm

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cairnkv/cairn/raftsm/raftlog"
	"github.com/cairnkv/cairn/storage"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	sm "github.com/lni/dragonboat/v4/statemachine"
)

// goneWriter is a connection whose other side went away.
type goneWriter struct{}

func (goneWriter) Write([]byte) (int, error) { return 0, syscall.ECONNRESET }

// TestSaveSnapshotFails: that the member which gets a snapshot went away ends the
// stream; that the store can't be read ends the process, which is not to try it
// again and again.
func TestSaveSnapshotFails(t *testing.T) {
	var broken atomic.Bool
	disk := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsRead && strings.HasSuffix(op.Path, ".sst") {
			return syscall.EIO
		}
		return nil
	})
	mem := vfs.NewMem()
	open := func() *storage.Store {
		t.Helper()
		s, err := storage.Open("store", storage.Options{FS: errorfs.Wrap(mem, disk), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
		must(t, err)
		return s
	}
	s := open()
	must(t, s.Flush(t.Context())) // the store's own records are in a table then
	must(t, s.Close())

	s = open()
	var told error
	m := &machine{store: s, fatal: func(err error) { told = err }, log: newLogCut(defaultSnapshotEntries, raftlog.Length{})}
	save := func(w io.Writer, bad bool) error {
		t.Helper()
		pinned, err := m.PrepareSnapshot()
		must(t, err)
		broken.Store(bad)
		defer broken.Store(false)
		return m.SaveSnapshot(pinned, w, nil)
	}
	if err := save(goneWriter{}, false); !errors.Is(err, sm.ErrSnapshotStreaming) || told != nil {
		t.Errorf("a member that went away: %v, told %v", err, told)
	}
	if err := save(io.Discard, true); errors.Is(err, sm.ErrSnapshotStreaming) || !errors.Is(told, syscall.EIO) {
		t.Errorf("a broken disk: %v, told %v", err, told)
	}
	must(t, s.Close())
}
