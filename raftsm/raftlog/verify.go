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

// Extent is what a start finds of a log: the index of its last entry, or of the
// snapshot that stands for it, the newest term that the replica has been in, and how
// much there is of it.
type Extent struct {
	LastIndex, Term uint64
	Length          Length
}

// Length is how much of a log lies behind the snapshot that cut it last and was
// applied.
type Length struct{ Entries, Bytes int64 }

// check compares a replica's log with its mark in the record and with what its
// state machine has applied. It gives the mark that the log supports, and, if it
// looks at the entries, how many it has.
func (s *store) check(shardID, replicaID, applied uint64, depth depth) (have mark, length Length, err error) {
	// The store panics at some kinds of damage.
	defer func() {
		if p := recover(); p != nil {
			err = s.corrupt(nil, fmt.Sprint("the log store gave up: ", p))
		}
	}()
	id := raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID}
	if err := s.bad[id]; err != nil {
		return mark{}, Length{}, err
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
		return mark{}, Length{}, err
	case !has:
		// The replica is new here, or everything about it is gone. The store
		// mustn't be asked for more: it would begin a log.
		switch {
		case recorded && want != mark{}:
			return mark{}, Length{}, lost("everything", 0, want.lastIndex, "record")
		case applied > 0:
			return mark{}, Length{}, lost("everything", 0, applied, "state machine")
		}
		return mark{}, Length{}, nil
	}

	have, length, err = s.read(shardID, replicaID, applied, depth)
	if err != nil {
		return mark{}, Length{}, err
	}
	switch {
	case have.lastIndex < want.lastIndex:
		return have, length, lost("entries", have.lastIndex, want.lastIndex, "record")
	case have.lastIndex < applied:
		return have, length, lost("entries", have.lastIndex, applied, "state machine")
	case have.term < want.term:
		return have, length, lost("term", have.term, want.term, "record")
	case have.term == want.term && want.vote != 0 && have.vote != want.vote:
		return have, length, lost("vote", have.vote, want.vote, "record")
	}
	return have, length, nil
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

// read gives the mark that the log itself supports, and its length.
func (s *store) read(shardID, replicaID, applied uint64, depth depth) (m mark, length Length, err error) {
	snapshot, err := s.GetSnapshot(shardID, replicaID)
	if err != nil {
		return mark{}, Length{}, s.corrupt(err, "the snapshot record can't be read")
	}
	m.lastIndex = snapshot.Index
	state, err := s.ILogDB.ReadRaftState(shardID, replicaID, snapshot.Index)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		return m, length, nil
	}
	if err != nil {
		return mark{}, Length{}, s.corrupt(err, "the term and the vote can't be read")
	}
	m.term, m.vote = state.State.Term, state.State.Vote
	end := state.FirstIndex + state.EntryCount
	if state.EntryCount > 0 {
		m.lastIndex = end - 1
	}
	if depth == numbers {
		return m, length, nil
	}
	for next := state.FirstIndex; next < end; {
		const page = 4 << 20
		read, _, err := s.ILogDB.IterateEntries([]pb.Entry{}, 0, shardID, replicaID, next, end, page)
		if err != nil {
			return mark{}, Length{}, s.corrupt(err, fmt.Sprintf("entry %d of shard %d, replica %d, or one soon after it, can't be read", next, shardID, replicaID))
		}
		if len(read) == 0 || read[0].Index != next {
			return mark{}, Length{}, s.corrupt(nil, fmt.Sprintf("entry %d of shard %d, replica %d is missing, and the log goes on to %d", next, shardID, replicaID, end-1))
		}
		next = read[len(read)-1].Index + 1
		for i := range read {
			if read[i].Index > applied {
				break
			}
			length.Entries++
			length.Bytes += int64(len(read[i].Cmd))
		}
	}
	return m, length, nil
}

func (s *store) corrupt(cause error, reason string) error {
	return &CorruptError{File: s.dir, Offset: -1, Reason: reason, Err: cause}
}
