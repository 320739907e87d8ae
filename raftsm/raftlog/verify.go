package raftlog

import (
	"errors"
	"fmt"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// How much of a log is looked at: numbers is where it ends, entries reads
// every entry that a start needs.
type depth int

const (
	numbers depth = iota
	entries
)

// check compares a replica's log with its mark in the record and with what its
// state machine has applied. It gives the mark that the log supports.
func (s *store) check(shardID, replicaID, applied uint64, depth depth) (have mark, err error) {
	// The store panics at some kinds of damage.
	defer func() {
		if p := recover(); p != nil {
			err = s.corrupt(nil, fmt.Sprint("the log store gave up: ", p))
		}
	}()
	id := raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID}
	if err := s.bad[id]; err != nil {
		return mark{}, err
	}
	want, recorded := s.recorder.get(id)
	lost := func(what string, have, want uint64, from string) error {
		return &TruncatedError{
			Dir: s.dir, Record: s.recorder.file.name, ShardID: shardID, ReplicaID: replicaID,
			Lost: what, Have: have, Want: want, From: from,
		}
	}
	switch has, err := s.has(shardID, replicaID); {
	case err != nil:
		return mark{}, err
	case !has:
		// The replica is new here, or everything about it is gone. The store
		// mustn't be asked for more: it would begin a log.
		switch {
		case recorded && want != mark{}:
			return mark{}, lost("everything", 0, want.lastIndex, "record")
		case applied > 0:
			return mark{}, lost("everything", 0, applied, "state machine")
		}
		return mark{}, nil
	}

	have, err = s.read(shardID, replicaID, depth)
	if err != nil {
		return mark{}, err
	}
	switch {
	case have.lastIndex < want.lastIndex:
		return have, lost("entries", have.lastIndex, want.lastIndex, "record")
	case have.lastIndex < applied:
		return have, lost("entries", have.lastIndex, applied, "state machine")
	case have.term < want.term:
		return have, lost("term", have.term, want.term, "record")
	case have.term == want.term && want.vote != 0 && have.vote != want.vote:
		return have, lost("vote", have.vote, want.vote, "record")
	}
	return have, nil
}

// has reports whether the bootstrap record of a replica is there.
func (s *store) has(shardID, replicaID uint64) (has bool, err error) {
	corrupt := func(cause error, reason string) error {
		file := s.fsys.PathJoin(s.dir, tanDir, "bootstrap", fmt.Sprintf("BOOTSTRAP-%d-%d", shardID, replicaID))
		return &CorruptError{File: file, Offset: -1, Reason: reason, Err: cause}
	}
	// The store panics at a record that is whole and makes no sense.
	defer func() {
		if p := recover(); p != nil {
			err = corrupt(nil, fmt.Sprint("the log store gave up: ", p))
		}
	}()
	switch _, err := s.GetBootstrapInfo(shardID, replicaID); {
	case errors.Is(err, raftio.ErrNoBootstrapInfo):
		return false, nil
	case err != nil:
		return false, corrupt(err, "the bootstrap record can't be read")
	}
	return true, nil
}

// reaches reports whether the log, from where it was cut, goes on from what the
// state machine has applied. A snapshot record that came with data fills the
// gap, and is loaded at the start; one that was only made to cut the log has
// none.
func (s *store) reaches(shardID, replicaID, applied uint64) error {
	snapshot, err := s.GetSnapshot(shardID, replicaID)
	if err != nil {
		return s.corrupt(err, "the snapshot record can't be read")
	}
	if snapshot.Dummy && snapshot.OnDiskIndex > applied {
		return &BehindError{Dir: s.dir, ShardID: shardID, ReplicaID: replicaID, Applied: applied, Cut: snapshot.OnDiskIndex}
	}
	return nil
}

// read gives the mark that the log itself supports.
func (s *store) read(shardID, replicaID uint64, depth depth) (mark, error) {
	snapshot, err := s.GetSnapshot(shardID, replicaID)
	if err != nil {
		return mark{}, s.corrupt(err, "the snapshot record can't be read")
	}
	m := mark{lastIndex: snapshot.Index}
	state, err := s.ILogDB.ReadRaftState(shardID, replicaID, snapshot.Index)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		return m, nil
	}
	if err != nil {
		return mark{}, s.corrupt(err, "the term and the vote can't be read")
	}
	m.term, m.vote = state.State.Term, state.State.Vote
	end := state.FirstIndex + state.EntryCount
	if state.EntryCount > 0 {
		m.lastIndex = end - 1
	}
	if depth == numbers {
		return m, nil
	}
	for next := state.FirstIndex; next < end; {
		const page = 4 << 20
		read, _, err := s.ILogDB.IterateEntries([]pb.Entry{}, 0, shardID, replicaID, next, end, page)
		if err != nil {
			return mark{}, s.corrupt(err, fmt.Sprintf("entry %d of shard %d, replica %d, or one soon after it, can't be read", next, shardID, replicaID))
		}
		if len(read) == 0 || read[0].Index != next {
			return mark{}, s.corrupt(nil, fmt.Sprintf("entry %d of shard %d, replica %d is missing, and the log goes on to %d", next, shardID, replicaID, end-1))
		}
		next = read[len(read)-1].Index + 1
	}
	return m, nil
}

func (s *store) corrupt(cause error, reason string) error {
	return &CorruptError{File: s.dir, Offset: -1, Reason: reason, Err: cause}
}
