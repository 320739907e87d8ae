package robustness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// reserve is the free disk below which a node refuses what grows the store.
	reserve = 512 << 20
	// smallDisk has room for the reserve and its hysteresis, and little more.
	smallDisk = 2 << 30
)

// answers waits until a request is answered with a status and a code.
func answers(h *HTTP, n *Node, r Request, want int, code string) error {
	_, err := retry(func() (struct{}, error) {
		if a := h.Do(n, r); a.Status != want || a.Problem.Code != code {
			return struct{}{}, fmt.Errorf("%s: %s %s answers %d %q, want %d %q", n.Name, r.Method, r.Path, a.Status, a.Problem.Code, want, code)
		}
		return struct{}{}, nil
	})
	return err
}

// TestFullDisk has the disk of one node go below the reserve (F-10), and those of all three
// at the same time (F-11), in turn, under traffic. All nodes refuse what grows the store, do
// everything else, and take writes again by themselves when there is room.
func TestFullDisk(t *testing.T) {
	beside(t)
	l, disks := withDisks(t, Layout{Size: 3}, smallDisk)
	Judge(t, Scenario{Layout: l, Rounds: rounds(2, 40), Fault: belowTheReserve(disks), Seed: Seed(t), Alive: true}.Run(t))
}

// belowTheReserve takes what one node's disk has above the reserve, or all, in turn. What it
// asks for itself changes no key: the history is that of the traffic.
func belowTheReserve(disks []*Disk) Fault {
	return func(c *Cluster, random *rand.Rand, round int) error {
		h := NewHTTP()
		defer h.Close()
		full := disks[round/2%len(disks):][:1]
		if round%2 == 1 {
			full = disks
		}
		lease, err := grantOn(h, c.Nodes[round%len(c.Nodes)])
		if err != nil {
			return err
		}
		remove, err := fillAll(full, reserve-32<<20)
		if err != nil {
			return err
		}
		c.Note("%d disks are below the reserve", len(full))
		for _, n := range c.Nodes {
			err = errors.Join(err, refusesGrowth(h, n), doesTheRest(h, n, lease))
		}
		moment(random, 0, time.Second)
		c.Note("there is room")
		if err := errors.Join(err, remove()); err != nil {
			return err
		}
		for _, n := range c.Nodes {
			if _, err := grantOn(h, n); err != nil {
				return err
			}
		}
		return nil
	}
}

// grantOn has a node grant a lease of a minute, as soon as it does.
func grantOn(h *HTTP, n *Node) (id string, err error) {
	return retry(func() (string, error) {
		a := h.Do(n, jsonRequest(http.MethodPost, "/v1/leases", `{"ttl_seconds":60}`))
		if err := a.explain(); err != nil {
			return "", err
		}
		var granted struct{ ID string }
		err := json.Unmarshal(a.Body, &granted)
		return granted.ID, err
	})
}

// refusesGrowth waits until a node has no room for a lease, and wants that it has none for a
// write.
func refusesGrowth(h *HTTP, n *Node) error {
	if err := answers(h, n, jsonRequest(http.MethodPost, "/v1/leases", `{"ttl_seconds":60}`), 507, "no-space"); err != nil {
		return err
	}
	put := Request{Method: http.MethodPut, Path: "/v1/kv/refused/" + n.Name, Body: []byte("refused")}
	if a := h.Do(n, put); a.Status != 507 {
		return fmt.Errorf("%s refuses a lease, and answers %d %s to a write", n.Name, a.Status, a.Body)
	}
	return nil
}

// doesTheRest wants that a node under the alarm reads, renews, deletes and compacts.
func doesTheRest(h *HTTP, n *Node, lease string) error {
	for _, r := range []Request{
		{Method: http.MethodGet, Path: "/v1/kv?prefix=k/"},
		{Method: http.MethodPost, Path: "/v1/leases/" + lease + "/keepalive"},
		{Method: http.MethodDelete, Path: "/v1/kv/nothing"},
		jsonRequest(http.MethodPost, "/v1/compact", `{"keep_revisions":1000000}`), // the history is looked at in the end
	} {
		if a := h.Do(n, r); a.Status != 200 {
			return fmt.Errorf("on a full disk, %s answers %d %s to %s %s", n.Name, a.Status, a.Body, r.Method, r.Path)
		}
	}
	return nil
}

// fillAll takes all but some bytes of several disks at once.
func fillAll(disks []*Disk, leave int64) (remove func() error, err error) {
	var removes []func() error
	for _, d := range disks {
		r, err := d.Fill(leave)
		if r != nil {
			removes = append(removes, r)
		}
		if err != nil {
			return nil, errors.Join(err, undo(removes)())
		}
	}
	return undo(removes), nil
}

// TestDiskToTheLastByte takes the last byte of one node's disk (F-10), and of all
// three at once (F-11), in turn, under traffic. A node may end, and then says why,
// as often as it is started before there is room; it may not answer what it could
// not keep, and it comes back when there is.
func TestDiskToTheLastByte(t *testing.T) {
	beside(t)
	l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, smallDisk)
	Judge(t, Scenario{Layout: l, Rounds: rounds(2, 40), Fault: toTheLastByte(disks), Seed: Seed(t)}.Run(t))
}

// toTheLastByte takes the last byte of one node's disk, or of all, in turn.
func toTheLastByte(disks []*Disk) Fault {
	return func(c *Cluster, random *rand.Rand, round int) error {
		nodes := []*Node{c.Nodes[random.IntN(len(c.Nodes))]}
		if round%2 == 1 {
			nodes = c.Nodes
		}
		var full []*Disk
		for _, n := range nodes {
			full = append(full, disks[n.Index])
		}
		remove, err := fillAll(full, 0)
		if err != nil {
			return err
		}
		c.Note("the disks of %d nodes are full", len(nodes))
		moment(random, 2*time.Second, 8*time.Second)
		for _, n := range nodes {
			if n.Running() {
				continue
			}
			if err := restartEnded(c, n); err != nil {
				return errors.Join(err, remove())
			}
			// Whether it serves on a disk that is full, or ends again, is its affair.
			if took, err := n.AwaitReady(2 * time.Second); err != nil {
				c.Note("started on a full disk: %v", err)
			} else {
				c.Note("%s is ready on a full disk after %v", n.Name, took)
			}
		}
		if err := remove(); err != nil {
			return err
		}
		c.Note("there is room")
		return afterTheFullDisk(c, nodes)
	}
}

// afterTheFullDisk starts those of some nodes that have ended, before it asks whether
// anybody is ready, who may need them. One that has met the full disk may be about to end.
func afterTheFullDisk(c *Cluster, nodes []*Node) error {
	for {
		var ended []*Node
		for _, n := range nodes {
			if !n.Running() {
				ended = append(ended, n)
			}
		}
		if err := c.each(ended, func(n *Node) error { return restartEnded(c, n) }); err != nil {
			return err
		}
		err := c.AwaitReady(nodes)
		if err == nil || !slices.ContainsFunc(nodes, func(n *Node) bool { return !n.Running() }) {
			return err
		}
	}
}

// smallMemtables has the store of a server make files all the time, and not after
// 16 MiB.
var smallMemtables = Edit{File: "storage/store.go", Old: "o.MemTableBytes = 16 << 20", New: "o.MemTableBytes = 64 << 10"}

// TestNoInodes takes the last inode of one node's disk, or of all three, in turn,
// under traffic (F-10). There are bytes enough, so the reserve does not see it: the
// store's background work does, or a log that needs a file. A node refuses what grows
// the store, or ends and says why; nothing that was acknowledged is lost, and
// everything goes on when there are inodes again.
func TestNoInodes(t *testing.T) {
	onlyLong(t)
	for name, edits := range map[string][]Edit{"of the store": {smallMemtables}, "of the log": {shortLog}} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			binary, err := BuildEdited(t.TempDir(), edits...)
			must(t, err)
			l, disks := withDisks(t, Layout{Size: 3, Binary: binary, MayEnd: true}, smallDisk, "-N", "2000")
			Judge(t, Scenario{Layout: l, Rounds: rounds(2, 20), Fault: noInodes(disks), Seed: Seed(t)}.Run(t))
		})
	}
}

func noInodes(disks []*Disk) Fault {
	return func(c *Cluster, random *rand.Rand, round int) error {
		nodes := []*Node{c.Nodes[random.IntN(len(c.Nodes))]}
		if round%2 == 1 {
			nodes = c.Nodes
		}
		before := map[*Node]int64{}
		for _, n := range nodes {
			info, err := os.Stat(n.Log)
			if err != nil {
				return err
			}
			before[n] = info.Size()
		}
		c.Note("the disks of %d nodes have no inodes", len(nodes))
		fill := func() error {
			var errs []error
			for _, n := range nodes {
				errs = append(errs, disks[n.Index].FillInodes())
			}
			return errors.Join(errs...)
		}
		// Files that the node deletes give inodes back, which are taken as well.
		_, met := retry(func() (struct{}, error) {
			if err := fill(); err != nil {
				return struct{}{}, err
			}
			return struct{}{}, metNoRoom(c, nodes, before)
		})
		moment(random, 0, 2*time.Second)
		errs := []error{met}
		for _, n := range nodes {
			errs = append(errs, disks[n.Index].FreeInodes())
		}
		c.Note("there are inodes")
		for _, n := range nodes {
			if _, err := n.AwaitReady(readyWithin); err != nil && !n.Running() {
				errs = append(errs, restartEnded(c, n))
			}
		}
		return errors.Join(errs...)
	}
}

// metNoRoom asks whether one of some nodes has noticed that its disk is full since its
// log was so long. The others need not, where a majority has ended of it.
func metNoRoom(c *Cluster, nodes []*Node, before map[*Node]int64) error {
	for _, n := range nodes {
		log, err := os.ReadFile(n.Log)
		if err != nil {
			return err
		}
		if bytes.Contains(log[before[n]:], []byte("has no room for")) || bytes.Contains(log[before[n]:], []byte("can't go on; its disk is full")) {
			c.Note("%s has noticed; it runs: %v", n.Name, n.Running())
			return nil
		}
	}
	return fmt.Errorf("none of %d nodes has noticed that its disk has no inodes", len(nodes))
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
		must(t, refusesGrowth(h, n))
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
		must(t, answers(h, n, Request{Method: http.MethodPut, Path: "/v1/kv/after/" + n.Name, Body: []byte("taken")}, 201, ""))
	}
	_, err := c.AwaitEqual(h, 1)
	must(t, err)
	var v Verdict
	v.CheckLogs(c)
	Judge(t, &v)
}
