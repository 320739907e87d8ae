package httpapi

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/leases"
)

// A hold keeps a lease while its connection is open. The renewals are made by the
// node's leases.Renewer, with those of other holds; this is the stream, which has
// little to say.
//
// What must not happen is that a client that is gone goes on to hold. An orderly
// end, and a process that was killed, close the connection; a machine that
// vanished, or a network that is cut, does not. So the operating system of the
// client is asked for signs of life, by the probes of TCP, at least holdProbes
// times in its time to live and every 15 s; the client itself has no part in that.
// One that has acknowledged nothing for the time to live, or for maxHoldSilence, is
// given up, and nothing is renewed for it from then on. So a client that vanished
// keeps its lease for at most that time, the time to live, and the 2 s in which a
// lease ends.
type hold struct {
	s       *Server
	ctx     context.Context // done when the client is gone
	release context.CancelFunc
	conn    net.Conn
	// to is where whole messages go, at once. Its error means that the client is
	// gone, or takes nothing.
	to    interface{ write(b []byte) error }
	lease kv.LeaseResult
	sent  time.Time // when the renewal that was answered was sent
	out   []byte
}

// holdLease answers POST /v1/leases/{id}/hold.
func (x *exchange) holdLease() {
	name := x.leaseInPath("/hold")
	// The end of the connection shows only once the body is read.
	_, _ = x.readBody(maxBodyBytes)
	if x.refused() {
		return
	}
	id, ok := x.findLease(name)
	if !ok {
		return
	}
	sent := time.Now()
	l, revision := x.renew(id)
	if l == nil {
		return
	}
	h := &hold{s: x.s, lease: *l, sent: sent}
	h.conn, _ = x.r.Context().Value(connKey{}).(net.Conn)
	if c, ok := x.takeOver(valueEventStream, revision); ok {
		h.ctx, h.release, h.to = c.ctx, c.cancel, c
		c.serve(h.run)
		return
	}
	h.ctx, h.release = context.WithCancel(x.r.Context())
	defer h.release()
	h.to = x.startStream(valueEventStream, revision)
	if h.run() != nil {
		// The peer must not take this for an end that was meant.
		panic(http.ErrAbortHandler)
	}
}

// silent is how long the other side may acknowledge nothing.
func (h *hold) silent() time.Duration {
	return min(time.Duration(h.lease.TTLMillis)*time.Millisecond, maxHoldSilence)
}

// run holds the lease until the end of the stream. Its error is nil when that was
// told.
func (h *hold) run() error {
	pace := pulse
	if !probePeer(h.conn, h.silent()) {
		// What TCP can't do, because the time is too short or it isn't TCP, something
		// that is written does: it must be acknowledged, too.
		pace = min(pace, h.silent()/holdProbes)
	}
	held := h.s.cfg.Holds.Hold(h.lease.ID, time.Duration(h.lease.TTLMillis)*time.Millisecond, h.sent, h.open)
	defer held.Release()
	if err := h.tell(sse.AppendComment(h.out[:0], "connected"), api.EventHeld, appendGranted(nil, &h.lease)); err != nil {
		return err
	}
	timer := time.NewTimer(pace)
	defer timer.Stop()
	for {
		var err error
		select {
		case <-h.ctx.Done():
			return errPeerGone
		case <-h.s.draining:
			return h.tellOf(api.EventDraining)
		case standing := <-held.News():
			switch standing {
			case leases.Lost:
				return h.tellOf(api.EventLeaseNotFound)
			case leases.Refused:
				return h.tellOf(api.EventDraining)
			case leases.Doubtful:
				err = h.tellOf(api.EventDoubtful)
			case leases.Renewed:
				err = h.tell(h.out[:0], api.EventHeld, appendGranted(nil, &h.lease))
			}
		case <-timer.C:
			err = h.to.write(sse.AppendComment(h.out[:0], ""))
			timer.Reset(pace)
		}
		if err != nil {
			return err
		}
	}
}

// open reports whether the client is there. If not, its stream ends.
func (h *hold) open() bool {
	if h.ctx.Err() != nil {
		return false
	}
	if silence, known := h.s.silence(h.conn); known && silence > h.silent() {
		h.release()
		return false
	}
	return true
}

// tell writes an event behind what is in b.
func (h *hold) tell(b []byte, event string, data []byte) error {
	h.out = sse.AppendEvent(b, "", event, data)
	return h.to.write(h.out)
}

// tellOf writes an event that says no more of the lease than which it is.
func (h *hold) tellOf(event string) error {
	return h.tell(h.out[:0], event, append(appendLease([]byte(`{"id":"`), h.lease.ID), '"', '}'))
}
