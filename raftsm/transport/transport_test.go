package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/oklog/ulid/v2"
)

// both runs a test in the clear and with TLS.
func both(t *testing.T, test func(t *testing.T, change func(*Config))) {
	t.Run("clear", func(t *testing.T) { test(t, nil) })
	t.Run("tls", func(t *testing.T) { test(t, withTLS(t)) })
}

// TestMessages sends batches of all sizes, and finds in them what was sent, and
// who sent it.
func TestMessages(t *testing.T) {
	both(t, func(t *testing.T, change func(*Config)) {
		a, b := pair(t, change)
		c := connect(t, a, b)
		var want []pb.Message
		for _, size := range []int{0, 1, 100, pieceBytes, keepBytes, 5 << 20} {
			m := pb.Message{Type: pb.Replicate, From: 1, To: 2, ShardID: 1, Term: 3, LogIndex: uint64(size), LogTerm: min(uint64(size), 2), Commit: 1}
			for i := range 3 {
				m.Entries = append(m.Entries, proposed(uint64(size+i+1), 3, bytes.Repeat([]byte{byte(i + 1)}, size)))
			}
			want = append(want, m)
			must(t, c.SendMessageBatch(batch(m)))
		}
		eventually(t, "all have arrived", func() bool { return b.received() == len(want) })
		for i := range want {
			got := b.messages[i]
			if got.LogIndex != want[i].LogIndex || len(got.Entries) != 3 || !bytes.Equal(got.Entries[2].Cmd, want[i].Entries[2].Cmd) {
				t.Errorf("message %d is not what was sent", i)
			}
		}
		for _, got := range b.batches {
			if got.SourceAddress != a.cfg.Self.Address {
				t.Errorf("the source is %s, not what the handshake said", got.SourceAddress)
			}
		}
		// More messages than a frame may have.
		many := make([]pb.Message, 2*maxMessages+1)
		for i := range many {
			many[i] = heartbeat(1, 2)
		}
		must(t, c.SendMessageBatch(batch(many...)))
		eventually(t, "they came in several frames", func() bool { return b.received() == len(want)+len(many) })
	})
}

func chunk(id uint64, last bool) pb.Chunk {
	c := pb.Chunk{
		ShardID: 1, ReplicaID: 2, From: 1, ChunkId: id, FileChunkId: id, Index: 9, Term: 3, DeploymentId: 7,
		BinVer: raftio.TransportBinVersion, Filepath: "snapshot-0000000000000009.gbsnap", Data: bytes.Repeat([]byte{byte(id)}, 1<<20),
		Membership: pb.Membership{ConfigChangeId: 2, Addresses: map[uint64]string{1: "a:1", 2: "b:1"}},
	}
	if id == 0 {
		copy(c.Data, header(pb.SnapshotHeader{Version: 2}))
	}
	c.ChunkSize = uint64(len(c.Data))
	if last {
		c.ChunkCount, c.FileChunkCount = pb.LastChunkCount, pb.LastChunkCount
	}
	return c
}

// header is what a snapshot begins with, up to behind the checksum.
func header(h pb.SnapshotHeader) []byte {
	encoded := pb.MustMarshal(&h)
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(encoded))), encoded...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(encoded))
}

// TestSnapshot sends a snapshot, whose chunks have all been taken when the last
// one is sent, and one that is refused, of which the sender hears.
func TestSnapshot(t *testing.T) {
	both(t, func(t *testing.T, change func(*Config)) {
		a, b := pair(t, change)
		c, err := a.GetSnapshotConnection(context.Background(), b.cfg.Self.Address)
		must(t, err)
		for i := range uint64(12) {
			must(t, c.SendChunk(chunk(i, i == 11)))
			b.mu.Lock()
			if taken := uint64(len(b.chunks)); taken+windowChunks <= i {
				t.Errorf("chunk %d is sent, and only %d were taken", i, taken)
			}
			b.mu.Unlock()
		}
		c.Close()
		if len(b.chunks) != 12 || !bytes.Equal(b.chunks[7].Data, chunk(7, false).Data) {
			t.Errorf("%d chunks were taken when the last one was sent", len(b.chunks))
		}
		b.mu.Lock()
		b.reject = true
		b.mu.Unlock()
		c, err = a.GetSnapshotConnection(context.Background(), b.cfg.Self.Address)
		must(t, err)
		defer c.Close()
		if err := c.SendChunk(chunk(0, true)); !errors.Is(err, errRejected) {
			t.Errorf("a refused chunk gave %v", err)
		}
	})
}

// TestSnapshotBreaksOff: one whose sender is gone before its last chunk ends with a chunk
// that makes it none. One that is whole does not.
func TestSnapshotBreaksOff(t *testing.T) {
	a, b := pair(t, nil)
	for _, c := range []struct {
		sent int
		last bool
		want int
	}{{0, false, 0}, {1, false, 2}, {3, false, 4}, {3, true, 3}} {
		conn, err := a.GetSnapshotConnection(context.Background(), b.cfg.Self.Address)
		must(t, err)
		for i := range c.sent {
			must(t, conn.SendChunk(chunk(uint64(i), c.last && i == c.sent-1)))
		}
		eventually(t, "the chunks have come", func() bool { return b.taken() == c.sent })
		conn.Close()
		eventually(t, "the end is seen", func() bool { return b.Stats().Inbound["snapshot"] == 0 })
		if got := b.taken(); got != c.want {
			t.Fatalf("after %d chunks, the last one %v, %d were taken, want %d", c.sent, c.last, got, c.want)
		}
		if c.want > c.sent {
			end, first := b.chunks[c.sent], b.chunks[0]
			if !end.IsLastChunk() || end.ChunkId != uint64(c.sent) || !bytes.Equal(end.Data, brokenTail) || end.Index != first.Index || end.From != first.From {
				t.Errorf("it ends with %+v", end)
			}
		}
		b.chunks = nil
	}
}

// TestContextEndsConnections: whoever waits on a connection is let go by the end
// of the context that it was dialled with.
func TestContextEndsConnections(t *testing.T) {
	a, b := pair(t, nil)
	b.mu.Lock() // it takes no chunk
	ctx, cancel := context.WithCancel(context.Background())
	c, err := a.GetSnapshotConnection(ctx, b.cfg.Self.Address)
	must(t, err)
	done := make(chan error)
	go func() { done <- c.SendChunk(chunk(0, true)) }()
	cancel()
	if err := <-done; err == nil {
		t.Error("the chunk was sent")
	}
	c.Close()
	b.mu.Unlock()
}

// TestEndSnapshots: a snapshot to a receiver that takes nothing ends when it is told to,
// and no other begins. What else the members have to say to each other goes on.
func TestEndSnapshots(t *testing.T) {
	both(t, func(t *testing.T, change func(*Config)) {
		a, b := pair(t, change)
		messages := connect(t, a, b)
		b.mu.Lock() // it takes no chunk
		c, err := a.GetSnapshotConnection(context.Background(), b.cfg.Self.Address)
		must(t, err)
		done := make(chan error)
		go func() { done <- c.SendChunk(chunk(0, true)) }()
		a.EndSnapshots()
		if err := <-done; err == nil {
			t.Error("the chunk was sent")
		}
		c.Close()
		b.mu.Unlock()
		if _, err := a.GetSnapshotConnection(context.Background(), b.cfg.Self.Address); !errors.Is(err, errEnding) {
			t.Errorf("another one begins: %v", err)
		}
		must(t, messages.SendMessageBatch(batch(heartbeat(1, 2))))
		eventually(t, "the message has come", func() bool { return b.received() == 1 })
	})
}

// TestHandshakeRefusals: who is not who the cluster knows is refused, on both
// ends, and both say why.
func TestHandshakeRefusals(t *testing.T) {
	other := ulid.Make()
	for _, c := range []struct {
		name string
		// change is done to the second end, members are what the first one knows
		// of it.
		change  func(*Config)
		members func(self Identity) []Member
		reason  Reason
		detail  string
	}{
		{name: "not known yet"},
		{name: "known", members: func(s Identity) []Member { return []Member{{Replica: 2, ID: s.Member, Address: s.Address}} }},
		{name: "known by its address", members: func(s Identity) []Member { return []Member{{Replica: 2, Address: s.Address}} }},
		{
			name: "cluster", change: func(c *Config) { c.Self.Cluster = other },
			reason: ReasonCluster, detail: "belongs to cluster " + other.String(),
		},
		{
			name: "deployment", change: func(c *Config) { c.Self.Deployment = 8 },
			reason: ReasonCluster, detail: "belongs to cluster",
		},
		{
			name: "wiped", members: func(s Identity) []Member { return []Member{{Replica: 2, ID: other, Address: s.Address}} },
			reason: ReasonMember, detail: "replica 2 is member " + other.String(),
		},
		{
			name: "another replica", members: func(s Identity) []Member { return []Member{{Replica: 3, ID: s.Member, Address: "127.0.0.1:1"}} },
			reason: ReasonMember, detail: "is replica 3, not 2",
		},
		{
			name: "moved", members: func(s Identity) []Member { return []Member{{Replica: 2, Address: "127.0.0.1:1"}} },
			reason: ReasonAddress, detail: "replica 2 is at 127.0.0.1:1",
		},
		{
			name: "address of another", members: func(s Identity) []Member { return []Member{{Replica: 3, Address: s.Address}} },
			reason: ReasonAddress, detail: "replica 3 is at",
		},
		{
			name:    "address of one that was removed",
			members: func(s Identity) []Member { return []Member{{Replica: 3, Address: s.Address, Removed: true}} },
		},
		{
			name: "removed", members: func(Identity) []Member { return []Member{{Replica: 2, Removed: true}} },
			reason: ReasonRemoved, detail: "replica 2 was removed",
		},
		{
			name: "same replica", change: func(c *Config) { c.Self.Replica = 1 },
			reason: ReasonMember, detail: "replica 1 is member",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told []string
			a := newEnd(t, 1, nil)
			b := newEnd(t, 2, func(cfg *Config) {
				if c.change != nil {
					c.change(cfg)
				}
				cfg.Refused = func(address string, r *Refusal) { told = append(told, fmt.Sprint(address, " ", r.Reason)) }
			})
			if c.members != nil {
				a.members = c.members(b.cfg.Self)
			}
			a.Join(a, Start{})
			b.Join(b, Start{})
			for _, way := range []struct {
				name     string
				from, to *end
			}{{"in", b, a}, {"out", a, b}} {
				conn, err := way.from.GetConnection(context.Background(), way.to.cfg.Self.Address)
				if c.reason == 0 {
					must(t, err)
					conn.Close()
					continue
				}
				var refusal *Refusal
				if !errors.As(err, &refusal) || refusal.Reason != c.reason {
					t.Errorf("%s: got %v, want %s", way.name, err, c.reason)
				}
			}
			if c.reason == 0 {
				return
			}
			// It answers before it logs.
			eventually(t, fmt.Sprintf("the one who refuses says %s and %q", c.reason, c.detail), func() bool {
				return a.logged.has("reason="+c.reason.String()) && a.logged.has(c.detail)
			})
			if len(told) == 0 || !strings.Contains(told[0], a.cfg.Self.Address) {
				t.Errorf("the one who is refused heard %q", told)
			}
			eventually(t, "both are counted", func() bool {
				return a.Stats().Refused[c.reason.String()] == 1 && a.Stats().Failed[c.reason.String()] == 1
			})
		})
	}
}

// TestAddressOfAnEarlierReplica: a member that was away knows the former owner of an
// address, and not that it was removed. It speaks with the one that is there now, whoever
// dials.
func TestAddressOfAnEarlierReplica(t *testing.T) {
	away, successor := newEnd(t, 2, nil), newEnd(t, 6, nil)
	away.members = []Member{{Replica: 5, ID: ulid.Make(), Address: successor.cfg.Self.Address}}
	away.Join(away, Start{})
	successor.Join(successor, Start{})
	must(t, connect(t, successor, away).SendMessageBatch(batch(heartbeat(6, 2))))
	must(t, connect(t, away, successor).SendMessageBatch(batch(heartbeat(2, 6), heartbeat(2, 5))))
	eventually(t, "both are heard", func() bool { return away.received() == 1 && successor.received() == 1 })
}

// TestWipedBeforeItWasKnown: a member that comes back as another one, before the
// replicated state knew either, is refused by those who have spoken with the
// first one. Its process is not told to end for it.
func TestWipedBeforeItWasKnown(t *testing.T) {
	a := newEnd(t, 1, nil)
	a.Join(a, Start{})
	address := freeAddress(t)
	first := newEnd(t, 2, func(c *Config) { c.Self.Address, c.Listen = address, address })
	first.Join(first, Start{})
	connect(t, first, a).Close()
	must(t, first.Close())
	second := newEnd(t, 2, func(c *Config) { c.Self.Address, c.Listen = address, address })
	second.Join(second, Start{})
	_, err := second.GetConnection(context.Background(), a.cfg.Self.Address)
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Reason != ReasonChanged {
		t.Errorf("got %v", err)
	}
}

// TestNobodyBeforeTheStateIsKnown: while a node starts, members wait at the door
// and are let in when it has.
func TestNobodyBeforeTheStateIsKnown(t *testing.T) {
	a, b := newEnd(t, 1, nil), newEnd(t, 2, nil)
	b.Join(b, Start{})
	done := make(chan error)
	go func() {
		c, err := b.GetConnection(context.Background(), a.cfg.Self.Address)
		if err == nil {
			err = c.SendMessageBatch(batch(heartbeat(2, 1)))
			c.Close()
		}
		done <- err
	}()
	eventually(t, "it waits", func() bool { return a.Stats().Waiting == 1 })
	select {
	case err := <-done:
		t.Fatal("it did not wait", err)
	default:
	}
	a.Join(a, Start{})
	must(t, <-done)
	eventually(t, "it is heard", func() bool { return a.received() == 1 })
}

// TestRestartedPeer: a new process of a member ends the connections of the old
// one.
func TestRestartedPeer(t *testing.T) {
	a, b := pair(t, nil)
	c := connect(t, b, a)
	eventually(t, "it is in", func() bool { return a.Stats().Inbound["messages"] == 1 })
	b.incarnation = ulid.Make()
	connect(t, b, a)
	eventually(t, "the old one is out", func() bool {
		return a.Stats().Inbound["messages"] == 1 && c.(*line).conn.gone.Load()
	})
}

// TestClonedPeer: a second process of a member, elsewhere, is refused by those who
// speak with the first, and put out by those who come to; the first goes on. When it
// has ended, the second is a restart of it.
func TestClonedPeer(t *testing.T) {
	both(t, func(t *testing.T, change func(*Config)) {
		a, b := pair(t, change)
		out := connect(t, a, b)
		clone := newEnd(t, 2, func(c *Config) { c.Self, c.Listen, c.TLS = b.cfg.Self, freeAddress(t), b.cfg.TLS })
		clone.Join(clone, Start{})
		_, err := clone.GetConnection(context.Background(), a.cfg.Self.Address)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Reason != ReasonCloned {
			t.Errorf("the copy got %v", err)
		}
		connect(t, b, a)
		must(t, out.SendMessageBatch(batch(heartbeat(1, 2))))
		eventually(t, "the member is heard and hears", func() bool { return b.received() == 1 && a.Stats().Inbound["messages"] == 1 })

		out.Close()
		got := connect(t, clone, a) // nobody knows better
		again := connect(t, a, b)
		eventually(t, "the copy is out", func() bool { return got.(*line).conn.gone.Load() })

		must(t, b.Close())
		eventually(t, "the end of the member was seen", func() bool { return again.(*line).conn.gone.Load() })
		connect(t, clone, a)
	})
}

// TestCallThatEndsInItsHandshake: a connection whose context ends at the last step of its
// handshake is none, so that the member's next process is not taken for a copy.
func TestCallThatEndsInItsHandshake(t *testing.T) {
	both(t, func(t *testing.T, change func(*Config)) {
		a, b := pair(t, change)
		for range 100 {
			ctx, cancel := context.WithCancel(context.Background())
			a.asked = func() {
				cancel()
				for range 50 { // what ends the connection has its turn
					runtime.Gosched()
				}
			}
			_ = a.Call(ctx, b.cfg.Self.Address) // whether it comes to its end or not
			cancel()
			a.Transport.mu.Lock()
			left := len(a.dialled) + len(a.tlsOpen)
			a.Transport.mu.Unlock()
			// What b has dialled, or is left of an inbound one, is none of these.
			if left > 0 {
				t.Fatalf("%d connections are left of a call that has ended", left)
			}
		}
	})
}

// TestQuarantine: a member in quarantine asks for no votes, is not made a
// candidate, and sends no snapshot.
func TestQuarantine(t *testing.T) {
	a, b := pair(t, nil)
	out, in := connect(t, a, b), connect(t, b, a)
	a.Quarantine(true, false)
	vote := pb.Message{Type: pb.RequestVote, From: 1, To: 2, ShardID: 1, Term: 5}
	pre := pb.Message{Type: pb.RequestPreVote, From: 1, To: 2, ShardID: 1, Term: 5}
	must(t, out.SendMessageBatch(batch(vote, pre)))
	must(t, out.SendMessageBatch(batch(vote, heartbeat(1, 2), pre)))
	eventually(t, "the rest has come", func() bool { return b.received() > 0 })
	if b.received() != 1 || b.messages[0].Type != pb.Heartbeat {
		t.Errorf("these came: %+v", b.messages)
	}
	must(t, in.SendMessageBatch(batch(pb.Message{Type: pb.TimeoutNow, From: 2, To: 1, ShardID: 1}, heartbeat(2, 1))))
	eventually(t, "the rest has come", func() bool { return a.received() > 0 })
	if a.received() != 1 || a.messages[0].Type != pb.Heartbeat {
		t.Errorf("these came: %+v", a.messages)
	}
	a.Quarantine(true, true)
	must(t, out.SendMessageBatch(batch(vote)))
	eventually(t, "as a last resort, it asks", func() bool { return b.received() == 2 })
	if _, err := a.GetSnapshotConnection(context.Background(), b.cfg.Self.Address); !errors.Is(err, errQuarantined) {
		t.Errorf("it may send snapshots: %v", err)
	}
}

// TestRestartOfAPeer sends a message to a peer that was restarted since the last
// one. It arrives; none is lost to the connection that is no more.
func TestRestartOfAPeer(t *testing.T) {
	both(t, func(t *testing.T, change func(*Config)) {
		a, b := pair(t, change)
		c := connect(t, a, b)
		must(t, c.SendMessageBatch(batch(heartbeat(1, 2))))
		eventually(t, "the first one has arrived", func() bool { return b.received() == 1 })
		must(t, b.Close())
		again := newEnd(t, 2, func(cfg *Config) { cfg.Self, cfg.Listen, cfg.TLS = b.cfg.Self, b.cfg.Self.Address, b.cfg.TLS })
		again.Join(again, Start{})
		eventually(t, "its end was seen", func() bool { return c.(*line).conn.gone.Load() })
		if err := c.SendMessageBatch(batch(heartbeat(1, 2))); err == nil {
			t.Error("a connection that has just been made was made again at once")
		}
		c.(*line).made = time.Now().Add(-lineAge)
		must(t, c.SendMessageBatch(batch(heartbeat(1, 2))))
		eventually(t, "the second one has arrived", func() bool { return again.received() == 1 })
	})
}
