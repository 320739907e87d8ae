package robustness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// A break is one way for the wire to fail. It returns what mends it.
type wireBreak func(s *Namespaces, random *rand.Rand) (what string, mend func() error, err error)

// cutFor is how long a wire stays broken: longer than an election takes, and
// sometimes longer than a write is tried.
func cutFor(random *rand.Rand) { moment(random, 2*time.Second, 7*time.Second) }

// OnTheWire breaks the wire, lets time pass, and mends it.
func OnTheWire(s *Namespaces, breaks wireBreak) Fault {
	return func(c *Cluster, random *rand.Rand, _ int) (err error) {
		what, mend, err := breaks(s, random)
		if err != nil {
			return err
		}
		c.Note("%s", what)
		cutFor(random)
		err = mend()
		c.Note("the wire is whole")
		return err
	}
}

// undo runs what mends several breaks, all of them whatever becomes of one.
func undo(mends []func() error) func() error {
	return func() error {
		var errs []error
		for _, mend := range mends {
			errs = append(errs, mend())
		}
		return errors.Join(errs...)
	}
}

// unplug takes a node off the wire, for the others and for the clients (F-04).
func unplug(s *Namespaces, random *rand.Rand) (string, func() error, error) {
	i := random.IntN(mostNodes)
	down := append(s.ip(i), "link", "set", "eth0", "down")
	before, err := s.received(i)
	if err != nil {
		return "", nil, err
	}
	if err := ip(down...); err != nil {
		return "", nil, err
	}
	began, err := s.received(i)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("n%d is unplugged", i+1), func() error {
		got, err := s.received(i)
		if err == nil && got != began {
			err = fmt.Errorf("n%d was unplugged and still received: %s packets after %s (%s before)", i+1, got, began, before)
		}
		return errors.Join(err, ip(append(s.ip(i), "link", "set", "eth0", "up")...))
	}, nil
}

// silence has one node send what it says to another one nowhere (F-05).
func (s *Namespaces) silence(from, to int) (func() error, error) {
	set := append(s.ip(from), "neigh", "replace", s.address(to), "lladdr", wrongNeighbour, "dev", "eth0", "nud", "permanent")
	return func() error { return ip(append(s.ip(from), "neigh", "del", s.address(to), "dev", "eth0")...) }, ip(set...)
}

// refuse has one node fail at once when it sends to an address (F-06).
func (s *Namespaces) refuse(from int, to string) (func() error, error) {
	return func() error { return ip(append(s.ip(from), "route", "del", "blackhole", to+"/32")...) },
		ip(append(s.ip(from), "route", "replace", "blackhole", to+"/32")...)
}

// oneWay lets a node hear the others and say nothing to them, or to one of them.
func oneWay(s *Namespaces, random *rand.Rand) (string, func() error, error) {
	order := random.Perm(mostNodes)
	from, to := order[0], order[1:1+1+random.IntN(2)]
	var mends []func() error
	for _, other := range to {
		mend, err := s.silence(from, other)
		mends = append(mends, mend)
		if err != nil {
			return "", nil, errors.Join(err, undo(mends)())
		}
	}
	return fmt.Sprintf("what n%d says to %d others is lost", from+1, len(to)), undo(mends), nil
}

// fastFail has the network of a node refuse to send to the others.
func fastFail(s *Namespaces, random *rand.Rand) (string, func() error, error) {
	return refuseAll(s, random.IntN(mostNodes))
}

// refuseAll has the network of one node refuse to send to the others.
func refuseAll(s *Namespaces, i int) (string, func() error, error) {
	var mends []func() error
	for other := range mostNodes {
		if other == i {
			continue
		}
		mend, err := s.refuse(i, s.address(other))
		mends = append(mends, mend)
		if err != nil {
			return "", nil, errors.Join(err, undo(mends)())
		}
	}
	return fmt.Sprintf("n%d can't send to the others", i+1), undo(mends), nil
}

// What a node may use that can't send to the others: a part of a processor, and lines of its
// log, some at once and some each second.
const (
	mostAlone        = 0.2
	mostLines        = 20
	mostLinesASecond = 5
)

// FastFail is fastFail (F-06). The node must take it quietly: who fails at once must not
// try again at once.
func FastFail(s *Namespaces) Fault {
	return func(c *Cluster, random *rand.Rand, round int) error {
		n := c.Nodes[random.IntN(len(c.Nodes))]
		before, err := useOf(n)
		if err != nil {
			return err
		}
		if err := OnTheWire(s, func(s *Namespaces, _ *rand.Rand) (string, func() error, error) {
			return refuseAll(s, n.Index)
		})(c, random, round); err != nil {
			return err
		}
		after, err := useOf(n)
		if err != nil {
			return err
		}
		took := after.at.Sub(before.at).Seconds()
		part, said := (after.processor-before.processor).Seconds()/took, after.lines-before.lines
		c.Note("alone, %s used %.2f of a processor and logged %d lines", n.Name, part, said)
		if part > mostAlone || said > mostLines+int(mostLinesASecond*took) {
			return fmt.Errorf("alone for %.1f s, %s used %.2f of a processor and logged %d lines", took, n.Name, part, said)
		}
		return nil
	}
}

// A use is what a node has used up to a moment.
type use struct {
	at        time.Time
	processor time.Duration
	lines     int // of its log
}

func useOf(n *Node) (use, error) {
	processor, err := processorTime(n)
	if err != nil {
		return use{}, err
	}
	text, err := os.ReadFile(n.Log)
	return use{time.Now(), processor, bytes.Count(text, []byte("\n"))}, err
}

// bridge cuts two nodes off from each other; the third one sees both (F-07).
func bridge(s *Namespaces, random *rand.Rand) (string, func() error, error) {
	order := random.Perm(mostNodes)
	a, b := order[0], order[1]
	var mends []func() error
	for _, way := range [][2]int{{a, b}, {b, a}} {
		mend, err := s.refuse(way[0], s.address(way[1]))
		mends = append(mends, mend)
		if err != nil {
			return "", nil, errors.Join(err, undo(mends)())
		}
	}
	return fmt.Sprintf("n%d and n%d don't see each other", a+1, b+1), undo(mends), nil
}

// clientsCut takes one node from the clients and leaves it to the others (F-07).
func clientsCut(s *Namespaces, random *rand.Rand) (string, func() error, error) {
	i := random.IntN(mostNodes)
	mend, err := s.refuse(i, hubAddress)
	return fmt.Sprintf("n%d can't answer the clients", i+1), mend, err
}

// narrow gives what a node sends little room and makes it wait (F-08).
func narrow(s *Namespaces, random *rand.Rand) (string, func() error, error) {
	i := random.IntN(mostNodes)
	shape := []string{"-n", s.name(i), "qdisc"}
	rate := []string{"256kbit", "1mbit", "4mbit"}[random.IntN(3)]
	err := command("tc", append(shape, "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms")...)
	return fmt.Sprintf("what n%d sends goes at %s", i+1, rate),
		func() error { return command("tc", append(shape, "del", "dev", "eth0", "root")...) }, err
}

// through leads what a node sends and receives through a cable that does it harm
// (F-08).
func through(invent func(random *rand.Rand) harm) wireBreak {
	return func(s *Namespaces, random *rand.Rand) (string, func() error, error) {
		h := invent(random)
		c, err := s.lead(random.IntN(mostNodes), h, random)
		return fmt.Sprintf("the wire of n%d is bad: %+v", c.node+1, h), c.end, err
	}
}

var (
	lossy    = through(func(random *rand.Rand) harm { return harm{loss: []float64{.02, .1, .3}[random.IntN(3)]} })
	reorders = through(func(random *rand.Rand) harm { return harm{held: []float64{.05, .25, .5}[random.IntN(3)]} })
	doubles  = through(func(random *rand.Rand) harm { return harm{twice: []float64{.1, .5, 1}[random.IntN(3)]} })
	delays   = through(func(*rand.Rand) harm { return harm{delay: 75 * time.Millisecond, jitter: 50 * time.Millisecond} })
	badWire  = through(func(random *rand.Rand) harm {
		return harm{
			loss: .1 * random.Float64(), twice: .2 * random.Float64(), held: .2 * random.Float64(),
			delay: 30 * time.Millisecond, jitter: 30 * time.Millisecond,
		}
	})
)
