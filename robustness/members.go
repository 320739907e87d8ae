package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// statusHopeless is with what a member ends that was removed.
	statusHopeless = 7
	// removedWithin is how long a removed member may take to learn of it, also
	// when it was down or cut off meanwhile.
	removedWithin = 30 * time.Second
)

// A Member is what a node says of one.
type Member struct {
	ID          string `json:"id"`
	Replica     uint64 `json:"replica"`
	State       string `json:"state"`
	Learner     bool   `json:"keep_learner"`
	PeerAddress string `json:"peer_address"`
	Leader      bool   `json:"leader"`
	Healthy     bool   `json:"healthy"`
}

// Members replaces the members of a cluster, one in each round, while something
// goes wrong: a member is removed, its node ends by itself, and another member
// joins on its addresses, with an empty directory, a new name and a new token.
type Members struct {
	http *HTTP
	// highest is the greatest replica id that was ever given.
	highest uint64
	// named counts the members that were added.
	named int
	// wrong are answers that may not be.
	wrong []error
}

// NewMembers makes the fault. All nodes of the cluster are first members.
func NewMembers(c int) *Members { return &Members{http: NewHTTP(), highest: uint64(c)} }

// Close gives its connections back.
func (m *Members) Close() { m.http.Close() }

// A trouble is what happens to the other members while one leaves or comes. The
// node that does is not touched, unless the trouble is about it.
type trouble func(c *Cluster, random *rand.Rand, moving *Node) error

// leavings are the ways for a member to be removed.
var leavings = []struct {
	what string
	// leader says that it is the leader who leaves, and not any member.
	leader       bool
	before, amid trouble
	// after is what has to end when it was removed.
	after func(c *Cluster, moving *Node) error
	// gone says that it was not there when it was removed: it must not be ready
	// again.
	gone bool
}{
	{what: "the leader is killed meanwhile", amid: killLeader},
	{what: "it leads", leader: true},
	{what: "it is down", before: killMoving, after: func(_ *Cluster, n *Node) error { return n.Start() }, gone: true},
	{what: "the leader is stopped meanwhile", amid: pauseLeader},
	{what: "it is cut off", before: cutMoving, after: func(c *Cluster, _ *Node) error { c.Network.Heal(); return nil }},
}

// comings are what happens while a member joins.
var comings = []struct {
	what string
	amid trouble
}{
	{"it is killed meanwhile", killJoining},
	{"the leader is killed meanwhile", killLeader},
	{"another is cut off meanwhile", cutOther},
	{"the leader is stopped meanwhile", pauseLeader},
	{"nothing else happens", func(*Cluster, *rand.Rand, *Node) error { return nil }},
}

// Replace is the Fault.
func (m *Members) Replace(c *Cluster, random *rand.Rand, round int) error {
	// All pairs of the two come once in as many rounds as there are.
	err := m.remove(c, random, round%len(leavings), func(n *Node) error {
		return m.add(c, random, n, (round+round/len(leavings))%len(comings))
	})
	return errors.Join(append([]error{err}, m.wrong...)...)
}

// remove has a member leave, and then does something with its node.
func (m *Members) remove(c *Cluster, random *rand.Rand, how int, then func(*Node) error) error {
	leaving := leavings[how]
	moving := c.Nodes[random.IntN(len(c.Nodes))]
	if leaving.leader {
		var err error
		if moving, err = leader(c, m.http); err != nil {
			return err
		}
	}
	member, err := m.memberOn(c, random, moving)
	if err != nil {
		return err
	}
	c.Note("remove %s, replica %d: %s", moving.Name, member.Replica, leaving.what)
	if leaving.before != nil {
		if err := leaving.before(c, random, moving); err != nil {
			return err
		}
	}
	err = amid(c, random, moving, leaving.amid, func(random *rand.Rand) error {
		_, err := retry(func() (struct{}, error) {
			var now Member
			err := m.ask(c, random, moving, Request{Method: http.MethodDelete, Path: "/v1/cluster/members/" + member.ID}, &now)
			if err == nil && now.State != "removed" {
				err = fmt.Errorf("%s is %s", moving.Name, now.State)
			}
			return struct{}{}, err
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("%s was not removed (%s): %w", moving.Name, leaving.what, err)
	}
	c.Note("%s is removed", moving.Name)
	if leaving.after != nil {
		if err := leaving.after(c, moving); err != nil {
			return err
		}
	}
	if err := m.awaitRemoved(moving, leaving.gone); err != nil {
		return fmt.Errorf("%s was removed (%s): %w", moving.Name, leaving.what, err)
	}
	c.Note("%s has ended", moving.Name)
	if err := os.RemoveAll(moving.Dir); err != nil {
		return err
	}
	return then(moving)
}

// awaitRemoved waits until a node has ended because its member was removed.
func (m *Members) awaitRemoved(n *Node, neverReady bool) error {
	deadline := time.NewTimer(removedWithin)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.process.ended:
			var exit *exec.ExitError
			if err := n.process.err; !errors.As(err, &exit) || exit.ExitCode() != statusHopeless {
				return fmt.Errorf("it ended with %v, and not with status %d", err, statusHopeless)
			}
			n.forget()
			return nil
		case <-deadline.C:
			return fmt.Errorf("it still runs after %v", removedWithin)
		case <-tick.C:
			if !neverReady {
				continue
			}
			if status, _ := status(m.http, n, http.MethodGet, "/readyz", ""); status == http.StatusOK {
				return errors.New("it came back and was ready")
			}
		}
	}
}

// add has a new member join on a node without a process, and waits until it
// votes.
func (m *Members) add(c *Cluster, random *rand.Rand, moving *Node, how int) error {
	coming := comings[how]
	var added struct {
		Member Member `json:"member"`
		Token  string `json:"join_token"`
	}
	var name string
	learner := random.IntN(2) == 0
	if _, err := retry(func() (struct{}, error) {
		// A name for each try: what came of the last one may be unknown.
		m.named++
		name = fmt.Sprintf("m%d", m.named)
		return struct{}{}, m.ask(c, random, moving, Request{
			Method: http.MethodPost, Path: "/v1/cluster/members", Header: map[string]string{"Content-Type": "application/json"},
			Body: fmt.Appendf(nil, `{"name":%q,"learner":%v}`, name, learner),
		}, &added)
	}); err != nil {
		return fmt.Errorf("no member was added: %w", err)
	}
	if added.Member.Replica <= m.highest {
		return fmt.Errorf("replica id %d was given again; the highest was %d", added.Member.Replica, m.highest)
	}
	m.highest = added.Member.Replica
	c.Note("%s joins as %s, replica %d, promoted by command: %v: %s", moving.Name, name, added.Member.Replica, learner, coming.what)

	var urls []string
	for _, n := range c.Nodes {
		if n != moving {
			urls = append(urls, n.URL())
		}
	}
	moving.Dir = c.Evidence.Path(moving.Name + "-" + name)
	moving.serve(name, "--peer-advertise", moving.peer, "--join", strings.Join(urls, ","), "--join-token", added.Token)
	if err := moving.Start(); err != nil {
		return err
	}
	err := amid(c, random, moving, coming.amid, func(random *rand.Rand) error {
		_, err := retry(func() (struct{}, error) { return struct{}{}, m.vote(c, random, moving, added.Member.ID) })
		return err
	})
	if err != nil {
		return fmt.Errorf("%s does not vote as %s (%s): %w", moving.Name, name, coming.what, err)
	}
	c.Note("%s votes", name)
	return m.settled(c, random)
}

// vote looks whether a member that joins votes, and promotes it if it waits for
// that.
func (m *Members) vote(c *Cluster, random *rand.Rand, moving *Node, id string) error {
	var now Member
	err := m.ask(c, random, moving, Request{Method: http.MethodGet, Path: "/v1/cluster/members/" + id}, &now)
	if err == nil && now.State == "learner" && now.Learner {
		err = m.ask(c, random, moving, Request{Method: http.MethodPost, Path: "/v1/cluster/members/" + id + "/promote"}, &now)
	}
	if err == nil && (now.State != "voter" || !now.Healthy) {
		err = fmt.Errorf("it is %s, healthy: %v", now.State, now.Healthy)
	}
	return err
}

// settled removes what additions of unknown outcome have left, and waits until
// the members are one for each node, all of them voters that are well, and one of
// them leads.
func (m *Members) settled(c *Cluster, random *rand.Rand) error {
	_, err := retry(func() (struct{}, error) {
		all, err := m.list(c, random, nil)
		if err != nil {
			return struct{}{}, err
		}
		leaders, replicas := 0, map[uint64]bool{}
		for _, member := range all {
			switch {
			case member.State == "pending":
				err = errors.Join(err, m.ask(c, random, nil, Request{Method: http.MethodDelete, Path: "/v1/cluster/members/" + member.ID}, nil))
			case member.State != "voter" || !member.Healthy:
				err = errors.Join(err, fmt.Errorf("replica %d is %s, healthy: %v", member.Replica, member.State, member.Healthy))
			}
			if member.Leader {
				leaders++
			}
			replicas[member.Replica] = true
		}
		if err == nil && (len(all) != len(c.Nodes) || len(replicas) != len(c.Nodes) || leaders != 1) {
			err = fmt.Errorf("there are %d members with %d replica ids, of which %d lead", len(all), len(replicas), leaders)
		}
		return struct{}{}, err
	})
	return err
}

// list returns the members that were not removed.
func (m *Members) list(c *Cluster, random *rand.Rand, but *Node) ([]Member, error) {
	var answer struct {
		Members []Member `json:"members"`
	}
	err := m.ask(c, random, but, Request{Method: http.MethodGet, Path: "/v1/cluster/members"}, &answer)
	var all []Member
	for _, member := range answer.Members {
		if member.State != "removed" {
			all = append(all, member)
		}
	}
	return all, err
}

// memberOn finds the member of a node.
func (m *Members) memberOn(c *Cluster, random *rand.Rand, n *Node) (Member, error) {
	return retry(func() (Member, error) {
		all, err := m.list(c, random, nil)
		for _, member := range all {
			if member.PeerAddress == n.peer {
				return member, nil
			}
		}
		return Member{}, errors.Join(err, fmt.Errorf("there is no member at %s", n.peer))
	})
}

// ask sends a request to one of the nodes, but not to a certain one.
func (m *Members) ask(c *Cluster, random *rand.Rand, but *Node, q Request, into any) error {
	n := c.Nodes[random.IntN(len(c.Nodes))]
	for n == but {
		n = c.Nodes[random.IntN(len(c.Nodes))]
	}
	a := m.http.Do(n, q)
	if a.Status == http.StatusInternalServerError || a.Status >= 400 && a.Problem.Code == "" {
		m.wrong = append(m.wrong, fmt.Errorf("%s answered %d without a code, or 500, to %s %s: %s", n.Name, a.Status, q.Method, q.Path, a.Body))
	}
	if err := a.explain(); err != nil || into == nil {
		return err
	}
	return json.Unmarshal(a.Body, into)
}

// amid does something while there is trouble, and waits for both.
func amid(c *Cluster, random *rand.Rand, moving *Node, t trouble, do func(*rand.Rand) error) error {
	one, two := rand.New(rand.NewPCG(random.Uint64(), 1)), rand.New(rand.NewPCG(random.Uint64(), 2))
	var both errgroup.Group
	if t != nil {
		both.Go(func() error { return t(c, one, moving) })
	}
	both.Go(func() error { return do(two) })
	return both.Wait()
}

// leaderBut finds the leader, or any node if that is the one that moves.
func leaderBut(c *Cluster, random *rand.Rand, moving *Node) (*Node, error) {
	h := NewHTTP()
	defer h.Close()
	n, err := leader(c, h)
	for n == moving {
		n = c.Nodes[random.IntN(len(c.Nodes))]
	}
	return n, err
}

func killLeader(c *Cluster, random *rand.Rand, moving *Node) error {
	n, err := leaderBut(c, random, moving)
	if err != nil {
		return err
	}
	moment(random, 0, time.Second)
	return killed(c, random, n)
}

// killed kills a node and starts it again.
func killed(c *Cluster, random *rand.Rand, n *Node) error {
	c.Note("kill -9 %s", n.Name)
	if err := n.Kill(); err != nil {
		return err
	}
	moment(random, 0, 1500*time.Millisecond)
	c.Note("start %s", n.Name)
	return n.Start()
}

func pauseLeader(c *Cluster, random *rand.Rand, moving *Node) error {
	n, err := leaderBut(c, random, moving)
	if err != nil {
		return err
	}
	moment(random, 0, 500*time.Millisecond)
	c.Note("SIGSTOP %s", n.Name)
	if err := n.Pause(); err != nil {
		return err
	}
	moment(random, 2500*time.Millisecond, 4*time.Second)
	c.Note("SIGCONT %s", n.Name)
	return n.Resume()
}

// killJoining kills the node that joins, twice, wherever it is with it.
func killJoining(c *Cluster, random *rand.Rand, moving *Node) error {
	for range 2 {
		moment(random, 0, 1500*time.Millisecond)
		if err := killed(c, random, moving); err != nil {
			return err
		}
	}
	return nil
}

func killMoving(c *Cluster, _ *rand.Rand, moving *Node) error {
	c.Note("kill -9 %s", moving.Name)
	return moving.Kill()
}

func cutMoving(c *Cluster, random *rand.Rand, moving *Node) error {
	how := Silent
	if random.IntN(2) == 0 {
		how = Refusing
	}
	c.Note("cut off %s (silent: %v)", moving.Name, how == Silent)
	c.Network.Isolate(moving.Index, how, true)
	return nil
}

func cutOther(c *Cluster, random *rand.Rand, moving *Node) error {
	n := moving
	for n == moving {
		n = c.Nodes[random.IntN(len(c.Nodes))]
	}
	return isolated(c, random, n, func() error {
		moment(random, 1500*time.Millisecond, 4*time.Second)
		return nil
	})
}
