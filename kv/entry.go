package kv

import "fmt"

// SequenceKey returns the key of a sequence that came into being at a revision.
func SequenceKey(prefix []byte, revision uint64) []byte {
	return fmt.Appendf(append(make([]byte, 0, len(prefix)+SequenceDigits), prefix...), "%0*d", SequenceDigits, revision)
}

// Entry is one version of a key.
type Entry struct {
	Key         []byte
	Value       []byte
	ContentType string

	// CreateRevision is the revision at which the key came into being, after
	// it did not exist.
	CreateRevision uint64
	// ModRevision is the revision of this version.
	ModRevision uint64
	// Version is 1 at creation and grows by 1 with each put.
	Version uint64
	// Lease is the lease that the key is attached to, or zero.
	Lease LeaseID
	// ModifiedAt is the wall clock of the proposer in milliseconds since the
	// Unix epoch. It never goes backwards along the log. Informational.
	ModifiedAt int64
}

// Size is the memory that the entry's variable parts take, in bytes.
func (e *Entry) Size() int { return len(e.Key) + len(e.Value) + len(e.ContentType) }

// Clone returns an entry that shares no memory with e.
func (e *Entry) Clone() Entry {
	c := *e
	c.Key = append([]byte(nil), e.Key...)
	c.Value = append([]byte{}, e.Value...)
	return c
}

// EventType says what happened to a key.
type EventType uint8

const (
	EventPut    EventType = 1
	EventDelete EventType = 2
)

// Reason says why a key was deleted.
type Reason uint8

const (
	// ReasonDeleted: a client asked for it.
	ReasonDeleted Reason = 1
	// ReasonExpired: the key's lease ended by itself.
	ReasonExpired Reason = 2
	// ReasonRevoked: a client ended the key's lease.
	ReasonRevoked Reason = 3
)

// String returns the word that the API uses.
func (r Reason) String() string {
	switch r {
	case ReasonDeleted:
		return "deleted"
	case ReasonExpired:
		return "expired"
	case ReasonRevoked:
		return "revoked"
	}
	return "unknown"
}

// Event is one change of one key. Of a delete the entry carries the key, the
// revision and the time.
type Event struct {
	Type   EventType
	Reason Reason
	Entry  Entry
	// PrevRevision is the ModRevision of the version that this change replaced
	// or deleted, or 0 if the key did not exist.
	PrevRevision uint64
}

// Place is where in the change log a change stands: its revision, and its number
// among the changes of that revision, from 0.
type Place struct {
	Revision uint64
	Sub      uint32
}
