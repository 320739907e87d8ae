package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/cairnkv/cairn/api"
)

const (
	// The pause before attempt n+1 is between nothing and pauseMin·2^n, at most
	// pauseMax: clients that lost their node together don't come back together.
	pauseMin = 50 * time.Millisecond
	pauseMax = 2 * time.Second
	// repeatWindow bounds how long a write is repeated. It is half the time that
	// a cluster remembers an Idempotency-Key: a later repetition would be a new
	// write.
	repeatWindow = 5 * time.Minute
	// attemptMin is the least time that an attempt gets when there are other
	// nodes to try.
	attemptMin = time.Second
)

// do sends the request until it is answered, or until that can't be hoped for.
func (c *Client) do(ctx context.Context, r *request, consume func(*http.Response) error) error {
	caller := ctx
	if c.timeout > 0 && !r.stream {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	began := time.Now()
	first := c.preferred.Load()
	// doubt is the last attempt at a write that may have been applied.
	var doubt *Error
	for n := 1; ; n++ {
		i := (first + uint32(n-1)) % uint32(len(c.endpoints))
		what, err := c.limited(ctx, c.endpoints[i], r, consume)
		if err == nil {
			c.preferred.Store(i)
			return nil
		}
		err.Attempts = n
		if what == decided {
			if err.Problem.Code != "" {
				c.preferred.Store(i) // a refusal is an answer
			}
			err.doubted = doubt != nil
			if err.doubted && !remembered(&err.Problem) {
				doubt.Attempts, doubt.Endpoint = n, err.Endpoint
				return doubt
			}
			return err
		}
		if what == inDoubt && !lostInterest(caller, r) {
			// The node may stand still; who calls next, or repeats nothing, begins with
			// another one.
			c.preferred.CompareAndSwap(i, (i+1)%uint32(len(c.endpoints)))
		}
		if what == inDoubt && r.write {
			doubt = err
		}
		mayRepeat := what == notApplied || r.repeatable()
		if !mayRepeat || n == c.attempts || !pause(ctx, n, n < len(c.endpoints), err.Problem.RetryAfterSeconds) ||
			doubt != nil && time.Since(began) > repeatWindow {
			if doubt != nil {
				doubt.Attempts, doubt.Endpoint = n, err.Endpoint
				err = doubt
			}
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && caller.Err() == nil && errors.Is(err.Cause, context.DeadlineExceeded) {
				err.Cause = timeoutError(c.timeout)
			}
			return err
		}
	}
}

// limited makes an attempt that leaves time for one on another node, if there is
// one and the request may be repeated. Of a stream only the opening is limited: what
// comes then takes the time that it takes.
func (c *Client) limited(ctx context.Context, endpoint string, r *request, consume func(*http.Response) error) (verdict, *Error) {
	limit, limits := c.share(ctx, !r.stream)
	if limits && r.attempt > 0 {
		limit = min(limit, r.attempt)
	}
	switch {
	case !limits || !r.repeatable():
		return c.attempt(ctx, endpoint, r, consume)
	case !r.stream:
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return c.attempt(ctx, endpoint, r, consume)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(timeoutError(limit)) })
	what, err := c.attempt(ctx, endpoint, r, func(resp *http.Response) error {
		timer.Stop()
		resp.Body = &stream{resp.Body, cancel}
		return consume(resp)
	})
	if err != nil {
		timer.Stop()
		// The end of the body has ended the context as well, which is no cause.
		var late timeoutError
		if errors.As(context.Cause(ctx), &late) {
			err.Cause = late
		}
		cancel(nil)
	}
	return what, err
}

// lostInterest reports whether the caller has ended the context, which says nothing of
// the node that was asked; that it was silent for too long does. So does a deadline that
// passes, unless the node has said that the claim waits: whose turn comes late is not its
// doing.
func lostInterest(ctx context.Context, r *request) bool {
	var silent silenceError
	return (errors.Is(ctx.Err(), context.Canceled) || r.waits && ctx.Err() != nil) && !errors.As(context.Cause(ctx), &silent)
}

// share is how long one attempt may take where there are other nodes to try: half of
// what is left of the context; if that has no end, the Timeout of the client, unless
// the context is all that counts.
func (c *Client) share(ctx context.Context, alone bool) (limit time.Duration, limits bool) {
	if len(c.endpoints) == 1 {
		return 0, false
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit, limits = max(time.Until(deadline)/2, attemptMin), true
	}
	if !alone && c.timeout > 0 && (!limits || c.timeout < limit) {
		limit, limits = c.timeout, true
	}
	return limit, limits
}

// stream is the body of an answer that is read for long. Its end ends the context of
// its request.
type stream struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close ends the stream.
func (s *stream) Close() error {
	err := s.ReadCloser.Close()
	s.cancel(nil)
	return err
}

// remembered reports whether a refusal is one that applying the write decided,
// and that the cluster therefore answers again to the same Idempotency-Key. Any
// other one says nothing of the attempt before, and neither does an answer with
// the same status from whatever stands between.
func remembered(p *api.Problem) bool {
	info, known := p.Code.Info()
	if !known || info.Status != p.Status || info.Class == api.ClassUsage {
		return false
	}
	return p.Status == http.StatusNotFound || p.Status == http.StatusConflict || p.Status == http.StatusPreconditionFailed
}

// pause waits before the next attempt. It returns false at once if the context
// would end first. There is no need to wait before a node that was not asked yet,
// nor for the time that another one asked for.
func pause(ctx context.Context, attempt int, fresh bool, retryAfterSeconds int) bool {
	if fresh {
		return ctx.Err() == nil
	}
	return sleep(ctx, backoff(attempt, retryAfterSeconds))
}

// backoff is how long to wait after a number of attempts.
func backoff(attempt, retryAfterSeconds int) time.Duration {
	return rand.N(min(pauseMin<<min(attempt, 16), pauseMax)) + time.Duration(retryAfterSeconds)*time.Second
}

// sleep waits. It returns false at once if the context would end first.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A timeoutError says that the client's own Timeout ended a call.
type timeoutError time.Duration

func (t timeoutError) Error() string { return "not answered within " + time.Duration(t).String() }

func (t timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Timeout makes it a net.Error's notion of one.
func (t timeoutError) Timeout() bool { return true }
