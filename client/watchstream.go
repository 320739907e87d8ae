package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
)

const (
	// watchSilence is how long a watch waits for a byte. A node says something
	// every 15 s.
	watchSilence = 45 * time.Second
	// watchSettled is how long a stream without a message must have lasted to
	// count as one that worked.
	watchSettled = 15 * time.Second
	// retryMax bounds the pause that a node may ask for.
	retryMax = 30 * time.Second
	// messageBytes bounds one message: a part of a revision, or one event that
	// is as large as can be, with its previous version, and all of it escaped.
	messageBytes = 64 << 20
)

// A watch is a watch under way, over all of its connections. It is used by the
// goroutine that iterates.
type watch struct {
	c     *Client
	o     *WatchOptions
	yield func(WatchMessage, error) bool

	// position is the revision up to which everything was handed out. Once
	// placed is set, the cluster knows it as well, and the watch can go on
	// behind it.
	position uint64
	placed   bool
	// fresh says that a present state is to come, of which nothing was handed
	// out; syncing that it is not complete.
	fresh, syncing bool
	// joined is what has come of a revision that is not complete.
	joined api.WatchChange
	// Of the revision parted, parts of which come one by one, handed counts the
	// events that were handed out, and come those that came on this connection.
	parted       uint64
	handed, come int

	// established is set once a node has served the watch.
	established bool
	// Of the connection under way.
	told  bool          // a message was handed out
	retry time.Duration // what the node asked for
}

// An ending says how a connection of a watch ended.
type ending uint8

const (
	goesOn  ending = iota // it has not
	left                  // the loop over the watch has ended
	over                  // the watch can't go on
	refused               // the node did not serve the watch
	lost                  // the node served it, until this error
)

// run makes one connection after the other. It returns nil when the loop has
// ended, and otherwise why the watch does.
func (w *watch) run(ctx context.Context) error {
	c := w.c
	opening := ctx
	if c.timeout > 0 {
		var cancel context.CancelFunc
		opening, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	at := c.preferred.Load()
	attempts, failures := 0, 0
	for {
		attempts++
		began := time.Now()
		i := at % uint32(len(c.endpoints))
		how, err := w.connect(ctx, opening, c.endpoints[i])
		if how == left {
			return nil
		}
		err.Attempts = attempts
		if how == over || how == refused && final(err, w.established) {
			return err
		}
		at++
		if how == refused && ctx.Err() == nil {
			c.preferred.CompareAndSwap(i, at%uint32(len(c.endpoints)))
		}
		if how == lost && (w.told || time.Since(began) >= watchSettled) {
			attempts, failures = 0, 0
		} else {
			failures++
		}
		var pause time.Duration
		switch {
		case how == lost:
			// All that lost this node come again, and it has said within which
			// time.
			pause = rand.N(max(min(w.retry, retryMax), min(pauseMin<<min(failures, 16), pauseMax)))
		case failures >= len(c.endpoints):
			pause = backoff(failures, min(err.Problem.RetryAfterSeconds, int(retryMax/time.Second)))
		}
		if !w.established {
			if attempts == c.attempts || !w.rest(opening, err, pause) {
				return err
			}
		} else if !w.rest(ctx, err, pause) {
			return cmp.Or(ctx.Err(), context.DeadlineExceeded) // which would come first
		}
	}
}

// rest pauses before the next connection. It returns false if the context ends
// first.
func (w *watch) rest(ctx context.Context, err *Error, pause time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	if w.o.OnRetry != nil {
		w.o.OnRetry(err, pause)
	}
	return sleep(ctx, pause)
}

// final reports whether a refusal ends what is followed over many connections. What was
// served once is tried again after anything but a refusal by Cairn that another try
// would meet again.
func final(e *Error, served bool) bool {
	switch e.Class() {
	case api.ClassUnavailable, api.ClassUnknown:
		return false
	case api.ClassInternal:
		return !served
	}
	return !served || e.Problem.Code != ""
}

// connect opens the watch on a node and hands out what comes, until that ends.
func (w *watch) connect(caller, opening context.Context, endpoint string) (ending, *Error) {
	r, err := w.request()
	if err != nil {
		return over, err
	}
	w.told, w.retry = false, 0
	// Nothing of a present state counts that another connection began.
	w.syncing = w.o.Initial && !w.placed
	w.fresh = w.syncing
	w.joined, w.come = api.WatchChange{}, 0

	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	// A node that stands still must leave time for the others.
	within := w.c.silence
	if w.established {
		opening = caller
	}
	if limit, limits := w.c.share(opening, false); limits {
		within = min(within, limit)
	}
	silent := time.AfterFunc(within, func() { cancel(silenceError(within)) })
	defer silent.Stop()
	inTime := func() bool { return true }
	if !w.established {
		inTime = context.AfterFunc(opening, func() {
			if caller.Err() == nil {
				cancel(timeoutError(w.c.timeout))
			}
		})
	}
	resp, err := w.open(ctx, endpoint, r)
	if err == nil && !inTime() {
		_ = resp.Body.Close()
		err = unavailable(endpoint, opening.Err())
	}
	if err != nil {
		return refused, causeOf(ctx, err)
	}
	defer resp.Body.Close()
	w.established = true
	silent.Stop()
	events := sse.NewReader(&heard{resp.Body, silent, w.c.silence}, messageBytes)
	for {
		e, failed := events.Next()
		w.retry = events.Retry()
		switch {
		case errors.Is(failed, sse.ErrTooLarge):
			return over, unreadable(endpoint, failed)
		case failed != nil:
			w.place(events.LastEventID())
			err := unavailable(endpoint, failed)
			err.Problem.Title = "The connection to " + endpoint + " was lost"
			return lost, causeOf(ctx, err)
		}
		how, err := w.take(endpoint, e.Type, e.Data)
		if how == goesOn || how == lost {
			w.place(e.ID)
		}
		if how != goesOn {
			return how, err
		}
	}
}

// open sends the request and returns the answer, if that is a stream.
func (w *watch) open(ctx context.Context, endpoint string, r *request) (resp *http.Response, err *Error) {
	_, err = w.c.attempt(ctx, endpoint, r, func(answer *http.Response) error {
		if !isType(answer, sse.ContentType) {
			defer drain(answer)
			return foreign(endpointOf(answer), answer.StatusCode, "")
		}
		resp = answer
		return nil
	})
	return resp, err
}

// causeOf says in an error why the context of its connection was ended, if it
// was.
func causeOf(ctx context.Context, e *Error) *Error {
	if cause := context.Cause(ctx); cause != nil {
		e.Cause = cause
	}
	return e
}

// take hands out a message. A kind that this version does not know is passed
// over.
func (w *watch) take(endpoint, event string, data []byte) (ending, *Error) {
	switch event {
	case api.EventChange:
		var change api.WatchChange
		if err := json.Unmarshal(data, &change); err != nil {
			return over, unreadable(endpoint, err)
		}
		return w.change(&change), nil
	case api.EventInitial:
		var initial api.WatchInitial
		if err := json.Unmarshal(data, &initial); err != nil {
			return over, unreadable(endpoint, err)
		}
		return w.state(WatchMessage{Kind: WatchInitial, Revision: initial.Revision, Entries: initial.Entries}), nil
	case api.EventSynced:
		var mark api.WatchMark
		if err := json.Unmarshal(data, &mark); err != nil {
			return over, unreadable(endpoint, err)
		}
		w.syncing, w.position, w.placed = false, mark.Revision, true
		return w.state(WatchMessage{Kind: WatchSynced, Revision: mark.Revision}), nil
	case api.EventBookmark:
		var mark api.WatchMark
		if err := json.Unmarshal(data, &mark); err != nil {
			return over, unreadable(endpoint, err)
		}
		return w.hand(WatchMessage{Kind: WatchBookmark, Revision: mark.Revision}), nil
	case api.EventDoubtful:
		if len(w.c.endpoints) > 1 {
			return lost, cutOff(endpoint)
		}
	case api.EventCompacted:
		var end api.WatchEnd
		if err := json.Unmarshal(data, &end); err != nil {
			return over, unreadable(endpoint, err)
		}
		if !w.o.Initial {
			return over, compacted(endpoint, &end)
		}
		// The present state follows, and until it is complete there is nothing to
		// go on behind.
		w.fresh, w.syncing, w.placed, w.position = true, true, false, 0
		w.joined, w.parted = api.WatchChange{}, 0
	}
	return goesOn, nil
}

// unreadable is the error of a stream that makes no sense.
func unreadable(endpoint string, cause error) *Error {
	e := foreign(endpoint, http.StatusOK, "")
	e.Problem.Title, e.Cause = "A message of the stream can't be read", cause
	return e
}

// cutOff is the error of a watch on a node that can't reach the cluster, where
// another node may.
func cutOff(endpoint string) *Error {
	e := unavailable(endpoint, errCutOff)
	e.Problem.Title = endpoint + " can't reach the cluster"
	return e
}

// errCutOff is why a watch leaves a node that works.
var errCutOff = errors.New("a watch there may miss what happens")

// compacted is the error of a watch that can't go on.
func compacted(endpoint string, end *api.WatchEnd) *Error {
	info, _ := api.CodeCompacted.Info()
	return &Error{Endpoint: endpoint, Problem: api.Problem{
		Type: api.ProblemType + string(info.Code), Code: info.Code, Status: info.Status, Title: info.Title,
		Detail:          "history begins at " + number(end.CompactRevision),
		CurrentRevision: &end.CurrentRevision, CompactRevision: end.CompactRevision,
	}}
}

// change hands out a revision once it is complete, or its parts as they come.
func (w *watch) change(c *api.WatchChange) ending {
	if c.Revision <= w.position {
		return goesOn // it was handed out
	}
	if w.o.Parts {
		w.remainder(c)
		if len(c.Events) == 0 && c.More {
			return goesOn
		}
	} else if c.More || w.joined.Revision == c.Revision {
		if w.joined.Revision != c.Revision {
			w.joined = api.WatchChange{Revision: c.Revision}
		}
		w.joined.Events = append(w.joined.Events, c.Events...)
		if c.More {
			return goesOn
		}
		c.Events, w.joined = w.joined.Events, api.WatchChange{}
	}
	if !c.More {
		w.position, w.placed, w.parted = c.Revision, true, 0
	}
	return w.hand(WatchMessage{Kind: WatchChange, Revision: c.Revision, Events: c.Events, More: c.More})
}

// remainder leaves of a part what was not handed out on an earlier connection.
// History has the events of a revision in one order for good; only where it is
// parted may differ.
func (w *watch) remainder(c *api.WatchChange) {
	if w.parted != c.Revision {
		w.parted, w.handed, w.come = c.Revision, 0, 0
	}
	had := min(max(w.handed-w.come, 0), len(c.Events))
	w.come += len(c.Events)
	w.handed = max(w.handed, w.come)
	c.Events = c.Events[had:]
}

// state hands out a message of the present state, and a reset before the first
// one.
func (w *watch) state(m WatchMessage) ending {
	if w.fresh {
		w.fresh = false
		if how := w.hand(WatchMessage{Kind: WatchReset, Revision: m.Revision}); how != goesOn {
			return how
		}
	}
	return w.hand(m)
}

func (w *watch) hand(m WatchMessage) ending {
	w.told = true
	w.c.saw(m.Revision)
	if !w.yield(m, nil) {
		return left
	}
	return goesOn
}

// place takes over an id of the stream, which moves also while nothing is handed
// out.
func (w *watch) place(id string) {
	revision, err := strconv.ParseUint(id, 10, 64)
	if err != nil || w.syncing {
		return
	}
	w.position, w.placed = max(w.position, revision), true
}

// heard is a stream that must not be silent for long while it is read. While the
// loop over the watch works on a message, nobody listens.
type heard struct {
	r      io.Reader
	silent *time.Timer
	limit  time.Duration
}

// Read reads what has come.
func (h *heard) Read(p []byte) (int, error) {
	h.silent.Reset(h.limit)
	defer h.silent.Stop()
	return h.r.Read(p)
}

// A silenceError says that a node has said nothing for too long.
type silenceError time.Duration

func (s silenceError) Error() string { return "nothing was heard for " + time.Duration(s).String() }

// Timeout makes it a net.Error's notion of one.
func (s silenceError) Timeout() bool { return true }
