package raftsm

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// cluster is three members in this process, which speak over the loopback.
func cluster(t testing.TB, configure func(i int, m *member)) []*member {
	t.Helper()
	var items []string
	for i := range 3 {
		items = append(items, fmt.Sprintf("n%d=%s", i+1, freeAddress(t)))
	}
	var members []*member
	for i := range 3 {
		m := &member{
			path: filepath.Join(t.TempDir(), "data"),
			spec: Spec{Name: fmt.Sprint("n", i+1), InitialCluster: strings.Join(items, ",")},
		}
		if configure != nil {
			configure(i, m)
		}
		members = append(members, m)
		m.open(t)
	}
	return members
}

// leader waits until one of the members leads, and the others follow it.
func leader(t testing.TB, members []*member) (lead *member, follow []*member) {
	t.Helper()
	eventually(t, "there is one leader, and all know it", func() bool {
		lead, follow = nil, nil
		believed := map[uint64]bool{}
		for _, m := range members {
			id, _ := m.shard.Leader()
			believed[id] = true
			if m.shard.IsLeader() {
				lead = m
			} else {
				follow = append(follow, m)
			}
		}
		return lead != nil && len(believed) == 1 && len(follow) == len(members)-1
	})
	return lead, follow
}

// agree waits until all have applied the same, and compares the states that they had
// then: a leader writes now and then without being asked.
func agree(t testing.TB, members []*member) {
	t.Helper()
	states := make([]string, len(members))
	eventually(t, "all have applied the same", func() bool {
		applied := make([]uint64, len(members))
		for i, m := range members {
			states[i], applied[i] = m.stateAt(t)
		}
		return slices.Min(applied) == slices.Max(applied)
	})
	for i, m := range members {
		if states[i] != states[0] {
			t.Errorf("member %d is in state %s, member %d in %s", m.shard.Replica(), states[i], members[0].shard.Replica(), states[0])
		}
	}
}

// TestCluster writes on each member and reads on each other one what was
// answered, at once.
func TestCluster(t *testing.T) {
	members := cluster(t, nil)
	leader(t, members)
	for i := range 30 {
		from, to := members[i%3], members[(i+1)%3]
		from.mustPut(t, "k", fmt.Sprint(i))
		to.wantValue(t, "k", fmt.Sprint(i))
	}
	agree(t, members)
	for _, m := range members {
		if leader, _ := m.shard.Leader(); leader == 0 {
			t.Errorf("member %d has heard of no leader", m.shard.Replica())
		}
		if id := m.dir.Identity; id.ClusterID != members[0].dir.Identity.ClusterID || id.MemberID == members[(id.Replica)%3].dir.Identity.MemberID {
			t.Errorf("member %d is called %+v", id.Replica, id)
		}
	}
}

// TestHandOver moves the leadership on request, with writes going on, none of
// which is lost.
func TestHandOver(t *testing.T) {
	members := cluster(t, nil)
	lead, follow := leader(t, members)
	must(t, follow[0].shard.HandOver(context.Background())) // it has nothing to hand over
	if !lead.shard.IsLeader() {
		t.Fatal("a follower's request moved the leadership")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := follow[0].shard.Propose(ctx, put("k", fmt.Sprint(i))); err != nil && !errIs(err, kv.OutcomeUnknown) {
				t.Errorf("write %d: %v", i, err)
			}
		}
	})
	must(t, lead.shard.HandOver(ctx))
	if lead.shard.IsLeader() {
		t.Error("it still leads")
	}
	close(stop)
	wg.Wait()
	next, _ := leader(t, members)
	if next == lead {
		t.Log("it leads again")
	}
	lead.mustPut(t, "after", "v")
	agree(t, members)

	// One of the others is down, the one that would be asked first: the other takes it.
	next, follow = leader(t, members)
	slices.SortFunc(follow, func(a, b *member) int { return cmp.Compare(a.shard.Replica(), b.shard.Replica()) })
	follow[0].close(t)
	must(t, next.shard.HandOver(ctx))
	eventually(t, "the last one leads", func() bool { return follow[1].shard.IsLeader() })

	// Nobody to hand over to: that is said, and not waited for.
	next.close(t)
	if err := follow[1].shard.HandOver(context.Background()); err == nil && follow[1].shard.IsLeader() {
		t.Error("the leadership went to nobody")
	}
}

// TestLeaderDies closes the leader. The others go on, and what was
// answered is there.
func TestLeaderDies(t *testing.T) {
	members := cluster(t, nil)
	lead, follow := leader(t, members)
	revision := lead.mustPut(t, "before", "v").Revision
	must(t, follow[0].shard.Wait(context.Background(), kv.Consistency{MinRevision: revision}))
	lead.close(t)
	follow[0].mustPut(t, "after", "v")
	follow[1].wantValue(t, "before", "v")
	follow[1].wantValue(t, "after", "v")
	agree(t, follow)
	lead.open(t)
	lead.wantValue(t, "after", "v")
	agree(t, members)
}

// TestUnknownOutcome takes the majority away from under a leader that has taken
// a write: it can't know what the others will make of it, and says that.
func TestUnknownOutcome(t *testing.T) {
	members := cluster(t, func(_ int, m *member) { m.cfg.Timeout = 2 * time.Second })
	lead, follow := leader(t, members)
	lead.mustPut(t, "k", "before")
	for _, m := range follow {
		m.close(t)
	}
	_, err := lead.shard.Propose(context.Background(), put("k", "after"))
	// A leader that has noticed by now refuses, which is as honest.
	if !errIs(err, kv.OutcomeUnknown) && !errIs(err, kv.NoLeader) {
		t.Errorf("got %v", err)
	}
	lead.wantStale(t, "k", "before")
	wantCode(t, lead.shard.Wait(context.Background(), kv.Consistency{}), kv.NoLeader)
	eventually(t, "it isn't ready", func() bool { return errIs(lead.shard.Ready(), kv.NoLeader) })

	for _, m := range follow {
		m.open(t)
	}
	// With such a short timeout this may be unknown, too, until they have a leader.
	eventually(t, "a write is not acknowledged", func() bool {
		_, err := lead.shard.Propose(context.Background(), put("k", "later"))
		return err == nil
	})
	follow[0].wantValue(t, "k", "later")
	agree(t, members)
}

// TestSnapshotInstall stops a member until the others have cut the log behind
// it. When it comes back it gets a snapshot, is told so, and is equal again.
func TestSnapshotInstall(t *testing.T) {
	const cut = 50
	var mu sync.Mutex
	jumps := map[int][]uint64{}
	lastApplied := map[int]uint64{}
	members := cluster(t, func(i int, m *member) {
		m.cfg.SnapshotEntries = cut
		m.cfg.Callbacks = Callbacks{
			Applied: func(from, to uint64, _ []kv.Event) {
				mu.Lock()
				defer mu.Unlock()
				if last := lastApplied[i]; last != 0 && from != last {
					t.Errorf("member %d was told of r%d to r%d after r%d", i+1, from, to, last)
				}
				lastApplied[i] = to
			},
			Jumped: func(to uint64) {
				mu.Lock()
				defer mu.Unlock()
				jumps[i] = append(jumps[i], to)
				lastApplied[i] = to
			},
		}
	})
	leader(t, members)
	members[0].mustPut(t, "old", "v")
	agree(t, members)
	away := members[2]
	away.close(t)
	leader(t, members[:2])
	value := strings.Repeat("x", 2000)
	for i := range 4 * cut {
		members[0].mustPut(t, fmt.Sprint("k", i), value)
	}
	members[0].mustPut(t, "old", "w")

	// A reader that keeps the old state in sight while it is replaced.
	away.open(t)
	view, err := away.shard.Store().View()
	must(t, err)
	defer view.Close()

	away.wantValue(t, "old", "w")
	members[0].mustPut(t, "new", "v")
	away.wantValue(t, "new", "v")
	agree(t, members)
	mu.Lock()
	defer mu.Unlock()
	if len(jumps[2]) == 0 {
		t.Error("the member that was away was not told of a snapshot")
	}
	if len(jumps[0])+len(jumps[1]) > 0 {
		t.Errorf("the others jumped, too: %v", jumps)
	}
}

// TestSnapshotWakesWaiters waits on a member for a revision that reaches it by
// a snapshot.
func TestSnapshotWakesWaiters(t *testing.T) {
	const cut = 50
	members := cluster(t, func(_ int, m *member) {
		m.cfg.SnapshotEntries = cut
		m.cfg.Timeout = patience
	})
	leader(t, members)
	members[0].mustPut(t, "k", "v")
	away := members[2]
	away.close(t)
	leader(t, members[:2])
	var revision uint64
	for i := range 4 * cut {
		revision = members[0].mustPut(t, "k", fmt.Sprint(i)).Revision
	}
	away.open(t)
	must(t, away.shard.Wait(context.Background(), kv.Consistency{MinRevision: revision}))
	away.wantStale(t, "k", fmt.Sprint(4*cut-1))
}
