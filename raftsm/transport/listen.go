package transport

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

const (
	// maxWaiting bounds the connections that have not shown who they are, and
	// maxWaitingOfHost those of one address. The oldest makes room: a member is
	// through the door within milliseconds, who only holds the door isn't.
	maxWaiting       = 256
	maxWaitingOfHost = 32
	// maxOpenOfReplica bounds the connections of one member. Dragonboat has four
	// for messages, and one for each snapshot that is under way.
	maxOpenOfReplica = 32
	// acceptPause is how long accepting rests when the process has no more file
	// descriptors.
	acceptPause = 50 * time.Millisecond
)

// waitingRoom holds the connections that have not shown who they are.
type waitingRoom struct {
	mu     sync.Mutex
	all    list.List // of *waiting, oldest first
	hosts  map[string]int
	closed bool
}

type waiting struct {
	conn net.Conn
	host string
}

func newWaitingRoom() *waitingRoom { return &waitingRoom{hosts: map[string]int{}} }

// enter lets a connection in, for which an older one may have to leave.
func (r *waitingRoom) enter(conn net.Conn) (leave func(), evicted int) {
	host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = conn.Close()
		return func() {}, 0
	}
	if r.hosts[host] >= maxWaitingOfHost {
		evicted += r.evict(host)
	}
	if r.all.Len() >= maxWaiting {
		evicted += r.evict("")
	}
	e := r.all.PushBack(&waiting{conn, host})
	r.hosts[host]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.remove(e)
	}, evicted
}

// evict closes the oldest connection, of a host if that is given.
func (r *waitingRoom) evict(host string) int {
	for e := r.all.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*waiting); host == "" || w.host == host {
			_ = w.conn.Close() // its goroutine sees the error
			r.remove(e)
			return 1
		}
	}
	return 0
}

// remove takes a connection out, unless that was done already.
func (r *waitingRoom) remove(e *list.Element) {
	w, ok := e.Value.(*waiting)
	if !ok {
		return
	}
	r.all.Remove(e)
	e.Value = nil
	if r.hosts[w.host]--; r.hosts[w.host] == 0 {
		delete(r.hosts, w.host)
	}
}

func (r *waitingRoom) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for r.evict("") > 0 {
	}
}

func (r *waitingRoom) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.Len()
}

// accept takes connections until the transport is closed. It survives whatever
// accepting fails with.
func (t *Transport) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			if t.closed() {
				return
			}
			t.log.warn("accept", "", "Accepting a peer's connection failed.", "err", err)
			select {
			case <-t.closing:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		leave, evicted := t.waiting.enter(conn)
		if evicted > 0 {
			t.stats.refused(ReasonLimit, evicted)
		}
		t.wg.Add(1)
		go func() {
			defer t.wg.Done()
			t.serve(conn, leave)
		}()
	}
}

// inbound is a connection that another member made.
type inbound struct {
	conn net.Conn
	peer *hello
	log  *remembered // of the peer
}

// serve takes a connection through the handshake and receives on it.
func (t *Transport) serve(raw net.Conn, leave func()) {
	defer raw.Close()
	remote := raw.RemoteAddr().String()
	c, err := t.welcome(raw)
	leave()
	if err != nil {
		if !t.closed() {
			r := reasonOf(err)
			t.stats.refused(r.Reason, 1)
			t.log.warn(r.Reason.String(), hostOf(remote), "Refused a connection to the peer port.", "reason", r.Reason, "from", remote, "detail", r.Detail)
		}
		return
	}
	defer t.forget(c)
	t.stats.inbound(c.peer.kind, 1)
	defer t.stats.inbound(c.peer.kind, -1)
	if c.peer.kind == kindMessages {
		err = t.receiveMessages(c)
	} else {
		err = t.receiveSnapshot(c)
	}
	if errors.Is(err, errFrame) {
		t.stats.refused(ReasonFrame, 1)
		t.log.warn("frame", hostOf(remote), "A peer's connection was closed over what came on it.", "replica", c.peer.Replica, "from", remote, "err", err)
	}
}

// welcome is the accepting end of the handshake.
func (t *Transport) welcome(raw net.Conn) (*inbound, error) {
	tune(raw, unackedTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, err
	}
	conn, verified, err := t.cfg.TLS.server(ctx, raw)
	if err != nil {
		return nil, err
	}
	peer, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	// Who waits for this node to start is let in at the last moment that leaves
	// time for the answer.
	checked, cancelCheck := context.WithTimeout(ctx, handshakeTimeout*3/4)
	defer cancelCheck()
	v := agree(peer)
	if v == 0 {
		err = refuse(ReasonVersion, "it speaks versions %d to %d of the peers' protocol, this member %d to %d", peer.oldest, peer.newest, oldestVersion, version)
	} else if err = verified.mustBe(&peer.Identity); err == nil {
		err = t.check(checked, &peer.Identity)
	}
	c := &inbound{conn: conn, peer: peer}
	if err == nil {
		err = t.admit(c, verified)
	}
	if err != nil {
		// The other end is a member, or would like to be one: it is told.
		_, _ = conn.Write(appendRefusal(nil, reasonOf(err)))
		return nil, err
	}
	if _, err := conn.Write(appendHello(nil, t.self(peer.kind, v, v))); err != nil {
		t.forget(c)
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.forget(c)
		return nil, err
	}
	if peer.kind == kindSnapshot {
		tune(raw, unackedSnapshotTimeout)
	}
	return c, nil
}

// askAgain is how old a connection with a member is made anew when another process
// of that member comes: the first may have ended without a word.
const askAgain = 30 * time.Second

// admit takes a connection among those that have shown who they are. Connections
// of an earlier process of the same member are over, unless that one still answers
// at the member's address: then the directory was copied, and two processes would
// vote as one. One whose log ends before what its member has shown is refused.
func (t *Transport) admit(c *inbound, verified verifiedTLS) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed() {
		return refuse(ReasonStarting, "the member is about to stop")
	}
	if err := verified.stillGood(); err != nil {
		return err
	}
	for d := range t.dialled {
		if d.peer.Replica != c.peer.Replica || d.peer.incarnation == c.peer.incarnation || d.gone.Load() {
			continue
		}
		if time.Since(d.made) > askAgain {
			_ = d.conn.Close()
		}
		return refuse(ReasonCloned, "another process of this member answers at %s; one of the two has a copy of the other's directory", d.target)
	}
	c.log = t.remember(c.peer.Replica)
	if err := c.log.compare(c.peer); err != nil {
		return err
	}
	n := 0
	for other := range t.open {
		switch {
		case other.peer.Replica != c.peer.Replica:
		case other.peer.incarnation != c.peer.incarnation:
			_ = other.conn.Close() // its goroutine sees the error
		default:
			n++
		}
	}
	if n >= maxOpenOfReplica {
		return refuse(ReasonLimit, "replica %d has %d connections already", c.peer.Replica, n)
	}
	t.open[c] = struct{}{}
	if verified.state != nil {
		t.tlsOpen[c.conn] = verified
	}
	return nil
}

func (t *Transport) forget(c *inbound) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
	delete(t.tlsOpen, c.conn)
}

// frames makes the reader of a connection's frames.
func (c *inbound) frames(want frameType, limit int) *frameReader {
	return &frameReader{r: c.conn, want: want, limit: limit, progress: func(within bool) {
		limit := idleTimeout
		if within {
			limit = pieceTimeout
		}
		_ = c.conn.SetReadDeadline(time.Now().Add(limit)) // a closed connection fails the read
	}}
}

func (t *Transport) receiveMessages(c *inbound) error {
	frames := c.frames(frameMessages, maxFrameBytes)
	for {
		b, err := frames.next()
		if err != nil {
			return err
		}
		t.stats.received.Add(uint64(len(b)))
		batch, err := decodeBatch(b)
		if err != nil {
			return err
		}
		if n := filter(&batch, &c.peer.Identity, t.cfg.Self.Replica, t.quarantined.Load(), t.counts); n > 0 {
			t.stats.dropped.Add(uint64(n))
			t.log.warn("dropped", hostOf(c.peer.Address), "Dropped messages that this member must not receive.", "replica", c.peer.Replica, "messages", n)
		}
		if n := t.takeEntries(&batch); n > 0 {
			t.stats.postponed.Add(uint64(n))
			t.log.warn("backlog", hostOf(c.peer.Address), "This member applies more slowly than entries come. Some are not taken, and will be sent again.", "messages", n)
		}
		c.log.received(batch.Requests)
		if len(batch.Requests) > 0 {
			t.handleBatch(batch)
		}
	}
}

// receiveSnapshot receives the chunks of one snapshot. Of one that breaks off nothing is
// kept: the next try is of another index, and a link that breaks each minute would fill
// the disk before Dragonboat looks after what was left lying, which is a quarter of an hour.
func (t *Transport) receiveSnapshot(c *inbound) error {
	var order chunkOrder
	whole, err := t.receiveChunks(c, &order)
	if !whole && order.next > 0 && t.cluster.HasShard(order.first.ShardID) {
		t.keepChunk(order.ending())
	}
	return err
}

// keepChunk hands a chunk to Dragonboat, which writes it, or takes away what is there where
// it is the end of one that broke off. It panics where the disk does not let it.
func (t *Transport) keepChunk(c pb.Chunk) (kept bool) {
	defer func() {
		failure := recover()
		if failure == nil {
			return
		}
		err, ok := failure.(error)
		if _, mistake := failure.(runtime.Error); mistake || !ok || t.cfg.Fatal == nil {
			panic(failure)
		}
		t.cfg.Fatal(fmt.Errorf("receive a snapshot: %w", err))
		panic(failure) // it should not have returned
	}()
	return t.handleChunk(c)
}

// mayKeep says why a chunk is not wanted: there is no room for it, or, with the last one, for
// the state that is made of it; or the replica is not behind it any more, when Raft would
// leave the snapshot lying.
func (t *Transport) mayKeep(c *pb.Chunk, received uint64) error {
	wanted := uint64(len(c.Data)) // and not what it says of itself
	if c.IsLastChunk() {
		if applied := t.cluster.Applied(c.ShardID); applied >= c.Index {
			return fmt.Errorf("a snapshot of entry %d came when entry %d was applied", c.Index, applied)
		}
		wanted += received
	}
	return t.cluster.Room(wanted)
}

// receiveChunks receives chunks and acknowledges each once it is written. It reports
// whether all of them came.
func (t *Transport) receiveChunks(c *inbound, order *chunkOrder) (whole bool, err error) {
	frames := c.frames(frameChunk, maxChunkBytes+64<<10)
	received := uint64(0)
	for {
		b, err := frames.next()
		if err != nil {
			return false, err
		}
		t.stats.received.Add(uint64(len(b)))
		chunk, err := decodeChunk(b)
		if err == nil {
			err = order.check(&chunk, &c.peer.Identity, t.cfg.Self.Replica)
		}
		if err != nil {
			return false, err
		}
		received += uint64(len(b))
		ok := t.cluster.HasShard(chunk.ShardID)
		if ok {
			if err := t.mayKeep(&chunk, received); err != nil {
				t.log.warn("snapshot", hostOf(c.peer.Address), "A snapshot is not taken.", "err", err)
				ok = false
				order.next-- // its end comes in the place of this one
			}
		}
		ok = ok && t.keepChunk(chunk)
		whole = ok && chunk.IsLastChunk()
		if err := writeFrame(c.conn, appendAck(nil, chunk.ChunkId, ok)); err != nil {
			return whole, err
		}
		if !ok {
			return false, errRejected
		}
		if whole {
			// The sender hangs up once it has read the acknowledgement.
			if _, err := frames.next(); !errors.Is(err, io.EOF) {
				return whole, err
			}
			return whole, nil
		}
	}
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// tune makes TCP notice a peer that vanished: what is sent is acknowledged within a time,
// and where nothing is, the peer is asked.
func tune(conn net.Conn, unacked time.Duration) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		// What can't be set is not needed for the connection to work.
		_ = tcp.SetKeepAliveConfig(keepAlive)
		boundUnacked(tcp, unacked)
	}
}
