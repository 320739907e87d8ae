package robustness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
)

// A LeaseHold is a time for which a client held a lease by an open connection.
type LeaseHold struct {
	Node int
	// Asked is when the request was sent, Held when the stream said so, Closed when
	// the client closed it or saw its end.
	Asked, Held, Closed int64
	// Doubtful is when the stream last said that it does not know, 0 if it did not,
	// or has taken it back.
	Doubtful int64
}

// A HoldingConnection holds a lease until Close.
type HoldingConnection struct {
	// Events are the names of what the stream says; closed at its end.
	Events chan string
	cancel context.CancelFunc
}

// HoldLease holds a lease by a connection of its own. Without one it returns the
// answer that says why.
func HoldLease(n *Node, lease string) (*HoldingConnection, Answer) {
	ctx, cancel := context.WithCancel(context.Background())
	dialer := net.Dialer{Timeout: time.Second}
	client := http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL()+"/v1/leases/"+lease+"/hold", nil)
	if err != nil {
		cancel()
		return nil, Answer{Err: err}
	}
	tooLong := time.AfterFunc(leaseTimeout, cancel)
	response, err := client.Do(r)
	if err != nil {
		cancel()
		return nil, Answer{Err: err}
	}
	a := Answer{Status: response.StatusCode}
	if a.Status == http.StatusOK {
		events := sse.NewReader(response.Body, 4<<10)
		first, err := events.Next()
		if err == nil && first.Type != api.EventHeld {
			err = fmt.Errorf("the first event is %q", first.Type)
		}
		if err == nil && tooLong.Stop() {
			h := &HoldingConnection{Events: make(chan string, 8), cancel: cancel}
			go h.listen(ctx, events, response.Body)
			return h, a
		}
		a.Err = err
		if err == nil {
			a.Err = context.DeadlineExceeded
		}
	} else if body, err := io.ReadAll(response.Body); err != nil {
		a.Err = err
	} else {
		a.Err = json.Unmarshal(body, &a.Problem)
	}
	cancel()
	_ = response.Body.Close()
	return nil, a
}

// listen ends with the stream, or with Close.
func (h *HoldingConnection) listen(ctx context.Context, events *sse.Reader, body io.Closer) {
	defer body.Close()
	defer close(h.Events)
	for {
		e, err := events.Next()
		if err != nil {
			return
		}
		select {
		case h.Events <- e.Type:
		case <-ctx.Done():
			return
		}
	}
}

// Close closes the connection.
func (h *HoldingConnection) Close() { h.cancel() }

// hold holds a lease for a while, or until its stream ends.
func (h *leaseHolder) hold(l *LeaseLife, lasts time.Duration) {
	n := h.t.cluster.Nodes[h.random.IntN(len(h.t.cluster.Nodes))]
	held := &LeaseHold{Node: n.Index, Asked: h.t.now()}
	stream, a := HoldLease(n, l.ID)
	held.Held = h.t.now()
	call := LeaseCall{Node: n.Index, Sent: held.Asked, Answered: held.Held, Outcome: a.outcome()}
	h.t.complain(n, Request{Method: http.MethodPost, Path: "/v1/leases/" + l.ID + "/hold"}, &a)
	if l.gone(call, a.Problem.Code) {
		return
	}
	l.Calls = append(l.Calls, call)
	if stream == nil {
		return
	}
	l.Holds = append(l.Holds, held)
	defer func() {
		held.Closed = h.t.now()
		stream.Close()
	}()
	enough := time.NewTimer(lasts)
	defer enough.Stop()
	for {
		select {
		case <-enough.C:
			return
		case <-h.t.quit:
			return
		case event, more := <-stream.Events:
			now := h.t.now()
			switch {
			case !more, event == api.EventDraining:
				return
			case event == api.EventDoubtful:
				held.Doubtful = now
			case event == api.EventHeld:
				held.Doubtful = 0
			default:
				l.gone(LeaseCall{Node: n.Index, Sent: now, Answered: now}, event)
				return
			}
		}
	}
}

const (
	// renewsWithin is longer than a node that commits within commitWithin leaves a
	// lease that it holds without a renewal, beyond a third of its time to live.
	renewsWithin = time.Second
	// keepsAfter is how long before the end of a lease it must have been renewed,
	// beyond its time to live: no lease ends later.
	keepsAfter = lateAtMost + commitWithin
	// wireTells is how long what a node says may be on its way where wires are broken for
	// long: TCP sends it again after a while that has doubled with each try.
	wireTells = 15 * time.Second
)

// Unheld finds leases that ended though a node held them that was well, and streams
// that went on to say that a lease is held when it had ended.
func (t *LeaseTrace) Unheld(ends leaseEnds) (wrong []string) {
	well := wellNodes(t.Probes)
	tells := int64(renewsWithin)
	if t.Lingers != 0 {
		tells += int64(wireTells)
	}
	for _, l := range t.Lives {
		end, over := ends.of[l.ID]
		seen, known := t.Seen[end.Revision]
		if !over || !known || end.Reason != "expired" {
			continue
		}
		for _, h := range l.Holds {
			closed := h.Closed
			if closed == 0 {
				closed = t.End
			}
			// What it was before the last renewal that can count is of no matter.
			if from := max(h.Held, seen-l.TTL-int64(keepsAfter)); h.Held < seen && seen < closed && covers(well[h.Node], from, seen) {
				wrong = append(wrong, fmt.Sprintf("UNKEPT: lease %s of %v expired at revision %d, though node %d held it for %v and was well",
					l.ID, time.Duration(l.TTL), end.Revision, h.Node+1, time.Duration(seen-h.Held)))
			}
			if until := seen + l.TTL/3 + tells; h.Held < seen && until < closed && h.Doubtful == 0 && covers(well[h.Node], seen, until) {
				wrong = append(wrong, fmt.Sprintf("UNTRUE: lease %s of %v expired at revision %d, and node %d went on to hold it for %v",
					l.ID, time.Duration(l.TTL), end.Revision, h.Node+1, time.Duration(closed-seen)))
			}
		}
	}
	return wrong
}

// wellNodes are, by node, the spans of time in which its own commits were fast.
func wellNodes(probes []Probe) map[int][]span {
	byNode := map[int][]Probe{}
	for _, p := range probes {
		byNode[p.Node] = append(byNode[p.Node], p)
	}
	well := map[int][]span{}
	for node, own := range byNode {
		well[node] = counted(own, commitWithin)
	}
	return well
}

// covers reports whether all of a time is in the spans.
func covers(spans []span, from, until int64) bool {
	return within(spans, from, until) == until-from
}
