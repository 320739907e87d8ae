package raftlog

import (
	"errors"
	"fmt"
	"strings"
)

// The conditions that a caller tells apart with errors.Is.
var (
	// ErrLogTruncated says that the log ends before the place up to which it
	// is known to have been durable. The replica must not be started.
	ErrLogTruncated = errors.New("raftlog: the Raft log is truncated")

	// ErrLogCorrupt says that the log holds something that can't be read back.
	// The replica must not be started.
	ErrLogCorrupt = errors.New("raftlog: the Raft log is corrupt")

	// ErrRecordUnusable says that the record of how far the log was durable is
	// missing or unreadable although there is a log.
	ErrRecordUnusable = errors.New("raftlog: the high-water record is unusable")

	// ErrStateBehind says that the log was cut beyond what the state machine has
	// applied: the state is older than its log, and can't be made whole from it.
	ErrStateBehind = errors.New("raftlog: the state machine is behind the log")

	// ErrEntryCorrupt says that the payload of a Raft entry is not what its
	// proposer sealed.
	ErrEntryCorrupt = errors.New("raftlog: the payload of a Raft entry is corrupt")

	// ErrNotOpen is answered before the NodeHost has opened the log and after
	// it has closed it.
	ErrNotOpen = errors.New("raftlog: the log is not open")
)

// rejoin is what an operator does about a log that can't be trusted.
const rejoin = "don't start this replica again: remove it from the cluster, " +
	"empty its data directory and let it join as a new replica; " +
	"if it is the only replica, restore the newest backup"

// TruncatedError describes a log that has lost its end. It matches
// ErrLogTruncated.
type TruncatedError struct {
	Dir       string // the directory of the log
	Record    string // the file that knows better
	ShardID   uint64
	ReplicaID uint64

	Lost string // what the log lacks: "entries", "term", "vote", "everything"
	Have uint64 // what the log holds, of that
	Want uint64 // what it held before
	From string // who says so: "record" or "state machine"
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("%v: %s of shard %d, replica %d in %s: have %d, but %d according to the %s (%s); %s",
		ErrLogTruncated, e.Lost, e.ShardID, e.ReplicaID, e.Dir, e.Have, e.Want, e.From, e.Record, rejoin)
}

// Is makes errors.Is(err, ErrLogTruncated) true.
func (e *TruncatedError) Is(target error) bool { return target == ErrLogTruncated }

// CorruptError describes a log that can't be read back. It matches
// ErrLogCorrupt.
type CorruptError struct {
	File   string // the file, or the directory where the file isn't known
	Offset int64  // the first byte that is wrong, or -1 where it isn't known
	Reason string
	Err    error // the cause, if there is one
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("%v: %s", ErrLogCorrupt, e.File)
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", e.Offset)
	}
	s += ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	// What the log store says may be several lines long.
	return strings.Join(strings.Fields(s), " ") + "; " + rejoin
}

// Is makes errors.Is(err, ErrLogCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrLogCorrupt }

// Unwrap gives the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// RecordError describes a record file that can't be used. It matches
// ErrRecordUnusable.
type RecordError struct {
	File   string
	Reason string
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("%v: %s: %s; %s", ErrRecordUnusable, e.File, e.Reason, rejoin)
}

// Is makes errors.Is(err, ErrRecordUnusable) true.
func (e *RecordError) Is(target error) bool { return target == ErrRecordUnusable }

// BehindError describes a state machine that is older than the beginning of its
// log. It matches ErrStateBehind.
type BehindError struct {
	Dir       string // the directory of the log
	ShardID   uint64
	ReplicaID uint64
	Applied   uint64 // what the state machine has applied
	Cut       uint64 // what it had applied when the log was cut
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("%v: shard %d, replica %d has applied entry %d, but the log begins after entry %d (%s); %s",
		ErrStateBehind, e.ShardID, e.ReplicaID, e.Applied, e.Cut, e.Dir, rejoin)
}

// Is makes errors.Is(err, ErrStateBehind) true.
func (e *BehindError) Is(target error) bool { return target == ErrStateBehind }

// EntryError describes a Raft entry whose payload is not what was sealed. It
// matches ErrEntryCorrupt.
type EntryError struct {
	Index  uint64 // the entry's index in the Raft log
	Reason string
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("%v: index %d: %s", ErrEntryCorrupt, e.Index, e.Reason)
}

// Is makes errors.Is(err, ErrEntryCorrupt) true.
func (e *EntryError) Is(target error) bool { return target == ErrEntryCorrupt }
