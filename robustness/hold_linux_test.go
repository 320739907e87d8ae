package robustness

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
)

// lockWaiting waits until so many wait for a lock, as a node sees it.
func lockWaiting(t *testing.T, h *HTTP, n *Node, name string, want int) {
	t.Helper()
	_, err := retry(func() (struct{}, error) {
		a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/locks/" + name})
		var state struct {
			Waiting int `json:"waiting"`
		}
		err := a.explain()
		if err == nil {
			err = json.Unmarshal(a.Body, &state)
		}
		if err == nil && state.Waiting != want {
			err = fmt.Errorf("%d wait for %s", state.Waiting, name)
		}
		return struct{}{}, err
	})
	must(t, err)
}

// TestHoldOfAVanishedClient cuts the wire between clients, of which one holds a lease
// and one waits for a lock, and their node, which stays with the others. No connection
// is closed, and nothing says that the clients are gone; the lease ends all the same,
// and the other has no place in the queue any more.
func TestHoldOfAVanishedClient(t *testing.T) {
	beside(t)
	s := InNamespaces(t, 3)
	if s == nil {
		return
	}
	c := NewCluster(t, NewEvidence(t), seeded(t), Layout{Size: 3, Namespaces: s})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()
	n, other := c.Nodes[0], c.Nodes[1]
	held := grantKept(t, h, n, "01KB0000000000000000000000")
	lock := h.Do(other, jsonRequest(http.MethodPost, "/v1/locks/l", `{"ttl_seconds":600}`))
	must(t, lock.explain())
	dialer := net.Dialer{KeepAlive: -1} // the client says nothing by itself
	waiter, err := dialer.Dial("tcp", n.Address)
	must(t, err)
	defer waiter.Close()
	const body = `{"ttl_seconds":600,"wait_seconds":600}`
	_, err = fmt.Fprintf(waiter, "POST /v1/locks/l HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", n.Address, len(body), body)
	must(t, err)
	lockWaiting(t, h, other, "l", 1)
	mend, err := s.refuse(n.Index, hubAddress)
	must(t, err)
	defer func() { must(t, mend()) }()
	awaitGone(t, h, other, "kept")
	lockWaiting(t, h, other, "l", 0)
	select {
	case event, more := <-held.Events:
		t.Errorf("the client was told %q (ended: %v) over a wire that is cut", event, !more)
	default:
	}
}
