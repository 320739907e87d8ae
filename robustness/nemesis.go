package robustness

import (
	"errors"
	"math/rand/v2"
	"time"
)

// A Fault is one kind of harm. It ends with every node running; whether they
// are ready in time is for the scenario to ask.
type Fault func(c *Cluster, random *rand.Rand, round int) error

// moment lets a random time pass. It is the only sleep of the package, and the
// point of it: faults come when they come.
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
