package robustness

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

const (
	// reserve is the free disk below which a node refuses what grows the store.
	reserve = 512 << 20
	// smallDisk has room for the reserve and its hysteresis, and little more.
	smallDisk = 2 << 30
)

// await waits until a request is answered with a status and a code.
func await(t *testing.T, h *HTTP, n *Node, method, path, body string, want int, code string) {
	t.Helper()
	_, err := retry(func() (struct{}, error) {
		if got, gotCode := status(h, n, method, path, body); got != want || gotCode != code {
			return struct{}{}, fmt.Errorf("%s: %s %s answers %d %q, want %d %q", n.Name, method, path, got, gotCode, want, code)
		}
		return struct{}{}, nil
	})
	must(t, err)
}

func TestFullDisk(t *testing.T) {
	beside(t)
	s, e, disks := withDisks(t, Scenario{Layout: Layout{Size: 1}}, smallDisk)
	c := NewCluster(t, e, rand.New(rand.NewPCG(Seed(t), 0)), s.Layout)
	must(t, c.Start())
	h, n := NewHTTP(), c.Nodes[0]
	defer h.Close()
	for _, key := range []string{"a", "b"} {
		await(t, h, n, http.MethodPut, "/v1/kv/"+key, "before", 201, "")
	}

	remove, err := disks[0].Fill(reserve - 32<<20)
	must(t, err)
	await(t, h, n, http.MethodPut, "/v1/kv/a", "refused", 507, "no-space")
	a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/kv/a"})
	if a.Status != 200 {
		t.Errorf("a read on a full disk answers %d %s", a.Status, a.Problem.Code)
	}
	if got, code := status(h, n, http.MethodDelete, "/v1/kv/b", ""); got != 200 {
		t.Errorf("a delete on a full disk answers %d %s", got, code)
	}
	if got, _ := status(h, n, http.MethodGet, "/v1/kv/b", ""); got != 404 {
		t.Errorf("what was deleted on a full disk answers %d", got)
	}

	must(t, remove())
	await(t, h, n, http.MethodPut, "/v1/kv/c", "after", 201, "")
	if got, _ := status(h, n, http.MethodGet, "/v1/kv/a", ""); got != 200 {
		t.Errorf("what was there before the disk was full answers %d", got)
	}
	var v Verdict
	v.CheckLogs(c)
	Judge(t, &v)
}

// TestDiskToTheLastByte takes the last byte of one node's disk, under traffic.
// The node may end; it may not answer what it could not keep, and it comes back
// when there is room.
func TestDiskToTheLastByte(t *testing.T) {
	beside(t)
	s, _, disks := withDisks(t, Scenario{Layout: Layout{Size: 3}, Rounds: rounds(2, 20), Seed: Seed(t)}, smallDisk)
	s.MayCrash = true
	s.Fault = func(c *Cluster, random *rand.Rand, round int) error {
		n := c.Nodes[random.IntN(len(c.Nodes))]
		remove, err := disks[n.Index].Fill(0)
		if err != nil {
			return err
		}
		c.Note("the disk of %s is full", n.Name)
		moment(random, 2*time.Second, 4*time.Second)
		if err := remove(); err != nil {
			return err
		}
		c.Note("it is not any more; the node runs: %v", n.Running())
		if n.Running() {
			return nil
		}
		_ = n.Kill() // it says that the node had ended, which is known
		return n.Start()
	}
	Judge(t, s.Run(t))
}

// TestQuota fills the store of three nodes until the one with the smallest quota
// raises the alarm, which all of them obey. Deleting everything and compacting
// ends it: nothing else may be needed, for nothing else is allowed.
func TestQuota(t *testing.T) {
	beside(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	c := NewCluster(t, NewEvidence(t), random, Layout{
		Size:  3,
		Flags: [][]string{nil, {"--quota", "256MiB"}, nil},
	})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()

	// Of random bytes, so that they take the room that they have.
	var wrote int
	for a := (Answer{}); a.Status != 507; wrote++ {
		if wrote > 400 {
			t.Fatal("the quota was not noticed")
		}
		value := make([]byte, 1<<20)
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		a = h.Do(c.Nodes[wrote%3], Request{
			Method: http.MethodPut, Path: fmt.Sprintf("/v1/kv/fill/%04d", wrote),
			Body: value,
		})
		if a.Err != nil || a.Status >= 400 && a.Status != 507 {
			t.Fatalf("write %d: %v", wrote, a.explain())
		}
	}
	c.Note("refused after %d MiB", wrote)
	for _, n := range c.Nodes {
		await(t, h, n, http.MethodPut, "/v1/kv/x", "refused", 507, "no-space")
	}
	if got, code := status(h, c.Nodes[0], http.MethodGet, "/v1/kv/fill/0000", ""); got != 200 {
		t.Errorf("a read under the alarm answers %d %s", got, code)
	}

	must(t, func() error {
		a := h.Do(c.Nodes[2], Request{Method: http.MethodDelete, Path: "/v1/kv?prefix=fill/"})
		if err := a.explain(); err != nil {
			return fmt.Errorf("delete under the alarm: %w", err)
		}
		a = h.Do(c.Nodes[0], Request{
			Method: http.MethodPost, Path: "/v1/compact", Body: fmt.Appendf(nil, `{"revision":%d}`, a.Revision),
			Header: map[string]string{"Content-Type": "application/json"},
		})
		return a.explain()
	}())
	for _, n := range c.Nodes {
		await(t, h, n, http.MethodPut, "/v1/kv/after/"+n.Name, "taken", 201, "")
	}
	_, err := c.AwaitEqual(h, 1)
	must(t, err)
	var v Verdict
	v.CheckLogs(c)
	Judge(t, &v)
}
