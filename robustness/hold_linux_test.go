package robustness

import (
	"testing"
)

// TestHoldOfAVanishedClient cuts the wire between a client that holds a lease and its
// node, which stays with the others. No connection is closed, and nothing says that
// the client is gone; its lease ends all the same.
func TestHoldOfAVanishedClient(t *testing.T) {
	s := InNamespaces(t)
	if s == nil {
		return
	}
	c := NewCluster(t, NewEvidence(t), seeded(t), Layout{Size: 3, Namespaces: s})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()
	n, other := c.Nodes[0], c.Nodes[1]
	held := grantKept(t, h, n, "01KB0000000000000000000000")
	mend, err := s.refuse(n.Index, hubAddress)
	must(t, err)
	defer func() { must(t, mend()) }()
	awaitGone(t, h, other, "kept")
	select {
	case event, more := <-held.Events:
		t.Errorf("the client was told %q (ended: %v) over a wire that is cut", event, !more)
	default:
	}
}
