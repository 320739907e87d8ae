package robustness

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

// A LeaseScenario is leases on a cluster and a fault in each round.
type LeaseScenario struct {
	Layout Layout
	Rounds int
	// Faults take turns.
	Faults []Fault
	Seed   uint64
	// Jumping says that the wall clocks of the nodes jump, so that what they show
	// is no time.
	Jumping bool
	// Lingers is lingers of the trace, if it is not zero.
	Lingers time.Duration
}

// endsAround is how many leases must end before each fault and after it.
const endsAround = 10

// Run plays the scenario and returns what was wrong.
func (s LeaseScenario) Run(t testing.TB) *Verdict {
	t.Helper()
	random := rand.New(rand.NewPCG(s.Seed, 0))
	v := &Verdict{}
	c := NewCluster(t, s.Layout.evidence(t), random, s.Layout)
	c.Note("seed %d", s.Seed)
	if err := c.Start(); err != nil {
		v.Add("the first start: %v", err)
		return v
	}
	traffic := NewLeaseTraffic(c, random)
	if err := traffic.Start(); err != nil {
		v.Add("%v", err)
		return v
	}
	for round := range s.Rounds {
		c.Note("round %d", round+1)
		if err := s.round(c, traffic, random, round); err != nil {
			v.Add("round %d: %v", round+1, err)
			break
		}
	}
	traffic.LetGo()
	s.judge(c, traffic, v)
	return v
}

// round lets leases end before the fault, through it, and when all nodes are
// ready again.
func (s LeaseScenario) round(c *Cluster, traffic *LeaseTraffic, random *rand.Rand, round int) error {
	if err := traffic.AwaitEnds(endsAround); err != nil {
		return err
	}
	moment(random, 0, 700*time.Millisecond)
	if err := s.Faults[round%len(s.Faults)](c, random, round/len(s.Faults)); err != nil {
		return err
	}
	if err := c.AwaitReady(c.Nodes); err != nil {
		return err
	}
	return traffic.AwaitEnds(endsAround)
}

// judge waits until everything has ended that is to, and checks the record.
func (s LeaseScenario) judge(c *Cluster, traffic *LeaseTraffic, v *Verdict) {
	h := NewHTTP()
	defer h.Close()
	// The bound is judged below; this only gives every lease the time for it.
	if _, err := retry(func() (struct{}, error) { return struct{}{}, onlyTheLongLease(h, c.Nodes[0]) }); err != nil {
		v.Add("at the end: %v", err)
	}
	trace := traffic.Stop()
	trace.Lingers = int64(s.Lingers)
	if s.Jumping {
		trace.Wall = 0
	}
	defer func() { v.AddError(c.Evidence.WriteJSON("leases.json", trace)) }()
	for _, wrong := range traffic.wrong {
		v.Add("%s", wrong)
	}
	v.CheckLogs(c)
	var last uint64
	for _, n := range c.Nodes {
		a, err := AwaitWrite(h, n, "last/"+n.Name, "whole")
		if err != nil {
			v.Add("%s does not take a write at the end: %v", n.Name, err)
			return
		}
		last = max(last, a.Revision)
	}
	v.CheckLeaks(c)
	if hash, err := c.AwaitEqual(h, last); err != nil {
		v.Add("the nodes are not equal at the end: %v", err)
	} else {
		c.Note("all nodes are at revision %d with hash %.16s", hash.Revision, hash.Hash)
	}
	var err error
	if trace.Changes, err = readChanges(c.Nodes[len(c.Nodes)-1], "", last); err != nil {
		v.Add("what the store has done can't be read: %v", err)
		return
	}
	v.CheckLeases(c, trace)
	if s.Jumping {
		first, last := trace.Changes[0].Wall, trace.Changes[len(trace.Changes)-1].Wall
		if time.Duration(last-first) < 30*time.Minute {
			v.Add("too little was proven: the wall clocks did not jump")
		}
	}
}

// CheckLeases holds the record of the clients against what was promised of
// leases.
func (v *Verdict) CheckLeases(c *Cluster, trace *LeaseTrace) {
	ends, wrong := trace.Ends()
	strict, late := trace.Late(ends)
	for _, found := range [][]string{wrong, trace.Early(ends), late, trace.Lost(ends), trace.Unheld(ends), trace.Clock(), trace.WallOrder()} {
		for _, w := range found {
			v.Add("%s", w)
		}
	}
	expired, holds := 0, 0
	for _, l := range trace.Lives {
		holds += len(l.Holds)
	}
	for _, end := range ends.of {
		if end.Reason == "expired" {
			expired++
		}
	}
	good := within(counted(trace.Probes, commitWithin), 0, trace.End)
	c.Note("leases: %d taken, %d times held by a connection, %d ended by themselves, %d of them held to the bound; readings of the long one: %d; commits were fast for %v of %v",
		len(trace.Lives), holds, expired, strict, len(trace.Readings), time.Duration(good).Round(time.Millisecond), time.Duration(trace.End).Round(time.Millisecond))
	// The run was worth something.
	if 2*strict < expired || expired == 0 || 4*good < trace.End || len(trace.Readings) == 0 || holds == 0 {
		v.Add("too little was proven: %d leases ended by themselves, %d could be held to the bound, %d times a connection held one, and commits were fast for %v of %v",
			expired, strict, holds, time.Duration(good), time.Duration(trace.End))
	}
}

// onlyTheLongLease asks whether one lease is left.
func onlyTheLongLease(h *HTTP, n *Node) error {
	a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/leases?limit=2"})
	if err := a.explain(); err != nil {
		return err
	}
	var page struct {
		Leases []struct{} `json:"leases"`
	}
	if err := json.Unmarshal(a.Body, &page); err != nil {
		return err
	}
	if len(page.Leases) != 1 {
		return errors.New("there are leases, and nobody keeps them")
	}
	return nil
}

// leader finds the node that leads.
func leader(c *Cluster, h *HTTP) (*Node, error) {
	n, _, err := leaderAndTerm(c, h)
	return n, err
}

// leaderAndTerm also tells in which term it leads: one more than before after each
// election.
func leaderAndTerm(c *Cluster, h *HTTP) (found *Node, newest uint64, err error) {
	found, err = retry(func() (*Node, error) {
		var found *Node
		newest = 0
		for _, n := range c.Nodes {
			a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/status"})
			var status struct {
				Leads bool   `json:"is_leader"`
				Term  uint64 `json:"term"`
			}
			if a.explain() == nil && json.Unmarshal(a.Body, &status) == nil && status.Leads && status.Term > newest {
				found, newest = n, status.Term
			}
		}
		if found == nil {
			return nil, errors.New("nobody says that it leads")
		}
		return found, nil
	})
	return found, newest, err
}

// termAmong is the newest term of those of some nodes that know who leads.
func termAmong(nodes []*Node, h *HTTP) (uint64, error) {
	return retry(func() (uint64, error) {
		newest := uint64(0)
		for _, n := range nodes {
			a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/status"})
			var status struct {
				Leader string `json:"leader"`
				Term   uint64 `json:"term"`
			}
			if a.explain() == nil && json.Unmarshal(a.Body, &status) == nil && status.Leader != "" {
				newest = max(newest, status.Term)
			}
		}
		if newest == 0 {
			return 0, errors.New("nobody knows who leads")
		}
		return newest, nil
	})
}

// PauseLeader stops the leader for longer than any lease of the traffic lives. It
// wakes up with proposals of a time that is over.
func PauseLeader(c *Cluster, random *rand.Rand, _ int) error {
	h := NewHTTP()
	defer h.Close()
	n, err := leader(c, h)
	if err != nil {
		return err
	}
	c.Note("SIGSTOP %s, which leads", n.Name)
	if err := n.Pause(); err != nil {
		return err
	}
	moment(random, 6*time.Second, 8*time.Second)
	c.Note("SIGCONT %s", n.Name)
	return n.Resume()
}
