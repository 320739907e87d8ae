package httpapi

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
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
	tail := strings.TrimSuffix(strings.TrimPrefix(x.r.URL.EscapedPath(), prefix), suffix)
	names := strings.Split(tail, "/")
	for i, segment := range names {
		name, err := url.PathUnescape(segment)
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
	ask        coordination.Claim
	lease, ttl bool
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
		c.ask.Wait = time.Duration(p.millis(name, 0, maxWaitMillis)) * time.Millisecond
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
	return x.uintParam(pToken, 1, maxRevision)
}

// errDraining ends the waits of a server that is about to stop.
var errDraining = kv.Errorf(kv.ShuttingDown, "the node is about to stop; ask another one")

// waiting is the context of a request that may wait, if it does: it ends with the
// request, and when the server is about to stop. Its goroutine ends with stop.
//
// A client that vanished without a word must not stand in a queue, and have its lease
// renewed, until TCP would give it up by itself, so its machine is asked for signs of
// life.
func (x *exchange) waiting(wait time.Duration) (ctx context.Context, stop func()) {
	if wait == 0 {
		return x.r.Context(), func() {}
	}
	conn, _ := x.r.Context().Value(connKey{}).(net.Conn)
	_ = probePeer(conn, maxWaiterSilence) // what isn't TCP has no machine behind it
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
	return ctx, func() {
		cancel(nil)
		<-done
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

// modeOf and limitOf are how a lock is held, in the words of the API.
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
