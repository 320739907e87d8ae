package transport

import (
	"context"
	"net"
	"slices"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// A line is Dragonboat's connection for messages to one peer. It outlives the
// process at the other end: when that has closed its connection, the next batch goes
// over a new one.
//
// Dragonboat itself would lose that batch, which may be a vote or the word to the
// next leader, and then say nothing to the peer for half a second or more. So two
// restarts one after the other could leave a cluster without a leader for seconds.
type line struct {
	ctx  context.Context // of the connections; it ends with the transport
	conn *outbound
	made time.Time // the latest connection
}

// lineAge is how old a connection must be to be made anew at once. Two processes
// that both claim to be the same member throw each other out; that goes at
// Dragonboat's pace.
const lineAge = time.Second

// SendMessageBatch implements raftio.IConnection. A batch whose connection breaks
// while it is written is sent once more, so a peer can get it twice: Raft's own
// messages may be repeated, and entries that a member passes on to the leader have
// numbers by which the second is known.
func (l *line) SendMessageBatch(batch pb.MessageBatch) error {
	batch.Requests = slices.DeleteFunc(batch.Requests, func(m pb.Message) bool { return m.Type == pb.RateLimit }) // see backlog
	err := net.ErrClosed
	if !l.conn.gone.Load() {
		err = l.conn.sendMessages(batch)
	}
	if err == nil || l.ctx.Err() != nil || time.Since(l.made) < lineAge {
		return err
	}
	l.conn.Close()
	again, err := l.conn.t.dial(l.ctx, l.conn.target, kindMessages)
	if err != nil {
		return err
	}
	l.conn, l.made = again, time.Now()
	return l.conn.sendMessages(batch)
}

// Close implements raftio.IConnection.
func (l *line) Close() { l.conn.Close() }
