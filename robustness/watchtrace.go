package robustness

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"
)

// An Item is an event of a watch, a version of the history, or an entry of a
// list: they have the same members.
type Item struct {
	Type        string   `json:"type,omitempty"` // put or delete; an entry has none
	Key         string   `json:"key,omitempty"`
	Value       string   `json:"value,omitempty"`
	ContentType string   `json:"content_type,omitempty"`
	Create      uint64   `json:"create_revision,omitempty"`
	Mod         uint64   `json:"mod_revision"`
	Version     uint64   `json:"version,omitempty"`
	Lease       string   `json:"lease,omitempty"`
	ModifiedAt  string   `json:"modified_at,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	Prev        *Item    `json:"prev,omitempty"`
	Names       []string `json:"names,omitempty"`
}

// same reports whether two items tell of the same version, whatever stands
// beside it.
func (a Item) same(b Item) bool {
	a.Type, a.Prev, a.Names = b.Type, nil, nil
	b.Prev, b.Names = nil, nil
	return a.Key == b.Key && a.Value == b.Value && a.ContentType == b.ContentType && a.Create == b.Create &&
		a.Mod == b.Mod && a.Version == b.Version && a.Lease == b.Lease && a.ModifiedAt == b.ModifiedAt && a.Reason == b.Reason
}

// shorten keeps the record small: of a long value its beginning, its length and
// a checksum.
func (a *Item) shorten() {
	a.Value = shortened(a.Value)
	if a.Prev != nil {
		a.Prev.shorten()
	}
}

func shortened(value string) string {
	const enough = 48
	if len(value) <= enough {
		return value
	}
	return fmt.Sprintf("%s…%d,%08x", value[:enough/2], len(value), crc32.ChecksumIEEE([]byte(value)))
}

// A Watched is one key, prefix or range of a watch.
type Watched struct {
	Key    string `json:"key,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	Start  string `json:"start,omitempty"`
	End    string `json:"end,omitempty"`
	Name   string `json:"name,omitempty"`
}

func (w Watched) contains(key string) bool {
	switch {
	case w.Key != "":
		return key == w.Key
	case w.Prefix != "":
		return strings.HasPrefix(key, w.Prefix)
	}
	return key >= w.Start && (w.End == "" || key < w.End)
}

// A Delivery is the form in which a watch comes.
type Delivery string

const (
	Events Delivery = "events" // server-sent events
	Lines  Delivery = "lines"  // NDJSON
	Polls  Delivery = "polls"  // long polls
)

// A WatchSpec is what a watcher asks for on all of its connections.
type WatchSpec struct {
	// Watched are the keys; all keys if there are none.
	Watched  []Watched     `json:"watched,omitempty"`
	Delivery Delivery      `json:"delivery"`
	Post     bool          `json:"post,omitempty"`
	Prev     bool          `json:"prev,omitempty"`
	Initial  bool          `json:"initial,omitempty"`
	KeysOnly bool          `json:"keys_only,omitempty"`
	Type     string        `json:"type,omitempty"`
	Bookmark time.Duration `json:"bookmark,omitempty"`
}

func (s *WatchSpec) contains(key string) bool {
	return len(s.Watched) == 0 || slices.ContainsFunc(s.Watched, func(w Watched) bool { return w.contains(key) })
}

func (s *WatchSpec) wants(e *Item) bool {
	return s.contains(e.Key) && (s.Type == "" || s.Type == e.Type)
}

// names are those that an event must carry.
func (s *WatchSpec) names(key string) []string {
	var names []string
	for _, w := range s.Watched {
		if w.Name != "" && w.contains(key) {
			names = append(names, w.Name)
		}
	}
	return names
}

// A WatchTrace is everything that one watcher asked for and received.
type WatchTrace struct {
	Watcher     int                `json:"watcher"`
	Spec        WatchSpec          `json:"spec"`
	Connections []*WatchConnection `json:"connections"`
}

// A WatchConnection is one request of a watcher and what came of it.
type WatchConnection struct {
	Node int `json:"node"`
	// From is the first revision that was asked for; 0 means now, or the initial
	// state.
	From uint64 `json:"from,omitempty"`
	// Resumed says that From goes on where the connection before ended.
	Resumed bool `json:"resumed,omitempty"`
	// By is how From was said: Last-Event-ID, last_event_id or from_revision.
	By string `json:"by,omitempty"`

	// Opened, Answered and Ended are nanoseconds since the scenario began.
	// Answered is when the headers came; 0 if they never did.
	Opened   int64   `json:"opened"`
	Answered int64   `json:"answered,omitempty"`
	Ended    int64   `json:"ended"`
	Status   int     `json:"status,omitempty"`
	Problem  Problem `json:"problem,omitzero"`
	// Revision is the store's revision as of the headers.
	Revision uint64         `json:"revision,omitempty"`
	Messages []WatchMessage `json:"messages,omitempty"`
	// Reached is up to where the watcher takes everything as received, when the
	// connection ended; 0 if it knows nothing of it, so that it must begin anew.
	Reached uint64 `json:"reached,omitempty"`
	// Begun is the id that a stream of events had at its very beginning, 0 if an
	// event was there first.
	Begun uint64 `json:"begun,omitempty"`
	// Why is what ended it.
	Why string `json:"why,omitempty"`
	// Slow counts how often the watcher stopped reading for a while.
	Slow int `json:"slow,omitempty"`
}

// A WatchMessage is one message of a stream, or one change of a long poll.
type WatchMessage struct {
	At    int64  `json:"at"`
	Event string `json:"event"`
	// ID is the last event id as of this message, of streams of events only.
	ID       uint64 `json:"id,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
	More     bool   `json:"more,omitempty"`
	Events   []Item `json:"events,omitempty"`
	Entries  []Item `json:"entries,omitempty"`
	// ResumeFrom, Compact are of ends.
	ResumeFrom uint64 `json:"resume_from,omitempty"`
	Compact    uint64 `json:"compact_revision,omitempty"`
}

// The names of messages. "reached" is none of a stream: it is how far a long
// poll says that it looked.
const (
	change    = "change"
	initial   = "initial"
	synced    = "synced"
	bookmark  = "bookmark"
	compacted = "compacted"
	draining  = "draining"
	reached   = "reached"
)
