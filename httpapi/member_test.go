package httpapi

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/backup"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/storage"
	"github.com/cairnkv/cairn/watchers"
)

// A member is a Store without a log: a real storage.Store in memory, to which
// commands are applied as they come. It also fails on purpose, which a healthy
// node can't be asked to do.
type member struct {
	mu    sync.Mutex // commands are applied one after the other
	store *storage.Store
	hub   *watchers.Hub
	index uint64

	// proposing and waiting, when set, may fail a call instead of serving it.
	// With afterwards, the command is applied before proposing is asked.
	proposing  func(*kv.Command) error
	afterwards bool
	waiting    func(kv.Consistency) error
	notReady   atomic.Bool
	// full, when set, is what Room says of a transaction.
	full func(bytes int) error
	// behind is what Behind says, asked how often it was called.
	behind atomic.Bool
	asked  atomic.Int64
	// unserved, if set, is why the store's content is not for clients.
	unserved kv.Code
	status   kv.Status

	// untold keeps the hub from hearing of what is applied.
	untold bool
	// failVersions makes a View fail to give versions.
	failVersions atomic.Bool
	// scanning, when set, is called for each entry of a Scan and may fail it.
	scanning func(*kv.Entry) error
	// changed is closed at each commit, and replaced.
	changed chan struct{}
	// followers counts the calls of WaitChange that wait, by the revision after
	// which they do.
	followers map[uint64]int
	// changing, when set, may end a WaitChange.
	changing func() error
	// views counts the views that are open; closed, when set, is told of each
	// that is closed.
	views  atomic.Int64
	closed chan struct{}
}

var (
	testCluster = ulid.MustParse("01KB0000000000000000000000")
	testMember  = ulid.MustParse("01KB0000000000000000000001")
)

func newMember(t testing.TB) *member {
	t.Helper()
	store, err := storage.Open("/member", storage.Options{FS: vfs.NewMem(), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	revision, _ := store.Revisions()
	hub := watchers.NewHub(past{store}, revision)
	t.Cleanup(hub.Close)
	return &member{store: store, hub: hub, changed: make(chan struct{}), followers: map[uint64]int{}, status: kv.Status{
		ClusterID: testCluster, MemberID: testMember, Name: "n1", Replica: 1, Leader: 1, Term: 2,
		QuotaBytes: 16 << 30, DiskBytes: 4096, DiskFreeBytes: 1 << 40, ClusterVersion: kv.Version,
		StartedAt: testStart,
	}}
}

// past is the store's history.
type past struct{ store *storage.Store }

func (p past) View() (watchers.View, error) {
	v, err := p.store.View()
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Propose applies a command. What applying gives passes through the codec, as it
// does on its way through a log.
func (m *member) Propose(_ context.Context, c *kv.Command) (*kv.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proposing != nil && !m.afterwards {
		if err := m.proposing(c); err != nil {
			return nil, err
		}
	}
	decoded, err := kv.DecodeCommand(kv.AppendCommand(nil, c))
	if err != nil {
		return nil, err
	}
	b, err := m.store.NewBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	b.WantEvents = m.hub.Wanted()
	m.index++
	b.BeginEntry(m.index, testMember, m.index)
	result, err := b.Apply(decoded)
	if err != nil {
		return nil, err
	}
	b.EndEntry()
	applied, err := b.Commit()
	if err != nil {
		return nil, err
	}
	close(m.changed)
	m.changed = make(chan struct{})
	if applied.To > applied.From && !m.untold {
		m.hub.Applied(applied.To, applied.Events)
	}
	if m.proposing != nil && m.afterwards {
		if err := m.proposing(c); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (m *member) Wait(_ context.Context, c kv.Consistency) error {
	if m.waiting != nil {
		if err := m.waiting(c); err != nil {
			return err
		}
	}
	if current, _ := m.store.Revisions(); c.MinRevision > current {
		e := kv.Errorf(kv.NotCaughtUp, "revision %d is not applied here", c.MinRevision)
		e.CurrentRevision = current
		return e
	}
	return nil
}

// WaitChange returns after any change.
func (m *member) WaitChange(ctx context.Context, _ kv.Range, after uint64) (uint64, error) {
	if m.changing != nil {
		if err := m.changing(); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	m.followers[after]++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.followers[after]--; m.followers[after] == 0 {
			delete(m.followers, after)
		}
	}()
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		if current, _ := m.store.Revisions(); current > after {
			return current, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// following counts the calls of WaitChange that wait, and have seen the revision.
func (m *member) following(revision uint64) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for after, count := range m.followers {
		if after >= revision {
			n += count
		}
	}
	return n
}

func (m *member) Get(key []byte) (kv.Entry, bool, uint64, error) { return m.store.Get(key) }

func (m *member) View() (View, error) {
	v, err := m.store.View()
	if err != nil {
		return nil, err
	}
	m.views.Add(1)
	return &memberView{v, m}, nil
}

// A memberView is a view that is counted.
type memberView struct {
	*storage.View
	m *member
}

func (v *memberView) Version(key []byte, revision uint64) (kv.Entry, bool, error) {
	if v.m.failVersions.Load() {
		return kv.Entry{}, false, errors.New("the disk is broken")
	}
	return v.View.Version(key, revision)
}

func (v *memberView) Scan(ctx context.Context, q *kv.Query, fn func(*kv.Entry) error) error {
	return v.View.Scan(ctx, q, func(e *kv.Entry) error {
		if v.m.scanning != nil {
			if err := v.m.scanning(e); err != nil {
				return err
			}
		}
		return fn(e)
	})
}

func (v *memberView) Close() {
	v.View.Close()
	v.m.views.Add(-1)
	if v.m.closed != nil {
		v.m.closed <- struct{}{}
	}
}

func (m *member) Revisions() (uint64, uint64) { return m.store.Revisions() }

func (m *member) RevisionAt(unixMillis int64) (uint64, error) {
	v, err := m.store.View()
	if err != nil {
		return 0, err
	}
	defer v.Close()
	return v.RevisionAt(unixMillis)
}

func (m *member) Status() kv.Status {
	s := m.status
	stats, err := m.store.Stats()
	if err != nil {
		return s
	}
	s.AppliedIndex, s.Revision, s.CompactRevision = stats.AppliedIndex, stats.Revision, stats.Compact
	s.Keys, s.Leases, s.IdempotencyRecords = stats.Keys, stats.Leases, stats.Idempotency
	if v, err := m.store.View(); err == nil {
		defer v.Close()
		s.Alarms, _ = v.Alarms()
		s.Members, _ = v.Members()
	}
	return s
}

func (m *member) Ready() error {
	if m.notReady.Load() {
		return kv.Errorf(kv.NoLeader, "no leader is known")
	}
	return nil
}

func (m *member) Room(bytes int) error {
	if m.full == nil {
		return nil
	}
	return m.full(bytes)
}

func (m *member) Behind() bool {
	m.asked.Add(1)
	return m.behind.Load()
}

func (m *member) Serving() error {
	if m.unserved != kv.OK {
		return kv.Errorf(m.unserved, "made to be so")
	}
	return nil
}

func (m *member) Backup() (Backup, error) {
	v, err := m.View()
	if err != nil {
		return nil, err
	}
	return memberBackup{v.(*memberView)}, nil
}

type memberBackup struct{ *memberView }

func (b memberBackup) Save(ctx context.Context, w io.Writer) error {
	_, err := backup.Save(ctx, w, b.memberView, backup.Header{
		ClusterID: testCluster.String(), MemberID: testMember.String(), TakenAt: testStart,
	}, 1)
	return err
}

// testStart is when every test begins.
var testStart = time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)

// A clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// apply proposes a command that no route makes.
// quietly puts n versions of a key of which the hub is not told, as after a
// snapshot.
func (m *member) quietly(t testing.TB, n int) {
	m.untold = true
	for range n {
		m.apply(t, &kv.Command{Kind: kv.KindTxn, Txn: &kv.Txn{Then: []kv.Op{{Type: kv.OpPut, Key: []byte("q"), Value: []byte("v")}}}})
	}
	m.untold = false
}

func (m *member) apply(t testing.TB, c *kv.Command) *kv.Result {
	t.Helper()
	r, err := m.Propose(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != kv.OK {
		t.Fatalf("applying a command: %v", r.Err())
	}
	return r
}
