package watchers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A replica is a real store, in memory, that applies commands and tells a hub
// of them as the log's machine does.
type replica struct {
	t     testing.TB
	store *storage.Store
	hub   *Hub
	index uint64

	mu  sync.Mutex
	log []kv.Event // all that was ever applied, in order
}

type history struct{ *storage.Store }

func (h history) View() (View, error) {
	v, err := h.Store.View()
	if err != nil {
		return nil, err
	}
	return v, nil
}

func newReplica(t testing.TB, l limits) *replica {
	t.Helper()
	store, err := storage.Open("/store", storage.Options{FS: vfs.NewMem(), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	revision, _ := store.Revisions()
	r := &replica{t: t, store: store, hub: newHub(history{store}, revision, l)}
	t.Cleanup(func() {
		r.hub.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// apply applies commands as one batch and tells the hub.
func (r *replica) apply(commands ...*kv.Command) {
	r.t.Helper()
	wanted := r.hub.Wanted()
	applied := r.commit(commands)
	if applied.To == applied.From {
		return
	}
	if !wanted {
		applied.Events = nil
	}
	r.hub.Applied(applied.To, applied.Events)
}

// commit applies commands as one batch, of which the hub is not told.
func (r *replica) commit(commands []*kv.Command) storage.Applied {
	r.t.Helper()
	// A reader may see the commit at once, and then looks at the log.
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := r.store.NewBatch()
	if err != nil {
		r.t.Fatal(err)
	}
	defer b.Close()
	b.WantEvents = true
	r.index++
	b.BeginEntry(r.index, ulid.ULID{1}, r.index)
	for _, c := range commands {
		if _, err := b.Apply(c); err != nil {
			r.t.Fatal(err)
		}
	}
	b.EndEntry()
	applied, err := b.Commit()
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = append(r.log, applied.Events...)
	return applied
}

func (r *replica) revision() uint64 { revision, _ := r.store.Revisions(); return revision }

// committed is the revision when no commit is under way. A view may see the end of
// a commit a moment before the store speaks of it.
func (r *replica) committed() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revision()
}

// watch opens a stream that the test's end closes.
func (r *replica) watch(req Request) *Stream {
	r.t.Helper()
	s, err := r.hub.Watch(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	return s
}

// next returns what a stream hands out next, as text.
func (r *replica) next(s *Stream) string {
	r.t.Helper()
	got, err := s.Next(context.Background(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return text(got)
}

// text writes deliveries down: "7:put a=1,delete b" and a + where more follows.
func text(got []Delivery) string {
	var lines []string
	for i := range got {
		var events []string
		got[i].each(func(e *kv.Event) { events = append(events, eventText(e)) })
		more := ""
		if got[i].More {
			more = "+"
		}
		lines = append(lines, fmt.Sprintf("%d:%s%s", got[i].Revision, strings.Join(events, ","), more))
	}
	return strings.Join(lines, " ")
}

func eventText(e *kv.Event) string {
	if e.Type == kv.EventDelete {
		return fmt.Sprintf("delete %s (%s)", e.Entry.Key, e.Reason)
	}
	if n := len(e.Entry.Value); n > 8 {
		return fmt.Sprintf("put %s=%d bytes", e.Entry.Key, n)
	}
	return fmt.Sprintf("put %s=%s", e.Entry.Key, e.Entry.Value)
}

func put(key, value string) *kv.Command {
	return txn(kv.Op{Type: kv.OpPut, Key: []byte(key), Value: []byte(value)})
}

func del(key string) *kv.Command {
	return txn(kv.Op{Type: kv.OpDelete, Range: kv.SingleKey([]byte(key))})
}

func txn(ops ...kv.Op) *kv.Command { return &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: ops}} }

func compact(revision uint64) *kv.Command {
	return &kv.Command{Kind: kv.KindCompact, Compact: revision}
}

func key(k string) kv.Range    { return kv.SingleKey([]byte(k)) }
func prefix(p string) kv.Range { return kv.Prefix([]byte(p)) }

func isCompacted(err error) bool {
	var e *kv.Error
	return errors.As(err, &e) && e.Code == kv.Compacted
}

// each calls fn for each event that concerns the stream.
func (d *Delivery) each(fn func(*kv.Event)) {
	if d.Subset == nil {
		for i := range d.Events {
			fn(&d.Events[i])
		}
		return
	}
	for _, i := range d.Subset {
		fn(&d.Events[i])
	}
}
