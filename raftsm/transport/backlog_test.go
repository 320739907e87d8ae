package transport

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/lni/dragonboat/v4/config"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// largeEntries are n entries of 1 MiB from an index on.
func largeEntries(first uint64, n int) (entries []pb.Entry) {
	command := make([]byte, 1<<20)
	for i := range n {
		entries = append(entries, proposed(first+uint64(i), 1, command))
	}
	return entries
}

func TestBacklog(t *testing.T) {
	var l backlog
	const full = maxBacklogBytes>>20 + 1
	if !l.take(largeEntries(1, full), 0) {
		t.Fatal("the first entries are refused")
	}
	if l.take(largeEntries(full+1, 1), full-1) {
		t.Error("more is taken while nothing of what came first is behind it")
	}
	if !l.take(nil, 0) {
		t.Error("a message without entries is refused")
	}
	if !l.take(largeEntries(full+1, 1), full) {
		t.Error("what is applied counts still")
	}
	// What comes again, or in the place of what came, is not counted twice: else what was
	// never taken over would keep all others out.
	l = backlog{}
	l.take(largeEntries(100, full), 0)
	if !l.take(largeEntries(1, full), 0) {
		t.Error("what lies before all that came is refused")
	}
}

// TestBacklogOfSmallEntries: messages of one small entry each are few arrivals, and are
// counted as long as they are not applied.
func TestBacklogOfSmallEntries(t *testing.T) {
	var l backlog
	const count, size = 20_000, 1000
	each := entryOverhead + len(proposed(1, 1, make([]byte, size)).Cmd)
	for i := range uint64(count) {
		// Now and then one comes once more.
		for range 1 + i%2 {
			if !l.take([]pb.Entry{proposed(i+1, 1, make([]byte, size))}, 0) {
				t.Fatalf("entry %d is refused", i+1)
			}
		}
	}
	if most := 2*l.bytes/arrivalBytes + 1; l.bytes != count*each*3/2 || len(l.come) > most {
		t.Errorf("%d bytes in %d arrivals, want %d in %d at most", l.bytes, len(l.come), count*each*3/2, most)
	}
	l.take([]pb.Entry{proposed(count+1, 1, nil)}, count/2)
	if left := count * each * 3 / 4; l.bytes < left || l.bytes > left+arrivalBytes {
		t.Errorf("%d bytes wait, want %d and one arrival at most", l.bytes, left)
	}
	l.take([]pb.Entry{proposed(count+2, 1, nil)}, count+1)
	if len(l.come) != 1 {
		t.Errorf("all but one is applied, and %d arrivals are counted", len(l.come))
	}
}

// TestBacklogIsPostponed has a member that applies nothing receive more than it may hold:
// entries are left out, and all else that its leader says arrives.
func TestBacklogIsPostponed(t *testing.T) {
	a, b := pair(t, nil)
	c := connect(t, a, b)
	const full = maxBacklogBytes >> 20 // and what entries take besides
	replicate := func(index uint64) pb.Message {
		return pb.Message{
			Type: pb.Replicate, From: 1, To: 2, ShardID: 1, Term: 1,
			LogIndex: index - 1, LogTerm: min(index-1, 1), Entries: largeEntries(index, 1),
		}
	}
	for i := range uint64(full + 1) {
		must(t, c.SendMessageBatch(batch(replicate(i+1))))
	}
	// Dragonboat's word that a member has too much is not passed on.
	must(t, c.SendMessageBatch(batch(pb.Message{Type: pb.RateLimit, From: 1, To: 2, ShardID: 1, Term: 1, Hint: 1 << 40}, heartbeat(1, 2))))
	eventually(t, "the heartbeat has come", func() bool { return b.received() == full+2 })
	entries := func() (n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, m := range b.messages {
			n += len(m.Entries)
		}
		return n
	}
	b.mu.Lock()
	limits := slices.ContainsFunc(b.messages, func(m pb.Message) bool { return m.Type == pb.RateLimit })
	b.mu.Unlock()
	if s := b.Stats(); limits || entries() != full || s.PostponedMessages != 1 || s.DroppedMessages != 0 {
		t.Errorf("a limit arrived: %v; %d entries; %d messages were postponed, %d dropped; want %d, and one postponed", limits, entries(), s.PostponedMessages, s.DroppedMessages, full)
	}
	// What comes once more was perhaps never taken over: it is counted once.
	must(t, c.SendMessageBatch(batch(replicate(full))))
	eventually(t, "it is taken", func() bool { return entries() == full+1 })
	b.applied.Store(full)
	must(t, c.SendMessageBatch(batch(replicate(full+1))))
	eventually(t, "entries are taken again", func() bool { return entries() == full+2 })
}

// TestProposalsArePostponed has a leader whose log has more than it has applied, which takes
// no more of what others have it propose, and all else.
func TestProposalsArePostponed(t *testing.T) {
	a, b := pair(t, nil)
	c := connect(t, a, b)
	propose := pb.Message{Type: pb.Propose, From: 1, To: 2, ShardID: 1, Entries: []pb.Entry{proposed(0, 0, []byte("x"))}}
	came := 0
	want := func(proposals int, postponed uint64) {
		t.Helper()
		must(t, c.SendMessageBatch(batch(propose, heartbeat(1, 2))))
		came += proposals + 1
		eventually(t, "the heartbeat has come", func() bool { return b.received() >= came })
		if s := b.Stats(); b.received() != came || s.PostponedMessages != postponed || s.DroppedMessages != 0 {
			t.Errorf("%d messages came, %d were postponed, %d dropped; want %d, and %d postponed", b.received(), s.PostponedMessages, s.DroppedMessages, came, postponed)
		}
	}
	const full = maxBacklogBytes >> 20 // and what entries take besides
	b.Logged(&pb.Update{ShardID: 1, EntriesToSave: largeEntries(1, full-1)})
	want(1, 0)
	b.Logged(&pb.Update{ShardID: 1, EntriesToSave: largeEntries(full, 1)})
	want(0, 1)
	b.Logged(&pb.Update{ShardID: 1, EntriesToSave: largeEntries(full, 1)}) // in the place of the last one
	want(0, 2)
	b.applied.Store(full - 1)
	want(1, 2)
	b.Logged(&pb.Update{ShardID: 1, EntriesToSave: nil})
	want(1, 2)
}

// TestBacklogOfEachShard: each shard has indexes of its own, so what one has received, or
// logged, neither keeps those of another out nor takes their place.
func TestBacklogOfEachShard(t *testing.T) {
	_, b := pair(t, nil)
	b.second.Store(2)
	want := func(without int, of pb.MessageType, shard uint64, entries []pb.Entry) {
		t.Helper()
		m := batch(pb.Message{Type: of, ShardID: shard, Entries: entries})
		if n := b.takeEntries(&m); n != without {
			t.Errorf("%v for shard %d: %d are left out, want %d", of, shard, n, without)
		}
	}
	const full = maxBacklogBytes>>20 + 1
	many, next := largeEntries(1, full), largeEntries(full+1, 1)
	few := []pb.Entry{proposed(1, 1, nil)}
	want(0, pb.Replicate, 1, many)
	want(1, pb.Replicate, 1, next)
	want(0, pb.Replicate, 2, few)
	want(1, pb.Replicate, 1, next)
	b.Logged(&pb.Update{ShardID: 1, EntriesToSave: many})
	b.Logged(&pb.Update{ShardID: 2, EntriesToSave: few})
	want(1, pb.Propose, 1, few)
	want(0, pb.Propose, 2, few)
	want(0, pb.Replicate, 3, few)
	want(0, pb.Propose, 3, few)
	if _, known := b.backlogs.Load(uint64(3)); known {
		t.Error("a shard that this node does not have is remembered")
	}
	b.second.Store(0) // its replica is ending, and may still take what comes
	want(0, pb.Replicate, 2, many)
	want(1, pb.Replicate, 2, next)
}

// TestSnapshotWithoutRoom: one for which there is no room is refused, and so is the last
// chunk where there is none for the state that is made of it, or where the replica has
// come beyond it meanwhile. Of what was taken nothing is kept.
func TestSnapshotWithoutRoom(t *testing.T) {
	for name, c := range map[string]struct {
		room, applied uint64
		taken         int // with the end that takes all away
		says          uint64
	}{
		"no room":               {1 << 10, 0, 0, 1 << 20},
		"no room, says nothing": {1 << 10, 0, 0, 0},
		"no room for the state": {3 << 20, 0, 5, 1 << 20},
		"out of date":           {0, 9, 5, 1 << 20},
		"room, and new":         {0, 8, 5, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, nil)
			b.room.Store(c.room)
			b.applied.Store(c.applied)
			conn, err := a.GetSnapshotConnection(context.Background(), b.cfg.Self.Address)
			must(t, err)
			for i := range uint64(5) {
				next := chunk(i, i == 4)
				next.ChunkSize = c.says
				if err = conn.SendChunk(next); err != nil {
					break
				}
			}
			conn.Close()
			if whole := name == "room, and new"; whole != (err == nil) {
				t.Errorf("sending ended with %v", err)
			}
			eventually(t, "the end is seen", func() bool { return b.Stats().Inbound["snapshot"] == 0 })
			if got := b.taken(); got != c.taken {
				t.Errorf("%d chunks were taken, want %d", got, c.taken)
			}
		})
	}
}

// TestBrokenDiskUnderASnapshot: where Dragonboat can't keep or take away what arrives, the
// process is ended, with a reason.
func TestBrokenDiskUnderASnapshot(t *testing.T) {
	ended := make(chan error, 1)
	tr := New(Config{Fatal: func(err error) {
		ended <- err
		panic(err) // it does not return
	}})
	tr.Factory().Create(config.NodeHostConfig{}, nil, func(pb.Chunk) bool { panic(error(syscall.EIO)) })
	defer func() {
		if recover() == nil {
			t.Error("it goes on")
		}
		if err := <-ended; !errors.Is(err, syscall.EIO) {
			t.Errorf("ended with %v", err)
		}
	}()
	tr.keepChunk(chunk(0, false))
}
