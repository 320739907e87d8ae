package api

import "encoding/json"

// Events of a watch: what a message is. Besides these a stream ends with
// EventDraining.
const (
	// EventChange: a revision, as a [WatchChange].
	EventChange = "change"
	// EventInitial: a part of the present state, as a [WatchInitial].
	EventInitial = "initial"
	// EventSynced: the present state is complete, as a [WatchMark].
	EventSynced = "synced"
	// EventBookmark: everything up to a revision was sent, as a [WatchMark].
	EventBookmark = "bookmark"
	// EventCompacted: history begins behind where the watch is, as a [WatchEnd].
	// It ends the stream, unless the watch asked for the present state, which then
	// follows.
	EventCompacted = "compacted"
	// EventDoubtful says here, as a [WatchEnd], that the node has not reached the
	// cluster for a while: what happens there may not come until it does. The stream
	// goes on, and a client that knows another node goes on there.
	//
	// EventCertain: it reaches the cluster again. Nothing was missed.
	EventCertain = "certain"
)

// WatchRequest is the body of POST /v1/watch.
type WatchRequest struct {
	// Watches are the keys; without any it is every key but those under _cairn/.
	Watches []Watched
	// FromRevision is the first revision to see. 0 is what follows the newest
	// one, or where history begins if Earliest is set.
	FromRevision uint64
	Earliest     bool
	// LastEventID is the id of the last message of an earlier stream.
	LastEventID string
	Initial     bool
	Prev        bool
	KeysOnly    bool
	// Type is TypePut, TypeDelete, or empty for both.
	Type string
	// BookmarkSeconds, when not 0, is after how long without a message there is a
	// bookmark.
	BookmarkSeconds float64
	// WaitSeconds, when not nil, makes it a long poll.
	WaitSeconds *float64
}

type watchRequestJSON struct {
	Watches         []Watched `json:"watches,omitempty"`
	FromRevision    any       `json:"from_revision,omitempty"`
	LastEventID     string    `json:"last_event_id,omitempty"`
	Initial         bool      `json:"initial,omitempty"`
	Prev            bool      `json:"prev,omitempty"`
	KeysOnly        bool      `json:"keys_only,omitempty"`
	Type            string    `json:"type,omitempty"`
	BookmarkSeconds float64   `json:"bookmark_seconds,omitempty"`
	WaitSeconds     *float64  `json:"wait_seconds,omitempty"`
}

// FromEarliest is, as a from_revision, where history begins.
const FromEarliest = "earliest"

// MarshalJSON writes the request as the server reads it.
func (r WatchRequest) MarshalJSON() ([]byte, error) {
	w := watchRequestJSON{
		Watches: r.Watches, LastEventID: r.LastEventID, Initial: r.Initial, Prev: r.Prev,
		KeysOnly: r.KeysOnly, Type: r.Type, BookmarkSeconds: r.BookmarkSeconds, WaitSeconds: r.WaitSeconds,
	}
	switch {
	case r.FromRevision > 0:
		w.FromRevision = r.FromRevision
	case r.Earliest:
		w.FromRevision = FromEarliest
	}
	return Marshal(w)
}

// Watched is what a watch follows: a key, a prefix or a range.
type Watched struct {
	Range
	// Name is what its events carry, unless it is empty.
	Name string
}

// MarshalJSON writes the range as the server reads it.
func (w Watched) MarshalJSON() ([]byte, error) {
	return Marshal(struct {
		rangeJSON
		Name string `json:"name,omitempty"`
	}{w.Range.wire(), w.Name})
}

// WatchChange is one revision, or a part of one: the events that concern the
// watch, in the order of their transaction.
type WatchChange struct {
	Revision uint64          `json:"revision"`
	Events   []WatchedChange `json:"events"`
	// More says that further parts follow. The revision is complete with the part
	// that doesn't say so.
	More bool `json:"more,omitempty"`
}

// WatchInitial is a part of the present state, in byte order of the keys.
type WatchInitial struct {
	Revision uint64         `json:"revision"`
	Entries  []WatchedEntry `json:"entries"`
}

// WatchMark says that everything up to a revision was sent.
type WatchMark struct {
	Revision uint64 `json:"revision"`
}

// WatchEnd says why a stream ends, and where to go on.
type WatchEnd struct {
	// ResumeFrom is the FromRevision of a watch that goes on.
	ResumeFrom uint64 `json:"resume_from"`
	// CompactRevision is where history begins, CurrentRevision where the store
	// is; both only with EventCompacted.
	CompactRevision uint64 `json:"compact_revision,omitempty"`
	CurrentRevision uint64 `json:"current_revision,omitempty"`
}

// WatchLine is a message of a watch as a line of NDJSON: what Event has, of the
// fields below.
type WatchLine struct {
	Event    string          `json:"event"`
	Revision uint64          `json:"revision,omitempty"`
	Events   []WatchedChange `json:"events,omitempty"`
	More     bool            `json:"more,omitempty"`
	Entries  []WatchedEntry  `json:"entries,omitempty"`

	ResumeFrom      uint64 `json:"resume_from,omitempty"`
	CompactRevision uint64 `json:"compact_revision,omitempty"`
	CurrentRevision uint64 `json:"current_revision,omitempty"`
}

// WatchBatch is the answer of a long poll.
type WatchBatch struct {
	// Changes is empty if the wait was over first.
	Changes []WatchChange `json:"changes"`
	// Revision is the one up to which everything was sent; go on behind it.
	Revision uint64 `json:"revision"`
}

// WatchedChange is what happened to one key.
type WatchedChange struct {
	Change
	// Prev is the version that was replaced or deleted, if it was asked for and
	// there was one.
	Prev *Entry
	// Names are those of the watches that the key matches.
	Names []string
}

type watchedChangeJSON struct {
	changeJSON
	Prev  *Entry   `json:"prev,omitempty"`
	Names []string `json:"names,omitempty"`
}

// MarshalJSON writes the event as the server does.
func (e WatchedChange) MarshalJSON() ([]byte, error) {
	return json.Marshal(watchedChangeJSON{changeJSON{e.Type, e.Entry.wire(), e.Reason}, e.Prev, e.Names})
}

// UnmarshalJSON reads a put with all of its entry, or a delete.
func (e *WatchedChange) UnmarshalJSON(b []byte) error {
	var w watchedChangeJSON
	if err := decode("change", b, &w); err != nil {
		return err
	}
	entry, err := w.entry()
	if err != nil {
		return err
	}
	*e = WatchedChange{Change{w.Type, w.Reason, entry}, w.Prev, w.Names}
	return nil
}

// WatchedEntry is an entry of the present state.
type WatchedEntry struct {
	Entry
	// Names are those of the watches that the key matches.
	Names []string
}

type watchedEntryJSON struct {
	entryJSON
	Names []string `json:"names,omitempty"`
}

// MarshalJSON writes the entry as the server does.
func (e WatchedEntry) MarshalJSON() ([]byte, error) {
	return json.Marshal(watchedEntryJSON{e.Entry.wire(), e.Names})
}

// UnmarshalJSON reads either form of key and value.
func (e *WatchedEntry) UnmarshalJSON(b []byte) error {
	var w watchedEntryJSON
	if err := decode("entry", b, &w); err != nil {
		return err
	}
	entry, err := w.entry()
	*e = WatchedEntry{entry, w.Names}
	return err
}
