package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/leases"
)

// A hold keeps a lease, or several, while its connection is open. The renewals are made by the
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
// keeps its leases for at most that time, the time to live, and the 2 s, or 3 s where
// commits are slow, in which a lease ends.
type hold struct {
	s       *Server
	ctx     context.Context // done when the client is gone
	release context.CancelFunc
	conn    net.Conn
	// to is where whole messages go, at once. Its error means that the client is
	// gone, or takes nothing.
	to interface{ write(b []byte) error }
	// ttl is the time to live, of several leases the shortest.
	ttl  time.Duration
	sent time.Time // when the renewal that was answered was sent
	// greeting is what the stream begins with, until it is written.
	greeting []byte
	out      []byte
}

// holdLease answers POST /v1/leases/{id}/hold.
func (x *exchange) holdLease() {
	name := x.leaseInPath("/hold")
	if x.r.ProtoMajor == 1 {
		// The end of the connection shows only once the body is read.
		_, _ = x.readBody(maxBodyBytes)
	}
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
	one := *l
	x.startHold(&hold{sent: sent, ttl: lifetime(&one), greeting: appendGranted(nil, &one)}, revision, func(h *hold) error { return h.one(&one) })
}

// holdLeases answers POST /v1/leases/hold.
func (x *exchange) holdLeases() {
	names, body := x.leasesInBody()
	if x.refused() {
		return
	}
	sent := time.Now()
	r := x.renewAll(names, body)
	if r == nil {
		return
	}
	all := slices.DeleteFunc(slices.Clone(r.Leases), func(l kv.LeaseResult) bool { return l.Code != kv.OK })
	if len(all) == 0 {
		x.refuse(api.CodeLeaseNotFound, "there is none of these leases")
		return
	}
	// One that was named twice is held once.
	slices.SortFunc(all, func(a, b kv.LeaseResult) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	all = slices.CompactFunc(all, func(a, b kv.LeaseResult) bool { return a.ID == b.ID })
	if !x.reserve(len(all) * heldLeaseBytes) {
		x.failAnswer()
		x.refused()
		return
	}
	shortest := slices.MinFunc(all, func(a, b kv.LeaseResult) int { return cmp.Compare(a.TTLMillis, b.TTLMillis) })
	greeting := appendRenewed(nil, names, r.Leases)
	x.startHold(&hold{sent: sent, ttl: lifetime(&shortest), greeting: greeting}, r.Revision, func(h *hold) error { return h.several(all) })
}

func lifetime(l *kv.LeaseResult) time.Duration { return time.Duration(l.TTLMillis) * time.Millisecond }

// startHold answers with a stream, which run writes until its end.
func (x *exchange) startHold(h *hold, revision uint64, run func(*hold) error) {
	h.s = x.s
	h.conn, _ = x.r.Context().Value(connKey{}).(net.Conn)
	if c, ok := x.takeOver(valueEventStream, revision); ok {
		h.ctx, h.release, h.to = c.ctx, c.cancel, c
		c.serve(func() error { return run(h) })
		return
	}
	x.dropBody()
	h.ctx, h.release = context.WithCancel(x.r.Context())
	defer h.release()
	h.to = x.startStream(valueEventStream, revision)
	if run(h) != nil {
		// The peer must not take this for an end that was meant.
		panic(http.ErrAbortHandler)
	}
}

// silent is how long the other side may acknowledge nothing.
func (h *hold) silent() time.Duration { return min(h.ttl, maxHoldSilence) }

// one holds a lease until the end of the stream. Its error is nil when that was
// told.
func (h *hold) one(l *kv.LeaseResult) error {
	held := h.s.cfg.Holds.Hold(l.ID, h.ttl, h.sent, h.open)
	defer held.Release()
	name := append(appendLease([]byte(`{"id":"`), l.ID), '"', '}')
	return follow(h, held.News(), name, func(standing leases.Standing) (ended bool, _ error) {
		switch standing {
		case leases.Lost:
			return true, h.tell(api.EventLeaseNotFound, name)
		case leases.Refused:
			return true, h.tell(api.EventDraining, name)
		case leases.Doubtful:
			return false, h.tell(api.EventDoubtful, name)
		}
		return false, h.tell(api.EventHeld, appendGranted(nil, l))
	})
}

// several holds leases, which are sorted by id, until the end of the stream, which
// comes at the latest when the last of them has ended.
func (h *hold) several(all []kv.LeaseResult) error {
	held := h.s.cfg.Holds.HoldAll(all, h.sent, h.open)
	defer held.Release()
	left := len(all)
	granted := func(b []byte, id kv.LeaseID) []byte {
		i, _ := slices.BinarySearchFunc(all, id, func(l kv.LeaseResult, id kv.LeaseID) int { return bytes.Compare(l.ID[:], id[:]) })
		return appendGranted(b, &all[i])
	}
	named := func(b []byte, id kv.LeaseID) []byte {
		return append(appendLease(append(b, `{"id":"`...), id), '"', '}')
	}
	gone := func(b []byte, id kv.LeaseID) []byte { return appendNoLease(b, id.String()) }
	none := []byte(`{"leases":[]}`)
	return follow(h, held.News(), none, func(struct{}) (ended bool, _ error) {
		changes := held.Changes()
		if _, err := h.tellOf(changes, leases.Renewed, api.EventHeld, granted); err != nil {
			return false, err
		}
		if _, err := h.tellOf(changes, leases.Doubtful, api.EventDoubtful, named); err != nil {
			return false, err
		}
		lost, err := h.tellOf(changes, leases.Lost, api.EventLeaseNotFound, gone)
		if left -= lost; err != nil || left == 0 {
			return left == 0, err
		}
		if slices.ContainsFunc(changes, func(c leases.Change) bool { return c.Standing == leases.Refused }) {
			return true, h.tell(api.EventDraining, none)
		}
		return false, nil
	})
}

// tellOf writes an event about those of the changes that are of a kind, if there are
// any, and returns how many.
func (h *hold) tellOf(changes []leases.Change, standing leases.Standing, event string, item func(b []byte, id kv.LeaseID) []byte) (n int, _ error) {
	list := []byte(`{"leases":[`)
	for _, c := range changes {
		if c.Standing != standing {
			continue
		}
		if n++; n > 1 {
			list = append(list, ',')
		}
		list = item(list, c.Lease)
	}
	if n == 0 {
		return 0, nil
	}
	return n, h.tell(event, append(list, ']', '}'))
}

// follow writes the stream of a hold: the greeting, what take says to the news until
// it has ended the stream, and the end of this node with the data of draining.
func follow[News any](h *hold, news <-chan News, draining []byte, take func(News) (ended bool, err error)) error {
	pace := pulse
	if !probePeer(h.conn, h.silent()) {
		// What TCP can't do, because the time is too short or it isn't TCP, something
		// that is written does: it must be acknowledged, too.
		pace = min(pace, h.silent()/holdProbes)
	}
	h.out = sse.AppendEvent(sse.AppendComment(h.out[:0], "connected"), "", api.EventHeld, h.greeting)
	h.greeting = nil
	if err := h.write(); err != nil {
		return err
	}
	timer := time.NewTimer(pace)
	defer timer.Stop()
	for {
		var err error
		ended := false
		select {
		case <-h.ctx.Done():
			return errPeerGone
		case <-h.s.draining:
			return h.tell(api.EventDraining, draining)
		case n := <-news:
			ended, err = take(n)
		case <-timer.C:
			h.out = sse.AppendComment(h.out[:0], "")
			err = h.write()
			timer.Reset(pace)
		}
		if ended || err != nil {
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

// tell writes an event.
func (h *hold) tell(event string, data []byte) error {
	h.out = sse.AppendEvent(h.out[:0], "", event, data)
	return h.write()
}

// write writes what was collected. Of 10,000 leases that is more than a megabyte, which
// is not kept.
func (h *hold) write() error {
	err := h.to.write(h.out)
	h.out = keepLittle(h.out)
	return err
}
