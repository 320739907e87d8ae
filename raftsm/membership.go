package raftsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/oklog/ulid/v2"
)

// A change of members is in two places: the replicated state says what is
// wanted, and the Raft configuration follows it. Each step is a command, or a
// change of the configuration that is compared with what is there before it is
// made, so whoever leads after a crash goes on where the last leader stopped:
//
//	command add       pending     a replica id, beyond all that were ever given, and a token
//	command join      joining     the token is used up; who repeats it with the same claim gets the same answer
//	(the new node writes its identity, and starts)
//	change of Raft    joining     AddNonVoting
//	command settle    learner
//	command promote   promoting
//	change of Raft    promoting   AddReplica
//	command settle    voter
//	command remove    removing
//	change of Raft    removing    DeleteReplica
//	command settle    removed     for ever
//
// DeleteReplica is made also of a member that Raft has never heard of: from then on its
// replica id can't be added, not even by a leader that was deposed while it was about to,
// and does not know.
//
// The new node keeps its claim in a file before it shows the token, and writes
// its identity before it starts. A crash before that leaves a directory whose
// next start shows the same token with the same claim; one after it, a directory
// that is a member's like any other. A directory that is lost with its claim
// can't join again with that token: its member is removed, and another is added.

const (
	claimFile = "JOIN"
	// restartPause is the pace at which a replica that was stopped is tried to be
	// started again.
	restartPause = 5 * time.Millisecond
)

// Joined is what a cluster answers to a node that shows a join token.
type Joined struct {
	ClusterID, MemberID ulid.ULID
	Replica             uint64
	Name, PeerAddress   string
	// Members are the peer addresses of the others by replica id.
	Members map[uint64]string
}

func (j *Joined) identity() (Identity, error) {
	id := Identity{
		Format: identityFormat, ClusterID: j.ClusterID, MemberID: j.MemberID, Replica: j.Replica,
		Name: j.Name, PeerAddress: j.PeerAddress, Members: map[uint64]string{}, Joined: true,
	}
	for replica, address := range j.Members {
		id.Members[replica] = address
	}
	if id.Replica == 0 || id.ClusterID == (ulid.ULID{}) || len(id.Members) == 0 {
		return id, errors.New("the cluster's answer to the join token is not complete")
	}
	id.Members[j.Replica] = j.PeerAddress
	return id, nil
}

// Members returns the place of each member, those that were removed included,
// as this replica has applied it. A first member that has not announced itself
// yet has no id.
func (s *Shard) Members() ([]kv.Membership, error) {
	v, err := s.store.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	all, err := v.Memberships()
	if err != nil {
		return nil, err
	}
	recorded := map[uint64]bool{}
	for i := range all {
		recorded[all[i].Replica] = true
	}
	for replica, address := range s.host.dir.Identity.Members {
		if !recorded[replica] {
			all = append(all, kv.Membership{State: kv.MemberVoter, Replica: replica, PeerAddress: address})
		}
	}
	return all, nil
}

// Floor is the highest replica id that this node knows from before there was any
// state.
func (s *Shard) Floor() (floor uint64) {
	for replica := range s.host.dir.Identity.Members {
		floor = max(floor, replica)
	}
	return floor
}

// isAlone reports whether this replica is all there is.
func (s *Shard) isAlone() (bool, error) {
	all, err := s.Members()
	if err != nil {
		return false, err
	}
	for i := range all {
		if m := &all[i]; m.Replica != s.replica && m.InRaft() {
			return false, nil
		}
	}
	return true, nil
}

// Settle brings the Raft configuration to what a member's record wants, and
// records that. It is for the leader. The leader itself is removed by its
// successor: Settle then hands the leadership over.
func (s *Shard) Settle(ctx context.Context, m *kv.Membership) error {
	to, err := s.reconfigure(ctx, m)
	if err != nil || to == 0 {
		return err
	}
	result, err := s.Propose(ctx, &kv.Command{
		Kind: kv.KindMembership, Time: time.Now().UnixMilli(),
		Membership: kv.Membership{Step: kv.MembershipSettle, State: to, ID: m.ID},
	})
	if err != nil {
		return err
	}
	return result.Err()
}

// reconfigure changes the Raft configuration to what a member's record wants, if
// it is not that already, and returns what is to be recorded: 0 if nothing is. A
// crash right after it leaves that to the next leader.
func (s *Shard) reconfigure(ctx context.Context, m *kv.Membership) (to kv.MemberState, err error) {
	nh, shard := s.host.nh, s.cfg.Shard
	conf, err := nh.SyncGetShardMembership(ctx, shard)
	if err != nil {
		return 0, fmt.Errorf("read the Raft configuration: %w", err)
	}
	if err := s.stillWanted(m); err != nil {
		return 0, err
	}
	if m.State == kv.MemberJoining {
		if err := s.leaveAlone(); err != nil {
			return 0, err
		}
	}
	_, voter := conf.Nodes[m.Replica]
	_, learner := conf.NonVotings[m.Replica]
	_, removed := conf.Removed[m.Replica]
	switch m.State {
	case kv.MemberJoining:
		to = kv.MemberLearner
		if !learner && !voter && !removed {
			err = nh.SyncRequestAddNonVoting(ctx, shard, m.Replica, m.PeerAddress, conf.ConfigChangeID)
		}
	case kv.MemberPromoting:
		to = kv.MemberVoter
		if !voter && !removed {
			err = nh.SyncRequestAddReplica(ctx, shard, m.Replica, m.PeerAddress, conf.ConfigChangeID)
		}
	case kv.MemberRemoving:
		to = kv.MemberRemoved
		if m.Replica == s.replica {
			return 0, s.HandOver(ctx)
		}
		if !removed {
			err = nh.SyncRequestDeleteReplica(ctx, shard, m.Replica, conf.ConfigChangeID)
		}
	default:
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("change the Raft configuration: %w", err)
	}
	return to, nil
}

// stillWanted reports whether a record is what this replica has applied, and this replica
// the leader: the record may have been read before changes that took long, and the
// leader deposed meanwhile. What comes after this changes the Raft configuration, if it
// takes the record back, and its number with that: a change that is made with the number
// from before is refused.
func (s *Shard) stillWanted(m *kv.Membership) error {
	all, err := s.Members()
	if err != nil {
		return err
	}
	same := func(o kv.Membership) bool { return o.Replica == m.Replica && o.State == m.State }
	if !slices.ContainsFunc(all, same) || !s.IsLeader() {
		return fmt.Errorf("replica %d is not %s any more, or another replica leads", m.Replica, m.State)
	}
	return nil
}

// TransferTo asks the leader to hand the leadership to a voter. Whether it did,
// Leader tells.
func (s *Shard) TransferTo(replica uint64) error {
	return s.host.nh.RequestLeaderTransfer(s.cfg.Shard, replica)
}

// FitTiming sees to it that a replica which is one of several runs with the timing of
// a cluster. It began with what its store said, and after a loss of power that may be
// what was so before the second member came; the log has told it since.
func (s *Shard) FitTiming() error {
	s.life.Lock()
	lone := s.lone
	s.life.Unlock()
	if !lone {
		return nil // as nearly always: the store need not be asked
	}
	if alone, err := s.isAlone(); err != nil || alone {
		return err
	}
	return s.leaveAlone()
}

// leaveAlone starts the replica again with the timing of a cluster: one that is
// alone has nobody to wait for, but as one of several it would take every short
// silence for the end of its leader. Writes wait meanwhile, for about 2 s.
func (s *Shard) leaveAlone() error {
	s.life.Lock()
	defer s.life.Unlock()
	if !s.lone {
		return nil
	}
	if s.ended {
		return kv.Errorf(kv.ShuttingDown, "this node is shutting down")
	}
	s.host.stopping.Add(1)
	if err := s.host.nh.StopReplica(s.cfg.Shard, s.replica); err != nil {
		s.host.stopping.Add(-1)
		return err
	}
	<-s.machine.closed
	s.machine.closed = make(chan struct{})
	s.lone = false
	for {
		err := s.run(true)
		if !errors.Is(err, dragonboat.ErrShardAlreadyExist) {
			if err != nil {
				s.cfg.Fatal(err)
			}
			return err
		}
		// The engine has not let go of it yet.
		select {
		case <-time.After(restartPause):
		case <-s.quit:
			close(s.machine.closed) // nothing runs for which Close would have to wait
			return kv.Errorf(kv.ShuttingDown, "this node is shutting down")
		}
	}
}

// unloads tells who owns the node that Dragonboat has stopped a replica that
// nobody asked it to stop: it has applied its own removal.
type unloads struct {
	h        *Host
	disowned func(error)
}

// NodeUnloaded implements raftio.ISystemEventListener.
func (u unloads) NodeUnloaded(info raftio.NodeInfo) {
	for n := u.h.stopping.Load(); n > 0; n = u.h.stopping.Load() {
		if u.h.stopping.CompareAndSwap(n, n-1) {
			return // one of those that were asked for
		}
	}
	if u.disowned != nil {
		u.disowned(fmt.Errorf("replica %d was removed from the cluster", info.ReplicaID))
	}
}

// ConnectionFailed implements raftio.ISystemEventListener.
func (u unloads) ConnectionFailed(info raftio.ConnectionInfo) { u.h.breakers.failed(info.Address) }

// The other events say nothing that is of use here.
func (unloads) NodeHostShuttingDown()                       {}
func (unloads) NodeDeleted(raftio.NodeInfo)                 {}
func (unloads) NodeReady(raftio.NodeInfo)                   {}
func (unloads) MembershipChanged(raftio.NodeInfo)           {}
func (unloads) ConnectionEstablished(raftio.ConnectionInfo) {}
func (unloads) SendSnapshotStarted(raftio.SnapshotInfo)     {}
func (unloads) SendSnapshotCompleted(raftio.SnapshotInfo)   {}
func (unloads) SendSnapshotAborted(raftio.SnapshotInfo)     {}
func (unloads) SnapshotReceived(raftio.SnapshotInfo)        {}
func (unloads) SnapshotRecovered(raftio.SnapshotInfo)       {}
func (unloads) SnapshotCreated(raftio.SnapshotInfo)         {}
func (unloads) SnapshotCompacted(raftio.SnapshotInfo)       {}
func (unloads) LogCompacted(raftio.EntryInfo)               {}
func (unloads) LogDBCompacted(raftio.EntryInfo)             {}
