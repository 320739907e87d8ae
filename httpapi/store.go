package httpapi

import (
	"context"
	"io"

	"github.com/cairnkv/cairn/kv"
)

// Store is what this package needs of a node. It is safe for concurrent use.
type Store interface {
	// Propose replicates cmd and returns what applying it gave. The error, when
	// not nil, is a *kv.Error: NoLeader, Busy, Unavailable, ShuttingDown,
	// NoSpace, IdempotencyFull (nothing was applied) or OutcomeUnknown.
	// Refusals that apply decides come in Result.Code.
	//
	// The memory of cmd, and of everything it points to, is the caller's again
	// when Propose returns: an implementation that keeps some of it copies it.
	Propose(ctx context.Context, cmd *kv.Command) (*kv.Result, error)
	// Room is nil, or the *kv.Error with which a transaction of so many bytes would be
	// refused at this moment since too much waits already: Busy, NoLeader or
	// ShuttingDown. It is cheap.
	Room(bytes int) error
	// Wait returns once this node's state satisfies c, or with a *kv.Error
	// (NoLeader, NotCaughtUp, TooStale, ReadTimeout, FutureRevision,
	// ShuttingDown).
	Wait(ctx context.Context, c kv.Consistency) error
	// Get reads the newest version of a key in this node's state, and the
	// revision of that state. The entry's memory is the caller's; its key may
	// be the argument.
	Get(key []byte) (entry kv.Entry, found bool, revision uint64, err error)
	// View pins this node's state at this moment.
	View() (View, error)
	// WaitChange returns once a revision above after has changed something in
	// keys, with that revision or a later one, or when ctx is done, with its
	// error. It may return without a change.
	WaitChange(ctx context.Context, keys kv.Range, after uint64) (revision uint64, err error)
	// Revisions returns the store's revision and the compacted one.
	Revisions() (current, compacted uint64)
	// RevisionAt returns the newest revision that was made at t or before, in
	// milliseconds since the Unix epoch.
	RevisionAt(unixMillis int64) (uint64, error)
	// Status tells what the node knows of itself, without a round through the
	// log.
	Status() kv.Status
	// Ready is nil while linearizable rounds succeed.
	Ready() error
	// Serving is nil, or the *kv.Error Restoring while the store is being filled
	// from a backup, or CorruptContent while what it holds can't be trusted. It is
	// cheap.
	Serving() error
	// Behind reports that the node's disk is behind the writes, so that who has many
	// more waits.
	Behind() bool
	// Backup pins this node's state for a backup.
	Backup() (Backup, error)
}

// Backup is a backup that is to be written. Whoever got it closes it.
type Backup interface {
	// Revision is the one whose state is pinned.
	Revision() uint64
	// Save writes the file. When it returns an error, what was written is none.
	Save(ctx context.Context, w io.Writer) error
	Close()
}

// View is the state of a node at one moment. Errors are *kv.Error where the
// caller is to blame: Compacted and FutureRevision. Whoever got a View closes
// it.
type View interface {
	Revision() uint64
	Compacted() uint64
	// Get reads a key at a revision; revision 0 is the view's newest.
	Get(key []byte, revision uint64) (kv.Entry, bool, error)
	// List answers q, with its bounds on number and size.
	List(ctx context.Context, q *kv.Query) (*kv.List, error)
	// Scan calls fn for each entry of q in order. An entry is valid only during
	// its call. MaxBytes and Delimiter are not looked at.
	Scan(ctx context.Context, q *kv.Query, fn func(*kv.Entry) error) error
	// History gives the changes of a key, newest first, below the revision
	// before when that is not 0, and whether there are more than limit.
	History(key []byte, before uint64, limit int) (events []kv.Event, more bool, err error)
	// Lease returns a lease, LeaseByNumber the id of the one of that number.
	Lease(id kv.LeaseID) (kv.LeaseState, bool, error)
	LeaseByNumber(number int64) (kv.LeaseID, bool, error)
	// Leases gives up to limit leases, by id, beyond after; LeaseKeys the keys of
	// one, up to limit and about maxBytes together, and at least one. Both say
	// whether there are more.
	Leases(ctx context.Context, after kv.LeaseID, limit int) ([]kv.LeaseState, bool, error)
	LeaseKeys(ctx context.Context, id kv.LeaseID, after []byte, limit, maxBytes int) ([][]byte, bool, error)
	// Version gives the version that a change at a revision made, if history still
	// holds it.
	Version(key []byte, revision uint64) (kv.Entry, bool, error)
	// Hash hashes all that can be read at a revision; 0 is the view's newest.
	Hash(ctx context.Context, revision uint64) (hash [32]byte, err error)
	Close()
}
