package storage

import (
	"testing"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestMembership goes through a member's life, and through what is refused on
// the way. Every step is also made twice.
func TestMembership(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	a, b, c := kv.LeaseID{'a'}, kv.LeaseID{'b'}, kv.LeaseID{'c'}
	claim, token := kv.LeaseID{'x'}, [32]byte{1}
	now := int64(1_000)
	do := func(want kv.Code, m kv.Membership) {
		t.Helper()
		r := applyTo(t, s, &kv.Command{Kind: kv.KindMembership, Time: now, Membership: m})[0]
		if r.Code != want {
			t.Errorf("step %d: got %s %q, want %s", m.Step, r.Code, r.Detail, want)
		}
	}
	place := func(id kv.LeaseID) (found kv.Membership) {
		mustView(t, s, func(v *View) {
			all, err := v.Memberships()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range all {
				if m.ID == id {
					found = m
				}
			}
		})
		return found
	}
	want := func(id kv.LeaseID, replica uint64, state kv.MemberState) {
		t.Helper()
		if m := place(id); m.Replica != replica || m.State != state {
			t.Errorf("member %s is replica %d and %s, want %d and %s", id, m.Replica, m.State, replica, state)
		}
	}
	announce := func(want kv.Code, replica uint64, id kv.LeaseID, version uint32) {
		t.Helper()
		r := applyTo(t, s, &kv.Command{Kind: kv.KindMember, Member: kv.Member{Replica: replica, ID: id, Name: "n" + string(id[:1]), Version: version, PeerAddress: string(id[:1]) + ":1"}})[0]
		if r.Code != want {
			t.Errorf("announcing replica %d: %s %q, want %s", replica, r.Code, r.Detail, want)
		}
	}
	announce(kv.OK, 1, a, 2)
	want(a, 1, kv.MemberVoter)
	do(kv.QuorumAtRisk, kv.Membership{Step: kv.MembershipRemove, ID: a})

	// The replica id is beyond what the first members have, and never given again.
	do(kv.OK, kv.Membership{Step: kv.MembershipAdd, ID: b, Name: "nb", Token: token, Floor: 3, ExpiresMillis: 2_000})
	want(b, 4, kv.MemberPending)
	do(kv.MemberExists, kv.Membership{Step: kv.MembershipAdd, ID: c, Name: "nb", Floor: 3})
	do(kv.MemberExists, kv.Membership{Step: kv.MembershipAdd, ID: c, Name: "na", Floor: 3})
	do(kv.WrongMemberState, kv.Membership{Step: kv.MembershipPromote, ID: b})
	do(kv.MemberNotFound, kv.Membership{Step: kv.MembershipPromote, ID: c})
	do(kv.WrongMemberState, kv.Membership{})

	join := kv.Membership{Step: kv.MembershipJoin, Token: token, Claim: claim, PeerAddress: "b:1"}
	wrong := join
	wrong.Token = [32]byte{2}
	do(kv.JoinRefused, wrong)
	wrong.Token = [32]byte{} // first members have none
	do(kv.JoinRefused, wrong)
	wrong = join
	wrong.PeerAddress = "a:1"
	do(kv.MemberExists, wrong)
	wrong.PeerAddress = "A:1"
	do(kv.MemberExists, wrong)
	wrong = join
	wrong.Name = "other"
	do(kv.JoinRefused, wrong)
	now = 2_001
	do(kv.JoinRefused, join)
	now = 2_000
	do(kv.OK, join)
	now = 5_000
	do(kv.OK, join) // the same claim, even when the token has ended
	wrong = join
	wrong.Claim = kv.LeaseID{'y'}
	do(kv.JoinRefused, wrong)
	wrong = join
	wrong.PeerAddress = "b:2"
	do(kv.JoinRefused, wrong)
	want(b, 4, kv.MemberJoining)
	announce(kv.MemberExists, 4, c, 1)
	announce(kv.OK, 4, b, 1)

	// A settling that is not due changes nothing.
	for _, state := range []kv.MemberState{kv.MemberVoter, kv.MemberRemoved, kv.MemberJoining, 0} {
		do(kv.OK, kv.Membership{Step: kv.MembershipSettle, ID: b, State: state})
		want(b, 4, kv.MemberJoining)
	}
	for range 2 {
		do(kv.OK, kv.Membership{Step: kv.MembershipSettle, ID: b, State: kv.MemberLearner})
		want(b, 4, kv.MemberLearner)
	}
	do(kv.QuorumAtRisk, kv.Membership{Step: kv.MembershipRemove, ID: a}) // a learner does not vote
	for range 2 {
		do(kv.OK, kv.Membership{Step: kv.MembershipPromote, ID: b})
		want(b, 4, kv.MemberPromoting)
	}
	do(kv.OK, kv.Membership{Step: kv.MembershipSettle, ID: b, State: kv.MemberVoter})
	do(kv.OK, kv.Membership{Step: kv.MembershipPromote, ID: b})
	want(b, 4, kv.MemberVoter)

	// It leaves with its alarm and its say about the version; the id stays its own.
	applyTo(t, s, &kv.Command{Kind: kv.KindAlarm, Alarm: kv.Alarm{Replica: 4, Type: kv.AlarmNoSpace, Active: true}})
	for range 2 {
		do(kv.OK, kv.Membership{Step: kv.MembershipRemove, ID: b})
		want(b, 4, kv.MemberRemoving)
	}
	if !place(b).Voted {
		t.Error("it is not remembered that the member voted")
	}
	for range 2 {
		do(kv.OK, kv.Membership{Step: kv.MembershipSettle, ID: b, State: kv.MemberRemoved})
		want(b, 4, kv.MemberRemoved)
	}
	do(kv.OK, kv.Membership{Step: kv.MembershipRemove, ID: b})
	do(kv.JoinRefused, join)
	announce(kv.MemberExists, 4, b, 1)
	// What it still said is no alarm that nobody would end.
	applyTo(t, s, &kv.Command{Kind: kv.KindAlarm, Alarm: kv.Alarm{Replica: 4, Type: kv.AlarmNoSpace, Active: true}})
	mustView(t, s, func(v *View) {
		if alarms, err := v.Alarms(); err != nil || len(alarms) != 0 {
			t.Errorf("alarms are left: %v %v", alarms, err)
		}
	})
	if stats, err := s.Stats(); err != nil || stats.ClusterVersion != 2 {
		t.Errorf("the cluster's version is %d (%v), want 2", stats.ClusterVersion, err)
	}
	run(t, s, "put k v") // no alarm refuses it
	do(kv.OK, kv.Membership{Step: kv.MembershipAdd, ID: c, Name: "nb", Token: token, Floor: 3, ExpiresMillis: now})
	want(c, 5, kv.MemberPending)
	do(kv.OK, kv.Membership{Step: kv.MembershipRemove, ID: c}) // nobody came: gone at once
	want(c, 5, kv.MemberRemoved)
}
