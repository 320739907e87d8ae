package robustness

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
)

// CheckAlive asks each node of a cluster whose faults have ended for one of each:
// a write, a linearizable read of it, the event of a watch, and the end of a lease.
func (v *Verdict) CheckAlive(c *Cluster) {
	v.AddError(c.each(c.Nodes, func(n *Node) error {
		h := NewHTTP()
		defer h.Close()
		if err := alive(h, n); err != nil {
			return fmt.Errorf("%s is not alive after all faults have ended: %w", n.Name, err)
		}
		return nil
	}))
}

func alive(h *HTTP, n *Node) error {
	key := "alive/" + n.Name
	written, err := AwaitWrite(h, n, key, "whole")
	if err != nil {
		return err
	}
	if _, err := retry(func() (Answer, error) {
		a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/kv/" + key})
		err := a.explain()
		if err == nil && !strings.Contains(string(a.Body), `"value":"whole"`) {
			err = fmt.Errorf("it reads %s", a.Body)
		}
		return a, err
	}); err != nil {
		return fmt.Errorf("a linearizable read: %w", err)
	}
	// The shortest lease that there is: its end deletes the key, which the watch
	// that began at the write above must tell.
	if _, err := retry(func() (Answer, error) {
		a := h.Do(n, Request{Method: http.MethodPut, Path: "/v1/kv/" + key + "?ttl=1s", Body: []byte("ends")})
		return a, a.explain()
	}); err != nil {
		return fmt.Errorf("a lease: %w", err)
	}
	return awaitExpiry(n, key, written.Revision)
}

// awaitExpiry reads a watch until it has told of the key's end.
func awaitExpiry(n *Node, key string, from uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), wholeWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/watch?key=%s&from_revision=%d", n.URL(), key, from), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/x-ndjson")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("a watch: %w", err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"reason":"expired"`) {
			return nil
		}
	}
	return fmt.Errorf("a watch told nothing of the end of a lease within %v: %w", wholeWithin, lines.Err())
}
