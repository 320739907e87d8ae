package transport

import (
	"slices"
	"sync/atomic"
	"time"

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
// hello of one that is gone can come late, behind one of its successor, and where a
// directory was copied several may run.
const keptIncarnations = 8

// remembered is what another replica has shown of its log.
type remembered struct {
	index, term atomic.Uint64
	// letIn are the processes that were let in, the newest first. What was shown
	// before the first word of one it had to begin with; what was shown later may be
	// its own.
	letIn []ulid.ULID
	// forgotten is the youngest of those that fell out of it, by their clock.
	forgotten ulid.ULID
}

// compare refuses a process that began before what its member has shown. The caller
// holds the lock of the transport.
func (r *remembered) compare(h *hello) error {
	if slices.Contains(r.letIn, h.incarnation) {
		return nil
	}
	if err := r.rolledBack(h); err != nil && !r.mayHaveBeenIn(h) {
		return err
	}
	// One that is refused is not noted: it can't push out one that was let in. One that is
	// let in for its age is: what it shows from now on is its own, whatever a clock says
	// when it comes again.
	if n := len(r.letIn); n == keptIncarnations {
		if oldest := r.letIn[n-1]; oldest.Compare(r.forgotten) > 0 {
			r.forgotten = oldest
		}
		r.letIn = r.letIn[:n-1]
	}
	r.letIn = append([]ulid.ULID{h.incarnation}, r.letIn...)
	return nil
}

// mayHaveBeenIn reports whether a process may be one that was let in, is not known any
// more, and has shown itself all that is held against it. A clock that was far ahead once
// must not let everybody in from then on.
func (r *remembered) mayHaveBeenIn(h *hello) bool {
	return h.incarnation.Compare(r.forgotten) <= 0 && r.forgotten.Timestamp().Before(time.Now().Add(time.Minute))
}

// rolledBack refuses a process that says that it began before what its member has shown.
func (r *remembered) rolledBack(h *hello) error {
	least := Start{r.index.Load(), r.term.Load()}
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

// sent notes what this replica, as leader, knows of a receiver of messages. Dragonboat
// queues them by address: some may be for a replica that was there before.
func (r *remembered) sent(messages []pb.Message, to uint64) {
	for i := range messages {
		if m := &messages[i]; m.Type == pb.Heartbeat && m.To == to {
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
