package api

import (
	"encoding/json"
	"time"
)

// AskLock is the body of POST /v1/locks/{name}.
type AskLock struct {
	// Exactly one of the two: the time to live of a lease that the lock gets for
	// itself, or a lease that exists.
	TTLSeconds float64 `json:"ttl_seconds,omitempty"`
	Lease      string  `json:"lease,omitempty"`
	// WaitSeconds is how long to wait for the turn; 0 is not at all.
	WaitSeconds float64 `json:"wait_seconds,omitempty"`
	// Owner is shown to others.
	Owner string `json:"owner,omitempty"`
	// Mode is write (or empty), or read: readers share the lock. With Limit so many
	// share it.
	Mode  string `json:"mode,omitempty"`
	Limit int    `json:"limit,omitempty"`
	// LockDelaySeconds is how long the lock stays closed if it is lost.
	LockDelaySeconds float64 `json:"lock_delay_seconds,omitempty"`
}

// ModeRead is the mode of a lock that readers share.
const ModeRead = "read"

// Lock is a lock that is held.
type Lock struct {
	Name string `json:"name"`
	// Token grows from holder to holder. Fence is what a write carries in
	// HeaderFencing, so that it is refused once this holder has lost the lock.
	Token uint64 `json:"token"`
	Fence string `json:"fence"`
	Lease string `json:"lease"`
	Owner string `json:"owner,omitempty"`
	// Mode is read, or empty; Limit that of a semaphore.
	Mode  string `json:"mode,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// Holder is a lock's holder, as a read has it.
type Holder struct {
	Lock
	Since Time `json:"since"`
}

// LockWaiter is who waits for a lock.
type LockWaiter struct {
	// Place is 1 for the next.
	Place int    `json:"place"`
	Lease string `json:"lease"`
	Owner string `json:"owner,omitempty"`
	Mode  string `json:"mode,omitempty"`
	Limit int    `json:"limit,omitempty"`
	Since Time   `json:"since"`
}

// LockState is who holds a lock and who waits for it.
type LockState struct {
	Name    string   `json:"name"`
	Holders []Holder `json:"holders"`
	// Queue has up to 1,000 in the order of their turns; Waiting counts all.
	Queue   []LockWaiter `json:"queue"`
	Waiting int          `json:"waiting"`
}

// Campaign is the body of POST /v1/elections/{name}. Value is what the candidate
// proclaims when it is elected; the rest is as with a lock.
type Campaign struct {
	TTLSeconds  float64
	Lease       string
	WaitSeconds float64
	Value       []byte
}

type campaignJSON struct {
	TTLSeconds  float64 `json:"ttl_seconds,omitempty"`
	Lease       string  `json:"lease,omitempty"`
	WaitSeconds float64 `json:"wait_seconds,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
}

// MarshalJSON writes the value in the shorter of its forms.
func (c Campaign) MarshalJSON() ([]byte, error) {
	v := splitShort(c.Value)
	return Marshal(campaignJSON{c.TTLSeconds, c.Lease, c.WaitSeconds, v.Text, v.Base64})
}

// Proclaim is the body of PUT /v1/elections/{name}.
type Proclaim struct {
	Token uint64
	Value []byte
}

type proclaimJSON struct {
	Token       uint64  `json:"token"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
}

// MarshalJSON writes the value in the shorter of its forms.
func (p Proclaim) MarshalJSON() ([]byte, error) {
	v := splitShort(p.Value)
	return Marshal(proclaimJSON{p.Token, v.Text, v.Base64})
}

// Proclaimed is the answer to it.
type Proclaimed struct {
	Revision uint64 `json:"revision"`
}

// Leader is who leads, with what it proclaims.
type Leader struct {
	Name  string
	Token uint64
	Fence string
	Lease string
	Value []byte
	// ModRevision and ModifiedAt are those of the value; the latter is missing in
	// the answer to a campaign.
	ModRevision uint64
	ModifiedAt  time.Time
}

type leaderJSON struct {
	Name        string  `json:"name"`
	Token       uint64  `json:"token"`
	Fence       string  `json:"fence"`
	Lease       string  `json:"lease"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
	ModRevision uint64  `json:"mod_revision"`
	ModifiedAt  *Time   `json:"modified_at,omitempty"`
}

// MarshalJSON writes the leader as the server does.
func (l Leader) MarshalJSON() ([]byte, error) {
	v := split(l.Value)
	w := leaderJSON{l.Name, l.Token, l.Fence, l.Lease, v.Text, v.Base64, l.ModRevision, nil}
	if !l.ModifiedAt.IsZero() {
		w.ModifiedAt = &Time{l.ModifiedAt}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads either form of the value.
func (l *Leader) UnmarshalJSON(b []byte) error {
	var w leaderJSON
	if err := decode("leader", b, &w); err != nil {
		return err
	}
	value, err := join("value", pair{w.Value, w.ValueBase64})
	if err != nil {
		return err
	}
	*l = Leader{w.Name, w.Token, w.Fence, w.Lease, value, w.ModRevision, time.Time{}}
	if w.ModifiedAt != nil {
		l.ModifiedAt = w.ModifiedAt.Time
	}
	return nil
}

// Candidate is who would lead next.
type Candidate struct {
	Place int    `json:"place"`
	Lease string `json:"lease"`
	Since Time   `json:"since"`
}

// ElectionState is who leads and who would.
type ElectionState struct {
	Name string `json:"name"`
	// Leader is nil while nobody leads.
	Leader     *Leader     `json:"leader,omitempty"`
	Candidates []Candidate `json:"candidates"`
	Waiting    int         `json:"waiting"`
}

// Vacancy is the data of an event that says that nobody leads.
type Vacancy struct {
	Name string `json:"name"`
}

// WaitingBehind is the data of an event that says that a campaign waits, and
// behind how many others.
type WaitingBehind struct {
	Before int `json:"before"`
}

// Types of events of locks and elections.
const (
	EventLeader   = "leader"
	EventVacant   = "vacant"
	EventWaiting  = "waiting"
	EventAcquired = "acquired"
	EventElected  = "elected"
	// EventError ends a stream with a problem.
	EventError = "error"
)

// Registration is the body of PUT /v1/services/{service}/{instance}.
type Registration struct {
	Address  string            `json:"address,omitempty"`
	Port     int               `json:"port,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// Exactly one of the two, as with a lock.
	TTLSeconds float64 `json:"ttl_seconds,omitempty"`
	Lease      string  `json:"lease,omitempty"`
}

// Instance is a live registration.
type Instance struct {
	Service  string            `json:"service"`
	Instance string            `json:"instance"`
	Address  string            `json:"address,omitempty"`
	Port     int               `json:"port,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// TTLSeconds is the time to live of a lease of its own.
	TTLSeconds float64 `json:"ttl_seconds,omitempty"`
	// Lease is what keeps it alive: renew it, or register again.
	Lease          string `json:"lease"`
	CreateRevision uint64 `json:"create_revision"`
	ModRevision    uint64 `json:"mod_revision"`
	ModifiedAt     Time   `json:"modified_at"`
}

// Instances is a page of a service's registrations, in the order of their names.
type Instances struct {
	Revision  uint64     `json:"revision"`
	Instances []Instance `json:"instances"`
	More      bool       `json:"more"`
}

// Services is a page of the names of services that have an instance, in order.
type Services struct {
	Revision uint64   `json:"revision"`
	Services []string `json:"services"`
	More     bool     `json:"more"`
}
