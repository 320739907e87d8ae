package robustness

import "math"

// A Kind says what an operation asks for.
type Kind string

const (
	Put       Kind = "put"
	PutIf     Kind = "put-if" // only if the key is at a revision
	Delete    Kind = "delete"
	Txn       Kind = "txn" // two keys if one is at a revision, else read both
	Get       Kind = "get"
	List      Kind = "list"
	GetStale  Kind = "get-stale"
	ListStale Kind = "list-stale"
)

// writes reports whether an operation of the kind can change something.
func (k Kind) writes() bool { return k == Put || k == PutIf || k == Delete || k == Txn }

// stale reports whether the kind asks for a weaker read.
func (k Kind) stale() bool { return k == GetStale || k == ListStale }

// An Outcome is what an answer promises about an operation.
type Outcome string

const (
	// Done: it took effect, once, between call and return.
	Done Outcome = "done"
	// Refused: its condition did not hold, at one moment between call and
	// return. It changed nothing.
	Refused Outcome = "refused"
	// NotApplied: it changed nothing and says nothing about the state.
	NotApplied Outcome = "not-applied"
	// Unknown: it may take effect at any time after its call, or never.
	Unknown Outcome = "unknown"
)

// never is the return time of an operation of unknown outcome.
const never = math.MaxInt64

// A Version is a key as a client saw it.
type Version struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Create  uint64 `json:"create_revision"`
	Mod     uint64 `json:"mod_revision"`
	Version uint64 `json:"version"`
}

// An Operation is one request and what came of it. It is a line of the recorded
// history.
type Operation struct {
	Client int    `json:"client"`
	Node   int    `json:"node"`
	Kind   Kind   `json:"kind"`
	Key    string `json:"key,omitempty"`
	Other  string `json:"other,omitempty"` // the second key of a transaction
	// Value is unique among all operations of a scenario.
	Value string `json:"value,omitempty"`
	// If is the revision that Key must be at; 0 means that it must not exist.
	If uint64 `json:"if,omitempty"`
	// Repeated counts how often the request was sent again, with the same
	// idempotency key, because its outcome was unknown.
	Repeated int `json:"repeated,omitempty"`

	// Call and Return are nanoseconds since the scenario began.
	Call   int64 `json:"call"`
	Return int64 `json:"return"`
	// Incarnation numbers the process that was asked, among those of its node.
	// It is 0 if the node was started again meanwhile.
	Incarnation int `json:"incarnation,omitempty"`

	Outcome Outcome `json:"outcome"`
	Status  int     `json:"status,omitempty"`
	Code    string  `json:"code,omitempty"`
	Error   string  `json:"error,omitempty"`
	// Revision is the store's revision as of the answer; of an operation of
	// unknown outcome the one at which the history of the store has it.
	Revision uint64 `json:"revision,omitempty"`
	// Current is where a condition that failed found the key.
	Current uint64    `json:"current,omitempty"`
	Created bool      `json:"created,omitempty"`
	Deleted int       `json:"deleted,omitempty"`
	Seen    []Version `json:"seen,omitempty"`
}

// written lists the keys that the operation writes if it takes effect.
func (o *Operation) written() []string {
	switch o.Kind {
	case Put, PutIf, Delete:
		return []string{o.Key}
	case Txn:
		return []string{o.Key, o.Other}
	}
	return nil
}

// read lists the keys that the operation looks at.
func (o *Operation) read() []string {
	switch o.Kind {
	case List, ListStale:
		return keys[:]
	case Txn:
		return []string{o.Key, o.Other}
	}
	return []string{o.Key}
}
