package raftlog

import (
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// mark is how far the log of one replica is durable. The zero mark claims
// nothing.
type mark struct {
	lastIndex uint64 // the newest entry, or the snapshot that stands for it
	term      uint64 // the newest term that the replica has seen
	vote      uint64 // the replica that it voted for in that term, 0 for none
}

// after gives the mark once u is durable.
func (m mark) after(u *pb.Update) mark {
	if !pb.IsEmptySnapshot(u.Snapshot) {
		m.lastIndex = u.Snapshot.Index
	}
	if n := len(u.EntriesToSave); n > 0 {
		m.lastIndex = u.EntriesToSave[n-1].Index
	}
	// The commit index in a State is saved, but not synced, by the store.
	if !pb.IsEmptyState(u.State) {
		m.term, m.vote = u.Term, u.Vote
	}
	return m
}

// held limits the claim of a recorded mark to what the log still holds when
// its newest entry becomes m.lastIndex. A new leader may have taken back
// entries that were never committed.
func (recorded mark) held(m mark) mark {
	recorded.lastIndex = min(recorded.lastIndex, m.lastIndex)
	return recorded
}

// marks has one mark a replica.
type marks map[raftio.NodeInfo]mark
