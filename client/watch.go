package client

import (
	"context"
	"iter"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/internal/sse"
)

// WatchOptions says what a watch hands out. The zero value is every change of
// every key from now on.
type WatchOptions struct {
	// Keys are what is watched. They may overlap: an event comes once. Without
	// any, and without Named, it is [EveryKey].
	Keys []Keys
	// Named are further keys whose events and entries carry the name, of 1 to
	// 255 bytes. Together with Keys they are 1,000 at most.
	Named map[string]Keys

	// From is the first revision of interest. 0 is now: what follows the newest
	// revision that the cluster has when the watch begins. Nothing comes before a
	// revision of the future is reached.
	From uint64
	// Earliest begins where history does, instead of at From.
	Earliest bool
	// Initial hands out the present state first, and then what changes after it.
	// It can't be combined with From and Earliest.
	Initial bool

	// Prev adds to each event the version that it replaced, if there was one.
	Prev bool
	// KeysOnly leaves the values out.
	KeysOnly bool
	// Type is [api.TypePut] or [api.TypeDelete] to see only these events.
	Type string
	// Bookmark, when not 0, asks for a message when there was none for so long:
	// it says up to which revision nothing was missed. 1 s to 1 h.
	Bookmark time.Duration

	// Parts hands out a very large revision in the parts in which it arrives,
	// instead of collecting it in memory first. All but the last have More set.
	// A part comes once, even if the connection breaks between two of them.
	Parts bool
	// OnRetry, when not nil, is told each time that the connection is lost or
	// can't be made, why, and how long the watch pauses. It is called by the
	// goroutine that iterates.
	OnRetry func(err error, pause time.Duration)
}

// WatchKind says what a message of a watch is.
type WatchKind string

const (
	// WatchChange: the events of one revision.
	WatchChange WatchKind = api.EventChange
	// WatchReset: the present state begins. What is known from before, of this
	// state or of another one, is to be forgotten.
	WatchReset WatchKind = "reset"
	// WatchInitial: a part of the present state, in byte order of the keys.
	WatchInitial WatchKind = api.EventInitial
	// WatchSynced: the present state is complete.
	WatchSynced WatchKind = api.EventSynced
	// WatchBookmark: everything up to the revision was handed out.
	WatchBookmark WatchKind = api.EventBookmark
)

// A WatchMessage is what a watch hands out. It is the caller's.
type WatchMessage struct {
	Kind WatchKind
	// Revision is that of the change, of the present state, or of the bookmark.
	Revision uint64
	// Events are those of a WatchChange, in the order of their transaction.
	Events []api.WatchedChange
	// More says that the WatchChange is a part, and that it is not the last one.
	More bool
	// Entries are those of a WatchInitial.
	Entries []api.WatchedEntry
}

// Watch follows what happens to keys: a message for each revision that changes
// some of them, in order, each once, none left out, and its events together.
//
//	for m, err := range c.Watch(ctx, client.WatchOptions{Keys: []client.Keys{client.Prefix("config/")}}) {
//		if err != nil {
//			return err
//		}
//		for _, e := range m.Events {
//			fmt.Println(e.Type, string(e.Key), string(e.Value))
//		}
//	}
//
// It goes on by itself, from the last complete revision, when a connection
// breaks, a node goes away, says nothing for 45 s, or says that it can't reach
// the cluster while there are others: on another endpoint, after
// a pause of a random length within what the node asked for, or one that grows.
// It ends when the loop does, when ctx ends, or with an error:
//
//   - when no node can be reached at the beginning, in the time and the attempts
//     that any call has; later it tries again until ctx ends;
//   - when a node refuses it;
//   - [ErrCompacted], when history no longer has what comes next. The
//     CompactRevision of the problem says from where on it could begin again,
//     with a gap. With Initial there is no such end: the present state is handed
//     out again instead.
//
// With Initial the messages are a WatchReset, the WatchInitial of the present
// state, a WatchSynced, and then a WatchChange for each revision after it. If
// that state breaks off, or a compaction overtakes the watch, all of it begins
// again, with a WatchReset.
//
// A loop that is slow holds up nobody but itself: the cluster keeps what it has
// not taken, as long as history does.
func (c *Client) Watch(ctx context.Context, o WatchOptions) iter.Seq2[WatchMessage, error] {
	return func(yield func(WatchMessage, error) bool) {
		w := watch{c: c, o: &o, yield: yield, fresh: o.Initial}
		if o.From > 0 {
			w.position = o.From - 1
		}
		if err := w.run(ctx); err != nil {
			yield(WatchMessage{}, err)
		}
	}
}

// targetBytes bounds the query of a watch by GET. Not every proxy takes more.
const targetBytes = 4 << 10

// request is what opens the watch, or goes on behind its position.
func (w *watch) request() (*request, *Error) {
	o := w.o
	body := api.WatchRequest{
		Initial: o.Initial, Prev: o.Prev, KeysOnly: o.KeysOnly, Type: o.Type, BookmarkSeconds: seconds(o.Bookmark),
	}
	if !w.placed {
		body.FromRevision, body.Earliest = o.From, o.Earliest
	}
	r := o.get(&body)
	if r == nil {
		r = newRequest(http.MethodPost, "/v1/watch")
		r.write = false
		body.Watches = o.watched()
		if err := r.setJSON(&body); err != nil {
			return nil, err
		}
	}
	r.stream = true
	r.header.Set("Accept", sse.ContentType)
	if w.placed {
		r.header.Set("Last-Event-ID", number(w.position))
	}
	return r, nil
}

// get is the request by GET, or nil if a URL can't say all of it.
func (o *WatchOptions) get(body *api.WatchRequest) *request {
	r := newRequest(http.MethodGet, "/v1/watch")
	q := r.query
	ranges, size := 0, 0
	for _, k := range o.Keys {
		size += 3*(len(k.r.Key)+len(k.r.Prefix)+len(k.r.Start)+len(k.r.End)) + len("&prefix=")
		switch {
		case k.r.Key != nil:
			q.Add("key", string(k.r.Key))
		case k.r.Start != nil || k.r.End != nil:
			ranges++
			k.query(q)
		default:
			q.Add("prefix", string(k.r.Prefix))
		}
	}
	if ranges > 1 || len(o.Named) > 0 || size > targetBytes {
		return nil
	}
	flag := func(name string, set bool) {
		if set {
			q.Set(name, "true")
		}
	}
	flag("initial", body.Initial)
	flag("prev", body.Prev)
	flag("keys_only", body.KeysOnly)
	switch {
	case body.FromRevision > 0:
		q.Set("from_revision", number(body.FromRevision))
	case body.Earliest:
		q.Set("from_revision", api.FromEarliest)
	}
	if body.Type != "" {
		q.Set("type", body.Type)
	}
	if o.Bookmark != 0 {
		q.Set("bookmark", duration(o.Bookmark))
	}
	return r
}

func (o *WatchOptions) watched() []api.Watched {
	var all []api.Watched
	add := func(k Keys, name string) {
		if k.every() {
			k = Prefix("")
		}
		all = append(all, api.Watched{Range: k.r, Name: name})
	}
	for _, k := range o.Keys {
		add(k, "")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Named)) {
		add(o.Named[name], name)
	}
	return all
}
