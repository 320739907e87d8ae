package robustness

import (
	"errors"
	"fmt"
	"math/rand/v2"
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
			if err := errors.Join(disks[n.Index].Unmount(), disks[n.Index].Mount()); err != nil {
				return err
			}
		}
		c.Note("power is back")
		for _, n := range nodes {
			if err := n.Start(); err != nil {
				return err
			}
		}
		return nil
	}
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
	Judge(t, Scenario{Layout: l, Rounds: rounds(8, 100), Fault: powerLoss(disks, everyNode), Seed: Seed(t)}.Run(t))
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
