package robustness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
)

// A Clone is where a second process of a member listens.
type Clone struct{ Address, Peer string }

// Run starts a second process on a copy of a member's directory (F-20), as a
// machine that was cloned does. It must not serve, also where it came first and
// passed for a restart, and it must say why.
func (k Clone) Run(c *Cluster, random *rand.Rand, round int) (err error) {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	dir := c.Evidence.Path(fmt.Sprintf("clone%d", round))
	clone := n.clone(k.Address, k.Peer, dir, dir+".log")
	if err := n.Stop(); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(n.Dir)); err != nil {
		return err
	}
	first := round%2 == 1
	c.Note("%s starts, the copy first: %v", clone.Name, first)
	defer func() {
		if clone.Running() {
			err = errors.Join(err, clone.Kill())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	start := []*Node{n, clone}
	if first {
		start = []*Node{clone, n}
	}
	h := NewHTTP()
	defer h.Close()
	for _, each := range start {
		if err := each.Start(); err != nil {
			return err
		}
		if each == n {
			err = c.AwaitReady([]*Node{n})
		} else {
			err = refused(h, clone)
		}
		if err != nil {
			return err
		}
	}
	_, err = retry(func() (struct{}, error) {
		log, err := os.ReadFile(clone.Log)
		if err == nil && !bytes.Contains(log, []byte("a copy of the other's directory")) {
			err = fmt.Errorf("%s did not say why it is refused", clone.Name)
		}
		return struct{}{}, err
	})
	return errors.Join(err, refused(h, clone))
}

// refused asks a node that is not the member, once it answers at all, to write and
// to read.
func refused(h *HTTP, n *Node) error {
	_, err := retry(func() (struct{}, error) {
		a := h.Do(n, Request{Method: http.MethodGet, Path: "/livez"})
		return struct{}{}, a.explain()
	})
	if err != nil {
		return err
	}
	for _, q := range []Request{
		{Method: http.MethodPut, Path: "/v1/kv/clone", Body: []byte("of nobody")},
		{Method: http.MethodGet, Path: "/v1/kv/clone"},
		{Method: http.MethodGet, Path: "/readyz"},
	} {
		if a := h.Do(n, q); a.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("%s answered %s %s with status %d, error %v", n.Name, q.Method, q.Path, a.Status, a.Err)
		}
	}
	return nil
}
