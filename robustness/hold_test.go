package robustness

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
)

// grantKept grants a lease with a key, kept, and holds it on a node.
func grantKept(t *testing.T, h *HTTP, n *Node, id string) *HoldingConnection {
	t.Helper()
	a := h.Do(n, grantOf(id, 3*time.Second))
	must(t, a.explain())
	held, a := HoldLease(n, id)
	must(t, a.explain())
	t.Cleanup(held.Close)
	a = h.Do(n, Request{Method: http.MethodPut, Path: "/v1/kv/kept?lease=" + id})
	must(t, a.explain())
	return held
}

// awaitGone waits until a key is gone, as a node sees it.
func awaitGone(t *testing.T, h *HTTP, n *Node, key string) {
	t.Helper()
	_, err := retry(func() (struct{}, error) {
		if status, _ := status(h, n, http.MethodGet, "/v1/kv/"+key, ""); status != http.StatusNotFound {
			return struct{}{}, fmt.Errorf("%s is still there: status %d", key, status)
		}
		return struct{}{}, nil
	})
	must(t, err)
}

// awaitEvent waits for what a stream says next.
func awaitEvent(t *testing.T, held *HoldingConnection, want string) {
	t.Helper()
	select {
	case event, more := <-held.Events:
		if !more || event != want {
			t.Fatalf("the stream says %q (ended: %v), want %q", event, !more, want)
		}
	case <-time.After(wholeWithin):
		t.Fatalf("the stream does not say %q", want)
	}
}

// TestHoldOnANodeThatIsCutOff: a node that is cut off can't renew, and does not know
// whether the others have ended the lease. It says so, and that the lease is lost
// once it knows.
func TestHoldOnANodeThatIsCutOff(t *testing.T) {
	beside(t)
	c := NewCluster(t, NewEvidence(t), seeded(t), Layout{Size: 3, Relayed: true})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()
	leads, err := leaderOf(h, c)
	must(t, err)
	for i, n := range []*Node{leads, c.Nodes[(leads.Index+1)%3]}[:rounds(1, 2)] {
		other := c.Nodes[(n.Index+2)%3]
		held := grantKept(t, h, n, fmt.Sprintf("01KB000000000000000000000%d", i))
		c.Network.Isolate(n.Index, Silent, true)
		awaitEvent(t, held, api.EventDoubtful)
		awaitGone(t, h, other, "kept")
		c.Network.Heal()
		awaitEvent(t, held, api.EventLeaseNotFound)
		must(t, c.AwaitReady(c.Nodes))
	}
}

// TestHoldThroughALossOfLeader: without a leader no lease ends, and what is held is
// held afterwards.
func TestHoldThroughALossOfLeader(t *testing.T) {
	if !Long() {
		t.Skip("SKIPPED: CAIRN_LONG=1 runs it; TestLeases has some of it")
	}
	c, h := startCluster(t, 3)
	leads, err := leaderOf(h, c)
	must(t, err)
	n := c.Nodes[(leads.Index+1)%3]
	held := grantKept(t, h, n, "01KB0000000000000000000002")
	// Twice, so that it is longer than any lease without a renewal lives.
	for range 2 {
		must(t, leads.Kill())
		_, err := AwaitWrite(h, n, "after", "a loss")
		must(t, err)
		must(t, leads.Start())
		must(t, c.AwaitReady(c.Nodes))
	}
	if status, _ := status(h, n, http.MethodGet, "/v1/kv/kept", ""); status != http.StatusOK {
		t.Errorf("the key is gone: status %d", status)
	}
	held.Close()
	awaitGone(t, h, n, "kept")
}
