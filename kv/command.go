package kv

import "github.com/oklog/ulid/v2"

// Kind says what a command does. Numbers are part of the log's format.
type Kind uint8

const (
	// KindTxn reads and writes keys: puts, deletes, increments and whole
	// transactions are all one of these.
	KindTxn Kind = 1
	// KindCompact forgets the versions that no read at or after a revision
	// needs.
	KindCompact Kind = 2
	// KindClock advances the replicated clock.
	KindClock Kind = 3
	// KindLeaseGrant, KindLeaseRenew, KindLeaseRevoke and KindLeaseExpire are
	// the life of a lease.
	KindLeaseGrant  Kind = 4
	KindLeaseRenew  Kind = 5
	KindLeaseRevoke Kind = 6
	KindLeaseExpire Kind = 7
	// KindAlarm raises or clears a member's alarm.
	KindAlarm Kind = 8
	// KindMember records what a member says of itself, its version included;
	// the lowest of them is the cluster's.
	KindMember Kind = 9
	// KindLeaseRequeue queues leases by the deadlines that their renewals gave
	// them, so that they are no longer found by an earlier one.
	KindLeaseRequeue Kind = 10
	// KindRestore fills an empty store from a backup, step by step.
	KindRestore Kind = 11
	// KindScrub begins a step of the comparison of what the members have stored,
	// KindScrubbed is what one of them found in it.
	KindScrub    Kind = 12
	KindScrubbed Kind = 13
	// KindMembership adds, admits, promotes and removes members, step by step.
	KindMembership Kind = 14
	kindEnd        Kind = 15
)

// Version is the version of the command set that this binary speaks. A member
// announces it with KindMember; a kind or a flag newer than the cluster's
// version is not proposed.
const Version uint32 = 1

// Command is one replicated operation with everything that applying it may
// look at besides the replicated state.
type Command struct {
	Kind Kind
	// Principal is the caller, or empty; AuthRevision the revision of the
	// rules under which the caller was let in.
	Principal    string
	AuthRevision uint64
	// Time is the proposer's wall clock, in milliseconds since the epoch.
	Time int64
	// IdempotencyKey, when not empty, makes a repetition of the command give
	// the first answer. Fingerprint tells a repetition from another request
	// that uses the same key.
	IdempotencyKey string
	Fingerprint    [16]byte

	// Exactly the field that belongs to Kind is set.
	Txn        *Txn
	Compact    uint64
	Clock      Clock
	Lease      Lease
	Renew      []LeaseID // of KindLeaseRequeue, too
	Alarm      Alarm
	Member     Member
	Membership Membership
	Scrub      Scrub
	Scrubbed   Scrubbed
	Restore    *Restore
}

// Txn is: if every compare holds then do Then, else do Else.
type Txn struct {
	If         []Compare
	Then, Else []Op
}

// OpType says what an operation of a transaction does.
type OpType uint8

const (
	OpPut       OpType = 1
	OpDelete    OpType = 2
	OpGet       OpType = 3
	OpTxn       OpType = 4
	OpIncrement OpType = 5
)

// Op is one operation of a transaction.
type Op struct {
	Type OpType
	// Key is the key of a put or an increment.
	Key []byte
	// Value and ContentType are what a put stores.
	Value       []byte
	ContentType string
	// Lease attaches the key. With OwnTTLMillis > 0 the lease is granted by the
	// same command, under that id, and ends with its key.
	Lease        LeaseID
	OwnTTLMillis int64
	// IgnoreValue keeps the value (and the content type), IgnoreLease the
	// lease that the key has; the key must exist.
	IgnoreValue, IgnoreLease bool
	// Sequence makes Key a prefix: what is put is the key that [SequenceKey] makes
	// of it and of the revision of the transaction. It must not exist.
	Sequence bool
	// Prev asks for what was replaced or deleted.
	Prev bool
	// By is what an increment adds.
	By int64
	// Range is what a delete deletes.
	Range Range
	// Query is what a get reads.
	Query *Query
	// Txn is a nested transaction.
	Txn *Txn
}

// Target is what a compare looks at.
type Target uint8

const (
	TargetValue  Target = 1
	TargetVers   Target = 2
	TargetCreate Target = 3
	TargetMod    Target = 4
	TargetLease  Target = 5
	targetEnd    Target = 6
)

// Operator is how a compare compares.
type Operator uint8

const (
	Equal          Operator = 1
	NotEqual       Operator = 2
	Greater        Operator = 3
	Less           Operator = 4
	GreaterOrEqual Operator = 5
	LessOrEqual    Operator = 6
	operatorEnd    Operator = 7
)

// Compare is a condition on every key of a range that exists. For a range that
// holds no key, and for a key that does not exist, numbers and the lease
// compare as zero and a value compares as false, whatever the operator.
// That a key exists is "version > 0", that it doesn't "version = 0".
type Compare struct {
	Range    Range
	Target   Target
	Operator Operator
	// Number is compared with a version or a revision, Bytes with a value,
	// Lease with a lease.
	Number uint64
	Bytes  []byte
	Lease  LeaseID
}

// Clock is one step of the replicated clock. It counts only if Prev is the log
// index of the last step that counted, so that two leaders never add the same
// stretch of time twice.
type Clock struct {
	Prev          uint64
	AdvanceMillis int64
}

// Lease is the subject of a grant, a revocation or an expiry.
type Lease struct {
	ID LeaseID
	// Number is the other name of the lease, positive, below 2^63. Grant only.
	Number int64
	// TTLMillis is the time to live. Grant only.
	TTLMillis int64
	// Generation is the number of renewals that the expiry has seen. An expiry
	// of another generation is refused.
	Generation uint64
}

// AlarmType is what an alarm is about.
type AlarmType uint8

const (
	// AlarmNoSpace: a member's storage quota or disk reserve is used up.
	AlarmNoSpace AlarmType = 1
	// AlarmCorrupt: a member's content differs from the others'.
	AlarmCorrupt AlarmType = 2
	alarmEnd     AlarmType = 3
)

// String returns the word that the API uses.
func (a AlarmType) String() string {
	switch a {
	case AlarmNoSpace:
		return "no-space"
	case AlarmCorrupt:
		return "corrupt"
	}
	return "unknown"
}

// Alarm raises or clears an alarm of a member.
type Alarm struct {
	Replica uint64
	Type    AlarmType
	Active  bool
}

// Member is what a member says of itself.
type Member struct {
	Replica uint64
	// ID is the member's ULID, Name what its operator calls it.
	ID   ulid.ULID
	Name string
	// Version is the newest version of the command set that it speaks.
	Version uint32
	// ClientURL is where it serves clients, PeerAddress where it serves peers.
	ClientURL, PeerAddress string
}

// Result is what applying a command gave.
type Result struct {
	// Code is OK, or why the command was refused whole.
	Code Code
	// Detail says it for people. Part of the answer, so it is the same on every
	// member.
	Detail string
	// Revision is the store's revision after the command, CompactRevision the
	// revision at which history begins.
	Revision, CompactRevision uint64
	// Succeeded says which branch of a transaction ran; of a compaction, that it
	// is the one that moved the compacted revision, not a repetition; of a step of the
	// clock, that it counted.
	Succeeded bool
	// Ops has a result for each operation of the branch that ran, in order, and of
	// the end of a lease the delete of its keys.
	Ops []OpResult
	// Leases has a result for each lease of a renewal or a grant.
	Leases []LeaseResult
	// ClockIndex is the index in the log of a step of the clock that counted.
	ClockIndex uint64
	// Changed says that the command used up Revision.
	Changed bool
	// Replayed says that this is the remembered answer of an earlier command
	// with the same idempotency key. Elided says that entries of that answer
	// were too large to be remembered.
	Replayed, Elided bool
}

// Err returns the refusal as an error, or nil.
func (r *Result) Err() error {
	if r.Code == OK {
		return nil
	}
	return &Error{Code: r.Code, Detail: r.Detail, CurrentRevision: r.Revision, CompactRevision: r.CompactRevision}
}

// OpResult is the result of one operation.
type OpResult struct {
	Type OpType
	// Created says that a put or an increment made the key.
	Created bool
	// Version is the key's version after a put or an increment.
	Version uint64
	// Lease is the lease that the key has after a put.
	Lease LeaseID
	// Value is an increment's new value.
	Value int64
	// Deleted counts what a delete deleted.
	Deleted uint64
	// Prev has what a put replaced (none or one entry) or what a delete
	// deleted, when it was asked for.
	Prev []Entry
	// List is what a get read.
	List *List
	// Txn is the result of a nested transaction.
	Txn *Result
}

// LeaseResult is the state of a lease after a grant or a renewal.
type LeaseResult struct {
	ID        LeaseID
	Number    int64
	TTLMillis int64
	// Code is OK or LeaseNotFound.
	Code Code
}
