package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
)

// What the routes of locks, elections and services have in common.

const (
	locksPath     = "/v1/locks/"
	electionsPath = "/v1/elections/"
	servicesPath  = "/v1/services/"
)

const (
	// maxWaitMillis bounds the wait for a turn: an hour. Proxies end requests that
	// are silent for so long much earlier.
	maxWaitMillis = 3_600_000
	// maxLockDelayMillis bounds how long a lock may stay closed.
	maxLockDelayMillis = 3_600_000
	// maxOwnerBytes bounds what a holder calls itself.
	maxOwnerBytes = 255
)

// recipeStore shows the node to the recipes.
type recipeStore struct{ Store }

func (s recipeStore) View() (coordination.View, error) { return s.Store.View() }

// names returns what stands behind a prefix in the path, a name a segment. A
// segment is cut out before it is decoded: an encoded slash is part of a name,
// which may not have one.
func (x *exchange) names(prefix, suffix string) []string {
	// RawPath is what the client wrote, and what the route was found by. There is none
	// where Path says the same.
	path, decode := x.r.URL.RawPath, url.PathUnescape
	if path == "" {
		path, decode = x.r.URL.Path, func(s string) (string, error) { return s, nil }
	}
	tail := strings.TrimSuffix(strings.TrimPrefix(path, prefix), suffix)
	names := strings.Split(tail, "/")
	for i, segment := range names {
		name, err := decode(segment)
		if err == nil {
			err = coordination.CheckName(name)
		}
		if err != nil {
			x.fail(api.CodeInvalidArgument, "%.100q: %v", segment, err)
		}
		names[i] = name
	}
	return names
}

// A claimBody reads what locks and elections have in common.
type claimBody struct {
	ask              coordination.Claim
	lease, ttl, wait bool
}

func (c *claimBody) member(x *exchange, p *jsonParser, name string) bool {
	switch name {
	case "ttl_seconds":
		c.ask.TTLMillis, c.ttl = p.millis(name, kv.MinLeaseTTLMillis, kv.MaxLeaseTTLMillis), true
	case "lease":
		if s := string(p.string()); !p.broken {
			c.ask.Lease, c.lease = x.parseLease(name, s), true
		}
	case "wait_seconds":
		c.ask.Wait, c.wait = time.Duration(p.millis(name, 0, maxWaitMillis))*time.Millisecond, true
	default:
		return false
	}
	return true
}

// checkLease reports a request without exactly one of a lease and a time to live.
func (x *exchange) checkLease(what string, lease, ttl bool) {
	if lease == ttl {
		x.fail(api.CodeInvalidArgument, "%s has exactly one of ttl_seconds and lease", what)
	}
}

// tokenParam reads the token of a holder.
func (x *exchange) tokenParam() uint64 {
	if !x.q.present.has(pToken) {
		x.fail(api.CodeInvalidArgument, "token is missing: it is what the holder was answered")
		return 0
	}
	return x.uintParam(pToken, 1, kv.MaxRevision)
}

// errDraining ends the waits of a server that is about to stop.
var errDraining = kv.Errorf(kv.ShuttingDown, "the node is about to stop; ask another one")

// waiting is the context of a request that may wait, if it does: it ends with the
// request, and when the server is about to stop. Its goroutine ends with stop.
//
// A client that vanished without a word must not stand in a queue, and have its lease
// renewed, until TCP would give it up by itself: its machine is asked for signs of
// life, and there tells whether it gave one. Probes alone would not do, since TCP
// sends none while something that was written is not acknowledged.
func (x *exchange) waiting(wait time.Duration) (ctx context.Context, there func() bool, stop func()) {
	there = func() bool { return true }
	if wait == 0 {
		return x.r.Context(), there, func() {}
	}
	conn, _ := x.r.Context().Value(connKey{}).(net.Conn)
	if probePeer(conn, maxWaiterSilence) { // what isn't TCP has no machine behind it
		there = func() bool {
			silence, known := x.s.silence(conn)
			return !known || silence <= maxWaiterSilence
		}
	}
	ctx, cancel := context.WithCancelCause(x.r.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-x.s.draining:
			cancel(errDraining)
		case <-ctx.Done():
		}
	}()
	return ctx, there, func() {
		cancel(nil)
		<-done
	}
}

// claim sees a claim through and answers with what was granted: once, or with
// events while it waits, the last of which is granted.
func (x *exchange) claim(c *claimBody, see func(context.Context, coordination.Claim) (coordination.Holder, error), granted string, wire func(*coordination.Holder) any) {
	events := negotiate(x.r.Header["Accept"], api.TypeJSON, sse.ContentType) == wantsSecond
	if events && !c.wait {
		c.ask.Wait = maxWaitMillis * time.Millisecond
	}
	if c.ask.Wait > 0 {
		c.ask.Value = bytes.Clone(c.ask.Value)
		x.dropBody()
		if !x.reserve(len(c.ask.Value)) {
			x.failAnswer()
			x.refused()
			return
		}
	}
	ctx, there, stop := x.waiting(c.ask.Wait)
	defer stop()
	c.ask.There = there
	if events {
		x.claimInEvents(ctx, c.ask, see, granted, wire)
		return
	}
	holder, err := see(ctx, c.ask)
	if errors.Is(err, coordination.ErrGone) {
		panic(http.ErrAbortHandler) // nobody is there to be told
	}
	if err != nil {
		x.refuseRecipe(err)
		return
	}
	x.setLease(holder.Lease)
	x.sendValue(200, max(holder.Token, x.revision()), wire(&holder))
}

// claimInEvents tells how many wait before the claim, and at last that it is granted
// or why not.
func (x *exchange) claimInEvents(ctx context.Context, ask coordination.Claim, see func(context.Context, coordination.Claim) (coordination.Holder, error), granted string, wire func(*coordination.Holder) any) {
	s := x.openRecipe()
	told := -1
	ask.Progress = func(before int) {
		if before == told {
			s.quiet()
			return
		}
		told = before
		s.tell("", api.EventWaiting, api.WaitingBehind{Before: before})
	}
	holder, err := see(ctx, ask)
	switch {
	case errors.Is(err, coordination.ErrGone):
		s.err = err
	case err != nil:
		x.fault = recipeFault(err)
		info, _ := x.fault.code.Info()
		s.tell("", api.EventError, json.RawMessage(appendProblem(nil, &x.fault, info, x.id())))
	default:
		// There is a holder now, who must be told of it: this is counted, so that others
		// find no room.
		size := eventBytes(holder.Value)
		x.reserve(size)
		s.tell(strconv.FormatUint(holder.Token, 10), granted, wire(&holder))
		x.giveBack(size)
	}
	s.end()
}

// eventBytes is what it takes to tell of a value: its text in JSON, and once more in the
// event.
func eventBytes(value []byte) int {
	if !utf8.Valid(value) {
		return 2 * base64.StdEncoding.EncodedLen(len(value))
	}
	n := len(value)
	for _, c := range value {
		switch {
		case c == '"', c == '\\', c == '\n', c == '\r', c == '\t':
			n++
		case c < 0x20, c == '<', c == '>', c == '&':
			n += 5
		}
	}
	return 2 * n
}

// endHolder ends the holder of a lock or an election by its token.
func (x *exchange) endHolder(prefix string, end func(ctx context.Context, name string, token uint64) (uint64, error)) {
	name := x.names(prefix, "")[0]
	token := x.tokenParam()
	if x.refused() {
		return
	}
	revision, err := end(x.r.Context(), name, token)
	if err != nil {
		x.refuseRecipe(err)
		return
	}
	x.sendValue(200, revision, api.DeleteResult{Revision: revision, Deleted: 1})
}

// recipeState answers with the state of the lock or the election that the path names.
func (x *exchange) recipeState(prefix string, read func(context.Context, coordination.View, string) (coordination.State, error), wire func(*coordination.State) any) {
	name := x.names(prefix, "")[0]
	mode := x.readMode()
	x.sendList(&mode, func(ctx context.Context, v View) (any, error) {
		s, err := read(ctx, v, name)
		return wire(&s), err
	})
}

// sendList answers with what read reads, as one of the lists that are read at a time.
func (x *exchange) sendList(m *readMode, read func(context.Context, View) (any, error)) {
	revision, ok := x.readList(m, func(ctx context.Context, v View) error {
		answer, err := read(ctx, v)
		if err != nil {
			return err
		}
		b, err := json.Marshal(answer)
		x.out = append(x.out[:0], b...)
		return err
	})
	if ok {
		x.sendJSON(200, revision)
	}
}

// recipeFault turns an error of a recipe into a fault.
func recipeFault(err error) fault {
	var held *coordination.Held
	if !errors.As(err, &held) {
		return writeFault(err)
	}
	f := newFault(codeOf(held.Code), held.Detail)
	f.waiting = held.State.Waiting
	if len(held.State.Holders) > 0 {
		holder := holderOf(&held.State.Holders[0])
		f.holder = &holder
	}
	return f
}

func (x *exchange) refuseRecipe(err error) {
	x.fault = recipeFault(err)
	x.refuseFault()
}

func (x *exchange) revision() uint64 {
	revision, _ := x.s.cfg.Store.Revisions()
	return revision
}

// modeOf is how a lock is held, in the words of the API.
func modeOf(k coordination.Kind) string {
	if k.Read {
		return api.ModeRead
	}
	return ""
}

func lockOf(h *coordination.Holder) api.Lock {
	return api.Lock{
		Name: h.Name, Token: h.Token, Fence: h.Fence, Lease: h.Lease.String(),
		Owner: h.Owner, Mode: modeOf(h.Kind), Limit: h.Kind.Limit,
	}
}

func holderOf(h *coordination.Holder) api.Holder {
	return api.Holder{Lock: lockOf(h), Since: api.Time{Time: h.At}}
}

// A recipeStream is the stream of who waits for a turn, or observes.
type recipeStream struct {
	*stream
	// told is when something was written last, err why nothing more is.
	told  time.Time
	touch touch
	err   error
}

func (x *exchange) openRecipe() *recipeStream {
	s, err := x.openStream(x.revision())
	return &recipeStream{stream: s, told: time.Now(), err: err}
}

// tell writes an event.
func (s *recipeStream) tell(id, event string, v any) {
	data, err := json.Marshal(v)
	if s.err == nil {
		s.err = err
	}
	if s.err == nil {
		s.told, s.err = time.Now(), s.event(id, event, data)
	}
}

// quiet writes a comment if nothing was written for a while.
func (s *recipeStream) quiet() {
	if s.err == nil && time.Since(s.told) >= pulse-observeTick {
		s.told, s.err = time.Now(), s.comment("still here")
	}
}

// end breaks off what must not look as if it had ended by itself.
func (s *recipeStream) end() {
	if s.err != nil {
		panic(http.ErrAbortHandler)
	}
}
