package storage

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// maxMembers bounds the members that were not removed. What is remembered of
// those that were is a short record each.
const maxMembers = 1_000

// applyMembership applies one step of a member's life. A step that was taken
// already changes nothing and is no error, so that each can be repeated by
// whoever does not know its outcome.
func (b *Batch) applyMembership(m *kv.Membership, now int64) (*kv.Result, error) {
	all, err := readMemberships(b.h.db)
	if err != nil {
		return nil, err
	}
	var r *refusal
	switch m.Step {
	case kv.MembershipAdd:
		r = b.addMember(all, m)
	case kv.MembershipJoin:
		r = b.joinMember(all, m, now)
	case kv.MembershipPromote, kv.MembershipRemove, kv.MembershipSettle:
		i := slices.IndexFunc(all, func(o kv.Membership) bool { return o.ID == m.ID })
		switch {
		case i < 0:
			r = &refusal{kv.MemberNotFound, fmt.Sprintf("there is no member %s", m.ID)}
		case m.Step == kv.MembershipPromote:
			r = b.promoteMember(&all[i])
		case m.Step == kv.MembershipRemove:
			r = b.removeMember(all, &all[i])
		default:
			err = b.settleMember(&all[i], m.State)
		}
	default:
		r = &refusal{kv.WrongMemberState, "this is no step of a membership"}
	}
	if err != nil {
		return nil, err
	}
	if r != nil {
		return b.refused(r), nil
	}
	return b.done(), nil
}

func (b *Batch) setMembership(m *kv.Membership) {
	m.Step, m.Floor = kv.MembershipRecord, 0
	must(b.wb.Set(membershipKey(m.Replica), kv.AppendCommand(nil, &kv.Command{Kind: kv.KindMembership, Membership: *m}), nil))
}

func (b *Batch) addMember(all []kv.Membership, m *kv.Membership) *refusal {
	replica, members := m.Floor, 0
	for i := range all {
		o := &all[i]
		replica = max(replica, o.Replica)
		if o.State == kv.MemberRemoved {
			continue
		}
		members++
		if o.ID == m.ID || m.Name != "" && o.Name == m.Name {
			return &refusal{kv.MemberExists, fmt.Sprintf("member %s is called %q already", o.ID, o.Name)}
		}
	}
	if members >= maxMembers {
		return &refusal{kv.MemberExists, fmt.Sprintf("there are %d members, which is the most", members)}
	}
	b.setMembership(&kv.Membership{
		State: kv.MemberPending, Replica: replica + 1, ID: m.ID, Name: m.Name, Token: m.Token,
		ExpiresMillis: m.ExpiresMillis, Learner: m.Learner,
	})
	return nil
}

func (b *Batch) joinMember(all []kv.Membership, m *kv.Membership, now int64) *refusal {
	i := slices.IndexFunc(all, func(o kv.Membership) bool { return o.Token == m.Token && o.Token != [32]byte{} })
	if i < 0 {
		return &refusal{kv.JoinRefused, "the join token is not one of this cluster"}
	}
	switch o := &all[i]; {
	case o.State == kv.MemberRemoving || o.State == kv.MemberRemoved:
		return &refusal{kv.JoinRefused, fmt.Sprintf("member %s was removed", o.ID)}
	case o.State != kv.MemberPending && o.Claim == m.Claim && o.PeerAddress == m.PeerAddress:
		return nil
	case o.State != kv.MemberPending:
		return &refusal{kv.JoinRefused, "the join token was used already"}
	case now > o.ExpiresMillis:
		return &refusal{kv.JoinRefused, "the join token has ended"}
	case o.Name != "" && m.Name != "" && o.Name != m.Name:
		return &refusal{kv.JoinRefused, fmt.Sprintf("the join token is for %q, not for %q", o.Name, m.Name)}
	}
	joined := all[i]
	joined.State, joined.Claim, joined.PeerAddress = kv.MemberJoining, m.Claim, m.PeerAddress
	if joined.Name == "" {
		joined.Name = m.Name
	}
	if joined.Name == "" {
		joined.Name = fmt.Sprintf("n%d", joined.Replica)
	}
	for j := range all {
		o := &all[j]
		if j == i || o.State == kv.MemberRemoved {
			continue
		}
		// Raft tells addresses apart as host names are, without regard to case.
		if strings.EqualFold(o.PeerAddress, joined.PeerAddress) || joined.Name != "" && o.Name == joined.Name {
			return &refusal{kv.MemberExists, fmt.Sprintf("member %s is called %q and is at %s already", o.ID, o.Name, o.PeerAddress)}
		}
	}
	b.setMembership(&joined)
	return nil
}

func (b *Batch) promoteMember(m *kv.Membership) *refusal {
	switch m.State {
	case kv.MemberPromoting, kv.MemberVoter:
		return nil
	case kv.MemberLearner:
		m.State = kv.MemberPromoting
		b.setMembership(m)
		return nil
	}
	return &refusal{kv.WrongMemberState, fmt.Sprintf("member %s is %s, not a learner", m.ID, m.State)}
}

func (b *Batch) removeMember(all []kv.Membership, m *kv.Membership) *refusal {
	switch m.State {
	case kv.MemberRemoving, kv.MemberRemoved:
		return nil
	case kv.MemberPending:
		m.State = kv.MemberRemoved
		b.setMembership(m)
		return nil
	case kv.MemberVoter:
		voters := 0
		for i := range all {
			if all[i].State == kv.MemberVoter {
				voters++
			}
		}
		if voters == 1 {
			return &refusal{kv.QuorumAtRisk, "it is the last voter"}
		}
	}
	m.Voted = m.State == kv.MemberVoter || m.State == kv.MemberPromoting
	m.State = kv.MemberRemoving
	b.setMembership(m)
	return nil
}

// settleMember records what the Raft configuration is now. A member that has
// left it leaves its alarms and its say about the cluster's version, too.
func (b *Batch) settleMember(m *kv.Membership, to kv.MemberState) error {
	from := map[kv.MemberState]kv.MemberState{
		kv.MemberLearner: kv.MemberJoining, kv.MemberVoter: kv.MemberPromoting, kv.MemberRemoved: kv.MemberRemoving,
	}[to]
	if from == 0 || m.State != from {
		return nil
	}
	m.State = to
	b.setMembership(m)
	if to != kv.MemberRemoved {
		return nil
	}
	for _, t := range []kv.AlarmType{kv.AlarmNoSpace, kv.AlarmCorrupt} {
		if _, err := b.applyAlarm(kv.Alarm{Replica: m.Replica, Type: t}); err != nil {
			return err
		}
	}
	must(b.wb.Delete(memberKey(m.Replica), nil))
	members, err := readMembers(b.h.db)
	if err != nil {
		return err
	}
	lowest := uint64(0)
	for i := range members {
		if v := uint64(members[i].Version); members[i].Replica != m.Replica && (lowest == 0 || v < lowest) {
			lowest = v
		}
	}
	if lowest != 0 {
		b.st.clusterVersion = lowest
	}
	return nil
}

func readMembership(r pebble.Reader, replica uint64) (*kv.Membership, error) {
	key := membershipKey(replica)
	value, closer, err := r.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	m, err := decodeMembership(key, value)
	return &m, errors.Join(err, closer.Close())
}

// readMemberships returns the records, and for each first member that has none
// the one that what it said of itself amounts to.
func readMemberships(r pebble.Reader) ([]kv.Membership, error) {
	it, err := r.NewIter(spaceBounds(spaceMembership))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var all []kv.Membership
	recorded := map[uint64]bool{}
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		m, err := decodeMembership(it.Key(), value)
		if err != nil {
			return nil, err
		}
		recorded[m.Replica] = true
		all = append(all, m)
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	announced, err := readMembers(r)
	if err != nil {
		return nil, err
	}
	for i := range announced {
		if m := &announced[i]; !recorded[m.Replica] {
			all = append(all, kv.Membership{State: kv.MemberVoter, Replica: m.Replica, ID: m.ID, Name: m.Name, PeerAddress: m.PeerAddress})
		}
	}
	slices.SortFunc(all, func(a, b kv.Membership) int { return cmp.Compare(a.Replica, b.Replica) })
	return all, nil
}

func decodeMembership(key, b []byte) (kv.Membership, error) {
	c, err := kv.DecodeCommand(slices.Clone(b))
	if err != nil || c.Kind != kv.KindMembership || c.Membership.Step != kv.MembershipRecord {
		return kv.Membership{}, corrupt(key, "membership")
	}
	return c.Membership, nil
}
