package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
)

// A Leadership is an election that this process has won. It is safe for concurrent
// use, but for the fields of Leader.
type Leadership struct {
	api.Leader
	*session
}

// CampaignOptions say how a candidate stands.
type CampaignOptions struct {
	// TTL is how long the lead outlives a leader that is gone; 10 s if it is 0, a
	// second at least.
	TTL time.Duration
	// Waiting, if it is set, is called while Campaign waits, when the number of
	// candidates before this one becomes known and when it changes. It runs on the
	// goroutine of Campaign, which it holds up.
	Waiting func(before int)
}

// Campaign stands for election, waiting for its turn until ctx ends, and leads
// until Resign, or until the lead is lost. That it leads does not depend on ctx.
// value is what it proclaims.
//
// As with a [Lock], give [Fenced] with the Fence to what a leader alone may write.
func (c *Client) Campaign(ctx context.Context, name string, value []byte, o CampaignOptions) (*Leadership, error) {
	s, err := c.newSession(ctx, o.TTL)
	if err != nil {
		return nil, err
	}
	s.waiting = o.Waiting
	l := &Leadership{session: s}
	ask := api.Campaign{Lease: s.lease, WaitSeconds: waitForTurn.Seconds(), Value: value}
	if err := s.claim(ctx, electionTarget(name), ask, true, ErrNotElected, &l.Leader); err != nil {
		return nil, err
	}
	return l, nil
}

// Proclaim changes what the leader proclaims. The error of one that does not lead
// any more is [ErrNotHolder]. It is not repeated after [ErrOutcomeUnknown]: a value
// that arrives late would replace a newer one. [Client.Election] tells which value
// stands, though one that is still on its way may yet come.
func (l *Leadership) Proclaim(ctx context.Context, value []byte) error {
	r := newRequest(http.MethodPut, electionTarget(l.Name))
	if value == nil {
		value = []byte{}
	}
	if err := r.setJSON(api.Proclaim{Token: l.Token, Value: value}); err != nil {
		return err
	}
	_, err := call[api.Proclaimed](ctx, l.c, r)
	return err
}

// Resign ends the lead; the next candidate leads. Of a lead that was lost before,
// the error is [ErrLeaseNotFound].
func (l *Leadership) Resign(ctx context.Context) error { return l.end(ctx) }

// Election is who leads, and who would.
func (c *Client) Election(ctx context.Context, name string, opts ...ReadOption) (*api.ElectionState, error) {
	r := newRead(electionTarget(name), opts)
	return call[api.ElectionState](ctx, c, r)
}

// Observe follows who leads: the leader at first and after each change, nil while
// there is none. Changes that follow each other quickly may be seen as one. It
// connects again by itself, and ends with ctx, whose error is the last thing that
// it gives, or with an error that another try would meet again.
func (c *Client) Observe(ctx context.Context, name string) iter.Seq2[*api.Leader, error] {
	return func(yield func(*api.Leader, error) bool) {
		seen, first := uint64(0), true // the mod_revision of who was given last
		give := func(l *api.Leader) bool {
			mod := uint64(0)
			if l != nil {
				mod = l.ModRevision
			}
			if !first && mod == seen {
				return true
			}
			first, seen = false, mod
			return yield(l, nil)
		}
		for n := 1; ; n++ {
			began, preferred := time.Now(), c.preferred.Load()
			left, err := c.observe(ctx, name, give)
			var e *Error
			refused := errors.As(err, &e)
			switch {
			case left:
				return
			case ctx.Err() != nil:
				yield(nil, ctx.Err())
				return
			case refused && final(e, !first):
				yield(nil, err)
				return
			case refused: // a node that is stopped takes every request and answers none
				c.passOver(preferred, e.Endpoint)
			}
			if time.Since(began) >= watchSettled {
				n = 1
			}
			if !sleep(ctx, backoff(n, 0)) {
				yield(nil, cmp.Or(ctx.Err(), context.DeadlineExceeded)) // which would come first
				return
			}
		}
	}
}

// observe follows an election on one connection. It returns true when give has
// ended it, and else why the connection ended.
func (c *Client) observe(ctx context.Context, name string, give func(*api.Leader) bool) (left bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(c.silence, func() { cancel(silenceError(c.silence)) })
	defer silent.Stop()
	r := newRequest(http.MethodGet, electionTarget(name)+"/observe")
	r.stream = true
	r.header.Set("Accept", sse.ContentType)
	err = c.do(ctx, r, func(resp *http.Response) error {
		defer resp.Body.Close()
		if !isType(resp, sse.ContentType) {
			return foreign(endpointOf(resp), resp.StatusCode, "")
		}
		events := sse.NewReader(&heard{resp.Body, silent, c.silence}, messageBytes)
		for !left {
			e, err := events.Next()
			if err != nil {
				return unavailable("", err) // there will be another connection
			}
			switch e.Type {
			case api.EventVacant:
				left = !give(nil)
			case api.EventLeader:
				var l api.Leader
				if err := json.Unmarshal(e.Data, &l); err != nil {
					return unreadable("", err)
				}
				left = !give(&l)
			case api.EventDoubtful:
				if len(c.endpoints) > 1 {
					return cutOff("") // another one may be in touch with the cluster
				}
			}
		}
		return nil
	})
	return left, err
}

func electionTarget(name string) string { return "/v1/elections/" + url.PathEscape(name) }
