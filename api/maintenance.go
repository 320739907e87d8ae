package api

// Compact is the body of POST /v1/compact; exactly one field is set.
type Compact struct {
	// Revision is the oldest revision that stays readable.
	Revision uint64 `json:"revision,omitempty"`
	// KeepRevisions keeps that many revisions below the newest.
	KeepRevisions *uint64 `json:"keep_revisions,omitempty"`
	// KeepSeconds keeps what was readable within that time.
	KeepSeconds *float64 `json:"keep_seconds,omitempty"`
}

// CompactResult is the answer to a compaction.
type CompactResult struct {
	Revision uint64 `json:"revision"`
	// CompactRevision is the oldest revision that is readable now.
	CompactRevision uint64 `json:"compact_revision"`
}

// Hash is the hash of everything that can be read at a revision. Two members
// that agree on both revisions and not on the hash differ in content.
type Hash struct {
	Revision        uint64 `json:"revision"`
	CompactRevision uint64 `json:"compact_revision"`
	Hash            string `json:"hash"` // hexadecimal
}

// Status is what one node knows of itself and of its cluster.
type Status struct {
	ClusterID string `json:"cluster_id"`
	MemberID  string `json:"member_id"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	// Leader is the id of the member that leads, or empty.
	Leader             string `json:"leader"`
	IsLeader           bool   `json:"is_leader"`
	Term               uint64 `json:"term"`
	AppliedIndex       uint64 `json:"applied_index"`
	Revision           uint64 `json:"revision"`
	CompactRevision    uint64 `json:"compact_revision"`
	Keys               uint64 `json:"keys"`
	Leases             uint64 `json:"leases"`
	IdempotencyRecords uint64 `json:"idempotency_records"`
	DiskBytes          uint64 `json:"disk_bytes"`
	DiskFreeBytes      uint64 `json:"disk_free_bytes"`
	QuotaBytes         uint64 `json:"quota_bytes"`
	ClusterVersion     uint32 `json:"cluster_version"`
	StartedAt          Time   `json:"started_at"`
	// InTouch: linearizable rounds succeed, so the member has caught up with the leader
	// and counts for a majority, whether it serves or not.
	InTouch bool `json:"in_touch"`
	// LastLinearizableAt is when the last completed linearizable round began.
	LastLinearizableAt *Time       `json:"last_linearizable_at,omitempty"`
	Watches            WatchStatus `json:"watches"`
	Members            []Member    `json:"members"`
	Alarms             []Alarm     `json:"alarms"`
}

// WatchStatus is the watches of one node.
type WatchStatus struct {
	// Open are there, of which Live follow what is applied and Behind read
	// history.
	Open   int `json:"open"`
	Live   int `json:"live"`
	Behind int `json:"behind"`
	// Lag is how many revisions the slowest has before it.
	Lag uint64 `json:"lag"`
	// QueuedBytes wait in their queues, counted for each.
	QueuedBytes int64 `json:"queued_bytes"`
}

// Member is one member of the cluster.
type Member struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Version     uint32 `json:"version"` // of the command set that it speaks
	ClientURL   string `json:"client_url,omitempty"`
	PeerAddress string `json:"peer_address,omitempty"`
}

// Kinds of alarms.
const (
	AlarmNoSpace = "no-space"
	AlarmCorrupt = "corrupt"
)

// Alarm is a condition of a member that an operator has to look at.
type Alarm struct {
	// Member is the id of the member, or empty if it is gone.
	Member string `json:"member"`
	Type   string `json:"type"`
}

// Alarms is the answer to GET /v1/alarms.
type Alarms struct {
	Alarms []Alarm `json:"alarms"`
}

// ClearedAlarms is the answer to DELETE /v1/alarms.
type ClearedAlarms struct {
	Revision uint64 `json:"revision"`
	Cleared  int    `json:"cleared"`
}

// Version is the answer to GET /version.
type Version struct {
	Version        string `json:"version"`
	API            string `json:"api"` // "v1"
	ClusterVersion uint32 `json:"cluster_version"`
	Go             string `json:"go"`
}

// Root is the answer to GET /: what this is and where to go.
type Root struct {
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Cluster string            `json:"cluster"`
	Member  string            `json:"member"`
	Links   map[string]string `json:"links"`
}
