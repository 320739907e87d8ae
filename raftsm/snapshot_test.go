package raftsm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
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

// link passes bytes between the members and one of them, at whose address it listens, up
// to a number from the others on each connection. There it stops, until it is cut.
type link struct {
	l    net.Listener
	wg   sync.WaitGroup
	over chan struct{} // closed when it is cut
	once sync.Once
	mu   sync.Mutex
	open []net.Conn
}

func newLink(t testing.TB, at, to string, most int64) *link {
	l, err := net.Listen("tcp", at)
	must(t, err)
	k := &link{l: l, over: make(chan struct{})}
	t.Cleanup(k.cut)
	k.wg.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			k.wg.Go(func() { k.pass(from, to, most) })
		}
	})
	return k
}

// holds keeps a connection until the link is cut, which it may be.
func (k *link) holds(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.over:
		_ = c.Close()
		return false
	default:
		k.open = append(k.open, c)
		return true
	}
}

func (k *link) pass(from net.Conn, to string, most int64) {
	defer from.Close()
	in, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer in.Close()
	if !k.holds(from) || !k.holds(in) {
		return
	}
	k.wg.Go(func() {
		_, _ = io.Copy(from, in)
		_ = from.Close()
	})
	if n, _ := io.CopyN(in, from, most); n == most {
		<-k.over
	}
}

func (k *link) cut() {
	k.once.Do(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		close(k.over)
		_ = k.l.Close()
		for _, c := range k.open {
			_ = c.Close()
		}
	})
	k.wg.Wait()
}

// TestBrokenSnapshot: of a snapshot that breaks off with the link, the receiver keeps
// nothing on its disk.
func TestBrokenSnapshot(t *testing.T) {
	members := cluster(t, func(_ int, m *member) { m.cfg.SnapshotEntries = 4 })
	leader(t, members)
	away := members[2]
	away.close(t)
	lead, _ := leader(t, members[:2])
	value := make([]byte, 900_000)
	for i := range 20 {
		_, _ = rand.Read(value)
		lead.mustPut(t, fmt.Sprint("k", i), string(value))
	}
	away.listen = freeAddress(t)
	id, err := ReadIdentity(away.path)
	must(t, err)
	k := newLink(t, id.PeerAddress, away.listen, 5<<20)
	must(t, away.tryOpen())
	arriving := func() []string {
		found, err := filepath.Glob(filepath.Join(away.path, raftDir, "*", "*", "*", "*", "*.receiving"))
		must(t, err)
		return found
	}
	eventually(t, "a snapshot arrives", func() bool { return len(arriving()) > 0 })
	k.cut()
	eventually(t, "nothing is left of it", func() bool { return len(arriving()) == 0 })
	away.close(t)
}
