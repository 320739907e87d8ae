package robustness

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// A Scenario is traffic on a cluster and a fault in each round.
type Scenario struct {
	Layout Layout
	Rounds int
	Fault  Fault
	Seed   uint64
	// Alive asks each node at the end whether it can do everything again.
	Alive bool
}

// minWrites is the number of acknowledged writes that a round waits for before
// its fault. A quieter run would prove little.
const minWrites = 50

// Seed is CAIRN_SEED, or a new one. It is printed.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if given := os.Getenv("CAIRN_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("CAIRN_SEED: %v", err)
		}
	}
	t.Logf("CAIRN_SEED=%d", seed)
	return seed
}

// Long reports whether the long suite was asked for, with CAIRN_LONG=1.
func Long() bool { return os.Getenv("CAIRN_LONG") != "" }

// Run plays the scenario and returns what was wrong.
func (s Scenario) Run(t testing.TB) *Verdict {
	t.Helper()
	random := rand.New(rand.NewPCG(s.Seed, 0))
	v := &Verdict{}
	c := NewCluster(t, s.Layout.evidence(t), random, s.Layout)
	c.Note("seed %d", s.Seed)
	if err := c.Start(); err != nil {
		v.Add("the first start: %v", err)
		return v
	}
	traffic := NewTraffic(c, random)
	defer traffic.Close()
	var barriers []*Operation
	for round := range s.Rounds {
		c.Note("round %d", round+1)
		if err := s.round(c, traffic, random, round); err != nil {
			v.Add("round %d: %v", round+1, err)
			break
		}
		barriers = append(barriers, traffic.ReadAll(c.Nodes[random.IntN(len(c.Nodes))]))
	}
	s.judge(c, traffic, barriers, v)
	return v
}

// round lets the clients work, does the harm, and lets them work on when all
// nodes are ready again.
func (s Scenario) round(c *Cluster, traffic *Traffic, random *rand.Rand, round int) error {
	traffic.Start()
	defer traffic.Stop()
	if err := traffic.AwaitWrites(minWrites); err != nil {
		return err
	}
	moment(random, 0, 700*time.Millisecond)
	if err := s.Fault(c, random, round); err != nil {
		return err
	}
	if err := c.AwaitReady(c.Nodes); err != nil {
		return err
	}
	ready := time.Now()
	if err := traffic.AwaitNewWrite(); err != nil {
		return err
	}
	c.Note("a write was acknowledged %v after all nodes were ready", time.Since(ready).Round(time.Millisecond))
	moment(random, 200*time.Millisecond, 400*time.Millisecond)
	return nil
}

// judge asks the cluster whether it is whole, and checks the record.
func (s Scenario) judge(c *Cluster, traffic *Traffic, barriers []*Operation, v *Verdict) {
	operations := traffic.Operations()
	defer func() { v.AddError(c.Evidence.WriteOperations(operations)) }() // with what the history told
	v.CheckAnswers(operations)
	v.CheckMonotonic(operations)
	v.CheckLogs(c)
	for _, n := range c.Nodes {
		if !n.Running() {
			v.Add("%s does not run at the end; the cluster is not asked anything more", n.Name)
			return
		}
	}
	h := NewHTTP()
	defer h.Close()
	// The history is read before the last writes, which are nobody's operations.
	history, err := retry(func() (*History, error) { return ReadHistory(h, c.Nodes[0]) })
	if err != nil {
		v.Add("the history can't be read: %v", err)
	} else {
		v.CheckHistory(c.Evidence, history, operations, barriers)
		c.Note("%s", tally(operations))
	}
	if s.Alive {
		v.CheckAlive(c)
	}
	var last uint64
	for _, n := range c.Nodes {
		a, err := AwaitWrite(h, n, "last/"+n.Name, "whole")
		if err != nil {
			v.Add("%s does not take a write at the end: %v", n.Name, err)
		}
		last = max(last, a.Revision)
	}
	if hash, err := c.AwaitEqual(h, last); err != nil {
		v.Add("the nodes are not equal at the end: %v", err)
	} else {
		c.Note("all nodes are at revision %d with hash %.16s", hash.Revision, hash.Hash)
	}
	if _, term, err := leaderAndTerm(c, h); err == nil {
		c.Note("the term is %d after %d rounds", term, s.Rounds)
	}
	traffic.Close()
	v.CheckLeaks(c)
}

// tally counts the operations by what came of them.
func tally(operations []*Operation) string {
	counts := map[Outcome]int{}
	applied := 0
	for _, o := range operations {
		counts[o.Outcome]++
		if o.Outcome == Unknown && o.Revision != 0 {
			applied++
		}
	}
	return "operations: " + strconv.Itoa(len(operations)) +
		", done " + strconv.Itoa(counts[Done]) + ", refused " + strconv.Itoa(counts[Refused]) +
		", not applied " + strconv.Itoa(counts[NotApplied]) +
		", unknown " + strconv.Itoa(counts[Unknown]) + " (of which applied " + strconv.Itoa(applied) + ")"
}

// Judge fails the test for everything that a scenario found wrong.
func Judge(t testing.TB, v *Verdict) {
	t.Helper()
	for _, violation := range v.Violations() {
		t.Error(violation)
	}
}
