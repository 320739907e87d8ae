package kv

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// Status is what one node knows of itself and of its cluster at a moment. It
// takes no round through the log.
type Status struct {
	// ClusterID and MemberID are ULIDs; Replica is the Raft replica id.
	ClusterID, MemberID ulid.ULID
	Name                string
	Replica             uint64
	// Leader is the replica id of the leader as this node believes, 0 if it
	// knows none.
	Leader uint64
	Term   uint64
	// AppliedIndex is the log index of the newest command in the state.
	AppliedIndex                     uint64
	Revision, CompactRevision        uint64
	Keys, Leases, IdempotencyRecords uint64
	ClockMillis                      uint64
	// DiskBytes is what the store takes on disk, QuotaBytes what it may take,
	// DiskFreeBytes what the file system has left.
	DiskBytes, QuotaBytes, DiskFreeBytes uint64
	// ClusterVersion is the lowest Version that a member announced.
	ClusterVersion uint32
	Members        []Member
	Alarms         []Alarm
	// InTouch says that linearizable rounds succeed: the member has caught up with the
	// leader and is part of a majority, whether it serves or not.
	InTouch bool
	// LastLinearizable is when the last completed linearizable round began;
	// zero if none has.
	LastLinearizable time.Time
	StartedAt        time.Time
}
