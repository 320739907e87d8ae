package coordination

import (
	"context"
	"strings"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// maxShown bounds the holders and the waiters that a state shows.
const maxShown = 1_000

// A Holder is who holds a lock or leads.
type Holder struct {
	Name string
	Kind Kind
	// Token is the create revision of the holder's key, Fence the text by which a
	// write is bound to it.
	Token uint64
	Fence string
	Lease kv.LeaseID
	// Value is what an election's leader proclaims, Owner what a lock's holder
	// calls itself.
	Value []byte
	Owner string
	// ModRevision is when Value was proclaimed, At the same as the wall clock of
	// the member that proposed it.
	ModRevision uint64
	At          time.Time
}

// A Waiter is who waits for its turn.
type Waiter struct {
	Kind  Kind
	Lease kv.LeaseID
	// Owner is what a lock's waiter calls itself.
	Owner string
	// Since is the revision that orders the waiters.
	Since uint64
	At    time.Time
}

// State is a lock or an election at a revision.
type State struct {
	Name     string
	Revision uint64
	// Holders are at most maxShown.
	Holders []Holder
	// Queue is the first waiters in order, at most maxShown; Waiting counts all.
	Queue   []Waiter
	Waiting int
}

// Lock is the state of a lock in a view.
func (r *Recipes) Lock(ctx context.Context, v View, name string) (State, error) {
	return readState(ctx, v, lockSite(name))
}

// Election is the state of an election in a view. It has one holder or none.
func (r *Recipes) Election(ctx context.Context, v View, name string) (State, error) {
	return readState(ctx, v, electionSite(name))
}

func readState(ctx context.Context, v View, s site) (State, error) {
	// The values of candidates are what they would proclaim: large, and not shown.
	state, queue, err := readQueue(ctx, v, s, kv.Query{Limit: maxShown, Sort: kv.SortByCreate, Count: true, KeysOnly: s.candidates()})
	for i := range queue.Entries {
		state.Queue = append(state.Queue, s.waiterOf(&queue.Entries[i]))
	}
	return state, err
}

// readRefusal is readState without those who wait, of whom it has the number: what a refusal
// says, of which there are many at a time where many give up together.
func readRefusal(ctx context.Context, v View, s site) (State, error) {
	state, _, err := readQueue(ctx, v, s, kv.Query{CountOnly: true})
	return state, err
}

// readQueue reads the holders, and of the queue what q asks for.
func readQueue(ctx context.Context, v View, s site, q kv.Query) (state State, queue kv.List, err error) {
	state = State{Name: s.name, Revision: v.Revision()}
	holders := s.held()
	if s.candidates() {
		holders = kv.SingleKey(s.alone())
	}
	held, err := v.List(ctx, &kv.Query{Range: holders, Limit: maxShown})
	if err != nil {
		return state, queue, err
	}
	for i := range held.Entries {
		if e := &held.Entries[i]; s.holds(e.Key) {
			state.Holders = append(state.Holders, s.holderOf(e))
		}
	}
	q.Range = kv.Prefix([]byte(s.queue()))
	waiting, err := v.List(ctx, &q)
	if err != nil {
		return state, queue, err
	}
	state.Waiting = int(waiting.Count)
	return state, *waiting, nil
}

// candidates reports whether those who wait are candidates of an election.
func (s site) candidates() bool { return strings.HasPrefix(s.base, electionsPrefix) }

// holds reports whether a key is a holder's.
func (s site) holds(key []byte) bool {
	return string(key) == string(s.alone()) || len(key) > len(s.shared()) && string(key[:len(s.shared())]) == s.shared()
}

func (s site) holderOf(e *kv.Entry) Holder {
	kind, _ := s.kindOf(e.Key)
	return Holder{
		Name: s.name, Kind: kind, Token: e.CreateRevision, Fence: s.fence(e.Key, e.CreateRevision), Lease: e.Lease,
		Value: e.Value, Owner: ownerOf(e), ModRevision: e.ModRevision, At: time.UnixMilli(e.ModifiedAt),
	}
}

func (s site) waiterOf(e *kv.Entry) Waiter {
	kind, id := s.kindOf(e.Key)
	w := Waiter{Kind: kind, Owner: ownerOf(e), Since: e.CreateRevision, At: time.UnixMilli(e.ModifiedAt)}
	_ = w.Lease.UnmarshalText([]byte(id)) // as waiter wrote it
	return w
}

// Held is the error of a claim that was not granted.
type Held struct {
	// Code is LockHeld or NotElected.
	Code  kv.Code
	State State
	// Detail says it for people.
	Detail string
}

func (h *Held) Error() string { return h.Code.String() + ": " + h.Detail }
