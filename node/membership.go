package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/httpapi"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm"
	"github.com/oklog/ulid/v2"
)

const (
	// settleInterval is how soon the leader sees that the Raft configuration is not
	// what is wanted, settleLimit how long it tries one change before it looks
	// again.
	settleInterval = 100 * time.Millisecond
	settleLimit    = 5 * time.Second
	// changeLimit is how long a request waits for the Raft configuration to follow.
	changeLimit  = 5 * time.Second
	changePoll   = 10 * time.Millisecond
	followPeriod = 500 * time.Millisecond
	// silence is how long a member hears of no leader before it asks the others
	// whether it still is one.
	silence = 5 * time.Second
	// tokenBytes is the length of a join token before it is written as text.
	tokenBytes = 32
	// transferPoll is how often a transfer of the leadership is looked at, and
	// transferRepeat how often it is asked for again.
	transferPoll   = 10 * time.Millisecond
	transferRepeat = 500 * time.Millisecond
	transferLimit  = 5 * time.Second
)

// membership shows the members to the HTTP face, and changes them. What is
// wanted goes into the replicated state; the leader's settle does the rest. The
// checks that ask how members are come before that, and settle makes those of
// the quorum again.
type membership struct{ n *Node }

var _ httpapi.Cluster = membership{}

// places returns the members as of a linearizable round, with how they are.
func (c membership) places(ctx context.Context) ([]place, error) {
	if err := c.n.shard.Wait(ctx, kv.Consistency{}); err != nil {
		return nil, err
	}
	return c.n.places(ctx)
}

// ClusterMembers implements httpapi.Cluster.
func (c membership) ClusterMembers(ctx context.Context) ([]api.ClusterMember, error) {
	all, err := c.n.places(ctx)
	if err != nil {
		return nil, err
	}
	members := make([]api.ClusterMember, len(all))
	for i := range all {
		members[i] = all[i].shown()
	}
	return members, nil
}

// shown returns a member as this node has applied it, without asking it.
func (c membership) shown(id ulid.ULID) (api.ClusterMember, error) {
	p, err := c.n.placeOf(id)
	if err != nil {
		return api.ClusterMember{}, err
	}
	return p.shown(), nil
}

func (c membership) propose(ctx context.Context, m kv.Membership) error {
	command := &kv.Command{Kind: kv.KindMembership, Time: time.Now().UnixMilli(), Membership: m}
	if err := c.n.mayPropose(command); err != nil {
		return err
	}
	if err := c.n.guard.admit(command); err != nil {
		return err
	}
	result, err := c.n.shard.Propose(ctx, command)
	if err != nil {
		return err
	}
	return result.Err()
}

// AddMember implements httpapi.Cluster.
func (c membership) AddMember(ctx context.Context, name string, learner bool, ttl time.Duration) (added api.AddedMember, err error) {
	secret := make([]byte, tokenBytes)
	if _, err := rand.Read(secret); err != nil {
		return added, err
	}
	added.JoinToken = base64.RawURLEncoding.EncodeToString(secret)
	added.ExpiresAt = api.Time{Time: time.Now().Add(ttl)}
	id := ulid.Make()
	err = c.propose(ctx, kv.Membership{
		Step: kv.MembershipAdd, ID: id, Name: name, Learner: learner, Token: sha256.Sum256([]byte(added.JoinToken)),
		ExpiresMillis: added.ExpiresAt.UnixMilli(), Floor: c.n.shard.Floor(),
	})
	if err != nil {
		return added, err
	}
	added.Member, err = c.shown(id)
	return added, err
}

// Join implements httpapi.Cluster.
func (c membership) Join(ctx context.Context, r api.JoinRequest, claim ulid.ULID) (joined api.Joined, err error) {
	token := sha256.Sum256([]byte(r.Token))
	if err := c.mayBeAt(ctx, r.PeerAddress, token); err != nil {
		return joined, err
	}
	err = c.propose(ctx, kv.Membership{
		Step: kv.MembershipJoin, Token: token, Claim: claim, Name: r.Name, PeerAddress: r.PeerAddress,
	})
	if err != nil {
		return joined, err
	}
	all, err := c.n.shard.Members()
	if err != nil {
		return joined, err
	}
	joined.ClusterID, joined.Peers = c.n.dir.Identity.ClusterID.String(), []api.Peer{}
	for i := range all {
		switch m := &all[i]; {
		case m.Token == token:
			joined.MemberID, joined.Replica, joined.Name, joined.PeerAddress = m.ID.String(), m.Replica, m.Name, m.PeerAddress
		case m.InRaft():
			joined.Peers = append(joined.Peers, api.Peer{Replica: m.Replica, PeerAddress: m.PeerAddress})
		}
	}
	return joined, nil
}

// mayBeAt returns why who shows a token can't be a member at an address. Raft would refuse
// it there after the token is used up, again and again.
func (c membership) mayBeAt(ctx context.Context, address string, token [sha256.Size]byte) error {
	if err := raftsm.CheckPeerAddress(address); err != nil {
		return kv.Errorf(kv.JoinRefused, "%v", err)
	}
	if unspecified(address) {
		return kv.Errorf(kv.JoinRefused, "the other members can't reach %q", address)
	}
	if err := c.n.shard.Wait(ctx, kv.Consistency{}); err != nil {
		return err
	}
	all, err := c.n.shard.Members()
	if err != nil {
		return err
	}
	for i := range all {
		m := &all[i]
		if m.Token != token && m.State != kv.MemberRemoved && strings.EqualFold(m.PeerAddress, address) {
			return kv.Errorf(kv.MemberExists, "replica %d is at %s already", m.Replica, m.PeerAddress)
		}
	}
	return nil
}

// PromoteMember implements httpapi.Cluster.
func (c membership) PromoteMember(ctx context.Context, id ulid.ULID) (m api.ClusterMember, err error) {
	all, err := c.places(ctx)
	if err != nil {
		return m, err
	}
	p := find(all, id)
	switch {
	case p == nil:
		return m, kv.Errorf(kv.MemberNotFound, "there is no member %s", id)
	case p.State == kv.MemberLearner:
		if !c.sound(p) {
			return m, kv.Errorf(kv.LearnerBehind, "member %s does not answer, or has not caught up; it would count as a voter that is missing", id)
		}
		p.State = kv.MemberPromoting
		if err := quorumAtRisk(all); err != nil {
			return m, err
		}
	}
	if err := c.propose(ctx, kv.Membership{Step: kv.MembershipPromote, ID: id}); err != nil {
		return m, err
	}
	return c.settled(ctx, id, kv.MemberVoter)
}

// sound reports whether a member may vote or lead. Where the contents differ and
// nobody knows which is right, none serves, and an operator must still be able to
// bring the cluster to the right one.
func (c membership) sound(p *place) bool {
	return p.healthy || p.inTouch && c.n.shard.Quarantine() == raftsm.Doubtful
}

// RemoveMember implements httpapi.Cluster.
func (c membership) RemoveMember(ctx context.Context, id ulid.ULID) (m api.ClusterMember, err error) {
	all, err := c.places(ctx)
	if err != nil {
		return m, err
	}
	p := find(all, id)
	switch {
	case p == nil:
		return m, kv.Errorf(kv.MemberNotFound, "there is no member %s", id)
	case p.votes():
		p.State = kv.MemberRemoving
		if err := quorumAtRisk(all); err != nil {
			return m, err
		}
	}
	if err := c.propose(ctx, kv.Membership{Step: kv.MembershipRemove, ID: id}); err != nil {
		return m, err
	}
	if id == c.n.dir.Identity.MemberID {
		return c.shown(id) // it won't see the end of it
	}
	return c.settled(ctx, id, kv.MemberRemoved)
}

// settled waits for the Raft configuration to follow, and returns the member in
// the state that was reached.
func (c membership) settled(ctx context.Context, id ulid.ULID, state kv.MemberState) (api.ClusterMember, error) {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	for {
		p, err := c.n.placeOf(id)
		if err != nil {
			return api.ClusterMember{}, err
		}
		if p.State == state || ctx.Err() != nil {
			return p.shown(), nil
		}
		pause(ctx, changePoll)
	}
}

// TransferLeader implements httpapi.Cluster.
func (c membership) TransferLeader(ctx context.Context, id ulid.ULID) (leader ulid.ULID, err error) {
	all, err := c.places(ctx)
	if err != nil {
		return leader, err
	}
	var to *place
	for i := range all {
		p := &all[i]
		if p.ID == id && id != (ulid.ULID{}) || id == (ulid.ULID{}) && p.State == kv.MemberVoter && c.sound(p) && !p.leader {
			to = p
		}
	}
	switch {
	case to == nil && id == (ulid.ULID{}):
		return leader, kv.Errorf(kv.QuorumAtRisk, "there is no other voter that answers")
	case to == nil:
		return leader, kv.Errorf(kv.MemberNotFound, "there is no member %s", id)
	case to.State != kv.MemberVoter:
		return leader, kv.Errorf(kv.WrongMemberState, "member %s is %s, not a voter", to.ID, to.State)
	case !c.sound(to):
		return leader, &kv.Error{Code: kv.Unavailable, Detail: fmt.Sprintf("member %s does not answer, or has not caught up", to.ID), RetryAfterSeconds: 1}
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	for asked := (time.Time{}); ; pause(ctx, transferPoll) {
		if now, _ := c.n.shard.Leader(); now == to.Replica {
			return to.ID, nil
		}
		if ctx.Err() != nil {
			return leader, kv.Errorf(kv.OutcomeUnknown, "member %s has not taken the leadership over yet", to.ID)
		}
		if time.Since(asked) > transferRepeat {
			asked = time.Now()
			if err := c.n.shard.TransferTo(to.Replica); err != nil {
				return leader, &kv.Error{Code: kv.Unavailable, Detail: err.Error(), RetryAfterSeconds: 1}
			}
		}
	}
}

func find(all []place, id ulid.ULID) *place {
	for i := range all {
		if all[i].ID == id {
			return &all[i]
		}
	}
	return nil
}

// quorumAtRisk refuses a configuration of which less than a majority answers.
func quorumAtRisk(all []place) error {
	voters, answering := 0, 0
	for i := range all {
		if all[i].votes() {
			voters++
			if all[i].inTouch {
				answering++
			}
		}
	}
	if quorum := voters/2 + 1; answering < quorum {
		return kv.Errorf(kv.QuorumAtRisk, "there would be %d voters, of which %d answer; a majority is %d", voters, answering, quorum)
	}
	return nil
}

// settle brings the Raft configuration to what is wanted, while this member
// leads.
func (n *Node) settle(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, settleInterval) {
		if !n.shard.IsLeader() {
			continue
		}
		all, err := n.shard.Members()
		if err != nil {
			continue // the store is closing
		}
		// A change may take long. Settle looks whether the next one is still wanted.
		for i := range all {
			if err := n.settleOne(ctx, &all[i]); err != nil && ctx.Err() == nil {
				n.cfg.Logger.Warn("a change of members has to wait", "member", all[i].ID, "state", all[i].State, "err", err)
			}
		}
	}
}

func (n *Node) settleOne(ctx context.Context, m *kv.Membership) error {
	switch m.State {
	case kv.MemberPromoting, kv.MemberRemoving:
		// Whoever was asked for it has checked this, but a leader may be gone since.
		all, err := n.places(ctx)
		if err != nil {
			return err
		}
		for i := range all {
			// Other changes that wait don't count: they may be what is not safe.
			switch p := &all[i]; {
			case p.ID == m.ID:
			case p.State == kv.MemberPromoting:
				p.State = kv.MemberLearner
			case p.State == kv.MemberRemoving && p.Voted:
				p.State = kv.MemberVoter
			}
		}
		if err := quorumAtRisk(all); err != nil {
			return err
		}
	case kv.MemberJoining:
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if err := n.shard.Settle(ctx, m); err != nil {
		return err
	}
	n.cfg.Logger.Info("the members have changed", "member", m.ID, "name", m.Name, "replica", m.Replica, "was", m.State)
	return nil
}

// mayVote reports whether this learner has caught up, with content that it may show,
// or of which nobody in the cluster knows better.
func (n *Node) mayVote() bool {
	return n.Ready() == nil || n.shard.Ready() == nil && n.shard.Quarantine() == raftsm.Doubtful
}

// follow has this member ask for its promotion once it has caught up, and end
// when it was removed, or is one that the others speak to no more.
func (n *Node) follow(ctx context.Context) {
	id := n.dir.Identity.MemberID
	for ; ctx.Err() == nil; pause(ctx, followPeriod) {
		p, err := n.placeOf(id)
		if err == nil {
			switch {
			case p.State == kv.MemberRemoved:
				n.removed("its own log")
				return
			case p.State == kv.MemberLearner && !p.Learner && n.mayVote():
				if _, err := (membership{n}).PromoteMember(ctx, id); err != nil && ctx.Err() == nil {
					n.cfg.Logger.Info("this learner is not promoted yet", "err", err)
				}
			}
		}
		if err := n.shard.FitTiming(); err != nil && ctx.Err() == nil {
			n.cfg.Logger.Warn("this member runs with the timing of one that is alone", "err", err)
		}
		last := n.shard.LastRound()
		if last.IsZero() {
			last = n.started
		}
		if time.Since(last) > silence {
			if err := n.callPeers(ctx); err != nil && ctx.Err() == nil {
				n.cfg.Logger.Warn("this member can't call the others", "err", err)
			}
			if by := n.askWhetherRemoved(ctx); by != "" {
				n.removed(by)
				return
			}
		}
	}
}

// callLimit bounds a call of the other members.
const callLimit = time.Second

// callPeers lets the others say whether they still speak to this member.
func (n *Node) callPeers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return n.shard.CallPeers(ctx)
}

func (n *Node) removed(by string) {
	n.fail(fmt.Errorf("%w: member %s was removed from the cluster, says %s; to come back, it needs an empty data directory and a join token",
		errDisowned, n.dir.Identity.MemberID, by))
}

// askWhetherRemoved asks the other members, and returns which of them says that
// this one was removed.
func (n *Node) askWhetherRemoved(ctx context.Context) string {
	all, err := n.announced()
	if err != nil {
		return ""
	}
	for i := range all {
		m := &all[i]
		if m.Replica == n.dir.Identity.Replica || m.ClientURL == "" {
			continue
		}
		var answer api.ClusterMember
		if err := n.ask(ctx, m.ClientURL+"/v1/cluster/members/"+n.dir.Identity.MemberID.String(), &answer); err == nil && answer.State == api.MemberRemoved {
			return m.ClientURL
		}
	}
	return ""
}

// eachPlace runs ask for all members at once.
func eachPlace(all []place, ask func(*place)) {
	var wg sync.WaitGroup
	for i := range all {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ask(&all[i])
		}()
	}
	wg.Wait()
}
