package robustness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// diskBytes is the size of a node's disk. The image is sparse.
const diskBytes = 4 << 30

// withDisks gives each node of a layout a disk of its own, made with options of
// mkfs.ext4. The evidence must come first, whose clean-up takes the disks along.
func withDisks(t *testing.T, l Layout, bytes int64, options ...string) (Layout, []*Disk) {
	t.Helper()
	e := l.evidence(t)
	var disks []*Disk
	for i := range l.Size {
		d := NewDisk(t, e, fmt.Sprintf("disk%d", i+1), bytes, options...)
		disks = append(disks, d)
		l.Dirs = append(l.Dirs, d.Dir)
	}
	return l, disks
}

// powerLoss cuts the power of several nodes in the same moment, kills what is
// left of them, and gives the power back.
func powerLoss(disks []*Disk, pick func(c *Cluster, random *rand.Rand, round int) []*Node) Fault {
	return func(c *Cluster, random *rand.Rand, round int) error {
		nodes := pick(c, random, round)
		took, err := cut(disks, nodes)
		if err != nil {
			return err
		}
		c.Note("power is gone from %d nodes, within %v", len(nodes), took)
		for _, n := range nodes {
			// A node may have noticed that its disk is gone and have ended by
			// itself; it may not have done anything else.
			if end := n.Kill(); end != nil {
				if err := gaveUp(c, n, end); err != nil {
					return err
				}
			}
		}
		for _, n := range nodes {
			if err := disks[n.Index].Remount(false); err != nil {
				return err
			}
		}
		c.Note("power is back")
		return c.each(nodes, (*Node).Start)
	}
}

// these are the nodes of a power loss that are known before.
func these(nodes ...*Node) func(*Cluster, *rand.Rand, int) []*Node {
	return func(*Cluster, *rand.Rand, int) []*Node { return nodes }
}

// cut cuts the power of the nodes' disks at once and returns how long that
// took.
func cut(disks []*Disk, nodes []*Node) (time.Duration, error) {
	var roots []*os.File
	for _, n := range nodes {
		root, err := disks[n.Index].Open()
		if err != nil {
			return 0, err
		}
		defer root.Close()
		roots = append(roots, root)
	}
	errs := make([]error, len(roots))
	var wg sync.WaitGroup
	began := time.Now()
	for i, root := range roots {
		wg.Go(func() { errs[i] = CutPower(root) })
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

func everyNode(c *Cluster, _ *rand.Rand, _ int) []*Node { return c.Nodes }

func TestPowerLoss(t *testing.T) {
	beside(t)
	l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, diskBytes)
	Judge(t, Scenario{Layout: l, Rounds: rounds(4, 100), Fault: powerLoss(disks, everyNode), Seed: Seed(t)}.Run(t))
}

func TestPowerLossLone(t *testing.T) {
	beside(t)
	l, disks := withDisks(t, Layout{Size: 1, MayEnd: true}, diskBytes)
	Judge(t, Scenario{Layout: l, Rounds: rounds(4, 50), Fault: powerLoss(disks, everyNode), Seed: Seed(t)}.Run(t))
}

// TestPowerLossOfSome cuts the power of one, two and three nodes in turn, while
// the others go on.
func TestPowerLossOfSome(t *testing.T) {
	beside(t)
	l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, diskBytes)
	Judge(t, Scenario{Layout: l, Rounds: rounds(3, 60), Fault: powerLoss(disks, victims), Seed: Seed(t)}.Run(t))
}

// TestPowerLossBesideAPause cuts the power of one node while another one stands still,
// which wakes up before or after the first one is back.
func TestPowerLossBesideAPause(t *testing.T) {
	onlyLong(t)
	l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, diskBytes)
	Judge(t, Scenario{Layout: l, Rounds: rounds(1, 20), Seed: Seed(t), Fault: func(c *Cluster, random *rand.Rand, round int) error {
		order := random.Perm(len(c.Nodes))
		lost, stopped := c.Nodes[order[0]], c.Nodes[order[1]]
		lose := powerLoss(disks, these(lost))
		c.Note("SIGSTOP %s", stopped.Name)
		if err := stopped.Pause(); err != nil {
			return err
		}
		moment(random, 0, 3*time.Second)
		err := lose(c, random, round)
		if round%2 == 1 {
			moment(random, 0, 3*time.Second)
		}
		c.Note("SIGCONT %s", stopped.Name)
		return errors.Join(err, stopped.Resume())
	}}.Run(t))
}

// TestPowerLossAsASnapshotArrives cuts the power of a node that was left behind, and of
// all in every other round, when the files of its snapshot are there and it has not yet
// taken it over, or soon after.
func TestPowerLossAsASnapshotArrives(t *testing.T) {
	onlyLong(t)
	l, disks := withDisks(t, Layout{Size: 3, Relayed: true, Binary: ShortLogBinary(t), MayEnd: true}, diskBytes)
	Judge(t, Scenario{Layout: l, Rounds: rounds(2, 20), Seed: Seed(t), Fault: func(c *Cluster, random *rand.Rand, round int) error {
		var left *Node
		if err := leaveBehind(c, random, func(n *Node) error {
			left = n
			return leftovers(n.Dir) // nothing of an earlier one
		}); err != nil {
			return err
		}
		if _, err := retryEvery(time.Millisecond, func() (struct{}, error) {
			if leftovers(left.Dir) == nil {
				return struct{}{}, fmt.Errorf("no snapshot has come to %s, which was left behind", left.Name)
			}
			return struct{}{}, nil
		}); err != nil {
			return err
		}
		c.Note("a snapshot comes to %s: %v", left.Name, leftovers(left.Dir))
		moment(random, 0, 20*time.Millisecond)
		nodes := []*Node{left}
		if round%2 == 1 {
			nodes = c.Nodes
		}
		return powerLoss(disks, these(nodes...))(c, random, round)
	}}.Run(t))
}

// TestPowerLossAsFilesTurn cuts the power of one, two and three nodes whose store and log
// make files all the time.
func TestPowerLossAsFilesTurn(t *testing.T) {
	onlyLong(t)
	binary, err := BuildEdited(t.TempDir(), smallMemtables, shortLog)
	must(t, err)
	l, disks := withDisks(t, Layout{Size: 3, Binary: binary, MayEnd: true}, diskBytes)
	Judge(t, Scenario{Layout: l, Rounds: rounds(1, 20), Fault: powerLoss(disks, victims), Seed: Seed(t)}.Run(t))
}

// TestPowerLossInTheFirstStart cuts the power of one, two and three nodes of a new cluster
// while they start for the first time, and again. What was acknowledged until then is there
// when they have it back.
func TestPowerLossInTheFirstStart(t *testing.T) {
	onlyLong(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	l, disks := withDisks(t, Layout{Size: 3, MayEnd: true}, diskBytes)
	h := NewHTTP()
	defer h.Close()
	for round := range rounds(2, 60) {
		c := NewCluster(t, l.Evidence, random, l)
		c.Note("round %d", round+1)
		for _, n := range c.Nodes {
			must(t, os.RemoveAll(n.Dir))
		}
		must(t, c.each(c.Nodes, (*Node).Start))
		acknowledged := make([]bool, len(c.Nodes))
		var first sync.WaitGroup
		for i, n := range c.Nodes {
			first.Go(func() { acknowledged[i] = writtenEarly(n) })
		}
		for range 1 + round/3%2 {
			moment(random, 0, 1500*time.Millisecond)
			must(t, powerLoss(disks, victims)(c, random, round))
		}
		must(t, c.AwaitReady(c.Nodes))
		first.Wait()
		var last uint64
		for i, n := range c.Nodes {
			if got, code := status(h, n, http.MethodGet, "/v1/kv/first/"+n.Name, ""); acknowledged[i] && got != 200 {
				t.Errorf("round %d: a write that %s had acknowledged is answered with %d %s", round+1, n.Name, got, code)
			}
			a, err := AwaitWrite(h, n, "last/"+n.Name, "whole")
			must(t, err)
			last = max(last, a.Revision)
		}
		_, err := c.AwaitEqual(h, last)
		must(t, err)
		c.Note("acknowledged before: %v", acknowledged)
		must(t, c.each(c.Nodes, (*Node).Kill))
		var v Verdict
		v.CheckLogs(c)
		Judge(t, &v)
	}
}

// writtenEarly asks a node that starts for a write until it has an answer, and reports
// whether that was an acknowledgement.
func writtenEarly(n *Node) bool {
	h := NewHTTP()
	defer h.Close()
	a, err := retry(func() (Answer, error) {
		a := h.Do(n, Request{Method: http.MethodPut, Path: "/v1/kv/first/" + n.Name, Body: []byte("first")})
		return a, a.Err
	})
	return err == nil && a.explain() == nil
}
