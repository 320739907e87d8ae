package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// A Fault is one kind of harm. It ends with every node running; whether they
// are ready in time is for the scenario to ask.
type Fault func(c *Cluster, random *rand.Rand, round int) error

// moment lets a random time pass. Nothing else of the package sleeps but an open
// loop, until its next request is due: faults come when they come.
func moment(random *rand.Rand, atLeast, atMost time.Duration) {
	time.Sleep(atLeast + time.Duration(random.Int64N(int64(atMost-atLeast))))
}

// victims picks nodes: one in the first round, two in the second, and so on to
// all of them, and again.
func victims(c *Cluster, random *rand.Rand, round int) []*Node {
	n := round%len(c.Nodes) + 1
	var picked []*Node
	for _, i := range random.Perm(len(c.Nodes))[:n] {
		picked = append(picked, c.Nodes[i])
	}
	return picked
}

// KillNine kills one, two or all nodes, all at once or one after the other, and
// starts them again.
func KillNine(c *Cluster, random *rand.Rand, round int) error {
	picked := victims(c, random, round)
	apart := random.IntN(2) == 0
	for i, n := range picked {
		if i > 0 && apart {
			moment(random, 0, 300*time.Millisecond)
		}
		c.Note("kill -9 %s", n.Name)
		if err := n.Kill(); err != nil {
			return err
		}
	}
	moment(random, 0, 1500*time.Millisecond)
	for i, n := range picked {
		if i > 0 {
			moment(random, 0, 300*time.Millisecond)
		}
		c.Note("start %s", n.Name)
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Pause stops one node where it stands for longer than an election takes, or two
// for longer than a write is tried, in turn, and lets them go on. Whoever led
// must notice that it does no more; a write that only a minority has must not be
// called refused, for it is applied when the others wake up.
func Pause(c *Cluster, random *rand.Rand, round int) error {
	picked := victims(c, random, round%2)
	for _, n := range picked {
		c.Note("SIGSTOP %s", n.Name)
		if err := n.Pause(); err != nil {
			return err
		}
	}
	if len(picked) == 1 {
		moment(random, 2500*time.Millisecond, 4*time.Second)
	} else {
		moment(random, 6*time.Second, 7*time.Second)
	}
	var errs []error
	for _, n := range picked {
		c.Note("SIGCONT %s", n.Name)
		errs = append(errs, n.Resume())
	}
	return errors.Join(errs...)
}

// Terminate stops the nodes one after the other as an operator does, and starts
// each again.
func Terminate(c *Cluster, random *rand.Rand, round int) error {
	for _, i := range random.Perm(len(c.Nodes)) {
		n := c.Nodes[i]
		c.Note("SIGTERM %s", n.Name)
		if err := n.Stop(); err != nil {
			return err
		}
		moment(random, 0, 300*time.Millisecond)
		c.Note("start %s", n.Name)
		if err := n.Start(); err != nil {
			return err
		}
		if err := c.AwaitReady([]*Node{n}); err != nil {
			return err
		}
	}
	return nil
}

// Partition cuts one node off from the others for longer than an election takes,
// silently or with broken connections, in both directions or so that it speaks
// and does not hear.
func Partition(c *Cluster, random *rand.Rand, _ int) error {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	return isolated(c, random, n, func() error {
		moment(random, 1500*time.Millisecond, 4*time.Second)
		return nil
	})
}

// LeaveBehind cuts one node off until the others have cut their log behind what
// it has, so that it needs a snapshot, and its state jumps. Meant for servers
// with a short log.
func LeaveBehind(c *Cluster, random *rand.Rand, _ int) error {
	var left *Node
	before := 0
	if err := leaveBehind(c, random, func(n *Node) error {
		left, before = n, installed(n)
		return nil
	}); err != nil {
		return err
	}
	_, err := retry(func() (struct{}, error) {
		if installed(left) == before {
			return struct{}{}, fmt.Errorf("%s was left behind, and has taken over no snapshot", left.Name)
		}
		return struct{}{}, nil
	})
	return err
}

// leaveBehind is LeaveBehind, and does something to the node just before it may
// have its snapshot.
func leaveBehind(c *Cluster, random *rand.Rand, then func(*Node) error) error {
	i := random.IntN(len(c.Nodes))
	n, other := c.Nodes[i], c.Nodes[(i+1)%len(c.Nodes)]
	h := NewHTTP()
	defer h.Close()
	return isolated(c, random, n, func() error {
		from, err := retry(func() (uint64, error) { return appliedIndex(h, n) })
		if err != nil {
			return err
		}
		_, err = retry(func() (struct{}, error) {
			// Whatever the traffic does, the log grows, by what changes nothing.
			for range shortLogEntries / 10 {
				h.Do(other, Request{Method: http.MethodDelete, Path: "/v1/kv/nothing"})
			}
			at, err := appliedIndex(h, other)
			if err == nil && at < from+3*shortLogEntries {
				err = fmt.Errorf("the others have applied entry %d, and %s entry %d", at, n.Name, from)
			}
			return struct{}{}, err
		})
		// What waited on its way is lost, or the node might catch up from that.
		c.Network.Isolate(n.Index, Refusing, true)
		return errors.Join(err, then(n))
	})
}

// isolated does something while a node is cut off.
func isolated(c *Cluster, random *rand.Rand, n *Node, meanwhile func() error) error {
	how, both := Silent, random.IntN(3) > 0
	if random.IntN(2) == 0 {
		how = Refusing
	}
	c.Note("cut off %s (silent: %v, both directions: %v)", n.Name, how == Silent, both)
	met := c.Network.Met()
	c.Network.Isolate(n.Index, how, both)
	err := meanwhile()
	if err == nil && c.Network.Met() == met {
		err = fmt.Errorf("%s was cut off, and nothing met the cut", n.Name)
	}
	c.Network.Heal()
	c.Note("heal %s", n.Name)
	return err
}

// appliedIndex asks a node what it has applied, whatever the others think.
func appliedIndex(h *HTTP, n *Node) (uint64, error) {
	a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/status"})
	if err := a.explain(); err != nil {
		return 0, err
	}
	var status struct {
		Applied uint64 `json:"applied_index"`
	}
	err := json.Unmarshal(a.Body, &status)
	return status.Applied, err
}
