package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
)

// acceptTurn asks for events while a claim waits. A node that has none for it
// answers once, as JSON.
const acceptTurn = sse.ContentType + ", " + api.TypeJSON + ";q=0.5"

// A turn is a claim that waits for its turn, over all of its requests.
type turn struct {
	c *Client
	// waiting is told how many wait before the claim when that changes, if anybody
	// wants to know; before is what it was told last, -1 at first.
	waiting func(before int)
	before  int
}

// ask sends one request and follows what comes of it until the claim is granted,
// which is read into granted, or refused. A connection that says nothing for too
// long is given up, since another node may say more.
func (t *turn) ask(ctx context.Context, r *request, granted any) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(t.c.silence, func() { cancel(silenceError(t.c.silence)) })
	defer silent.Stop()
	first := t.c.preferred.Load()
	err := t.c.do(ctx, r, func(resp *http.Response) error {
		defer resp.Body.Close()
		if !isType(resp, sse.ContentType) {
			return into(granted)(resp)
		}
		err := t.follow(r, sse.NewReader(&heard{resp.Body, silent, t.c.silence}, messageBytes), granted)
		silent.Reset(t.c.silence) // the next node, if there is one, may never answer
		return err
	})
	var e *Error
	if errors.As(err, &e) {
		switch e.Class() {
		case api.ClassUnavailable, api.ClassUnknown, api.ClassInternal:
			if !lostInterest(ctx, r) {
				t.c.passOver(first, e.Endpoint)
			}
		} // all else is what a node says that serves
		return causeOf(ctx, e)
	}
	return err
}

// follow reads the events of a claim, which r is. What it returns but for an *Error is
// the end of the connection.
func (t *turn) follow(r *request, events *sse.Reader, granted any) error {
	for {
		e, err := events.Next()
		if err != nil {
			return err
		}
		switch e.Type {
		case api.EventWaiting:
			var w api.WaitingBehind
			if err := json.Unmarshal(e.Data, &w); err != nil {
				return unreadable("", err)
			}
			r.waits = true
			t.tell(w.Before)
		case api.EventAcquired, api.EventElected:
			if err := json.Unmarshal(e.Data, granted); err != nil {
				return unreadable("", err)
			}
			return nil
		case api.EventError:
			refused := &Error{}
			if err := json.Unmarshal(e.Data, &refused.Problem); err != nil {
				return unreadable("", err)
			}
			return refused
		}
	}
}

func (t *turn) tell(before int) {
	if before != t.before && t.waiting != nil {
		t.waiting(before)
	}
	t.before = before
}

// passOver makes the calls that come begin with the endpoint after the one that has
// failed, if the preference is that one, or still first, with which that call began; else
// another call knows better. The failed one need not be the first: those before it have
// failed as well, and if it has answered at all, the preference is with it.
func (c *Client) passOver(first uint32, endpoint string) {
	for i, e := range c.endpoints {
		if e == endpoint {
			next := uint32((i + 1) % len(c.endpoints))
			if !c.preferred.CompareAndSwap(uint32(i), next) {
				c.preferred.CompareAndSwap(first, next)
			}
			return
		}
	}
}
