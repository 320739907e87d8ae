package api

import "encoding/json"

// Grant is the body of POST /v1/leases.
type Grant struct {
	// ID is the lease's id, a ULID, or its number, as decimal digits; empty lets
	// the server choose.
	ID string `json:"id,omitempty"`
	// TTLSeconds is the time to live, with at most three decimals.
	TTLSeconds float64 `json:"ttl_seconds"`
}

// Granted is the answer to a grant and to the renewal of one lease.
type Granted struct {
	// ID is a ULID, Number the same lease's number in decimal digits.
	ID     string `json:"id"`
	Number string `json:"number"`
	// TTLSeconds is the time to live, counted from when the request was sent.
	TTLSeconds float64 `json:"ttl_seconds"`
}

// Lease is a lease as a read has it.
type Lease struct {
	// ID is a ULID, Number the same lease's number in decimal digits.
	ID     string
	Number string
	// TTLSeconds is the time to live that a renewal gives.
	TTLSeconds float64
	// RemainingSeconds is how long the lease lives at least if nobody renews it,
	// counted from when the request was sent. At 0 it may end at any moment. A
	// weaker read than a linearizable one knows it as of the state that it read.
	RemainingSeconds float64
	// KeyCount is the number of attached keys.
	KeyCount uint64
	// Keys are the attached keys, when they were asked for: one page of them.
	Keys       [][]byte
	More       bool
	NextCursor string
}

type leaseJSON struct {
	ID               string   `json:"id"`
	Number           string   `json:"number"`
	TTLSeconds       float64  `json:"ttl_seconds"`
	RemainingSeconds float64  `json:"remaining_seconds"`
	KeyCount         uint64   `json:"key_count"`
	Keys             []string `json:"keys,omitempty"`
	KeysBase64       []string `json:"keys_base64,omitempty"`
	More             bool     `json:"more,omitempty"`
	NextCursor       string   `json:"next_cursor,omitempty"`
}

// MarshalJSON writes the lease as the server does.
func (l Lease) MarshalJSON() ([]byte, error) {
	text, b64 := splitList(l.Keys)
	return json.Marshal(leaseJSON{
		l.ID, l.Number, l.TTLSeconds, l.RemainingSeconds, l.KeyCount, text, b64, l.More, l.NextCursor,
	})
}

// UnmarshalJSON reads either form of the keys.
func (l *Lease) UnmarshalJSON(b []byte) error {
	var w leaseJSON
	if err := decode("lease", b, &w); err != nil {
		return err
	}
	keys, err := joinList("keys", w.Keys, w.KeysBase64)
	if err != nil {
		return err
	}
	*l = Lease{w.ID, w.Number, w.TTLSeconds, w.RemainingSeconds, w.KeyCount, keys, w.More, w.NextCursor}
	return nil
}

// Leases is a page of leases, in the order of their ids.
type Leases struct {
	Leases     []Lease `json:"leases"`
	More       bool    `json:"more"`
	NextCursor string  `json:"next_cursor,omitempty"`
}

// Revoked is the answer to the revocation of a lease.
type Revoked struct {
	// Revision is the revision of the store after it, at which the keys were
	// deleted if there were some.
	Revision uint64 `json:"revision"`
	// Deleted counts the keys that were deleted with the lease.
	Deleted uint64 `json:"deleted"`
}

// Renew is the body of POST /v1/leases/keepalive.
type Renew struct {
	// IDs are ids or numbers of leases.
	IDs []string `json:"ids"`
}

// Renewed is the answer to the renewal of several leases.
type Renewed struct {
	// Leases has a line for each id, in the order in which they were given.
	Leases []Renewal `json:"leases"`
}

// Renewal is what became of the renewal of one lease.
type Renewal struct {
	// ID is the ULID of the lease; of one that does not exist, what was asked
	// for.
	ID string `json:"id"`
	// Number is the lease's number, in decimal digits.
	Number string `json:"number,omitempty"`
	// TTLSeconds is the time to live that begins now.
	TTLSeconds float64 `json:"ttl_seconds,omitempty"`
	// Error is empty, or why the lease was not renewed: CodeLeaseNotFound.
	Error Code `json:"error,omitempty"`
}

// Events of the stream that holds a lease. The first is EventHeld, whose data is
// a [Granted]; the data of the others is a [LeaseEnd]. EventLeaseNotFound and
// EventDraining end the stream.
//
// In the stream that holds several the data is always a [Renewed], of the leases that
// the event is about, in the first event of all that were asked for. EventLeaseNotFound
// ends that stream only when no lease is left.
const (
	EventHeld = "held"
	// EventDoubtful: for its whole time to live the node could not renew the lease,
	// so it may have ended, if others have a leader whom this node does not reach.
	// EventHeld follows if it was renewed after all.
	EventDoubtful = "doubtful"
	// EventLeaseNotFound: the lease has ended, or was revoked.
	EventLeaseNotFound = "lease-not-found"
	// EventDraining: the node shuts down. The lease lives on for two thirds of its
	// time to live at least; hold it on another node. A watch ends with it, too.
	EventDraining = "draining"
)

// LeaseEnd is the data of the events that tell of the end, certain or possible,
// of the hold of a lease.
type LeaseEnd struct {
	ID string `json:"id"`
}
