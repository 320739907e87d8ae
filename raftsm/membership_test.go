package raftsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/oklog/ulid/v2"
)

// step proposes one step of a membership.
func (m *member) step(t testing.TB, step kv.Membership) {
	t.Helper()
	eventually(t, "the step is applied", func() bool {
		result, err := m.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindMembership, Time: time.Now().UnixMilli(), Membership: step})
		if errIs(err, kv.NoLeader) || errIs(err, kv.Unavailable) {
			return false
		}
		must(t, err)
		must(t, result.Err())
		return true
	})
}

func (m *member) place(t testing.TB, id ulid.ULID) kv.Membership {
	t.Helper()
	all, err := m.shard.Members()
	must(t, err)
	for _, p := range all {
		if p.ID == id {
			return p
		}
	}
	t.Fatalf("there is no member %s", id)
	return kv.Membership{}
}

// settle has the leader do what the record of a member wants.
func settle(t testing.TB, members []*member, id ulid.ULID, want kv.MemberState) {
	t.Helper()
	eventually(t, "the member is "+want.String(), func() bool {
		for _, m := range members {
			p := m.place(t, id)
			if p.State == want {
				return true
			}
			if m.shard.IsLeader() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				if err := m.shard.Settle(ctx, &p); err != nil {
					t.Logf("settle: %v", err)
				}
				cancel()
			}
		}
		return false
	})
}

// admit adds a member and returns the node that is to join as it.
func admit(t testing.TB, by *member, name string) (*member, ulid.ULID) {
	t.Helper()
	id, token := ulid.Make(), [32]byte{}
	copy(token[:], name+id.String())
	by.step(t, kv.Membership{
		Step: kv.MembershipAdd, ID: id, Name: name, Token: token, Floor: by.shard.Floor(),
		ExpiresMillis: time.Now().Add(time.Hour).UnixMilli(),
	})
	m := &member{path: filepath.Join(t.TempDir(), "data")}
	address := freeAddress(t)
	m.spec = Spec{Join: func(claim ulid.ULID) (*Joined, error) {
		by.step(t, kv.Membership{Step: kv.MembershipJoin, Token: token, Claim: claim, PeerAddress: address})
		p := by.place(t, id)
		j := &Joined{
			ClusterID: by.dir.Identity.ClusterID, MemberID: id, Replica: p.Replica, Name: p.Name, PeerAddress: p.PeerAddress,
			Members: map[uint64]string{},
		}
		all, err := by.shard.Members()
		must(t, err)
		for _, o := range all {
			if o.InRaft() {
				j.Members[o.Replica] = o.PeerAddress
			}
		}
		return j, nil
	}}
	return m, id
}

// announce says what a first member is.
func (m *member) announce(t testing.TB) {
	t.Helper()
	id := &m.dir.Identity
	eventually(t, "the member has announced itself", func() bool {
		result, err := m.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindMember, Member: kv.Member{
			Replica: id.Replica, ID: id.MemberID, Name: id.Name, Version: 1, PeerAddress: id.PeerAddress,
		}})
		return err == nil && result.Err() == nil
	})
}

// TestGrowAndShrink makes three members of one, under writes, and one of them
// again, and starts all of them anew in between.
func TestGrowAndShrink(t *testing.T) {
	first := lone(t)
	first.open(t)
	first.announce(t)
	first.mustPut(t, "before", "1")
	members := []*member{first}
	ids := []ulid.ULID{first.dir.Identity.MemberID}
	for i := range 2 {
		m, id := admit(t, first, fmt.Sprint("m", i))
		m.open(t)
		members, ids = append(members, m), append(ids, id)
		settle(t, members[:1+i], id, kv.MemberLearner)

		// A learner reads linearizably and writes.
		m.mustPut(t, fmt.Sprint("by", i), "learner")
		m.wantValue(t, fmt.Sprint("by", i), "learner")
		m.wantValue(t, "before", "1")
		first.wantValue(t, fmt.Sprint("by", i), "learner")

		first.step(t, kv.Membership{Step: kv.MembershipPromote, ID: id})
		settle(t, members, id, kv.MemberVoter)
		m.announce(t)
	}
	agree(t, members)
	if a, b := members[1].shard.Replica(), members[2].shard.Replica(); a != 2 || b != 3 {
		t.Errorf("the new replicas are %d and %d", a, b)
	}

	// Each of them is enough with one other, also after a start anew.
	for i, down := range members {
		down.close(t)
		up := append(append([]*member{}, members[:i]...), members[i+1:]...)
		leader(t, up)
		up[0].mustPut(t, "without", fmt.Sprint(i))
		must(t, down.tryOpen())
		down.wantValue(t, "without", fmt.Sprint(i))
	}

	lead, _ := leader(t, members)
	removed := lead.dir.Identity.MemberID
	lead.step(t, kv.Membership{Step: kv.MembershipRemove, ID: removed})
	var rest []*member
	for _, m := range members {
		if m != lead {
			rest = append(rest, m)
		}
	}
	// The leader itself: it hands over, and its successor removes it.
	eventually(t, "the leader was removed", func() bool {
		for _, m := range members {
			if m.shard.IsLeader() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				p := m.place(t, removed)
				_ = m.shard.Settle(ctx, &p)
				cancel()
			}
		}
		return rest[0].place(t, removed).State == kv.MemberRemoved
	})
	leader(t, rest)
	rest[0].mustPut(t, "after", "1")
	rest[1].wantValue(t, "after", "1")
	if result, err := rest[0].shard.Propose(context.Background(), &kv.Command{Kind: kv.KindMember, Member: kv.Member{
		Replica: lead.shard.Replica(), ID: removed, Version: 1,
	}}); err != nil || !errIs(result.Err(), kv.MemberExists) {
		t.Errorf("a removed member announced itself: %v %v", result, err)
	}
	m, id := admit(t, rest[0], "again")
	m.open(t)
	settle(t, rest, id, kv.MemberLearner)
	if m.shard.Replica() != 4 {
		t.Errorf("the replica id is %d, want 4", m.shard.Replica())
	}
	m.wantValue(t, "after", "1")
}

// TestFitTiming: a member of several that began as one alone, since its store was
// behind its log, takes the timing of a cluster once it knows better.
func TestFitTiming(t *testing.T) {
	first := lone(t)
	first.open(t)
	first.announce(t)
	must(t, first.shard.FitTiming())
	if !first.shard.lone {
		t.Error("one that is alone has another timing")
	}
	second, id := admit(t, first, "m2")
	second.open(t)
	settle(t, []*member{first}, id, kv.MemberLearner)
	first.shard.life.Lock()
	first.shard.lone = true
	first.shard.life.Unlock()
	must(t, first.shard.FitTiming())
	if first.shard.lone {
		t.Error("one of two has the timing of one alone")
	}
	first.mustPut(t, "k", "v")
	second.wantValue(t, "k", "v")
}

// TestUnloads: that a replica was stopped which we have stopped is no removal, however
// late Dragonboat says so; the next one is.
func TestUnloads(t *testing.T) {
	var told []error
	u := unloads{&Host{}, func(err error) { told = append(told, err) }}
	u.h.stopping.Add(2)
	for want := range 3 {
		if u.NodeUnloaded(raftio.NodeInfo{ReplicaID: 1}); len(told) != max(0, want-1) {
			t.Errorf("after %d replicas were stopped, two of them by us: %v", want+1, told)
		}
	}
}

// TestJoinAgain crashes a join between its steps.
func TestJoinAgain(t *testing.T) {
	first := lone(t)
	first.open(t)
	first.announce(t)
	m, id := admit(t, first, "m")
	join := m.spec.Join
	// The token is used up, and the answer is lost.
	m.spec.Join = func(claim ulid.ULID) (*Joined, error) {
		_, err := join(claim)
		must(t, err)
		return nil, errors.New("crash")
	}
	if _, err := OpenDir(m.path, m.spec); err == nil || !strings.Contains(err.Error(), "crash") {
		t.Fatalf("got %v", err)
	}
	// Another directory can't use the token.
	place := first.place(t, id)
	result, err := first.shard.Propose(context.Background(), &kv.Command{Kind: kv.KindMembership, Membership: kv.Membership{
		Step: kv.MembershipJoin, Token: place.Token, Claim: ulid.Make(), PeerAddress: place.PeerAddress,
	}})
	must(t, err)
	wantCode(t, result.Err(), kv.JoinRefused)

	// The same directory can, and the leader may have made it a learner meanwhile.
	settle(t, []*member{first}, id, kv.MemberLearner)
	m.spec.Join = join
	m.open(t)
	if _, err := os.Stat(filepath.Join(m.path, claimFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the claim is still there: %v", err)
	}
	first.mustPut(t, "k", "v")
	m.wantValue(t, "k", "v")
	// A start without the cluster's help is one of a member.
	m.close(t)
	m.spec = Spec{}
	m.open(t)
	m.wantValue(t, "k", "v")
}

// TestRemovedBeforeItWasInRaft removes a member that has shown its token and is not in
// Raft yet. Whoever led before, and still believes that it is joining, adds it no more,
// whether it looks or not.
func TestRemovedBeforeItWasInRaft(t *testing.T) {
	first := lone(t)
	first.open(t)
	first.announce(t)
	m, id := admit(t, first, "m")
	d, err := OpenDir(m.path, m.spec)
	must(t, err)
	d.Close()
	joining := first.place(t, id)
	if joining.State != kv.MemberJoining {
		t.Fatalf("the member is %s", joining.State)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before, _ := first.raftMembers(t)
	first.step(t, kv.Membership{Step: kv.MembershipRemove, ID: id})
	if err := first.shard.Settle(ctx, &joining); err == nil {
		t.Error("a member that is to be removed was added")
	}
	if change, _ := first.raftMembers(t); change != before {
		t.Error("what is not wanted any more has changed the Raft configuration")
	}
	settle(t, []*member{first}, id, kv.MemberRemoved)

	if err := first.shard.Settle(ctx, &joining); err == nil {
		t.Error("a member that was removed was added")
	}
	if err := first.host.nh.SyncRequestAddNonVoting(ctx, 1, joining.Replica, joining.PeerAddress, before); err == nil {
		t.Error("Raft takes the member from a leader that is late")
	}
	change, _ := first.raftMembers(t)
	if err := first.host.nh.SyncRequestAddNonVoting(ctx, 1, joining.Replica, joining.PeerAddress, change); err == nil {
		t.Error("Raft has forgotten that the member was removed")
	}
	if _, states := first.raftMembers(t); states[joining.Replica] != kv.MemberRemoved {
		t.Errorf("Raft has the member as %s", states[joining.Replica])
	}
}

// raftMembers is what a replica knows of the Raft configuration: the number of its
// last change, and what each replica is.
func (m *member) raftMembers(t testing.TB) (change uint64, states map[uint64]kv.MemberState) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conf, err := m.host.nh.SyncGetShardMembership(ctx, 1)
	must(t, err)
	states = map[uint64]kv.MemberState{}
	for replica := range conf.Nodes {
		states[replica] = kv.MemberVoter
	}
	for replica := range conf.NonVotings {
		states[replica] = kv.MemberLearner
	}
	for replica := range conf.Removed {
		states[replica] = kv.MemberRemoved
	}
	return conf.ConfigChangeID, states
}

// TestCrashBeforeTheRecord ends the leader between a change of the Raft
// configuration and its record, at each change of a member's life. The next leader
// records what is there, and does not change it again.
func TestCrashBeforeTheRecord(t *testing.T) {
	members := cluster(t, nil)
	lead, _ := leader(t, members)
	for _, m := range members {
		m.announce(t)
	}
	m, id := admit(t, lead, "m")
	m.open(t)
	// The new member may come to lead, which is not what is looked at here.
	byAFirst := func(up []*member) *member {
		for {
			lead, _ := leader(t, up)
			if lead != m {
				return lead
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if err := m.shard.HandOver(ctx); err != nil {
				t.Logf("hand over: %v", err)
			}
			cancel()
		}
	}
	all := members // that hear of the leader
	for _, c := range []struct {
		step     kv.MembershipStep // what asks for it, after the joining
		from, to kv.MemberState
	}{
		{0, kv.MemberJoining, kv.MemberLearner},
		{kv.MembershipPromote, kv.MemberPromoting, kv.MemberVoter},
		{kv.MembershipRemove, kv.MemberRemoving, kv.MemberRemoved},
	} {
		lead := byAFirst(all)
		if c.step != 0 {
			lead.step(t, kv.Membership{Step: c.step, ID: id})
		}
		place := lead.place(t, id)
		if place.State != c.from {
			t.Fatalf("the member is %s, want %s", place.State, c.from)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		to, err := lead.shard.reconfigure(ctx, &place)
		cancel()
		must(t, err)
		if to != c.to {
			t.Errorf("a %s becomes %s, want %s", c.from, to, c.to)
		}
		lead.mustPut(t, "before", c.to.String())
		lead.close(t)

		var up []*member
		for _, o := range all {
			if o != lead && (o != m || c.to != kv.MemberRemoved) {
				up = append(up, o)
			}
		}
		next := byAFirst(up)
		next.wantValue(t, "before", c.to.String())
		before, states := next.raftMembers(t)
		if states[place.Replica] != c.to || next.place(t, id).State != c.from {
			t.Fatalf("after the crash Raft says %s, and the record %s", states[place.Replica], next.place(t, id).State)
		}
		settle(t, up, id, c.to)
		if after, states := next.raftMembers(t); after != before || states[place.Replica] != c.to {
			t.Errorf("the next leader made the change again, %d and %d, or undid it: %v", before, after, states)
		}
		must(t, lead.tryOpen())
		lead.wantValue(t, "before", c.to.String())
		if got := lead.place(t, id).State; got != c.to {
			t.Errorf("whoever led before has the member as %s, want %s", got, c.to)
		}
		all = append(members[:3:3], m)
	}
	agree(t, members)
}
