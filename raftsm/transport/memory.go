package transport

import (
	"sync/atomic"

	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/oklog/ulid/v2"
)

// A member whose directory was replaced by an older copy has forgotten entries that
// it acknowledged and votes that it gave. Nothing in the copy shows that. The others
// remember: each process says in its handshake where its log ended and which term it
// knew when it began, and that is compared with what its member has shown before, to
// this process. What is remembered must be what was durable there, or a member that
// lost its power would be taken for one that was rolled back:
//
//   - the commit index of a heartbeat that this replica sent, as leader: not beyond
//     what the receiver has acknowledged, nor beyond what is committed. A Replicate
//     has the latter alone;
//   - the term of a message that is sent after the state was saved. PreVote asks
//     about a term that its sender has not entered, and Replicate is sent before.
//
// It is found by the leader that sent the heartbeats, or by who heard of the term, as
// long as that process lives. Where nobody who remembers is left it is not found.

// Start is where the log of a replica ended, and the newest term in it, when the
// process began. Both are 0 for a new replica.
type Start struct{ Index, Term uint64 }

// keptIncarnations is how many processes of a member are known at the same time. A
// hello of one that is gone can come late, behind one of its successor.
const keptIncarnations = 4

// remembered is what another replica has shown of its log.
type remembered struct {
	index, term atomic.Uint64
	// least has the processes that were seen, the newest first, and from where on
	// each of them must have begun: what was shown before the first word of it.
	least []floor
}

type floor struct {
	incarnation ulid.ULID
	Start
}

// compare refuses a process that began before what its member has shown. The caller
// holds the lock of the transport.
func (r *remembered) compare(h *hello) error {
	least := r.floorOf(h.incarnation)
	switch {
	case h.began == nil: // a version that does not say it
	case h.began.Index < least.Index:
		return refuse(ReasonRolledBack, "the log of replica %d ended at entry %d when it began, and it had acknowledged entry %d: its directory is an older copy, or its disk lost what it had written",
			h.Replica, h.began.Index, least.Index)
	case h.began.Term < least.Term:
		return refuse(ReasonRolledBack, "replica %d knew of term %d when it began, and had been in term %d: its directory is an older copy, or its disk lost what it had written",
			h.Replica, h.began.Term, least.Term)
	}
	return nil
}

// floorOf is from where on a process must have begun. It is settled by what was shown
// before the process was seen first: later, some of it is its own.
func (r *remembered) floorOf(incarnation ulid.ULID) Start {
	for _, f := range r.least {
		if f.incarnation == incarnation {
			return f.Start
		}
	}
	now := floor{incarnation, Start{r.index.Load(), r.term.Load()}}
	r.least = append([]floor{now}, r.least[:min(len(r.least), keptIncarnations-1)]...)
	return now.Start
}

// sent notes what this replica, as leader, knows of the receiver of messages.
func (r *remembered) sent(messages []pb.Message) {
	for i := range messages {
		if m := &messages[i]; m.Type == pb.Heartbeat {
			raise(&r.index, m.Commit)
		}
	}
}

// received notes what the sender of messages has shown.
func (r *remembered) received(messages []pb.Message) {
	for i := range messages {
		switch m := &messages[i]; m.Type {
		case pb.RequestVote, pb.RequestVoteResp, pb.Heartbeat, pb.HeartbeatResp, pb.ReplicateResp:
			raise(&r.term, m.Term)
		}
	}
}

// raise makes a number at least n.
func raise(number *atomic.Uint64, n uint64) {
	for old := number.Load(); old < n; old = number.Load() {
		if number.CompareAndSwap(old, n) {
			return
		}
	}
}

// remember is what is known of a replica's log. The caller holds the lock.
func (t *Transport) remember(replica uint64) *remembered {
	r := t.logs[replica]
	if r == nil {
		r = &remembered{}
		t.logs[replica] = r
	}
	return r
}
