package httpapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A hold keeps a lease while its connection is open.
//
// It renews at a third of the time to live. What it must not do is to go on for
// a client that is gone: an orderly end, and a process that was killed, close
// the connection; a machine that vanished does not. So something is written at
// least at that pace, too, and a peer whose operating system has acknowledged
// nothing for two such steps is given up. It is noticed within the time to live.
type hold struct {
	x       *exchange
	s       *stream
	id      kv.LeaseID
	every   time.Duration // between two renewals
	step    time.Duration // between two looks
	renewed time.Time
}

// retryHold is the pause after a renewal that failed, unless the next look comes
// earlier.
const retryHold = 500 * time.Millisecond

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
	s, err := x.openStream(revision)
	if err == nil {
		err = s.event("", api.EventHeld, appendGranted(nil, l))
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	every := time.Duration(l.TTLMillis) * time.Millisecond / 3
	h := hold{x: x, s: s, id: id, every: every, step: min(every, pulse), renewed: sent}
	if !h.run() {
		// The peer must not take this for an end that was meant.
		panic(http.ErrAbortHandler)
	}
}

// run holds the lease until the end of the stream and reports whether that was
// told to the client.
func (h *hold) run() bool {
	x := h.x
	timer := time.NewTimer(h.step)
	defer timer.Stop()
	for {
		select {
		case <-x.r.Context().Done():
			return false
		case <-x.s.draining:
			return h.end(api.EventDraining)
		case <-timer.C:
		}
		if silent, known := x.s.silence(x.r.Context()); known && silent > 2*h.step {
			return false
		}
		next := h.step
		if time.Since(h.renewed) >= h.every-h.step/2 {
			switch err := h.renew(); {
			case errors.Is(err, errLeaseGone):
				return h.end(api.EventLeaseNotFound)
			case err != nil:
				// Without a leader no lease ends, and with one the next try comes
				// in time. If this node alone is cut off, the lease may end; then
				// the next renewal says so.
				next = min(next, retryHold)
			}
		}
		if h.s.comment("held") != nil {
			return false
		}
		timer.Reset(next)
	}
}

var errLeaseGone = errors.New("the lease does not exist")

func (h *hold) renew() error {
	x := h.x
	x.leases = append(x.leases[:0], h.id)
	x.command = kv.Command{Kind: kv.KindLeaseRenew, Time: x.s.cfg.Now().UnixMilli(), Renew: x.leases}
	sent := time.Now()
	r, err := x.s.cfg.Store.Propose(x.r.Context(), &x.command)
	if err != nil {
		return err
	}
	if len(r.Leases) != 1 || r.Leases[0].Code != kv.OK {
		return errLeaseGone
	}
	h.renewed = sent
	return nil
}

// end names the end of the stream.
func (h *hold) end(event string) bool {
	data := append(appendLease([]byte(`{"id":"`), h.id), '"', '}')
	return h.s.event("", event, data) == nil
}
