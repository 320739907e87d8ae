package coordination

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/kv"
)

// Store is what this package needs of a node. It is safe for concurrent use.
type Store interface {
	// Propose replicates a command; see kv.Error for its errors. A refusal that
	// apply decides comes in Result.Code.
	Propose(ctx context.Context, c *kv.Command) (*kv.Result, error)
	// Wait returns once this node's state satisfies c, or with a *kv.Error.
	Wait(ctx context.Context, c kv.Consistency) error
	// View pins this node's state at this moment. Whoever got it closes it.
	View() (View, error)
	// WaitChange returns once a revision above after has changed something in r,
	// with that revision or a later one, or when ctx is done, with its error. It
	// may return without a change: the caller looks again.
	WaitChange(ctx context.Context, r kv.Range, after uint64) (revision uint64, err error)
}

// View is the state of a node at one moment.
type View interface {
	Revision() uint64
	// Get reads a key; revision 0 is the view's newest.
	Get(key []byte, revision uint64) (kv.Entry, bool, error)
	List(ctx context.Context, q *kv.Query) (*kv.List, error)
	// History gives the changes of a key, newest first.
	History(key []byte, before uint64, limit int) (events []kv.Event, more bool, err error)
	Close()
}

// Recipes runs the recipes on a store. It is safe for concurrent use.
type Recipes struct {
	store Store
	now   func() time.Time
}

// New makes the recipes for a store. now is the wall clock that goes into
// commands and new identities.
func New(store Store, now func() time.Time) *Recipes {
	return &Recipes{store: store, now: now}
}

// newID names a lease that is yet to be granted.
func (r *Recipes) newID() kv.LeaseID {
	return ulid.MustNew(ulid.Timestamp(r.now()), ulid.DefaultEntropy())
}

// transact proposes a transaction. A refusal by apply is an error. It is not cut
// off with the request: its outcome is wanted even if nobody is there to be told,
// and the store bounds how long it tries.
func (r *Recipes) transact(ctx context.Context, txn *kv.Txn) (*kv.Result, error) {
	result, err := r.store.Propose(context.WithoutCancel(ctx), &kv.Command{Kind: kv.KindTxn, Time: r.now().UnixMilli(), Txn: txn})
	if err == nil {
		err = refusal(result)
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// renew renews leases. The error of one that is gone is LeaseNotFound.
func (r *Recipes) renew(ctx context.Context, ids ...kv.LeaseID) ([]kv.LeaseResult, error) {
	result, err := r.store.Propose(context.WithoutCancel(ctx), &kv.Command{Kind: kv.KindLeaseRenew, Time: r.now().UnixMilli(), Renew: ids})
	if err == nil {
		err = refusal(result)
	}
	if err != nil {
		return nil, err
	}
	return result.Leases, nil
}

// refusal is what apply refused, as an error that is nil if it did not.
func refusal(r *kv.Result) error {
	if r.Code == kv.OK {
		return nil
	}
	return kv.Errorf(r.Code, "%s", r.Detail)
}

// Compares of one key or of a range.

func compare(r kv.Range, target kv.Target, op kv.Operator, n uint64) kv.Compare {
	return kv.Compare{Range: r, Target: target, Operator: op, Number: n}
}

// missing holds if no key of the range exists.
func missing(r kv.Range) kv.Compare { return compare(r, kv.TargetVers, kv.Equal, 0) }

// created holds if the key exists and came into being at that revision, which
// is not 0.
func created(key []byte, revision uint64) kv.Compare {
	return compare(kv.SingleKey(key), kv.TargetCreate, kv.Equal, revision)
}

func remove(key []byte) kv.Op { return kv.Op{Type: kv.OpDelete, Range: kv.SingleKey(key)} }

func get(q *kv.Query) kv.Op { return kv.Op{Type: kv.OpGet, Query: q} }

// entries is what a get of a transaction read.
func entries(o *kv.OpResult) []kv.Entry {
	if o.List == nil {
		return nil
	}
	return o.List.Entries
}
