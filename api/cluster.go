package api

// States of a member.
const (
	// MemberPending: a replica id and a token, to which no node belongs yet.
	MemberPending = "pending"
	// MemberJoining: its node has shown the token.
	MemberJoining = "joining"
	// MemberLearner: it receives everything and does not vote.
	MemberLearner   = "learner"
	MemberPromoting = "promoting"
	MemberVoter     = "voter"
	MemberRemoving  = "removing"
	MemberRemoved   = "removed"
)

// ClusterMember is a member, its place in the cluster, and how it is.
type ClusterMember struct {
	// ID is empty for a first member that was never started.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Replica is the Raft replica id. None is ever given twice.
	Replica     uint64 `json:"replica"`
	State       string `json:"state"`
	KeepLearner bool   `json:"keep_learner,omitempty"`
	PeerAddress string `json:"peer_address,omitempty"`
	ClientURL   string `json:"client_url,omitempty"`
	Version     uint32 `json:"version,omitempty"` // of the command set that it speaks
	Leader      bool   `json:"leader"`
	// Healthy says that it answered and that its linearizable rounds succeed.
	Healthy bool `json:"healthy"`
	// AppliedIndex is set if it answered, and Lag, how many entries of the log it
	// is behind the member that was asked.
	AppliedIndex *uint64 `json:"applied_index,omitempty"`
	Lag          *uint64 `json:"lag,omitempty"`
}

// ClusterMembers is the answer to GET /v1/cluster/members.
type ClusterMembers struct {
	Members []ClusterMember `json:"members"`
}

// Cluster is the answer to GET /v1/cluster.
type Cluster struct {
	ClusterID      string `json:"cluster_id"`
	ClusterVersion uint32 `json:"cluster_version"`
	// Leader is the id of the member that leads, or empty.
	Leader        string          `json:"leader"`
	Voters        int             `json:"voters"`
	HealthyVoters int             `json:"healthy_voters"`
	Quorum        int             `json:"quorum"`
	Members       []ClusterMember `json:"members"`
}

// AddMember is the body of POST /v1/cluster/members.
type AddMember struct {
	Name string `json:"name,omitempty"`
	// Learner says that it stays one until it is promoted by command.
	Learner bool `json:"learner,omitempty"`
	// TokenTTLSeconds is how long the token is good; a day by default.
	TokenTTLSeconds float64 `json:"token_ttl_seconds,omitempty"`
}

// AddedMember is the answer to it. The token is told this once.
type AddedMember struct {
	Member    ClusterMember `json:"member"`
	JoinToken string        `json:"join_token"`
	ExpiresAt Time          `json:"expires_at"`
}

// TransferLeader is the body of POST /v1/cluster/leader.
type TransferLeader struct {
	Member string `json:"member,omitempty"`
}

// ClusterLeader is the answer to it.
type ClusterLeader struct {
	Leader string `json:"leader"`
}

// JoinRequest is the body of POST /v1/cluster/join.
type JoinRequest struct {
	Token       string `json:"token"`
	Claim       string `json:"claim"`
	Name        string `json:"name,omitempty"`
	PeerAddress string `json:"peer_address"`
}

// Joined is the answer to it.
type Joined struct {
	ClusterID   string `json:"cluster_id"`
	MemberID    string `json:"member_id"`
	Replica     uint64 `json:"replica"`
	Name        string `json:"name"`
	PeerAddress string `json:"peer_address"`
	Peers       []Peer `json:"peers"`
}

// Peer is where another member is.
type Peer struct {
	Replica     uint64 `json:"replica"`
	PeerAddress string `json:"peer_address"`
}
