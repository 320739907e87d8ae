package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

// leaderOf finds the node that leads, by its own word.
func leaderOf(h *HTTP, c *Cluster) (*Node, error) {
	return retry(func() (*Node, error) {
		for _, n := range c.Nodes {
			a := h.Do(n, Request{Method: http.MethodGet, Path: "/v1/status"})
			var status struct {
				IsLeader bool `json:"is_leader"`
			}
			if a.explain() == nil && json.Unmarshal(a.Body, &status) == nil && status.IsLeader {
				return n, nil
			}
		}
		return nil, errors.New("nobody leads")
	})
}

// losing ends the leader of three nodes again and again, and looks at how long a
// write then takes on another node, from the moment at which the leader was gone.
func losing(t *testing.T, few int, end func(*Node) error) {
	e := NewEvidence(t)
	random := rand.New(rand.NewPCG(Seed(t), 0))
	c := NewCluster(t, e, random, Layout{Size: 3})
	must(t, c.Start())
	h := NewHTTP()
	defer h.Close()
	for round := range rounds(few, 20) {
		leader, err := leaderOf(h, c)
		must(t, err)
		other := c.Nodes[(leader.Index+1+random.IntN(2))%3]
		_, err = AwaitWrite(h, other, "before", "the loss")
		must(t, err)
		moment(random, 0, 300*time.Millisecond)
		must(t, end(leader))
		disk := WatchDisk(leader.Log + ".sync")
		gone := time.Now()
		a := h.Do(other, Request{Method: http.MethodPut, Path: fmt.Sprintf("/v1/kv/after/%d", round), Body: []byte("the loss")})
		took := time.Since(gone)
		must(t, disk.End())
		c.Note("%s is gone; a write took %v on %s", leader.Name, took.Round(time.Millisecond), other.Name)
		if err := a.explain(); err != nil {
			t.Errorf("round %d: a write after the loss of the leader: %v", round+1, err)
		}
		if took > leaderLossWithin+disk.Stood() {
			t.Errorf("round %d: a write took %v after the loss of the leader, in which the disk stood still for %v; the promise is %v", round+1, took, disk.Stood(), leaderLossWithin)
		}
		must(t, leader.Start())
		must(t, c.AwaitReady([]*Node{leader}))
	}
}

// TestLeaderLoss kills the leader.
func TestLeaderLoss(t *testing.T) { losing(t, 2, (*Node).Kill) }

// TestLeaderLeaves stops the leader as an operator does. It has handed over by the
// time it is gone.
func TestLeaderLeaves(t *testing.T) { losing(t, 2, (*Node).Stop) }
