package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

const (
	// windowChunks is how many chunks of a snapshot may be on their way.
	windowChunks = 4
	// ackTimeout is how long the receiver may take to write one.
	ackTimeout = 2 * time.Minute
	ackBytes   = 9
)

var (
	errRejected    = errors.New("the receiver of the snapshot refused a chunk")
	errQuarantined = errors.New("this member is in quarantine and gives its state to nobody")
	errEnding      = errors.New("this member is about to stop and gives its state to nobody")
)

// outbound is a connection that this member made.
type outbound struct {
	t      *Transport
	conn   net.Conn
	raw    net.Conn // below TLS, if conn has that
	kind   kind
	target string
	// peer is who answers there, made when the connection was.
	peer *hello
	log  *remembered // of the peer
	made time.Time
	stop func() bool // ends the watch over the context
	once sync.Once
	buf  []byte

	// gone is set when the other end of a connection for messages has closed it.
	gone atomic.Bool

	unacked int
	acks    frameReader
	next    uint64 // the chunk that is acknowledged next
}

// GetConnection implements raftio.ITransport.
func (t *Transport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	c, err := t.dial(ctx, target, kindMessages)
	if err != nil {
		return nil, err
	}
	return &line{ctx, c, time.Now()}, nil
}

// GetSnapshotConnection implements raftio.ITransport.
func (t *Transport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	if t.quarantined.Load() {
		return nil, errQuarantined
	}
	t.mu.Lock()
	may := t.mayDial(kindSnapshot)
	t.mu.Unlock()
	if !may {
		return nil, errEnding
	}
	c, err := t.dial(ctx, target, kindSnapshot)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Call goes through the handshake with the member at an address, and hangs up. Who is
// refused there hears of it by Config.Refused: a learner, which asks for no votes, may
// have nothing else to say to the others, and they do not tell it when they dial.
func (t *Transport) Call(ctx context.Context, address string) error {
	c, err := t.dial(ctx, address, kindMessages)
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// dial makes a connection and takes it through the handshake.
func (t *Transport) dial(ctx context.Context, target string, k kind) (*outbound, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	if k == kindSnapshot {
		tune(raw, unackedSnapshotTimeout)
	} else {
		tune(raw, unackedTimeout)
	}
	c := &outbound{t: t, conn: raw, raw: raw, kind: k, target: target}
	// The connection ends with the context at any time, whatever it waits for.
	c.stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
	if err := c.greet(ctx, raw); err != nil {
		c.stop()
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r := reasonOf(err)
		t.stats.failed(r.Reason)
		t.log.warn(r.Reason.String(), target, "A peer can't be spoken to.", "address", target, "reason", r.Reason, "detail", r.Detail)
		return nil, fmt.Errorf("speak to the peer at %s: %w", target, err)
	}
	t.stats.outbound(k, 1)
	if k == kindMessages {
		go c.watch() // ends with the connection
	}
	return c, nil
}

// watch waits for the end of a connection for messages, on which nothing else can
// be read. Without it a peer that was restarted would be missed only when the next
// message to it is lost.
func (c *outbound) watch() {
	var b [1]byte
	_, _ = c.conn.Read(b[:])
	c.gone.Store(true)
}

// greet is the dialling end of the handshake.
func (c *outbound) greet(ctx context.Context, raw net.Conn) error {
	t := c.t
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := raw.SetDeadline(deadline); err != nil {
		return err
	}
	conn, verified, err := t.cfg.TLS.client(ctx, raw)
	if err != nil {
		return err
	}
	c.conn = conn
	// Before anything is read: who is another one must not tell this member that it was
	// removed, over which it would end.
	if err := verified.isOf(c.target); err != nil {
		return refuse(ReasonCertificate, "who answers at %s is somebody else: %s", c.target, err)
	}
	if _, err := conn.Write(appendHello(nil, t.self(c.kind, oldestVersion, version))); err != nil {
		return err
	}
	peer, err := readHello(conn)
	var refused *Refusal
	if errors.As(err, &refused) {
		if t.cfg.Refused != nil {
			t.cfg.Refused(c.target, refused)
		}
		return fmt.Errorf("it %w", refused)
	}
	if err != nil {
		return err
	}
	if agree(peer) == 0 || peer.kind != c.kind {
		return refuse(ReasonVersion, "it answers in version %d of the peers' protocol", peer.newest)
	}
	if peer.Address != c.target {
		return refuse(ReasonAddress, "who answers at %s is the member at %s", c.target, peer.Address)
	}
	if err := t.check(ctx, &peer.Identity); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mayDial(c.kind) {
		return net.ErrClosed
	}
	if err := verified.stillGood(); err != nil {
		return err
	}
	// From here on the connection is one that Close ends, so nothing may fail behind it.
	if err := ctx.Err(); err != nil {
		return err
	}
	c.log = t.remember(peer.Replica)
	if err := c.log.compare(peer); err != nil {
		return err
	}
	t.dialled[c] = struct{}{}
	c.peer, c.made = peer, time.Now()
	// Who answers at the member's address is the member.
	for other := range t.open {
		if other.peer.Replica == peer.Replica && other.peer.incarnation != peer.incarnation {
			_ = other.conn.Close() // its goroutine sees the error
		}
	}
	if verified.state != nil {
		t.tlsOpen[conn] = verified
	}
	return nil
}

// Close implements raftio.IConnection and raftio.ISnapshotConnection.
func (c *outbound) Close() {
	c.once.Do(func() {
		c.stop()
		_ = c.conn.Close() // what was acknowledged was, what was not is sent again
		c.t.mu.Lock()
		delete(c.t.dialled, c)
		delete(c.t.tlsOpen, c.conn)
		c.t.mu.Unlock()
		c.t.stats.outbound(c.kind, -1)
	})
}

// sendMessages sends a batch, in as many frames as it needs.
func (c *outbound) sendMessages(batch pb.MessageBatch) error {
	if c.t.quarantined.Load() && !c.t.lastResort.Load() {
		batch.Requests = withoutCandidacy(batch.Requests)
	}
	c.log.sent(batch.Requests, c.peer.Replica)
	for len(batch.Requests) > maxMessages {
		first := batch
		first.Requests = batch.Requests[:maxMessages]
		if err := c.sendBatch(&first); err != nil {
			return err
		}
		batch.Requests = batch.Requests[maxMessages:]
	}
	return c.sendBatch(&batch)
}

func (c *outbound) sendBatch(batch *pb.MessageBatch) error {
	if len(batch.Requests) == 0 {
		return nil
	}
	return c.send(frameMessages, batch.SizeUpperLimit(), batch.MarshalTo)
}

// withoutCandidacy leaves out the messages by which a member becomes the leader.
func withoutCandidacy(messages []pb.Message) []pb.Message {
	kept := make([]pb.Message, 0, len(messages))
	for _, m := range messages {
		if m.Type != pb.RequestVote && m.Type != pb.RequestPreVote {
			kept = append(kept, m)
		}
	}
	return kept
}

// SendChunk implements raftio.ISnapshotConnection. It returns when at most a
// window of chunks is not acknowledged, and with the last chunk when all are.
func (c *outbound) SendChunk(chunk pb.Chunk) error {
	if c.t.quarantined.Load() {
		return errQuarantined
	}
	if err := c.send(frameChunk, chunk.Size(), chunk.MarshalTo); err != nil {
		return err
	}
	c.unacked++
	for c.unacked >= windowChunks || chunk.IsLastChunk() && c.unacked > 0 {
		if err := c.readAck(); err != nil {
			return err
		}
	}
	return nil
}

func (c *outbound) send(t frameType, size int, marshal func([]byte) (int, error)) error {
	b := c.buf
	if cap(b) < frameHeadBytes+size {
		b = make([]byte, frameHeadBytes+size)
	}
	b = b[:frameHeadBytes+size]
	n, err := marshal(b[frameHeadBytes:])
	if err != nil {
		return err
	}
	if n > maxFrameBytes {
		return fmt.Errorf("a message to a peer of %d bytes; the most is %d", n, maxFrameBytes)
	}
	b = b[:frameHeadBytes+n]
	sealFrame(b, t)
	if cap(b) <= keepBytes || t == frameChunk {
		c.buf = b
	} else {
		c.buf = nil
	}
	if err := writeFrame(c.conn, b); err != nil {
		return err
	}
	c.t.stats.sent.Add(uint64(n))
	return nil
}

func appendAck(b []byte, chunk uint64, ok bool) []byte {
	b = append(b, make([]byte, frameHeadBytes)...)
	b = binary.BigEndian.AppendUint64(b, chunk)
	if ok {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	sealFrame(b, frameAck)
	return b
}

func (c *outbound) readAck() error {
	if err := c.conn.SetReadDeadline(time.Now().Add(ackTimeout)); err != nil {
		return err
	}
	c.acks.r, c.acks.want, c.acks.limit = c.conn, frameAck, ackBytes
	b, err := c.acks.next()
	if err != nil {
		return err
	}
	if len(b) != ackBytes || binary.BigEndian.Uint64(b) != c.next || b[8] > 1 {
		return fmt.Errorf("%w: an acknowledgement of another chunk", errFrame)
	}
	if b[8] == 0 {
		return errRejected
	}
	c.next++
	c.unacked--
	return nil
}
