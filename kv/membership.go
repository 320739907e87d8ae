package kv

import (
	"encoding/binary"

	"github.com/oklog/ulid/v2"
)

// MemberState is where a member stands. The replicated record says what is
// wanted; the leader brings the Raft configuration to it and records that with
// MembershipSettle. Numbers are part of the format.
type MemberState uint8

const (
	// MemberPending has a replica id and a token with which nobody has come yet.
	MemberPending MemberState = 1
	// MemberJoining has come with its token and is to become a learner.
	MemberJoining MemberState = 2
	// MemberLearner receives the log and does not vote.
	MemberLearner MemberState = 3
	// MemberPromoting is a learner that is to vote.
	MemberPromoting MemberState = 4
	MemberVoter     MemberState = 5
	// MemberRemoving is still in the Raft configuration and is to leave it.
	MemberRemoving MemberState = 6
	// MemberRemoved is for ever: its replica id is never given again.
	MemberRemoved  MemberState = 7
	memberStateEnd MemberState = 8
)

var memberStateWords = [memberStateEnd]string{
	MemberPending: "pending", MemberJoining: "joining", MemberLearner: "learner", MemberPromoting: "promoting",
	MemberVoter: "voter", MemberRemoving: "removing", MemberRemoved: "removed",
}

// String returns the word of the API.
func (s MemberState) String() string {
	if s < memberStateEnd && s != 0 {
		return memberStateWords[s]
	}
	return "unknown"
}

// MembershipStep says what a command does to a membership.
type MembershipStep uint8

const (
	// MembershipRecord is no step but a record.
	MembershipRecord MembershipStep = 0
	// MembershipAdd reserves a replica id, beyond all that were ever given, and
	// stores the hash of a join token.
	MembershipAdd MembershipStep = 1
	// MembershipJoin uses a token up. Whoever repeats it with the same claim gets
	// the same member.
	MembershipJoin MembershipStep = 2
	// MembershipPromote asks for a learner to vote, MembershipRemove for a member
	// to leave.
	MembershipPromote MembershipStep = 3
	MembershipRemove  MembershipStep = 4
	// MembershipSettle records that the Raft configuration is what State says.
	MembershipSettle  MembershipStep = 5
	membershipStepEnd MembershipStep = 6
)

// Membership is a member's place in the cluster, and the change of one.
type Membership struct {
	Step  MembershipStep
	State MemberState
	// Replica is the Raft replica id.
	Replica uint64
	ID      ulid.ULID
	Name    string
	// PeerAddress is where its peers reach it; empty until it has joined.
	PeerAddress string
	// Token is the SHA-256 of the join token, Claim who used it.
	Token [32]byte
	Claim ulid.ULID
	// ExpiresMillis is when the token ends, by the wall clock of commands.
	ExpiresMillis int64
	// Learner says that it stays one until it is promoted by command.
	Learner bool
	// Voted says of a member that is being removed that it may be a voter.
	Voted bool
	// Floor, in a command, is a replica id at or below which none is free: the
	// first members have theirs from before there was any state.
	Floor uint64
}

// InRaft reports whether the Raft configuration may have the member.
func (m *Membership) InRaft() bool {
	return m.State != MemberPending && m.State != MemberRemoved
}

func appendMembership(b []byte, m *Membership) []byte {
	b = append(b, byte(m.Step), byte(m.State))
	b = binary.AppendUvarint(b, m.Replica)
	b = binary.AppendUvarint(b, m.Floor)
	b = append(b, m.ID[:]...)
	b = appendString(b, m.Name)
	b = appendString(b, m.PeerAddress)
	b = append(b, m.Token[:]...)
	b = append(b, m.Claim[:]...)
	b = binary.AppendVarint(b, m.ExpiresMillis)
	return append(b, boolByte(m.Learner), boolByte(m.Voted))
}

func (d *decoder) membership() (m Membership) {
	m.Step = MembershipStep(d.byte())
	m.State = MemberState(d.byte())
	m.Replica, m.Floor = d.uvarint(), d.uvarint()
	m.ID = d.lease()
	m.Name = d.string()
	m.PeerAddress = d.string()
	copy(m.Token[:], d.take(len(m.Token)))
	m.Claim = d.lease()
	m.ExpiresMillis = d.varint()
	m.Learner, m.Voted = d.bool(), d.bool()
	if d.err == nil && (m.Step >= membershipStepEnd || m.State >= memberStateEnd) {
		d.fail("step %d to member state %d", m.Step, m.State)
	}
	return m
}
