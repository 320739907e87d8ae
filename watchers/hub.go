package watchers

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cairnkv/cairn/kv"
)

// ErrDraining says that the hub is closed, because its member is about to stop.
var ErrDraining = errors.New("watchers: this member is about to stop")

// History is the past of the store that a hub follows.
type History interface {
	View() (View, error)
}

// View is the store at one moment.
type View interface {
	// Revision is the newest revision, Compacted where history begins.
	Revision() uint64
	Compacted() uint64
	// Changes calls fn for the changes from a place on that want accepts, in
	// order, until one of them says that there need be no more. want sees every
	// change. Keys and events are valid during the call only. The error is a
	// *kv.Error with code Compacted if history begins later.
	Changes(ctx context.Context, from kv.Place, want func(at kv.Place, key []byte) (wanted, more bool),
		fn func(sub uint32, e *kv.Event) (more bool, err error)) error
	Close()
}

// Hub hands what is applied to the streams that it concerns. Its methods are
// safe for concurrent use.
type Hub struct {
	history History
	limits  limits
	// scans bounds the reads of history at a time.
	scans chan struct{}
	// pieces are lent to the streams that read history.
	pieces sync.Pool

	queueMu    sync.Mutex
	queue      []applied
	queueBytes int
	ended      bool          // nobody takes from the queue any more
	kick       chan struct{} // level trigger, capacity 1

	// revision is up to where changes are dispatched. It grows after the queues
	// of the streams have what belongs there.
	revision atomic.Uint64
	attached atomic.Int64 // streams in the index

	mu      sync.Mutex
	index   index
	streams map[*Stream]struct{}
	touched []*Stream // reused by dispatch
	closed  bool

	quit    chan struct{} // closed by Close
	done    chan struct{} // closed when the dispatcher has returned
	counted counters
}

type counters struct{ live, past, opened, overflowed, forgotten atomic.Uint64 }

// applied is what a batch did: the changes of the revisions up to to, or nil
// where they are not known.
type applied struct {
	to     uint64
	events []kv.Event
	bytes  int
}

// NewHub starts a hub that is to be told of all that follows revision.
func NewHub(history History, revision uint64) *Hub {
	return newHub(history, revision, defaultLimits)
}

func newHub(history History, revision uint64, l limits) *Hub {
	h := &Hub{
		history: history,
		limits:  l,
		scans:   make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
		kick:    make(chan struct{}, 1),
		streams: map[*Stream]struct{}{},
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	h.pieces.New = func() any { return new(piece) }
	h.revision.Store(revision)
	go h.run()
	return h
}

// Wanted reports whether anybody looks at the events of Applied. The hub may be told of
// revisions without them while nobody does, and at any time where they are too many to be
// held, where a restore ended, or where the content can't be trusted.
func (h *Hub) Wanted() bool { return h.attached.Load() > 0 }

// Applied tells of the revisions that follow the last ones told of, up to to:
// their events in order, or nil when they are not known. The hub keeps the
// events. It never waits.
func (h *Hub) Applied(to uint64, events []kv.Event) {
	a := applied{to: to, events: events}
	for i := range events {
		a.bytes += eventBytes(&events[i])
	}
	h.queueMu.Lock()
	last := len(h.queue) - 1
	switch {
	case h.ended:
	case h.queueBytes+a.bytes > h.limits.queueBytes:
		clear(h.queue)
		h.queue = append(h.queue[:0], applied{to: to})
		h.queueBytes = 0
		h.counted.forgotten.Add(1)
	case events == nil && last >= 0 && h.queue[last].events == nil:
		h.queue[last].to = max(h.queue[last].to, to)
	default:
		h.queue = append(h.queue, a)
		h.queueBytes += a.bytes
	}
	h.queueMu.Unlock()
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// Jumped tells that the store is at revision to now, or was when this was called,
// whatever lies between. It never waits.
func (h *Hub) Jumped(to uint64) { h.Applied(to, nil) }

// Close ends all streams with ErrDraining. What the hub is told afterwards, it
// forgets.
func (h *Hub) Close() {
	h.queueMu.Lock()
	h.queue, h.queueBytes, h.ended = nil, 0, true
	h.queueMu.Unlock()
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.quit)
	}
	h.mu.Unlock()
	<-h.done
}

// run dispatches until the hub is closed.
func (h *Hub) run() {
	defer close(h.done)
	var batch []applied
	for {
		select {
		case <-h.quit:
			return
		case <-h.kick:
		}
		h.queueMu.Lock()
		batch, h.queue = h.queue, batch[:0]
		h.queueBytes = 0
		h.queueMu.Unlock()
		for i := range batch {
			h.dispatch(&batch[i])
		}
		clear(batch)
	}
}

// dispatch puts changes into the queues of the streams that they concern, and
// wakes their readers.
func (h *Hub) dispatch(a *applied) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.to <= h.revision.Load() {
		return // a jump that was overtaken
	}
	if a.events == nil {
		h.forget(a.to)
	}
	for rest := a.events; len(rest) > 0; {
		revision, n := rest[0].Entry.ModRevision, 1
		for n < len(rest) && rest[n].Entry.ModRevision == revision {
			n++
		}
		if h.index.nodes > 0 {
			h.spread(&Change{Revision: revision, Events: rest[:n:n]}, n == len(a.events))
		}
		rest = rest[n:]
	}
	// The revision comes last: whoever sees it finds all up to it in its queue.
	h.revision.Store(a.to)
	for i, s := range h.touched {
		s.touched = false
		s.rouse()
		h.touched[i] = nil
	}
	h.touched = h.touched[:0]
}

// spread hands one change to the streams that it concerns. alone says that nothing else
// was applied with it.
func (h *Hub) spread(c *Change, alone bool) {
	for i := range c.Events {
		c.bytes += eventBytes(&c.Events[i])
	}
	first := len(h.touched)
	// One that no queue takes sends its streams to history: which of its events are
	// theirs nobody needs to know.
	fits := c.bytes <= h.limits.pendingBytes
	for i := range c.Events {
		e := &c.Events[i]
		h.index.visit(e.Entry.Key, func(n *node) {
			for _, m := range n.members {
				s := m.stream
				if c.Revision <= s.floor || !s.wants(e.Type) {
					continue
				}
				if s.matching != c {
					s.matching, s.matched = c, s.matched[:0]
					h.touched = append(h.touched, s)
				}
				if fits {
					s.matched = append(s.matched, int32(i))
				}
			}
		})
	}
	// Each stream that was matched stands once behind first; keep one place for
	// each in the whole list.
	matched := h.touched[first:]
	if fits && len(matched) > 0 && !alone {
		// A queue that has this change must not keep the values of all others that were
		// applied with it: nothing counts these.
		c.Events = slices.Clone(c.Events)
	}
	kept := first
	for _, s := range matched {
		h.push(s, c)
		if !s.touched {
			s.touched = true
			h.touched[kept] = s
			kept++
		}
	}
	clear(h.touched[kept:])
	h.touched = h.touched[:kept]
}

// keptMatched is for how many events of a change a stream keeps the memory of what it
// matched: there are very many streams.
const keptMatched = 64

// push appends a change to the queue of a stream, or detaches it when that is
// full.
func (h *Hub) push(s *Stream, c *Change) {
	s.matching = nil
	s.mu.Lock()
	full := len(s.pending) >= h.limits.pendingChanges || s.pendingBytes+c.bytes > h.limits.pendingBytes
	if !full {
		d := Delivery{Change: c, Shared: true}
		if len(s.matched) < len(c.Events) {
			d.Subset = slices.Clone(s.matched)
		}
		s.pending = append(s.pending, d)
		s.pendingBytes += c.bytes
	}
	s.mu.Unlock()
	if cap(s.matched) > keptMatched {
		s.matched = nil
	}
	if full {
		h.counted.overflowed.Add(1)
		h.detach(s, c.Revision-1)
	}
}

// forget sends to history the streams that revisions up to to could concern.
func (h *Hub) forget(to uint64) {
	if h.attached.Load() == 0 {
		return
	}
	for s := range h.streams {
		if s.members != nil && s.floor < to {
			h.detach(s, h.revision.Load())
			h.touched = append(h.touched, s)
		}
	}
}

// attach enters a stream into the index and returns up to where changes are
// dispatched: what follows comes into its queue.
func (h *Hub) attach(s *Stream) (revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// A batch that is being applied may have been begun while nobody wanted its
	// events. The hub is then told of it without them, which detaches the stream
	// again.
	h.attached.Add(1)
	s.floor = s.Position()
	s.members = make([]*member, len(s.keys))
	for i, r := range s.keys {
		s.members[i] = h.index.add(r, s)
	}
	s.mu.Lock()
	s.live = true
	s.mu.Unlock()
	return h.revision.Load()
}

// detach takes a stream out of the index. Its queue is whole up to a revision.
func (h *Hub) detach(s *Stream, upTo uint64) {
	for _, m := range s.members {
		h.index.remove(m)
	}
	s.members = nil
	h.attached.Add(-1)
	s.mu.Lock()
	s.live, s.upTo = false, upTo
	s.mu.Unlock()
}
