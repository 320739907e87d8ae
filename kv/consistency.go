package kv

import "time"

// Consistency says how new the state must be that a read sees. The zero value
// is a linearizable read.
type Consistency struct {
	// Stale takes this node's state as it is.
	Stale bool
	// MinRevision, when not 0, waits until this node has applied that revision,
	// in place of the linearizable round.
	MinRevision uint64
	// MaxStaleness, when not 0, refuses the read if this node's last completed
	// linearizable round began longer ago.
	MaxStaleness time.Duration
}
