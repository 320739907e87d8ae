package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/client"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/oklog/ulid/v2"
)

// raw is a connection that has been through the handshake in the clear, as
// replica 2 of the test's cluster, on which a test writes what it likes.
func raw(t testing.TB, to *end, k kind) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", to.cfg.Self.Address)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	h := &hello{oldest: 1, newest: 1, kind: k, incarnation: ulid.ULID{1}, Identity: Identity{
		Cluster: testCluster, Deployment: 7, Replica: 2, Member: ulid.ULID{2}, Address: "127.0.0.1:7",
	}}
	_, err = conn.Write(appendHello(nil, h))
	must(t, err)
	_, err = readHello(conn)
	must(t, err)
	return conn
}

// ended waits until the other end has closed the connection.
func ended(t testing.TB, conn net.Conn) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.Copy(io.Discard, conn)
	if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Fatal("the connection is still open")
	}
}

func frame(t frameType, payload []byte) []byte {
	b := append(make([]byte, frameHeadBytes), payload...)
	sealFrame(b, t)
	return b
}

// TestHostileBytes throws at the port what an enemy may, before and behind the
// handshake. The connection ends, memory stays, and a peer is served meanwhile.
func TestHostileBytes(t *testing.T) {
	a, b := pair(t, nil)
	peer := connect(t, b, a) // as replica 2, too
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	heard := 0
	alive := func() {
		t.Helper()
		heard++
		must(t, peer.SendMessageBatch(batch(heartbeat(2, 1))))
		eventually(t, "the peer is heard", func() bool { return a.received() == heard })
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	good := appendHello(nil, a.self(kindMessages, 1, 1))
	flipped := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		return b
	}
	long := bytes.Clone(good)
	binary.BigEndian.PutUint16(long[helloHeadBytes-2:], math.MaxUint16)
	for range 50 {
		for _, bytes := range [][]byte{
			random(1), random(100), random(100_000), []byte("GET / HTTP/1.1\r\n\r\n"), []byte("\x16\x03\x01\x02\x00\x01"),
			flipped(good), long, append(good[:helloHeadBytes:helloHeadBytes], random(500)...),
			append(sealHello(append([]byte(helloMagic), 200, 201, 0, 0), 0), random(10)...),
		} {
			conn, err := net.Dial("tcp", a.cfg.Self.Address)
			must(t, err)
			_, _ = conn.Write(bytes)
			_ = conn.(*net.TCPConn).CloseWrite() // the other end may have hung up
			ended(t, conn)
			must(t, conn.Close())
		}
	}
	alive()
	eventually(t, "nobody waits", func() bool { return a.Stats().Waiting == 0 })

	// Behind a handshake, one that replaces the peer's connections: the peer
	// makes itself heard again afterwards.
	head := func(t frameType, size uint32) []byte {
		b := frame(t, nil)
		binary.BigEndian.PutUint32(b[4:], size)
		binary.BigEndian.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
		return b
	}
	a.seenAs(2, ulid.ULID{2}, "127.0.0.1:7")
	runtime.ReadMemStats(&before)
	for i, c := range []struct {
		kind  kind
		bytes []byte
	}{
		{kindMessages, random(1000)},
		{kindMessages, head(frameMessages, math.MaxUint32)},
		{kindMessages, head(frameMessages, maxFrameBytes+1)},
		{kindMessages, frame(frameChunk, nil)},
		{kindMessages, frame(frameMessages, random(1000))},
		{kindMessages, flipped(frame(frameMessages, random(1000)))},
		{kindMessages, frame(frameMessages, bytes.Repeat([]byte{0x0a, 0}, maxMessages+1))},
		{kindMessages, frame(frameMessages, smallEntries(1<<20))},
		{kindMessages, frame(frameMessages, snapshotFiles(1, 1<<20))},
		{kindMessages, frame(frameMessages, snapshotFiles(1<<18, 1))},
		{kindMessages, frame(frameMessages, snapshotFiles(1<<18, 0))},
		{kindSnapshot, frame(frameChunk, random(1000))},
		{kindSnapshot, head(frameChunk, 1<<30)},
	} {
		conn := raw(t, a, c.kind)
		_, _ = conn.Write(c.bytes)
		_ = conn.(*net.TCPConn).CloseWrite() // the other end may have hung up
		ended(t, conn)
		eventually(t, fmt.Sprintf("the bytes %d are refused as a frame", i), func() bool {
			return a.Stats().Refused["frame"] == uint64(i+1)
		})
	}
	// The largest frame there may be is announced, and doesn't come.
	conn := raw(t, a, kindMessages)
	_, err := conn.Write(append(head(frameMessages, maxFrameBytes), random(1000)...))
	must(t, err)
	must(t, conn.(*net.TCPConn).CloseWrite())
	ended(t, conn)
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if total := after.TotalAlloc - before.TotalAlloc; total > 48<<20 {
		t.Errorf("%d bytes were allocated for what never came", total)
	}
	if a.received() != heard {
		t.Errorf("a handler was called: %d messages", a.received())
	}
}

// seenAs makes a transport forget who it has seen under a replica id.
func (e *end) seenAs(replica uint64, id ulid.ULID, address string) {
	e.Transport.mu.Lock()
	defer e.Transport.mu.Unlock()
	e.seen[replica] = Member{Replica: replica, ID: id, Address: address}
}

// smallEntries is a batch of one message with entries of one byte.
func smallEntries(n int) []byte {
	message := bytes.Repeat([]byte{11<<3 | 2, 1, 0x7f}, n)
	b := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(message)))
	return append(b, message...)
}

// snapshotFiles is a batch of one message that has snapshots with files of no bytes.
func snapshotFiles(snapshots, files int) []byte {
	snapshot := bytes.Repeat([]byte{7<<3 | 2, 0}, files)
	message := bytes.Repeat(append(binary.AppendUvarint([]byte{12<<3 | 2}, uint64(len(snapshot))), snapshot...), snapshots)
	b := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(message)))
	return append(b, message...)
}

// TestIdleConnections opens more connections than are allowed, says nothing on
// them, and leaves them open. A member gets through all the same, each of them is
// ended in time, and the ones beyond the limit at once.
func TestIdleConnections(t *testing.T) {
	a, b := pair(t, nil)
	var idle []net.Conn
	for range 1000 {
		conn, err := net.Dial("tcp", a.cfg.Self.Address)
		must(t, err)
		defer conn.Close()
		idle = append(idle, conn)
	}
	eventually(t, "all were taken", func() bool { return a.Stats().Refused["limit"] >= 1000-maxWaitingOfHost })
	if n := a.Stats().Waiting; n > maxWaitingOfHost {
		t.Errorf("%d wait", n)
	}
	c := connect(t, b, a)
	must(t, c.SendMessageBatch(batch(heartbeat(2, 1))))
	eventually(t, "the member is heard", func() bool { return a.received() == 1 })
	for _, conn := range idle {
		ended(t, conn)
	}
	eventually(t, "nobody waits", func() bool { return a.Stats().Waiting == 0 })
}

// TestHostileMessages sends, as a member, what no member would. It is dropped,
// one by one, and what is right between them arrives.
func TestHostileMessages(t *testing.T) {
	a, b := pair(t, nil)
	c := connect(t, b, a)
	bad := []pb.Message{
		{}, {Type: pb.Heartbeat, From: 2, ShardID: 1, Term: 5}, {Type: pb.Heartbeat, From: 2, To: 3, ShardID: 1, Term: 5},
		{Type: pb.Heartbeat, From: 3, To: 1, ShardID: 1, Term: 5}, {Type: pb.Heartbeat, From: 2, To: 1, Term: 5},
		{Type: pb.Heartbeat, From: 2, To: 1, ShardID: 2, Term: 5}, // which it does not have
		{Type: pb.Heartbeat, From: 2, To: 1, ShardID: 1, Term: math.MaxUint64},
		{Type: pb.Heartbeat, From: 2, To: 1, ShardID: 1, Term: 5, Commit: math.MaxUint64},
		{Type: pb.Replicate, From: 2, To: 1, ShardID: 1, Term: 1, LogIndex: math.MaxUint64, LogTerm: 1},
		{Type: pb.Replicate, From: 2, To: 1, ShardID: 1, Term: 1, Entries: []pb.Entry{{Index: math.MaxUint64, Term: 1}}},
		{Type: 77, From: 2, To: 1, ShardID: 1, Term: 1}, {Type: -1, From: 2, To: 1, ShardID: 1, Term: 1},
		{Type: pb.LeaderTransfer, From: 2, To: 1, ShardID: 1},
	}
	for of := range wireTypes {
		// Without the term of its sender, or with one where a member has none.
		if m := (pb.Message{Type: pb.MessageType(of), From: 2, To: 1, ShardID: 1, Hint: 1}); wireTypes[of] {
			m.Term = map[bool]uint64{true: 5}[isOfNoTerm(m.Type)]
			bad = append(bad, m)
		}
	}
	for _, local := range []pb.MessageType{
		pb.LocalTick, pb.Election, pb.LeaderHeartbeat, pb.ConfigChangeEvent, pb.SnapshotStatus, pb.Unreachable,
		pb.CheckQuorum, pb.BatchedReadIndex, pb.InstallSnapshot, pb.Quiesce, pb.LogQuery,
	} {
		bad = append(bad, pb.Message{Type: local, From: 2, To: 1, ShardID: 1, Term: 1})
	}
	var mixed []pb.Message
	for _, m := range bad {
		mixed = append(mixed, m, heartbeat(2, 1))
	}
	must(t, c.SendMessageBatch(batch(mixed...)))
	eventually(t, "the good ones came", func() bool { return a.received() >= len(bad) })
	for _, m := range a.messages {
		if m.Type != pb.Heartbeat || m.ShardID != 1 || m.From != 2 || m.To != 1 || m.Term != 5 {
			t.Errorf("this came: %+v", m)
		}
	}
	if n := a.Stats().DroppedMessages; n != uint64(len(bad)) {
		t.Errorf("%d were dropped, want %d", n, len(bad))
	}
}

// TestSnapshotIsConfirmedOnce: of many words in one batch that a snapshot has come, one for
// each shard is handed on.
func TestSnapshotIsConfirmedOnce(t *testing.T) {
	a, b := pair(t, nil)
	a.second.Store(2)
	c := connect(t, b, a)
	var many []pb.Message
	for i := range uint64(1000) {
		many = append(many, pb.Message{Type: pb.SnapshotReceived, From: 2, To: 1, ShardID: 1 + i%2})
	}
	for range 2 {
		must(t, c.SendMessageBatch(batch(append(many, heartbeat(2, 1))...)))
	}
	count := func() (n [3]int, heard int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, m := range a.messages {
			if m.Type == pb.SnapshotReceived {
				n[m.ShardID]++
			} else {
				heard++
			}
		}
		return n, heard
	}
	eventually(t, "both batches have come", func() bool {
		_, heard := count()
		return heard == 2
	})
	if n, _ := count(); n != [3]int{0, 2, 2} {
		t.Errorf("of each shard %v were handed on", n)
	}
}

// TestHostileEntries sends, as a member, entries that no member makes and at which
// Dragonboat panics once they are committed. The messages with them are dropped, and those
// with what members make arrive.
func TestHostileEntries(t *testing.T) {
	a, b := pair(t, nil)
	c := connect(t, b, a)
	change := func(c pb.ConfigChange) pb.Entry {
		return pb.Entry{Type: pb.ConfigChangeEntry, Index: 2, Term: 1, Key: 1, Cmd: pb.MustMarshal(&c)}
	}
	proposal := func(do func(*pb.Entry)) pb.Entry {
		e := proposed(2, 1, []byte("x"))
		do(&e)
		return e
	}
	send := func(entries ...pb.Entry) {
		var all []pb.Message
		for _, e := range entries {
			first := pb.Entry{Index: e.Index - 1, Term: 1}
			all = append(all,
				pb.Message{Type: pb.Propose, From: 2, To: 1, ShardID: 1, Entries: []pb.Entry{first, e}},
				pb.Message{Type: pb.Replicate, From: 2, To: 1, ShardID: 1, Term: 1, Entries: []pb.Entry{first, e}})
		}
		must(t, c.SendMessageBatch(batch(all...)))
	}
	good := []pb.Entry{
		{Index: 2, Term: 1}, proposed(2, 1, nil), proposed(2, 1, []byte("x")),
		change(pb.ConfigChange{Type: pb.AddNode, ReplicaID: 3, Address: "a:1", Initialize: true}),
		change(pb.ConfigChange{Type: pb.AddNonVoting, ReplicaID: 3, Address: "a:1", ConfigChangeId: 7}),
		change(pb.ConfigChange{Type: pb.RemoveNode, ReplicaID: 3, ConfigChangeId: 7}),
	}
	bad := []pb.Entry{
		proposal(func(e *pb.Entry) { e.Key = 0 }),
		proposal(func(e *pb.Entry) { e.ClientID = client.NotSessionManagedClientID }),
		proposal(func(e *pb.Entry) { e.SeriesID = client.SeriesIDForRegister }),
		proposal(func(e *pb.Entry) { e.SeriesID = client.SeriesIDFirstProposal }),
		proposal(func(e *pb.Entry) { e.Cmd = nil }),
		proposal(func(e *pb.Entry) { e.Cmd[0] = 1 }),    // with a session
		proposal(func(e *pb.Entry) { e.Cmd[0] = 2 }),    // compressed
		proposal(func(e *pb.Entry) { e.Cmd[0] = 0x10 }), // of another version
		proposal(func(e *pb.Entry) { e.Type = pb.ApplicationEntry }),
		proposal(func(e *pb.Entry) { e.Type = pb.MetadataEntry }),
		proposal(func(e *pb.Entry) { e.Type = 4 }),
		proposal(func(e *pb.Entry) { e.Type = -1 }),
		{Index: 2, Term: 1, ClientID: 1}, {Index: 2, Term: 1, Cmd: []byte("x")},
		{Type: pb.ConfigChangeEntry, Index: 2, Term: 1, Cmd: []byte{0xff}}, {Type: pb.ConfigChangeEntry, Index: 2, Term: 1},
		change(pb.ConfigChange{Type: pb.AddWitness, ReplicaID: 3, Address: "a:1"}),
		change(pb.ConfigChange{Type: 4, ReplicaID: 3, Address: "a:1"}),
		change(pb.ConfigChange{Type: pb.AddNode, ReplicaID: 3, Address: "a"}),
		change(pb.ConfigChange{Type: pb.AddNonVoting, ReplicaID: 3}),
		change(pb.ConfigChange{Type: pb.RemoveNode}),
	}
	send(bad...)
	send(good...)
	eventually(t, "the good ones came", func() bool { return a.received() >= 2*len(good) })
	for i, m := range a.messages {
		if want := good[i/2]; len(m.Entries) != 2 || !reflect.DeepEqual(m.Entries[1], want) {
			t.Errorf("this came: %+v, want %+v", m.Entries, want)
		}
	}
	if n := a.Stats().DroppedMessages; n != uint64(2*len(bad)) {
		t.Errorf("%d were dropped, want %d", n, 2*len(bad))
	}
}

// TestHostilePieces sends, as a member, entries that are no piece of a log. Dragonboat would
// take those that it finds no fault with, and panic at the hole that they make, or at terms
// that go down.
func TestHostilePieces(t *testing.T) {
	a, b := pair(t, nil)
	c := connect(t, b, a)
	piece := func(index, term uint64, entries ...pb.Entry) pb.Message {
		return pb.Message{Type: pb.Replicate, From: 2, To: 1, ShardID: 1, Term: 5, LogIndex: index, LogTerm: term, Entries: entries}
	}
	entry := func(index, term uint64) pb.Entry { return pb.Entry{Index: index, Term: term} }
	good := []pb.Message{
		piece(0, 0), piece(7, 3), piece(7, 5), piece(0, 0, entry(1, 1)), piece(7, 3, entry(8, 3), entry(9, 5), entry(10, 5)),
	}
	bad := []pb.Message{
		piece(7, 0), piece(0, 3), piece(7, 6), piece(7, 0, entry(8, 3)),
		piece(7, 3, entry(9, 3)), piece(7, 3, entry(7, 3)), piece(7, 3, entry(8, 3), entry(10, 3)), piece(7, 3, entry(8, 3), entry(8, 3)),
		piece(7, 3, entry(8, 2)), piece(7, 3, entry(8, 4), entry(9, 3)), piece(7, 3, entry(8, 6)), piece(0, 0, entry(1, 0)), piece(0, 0, entry(0, 1)),
	}
	must(t, c.SendMessageBatch(batch(append(bad, good...)...)))
	eventually(t, "they came", func() bool { return a.received()+int(a.Stats().DroppedMessages) == len(bad)+len(good) })
	for i, m := range a.messages[:min(len(a.messages), len(good))] {
		if want := good[i]; m.LogIndex != want.LogIndex || m.LogTerm != want.LogTerm || !reflect.DeepEqual(m.Entries, want.Entries) {
			t.Errorf("this came: %+v, want %+v", m, want)
		}
	}
	if n := a.Stats().DroppedMessages; n != uint64(len(bad)) {
		t.Errorf("%d were dropped, want %d", n, len(bad))
	}
}

// TestHostileChunks sends chunks that Dragonboat would panic at, or write where
// they don't belong. None reaches it.
func TestHostileChunks(t *testing.T) {
	a, b := pair(t, nil)
	for name, change := range map[string]func(*pb.Chunk){
		"from":           func(c *pb.Chunk) { c.From = 3 },
		"to":             func(c *pb.Chunk) { c.ReplicaID = 3 },
		"shard":          func(c *pb.Chunk) { c.ShardID = 0 },
		"unknown shard":  func(c *pb.Chunk) { c.ShardID = 2 },
		"deployment":     func(c *pb.Chunk) { c.DeploymentId = 8 },
		"order":          func(c *pb.Chunk) { c.ChunkId, c.FileChunkId = 1, 1 },
		"order of file":  func(c *pb.Chunk) { c.FileChunkId = 1 },
		"files":          func(c *pb.Chunk) { c.HasFileInfo = true },
		"witness":        func(c *pb.Chunk) { c.Witness = true },
		"empty":          func(c *pb.Chunk) { c.Data = nil },
		"no header":      func(c *pb.Chunk) { c.Data = c.Data[:leastFirstChunk-1] },
		"no index":       func(c *pb.Chunk) { c.Index = 0 },
		"index":          func(c *pb.Chunk) { c.Index = math.MaxUint64 },
		"no term":        func(c *pb.Chunk) { c.Term = 0 },
		"term":           func(c *pb.Chunk) { c.Term = math.MaxUint64 },
		"no change":      func(c *pb.Chunk) { c.Membership.ConfigChangeId = 0 },
		"later change":   func(c *pb.Chunk) { c.Membership.ConfigChangeId = c.Index + 1 },
		"no voters":      func(c *pb.Chunk) { c.Membership.Addresses = nil },
		"no address":     func(c *pb.Chunk) { c.Membership.Addresses[3] = "" },
		"no replica":     func(c *pb.Chunk) { c.Membership.Addresses[0] = "c:1" },
		"learner":        func(c *pb.Chunk) { c.Membership.NonVotings = map[uint64]string{3: "c"} },
		"both":           func(c *pb.Chunk) { c.Membership.NonVotings = map[uint64]string{2: "b:1"} },
		"witnesses":      func(c *pb.Chunk) { c.Membership.Witnesses = map[uint64]string{3: "c:1"} },
		"no name":        func(c *pb.Chunk) { c.Filepath = "" },
		"directory":      func(c *pb.Chunk) { c.Filepath = "a/.." },
		"directory only": func(c *pb.Chunk) { c.Filepath = "a/" },
		"zero":           func(c *pb.Chunk) { c.Filepath = "a\x00b" },
		"long name":      func(c *pb.Chunk) { c.Filepath = string(bytes.Repeat([]byte{'a'}, 300)) },
		"another name":   func(c *pb.Chunk) { c.Filepath = "snapshot-000000000000000A.gbsnap" },
		"long header":    func(c *pb.Chunk) { binary.LittleEndian.PutUint64(c.Data, leastFirstChunk-8-4+1) },
		"endless header": func(c *pb.Chunk) { binary.LittleEndian.PutUint64(c.Data, math.MaxUint64) },
		"empty header":   func(c *pb.Chunk) { clear(c.Data) },
		"no protobuf":    func(c *pb.Chunk) { clear(c.Data[copy(c.Data, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0xff}):]) },
		"first version":  func(c *pb.Chunk) { copy(c.Data, header(pb.SnapshotHeader{Version: 1})) },
		"checksum type":  func(c *pb.Chunk) { copy(c.Data, header(pb.SnapshotHeader{Version: 2, ChecksumType: 1})) },
		"compressed":     func(c *pb.Chunk) { copy(c.Data, header(pb.SnapshotHeader{Version: 2, CompressionType: pb.Snappy})) },
		"checksum":       func(c *pb.Chunk) { c.Data[len(header(pb.SnapshotHeader{Version: 2}))-1] ^= 1 },
	} {
		c, err := b.GetSnapshotConnection(context.Background(), a.cfg.Self.Address)
		must(t, err)
		bad := chunk(0, true)
		bad.From, bad.ReplicaID = 2, 1
		change(&bad)
		if err := c.SendChunk(bad); err == nil {
			t.Errorf("%s: it was acknowledged", name)
		}
		c.Close()
	}
	if n := a.taken(); n > 0 {
		t.Fatalf("%d were handed on", n)
	}
	// One that is of another snapshot than the first.
	c, err := b.GetSnapshotConnection(context.Background(), a.cfg.Self.Address)
	must(t, err)
	defer c.Close()
	first, second := chunk(0, false), chunk(1, true)
	first.From, first.ReplicaID, second.From, second.ReplicaID = 2, 1, 2, 1
	second.Index++
	must(t, c.SendChunk(first))
	if err := c.SendChunk(second); err == nil {
		t.Error("chunks of two snapshots were taken for one")
	}
	eventually(t, "what came of the first is dropped", func() bool { return a.taken() == 2 })
	if got := a.chunks[1]; a.chunks[0].ChunkId != 0 || !bytes.Equal(got.Data, brokenTail) || got.Index != first.Index {
		t.Errorf("these chunks were taken: %d and %+v", a.chunks[0].ChunkId, got)
	}
}

// TestSnapshotInAMessage: what members put in the place of the snapshot that a message does
// not have is far below the bound.
func TestSnapshotInAMessage(t *testing.T) {
	none := pb.Snapshot{}
	if n := none.Size(); 2*n > maxNoSnapshot {
		t.Errorf("it has %d bytes", n)
	}
	one := batch(pb.Message{Snapshot: pb.Snapshot{Files: []*pb.SnapshotFile{{}}}})
	b, err := one.Marshal()
	must(t, err)
	if _, err := decodeBatch(b); !errors.Is(err, errFrame) {
		t.Errorf("a message with a file gave %v", err)
	}
	// The same, under a number that is cut to that of the field.
	message := append(binary.AppendUvarint(nil, (1<<32+12)<<3|2), 2, 7<<3|2, 0)
	if _, err := decodeBatch(append([]byte{1<<3 | 2, byte(len(message))}, message...)); !errors.Is(err, errFrame) {
		t.Errorf("a file under another number gave %v", err)
	}
}

func FuzzHello(f *testing.F) {
	h := &hello{oldest: 1, newest: 1, kind: kindMessages, Identity: Identity{Cluster: testCluster, Deployment: 7, Replica: 2, Member: ulid.ULID{2}, Address: "127.0.0.1:7"}}
	f.Add(appendHello(nil, h))
	h.began = &Start{Index: 3, Term: 2}
	f.Add(appendHello(nil, h))
	f.Add(appendRefusal(nil, refuse(ReasonMember, "replica 2 is somebody else")))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		// What is accepted means the same when it is written again.
		again, err := readHello(bytes.NewReader(appendHello(nil, got)))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%+v came back as %+v, %v", got, again, err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	m := batch(heartbeat(2, 1), pb.Message{Type: pb.Replicate, From: 2, To: 1, ShardID: 1, Term: 1, Entries: []pb.Entry{proposed(1, 1, []byte("x"))}})
	b, err := m.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, true)
	c := chunk(0, true)
	c.Data = []byte("data")
	if b, err = c.Marshal(); err != nil {
		f.Fatal(err)
	}
	f.Add(b, false)
	from := &Identity{Deployment: 7, Replica: 2, Address: "127.0.0.1:7"}
	f.Fuzz(func(t *testing.T, payload []byte, messages bool) {
		r := frameReader{r: bytes.NewReader(frame(frameMessages, payload)), want: frameMessages, limit: maxFrameBytes}
		got, err := r.next()
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("a frame came back as %x, %v", got, err)
		}
		if messages {
			batch, err := decodeBatch(payload)
			if err != nil {
				return
			}
			filter(&batch, from, 1, false, func(shard uint64) bool { return shard < 10 })
			for _, m := range batch.Requests {
				if m.From != 2 || m.To != 1 || m.Term > maxNumber || m.ShardID >= 10 || !wireTypes[m.Type] {
					t.Fatalf("this came through: %+v", m)
				}
			}
			return
		}
		chunk, err := decodeChunk(payload)
		if err != nil {
			return
		}
		var order chunkOrder
		if order.check(&chunk, from, 1) == nil && (chunk.From != 2 || chunk.ReplicaID != 1 || chunk.ChunkId != 0) {
			t.Fatalf("this came through: %+v", chunk)
		}
	})
}

// FuzzFrameBytes reads frames from bytes that were never frames.
func FuzzFrameBytes(f *testing.F) {
	f.Add(frame(frameMessages, []byte("abc")))
	f.Add(append(frame(frameMessages, nil), frame(frameMessages, []byte{1})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := frameReader{r: bytes.NewReader(b), want: frameMessages, limit: 1 << 20}
		total := 0
		for {
			got, err := r.next()
			if err != nil {
				break
			}
			total += frameHeadBytes + len(got)
		}
		if total > len(b) || cap(r.buf) > 2*len(b)+growBytes {
			t.Fatalf("%d bytes of frames, and a buffer of %d, from %d bytes", total, cap(r.buf), len(b))
		}
	})
}
