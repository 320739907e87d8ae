package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A session is one client of a server: it has one request on the way at a time
// and is used by one goroutine. Every method checks that the answer is the one
// that was to be expected, and returns an error if it isn't.
type session interface {
	// put writes one key.
	put(key int, value []byte) error
	// get reads one key that was loaded, linearizably or, when stale is set,
	// from whatever the server has at hand.
	get(key int, stale bool) error
	// list reads a group of groupSize loaded keys with their values.
	list(group int) error
	// load writes keys with the values that get expects, in one request. Not
	// more than batch of them.
	load(keys []int) error
	// loadValues writes keys with other values. value is called for each key in
	// their order; what it returns is used before the next call.
	loadValues(keys []int, value func(key int) []byte) error
	batch() int
}

// clients are the sessions of one measurement.
type clients struct {
	sessions []session
	close    func()
}

// connect has each session send a request, few at a time: gRPC connects only then,
// and Cairn closes a connection over which none comes for some seconds. So many keys
// are loaded.
func (c *clients) connect(ctx context.Context, keys int) error {
	err := eachAtOnce(ctx, len(c.sessions), func(i int) error { return c.sessions[i].get(i%keys, true) })
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	return nil
}

// A dialer opens n sessions. They end, with whatever they wait for, when the
// context does.
type dialer func(ctx context.Context, addr string, n int) (*clients, error)

// dialEach opens sessions that have a connection each.
func dialEach(ctx context.Context, n int, dial func() (session, func() error, error)) (*clients, error) {
	c := &clients{}
	var closers []func() error
	closeAll := func() {
		for _, closer := range closers {
			_ = closer() // nothing was written that an error could concern
		}
	}
	for range n {
		s, closer, err := dial()
		if err != nil {
			closeAll()
			return nil, err
		}
		c.sessions = append(c.sessions, s)
		closers = append(closers, closer)
	}
	// A read from a connection doesn't know of contexts; closing it ends it.
	unwatch := context.AfterFunc(ctx, closeAll)
	c.close = func() {
		if unwatch() {
			closeAll()
		}
	}
	return c, nil
}

// An answerError is an answer that is not the right one. The session it came from
// can be used further.
type answerError struct {
	what   string
	status int
	size   int
	shown  string // the first of the body
}

func (e *answerError) Error() string {
	return fmt.Sprintf("%s: status %d, %d bytes: %q", e.what, e.status, e.size, e.shown)
}

func unexpected(what string, code int, body []byte) error {
	const shown = 200
	return &answerError{what, code, len(body), string(body[:min(len(body), shown)])}
}

// refused says whether an error is the answer of a server that has too much to do:
// 429 or 503, or what gRPC has for them. etcd has no code for some of it, but words.
func refused(err error) bool {
	const words = "too many requests"
	var answer *answerError
	if errors.As(err, &answer) {
		return answer.status == http.StatusTooManyRequests || answer.status == http.StatusServiceUnavailable || strings.Contains(answer.shown, words)
	}
	s, ok := status.FromError(err)
	return ok && (s.Code() == codes.ResourceExhausted || s.Code() == codes.Unavailable || strings.Contains(s.Message(), words))
}
