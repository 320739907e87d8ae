package coordination

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cairnkv/cairn/kv"
)

const contentTypeJSON = "application/json"

// lockValue is the value of a lock's keys.
type lockValue struct {
	Owner            string  `json:"owner,omitempty"`
	LockDelaySeconds float64 `json:"lock_delay_seconds,omitempty"`
}

// ownerOf is the owner in the value of a lock's key; of another value it is
// empty.
func ownerOf(e *kv.Entry) string {
	var v lockValue
	if e.ContentType == contentTypeJSON {
		_ = json.Unmarshal(e.Value, &v) // of an election it may be anything
	}
	return v.Owner
}

// A Claim asks for a lock or for the lead of an election.
type Claim struct {
	Name string
	// Lease is whose claim it is. If it is zero, the holder's key gets a lease of
	// its own with this time to live, in milliseconds.
	Lease     kv.LeaseID
	TTLMillis int64
	// Wait is how long the turn is waited for; 0 is not at all.
	Wait time.Duration

	// Of a lock: how it is held, what its holder calls itself, and how long it
	// stays closed if the holder's lease ends before it was released. The last is
	// for locks that are held for writing.
	Kind  Kind
	Owner string
	Delay time.Duration

	// Of an election: what a leader proclaims.
	Value       []byte
	ContentType string

	// Progress, when set, is told now and then while the claim waits how many wait
	// before it, or -1 while that is not known.
	Progress func(before int)
	// There, when set, is asked while the claim waits, before each renewal and before
	// the turn is taken, whether whoever waits is still there. If not, the claim ends
	// with ErrGone, as with the end of its context.
	There func() bool
}

// claim is what a Claim asks for at a site.
func (r *Recipes) claim(s site, c *Claim) *claim {
	lease := c.Lease
	if lease == (kv.LeaseID{}) {
		lease = r.newID()
	}
	return &claim{
		site: s, kind: c.Kind, lease: lease, ttl: c.TTLMillis, wait: c.Wait,
		progress: c.Progress, before: -1, there: c.There,
	}
}

// Acquire takes a lock, or waits for it. Asked again by the same lease it gives
// the same holder, as long as that holds the lock, and goes on waiting at the same
// place.
//
// If ctx ends, what was begun is taken back, but for a lock that was granted to a
// lease that is not the lock's own: whoever has that lease can ask again.
//
// The error is a *Held, the end of ctx, ErrGone, or a *kv.Error: LeaseNotFound, and what
// Store.Propose says.
func (r *Recipes) Acquire(ctx context.Context, ask Claim) (Holder, error) {
	s := lockSite(ask.Name)
	c := r.claim(s, &ask)
	c.contentType = contentTypeJSON
	value, err := json.Marshal(lockValue{Owner: ask.Owner, LockDelaySeconds: ask.Delay.Seconds()})
	if err != nil {
		return Holder{}, err
	}
	c.value = value
	return r.answer(ctx, c, kv.LockHeld)
}

// answer sees a claim through and says who holds what it did not get.
func (r *Recipes) answer(ctx context.Context, c *claim, held kv.Code) (Holder, error) {
	e, err := r.acquire(ctx, c)
	if err == nil {
		return c.holderOf(&e), nil
	}
	if !errors.Is(err, errHeld) {
		return Holder{}, err
	}
	v, err := r.store.View()
	if err != nil {
		return Holder{}, err
	}
	defer v.Close()
	state, err := readRefusal(ctx, v, c.site)
	if err != nil {
		return Holder{}, err
	}
	return Holder{}, &Held{Code: held, State: state, Detail: c.whyHeld(&state)}
}

func (c *claim) whyHeld(s *State) string {
	for i := range s.Holders {
		if h := &s.Holders[i]; h.Lease == c.lease {
			return fmt.Sprintf("the lease %s holds %.100q already, in another way", c.lease, c.name)
		}
	}
	switch {
	case len(s.Holders) > 0 && s.Waiting > 0:
		return fmt.Sprintf("%.100q is held, and %d wait for it", c.name, s.Waiting)
	case len(s.Holders) > 0:
		return fmt.Sprintf("%.100q is held", c.name)
	case s.Waiting > 0:
		return fmt.Sprintf("nobody holds %.100q, but %d wait for it", c.name, s.Waiting)
	}
	return fmt.Sprintf("nobody holds %.100q, but it is closed or was held a moment ago", c.name)
}

// Release ends the holder that has the token and returns the revision at which it
// ended. The error of a token that nobody has is NotHolder.
func (r *Recipes) Release(ctx context.Context, name string, token uint64) (revision uint64, err error) {
	return r.release(ctx, lockSite(name), token)
}
