package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
	"github.com/oklog/ulid/v2"
)

const (
	// askLimit is how long a member may take to say how it is.
	askLimit = time.Second
	// maxAskBytes bounds what is read of its answer.
	maxAskBytes = 1 << 20
)

// newPeersClient makes what asks other members how they are.
func newPeersClient() *http.Client {
	return &http.Client{
		Timeout:       askLimit,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second, Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// place is a member's place in the cluster, and how it is.
type place struct {
	kv.Membership
	clientURL string
	version   uint32
	leader    bool
	// asked says that applied and lag are known; inTouch, that its linearizable
	// rounds succeed, so it has caught up with the leader and counts for a majority;
	// healthy, that it serves, too. A member in quarantine does not, and votes.
	asked, inTouch, healthy bool
	applied, lag            uint64
}

// votes reports whether the member is, or is about to be, a voter.
func (p *place) votes() bool {
	return p.State == kv.MemberVoter || p.State == kv.MemberPromoting
}

func (p *place) shown() api.ClusterMember {
	m := api.ClusterMember{
		ID: p.ID.String(), Name: p.Name, Replica: p.Replica, State: p.State.String(), KeepLearner: p.Learner,
		PeerAddress: p.PeerAddress, ClientURL: p.clientURL, Version: p.version, Leader: p.leader, Healthy: p.healthy,
	}
	if p.ID == (ulid.ULID{}) {
		m.ID = ""
	}
	if p.asked {
		m.AppliedIndex, m.Lag = &p.applied, &p.lag
	}
	return m
}

func (n *Node) announced() ([]kv.Member, error) {
	v, err := n.shard.Store().View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return v.Members()
}

// appliedPlaces returns the members as this node has applied them.
func (n *Node) appliedPlaces() ([]place, error) {
	memberships, err := n.shard.Members()
	if err != nil {
		return nil, err
	}
	announced, err := n.announced()
	if err != nil {
		return nil, err
	}
	leader, _ := n.shard.Leader()
	all := make([]place, len(memberships))
	for i := range memberships {
		p := &all[i]
		p.Membership = memberships[i]
		p.leader = leader != 0 && p.Replica == leader
		for j := range announced {
			if announced[j].Replica == p.Replica {
				p.clientURL, p.version = announced[j].ClientURL, announced[j].Version
			}
		}
	}
	return all, nil
}

func (n *Node) placeOf(id ulid.ULID) (*place, error) {
	all, err := n.appliedPlaces()
	if err != nil {
		return nil, err
	}
	if p := find(all, id); p != nil {
		return p, nil
	}
	return nil, kv.Errorf(kv.MemberNotFound, "there is no member %s", id)
}

// places returns the members as this node has applied them, and asks each that
// was not removed how it is.
func (n *Node) places(ctx context.Context) ([]place, error) {
	all, err := n.appliedPlaces()
	if err != nil {
		return nil, err
	}
	applied, err := n.shard.Store().Applied()
	if err != nil {
		return nil, err
	}
	eachPlace(all, func(p *place) {
		if p.Replica == n.dir.Identity.Replica {
			p.asked, p.applied = true, applied
			p.inTouch, p.healthy = n.shard.Ready() == nil, n.Ready() == nil
			return
		}
		if !p.InRaft() || p.clientURL == "" {
			return
		}
		var status api.Status
		if err := n.ask(ctx, p.clientURL+"/v1/status", &status); err != nil || status.MemberID != p.ID.String() {
			return
		}
		p.asked, p.applied, p.inTouch = true, status.AppliedIndex, status.InTouch
		p.lag = max(applied, status.AppliedIndex) - status.AppliedIndex
		p.healthy = n.ask(ctx, p.clientURL+"/readyz", nil) == nil
	})
	return all, nil
}

// ask gets an answer of 200 from another member.
func (n *Node) ask(ctx context.Context, url string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := n.peers.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAskBytes))
	switch {
	case err != nil:
		return err
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answered with status %d", url, answer.StatusCode)
	case into == nil:
		return nil
	}
	return json.Unmarshal(body, into)
}
