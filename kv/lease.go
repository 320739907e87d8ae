package kv

import "github.com/oklog/ulid/v2"

// LeaseID names a lease. The zero value means "no lease".
type LeaseID = ulid.ULID

// LeaseState is what a store knows of a lease.
type LeaseState struct {
	ID LeaseID
	// Number is the lease's other name: positive, below 2^63.
	Number    int64
	TTLMillis int64
	// RemainingMillis is how long the lease lives at least if nobody renews it,
	// counted from the moment at which the state was the newest. It is never more
	// than the time to live; at 0 the lease may end at any moment.
	RemainingMillis int64
	// Keys is the number of attached keys.
	Keys uint64
}
