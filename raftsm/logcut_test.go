package raftsm

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairnkv/cairn/raftsm/raftlog"
)

// applied is the number of entries since the last cut.
func (l *logCut) applied() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entries
}

// TestLogCut says when a log is cut, and how much stays.
func TestLogCut(t *testing.T) {
	now := time.Now()
	want := func(l *logCut, at time.Time, keep int64, due bool) {
		t.Helper()
		c, ok := l.due(at)
		if c.keep != keep || ok != due {
			t.Errorf("keep %d, due %v; want %d, %v", c.keep, ok, keep, due)
		}
	}
	l := newLogCut(100, raftlog.Length{})
	l.add(99, 1000)
	want(l, now, 0, false)
	l.add(1, 0)
	want(l, now, 50, true)
	want(l, now, 0, false) // what was counted is counted no more
	l.add(10, maxLogBytes)
	want(l, now, 2, true) // so many that a quarter of the bytes stays

	// One that failed is due again.
	l.add(120, 1000)
	c, due := l.due(now)
	if !due {
		t.Fatal("120 of 100 entries are not due")
	}
	l.add(1, 1)
	l.failed(c)
	if l.entries != 121 || l.bytes != 1001 {
		t.Errorf("%d entries and %d bytes are counted", l.entries, l.bytes)
	}

	// Two snapshots on their way hold it, and for a while after the last of them.
	one, two := l.hold(), l.hold()
	want(l, now.Add(time.Hour), 0, false)
	one()
	want(l, now.Add(time.Hour), 0, false)
	two()
	want(l, time.Now(), 0, false)
	want(l, time.Now().Add(leastGrace+time.Second), 50, true)

	// But not for ever.
	defer l.hold()()
	l.add(maxHeldEntries*100, 1)
	want(l, now, 50, true)
	l.add(1000, maxHeldBytes)
	if _, due := l.due(now); !due {
		t.Error("a log of 1 GiB is held")
	}
}

// TestLogIsHeld writes more than the log keeps while a member is away and a
// snapshot is on its way to somebody: the member then catches up from the log. Once
// nothing holds the log it is cut, and the member needs a snapshot.
func TestLogIsHeld(t *testing.T) {
	const cut = 50
	var jumps atomic.Int64
	members := cluster(t, func(i int, m *member) {
		m.cfg.SnapshotEntries = cut
		m.cfg.Callbacks.Jumped = func(uint64) { jumps.Add(1) }
	})
	leader(t, members)
	agree(t, members)
	away, others := members[2], members[:2]
	write := func(value string) {
		away.close(t)
		leader(t, others)
		for i := range 4 * cut {
			others[i%2].mustPut(t, "k", fmt.Sprint(value, i))
		}
	}
	var sent []func()
	for _, m := range others {
		sent = append(sent, m.shard.machine.log.hold())
	}
	write("held")
	away.open(t)
	away.wantValue(t, "k", fmt.Sprint("held", 4*cut-1))
	if jumps.Load() != 0 {
		t.Error("a snapshot was sent, although the log was held")
	}

	for _, end := range sent {
		end()
	}
	write("cut")
	for _, m := range others {
		l := m.shard.machine.log
		eventually(t, "the log is cut", func() bool { return l.applied() < cut })
	}
	away.open(t)
	away.wantValue(t, "k", fmt.Sprint("cut", 4*cut-1))
	if jumps.Load() != 1 {
		t.Errorf("%d snapshots took the place of the state, want 1", jumps.Load())
	}
}

// TestNoRoomForASnapshot: a member whose disk has no room for the snapshot that it needs
// stays behind, keeps nothing of it, and catches up when there is room. The others go on.
func TestNoRoomForASnapshot(t *testing.T) {
	const cut = 50
	members := cluster(t, func(_ int, m *member) { m.cfg.SnapshotEntries = cut })
	leader(t, members)
	agree(t, members)
	away, others := members[2], members[:2]
	away.close(t)
	leader(t, others)
	for i := range 4 * cut {
		others[i%2].mustPut(t, "k", fmt.Sprint(i))
	}
	for _, m := range others {
		l := m.shard.machine.log
		eventually(t, "the log is cut", func() bool { return l.applied() < cut })
	}
	var full atomic.Bool
	var asked atomic.Int64
	full.Store(true)
	away.room = func(bytes uint64) error {
		if asked.Add(1); bytes > 0 && full.Load() {
			return errors.New("full")
		}
		return nil
	}
	away.open(t)
	eventually(t, "two snapshots were refused", func() bool { return asked.Load() >= 2 })
	if revision, _ := away.shard.Store().Revisions(); revision > cut {
		t.Errorf("without room for a snapshot it is at revision %d", revision)
	}
	received, err := filepath.Glob(filepath.Join(away.path, "raft", "*", "*", "*", "*", "*.receiving"))
	must(t, err)
	if len(received) > 0 {
		t.Errorf("there is %q of what was refused", received)
	}
	others[0].mustPut(t, "k", "end")
	full.Store(false)
	eventually(t, "it catches up", func() bool {
		e, found, _, err := away.shard.Store().Get([]byte("k"))
		return err == nil && found && string(e.Value) == "end"
	})
}

// TestLogOfShortLives: a replica that ends before it has written as much as its log may
// hold, again and again, cuts its log all the same.
func TestLogOfShortLives(t *testing.T) {
	const cut = 50
	m := lone(t)
	m.cfg.SnapshotEntries = cut
	for life := range 8 {
		m.open(t)
		for i := range cut / 2 {
			m.mustPut(t, "k", fmt.Sprint(life, "/", i))
		}
		eventually(t, "the log is cut", func() bool { return m.shard.machine.log.applied() < cut })
		applied, err := m.shard.store.Applied()
		must(t, err)
		extent, err := m.shard.host.log.Verify(m.shard.cfg.Shard, m.shard.replica, applied)
		must(t, err)
		if length := extent.Length; length.Entries >= 2*cut || life == 0 && length.Entries < cut/2 || length.Bytes < length.Entries {
			t.Errorf("after %d lives the log has %d entries and %d bytes", life+1, length.Entries, length.Bytes)
		}
		m.close(t)
	}
}
