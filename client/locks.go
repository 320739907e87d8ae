package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/api"
)

// LockOptions say how a lock is taken. The zero value takes it alone.
type LockOptions struct {
	// TTL is how long the lock outlives a holder that is gone; 10 s if it is 0, a
	// second at least.
	TTL time.Duration
	// Owner is shown to others.
	Owner string
	// Read shares the lock with other readers, Limit with so many others that ask
	// with the same limit.
	Read  bool
	Limit int
	// Delay is how long the lock stays closed if it is lost and not released. It is
	// for a lock that is held alone.
	Delay time.Duration
	// Waiting, if it is set, is called while Lock waits, when the number of those
	// that wait before this one becomes known and when it changes. It runs on the
	// goroutine of Lock, which it holds up.
	Waiting func(before int)
}

const (
	defaultLockTTL = 10 * time.Second
	// waitForTurn is how long a request waits for its turn, the longest that a node
	// allows. Beyond it the wait begins again, at the end of the queue.
	waitForTurn = time.Hour
)

// A Lock is a lock that this process holds. It is safe for concurrent use.
type Lock struct {
	api.Lock
	*session
}

// Lock takes a lock, waiting for its turn until ctx ends, and keeps it until
// Release, or until it is lost. That it is held does not depend on ctx.
//
// The lock alone does not keep a process that was paused from acting too late.
// Give [Fenced] with the lock's Fence to each write that the lock protects.
func (c *Client) Lock(ctx context.Context, name string, o LockOptions) (*Lock, error) {
	return c.lock(ctx, name, o, true)
}

// TryLock takes a lock if nobody else holds it or waits for it; else the error is
// [ErrLockHeld].
func (c *Client) TryLock(ctx context.Context, name string, o LockOptions) (*Lock, error) {
	return c.lock(ctx, name, o, false)
}

func (c *Client) lock(ctx context.Context, name string, o LockOptions, wait bool) (*Lock, error) {
	ask := api.AskLock{Owner: o.Owner, Limit: o.Limit, LockDelaySeconds: seconds(o.Delay)}
	if o.Read {
		ask.Mode = api.ModeRead
	}
	if wait {
		ask.WaitSeconds = waitForTurn.Seconds()
	}
	s, err := c.newSession(ctx, o.TTL)
	if err != nil {
		return nil, err
	}
	ask.Lease = s.lease
	l := &Lock{session: s}
	s.waiting = o.Waiting
	if err := s.claim(ctx, lockTarget(name), ask, wait, ErrLockHeld, &l.Lock); err != nil {
		return nil, err
	}
	return l, nil
}

// Release releases the lock. Of a lock that was lost before, the error is
// [ErrLeaseNotFound].
func (l *Lock) Release(ctx context.Context) error { return l.end(ctx) }

// LockState is who holds a lock and who waits for it.
func (c *Client) LockState(ctx context.Context, name string, opts ...ReadOption) (*api.LockState, error) {
	r := newRead(lockTarget(name), opts)
	return call[api.LockState](ctx, c, r)
}

// Fenced binds a write to the holder of a lock or to a leader, by the Fence of a
// [Lock] or a [Leadership]: the write is applied only as long as that one is, else
// it is [ErrFenced]. Given twice, both must hold.
func Fenced(fence string) WriteOption {
	return writeOption(func(r *request) { r.header.Add(api.HeaderFencing, fence) })
}

func lockTarget(name string) string { return "/v1/locks/" + url.PathEscape(name) }

// A session is the lease behind a lock or a lead: it is kept alive as long as they
// are held.
type session struct {
	c     *Client
	lease string
	alive *KeepAlive
	stop  context.CancelFunc
	// waiting, if it is set, is told of the place in the queue.
	waiting func(before int)
}

// newSession grants a lease and keeps it alive.
func (c *Client) newSession(ctx context.Context, ttl time.Duration) (*session, error) {
	if ttl == 0 {
		ttl = defaultLockTTL
	}
	s := &session{c: c, lease: ulid.Make().String()}
	// The id is new: a lease that has it is this one, of an attempt before. So neither the
	// grant nor the end needs an Idempotency-Key, of which a cluster may have no more.
	if _, err := c.Leases().GrantAs(ctx, s.lease, ttl, harmless); err != nil && !errors.Is(err, ErrLeaseExists) {
		return nil, err
	}
	kept, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	var err error
	if s.alive, err = c.Leases().keepAlive(ctx, kept, s.lease); err != nil {
		s.giveUp(ctx)
		return nil, err
	}
	return s, nil
}

// claim asks for what is at target until it is granted to the session's lease, or
// refused, or ctx ends. A session that gets nothing is ended.
//
// While it waits it is told of its turn by events, on one node after the other: the
// same lease finds its place again, or what it was granted.
func (s *session) claim(ctx context.Context, target string, ask any, wait bool, held error, granted any) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the claim
		select {
		case <-s.alive.Lost():
			cancel()
		case <-ctx.Done():
		}
	}()
	r := newRequest(http.MethodPost, target)
	r.harmless, r.stream = true, wait
	if wait {
		r.header.Set("Accept", acceptTurn)
	}
	if err := r.setJSON(ask); err != nil {
		s.giveUp(ctx)
		return err
	}
	t := turn{c: s.c, waiting: s.waiting, before: -1}
	for n := 1; ; n++ {
		err := t.ask(ctx, r, granted)
		switch {
		case err == nil:
			return nil
		case s.alive.Err() != nil:
			err = s.alive.Err()
		case wait && ctx.Err() == nil && (errors.Is(err, held) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown)):
			if sleep(ctx, backoff(n, 0)) {
				continue
			}
		}
		s.giveUp(ctx)
		return err
	}
}

// giveUpWithin is how long the end of a session that got nothing may hold up its
// caller, whose own time is over perhaps. An attempt at it takes a third of that at most:
// the node that was asked first may be why it got nothing.
const giveUpWithin = time.Second

// giveUp ends a session that got nothing. Whatever was granted without our knowledge
// ends with the lease, at the latest when that does so by itself.
func (s *session) giveUp(ctx context.Context) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpWithin)
	defer cancel()
	_ = s.end(limited, writeOption(func(r *request) { r.attempt = giveUpWithin / 3 }))
}

// end revokes the lease, which deletes what it holds.
func (s *session) end(ctx context.Context, opts ...WriteOption) error {
	s.stop()
	if s.alive != nil {
		<-s.alive.Done()
	}
	_, err := s.c.Leases().Revoke(ctx, s.lease, append(opts, harmless)...)
	var refused *Error
	if errors.As(err, &refused) && refused.doubted && errors.Is(err, ErrLeaseNotFound) {
		return nil // an attempt before has done it
	}
	return err
}

// Lost is closed when what was held is lost, or may be; see [KeepAlive.Lost].
func (s *session) Lost() <-chan struct{} { return s.alive.Lost() }

// Err says why it was lost; nil while it isn't.
func (s *session) Err() error { return s.alive.Err() }
