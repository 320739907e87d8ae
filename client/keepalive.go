package client

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// KeepAlive renews a lease in the background.
type KeepAlive struct {
	lost, done chan struct{}
	err        error // set before lost is closed
}

// KeepAlive renews a lease at once, and from then on after each third of its time to
// live, until ctx ends or the lease is lost. It returns when the first renewal is
// done, with its error if there is one.
func (l *Leases) KeepAlive(ctx context.Context, id string) (*KeepAlive, error) {
	return l.keepAlive(ctx, ctx, id)
}

// keepAlive is KeepAlive whose first renewal has a context of its own.
func (l *Leases) keepAlive(first, ctx context.Context, id string) (*KeepAlive, error) {
	sent := time.Now()
	g, err := l.Renew(first, id)
	if err != nil {
		return nil, err
	}
	k := &KeepAlive{lost: make(chan struct{}), done: make(chan struct{})}
	ttl := time.Duration(g.TTLSeconds * float64(time.Second))
	// The goroutine ends with ctx, or with the lease.
	go func() {
		defer close(k.done)
		if err := l.keep(ctx, g.ID, ttl, sent.Add(ttl)); err != nil {
			k.err = err
			close(k.lost)
		}
	}()
	return k, nil
}

// Lost is closed when the lease is lost: the cluster says that it does not exist
// any more, or no renewal was answered for a whole time to live, after which it
// may have ended. Whatever the lease protects must stop by then. It stays open
// when the context ends.
func (k *KeepAlive) Lost() <-chan struct{} { return k.lost }

// Done is closed when nothing is renewed any more, whatever the reason.
func (k *KeepAlive) Done() <-chan struct{} { return k.done }

// Err says why the lease was lost; nil while it isn't.
func (k *KeepAlive) Err() error {
	select {
	case <-k.lost:
		return k.err
	default:
		return nil
	}
}

// An unrenewedError says that a lease may have ended, since no renewal of it was
// answered. What the last one met says little about that.
type unrenewedError struct {
	ttl  time.Duration
	last error
}

func (e *unrenewedError) Error() string {
	return fmt.Sprintf("no renewal was answered for %v, which is how long the lease lives", e.ttl)
}

func (e *unrenewedError) Unwrap() error { return e.last }

// keep renews a lease whose time to live is certain until end. It returns nil when
// ctx ends, and else why the lease is lost.
func (l *Leases) keep(ctx context.Context, id string, ttl time.Duration, end time.Time) error {
	pause := ttl / 3
	for {
		timer := time.NewTimer(min(pause, time.Until(end)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		sent := time.Now()
		// A renewal that is not answered by then is of no use any more.
		limited, cancel := context.WithDeadline(ctx, end)
		_, err := l.Renew(limited, id)
		cancel()
		switch {
		case err == nil:
			// It counts from when it was sent, at the earliest.
			end, pause = sent.Add(ttl), ttl/3
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrLeaseNotFound):
			return err
		case !time.Now().Before(end):
			return &unrenewedError{ttl, err}
		default:
			pause = ttl / 10
		}
	}
}
