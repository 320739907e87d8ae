package robustness

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// wholeWithin is how long a cluster whose faults have ended may take until all
// nodes agree.
const wholeWithin = 30 * time.Second

// A Hash is a node's answer to what it contains.
type Hash struct {
	Revision uint64 `json:"revision"`
	Compact  uint64 `json:"compact_revision"`
	Hash     string `json:"hash"`
}

// AwaitWrite repeats a write on a node until it succeeds, but not longer than
// wholeWithin. The key is outside of what the clients work on, if it says so.
func AwaitWrite(h *HTTP, n *Node, key, value string) (Answer, error) {
	return retry(func() (Answer, error) {
		a := h.Do(n, Request{Method: http.MethodPut, Path: "/v1/kv/" + key, Body: []byte(value)})
		return a, a.explain()
	})
}

// retry does something until it succeeds, but not longer than wholeWithin.
func retry[T any](do func() (T, error)) (T, error) { return retryEvery(5*pollEvery, do) }

// retryEvery is retry with another time between two tries.
func retryEvery[T any](every time.Duration, do func() (T, error)) (T, error) {
	deadline := time.NewTimer(wholeWithin)
	defer deadline.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		result, err := do()
		if err == nil {
			return result, nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return result, fmt.Errorf("not within %v: %w", wholeWithin, err)
		}
	}
}

// HashOf asks a node for its hash once it has applied a revision.
func HashOf(h *HTTP, n *Node, revision uint64) (Hash, error) {
	a := h.Do(n, Request{Method: http.MethodGet, Path: fmt.Sprintf("/v1/hash?min_revision=%d", revision)})
	if err := a.explain(); err != nil {
		return Hash{}, fmt.Errorf("hash of %s: %w", n.Name, err)
	}
	var hash Hash
	err := json.Unmarshal(a.Body, &hash)
	return hash, err
}

// AwaitEqual waits until all nodes are at one revision, at least the given one,
// and at one compacted revision, and then returns their common hash. Nothing may
// write meanwhile.
func (c *Cluster) AwaitEqual(h *HTTP, revision uint64) (Hash, error) {
	return retry(func() (Hash, error) {
		var first Hash
		for i, n := range c.Nodes {
			hash, err := HashOf(h, n, revision)
			switch {
			case err != nil:
				return hash, err
			case i == 0:
				first = hash
				revision = max(revision, hash.Revision)
			case hash != first:
				return hash, fmt.Errorf("%s has %+v, %s has %+v", c.Nodes[0].Name, first, n.Name, hash)
			}
		}
		return first, nil
	})
}

// status asks for something and returns the status and the code of the answer.
func status(h *HTTP, n *Node, method, path string, body string) (int, string) {
	a := h.Do(n, Request{Method: method, Path: path, Body: []byte(body)})
	return a.Status, a.Problem.Code
}
